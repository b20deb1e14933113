"""Our loop against diffusers' on an accelerator: random weights, half precision, 20 guided steps.

`python benchmarks/accelerator.py [--minutes 7]` measures Stable Diffusion 1.5 at 512² and SDXL at
1024² (float16, then bfloat16) on the very same weights:
- ours: plain, recording (latents, both branches, head-mean attention), replayed from a CUDA graph,
  both; then the graph in channels_last, and of compiled blocks;
- diffusers: as it comes, and with torch.compile.
The loops alone, without text encoder and VAE; the ways of the first line alternate in one run.
Reported: steps a second, peak memory, ratios to diffusers, and the share of the roofline: FLOPs of
a guided step (torch's counter) over the rate of a large matrix product, measured here. What there
is no time for is left out and named. Each way is written to results/accelerator_<device>.json as
soon as it is known, so that a run that is cut short has a result. `--size tiny` tries it anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from overhead import RESULTS, machine, ratio
from random_unet import EVERYTHING, Task, bundle, difference, networks, our_loop, their_loop
from torch.utils.flop_counter import FlopCounterMode

from diffusionlab.compiling import compiled
from diffusionlab.graphs import graphed
from diffusionlab.stages import predict

CASES = {
    "full": [("sd15", "float16"), ("sdxl", "float16"), ("sd15", "bfloat16"), ("sdxl", "bfloat16")],
    "tiny": [("tiny", "float32"), ("tinyxl", "float32")],
}
COMPILE_MINUTES = {"sd15": 2.0, "sdxl": 3.0}  # left before a compilation is begun
LONG = 15.0  # seconds of one loop after which one round must do


class Clock:
    """Time on one device, and how much of the benchmark's own is left."""

    def __init__(self, device: str, minutes: float):
        self.device, self.end = device, time.monotonic() + 60 * minutes

    @property
    def minutes_left(self) -> float:
        return (self.end - time.monotonic()) / 60

    def settle(self) -> None:
        """Until the device has done everything."""
        if self.device != "cpu":
            torch.accelerator.synchronize()

    def seconds(self, call: Callable) -> float:
        """Of one call, until the device is done."""
        self.settle()
        start = time.perf_counter()
        call()
        self.settle()
        return time.perf_counter() - start


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """FLOPs a second of a large matrix product of random numbers; the median of ten."""
    side = 8192 if device != "cpu" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    clock = Clock(device, 1)
    times = [clock.seconds(lambda: a @ b) for _ in range(13)][3:]
    return 2 * side**3 / statistics.median(times)


def counted(model, task: Task) -> float:
    """FLOPs of one guided step, attention products included, by torch's counter."""
    level = model.schedule.levels(task.steps)[0]
    with FlopCounterMode(display=False) as counter:
        predict(model, task.latent, level, task.embedding(1), task.embedding(0), 7.5)
    return float(counter.get_total_flops())


def peak_gb(clock: Clock, call: Callable) -> float | None:
    """Peak memory of the device during a call, weights included."""
    if not clock.device.startswith("cuda"):
        return None
    torch.cuda.reset_peak_memory_stats()
    clock.seconds(call)
    return round(torch.cuda.max_memory_allocated() / 1e9, 2)


def alternating(clock: Clock, calls: dict[str, Callable]) -> dict[str, list[float]]:
    """Seconds of every way in every round, the order turning; three rounds, or one if it is long.

    A way that fails is left out, with what it said printed.
    """
    alive = {}
    for name, call in calls.items():
        if not failed(name, call):
            alive[name] = call
    longest = max(clock.seconds(call) for call in alive.values())
    seconds = {name: [] for name in alive}
    names = list(alive)
    for number in range(1 if longest > LONG else 3):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds[name].append(clock.seconds(alive[name]))
    return seconds


def failed(name: str, call: Callable) -> str:
    """What a first call raises, "" for nothing; also warms up."""
    try:
        call()
    except Exception as error:  # one way that does not work here must not hide the others
        what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        print(f"  {name} failed: {what}")
        return what
    return ""


def report(seconds: list[float], steps: int, flops: float, rate: float) -> dict[str, float]:
    """Steps a second and the share of the roofline."""
    each = statistics.median(seconds) / steps
    return {
        "it_per_s": round(1 / each, 2),
        "ms_per_step": round(1000 * each, 3),
        "share_of_matmul_rate": round(flops / each / rate, 3),
    }


def case(clock: Clock, size: str, dtype: torch.dtype, rate: float, steps: int, build: bool,
         keep: Callable[[dict], None]) -> dict:  # fmt: skip
    """All ways of one size and dtype; `keep` is handed what is known after each of them."""
    theirs, ours = networks(size, clock.device, dtype)
    model, task = bundle(ours, size), Task(ours, steps)
    fast = replace(model, unet=graphed(ours))
    flops = counted(model, task)
    found = {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "tflop_per_guided_step": round(flops / 1e12, 4),
        "difference": difference(model, theirs, task),
    }
    calls = {
        "plain": our_loop(model, task),
        "recording": our_loop(model, task, EVERYTHING),
        "graphs": our_loop(fast, task),
        "graphs_recording": our_loop(fast, task, EVERYTHING),
        "diffusers": their_loop(theirs, task),
    }
    seconds = alternating(clock, calls)
    found["ways"] = {
        name: report(times, steps, flops, rate) | {"peak_gb": peak_gb(clock, calls[name])}
        for name, times in seconds.items()
    }
    pairs = [("plain", "diffusers"), ("graphs", "diffusers"), ("graphs_recording", "diffusers"),
             ("recording", "plain"), ("graphs_recording", "graphs")]  # fmt: skip
    found["seconds_ratios"] = {
        f"{a} / {b}": ratio(seconds, a, b) for a, b in pairs if {a, b} <= set(seconds)
    }
    keep(found)
    if build:
        rest(clock, found, size, model, theirs, task, flops, rate, keep)
    return found


def rest(clock: Clock, found: dict, size: str, model, theirs, task, flops, rate, keep) -> None:
    """The ways that change a network, one after the other: each is compared by its median."""

    def measure(name: str, make: Callable) -> None:
        try_way(name, make)
        keep(found)

    def try_way(name: str, make: Callable) -> None:
        if clock.minutes_left < (COMPILE_MINUTES.get(size, 0) if "compiled" in name else 0.3):
            found["ways"][name] = {"left_out": "no time"}
            return
        call = make()
        if what := failed(name, call):
            found["ways"][name] = {"failed": what}
            return
        times = [clock.seconds(call) for _ in range(3)]
        found["ways"][name] = report(times, task.steps, flops, rate)

    def channels_last():
        model.unet.to(memory_format=torch.channels_last)
        return our_loop(replace(model, unet=graphed(model.unet)), task)

    def ours_compiled():
        return our_loop(replace(model, unet=compiled(graphed(model.unet))), task)

    measure("graphs_channels_last", channels_last)
    if clock.device != "cpu":  # minutes of a compiler, for nothing
        measure("graphs_compiled", ours_compiled)
        measure("diffusers_compiled", lambda: their_loop(torch.compile(theirs), task))


def main(arguments: list[str] | None = None) -> Path:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=list(CASES), default="full")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    clock = Clock(given.device, given.minutes)
    packages = ("torch", "diffusers", "numpy")
    result = {
        "machine": machine(given.device),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "task": {"steps": given.steps, "guidance_scale": 7.5, "batch": 2, "sampler": "ddim"},
        "matmul_tflop_per_s": {},
        "cases": {},
        "left_out": [],
    }
    name = "".join(c if c.isalnum() else "-" for c in result["machine"]["device"].lower())
    path = given.out / f"accelerator_{name}.json"

    def keep(title: str, found: dict) -> None:
        result["cases"][title] = found
        write(path, result)

    for number, (size, kind) in enumerate(CASES[given.size]):
        title, dtype = f"{size} {kind}", getattr(torch, kind)
        if clock.minutes_left < 0.5:
            result["left_out"].append(title)
            continue
        rate = matmul_rate(given.device, dtype)
        result["matmul_tflop_per_s"][kind] = round(rate / 1e12, 2)
        print(f"{title}: {clock.minutes_left:.1f} minutes left", flush=True)
        told = partial(keep, title)
        try:
            table(case(clock, size, dtype, rate, given.steps, number < 2, told))
        except Exception as error:  # the cases after this one are still worth their time
            print(f"  {title} failed: {type(error).__name__}: {error}"[:400])
            told(result["cases"].get(title, {}) | {"failed": type(error).__name__})
        gc.collect()
        if given.device != "cpu":
            torch.accelerator.empty_cache()
    write(path, result)
    print(f"written: {path.name}; left out: {result['left_out'] or 'nothing'}")
    return path


def table(found: dict) -> None:
    """What one case gave."""
    for name, numbers in found["ways"].items():
        print(f"  {name:22}", "  ".join(f"{k} {v}" for k, v in numbers.items()))
    for name, numbers in found["seconds_ratios"].items():
        print(f"  {name:32} {numbers}", flush=True)


def write(path: Path, result: dict) -> None:
    """The result so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
