"""The race in Chromium: after each key the pictures and numbers are the traces'."""

from __future__ import annotations

from dataclasses import replace

import lane_runs
import lanes_page
import numpy as np
import pytest
import traces
from hosts import HOSTS
from lanes_page import difference, pixels, text, until, viridis
from looking import rest

from diffusionlab.analysis.race import align, apart, lane
from diffusionlab.views import race
from diffusionlab.views.sampler_race import blind_order

RECORD = lane_runs.three()
NAMES = [str(value) for value in RECORD.values]
KEYS = ("ArrowRight", "ArrowUp", "ArrowLeft", "End", "PageDown", "PageUp", "Home")


def expected(by: str):
    """The alignment and the distances of the record."""
    lanes = [lane(trace) for trace in RECORD.traces]
    alignment = align(lanes, by)
    return alignment, apart(RECORD.traces, lanes, [alignment])[0]


def check_shown(view, by: str, place: int) -> None:
    """Pictures, captions, slider and sentence are those of that place."""
    alignment, far = expected(by)
    told = race(RECORD).data["alignments"][by]["told"][place]
    assert slider(view).get_attribute("aria-valuetext") == told
    assert text(view, ".sentence").startswith(f"At {told}: ")
    for run, trace in enumerate(RECORD.traces):
        step = trace.steps[alignment.shown[run, place]]
        shown = pixels(view, ".lane .screen:first-child canvas:first-child", run)
        np.testing.assert_array_equal(shown[..., :3], trace.preview.rgb(trace.x0s[step.index]))
        caption = view.frame.locator(".lane").nth(run).inner_text()
        assert f"step {step.index} · call " in caption
        assert f"karras_sigma {step.level.karras_sigma:.3g}" in caption
    first, second = sorted(far.x0[0, 1:, place])
    if second > 1e-6:
        numbers = text(view, ".sentence").replace("−", "-")
        assert f"({first:.2g})" in numbers
        assert f"({second:.2g})" in numbers


def slider(view):
    return view.frame.locator("input[type=range]")


def ready(view):
    """The view, when all its pictures are there."""
    until(view, lambda: pixels(view, ".lane canvas", 0)[..., 3].all())
    return view


@pytest.mark.parametrize("host", HOSTS)
def test_every_key_shows_the_place_of_the_traces(opened, host):
    view = ready(opened(race(RECORD), host))
    slider(view).focus()
    place = 0
    for key in KEYS:
        view.press(key)
        place = {"ArrowRight": place + 1, "ArrowUp": place + 1, "ArrowLeft": place - 1,
                 "Home": 0, "End": 4, "PageDown": place - 5, "PageUp": place + 5}[key]  # fmt: skip
        place = min(max(place, 0), 4)
        until(view, lambda: check_shown(view, "karras_sigma", place) is None)  # noqa: B023


def test_the_check_of_what_is_shown_can_fail(opened):
    view = ready(opened(race(RECORD)))
    check_shown(view, "karras_sigma", 0)
    with pytest.raises(AssertionError):
        check_shown(view, "karras_sigma", 1)


def test_the_alignment_is_switched_and_told(opened):
    view = ready(opened(race(RECORD)))
    view.press("ArrowRight")
    view.frame.get_by_role("radio", name="network calls").click()
    assert slider(view).get_attribute("max") == "9"
    until(view, lambda: check_shown(view, "network_calls", 1) is None)  # the reference's step 1
    assert "A place is a number of network calls, 1 to 10." in text(view, ".body")
    slider(view).press("End")
    until(view, lambda: check_shown(view, "network_calls", 9) is None)
    assert "at its end" in view.frame.locator(".lane").nth(0).inner_text()
    view.frame.get_by_role("radio", name="network calls").press("ArrowRight")  # round to the first
    assert view.frame.get_by_role("radio", name="step").get_attribute("aria-checked") == "true"
    until(view, lambda: check_shown(view, "step", 4) is None)


def test_the_mouse_moves_the_slider(opened):
    view = ready(opened(race(RECORD)))
    box = slider(view).bounding_box()
    view.page.mouse.click(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
    until(view, lambda: check_shown(view, "karras_sigma", 4) is None)


def test_differences_to_the_reference_are_the_traces(opened):
    view = ready(opened(race(RECORD, align="step")))
    for key in ("ArrowRight", "ArrowRight", "d", "d"):
        view.press(key)
    runs = RECORD.traces
    maps = {run: [difference(runs[run].x0s[i], runs[0].x0s[i]) for i in range(5)] for run in (1, 2)}
    top = max(one.max() for row in maps.values() for one in row)
    for run in (1, 2):
        shown = pixels(view, ".lane .screen:first-child .overlay", run)[..., :3].astype(float)
        assert np.abs(shown - viridis(maps[run][2] / top)).max() <= 1
        far = expected("step")[1].x0[0, run, 2]
        alt = view.frame.locator(".lane canvas").nth(6 * run).get_attribute("aria-label")
        assert f"x0-hat is {far:.2g} of its size from that of ddim" in alt
    assert f"0\n{top:.3g}" in text(view, ".scale-of")
    view.press("s")  # colours of this place alone
    here = max(maps[run][2].max() for run in (1, 2))
    shown = pixels(view, ".lane .screen:first-child .overlay", 2)[..., :3].astype(float)
    assert np.abs(shown - viridis(maps[2][2] / here)).max() <= 1


def test_another_reference_changes_numbers_and_curves(opened):
    view = ready(opened(race(RECORD)))
    view.press("End")
    view.frame.get_by_label("Reference").select_option(label="c")
    _, far = expected("karras_sigma")
    first, second = sorted([far.x0[2, 0, 4], far.x0[2, 1, 4]])
    told = text(view, ".sentence")
    assert f"that of c is b ({first:.2g})" in told or f"that of c is ddim ({first:.2g})" in told
    assert f"({second:.2g})" in told
    assert view.frame.locator(".chart .line").count() == 2
    assert view.frame.locator(".chart .dot").count() == 2
    view.frame.get_by_role("radio", name="of x0-hat to the end").click()
    assert view.frame.locator(".chart .line").count() == 3
    assert "the end of c" in text(view, ".sentence")


def test_the_marker_follows(opened):
    view = ready(opened(race(RECORD)))
    places = []
    for _ in range(5):
        places.append(float(view.frame.locator(".chart .rule").get_attribute("x1")))
        view.press("ArrowRight")
    assert places == sorted(set(places))


def test_names_are_hidden_until_revealed(opened):
    names = ("kangaroo", "walrus", "ibex")
    record = replace(RECORD, values=names)
    view = ready(opened(race(record, blind=True)))
    order = race(record).data["order"]
    for key in ("d", "d", "ArrowRight", "a"):
        view.press(key)
        assert not any(name in view.js(lanes_page.TEXTS) for name in names)
        shown = view.frame.locator(".lane-name").all_inner_texts()
        assert [name.strip() for name in shown] == ["A", "B", "C"]
    view.press("r")
    shown = [name.strip() for name in view.frame.locator(".lane-name").all_inner_texts()]
    assert shown == [f"{letter}: {names[run]}" for letter, run in zip("ABC", order, strict=True)]
    view.press("b")
    shown = [name.strip() for name in view.frame.locator(".lane-name").all_inner_texts()]
    assert shown == list(names)
    assert all(name in view.js(lanes_page.TEXTS) for name in names)


def test_play_has_a_pause(opened):
    view = ready(opened(race(RECORD)))
    view.press(" ")
    assert text(view, ".play") == "❚❚ Pause"
    until(view, lambda: slider(view).input_value() != "0")
    view.press(" ")
    assert text(view, ".play") == "▶ Play"


@pytest.mark.parametrize("count", [2, 4, 9])
def test_present_mode_fits_and_nothing_scrolls_sideways(opened, count):
    base = traces.trace()
    record = lane_runs.comparison(*[lane_runs.moved(base, 0.1 * i) for i in range(count)])
    view = ready(opened(race(record)))
    lanes_page.check_sizes(view)


SAMPLERS = ("ddim", "euler", "dpmpp_2m", "euler_ancestral", "heun", "dpmpp_2s", "dpmpp_2m_sde",
            "unipc_2", "dpmpp_2s_ancestral")  # fmt: skip


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_present_mode_tells_who_is_who_in_pictures_as_large_as_the_window(opened, count):
    base = traces.trace()
    record = lane_runs.comparison(*[base] * count, values=SAMPLERS[:count])
    view = ready(opened(race(record)))
    view.press("p")
    for width, height in lanes_page.SIZES:
        view.page.set_viewport_size({"width": width, "height": height})
        rest(view)
        assert view.js(lanes_page.NAMES_SHOWN) == []
        assert view.js("document.querySelector('.dl').scrollHeight <= innerHeight")
        wide, columns = view.js(lanes_page.PICTURES), count if count < 9 else 5
        assert len(set(wide)) == 1
        if width > 1000:  # as wide as the window allows, or as high
            assert wide[0] * columns > 0.85 * width or lanes_page.free_height(view) < 30
    view.press("p")
    assert view.js(lanes_page.NAMES_SHOWN) == []


def test_the_check_of_names_can_fail(opened):
    view = ready(opened(race(RECORD)))
    view.js("() => { document.querySelector('.lane-name bdi').style.cssText = "
            "'-webkit-line-clamp: 1; width: 1em'; }")  # fmt: skip
    assert view.js(lanes_page.NAMES_SHOWN) == ["cut off: ddim"]


def test_the_final_pictures_can_be_shown(opened):
    runs = (traces.trace(), lane_runs.stopped_after(traces.trace(), 3))
    view = ready(opened(race(lane_runs.comparison(*runs))))
    view.frame.get_by_role("radio", name="final picture").click()
    picture = ".lane .screen:nth-child(3) canvas:first-child"
    until(view, lambda: pixels(view, picture, 0)[..., 3].all())
    np.testing.assert_array_equal(pixels(view, picture, 0)[..., :3], np.asarray(runs[0].image))
    lanes = view.frame.locator(".lane")
    assert "after 5 steps, 5 calls" in lanes.nth(0).inner_text()
    assert "no final picture: stopped after 3 of 5 steps" in lanes.nth(1).inner_text()
    alt = view.frame.locator(picture).first.get_attribute("aria-label")
    assert alt == "a: the final picture, after 5 steps"
    bare = replace(traces.trace(), image=None)
    view = ready(opened(race(lane_runs.comparison(bare, bare))))
    assert view.frame.get_by_role("radio", name="final picture").is_disabled()
    assert "No run has a final picture." in text(view, ".body")


def test_runs_at_another_level_say_at_which(opened):
    runs = [lane_runs.previewed(traces.trace(n)) for n in (10, 5, 2)]
    record = lane_runs.comparison(*runs, axis="num_steps", values=(10, 5, 2))
    view = ready(opened(race(record)))
    view.press("ArrowRight")
    first = runs[1].karras_sigmas[0]
    assert f"5 steps at karras_sigma {first:.3g}" in text(view, ".sentence")
    assert "10 steps at" not in text(view, ".sentence")
    view.frame.get_by_role("radio", name="of the two x_t").click()
    assert "2 of 2 runs have no distance here: they are at other noise levels." in text(
        view, ".sentence")  # fmt: skip
    slider(view).focus()
    view.press("Home")
    assert "other noise levels" not in text(view, ".sentence")


def test_the_number_beside_the_slider_is_the_place(opened):
    view = ready(opened(race(RECORD)))
    view.press("ArrowRight")
    sigma = RECORD.traces[0].karras_sigmas[1]
    assert text(view, ".count") == f"karras_sigma {sigma:.3g}"
    view.press("a")
    assert text(view, ".count").endswith(" / 10")
    assert text(view, ".count").startswith("call ")
    view.press("a")
    assert text(view, ".count") == "step 1 / 4"


def test_blind_by_key_measures_from_the_first_letter(opened):
    record = next(one for one in (replace(RECORD, values=(f"{i}", "b", "c")) for i in range(9))
                  if blind_order(one)[0] != 0)  # fmt: skip
    view = ready(opened(race(record)))
    view.press("b")
    tagged = view.frame.locator(".lane.reference .lane-name").inner_text()
    assert tagged.strip() == "A"
    assert "that of A" in text(view, ".sentence")


def test_a_users_texts_have_a_direction_of_their_own(opened):
    run = traces.trace(prompt="سيارة red")
    view = opened(race(lane_runs.comparison(run, run, axis="قيمة")))
    shown = view.frame.locator("h2 bdi").all_inner_texts()
    assert shown == ["قيمة", "سيارة red"]
    assert text(view, "h2") == "Race of 2 runs over قيمة · سيارة red"


def test_what_cannot_work_is_disabled_and_says_why(opened):
    bare = replace(lane_runs.unrecorded(traces.trace()), image=None)
    view = ready_latent(opened(race(lane_runs.comparison(bare, bare))))
    assert view.frame.get_by_role("radio", name="x0-hat", exact=True).is_disabled()
    assert view.frame.get_by_role("radio", name="difference").is_disabled()
    assert "2 of 2 runs did not record x0-hat" in text(view, ".body")
    view.press("d")
    assert view.frame.get_by_role("radio", name="x_t", exact=True).get_attribute(
        "aria-checked") == "true"  # fmt: skip


def ready_latent(view):
    until(view, lambda: pixels(view, ".lane .screen:nth-child(2) canvas", 0)[..., 3].all())
    return view


def test_gaps_are_told(opened):
    base = lane_runs.previewed(traces.trace())
    runs = (base, lane_runs.bad_from(base, 3), lane_runs.stopped_after(base, 2),
            lane_runs.cropped(base))  # fmt: skip
    view = ready(opened(race(lane_runs.comparison(*runs), align="step")))
    view.press("End")
    told = view.frame.locator(".lane").all_inner_texts()
    assert "it holds NaN or infinity" in told[1]
    assert "stopped after 2 of 5 steps" in told[2]
    assert "2 of 3 runs have no distance here." in text(view, ".sentence")
    view.press("d")
    view.press("d")
    told = view.frame.locator(".lane").all_inner_texts()
    assert "no distance: not finite" in told[1]
    assert "no difference: latents of 4 × 4 × 8 and 4 × 6 × 8" in told[3]


def test_hostile_texts_build_the_same_elements(opened):
    base, bad = traces.trace(), traces.trace(prompt=traces.HOSTILE[0])
    count = len(traces.HOSTILE)
    harmless = race(lane_runs.comparison(*[base] * count))
    view = race(lane_runs.comparison(*[bad] * count, values=traces.HOSTILE, axis=traces.HOSTILE[1]))
    found = []
    for one in (harmless, view):
        shown = ready(opened(one))
        for key in ("ArrowRight", "d", "d"):
            shown.press(key)
        found.append(shown.js(lanes_page.STRUCTURE))
        shown.press("b")
        found.append(sorted(shown.js(lanes_page.STRUCTURE)))  # in another order
        shown.press("r")
        found.append(sorted(shown.js(lanes_page.STRUCTURE)))
    assert found[:3] == found[3:]
    names = [name.replace("\u200b", "") for name in
             shown.frame.locator(".lane-name bdi").all_text_contents()]  # fmt: skip
    assert sorted(name.split(": ", 1)[1] for name in names) == sorted(traces.HOSTILE)
