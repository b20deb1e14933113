"""Claims about text: each is asked, or says why not, and can come out either way."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from asked import verdict

from diffusionlab.claims import CLAIMS, Bench, text
from diffusionlab.errors import InputError
from diffusionlab.inside.text import embed_layers
from diffusionlab.training.judge_nets import Verdict


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 4)


# ---- structure: the same on every causal encoder -----------------------------------------------
def test_what_the_architecture_decides(tiny):
    expected = {"A3": "partly", "A7": "true", "A11": "partly", "A12": "false", "A20": "partly"}
    assert {name: verdict(name, tiny) for name in expected} == expected


def test_an_encoder_that_looks_both_ways_would_make_it_true(tiny, monkeypatch):
    rows = {"snow": np.ones((32, 4)), "city": np.zeros((32, 4))}
    monkeypatch.setattr(text, "_rows", lambda bench, prompt: rows[prompt.split()[-1]])
    assert verdict("A20", tiny) == "true"


def test_an_encoder_of_one_row_would_make_it_true(tiny, monkeypatch):
    monkeypatch.setattr(text, "_rows", lambda bench, prompt: np.zeros((1, 4)))
    assert verdict("A12", tiny) == "true"


def splitting(pieces):
    """A bench whose tokenizer splits a word into what a function gives."""

    def told(word, **_):
        return SimpleNamespace(encodings=[SimpleNamespace(tokens=pieces(word))])

    return SimpleNamespace(model=SimpleNamespace(tokenizer=told))


def test_a_tokenizer_that_splits_at_the_parts_would_make_it_true():
    parts = splitting(lambda word: [text.COMPOUNDS[word][0], text.COMPOUNDS[word][1] + "</w>"])
    assert verdict("A5", parts) == "true"
    assert verdict("A5", splitting(lambda word: [word + "</w>"])) == "false"


def test_a_prompt_in_the_pieces_that_are_told_would_make_it_true(toyland_bench):
    halves = {"cyberpunk": ["cyber", "punk</w>"], "cityscape": ["city", "scape</w>"]}
    assert verdict("A6", splitting(lambda word: halves.get(word, [word + "</w>"]))) == "true"
    assert verdict("A6", splitting(lambda word: [word + "</w>"])) == "false"
    assert verdict("A6", toyland_bench) == "true"  # its tokenizer was made so


def test_a_word_that_is_never_looked_up_would_make_it_true(tiny, monkeypatch):
    def mixed(model, tokens):
        found = embed_layers(model, tokens)
        return replace(found, hidden=found.hidden[1:])  # the first layer has mixed already

    monkeypatch.setattr(text, "embed_layers", mixed)
    assert verdict("A11", tiny) == "true"


def test_a_tokenizer_of_whole_words_or_of_letters_would_not_do():
    assert verdict("A4", splitting(lambda word: [word])) == "partly"
    assert verdict("A4", splitting(lambda word: list(word + "!"))) == "partly"
    both = splitting(lambda word: [word] if len(word) < 4 else [word[:3], word[3:]])
    assert verdict("A4", both) == "true"


# ---- wordings ----------------------------------------------------------------------------------
def test_one_word_is_exchanged_for_another_of_its_kind():
    rng = np.random.default_rng(0)
    for _ in range(20):
        old, new = "a red car in the city at night", None
        new = text.one_word_changed(old, rng)
        pairs = [(a, b) for a, b in zip(old.split(), new.split(), strict=True) if a != b]
        assert len(pairs) == 1 and pairs[0][0] in ("red", "car", "city", "night")
    assert text.one_word_changed("nothing of that kind", rng) is None


def test_two_colours_change_places_and_no_word_is_lost():
    prompt = SimpleNamespace(text="a red car beside a blue boat",
                             colours={"car": "red", "boat": "blue"})  # fmt: skip
    assert text._colours_swapped(prompt) == "a blue car beside a red boat"


# ---- verdicts that can change ------------------------------------------------------------------
class Seen:
    """A bench whose pictures are the prompts themselves, judged by a function of the prompt."""

    def __init__(self, sees, prompts):
        self.sees, self.two_objects = sees, prompts
        self.one_object = prompts
        self.model = SimpleNamespace(context_length=32)

    def pictures(self, prompts, **_):
        return list(prompts)

    def judged(self, pictures):
        return [Verdict(tuple(c), "city", None, "plain", c) for c in map(self.sees, pictures)]


def two(count=100):
    colours = {"car": "red", "boat": "blue"}
    return [SimpleNamespace(text="a red car beside a blue boat", colours=colours)] * count


def reads(prompt):
    words = prompt.split()
    return {"car": words[1], "boat": words[-2]}


def test_a_model_that_reads_the_order_and_one_that_does_not():
    assert verdict("A18", Seen(reads, two())) == "true"
    assert verdict("A18", Seen(lambda _: {"car": "red", "boat": "blue"}, two())) == "false"
    swapped = Seen(lambda p: dict(zip(("boat", "car"), reads(p).values(), strict=True)), two())
    assert verdict("A18", swapped) == "partly"  # it changes, the wrong way


def test_a_model_that_reads_the_front_alone_and_one_that_reads_all():
    scene = SimpleNamespace(setting="city")
    one = [SimpleNamespace(text="", colours={"car": "red"}, scene=scene)] * 100
    front = Seen(lambda p: {"car": "red"} if p.startswith("a red car") else {}, one)
    cut = Seen(lambda p: {"car": "red"} if "red car" in p[:60] else {}, one)
    assert verdict("A9", front) == "true"
    assert verdict("A9", cut) == "partly"
    assert verdict("A9", Seen(lambda _: {"car": "red"}, one)) == "false"


# ---- Toyland -----------------------------------------------------------------------------------
def test_toylands_towers_are_asked(toyland_bench):
    for name in ("A16", "A17", "A23", "A32"):
        parts = CLAIMS[name].ask(toyland_bench)
        assert all(1 <= part.measured.count <= 4 for part in parts), name
    clause = CLAIMS["A17"].ask(toyland_bench)[1].says
    by_shuffle, by_word = (float(n) for n in re.findall(r"\((0\.\d+)\)", clause))
    moved = CLAIMS["A17"].ask(toyland_bench)[1].measured.value
    assert moved == pytest.approx(by_shuffle - by_word, abs=0.01)
    (own,) = CLAIMS["A23"].ask(toyland_bench)
    assert -1 <= own.measured.value <= 1


def test_a_pictures_vector_stands_in_for_the_rows(toyland_bench):
    spread = text._spread(toyland_bench, "a red car", np.eye(1, 128)[0])
    rows = np.asarray(spread.hidden[0])
    assert rows.shape == (32, 128) and (rows == rows[0]).all() and np.count_nonzero(rows[0]) == 1
    own = text._pooled(toyland_bench, "a red car")
    assert rows[0, 0] == pytest.approx(np.linalg.norm(own), rel=1e-5)
    with pytest.raises(InputError, match="gives 7 numbers"):
        text._spread(toyland_bench, "a red car", np.ones(7))
