"""One noise level, and what a network's output means at it: eps, x0 or v.

Every latent obeys `x_t = alpha * x0 + sigma * eps`. The rates are Python floats (float64); the
conversions take NumPy or torch arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusionlab.errors import InputError, close_matches, shown

PREDICTION_TYPES = ("eps", "v", "x0")


@dataclass(frozen=True)
class NoiseLevel:
    """One noise level: the timestep that the network is told, and the pair (alpha, sigma).

    Variance preserving (alpha² + sigma² = 1), variance exploding (alpha = 1) and flow
    (alpha = 1 - sigma) are three choices of the pair. The clean level is (-1, 1.0, 0.0).
    """

    timestep: float
    alpha: float
    sigma: float

    @property
    def karras_sigma(self) -> float:
        """sigma / alpha, infinite where there is no signal."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def snr(self) -> float:
        """alpha² / sigma², infinite where there is no noise."""
        return (self.alpha / self.sigma) ** 2 if self.sigma else math.inf

    @property
    def log_snr(self) -> float:
        """2 · ln(alpha / sigma), infinite at both ends."""
        if not (self.alpha and self.sigma):
            return math.inf if self.alpha else -math.inf
        return 2.0 * math.log(self.alpha / self.sigma)


CLEAN = NoiseLevel(-1.0, 1.0, 0.0)
PAIRS = ("vp", "ve", "flow")


def as_pair(level: NoiseLevel, pair: str) -> NoiseLevel:
    """The same karras_sigma and timestep written as another kind of pair (alpha, sigma).

    "vp": alpha² + sigma² = 1, "ve": alpha = 1, "flow": alpha = 1 - sigma; latents there differ by
    one factor. Raises InputError for an unknown pair, and for "ve" at pure noise (alpha = 0).
    """
    scale = {"vp": math.hypot(level.alpha, level.sigma), "ve": level.alpha,
             "flow": level.alpha + level.sigma}[one_of("pair", pair, PAIRS)]  # fmt: skip
    scale = _nonzero("alpha", scale, "the pair 've'", "use 'vp' or 'flow'")
    return NoiseLevel(level.timestep, level.alpha / scale, level.sigma / scale)


# ---- conversions of a prediction --------------------------------------------------------------
def to_x0(output: Any, latent: Any, level: NoiseLevel, prediction_type: str) -> Any:
    """x0 from what the network said at `latent`; arrays of one shape, NumPy or torch.

    paper ↔ name: v = alpha·eps - sigma·x0 (arXiv 2202.00512, appendix D). Raises InputError for
    eps at alpha = 0.
    """
    alpha, sigma = level.alpha, level.sigma
    if one_of("prediction_type", prediction_type, PREDICTION_TYPES) == "x0":
        return output
    if prediction_type == "v":
        norm = alpha * alpha + sigma * sigma  # 1 for variance-preserving pairs
        return (alpha / norm) * latent - (sigma / norm) * output
    return (latent - sigma * output) / _nonzero("alpha", alpha, "x0 from eps")


def to_eps(output: Any, latent: Any, level: NoiseLevel, prediction_type: str) -> Any:
    """eps from what the network said at `latent`; InputError for x0 at sigma = 0."""
    alpha, sigma = level.alpha, level.sigma
    if one_of("prediction_type", prediction_type, PREDICTION_TYPES) == "eps":
        return output
    if prediction_type == "v":
        norm = alpha * alpha + sigma * sigma
        return (sigma / norm) * latent + (alpha / norm) * output
    return (latent - alpha * output) / _nonzero("sigma", sigma, "eps from x0")


def to_v(output: Any, latent: Any, level: NoiseLevel, prediction_type: str) -> Any:
    """v = alpha·eps - sigma·x0 from what the network said at `latent`; errors as above."""
    if one_of("prediction_type", prediction_type, PREDICTION_TYPES) == "v":
        return output
    x0 = to_x0(output, latent, level, prediction_type)
    eps = to_eps(output, latent, level, prediction_type)
    return level.alpha * eps - level.sigma * x0


def one_of(what: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    """`value` if it is an allowed name, else InputError with close matches and all the names."""
    if isinstance(value, str) and value in allowed:
        return value
    near = close_matches(value, allowed) if isinstance(value, str) else ""
    raise InputError(f"{what} {shown(value)} is unknown: {near}use one of {', '.join(allowed)}")


def _nonzero(what: str, value: float, why: str, remedy: str = "use v-prediction") -> float:
    if value == 0.0:
        raise InputError(f"{what} is 0 at this level: {why} is undefined there; {remedy}")
    return value
