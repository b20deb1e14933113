"""The race's page: its numbers are the traces', and what it says when something is missing."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from dataclasses import replace

import lane_runs
import numpy as np
import pytest
import traces
from PIL import Image

from diffusionlab.analysis.race import align, apart, lane, to_ends
from diffusionlab.errors import InputError
from diffusionlab.trace import Comparison
from diffusionlab.views import race
from diffusionlab.views.lanes import averaged
from diffusionlab.views.sampler_race import blind_order, caption


def unpacked(packed: dict) -> np.ndarray:
    """What `packed` wrote."""
    kind = np.dtype(packed["kind"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(packed["data"]), kind).reshape(packed["shape"])


def picture(source: str) -> np.ndarray:
    """The pixels of a data address."""
    data = base64.b64decode(source.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# ---- numbers ----------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["step", "karras_sigma", "network_calls"])
def test_distances_and_places_are_those_of_the_analysis(by):
    record = lane_runs.three()
    data = race(record).data
    lanes = [lane(trace) for trace in record.traces]
    alignment = align(lanes, by)
    found, one = apart(record.traces, lanes, [alignment])[0], data["alignments"][by]
    np.testing.assert_allclose(unpacked(one["distances"]["x0"]), found.x0, rtol=1e-6)
    np.testing.assert_allclose(unpacked(one["distances"]["x_t"]), found.x_t, rtol=1e-6)
    np.testing.assert_allclose(one["places"], alignment.places, rtol=1e-12)
    assert one["shown"] == alignment.shown.tolist()


def test_a_wrong_number_would_be_found():
    record = lane_runs.three()
    other = replace(record, traces=(record.traces[1], *record.traces[1:]))
    ours, theirs = (
        unpacked(race(one).data["alignments"]["step"]["distances"]["x0"]) for one in (record, other)
    )
    assert not np.allclose(ours, theirs, rtol=1e-6)


def test_ends_and_arrivals():
    record = lane_runs.three()
    found, wanted = race(record).data["to_ends"], to_ends(record.traces)
    np.testing.assert_allclose(unpacked(found[0][1]["distances"]), wanted[0][1], rtol=1e-6)
    assert found[0][0]["arrived"]["step"] == int(np.argmax(wanted[0][0] <= 0.1))
    for row in found:
        for one, trace in zip(row, record.traces, strict=True):
            if one["arrived"]:
                per_step = trace.steps[0].network_calls
                assert one["arrived"]["call"] == 1 + one["arrived"]["step"] * per_step


def test_steps_and_latents_are_the_runs():
    record = lane_runs.three()
    for run, trace in zip(race(record).data["runs"], record.traces, strict=True):
        np.testing.assert_array_equal(unpacked(run["x0"]), trace.x0s.astype(np.float16))
        for found, step in zip(run["steps"], trace.steps, strict=True):
            assert found["index"] == step.index
            assert found["karras_sigma"] == pytest.approx(step.level.karras_sigma, rel=1e-12)
    calls = [step["call"] for step in race(record).data["runs"][2]["steps"]]
    assert calls == [1, 3, 5, 7, 9]


def test_pictures_are_exact_previews():
    record = lane_runs.three()
    trace, run = record.traces[1], race(record).data["runs"][1]
    for i in range(5):
        wanted = trace.preview.rgb(trace.x0s[i])
        np.testing.assert_array_equal(picture(run["reels"]["x0"]["sources"][i]), wanted)
        wanted = trace.preview.rgb(trace.latents[i])
        np.testing.assert_array_equal(picture(run["reels"]["x_t"]["sources"][i]), wanted)
    assert run["reels"]["x0"]["alts"][3].startswith("x0-hat at step 3, karras_sigma ")


def test_frames_are_shown_where_all_runs_have_them():
    base = traces.trace()
    both = race(lane_runs.comparison(base, lane_runs.moved(base, 0.1))).data["runs"]
    assert [run["reels"]["x0"]["label"] for run in both] == ["x0-hat, decoded"] * 2
    assert both[0]["reels"]["x0"]["width"] == 64
    one = race(lane_runs.comparison(base, lane_runs.previewed(base))).data["runs"]
    assert [run["reels"]["x0"]["label"] for run in one] == ["x0-hat, preview"] * 2


def test_large_frames_are_shrunk_to_the_size():
    large = Image.new("RGB", (512, 384), (9, 99, 199))
    run = traces.trace(frames=(large,) * 5)
    found = race(lane_runs.comparison(run, run), size=96).data["runs"][0]["reels"]["x0"]
    assert (found["width"], found["height"], found["sharp"]) == (96, 72, False)


def test_the_final_pictures_are_there():
    base = traces.trace()
    runs = (base, lane_runs.stopped_after(base, 3))
    data = race(lane_runs.comparison(*runs)).data
    ended, not_ended = (run["reels"]["picture"] for run in data["runs"])
    np.testing.assert_array_equal(picture(ended["sources"][0]), np.asarray(base.image))
    assert ended["alts"] == ["the final picture, after 5 steps"]
    assert not_ended["sources"] == [None]
    assert not_ended["alts"] == ["no final picture: stopped after 3 of 5 steps"]
    assert data["ended"]
    assert not race(lane_runs.comparison(*[runs[1]] * 2)).data["ended"]


def test_every_second_step_is_left_out():
    data = race(lane_runs.three(), every=2).data
    for run in data["runs"]:
        assert [step["index"] for step in run["steps"]] == [0, 2, 4]
        assert len(run["reels"]["x0"]["sources"]) == 3
    assert data["alignments"]["step"]["places"] == [0, 2, 4]


def test_large_latents_are_averaged():
    values = np.arange(2 * 1 * 3 * 4, dtype=float).reshape(2, 1, 3, 4)
    found = averaged(values, 2)
    assert found.shape == (2, 1, 2, 2)
    assert found[0, 0].tolist() == [[2.5, 4.5], [8.5, 10.5]]  # the last row stands twice
    assert averaged(values, 1) is values


# ---- what it says -----------------------------------------------------------------------------
def test_title_alt_and_places_are_told():
    view = race(lane_runs.three())
    assert view.title == "Race of 3 runs over sampler · a red sky scraper"
    assert "ddim (5 steps, 5 network calls)" in view.alt
    assert "c (5 steps, 10 network calls)" in view.alt
    assert "Reference: ddim" in view.alt
    told = {name: one["told"] for name, one in view.data["alignments"].items()}
    assert told["step"][3] == "step 3 of 4"
    assert told["karras_sigma"][0] == f"karras_sigma {traces.trace().karras_sigmas[0]:.3g}"
    assert told["network_calls"][:2] == ["1 network call", "2 network calls"]
    about = {name: one["about"] for name, one in view.data["alignments"].items()}
    assert "all runs have 5" in about["step"]
    assert "5 that the runs visit" in about["karras_sigma"]
    assert "1 to 10" in about["network_calls"]


def test_longer_and_shorter_runs_say_so():
    runs = (traces.trace(10), traces.trace(5))
    view = race(lane_runs.comparison(*runs, axis="num_steps", values=("10", "5")))
    assert [run["label"] for run in view.data["runs"]] == ["10 steps", "5 steps"]
    assert "longest run (10 steps)" in view.data["alignments"]["step"]["about"]
    assert view.data["alignments"]["step"]["told"][9] == "step 9 of 9 of the longest run"


def test_one_step_is_not_one_steps():
    run = traces.trace(1)
    view = race(lane_runs.comparison(run, run, axis="num_steps", values=(1, 2)))
    assert "1 step (1 step, 1 network call)" in view.alt
    assert "1 steps" not in view.page
    assert "1 network calls" not in view.page


def test_a_users_texts_stand_apart_from_ours():
    base = traces.trace(prompt="سيارة red")
    view = race(lane_runs.comparison(base, base, axis="قيمة"))
    assert view.data["title"] == ["Race of 2 runs over ", {"text": "قيمة"},
                                  " · ", {"text": "سيارة red"}]  # fmt: skip
    assert view.title == "Race of 2 runs over قيمة · سيارة red"


@pytest.mark.parametrize(
    ("axis", "value", "label"),
    [("seed", 3, "seed 3"), ("guidance_scale", 7.5, "guidance 7.5"), ("sampler", "x", "x"),
     ("negative_prompt", "", "(empty negative prompt)"), ("prompt", "a {} b", "a {} b")],
)  # fmt: skip
def test_labels_name_what_differs(axis, value, label):
    base = traces.trace()
    data = race(lane_runs.comparison(base, base, axis=axis, values=(value, "z"))).data
    assert data["runs"][0]["label"] == label


def test_the_start_noise_is_told():
    base = traces.trace()
    same, other = lane_runs.moved(base, 0.0), lane_runs.moved(base, 5.0)
    told = lambda *runs: race(lane_runs.comparison(*runs)).data["start"]  # noqa: E731
    assert told(base, same) == "All runs started from the same noise."
    assert told(base, other).startswith("All other runs started from other noise than the first")
    assert told(base, same, other).startswith("1 of them started from other noise")
    assert "different shapes" in told(base, lane_runs.cropped(base))
    assert "NaN" in told(base, lane_runs.bad_from(base, 0))


def test_prompts_that_differ_are_not_in_the_title():
    base = traces.trace()
    other = traces.trace(prompt="a blue boat")
    view = race(lane_runs.comparison(base, other, axis="prompt", values=("one", "two")))
    assert view.title == "Race of 2 runs over prompt"


# ---- what is missing --------------------------------------------------------------------------
def test_every_kind_of_gap_is_drawn_with_a_sentence():
    base = lane_runs.previewed(traces.trace())
    flat = replace(base, preview=None)
    alone = replace(base, steps=tuple(
        replace(s, predictions=tuple(replace(p, uncond=None, guidance_scale=1.0)
                                     for p in s.predictions)) for s in base.steps))  # fmt: skip
    runs = (base, lane_runs.bad_from(base, 3), lane_runs.stopped_after(base, 2),
            lane_runs.unrecorded(base), lane_runs.cropped(base), flat, alone,
            replace(base, tokens=None))  # fmt: skip
    view = race(lane_runs.comparison(*runs))
    found = view.data["runs"]
    assert found[1]["reels"]["x0"]["sources"][3] is None
    assert "NaN" in found[1]["reels"]["x0"]["alts"][3]
    assert found[2]["stopped"] == "stopped after 2 of 5 steps"
    assert found[3]["x0"] is None
    assert 'record=("predictions",)' in found[3]["reels"]["x0"]["alts"][0]
    assert found[4]["shape"] == "4 × 4 × 8"
    assert "no preview map" in found[5]["reels"]["x0"]["label"]
    assert len(view.page) < 2_000_000
    json.loads(json.dumps(view.data, allow_nan=False))
    assert view.still().width > 0


def test_without_any_prediction_x_t_is_shown():
    bare = lane_runs.unrecorded(traces.trace())
    view = race(lane_runs.comparison(bare, bare))
    assert (view.live["show"], view.live["distance"]) == ("x_t", "x_t")
    assert view.data["known"] is False


def test_pure_noise_has_no_finite_karras_sigma():
    base = traces.trace()
    level = replace(base.steps[0].level, alpha=0.0, sigma=1.0)
    first = base.steps[0]
    calls = tuple(replace(p, level=level, prediction_type="v") for p in first.predictions)
    run = replace(base, steps=(replace(first, level=level, predictions=calls), *base.steps[1:]))
    one = race(lane_runs.comparison(run, run)).data["alignments"]["karras_sigma"]
    assert one["places"][0] == "∞"
    assert one["told"][0] == "karras_sigma ∞"
    assert "pure noise" in one["about"]


# ---- blind ------------------------------------------------------------------------------------
def test_blind_hides_every_name_outside_the_data():
    names = ("kangaroo", "walrus", "ibex")
    record = replace(lane_runs.three(), values=names)
    view = race(record, blind=True)
    assert view.live["blind"] is True
    assert view.live["revealed"] is False
    told = view.title + view.alt + repr(view) + " ".join(text for text, _ in view.pictures())
    assert not any(name in told for name in names)
    assert [text for text, _ in view.pictures()] == ["A", "B", "C"]
    assert any(name in race(record).alt for name in names)


def test_blind_runs_are_measured_from_the_first_letter():
    """The first value is what the class saw typed first: it would be known at once."""
    records = [replace(lane_runs.three(), values=(f"{i}", "b", "c")) for i in range(6)]
    assert {race(record).live["reference"] for record in records} == {0}
    for record in records:
        view = race(record, blind=True)
        assert view.live["reference"] == view.data["order"][0]
        assert not view.data["named"]
        asked = race(record, blind=True, reference="b")
        assert (asked.live["reference"], asked.data["named"]) == (1, True)
    assert len({race(record, blind=True).live["reference"] for record in records}) > 1


def test_the_blind_order_depends_on_the_content_only():
    record = lane_runs.three()
    assert sorted(blind_order(record)) == [0, 1, 2]
    assert blind_order(record) == blind_order(lane_runs.three())
    orders = {tuple(blind_order(replace(record, values=(f"{i}", "b", "c")))) for i in range(12)}
    assert len(orders) > 1


# ---- input ------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [0, 1, 10])
def test_two_to_nine_runs_are_allowed(count):
    base = traces.trace(2)
    with pytest.raises(InputError, match=rf"{count} runs? .*2 to 9"):
        race(Comparison("seed", tuple(range(count)), (base,) * count))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"align": "sigma"}, "'sigma' is unknown.*karras_sigma"),
        ({"reference": 3}, "0 to 2.*'ddim'"),
        ({"reference": -1}, "0 to 2"),
        ({"reference": True}, "True"),
        ({"reference": "heun"}, "'heun'"),
        ({"size": 8}, "16 to 2048"),
        ({"size": True}, "whole number of pixels"),
        ({"size": 99.5}, "16 to 2048"),
        ({"every": 0}, "whole number from 1"),
    ],
)
def test_bad_options_say_what_is_allowed(options, told):
    with pytest.raises(InputError, match=told):
        race(lane_runs.three(), **options)


def test_other_things_are_no_comparison():
    with pytest.raises(InputError, match=r"compare\(…\)"):
        race([traces.trace(), traces.trace()])


def test_numbers_of_numpy_will_do():
    view = race(lane_runs.three(), size=np.int64(64), every=np.int32(2))
    assert json.loads(json.dumps(view.data, allow_nan=False)) == view.data
    assert len(view.data["runs"][0]["steps"]) == 3


def test_a_reference_may_be_named():
    assert race(lane_runs.three(), reference="c").live["reference"] == 2
    base = traces.trace(2)
    seeds = lane_runs.comparison(base, base, axis="seed", values=(11, 12))
    assert race(seeds, reference="12").live["reference"] == 1


# ---- the page ---------------------------------------------------------------------------------
@pytest.mark.parametrize("text", traces.HOSTILE)
def test_hostile_texts_change_no_element(text):
    base = traces.trace()
    bad = traces.trace(prompt=text)
    harmless = race(lane_runs.comparison(base, base))
    hostile = race(lane_runs.comparison(bad, bad, values=(text, text + "!"), axis=text))
    assert lane_runs.elements(hostile.page) == lane_runs.elements(harmless.page)
    ours, theirs = (lane_runs.elements(v._repr_mimebundle_()["text/html"])
                    for v in (harmless, hostile))  # fmt: skip
    assert ours == theirs
    assert hostile.to_figure().alt


def test_the_check_of_the_structure_can_fail():
    page = race(lane_runs.three()).page
    assert lane_runs.elements(page) != lane_runs.elements(page.replace("<main", "<b></b><main"))


def test_nine_runs_of_twenty_steps_stay_small():
    random = np.random.default_rng(0)
    runs = []
    for _ in range(9):
        frames = [Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).resize((128, 128))
                  for _ in range(20)]  # fmt: skip
        runs.append(traces.trace(20, frames=tuple(frames)))
    assert len(race(lane_runs.comparison(*runs)).page) < 3_000_000


def test_the_widget_keeps_its_limits():
    widget = race(lane_runs.three()).widget()
    widget.reference = 2
    with pytest.raises(Exception, match="reference"):
        widget.reference = 3
    widget.align = "step"
    assert "Race of 3 runs" in repr(widget)


def test_a_page_needs_neither_torch_nor_matplotlib(tmp_path):
    path = traces.trace().save(tmp_path / "run.safetensors")
    code = (
        "import sys; from diffusionlab.trace import Trace, Comparison\n"
        "from diffusionlab.views import race, diff\n"
        f"t = Trace.load({str(path)!r}); race(Comparison('seed', (1, 2), (t, t))).page\n"
        "diff(t, t).page\n"
        "print([n for n in ('torch', 'matplotlib', 'anywidget') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- the still --------------------------------------------------------------------------------
def test_the_still_shows_the_ends():
    base = traces.trace()
    runs = (base, lane_runs.stopped_after(base, 3), lane_runs.bad_from(base, 0))
    pictures = race(lane_runs.comparison(*runs, values=("ddim", "stopped", "bad"))).pictures()
    assert [text for text, _ in pictures] == ["ddim", "stopped", "bad"]
    assert pictures[0][1] is base.image
    np.testing.assert_array_equal(np.asarray(pictures[1][1]), base.preview.rgb(base.x0s[2]))
    assert pictures[2][1].size == (64, 48)  # grey: nothing finite is left


def test_captions_break_where_words_end():
    assert caption("euler_ancestral") == "euler_\nancestral"
    assert caption("ddim") == "ddim"
    assert caption("a red car in the city at night") == "a red car in\nthe city at…"
    assert caption("x" * 40) == "x" * 14 + "…"
