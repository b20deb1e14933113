"""The playground's desk in Chromium: texts stay texts, every control has a name."""

from __future__ import annotations

import fake_runs
import pytest
import traces
from looking import ROOM, TREE, rest, serious

from diffusionlab.playground import playground
from diffusionlab.views import View

NAMELESS = """[...document.querySelectorAll('button, input, textarea, img, progress')].filter(
  (e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.alt || e.labels?.length
    || e.querySelector?.('img[alt]'))).map((e) => e.outerHTML)"""


def desk(text: str, **said) -> View:
    """The desk of a panel with two runs, as a page; `text` wherever a user's may stand."""
    panel = playground(fake_runs.run, prompt=text, negative_prompt=text, num_steps=5)
    panel.start().wait().start(seed=1).wait().choose(1, 2)
    panel.desk.tell(error=text, invalid=text + ".", notes=[text], **said)
    state = panel.desk.widget.get_state(["status", "runs", "shown", "chosen", "line"])
    panel.close()
    return View("playground", "Playground", "A desk.", {"most": 12}, state)


@pytest.mark.parametrize("text", traces.HOSTILE)
def test_texts_stay_texts(opened, text):
    harmless, hostile = opened(desk("a red car")), opened(desk(text))
    assert hostile.js(TREE) == harmless.js(TREE)
    assert hostile.frame.locator(".error bdi").text_content() == text
    assert hostile.frame.locator(".tile bdi").first.text_content() == text
    assert repr(text) in hostile.frame.locator("textarea").input_value()


def test_every_control_has_a_name_and_a_running_bar_says_how_far(opened):
    page = opened(desk("a red car", phase="running", done=2, total=5, queued=True))
    assert page.js(NAMELESS) == []
    bar = page.frame.locator("progress")
    assert bar.is_visible() and bar.get_attribute("aria-valuetext") == "2 of 5 steps"
    assert page.frame.get_by_text("Another run waits").is_visible()
    assert page.frame.get_by_role("button", name="Difference of 2").is_enabled()
    assert (
        page.frame.locator(".thumb[aria-pressed=true] img").get_attribute("alt").startswith("Run 2")
    )
    page.js("document.querySelector('textarea').removeAttribute('aria-label')")
    assert len(page.js(NAMELESS)) == 1  # the check can fail


@pytest.mark.parametrize("width", [390, 1024, 1920])
def test_it_fits_the_window(opened, width):
    page = opened(desk("Donaudampfschifffahrtsgesellschaft" * 3), width=width)
    assert page.js("document.documentElement.scrollWidth") <= width


# ---- present mode ------------------------------------------------------------------------------
def full_desk(**said) -> View:
    """The desk of a panel with twelve runs, one of them shown."""
    panel = playground(fake_runs.run, num_steps=5)
    for seed in range(12):
        panel.start(seed=seed).wait()
    panel.show(8).desk.tell(**said)
    state = panel.desk.widget.get_state(["status", "runs", "shown", "chosen", "line"])
    panel.close()
    return View("playground", "Playground", "A desk.", {"most": 12}, state)


@pytest.mark.parametrize(("width", "height"), [(1024, 768), (1920, 1080)])
def test_present_mode_shows_the_run_large_without_scrolling(opened, width, height):
    page = opened(full_desk(), width=width, height=height)
    picture = page.frame.locator(".tile.shown img")
    small = picture.bounding_box()["width"]
    page.press("p")
    rest(page)
    root = page.frame.locator(".dl")
    assert root.evaluate("el => el.scrollHeight <= innerHeight && el.scrollWidth <= innerWidth")
    assert picture.bounding_box()["width"] > 2 * small
    assert page.frame.locator(".tile.shown", has_text="seed 7").is_visible()
    assert not page.frame.locator(".code").is_visible()
    assert page.frame.locator(".tile:not(.shown) .thumb:visible").count() == 11
    assert page.js(ROOM)["over"] <= 0 and serious(page) == []
    page.press("Escape")
    assert page.frame.locator(".code").is_visible()
    assert abs(picture.bounding_box()["width"] - small) < 1


def test_while_a_run_is_under_way_present_mode_shows_what_it_believes(opened):
    source = full_desk().live["runs"][0]["source"]
    said = {"phase": "running", "done": 2, "total": 5, "picture": source, "picture_alt": "x0-hat"}
    page = opened(full_desk(**said), width=1024, height=768)
    page.press("p")
    rest(page)
    assert page.frame.locator(".belief").bounding_box()["width"] > 400
    assert page.frame.locator("progress").is_visible()
    assert not page.frame.locator(".strip").is_visible()


def test_keys_work_everywhere_but_in_the_code(opened):
    page = opened(desk("a red car"))
    root = page.frame.locator(".dl")
    for place in ("textarea", ".tile input", ".thumb"):
        before = root.get_attribute("data-theme")
        page.frame.locator(place).first.press("t")
        assert (root.get_attribute("data-theme") != before) == (place != "textarea"), place
    assert serious(page) == []
