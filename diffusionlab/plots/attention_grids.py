"""Tables of attention maps: word by step, word by layer, head by head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from diffusionlab.analysis.attention import AttentionMaps, attention_maps
from diffusionlab.analysis.attention_choice import (
    calls_of_steps,
    chosen_numbers,
    content_words,
    cross_layers,
    size_of,
    token_groups,
)
from diffusionlab.analysis.honesty import correlation
from diffusionlab.analysis.latents import numbers
from diffusionlab.images import spread
from diffusionlab.plots.figure import (
    HEAT,
    TEXT,
    TITLE,
    Figure,
    canvas,
    colour_bar,
    finish,
    heading,
    label,
    latent_picture,
    not_finite,
)
from diffusionlab.trace import Trace

GAP, LINE_HEIGHT, CHARACTER = 0.07, 0.27, 0.142  # of a cell; inches of a line and of a letter
MOST_ROWS, MOST_COLUMNS = 8, 8
Picture = tuple[np.ndarray, dict]  # an array and the options of `imshow`


# ---- a table of pictures ----------------------------------------------------------------------
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


def word_names_of(record: Trace, words: Any, most: int) -> tuple[Any, str]:
    """The words to draw: those asked for, else the prompt's first ones; a remark for the title.

    Where not all fit, punctuation is left out first.
    """
    if words is not None:
        return words, ""
    count = cross_layers(record.attention)[0].array.shape[-1]
    names = content_words(token_groups(record.tokens, count))
    if len(names) <= most:
        return names, ""
    kept = [n for n in names if any(map(str.isalnum, n.rpartition("#")[0] or n))] or names
    return kept[:most], f", first {len(kept[:most])} of {len(names)} words"


# ---- word by step -----------------------------------------------------------------------------
def plot_attention_steps(
    record: Trace,
    *,
    words: str | Iterable[str] | None = None,
    steps: Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
    resolution: Any = None,
    heads: int | Iterable[int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Rows are words, columns steps, all maps on one scale; above them x0-hat at that step.

    steps: None takes up to eight, evenly spread. The other choices are those of `attention_maps`,
    whose InputErrors are raised.
    """
    count = len(calls_of_steps(record, cross_layers(record.attention)[0]))
    chosen = spread(count, MOST_COLUMNS) if steps is None else chosen_numbers("steps", steps, count)
    words, remark = word_names_of(record, words, MOST_ROWS)
    options = {"layers": layers, "resolution": resolution, "heads": heads}
    found = attention_maps(record, words, steps=chosen, by="step", **options)
    headings = [
        f"step {i}\n{'σ̂ ' if n == 0 else ''}{record.steps[i].level.karras_sigma:.3g}"
        for n, i in enumerate(found.steps)
    ]
    guesses = _guesses(record, found.steps)
    return _word_table(record, found, headings, guesses, f"by step{remark} (σ̂: karras_sigma)", ax)


def _guesses(record: Trace, steps: Sequence[int]) -> list[Picture] | None:
    """x0-hat of each step, decoded if the run kept frames, else by the preview map."""
    if len(record.frames) == len(record.steps):
        return [(np.asarray(record.frames[i]), {}) for i in steps]
    if not all(record.steps[i].predictions for i in steps):
        return None
    return [
        latent_picture(numbers(record.steps[i].predictions[0].x0), record.preview) for i in steps
    ]


def _word_table(
    record: Trace, found: AttentionMaps, headings: Sequence[str], guesses: Any, what: str,
    ax: Axes | None,
) -> Figure | Axes:  # fmt: skip
    """Rows of words on one scale, a row of pictures above them if there is one."""
    top = top_of(found.maps)
    scale = {"cmap": HEAT, "vmin": 0.0, "vmax": top}
    cells: list = [[(m, scale) for m in maps] for maps in found.maps]
    names = [name[:16] for name in found.words]
    if guesses:
        cells, names = [guesses, *cells], ["x0-hat", *names]
    grid = Grid.fitting(names, headings, cells)
    axes = canvas(ax, (max(grid.size[0] + 1.6, 9.0), grid.size[1] + 0.8))
    grid.draw(axes)
    scale_bar(axes, top, "probability, one scale")
    bad = not_finite(found.maps, "in the recorded attention")
    titled(axes, f"cross-attention {what}, {found.reduction}", bad, found.rows)
    peaks = found.maps.max(axis=(2, 3))
    told = "; ".join(
        f"{word} peaks at {peak.max():.2g} in {found.entries[int(peak.argmax())]}"
        for word, peak in zip(found.words[:5], peaks, strict=False)
    )
    alt = f"Attention maps of {len(names)} words, {what}, {len(headings)} columns: {told}."
    return finish(ax, axes, alt)


# ---- word by layer ----------------------------------------------------------------------------
def plot_attention_layers(
    record: Trace,
    *,
    words: str | Iterable[str] | None = None,
    steps: int | Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
    heads: int | Iterable[int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Rows are words, columns the layers of the U-Net in its order, all maps on one scale.

    Choices and InputErrors as in `attention_maps`; a U-Net of many layers shows eight, evenly
    spread, unless `layers` says which.
    """
    words, remark = word_names_of(record, words, MOST_ROWS)
    known = _in_order(cross_layers(record.attention))
    if layers is None:
        layers = [known[i].tap for i in spread(len(known), MOST_COLUMNS)]
        if len(known) > MOST_COLUMNS:
            remark += f", {MOST_COLUMNS} of {len(known)} layers"
    found = attention_maps(record, words, steps=steps, layers=layers, heads=heads, by="layer")
    sizes = {layer.name: size_of(layer.shape) for layer in known}
    order = [found.layers.index(y.name) for y in known if y.name in found.layers]
    ordered = AttentionMaps(
        found.words, found.by, tuple(found.entries[i] for i in order), found.maps[:, order],
        found.rows, found.reduction, found.steps, tuple(found.layers[i] for i in order),
    )  # fmt: skip
    headings = [f"{name}\n{sizes[name]}" for name in ordered.layers]
    return _word_table(record, ordered, headings, None, f"by layer{remark}", ax)


def _in_order(layers: Sequence[Any]) -> list:
    """Down, middle, up, whatever the order of the record."""
    kinds = {"down": 0, "mid": 1, "up": 2}
    return sorted(layers, key=lambda layer: kinds.get(layer.name.split(" ")[0], 3))


# ---- head by head -----------------------------------------------------------------------------
def plot_attention_heads(
    record: Trace,
    *,
    word: str | None = None,
    steps: int | Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """One word in every head: rows are heads, columns layers, r its likeness to the layer's mean.

    word: None takes the word whose mean map has the highest peak. Needs a run with single heads
    (record={"predictions", "attention", "heads"}), else InputError.
    """
    word = word or _loudest(record)
    known = _in_order(cross_layers(record.attention))
    layers = [y.tap for y in known][:MOST_COLUMNS] if layers is None else layers
    found = attention_maps(record, [word], steps=steps, layers=layers, by="head")
    top, columns = top_of(found.maps), _by_layer(found)
    scale = {"cmap": HEAT, "vmin": 0.0, "vmax": top}
    most = max(len(heads) for heads in columns.values())
    cells = [[(c[n], scale) if n < len(c) else None for c in columns.values()] for n in range(most)]
    likes = {name: _likeness(heads) for name, heads in columns.items()}
    captions = [
        [f"r {like[n]:.2f}" if n < len(like) else "" for like in likes.values()]
        for n in range(most)
    ]
    sizes = {y.name: size_of(y.shape) for y in known}
    headings = [f"{name}\n{sizes[name]}" for name in columns]
    grid = Grid.fitting([f"head {n}" for n in range(most)], headings, cells, captions)
    axes = canvas(ax, (max(grid.size[0] + 1.6, 9.0), grid.size[1] + 0.8))
    grid.draw(axes)
    scale_bar(axes, top, "probability, one scale")
    bad = not_finite(found.maps, "in the recorded attention")
    told = f"{found.words[0][:20]!r} head by head, {found.reduction}"
    titled(axes, f"{told} (r: likeness to the layer's mean)", bad, found.rows)
    every = [like for some in likes.values() for like in some]
    alt = f"Attention of {found.words[0]!r} in {len(every)} heads of {len(likes)} layers; "
    return finish(ax, axes, alt + f"correlation with the layer's mean {min(every):.2f} to "
                  f"{max(every):.2f}.")  # fmt: skip


def _likeness(heads: Sequence[np.ndarray]) -> list[float]:
    """The correlation of each head's map with the mean of the layer's."""
    return [correlation(one, np.mean(heads, axis=0)) for one in heads]


def _loudest(record: Trace) -> str:
    found = attention_maps(record)
    return found.words[int(np.nan_to_num(found.maps).max(axis=(1, 2, 3)).argmax())]


def _by_layer(found: AttentionMaps) -> dict[str, list[np.ndarray]]:
    rows: dict[str, list[np.ndarray]] = {name: [] for name in found.layers}
    for entry, one in zip(found.entries, found.maps[0], strict=True):
        rows[entry.rpartition(" head ")[0]].append(one)
    return rows
