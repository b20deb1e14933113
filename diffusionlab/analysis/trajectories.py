"""The path of a run through the space of latents: how bent it is, and where two of them part.

The paths of x_t and of x0-hat are two things: a picture of the first is often only the noise scale.

Paths are looked at in flow coordinates, z = x / (alpha + sigma) at the time sigma / (alpha +
sigma), which are finite at both ends: between a noise and a data point the path is a straight line
there, at constant speed, for every kind of pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.convergence import steps_of
from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.similarity import angle
from diffusionlab.errors import InputError, shown
from diffusionlab.levels import NoiseLevel
from diffusionlab.plan import Step
from diffusionlab.trace import Trace


def path_of(run: Trace | Sequence[Step]) -> tuple[tuple[NoiseLevel, ...], np.ndarray]:
    """The levels of a run and its latents there, (steps + 1, …) in float64."""
    steps = steps_of(run)
    levels = (*(step.level for step in steps), steps[-1].next_level)
    points = [numbers(step.latent) for step in steps] + [numbers(steps[-1].next_latent)]
    return levels, np.stack(points)


CLEAN_END = "the final latent"


def ending(trace: Trace) -> tuple[np.ndarray, str]:
    """What a run ended in, (channels, h, w) in float64, and which of its latents that is.

    The last latent if it is clean, else (a stopped run, or a plan that ends at a little noise) the
    last x0-hat. Errors: InputError for a run without steps or without recorded predictions.
    """
    guesses, last = trace.x0s, trace.steps[-1]
    if stopped(trace):
        return numbers(guesses[-1]), f"the last x0-hat: {stopped(trace)}"
    if last.next_level.sigma == 0:
        return numbers(last.next_latent), CLEAN_END
    left = f"the run ends at karras_sigma {last.next_level.karras_sigma:.2g}"
    return numbers(guesses[-1]), f"the last x0-hat: {left}"


def stopped(trace: Trace) -> str:
    """ "stopped after 3 of 6 steps", or nothing for a run that was finished."""
    done, asked = len(trace.steps), trace.settings.num_steps
    return f"stopped after {done} of {asked} steps" if done < asked else ""


def for_good(holds: np.ndarray) -> np.ndarray:
    """The first step from which on something holds, along axis 0; the number of steps if never."""
    lasting = np.logical_and.accumulate(holds[::-1], axis=0)
    return len(holds) - lasting.sum(axis=0)


# ---- how much x0-hat moves --------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Changes:
    """How far x0-hat moved from the step before: one entry for each step but the first.

    `absolute` is a root mean square in units of the latent, `relative` the same over that of x0-hat
    itself; `calls` are the numbers of the network calls that are compared, the first of each step.
    """

    steps: np.ndarray
    karras_sigmas: np.ndarray
    absolute: np.ndarray
    relative: np.ndarray
    calls: np.ndarray


def changes(trace: Trace) -> Changes:
    """The move of x0-hat at each step. Raises InputError for a run of fewer than two steps."""
    guesses = numbers(trace.x0s)
    count = len(guesses)
    if count < 2:
        raise InputError("a run of 1 step was given; x0-hat moves between steps: use 2 or more")
    moves = _rms(np.diff(guesses, axis=0))
    sizes = _rms(guesses[1:])
    first = np.cumsum([0, *(step.network_calls for step in trace.steps)])
    return Changes(
        steps=np.arange(1, count),
        karras_sigmas=np.array([step.level.karras_sigma for step in trace.steps[1:]]),
        absolute=moves,
        relative=moves / np.where(sizes > 0, sizes, 1.0),
        calls=first[1:count],
    )


def _rms(arrays: np.ndarray) -> np.ndarray:
    """Over all axes but the first."""
    return np.sqrt((arrays.reshape(len(arrays), -1) ** 2).mean(axis=1))


# ---- the path as a picture --------------------------------------------------------------------
ONLY_NOISE = 0.99  # from this correlation on, a first component is called the noise scale


@dataclass(frozen=True, eq=False)
class Path:
    """One path of points: how far each is from its chord, and where along two main directions.

    `off` is each point's distance from the line through both ends, over the length of the chord;
    `scores` (points, 2) are the points along the two main directions (PCA), NaN where a point is
    infinite, and `shares` the parts of the variance that these explain. 0 if nothing moves.
    """

    karras_sigmas: np.ndarray
    off: np.ndarray
    scores: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The paths of x_t and of x0-hat through a run.

    `noise_scale` is the correlation, without its sign, of the first component of x_t with
    karras_sigma: near 1, a picture of that path shows the falling noise level and nothing else.
    """

    latent: Path
    x0: Path
    noise_scale: float

    @property
    def only_noise(self) -> bool:
        """Whether the first component of x_t is only the noise scale."""
        return bool(self.noise_scale > ONLY_NOISE)


def trajectory(trace: Trace) -> Trajectory:
    """Both paths of a run.

    Distances of x_t are taken in flow coordinates, its main directions of x_t / alpha (as samplers
    in karras_sigma hold it, and as such pictures are usually made); x0-hat is clean, so that it is
    the same in all. Errors: InputError for fewer than two steps, or without recorded predictions.
    """
    guesses = numbers(trace.x0s).reshape(len(trace.steps), -1)
    levels, points = path_of(trace)
    if len(levels) < 3:
        raise InputError("a run of 1 step was given, whose path is two points; use 2 or more")
    points = points.reshape(len(levels), -1)
    sigmas = np.array([level.karras_sigma for level in levels])
    alphas, sums = np.array([(level.alpha, level.alpha + level.sigma) for level in levels]).T
    with np.errstate(divide="ignore", invalid="ignore"):
        scores, shares = _main_directions(points / alphas[:, None])
    latent = Path(sigmas, _off_chord(points / sums[:, None]), scores, shares)
    x0 = Path(sigmas[:-1], _off_chord(guesses), *_main_directions(guesses))
    return Trajectory(latent, x0, _same_line(scores[:, 0], sigmas))


def _moves(points: np.ndarray) -> bool:
    return bool(np.ptp(points, axis=0).max() > 1e-5 * np.abs(points).max())


def _off_chord(points: np.ndarray) -> np.ndarray:
    """Distances of points (n, numbers) from the line through the first and the last one."""
    from_start, chord = points - points[0], points[-1] - points[0]
    length = float(np.linalg.norm(chord))
    if length == 0 or not _moves(points):
        return np.zeros(len(points)) if np.isfinite(points).all() else np.full(len(points), np.nan)
    across = (from_start**2).sum(axis=1) - (from_start @ chord / length) ** 2
    return np.sqrt(np.maximum(across, 0)) / length


def _main_directions(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, 2) and shares (2,) of the first two principal components of finite points."""
    good = np.isfinite(points).all(axis=1)
    scores, shares = np.where(good[:, None], np.zeros((len(points), 2)), np.nan), np.zeros(2)
    if good.sum() >= 2 and _moves(points[good]):
        centred = points[good] - points[good].mean(axis=0)
        left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
        scores[good] = (left * strengths)[:, :2]
        shares = (strengths**2 / (strengths**2).sum())[:2]
    return scores, shares


def _same_line(scores: np.ndarray, scale: np.ndarray) -> float:
    """The size of the correlation; 0 where one of them does not vary."""
    good = np.isfinite(scores) & np.isfinite(scale)
    if good.sum() < 3 or scores[good].std() == 0 or scale[good].std() == 0:
        return 0.0
    return float(abs(np.corrcoef(scores[good], scale[good])[0, 1]))


# ---- curvature --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Curvature:
    """How bent one path is: 0, 1 and 0 for a straight one at constant speed.

    `turns` are the angles in radians between neighbouring moves (0 where one of them is no move),
    `length_ratio` the path's length over the distance of its ends, `straightness` the mean square
    difference of the speed from the mean speed, over the square of the latter (arXiv 2209.03003).
    """

    turns: tuple[float, ...]
    length_ratio: float
    straightness: float

    @property
    def total_turn(self) -> float:
        """The sum of all turns, in radians."""
        return sum(self.turns)


def curvature(run: Trace | Sequence[Step]) -> Curvature:
    """The curvature of one run, all its numbers read as one point. Raises InputError for one step.

    paper ↔ name: straightness = Σ Δt · |Δz/Δt - (z_end - z_0)/T|² / |(z_end - z_0)/T|² / T.
    """
    levels, points = path_of(run)
    if len(levels) < 3:
        raise InputError("a run of 1 step was given, which is always straight; use 2 or more")
    sums = np.array([level.alpha + level.sigma for level in levels])
    times = np.array([level.sigma for level in levels]) / sums
    path = points.reshape(len(levels), -1) / sums[:, None]
    moves, gaps = np.diff(path, axis=0), -np.diff(times)
    lengths = np.linalg.norm(moves, axis=1)
    chord = path[-1] - path[0]
    distance = float(np.linalg.norm(chord))
    if distance == 0:
        raise InputError("a run was given that ends where it began; its curvature has no measure")
    mean = chord / gaps.sum()
    off = ((moves / gaps[:, None] - mean) ** 2).sum(axis=1)
    straightness = float((off * gaps).sum() / gaps.sum() / (mean @ mean))
    turns = tuple(angle(a, b) for a, b in zip(moves, moves[1:], strict=False))
    return Curvature(turns, float(lengths.sum() / distance), straightness)


# ---- where two runs part ----------------------------------------------------------------------
@dataclass(frozen=True)
class Parting:
    """Two runs at the levels that both visit: how far apart, and from where on more than `share`.

    `differences[i]` is the root mean square difference at karras_sigmas[i] over that of the latents
    themselves; `steps[i]` says how many steps each run has made there. `at` counts into these, None
    if they never part.
    """

    karras_sigmas: tuple[float, ...]
    differences: tuple[float, ...]
    steps: tuple[tuple[int, int], ...]
    share: float
    at: int | None

    def __str__(self) -> str:
        if self.at is None:
            return f"the runs stay within {self.share:.0%} of each other"
        a, b = self.steps[self.at]
        when = f"step {a}" if a == b else f"steps {a} and {b}"
        level = f"karras_sigma {self.karras_sigmas[self.at]:.3g}"
        return f"the runs differ by more than {self.share:.0%} from {when} on, {level}"


def parting(a: Trace | Sequence[Step], b: Trace | Sequence[Step], share: float = 0.05) -> Parting:
    """Where two runs part: the first shared level whose latents differ by more than a share.

    Levels are the same if their karras_sigma agree to 1e-6. Raises InputError for latents of
    another shape, for a share that is not above 0, and for runs that share fewer than two levels.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < math.inf:
        raise InputError(f"share {shown(share)} must be a number above 0; use e.g. 0.05")
    (levels_a, points_a), (levels_b, points_b) = path_of(a), path_of(b)
    if points_a.shape[1:] != points_b.shape[1:]:
        raise InputError(
            f"runs with latents {points_a.shape[1:]} and {points_b.shape[1:]} were given; "
            "only latents of one shape can be compared"
        )
    pairs = _shared(levels_a, levels_b)
    if len(pairs) < 2:
        raise InputError(
            f"the runs share {len(pairs)} noise level(s), at least 2 are needed; "
            "compare runs of one spacing whose steps divide each other, e.g. 10 and 20"
        )
    found = [_relative(points_a[i], points_b[j]) for i, j in pairs]
    over = [k for k, value in enumerate(found) if not value <= share]  # NaN counts as apart
    sigmas = tuple(levels_a[i].karras_sigma for i, _ in pairs)
    return Parting(sigmas, tuple(found), tuple(pairs), float(share), over[0] if over else None)


def _shared(levels_a: Sequence[NoiseLevel], levels_b: Sequence[NoiseLevel]) -> list:
    pairs, j = [], 0
    for i, level in enumerate(levels_a):
        sigma = level.karras_sigma
        while j < len(levels_b) and levels_b[j].karras_sigma > sigma * (1 + 1e-6):
            j += 1
        if j < len(levels_b) and math.isclose(levels_b[j].karras_sigma, sigma, rel_tol=1e-6):
            pairs.append((i, j))
    return pairs


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    size = math.sqrt((float((a**2).mean()) + float((b**2).mean())) / 2)
    off = math.sqrt(float(((a - b) ** 2).mean()))
    return off / size if size else off
