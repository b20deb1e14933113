"""Numbers with their intervals: exact ones, shares, means."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

import numpy as np

from diffusionlab.analysis.pointing import wilson
from diffusionlab.claims.claim import Measured
from diffusionlab.errors import InputError

RESAMPLED = 4000  # bootstrap samples


def exact(value: float) -> Measured:
    """A number that no sampling enters: a count, a size, an equality (0 or 1)."""
    return Measured(float(value), float(value), float(value))


def share(hits: Iterable[bool]) -> Measured:
    """The share of hits with Wilson's 95 % interval (see `analysis.pointing.wilson`)."""
    found = np.asarray(list(hits), bool)
    if not found.size:
        raise InputError("hits []: a share of nothing; draw at least one sample")
    low, high = wilson(int(found.sum()), found.size)
    value = float(found.mean())
    return Measured(value, min(low, value), max(high, value), found.size, "Wilson, 95 %")


def mean(values: Iterable[float], span: tuple[float, float] | None = None) -> Measured:
    """The mean with a 95 % interval that is wide enough for few values too.

    The interval is that of bootstrap means (Efron 1979, Ann. Statist. 7, p. 1), widened as
    Student's t is beside the normal law (Hesterberg 2015, arXiv 1411.5279, section 4.3): a
    percentile interval of eight values would be a quarter too narrow. The resampling is seeded.

    `span`, the least and the largest value that could occur, is for values that are often all the
    same, such as differences of hits: one value at each end is then added and Student's interval
    taken (Agresti and Min 2005, Statist. Med. 24, p. 729), for eight equal values are no proof.
    """
    found = np.asarray(list(values), np.float64)
    if found.size < 2 or not np.isfinite(found).all():
        raise InputError(f"{found.size} values, some not finite or too few: at least 2 are needed")
    value, count = float(found.mean()), found.size
    if span is not None:
        return Measured(value, *_spanned(found, *span), count, "Student of count + 2, 95 %")
    picks = np.random.default_rng(0).integers(count, size=(RESAMPLED, count))
    low, high = np.quantile(found[picks].mean(axis=1), (0.025, 0.975))
    wider = math.sqrt(count / (count - 1)) * student(count - 1) / student(10**6)
    low, high = value - wider * max(value - low, 0), value + wider * max(high - value, 0)
    return Measured(value, low, high, count, "bootstrap, widened, 95 %")


def gained(differences: Iterable[float]) -> Measured:
    """The mean difference of shares or of hits, picture by picture, each from −1 to 1."""
    return mean(differences, span=(-1, 1))


def _spanned(found: np.ndarray, least: float, most: float) -> tuple[float, float]:
    """Student's interval of the values and one at either end of what could occur."""
    if not least <= found.min() <= found.max() <= most:
        raise InputError(
            f"values from {found.min():.3g} to {found.max():.3g}; allowed are {least:g} to {most:g}"
        )
    held, value = np.array([*found, least, most]), found.mean()
    room = student(held.size - 1) * held.std(ddof=1) / math.sqrt(held.size)
    low, high = held.mean() - room, held.mean() + room
    return float(min(max(low, least), value)), float(max(min(high, most), value))


@cache
def student(freedom: int) -> float:
    """The t that 95 % of Student's law of so many degrees of freedom keep within, both ways.

    With t = sqrt(freedom) · tan(angle) its density is cos(angle)^(freedom − 1).
    """
    angle = np.linspace(0, min(np.pi / 2, 8 / math.sqrt(freedom)), 200_001)
    inside = np.cumsum(np.cos(angle[1:] - angle[1] / 2) ** (freedom - 1))
    return float(math.sqrt(freedom) * np.tan(np.interp(0.95 * inside[-1], inside, angle[1:])))
