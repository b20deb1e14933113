"""What holds for every view in Chromium, in every host: the keyboard, names, texts, the end."""

from __future__ import annotations

import pytest
import traces
from hosts import HOSTS, exported
from looking import (
    MOUSE_ONLY,
    NATIVE,
    PICTURES,
    REMEMBER,
    TREE,
    Page,
    rest,
    that_can_end,
    unreached,
)
from views_cases import CASES, HARMLESS, HOSTILE, OF_A_RUN, RUNS, WORDS_ONLY

NAMES = sorted(CASES)
every_view = pytest.mark.parametrize("name", NAMES)
every_host = pytest.mark.parametrize("host", HOSTS)


def view_of(name: str, text: str = HARMLESS):
    return CASES[name](text)


# Where the mouse may press and a control beside it does the same for the keyboard.
ELSEWHERE = {
    "diff": ".wipe",  # the slider "line between both pictures"
    "explore": ".strip button, .glass",  # the scrubber; the picture of x0-hat
    "explore_schedule": ".cell",  # the name in front of the row
    "explore_text": ".plane",  # the words above the picture
}
# Pictures that a marker moves over and whose name may stay, because a slider says where it is.
STILL = {"explore_schedule": "svg.strip"}
# Keys that show something else, one after the other.
OWN_KEYS = {"diff": "xdads", "exhibit": "1234", "explore": "1234", "race": "ddas"}
IS = "([at, kinds]) => pictures[at].matches(kinds)"


# ---- in every host -----------------------------------------------------------------------------
@every_host
@every_view
def test_keyboard_sliders_and_names(opened, name, host):
    found = opened(view_of(name), host, before=REMEMBER)
    if name not in WORDS_ONLY:
        pictures_have_names_that_change(found, STILL.get(name, "none"))
    sliders_say_their_value_in_words(found)
    assert not unreached(found, ELSEWHERE.get(name, "none"))
    assert host != "file" or not found.js(MOUSE_ONLY, [NATIVE, ELSEWHERE.get(name, "none")])


def pictures_have_names_that_change(found, still: str = "none") -> None:
    rest(found)
    before = {picture["at"]: picture for picture in found.js(PICTURES)}
    found.press("End")
    rest(found)
    assert before or found.js(PICTURES)
    for picture in found.js(PICTURES):
        assert picture["tag"] == "img" or picture["role"] == "img", picture["tag"]
        assert picture["name"], f"a {picture['tag']} without a name"
        old = before.get(picture["at"], picture)
        same = picture["shows"] == old["shows"] or picture["name"] != old["name"]
        assert same or found.js(IS, [picture["at"], still]), picture["name"]


def sliders_say_their_value_in_words(found) -> None:
    for slider in found.frame.locator("input[type=range]:enabled").all():
        if not slider.is_visible():
            continue
        slider.focus()
        told = []
        for key in ("Home", "ArrowRight", "End"):
            found.page.keyboard.press(key)
            told.append(slider.get_attribute("aria-valuetext"))
        assert all(told) and slider.evaluate("(el) => document.activeElement === el")
        least, most = slider.evaluate("(el) => [Number(el.min), Number(el.max)]")
        assert least == most or len(set(told)) > 1, told
        assert slider.get_attribute("aria-label")


POOR = """<!doctype html><div class="dl" tabindex="-1"><button>one</button><span>x</span>
<div role="toolbar"><button>two</button><button tabindex="-1">three</button></div>
<canvas role="img" aria-label="always the same"></canvas><button disabled>four</button></div>
<script>/* file: */ document.querySelector("span").addEventListener("click", () => {});</script>"""


def test_the_checks_can_fail(opened):
    found = opened(Page(POOR), before=REMEMBER)
    assert unreached(found) == ["button three"]
    assert found.js(MOUSE_ONLY, [NATIVE, "none"]) == ["SPAN. click"]
    assert found.js(MOUSE_ONLY, [NATIVE, "span"]) == []
    found.js("document.querySelector('[role=toolbar]').addEventListener('keydown', (e) => "
             "e.target.nextElementSibling?.focus())")  # fmt: skip
    assert unreached(found) == []
    found.js("addEventListener('keydown', () => document.querySelector('canvas').getContext('2d')"
             ".fillRect(0, 0, 9, 9))")  # fmt: skip
    with pytest.raises(AssertionError, match="always the same"):
        pictures_have_names_that_change(found)
    found.js("document.querySelector('canvas').remove()")


# ---- keys and motion ---------------------------------------------------------------------------
@every_view
def test_keys_work_wherever_the_focus_is(opened, name):
    """p and t on every control; a key that lies on p does not flicker."""
    found = opened(view_of(name))
    root = found.frame.locator(".dl").first
    for control in ("button:enabled", "input[type=range]:enabled", "input[type=checkbox]"):
        place = found.frame.locator(f".dl {control}").first
        if place.count() and place.is_visible():
            place.focus()
            before = root.get_attribute("data-theme")
            found.page.keyboard.press("t")
            assert root.get_attribute("data-theme") != before
            found.page.keyboard.press("p")
            found.page.keyboard.down("p")
            found.page.keyboard.down("p")
            found.page.keyboard.up("p")
            assert "present" not in root.get_attribute("class").split()


@every_view
def test_after_a_click_on_a_chip_the_arrows_still_scrub(opened, name):
    found = opened(view_of(name))
    chips = found.frame.locator(".chooser button:enabled:visible")
    place = found.frame.locator(".player:not(.deep) .slider")
    for at in sorted({0, chips.count() - 1} - {-1}) if place.count() else ():
        chips.nth(at).click()
        found.page.keyboard.press("Home")
        before = place.get_attribute("aria-valuetext")
        found.page.keyboard.press("ArrowRight")
        assert place.get_attribute("aria-valuetext") != before, chips.nth(at).text_content()


@every_view
def test_nothing_moves_by_itself_where_motion_is_not_wanted(opened, name):
    found = opened(view_of(name), clock=True, reduced_motion="reduce")
    rest_in = "() => [document.body.innerText, ...[...document.querySelectorAll('canvas')]"
    shows = rest_in + ".map((c) => c.toDataURL())].join('|')"
    found.page.clock.run_for(1000)
    before = found.js(shows)
    found.page.clock.run_for(120_000)
    assert found.js(shows) == before
    moving = "document.getAnimations().filter((a) => a.playState === 'running').length"
    assert found.js(moving) == 0


def test_the_check_of_motion_can_fail(opened):
    found = opened(view_of("explore"), clock=True, reduced_motion="reduce")
    found.press(" ")
    before = found.frame.locator("canvas").first.get_attribute("aria-label")
    found.page.clock.run_for(2000)
    assert found.frame.locator("canvas").first.get_attribute("aria-label") != before


# ---- texts -------------------------------------------------------------------------------------
@every_host
@every_view
def test_hostile_texts_change_no_element_and_no_attribute(opened, name, host):
    found = opened(view_of(name), host)
    wanted = trees(found, name)
    for text in (*traces.HOSTILE, HOSTILE) if host == "file" else (HOSTILE,):
        assert trees(found.turn_to(view_of(name, text), host), name) == wanted, text
    assert HOSTILE.split()[0] in found.js("document.body.textContent")


def trees(found, name: str) -> list[list[str]]:
    """The elements and attribute names at the last step, and after each key of the view's own."""
    told = []
    for key in ("End", *OWN_KEYS.get(name, "")):
        found.press(key)
        rest(found)
        told.append(found.js(TREE))
    return told


def test_the_structure_check_can_fail(opened):
    plain = "<!doctype html><p class=dl>x"
    trees = [opened(Page(plain + more)).js(TREE) for more in ("y", "<b>", "</p><p title>")]
    assert trees[0] != trees[1] and trees[0] != trees[2]


@pytest.mark.parametrize("name", sorted(OF_A_RUN))
def test_a_run_unlike_the_usual_one_opens_and_moves(opened, name):
    found = opened(OF_A_RUN[name](traces.trace()))
    for case, run in RUNS.items():
        found.turn_to(OF_A_RUN[name](run()))
        for key in ("End", "ArrowLeft"):
            found.press(key)
            rest(found)
            assert all(picture["name"] for picture in found.js(PICTURES)), case
        told = found.js("document.body.innerText")
        assert "undefined" not in told and "[object" not in told, case
        assert "NaN" not in told or case == "NaN", case
        assert found.errors == [], case


# ---- one by itself -----------------------------------------------------------------------------
@every_view
def test_the_end_of_a_view_leaves_nothing_behind(opened, name):
    found = opened(that_can_end(view_of(name)), before=REMEMBER)
    for key in ("ArrowRight", " ", "p"):
        found.press(key)
    assert found.js("held.outside()"), "this check can fail"
    found.js("quit()")
    assert found.js("held.outside()") == []
    assert found.js("[...held.timers]") == []
    assert found.js("document.getElementById('root').childNodes.length") == 0
    assert found.js("document.getAnimations().length") == 0


def test_views_of_one_notebook_are_independent(opened):
    """Three frames in one exported page: a key in one moves that one."""
    views = [view_of(name) for name in (NAMES * 3)[:3]]
    page = exported(*(view._repr_mimebundle_() for view in views))
    found = opened(Page(page), wait_for="iframe")
    frames = [handle.content_frame() for handle in found.page.query_selector_all("iframe")]
    found.frame = frames[0]
    for frame in frames:
        frame.wait_for_selector(".dl")

    def told() -> list[str]:
        shows = "[...document.querySelectorAll('input, [aria-label]')].map((el) => el.value + '|' "
        return [f.evaluate(shows + "+ el.ariaLabel + el.ariaValueText).join()") for f in frames]

    for i, frame in enumerate(frames):
        before = told()
        frame.locator("input[type=range]:enabled >> visible=true").last.press("End")
        assert [j for j, (a, b) in enumerate(zip(before, told(), strict=True)) if a != b] == [i]
    assert not [address for frame, address in found.asked if frame in frames]
