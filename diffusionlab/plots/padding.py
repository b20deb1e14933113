"""What the padding behind a prompt carries."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.padding import EmptiedRun, Padding
from diffusionlab.plots.figure import (
    INK,
    LINE,
    SMALL,
    TEXT,
    Figure,
    amounts,
    axis_labels,
    canvas,
    colour,
    ending_picture,
    finish,
    heading,
    label,
    largest,
    latent_picture,
    not_finite,
    panels,
)
from diffusionlab.plots.sheets import Cell, Sheet
from diffusionlab.plots.text_space import short
from diffusionlab.plots.tokens import colour_of


def plot_padding(record: Padding, *, ax: Axes | None = None) -> Figure | Axes:
    """Runs whose rows were emptied kind by kind, and how alike every row is to two others.

    `record` is what `analysis.padding.padding` made. "Emptied" rows are those of the empty prompt
    at the same position. Pictures: the runs' ends, below them how far each pixel moved, on one
    scale; the number is the latents' distance from the whole prompt's, 1 as far as the empty one's.
    """
    runs = record.runs
    axes = canvas(ax, (11.5, 8.2 if runs else 4.6))
    low, tall = (0.1, 0.24) if runs else (0.2, 0.7)
    boxes = [(0.075, low, 0.92, tall)] + ([(0.0, 0.38, 1.0, 0.62)] if runs else [])
    rows, *sheet = panels(axes, boxes)
    _rows(rows, record)
    if runs:
        _pictures(sheet[0], runs)
    bad = not_finite([record.to_end, record.to_empty], "in the text embedding")
    ends_of_runs = [numbers(run.trace.steps[-1].next_latent) for run in runs]
    bad = bad or not_finite([*ends_of_runs, [run.distance for run in runs]], "in the runs")
    heading(axes, _title(record), bad, record.repeat)
    told = "; ".join(f"{run.name} {run.distance:.2g}" for run in runs[1:])
    ends = record.mean(record.to_end, "pad"), record.mean(record.to_empty, "pad")
    alt = (
        f"{record.tokens.kinds.count('pad')} rows of padding: on average cosine {ends[0]:.2f} with "
        f"the end row and {ends[1]:.2f} with the empty prompt's padding."
    )
    return finish(ax, axes, alt + (f" Distance of runs: {told}." if runs else ""))


def _title(record: Padding) -> str:
    found = {run.emptied: run.distance for run in record.runs}
    if not found:
        return "rows of the prompt beside its end row and the empty prompt"
    pads, words = found[("pad",)], found[("word", "end")]
    return f"latent moved {pads:.2f} without padding, {words:.2f} without words (empty prompt: 1)"


def _rows(panel: Axes, record: Padding) -> None:
    """Two cosines over the positions; the ground says which kind of token stands there."""
    kinds = record.tokens.kinds
    for position, kind in enumerate(kinds):
        shade = colour_of(kind)
        panel.axvspan(position - 0.5, position + 0.5, color=shade, alpha=0.35, linewidth=0)
    places = np.arange(len(kinds))
    lines = (("with the end row", record.to_end, "blue", "o-"),
             ("with the empty prompt's row", record.to_empty, "vermilion", "s--"))  # fmt: skip
    for name, values, shade, style in lines:
        panel.plot(places, values, style, color=colour(shade), linewidth=LINE, label=name,
                   markersize=8)  # fmt: skip
    panel.axhline(0, color=INK, linewidth=1)
    panel.set_xlim(-0.5, len(kinds) - 0.5)
    panel.set_ylim(-1.05, 1.1)
    _names(panel, record)
    axis_labels(panel, "", "cosine")
    panel.legend(fontsize=SMALL, loc="lower right", ncols=2, framealpha=0.9)


def _names(panel: Axes, record: Padding) -> None:
    """The pieces of start, words and end below the axis, and one name for all padding."""
    kinds, pieces = record.tokens.kinds, record.tokens.pieces
    named = [i for i, kind in enumerate(kinds) if kind != "pad"]
    panel.set_xticks(named, [short(pieces[i], 9) for i in named], rotation=45, ha="right",
                     rotation_mode="anchor", parse_math=False)  # fmt: skip
    pads = [i for i, kind in enumerate(kinds) if kind == "pad"]
    if pads:
        told = f"padding × {len(pads)} (positions {pads[0]} … {pads[-1]})"
        label(panel, np.mean(pads), -0.06, told, va="top", fontsize=TEXT,
              transform=panel.get_xaxis_transform())  # fmt: skip


def _pictures(panel: Axes, runs: tuple[EmptiedRun, ...]) -> None:
    """The ends of the runs in a row, and below each how far its pixels lie from the first's."""
    ends = [ending_picture(run.trace) for run in runs]
    if len({array.ndim for array, _ in ends}) > 1:  # one of them could not be made a picture
        ends = [latent_picture(numbers(run.trace.steps[-1].next_latent), None) for run in runs]
    base = ends[0][0].astype(np.float64)
    moved = [np.abs(array - base) for array, _ in ends[1:]]
    moved = [m.mean(axis=-1) if m.ndim == 3 else m for m in moved]
    top = max(map(largest, moved), default=0.0)
    told = f"difference,\nmean of RGB,\n0 (dark) …\n{top:.0f} of 255"
    told = told if base.ndim == 3 else f"difference\n0 … {top:.2g}"
    below = [Cell(note=told), *(Cell(one, amounts(top)) for one in moved)]
    columns = [_caption(run) for run in runs]
    Sheet(["", ""], columns, [[Cell(*end) for end in ends], below]).draw(panel)
    panel.set_anchor("N")


def _caption(run: EmptiedRun) -> str:
    return run.name if not run.emptied else f"{run.name}\nmoved {run.distance:.2f}"
