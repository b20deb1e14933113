"""How fast Toyland is drawn on one core: with the masks of every word, and without.

`python benchmarks/world.py [--scenes 200] [--rounds 7]` draws the same scenes both ways in turn, at
128 pixels, prints scenes per second and the median of the ratios, and writes results/world.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

from overhead import machine

from diffusionlab.toyland import GRAMMAR_VERSION, Scene, render, scene

RESULTS = Path(__file__).parent / "results"


def seconds(scenes: list[Scene], masks: bool) -> float:
    """Wall-clock seconds to draw all of them."""
    start = time.perf_counter()
    for shown in scenes:
        render(shown, 128, masks=masks)
    return time.perf_counter() - start


def main() -> None:
    """Measure in turn, print, write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--scenes", type=int, default=200)
    made.add_argument("--rounds", type=int, default=7)
    given = made.parse_args()
    scenes = [scene(seed) for seed in range(given.scenes)]
    render(scenes[0])
    with_masks, without = zip(
        *((seconds(scenes, True), seconds(scenes, False)) for _ in range(given.rounds)), strict=True
    )
    ratio = statistics.median(a / b for a, b in zip(with_masks, without, strict=True))
    result = {
        "machine": machine("cpu"),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("pillow", "numpy")},
        "task": {"grammar_version": GRAMMAR_VERSION, "scenes": given.scenes, "pixels": 128},
        "scenes_per_second": round(given.scenes / statistics.median(without), 1),
        "scenes_per_second_with_masks": round(given.scenes / statistics.median(with_masks), 1),
        "with masks / without": {"median_ratio": round(ratio, 3), "rounds": given.rounds},
    }
    print(json.dumps(result, indent=2))
    (RESULTS / "world.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
