"""Attention in numbers on constructed records, and on Toyland against its renderer's masks."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import traces
from PIL import Image

import diffusionlab as dl
from diffusionlab import plots
from diffusionlab.analysis import honesty
from diffusionlab.analysis.attention import CROSS, SELF, attention_maps, call_maps
from diffusionlab.analysis.attention_choice import Layer, chosen_groups, token_groups
from diffusionlab.analysis.attention_tokens import attention_mass, self_attention_at, words_at
from diffusionlab.analysis.pointing import (
    Pointing,
    overlaps,
    paired_at_random,
    pointing_game,
    points_inside,
    pooled,
    stretched,
    wilson,
)
from diffusionlab.errors import InputError
from diffusionlab.plan import Stage
from diffusionlab.toyland import SHARES, SMALL, render
from diffusionlab.training.pictures import hidden_states, latents_of
from diffusionlab.training.prompted import one_object_prompts

RUN = traces.trace(5)
MID, FINE = f"mid_block.{CROSS}", f"up_blocks.1.attentions.2.transformer_blocks.0.{CROSS}"


def shares(*shape: int, seed: int = 0) -> np.ndarray:
    """Random probabilities that sum to 1 over the last axis, exact in float16 to 1e-3."""
    raw = np.random.default_rng(seed).random(shape)
    return (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float16)


MIXED = replace(RUN, attention={MID: shares(5, 3, 4, 12), FINE: shares(5, 6, 8, 12, seed=1)})
HEADS = replace(RUN, attention={MID: shares(5, 2, 3, 4, 12), FINE: shares(5, 3, 6, 8, 12, seed=1)})


# ---- words ------------------------------------------------------------------------------------
def test_pieces_are_one_word_and_the_special_tokens_are_groups():
    assert token_groups(RUN.tokens, 12) == {
        "<start>": (0,), "a": (1,), "red": (2,), "sky": (3,), "scraper": (4, 5), "<end>": (6,),
        "<pad>": (7, 8, 9, 10, 11),
    }  # fmt: skip
    found = attention_maps(RUN, ["scraper", "RED", "<pad>", "token 6"])
    assert found.words == ("scraper", "red", "<pad>", "token 6")
    each = float(np.float16(0.5 / 11))
    for one, wanted in zip(found.maps[:, 0], (2 * each, 0.5, 5 * each, each), strict=True):
        assert one == pytest.approx(wanted, abs=1e-9)
    assert attention_maps(RUN).words == ("a", "red", "sky", "scraper")
    array = MIXED.attention[MID].astype(np.float64)
    only = replace(MIXED, attention={MID: MIXED.attention[MID]})
    pieces = attention_maps(only, "scraper").maps[0, 0]
    assert pieces == pytest.approx((array[..., 4] + array[..., 5]).mean(axis=0), abs=1e-12)


def test_a_word_that_is_there_twice_has_numbers_and_a_phrase_is_its_words():
    twice = replace(RUN.tokens, words=("red", "car", "red", "boat"))
    assert list(token_groups(twice, 12))[1:5] == ["red#1", "car", "red#2", "boat"]
    assert chosen_groups(twice, 12, "red#2") == {"red#2": (3,)}
    assert chosen_groups(twice, 12, ["red boat"]) == {"red boat": (3, 4, 5)}
    assert chosen_groups(RUN.tokens, 12, "Sky scraper") == {"Sky scraper": (3, 4, 5)}
    mixed = replace(twice, words=("red", "car", "Red", "boat"))
    assert chosen_groups(mixed, 12, "RED#2") == {"Red#2": (3,)}
    for tokens, second in ((twice, "red"), (mixed, "Red")):
        for word in ("red", "Red"):
            with pytest.raises(InputError, match=f"2 times; say which: 'red#1', '{second}#2'"):
                chosen_groups(tokens, 12, word)
    twin = replace(twice, words=("red", "car", "red", "car"))
    with pytest.raises(InputError, match="say which: 'red car#1', 'red car#2'"):
        chosen_groups(twin, 12, "red car")
    assert chosen_groups(twin, 12, "red car#2") == {"red car#2": (3, 4, 5)}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("scrape", "did you mean 'scraper'.*allowed are '<start>', 'a', 'red', 'sky'"),
        ("night", "was cut off the prompt"),
        ("red scraper", "is not in the prompt"),
        ("", "is not in the prompt"),
        (3, "is not in the prompt"),
        ([], "words is empty; allowed are '<start>'"),
        ("token 12", "is not in the prompt"),
    ],
)
def test_a_word_that_is_not_there_is_refused_with_those_that_are(word, told):
    with pytest.raises(InputError, match=told):
        attention_maps(RUN, word)


def test_a_redacted_prompt_still_has_its_positions():
    found = attention_maps(replace(RUN, tokens=None))
    assert found.words[2] == "token 2" and found.maps.shape == (12, 1, 3, 4)
    assert found.maps[2] == pytest.approx(0.5)
    with pytest.raises(InputError, match="the maps have 12 tokens and the record of the prompt 9"):
        attention_maps(replace(RUN, tokens=traces.tokens(context=9)))


# ---- means ------------------------------------------------------------------------------------
def test_layers_count_the_same_and_coarse_ones_are_repeated():
    found = attention_maps(MIXED, "red")
    coarse = MIXED.attention[MID][..., 2].astype(np.float64).mean(axis=0)
    fine = MIXED.attention[FINE][..., 2].astype(np.float64).mean(axis=0)
    wanted = (coarse.repeat(2, axis=0).repeat(2, axis=1) + fine) / 2
    assert found.maps[0, 0] == pytest.approx(wanted, abs=1e-12) and found.size == (6, 8)
    assert found.reduction == "mean of steps 0–4, 2 layers and all heads" and found.rows.holds
    apart = attention_maps(MIXED, "red", by="layer")
    assert apart.entries == apart.layers == ("mid", "up 1.2")
    assert apart.maps[0, 1] == pytest.approx(fine, abs=1e-12)
    for choice in ({"resolution": "3x4"}, {"resolution": (3, 4)}, {"layers": "mid"}):
        one = attention_maps(MIXED, "red", **choice)
        assert one.maps[0, 0] == pytest.approx(coarse, abs=1e-12)
        assert one.reduction == "layer mid (3×4), mean of steps 0–4 and all heads"
    finest = attention_maps(MIXED, "red", resolution="finest", steps=[3, 1])
    assert finest.layers == ("up 1.2",) and finest.steps == (3, 1)


def test_names_of_layers_are_short():
    tap = "up_blocks.0.attentions.1.transformer_blocks.{}.attn2.probabilities"
    names = [tap.format(0), tap.format(3), MID, "mid_block.attentions.0.x." + CROSS, CROSS, "a"]
    found = [Layer(name, np.zeros(0), False).name for name in names]
    assert found == ["up 0.1", "up 0.1.3", "mid", "mid", CROSS, "a"]


def test_calls_of_a_step_are_averaged():
    level = RUN.steps[0].level
    two = [replace(s, stages=(Stage(level),) * 2) if s.index == 1 else s for s in RUN.steps]
    array = shares(6, 3, 4, 12)
    found = attention_maps(replace(RUN, steps=tuple(two), attention={MID: array}), by="step")
    red = array[..., 2].astype(np.float64)
    assert found.maps[1, 1] == pytest.approx(red[1:3].mean(axis=0), abs=1e-12)
    assert found.maps[1, 4] == pytest.approx(red[5], abs=1e-12)
    assert found.entries[4] == "step 4"
    with pytest.raises(InputError, match="mid has 6 recorded calls, but the 5 steps.*made 5"):
        attention_maps(replace(RUN, attention={MID: array}))


def test_heads_are_kept_apart_layer_by_layer():
    found = attention_maps(HEADS, "red", by="head", steps=range(2, 4))
    assert found.entries == ("mid head 0", "mid head 1", *(f"up 1.2 head {i}" for i in range(3)))
    wanted = HEADS.attention[FINE][2:4, 2, ..., 2].astype(np.float64).mean(axis=0)
    assert found.maps[0, 4] == pytest.approx(wanted, abs=1e-12)
    assert found.reduction == "mean of steps 2–3"
    one = attention_maps(HEADS, "red", heads=1, layers="mid", steps=2)
    assert one.reduction == "step 2, layer mid (3×4), head 1"
    alone = HEADS.attention[MID][2, 1, ..., 2].astype(np.float64)
    assert one.maps[0, 0] == pytest.approx(alone, abs=1e-12)
    both = attention_maps(HEADS, "red", layers="mid", steps=2).maps[0, 0]
    other = HEADS.attention[MID][2, 0, ..., 2].astype(np.float64)
    assert both == pytest.approx((alone + other) / 2, abs=1e-12)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"steps": 5}, "steps=5; whole numbers from 0 to 4 are allowed"),
        ({"steps": -1}, "from 0 to 4"),
        ({"steps": []}, "from 0 to 4"),
        ({"steps": 1.5}, "from 0 to 4"),
        ({"steps": True}, "from 0 to 4"),
        ({"steps": [True]}, "from 0 to 4"),
        ({"heads": [True]}, "from 0 to 1"),
        ({"layers": "up 7"}, r"layers='up 7'; allowed are 'mid \(3×4\)', 'up 1.2 \(6×8\)'"),
        ({"layers": []}, "allowed are"),
        ({"layers": 3}, "layers=3; allowed are"),
        ({"resolution": "7×7"}, "recorded are"),
        ({"resolution": "big"}, "recorded are"),
        ({"resolution": "3×4", "layers": "up 1.2"}, "none of the chosen layers"),
        ({"heads": 2}, "heads=2; whole numbers from 0 to 1 are allowed in layer mid"),
        ({"by": "token"}, "by='token'; allowed are None, 'step', 'layer', 'head'"),
    ],
)
def test_a_choice_out_of_range_is_refused_with_the_range(choice, told):
    with pytest.raises(InputError, match=told):
        attention_maps(HEADS, **choice)


def test_what_was_not_recorded_is_told_with_how_to_record_it():
    for taps in ({}, {f"x.{SELF}": shares(5, 3, 4, 12)}, {"down_blocks.0.output": shares(5, 3, 4)}):
        with pytest.raises(InputError, match=r'record=\{"predictions", "attention"\}'):
            attention_maps(replace(RUN, attention=taps))
    for choice in ({"heads": 0}, {"by": "head"}):
        with pytest.raises(InputError, match='"attention", "heads"'):
            attention_maps(RUN, **choice)
    stopped = replace(RUN, steps=(), attention={})
    for look in (attention_maps, attention_mass, words_at, self_attention_at,
                 plots.plot_attention, plots.plot_attention_steps):  # fmt: skip
        with pytest.raises(InputError, match="stopped before its first step.*let it begin"):
            look(stopped)


def test_a_lost_token_of_77_is_found():
    even = np.full((5, 3, 4, 77), 1 / 77, np.float16)
    run = replace(RUN, tokens=None, attention={MID: even})
    assert attention_maps(run).rows.relative < 4e-4 and attention_maps(run).rows.holds
    even = even.copy()
    even[..., 40] = 0
    assert not attention_maps(replace(run, attention={MID: even})).rows.holds


def test_rows_that_do_not_sum_to_one_are_found():
    assert attention_maps(MIXED).rows.holds
    array = MIXED.attention[FINE].copy()
    array[3, 2, 2] *= np.float16(1.5)  # one place in one call
    wrong = replace(MIXED, attention=MIXED.attention | {FINE: array})
    assert attention_maps(wrong).rows.relative == pytest.approx(0.5, abs=1e-2)
    assert not attention_maps(wrong, "red").rows.holds
    assert attention_maps(wrong, steps=[0, 1]).rows.holds
    array[3, 2, 2, 0] = np.nan
    broken = attention_maps(wrong)
    assert not broken.rows.holds and np.isnan(attention_maps(wrong, "<start>").maps).any()


# ---- mass, pixels, self-attention -------------------------------------------------------------
def test_the_mass_of_the_groups_sums_to_one():
    found = attention_mass(RUN)
    assert found.groups == ("<start>", "a", "red", "sky", "scraper", "<end>", "<pad>")
    assert found.words == ("a", "red", "sky", "scraper") and found.shares.shape == (5, 7)
    assert found.of("red") == pytest.approx(np.full(5, 0.5), abs=1e-9)
    assert found.of("<pad>") == pytest.approx(5 * 0.5 / 11, rel=1e-3)
    assert found.shares.sum(axis=1) == pytest.approx(1, abs=1e-3) and found.rows.holds
    mixed = attention_mass(MIXED).of("sky")
    arrays = [a[..., 3].astype(np.float64).mean(axis=(1, 2)) for a in MIXED.attention.values()]
    assert mixed == pytest.approx(np.mean(arrays, axis=0), abs=1e-9)
    half = replace(RUN, attention={MID: traces.attention(5) * np.float16(0.5)})
    assert not attention_mass(half).rows.holds


def test_a_pixel_s_words_are_ranked():
    array = np.full((5, 3, 4, 12), 1 / 12)
    array[:, 2, 1] = 0  # the cell of x 16…31, y 32…47 of a picture of 48 × 64
    array[:, 2, 1, 3], array[:, 2, 1, 5], array[:, 2, 1, 0] = 0.5, 0.3, 0.2
    run = replace(RUN, attention={MID: array.astype(np.float16)})
    for pixel in ((16, 32), (31, 47)):
        found = words_at(run, pixel)
        assert found.cell == (2, 1) and found.size == (3, 4)
        assert found.words == ("sky", "scraper", "a", "red")
        assert found.probabilities[0] == pytest.approx([0.5, 0.3, 0, 0], abs=1e-3)
        assert found.specials == ("<start>", "<end>", "<pad>")
        assert found.rest[4] == pytest.approx([0.2, 0, 0], abs=1e-3)
    assert words_at(run, (32, 32)).probabilities[0] != pytest.approx([0.5, 0.3, 0, 0], abs=1e-2)
    assert words_at(run).pixel == (32, 24) and words_at(run, words="red").words == ("red",)
    assert words_at(replace(run, tokens=None), (16, 32)).words[:3] == (
        "token 3",
        "token 5",
        "token 0",
    )
    for pixel in ((64, 0), (0, 48), (-1, 0), (1,), "ab", 3):
        with pytest.raises(InputError, match=r"from 0 to 63 and y \(down\) from 0 to 47"):
            words_at(run, pixel)


def self_attention(coarse: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Every cell of 6 × 8 looks at itself; every cell of 3 × 4 at itself, or as given."""
    fine = np.tile(np.eye(48).reshape(6, 8, 48), (5, 1, 1, 1)).astype(np.float16)
    rough = np.eye(12).reshape(3, 4, 12) if coarse is None else coarse
    return {f"down_blocks.0.attentions.0.{SELF}": fine,
            f"mid_block.{SELF}": np.tile(rough, (5, 1, 1, 1)).astype(np.float16)}  # fmt: skip


def test_self_attention_of_a_pixel_sums_to_one_on_every_grid():
    run = replace(RUN, attention=self_attention())
    found = self_attention_at(run, (33, 41))  # fine cell (5, 4), coarse cell (2, 2)
    fine, coarse = found.maps
    assert fine.shape == (6, 8) and coarse.shape == (3, 4)
    assert fine[5, 4] == coarse[2, 2] == fine.sum() == coarse.sum() == 1
    wanted = np.zeros((6, 8))
    wanted[4:6, 4:6] = 0.125
    wanted[5, 4] += 0.5
    assert found.mean == pytest.approx(wanted, abs=1e-12)
    assert found.layers == (("down 0.0",), ("mid",)) and found.rows.holds
    heads = {k: np.stack([a, a], axis=1) for k, a in run.attention.items()}
    both = self_attention_at(replace(run, attention=heads), (33, 41), steps=2, layers="mid")
    assert both.maps[0] == pytest.approx(coarse) and both.steps == (2,)
    wrong = replace(run, attention=self_attention(np.full((3, 4, 12), 0.2)))
    assert not self_attention_at(wrong).rows.holds


def test_self_attention_says_what_it_would_take():
    with pytest.raises(InputError, match="it will take 1.44 kB for 5 network calls"):
        self_attention_at(RUN)  # 5 calls · 12² · 2 bytes
    with pytest.raises(InputError, match='"self_attention".*24.5 kB.*1 of 3×4.*1 of 6×8 cells'):
        self_attention_at(MIXED)  # and 5 · 48² · 2
    with pytest.raises(InputError, match="for each layer of 6×8 cells"):
        self_attention_at(replace(RUN, attention={}))
    with pytest.raises(InputError, match="from 0 to 4"):
        self_attention_at(replace(RUN, attention=self_attention()), steps=9)


# ---- pointing ---------------------------------------------------------------------------------
def squares(count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n, 48, 64) of one 16 × 16 square each, and maps (n, 6, 8) that peak inside it."""
    random = np.random.default_rng(seed)
    masks, maps = np.zeros((count, 48, 64)), 0.1 * random.random((count, 6, 8))
    for i in range(count):
        row, column = i % 3, i // 3 % 4
        masks[i, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
        maps[i, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
    return maps, masks


def test_maps_that_point_are_better_than_chance_and_others_mean_nothing():
    maps, masks = squares()
    found = pointing_game(maps, masks)
    assert found.rate == 1 and found.chance_inside == 0 and found.p == 1 / 2001
    assert found.iou.mean() > 0.6 > 0.1 > found.chance_iou
    assert found.verdict == "100% point inside, chance 0%"
    wrong = pointing_game(np.roll(maps, 1, axis=0), masks)
    assert wrong.rate == 0 and wrong.chance_inside == pytest.approx(12 / (12 * 11))
    assert "no better than chance, these maps mean nothing" in wrong.verdict
    middle = np.zeros_like(maps)
    middle[:, 3, 4] = 1  # the same place in every scene
    assert pointing_game(middle, masks).rate == 1 / 12
    assert not pointing_game(middle, masks).better_than_chance
    maps[3, 0, 0] = np.nan
    assert "NaN" in pointing_game(maps, masks).verdict


def test_pooling_stretching_and_overlap_by_hand():
    mask = np.zeros((1, 4, 6))
    mask[0, :2, :3] = 1
    assert pooled(mask, (2, 2))[0].tolist() == [[1, 0], [0, 0]]
    assert pooled(mask, (2, 3))[0] == pytest.approx(np.array([[1, 0.5, 0], [0, 0, 0]]))
    line = stretched(np.array([[[0.0, 4.0]]]), (1, 4))[0, 0]
    assert line == pytest.approx([0, 1, 3, 4])
    half, other = np.array([[[0.6, 0.7]]]), np.array([[[0.7, 0.6]]])
    masks = np.array([[[0.4, 0.6]]])  # a cell that is 60 % mask counts, one of 40 % does not
    assert points_inside(half, masks).all() and not points_inside(other, masks).any()
    assert overlaps(half, masks)[0] == 0.5 and overlaps(half * 0, masks)[0] == 0


def test_pooling_and_stretching_are_torch_s():
    functional = torch.nn.functional
    random = np.random.default_rng(0)
    for small, large in (((3, 4), (48, 64)), ((5, 7), (48, 64)), ((16, 16), (128, 128))):
        masks, maps = torch.rand(3, *large), torch.from_numpy(random.random((3, *small)))
        down = functional.adaptive_avg_pool2d(masks[:, None], small)[:, 0].numpy()
        up = functional.interpolate(maps[:, None], large, mode="bilinear")[:, 0].numpy()
        assert np.abs(pooled(masks.numpy(), small) - down).max() < 1e-6
        assert np.abs(stretched(maps.numpy(), large) - up).max() < 1e-6


def test_what_chance_can_do():
    assert paired_at_random(np.eye(3, dtype=bool)) == pytest.approx(1 / 6, abs=0.03)  # one of 3!
    assert paired_at_random(np.ones((9, 9), bool)) == paired_at_random(np.zeros((9, 9), bool)) == 1
    assert paired_at_random(np.eye(9, dtype=bool)) == 1 / 2001  # one of 9!, never 0
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == pytest.approx(1)


@pytest.mark.parametrize("count", [8, 20])
@pytest.mark.parametrize("shares", [(0.02, 0.08), (0.1, 0.6)])
def test_maps_of_nothing_are_better_than_chance_at_most_once_in_a_hundred_times(count, shares):
    """Masks of few or many cells, maps that know nothing of them: a verdict must be rare.

    A chance that is estimated from the same 8 scenes and then taken as exact gives 4 in 100.
    """
    random, found = np.random.default_rng(count), []
    for _ in range(400):
        masks = random.random((count, 8, 8)) < random.uniform(*shares)
        found.append(pointing_game(random.random((count, 8, 8)), masks).better_than_chance)
    assert np.mean(found) <= 0.01 + 2.6 * (0.01 * 0.99 / 400) ** 0.5


def test_hits_that_chance_could_still_explain_are_not_called_meaningless():
    masks = np.ones((8, 4, 4))
    masks[:4, :, :2] = masks[4:, 2:] = 0  # two layouts, four scenes each
    maps = np.zeros((8, 4, 4))
    maps[:4, 3, 3] = maps[4:, 0, 0] = 1
    found = pointing_game(maps, masks)
    assert found.rate == 1 and found.interval[0] > found.chance_inside
    assert found.better_than_chance or "too few scenes to rule chance out (p 0." in found.verdict
    assert "mean nothing" not in found.verdict


def test_too_few_scenes_have_no_verdict():
    maps, masks = squares(7)
    found = pointing_game(maps, masks)
    assert found.rate == 1 and not found.better_than_chance
    assert found.verdict.endswith("too few scenes to say, 8 are needed")
    assert pointing_game(*squares(8)).better_than_chance
    lone = np.zeros((9, 2, 2))  # one hit, none of the 72 other pairs: chance looks like 0
    lone[0, 0, 0] = 1
    masks = np.zeros((9, 4, 4))
    masks[0, :2, :2] = 1
    other = np.zeros((9, 2, 2))
    other[:, 1, 1], other[0] = 1, lone[0]
    one = pointing_game(other, masks)
    assert one.rate == 1 / 9 and one.chance_inside == 0
    assert one.p == pytest.approx(1 / 9, abs=0.03) and "mean nothing" in one.verdict


def test_pointing_needs_scenes_that_fit():
    maps, masks = squares()
    for given in ((maps[:1], masks[:1]), (maps, masks[:5]), (maps[0], masks[0])):
        with pytest.raises(InputError, match="n of 2 or more"):
            pointing_game(*given)
    with pytest.raises(InputError, match="n, H, W, 3"):
        pointing_game(maps, masks, pictures=np.zeros((12, 8, 8, 3)))
    with pytest.raises(InputError, match="1 words for 12 maps"):
        pointing_game(maps, masks, ["car"])


# ---- leave one word out -----------------------------------------------------------------------
def planted(word: str = "red", where: tuple[int, int] = (1, 2), other: str = "sky"):
    """A run whose `word` is looked up in one 16 × 16 cell, and `run` that changes just that cell.

    Maps (9, 12) cells; `run` changes the picture where the map peaks, whatever the word.
    """
    array = np.full((5, 9, 12, 12), 0.01)
    column = {"red": 2, "sky": 3}
    array[:, 3 * where[0], 3 * where[1], column[word]] = 0.5
    array[:, 8, 0, column[other]] = 0.5
    array[..., 0] = 1 - array[..., 1:].sum(axis=-1)
    whole = {"dropped": 0, "dropped_words": (), "spans": ((0, 1), (2, 5), (6, 9), (10, 17))}
    trace = replace(RUN, tokens=replace(RUN.tokens, **whole),
                    image=Image.new("RGB", (64, 48)),
                    attention={MID: array.astype(np.float16)})  # fmt: skip

    def run(prompt: str, at=(3 * where[0], 3 * where[1])):
        pixels = np.zeros((48, 64, 3), np.uint8)
        rows, columns = (slice(at[0] * 48 // 9, (at[0] + 1) * 48 // 9),
                         slice(at[1] * 64 // 12, (at[1] + 1) * 64 // 12))  # fmt: skip
        pixels[rows, columns] = 255
        settings = replace(trace.settings, prompt=prompt)
        return replace(trace, settings=settings, image=Image.fromarray(pixels))

    return trace, run


def test_a_planted_cause_is_found_and_a_map_elsewhere_is_not():
    trace, run = planted()
    found = honesty.leave_one_out(trace, run, ["red"])
    assert found.prompts == ("a sky scraper",) and found.what == "pictures"
    assert found.own_fits[0] > 0.85 and found.p[0] == pytest.approx(1 / 108)
    assert found.better.all() and "1 of 1 maps fit" in found.verdict
    both = honesty.leave_one_out(trace, run, ["red", "sky"])  # the change is where "red" is
    assert both.own_is_best.tolist() == [True, False] and both.fits[1, 0] == both.fits[0, 0]
    assert both.better.tolist() == [True, False]
    missed = honesty.leave_one_out(trace, partial(run, at=(0, 11)), ["red"])
    assert missed.p[0] > 0.05
    assert missed.verdict == "these maps say nothing about the cause: shifted maps fit as well"
    title = plots.plot_honesty(missed).axes[0].get_title(loc="left")
    assert title.startswith("these maps say nothing about the cause")


def test_a_phrase_that_has_a_map_can_be_left_out_too():
    trace, run = planted()
    found = honesty.leave_one_out(trace, run, ["Red Sky", "scraper"])
    assert found.words == ("Red Sky", "scraper") and found.prompts == ("a scraper", "a red sky")
    assert found.maps[0] == pytest.approx(attention_maps(trace, ["red", "sky"]).maps.sum(axis=0)[0])


def test_without_images_the_latents_are_compared():
    trace, run = planted()
    moved = RUN.steps[-1].next_latent.copy()
    moved[:, 2, 4] += 3.0  # (6, 8) cells
    bare = replace(trace, image=None)

    def other(prompt: str):
        last = replace(RUN.steps[-1], next_latent=moved)
        settings = replace(trace.settings, prompt=prompt)
        return replace(bare, settings=settings, steps=(*RUN.steps[:-1], last))

    found = honesty.leave_one_out(bare, other, ["red"])
    assert found.what == "latents" and found.changes.shape == (1, 6, 8)
    assert found.changes[0, 2, 4] == pytest.approx(3, abs=1e-5) and found.changes.sum() < 3.001
    same = honesty.leave_one_out(bare, lambda prompt: bare, ["red"])
    assert same.own_fits[0] == 0 and same.p[0] == 1


def test_words_are_taken_out_of_the_text_itself():
    trace, _ = planted()
    spans = ((0, 1), (2, 5), (5, 6), (8, 11), (11, 12), (12, 15), (17, 20))
    prompt = "A red,  red-hot  sky"
    words = tuple(prompt[slice(*span)] for span in spans)
    assert words == ("A", "red", ",", "red", "-", "hot", "sky")
    tokens = replace(trace.tokens, prompt=prompt, words=words, spans=spans)
    trace = replace(trace, tokens=tokens)
    assert honesty.without(trace, "red#1") == "A , red-hot sky"
    assert honesty.without(trace, "red#2") == "A red, -hot sky"
    assert honesty.without(trace, "sky", "sea") == "A red, red-hot sea"
    assert honesty.without(trace, "HOT Sky") == "A red, red-"
    for word in ("<start>", "token 2", "blue", "red#3"):
        with pytest.raises(InputError, match="cannot be left out: the prompt has the words 'A'"):
            honesty.without(trace, word)
    with pytest.raises(InputError, match="say which: 'red#1', 'red#2'"):
        honesty.without(trace, "red")
    with pytest.raises(InputError, match="did not keep where its words stand.*make the run again"):
        honesty.without(replace(trace, tokens=replace(tokens, spans=())), "sky")
    with pytest.raises(InputError, match="leaving a word out lets another in"):
        honesty.without(RUN, "red")
    with pytest.raises(InputError, match="no record of its words"):
        honesty.without(replace(RUN, tokens=None), "red")


def test_runs_that_differ_in_more_than_the_prompt_are_refused():
    trace, run = planted()
    seed = replace(trace.settings, seed=8)
    first = replace(RUN.steps[0], latent=RUN.steps[0].latent + 1)
    for other, told in (
        (replace(trace, settings=seed), "seed is 7 in the run and 8"),
        (
            replace(trace, settings=replace(trace.settings, noise="brownian")),
            "noise is 'sequential",
        ),
        (replace(trace, steps=(first, *RUN.steps[1:])), "start from different noise"),
        (replace(trace, steps=RUN.steps[:3]), "runs of 5 and 3 steps"),
    ):
        with pytest.raises(InputError, match=told):
            honesty.leave_one_out(trace, lambda prompt, other=other: other, ["red"])
    with pytest.raises(InputError, match="1 runs for the words"):
        honesty.compare_left_out(trace, [run("a")], ["red", "sky"])
    with pytest.raises(InputError, match="not in the prompt"):
        honesty.leave_one_out(trace, run, ["blue"])


def test_correlations_by_hand_and_over_all_shifts():
    random = np.random.default_rng(3)
    a, b = random.random((2, 5, 7))
    assert honesty.correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    every = honesty.shifted_fits(a, b)
    for down, right in ((0, 0), (1, 0), (3, 5)):
        wanted = honesty.correlation(np.roll(a, (down, right), (0, 1)), b)
        assert every[down, right] == pytest.approx(wanted, abs=1e-12)
    assert honesty.rank_correlation(a, np.exp(5 * a)) == pytest.approx(1)
    assert honesty.correlation(a, np.exp(5 * a)) < 0.99
    tied = honesty.rank_correlation(np.array([[1.0, 2, 2, 3]]), np.array([[1.0, 2, 3, 4]]))
    assert tied == pytest.approx(0.9486833, abs=1e-6)
    assert honesty.share_as_good(every * np.nan) == 1
    assert np.isnan(honesty.rank_correlation(a * np.nan, b))


# ---- a model that knows nothing, and one that does --------------------------------------------
@torch.inference_mode()
def attention_of(model, pictures: np.ndarray, texts: list[str], first: int) -> dict:
    """What a call at karras_sigma 2 looks up in each noised picture: tap → (n, h, w, tokens)."""
    clean, level = latents_of(model, pictures), model.schedule.level_at(karras_sigma=2.0)
    draw = (torch.Generator().manual_seed(first + i) for i in range(len(texts)))
    noise = torch.stack([torch.randn(clean.shape[1:], generator=one) for one in draw])
    with dl.recording(model.unet, ["*attn2.probabilities"]) as tape:
        timestep = torch.tensor(level.timestep, dtype=torch.float32)
        model.unet(level.alpha * clean + level.sigma * noise, timestep, hidden_states(model, texts))
    return {name: values[0].numpy() for name, values in tape.items()}


def scenes(model, prompts, shifts=(0,), batch: int = 25) -> dict[int, Pointing]:
    """The first object's word in rendered scenes; `shifts` read so many tokens beside the word."""
    maps: dict[int, list] = {shift: [] for shift in shifts}
    drawn = [render(prompt.scene, model.size) for prompt in prompts]
    for first in range(0, len(prompts), batch):
        some = prompts[first : first + batch]
        pictures = np.stack([d.image for d in drawn[first : first + batch]])
        seen = attention_of(model, pictures, [prompt.text for prompt in some], first)
        for i, prompt in enumerate(some):
            start, end = prompt.caption.claims[0].kind_span
            tokens, word = dl.tokenize(model, prompt.text), prompt.text[start:end]
            for shift, found in maps.items():
                call = {n: np.roll(v[i : i + 1], -shift, axis=-1) for n, v in seen.items()}
                found.append(call_maps(call, tokens, [word], resolution="finest").maps[0, 0])
    empty = np.zeros((model.size, model.size))
    pairs = zip(drawn, prompts, strict=True)
    masks = np.stack([d.masks.get(p.kinds[0], empty) for d, p in pairs])
    return {shift: pointing_game(np.stack(found), masks) for shift, found in maps.items()}


def test_on_random_weights_the_figures_say_that_the_maps_mean_nothing(tiny_model):
    run = partial(dl.generate, tiny_model, seed=1, num_steps=3, height=128, width=192,
                  guidance_scale=4.0, progress=False)  # fmt: skip
    trace = run("a red car in the city at night", record={"predictions", "attention"})
    found = honesty.leave_one_out(trace, run, ["red", "car", "city", "night"])
    assert found.maps.shape == (4, 8, 12) and found.p_overall > 0.05
    assert "these maps say nothing about the cause" in plots.plot_honesty(found).alt
    pointing = scenes(tiny_model, one_object_prompts(SMALL, 40))[0]
    assert "these maps mean nothing" in plots.plot_pointing(pointing).alt


def test_toyland_points_at_the_thing_as_often_as_its_card_says():
    model = dl.load(device="cpu")
    results = Path(__file__).parents[1] / "benchmarks" / "results" / "quality.json"
    report = json.loads(results.read_text(encoding="utf-8"))["localisation"]
    card = report["object"]["finest"]["sigma 2"]["inside"]
    share = SHARES[model.config["toyland"]["share"]]
    found = scenes(model, one_object_prompts(share, 200), shifts=(0, 1))
    low, high = wilson(int(found[0].inside.sum()), 200, z=2.576)  # 99 %
    assert low <= card <= high and found[0].better_than_chance
    low, high = wilson(int(found[1].inside.sum()), 200, z=2.576)  # read one token off
    assert not low <= card <= high
