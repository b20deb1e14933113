"""Room and looks of every view: present mode, a phone, a projector, light and dark, axe-core."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hosts import HOSTS
from looking import ROOM, Page, rest, serious
from views_cases import CASES, HARMLESS

SIZES = {"phone": (390, 844), "projector": (1024, 768), "wall": (1920, 1080)}
SMALLEST = {False: 12, True: 16}  # pixels of type: on a page or a phone, and in present mode
NAMES = sorted(CASES)
LONG = "a red car in the city at night beside a blue boat " + "n" * 40
every_view = pytest.mark.parametrize("name", NAMES)


def too_tight(room: dict, present: bool) -> list[str]:
    """What does not fit, in words; in present mode the picture and the scrubber must."""
    told = [] if room["over"] <= 0 else [f"{room['over']} pixels too wide: {room['wider'][:3]}"]
    size, text = room["smallest"] or [99, ""]
    if size < SMALLEST[present and room["width"] >= 1024]:
        told.append(f"type of {size:.0f} pixels: {text!r}")
    if present and room["width"] >= 1024:
        for what in ("picture", "scrub"):
            box = room[what]
            if box is None or box["top"] < 0 or box["bottom"] > room["height"] + 1:
                told.append(f"{what} is not inside the window: {box}")
        if room["picture"] and room["picture"]["area"] < 30_000:
            told.append(f"no picture is large: {room['picture']}")
    return told


@pytest.mark.parametrize("text", [HARMLESS, LONG], ids=["short", "long"])
@every_view
def test_a_view_fits_into_every_window(opened, name, text):
    text = text[:24] if name == "explore_text" else text  # there the text is every single piece
    found, told = opened(CASES[name](text)), {}
    found.press("End")  # an exhibit begins without a picture
    for present in (False, True):
        for size, (width, height) in SIZES.items():
            found.page.set_viewport_size({"width": width, "height": height})
            rest(found)
            keep(found, f"{name}-{text[:5]}-{'present-' * present}{size}")
            told[size, present] = too_tight(found.js(ROOM), present)
        found.press("p")
    assert {where: what for where, what in told.items() if what} == {}


@pytest.mark.parametrize("host", HOSTS[2:])
@every_view
def test_in_a_frame_present_mode_fits_too(opened, name, host):
    found = opened(CASES[name](HARMLESS), host)
    found.press("End")
    found.press("p")
    rest(found)
    assert too_tight(found.js(ROOM), True) == []
    assert found.js("document.querySelector('.dl').classList.contains('present')")
    found.press("p")
    assert not found.js("document.querySelector('.dl').classList.contains('present')")


def keep(found, name: str) -> None:
    """A picture for the eye, where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        found.page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("host", [HOSTS[0], HOSTS[2]])
@every_view
def test_axe_finds_nothing_serious(opened, name, host):
    found = opened(CASES[name](HARMLESS), host, color_scheme="dark" if host != "file" else "light")
    assert serious(found) == []
    if host == "file":
        found.press("t")
        assert serious(found) == [], "dark"
        found.press("p")
        rest(found)
        assert serious(found) == [], "dark, present mode"
        found.press("t")
        assert serious(found) == [], "light, present mode"


def test_the_checks_can_fail(opened):
    page = """<!doctype html><html lang="en"><title>x</title><div class="dl" style="color:#999">
        <button></button><p style="width:1200px">x</p><p style="font-size:9px">tiny</p>
        <div style="height:900px"></div><input type="range"></div>"""
    found = opened(Page(page))
    told = " ".join(serious(found))
    assert "button-name" in told and "color-contrast" in told and "label" in told
    told = " ".join(too_tight(found.js(ROOM), True))
    assert "pixels too wide: ['P.'" in told and "type of 9 pixels: 'tiny'" in told
    assert "picture is not inside" in told and "scrub is not inside" in told
