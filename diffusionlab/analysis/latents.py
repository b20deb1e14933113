"""What can be said about latents in numbers; every sum is done in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.schedule import NoiseLevel, to_eps, to_x0
from diffusionlab.trace import Prediction, Trace, statistics, to_numpy

__all__ = ["Residual", "branch_x0", "numbers", "residual", "residual_of", "spread_over_steps"]


@dataclass(frozen=True)
class Residual:
    """How far an identity is from 0: the largest |difference| over the largest |value|."""

    relative: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """False for NaN too."""
        return bool(self.relative <= self.tolerance)

    def __str__(self) -> str:
        return "" if self.holds else f"CHECK FAILED: off by {self.relative:.2g}"


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
        return Residual(float(np.abs(off).max() / max(np.abs(point).max(), 1e-12)), tolerance)


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


def spread_over_steps(trace: Trace) -> np.ndarray:
    """The standard deviation of the latent at every level of a run: (num_steps + 1,)."""
    return np.array([statistics(latent).std for latent in trace.latents])
