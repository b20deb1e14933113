"""The quality benchmark's measures on constructed cases, and its drawing against `generate`."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import diffusionlab as dl
from diffusionlab.analysis.attention import attention_maps
from diffusionlab.errors import CheckpointError, InputError
from diffusionlab.toyland import COLOURS, SMALL, Share, held_out, is_true
from diffusionlab.training import card, quality
from diffusionlab.training.judge_nets import Verdict
from diffusionlab.training.localisation import (
    on_generated,
    overlaps,
    points_inside,
    scores,
    teacher_forced,
)
from diffusionlab.training.pictures import Drawn, draw, latents_of, text_vectors, token_weights
from diffusionlab.training.prompted import (
    one_object_prompts,
    paraphrases,
    two_object_prompts,
)
from diffusionlab.training.sheets import pair_sheet, verdict_sheet


@pytest.fixture(scope="module")
def prompts():
    return one_object_prompts(SMALL, 60)


@pytest.fixture(scope="module")
def pairs():
    return two_object_prompts(SMALL, 20)


def perfect(prompt) -> Verdict:
    """What a judge says of a picture that does what the prompt says."""
    shown = prompt.scene
    return Verdict(prompt.kinds, shown.setting, shown.time, shown.style, prompt.colours)


# ---- prompts ---------------------------------------------------------------------------------
def test_prompts_say_everything_and_half_of_them_were_never_trained(prompts):
    assert sum(prompt.unseen for prompt in prompts) == 30
    for prompt in prompts:
        (kind,), shown = prompt.kinds, prompt.scene
        assert is_true(prompt.caption, shown) and prompt.colours[kind] == shown.things[0].colour
        assert prompt.caption.atoms["setting"] == shown.setting
        assert prompt.caption.atoms.get("time") == shown.time
        assert held_out(kind, prompt.colours[kind], shown.setting) == prompt.unseen
    again = one_object_prompts(SMALL, 60)
    assert [p.text for p in again] == [p.text for p in prompts]
    assert len({p.text for p in prompts}) > 50


def test_two_object_prompts_have_two_kinds_and_two_colours(pairs):
    for prompt in pairs:
        assert len(set(prompt.kinds)) == 2 and len(set(prompt.colours.values())) == 2


def test_a_share_without_held_out_triples_is_refused():
    kind, setting = next(
        (kind, setting)
        for kind, setting in product(SMALL.objects, SMALL.settings)
        if not any(held_out(kind, colour, setting) for colour in COLOURS)
    )
    nothing = Share("tiny", (kind,), (setting,), ("plain",), pairs=0)
    with pytest.raises(InputError, match="no held-out triple"):
        one_object_prompts(nothing, 2)


def test_paraphrases_differ_from_both_texts():
    for held, own, other in paraphrases(SMALL, 20):
        assert len({held, own, other}) == 3


# ---- adherence -------------------------------------------------------------------------------
def test_perfect_verdicts_are_right_and_shuffled_ones_near_chance(prompts):
    verdicts = [perfect(prompt) for prompt in prompts]
    right = quality.adherence(verdicts, prompts)
    for group in ("every", "seen", "unseen"):
        assert all(right[group][aspect] == 1 for aspect in ("object", "colour", "setting", "all"))
    moved = quality.shuffled(prompts)
    assert all(a is not b for a, b in zip(moved, prompts, strict=True))
    assert sorted(map(id, moved)) == sorted(map(id, prompts))
    chance = quality.adherence(verdicts, moved)["every"]
    assert chance["object"] < 0.4 and chance["setting"] < 0.5 and chance["all"] < 0.1


def test_each_mistake_is_counted_where_it_belongs(prompts):
    prompt = next(p for p in prompts if p.scene.time == "day" and p.kinds != ("cat",))
    kind, colour, good = prompt.kinds[0], prompt.colours[prompt.kinds[0]], perfect(prompt)
    two = replace(good, kinds=(kind, "cat"), colours={kind: "none", "cat": colour})
    cases = {
        "object": replace(good, kinds=("cat",), colours={"cat": colour}),
        "colour": replace(good, colours={kind: "none"}),
        "setting": replace(good, setting="none"),
        "time": replace(good, time="night"),
    }
    for aspect, verdict in cases.items():
        right = quality.aspects_right(verdict, prompt)
        assert {k for k, hit in right.items() if hit is False} == {aspect, "all"}
    bled = quality.aspects_right(two, prompt)
    assert bled["colour"] and not bled["object"] and not bled["all"]


def test_binding_tells_swapped_colours_from_right_ones(pairs):
    verdicts = [perfect(prompt) for prompt in pairs]
    assert quality.binding(verdicts, pairs)["right_colours"] == 1
    for i, prompt in enumerate(pairs[:5]):
        (first, one), (second, other) = prompt.colours.items()
        verdicts[i] = replace(verdicts[i], colours={first: other, second: one})
    first, *_ = pairs[5].kinds
    verdicts[5] = replace(verdicts[5], kinds=(first,), colours={first: pairs[5].colours[first]})
    found = quality.binding(verdicts, pairs)
    assert found == {
        "prompts": 20,
        "both_objects": 0.95,
        "right_colours": 0.7,
        "swapped_colours": 0.25,
    }


# ---- maps ------------------------------------------------------------------------------------
def test_pointing_and_overlap_of_constructed_maps():
    masks = np.zeros((3, 64, 64), np.float32)
    masks[:, 8:24, 8:24] = 1
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, 1:3, 1:3] = 1  # the mask itself
    maps[1, 5, 5] = 1  # elsewhere
    maps[2] = 1  # everywhere: the peak is the first cell, outside
    assert points_inside(maps, masks).tolist() == [True, False, False]
    good, none, loose = overlaps(maps, masks)
    assert good > 0.75 and none == 0 and loose == pytest.approx(16 * 16 / 64**2)
    assert scores(maps[:2], np.stack([masks[0], np.roll(masks[1], 32, axis=(1))]))["inside"] == 0.5


def test_the_weights_of_a_word_are_on_its_tokens(tiny_model):
    text = "a red car in the city"
    weights = token_weights(tiny_model, [text, text, ""], [(6, 9), (2, 9), None])
    tokens = dl.tokenize(tiny_model, text)
    car = [tokens.words[w] == "car" if w is not None else False for w in tokens.word_of]
    assert (weights[0] > 0).tolist() == car and weights.sum(dim=1).tolist() == [1, 1, 0]
    assert (weights[1] > 0).sum() > sum(car)


def test_drawing_many_is_drawing_each_alone(tiny_model):
    texts = ["a red car in the city", "a blue boat"]
    drawn = draw(tiny_model, texts, [(6, 9), (7, 11)], first_seed=5, num_steps=3)
    record = {"predictions", "attention"}
    for i, text in enumerate(texts):
        trace = dl.generate(
            tiny_model, text, seed=5 + i, num_steps=3, record=record, progress=False
        )
        off = np.asarray(trace.image).astype(int) - drawn.pictures[i]
        assert np.abs(off).max() <= 1
        weights = token_weights(tiny_model, [text], [[(6, 9), (7, 11)][i]])[0].numpy()
        tokens = attention_maps(trace, [f"token {i}" for i in range(len(weights))])
        expected = np.tensordot(weights, tokens.maps[:, 0], 1)
        np.testing.assert_allclose(drawn.every[i] / 3, expected, atol=2e-3)
    assert np.abs(drawn.pictures[0].astype(int) - drawn.pictures[1]).max() > 5


def test_teacher_forced_maps_are_scored_for_every_sigma(tiny_model, prompts):
    report = teacher_forced(tiny_model, prompts[:6], sigmas=(1.0, 4.0))
    assert report["scenes"] == 6
    for word in ("object", "colour"):
        for layers in ("finest", "every"):
            place = report[word][layers]
            assert set(place) == {"sigma 1", "sigma 4", "mean"}
            assert all(0 <= value <= 1 for row in place.values() for value in row.values())


def test_generated_maps_are_scored_where_the_segmenter_finds_the_object(prompts):
    class Left(torch.nn.Module):
        """Sees the first prompt's object in the left half of white pictures only."""

        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pixels):
            logits = torch.zeros(len(pixels), 13, 64, 64)
            kind = 1 + dl.toyland.OBJECTS.index(prompts[0].kinds[0])
            logits[:, kind, :, :32] = pixels.mean(dim=(1, 2, 3)).sign()[:, None, None]
            return logits

    pictures = np.full((3, 64, 64, 3), 255, np.uint8)
    pictures[2] = 0
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, 3, 1], maps[1, 3, 6] = 1, 1
    report = on_generated(Drawn(pictures, maps, maps), [prompts[0]] * 3, Left())
    assert report["without_object"] == 1 and report["finest"]["inside"] == 0.5


# ---- the rest --------------------------------------------------------------------------------
def test_psnr_of_a_region():
    true = np.zeros((8, 8, 3), np.uint8)
    made, mask = true.copy(), np.zeros((8, 8))
    made[:4], mask[:4] = 51, 1  # an error of a fifth: 14 dB
    assert quality.region_psnr(made, true, mask) == pytest.approx(20 * np.log10(5), abs=1e-6)
    assert quality.region_psnr(made, true) == pytest.approx(20 * np.log10(5) + 3.0103, abs=1e-3)
    assert quality.region_psnr(made, true, 1 - mask) > 70


def test_nearest_finds_a_copy_and_the_statistic_tells_distributions_apart():
    known = torch.randn(20, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    found = quality.nearest(torch.stack([known[7], known[3] + 1]), known)
    assert found.rows[0] == 7 and found.distances[0] < 1e-3
    assert 0.1 < found.distances[1] <= 1.0001
    values = np.arange(10.0)
    assert quality.ks_statistic(values, values) == 0
    assert quality.ks_statistic(values, values + 100) == 1
    assert quality.ks_statistic(values, values + 5) == pytest.approx(0.5)


def test_memorisation_catches_a_model_that_copies(tiny_model, prompts):
    copies = quality.rendered([dl.toyland.scene(i, SMALL) for i in range(4)], tiny_model.size)
    report, near = quality.memorisation(tiny_model, SMALL, prompts[:4], Drawn(copies), count=30)
    assert report["median_generated"] < 1e-3 < report["median_held_out"]
    assert len(near) == 4 and all(np.array_equal(made, trained) for made, trained, _ in near)


def test_vae_and_paraphrase_reports(tiny_model):
    vae = quality.vae_quality(tiny_model, SMALL, count=6)
    assert 0 < vae["psnr_db"] < 40 and set(vae["objects_db"]) <= set(SMALL.objects)
    told = quality.paraphrase(tiny_model, SMALL, count=8)
    assert 0 <= told["nearer"] <= 1 and told["pairs"] == 8
    vectors = text_vectors(tiny_model, ["a red car", "a red car", "a blue boat"])
    assert torch.equal(vectors[0], vectors[1]) and not torch.allclose(vectors[0], vectors[2])
    trip = quality.round_trip(tiny_model, np.zeros((1, 64, 64, 3), np.uint8))
    assert trip.shape == (1, 64, 64, 3)
    assert latents_of(tiny_model, trip).shape == (1, 4, 8, 8)


def result_with(value: float) -> dict:
    """A result in which every gate's figure is this value."""
    result: dict = {"task": {"prompts": 1000, "steps": 20, "sampler": "ddim", "guidance_scale": 4}}
    for gate in quality.GATES:
        for path in filter(None, (gate.path, gate.ceiling, gate.chance)):
            place = result
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = value
    result["binding"]["generated"]["prompts"] = 200
    return result


def test_gates_pass_and_miss():
    best, worst = quality.gate_table(result_with(99.0)), quality.gate_table(result_with(0.0))
    assert len(best) == 11 and all(row["accelerator_holds"] == "pass" for row in best)
    assert {row["cpu_holds"] for row in best} == {"pass", "report"}
    assert {row["cpu_holds"] for row in worst} == {"miss", "report"}


def test_the_model_card_holds_the_gate_table_that_was_measured(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"above\n{card.BEGIN}\nold\n{card.END}\nbelow\n", encoding="utf-8")
    result = result_with(0.91)
    card.write_gates(path, result | {"gates": quality.gate_table(result)})
    text = path.read_text(encoding="utf-8")
    assert "old" not in text and text.startswith("above") and text.endswith("below\n")
    assert "| object right | 0.910 | 0.910 | 0.910 | ≥ 0.9 ✓ | ≥ 0.95 ✗ |" in text
    assert "| attention: IoU at 0.4 | 0.910 |  | 0.910 | report | ≥ 0.45 ✓ |" in text
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match="export the card again"):
        card.write_gates(path, result | {"gates": []})


def test_the_checkpoint_must_say_its_share(tiny_model):
    with pytest.raises(CheckpointError, match="share"):
        quality.share_of(tiny_model)
    told = replace(tiny_model, config=tiny_model.config | {"toyland": {"share": "small"}})
    assert quality.share_of(told) is SMALL


def test_sheets_are_pictures(tmp_path, prompts):
    pictures = np.zeros((3, 64, 64, 3), np.uint8)
    verdicts = [perfect(prompt) for prompt in prompts[:3]]
    sheet = verdict_sheet(tmp_path / "a.png", prompts[:3], pictures, verdicts)
    pairs = pair_sheet(tmp_path / "b.png", [(pictures[0], pictures[1], 0.5)])
    for path in (sheet, pairs):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(quality.gate_table(result_with(1.0))))
