"""The path of a run through the space of latents: how bent it is, and where two of them part.

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
    turns = tuple(_angle(a, b) for a, b in zip(moves, moves[1:], strict=False))
    return Curvature(turns, float(lengths.sum() / distance), straightness)


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Between two vectors, in radians; exact for small angles too (Kahan)."""
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if length_a == 0 or length_b == 0:
        return 0.0
    a, b = a / length_a, b / length_b
    return 2 * math.atan2(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b)))


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
