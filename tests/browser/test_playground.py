"""The playground's desk in Chromium: texts stay texts, every control has a name."""

from __future__ import annotations

import fake_runs
import pytest
import traces

from diffusionlab.playground import playground
from diffusionlab.views import View

STRUCTURE = """[...document.querySelectorAll('#root *')].map(
  (e) => e.tagName + ' ' + e.getAttributeNames().join(' '))"""
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
    assert hostile.js(STRUCTURE) == harmless.js(STRUCTURE)
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
