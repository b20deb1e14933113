"""Runs beside one another: what each shows at a common place, and how far apart they are there.

"Step 20" of two runs is the same noise level only if both have the same levels, and the same work
only if both call the network as often. So a common place is named in one of three ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.trajectories import ending, for_good, stopped
from diffusionlab.errors import InputError, shown
from diffusionlab.images import spread
from diffusionlab.levels import one_of
from diffusionlab.trace import Trace

ALIGNMENTS = ("step", "karras_sigma", "network_calls")
MOST_PLACES = 100  # of a common scale; more are thinned out evenly
NEAR = 0.1  # of the size of an end: from here on a run has arrived there
SAME_LEVEL = 1e-6  # relative


@dataclass(frozen=True, eq=False)
class Lane:
    """The steps of one run that are looked at: all of them, or every second, the last included.

    `steps` are their numbers, `karras_sigmas` their levels and `first_calls` the numbers, counted
    from 1, of their first network calls. `asked` is how many steps the run was to have, `calls` how
    often it called the network and `end` the karras_sigma that it reached.
    """

    steps: np.ndarray
    karras_sigmas: np.ndarray
    first_calls: np.ndarray
    asked: int
    calls: int
    end: float


def lane(trace: Trace, every: int = 1) -> Lane:
    """The lane of a run. Raises InputError for a run of no step and for `every` below 1."""
    if isinstance(every, bool) or not isinstance(every, Integral) or every < 1:
        raise InputError(f"every is {shown(every)}; a whole number from 1 is allowed, e.g. 2")
    count = len(trace.steps)
    if not count:
        raise InputError(
            f"a run of 0 steps was given ({shown(trace.settings.summary)}); at least one is "
            "needed: leave it out, or run it to the first step"
        )
    kept = np.array([*range(0, count - 1, every), count - 1])
    first = np.cumsum([1, *(step.network_calls for step in trace.steps)])
    ended = not stopped(trace) or trace.image is not None
    return Lane(
        steps=kept,
        karras_sigmas=np.array([trace.steps[i].level.karras_sigma for i in kept]),
        first_calls=first[kept],
        asked=count if ended else trace.settings.num_steps,
        calls=int(first[-1] - 1),
        end=trace.steps[-1].next_level.karras_sigma,
    )


# ---- one place, several runs ------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Alignment:
    """Common places of several runs, and what each run shows there.

    `places` (places,) are steps of the longest run, karras_sigmas, or network calls. `shown`
    (runs, places) counts into each lane's steps; `begun` and `over` (runs, places) say where a run
    that starts at a lower level shows its first step, and one that is at its end its last step.
    """

    by: str
    places: np.ndarray
    shown: np.ndarray
    begun: np.ndarray
    over: np.ndarray


def align(lanes: Sequence[Lane], by: str) -> Alignment:
    """Runs at common places.

    "step": the places are the steps of the longest run; each run shows its step at the nearest
    fraction of its way. "karras_sigma": the places are all levels that the runs visit (thinned out
    evenly above 100), noisiest first; each run shows its last step whose level is not below the
    place's. "network_calls": the places are 1, 2, …; each run shows the step to which that call
    belongs, and its last one when it has made all. Errors: InputError for another name, no run.
    """
    one_of("align", by, ALIGNMENTS)
    if not lanes:
        raise InputError("0 runs were given; at least one is needed")
    return {"step": _by_step, "karras_sigma": _by_level, "network_calls": _by_calls}[by](lanes)


def _by_step(lanes: Sequence[Lane]) -> Alignment:
    longest = max(one.asked for one in lanes)
    every = max(int(np.diff(one.steps).max(initial=1)) for one in lanes)
    places = np.array([*range(0, longest - 1, every), longest - 1], float)
    ways = places / max(longest - 1, 1)  # 0 … 1
    wanted = [ways * (one.asked - 1) for one in lanes]
    shown = [np.abs(one.steps - w[:, None]).argmin(axis=1)
             for one, w in zip(lanes, wanted, strict=True)]  # fmt: skip
    over = [w > one.steps[-1] + 0.5 for one, w in zip(lanes, wanted, strict=True)]
    return Alignment("step", places, np.stack(shown), np.ones_like(over, bool), np.stack(over))


def _by_level(lanes: Sequence[Lane]) -> Alignment:
    levels: list[float] = []
    for sigma in sorted(np.concatenate([one.karras_sigmas for one in lanes]), reverse=True):
        if not levels or sigma < levels[-1] * (1 - SAME_LEVEL):
            levels.append(float(sigma))
    places = np.array([levels[i] for i in spread(len(levels), MOST_PLACES)])
    floors = places * (1 - SAME_LEVEL)  # a level that agrees to rounding is not below
    counts = [(one.karras_sigmas[None] >= floors[:, None]).sum(axis=1) for one in lanes]
    shown = np.maximum(np.stack(counts) - 1, 0)
    over = np.stack([places < one.end for one in lanes])
    return Alignment("karras_sigma", places, shown, np.stack(counts) > 0, over)


def _by_calls(lanes: Sequence[Lane]) -> Alignment:
    most = max(one.calls for one in lanes)
    every = max(int(np.diff(one.steps).max(initial=1)) for one in lanes)
    every = max(every, -(-most // MOST_PLACES))
    places = np.array([*range(1, most, every), most], float)
    shown = [np.searchsorted(one.first_calls, places, side="right") - 1 for one in lanes]
    over = np.stack([places > one.calls for one in lanes])
    return Alignment("network_calls", places, np.stack(shown), np.ones_like(over), over)


# ---- how far apart ----------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Apart:
    """How far runs are from one another, relative to the size of the reference's latent.

    `x0` and `x_t` (references, runs, places): |a − b| / |b| of the x0-hats, or latents, that both
    show at a place. NaN where there is none: not finite, another shape, x0-hat not recorded; of x_t
    also where the two are at different noise levels, for then the noise alone tells them apart.
    """

    x0: np.ndarray
    x_t: np.ndarray


def apart(
    traces: Sequence[Trace], lanes: Sequence[Lane], alignments: Sequence[Alignment]
) -> list[Apart]:
    """The relative L2 distances of all pairs of runs at the places of each alignment."""
    x0 = _pairs([guesses_of(trace) for trace in traces], lanes, alignments)
    x_t = _pairs([numbers(trace.latents) for trace in traces], lanes, alignments, one_level=True)
    return [Apart(*found) for found in zip(x0, x_t, strict=True)]


def guesses_of(trace: Trace) -> np.ndarray | None:
    """x0-hat of each step in float64, None where a step did not record what the network said."""
    return numbers(trace.x0s) if has_x0(trace) else None


def _pairs(
    arrays: list, lanes: Sequence[Lane], alignments: Sequence[Alignment], one_level: bool = False
) -> list[np.ndarray]:
    """One array (references, runs, places) for each alignment; each pair of steps is met once."""
    count, ends = len(arrays), np.cumsum([len(one.places) for one in alignments])[:-1]
    seen = [np.concatenate([a.shown[i] for a in alignments]) for i in range(count)]
    steps = [one.steps[at] for one, at in zip(lanes, seen, strict=True)]
    levels = [one.karras_sigmas[at] for one, at in zip(lanes, seen, strict=True)]
    found = np.full((count, count, len(steps[0])), np.nan)
    sizes = [None if a is None else _lengths(a) for a in arrays]
    for i in range(count):
        for j in range(i, count):
            a, b = arrays[i], arrays[j]
            if a is not None and b is not None and a.shape[1:] == b.shape[1:]:
                (at_i, at_j), back = np.unique([steps[i], steps[j]], axis=1, return_inverse=True)
                off = _lengths(a[at_i] - b[at_j])[back.ravel()]
                found[i, j] = _share(off, sizes[i][steps[i]])
                found[j, i] = _share(off, sizes[j][steps[j]])
            if one_level:
                other = ~np.isclose(levels[i], levels[j], rtol=SAME_LEVEL, atol=0)  # ∞ is ∞
                found[i, j, other] = found[j, i, other] = np.nan
    return np.split(found, ends, axis=2)


def relative_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a − b| / |b| of arrays (n, …), one number for each of n; NaN where one is not finite."""
    return _share(_lengths(a - b), _lengths(b))


def _lengths(arrays: np.ndarray) -> np.ndarray:
    flat = arrays.reshape(len(arrays), -1)
    with np.errstate(all="ignore"):
        return np.sqrt(np.einsum("ij,ij->i", flat, flat))


def _share(off: np.ndarray, size: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        found = off / np.maximum(size, 1e-12)
    return np.where(np.isfinite(found), found, np.nan)


def has_x0(trace: Trace) -> bool:
    """Whether every step recorded what the network said."""
    return all(step.predictions for step in trace.steps)


def to_ends(traces: Sequence[Trace]) -> list[list[np.ndarray | None]]:
    """[reference][run] → distances (steps,) of the run's x0-hats to the reference's end.

    None where there is no such number: x0-hat not recorded, or latents of another shape. The end is
    `trajectories.ending`'s.
    """
    ends = [ending(trace)[0] if has_x0(trace) else None for trace in traces]
    guesses = [guesses_of(trace) for trace in traces]
    return [[_to_end(guess, end) for guess in guesses] for end in ends]


def _to_end(guesses: np.ndarray | None, end: np.ndarray | None) -> np.ndarray | None:
    if guesses is None or end is None or guesses.shape[1:] != end.shape:
        return None
    return _share(_lengths(guesses - end), _lengths(end[None]))


def arrival(distances: np.ndarray, near: float = NEAR) -> int | None:
    """The first step from which on a run stays within `near` of an end; None if it never does."""
    step = int(for_good(distances <= near))  # NaN is not near
    return None if step == len(distances) else step
