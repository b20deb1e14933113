"""Photograph the views in Chromium: docs/views/*.png, from runs of one model.

    python tools/screenshots.py [part of a name …]        (`make screenshots`: all of them)

The model is Toyland, or the folder in DIFFUSIONLAB_MODEL. A picture that looks as it did before is
left as it is, so that drawing them again changes nothing.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools" / "gallery"), str(ROOT / "tests" / "browser")]

from hosts import chromium  # noqa: E402
from lab import OTHER, PROMPT, Lab  # noqa: E402

import diffusionlab as dl  # noqa: E402

PLACE = ROOT / "docs" / "views"
LARGEST = 200_000  # bytes of one picture
STEP = 48  # of 255, by which a colour has to change to be seen
SAME = 1e-4  # share of pixels that may change in a picture that is taken for the one before
SAMPLERS = ["ddim", "euler_ancestral", "dpmpp_2m"]


class Runs(Lab):
    """The gallery's runs, and those that only views need."""

    @cached_property
    def comparison(self) -> Any:
        """Three samplers from one start, with decoded frames."""
        settings = dict(seed=1, num_steps=10, record={"predictions", "frames"})
        return dl.compare(self.model, PROMPT, samplers=SAMPLERS, progress=False, **settings)

    @cached_property
    def tokens(self) -> Any:
        """A prompt of two things."""
        return dl.tokenize(self.model, OTHER)


@dataclass(frozen=True)
class Shot:
    """One picture: the view, the place clicked and the keys pressed, in this order."""

    view: Callable[[Runs], Any]
    keys: Sequence[str] = ()
    click: str = ""
    size: tuple[int, int] = (1280, 800)
    scheme: str = "light"


def explorer(runs: Runs) -> Any:
    return dl.explore(runs.trace)


def exhibition(runs: Runs) -> Any:
    return dl.exhibit(runs.trace)


def questions(runs: Runs) -> Any:
    """Two questions whose numbers are the run's."""
    rows, width = runs.trace.text_embedding.hidden[0].shape[-2:]
    pixels, numbers = np.asarray(runs.trace.image).size, runs.trace.latents[-1].size
    return dl.quiz([
        dict(asks="What does the U-Net read of the prompt?", right=1,
             choices=["one vector", f"{rows} rows, one for each token", "the words themselves"],
             because=f"The text encoder writes {rows} rows of {width} numbers each."),
        dict(asks="How many times fewer numbers has the latent than the picture?", right=2,
             choices=["8", "64", f"{pixels / numbers:g}"],
             because=f"The picture has {pixels} numbers, the latent {numbers}."),
    ])  # fmt: skip


SHOTS: dict[str, Shot] = {
    "explore": Shot(explorer, ["ArrowRight"] * 7, click=".chooser button:has-text('car')"),
    "race": Shot(lambda runs: dl.race(runs.comparison), ["ArrowRight"] * 5, size=(1280, 1000)),
    "exhibit": Shot(exhibition, ["3", *["ArrowUp"] * 8], scheme="dark"),
    "exhibit-words": Shot(exhibition, ["2", "ArrowUp", "ArrowUp"], scheme="dark"),
    "exhibit-upright": Shot(exhibition, ["3", *["ArrowUp"] * 8], size=(675, 1200)),
    "diff": Shot(lambda runs: dl.diff(*runs.comparison.traces[:2], labels=SAMPLERS[:2]),
                 ["ArrowRight"] * 5),
    "schedule": Shot(lambda runs: dl.explore_schedule(runs.model.schedule, num_steps=10)),
    "quiz": Shot(questions, ["Tab", "Tab", "Tab", " ", "ArrowDown", "Tab", " ", "m"],
                 size=(1024, 560)),
    "text": Shot(lambda runs: dl.explore_text(dl.embed(runs.model, runs.tokens))),
}  # fmt: skip


def main(wanted: list[str]) -> None:
    """Take the chosen pictures."""
    program, runs = chromium(), Runs()
    if program is None:
        sys.exit(
            "screenshots: there is no Chromium; `make chromium` installs Debian's, or set CHROMIUM "
            "to its program"
        )
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0
    arguments = ["--font-render-hinting=none", *(["--no-sandbox"] if root else [])]
    PLACE.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        for name, shot in SHOTS.items():
            if not wanted or any(part in name for part in wanted):
                keep(PLACE / f"{name}.png", taken(browser, shot, runs))
        browser.close()
    for path in PLACE.glob("*.png"):
        if path.stem not in SHOTS:
            path.unlink()  # of a view that is no more


def taken(browser: Any, shot: Shot, runs: Runs) -> bytes:
    """The window as PNG, once it has come to rest after the click and, as in a class, the keys."""
    width, height = shot.size
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=shot.scheme,
        reduced_motion="reduce",
    )
    page.on("pageerror", lambda error: print(f"screenshots: {error}", file=sys.stderr))
    with tempfile.TemporaryDirectory() as folder:
        page.goto(shot.view(runs).save(Path(folder) / "view.html").as_uri())
        page.wait_for_selector(".dl")
        if shot.click:
            page.locator(shot.click).first.click()
            page.mouse.move(0, 0)
        for key in shot.keys:
            page.keyboard.press(key)
        data, before = page.screenshot(), b""
        while data != before:
            page.wait_for_timeout(200)
            data, before = page.screenshot(), data
    page.close()
    return data


def keep(path: Path, data: bytes) -> None:
    """Write the picture with 256 colours, unless it looks as the one that is there."""
    small = quantised(data)
    if len(small) > LARGEST:
        sys.exit(f"screenshots: {path.name} has {len(small)} bytes; at most {LARGEST} are allowed")
    same = path.exists() and difference(path.read_bytes(), small) < SAME
    if not same:
        path.write_bytes(small)
    print(f"{path.relative_to(ROOT)}  {len(small) / 1000:.0f} kB{'  as before' if same else ''}")


def quantised(data: bytes) -> bytes:
    """The picture in 256 colours that cover its range (few pixels of a colour bar), refined."""
    image, buffer = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
    method = Image.Quantize.MAXCOVERAGE
    image.quantize(256, method, kmeans=8, dither=Image.Dither.NONE).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()


def difference(one: bytes, other: bytes) -> float:
    """The share of pixels that differ visibly between two PNG pictures; 1 if their sizes differ."""
    first, second = (np.asarray(Image.open(io.BytesIO(d)).convert("RGB"), int)
                     for d in (one, other))  # fmt: skip
    if first.shape != second.shape:
        return 1.0
    return float((np.abs(first - second).max(axis=2) > STEP).mean())


if __name__ == "__main__":
    main(sys.argv[1:])
