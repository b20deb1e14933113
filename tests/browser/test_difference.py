"""Two runs in Chromium: the line, the difference and the numbers are the traces'."""

from __future__ import annotations

from dataclasses import replace

import lane_runs
import lanes_page
import numpy as np
import pytest
import traces
from hosts import HOSTS
from lanes_page import difference, pixels, text, until, viridis

from diffusionlab.analysis.race import relative_distances
from diffusionlab.views import diff

BASE = lane_runs.previewed(traces.trace())
OTHER = lane_runs.moved(BASE, 0.3, seed=8, sampler={"name": "heun", "options": {}})
FAR = {
    "x0": relative_distances(OTHER.x0s.astype(float), BASE.x0s.astype(float)),
    "x_t": relative_distances(*(run.latents[:-1].astype(float) for run in (OTHER, BASE))),
}
MAPS = [difference(OTHER.x0s[i], BASE.x0s[i]) for i in range(5)]
PICTURE = ".lane .screen:first-child canvas:first-child"


def scrubber(view):
    return view.frame.get_by_label("place in both runs")


def line(view):
    return view.frame.get_by_label("line between both pictures")


def ready(view):
    until(view, lambda: pixels(view, PICTURE, 0)[..., 3].all() and pixels(view, PICTURE, 1).any())
    return view


def check_shown(view, place: int) -> None:
    """Both pictures, their difference and the sentence are those of that step."""
    assert scrubber(view).get_attribute("aria-valuetext") == f"step {place} of 4"
    for index, run in enumerate((OTHER, BASE)):  # the first run lies over the second
        shown = pixels(view, PICTURE, index)[..., :3]
        np.testing.assert_array_equal(shown, run.preview.rgb(run.x0s[place]))
    shown = pixels(view, ".map canvas")[..., :3].astype(float)
    top = max(one.max() for one in MAPS)
    assert np.abs(shown - viridis(MAPS[place] / top)).max() <= 1
    told = text(view, ".sentence").replace("−", "-")
    x0, latent = (f"{FAR[name][place]:.2g}" for name in ("x0", "x_t"))
    assert told == (f"At step {place} of 4: x0-hat of B is {x0} from that of A, its x_t {latent}, "
                    "relative to their size.")  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_every_key_shows_the_step_of_the_traces(opened, host):
    view = ready(opened(diff(BASE, OTHER), host))
    scrubber(view).focus()
    for key, place in (("ArrowRight", 1), ("ArrowUp", 2), ("ArrowLeft", 1), ("End", 4),
                       ("PageDown", 0), ("PageUp", 4), ("Home", 0)):  # fmt: skip
        view.press(key)
        until(view, lambda: check_shown(view, place) is None)  # noqa: B023


def test_the_check_of_what_is_shown_can_fail(opened):
    view = ready(opened(diff(BASE, OTHER)))
    check_shown(view, 0)
    with pytest.raises(AssertionError):
        check_shown(view, 1)


@pytest.mark.parametrize("host", HOSTS)
def test_the_line_moves_by_keyboard_and_mouse(opened, host):
    view = ready(opened(diff(BASE, OTHER), host))
    clip = '() => document.querySelector(".wipe .lane + .lane").style.clipPath'
    assert view.js(clip) == "inset(0px 50% 0px 0px)"
    line(view).focus()
    view.press("ArrowRight")
    assert view.js(clip) == "inset(0px 49% 0px 0px)"
    assert scrubber(view).input_value() == "0"  # the arrows of the line are its own
    assert line(view).get_attribute("aria-valuetext") == "51 % of the picture is A, the rest B"
    view.press("End")
    assert view.js(clip) == "inset(0px 0% 0px 0px)"
    scrubber(view).focus()
    for key, left in (("x", "100%"), ("x", "0%"), ("[", "5%"), ("]", "0%")):
        view.press(key)
        assert view.js(clip) == f"inset(0px {left} 0px 0px)"
    wipe = view.frame.locator(".wipe")
    wipe.click(position={"x": wipe.bounding_box()["width"] * 0.25, "y": 20})
    assert abs(int(line(view).input_value()) - 25) <= 1


def test_settings_and_parting_are_told(opened):
    view = opened(diff(BASE, OTHER, labels=("before", "after")))
    rows = view.frame.locator("tbody tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [["seed", "7", "8"], ["sampler", "ddim", "heun"]]
    told = text(view, ".body")
    assert "They differ in 2 settings: seed and sampler." in told
    assert "The runs differ by more than 5% from step" in told
    assert "number of steps 5" in text(view, ".settings")
    assert view.frame.locator(".chart .mark").count() == 1


def test_x_t_and_the_colours_of_one_place(opened):
    view = ready(opened(diff(BASE, OTHER)))
    view.press("ArrowRight")
    view.press("s")
    shown = pixels(view, ".map canvas")[..., :3].astype(float)
    assert np.abs(shown - viridis(MAPS[1] / MAPS[1].max())).max() <= 1
    view.press("d")
    picture = ".lane .screen:nth-child(2) canvas:first-child"
    until(view, lambda: pixels(view, picture, 1)[..., 3].all())
    wanted = BASE.preview.rgb(BASE.latents[1])
    np.testing.assert_array_equal(pixels(view, picture, 1)[..., :3], wanted)


def test_runs_of_other_levels_are_aligned_by_level(opened):
    view = ready(opened(diff(lane_runs.previewed(traces.trace(10)), BASE)))
    assert view.frame.get_by_role("radio", name="karras_sigma").get_attribute(
        "aria-checked") == "true"  # fmt: skip
    view.press("End")
    facts = view.frame.locator(".heads.quiet").inner_text()
    assert "step 9, karras_sigma" in facts
    assert "step 4, karras_sigma" in facts
    view.press("a")
    view.press("Home")
    view.press("ArrowRight")
    assert scrubber(view).get_attribute("aria-valuetext") == "2 network calls"


def test_runs_at_other_levels_say_so_and_x_t_is_not_compared(opened):
    a, b = lane_runs.previewed(traces.trace(10)), lane_runs.moved(BASE, 0.3)
    found = diff(a, b)
    view = ready(opened(found))
    view.press("ArrowRight")
    place = f"At karras_sigma {a.karras_sigmas[1]:.3g}: x0-hat of B at karras_sigma"
    told = text(view, ".sentence")
    assert told.startswith(f"{place} {b.karras_sigmas[0]:.3g} is ")
    assert "x_t" not in told
    assert "where both are at one level" in text(view, ".legend")
    assert view.frame.locator(".chart .mark + text").text_content() == "x_t differ here"
    assert found.data["parted"]["told"] in text(view, ".body")
    assert text(view, ".count") == f"karras_sigma {a.karras_sigmas[1]:.3g}"
    view.press("Home")
    assert "its x_t" in text(view, ".sentence")


def test_the_mark_stands_at_its_step_when_steps_are_left_out(opened):
    view = opened(diff(BASE, lane_runs.bad_from(BASE, 2), every=2))
    view.press("ArrowRight")
    mark, rule = (view.frame.locator(f".chart .{name}").get_attribute("x1")
                  for name in ("mark", "rule"))  # fmt: skip
    assert mark == rule
    assert text(view, ".count") == "step 2 / 4"


def test_the_final_pictures_lie_over_each_other(opened):
    other = traces.trace()
    other = replace(other, image=other.image.transpose(0))
    view = opened(diff(traces.trace(), other))
    view.frame.get_by_role("radio", name="final picture").click()
    picture = ".lane .screen:nth-child(3) canvas:first-child"
    until(view, lambda: pixels(view, picture, 0)[..., 3].all() and pixels(view, picture, 1).any())
    for index, run in enumerate((other, traces.trace())):
        np.testing.assert_array_equal(pixels(view, picture, index)[..., :3], np.asarray(run.image))
    assert view.frame.locator(".heads.quiet").inner_text().split() == ["after", "5", "steps"] * 2


def test_small_numbers_of_the_chart_are_in_sight(opened):
    """Differences of 1e-6 have ticks such as 1.50e−6, which are wide."""
    view = ready(opened(diff(BASE, lane_runs.moved(BASE, 3e-6))))
    view.frame.locator(".chart").scroll_into_view_if_needed()
    found = view.js("""() => [...document.querySelectorAll(".chart text")].map((e) =>
      [e.textContent, e.getBoundingClientRect().left, e.getBoundingClientRect().right])""")
    small = [left for words, left, _ in found if "e−" in words]
    (title,) = [right for words, _, right in found if words == "relative distance"]
    assert small
    assert min(small) >= title


def test_labels_have_a_direction_of_their_own(opened):
    view = opened(diff(BASE, lane_runs.stopped_after(OTHER, 3), labels=("سيارة", "two")))
    assert view.frame.locator("h2 bdi").all_inner_texts()[:2] == ["سيارة", "two"]
    assert text(view, "h2").startswith("Two runs, سيارة and two · ")
    (stopped,) = [one for one in view.frame.locator("p.extra").all()
                  if "stopped after 3 of 5 steps." in one.inner_text()]  # fmt: skip
    assert stopped.locator("bdi").all_inner_texts() == ["two"]


def test_play_has_a_pause(opened):
    view = ready(opened(diff(BASE, OTHER)))
    view.press(" ")
    assert text(view, ".play") == "❚❚ Pause"
    until(view, lambda: scrubber(view).input_value() != "0")
    view.press(" ")
    assert text(view, ".play") == "▶ Play"


def test_present_mode_fits_and_nothing_scrolls_sideways(opened):
    view = ready(opened(diff(traces.trace(), OTHER)))
    lanes_page.check_sizes(view)


def test_what_cannot_be_compared_says_why(opened):
    view = ready(opened(diff(BASE, lane_runs.cropped(BASE))))
    assert line(view).is_disabled()
    told = text(view, ".body")
    assert "Their pictures have different shapes" in told
    assert "No difference: their latents have shapes 4 × 6 × 8 and 4 × 4 × 8." in told
    assert "no distance between A and B is known" in text(view, ".sentence")
    bare = lane_runs.unrecorded(BASE)
    view = opened(diff(bare, bare))
    assert "No difference: x0-hat was not recorded in both runs." in text(view, ".body")
    assert view.frame.get_by_role("radio", name="x0-hat").is_disabled()
