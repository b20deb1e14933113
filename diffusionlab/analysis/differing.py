"""What two runs were asked for in different ways, and whether they began with the same noise."""

from __future__ import annotations

from dataclasses import dataclass

from diffusionlab.analysis.same_runs import SETTINGS, start_off
from diffusionlab.trace import Settings, Trace

TEXTS = {"sampler": "sampler_text"}  # settings that are told as another text


@dataclass(frozen=True)
class Differing:
    """`differ` holds (setting, a's value, b's value) as texts, `same` (setting, value).

    `start` is how far the start noises are apart, relative to their size: NaN if not finite, None
    if their shapes differ.
    """

    differ: tuple[tuple[str, str, str], ...]
    same: tuple[tuple[str, str], ...]
    start: float | None

    @property
    def same_start(self) -> bool:
        """Whether both runs began with the same noise (to rounding)."""
        return self.start is not None and self.start <= 1e-6


def differing(a: Trace, b: Trace) -> Differing:
    """Two runs' settings side by side. Raises InputError for a run without steps."""
    pairs = [(name, told(a.settings, name), told(b.settings, name)) for name in SETTINGS]
    shapes = [trace.latents.shape[1:] for trace in (a, b)]
    return Differing(
        differ=tuple(pair for pair in pairs if pair[1] != pair[2]),
        same=tuple((name, ours) for name, ours, theirs in pairs if ours == theirs),
        start=start_off(a, b) if shapes[0] == shapes[1] else None,
    )


def told(settings: Settings, name: str) -> str:
    """One setting as a text; a float without needless digits."""
    value = getattr(settings, TEXTS.get(name, name))
    return f"{value:g}" if isinstance(value, float) else str(value)
