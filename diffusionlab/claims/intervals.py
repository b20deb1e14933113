"""Numbers with their intervals: exact ones, shares, means."""

from __future__ import annotations

from collections.abc import Iterable

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


def mean(values: Iterable[float]) -> Measured:
    """The mean with the 95 % interval of bootstrap means (Efron 1979, Ann. Statist. 7, p. 1).

    The resampling is seeded, so that the same values give the same interval.
    """
    found = np.asarray(list(values), np.float64)
    if found.size < 2 or not np.isfinite(found).all():
        raise InputError(f"{found.size} values, some not finite or too few: at least 2 are needed")
    picks = np.random.default_rng(0).integers(found.size, size=(RESAMPLED, found.size))
    low, high = np.quantile(found[picks].mean(axis=1), (0.025, 0.975))
    value = float(found.mean())
    return Measured(
        value, min(float(low), value), max(float(high), value), found.size, "bootstrap, 95 %"
    )
