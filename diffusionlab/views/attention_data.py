"""Attention maps of a run as data of a page: a word's map at each step, in one byte a cell.

At every place the shares of all words, of start, end and padding add up to 1, as the softmax made
them; a byte counts in 255ths of the largest share that the word has anywhere at that step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.attention import attention_maps
from diffusionlab.analysis.attention_choice import (
    SPECIAL,
    Layer,
    chosen_groups,
    layers_of_run,
    size_of,
    token_groups,
)
from diffusionlab.analysis.latents import Residual, worst
from diffusionlab.analysis.text import token_table
from diffusionlab.errors import InputError
from diffusionlab.trace import Trace
from diffusionlab.trace.words import positions_of, word_names
from diffusionlab.views.page import packed, plain

CELLS = 32  # along a side of a map; finer ones are averaged into so many
SIDES = (CELLS, 24, 16)  # the first with which the maps of all layers stay below MOST, or the last
MOST = 1_200_000  # bytes of all maps together; single sizes of layers are left out above that
OTHER = "other words"
NOT_RECORDED = 'No attention was recorded: run again with record={"predictions", "attention"}.'


def attention_data(
    trace: Trace, indexes: Sequence[int], words: str | Iterable[str] | None = None
) -> dict[str, Any]:
    """The words of a run and their maps at these steps; or the words, and why there is no map.

    `kinds` are "word", "special" or "other"; `choices` hold the maps of all layers and, where
    several sizes were recorded, of each size. Raises the InputErrors of `attention_maps` where
    words are asked for.
    """
    try:
        return _recorded(trace, indexes, words)
    except InputError as error:
        if words is not None:
            raise
        return _without(trace, str(error) if trace.attention else NOT_RECORDED)


def _recorded(trace: Trace, indexes: Sequence[int], words: Any) -> dict[str, Any]:
    layers = layers_of_run(trace)
    groups = _groups(trace, layers[0].array.shape[-1], words)
    sizes = sorted({layer.shape for layer in layers})
    maps = len(indexes) * len(groups)
    side = next((n for n in SIDES if maps * _cells(sizes[-1], n) <= MOST), SIDES[-1])
    first, checks = _choice(trace, indexes, groups, layers, "all", side)
    choices = [first]
    cells = sum(map(_cells, [*sizes, sizes[-1]]))
    if len(sizes) > 1 and maps * cells < MOST:
        for size in sizes:
            same = [layer for layer in layers if layer.shape == size]
            choices.append(_choice(trace, indexes, groups, same, size_of(size))[0])
    return {
        "missing": "",
        "words": list(groups),
        "kinds": [_kind(name) for name in groups],
        "pieces": _pieces(trace, [() if n == OTHER else p for n, p in groups.items()]),
        "choices": choices,
        "check": str(worst(checks)),
    }


def _without(trace: Trace, reason: str) -> dict[str, Any]:
    names = () if trace.tokens is None else word_names(trace.tokens.words)
    places = [positions_of(trace.tokens, [(i,)]) for i in range(len(names))]
    return {
        "missing": reason,
        "words": list(names),
        "kinds": ["word"] * len(names),
        "pieces": _pieces(trace, places),
        "choices": [],
        "check": "",
    }


def _pieces(trace: Trace, groups: Sequence[Sequence[int]]) -> list[list[list[Any]]]:
    """[name, id] of the pieces of each group, equal neighbours (padding) once."""
    if trace.tokens is None:
        return [[] for _ in groups]
    names = {row.position: [row.visible, row.id] for row in token_table(trace.tokens) if row.kept}
    found = [[names[i] for i in positions if i in names] for positions in groups]
    return [[one for i, one in enumerate(some) if not i or one != some[i - 1]] for some in found]


def _groups(trace: Trace, count: int, words: Any) -> dict[str, tuple[int, ...]]:
    """Name → positions of what gets a button; what is left is one group, so that all are there."""
    whole = token_groups(trace.tokens, count)
    if words is None:
        return whole
    kept = chosen_groups(trace.tokens, count, words)
    taken = {i for positions in kept.values() for i in positions}
    specials = {n: p for n, p in whole.items() if n in SPECIAL.values() and not taken & set(p)}
    taken |= {i for positions in specials.values() for i in positions}
    rest = tuple(i for i in range(count) if i not in taken)
    return kept | specials | ({OTHER: rest} if rest else {})


def _kind(name: str) -> str:
    return "special" if name in SPECIAL.values() else "other" if name == OTHER else "word"


def _cells(size: Sequence[int], side: int = CELLS) -> int:
    return min(size[0], side) * min(size[1], side)


# ---- maps -------------------------------------------------------------------------------------
def _choice(
    trace: Trace,
    indexes: Sequence[int],
    groups: Mapping[str, tuple],
    layers: list[Layer],
    told: str,
    side: int = CELLS,
) -> tuple[dict[str, Any], list[Residual]]:
    """The maps (words, steps, h, w) of some layers as bytes, and their checks.

    One step is read at a time, so that large records need no more memory than one step's maps.
    """
    taps = [layer.tap for layer in layers]
    names = [name for name in groups if name != OTHER]
    rest = [f"token {i}" for i in groups.get(OTHER, ())]
    found = [
        attention_maps(trace, [*names, *rest], steps=i, layers=taps, by="step") for i in indexes
    ]
    steps = [pooled(_summed(one.maps[:, 0], len(names)), side) for one in found]
    maps = np.stack(steps, axis=1)  # (words, steps, h, w)
    tops = maps.max(axis=(2, 3))
    with np.errstate(all="ignore"):
        units = maps / np.where(tops > 0, tops, 1)[..., None, None]
    size = maps.shape[2:]
    averaged = "" if size == found[0].size else f", averaged into {size_of(size)} cells"
    return {
        "label": f"{told}: {len(layers)} layer{'s' * (len(layers) > 1)}",
        "reduction": f"{found[0].reduction}{averaged}",
        "maps": packed(np.nan_to_num(np.round(units * 255)), "uint8"),
        "tops": [[plain(top) for top in row] for row in tops],
    }, [one.rows for one in found]  # fmt: skip


def _summed(maps: np.ndarray, kept: int) -> np.ndarray:
    """The maps from `kept` on as one sum."""
    return np.concatenate([maps[:kept], maps[kept:].sum(axis=0)[None]][: 1 + (len(maps) > kept)])


def pooled(maps: np.ndarray, most: int = CELLS) -> np.ndarray:
    """Maps (…, h, w) averaged into at most so many cells along each side."""
    for axis in (-2, -1):
        count = maps.shape[axis]
        if count > most:
            starts = np.arange(most) * count // most
            lengths = np.diff([*starts, count]).astype(np.float64)
            sums = np.add.reduceat(maps, starts, axis=axis)
            shape = [1] * maps.ndim
            shape[axis] = most
            maps = sums / lengths.reshape(shape)
    return maps
