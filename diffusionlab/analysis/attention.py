"""Cross-attention in numbers: where each word was looked up, by step, layer, resolution and head.

A map is a probability: at every place of the picture the softmax shares out 1 over all tokens
(arXiv 1706.03762, Eq. 1). Selecting and averaging never rescales it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.attention_choice import (
    CROSS,
    SELF,
    Layer,
    calls_of_steps,
    chosen_groups,
    chosen_heads,
    chosen_layers,
    chosen_numbers,
    cross_layers,
    layers_of_run,
    listed,
    size_of,
)
from diffusionlab.analysis.latents import Residual
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Tokens, Trace

__all__ = ["CROSS", "SELF", "AttentionMaps", "attention_maps", "call_maps", "enlarged"]

BY = (None, "step", "layer", "head")
_MANY = (*"0123456789", "steps", "heads", "all")
SUMS = "rows sum to 1"
TOLERANCE = 2e-3  # of a row's sum: 77 float16 probabilities are off by 3e-4, a lost one by 1e-2


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Maps (words, entries, h, w) of probabilities; `entries` are what `by` kept apart.

    `words` name the rows as the user wrote them, or "<start>", "<end>", "<pad>", "token 5"; the
    pieces of a word are summed. `reduction` says what was averaged, `steps` and `layers` over what,
    `rows` is the check that at every place the probabilities of all tokens sum to 1.
    """

    words: tuple[str, ...]
    by: str | None
    entries: tuple[str, ...]
    maps: np.ndarray
    rows: Residual
    reduction: str
    steps: tuple[int, ...]
    layers: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps in cells."""
        return self.maps.shape[2:]


# ---- maps -------------------------------------------------------------------------------------
def attention_maps(
    trace: Trace,
    words: str | Iterable[str] | None = None,
    *,
    steps: int | Iterable[int] | None = None,
    layers: str | Iterable[str] | None = None,
    resolution: Any = None,
    heads: int | Iterable[int] | None = None,
    by: str | None = None,
) -> AttentionMaps:
    """The maps of words, averaged over every step, layer and head that was chosen.

    `by` keeps "step", "layer" or "head" (of each layer) apart. Network calls of one step are
    averaged first, then heads, then steps and layers, each counting the same; coarser layers are
    enlarged by repetition. Raises InputError for a word, step, layer, size or head that is not
    there, for a run of no step, and for a record without cross-attention.
    """
    found = layers_of_run(trace)
    calls = calls_of_steps(trace, found[0])
    numbers = chosen_numbers("steps", steps, len(calls), " (they count from 0)")
    options = {"layers": layers, "resolution": resolution, "heads": heads, "by": by}
    return _maps(found, trace.tokens, words, [calls[n] for n in numbers], numbers, **options)


def call_maps(
    attention: Mapping[str, np.ndarray],
    tokens: Tokens | None,
    words: str | Iterable[str] | None = None,
    *,
    layers: str | Iterable[str] | None = None,
    resolution: Any = None,
    heads: int | Iterable[int] | None = None,
    by: str | None = None,
) -> AttentionMaps:
    """The same for network calls that belong to no run: each call of the record is a step.

    `attention` maps a tap's name to (calls, h, w, tokens), or with heads (calls, heads, h, w,
    tokens), as `recording` around `predict` shows them.
    """
    found = cross_layers(attention)
    numbers = range(len(found[0].array))
    options = {"layers": layers, "resolution": resolution, "heads": heads, "by": by}
    calls = [slice(n, n + 1) for n in numbers]
    return _maps(found, tokens, words, calls, tuple(numbers), **options)


def _maps(
    found: list[Layer], tokens: Tokens | None, words: Any, calls: list[slice],
    steps: tuple[int, ...], *, layers: Any, resolution: Any, heads: Any, by: str | None,
) -> AttentionMaps:  # fmt: skip
    if by not in BY:
        raise InputError(f"by={shown(by)}; allowed are {listed(BY)}; choose one")
    count = found[0].array.shape[-1]
    groups = chosen_groups(tokens, count, words)
    kept = chosen_layers(found, layers, resolution)
    chosen = chosen_heads(kept, heads, by)
    weights = np.zeros((count, len(groups)))  # (tokens, words): a word is the sum of its pieces
    for column, positions in enumerate(groups.values()):
        weights[list(positions), column] = 1
    height, width = (max(layer.shape[i] for layer in kept) for i in (0, 1))
    parts, offs = [], []
    for layer, some in zip(kept, chosen, strict=True):
        read, off = _read(layer, calls, some, weights)
        parts.append(enlarged(_reduced(read, by), height, width))
        offs.append(off)
    apart = by in ("layer", "head")
    maps = np.concatenate(parts) if apart else np.mean(parts, axis=0)  # (entries, h, w, words)
    names = _entries(by, steps, kept, chosen)
    told = _reduction(by, steps, kept, chosen if heads is not None else None)
    rows = Residual(float(np.max(offs)), TOLERANCE, SUMS)
    return AttentionMaps(
        tuple(groups), by, names, maps.transpose(3, 0, 1, 2), rows, told, steps,
        tuple(layer.name for layer in kept),
    )  # fmt: skip


def _read(
    layer: Layer, calls: Sequence[slice], heads: Sequence[int], weights: np.ndarray
) -> tuple[np.ndarray, float]:
    """(steps, heads, h, w, words) in float64, and how far a row's sum is from 1 at worst."""
    steps, off = [], 0.0
    for some in calls:
        array = layer.array[some][:, list(heads)].astype(np.float64)
        off = np.maximum(off, np.abs(array.sum(axis=-1) - 1).max())  # NaN stays NaN
        steps.append(array.mean(axis=0) @ weights)
    return np.stack(steps), float(off)


def _reduced(read: np.ndarray, by: str | None) -> np.ndarray:
    """(entries, h, w, words) of one layer."""
    if by == "step":
        return read.mean(axis=1)
    mean = read.mean(axis=0)
    return mean if by == "head" else mean.mean(axis=0)[None]


def enlarged(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (n, h, w, …) at a larger size by repetition: each value stays what it is."""
    rows = np.arange(height) * maps.shape[1] // height
    columns = np.arange(width) * maps.shape[2] // width
    return maps[:, rows][:, :, columns]


# ---- what was averaged, in words --------------------------------------------------------------
def _entries(by: str | None, steps: Sequence[int], layers: list[Layer], heads: list) -> tuple:
    if by == "step":
        return tuple(f"step {n}" for n in steps)
    if by == "layer":
        return tuple(layer.name for layer in layers)
    pairs = zip(layers, heads, strict=True)
    return tuple(f"{y.name} head {n}" for y, some in pairs for n in some) if by else ("mean",)


def _reduction(by: str | None, steps: Sequence[int], layers: list[Layer], heads: Any) -> str:
    """What was chosen and averaged: "step 5, mean of 7 layers and all heads"."""
    parts = [] if by == "step" else [_numbers_told("step", steps)]
    if by not in ("layer", "head"):
        one = f"layer {layers[0].name} ({size_of(layers[0].shape)})"
        parts.append(one if len(layers) == 1 else f"{len(layers)} layers")
    if by != "head":
        parts.append("all heads" if heads is None else _numbers_told("head", heads[0]))
    single = [part for part in parts if not part.startswith(_MANY)]
    many = [part for part in parts if part.startswith(_MANY)]
    told = " and ".join([", ".join(many[:-1]), many[-1]] if many[1:] else many)
    return ", ".join([*single, *([f"mean of {told}"] if told else [])])


def _numbers_told(what: str, numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"{what} {numbers[0]}"
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{what}s {numbers[0]}–{numbers[-1]}"
    return f"{what}s {', '.join(map(str, numbers))}" if len(numbers) < 6 else (
        f"{len(numbers)} {what}s"
    )  # fmt: skip
