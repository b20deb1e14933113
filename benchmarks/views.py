"""How large the page of each view is, and how long it takes to show another step.

    python benchmarks/views.py [--rounds 3] [view …]

Each view is made of a run of 20 steps on Toyland with its attention and decoded frames, and of a
made-up run of Stable Diffusion's size: 50 steps, latents 4×64×64, frames of 512×512, 77 tokens,
attention of four resolutions. In Chromium the slider is moved 50 times through the steps, as a hand
does it. Measured with `performance.now` is everything that the page does before the browser paints:
the view's script, the layout, and drawing every visible canvas (forced by reading a pixel back);
two animation frames are waited for between moves and not counted. Each round alternates with a
plain page that shows the frames as an `<img>` whose source is changed and decoded. It prints a
table, marks what is over 16 ms, and writes results/views.json; given names, their rows alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from large_run import large_run, large_tokens
from overhead import RESULTS, machine, ratio

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "browser"), str(ROOT / "tests")]

import traces  # noqa: E402
from hosts import chromium  # noqa: E402

import diffusionlab as dl  # noqa: E402
from diffusionlab import views  # noqa: E402
from diffusionlab.trace import Comparison, Trace  # noqa: E402
from diffusionlab.views.reels import source_of  # noqa: E402

HEAD = (
    f"{'view':34} {'page':>9} {'made':>6} {'opened':>6} {'move':>8} {'95 %':>8} {'image':>8} ratio"
)
LIMIT, MOVES = 16.0, 50  # milliseconds; moves of the slider in a round
PROMPT, SAMPLERS = "a red car in the city at night", ("ddim", "dpmpp_2m", "heun")
ALL = {"predictions", "attention", "frames"}

# One move of the slider, then everything that must be done before the browser can paint.
MOVE = """
async (moves) => {
  const rest = () => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
  const root = document.querySelector(".dl"), taken = [];
  const slider = [...root.querySelectorAll("input[type=range]")].findLast((el) =>
    el.checkVisibility() && !el.disabled);
  const most = Number(slider.max), least = Number(slider.min);
  await rest();
  for (let i = 0; i < moves; i++) {
    const start = performance.now();
    slider.value = least + (i % (most - least + 1));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    root.getBoundingClientRect();
    for (const canvas of root.querySelectorAll("canvas")) {
      if (canvas.checkVisibility()) canvas.getContext("2d").getImageData(0, 0, 1, 1);
    }
    taken.push(performance.now() - start);
    await rest();
  }
  return taken;
}
"""
SWAP = """
async (moves) => {
  const rest = () => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
  const image = document.querySelector("img"), taken = [];
  await rest();
  for (let i = 0; i < moves; i++) {
    const start = performance.now();
    image.src = sources[i % sources.length];
    await image.decode();
    image.getBoundingClientRect();
    taken.push(performance.now() - start);
    await rest();
  }
  return taken;
}
"""


# ---- records -----------------------------------------------------------------------------------
class Toyland:
    """Runs of 20 steps on the model that comes with the package."""

    def __init__(self) -> None:
        self.model = dl.load()
        self.run = partial(dl.generate, self.model, PROMPT, num_steps=20, progress=False)

    @cached_property
    def trace(self) -> Trace:
        return self.run(seed=1, record=ALL)

    @cached_property
    def other(self) -> Trace:
        return self.run(seed=2, record=ALL)

    @cached_property
    def comparison(self) -> Comparison:
        runs = [self.run(seed=1, sampler=name, record=ALL) for name in SAMPLERS]
        return Comparison("sampler", SAMPLERS, tuple(runs))

    @cached_property
    def layers(self):
        return dl.embed_layers(self.model, self.trace.tokens)

    @property
    def schedule(self):
        return self.model.schedule


class StableDiffusionSize:
    """Made-up runs with the shapes of Stable Diffusion 1.5, without a network."""

    def __init__(self) -> None:
        self.schedule = traces.schedule()

    @cached_property
    def trace(self) -> Trace:
        return large_run(0.0)

    @cached_property
    def other(self) -> Trace:
        return large_run(0.3)

    @cached_property
    def comparison(self) -> Comparison:
        runs = tuple(large_run(0.1 * i) for i in range(len(SAMPLERS)))
        return Comparison("sampler", SAMPLERS, runs)

    @cached_property
    def layers(self):
        random = np.random.default_rng(0)
        hidden = random.normal(size=(13, 77, 768)).astype(np.float32)
        attention = np.tril(np.ones((12, 12, 77, 77), np.float32))
        attention /= attention.sum(axis=-1, keepdims=True)
        return dl.TextLayers(large_tokens(), hidden, hidden[-1], attention)


VIEWS: dict[str, Callable] = {
    "diff": lambda records: views.diff(records.trace, records.other),
    "exhibit": lambda records: views.exhibit(records.trace),
    "explore": lambda records: views.explore(records.trace),
    "explore_schedule": lambda records: views.explore_schedule(records.schedule),
    "explore_text": lambda records: views.explore_text(records.layers),
    "race": lambda records: views.race(records.comparison),
}
SIZES = {"toyland": Toyland, "stable diffusion": StableDiffusionSize}


# ---- in the browser ------------------------------------------------------------------------------
@contextmanager
def browser():
    """Chromium with the network blocked, and a page opened in it by a function of a file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        program = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        context = program.new_context(viewport={"width": 1280, "height": 800}, offline=True,
                                      reduced_motion="reduce")  # fmt: skip

        def opened(text: str, name: str):
            path = Path(folder) / f"{name}.html"
            path.write_text(text, encoding="utf-8")
            page = context.new_page()
            page.goto(path.as_uri())
            return page

        yield SimpleNamespace(open=opened, version=program.version)
        program.close()


def plain_page(trace: Trace) -> str:
    """The frames of a run as an image whose source changes, at 256 pixels and in WebP."""
    sources = [source_of(frame, 256, False) for frame in trace.frames]
    return f"<!doctype html><img width=512><script>const sources = {json.dumps(sources)};</script>"


def measured(chrome, view, beside: str, rounds: int) -> dict:
    """Milliseconds of a move of the slider, of a change of a plain image, and their ratio."""
    theirs, start = chrome.open(beside, "plain"), time.perf_counter()
    ours = chrome.open(view.page, "view")
    ours.wait_for_selector(".dl")
    seconds = time.perf_counter() - start
    taken: dict[str, list[float]] = {"view": [], "image": []}
    medians: dict[str, list[float]] = {"view": [], "image": []}
    for _ in range(rounds):
        for name, page, code in (("view", ours, MOVE), ("image", theirs, SWAP)):
            page.bring_to_front()
            found = page.evaluate(code, MOVES)
            taken[name] += found
            medians[name].append(statistics.median(found))
    for page in (ours, theirs):
        page.close()
    ends = {name: statistics.quantiles(found, n=20)[-1] for name, found in taken.items()}
    return {
        "seconds to open": round(seconds, 2),
        "milliseconds": round(statistics.median(taken["view"]), 2),
        "95 % below": round(ends["view"], 2),
        "image swapped": round(statistics.median(taken["image"]), 2),
        "view / image": ratio(medians, "view", "image"),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("names", nargs="*", choices=[[], *VIEWS], metavar="view")
    given, path, found = parser.parse_args(), RESULTS / "views.json", {}
    if given.names and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))["views"]
    print(HEAD)
    with browser() as chrome:
        for size, made in SIZES.items():
            records = made()
            for part in ("trace", "other", "comparison", "layers"):
                getattr(records, part)  # runs are made before a view's time is taken
            beside = plain_page(records.trace)
            for name in given.names or VIEWS:
                start = time.perf_counter()
                view = VIEWS[name](records)
                page = view.page
                seconds = time.perf_counter() - start
                row = {"bytes": len(page.encode()), "seconds to make": round(seconds, 2)}
                row |= measured(chrome, view, beside, given.rounds)
                found[f"{name}, {size}"] = row
                print_row(f"{name}, {size}", row)
        shown = chrome.version
    result = {
        "machine": machine("cpu"),
        "versions": {"python": platform.python_version(), "chromium": shown}
        | {name: version(name) for name in ("numpy", "pillow", "playwright")},
        "rounds": given.rounds,
        "moves in a round": MOVES,
        "over 16 ms": [name for name, row in found.items() if row["95 % below"] > LIMIT],
        "views": found,
    }
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_row(name: str, row: dict) -> None:
    """One line of the table."""
    mark = "  over 16 ms" if row["95 % below"] > LIMIT else ""
    print(
        f"{name:34} {row['bytes'] / 1e6:6.2f} MB {row['seconds to make']:4.1f} s "
        f"{row['seconds to open']:4.1f} s "
        f"{row['milliseconds']:5.2f} ms {row['95 % below']:5.2f} ms {row['image swapped']:5.2f} ms "
        f"{row['view / image']['median_ratio']:6.2f}{mark}"
    )


if __name__ == "__main__":
    main()
