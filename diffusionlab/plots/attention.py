"""Where each word was looked up: the maps alone, over the picture, and on three scales."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.attention import AttentionMaps, attention_maps
from diffusionlab.analysis.attention_choice import listed
from diffusionlab.errors import InputError, shown
from diffusionlab.images import to_array
from diffusionlab.plots.attention_grids import guesses, word_names_of
from diffusionlab.plots.figure import (
    Figure,
    amounts,
    canvas,
    contact_sheet,
    finish,
    heading,
    largest,
    not_finite,
)
from diffusionlab.plots.sheets import Cell, Sheet, scale_bar
from diffusionlab.trace import Trace

SCALINGS = {
    "common": "probability, one scale",
    "word": "share of its own largest",
    "raw": "probability, 0 to 1",
}
OVER = (None, "picture", "x0")
MOST = 24  # maps


def plot_attention(
    record: Trace,
    *,
    words: str | Iterable[str] | None = None,
    steps: int | Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
    resolution: Any = None,
    heads: int | Iterable[int] | None = None,
    scaling: str = "common",
    over: str | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """The cross-attention map of every word, its pieces summed, all on one scale that begins at 0.

    A map says where a word was looked up, not why the picture is as it is. words, steps, layers,
    resolution and heads: as in `attention_maps`; what is not named is averaged, as the title says.
    scaling: "common", "word" (each map by its own largest) or "raw" (0 to 1). over: "picture" lays
    the maps over the final picture, "x0" over x0-hat at the last of the chosen steps. Raises
    InputError.
    """
    _one_of("scaling", scaling, SCALINGS)
    words, remark = word_names_of(record, words, MOST)
    options = {"layers": layers, "resolution": resolution, "heads": heads}
    found = attention_maps(record, words, steps=steps, **options)
    maps, below = found.maps[:, 0], _below(record, over, found.steps)
    scales = _scales(maps, scaling)
    names = [name[:16] for name in found.words]
    if scaling == "word":
        names = [f"{n} ≤ {s['vmax']:.2g}" for n, s in zip(names, scales, strict=True)]
    columns = _columns(len(names))
    rows, tall = -(-len(names) // columns), maps.shape[1] / maps.shape[2]
    wide = max(1.6, min(4.0, 11.5 / columns, 6.2 / (rows * (tall + 0.2))))
    size = (max(1.08 * wide * columns + 1.6, 9.0), max(wide * (tall + 0.2) * rows + 0.8, 3.6))
    axes = canvas(ax, size)
    drawn = _sheet(axes, names, maps, scales, below, columns)
    _bar(axes, drawn, scaling)
    bad = not_finite(maps, "in the recorded attention")
    heading(axes, f"cross-attention, {found.reduction}{remark}", bad, found.rows)
    return finish(ax, axes, _alt(found, scaling, over))


def _columns(count: int) -> int:
    """Columns of a sheet that is wider than high."""
    return next(
        (c for most, c in ((5, count), (6, 3), (8, 4), (10, 5), (18, 6)) if count <= most), 8
    )


def _one_of(what: str, given: Any, allowed: Iterable) -> None:
    if given not in tuple(allowed):
        raise InputError(f"{what}={shown(given)}; allowed are {listed(allowed)}; choose one")


def _scales(maps: np.ndarray, scaling: str) -> list[dict]:
    """The `imshow` options of each map."""
    tops = {"common": [largest(maps)] * len(maps), "raw": [1.0] * len(maps)}
    return [amounts(top) for top in tops.get(scaling) or map(largest, maps)]


def _below(record: Trace, over: str | None, steps: tuple[int, ...]) -> np.ndarray | None:
    """The picture under the maps, as grey as a photocopy, so that all colour is the map's."""
    _one_of("over", over, OVER)
    if over is None:
        return None
    if over == "picture" and record.image is None:
        raise InputError(
            "over='picture', but the run was stopped and has no image; allowed is then 'x0', which "
            "needs the predictions"
        )
    array = to_array(record.image) if over == "picture" else _guess(record, steps[-1])
    grey = array[..., :3].astype(np.float64) @ (0.299, 0.587, 0.114)
    return np.repeat(np.round(grey)[..., None], 3, axis=2).astype(np.uint8)


def _guess(record: Trace, step: int) -> np.ndarray:
    """x0-hat of one step as a uint8 picture."""
    decoded = len(record.frames) == len(record.steps)
    if not decoded and (not record.steps[step].predictions or record.preview is None):
        raise InputError(
            "over='x0' needs the predictions and a preview map, or decoded frames; run again with "
            'record={"predictions", "attention", "frames"}'
        )
    return guesses(record, [step])[0].array


def _sheet(
    axes: Axes, names: list[str], maps: np.ndarray, scales: list[dict], below: Any, columns: int
) -> list:
    """The maps; over a picture they are the clearer the higher their value."""
    if below is not None:
        contact_sheet(axes, [("", below, {}) for _ in names], columns=columns)
        clear = [
            np.nan_to_num(np.clip(m / s["vmax"], 0, 1)) for m, s in zip(maps, scales, strict=True)
        ]
        scales = [s | {"alpha": 0.1 + 0.75 * c} for s, c in zip(scales, clear, strict=True)]
    entries = list(zip(names, maps, scales, strict=True))
    return contact_sheet(axes, entries, columns=columns)


def _bar(axes: Axes, drawn: list, scaling: str) -> None:
    """The colour bar; in full colour also where the maps are transparent."""
    top = 1.0 if scaling == "word" else drawn[0].get_clim()[1]
    scale_bar(axes, top, SCALINGS[scaling])


def _alt(found: AttentionMaps, scaling: str, over: str | None) -> str:
    means = found.maps.mean(axis=(1, 2, 3))
    order = np.argsort(-means)[:4]
    told = ", ".join(f"{found.words[i]} {means[i]:.2g}" for i in order)
    where = {None: "", "picture": " over the picture", "x0": " over x0-hat"}[over]
    return (
        f"Attention maps of {len(means)} words{where}, {found.reduction}, scaled: "
        f"{SCALINGS[scaling]}; mean probability: {told}."
    )


# ---- three scalings ---------------------------------------------------------------------------
def plot_attention_scalings(
    record: Trace,
    *,
    words: str | Iterable[str] | None = None,
    steps: int | Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
    resolution: Any = None,
    heads: int | Iterable[int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """The same maps three times: on one scale, each by its own largest, and raw from 0 to 1.

    Scaled by itself every word glows, whatever it was worth. Choices and InputErrors as in
    `attention_maps`.
    """
    words, remark = word_names_of(record, words, 8)
    options = {"layers": layers, "resolution": resolution, "heads": heads}
    found = attention_maps(record, words, steps=steps, **options)
    maps = found.maps[:, 0]
    top = largest(maps)
    kinds = {"common": f"one scale\n0 to {top:.2g}", "word": "each its own\n0 to its largest",
             "raw": "raw\n0 to 1"}  # fmt: skip
    cells = [_row(maps, kind) for kind in kinds]
    sheet = Sheet(list(kinds.values()), [n[:12] for n in found.words], cells).fitted()
    axes = sheet.axes(ax, bar=True)
    sheet.draw(axes)
    scale_bar(axes, 1.0, "share of the row's scale")
    bad = not_finite(maps, "in the recorded attention")
    heading(axes, f"the same maps on three scales, {found.reduction}{remark}", bad, found.rows)
    low, high = min(map(largest, maps)), top
    alt = f"{len(maps)} attention maps, each on one common scale, on its own, and from 0 to 1; "
    return finish(ax, axes, alt + f"their largest values reach from {low:.2g} to {high:.2g}.")


def _row(maps: np.ndarray, kind: str) -> list[Cell]:
    """The maps on one of the scales; where each has its own, its largest value stands above it."""
    told = [f"≤ {largest(one):.2g}" if kind == "word" else "" for one in maps]
    rows = zip(maps, _scales(maps, kind), told, strict=True)
    return [Cell(one, scale, caption=caption) for one, scale, caption in rows]
