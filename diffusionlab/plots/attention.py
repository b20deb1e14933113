"""Where each token was looked up."""

from __future__ import annotations

from matplotlib.axes import Axes

from diffusionlab.analysis.attention import token_maps
from diffusionlab.plots.figure import (
    HEAT,
    Figure,
    canvas,
    colour_bar,
    contact_sheet,
    finish,
    heading,
    not_finite,
)
from diffusionlab.trace import Trace


def plot_attention(record: Trace, *, ax: Axes | None = None) -> Figure | Axes:
    """The mean cross-attention map of every content piece, all on one scale that begins at 0.

    A map says where a token was looked up, not why the picture is as it is.
    """
    found = token_maps(record)
    tokens = record.tokens
    kinds = ("word",) * len(found.maps) if tokens is None else tokens.kinds
    chosen = [i for i, kind in enumerate(kinds) if kind == "word"] or list(range(len(kinds)))
    names = [f"token {i}" if tokens is None else tokens.pieces[i][:16] for i in chosen]
    top = float(found.maps[chosen].max()) or 1.0
    scale = {"cmap": HEAT, "vmin": 0.0, "vmax": top}
    pictures = [(name, found.maps[i], scale) for name, i in zip(names, chosen, strict=True)]
    columns = min(8, len(pictures))
    rows, tall = -(-len(pictures) // columns), found.maps.shape[1] / found.maps.shape[2]
    axes = canvas(ax, (1.9 * columns + 1.6, (1.8 * tall + 0.45) * rows + 0.7))
    drawn = contact_sheet(axes, pictures, columns=columns)
    colour_bar(axes, drawn[0], "probability")
    bad = not_finite(found.maps, "in the recorded attention")
    heading(axes, f"cross-attention, {found.reduction}", bad, found.rows)
    shares = sorted(((found.maps[i].mean(), n) for n, i in zip(names, chosen, strict=True)))[::-1]
    told = ", ".join(f"{name} {share:.2g}" for share, name in shares[:4])
    return finish(ax, axes, f"Attention maps of {len(chosen)} tokens; mean probability: {told}.")
