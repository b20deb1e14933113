"""How strongly the prompt pulls: a scale, where on the noise axis it holds, and a correction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.schedule import NoiseLevel


@dataclass(frozen=True)
class Guidance:
    """A guidance scale with its options; wherever a scale is taken, this may stand for it.

    scale: guided = uncond + scale · (cond − uncond) (arXiv 2207.12598, Eq. 6, w = scale − 1).
    interval: (low, high) in karras_sigma; outside, the conditional branch alone is run
    (arXiv 2404.07724). rescale: φ in 0…1 draws the guided output's spread back to that of the
    conditional one (arXiv 2305.08891, Eqs. 14–16). Errors: InputError.
    """

    scale: float
    interval: tuple[float, float] | None = None
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not _number(self.scale):
            raise InputError(
                f"guidance_scale is {shown(self.scale)}; a finite number is allowed: 0 is "
                "unconditional, 1 switches guidance off, 3 to 8 is usual"
            )
        if not _number(self.rescale) or not 0 <= self.rescale <= 1:
            raise InputError(
                f"rescale is {shown(self.rescale)}; 0 (off) to 1 is allowed, 0.7 is usual"
            )
        if self.interval is not None:
            object.__setattr__(self, "interval", _interval(self.interval))
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "rescale", float(self.rescale))

    def at(self, level: NoiseLevel) -> float:
        """The scale at a noise level: 1 outside the interval."""
        if self.interval is None:
            return self.scale
        low, high = self.interval
        return self.scale if low < level.karras_sigma <= high else 1.0

    def __str__(self) -> str:
        told = f"{self.scale:g}"
        if self.interval is not None:
            told += f" for karras_sigma in {self.interval[0]:g} … {self.interval[1]:g}"
        return told + (f", rescale {self.rescale:g}" if self.rescale else "")


def as_guidance(scale: Any) -> Guidance:
    """A `Guidance` of a number, or the one that was given."""
    return scale if isinstance(scale, Guidance) else Guidance(scale)


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, str):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, ValueError):
        return False


def _interval(given: Any) -> tuple[float, float]:
    """(low, high) with 0 ≤ low < high; high may be infinite."""
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high:
        raise InputError(
            f"interval is {shown(given)}; two numbers of karras_sigma, low < high, are allowed, "
            "e.g. (0.3, 5)"
        )
    return low, high
