"""What a word of a prompt is called, by whoever names one: "red", "red#2", "sailing boat".

Case does not matter. A name that stands several times means all of them where all can be meant;
"red#2" is the second one alone. Words that follow each other, with blanks between, are a phrase.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from diffusionlab.errors import InputError, shown
from diffusionlab.trace.records import Tokens

Place = tuple[int, ...]  # which words of a prompt: several of them are a phrase


def word_names(words: Sequence[str]) -> tuple[str, ...]:
    """Each word, with a number where it stands several times: ("red#1", "car", "Red#2")."""
    plain = [_fold(word) for word in words]
    return tuple(
        f"{word}#{plain[: i + 1].count(plain[i])}" if plain.count(plain[i]) > 1 else word
        for i, word in enumerate(words)
    )


def places_of(words: Sequence[str], name: str) -> tuple[Place, ...]:
    """Everywhere that a name stands among the words, in order; "red#2" one place, () if nowhere."""
    if not isinstance(name, str):
        return ()
    plain = [_fold(word) for word in words]
    found = _stands(plain, name)
    head, _, number = name.rpartition("#")
    if found or not (number.isascii() and number.isdecimal()):
        return found
    return tuple(place for i, place in enumerate(_stands(plain, head), 1) if i == int(number))


def only_place(words: Sequence[str], name: str) -> Place | None:
    """The one place of a name, None if nowhere. Raises InputError if there are several."""
    found = places_of(words, name)
    if len(found) > 1:
        names = word_names(words)
        told = [names[place[0]] if len(place) == 1 else f"{name}#{i}"
                for i, place in enumerate(found, 1)]  # fmt: skip
        raise InputError(
            f"the word {shown(name)} is in the prompt {len(found)} times; say which: "
            f"{', '.join(map(shown, told))}"
        )
    return found[0] if found else None


def positions_of(tokens: Tokens, places: Iterable[Place]) -> tuple[int, ...]:
    """The positions in the context of all pieces of these words."""
    chosen = {word for place in places for word in place}
    return tuple(i for i, owner in enumerate(tokens.word_of) if owner in chosen)


def _stands(plain: Sequence[str], name: str) -> tuple[Place, ...]:
    """Where a word is the name, or several that follow each other are its parts."""
    if whole := tuple((i,) for i, word in enumerate(plain) if word == _fold(name)):
        return whole
    parts = [_fold(part) for part in name.split()]
    count = len(parts)
    last = len(plain) - count + 1 if count else 0
    return tuple(tuple(range(i, i + count)) for i in range(last) if plain[i : i + count] == parts)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
