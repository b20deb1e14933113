"""One guided step of our loop with recording on, against diffusers' bare U-Net, on the CPU.

`python benchmarks/unet.py [--size sd15|toyland|small] [--rounds 9]` gives both the very same random
weights, float32, and lets them alternate:
- recording: our whole step (predict, update, record) with latents, both branches and the head means
  of every cross-attention kept;
- plain: the same with nothing kept;
- diffusers: its UNet2DConditionModel called on the batch of two, and nothing else.
It reports the medians of the rounds' ratios and writes results/unet.json (Stable Diffusion 1.5's
size) or unet_<size>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path

import torch
from overhead import RESULTS, alternate, machine, ratio
from random_unet import (
    EVERYTHING,
    SIZES,
    Task,
    bundle,
    difference,
    networks,
    our_loop,
    their_call,
)


def measured(size: str, rounds: int, channels_last: bool) -> dict:
    """Medians and ratios of one size."""
    theirs, ours = networks(size, "cpu", torch.float32)
    if channels_last:
        ours.to(memory_format=torch.channels_last)
    model, task = bundle(ours, size), Task(ours, steps=1)
    sample, timestep = torch.cat([task.latent[None]] * 2), torch.tensor(999.0)

    @torch.no_grad()
    def bare():
        their_call(theirs, task, sample, timestep)

    plain, recording = our_loop(model, task), our_loop(model, task, EVERYTHING)
    calls = {"plain": plain, "recording": recording, "diffusers": bare}
    found = {"difference": difference(model, theirs, task)}
    alternate(calls, 1)
    seconds = alternate(calls, rounds)
    pairs = [("recording", "diffusers"), ("plain", "diffusers"), ("recording", "plain")]
    found["median_seconds"] = {k: round(statistics.median(v), 4) for k, v in seconds.items()}
    return found | {f"{a} / {b}": ratio(seconds, a, b) for a, b in pairs}


def main(arguments: list[str] | None = None) -> Path:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="sd15")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--channels-last", action="store_true", help="our weights in that layout")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    cells = SIZES[given.size]["sample_size"]
    result = {
        "machine": machine("cpu") | {"load_before": round(os.getloadavg()[0], 2)},
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "diffusers")},
        "task": {
            "unet": given.size,
            "latent": [4, cells, cells],
            "batch": 2,
            "dtype": "float32",
            "threads": torch.get_num_threads(),
            "rounds": given.rounds,
            "channels_last": given.channels_last,
        },
        "step": measured(given.size, given.rounds, given.channels_last),
    }
    for name, part in result.items():
        print(name)
        for key, value in part.items():
            print(f"  {key:22} {value}")
    name = "unet" if given.size == "sd15" else f"unet_{given.size}"
    path = given.out / f"{name}{'_channels_last' if given.channels_last else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path.name}")
    return path


if __name__ == "__main__":
    main()
