"""What can be said about latents in numbers; every sum is done in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.schedule import NoiseLevel, to_eps, to_x0
from diffusionlab.trace import Latent, Prediction, Trace, to_numpy

__all__ = [
    "Normality",
    "Residual",
    "branch_eps",
    "branch_x0",
    "eps_spread",
    "normality",
    "numbers",
    "residual",
    "residual_of",
    "worst",
]


@dataclass(frozen=True)
class Residual:
    """How far an identity is from 0: the largest |difference| over the largest |value|.

    `name` says which identity that is, e.g. "rows sum to 1".
    """

    relative: float
    tolerance: float
    name: str = ""

    @property
    def holds(self) -> bool:
        """False for NaN too."""
        return bool(self.relative <= self.tolerance)

    def __str__(self) -> str:
        which = f" ({self.name})" if self.name else ""
        return "" if self.holds else f"CHECK FAILED: off by {self.relative:.2g}{which}"


def numbers(value: Any) -> np.ndarray:
    """An array or tensor as float64."""
    return to_numpy(value).astype(np.float64)


def residual(
    latent: Any, x0: Any, eps: Any, level: NoiseLevel, tolerance: float = 1e-3
) -> Residual:
    """Whether x_t − alpha · x0 − sigma · eps = 0, relative to the largest |x_t|."""
    point = numbers(latent)
    off = point - level.alpha * numbers(x0) - level.sigma * numbers(eps)
    with np.errstate(all="ignore"):
        relative = float(np.abs(off).max() / max(np.abs(point).max(), 1e-12))
    return Residual(relative, tolerance, "x_t = alpha x0 + sigma eps")


def residual_of(prediction: Prediction) -> Residual:
    """The residual of a prediction's own x0 and eps."""
    return residual(prediction.latent, prediction.x0, prediction.eps, prediction.level)


def branch_x0(prediction: Prediction, branch: str) -> np.ndarray | None:
    """The x0 that one branch ("cond" or "uncond") alone stands for; None where it was not run."""
    output = getattr(prediction, branch)
    if output is None:
        return None
    kind = prediction.prediction_type
    return numbers(to_x0(output, prediction.latent, prediction.level, kind))


def branch_eps(prediction: Prediction, branch: str) -> np.ndarray | None:
    """The eps that one branch alone stands for; None where it was not run."""
    output = getattr(prediction, branch)
    if output is None:
        return None
    kind = prediction.prediction_type
    return numbers(to_eps(output, prediction.latent, prediction.level, kind))


# ---- checks of a whole run --------------------------------------------------------------------
def worst(checks: Iterable[Residual]) -> Residual:
    """The check that is furthest off; one that is NaN counts as that."""
    return max(checks, key=lambda check: (math.isnan(check.relative), check.relative))


EPS_SPREAD = (0.75, 1.25)  # the true noise has 1; an estimate may be a little off


def eps_spread(trace: Trace) -> tuple[np.ndarray, str]:
    """The standard deviation of eps-hat at each step, and a warning if it is far from 1.

    The true noise has unit variance at every level. eps-hat is an estimate of it, and guidance
    moves it: 0.75 to 1.25 passes.
    """
    found = numbers(trace.eps).reshape(len(trace.steps), -1).std(axis=1)
    low, high = EPS_SPREAD
    good = bool(((found >= low) & (found <= high)).all())
    told = f"WARNING: the std of eps-hat leaves {low} … {high}, that of true noise is 1"
    return found, "" if good else told


# ---- is it Gaussian? --------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Normality:
    """The values of a latent beside N(0, 1), channel by channel.

    `densities` (channels, bins) between `edges`; `means`, `stds`, `distances` (channels,), the last
    being Kolmogorov–Smirnov distances: the largest gap between the values' cumulative distribution
    and that of N(0, 1). `distance` is that of all `count` values together and `bound` what it stays
    below in 95 % of all draws of as many Gaussian numbers.
    """

    edges: np.ndarray
    densities: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    distances: np.ndarray
    distance: float
    bound: float
    count: int
    bad: int

    @property
    def gaussian(self) -> bool:
        """Whether the values pass for independent draws of N(0, 1) at the 5 % level."""
        return bool(self.distance <= self.bound) and not self.bad

    def __str__(self) -> str:
        sign, word = ("≤", "passes for") if self.distance <= self.bound else (">", "is not")
        told = f"{word} N(0, 1): distance {self.distance:.3f} {sign} {self.bound:.3f}"
        return f"{told} (5 % bound for n = {self.count})"


def normality(latent: Latent | np.ndarray, bins: int = 24) -> Normality:
    """How the values (channels, h, w) of a latent are distributed, against N(0, 1).

    The bound is Stephens' for a fully known distribution (JASA 69, 1974, table 1A):
    1.358 / (√n + 0.12 + 0.11 / √n). Errors: InputError for another shape.
    """
    values = numbers(latent.values if isinstance(latent, Latent) else latent)
    if values.ndim != 3 or not values.size:
        raise InputError(
            f"latent of shape {shown(values.shape)}; (channels, h, w) is allowed: take one latent"
        )
    rows = [row[np.isfinite(row)] for row in values.reshape(len(values), -1)]
    good = np.concatenate(rows)
    reach = max(4.0, float(np.abs(good).max(initial=0.0)))
    edges = np.linspace(-reach, reach, bins + 1)
    return Normality(
        edges=edges,
        densities=np.stack([_density(row, edges) for row in rows]),
        means=np.array([row.mean() if row.size else np.nan for row in rows]),
        stds=np.array([row.std() if row.size else np.nan for row in rows]),
        distances=np.array([_distance_from_gaussian(row) for row in rows]),
        distance=_distance_from_gaussian(good),
        bound=_bound(good.size),
        count=good.size,
        bad=values.size - good.size,
    )


def _density(row: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(row, edges)
    return counts / (max(row.size, 1) * np.diff(edges))


def _distance_from_gaussian(row: np.ndarray) -> float:
    if not row.size:
        return math.nan
    expected = np.array([0.5 + 0.5 * math.erf(x / math.sqrt(2)) for x in np.sort(row)])
    places = np.arange(row.size) / row.size
    return float(max((expected - places).max(), (places + 1 / row.size - expected).max()))


def _bound(count: int) -> float:
    root = math.sqrt(max(count, 1))
    return 1.358 / (root + 0.12 + 0.11 / root)
