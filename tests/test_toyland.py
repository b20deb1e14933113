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
from diffusionlab.toyland import (
    COLOURS,
    FULL,
    KEPT_PROMPTS,
    OBJECTS,
    SETTINGS,
    SMALL,
    STYLES,
    TIMES,
    Caption,
    Claim,
    captions,
    is_true,
    known_words,
    render,
    scene,
)
from diffusionlab.toyland.grammar import HYPERNYMS, PALETTE, TIMELESS
from diffusionlab.toyland.layout import HALF_WIDTHS, HEIGHTS
from diffusionlab.toyland.objects import FIGURES

SCENES = [scene(seed) for seed in range(150)]


def fixed(kind, colour, setting, time) -> dict:
    words = {"object": kind, "colour": colour, "setting": setting, "style": "plain"}
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
        kinds = [thing.kind for thing in s.things]
        parts = [masks.get(word, 0) for word in {*kinds, s.setting, s.time} - {None}]
        np.testing.assert_allclose(sum(parts), 1, atol=1e-6)
        for colour in {thing.colour for thing in s.things} - {None}:
            wearers = [masks[thing.kind] for thing in s.things if thing.colour == colour]
            assert np.all(masks[colour] <= sum(wearers) + 1e-6)


def test_masks_name_the_words_of_the_scene():
    for s in SCENES:
        masks = render(s).masks
        named = {word for thing in s.things for word in (thing.kind, thing.colour)}
        assert ({*named, s.setting, s.time} - {None}) <= masks.keys()
        sky = {"night": {"moon"}, "day": {"sun"}, "sunset": {"sun"}}.get(s.time, set())
        assert masks.keys() & {"sun", "moon"} <= ({"sun"} if s.setting == "grid" else sky)
        assert ("street" in masks) == (s.setting == "city")
        wet = {"wet", "signs", "reflections"} if s.style == "cyberpunk" else set()
        assert masks.keys() & {"wet", "signs", "reflections"} == wet


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
        s = scene(1, object=kind, colour=colour, setting="meadow", time="day", style="plain")
        assert nearest_colour(s) == colour


def test_the_colour_check_can_fail():
    s = scene(1, object="car", colour="red", setting="meadow", time="day", style="plain")
    drawn = render(s)
    outside = 1 - drawn.masks["red"][..., None]
    mean = (drawn.image * outside).sum(axis=(0, 1)) / outside.sum()
    assert min(COLOURS, key=lambda name: np.linalg.norm(mean - PALETTE[name])) != "red"


def test_objects_are_a_third_to_two_thirds_high_and_inside_the_picture():
    for s in (scene(seed, SMALL, object=kind) for seed in range(12) for kind in OBJECTS):
        rows = np.flatnonzero(render(s).masks[s.object].max(axis=1) > 0.5)
        columns = np.flatnonzero(render(s).masks[s.object].max(axis=0) > 0)
        assert 128 / 3 <= rows[-1] - rows[0] + 1 <= 2 * 128 / 3
        assert 0 < columns[0] < columns[-1] < 127


def test_two_things_stand_inside_the_picture_and_do_not_hide_each_other():
    pairs = [s for s in (scene(seed, style="plain") for seed in range(400)) if len(s.things) == 2]
    relations = {s.relation for s in pairs}
    assert relations == {"beside", "above"}
    for s in pairs[:80]:
        first, second = s.things
        assert first.kind != second.kind
        masks = render(s, 64).masks
        for thing in s.things:
            columns = np.flatnonzero(masks[thing.kind].max(axis=0) > 0)
            assert 0 <= columns[0] < columns[-1] <= 63
            whole = render(dataclasses.replace(s, things=(thing,), relation=None), 64)
            seen = masks[thing.kind].sum() / whole.masks[thing.kind].sum()
            assert seen > (0.85 if s.setting != "ocean" else 0.55), (s, seen)


def test_relations_are_those_of_the_masks():
    checked = set()
    for s in (s for s in SCENES if len(s.things) == 2):
        masks = render(s, 64).masks
        rows, columns = np.mgrid[:64, :64]
        x, y = (
            [(masks[t.kind] * axis).sum() / masks[t.kind].sum() for t in s.things]
            for axis in (columns, rows)
        )
        for word in s.relations(0):
            checked.add(word)
            true = {"left of": x[0] < x[1], "right of": x[0] > x[1], "above": y[0] < y[1]}
            assert true.get(word, True)
        mirrored = {"left of": "right of", "right of": "left of", "above": "below"}
        assert {mirrored.get(word, word) for word in s.relations(0)} == set(s.relations(1))
    assert checked == {"beside", "left of", "right of", "above"}


def test_every_combination_can_be_drawn_and_none_looks_like_another():
    seen, count = set(), 0
    for kind, colour, setting in product(OBJECTS, COLOURS, SETTINGS):
        for time in (None,) if setting in TIMELESS else TIMES:
            s = scene(2, **fixed(kind, colour, setting, time))
            assert (s.object, s.colour, s.setting, s.time) == (kind, colour, setting, time)
            seen.add(render(s, 16, masks=False).image.tobytes())
            count += 1
    assert len(seen) == count == 12 * 9 * (6 * 3 + 2)


def test_styles_change_the_picture_and_nothing_else():
    for style in STYLES:
        s = scene(3, object="cat", colour="pink", setting="city", time="night", style=style)
        assert (s.style, s.object, s.setting) == (style, "cat", "city")
    pictures = [
        render(scene(3, object="cat", setting="city", style=style), masks=False).image
        for style in STYLES
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(pictures[one].astype(int) - pictures[other]).mean() > 8
    neon, plain = pictures[1].astype(float), pictures[0].astype(float)
    assert neon.mean() < 0.8 * plain.mean()  # dark surroundings


@pytest.mark.parametrize("prompt", sorted(KEPT_PROMPTS))
def test_the_prompts_that_readers_know_are_made_of_known_words(prompt):
    assert set(re.findall(r"[a-z]+", prompt)) <= set(toyland.WORDS)


def test_the_prompts_that_readers_know_are_never_training_captions():
    rng = np.random.default_rng(0)
    s = scene(0, **fixed("car", "red", "city", "night"))
    texts = {toyland.caption(s, rng).text for _ in range(1500)}
    assert "a red car in the city at night" not in texts
    assert "a red car in a city at night" in texts  # its neighbours are
    every = {c.text.lower() for seed in range(600) for c in captions(scene(seed), 3)}
    assert not every & KEPT_PROMPTS


def test_every_caption_is_true_and_its_spans_hold_its_words():
    words = set(toyland.WORDS)
    for s in SCENES:
        rng = np.random.default_rng(s.seed)
        unseen = [toyland.caption(s, rng, unseen=True) for _ in range(2)]
        for said in (*captions(s, 8), *unseen):
            assert is_true(said, s), said
            assert said.atoms.keys() == said.spans.keys()
            assert set(re.findall(r"[a-z]+", said.text.lower())) <= words
            assert not re.search(r"  |[\[\]]|^ | $|\ba [aeiou]|\ban [^aeiou]", said.text)
            for claim in said.claims:
                name = said.text[slice(*claim.kind_span)]
                assert claim.kind in name or name in SYNONYMS[claim.kind]
                assert (claim.colour is None) == (claim.colour_span is None)
                if claim.colour:
                    assert said.text[slice(*claim.colour_span)] == claim.colour


SYNONYMS = {"spaceship": ("rocket",)}


def test_every_word_of_a_wet_city_at_night_has_its_own_mask():
    s = scene(0, object=None, setting="city", time="night", style="cyberpunk")
    rng, masks = np.random.default_rng(0), render(s).masks
    wanted = {"wet", "street", "reflections", "style"}
    said = next(c for c in iter(lambda: toyland.caption(s, rng), None) if wanted <= c.spans.keys())
    assert {said.text[slice(*said.spans[slot])] for slot in ("wet", "street", "reflections")} == {
        "wet", "streets", "reflections",
    }  # fmt: skip
    assert 0 < masks["reflections"].sum() < masks["wet"].sum() == masks["street"].sum()


def test_held_out_wordings_are_never_trained_ones():
    rng = np.random.default_rng(1)
    shapes: dict[bool, set] = {True: set(), False: set()}
    for seed in range(1200):
        s = scene(seed, FULL)
        for unseen in (True, False):
            said = toyland.caption(s, rng, unseen=unseen)
            shapes[unseen].add((order(said), bool(said.claims)))
    assert shapes[True] and not shapes[True] & shapes[False]


def order(said: Caption) -> str:
    """The sentence with every slot and thing replaced by its name: its template."""
    text = said.text
    spans = {**said.spans, **{f"kind{n}": c.kind_span for n, c in enumerate(said.claims)}}
    marks = sorted(spans.items(), key=lambda item: item[1][0])
    kept = [slot for slot, _ in marks if slot in ("setting", "time", "kind0")]
    comma = [text[:start].count(",") for slot, (start, _) in marks if slot in kept]
    there = "there" if "there is" in text else ""
    at = text.find("there is")
    before = sum(start < at for slot, (start, _) in marks if slot in kept) if there else 0
    return f"{kept} {comma} {there} {before} {' with ' in text}"


def test_captions_leave_out_about_what_they_should():
    singles = [s for s in (scene(seed, SMALL) for seed in range(2500)) if len(s.things) == 1]
    said = [c for s in singles if s.time for c in captions(s, 2, SMALL)]
    share = {
        "colour": np.mean([c.claims[0].colour is not None for c in said]),
        "setting": np.mean(["setting" in c.atoms for c in said]),
        "time": np.mean(["time" in c.atoms for c in said]),
    }
    for slot, wanted in {"colour": 0.88, "setting": 0.90, "time": 0.80}.items():
        assert abs(share[slot] - wanted) < 0.03, share


def test_pairs_are_named_together_with_their_relation():
    pairs = [s for s in (scene(seed) for seed in range(1200)) if len(s.things) == 2]
    said = [c for s in pairs for c in captions(s, 2)]
    both = [c for c in said if len(c.claims) == 2]
    assert abs(len(both) / len(said) - 0.85) < 0.04
    assert {c.atoms.get("relation") for c in both} == {None, *toyland.RELATIONS}


def test_captions_are_the_same_every_time():
    assert [c.text for c in captions(SCENES[2], 5)] == [c.text for c in captions(SCENES[2], 5)]


def test_is_true_can_be_false():
    s = scene(0, object="car", colour="red", other="cat", other_colour="blue", setting="city")
    first, second = s.things
    left = Caption("", (Claim("car"), Claim("cat")), {"relation": "left of"})
    right = Caption("", (Claim("car"), Claim("cat")), {"relation": "right of"})
    assert is_true(left, s) == (first.x < second.x) != is_true(right, s)
    true = [(), (Claim("car", "red"),), (Claim("cat", "blue"), Claim("car"))]
    false = [(Claim("car", "blue"),), (Claim("tree"),), (Claim("car"), Claim("car"))]
    assert all(is_true(Caption("", claims), s) for claims in true)
    assert not any(is_true(Caption("", claims), s) for claims in false)
    assert is_true(Caption("", (Claim("animal", "blue"), Claim("vehicle"))), s)
    assert not is_true(Caption("", (), {"setting": "ocean"}), s)
    assert not is_true(Caption("", (Claim("car"), Claim("cat"))), scene(0, object="car"))


def test_hypernyms_are_said_only_where_they_cover_two_kinds():
    assert SMALL.hypernyms == {"animal": ("cat", "penguin"), "vehicle": ("car", "boat")}
    assert FULL.hypernyms == HYPERNYMS
    said = [c for seed in range(1500) for c in captions(scene(seed, SMALL), 2, SMALL)]
    names = {claim.kind for c in said for claim in c.claims}
    assert names == {*SMALL.objects, *SMALL.hypernyms}


def test_a_share_draws_and_says_only_what_is_in_it():
    words = set(known_words(SMALL))
    assert not words & {"neon", "grid", "spaceship", "dog", "labrador"}
    assert words < set(toyland.WORDS)
    for seed in range(800):
        s = scene(seed, SMALL)
        assert {thing.kind for thing in s.things} <= set(SMALL.objects)
        assert s.setting in SMALL.settings and s.style == "plain"
        for said in captions(s, 2, SMALL):
            assert set(re.findall(r"[a-z]+", said.text.lower())) <= words


def test_seeds_avoid_the_held_out_triples_and_spread_over_the_rest():
    every = list(product(OBJECTS, COLOURS, SETTINGS))
    left_out = {triple for triple in every if toyland.held_out(*triple)}
    assert 0.06 < len(left_out) / len(every) < 0.14
    drawn = [scene(seed) for seed in range(6000)]
    things = [(t.kind, t.colour, s.setting) for s in drawn for t in s.things]
    assert not left_out & set(things)
    counts = np.bincount([len(s.things) for s in drawn]) / len(drawn)
    np.testing.assert_allclose(counts, [0.05, 0.65, 0.30], atol=0.02)
    kinds, colours, _ = (np.array(column) for column in zip(*things, strict=True))
    settings = np.array([s.setting for s in drawn])
    for words, values in ((OBJECTS, kinds), (COLOURS, colours), (SETTINGS, settings)):
        assert min(np.mean(values == word) for word in words) > 0.65 / len(words)


def test_a_held_out_triple_is_drawn_when_asked_for():
    triple = next(t for t in product(OBJECTS, COLOURS, SETTINGS) if toyland.held_out(*t))
    s = scene(0, object=triple[0], colour=triple[1], setting=triple[2])
    assert (s.object, s.colour, s.setting) == triple


def test_one_fixed_word_leaves_the_others_open():
    slots = {"object": OBJECTS, "setting": SETTINGS, "time": TIMES, "style": STYLES}
    for slot, words in slots.items():
        for word in words:
            drawn = [scene(seed, **{slot: word}) for seed in range(12)]
            assert {getattr(s, slot) for s in drawn} == {word}
            assert len({s.colour for s in drawn}) > 2
    assert {scene(seed, time=None).setting for seed in range(12)} == set(TIMELESS)
    assert scene(3, object=None).colour is None


def test_scenes_are_frozen_and_their_heights_stand_in_the_table():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCENES[0].x = 0.0
    assert HEIGHTS.keys() == HALF_WIDTHS.keys() == FIGURES.keys() == set(OBJECTS)


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
        ({"color": "red"}, r"'color'; did you mean 'colour' .*it fixes only object, colour"),
        ({"setting": "space", "time": "day"}, r"time='day' .* space has no time of day"),
        ({"setting": "city", "time": None}, r"time=None .* only space and grid have no time"),
        ({"object": None, "colour": "red"}, r"colour='red' was given with object=None"),
        ({"object": "cat", "other": "cat"}, r"other='cat' was given with the same object"),
        ({"style": "cyberpunk", "setting": "snow"}, r"style='cyberpunk' .* style of the city"),
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
