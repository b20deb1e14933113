"""The judges' segmenter on one scene: an hourglass with skips that names every cell."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..analysis.segmentation import ious
from ..toyland import OBJECTS, Scene, render
from ..trace import Segmentation
from .judge_nets import Segmenter, load_judges, segment
from .judges import DRAWN, class_map


def name_cells(shown: Scene, segmenter: Segmenter | None = None) -> Segmentation:
    """Draw a scene, let a segmenter (None: the shipped one) name its cells, and keep the truth.

    The network sees pixels alone; the truth is the class that covers most of each cell.
    """
    network = load_judges()[1] if segmenter is None else segmenter
    drawn = render(shown, DRAWN)
    return Segmentation(
        image=Image.fromarray(drawn.image),
        names=("nothing", *OBJECTS),
        found=segment(network, drawn.image[None])[0],
        true=class_map(drawn.masks),
        network="the judges' segmenter",
        weights=sum(values.numel() for values in network.parameters()),
    )


def overlaps(scenes: list[Scene], segmenter: Segmenter | None = None) -> np.ndarray:
    """The intersection over union of every thing of every scene, as far as it is there, (n,)."""
    network = load_judges()[1] if segmenter is None else segmenter
    found = (name_cells(shown, network) for shown in scenes)
    return np.array(
        [
            score
            for record in found
            for name, score in ious(record).items()
            if (record.true == record.names.index(name)).any()
        ]
    )
