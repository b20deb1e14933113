"""What the browser tests of race and diff share: reading canvases, waiting for what must come."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np

from diffusionlab import views

SIZES = ((1024, 768), (1920, 1080), (390, 844))
COLOURS = Path(views.__file__).parent / "js" / "colours.js"
STOPS = re.findall("[0-9a-f]{6}", COLOURS.read_text().split("const SIGNED")[0])
STRUCTURE = """() => [...document.querySelectorAll(".dl, .dl *")].map((e) =>
  [e.tagName, ...e.getAttributeNames().sort()].join(" "))"""
TEXTS = """() => [document.querySelector(".dl").textContent,
  ...[...document.querySelectorAll(".dl, .dl *")].flatMap((e) =>
    e.getAttributeNames().map((n) => e.getAttribute(n)))].join(" ")"""


def until(view, condition, seconds: float = 20.0) -> None:
    """Wait until a condition holds; AssertionError with what it last raised, or False."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
            why = "it never became true"
        except AssertionError as error:
            why = str(error)
        assert time.monotonic() < end, why
        view.page.wait_for_timeout(40)


def pixels(view, selector: str, index: int = 0) -> np.ndarray:
    """The red, green, blue and alpha (height, width, 4) of a canvas."""
    width, height, values = view.js(
        """([selector, index]) => {
          const c = document.querySelectorAll(selector)[index];
          const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
          return [c.width, c.height, [...data]];
        }""",
        [selector, index],
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def viridis(unit: np.ndarray) -> np.ndarray:
    """The view's colours (…, 3) of numbers from 0 to 1."""
    table = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in STOPS], float)
    places = np.clip(unit, 0, 1) * (len(table) - 1)
    grid = np.arange(len(table))
    return np.stack([np.interp(places, grid, table[:, i]) for i in range(3)], axis=-1)


def difference(a, b) -> np.ndarray:
    """The root mean square over the channels of two x0-hats, as the page holds them."""
    ours, theirs = (x.astype(np.float16).astype(float) for x in (a, b))
    return np.sqrt(((ours - theirs) ** 2).mean(axis=0))


def text(view, selector: str) -> str:
    """The text of the first element that fits."""
    return view.frame.locator(selector).first.inner_text()


def check_sizes(view) -> None:
    """At every size: nothing scrolls sideways, and in present mode the essential is in sight."""
    wide = "() => document.documentElement.scrollWidth <= innerWidth"
    for width, height in SIZES:
        view.page.set_viewport_size({"width": width, "height": height})
        assert view.js(wide), width
        view.press("p")
        assert view.js(wide), width
        assert not view.frame.locator(".chart").is_visible()
        assert view.frame.locator(".sentence").is_visible()
        fits = """() => { const e = document.querySelector(".dl");
          return e.scrollHeight <= innerHeight + 1; }"""
        assert width == 390 or view.js(fits), width
        view.press("p")


NAMES_SHOWN = """() => [...document.querySelectorAll(".lane-name bdi")].map((e) => {
  const whole = e.cloneNode(true);
  whole.style.cssText = "display: block; -webkit-line-clamp: none; position: absolute;"
    + ` width: ${e.getBoundingClientRect().width + 0.5}px`;
  e.parentNode.append(whole);
  const cut = whole.offsetHeight > e.offsetHeight + 1 || e.scrollWidth > e.clientWidth + 1;
  whole.remove();
  return cut ? "cut off: " + e.textContent : "";
}).filter(Boolean)"""
PICTURES = """() => [...document.querySelectorAll(".lane .glass")].filter((e) => e.offsetWidth)
  .map((e) => e.offsetWidth)"""


def free_height(view) -> float:
    """Pixels of the window below the last thing that present mode shows."""
    return view.js("""() => innerHeight - Math.max(...[...document.querySelector(".body").children]
      .filter((e) => !e.matches(".spoken")).map((e) => e.getBoundingClientRect().bottom))""")
