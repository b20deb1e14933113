"""How well a picture's cells were named."""

from __future__ import annotations

from diffusionlab.errors import InputError
from diffusionlab.trace import Segmentation


def ious(record: Segmentation) -> dict[str, float]:
    """Intersection over union of each thing that is there or was found, largest first.

    1 where both agree in every cell, 0 where they share none; "nothing" is not a thing.
    Errors: InputError for maps of different shapes.
    """
    found, true = record.found, record.true
    if found.shape != true.shape:
        raise InputError(
            f"found is {found.shape} and true {true.shape}; both need one shape: average the masks "
            "down to the network's cells"
        )
    told = {}
    for place, name in enumerate(record.names[1:], 1):
        either = ((found == place) | (true == place)).sum()
        if either:
            told[name] = float(((found == place) & (true == place)).sum() / either)
    return dict(sorted(told.items(), key=lambda item: -item[1]))


def share_right(record: Segmentation) -> float:
    """The share of all cells, those of nothing included, that have their true name."""
    return float((record.found == record.true).mean())
