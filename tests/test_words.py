"""Names of words: one meaning wherever a word is named, in maps, edits and interventions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traces

from diffusionlab.analysis import honesty
from diffusionlab.analysis.attention_choice import chosen_groups
from diffusionlab.analysis.text import token_table, word_rows
from diffusionlab.errors import InputError
from diffusionlab.trace.words import only_place, places_of, positions_of, word_names

WORDS = ("red", "car", "Red", "cat", "red", "car")


def test_a_word_that_stands_several_times_is_numbered():
    assert word_names(WORDS) == ("red#1", "car#1", "Red#2", "cat", "red#3", "car#2")
    assert word_names(("a", "Straße", "STRASSE")) == ("a", "Straße#1", "STRASSE#2")
    assert word_names(()) == ()


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("cat", ((3,),)),
        ("CAT", ((3,),)),
        ("cat#1", ((3,),)),
        ("red", ((0,), (2,), (4,))),
        ("RED#2", ((2,),)),
        ("red#4", ()),
        ("red#0", ()),
        ("red#", ()),
        ("red#²", ()),
        ("#1", ()),
        ("", ()),
        (" ", ()),
        ("dog", ()),
        ("red car", ((0, 1), (4, 5))),
        ("  Red   Car ", ((0, 1), (4, 5))),
        ("red car#2", ((4, 5),)),
        ("red cat", ((2, 3),)),
        ("car red", ((1, 2),)),
        (None, ()),
        (3, ()),
    ],
)
def test_a_name_is_found_in_every_case_by_number_and_as_a_phrase(name, places):
    assert places_of(WORDS, name) == places


def test_letters_with_marks_are_one_however_they_are_written():
    assert places_of(("caf\u00e9",), "CAFE\u0301") == ((0,),)
    assert places_of(("cafe\u0301",), "caf\u00e9") == ((0,),)


def test_where_one_is_needed_several_are_told_by_number():
    assert only_place(WORDS, "cat") == (3,) and only_place(WORDS, "dog") is None
    with pytest.raises(InputError, match="3 times; say which: 'red#1', 'Red#2', 'red#3'$"):
        only_place(WORDS, "red")
    with pytest.raises(InputError, match="2 times; say which: 'red car#1', 'red car#2'$"):
        only_place(WORDS, "red car")


def test_positions_are_those_of_all_pieces():
    tokens = traces.tokens()  # start, a, red, sky, scra, per, end
    assert positions_of(tokens, [(3,)]) == (4, 5)
    assert positions_of(tokens, [(0,), (2, 3)]) == (1, 3, 4, 5) and positions_of(tokens, []) == ()


@pytest.mark.parametrize("name", ["sky", "SKY", "sky#1", "Red Sky", "sky scraper"])
def test_maps_edits_weights_and_leaving_out_mean_the_same_word(name):
    from diffusionlab.inside.interventions import _token_weights

    spans = ((0, 1), (2, 5), (6, 9), (10, 17))
    tokens = replace(traces.tokens(), dropped=0, dropped_words=(), spans=spans)
    positions = next(iter(chosen_groups(tokens, 12, name).values()))
    assert word_rows(tokens, name) == positions
    weights = _token_weights(tokens, {name: 3})
    assert [i for i, weight in enumerate(weights) if weight == 3] == list(positions)
    left = honesty.without(replace(traces.trace(2), tokens=tokens), name).split()
    owners = {tokens.word_of[i] for i in positions}
    assert left == [word for i, word in enumerate(tokens.words) if i not in owners]


def test_weights_count_everywhere_or_by_number():
    from diffusionlab.inside.interventions import _token_weights

    tokens = replace(traces.tokens(), words=("red", "car", "Red", "cat"))
    assert _token_weights(tokens, {"red": 2})[:7] == [1, 2, 1, 2, 1, 1, 1]
    assert _token_weights(tokens, {"red#2": np.float32(0.5)})[:7] == [1, 1, 1, 0.5, 1, 1, 1]
    assert _token_weights(tokens, {"red": 2, "RED#2": 0})[:7] == [1, 2, 1, 0, 1, 1, 1]
    for weight in (np.inf, -np.inf, np.nan, True, "2", None, 1j):
        with pytest.raises(InputError, match="a finite number is allowed: 0 removes the word"):
            _token_weights(tokens, {"cat": weight})
    with pytest.raises(InputError, match="its words are red#1, car, Red#2, cat: name one of them"):
        _token_weights(tokens, {"dog": 2})


# ---- what the text itself says -----------------------------------------------------------------
HARD = [
    ("İstanbul car", ("İstanbul", "car")),
    ("cafe\u0301 car", ("cafe\u0301", "car")),
    ("  A RED  car\n at\u00a0night ", ("A", "RED", "car", "at", "night")),
    ("\u1112\u1161\u11ab car", ("\u1112\u1161\u11ab", "car")),
    ("e\u0323\u0301e\u0301 car", ("e\u0323\u0301e\u0301", "car")),
    ("हिन्दी car", ("हिन्दी", "car")),
    ("\u0301 car", ("\u0301", "car")),
    ("🚗🚗 red-hot don't", ("🚗🚗", "red", "-", "hot", "don", "'t")),
    ("❤\ufe0f 1\ufe0f\u20e3 İ5 ﬁre", ("❤\ufe0f", "1\ufe0f\u20e3", "İ", "5", "ﬁre")),
    ("a\u200bb\x00c", ("a", "\u200b", "b", "\x00", "c")),
    ("", ()),
]


@pytest.mark.parametrize(("prompt", "words"), [*HARD, *((text, None) for text in traces.HOSTILE)])
def test_words_are_the_characters_of_the_prompt_as_it_was_typed(tiny_model, prompt, words):
    from diffusionlab.stages import tokenize

    tokens = tokenize(tiny_model, prompt)
    assert tokens.words == tuple(prompt[slice(*span)] for span in tokens.spans)
    if words is not None:
        assert tokens.words == words and tokens.dropped == 0
        left = [c for i, c in enumerate(prompt) if not any(a <= i < b for a, b in tokens.spans)]
        assert not "".join(left).strip()  # every character is some word's
    assert all(a[1] <= b[0] for a, b in zip(tokens.spans, tokens.spans[1:], strict=False))
    assert {i for i in tokens.word_of if i is not None} == set(range(len(tokens.words)))


def test_words_are_cut_from_the_text_with_their_marks(tiny_model):
    from diffusionlab.stages import tokenize

    for prompt, word, left in (
        ("İstanbul car", "İstanbul", "car"),
        ("İstanbul car", "car", "İstanbul"),
        ("a cafe\u0301 car", "caf\u00e9", "a car"),
        ("the red car, the Red cat", "red#2", "the red car, the cat"),
    ):
        run = replace(traces.trace(2), tokens=tokenize(tiny_model, prompt))
        assert honesty.without(run, word) == left


def test_the_bytes_of_equal_characters_are_counted_one_by_one(tiny_model):
    from diffusionlab.stages import tokenize

    def counted(prompt: str) -> list:
        return [row.byte for row in token_table(tokenize(tiny_model, prompt)) if row.byte]

    four, two = [(i, 4) for i in (1, 2, 3, 4)], [(1, 2), (2, 2)]
    assert counted("🚗🚗") == 2 * four and counted("🚗 🚗") == 2 * four
    assert counted("éé") == counted("éaé") == counted("e\u0301e\u0301") == 2 * two
    assert counted("É日") == [*two, (1, 3), (2, 3), (3, 3)] and counted("red") == []
    assert counted("🚗" * 9)[-6:] == [*four, (1, 4), (2, 4)]  # the tiny context holds 30 pieces
