"""A prompt as a table: every position of the context with its piece, id, word and kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diffusionlab.analysis.text import TokenRow, token_table
from diffusionlab.plots.figure import (
    INK,
    QUIET,
    SMALL,
    TEXT,
    Figure,
    canvas,
    colour,
    finish,
    heading,
    label,
)
from diffusionlab.plots.tokens import colour_of
from diffusionlab.trace import Tokens

MOST_ROWS, ONE_BLOCK = 34, 14
COLUMNS = (("position", 0.0), ("piece", 1.75), ("id", 4.35), ("word", 5.35), ("kind", 8.1))
WIDE, GAP, CHARACTERS = 9.3, 0.6, 16  # units of one block, between blocks; of a cell


@dataclass(frozen=True)
class Line:
    """One drawn line of the table: its cells, its kind, and whether it begins a word's rows."""

    cells: tuple[str, str, str, str, str]
    kind: str
    spans: int = 0


def plot_token_table(record: Tokens, *, ax: Axes | None = None) -> Figure | Axes:
    """Position, piece, id, word and kind of each token; padding is one row, cut words are marked.

    Pieces that are single bytes of one character say so; a bar joins the pieces of one word. A long
    prompt stands in two blocks; of more than 34 rows the middle ones are counted.
    """
    table = _lines(token_table(record))
    rows = _folded(table)
    per_block = len(rows) if len(rows) <= ONE_BLOCK else -(-len(rows) // 2)
    blocks = [rows[i : i + per_block] for i in range(0, len(rows), per_block)]
    wide = len(blocks) * (WIDE + GAP) - GAP
    axes = canvas(ax, (max(0.8 * wide, 9.6), 0.36 * (per_block + 1) + 1.0))
    for number, block in enumerate(blocks):
        _draw_block(axes, block, number * (WIDE + GAP))
    axes.set_xlim(-0.1, wide + 0.1)
    axes.set_ylim(-per_block - 0.6, 0.6)
    axes.axis("off")
    pads = record.kinds.count("pad")
    cut = f", {record.dropped} pieces cut" if record.dropped else ""
    words = f"{len(record.words)} word{'s' * (len(record.words) != 1)}"
    title = f"{words}, {len(record.ids)} positions: {record.kept} pieces, {pads} padding{cut}"
    heading(axes, title)
    return finish(ax, axes, _alt(record, title))


def _lines(table: Sequence[TokenRow]) -> list[Line]:
    pads = [row for row in table if row.kind == "pad"]
    lines = []
    for row in table:
        if row.kind == "pad" and row is not pads[0]:
            continue
        piece, place = row.piece, "cut" if row.position is None else str(row.position)
        if row.byte:
            piece += f"  byte {row.byte[0]} of {row.byte[1]}"
        if row.kind == "pad" and len(pads) > 1:
            piece, place = f"{piece} × {len(pads)}", f"{place} … {pads[-1].position}"
        first = row.part == 1
        cells = (place, piece, "" if row.id is None else str(row.id))
        word = (row.word or "") if first else ""
        lines.append(Line((*cells, word, row.kind), row.kind, row.parts if first else 0))
    return lines


def _folded(lines: list[Line]) -> list[Line]:
    """At most MOST_ROWS lines: those in the middle are told by their number."""
    if len(lines) <= MOST_ROWS:
        return lines
    head, tail = lines[: MOST_ROWS - 7], lines[-6:]
    hidden = len(lines) - len(head) - len(tail)
    return [*head, Line(("…", f"{hidden} more rows", "", "", ""), "more"), *tail]


def _draw_block(axes: Axes, block: Sequence[Line], left: float) -> None:
    for name, x in COLUMNS:
        label(axes, left + x, 0, name, ha="left", color=QUIET, fontsize=TEXT)
    axes.plot([left, left + WIDE], [-0.5, -0.5], color=INK, linewidth=2.5)
    for number, line in enumerate(block):
        y = -number - 1
        _draw_line(axes, line, left, y)
        if line.spans > 1:
            tall = min(line.spans, len(block) - number) - 0.3
            bar = (left + COLUMNS[3][1] - 0.3, y + 0.35 - tall)
            axes.add_patch(Rectangle(bar, 0.1, tall, color=colour("vermilion"), label="one word"))


def _draw_line(axes: Axes, line: Line, left: float, y: float) -> None:
    cut, more = line.kind == "cut", line.kind == "more"
    face = "white" if cut or more else colour_of(line.kind)
    edge = colour("vermilion") if cut else "white" if more else QUIET
    chip = (left + COLUMNS[4][1] - 0.1, y - 0.4)
    axes.add_patch(Rectangle(chip, 1.2, 0.8, facecolor=face, edgecolor=edge, linewidth=1.5,
                             linestyle="--" if cut else "-", label=line.kind))  # fmt: skip
    ink = colour("vermilion") if cut else INK
    for (_, x), cell in zip(COLUMNS, line.cells, strict=True):
        told = cell if len(cell) <= CHARACTERS else cell[: CHARACTERS - 1] + "…"
        if told:
            label(axes, left + x, y, " ".join(told.split()), ha="left", fontsize=SMALL, color=ink,
                  in_layout=False)  # fmt: skip


def _alt(record: Tokens, title: str) -> str:
    split = [
        f"{record.words[i]} into {record.word_of.count(i)}"
        for i in range(len(record.words))
        if record.word_of.count(i) > 1
    ]
    told = f" Split words: {', '.join(split)}." if split else " No word is split."
    lost = f" Cut off from {record.dropped_words[0]!r} on." if record.dropped_words else ""
    return f"Table of tokens: {title}.{told}{lost}"
