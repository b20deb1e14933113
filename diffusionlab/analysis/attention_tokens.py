"""Attention from the other sides: what share each token takes, and what one pixel looks at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.attention import SUMS, TOLERANCE, attention_maps, enlarged
from diffusionlab.analysis.attention_choice import (
    SELF,
    SPECIAL,
    Layer,
    calls_of_steps,
    chosen_layers,
    chosen_numbers,
    content_words,
    layers_of,
    layers_of_run,
    size_of,
    token_groups,
)
from diffusionlab.analysis.latents import Residual
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Trace
from diffusionlab.trace.summary import size_text


# ---- the share of each token ------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class AttentionMass:
    """The mean probability of every group of tokens at each step, (steps, groups).

    `groups` are "<start>", the words, "<end>", "<pad>"; `words` are the user's among them. `rows`
    is the check that a step's shares sum to 1.
    """

    groups: tuple[str, ...]
    words: tuple[str, ...]
    shares: np.ndarray
    steps: tuple[int, ...]
    rows: Residual
    reduction: str

    def of(self, *names: str) -> np.ndarray:
        """The share of these groups together at each step, (steps,)."""
        return self.shares[:, [self.groups.index(name) for name in names]].sum(axis=1)


def attention_mass(trace: Trace, **chosen: Any) -> AttentionMass:
    """How the probability is shared out over start, words, end and padding, mean of all places.

    `chosen`: steps, layers, resolution and heads as in `attention_maps`. Raises its InputErrors.
    """
    groups = _groups(trace)
    found = attention_maps(trace, groups, by="step", **chosen)
    shares = found.maps.mean(axis=(2, 3)).T
    rows = Residual(float(np.abs(shares.sum(axis=1) - 1).max()), TOLERANCE, SUMS)
    words = content_words(groups)
    return AttentionMass(found.words, words, shares, found.steps, rows, found.reduction)


def _groups(trace: Trace) -> tuple[str, ...]:
    layer = layers_of_run(trace)[0]
    return tuple(token_groups(trace.tokens, layer.array.shape[-1]))


# ---- the words of one pixel -------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class PixelWords:
    """What one pixel (x to the right, y down) looks up: probabilities (steps, words).

    `words` are ranked by their mean over the steps, highest first; `specials` and `rest` (steps,
    specials) are start, end and padding. `cell` (row, column) is the pixel's place in the finest
    chosen layer, of `size` (height, width) cells.
    """

    pixel: tuple[int, int]
    cell: tuple[int, int]
    size: tuple[int, int]
    words: tuple[str, ...]
    probabilities: np.ndarray
    specials: tuple[str, ...]
    rest: np.ndarray
    steps: tuple[int, ...]
    rows: Residual
    reduction: str


def words_at(
    trace: Trace,
    pixel: tuple[int, int] | None = None,
    words: str | Iterable[str] | None = None,
    **chosen: Any,
) -> PixelWords:
    """The words that one pixel of the picture looks up, ranked, at every step.

    pixel: (x, y) of the picture, None for its centre. words: None for all of the prompt. `chosen`:
    steps, layers, resolution and heads as in `attention_maps`, whose InputErrors are raised.
    """
    pixel = chosen_pixel(trace, pixel)
    found = attention_maps(trace, words, by="step", **chosen)
    row, column = cell_of(trace, pixel, found.size)
    here = found.maps[:, :, row, column].T  # (steps, words)
    order = np.argsort(-here.mean(axis=0), kind="stable")
    specials = tuple(name for name in _groups(trace) if name in SPECIAL.values())
    rest = np.zeros((len(here), 0))
    if specials:
        rest = attention_maps(trace, specials, by="step", **chosen).maps[:, :, row, column].T
    names = tuple(found.words[i] for i in order)
    return PixelWords(
        pixel, (row, column), found.size, names, here[:, order], specials, rest, found.steps,
        found.rows, found.reduction,
    )  # fmt: skip


def chosen_pixel(trace: Trace, pixel: Any) -> tuple[int, int]:
    """(x, y) of the picture, the centre for None; InputError for one outside."""
    width, height = trace.settings.width, trace.settings.height
    if pixel is None:
        return width // 2, height // 2
    try:
        x, y = (int(n) for n in pixel)
    except (TypeError, ValueError):
        x = y = -1
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(
            f"pixel={shown(pixel)}; x (to the right) from 0 to {width - 1} and y (down) from 0 to "
            f"{height - 1} are allowed; choose one inside the picture"
        )
    return x, y


def cell_of(trace: Trace, pixel: tuple[int, int], size: Sequence[int]) -> tuple[int, int]:
    """(row, column) of the cell that holds the pixel, on a grid of `size` (height, width)."""
    x, y = pixel
    return y * size[0] // trace.settings.height, x * size[1] // trace.settings.width


# ---- self-attention ---------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class SelfAttention:
    """Where one pixel looks in the picture itself: probabilities of places, summing to 1.

    `maps` has one (h, w) map for each size of layer, finest first, mean of its `layers`; `mean` is
    all layers on the finest grid, where a coarse cell's share is spread over the cells it covers.
    """

    pixel: tuple[int, int]
    maps: tuple[np.ndarray, ...]
    layers: tuple[tuple[str, ...], ...]
    mean: np.ndarray
    steps: tuple[int, ...]
    rows: Residual


def self_attention_at(
    trace: Trace,
    pixel: tuple[int, int] | None = None,
    *,
    steps: int | Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
) -> SelfAttention:
    """Where the cell of one pixel looks, mean of steps, heads and layers of one size.

    pixel: (x, y) of the picture, None for its centre. Raises InputError without recorded
    self-attention, with the bytes that it will take, and for what is outside.
    """
    pixel = chosen_pixel(trace, pixel)
    found = layers_of(trace.attention, SELF)
    if not trace.steps:
        layers_of_run(trace)  # has an error of its own for that
    if not found:
        raise InputError(_how_to_record(trace))
    calls = calls_of_steps(trace, found[0])
    numbers = chosen_numbers("steps", steps, len(calls), " (they count from 0)")
    kept = chosen_layers(found, layers, None)
    read = [_looks(trace, layer, [calls[n] for n in numbers], pixel) for layer in kept]
    sizes = sorted({layer.shape for layer in kept}, reverse=True)
    rows = Residual(float(np.max([abs(m.sum() - 1) for m in read])), TOLERANCE, SUMS)
    same = [[i for i, layer in enumerate(kept) if layer.shape == size] for size in sizes]
    maps = tuple(np.mean([read[i] for i in some], axis=0) for some in same)
    names = tuple(tuple(kept[i].name for i in some) for some in same)
    return SelfAttention(pixel, maps, names, _spread(read, sizes[0]), numbers, rows)


def _looks(trace: Trace, layer: Layer, calls: Sequence[slice], pixel: tuple) -> np.ndarray:
    """The row of the pixel's cell as a map (h, w), mean of steps and heads."""
    row, column = cell_of(trace, pixel, layer.shape)
    means = [layer.array[some, :, row, column].astype(np.float64).mean(axis=(0, 1))
             for some in calls]  # fmt: skip
    return np.mean(means, axis=0).reshape(layer.shape)


def _spread(maps: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The mean of maps on one grid: a coarse cell's share is divided among the cells it covers."""
    spread = []
    for found in maps:
        names = np.arange(found.size).reshape(found.shape)
        covered = np.bincount(enlarged(names[None], *size).ravel(), minlength=found.size)
        shares = found / np.maximum(covered, 1).reshape(found.shape)
        spread.append(enlarged(shares[None], *size)[0])
    return np.mean(spread, axis=0)


def _how_to_record(trace: Trace) -> str:
    """What to do for self-attention, and the bytes that it takes: calls · places² · 2 a layer."""
    known = [layer.shape for layer in layers_of(trace.attention)]
    sizes = known or [trace.steps[0].latent.shape[1:]]
    calls = sum(step.network_calls for step in trace.steps)
    needed = sum(2 * calls * (h * w) ** 2 for h, w in sizes)
    counts = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
    told = ", ".join(f"{n} of {size_of(size)} cells" for size, n in counts.items())
    layers = f"layers: {told}" if known else f"for each layer of {told[5:]}"
    return (
        "record without self-attention, which is kept on request only; run again with "
        f'record={{"predictions", "attention", "self_attention"}}: it will take '
        f"{size_text(needed)} for {calls} network calls ({layers}, float16)"
    )
