"""What changed: one run beside the same run with one thing taken away, or put in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.same_runs import check_settings, dice_off, distance
from diffusionlab.analysis.trajectories import Parting, parting
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Trace

__all__ = ["Ablation", "Changed", "ablate"]


@dataclass(frozen=True, eq=False)
class Changed:
    """The run without one thing: how far its end is from the whole run's, and where they part.

    `final` is the root mean square difference of the last latents relative to the whole run's;
    `differences[i]` is that of the latents at the i-th level of both, relative to both.
    """

    name: str
    trace: Trace
    final: float
    parting: Parting

    @property
    def differences(self) -> np.ndarray:
        """(levels,) of numbers from 0."""
        return np.array(self.parting.differences)


@dataclass(frozen=True, eq=False)
class Ablation:
    """A whole run and the changed ones, the largest change first; `start` checks that noises agree.

    `what` says what kind of thing was taken away.
    """

    what: str
    base: Trace
    changed: tuple[Changed, ...]
    start: Residual


def ablate(
    trace: Trace,
    run: Callable[[str], Trace],
    names: Sequence[str],
    *,
    what: str = "part",
    share: float = 0.05,
) -> Ablation:
    """Set a run beside the runs that `run(name)` makes with each named thing taken away.

    `run` repeats the settings of `trace` inside an intervention, e.g. `with zero_tap(model, name):
    return generate(model, prompt, seed=1)`. Two runs part where their latents differ by more than
    `share`. Raises InputError for no names, for runs with other settings or of another path of
    levels, and for what is no trace.
    """
    given = isinstance(names, Sequence) and not isinstance(names, str)
    if not given or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"names is {shown(names)}; a list of at least one name is allowed, each of which "
            'run(name) can take away: ["skip", "down_blocks.0.skips.0"]'
        )
    if not trace.steps:
        raise InputError("the trace has 0 steps: it was stopped before the first; run it again")
    found = [_changed(trace, name, run(name), share) for name in names]
    off = float(np.max([dice_off(trace, changed.trace) for changed in found]))
    order = sorted(found, key=lambda c: -c.final if np.isfinite(c.final) else -np.inf)
    return Ablation(what, trace, tuple(order), Residual(off, 1e-6, "one start noise"))


def _changed(base: Trace, name: str, trace: Trace, share: float) -> Changed:
    if not isinstance(trace, Trace) or not trace.steps:
        raise InputError(
            f"run({shown(name)}) returned {shown(trace, 40)}; a finished Trace is needed: let run "
            "return what generate returns"
        )
    check_settings(base, trace, (), f"run({shown(name)})")
    parted = parting(base, trace, share)
    if len(parted.steps) != len(base.steps) + 1 or len(trace.steps) != len(base.steps):
        raise InputError(
            f"run({shown(name)}) made {len(trace.steps)} steps, of whose levels "
            f"{len(parted.steps)} are among the {len(base.steps) + 1} of the whole run; all must "
            "be the same: let run repeat its settings"
        )
    ends = [numbers(t.steps[-1].next_latent) for t in (trace, base)]
    return Changed(name, trace, distance(*ends), parted)
