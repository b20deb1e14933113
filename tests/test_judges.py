"""The judges: what they are told is true, what they say is read right, and they learn."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from diffusionlab.errors import CheckpointError, InputError
from diffusionlab.toyland import COLOURS, OBJECTS, SETTINGS, SMALL, held_out, render, scene
from diffusionlab.training.judge_nets import (
    NO_TIME,
    Classifier,
    Segmenter,
    batch_of,
    judge,
    load_judges,
    save_judges,
    segment,
    verdicts,
)
from diffusionlab.training.judges import (
    batch_loss,
    ceilings,
    class_map,
    flipped,
    judge_scene,
    labels_of,
    mean_iou,
    render_labelled,
    spoiled,
    train_judges,
)
from diffusionlab.training.presets import preset

CAR, BOAT = OBJECTS.index("car"), OBJECTS.index("boat")


@pytest.fixture(scope="module")
def tiny():
    """Both judges, narrow and untrained."""
    torch.manual_seed(0)
    return Classifier((8, 8, 8, 8)).eval(), Segmenter((8, 8, 8)).eval()


def logits_of(scenes) -> dict[str, torch.Tensor]:
    """Logits of a judge that makes no mistake."""
    told = labels_of(scenes)
    sizes = {"setting": len(SETTINGS), "time": NO_TIME + 1, "style": 3}
    sure = {k: 9 * torch.nn.functional.one_hot(told[k], n).float() for k, n in sizes.items()}
    colour = 9 * torch.nn.functional.one_hot(told["colour"].clamp(min=0), len(COLOURS)).float()
    return {"present": 9 * (2 * told["present"] - 1), "colour": colour, **sure}


def pair():
    return scene(3, object="car", colour="red", other="boat", other_colour="blue", setting="ocean")


def test_labels_say_what_the_scene_holds():
    told = labels_of([pair(), scene(4, object="labrador", colour="pink", setting="space")])
    assert told["present"].sum(dim=1).tolist() == [2, 1]
    assert told["colour"][0, CAR] == COLOURS.index("red")
    assert told["colour"][0, BOAT] == COLOURS.index("blue")
    assert (told["colour"] >= 0).sum() == 3
    assert told["setting"].tolist() == [SETTINGS.index("ocean"), SETTINGS.index("space")]
    assert told["time"][0] < NO_TIME == told["time"][1]


def test_a_class_map_agrees_with_the_masks():
    shown = pair()
    masks = render(shown, 128).masks
    found = class_map(masks)
    for kind in ("car", "boat"):
        cells = masks[kind].reshape(64, 2, 64, 2).mean(axis=(1, 3))
        assert (found[cells > 0.51] == 1 + OBJECTS.index(kind)).all()
        assert (found[cells < 0.3] != 1 + OBJECTS.index(kind)).all()
    assert set(np.unique(found)) == {0, 1 + CAR, 1 + BOAT}


def test_a_judge_without_mistakes_reaches_every_ceiling_and_others_do_not():
    scenes = [judge_scene(i, SMALL) for i in range(60)]
    right = ceilings(verdicts(logits_of(scenes)), scenes)
    assert right == dict.fromkeys(("object", "colour", "setting", "time", "style"), 1.0)
    wrong = ceilings(verdicts(logits_of(scenes[1:] + scenes[:1])), scenes)
    assert wrong["object"] < 0.4 and wrong["setting"] < 0.5


def test_verdicts_keep_each_colour_with_its_own_thing():
    (seen,) = verdicts(logits_of([pair()]))
    assert seen.colours == {"car": "red", "boat": "blue"} and set(seen.kinds) == {"car", "boat"}
    assert seen.setting == "ocean" and "red car" in str(seen)


def test_judges_take_pictures_of_any_size_and_refuse_others(tiny):
    for size in (64, 96, 128):
        pictures = np.zeros((3, size, size, 3), np.uint8)
        assert len(judge(tiny[0], pictures, batch=2)) == 3
        assert segment(tiny[1], pictures, batch=2).shape == (3, 64, 64)
    with pytest.raises(InputError, match=r"uint8 \(n, height, width, 3\)"):
        batch_of(np.zeros((3, 8, 8), np.uint8))


def test_saved_judges_come_back_and_strangers_do_not(tiny, tmp_path):
    save_judges(tmp_path, *tiny)
    pixels = torch.rand(2, 3, 128, 128) * 2 - 1
    for mine, loaded in zip(tiny, load_judges(tmp_path), strict=True):
        ours, theirs = mine(pixels), loaded(pixels)
        for name in ours if isinstance(ours, dict) else (slice(None),):
            torch.testing.assert_close(ours[name], theirs[name], rtol=0.02, atol=0.02)
    (tmp_path / "segmenter.safetensors").write_bytes(
        (tmp_path / "classifier.safetensors").read_bytes()
    )
    with pytest.raises(CheckpointError, match=r"segmenter\.safetensors"):
        load_judges(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["classes"]["objects"].reverse()
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match="train them again"):
        load_judges(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_judges(tmp_path / "nowhere")


def test_the_judges_also_see_triples_that_the_model_never_does():
    scenes = [judge_scene(i, SMALL) for i in range(300)]
    held = [held_out(t.kind, t.colour, s.setting) for s in scenes for t in s.things[:1] if t.colour]
    assert 0 < sum(held) < len(held) / 4
    assert {t.kind for s in scenes for t in s.things} <= set(SMALL.objects)


def test_spoiling_changes_pictures_a_little_and_flipping_takes_the_map_along():
    pixels = torch.rand(6, 3, 64, 64) * 2 - 1
    changed = spoiled(pixels, np.random.default_rng(0))
    assert changed.shape == pixels.shape and changed.abs().max() <= 1
    assert 0.01 < (changed - pixels).abs().mean() < 0.5
    marked, classes = torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64)
    marked[..., 0], classes[..., 0] = 1, 1
    marked, classes = flipped(marked, classes)
    assert marked[0, 0, :, -1].all() and classes[0, :, -1].all() and classes[1, :, 0].all()


def test_mean_iou_of_a_constructed_map():
    true = np.zeros((1, 4, 4), np.uint8)
    true[0, :2], true[0, 2:] = 1, 2
    found = true.copy()
    found[0, 1] = 2  # half of class 1 is taken for class 2: 4/8 and 8/12
    assert mean_iou(found, true) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert mean_iou(true, true) == 1 and mean_iou(np.zeros_like(true), true) == 0


def test_training_learns_and_leaves_judges_with_a_report(tmp_path):
    small = dataclasses.replace(preset("smoke"), pictures=60)
    train_judges(tmp_path / "run", small, None, 0.05)
    report = json.loads((tmp_path / "run" / "judges" / "report.json").read_text(encoding="utf-8"))
    state = json.loads((tmp_path / "run" / "judges" / "state.json").read_text(encoding="utf-8"))
    assert state["step"] > 0 and report["pictures"] == 60 and 0 <= report["object"] <= 1
    torch.manual_seed(0)
    fresh = Classifier(), Segmenter()
    drawn = render_labelled(tmp_path / "data", 0, 60, SMALL)
    labels = labels_of([judge_scene(i, SMALL) for i in range(60)])
    before, after = (
        float(batch_loss(dict(zip(("classifier", "segmenter"), nets, strict=True)), drawn, labels,
                         small, np.random.default_rng(0))[0].detach())
        for nets in (fresh, load_judges(tmp_path / "run" / "judges"))
    )  # fmt: skip
    assert after < before
    assert sum(p.numel() for p in fresh[0].parameters()) < 1.1e6
