"""Byte-pair encoding of one word, merge by merge."""

from __future__ import annotations

from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from diffusionlab.plots.figure import (
    INK,
    QUIET,
    TEXT,
    Figure,
    canvas,
    colour,
    drawable,
    finish,
    heading,
    label,
)
from diffusionlab.plots.text_space import short
from diffusionlab.trace import Merges
from diffusionlab.trace.summary import counted

WIDE = 7.0  # units beside the letters, for what was joined
MOST_ROWS = 16


def plot_merges(record: Merges, *, ax: Axes | None = None) -> Figure | Axes:
    """The letters of a word, and below them the pieces after each merge; the new one is coloured.

    A bar at a piece's right edge is the mark of the word's end. Of more than 16 rows the last ones
    are drawn.
    """
    rows = [(record.letters, "", record.unit)]
    for step in record.steps:
        told = f"{_plain(step.left)} + {_plain(step.right)}, merge {step.place}"
        rows.append((step.pieces, step.left + step.right, told))
    hidden = max(len(rows) - MOST_ROWS, 0)
    rows = rows[hidden:]
    units = len(record.letters) + WIDE
    axes = canvas(ax, (max(0.62 * units, 8.0), 0.5 * len(rows) + 1.1))
    for number, (pieces, made, told) in enumerate(rows):
        _row(axes, -number, pieces, made)
        label(axes, len(record.letters) + 0.4, -number, drawable(told), ha="left", fontsize=TEXT,
              color=QUIET if not made else INK, in_layout=False)  # fmt: skip
    axes.set_xlim(-0.1, units)
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.axis("off")
    more = f", first {hidden} rows left out" if hidden else ""
    letters = counted(len(record.letters), record.unit[:-1])
    title = f"{short(record.word, 40)}: {letters}, {counted(len(record.pieces), 'piece')}{more}"
    heading(axes, title)
    told = "; ".join(row[2] for row in rows[1:] if row[1])
    return finish(ax, axes, f"{title}: {' | '.join(map(_plain, record.pieces))}. {told}.")


def _row(axes: Axes, y: float, pieces: tuple[str, ...], made: str) -> None:
    """One row of boxes, each as wide as its letters are many."""
    ends = list(accumulate(_length(piece) for piece in pieces))
    for piece, end in zip(pieces, ends, strict=True):
        left, new = end - _length(piece), bool(made) and piece == made
        axes.add_patch(FancyBboxPatch(
            (left + 0.06, y - 0.36), end - left - 0.12, 0.72,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=colour("yellow") if new else "white", edgecolor=INK,
            linewidth=2.5 if new else 1.5, label="new" if new else "piece",
        ))  # fmt: skip
        label(axes, (left + end) / 2, y, drawable(_plain(piece)), fontsize=TEXT, in_layout=False)
        if piece.endswith(" "):
            axes.plot([end - 0.12] * 2, [y - 0.3, y + 0.3], color=INK, linewidth=5)


def _plain(piece: str) -> str:
    return piece.removesuffix(" ")


def _length(piece: str) -> int:
    """How many letters a piece has; the mark of the word's end takes no room."""
    return len(_plain(piece))
