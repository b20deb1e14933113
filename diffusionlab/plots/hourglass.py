"""The U-Net as built: its blocks as an hourglass, its skips as bridges, its weights in a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle

from diffusionlab.analysis.anatomy import Join, joins, short_name, skip_check
from diffusionlab.plots.figure import (
    INK,
    LINE,
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
from diffusionlab.trace import Anatomy, Block

BODY, BRIDGE, ROW, BAND = 2.8, 0.33, 0.32, 0.3  # inches; data units are inches downwards
COLUMN, LEFT = 1.32, 1.55
FLAT = 0.6  # of a block's width at the height of its input


def plot_hourglass(record: Anatomy, *, ax: Axes | None = None) -> Figure | Axes:
    """The blocks in the order of computation, with real shapes, parameters, attention and skips.

    A block's height is that of its latent in rows, from its input's to its output's; its width is
    the square root of its channels. Orange blocks read the text; bridges are skip connections.
    """
    blocks = [block for block in record.blocks if block.kind != "time"]
    places = [i for i, block in enumerate(record.blocks) if block.kind != "time"]
    bridges = joins(record)
    top = BODY / 2 + BRIDGE * (len(bridges) + 0.8)
    bottom = -BODY / 2 - 2 * (BAND + 0.1) - 4.2 * ROW
    wide = LEFT + COLUMN * len(blocks)
    axes = canvas(ax, (wide + 0.2, top - bottom + 0.75))
    axes.axis("off")
    axes.set_xlim(-LEFT, COLUMN * len(blocks) + 0.05)
    axes.set_ylim(bottom, top)
    tops = _body(axes, record, blocks)
    _bridges(axes, bridges, places, tops)
    _bands(axes, record, COLUMN * len(blocks))
    _table(axes, record, blocks)
    label(axes, -0.12, 0.0, f"latent\n{_shape(record.latent)} →", fontsize=TEXT, ha="right")
    title = f"the U-Net of {record.model[:24]}: {_count(record.parameters)} parameters"
    label(axes, -0.12, -0.95, "height: rows\nwidth: root\nof channels", ha="right", color=QUIET)
    heading(axes, title, skip_check(record))
    return finish(ax, axes, _alt(record, blocks))


def _shape(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape)


def _count(number: int) -> str:
    """1 234 567 → 1.23 M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            text = f"{number / size:.3g}" if number < 1000 * size else f"{number / size:.0f}"
            return f"{text} {unit}"
    return str(number)


# ---- the body ---------------------------------------------------------------------------------
def _body(axes: Axes, record: Anatomy, blocks: Sequence[Block]) -> list[np.ndarray]:
    """One polygon per block; the upper outline (3 points) of each."""
    tallest = max(record.latent[1], *(block.shape[1] for block in blocks))
    widest = max(block.shape[0] for block in blocks)
    before, tops, right = record.latent[1], [], 0.0
    for i, block in enumerate(blocks):
        half = 0.46 * COLUMN * np.sqrt(block.shape[0] / widest)
        middle = (i + 0.5) * COLUMN
        one, other = (BODY / 2 * rows / tallest for rows in (before, block.shape[1]))
        axes.fill_between([right, middle - half], [-one, -one], [one, one], color="#e4e4e4",
                          linewidth=0)  # fmt: skip
        bend = middle + (2 * FLAT - 1) * half
        tops.append(np.array([(middle - half, one), (bend, one), (middle + half, other)]))
        axes.add_patch(_block(block, tops[-1]))
        before, right = block.shape[1], middle + half
    return tops


def _block(block: Block, upper: np.ndarray) -> Polygon:
    """Flat at the input's height, then down or up to the output's; the same below."""
    outline = np.concatenate([upper, upper[::-1] * [1, -1]])
    attends = block.transformers > 0
    return Polygon(
        outline, closed=True, facecolor=colour("orange" if attends else "sky"),
        edgecolor=INK, linewidth=1.5, hatch="//" if attends else None, zorder=3, label=block.name,
    )  # fmt: skip


# ---- skips ------------------------------------------------------------------------------------
def _bridges(axes: Axes, bridges: Sequence[Join], places: list[int], tops: list) -> None:
    """Each from its source up, across and down into its target, the shortest lowest."""
    for level, join in enumerate(bridges):
        source, target = places.index(join.source), places.index(join.target)
        height = BODY / 2 + BRIDGE * (level + 0.7)
        start = _foot(bridges, join, source, join.source)
        end = _foot(bridges, join, target, join.target)
        low, high = np.interp(start, *tops[source].T), np.interp(end, *tops[target].T)
        axes.plot([start, start, end, end], [low, height, height, high + 0.1], zorder=2,
                  color=colour("purple"), linewidth=LINE, solid_joinstyle="round")  # fmt: skip
        axes.plot([end], [high + 0.1], "v", color=colour("purple"), markersize=11, zorder=4)
        many = f"{join.count} × " if join.count > 1 else ""
        label(axes, (start + end) / 2, height, many + _shape(join.shape), fontsize=SMALL, zorder=4,
              bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip


def _foot(bridges: Sequence[Join], join: Join, column: int, place: int) -> float:
    """Where a bridge stands on its block: longer ones further out, so that none cross."""
    mine = [b for b in bridges if place in (b.source, b.target)]
    rank = mine.index(join) - (len(mine) - 1) / 2  # the shortest first
    outwards = 1 if place == join.target else -1
    return (column + 0.5 + outwards * 0.16 * rank) * COLUMN


# ---- what is read, and the table --------------------------------------------------------------
def _bands(axes: Axes, record: Anatomy, wide: float) -> None:
    time = next((block for block in record.blocks if block.kind == "time"), None)
    told = [f"text, {record.tokens} tokens: to the orange blocks"]
    if time is not None:
        told.append(f"timestep, {time.shape[0]} numbers: to every residual block")
    for row, text in enumerate(told):
        top = -BODY / 2 - 0.1 - row * (BAND + 0.06)
        hue = colour("orange") if row == 0 else colour("green")
        axes.add_patch(Rectangle((0, top - BAND), wide, BAND, facecolor="white", edgecolor=hue,
                                 linewidth=2.5))  # fmt: skip
        label(axes, wide / 2, top - BAND / 2, text, fontsize=TEXT)


def _table(axes: Axes, record: Anatomy, blocks: Sequence[Block]) -> None:
    """Under every block its name, output shape, weights and transformers."""
    heads = ("block", "channels", "rows×columns", "parameters", "attention")
    rows = [
        (short_name(b.name), str(b.shape[0]), _shape(b.shape[1:]), _count(b.parameters),
         f"{b.transformers} layer{'s' * (b.transformers > 1)}" if b.transformers else "–")
        for b in blocks
    ]  # fmt: skip
    top = -BODY / 2 - 2 * (BAND + 0.1)
    for line, head in enumerate(heads):
        y = top - (line + 0.4) * ROW * 0.98
        size = TEXT if line == 0 else SMALL
        label(axes, -0.12, y, head, ha="right", color=QUIET)
        for i, row in enumerate(rows):
            label(axes, (i + 0.5) * COLUMN, y, row[line], fontsize=size,
                  weight="bold" if line == 0 else "normal")  # fmt: skip


def _alt(record: Anatomy, blocks: Sequence[Block]) -> str:
    told = ", ".join(f"{short_name(b.name)} {_shape(b.shape)}" for b in blocks)
    attends = sum(block.transformers > 0 for block in blocks)
    return (
        f"The U-Net of {record.model} as an hourglass for a latent of {_shape(record.latent)}: "
        f"{told}; {attends} blocks with attention, {len(record.skips)} skip connections, "
        f"{_count(record.parameters)} parameters."
    )
