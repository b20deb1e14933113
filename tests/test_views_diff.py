"""The page of two runs: what differs, where they part, and what it says when it cannot know."""

from __future__ import annotations

import json
from dataclasses import replace

import lane_runs
import numpy as np
import pytest
import traces
from PIL import Image
from test_views_race import picture, unpacked

from diffusionlab.analysis.race import relative_distances
from diffusionlab.analysis.trajectories import parting
from diffusionlab.errors import InputError
from diffusionlab.images import to_pixels
from diffusionlab.views import diff
from diffusionlab.views.lanes import joined


def pair():
    """A run and one whose x0-hats are larger by 0.3."""
    base = lane_runs.previewed(traces.trace())
    return base, lane_runs.moved(base, 0.3, seed=8)


def sentences(view) -> list[str]:
    """The sentences of the page as texts."""
    return [joined(parts) for parts in view.data["sentences"]]


# ---- numbers ----------------------------------------------------------------------------------
def test_distances_are_those_of_the_traces():
    a, b = pair()
    one = diff(a, b).data["alignments"]["step"]
    wanted = relative_distances(b.x0s.astype(float), a.x0s.astype(float))
    np.testing.assert_allclose(unpacked(one["distances"]["x0"])[0, 1], wanted, rtol=1e-6)
    points = [run.latents[:-1].astype(float) for run in (b, a)]
    found = unpacked(one["distances"]["x_t"])[0, 1]
    np.testing.assert_allclose(found, relative_distances(*points), rtol=1e-6)


def test_a_wrong_number_would_be_found():
    a, b = pair()
    found = unpacked(diff(b, a).data["alignments"]["step"]["distances"]["x0"])[0, 1]
    wanted = relative_distances(b.x0s.astype(float), a.x0s.astype(float))
    assert not np.allclose(found, wanted, rtol=1e-6)


def test_settings_that_differ_stand_in_the_table():
    a, b = pair()
    view = diff(a, b, labels=("before", "after"))
    data = view.data
    assert data["differ"] == [["seed", "7", "8"]]
    assert ["number of steps", "5"] in data["same"]
    assert ["sampler", "ddim"] in data["same"]
    assert sentences(view)[0] == "They differ in 1 setting: seed."
    assert data["labels"] == ["before", "after"]
    both = replace(b, settings=replace(b.settings, num_steps=6, prompt="a cat"))
    told = sentences(diff(a, both))[0]
    assert told == "They differ in 3 settings: prompt, seed and number of steps."


def test_equal_runs_say_so():
    view = diff(traces.trace(), traces.trace())
    assert view.data["differ"] == []
    assert sentences(view)[0] == "A and B were asked for the same."
    assert "They start from the same noise." in view.alt
    assert "stay within 5% of each other at the 6 levels" in view.data["parted"]["told"]
    assert view.data["parted"]["step"] is None
    assert [text for text, _ in view.pictures()][2] == "difference:\nnone"


def test_where_they_part_is_the_analysis():
    a, b = pair()
    found = parting(a, b, 0.05)
    data = diff(a, b).data
    assert data["parted"]["step"] == found.steps[found.at][0]
    assert str(found)[1:] in data["parted"]["told"]
    assert data["parted"]["told"].startswith("The runs differ by more than 5%")


def test_runs_of_other_levels_part_at_a_level_that_both_visit():
    a, b = traces.trace(10), lane_runs.moved(traces.trace(5), 0.3)
    found, view = parting(a, b, 0.05), diff(a, b)
    parted, (ours, theirs) = view.data["parted"], found.steps[found.at]
    assert ours != theirs
    assert f"{len(found.steps)} in common. The first of these" in parted["told"]
    assert f"is karras_sigma {found.karras_sigmas[found.at]:.3g}, after" in parted["told"]
    assert (parted["step"], parted["mark"]) == (ours, "x_t differ here")
    for one in view.data["alignments"].values():
        far = unpacked(one["distances"]["x_t"])[0, 1]
        levels = [[run["steps"][i]["karras_sigma"] for i in at]
                  for run, at in zip(view.data["runs"], one["shown"], strict=True)]  # fmt: skip
        np.testing.assert_array_equal(np.isfinite(far), np.isclose(*levels, rtol=1e-6))
    assert diff(a, lane_runs.moved(a, 0.3)).data["parted"]["mark"] == "they part"


def test_labels_stand_apart_from_our_words():
    a, b = pair()
    view = diff(a, lane_runs.stopped_after(b, 3), labels=("ا", "ب"))
    assert view.data["title"][:4] == ["Two runs, ", {"text": "ا"}, " and ", {"text": "ب"}]
    assert view.title.startswith("Two runs, ا and ب · ")
    assert view.data["sentences"][2] == [{"text": "ب"}, " stopped after 3 of 5 steps", "."]
    same = diff(a, a, labels=("ا", "ب")).data["sentences"][0]
    assert same == [{"text": "ا"}, " and ", {"text": "ب"}, " were asked for the same."]


def test_pictures_and_steps_may_be_fewer():
    run = traces.trace(frames=(Image.new("RGB", (512, 384), (9, 99, 199)),) * 5)
    data = diff(run, run, size=np.int64(96), every=2).data
    found = data["runs"][0]["reels"]["x0"]
    assert (found["width"], found["height"], len(found["sources"])) == (96, 72, 3)
    assert [step["index"] for step in data["runs"][1]["steps"]] == [0, 2, 4]


@pytest.mark.parametrize(
    ("options", "told"),
    [({"size": 8}, "16 to 2048"), ({"size": 1.5}, "16 to 2048"), ({"every": 0}, "whole number")],
)
def test_bad_options_say_what_is_allowed(options, told):
    with pytest.raises(InputError, match=told):
        diff(*pair(), **options)


def test_the_start_noise_is_told():
    a, _ = pair()
    told = sentences(diff(a, lane_runs.moved(a, 5.0)))[1]
    assert told.startswith("They start from different noise, ")
    told = sentences(diff(a, lane_runs.cropped(a)))[1]
    assert "different shapes" in told
    assert "NaN" in sentences(diff(a, lane_runs.bad_from(a, 0)))[1]


def test_runs_of_other_levels_are_aligned_by_level():
    a, b = traces.trace(5), traces.trace(10)
    view = diff(a, b)
    assert view.live["align"] == "karras_sigma"
    assert diff(a, a).live["align"] == "step"
    one = view.data["alignments"]["karras_sigma"]
    for place, (i, j) in enumerate(zip(*one["shown"], strict=True)):
        floor = one["places"][place] * (1 - 1e-6)
        assert a.steps[i].level.karras_sigma >= floor or i == 0
        assert b.steps[j].level.karras_sigma >= floor


def test_pictures_are_exact_previews():
    a, b = pair()
    runs = diff(a, b).data["runs"]
    for run, trace in zip(runs, (a, b), strict=True):
        for i in range(5):
            wanted = trace.preview.rgb(trace.x0s[i])
            np.testing.assert_array_equal(picture(run["reels"]["x0"]["sources"][i]), wanted)


# ---- what is missing --------------------------------------------------------------------------
def gaps():
    """A pair for every kind of gap, and words of the sentence that tells it."""
    base = lane_runs.previewed(traces.trace())
    return {
        "nan": (base, lane_runs.bad_from(base, 2), "differ by more than 5% from step 2"),
        "stopped": (base, lane_runs.stopped_after(base, 3), "B stopped after 3 of 5 steps."),
        "latents only": (base, lane_runs.unrecorded(base), "stay within 5%"),
        "shapes": (base, lane_runs.cropped(base), "only latents of one shape"),
        "first level only": (base, lane_runs.stopped_after(traces.trace(7), 1), "noise level"),
        "no map": (replace(base, preview=None), base, "stay within 5%"),
        "two calls": (base, lane_runs.doubled(base), "stay within 5%"),
        "redacted": (replace(base, tokens=None), base, "stay within 5%"),
    }


@pytest.mark.parametrize("gap", gaps())
def test_every_kind_of_gap_is_told(gap):
    a, b, words = gaps()[gap]
    view = diff(a, b)
    assert words in " ".join([*sentences(view), view.data["parted"]["told"]])
    json.loads(json.dumps(view.data, allow_nan=False))
    assert view.page
    assert len(view.pictures()) == 3
    assert view.still().width > 0


def test_without_any_prediction_x_t_is_shown():
    bare = lane_runs.unrecorded(traces.trace())
    assert diff(bare, bare).live["show"] == "x_t"


# ---- input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "labels", ["AB", ("A",), ("A", "B", "C"), ("A", "A"), ("", "B"), (1, 2), 3]
)
def test_labels_are_two_different_texts(labels):
    with pytest.raises(InputError, match=r"two different texts are allowed.*\(.before"):
        diff(*pair(), labels=labels)


def test_other_things_are_no_runs():
    with pytest.raises(InputError, match=r"run B is None.*generate\(…\)"):
        diff(traces.trace(), None)
    with pytest.raises(InputError, match="0 steps"):
        diff(traces.trace(), replace(traces.trace(), steps=()))


# ---- the page ---------------------------------------------------------------------------------
@pytest.mark.parametrize("text", traces.HOSTILE)
def test_hostile_texts_change_no_element(text):
    base, bad = traces.trace(), traces.trace(prompt=text)
    bad = replace(bad, settings=replace(bad.settings, negative_prompt=text, model=text,
                                        sampler={"name": text, "options": {}}))  # fmt: skip
    harmless, hostile = diff(base, base), diff(bad, bad, labels=(text, text + "!"))
    assert lane_runs.elements(hostile.page) == lane_runs.elements(harmless.page)
    ours, theirs = (lane_runs.elements(v._repr_mimebundle_()["text/html"])
                    for v in (harmless, hostile))  # fmt: skip
    assert ours == theirs
    assert hostile.to_figure().alt


def test_the_check_of_the_structure_can_fail():
    page = diff(*pair()).page
    assert lane_runs.elements(page) != lane_runs.elements(page.replace("<main", "<b></b><main"))


def test_two_runs_of_fifty_steps_and_large_latents_stay_small():
    run = large(50)
    view = diff(run, run)
    assert view.data["block"] == 2
    assert len(view.page) < 8_000_000


def large(count):
    """A run on latents as Stable Diffusion's."""
    base = traces.trace(count, frames=(), attention={})
    grow = lambda x: np.kron(x, np.ones((1, 11, 8), x.dtype))[:, :64]  # noqa: E731
    steps = []
    for step in base.steps:
        calls = tuple(
            replace(c, latent=grow(c.latent), cond=grow(c.cond), uncond=grow(c.uncond))
            for c in step.predictions
        )
        grown = {"latent": grow(step.latent), "next_latent": grow(step.next_latent)}
        steps.append(replace(step, predictions=calls, **grown))
    return replace(base, steps=tuple(steps))


def test_the_widget_keeps_its_limits():
    widget = diff(*pair()).widget()
    widget.split = 100
    with pytest.raises(Exception, match="split"):
        widget.split = 101


# ---- the still --------------------------------------------------------------------------------
def test_the_still_shows_both_ends_and_their_difference():
    a, b = traces.trace(), traces.trace()
    b = replace(b, image=b.image.transpose(0))
    (name, first), (_, second), (told, off) = diff(a, b, labels=("one", "two")).pictures()
    assert name == "one"
    assert first is a.image
    wanted = np.abs(to_pixels(first) - to_pixels(second)).mean(axis=2)
    assert told == f"difference\nblack: {wanted.max():.2g}"
    drawn = 1 - to_pixels(off)[..., 0]
    np.testing.assert_allclose(drawn, wanted / wanted.max(), atol=0.003)
