"""Where on the noise axis the steps of a run are spent."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffusionlab.errors import InputError, shown
from diffusionlab.schedule import NoiseLevel

EDGES = (5.0, 1.0, 0.2)  # karras_sigma: layout is decided above 5, texture below 0.2


def band_shares(levels: Sequence[NoiseLevel], edges: Sequence[float] = EDGES) -> tuple[float, ...]:
    """The share of the steps that begin in each band of karras_sigma, noisiest band first.

    `edges` falls; a level on an edge belongs to the noisier band. Raises InputError.
    """
    if len(levels) < 2:
        raise InputError(f"levels holds {len(levels)} level(s), but a step needs two")
    bounds = [math.inf, *edges]
    if not all(a > b > 0 for a, b in zip(bounds, bounds[1:], strict=False)):
        raise InputError(f"edges {shown(edges)} must fall and be above 0; use e.g. (5.0, 1.0, 0.2)")
    counts = [0] * len(bounds)
    for level in levels[:-1]:
        counts[sum(level.karras_sigma < edge for edge in edges)] += 1
    return tuple(count / (len(levels) - 1) for count in counts)
