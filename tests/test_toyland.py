"""Toyland's world: scenes, pictures, masks and captions agree with each other."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from diffusionlab import toyland
from diffusionlab.errors import InputError
from diffusionlab.toyland import COLOURS, OBJECTS, SETTINGS, TIMES, captions, is_true, render, scene
from diffusionlab.toyland.grammar import PALETTE
from diffusionlab.toyland.scenes import HEIGHTS

PROMPTS = {
    "a red car in the city at night": ("car", "red", "city", "night"),
    "a blue boat on the ocean at sunset": ("boat", "blue", "ocean", "sunset"),
    "a green house on the snow": ("house", "green", "snow", None),
    "a yellow tree in the meadow at day": ("tree", "yellow", "meadow", "day"),
    "a pink balloon in the mountains at sunset": ("balloon", "pink", "mountains", "sunset"),
    "an orange cat in space": ("cat", "orange", "space", None),
    "a white car in the desert at day": ("car", "white", "desert", "day"),
    "a purple house on the meadow at night": ("house", "purple", "meadow", "night"),
}
SCENES = [scene(seed) for seed in range(150)]


def fixed(kind, colour, setting, time) -> dict:
    words = {"object": kind, "colour": colour, "setting": setting}
    return words | ({"time": time} if time else {})


def test_same_seed_same_bytes_other_seed_other_bytes():
    first, again, other = (render(scene(seed)) for seed in (7, 7, 8))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.masks.keys() == again.masks.keys()
    assert all(np.array_equal(first.masks[word], again.masks[word]) for word in first.masks)
    assert first.image.tobytes() != other.image.tobytes()


def test_a_picture_does_not_depend_on_its_masks_or_on_what_was_drawn_before():
    alone = render(SCENES[3], masks=False)
    assert not alone.masks
    render(SCENES[4])
    assert np.array_equal(alone.image, render(SCENES[3]).image)


@pytest.mark.parametrize("size", [8, 64, 128, 200, 512])
def test_every_size_gives_that_shape(size):
    drawn = render(SCENES[0], size)
    assert drawn.image.shape == (size, size, 3)
    assert drawn.image.dtype == np.uint8
    assert all(mask.shape == (size, size) for mask in drawn.masks.values())


def test_masks_are_shares_and_cover_each_pixel_once():
    for s in SCENES[:60]:
        masks = render(s).masks
        for mask in masks.values():
            assert mask.dtype == np.float32
            assert mask.min() >= 0
            assert mask.max() <= 1
        parts = [masks.get(word, 0) for word in {s.object, s.setting, s.time} - {None}]
        np.testing.assert_allclose(sum(parts), 1, atol=1e-6)
        if s.object:
            assert np.all(masks[s.colour] <= masks[s.object] + 1e-6)


def test_masks_name_the_words_of_the_scene():
    for s in SCENES:
        masks = render(s).masks
        assert {s.object, s.colour, s.setting, s.time} - {None} <= masks.keys()
        lights = masks.keys() & {"sun", "moon"}
        assert lights <= ({"moon"} if s.time == "night" else {"sun"} if s.time else set())


def test_masks_agree_with_a_picture_drawn_four_times_as_large():
    """The share of a pixel is that of the shapes, whatever the resolution."""
    small, large = render(SCENES[5], 64).masks, render(SCENES[5], 256).masks
    for word in small.keys() & large.keys():
        averaged = large[word].reshape(64, 4, 64, 4).mean(axis=(1, 3))
        assert abs(averaged - small[word]).mean() < 0.03


def nearest_colour(s) -> str:
    drawn = render(s)
    share = drawn.masks[s.colour][..., None]
    mean = (drawn.image * share).sum(axis=(0, 1)) / share.sum()
    return min(COLOURS, key=lambda name: np.linalg.norm(mean - PALETTE[name]))


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_colour_words_mask_has_that_colour_by_day(kind):
    for colour in COLOURS:
        s = scene(1, object=kind, colour=colour, setting="meadow", time="day")
        assert nearest_colour(s) == colour


def test_the_colour_check_can_fail():
    s = scene(1, object="car", colour="red", setting="meadow", time="day")
    drawn = render(s)
    outside = 1 - drawn.masks["red"][..., None]
    mean = (drawn.image * outside).sum(axis=(0, 1)) / outside.sum()
    assert min(COLOURS, key=lambda name: np.linalg.norm(mean - PALETTE[name])) != "red"


def test_objects_are_a_third_to_two_thirds_high_and_inside_the_picture():
    for s in (scene(seed, object=kind) for seed in range(20) for kind in OBJECTS):
        rows = np.flatnonzero(render(s).masks[s.object].max(axis=1) > 0.5)
        columns = np.flatnonzero(render(s).masks[s.object].max(axis=0) > 0)
        assert 128 / 3 <= rows[-1] - rows[0] + 1 <= 2 * 128 / 3
        assert 0 < columns[0] < columns[-1] < 127


def test_every_combination_can_be_drawn_and_none_looks_like_another():
    seen = set()
    for kind, colour, setting in product(OBJECTS, COLOURS, SETTINGS):
        for time in (None,) if setting == "space" else TIMES:
            s = scene(2, **fixed(kind, colour, setting, time))
            assert (s.object, s.colour, s.setting, s.time) == (kind, colour, setting, time)
            seen.add(render(s, 32, masks=False).image.tobytes())
    assert len(seen) == 6 * 9 * (6 * 3 + 1)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_eight_prompts_are_scenes_and_captions(prompt):
    wanted = PROMPTS[prompt]
    words = set(re.findall(r"[a-z]+", prompt))
    assert words <= set(toyland.WORDS)
    for seed in range(5):
        s = scene(seed, **fixed(*wanted))
        assert (s.object, s.colour, s.setting) == wanted[:3]
        assert wanted[3] in (None, s.time)


def test_the_wordings_of_the_prompts_are_drawn():
    rng = np.random.default_rng(0)
    for prompt, wanted in PROMPTS.items():
        s = scene(0, **fixed(*wanted))
        assert prompt in {toyland.caption(s, rng).text for _ in range(600)}


def test_every_caption_is_true_and_its_spans_hold_its_words():
    for s in SCENES:
        for said in captions(s, 8):
            assert is_true(said.atoms, s)
            assert said.atoms.keys() == said.spans.keys()
            for slot, (start, end) in said.spans.items():
                assert said.text[start:end] in synonyms(said.atoms[slot])
            assert set(re.findall(r"[a-z]+", said.text)) <= set(toyland.WORDS)
            assert not re.search(r"  |[\[\]]|^ | $|\ba [aeiou]|\ban [^aeiou]", said.text)


def synonyms(word: str) -> set[str]:
    others = {"ocean": "sea", "snow": "snowy field", "sunset": "dusk", "night": "after dark"}
    return {word, others.get(word, word)}


def test_captions_leave_out_about_what_they_should():
    pictures = [s for s in (scene(seed) for seed in range(1500)) if s.object and s.time]
    said = [atoms for s in pictures for atoms in (c.atoms for c in captions(s, 2))]
    share = {slot: np.mean([slot in a for a in said]) for slot in ("colour", "setting", "time")}
    for slot, wanted in {"colour": 0.88, "setting": 0.90, "time": 0.80}.items():
        assert abs(share[slot] - wanted) < 0.03, share


def test_captions_are_the_same_every_time():
    assert [c.text for c in captions(SCENES[2], 5)] == [c.text for c in captions(SCENES[2], 5)]


def test_is_true_can_be_false_and_refuses_unknown_atoms():
    s = scene(0, object="car", colour="red", setting="city", time="night")
    assert is_true({"object": "car", "time": "night"}, s)
    assert is_true({}, s)
    assert not is_true({"object": "car", "colour": "blue"}, s)
    assert not is_true({"object": "cat"}, scene(0, object=None))
    with pytest.raises(InputError, match=r"'color' was given; did you mean 'colour'\? atoms are"):
        is_true({"color": "red"}, s)


def test_seeds_avoid_the_held_out_triples_and_spread_over_the_rest():
    every = list(product(OBJECTS, COLOURS, SETTINGS))
    left_out = {triple for triple in every if toyland.held_out(*triple)}
    assert 0.06 < len(left_out) / len(every) < 0.14
    drawn = [scene(seed) for seed in range(6000)]
    assert not left_out & {(s.object, s.colour, s.setting) for s in drawn}
    assert abs(np.mean([s.object is None for s in drawn]) - 0.05) < 0.01
    for slot, words in {"object": OBJECTS, "colour": COLOURS, "setting": SETTINGS}.items():
        shares = [np.mean([getattr(s, slot) == word for s in drawn]) for word in words]
        assert min(shares) > 0.7 / len(words)


def test_a_held_out_triple_is_drawn_when_asked_for():
    triple = next(t for t in product(OBJECTS, COLOURS, SETTINGS) if toyland.held_out(*t))
    s = scene(0, object=triple[0], colour=triple[1], setting=triple[2])
    assert (s.object, s.colour, s.setting) == triple


def test_one_fixed_word_leaves_the_others_open():
    for slot, words in {"object": OBJECTS, "setting": SETTINGS, "time": TIMES}.items():
        for word in words:
            drawn = [scene(seed, **{slot: word}) for seed in range(12)]
            assert {getattr(s, slot) for s in drawn} == {word}
            assert len({s.colour for s in drawn}) > 2
    assert {scene(seed, time=None).setting for seed in range(5)} == {"space"}
    assert scene(3, object=None).colour is None


def test_scenes_are_frozen_and_their_heights_stand_in_the_table():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCENES[0].x = 0.0
    assert HEIGHTS.keys() == set(OBJECTS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"object": "baloon"},
            r"object='baloon' was given; did you mean 'balloon'\? Toyland knows",
        ),
        ({"colour": "teal"}, r"Toyland knows red, orange, .*, black. Choose one of these"),
        ({"setting": 3}, r"setting=3 was given; .*Toyland knows city, ocean"),
        ({"setting": None}, r"setting=None was given; Toyland knows city"),
        ({"color": "red"}, r"'color'; did you mean 'colour'\? it fixes only object, colour"),
        ({"setting": "space", "time": "day"}, r"time='day' .* space has no time of day"),
        ({"setting": "city", "time": None}, r"time=None .* only space has no time of day"),
        ({"object": None, "colour": "red"}, r"colour='red' was given with object=None"),
    ],
)
def test_wrong_words_are_refused_with_what_is_allowed(words, message):
    with pytest.raises(InputError, match=message):
        scene(0, **words)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "7", None])
def test_wrong_seeds_are_refused(seed):
    with pytest.raises(InputError, match="integer with 0 <= seed"):
        scene(seed)


@pytest.mark.parametrize("size", [0, 4, 100, 520, 128.0, True])
def test_wrong_sizes_are_refused(size):
    with pytest.raises(InputError, match="multiple of 8 from 8 to 512"):
        render(SCENES[0], size)


def test_toyland_does_not_load_torch():
    code = "import sys, diffusionlab.toyland; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_checkpoint_lies_inside_the_package():
    assert toyland.checkpoint().parts[-3:] == ("diffusionlab", "toyland", "checkpoint")
