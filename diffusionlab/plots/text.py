"""The numbers that the text encoder hands to the network."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.text import hidden_of
from diffusionlab.plots.figure import (
    SIGNED,
    SMALL,
    Figure,
    axis_labels,
    canvas,
    colour_bar,
    drawable,
    finish,
    heading,
    not_finite,
)
from diffusionlab.plots.text_space import ordinal
from diffusionlab.trace import TextEmbedding


def plot_text_embedding(
    record: TextEmbedding, *, encoder: int = 0, ax: Axes | None = None
) -> Figure | Axes:
    """One row per token of one text encoder, (tokens, width); equal paddings shown once.

    The U-Net of SDXL reads the rows of two text encoders side by side. The scale is symmetric and
    ends at the 99th percentile of |value|, since single columns of CLIP are far larger than the
    rest. Raises InputError for a text encoder that is not there.
    """
    values, count = hidden_of(record, encoder), len(record.hidden)
    whose = f" of the {ordinal(encoder)} of {count} encoders" if count > 1 else ""
    names, chosen = _rows(record, len(values))
    shown = values[chosen]
    bad = not_finite(values, "made by embed")
    largest = float(np.nanpercentile(np.abs(shown), 99)) or 1.0
    axes = canvas(ax, (13, 1.9 + 0.34 * len(chosen)))
    options = {"aspect": "auto", "interpolation": "nearest", "cmap": SIGNED}
    picture = axes.imshow(shown, vmin=-largest, vmax=largest, **options)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axis_labels(axes, f"number in the row (width {values.shape[1]})", "")
    axes.tick_params(axis="y", labelsize=SMALL, length=0)
    colour_bar(axes, picture, "value, cut at the\n99th percentile")
    size = f"{values.shape[0]} rows × {values.shape[1]} numbers, one row per token"
    heading(axes, f"text embedding{whose}: {size}", bad)
    hidden = len(values) - len(chosen)
    more = f" {hidden} further rows of padding are not drawn." if hidden else ""
    alt = f"Heat map of {len(chosen)} token rows with {values.shape[1]} numbers each{whose}"
    return finish(ax, axes, f"{alt}, between {np.min(shown):.3g} and {np.max(shown):.3g}.{more}")


def _rows(record: TextEmbedding, count: int) -> tuple[list[str], list[int]]:
    """The rows' names and which rows are drawn: all up to the first padding."""
    if record.tokens is None or len(record.tokens.kinds) != count:
        return [f"row {i}" for i in range(count)], list(range(count))
    kinds, pieces = record.tokens.kinds, record.tokens.pieces
    chosen = list(range(kinds.index("pad") + 1 if "pad" in kinds else count))
    pads = kinds.count("pad")
    names = [f"{pieces[i]} (1 of {pads})" if kinds[i] == "pad" else pieces[i] for i in chosen]
    return [drawable(name[:24]) for name in names], chosen
