"""Inside the text encoder: each token through its layers, and which tokens look at which."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle

from diffusionlab.analysis.text_layers import LayerPaths, layer_paths, text_attention
from diffusionlab.plots.figure import (
    HEAT,
    INK,
    QUIET,
    SIGNED,
    SMALL,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    colour_bar,
    drawable,
    finish,
    heading,
    label,
    not_finite,
    panels,
)
from diffusionlab.plots.text_space import (
    PRINTED,
    kind_of_point,
    ordinal,
    place_names,
    print_values,
    share_label,
)
from diffusionlab.trace import TextLayers, Tokens

READ = colour("vermilion")  # the frame around the layer that the U-Net reads


def plot_text_layers(record: TextLayers, *, ax: Axes | None = None) -> Figure | Axes:
    """Each token's row through the layers: its length, how far it turned, and its path in a plane.

    Layer 0 is the vocabulary's row plus the position, before the first layer. Padding is drawn
    once; the layer that the U-Net reads is framed. The plane keeps most of the variance of all
    words and the end token at all layers. The text encoder is named where the model has several.
    """
    found = layer_paths(record)
    names, shown = token_names(record.tokens)
    high = max(2.0 + 0.42 * len(shown), 6.4)
    axes = canvas(ax, (16.5, high))
    low, tall = 0.75 / high, 1 - 1.25 / high
    boxes = [(0.12, low, 0.2, tall), (0.36, low, 0.2, tall), (0.65, low, 0.35, tall)]
    left, middle, right = panels(axes, boxes)
    lengths, turned = found.norms[:, shown].T, found.to_start[:, shown].T  # (tokens, layers + 1)
    good = lengths[np.isfinite(lengths) & (lengths > 0)]
    least, most = (good.min(), good.max()) if good.size else (0.5, 1.0)
    _heat(left, lengths, LogNorm(least, max(most, least * 1.01)), HEAT, "length of the row", found)
    _heat(middle, turned, Normalize(-1, 1), SIGNED, "cosine with layer 0", found)
    left.set_yticks(range(len(names)), names, parse_math=False)
    middle.set_yticks([])
    _paths(right, found, [drawable(record.tokens.pieces[i][:14]) for i in found.rows],
           (5.6, high - 1.9))  # fmt: skip
    bad = not_finite(record.hidden, "in the text encoder's layers")
    count, whose = len(record.hidden) - 1, "text encoder"
    if record.encoders > 1:
        whose = f"{ordinal(record.encoder)} of {record.encoders} text encoders"
    title = f"each token through the {count} layers of the {whose}"
    title += f"; the U-Net reads {found.read} (framed)"
    heading(axes, title, bad, "" if bad else found.closing)
    ends = f"from {np.median(found.norms[0]):.3g} to {np.median(found.norms[-1]):.3g}"
    alt = (
        f"{len(shown)} tokens through {count} layers of the {whose}: the median length goes "
        f"{ends}; the mean cosine with layer 0 ends at "
        f"{found.to_start[-1, shown].mean():.2g}; two axes hold {sum(found.plane.explained):.0%} "
        f"of the variance of all layers. The U-Net reads layer {found.read}."
    )
    return finish(ax, axes, alt)


def token_names(tokens: Tokens) -> tuple[list[str], list[int]]:
    """The positions that are drawn, all up to the first padding, and their names."""
    pads = tokens.kinds.count("pad")
    count = len(tokens.kinds) - max(pads - 1, 0)
    names = [drawable(" ".join(piece.split())[:14]) or "␣" for piece in tokens.pieces[:count]]
    if pads > 1:
        names[-1] = f"{names[-1]} (1 of {pads})"
    return names, list(range(count))


def _heat(
    panel: Axes, values: np.ndarray, norm: Normalize, cmap: str, title: str, found: LayerPaths
) -> None:
    """(tokens, layers + 1) as colours, with numbers where they find room; what is read framed."""
    panel.imshow(values, norm=norm, cmap=cmap, aspect="auto", interpolation="nearest")
    if values.shape[1] <= 5:
        inks = colormaps[cmap](norm(np.ma.masked_invalid(values)))[..., :3].mean(axis=-1)
        print_values(panel, values, "{:.2f}" if cmap == SIGNED else "{:.3g}", inks < 0.5)
    every = max(1, values.shape[1] // 7)
    panel.set_xticks(range(0, values.shape[1], every))
    frame = Rectangle((found.read - 0.5, -0.5), 1, len(values), fill=False, edgecolor=READ,
                      linewidth=4, clip_on=False)  # fmt: skip
    panel.add_patch(frame)
    axis_labels(panel, "layer", "", SMALL)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    scale = "log" if isinstance(norm, LogNorm) else "−1 … 1"
    panel.set_title(f"{title} ({scale})", fontsize=TEXT, color=INK, loc="left")


def _paths(panel: Axes, found: LayerPaths, names: list[str], inches: tuple) -> None:
    for i in range(len(names)):
        shade, mark = kind_of_point(i)
        path = found.points[:, i]
        panel.plot(*path.T, color=shade, marker=mark, linewidth=2.5, markersize=6, alpha=0.85)
        panel.plot(*path[found.read], color=shade, marker=mark, markersize=13, markeredgecolor=INK)
    place_names(panel, found.points[found.read], names, inches, around=found.points.reshape(-1, 2))
    first, second = found.plane.explained
    axis_labels(panel, share_label("first axis", first), share_label("second", second), SMALL)
    told = (
        found.plane.warning
        or f"layer 0 to layer {len(found.points) - 1}; large: layer {found.read}"
    )
    panel.set_title(told, fontsize=TEXT, color=INK, loc="left")


# ---- attention --------------------------------------------------------------------------------
def plot_text_attention(
    record: TextLayers, *, layer: int | None = None, head: int | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """Which tokens (columns) each token (row) looks at, in one layer and head or the mean of all.

    The grey triangle are the later tokens, which the causal mask hides; padding is drawn once.
    Raises InputError for a layer or head that is not there.
    """
    found = text_attention(record, layer, head)
    names, shown = token_names(record.tokens)
    matrix = found.matrix[np.ix_(shown, shown)]
    side = max(0.62 * len(shown) + 2.6, 7.5) if len(shown) <= PRINTED else 0.3 * len(shown) + 6
    axes = canvas(ax, (side + 1.9, side))
    hidden = np.triu(np.ones(matrix.shape, bool), 1) & (matrix <= 0)
    axes.set_facecolor("#e4e4e4")
    picture = axes.imshow(np.ma.masked_array(matrix, hidden), cmap=HEAT, vmin=0, vmax=1)
    if len(shown) <= PRINTED:
        print_values(axes, np.where(hidden, np.nan, matrix), "{:.2f}", matrix < 0.6)
    places = range(len(names))
    axes.set_yticks(places, names, parse_math=False)
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor",
                    parse_math=False)  # fmt: skip
    axis_labels(axes, "token that is looked at", "token that looks")
    axes.tick_params(length=0)
    if hidden[0, 1:].all():
        label(axes, 0.97, 0.95, "later tokens\nare not seen", transform=axes.transAxes, ha="right",
              va="top", fontsize=TEXT, color=QUIET)  # fmt: skip
    colour_bar(axes, picture, "probability (a row sums to 1)")
    bad = not_finite(record.attention, "in the text encoder's attention")
    checks = () if bad else (found.sums, found.causal)
    heading(axes, f"text attention, {found.reduction}", bad, *checks)
    start = found.matrix[1:, 0].mean()
    told = [f"{names[i]} at {names[int(matrix[i].argmax())]}" for i in shown[1:]]
    alt = f"Attention of the text encoder, {found.reduction}: on average {start:.0%} goes to start"
    return finish(ax, axes, f"{alt}; each looks most: {', '.join(told)}.")
