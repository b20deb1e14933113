"""A sheet of pictures in one Axes: names on the left, captions above, notes below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from diffusionlab.plots.figure import (
    HEAT,
    QUIET,
    SMALL,
    TEXT,
    amounts,
    canvas,
    colour_bar,
    label,
    largest,
    latent_picture,
    text_width,
)

GAP, LINE_INCHES = 0.06, 0.27  # of a picture; of a line of text
TITLE_INCHES, BAR_INCHES = 0.6, 1.5


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture (h, w) or (h, w, 3) with its `imshow` options, a caption over and a note below.

    Without an array the note stands in its place and says why there is none.
    """

    array: np.ndarray | None = None
    options: dict = field(default_factory=dict)
    note: str = ""
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of cells, each with its name; every picture is one unit, `wide` inches.

    `columns` are captions above the columns; `corner` stands beside them, above the names, and
    says what their lines are.
    """

    names: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    wide: float = 2.0
    corner: str = ""

    def fitted(self, across: float = 13.0, down: float = 7.5) -> Sheet:
        """The same with pictures as large as these inches allow, 1.1 to 2.6 inches wide."""
        small = replace(self, wide=1.1)
        words = small.size[1] - 1.1 * len(self.names) * (self.tall + GAP)
        wide = (across - 1.1 * small.left) / (len(self.columns) * (1 + GAP))
        high = (down - words) / (len(self.names) * (self.tall + GAP))
        return replace(self, wide=max(1.1, min(2.6, wide, high)))

    @property
    def tall(self) -> float:
        """The height of the tallest picture over its width."""
        shapes = [cell.array.shape for row in self.cells for cell in row if cell.array is not None]
        return max((height / width for height, width, *_ in shapes), default=1.0)

    @property
    def left(self) -> float:
        """Room for the names, in pictures."""
        widest = max(text_width(name, TEXT) for name in (*self.names, self.corner))
        return (widest + 0.1) / self.wide + 0.05

    @property
    def size(self) -> tuple[float, float]:
        """Inches that the sheet fills, without a heading."""
        across = self.left + len(self.columns) * (1 + GAP) + GAP
        down = self._lines(self.columns) + sum(self._row_height(row) for row in self.cells)
        return self.wide * across, self.wide * down

    def axes(self, ax: Axes | None, bar: bool = False, least: float = 10.0) -> Axes:
        """The given Axes, or those of a new figure with room for a heading and a colour bar."""
        across, down = self.size
        room = BAR_INCHES if bar else 0.2
        return canvas(ax, (max(across + room, least), down + TITLE_INCHES))

    def draw(self, ax: Axes) -> list[Any]:
        """Draw everything in data coordinates; matplotlib's images, row by row."""
        drawn, top = [], 0.0
        _word(ax, -0.05, 0.03, self.corner, fontsize=TEXT, ha="right", va="bottom", color=QUIET)
        for column, caption in enumerate(self.columns):
            _word(ax, column * (1 + GAP) + 0.5, 0.03, caption, fontsize=TEXT, va="bottom")
        for name, cells in zip(self.names, self.cells, strict=True):
            above = top - self._lines([cell.caption for cell in cells])
            _word(ax, -0.05, above - self.tall / 2, name, fontsize=TEXT, ha="right")
            for column, cell in enumerate(cells):
                drawn += self._picture(ax, cell, column * (1 + GAP), above)
            top -= self._row_height(cells)
        ax.set_xlim(-self.left, len(self.columns) * (1 + GAP))
        ax.set_ylim(top + GAP - 0.02, self._lines(self.columns))
        ax.set_aspect("equal", anchor="NW")  # a narrow sheet begins where its title begins
        ax.axis("off")
        return drawn

    def _row_height(self, cells: Sequence[Cell]) -> float:
        """A row with what stands above and below it, in pictures."""
        notes = [cell.note for cell in cells if cell.array is not None]
        words = self._lines([cell.caption for cell in cells]) + self._lines(notes)
        return max(self.tall, self._lines(self.names)) + words + GAP

    def _lines(self, texts: Iterable[str]) -> float:
        """The height of the longest of some texts, in pictures."""
        lines = max((text.count("\n") + 1 for text in texts if text), default=0)
        return lines * LINE_INCHES / self.wide + (0.03 if lines else 0.0)

    def _picture(self, ax: Axes, cell: Cell, left: float, top: float) -> list[Any]:
        middle = left + 0.5
        _word(ax, middle, top + 0.02, cell.caption, va="bottom")
        if cell.array is None:
            _word(ax, middle, top - self.tall / 2, cell.note, color=QUIET, fontsize=SMALL)
            return []
        tall = cell.array.shape[0] / cell.array.shape[1]
        extent = (left, left + 1, top - tall, top)
        _word(ax, middle, top - tall - 0.02, cell.note, fontsize=SMALL, va="top")
        return [ax.imshow(cell.array, extent=extent, interpolation="nearest", **cell.options)]


def _word(ax: Axes, x: float, y: float, text: str, **options: Any) -> None:
    if text:
        label(ax, x, y, text, **options)


def latent_cell(
    latent: np.ndarray, preview: Any, decode: Callable[[Any], Any] | None = None, note: str = ""
) -> Cell:
    """A latent (channels, h, w) decoded if there is a decoder, else by the preview map."""
    if decode is not None and np.isfinite(latent).all():
        return Cell(np.asarray(decode(latent.astype(np.float32))), {}, note)
    return Cell(*latent_picture(latent, preview), note)


def amount_cell(values: np.ndarray, told: str = "up to {:.2g}", above: bool = False) -> Cell:
    """Amounts (h, w) on a scale of their own, which the note (or the caption) tells."""
    top = largest(values)
    return Cell(values, amounts(top), **{"caption" if above else "note": told.format(top)})


def scale_bar(ax: Axes, top: float, text: str) -> None:
    """A colour bar from 0 to `top` for amounts that share one scale."""
    colour_bar(ax, ScalarMappable(Normalize(0, top), HEAT), text)
