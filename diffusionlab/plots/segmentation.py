"""A picture, what a network calls each of its cells, and what the renderer knows."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from diffusionlab.analysis.segmentation import ious, share_right
from diffusionlab.images import to_array
from diffusionlab.plots.figure import TEXT, Figure, colour, finish, heading, label
from diffusionlab.plots.sheets import Cell, Sheet
from diffusionlab.trace import Segmentation

HUES = ("vermilion", "blue", "green", "purple", "orange", "sky", "yellow")
GROUND = "#d9d9d9"


def plot_segmentation(record: Segmentation, *, ax: Axes | None = None) -> Figure | Axes:
    """The picture, the cells as the network names them, and as they are; IoU of each thing."""
    scores = ious(record)
    hues = {name: colour(HUES[i % len(HUES)]) for i, name in enumerate(sorted(scores))}
    cells = [
        Cell(to_array(record.image)),
        Cell(_painted(record, record.found, hues)),
        Cell(_painted(record, record.true, hues)),
    ]
    sheet = Sheet([""], ["the picture", "named by the network", "the renderer's own"], [cells], 2.9)
    axes = sheet.axes(ax)
    sheet.draw(axes)
    for column, classes in ((1, record.found), (2, record.true)):
        _names(axes, record, classes, column)
    told = ", ".join(f"{name[:16]} {score:.2f}" for name, score in scores.items()) or "no thing"
    heading(axes, f"{share_right(record):.0%} of the cells right; overlap (IoU): {told}")
    return finish(ax, axes, _alt(record, scores))


def _painted(record: Segmentation, classes: np.ndarray, hues: dict[str, str]) -> np.ndarray:
    """The classes as colours, (rows, columns, 3)."""
    painted = np.full((*classes.shape, 3), to_rgb(GROUND))
    for name, hue in hues.items():
        painted[classes == record.names.index(name)] = to_rgb(hue)
    return painted


def _names(axes: Axes, record: Segmentation, classes: np.ndarray, column: int) -> None:
    """Each thing's name in the middle of its cells; a sheet's pictures are one unit wide."""
    rows, columns = classes.shape
    for place in np.unique(classes):
        down, across = np.nonzero(classes == place)
        if place == 0 or down.size < 0.01 * classes.size:
            continue
        x = column * 1.06 + (np.median(across) + 0.5) / columns
        top = -(np.median(down) + 0.5) / rows
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.85}
        label(axes, x, top, record.names[place][:16], fontsize=TEXT, weight="bold", bbox=box)


def _alt(record: Segmentation, scores: dict[str, float]) -> str:
    told = ", ".join(f"{name} {score:.2f}" for name, score in scores.items()) or "nothing there"
    return (
        f"A picture whose {record.true.size} cells are named by {record.network or 'a network'} of "
        f"{record.weights} weights, beside the renderer's masks: {share_right(record):.0%} of the "
        f"cells have their true name; intersection over union: {told}."
    )
