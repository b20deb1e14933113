"""Room and looks of every view: present mode, a phone, a projector, light and dark, axe-core."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import traces
from hosts import HOSTS
from looking import ROOM, Page, rest, serious
from test_text import layers
from views_cases import CASES, HARMLESS, WORDS_ONLY, solved

from diffusionlab import views
from diffusionlab.trace import Comparison, TextEmbedding, Tokens, Trace

SIZES = {"phone": (390, 844), "projector": (1024, 768), "wall": (1920, 1080)}
SMALLEST = {False: 12, True: 16}  # pixels of type: on a page or a phone, and in present mode
NAMES = sorted(CASES)
LONG = "a red car in the city at night beside a blue boat " + "n" * 40
every_view = pytest.mark.parametrize("name", NAMES)


def too_tight(room: dict, present: bool, large: int = 30_000, name: str = "") -> list[str]:
    """What does not fit, in words; in present mode the picture and the scrubber must."""
    told = [] if room["over"] <= 0 else [f"{room['over']} pixels too wide: {room['wider'][:3]}"]
    size, text = room["smallest"] or [99, ""]
    if size < SMALLEST[present and room["width"] >= 1024]:
        told.append(f"type of {size:.0f} pixels: {text!r}")
    if present and room["width"] >= 1024 and name not in WORDS_ONLY:
        for what in ("picture", "scrub"):
            box = room[what]
            if box is None or box["top"] < 0 or box["bottom"] > room["height"] + 1:
                told.append(f"{what} is not inside the window: {box}")
        if room["picture"] and room["picture"]["area"] < large:
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
            told[size, present] = too_tight(found.js(ROOM), present, name=name)
        found.press("p")
    assert {where: what for where, what in told.items() if what} == {}


# ---- a real prompt -----------------------------------------------------------------------------
def tokens_of_many(count: int, context: int = 77) -> Tokens:
    """So many words, every fifth in two pieces; as much as the model reads, the rest is cut."""
    kinds = [
        "watercolour",
        "of",
        "seventeen",
        "lighthouses",
        "beside",
        "a",
        "long",
        "red",
        "boat",
        "at",
        "night",
    ]
    words = [kinds[i % len(kinds)] for i in range(count)]
    parts = [[w[:5], w[5:]] if i % 5 == 0 and w[5:] else [w] for i, w in enumerate(words)]
    owners = [i for i, pieces in enumerate(parts) for _ in pieces]
    pieces = [piece for some in parts for piece in some]
    kept = min(len(pieces), context - 2)
    seen, pads = owners[kept - 1] + 1, context - 2 - kept
    return Tokens(
        prompt=" ".join(words), ids=tuple(range(context)),
        pieces=("<start>", *pieces[:kept], "<end>", *["<pad>"] * pads), words=tuple(words[:seen]),
        word_of=(None, *owners[:kept], None, *[None] * pads),
        kinds=("start", *["word"] * kept, "end", *["pad"] * pads), kept=kept,
        dropped=len(pieces) - kept, dropped_words=tuple(words[seen:]),
    )  # fmt: skip


def wordy(count: int, run: Trace | None = None) -> Trace:
    """A run of a prompt of so many words, its maps and its text embedding as large as they are."""
    run, words = run or traces.trace(), tokens_of_many(count)
    random = np.random.default_rng(2)
    maps = random.random((run.network_calls, 8, 8, len(words.ids))).astype(np.float32)
    rows = random.normal(size=(len(words.ids), 8)).astype(np.float32)
    settings = replace(run.settings, prompt=words.prompt)
    return replace(
        run, settings=settings, tokens=words,
        text_embedding=TextEmbedding(hidden=(rows,), tokens=words),
        attention={"mid_block.attn2.probabilities": maps / maps.sum(axis=-1, keepdims=True)},
    )  # fmt: skip


REAL = {
    "explore, 11 words": lambda: views.explore(wordy(11)),
    "explore, 60 words": lambda: views.explore(wordy(60)),
    "explore, a cut": lambda: views.explore(wordy(90)),
    "explore, two calls": lambda: views.explore(wordy(11, solved("heun"))),
    "explore_text, 11 words": lambda: views.explore_text(wordy(11)),
    "explore_text, 22 words": lambda: views.explore_text(wordy(22)),
    "explore_text, 60 words": lambda: views.explore_text(wordy(60)),
    "explore_text, layers": lambda: views.explore_text(layers()),
    "exhibit, 60 words": lambda: views.exhibit(wordy(60), seconds=600),
    "diff, long labels": lambda: views.diff(wordy(60), wordy(11), labels=LABELS[:2]),
    "race, nine long labels": lambda: views.race(
        Comparison("sampler", LABELS, tuple(wordy(11) for _ in LABELS))
    ),
}
LABELS = tuple(f"dpmpp_2m_sde(order=2, churn={i}, noise_scale=1.003)" for i in range(9))
# Shown in present mode: what stands lower than the window, and what the player lies on.
UNDER = """
() => {
  const root = document.querySelector(".dl"), box = (el) => el.getBoundingClientRect();
  const seen = (kinds) => [...root.querySelectorAll(kinds)].filter((el) => el.checkVisibility());
  const player = box(root.querySelector(".player"));
  const cut = seen(".pictures .scale, .pictures figcaption")
    .filter((el) => el.scrollHeight > el.clientHeight + 1);
  const kinds = ".equation, .pictures .glass, .words, .map .plane, .prompt, .pieces, .strip, .lost";
  return [...cut, ...seen(kinds).filter((el) => {
    const { top, bottom } = box(el);
    return bottom > innerHeight + 1 || (bottom > player.top + 1 && top < player.bottom - 1);
  })].map((el) => el.tagName + "." + el.className + " to " + Math.round(box(el).bottom) + " of "
    + innerHeight + ", player from " + Math.round(player.top));
}
"""


@pytest.mark.parametrize("name", REAL)
def test_real_prompts_fit_into_every_window(opened, name):
    found, told = opened(REAL[name]()), {}
    if name.startswith("explore,"):
        found.frame.locator(".words .choice").nth(1).click()  # the bar of its map is two lines
    found.press("ArrowRight" if name.startswith("explore") else "End")
    sizes = SIZES | ({"sideways": (844, 390)} if name.startswith("explore,") else {})
    for mode in ("page", "present"):
        for size, (width, height) in sizes.items():
            found.page.set_viewport_size({"width": width, "height": height})
            rest(found)
            keep(found, f"{name.replace(', ', '-').replace(' ', '-')}-{mode}-{size}")
            present = mode == "present" and width >= 1024
            told[size, mode] = too_tight(
                found.js(ROOM), present, 20_000 if "nine" in name else 30_000
            )
            if (
                mode == "present"
                and name.startswith("explore")
                and (width > 400 or name.startswith("explore,"))
            ):
                told[size, mode] += found.js(UNDER)
        found.press("p")
    assert {where: what for where, what in told.items() if what} == {}


@pytest.mark.parametrize("host", HOSTS[2:])
@every_view
def test_in_a_frame_present_mode_fits_too(opened, name, host):
    found = opened(CASES[name](HARMLESS), host)
    found.press("End")
    found.press("p")
    rest(found)
    assert too_tight(found.js(ROOM), True, name=name) == []
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
