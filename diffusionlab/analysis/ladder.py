"""Step k of N is not a run of k steps: both, and what the long run guessed there, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.same_runs import check_settings, distance, start_off
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Settings, Trace

__all__ = ["Rung", "StepLadder", "climb", "distance", "step_ladder"]


@dataclass(frozen=True, eq=False)
class Rung:
    """One k of a ladder: the run of N steps stopped after k of them, and the run of k steps.

    `stopped` is the latent after step k with `karras_sigma` of noise left over; `x0` is what the
    network held for the clean latent in that step (its first call, made at the level before);
    `finished` is the end of the run of k steps, with `end_karras_sigma` of noise: 0 unless the
    checkpoint's schedule ends before. Images are None where a run has none.
    """

    num_steps: int
    karras_sigma: float
    stopped: np.ndarray
    x0: np.ndarray
    finished: np.ndarray
    stopped_image: Any = None
    x0_image: Any = None
    finished_image: Any = None
    end_karras_sigma: float = 0.0


@dataclass(frozen=True, eq=False)
class StepLadder:
    """The rungs of one long run of `num_steps`, and the check that all runs share their start."""

    num_steps: int
    rungs: tuple[Rung, ...]
    settings: Settings
    start: Residual
    preview: Any = None  # the checkpoint's latent→RGB map, if it has one

    def __str__(self) -> str:
        rows = (
            f"step {r.num_steps} of {self.num_steps}: karras_sigma {r.karras_sigma:.3g} left over; "
            f"{distance(r.stopped, r.finished):.0%} from the run of {r.num_steps} steps, "
            f"whose end is {distance(r.x0, r.finished):.0%} from the x0-hat of that step"
            for r in self.rungs
        )
        return "\n".join(rows)


def step_ladder(
    long: Trace, short: Sequence[Trace], stopped_images: Sequence[Any] = ()
) -> StepLadder:
    """The rungs of a run of N steps and of runs of fewer steps of the same prompt and seed.

    `stopped_images`, if given, are the decoded latents of `long` after as many steps as each of
    `short` has. Raises InputError if a run differs in more than its number of steps.
    """
    given = list(short)
    if not given or stopped_images and len(stopped_images) != len(given):
        raise InputError(
            f"{len(given)} short runs and {len(stopped_images)} images of the stopped run were "
            "given; at least one run is needed, and one image for each, or no images"
        )
    for trace in given:
        _check_same(long, trace)
    images = list(stopped_images) or [None] * len(given)
    rungs = [_rung(long, *pair) for pair in zip(given, images, strict=True)]
    worst = max(start_off(long, trace) for trace in given)
    ordered = tuple(sorted(rungs, key=lambda rung: rung.num_steps))
    start = Residual(worst, 1e-4, "one start noise")
    return StepLadder(len(long.steps), ordered, long.settings, start, long.preview)


def _rung(long: Trace, run: Trace, stopped_image: Any) -> Rung:
    step = long.steps[len(run.steps) - 1]
    if not step.predictions:
        raise InputError('the long run kept no predictions; run again with record={"predictions"}')
    return Rung(
        num_steps=len(run.steps),
        karras_sigma=step.next_level.karras_sigma,
        stopped=numbers(step.next_latent),
        x0=numbers(step.predictions[0].x0),
        finished=numbers(run.steps[-1].next_latent),
        stopped_image=stopped_image,
        x0_image=long.frames[step.index] if long.frames else None,
        finished_image=run.image,
        end_karras_sigma=run.steps[-1].next_level.karras_sigma,
    )


def _check_same(long: Trace, run: Trace) -> None:
    check_settings(long, run, ("num_steps",), "a shorter one")
    if not 1 <= len(run.steps) <= len(long.steps):
        raise InputError(
            f"a run of {len(run.steps)} steps was given beside the long one of {len(long.steps)}; "
            f"1 to {len(long.steps)} are allowed: run it again with so many"
        )


def climb(
    run: Callable[..., Trace],
    num_steps: int,
    at: Sequence[int],
    decode: Callable[[Any], Any] | None = None,
) -> StepLadder:
    """Make the runs of a ladder and set them side by side.

    `run(num_steps=…)` makes one run with predictions (`functools.partial(generate, model, prompt,
    seed=1, record=("predictions", "frames"))`); `decode(latent)`, if given, makes the pictures of
    the stopped run. `at` are the steps to stop after, 1 to num_steps. Raises InputError.
    """
    stops = sorted(set(at)) if isinstance(at, Sequence) and not isinstance(at, str) else []
    if not stops or not all(type(k) is int and 1 <= k <= num_steps for k in stops):
        raise InputError(
            f"at={shown(at)} was given; the steps to stop after are whole numbers from 1 to "
            f"{num_steps}: at=[5, 10, 20]"
        )
    long = run(num_steps=num_steps)
    short = [run(num_steps=k) for k in stops]
    ends = [long.steps[len(trace.steps) - 1].next_latent for trace in short]
    return step_ladder(long, short, [decode(end) for end in ends] if decode else ())
