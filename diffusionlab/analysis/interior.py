"""What passes through the U-Net: what its blocks hand on, and how it is told the time."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.schedule import NoiseLevel
from diffusionlab.trace import Trace

MOST_TAPS, MOST_CHANNELS = 12, 20


# ---- what the blocks hold ---------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Features:
    """What one tap passed on: at one step its liveliest channels, over all steps its size.

    `channels` are the numbers of the channels with the largest variance over space, `maps`
    (channels, h, w) their values and `variances` those variances as shares of all channels'.
    `colours` (h, w, 3) are the first three principal components over all channels, each stretched
    to 0…1 as red, green and blue; `explained` their shares of the variance. `energies` is the root
    mean square over channels and places at each step's first call, `shape` (channels, h, w);
    `bad` counts the values of all these calls that are NaN or infinite.
    """

    tap: str
    step: int
    level: NoiseLevel
    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    maps: np.ndarray
    variances: np.ndarray
    colours: np.ndarray
    explained: np.ndarray
    energies: np.ndarray
    bad: int


def feature_taps(trace: Trace, pattern: str | None = None) -> list[str]:
    """The recorded taps that hold feature maps and match a glob pattern (None: block outputs).

    Raises InputError, with what was recorded, if there is none.
    """
    known = [name for name, array in trace.attention.items() if _holds_features(name, array)]
    wanted = "*output" if pattern is None else pattern
    found = [n for n in known if isinstance(wanted, str) and fnmatch.fnmatchcase(n, wanted)]
    if found:
        return found
    recorded = ", ".join(known) if known else "no feature map"
    close = close_matches(str(wanted), known) if isinstance(wanted, str) else ""
    raise InputError(
        f"tap {shown(wanted)} matches nothing: {close}this run recorded {recorded}; run again "
        'with record={"predictions", "blocks"}, or with the name of a tap'
    )


def _holds_features(name: str, array: Any) -> bool:
    return np.ndim(array) == 4 and not name.endswith("probabilities")


def first_call(trace: Trace, step: Any) -> int:
    """The number of a step's first network call in the run. Raises InputError for no such step."""
    count = len(trace.steps)
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 0 <= step < count:
        raise InputError(
            f"step {shown(step)} was given; this run has steps 0 to {count - 1}: take one of them"
        )
    return sum(trace.steps[i].network_calls for i in range(step))


def step_near(trace: Trace, karras_sigma: float = 1.0) -> int:
    """The step whose level is nearest to a karras_sigma, on a logarithmic scale."""
    if not trace.steps:
        raise InputError("the trace has 0 steps: it was stopped before the first; run it again")
    sigmas = np.array([max(step.level.karras_sigma, 1e-12) for step in trace.steps])
    with np.errstate(all="ignore"):
        return int(np.argmin(np.abs(np.log(sigmas / karras_sigma))))


def features(trace: Trace, tap: str, step: int | None = None, most: int = 6) -> Features:
    """The `Features` of one recorded tap at one step (None: where karras_sigma is nearest to 1).

    `most` channels are kept at the most. Raises InputError for a tap that was not recorded, a step
    that is not there, or a `most` that is not 1 to 20.
    """
    _check_most(most)
    step = step_near(trace) if step is None else step
    values = at_step(trace, tap, step)  # (channels, h, w)
    with np.errstate(all="ignore"):  # a channel that is not finite comes last, and is counted
        spread = np.nan_to_num(values.var(axis=(1, 2)), nan=-1.0, posinf=-1.0)
    order = np.argsort(-spread, kind="stable")[:most]
    total = float(spread[spread > 0].sum()) or 1.0
    colours, explained = principal_colours(values[None])
    calls = [at_step(trace, tap, i) for i in range(len(trace.steps))]
    return Features(
        tap=tap,
        step=int(step),
        level=trace.steps[step].level,
        shape=values.shape,
        channels=tuple(int(i) for i in order),
        maps=values[order],
        variances=spread[order] / total,
        colours=colours[0],
        explained=explained,
        energies=np.array([np.sqrt(np.square(call).mean()) for call in calls]),
        bad=sum(int(call.size - np.isfinite(call).sum()) for call in calls),
    )


def _check_most(most: Any) -> None:
    if type(most) is not int or not 1 <= most <= MOST_CHANNELS:
        raise InputError(
            f"most is {shown(most)}; 1 to {MOST_CHANNELS} channels can be kept: take e.g. 5"
        )


def at_step(trace: Trace, tap: str, step: int) -> np.ndarray:
    """What a tap passed on in a step's first network call, float64 without the call's axis."""
    return numbers(_recorded(trace, tap)[first_call(trace, step)])


def _recorded(trace: Trace, tap: str) -> np.ndarray:
    """One entry per network call of the run."""
    if tap not in trace.attention:
        recorded = ", ".join(trace.attention) or "nothing from inside the network"
        raise InputError(
            f"tap {shown(tap)} was not recorded: {close_matches(str(tap), trace.attention)}this "
            f"run has {recorded}; run again with record={{'predictions', {shown(tap)}}}"
        )
    array = trace.attention[tap]
    if len(array) != trace.network_calls:
        raise InputError(
            f"tap {shown(tap)} holds {len(array)} entries for {trace.network_calls} network calls; "
            "one each is needed: record the run again"
        )
    return array


def principal_colours(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (pictures, channels, h, w) as RGB by their first three principal components.

    The basis and its stretch to 0…1 are the same for all pictures, so that a colour means the same
    in each. Returns colours (pictures, h, w, 3) and the shares of the variance (3,). The sign of a
    component is that which makes its largest weight positive. A place with a value that is not
    finite is left out, and NaN.
    """
    pictures, channels, height, width = values.shape
    flat = np.moveaxis(values, 1, -1).reshape(-1, channels)
    colours = np.full((len(flat), 3), np.nan)
    good = np.isfinite(flat).all(axis=1)
    if not good.any():
        return colours.reshape(pictures, height, width, 3), np.zeros(3)
    flat = flat[good] - flat[good].mean(axis=0)  # (places, channels)
    shares, weights = _principal(flat)
    found = flat @ weights.T  # (places, 3)
    low, high = found.min(axis=0), found.max(axis=0)
    colours[good] = (found - low) / np.where(high > low, high - low, 1)
    return colours.reshape(pictures, height, width, 3), shares


def _principal(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of centred rows (n, channels): the three largest shares of variance, and weights (3, …)."""
    small = flat if flat.shape[1] <= flat.shape[0] else flat.T
    values, vectors = np.linalg.eigh(small.T @ small)
    order = np.argsort(-values)[:3]
    values = np.maximum(values, 0)
    weights = vectors[:, order].T if small is flat else vectors[:, order].T @ flat
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    weights = weights / np.where(lengths > 0, lengths, 1)
    largest = np.take_along_axis(weights, np.abs(weights).argmax(axis=1)[:, None], axis=1)
    weights = weights * np.where(largest < 0, -1, 1)
    missing = 3 - len(order)  # fewer than three channels or places
    shares = np.pad(values[order] / max(values.sum(), 1e-300), (0, missing))
    weights = np.pad(weights, ((0, missing), (0, 0)))
    return shares, np.where(shares[:, None] > 1e-12, weights, 0)  # rounding is no component


# ---- the time ---------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class TimeEmbedding:
    """What the network is told about the time at each step of a run.

    `values` (steps, width) at `timesteps`, the first call of each step; `order` sorts the width by
    how a number changes over the run, falling ones first; `similarity` (steps, steps) is the cosine
    of each two, whose diagonal `check` says is 1.
    """

    timesteps: np.ndarray
    values: np.ndarray
    order: np.ndarray
    similarity: np.ndarray
    check: Residual


def time_embedding(trace: Trace) -> TimeEmbedding:
    """The `TimeEmbedding` of a run. Raises InputError if it did not record the tap "time"."""
    if not trace.steps:
        raise InputError("the trace has 0 steps: it was stopped before the first; run it again")
    if "time" not in trace.attention:
        raise InputError(
            f"this run recorded {', '.join(trace.attention) or 'nothing inside the network'}, but "
            'not the time embedding; run again with record={"predictions", "time"}'
        )
    values = np.stack([at_step(trace, "time", i) for i in range(len(trace.steps))])
    with np.errstate(all="ignore"):
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        similarity = unit @ unit.T
        off = float(np.abs(np.diag(similarity) - 1).max())
    check = Residual(off, 1e-9, "each is like itself")
    timesteps = np.array([step.level.timestep for step in trace.steps], np.float64)
    return TimeEmbedding(timesteps, values, _by_trend(values), similarity, check)


def _by_trend(values: np.ndarray) -> np.ndarray:
    """The numbers of the columns, sorted by last minus first entry; the order is stable."""
    return np.argsort(values[-1] - values[0], kind="stable")
