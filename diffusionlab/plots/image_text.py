"""Pictures against captions, in CLIP's common space."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diffusionlab.analysis.image_text import ImageText
from diffusionlab.plots.figure import (
    INK,
    SMALL,
    TEXT,
    Figure,
    canvas,
    colour,
    colour_bar,
    drawable,
    finish,
    heading,
    label,
    not_finite,
    signed,
)
from diffusionlab.plots.text_space import PRINTED, print_values


def plot_image_text(record: ImageText, *, ax: Axes | None = None) -> Figure | Axes:
    """The cosine of every caption (row) with every image (column); true pairs are framed.

    `record` is what `analysis.image_text.image_text` made. Only ranks mean something: a dot marks
    the largest cosine of each column, the caption that the image would be given.
    """
    count = len(record.matrix)
    values = record.matrix.T  # (captions, images)
    axes = canvas(ax, (max(0.95 * count, 3.0) + 6.0, 0.78 * count + 2.9))
    scale = signed(values)
    picture = axes.imshow(values, aspect="auto", interpolation="nearest", **scale)
    if count <= PRINTED:
        print_values(axes, values, "{:.2f}", np.abs(values) > 0.75 * scale["vmax"])
    _frames(axes, values)
    top = _thumbnails(axes, record)
    captions = [_wrapped(caption) for caption in record.captions]
    axes.set_yticks(range(count), captions, parse_math=False)
    axes.tick_params(axis="y", labelsize=SMALL, length=0, colors=INK)
    axes.set_xticks([] if record.images else range(count))
    axes.tick_params(axis="x", labelsize=SMALL, length=0, colors=INK)
    axes.set_xlabel("image (frame: its own caption; mark: the nearest)", fontsize=TEXT, color=INK)
    axes.spines[:].set_visible(False)
    axes.set_ylim(count - 0.5, top)
    centred = ", means subtracted" if record.centred else ""
    colour_bar(axes, picture, f"cosine{centred}")
    bad = not_finite(values, "in the vectors")
    heading(axes, _title(record), bad, "" if bad else record.unit)
    alt = (
        f"Cosines of {count} images with {count} captions: own {record.own:.2f} on average, others "
        f"{record.others:.2f}; {record.images_right:.0%} of images find their caption and "
        f"{record.captions_right:.0%} of captions their image, chance {record.chance:.0%}."
    )
    return finish(ax, axes, alt)


def _title(record: ImageText) -> str:
    count = len(record.matrix)
    shares = (record.images_right, record.captions_right)
    seen, said = (f"{share * count:.3g} of {count}" for share in shares)
    found = f"image finds caption: {seen}, caption finds image: {said}"
    return f"{found}\n(chance: 1 of {count})"


def _wrapped(caption: str) -> str:
    lines = textwrap.wrap(drawable(" ".join(caption.split())), 28) or ["(empty)"]
    return "\n".join(lines if len(lines) < 3 else [lines[0], lines[1][:26] + " …"])


def _frames(axes: Axes, values: np.ndarray) -> None:
    for i in range(len(values)):
        frame = (i - 0.47, i - 0.47)
        axes.add_patch(Rectangle(frame, 0.94, 0.94, fill=False, edgecolor=INK, linewidth=3.5))
        column = values[:, i]
        if np.isfinite(column).all():
            best = int(column.argmax())
            right = colour("green") if best == i else colour("vermilion")
            axes.plot([i + 0.36], [best - 0.32], "o" if best == i else "X", color=right,
                      markersize=11, markeredgecolor="white")  # fmt: skip


def _thumbnails(axes: Axes, record: ImageText) -> float:
    """The images over their columns; returns the upper end of the y axis."""
    for i, image in enumerate(record.images):
        array = np.asarray(image)
        extent = (i - 0.47, i + 0.47, -0.6, -1.75)
        axes.imshow(array, extent=extent, aspect="auto")
        label(axes, i, -1.98, str(i))
    axes.set_xlim(-0.5, len(record.matrix) - 0.5)
    return -2.2 if record.images else -0.5
