"""The exhibit in Chromium: keys, touch, playing by itself, and what a wall asks of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traces
from hosts import HOSTS

from diffusionlab.views import exhibit

CALM = dict(seconds=600, idle=3600)  # nothing moves while a test looks
SIZES = [(1024, 768), (1920, 1080), (1080, 1920), (390, 844)]
SAME = """([selector, wanted]) => {
  const canvas = document.querySelector(selector), pen = canvas.getContext("2d");
  const seen = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  return seen.length === wanted.length && wanted.every((value, i) => value === seen[i]);
}"""


def text(sentences: list[list[str]]) -> str:
    return " ".join("".join(parts) for parts in sentences)


def panel(view) -> int:
    """The panel that is shown, from 1."""
    shown = view.js('[...document.querySelectorAll(".ex-panel")].map((p) => p.matches(".ex-on"))')
    assert sum(shown) == 1
    return 1 + shown.index(True)


def said(view) -> str:
    return view.frame.locator(".ex-panel.ex-on .ex-now").inner_text()


def slider(view):
    return view.frame.locator(".ex-story input[type=range]")


def rgba(array: np.ndarray) -> list[int]:
    """A picture (h, w, 3) as the canvas gives it back."""
    return np.dstack([array, np.full(array.shape[:2], 255, np.uint8)]).ravel().tolist()


def wait_for_picture(view, figure: str, array: np.ndarray) -> None:
    """Until the canvas holds exactly these pixels; fails after Playwright's time."""
    view.frame.wait_for_function(SAME, arg=[f"{figure} canvas", rgba(array)])


# ---- keys, mouse, touch ------------------------------------------------------------------------
@pytest.mark.parametrize("host", HOSTS)
def test_each_step_shows_its_own_pictures_and_numbers(opened, host):
    run = traces.trace()
    made = exhibit(run, **CALM)
    view = opened(made, host)
    view.press("3")
    for i, step in enumerate(run.steps):
        assert said(view) == text(made.data["panels"][2]["said"][i])
        wait_for_picture(view, ".ex-denoising .ex-main", np.asarray(run.frames[i]))
        wait_for_picture(view, ".ex-denoising figure:nth-of-type(2)", run.preview.rgb(step.latent))
        view.press("ArrowUp")
    assert panel(view) == 4
    assert said(view) == text(made.data["panels"][3]["said"][0])
    view.press("End")
    wait_for_picture(view, ".ex-picture .ex-main", np.asarray(run.image))


def test_the_picture_check_can_fail(opened):
    run = traces.trace()
    view = opened(exhibit(run, **CALM))
    view.press("End")
    wait_for_picture(view, ".ex-picture .ex-main", np.asarray(run.image))
    other = np.asarray(run.image).copy()
    other[0, 0, 0] ^= 1
    assert not view.js(SAME, [".ex-picture .ex-main canvas", rgba(other)])


def test_keys_turn_panels_and_steps(opened):
    view = opened(exhibit(traces.trace(), **CALM))
    for key, wanted in [("3", 3), ("ArrowRight", 4), ("ArrowRight", 5), ("ArrowRight", 5),
                        ("ArrowLeft", 4), ("1", 1), ("ArrowLeft", 1), ("End", 5), ("Home", 1),
                        ("PageUp", 2), ("PageDown", 1)]:  # fmt: skip
        view.press(key)
        assert panel(view) == wanted, key
    view.press("ArrowUp")
    assert said(view) == "“red” is piece number 736."
    assert slider(view).get_attribute("aria-valuetext") == (
        "panel 1 of 5, Prompt: “red” is piece number 736."
    )
    slider(view).focus()
    view.press("ArrowRight")  # on the slider itself: one place
    assert said(view) == "“sky” is piece number 2390."


def test_in_present_mode_a_presenters_remote_turns_the_panels(opened):
    view = opened(exhibit(traces.trace(), **CALM))
    view.press("p")
    for key, wanted in [("PageDown", 2), ("PageDown", 3), ("PageUp", 2)]:
        view.press(key)
        assert panel(view) == wanted


def test_after_a_press_by_mouse_the_arrows_turn_the_panels(opened):
    view = opened(exhibit(traces.trace(), **CALM))
    view.frame.get_by_role("radio", name="3 Denoising").click()
    view.frame.locator(".ex-denoising .ex-words .choice").nth(1).click()
    view.press("ArrowUp")
    assert said(view).startswith("Step 1 of 4")
    view.press("ArrowRight")
    assert panel(view) == 4


def test_mouse_and_words_reach_everything(opened):
    made = exhibit(traces.trace(), **CALM)
    view = opened(made)
    view.frame.locator(".ex-prompt .choice").nth(2).click()
    assert said(view) == "“sky” is piece number 2390."
    view.frame.get_by_role("button", name="next panel").click()
    view.frame.locator(".ex-rows .choice").nth(4).click()
    assert said(view) == text(made.data["panels"][1]["said"][3])
    assert view.frame.locator(".ex-rows .ex-with").count() == 2  # two pieces of one word
    view.frame.get_by_role("radio", name="3 Denoising").click()
    view.frame.locator(".ex-denoising .ex-words .choice").nth(1).click()
    caption = view.frame.locator(".ex-denoising figure:nth-of-type(3) figcaption")
    assert caption.inner_text().replace("\u00a0", " ").endswith("at most 50 %")
    view.frame.locator(".ex-denoising .ex-words .choice").nth(0).click()
    assert not caption.inner_text().replace("\u00a0", " ").endswith("at most 50 %")
    box = slider(view).bounding_box()
    view.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert panel(view) == 5


def test_a_swipe_turns_the_panel_and_a_tap_does_not(opened):
    view = opened(exhibit(traces.trace(), **CALM), width=390, height=844, has_touch=True)
    swipe = """([from, to]) => {
      const stage = document.querySelector(".ex-stage");
      for (const [type, x] of [["pointerdown", from], ["pointerup", to]]) stage.dispatchEvent(
        new PointerEvent(type, { pointerType: "touch", clientX: x, clientY: 300, bubbles: true }));
    }"""
    for start, end, wanted in [(300, 100, 2), (300, 100, 3), (100, 300, 2), (200, 210, 2)]:
        view.js(swipe, [start, end])
        assert panel(view) == wanted


# ---- playing by itself -------------------------------------------------------------------------
def playing(view) -> bool:
    return view.frame.locator(".play").get_attribute("aria-label") == "pause"


def test_it_plays_by_itself_in_a_loop(opened):
    view = opened(exhibit(traces.trace(), seconds=0.2, idle=3600))
    view.frame.wait_for_selector(".ex-picture.ex-on")
    view.frame.wait_for_selector(".ex-prompt.ex-on")  # from the end back to the beginning
    assert playing(view)


def test_without_loop_it_ends_at_the_picture(opened):
    view = opened(exhibit(traces.trace(), seconds=0.2, loop=False))
    view.frame.wait_for_selector('.play[aria-label="play"]')
    assert panel(view) == 5


@pytest.mark.parametrize("host", HOSTS[1:])
def test_in_a_notebook_nothing_begins_unasked(opened, host):
    view = opened(exhibit(traces.trace(), seconds=0.2, idle=0.2), host, clock=True)
    view.page.clock.run_for(60_000)
    assert (playing(view), panel(view)) == (False, 1)
    assert view.frame.locator(".ex-status").inner_text() == "Paused."
    view.press(" ")
    assert playing(view)


def test_a_touch_pauses_and_rest_lets_it_go_on(opened):
    """With the page's clock in our hand: what is started from here on waits for us."""
    view = opened(exhibit(traces.trace(), seconds=10, idle=30))
    view.page.clock.install()
    assert playing(view)
    view.press("3")
    assert not playing(view)
    assert "30 s without a key or touch" in view.frame.locator(".ex-status").inner_text()
    view.page.clock.run_for(29_000)
    assert (playing(view), panel(view)) == (False, 3)
    view.frame.locator(".ex-denoising .ex-lead").click()  # the count begins again
    view.page.clock.run_for(29_000)
    assert not playing(view)
    view.page.clock.run_for(1_500)
    assert playing(view)
    view.page.clock.run_for(21_000)  # denoising lasts two times ten seconds
    assert (playing(view), panel(view)) == (True, 4)


def test_a_pressed_pause_holds_ten_times_as_long(opened):
    view = opened(exhibit(traces.trace(), seconds=600, idle=30))
    view.page.clock.install()
    view.frame.locator(".play").click()
    assert not playing(view)
    view.press("ArrowRight")
    view.page.clock.run_for(299_000)
    assert not playing(view)
    assert "5 minutes" in view.frame.locator(".ex-status").inner_text()
    view.page.clock.run_for(2_000)
    assert playing(view)
    view.press(" ")
    assert not playing(view)
    view.press(" ")
    assert playing(view)


def test_less_motion_means_that_nothing_moves_unasked(opened):
    view = opened(exhibit(traces.trace(), seconds=0.2, idle=0.2), reduced_motion="reduce")
    view.page.clock.install()
    view.press("2")
    view.page.clock.run_for(60_000)
    assert (playing(view), panel(view)) == (False, 2)
    seconds = view.js('getComputedStyle(document.querySelector(".ex-panel")).transitionDuration')
    assert set(seconds.split(", ")) == {"0s"}
    view.press(" ")
    assert playing(view)


# ---- on a wall ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_panel_fits_and_in_present_mode_no_text_is_small(opened, width, height):
    view = opened(exhibit(traces.trace(), **CALM), width=width, height=height,
                  reduced_motion="reduce")  # fmt: skip
    for present in (False, True):
        if present:
            view.press("p")
            view.frame.wait_for_selector(".dl.present")
        for number in range(1, 6):
            view.press(str(number))
            wide, window = view.js("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= window
            if present:
                assert min(letters(view).values()) >= 20
            fits(view, width, height)


def letters(view) -> dict[str, float]:
    """The size in pixels of every text that is shown."""
    return view.js("""() => Object.fromEntries([...document.querySelectorAll(".dl *")]
      .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
        && e.checkVisibility({ visibilityProperty: true }) && !e.closest(".spoken"))
      .map((e) => [e.textContent.slice(0, 30), parseFloat(getComputedStyle(e).fontSize)]))""")


def fits(view, width: int, height: int) -> None:
    """The slider and, but on a phone, the whole main picture are inside the window."""
    shown = view.frame.locator(".ex-panel.ex-on .ex-main canvas").first
    for one in [slider(view)] + ([shown] if width > 400 and shown.count() else []):
        box = one.bounding_box()
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width + 1
        assert box["y"] + box["height"] <= height + 1


def test_on_a_phone_the_scale_stands_below_its_question(opened):
    view = opened(exhibit(traces.trace(), **CALM), width=390, height=844)
    view.press("3")
    names = (".ex-main", "figure:nth-of-type(3)", ".ex-ask", ".ex-words .chooser", ".ex-scale")
    tops = [view.frame.locator(f".ex-denoising {name}").bounding_box()["y"] for name in names]
    assert tops == sorted(tops)


def test_the_prompt_alone_has_a_direction_of_its_own(opened):
    view = opened(exhibit(traces.trace(prompt="سيارة حمراء in the city"), **CALM))
    assert view.frame.locator("h2 bdi").all_inner_texts() == ["سيارة حمراء in the city", "ddim"]


def test_an_address_that_ends_in_present_opens_without_tools(opened):
    view = opened(exhibit(traces.trace(), **CALM))
    view.page.goto(view.page.url + "#present")
    view.page.reload()
    view.frame.wait_for_selector(".dl.present")
    assert not view.frame.locator(".help").is_visible()


# ---- what is not there -------------------------------------------------------------------------
def test_a_stopped_and_redacted_run_is_told_in_sentences(opened):
    run = traces.trace()
    run = replace(run, steps=run.steps[:3], image=None, frames=(), attention={}, tokens=None,
                  text_embedding=None)  # fmt: skip
    view = opened(exhibit(run, **CALM))
    assert "left out" in view.frame.locator(".ex-panel.ex-on .ex-lead").inner_text()
    view.press("4")
    assert "not decoded" in view.frame.locator(".ex-panel.ex-on .ex-lead").inner_text()
    assert view.frame.locator(".ex-panel.ex-on .missing").is_visible()
    view.press("5")
    assert "Stopped after 3 of 5" in view.frame.locator(".ex-panel.ex-on .ex-lead").inner_text()
