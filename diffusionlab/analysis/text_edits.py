"""Text embeddings changed by hand before a run: words replaced, prompts blended, rows ablated.

Each function takes what `embed` made and returns a new one in NumPy, with the tokens of the first;
`generate(model, prompt, text_embedding=edited)` runs it. Every text encoder's rows are changed;
`pooled` and `extra` stay, since the U-Nets of Stable Diffusion 1.x and 2.x read none of them.

A word is named as in `trace.words`: "red" is every "red", "red#2" the second one. Rows of other
tokens keep what they had already taken from it: the text encoder mixes words before any edit here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.text import tokens_of, word_rows
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import TextEmbedding, to_numpy

BY = ("pad", "zero", "mean")
KINDS = ("start", "word", "end", "pad")


def replace_word(
    embedding: TextEmbedding, word: str, other_embedding: TextEmbedding, other_word: str
) -> TextEmbedding:
    """The rows of a word replaced by those of a word of another prompt.

    Piece by piece if both have as many; else each row becomes the mean of the other word's rows.
    Raises InputError for a word that is not there and for embeddings of another shape.
    """
    _check_alike(embedding, other_embedding)
    rows = word_rows(tokens_of(embedding), word)
    source = word_rows(tokens_of(other_embedding), other_word)

    def change(own: np.ndarray, other: np.ndarray) -> None:
        same = len(rows) == len(source)
        own[list(rows)] = other[list(source)] if same else other[list(source)].mean(axis=0)

    return _changed(embedding, change, other_embedding)


def replace_rows(
    embedding: TextEmbedding, rows: Iterable[int], other_embedding: TextEmbedding
) -> TextEmbedding:
    """Some rows replaced by another prompt's rows at the same positions. Raises InputError."""
    return blend(embedding, other_embedding, 1.0, rows=rows)


def blend(
    a: TextEmbedding, b: TextEmbedding, share: float, *, rows: Iterable[int] | None = None
) -> TextEmbedding:
    """(1 − share) · a + share · b, row by row; with `rows`, at these positions only.

    share 0 is a and 1 is b; beyond them it goes on in a straight line. The tokens are those of a.
    Raises InputError for embeddings of another shape, rows that are not there, a share that is no
    finite number.
    """
    _check_alike(a, b)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not math.isfinite(share):
        raise InputError(f"share is {shown(share)}; a finite number is allowed: 0 is a, 1 is b")
    chosen = _rows(rows, len(a.hidden[0]))

    def change(own: np.ndarray, other: np.ndarray) -> None:
        own[chosen] = (1 - share) * own[chosen] + share * other[chosen]

    return _changed(a, change, b)


def ablate_word(embedding: TextEmbedding, word: str, by: str = "pad") -> TextEmbedding:
    """The rows of a word replaced `by` the mean row of the padding, zeros, or the mean of all rows.

    Raises InputError for a word that is not there, another `by`, or "pad" without any padding.
    """
    return _ablated(embedding, word_rows(tokens_of(embedding), word), by)


def ablate_kind(embedding: TextEmbedding, kind: str, by: str = "zero") -> TextEmbedding:
    """All rows of a kind ("start", "word", "end" or "pad") replaced, as `ablate_word`."""
    if kind not in KINDS:
        raise InputError(
            f"kind is {shown(kind)}; {', '.join(map(repr, KINDS))} are allowed: choose one"
        )
    return _ablated(embedding, kind_rows(embedding, (kind,)), by)


def kind_rows(embedding: TextEmbedding, kinds: Sequence[str]) -> tuple[int, ...]:
    """The positions of the tokens of some kinds."""
    return tuple(i for i, kind in enumerate(tokens_of(embedding).kinds) if kind in kinds)


def _ablated(embedding: TextEmbedding, rows: Sequence[int], by: str) -> TextEmbedding:
    if by not in BY:
        raise InputError(f"by is {shown(by)}; {', '.join(map(repr, BY))} are allowed: choose one")
    pads = list(kind_rows(embedding, ("pad",)))
    if by == "pad" and not pads:
        raise InputError('this prompt has no padding to replace by; use by="zero" or by="mean"')

    def change(own: np.ndarray, _: np.ndarray) -> None:
        by_name = {"zero": 0.0, "mean": own.mean(axis=0), "pad": own[pads].mean(axis=0)}
        own[list(rows)] = by_name[by]

    return _changed(embedding, change, embedding)


def _changed(embedding: TextEmbedding, change: Any, other: TextEmbedding) -> TextEmbedding:
    """`change(own, other)` on a float64 copy of every encoder's rows; the given ones stay."""
    hidden = []
    for own, source in zip(embedding.hidden, other.hidden, strict=True):
        kept = to_numpy(own)
        rows = kept.astype(np.float64)
        with np.errstate(all="ignore"):  # padding rows are only meant where there are some
            change(rows, to_numpy(source).astype(np.float64))
        hidden.append(rows.astype(kept.dtype))
    pooled = None if embedding.pooled is None else np.array(to_numpy(embedding.pooled))
    extra = {name: np.array(to_numpy(value)) for name, value in embedding.extra.items()}
    return TextEmbedding(tuple(hidden), pooled, extra, embedding.tokens)


def _check_alike(a: TextEmbedding, b: TextEmbedding) -> None:
    for embedding in (a, b):
        tokens_of(embedding)
    shapes = [[tuple(h.shape) for h in embedding.hidden] for embedding in (a, b)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"text embeddings with rows {shapes[0]} and {shapes[1]} were given; only those of one "
            "model have one shape: embed both prompts with the same model"
        )


def _rows(rows: Iterable[int] | None, count: int) -> list[int]:
    if rows is None:
        return list(range(count))
    chosen = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str) else [rows]
    wrong = [r for r in chosen if isinstance(r, bool) or not isinstance(r, (int, np.integer))
             or not 0 <= r < count]  # fmt: skip
    if wrong:
        raise InputError(
            f"rows holds {shown(wrong[0])}; positions 0 to {count - 1} are allowed: take those of "
            'a word, word_rows(tokens, "red")'
        )
    return [int(r) for r in chosen]
