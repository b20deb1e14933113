"""Diffusion with no weights: worlds whose exact denoiser is a formula, in float64 NumPy.

Here a sampler can be compared with the true answer, so plans are proved on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.schedule import NoiseLevel


@dataclass(frozen=True, eq=False)
class IdealPrediction:
    """What an exact denoiser says at one point: `latent` = alpha·x0 + sigma·eps at `level`."""

    level: NoiseLevel
    latent: np.ndarray
    x0: np.ndarray
    eps: np.ndarray

    @property
    def v(self) -> np.ndarray:
        """alpha·eps - sigma·x0."""
        return self.level.alpha * self.eps - self.level.sigma * self.x0


class GaussianWorld:
    """Data that are independent Gaussians: `mean` and `variance` broadcast with the latents.

    Raises InputError unless both are finite and the variance is not negative.
    """

    def __init__(self, mean: Any = 0.0, variance: Any = 1.0) -> None:
        self.mean = np.asarray(mean, dtype=np.float64)
        self.variance = np.asarray(variance, dtype=np.float64)
        if not np.all(np.isfinite(self.mean)):
            raise InputError(f"mean {shown(mean)} is not finite; use numbers")
        if not np.all(np.isfinite(self.variance) & (self.variance >= 0)):
            raise InputError(f"variance {shown(variance)} must be finite and >= 0")

    def marginal(self, level: NoiseLevel) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the latents at a level: alpha·mean, alpha²·variance + sigma²."""
        return level.alpha * self.mean, level.alpha**2 * self.variance + level.sigma**2

    def x0(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The mean of the data given the latent: mean + alpha·variance/total·(latent - centre)."""
        centre, total = self.marginal(level)
        return self.mean + level.alpha * self._share(self.variance, total) * (latent - centre)

    def eps(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The mean of the noise given the latent: sigma/total·(latent - centre)."""
        centre, total = self.marginal(level)
        return self._share(level.sigma, total) * (latent - centre)

    def predict(self, latent: np.ndarray, level: NoiseLevel) -> IdealPrediction:
        """Both readings at once; this is the `predict` that `plan.denoise` is handed."""
        return IdealPrediction(level, latent, self.x0(latent, level), self.eps(latent, level))

    def flow(self, latent: np.ndarray, level: NoiseLevel, next_level: NoiseLevel) -> np.ndarray:
        """Where the probability-flow ODE takes a latent: what a deterministic sampler converges to.

        A Gaussian keeps its rank, so the latent keeps its number of standard deviations
        (arXiv 2011.13456 section 4.3 for the ODE).
        """
        (centre, total), (next_centre, next_total) = self.marginal(level), self.marginal(next_level)
        return next_centre + np.sqrt(self._share(next_total, total)) * (latent - centre)

    @staticmethod
    def _share(part: Any, total: np.ndarray) -> np.ndarray:
        """part / total, and 0 where a point mass has no noise left (0 / 0)."""
        return np.divide(part, total, out=np.zeros_like(total + part), where=total > 0)
