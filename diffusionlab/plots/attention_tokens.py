"""The share of each token over the steps, the words of one pixel, and where a pixel looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diffusionlab.analysis.attention_tokens import (
    AttentionMass,
    PixelWords,
    attention_mass,
    cell_of,
    self_attention_at,
    words_at,
)
from diffusionlab.plots.figure import (
    INK,
    LINE,
    QUIET,
    TEXT,
    Figure,
    amounts,
    axis_labels,
    canvas,
    colour,
    contact_sheet,
    drawable,
    ending_picture,
    finish,
    heading,
    label,
    largest,
    not_finite,
    panels,
)
from diffusionlab.plots.panel import bar_beside
from diffusionlab.plots.sheets import scale_bar
from diffusionlab.trace import Trace

STYLES = (
    ("blue", "o", "-"), ("vermilion", "s", "--"), ("green", "^", "-."), ("purple", "D", ":"),
    ("orange", "v", "-"), ("sky", "P", "--"),
)  # fmt: skip
MOST_WORDS, MOST_LINES = 16, 6


# ---- the share of each token ------------------------------------------------------------------
def plot_attention_mass(
    record: Trace,
    *,
    layers: str | Iterable[str] | None = None,
    resolution: Any = None,
    heads: int | Iterable[int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """How the probability is shared out at each step: start, words, end, padding; and by word.

    A mean over all places, so that all shares of a step sum to 1. Choices and InputErrors as in
    `attention_maps`.
    """
    found = attention_mass(record, layers=layers, resolution=resolution, heads=heads)
    axes = canvas(ax, (14, 5.4))
    left, right = panels(axes, [(0.07, 0.16, 0.34, 0.75), (0.6, 0.16, 0.28, 0.75)])
    lines = _groups_told(found)
    _lines(left, found.steps, list(lines.values()), list(lines), top=1.0)
    axis_labels(left, "step", "mean probability", TEXT)
    _word_rows(right, found)
    bad = not_finite(found.shares, "in the recorded attention")
    heading(axes, f"who gets the attention, {found.reduction}", bad, found.rows)
    told = ", ".join(f"{name} {line.mean():.2f}" for name, line in lines.items())
    first = max(found.words, key=lambda word: found.of(word).mean())
    return finish(ax, axes, f"Mean attention over {len(found.steps)} steps: {told}. Of the words, "
                  f"{first} takes most, {found.of(first).mean():.2g}.")  # fmt: skip


def _groups_told(found: AttentionMass) -> dict[str, np.ndarray]:
    """The lines: the special tokens and all words together; without them the four largest."""
    special = [name for name in found.groups if name not in found.words]
    if not special:
        order = np.argsort(-np.nan_to_num(found.shares.mean(axis=0)))[:4]
        return {found.groups[i]: found.shares[:, i] for i in order}
    counted = f"{len(found.words)} words"
    return {counted: found.of(*found.words)} | {name: found.of(name) for name in special}


def _lines(
    panel: Axes, steps: Sequence[int], lines: list[np.ndarray], names: list[str],
    top: float | None = None,
) -> None:  # fmt: skip
    """Lines over the steps, each named at its right end."""
    for line, (hue, marker, dash) in zip(lines, STYLES, strict=False):
        panel.plot(steps, line, dash, marker=marker, color=colour(hue), linewidth=LINE,
                   markersize=8, markevery=max(1, len(steps) // 10))  # fmt: skip
    top = top or 1.12 * max(largest(line) for line in lines) or 1.0
    panel.set_ylim(0, top)
    panel.set_xlim(steps[0] - 0.3, steps[-1] + 0.3)
    ends = _apart([line[-1] for line in lines], 0.08 * top, 0.97 * top)
    for name, end, (hue, _, _) in zip(names, ends, STYLES, strict=False):
        label(panel, 1.02, end, name, color=_readable(hue), ha="left", fontsize=TEXT,
              transform=panel.get_yaxis_transform(), clip_on=False)  # fmt: skip
    panel.xaxis.get_major_locator().set_params(integer=True)


def _readable(hue: str) -> str:
    """A colour that can be read as text on white."""
    return INK if hue in ("sky", "orange") else colour(hue)


def _apart(values: Sequence[float], gap: float, top: float) -> list[float]:
    """The values moved up just so far that no two are nearer than the gap, none above the top."""
    good = np.nan_to_num(np.asarray(values, float))
    places, order = good.copy(), np.argsort(good)
    for lower, upper in zip(order, order[1:], strict=False):
        places[upper] = max(places[upper], places[lower] + gap)
    for place, index in enumerate(order[::-1]):
        places[index] = min(places[index], top - place * gap)
    return places.tolist()


def _word_rows(panel: Axes, found: AttentionMass) -> None:
    """A picture of words × steps on one scale."""
    words = found.words[:MOST_WORDS]
    shares = np.stack([found.of(word) for word in words])
    edges = (found.steps[0] - 0.5, found.steps[-1] + 0.5, len(words) - 0.5, -0.5)
    drawn = panel.imshow(shares, aspect="auto", extent=edges, interpolation="nearest",
                         **amounts(largest(shares)))  # fmt: skip
    panel.set_yticks(range(len(words)), [drawable(word[:14]) for word in words], parse_math=False)
    axis_labels(panel, "step", "", TEXT)
    panel.xaxis.get_major_locator().set_params(integer=True)
    more = len(found.words) - len(words)
    title = f"first {len(words)} of {len(found.words)} words" if more else "word by word"
    panel.set_title(title, fontsize=TEXT, color=INK)
    bar_beside(panel, drawn, "mean probability")


# ---- the words of one pixel -------------------------------------------------------------------
def plot_pixel_words(
    record: Trace,
    *,
    pixel: tuple[int, int] | None = None,
    words: str | Iterable[str] | None = None,
    layers: str | Iterable[str] | None = None,
    resolution: Any = None,
    heads: int | Iterable[int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """One pixel (x to the right, y down; None: the centre) and the words that it looks up.

    The six highest in the mean over the steps, ranked; start, end and padding stand below in
    numbers. Choices and InputErrors as in `attention_maps`.
    """
    options = {"layers": layers, "resolution": resolution, "heads": heads}
    found = words_at(record, pixel, words, **options)
    axes = canvas(ax, (13, 4.8))
    left, right = panels(axes, [(0.0, 0.12, 0.28, 0.76), (0.38, 0.17, 0.43, 0.66)])
    _marked(left, record, found.cell, found.size)
    count = min(MOST_LINES, len(found.words))
    means = found.probabilities.mean(axis=0)
    names = [f"{n + 1}. {found.words[n][:14]}  {means[n]:.2g}" for n in range(count)]
    _lines(right, found.steps, list(found.probabilities[:, :count].T), names)
    axis_labels(right, "step", "probability", TEXT)
    rest = _rest_told(found)
    told = f"numbered by the mean over the steps\n{rest}"
    right.set_title(told, fontsize=TEXT, color=QUIET, loc="left", parse_math=False)
    bad = not_finite(found.probabilities, "in the recorded attention")
    x, y = found.pixel
    title = f"what pixel ({x}, {y}) looks up, {found.reduction}"
    heading(axes, title, bad, found.rows)
    told = ", ".join(f"{w} {m:.2g}" for w, m in zip(found.words[:count], means, strict=False))
    return finish(ax, axes, f"Pixel {found.pixel}, cell {found.cell} of {found.size}, looks up, "
                  f"mean of {len(found.steps)} steps: {told}. {rest}.")  # fmt: skip


def _rest_told(found: PixelWords) -> str:
    means = found.rest.mean(axis=0)
    parts = [f"{name} {mean:.2g}" for name, mean in zip(found.specials, means, strict=True)]
    return f"not drawn: {', '.join(parts)}" if parts else "every token is drawn as a word"


def _marked(panel: Axes, record: Trace, cell: tuple[int, int], size: Sequence[int]) -> None:
    """The picture with the cell of a pixel framed."""
    settings = record.settings
    array, options = ending_picture(record)
    edges = (0, settings.width, settings.height, 0)
    panel.imshow(array, extent=edges, interpolation="nearest", **options)
    wide, tall = settings.width / size[1], settings.height / size[0]
    _frame(panel, cell[1] * wide, cell[0] * tall, wide, tall)
    panel.axis("off")


def _frame(ax: Axes, left: float, low: float, wide: float, tall: float) -> None:
    """A frame that is seen on every ground: white around black."""
    for colour_of, line in (("white", 7), (INK, 3)):
        ax.add_patch(Rectangle((left, low), wide, tall, fill=False, edgecolor=colour_of,
                               linewidth=line))  # fmt: skip


# ---- self-attention ---------------------------------------------------------------------------
def plot_self_attention(
    record: Trace,
    *,
    pixel: tuple[int, int] | None = None,
    steps: int | Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Where one pixel (x to the right, y down; None: the centre) looks in the picture itself.

    One map for each size of layer and their mean, as multiples of the even share (1: no
    preference), the pixel's own cell framed. Raises InputError where self-attention was not
    recorded, with the bytes that recording it will take, and for a pixel, step or layer outside.
    """
    found = self_attention_at(record, pixel, steps=steps, layers=layers)
    maps = [*found.maps, found.mean] if len(found.maps) > 1 else list(found.maps)
    times = [one * one.size for one in maps]
    top = max(map(largest, times))
    names = [_size_told(one, some) for one, some in zip(found.maps, found.layers, strict=True)]
    names += ["all layers"] if len(maps) > len(names) else []
    entries = [("picture", *ending_picture(record))]
    entries += [(name, one, amounts(top)) for name, one in zip(names, times, strict=True)]
    tall = record.settings.height / record.settings.width
    axes = canvas(ax, (max(3.3 * len(entries) + 1.8, 10.0), 3.2 * tall + 1.6))
    drawn = contact_sheet(axes, entries, columns=len(entries))
    for image, one in zip(drawn, [found.maps[0], *maps], strict=True):
        left, right, low, high = image.get_extent()
        row, column = cell_of(record, found.pixel, one.shape)
        across, down = (right - left) / one.shape[1], (high - low) / one.shape[0]
        _frame(axes, left + column * across, high - (row + 1) * down, across, down)
    scale_bar(axes, top, "times the even share")
    bad = not_finite(np.concatenate([one.ravel() for one in maps]), "in the recorded attention")
    when = (
        f"step {found.steps[0]}" if len(found.steps) == 1 else f"mean of {len(found.steps)} steps"
    )
    title = f"where pixel {found.pixel} looks in the picture, {when}"
    heading(axes, title, bad, found.rows)
    told = "; ".join(f"{n.replace(chr(10), ', ')}: up to {one.max():.2g} times the even share"
                     for n, one in zip(names, times, strict=True))  # fmt: skip
    return finish(ax, axes, f"Self-attention of pixel {found.pixel}, {when}. {told}.")


def _size_told(one: np.ndarray, layers: Sequence[str]) -> str:
    shape = f"{one.shape[0]}×{one.shape[1]}"
    return f"{shape}: {layers[0]}" if len(layers) == 1 else f"{shape}: {len(layers)} layers"
