"""The record of a picture whose every cell a network has named, beside the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffusionlab.trace.summary import Shown, lines


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Shown):
    """Which class covers each cell: as a network says, and as the renderer knows.

    `found` and `true` (rows, columns) hold places in `names`, whose first is "nothing"; `weights`
    counts the network's parameters and `network` says what it is.
    """

    image: Image.Image
    names: tuple[str, ...]
    found: np.ndarray
    true: np.ndarray
    network: str = ""
    weights: int = 0

    def __repr__(self) -> str:
        seen = sorted(set(np.unique(self.true)) | set(np.unique(self.found)))
        rows, columns = self.true.shape
        return lines(
            f"Segmentation of an image of {self.image.size} pixels in {rows} × {columns} cells",
            f"classes found or there: {', '.join(self.names[i] for i in seen)}",
            f"by {self.network}, {self.weights:,} weights; made by name_cells",
        )
