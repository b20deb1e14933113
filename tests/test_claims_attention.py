"""Claims about cross-attention and the pipeline: each runs, and its verdict can fall."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from asked import finding

from diffusionlab.claims import Bench, attention
from diffusionlab.claims.attention import CLAIMS
from diffusionlab.claims.known_pictures import known
from diffusionlab.claims.pointing import pointing
from diffusionlab.errors import InputError
from diffusionlab.toyland import COLOURS
from diffusionlab.training.judge_nets import Verdict


@pytest.fixture(scope="module")
def bench(tiny_model):
    return Bench(tiny_model, samples=2)


class Staged(Bench):
    """A bench of Toyland's prompts that draws nothing; `sees(prompt)` is what the judge sees."""

    def __init__(self, sees, samples: int = 8):
        config = {"toyland": {"share": "small"}}
        super().__init__(SimpleNamespace(config=config, name="staged"), samples)
        self.sees = sees

    def pictures(self, prompts, *rest, **settings):
        every = [*self.one_object, *self.two_objects, *self.unseen]
        named = {prompt.text: prompt for prompt in every}
        return [named[text] for text in prompts]

    @property
    def unseen(self):
        return attention.one_object_prompts(self.share, 2 * self.samples)[self.samples :]

    def judged(self, images):
        return [self.sees(prompt) for prompt in images]


def exactly(prompt, colours=None) -> Verdict:
    """A verdict that finds all that the prompt says, or other colours."""
    atoms = prompt.caption.atoms
    colours = prompt.colours if colours is None else colours
    return Verdict(prompt.kinds, atoms.get("setting"), atoms.get("time"), "plain", colours)


def swapped(prompt) -> Verdict:
    return exactly(prompt, dict(zip(prompt.colours, [*prompt.colours.values()][::-1], strict=True)))


def test_claims_are_short_and_their_names_are_letters_h_and_i():
    assert all(len(claim.says.split()) <= 12 for claim in CLAIMS)
    assert {claim.id[0] for claim in CLAIMS} == {"H", "I"} and len(
        {claim.id for claim in CLAIMS}
    ) == len(CLAIMS)


# ---- cross-attention ---------------------------------------------------------------------------
def test_a_text_is_not_heard_without_cross_attention_only(bench, monkeypatch):
    assert finding("H1", bench).verdict == "true"
    monkeypatch.setattr(attention, "zero_tap", lambda model, name: nullcontext())
    assert finding("H1", bench).verdict == "partly"


def test_nothing_stays_changed_after_the_experiments(toyland_bench):
    before = finding("H1", toyland_bench).parts[0].measured.value
    finding("H7", toyland_bench)
    assert finding("H1", toyland_bench).parts[0].measured.value == before


@pytest.mark.parametrize(("shift", "words", "places"), [(0, "true", "true"), (4, "false", "false")])
def test_maps_on_their_things_hold_and_maps_beside_them_do_not(
    shift, words, places, bench, monkeypatch
):
    masks = np.zeros((8, 64, 64), np.float32)
    for i in range(8):
        masks[i, 8 * (i % 3) : 8 * (i % 3) + 16, 8:24] = 1
    cells = masks.reshape(8, 8, 8, 8, 8).mean(axis=(2, 4))
    maps = np.roll(cells, shift, axis=2) + 0.01
    found = dict.fromkeys(("object", "colour"), (maps, masks))
    monkeypatch.setattr(attention, "maps_and_masks", lambda bench: found)
    assert finding("H3", bench).verdict == words and finding("H4", bench).verdict == places


def test_pointing_is_the_record_behind_the_claim(bench):
    found = pointing(bench, "colour")
    maps, masks = attention.maps_and_masks(bench)["colour"]
    assert np.array_equal(found.maps, maps) and np.array_equal(found.masks, masks)
    assert found.words == tuple(attention.WORDS["colour"](p) for p in known(bench).prompts)
    part = finding("H3", bench).parts[1]
    assert found.rate == part.measured.value and found.pictures.shape[1:3] == masks.shape[1:]


def test_words_are_located_with_one_text_encoder_alone():
    large = SimpleNamespace(is_xl=True, name="large", config={})
    with pytest.raises(InputError, match="two text encoders"):
        finding("H3", Bench(large))


def test_layers_are_halved_by_size_and_none_is_lost(toyland_bench):
    coarse, fine = attention._halves(toyland_bench)
    assert coarse and fine and not {*coarse} & {*fine}
    assert {*coarse, *fine} == {*attention.built(toyland_bench).cross}


def test_one_size_cannot_be_halved(bench, monkeypatch):
    one = SimpleNamespace(cross={"a": (1, 8, 8), "b": (1, 8, 8)})
    monkeypatch.setattr(attention, "built", lambda bench: one)
    with pytest.raises(InputError, match="two are needed"):
        finding("H7", bench)
    found = [part.measured.value for part in finding("H2", bench).parts]
    assert found == [1, 1, 0.25]


def test_a_bled_colour_counts_one_and_chance_comes_to_nothing():
    assert attention._bled("red", "blue", "red") == 1
    assert attention._bled("blue", "blue", "red") == attention._bled(None, "blue", "red") == 0
    wrong = [attention._bled(colour, "blue", "red") for colour in COLOURS if colour != "blue"]
    assert sum(wrong) == pytest.approx(0)


@pytest.mark.parametrize(("sees", "verdict"), [(exactly, "false"), (swapped, "true")])
def test_colours_bleed_where_they_are_swapped(sees, verdict):
    assert finding("H6", Staged(sees)).verdict == verdict


# ---- the whole pipeline ------------------------------------------------------------------------
def test_what_was_never_shown_is_drawn_or_not():
    assert finding("I15", Staged(exactly)).verdict == "true"
    assert finding("I15", Staged(swapped)).verdict == "true"  # one thing: its own colour
    blank = Staged(lambda prompt: Verdict((), "city", None, "plain"))
    assert finding("I15", blank).verdict == "false"


@pytest.mark.parametrize(("until", "verdict"), [(9, "true"), (3, "partly"), (0, "false")])
def test_a_guide_that_is_heard_until_a_step(until, verdict, monkeypatch):
    """The other prompt, put in at a step, wins where the guide is still heard there."""
    staged = Staged(exactly)

    def drawn(bench, prompt, later, first, seed):
        text = later if first < until else prompt
        return next(p for p in bench.one_object if p.text == text)

    monkeypatch.setattr(attention, "_switched", drawn)
    assert finding("H10", staged).verdict == verdict


def test_the_next_prompt_of_another_kind():
    a, b, c = (SimpleNamespace(kinds=(kind,)) for kind in ("cat", "cat", "car"))
    assert [attention._of_another_kind([a, b, c], i) for i in range(3)] == [c, c, a]
    assert attention._of_another_kind([a, b], 0) is a


def test_pixels_that_came_one_by_one_would_be_noticed(bench, monkeypatch):
    assert finding("I9", bench).verdict == "false"
    first, last = np.zeros((4, 8, 8)), np.zeros((4, 8, 8))
    last[:, 0, 0] = 1
    steps = [SimpleNamespace(latent=first, next_latent=last)]
    slow = Bench(bench.model)
    monkeypatch.setattr(slow, "run", lambda **settings: SimpleNamespace(steps=steps))
    monkeypatch.setattr(
        attention, "decode", lambda model, latent: SimpleNamespace(width=1, height=1)
    )
    found = finding("I9", slow)
    assert [part.holds for part in found.parts] == [True, False]


# ---- Toyland -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "verdict"), [("H1", "true"), ("H5", "partly")])
def test_verdicts_on_toyland_that_any_trained_model_must_have(name, verdict, toyland_bench):
    assert finding(name, toyland_bench).verdict == verdict


def test_the_places_of_a_thing_look_its_word_up(toyland_bench):
    """More than twice as much, though four scenes do not decide it."""
    (part,) = finding("H4", toyland_bench).parts
    assert part.measured.value > part.bar
