"""The first two panels of the exhibit: the words as pieces, and the words as numbers.

A sentence is a list that alternates between our text and a user's: `["“", word, "” is short."]`.
The page puts each of the user's texts apart from the direction of the text around it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.text import token_table
from diffusionlab.trace import Tokens, Trace
from diffusionlab.views.facts import notices_of
from diffusionlab.views.page import packed

MOST_WORDS = 12  # shown one by one; a visitor does not stay for more
LONGEST = 24  # characters of a word
MOST_CUT = 4  # words that were cut off and are named
NOTICE = 160  # characters of one
FIRST_NUMBERS = 4  # of a row, spelled out
CUT = 99  # percentile of |value| at which the colours end
Sentence = list[str]


def word_count(trace: Trace) -> int:
    """How many words the story stops at: at most twelve; 0 where the record has none."""
    return 0 if trace.tokens is None else min(len(trace.tokens.words), MOST_WORDS)


def word_cards(trace: Trace) -> list[dict[str, Any]]:
    """Each word that is shown with its pieces and their numbers in the vocabulary."""
    tokens, cards = trace.tokens, []
    names = _piece_names(tokens) if tokens else []
    for place in range(word_count(trace)):
        at = _positions(tokens, place)
        pieces, ids = [names[i] for i in at], [int(tokens.ids[i]) for i in at]
        cards.append({"word": shortened(tokens.words[place]), "pieces": pieces, "ids": ids})
    return cards


def _piece_names(tokens: Tokens) -> list[str]:
    """What each position's piece is called: a byte of a letter says which it is, of how many."""
    return [shortened(row.visible) for row in token_table(tokens) if row.kept]


def shortened(text: str, most: int = LONGEST) -> str:
    """The text, or its beginning."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _positions(tokens: Tokens, word: int) -> list[int]:
    return [i for i, owner in enumerate(tokens.word_of) if owner == word]


# ---- panel 1: the prompt ----------------------------------------------------------------------
def prompt_panel(trace: Trace) -> dict[str, Any]:
    """What the words became: pieces with numbers; what was cut off."""
    tokens, cards = trace.tokens, word_cards(trace)
    said = [[_card_said(card)] for card in cards] or [[["The next panels show the run."]]]
    lead = _prompt_lead(tokens)
    return {"name": "Prompt", "lead": lead, "said": said, "notices": _notices(trace)}


def _notices(trace: Trace) -> list[str]:
    """What was told of the run, but for the cut: it stands first, and the lead says it."""
    told = trace.tokens is not None and trace.tokens.dropped > 0 and trace.tokens.notices
    return [shortened(text, NOTICE) for text in notices_of(trace)[1 if told else 0 :]]


def _prompt_lead(tokens: Tokens | None) -> list[Sentence]:
    if tokens is None:
        return [["The words were left out of this record; only the run itself is in it."]]
    if not tokens.words:
        return [[f"Nothing was typed. {len(tokens.ids)} positions are read all the same."]]
    words, pieces = _counted(len(tokens.words), "word"), _counted(tokens.kept, "piece")
    each = "it has" if tokens.kept == 1 else "each has"
    lead = [[f"The model reads {words} as {pieces}; {each} a number in its vocabulary."]]
    if tokens.dropped:
        lead.append(_cut_said(tokens))
    if len(tokens.words) > MOST_WORDS:
        lead.append([f"The first {MOST_WORDS} words are shown."])
    return lead


def _cut_said(tokens: Tokens) -> Sentence:
    """How many pieces never reached the model, and the first of their words."""
    were = "was" if tokens.dropped == 1 else "were"
    cut = f"{_counted(tokens.dropped, 'piece')} more did not fit and {were} cut off"
    named = [part for word in tokens.dropped_words[:MOST_CUT] for part in (" ", shortened(word))]
    more = [" …"] if len(tokens.dropped_words) > MOST_CUT else []
    return [f"{cut}: ", *named[1:], *more] if named else [f"{cut}."]


def _card_said(card: dict[str, Any]) -> Sentence:
    word, ids = card["word"], card["ids"]
    if len(ids) == 1:
        return ["“", word, f"” is piece number {ids[0]}."]
    told = ", ".join(map(str, ids))
    return ["“", word, f"” is read as {len(ids)} pieces, numbers {told}."]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


# ---- panel 2: the text embedding --------------------------------------------------------------
def embedding_panel(trace: Trace) -> dict[str, Any]:
    """The rows of numbers of the shown words, coloured; the first numbers of each are spelled."""
    panel = {"name": "Text embedding", "rows": None}
    if trace.text_embedding is None:
        lead = [["The numbers of the words were left out of this record."]]
        return panel | {"lead": lead, "said": [[["The next panels show the run."]]]}
    hidden = numbers(trace.text_embedding.hidden[0])
    named = _rows(trace, len(hidden))
    picked = hidden[[at for at, _, _ in named]]
    limit = _limit(picked)
    lead = [[f"Each piece became a row of {hidden.shape[1]} numbers. The network that draws reads "
             f"{len(hidden)} such rows, and never the words."]]  # fmt: skip
    if len(trace.text_embedding.hidden) > 1:
        lead.append([f"These are of the first of {len(trace.text_embedding.hidden)} encoders."])
    rows = {
        "names": [name for _, name, _ in named],
        "words": [word for _, _, word in named],
        "values": packed(picked, "float16"),
        "limit": limit,
        "measure": f"value, cut at ±{limit:.3g} (the {CUT}th percentile)",
    }
    return panel | {"rows": rows, "lead": lead, "said": _rows_said(named, picked)}


def _rows(trace: Trace, count: int) -> list[tuple[int, str, int]]:
    """(position, name, word) of the rows that are shown; without words the first twelve."""
    tokens = trace.tokens
    if not word_count(trace) or len(tokens.pieces) != count:
        return [(i, f"row {i}", 0) for i in range(min(count, MOST_WORDS))]
    words, names = range(word_count(trace)), _piece_names(tokens)
    return [(i, names[i], word) for word in words for i in _positions(tokens, word)]


def _limit(values: np.ndarray) -> float:
    size = np.abs(values[np.isfinite(values)])
    return float(np.percentile(size, CUT)) if size.size and size.any() else 1.0


def _rows_said(named: list[tuple[int, str, int]], values: np.ndarray) -> list[list[Sentence]]:
    """For each word a sentence with the first numbers of its first row."""
    said = []
    for word in sorted({word for _, _, word in named}):
        row = next(i for i, (_, _, owner) in enumerate(named) if owner == word)
        first = ", ".join(_number(value) for value in values[row][:FIRST_NUMBERS])
        said.append([["“", named[row][1], f"” is now {first} … : {values.shape[1]} numbers."]])
    return said


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if np.isfinite(value) else "not finite"
