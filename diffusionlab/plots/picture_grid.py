"""A table of pictures in one Axes, and the heading and the scale that go with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from diffusionlab.plots.figure import HEAT, TEXT, TITLE, colour_bar, heading, label

GAP, LINE_HEIGHT, CHARACTER = 0.07, 0.27, 0.142  # of a cell; inches of a line and of a letter
Picture = tuple[np.ndarray, dict]  # an array and the options of `imshow`


@dataclass(frozen=True)
class Grid:
    """Rows of pictures with a name at the left, headings on top, and a caption over each.

    `cells` (rows × columns) may hold None; `captions` is empty or has the same shape. `cell` is
    the width of a picture in inches.
    """

    names: Sequence[str]
    headings: Sequence[str]
    cells: Sequence[Sequence[Picture | None]]
    captions: Sequence[Sequence[str]] = ()
    cell: float = 1.3

    @property
    def tall(self) -> float:
        """Height of the tallest picture over its width."""
        shapes = [p[0].shape for row in self.cells for p in row if p is not None]
        return max(shape[0] / shape[1] for shape in shapes)

    @classmethod
    def fitting(cls, names: Any, headings: Any, cells: Any, captions: Any = ()) -> Grid:
        """A grid whose pictures are as large as some 13 by 7.5 inches allow, 1.1 to 2.6 inches."""
        small = cls(names, headings, cells, captions, 1.1)
        wide, high = len(headings) * (1 + GAP), len(names) * (small.tall + GAP)
        room = 7.5 - (small.size[1] - 1.1 * high)
        cell = min(2.6, (13 - 1.1 * small.margin) / wide, room / high)
        return cls(names, headings, cells, captions, max(1.1, cell))

    def tops(self) -> list[float]:
        """The upper edge of each row of pictures, and below them the lower edge of all; in cells.

        The first row begins at 0; a row with captions has room for them above it.
        """
        edges, row_height = [0.0], max(self.tall, self._lines(self.names))
        for row in range(1, len(self.names)):
            edges.append(edges[-1] - row_height - GAP - self._caption(row))
        return [*edges, edges[-1] - row_height]

    @property
    def margin(self) -> float:
        """Room for the names at the left, in cells."""
        longest = max((len(line) for name in self.names for line in name.split("\n")), default=0)
        return longest * CHARACTER / self.cell + 0.15

    @property
    def size(self) -> tuple[float, float]:
        """Inches of the sheet, without title and colour bar."""
        wide = len(self.headings) * (1 + GAP) + self.margin
        return self.cell * wide, self.cell * (self._above() - self.tops()[-1])

    def _lines(self, texts: Iterable[str]) -> float:
        lines = max((text.count("\n") + 1 for text in texts if text), default=0)
        return lines * LINE_HEIGHT / self.cell + (0.04 if lines else 0)

    def _caption(self, row: int) -> float:
        return self._lines(self.captions[row]) if self.captions else 0.0

    def _above(self) -> float:
        """What stands above the first row of pictures, in cells."""
        return self._caption(0) + self._lines(self.headings)

    def draw(self, ax: Axes) -> list[Any]:
        """Draw all of it in one Axes; returns matplotlib's images, row by row."""
        drawn, tops = [], self.tops()
        for row, (name, cells) in enumerate(zip(self.names, self.cells, strict=True)):
            label(ax, -0.1, tops[row] - self.tall / 2, name, ha="right", fontsize=TEXT)
            for column, picture in enumerate(cells):
                left = column * (1 + GAP)
                if picture is not None:
                    drawn.append(self._picture(ax, left, tops[row], *picture))
                if self.captions and self.captions[row][column]:
                    caption = self.captions[row][column]
                    label(ax, left + 0.5, tops[row] + 0.02, caption, va="bottom")
        for column, text in enumerate(self.headings):
            left, low = column * (1 + GAP), self._caption(0) + 0.03
            label(ax, left + 0.5, low, text, fontsize=TEXT, va="bottom")
        ax.set_xlim(-self.margin, len(self.headings) * (1 + GAP) - GAP + 0.02)
        ax.set_ylim(tops[-1] - 0.02, self._above())
        ax.set_aspect("equal")
        ax.axis("off")
        return drawn

    def _picture(self, ax: Axes, left: float, top: float, array: np.ndarray, options: dict) -> Any:
        extent = (left, left + 1, top - array.shape[0] / array.shape[1], top)
        return ax.imshow(array, extent=extent, interpolation="nearest", **options)


def scale_bar(ax: Axes, top: float, text: str) -> None:
    """A colour bar from 0 to `top` for maps that share one scale."""
    colour_bar(ax, ScalarMappable(Normalize(0, top), HEAT), text)


def titled(ax: Axes, text: str, *checks: Any) -> None:
    """The heading, its lines as long as the figure is wide, each failed check on its own line."""
    width = max(20, int(ax.figure.get_figwidth() * 72 / (0.54 * TITLE)))
    failed = ["\n".join(wrap(str(check), width)) for check in checks if str(check)]
    lines = [part for line in text.split("\n") for part in wrap(line, width)]
    heading(ax, "\n".join(lines) + ("\n" if failed else ""), *failed)
    ax.set_anchor("NW")  # a narrow sheet begins where its title begins


def top_of(maps: np.ndarray) -> float:
    """The largest finite value, or 1 if there is none above 0."""
    good = maps[np.isfinite(maps)]
    return float(good.max()) if good.size and good.max() > 0 else 1.0
