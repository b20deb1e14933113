"""A sheet of pictures in one Axes: names on the left, captions above, a note below each picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.plots.figure import INK, QUIET, SMALL, TEXT, label, latent_picture

GAP, LINE_INCHES, LETTER_INCHES = 0.06, 0.27, 0.135  # of a picture; of text at TEXT points


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture (h, w) or (h, w, 3) with its `imshow` options, or None and why there is none."""

    array: np.ndarray | None
    options: dict = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows of as many cells as there are columns; every picture is one unit, `wide` inches.

    `corner` stands beside the captions, above the names, and says what their lines are.
    """

    names: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    wide: float = 2.0
    corner: str = ""

    @property
    def tall(self) -> float:
        """The height of the tallest picture over its width."""
        shapes = [cell.array.shape for row in self.cells for cell in row if cell.array is not None]
        return max((height / width for height, width, *_ in shapes), default=1.0)

    @property
    def left(self) -> float:
        """Room for the names, in pictures."""
        names = (*self.names, self.corner)
        longest = max(len(line) for name in names for line in name.split("\n"))
        return longest * LETTER_INCHES / self.wide

    @property
    def top(self) -> float:
        """Room for the captions of the columns, in pictures."""
        return _lines(self.columns) * LINE_INCHES / self.wide

    def _pitch(self, row: int) -> float:
        below = _lines([cell.note for cell in self.cells[row] if cell.array is not None])
        return self.tall + GAP + below * LINE_INCHES / self.wide

    @property
    def size(self) -> tuple[float, float]:
        """Inches that the sheet fills, without a heading."""
        across = self.left + len(self.columns) * (1 + GAP) + GAP
        down = self.top + sum(self._pitch(row) for row in range(len(self.cells)))
        return self.wide * across, self.wide * down

    def draw(self, ax: Axes, room: float = 0.0) -> list[Any]:
        """Draw everything in data coordinates; matplotlib's images, row by row.

        `room` are inches that the Axes has across; what the sheet does not need stays free.
        """
        drawn, top = [], 0.0
        label(ax, -0.05, 0.02, self.corner, fontsize=TEXT, ha="right", va="bottom", color=QUIET)
        for column, caption in enumerate(self.columns):
            label(ax, column * (1 + GAP) + 0.5, 0.02, caption, fontsize=TEXT, va="bottom")
        for row, (name, cells) in enumerate(zip(self.names, self.cells, strict=True)):
            label(ax, -0.05, top - self.tall / 2, name, fontsize=TEXT, ha="right")
            for column, cell in enumerate(cells):
                drawn += self._picture(ax, cell, column * (1 + GAP), top)
            top -= self._pitch(row)
        right = max(len(self.columns) * (1 + GAP), room / self.wide - self.left - GAP)
        ax.set_xlim(-self.left - GAP, right)
        ax.set_ylim(top, self.top)
        ax.set_aspect("equal")
        ax.axis("off")
        return drawn

    def _picture(self, ax: Axes, cell: Cell, left: float, top: float) -> list[Any]:
        if cell.array is None:
            label(ax, left + 0.5, top - self.tall / 2, cell.note, color=QUIET, fontsize=SMALL)
            return []
        tall = cell.array.shape[0] / cell.array.shape[1]
        extent = (left, left + 1, top - tall, top)
        label(ax, left + 0.5, top - tall - 0.02, cell.note, fontsize=SMALL, va="top")
        return [ax.imshow(cell.array, extent=extent, interpolation="nearest", **cell.options)]


def _lines(texts: Sequence[str]) -> int:
    return max((text.count("\n") + 1 for text in texts if text), default=0)


def latent_cell(
    latent: np.ndarray, preview: Any, decode: Callable[[Any], Any] | None = None, note: str = ""
) -> Cell:
    """A latent (channels, h, w) decoded if there is a decoder, else by the preview map."""
    if decode is not None and np.isfinite(latent).all():
        return Cell(np.asarray(decode(latent.astype(np.float32))), {}, note)
    return Cell(*latent_picture(latent, preview), note)


def largest(values: np.ndarray) -> float:
    """The largest absolute value among the finite ones; 0 if there is none."""
    good = np.abs(values[np.isfinite(values)])
    return float(good.max()) if good.size else 0.0


def bar_beside(panel: Axes, picture: Any, text: str) -> None:
    """A colour bar right of a panel that is itself an inset of another Axes."""
    inside = panel.inset_axes((1.02, 0.0, 0.035, 1.0))
    bar = panel.figure.colorbar(picture, cax=inside)
    bar.set_label(text, fontsize=SMALL, color=INK)
    inside.tick_params(labelsize=SMALL, width=1.5)
    bar.outline.set_visible(False)
