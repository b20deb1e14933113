"""Tables of attention maps: word by step, word by layer, head by head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.attention import AttentionMaps, attention_maps
from diffusionlab.analysis.attention_choice import (
    calls_of_steps,
    chosen_numbers,
    content_words,
    layers_of_run,
    size_of,
    token_groups,
)
from diffusionlab.analysis.honesty import correlation
from diffusionlab.analysis.latents import numbers
from diffusionlab.images import spread, to_array
from diffusionlab.plots.figure import (
    Figure,
    amounts,
    finish,
    heading,
    largest,
    latent_picture,
    not_finite,
)
from diffusionlab.plots.sheets import Cell, Sheet, scale_bar
from diffusionlab.trace import Trace

MOST_ROWS, MOST_COLUMNS = 8, 8


def word_names_of(record: Trace, words: Any, most: int) -> tuple[Any, str]:
    """The words to draw: those asked for, else the prompt's first ones; a remark for the title.

    Where not all fit, punctuation is left out first.
    """
    if words is not None:
        return words, ""
    count = layers_of_run(record)[0].array.shape[-1]
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
    count = len(calls_of_steps(record, layers_of_run(record)[0]))
    chosen = spread(count, MOST_COLUMNS) if steps is None else chosen_numbers("steps", steps, count)
    words, remark = word_names_of(record, words, MOST_ROWS)
    options = {"layers": layers, "resolution": resolution, "heads": heads}
    found = attention_maps(record, words, steps=chosen, by="step", **options)
    headings = [
        f"step {i}\n{'σ̂ ' if n == 0 else ''}{record.steps[i].level.karras_sigma:.3g}"
        for n, i in enumerate(found.steps)
    ]
    above = guesses(record, found.steps)
    return _word_table(found, headings, above, f"by step{remark} (σ̂: karras_sigma)", ax)


def guesses(record: Trace, steps: Sequence[int]) -> list[Cell]:
    """x0-hat of each step, decoded if the run kept frames, else by the preview map; or none."""
    if len(record.frames) == len(record.steps):
        return [Cell(to_array(record.frames[i])) for i in steps]
    if not all(record.steps[i].predictions for i in steps):
        return []
    found = [numbers(record.steps[i].predictions[0].x0) for i in steps]
    return [Cell(*latent_picture(x0, record.preview)) for x0 in found]


def _word_table(
    found: AttentionMaps, columns: Sequence[str], above: list[Cell], what: str, ax: Axes | None
) -> Figure | Axes:
    """Rows of words on one scale, a row of pictures above them if there is one."""
    top = largest(found.maps)
    cells = [[Cell(one, amounts(top)) for one in maps] for maps in found.maps]
    names = [name[:16] for name in found.words]
    if above:
        cells, names = [above, *cells], ["x0-hat", *names]
    sheet = Sheet(names, columns, cells).fitted()
    axes = sheet.axes(ax, bar=True)
    sheet.draw(axes)
    scale_bar(axes, top, "probability, one scale")
    bad = not_finite(found.maps, "in the recorded attention")
    heading(axes, f"cross-attention {what}, {found.reduction}", bad, found.rows)
    peaks = found.maps.max(axis=(2, 3))
    told = "; ".join(
        f"{word} peaks at {peak.max():.2g} in {found.entries[int(peak.argmax())]}"
        for word, peak in zip(found.words[:5], peaks, strict=False)
    )
    alt = f"Attention maps of {len(found.words)} words, {what}, {len(columns)} columns: {told}."
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
    known = _in_order(layers_of_run(record))
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
    return _word_table(ordered, headings, [], f"by layer{remark}", ax)


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
    """One word in every head: layers by heads, r its likeness to the layer's mean.

    Columns are the heads if there are more of them than layers (and no more than eight), else the
    layers. word: None takes the word whose mean map has the highest peak. Needs a run with single
    heads (record={"predictions", "attention", "heads"}), else InputError.
    """
    word = word or _loudest(record)
    known = _in_order(layers_of_run(record))
    layers = [y.tap for y in known][:MOST_COLUMNS] if layers is None else layers
    found = attention_maps(record, [word], steps=steps, layers=layers, by="head")
    top, columns = largest(found.maps), _by_layer(found)
    likes = {name: _likeness(heads) for name, heads in columns.items()}
    cells = [
        [
            Cell(one, amounts(top), caption=f"r {like:.2f}")
            for one, like in zip(heads, likes[name], strict=True)
        ]
        for name, heads in columns.items()
    ]
    rows = list(zip_longest(*cells, fillvalue=Cell()))
    sizes = {y.name: size_of(y.shape) for y in known}
    headings = [f"{name}\n{sizes[name]}" for name in columns]
    numbered = [f"head {n}" for n in range(len(rows))]
    if len(headings) < len(rows) <= MOST_COLUMNS:
        sheet = Sheet(headings, numbered, cells).fitted()
    else:
        sheet = Sheet(numbered, headings, rows).fitted()
    axes = sheet.axes(ax, bar=True)
    sheet.draw(axes)
    scale_bar(axes, top, "probability, one scale")
    bad = not_finite(found.maps, "in the recorded attention")
    told = f"{found.words[0][:20]!r} head by head, {found.reduction}"
    heading(axes, f"{told} (r: likeness to the layer's mean)", bad, found.rows)
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
