"""Byte-pair encoding of one word, merge by merge, with a checkpoint's own list of merges."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InputError, shown
from ..pipeline import LatentDiffusion
from ..trace import Merge, Merges

WORD_END = "</w>"


def merge_steps(model: LatentDiffusion, word: str) -> Merges:
    """How the model's tokenizer joins the letters of one word to pieces (arXiv 1508.07909, 3.2).

    Again and again, of all pairs of neighbours the one that stands first in the list of merges is
    joined, everywhere in the word. The word is lower-cased first, as the tokenizer does. Errors:
    InputError for anything but one word.
    """
    letters = _letters(model.tokenizer.backend_tokenizer, word)
    listed = json.loads(model.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    pairs = (tuple(m.split(" ") if isinstance(m, str) else m) for m in listed)
    places = {pair: place for place, pair in enumerate(pairs, 1)}
    pieces, steps = letters, []
    while fitting := places.keys() & set(zip(pieces, pieces[1:], strict=False)):
        pair = min(fitting, key=places.__getitem__)
        pieces = _joined(pieces, pair)
        steps.append(Merge(*map(_seen, pair), places[pair], tuple(map(_seen, pieces))))
    return Merges(word, tuple(map(_seen, letters)), tuple(steps), len(places))


def _letters(backend: Any, word: str) -> tuple[str, ...]:
    """The letters (bytes, where they are not ASCII) that byte-pair encoding begins with."""
    plain = backend.normalizer.normalize_str(word) if isinstance(word, str) else ""
    found = [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(plain)]
    if len(found) != 1:
        raise InputError(
            f"word is {shown(word)}; one word is allowed, of letters alone, without "
            'blanks and punctuation: merge_steps(model, "cyberpunk")'
        )
    return (*found[0][:-1], found[0][-1] + WORD_END)


def _joined(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The pieces with every such pair joined, from left to right."""
    left, made = list(pieces), []
    while left:
        taken = left[:2] if tuple(left[:2]) == pair else left[:1]
        made.append("".join(taken))
        del left[: len(taken)]
    return tuple(made)


def _seen(piece: str) -> str:
    """A piece to look at: a space for the mark of a word's end."""
    return piece.removesuffix(WORD_END) + " " * piece.endswith(WORD_END)
