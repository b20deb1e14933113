"""The schedule explorer in Chromium: every key, the pictures' pixels, the numbers on the page."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import traces
from hosts import HOSTS
from runs_of_x0 import noising

from diffusionlab.views import explore_schedule

PIXELS = """([i]) => { const c = document.querySelectorAll('.pictures canvas:not(.overlay)')[i];
  return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""


@pytest.fixture(scope="module")
def view():
    """A run of a picture of 48 × 64 pixels that was asked at three levels."""
    return explore_schedule(traces.schedule(), noising=noising(), samplers=["heun", "ddim"])


def unpacked(value: dict) -> np.ndarray:
    kind = np.dtype(value["kind"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(value["data"]), kind).reshape(value["shape"])


def mixed(mix: dict, place: dict) -> np.ndarray:
    """What the page has to show: the same formula in NumPy."""
    clean, noise = (unpacked(mix[name]).astype(np.float64) for name in ("clean", "noise"))
    value = np.array(mix["bias"]) + place["alpha"] * clean + place["sigma"] * noise
    return np.floor(255 * np.clip(value, 0, 1) + 0.5).astype(np.uint8)


def pixels(shown, number: int, shape) -> np.ndarray:
    flat = np.array(shown.js(PIXELS, [number]), np.uint8)
    found = flat.reshape(*shape, 4)
    assert (found[..., 3] == 255).all()
    return found[..., :3]


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("∞", "inf"))


def check_place(shown, view, place: int) -> None:
    """Slider, numbers, equation and both pictures are those of the place."""
    facts, slider = view.data["places"][place], shown.frame.locator(".player .slider").first
    assert slider.input_value() == str(place)
    assert slider.get_attribute("aria-valuetext").startswith(f"timestep {facts['timestep']:.3g}"
                                                             .replace("1e+03", "999"))  # fmt: skip
    for name in ("alpha", "sigma", "snr", "karras_sigma", "alpha_bar", "log_snr"):
        text = shown.frame.locator(f"dd[data-name={name}]").inner_text()
        assert number(text) == pytest.approx(facts[name], rel=1e-3)
    equation = shown.frame.locator(".mixing").inner_text()
    first, second = equation.removeprefix("x_t = ").split(" + ")
    assert number(first.removesuffix("·x0")) == pytest.approx(facts["alpha"], rel=1e-2)
    assert number(second.removesuffix("·eps")) == pytest.approx(facts["sigma"], rel=1e-2)
    for i, mix in enumerate(view.data["pictures"]["mixes"]):
        found = pixels(shown, i, (mix["height"], mix["width"]))
        assert (found == mixed(mix, facts)).all()


@pytest.mark.parametrize("host", HOSTS)
def test_every_key_moves_pictures_and_numbers_together(opened, view, host):
    shown = opened(view, host)
    last = view.limits["place"][1]
    place = view.live["place"]
    check_place(shown, view, place)
    shown.frame.locator(".player .slider").first.focus()
    for key, to in (("ArrowRight", place + 1), ("PageUp", place + 6), ("ArrowLeft", place + 5),
                    ("Home", 0), ("End", last), ("PageDown", last - 5)):  # fmt: skip
        shown.press(key)
        check_place(shown, view, to)


def test_the_pixel_check_can_fail(opened, view):
    shown = opened(view)
    mix = view.data["pictures"]["mixes"][0]
    found = pixels(shown, 0, (mix["height"], mix["width"]))
    assert not (found == mixed(mix, view.data["places"][3])).all()


def test_the_mouse_chooses_place_spacing_and_number_of_steps(opened, view):
    shown = opened(view)
    slider = shown.frame.locator(".player .slider").first
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] * 0.25, "y": box["height"] / 2})
    place = int(slider.input_value())
    assert 0.2 < place / view.limits["place"][1] < 0.3
    check_place(shown, view, place)
    shown.frame.get_by_role("radio", name="karras").click()
    assert "karras begins 5 of 20" in shown.frame.locator(".sentence").first.inner_text()
    shown.frame.get_by_role("radio", name="50 steps").click()
    names = [row["name"] for row in view.data["rows"]]
    marks = "(i) => document.querySelectorAll('.cells .strip')[i].querySelectorAll('.level').length"
    assert shown.js(marks, names.index("karras")) == 50
    shown.frame.locator(".cells .cell").nth(0).click(position={"x": 60, "y": 10})
    assert shown.frame.locator(".names .choice").nth(0).get_attribute("aria-checked") == "true"


def test_the_keyboard_alone_reaches_everything(opened, view):
    shown = opened(view)
    reached = set()
    for _ in range(12):
        shown.page.keyboard.press("Tab")
        reached.add(shown.js("document.activeElement.closest('[aria-label]')?.ariaLabel"))
    assert {"number of steps", "spacing", "noise level", "speed of playing"} <= reached
    shown.frame.locator(".names .choice").nth(0).focus()
    shown.press("ArrowDown")
    assert shown.js("document.activeElement.textContent") == view.data["rows"][1]["name"]
    assert shown.frame.locator(".names .choice").nth(1).get_attribute("aria-checked") == "true"


def test_the_step_of_the_run_and_its_numbers(opened, view):
    shown = opened(view)
    run = view.data["rows"][0]["runs"][2]
    place = next(i for i, p in enumerate(view.data["places"])
                 if run["levels"][7][2] <= p["log_snr"] < run["levels"][8][2])  # fmt: skip
    shown.js("([i]) => { const s = document.querySelector('.slider'); s.value = i;"
             " s.dispatchEvent(new Event('input')); }", [place])  # fmt: skip
    said = shown.frame.locator(".sentence").nth(1).inner_text()
    assert "step 7 of 0 … 19" in said
    heun = run["plans"][0]
    rule = shown.frame.locator(".solver").first.inner_text()
    assert "39 network calls, 2 in this step" in rule
    assert number(rule.split("x_next = ")[1].split(" · x_t")[0]) == pytest.approx(
        heun["steps"][7]["a"], rel=1e-2
    )
    assert shown.frame.locator(".solver").first.locator(".level.here").count() == 2


def test_it_plays_and_pauses(opened, view):
    shown = opened(view)
    slider = shown.frame.locator(".player .slider").first
    shown.frame.locator("select").select_option("fast")
    before = slider.input_value()
    shown.frame.locator(".play").click()
    shown.frame.wait_for_function(
        "(value) => document.querySelector('.slider').value !== value", arg=before
    )
    shown.frame.locator(".play").click()
    assert shown.frame.locator(".play").get_attribute("aria-label") == "play"


def test_present_mode_shows_only_the_essential(opened, view):
    shown = opened(view)
    shown.press("p")
    assert not shown.frame.locator(".facts").is_visible()
    for part in (".mixing", ".pictures canvas", ".player .slider", ".sentence"):
        box = shown.frame.locator(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 768
    shown.press("Escape")
    assert shown.frame.locator(".facts").is_visible()


def test_what_cannot_be_drawn_says_so(opened):
    record = noising()
    record.x0[0, 0, 0] = np.nan
    schedule = replace(traces.schedule(), prediction_type="v").zero_terminal_snr()
    shown = opened(explore_schedule(schedule, spacings=["trailing", "custom timesteps [999, 5]"]))
    shown.frame.locator(".player .slider").first.focus()
    shown.press("Home")
    assert "∞" in shown.frame.locator("dd[data-name=karras_sigma]").inner_text()
    assert shown.frame.locator(".level.endless").count() == 1
    assert "custom list of 2 steps" in shown.frame.locator(".failed").nth(1).inner_text()
    shown = opened(explore_schedule(traces.schedule(), noising=record))
    assert shown.frame.locator(".pictures .missing").nth(1).inner_text() == (
        "not shown: it holds NaN or infinite numbers"
    )
