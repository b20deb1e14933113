"""What a record says about itself: arrays as one line of numbers, and the rich repr's one door.

Statistics are float64 whatever the array's own type, and never swallow NaN: they count it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

CONVENTION = "x_t = alpha · x0 + sigma · eps"


def to_numpy(value: Any) -> np.ndarray:
    """A NumPy array of a tensor of any library: float16 is kept, bfloat16 becomes float32.

    Duck typed (`.detach()`, `.cpu()`), so that no tensor library is imported. A tensor that lies in
    the computer's own memory is shared, not copied.
    """
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach()
    if str(value.dtype).endswith("bfloat16"):
        value = value.float()
    return value.cpu().numpy()


@dataclass(frozen=True)
class Statistics:
    """Range, mean and standard deviation of the finite values of an array, and how many are not."""

    low: float
    high: float
    mean: float
    std: float
    bad: int
    count: int

    def __str__(self) -> str:
        if self.bad == self.count:
            return f"no finite value among {self.count}"
        text = f"range {self.low:.3g} … {self.high:.3g}, mean {self.mean:.3g}, std {self.std:.3g}"
        return f"{text}, {self.bad} of {self.count} NaN or infinite" if self.bad else text


def statistics(array: Any) -> Statistics:
    """`Statistics` of an array or tensor, computed in float64."""
    values = to_numpy(array).astype(np.float64).ravel()
    good = values[np.isfinite(values)]
    bad = values.size - good.size
    if not good.size:
        return Statistics(np.nan, np.nan, np.nan, np.nan, bad, values.size)
    numbers = (float(f(good)) for f in (np.min, np.max, np.mean, np.std))
    return Statistics(*numbers, bad, values.size)


def describe(name: str, array: Any, axes: str) -> str:
    """One line: name, axes, shape, type, range, mean and std."""
    if array is None:
        return f"{name}: none"
    shape = tuple(array.shape)
    kind = str(array.dtype).removeprefix("torch.")
    return f"{name} ({axes}) = {shape} {kind}, {statistics(array)}"


def describe_level(level: Any) -> str:
    """One line: where on the noise schedule."""
    if level is None:
        return "no noise level (a plain Gaussian)"
    text = f"timestep {level.timestep:g}: alpha {level.alpha:.4g}, sigma {level.sigma:.4g}"
    return f"{text}, karras_sigma {level.karras_sigma:.4g}"


def lines(title: str, *rest: str) -> str:
    """A title and its lines, indented."""
    return "\n".join([title, *(f"  {line}" for line in rest if line)])


def counted(count: int, what: str) -> str:
    """A number with what it counts: "1 step", "20 steps"."""
    return f"{count} {what}{'s' * (count != 1)}"


def byte_count(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of all arrays in a record, each array counted once; images count 3 bytes a pixel."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes
    if hasattr(value, "getbands"):  # a PIL image
        return value.width * value.height * len(value.getbands())
    if is_dataclass(value):
        return sum(byte_count(getattr(value, f.name), seen) for f in fields(value))
    parts = value.values() if isinstance(value, dict) else value
    return (
        sum(byte_count(v, seen) for v in parts)
        if isinstance(parts, (tuple, list)) or (isinstance(value, dict))
        else 0
    )


def size_text(count: int) -> str:
    """A byte count for people: 1 234 567 → 1.23 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


class Shown:
    """A record that draws itself where a notebook asks: the one import that goes upward."""

    def _repr_html_(self) -> str:
        from diffusionlab.display import html_of

        return html_of(self)
