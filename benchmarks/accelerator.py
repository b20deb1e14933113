"""Our loop against diffusers' on an accelerator: random weights, half precision, 20 guided steps.

`python benchmarks/accelerator.py [--minutes 7]` measures Stable Diffusion 1.5 at 512² and SDXL at
1024² (float16, then bfloat16) on the very same weights:
- diffusers as it comes; ours plain, recording (latents, both branches, head-mean attention),
  replayed from a CUDA graph, both: these alternate in one run, and their ratios are given;
- each by itself: diffusers with torch.compile; our graph in channels_last; that of compiled blocks.
The loops alone, without text encoder and VAE. Reported: steps a second, ratios to diffusers, the
share of the roofline (FLOPs of a guided step, by torch's counter, over the rate of a large matrix
product, measured here) and peak memory.

`graphs` and `refused` say how many calls a way's network replays, and could not capture: without
the first, or with the second, a way that is named for graphs ran the ordinary way. `peak_gb` is the
most that torch's allocator held of the device during a way's first call, its cache emptied before:
weights and graph pools included, the CUDA context not. Ways without graphs come first and leave
only weights; graphs_recording shares network and pool with graphs: both are in it.

What time is left is looked at before every loop; what there is none for is left out and named. A
run ends when `--minutes` are over, later only by a loop or compilation longer than expected, and
run as a script it ends itself 30 seconds after. results/accelerator_<device>.json is written anew
after every loop, with the rounds that each way has had. `--size tiny` tries it anywhere.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from overhead import RESULTS, machine, ratio
from random_unet import EVERYTHING, Task, bundle, difference, networks, our_loop, their_loop
from torch.utils.flop_counter import FlopCounterMode

from diffusionlab.compiling import compiled
from diffusionlab.graphs import Replays, graphed
from diffusionlab.running.memory import give_back
from diffusionlab.stages import predict

MAIN = "diffusers and ours"  # the ways that alternate; the others of a plan are each by itself
COMPILED, CHANNELS, OURS_COMPILED = "diffusers_compiled", "graphs_channels_last", "graphs_compiled"
WAYS = MAIN, COMPILED, CHANNELS, OURS_COMPILED
PLANS = {  # in the order of what is most wanted: the time may end anywhere
    "full": [
        *[("sd15", "float16", MAIN), ("sdxl", "float16", MAIN), ("sd15", "float16", COMPILED)],
        *[("sdxl", "float16", COMPILED), ("sd15", "bfloat16", MAIN), ("sd15", "float16", CHANNELS)],
        *[("sdxl", "float16", CHANNELS), ("sdxl", "bfloat16", MAIN)],
        *[("sd15", "float16", OURS_COMPILED), ("sdxl", "float16", OURS_COMPILED)],
    ],
    "tiny": [(size, "float32", way) for way in WAYS for size in ("tiny", "tinyxl")],
}
COMPILE_MINUTES = {"sd15": 2.0, "sdxl": 3.0}  # left before a compilation is begun
START_MINUTES = 0.2  # left before the networks of a case are built
SHARES = {"sd15": 0.3}  # of the time left, for the rounds of a case; others half: SDXL takes longer
MOST_ROUNDS = 3
GRACE = 30  # seconds after the last minute until a script ends itself
PAIRS = [("plain", "diffusers"), ("graphs", "diffusers"), ("graphs_recording", "diffusers"),
         ("recording", "plain"), ("graphs_recording", "graphs")]  # fmt: skip


class Clock:
    """Time on one device, and how much of the benchmark's own is left."""

    def __init__(self, device: str, minutes: float):
        self.device, self.end = device, time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def fresh(self) -> None:
        """Give back what nothing holds, and watch for the most memory from here on."""
        give_back()
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """The most that torch's allocator held since `fresh`; None where it does not tell.

        Held, not handed out: what a graph works in is handed out in its capture, never in a replay.
        """
        if not self.device.startswith("cuda"):
            return None
        return round(torch.cuda.max_memory_reserved() / 1e9, 2)

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


def report(seconds: list[float], steps: int, flops: float, rate: float) -> dict[str, float]:
    """Steps a second and the share of the roofline."""
    each = statistics.median(seconds) / steps
    return {
        "it_per_s": round(1 / each, 2),
        "ms_per_step": round(1000 * each, 3),
        "share_of_matmul_rate": round(flops / each / rate, 3),
    }


class Bench:
    """The ways of one size and dtype: first calls, rounds, and what is known, kept after each."""

    def __init__(self, clock: Clock, steps: int, flops: float, rate: float, keep: Callable):
        self.clock, self.steps, self.flops, self.rate = clock, steps, flops, rate
        self.found: dict = {"ways": {}, "seconds_ratios": {}}
        self.keep = lambda: keep(self.found)
        self.calls: dict[str, Callable] = {}
        self.seconds: dict[str, list[float]] = {}
        self.expected: dict[str, float] = {}
        self.replays: dict[str, Replays] = {}  # of the ways that have graphs
        self.usual = steps * flops / rate  # seconds of a loop: no less at first, then diffusers'

    def begin(self, name: str, make: Callable[[], Callable], least: float = 0.0) -> None:
        """Build a way and call it once: that warms it up, and shows its memory.

        It is left out with less than `least` seconds left, or than a loop takes.
        """
        if self.clock.left < max(least, self.usual):
            self.tell(name, {"left_out": "no time"})
            return
        try:
            call = make()
            self.clock.fresh()
            first = self.clock.seconds(call)
        except Exception as error:  # one way that does not work here must not hide the others
            self.failed(name, error)
            return
        if name == "diffusers":
            self.usual = first
        self.calls[name], self.seconds[name] = call, []
        self.expected[name] = min(first, self.usual)  # a first call may have compiled
        memory = self.clock.peak_gb()
        self.tell(name, {"first_s": round(first, 3), "peak_gb": memory, "rounds": 0}
                  | self.replayed(name))  # fmt: skip

    def rounds(self, end: float = math.inf) -> None:
        """Loops of all begun ways, the order turning, while there is time; then let go of them.

        end: when rounds after the first have to be over, on time.monotonic's clock.
        """
        for number in range(MOST_ROUNDS):
            names = list(self.calls)
            if number and time.monotonic() + sum(self.expected[name] for name in names) > end:
                break
            turn = number % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                if self.clock.left > self.expected[name]:
                    self.again(name)
        self.calls.clear(), self.replays.clear()

    def again(self, name: str) -> None:
        """One timed loop."""
        try:
            seconds = self.clock.seconds(self.calls[name])
        except Exception as error:
            del self.calls[name]
            self.failed(name, error)
            return
        self.expected[name] = seconds
        (times := self.seconds[name]).append(seconds)
        for a, b in PAIRS:
            if both := min(len(self.seconds.get(way, ())) for way in (a, b)):
                shared = {way: self.seconds[way][:both] for way in (a, b)}
                self.found["seconds_ratios"][f"{a} / {b}"] = ratio(shared, a, b)
        numbers = report(times, self.steps, self.flops, self.rate)
        self.tell(name, numbers | {"rounds": len(times)} | self.replayed(name))

    def replayed(self, name: str) -> dict[str, int]:
        """The calls that a way's network replays by now, and those that it could not capture."""
        if not (made := self.replays.get(name)):
            return {}
        return {"graphs": len(made.graphs), "refused": len(made.refused)}

    def failed(self, name: str, error: Exception) -> None:
        """What a way raised, in one line."""
        what = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        print(f"  {name} failed: {what}", flush=True)
        self.tell(name, {"failed": what})

    def tell(self, name: str, what: dict) -> None:
        """Add to what is known of a way, and have it written."""
        self.found["ways"].setdefault(name, {}).update(what)
        self.keep()


def case(clock: Clock, size: str, dtype: torch.dtype, rate: float, steps: int,
         keep: Callable[[dict], None]) -> Bench:  # fmt: skip
    """The ways that alternate, of one size and dtype; `keep` is handed all that is known, often."""
    end = time.monotonic() + clock.left * SHARES.get(size, 0.5)
    theirs, ours = networks(size, clock.device, dtype)
    model, task = bundle(ours, size), Task(ours, steps)
    bench = Bench(clock, steps, counted(model, task), rate, keep)
    bench.found |= {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "tflop_per_guided_step": float(f"{bench.flops / 1e12:.4g}"),
        "difference": difference(model, theirs, task),
    }
    bench.keep()
    bench.begin("diffusers", lambda: their_loop(theirs, task))
    bench.begin("plain", lambda: our_loop(model, task))
    bench.begin("recording", lambda: our_loop(model, task, EVERYTHING))
    fast = replace(model, unet=graphed(ours))  # after these, the graphs hold memory
    bench.replays = dict.fromkeys(("graphs", "graphs_recording"), fast.unet.replays)
    bench.begin("graphs", lambda: our_loop(fast, task))
    bench.begin("graphs_recording", lambda: our_loop(fast, task, EVERYTHING))
    bench.rounds(end)
    return bench


def by_itself(bench: Bench, size: str, dtype: torch.dtype, way: str) -> None:
    """A way that changes a network, on networks of its own; it is compared by its median."""

    def make() -> Callable:
        theirs, ours = networks(size, bench.clock.device, dtype)
        task = Task(ours, bench.steps)
        if way == COMPILED:
            return their_loop(torch.compile(theirs), task)
        del theirs  # it would keep the weights as they were laid out
        fast = graphed(ours.to(memory_format=torch.channels_last))
        fast = compiled(fast) if way == OURS_COMPILED else fast
        bench.replays[way] = fast.replays
        return our_loop(replace(bundle(ours, size), unet=fast), task)

    compiles = way in (COMPILED, OURS_COMPILED)
    bench.begin(way, make, compiles * 60 * COMPILE_MINUTES.get(size, 0))
    bench.rounds()
    if compiles:
        torch.compiler.reset()  # its caches may hold the networks


def pointless(device: str, kind: str, way: str) -> bool:
    """Whether the device only emulates this dtype, or is a CPU and would compile for minutes."""
    if device.startswith("cuda"):
        return kind == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and "compiled" in way


def main(arguments: list[str] | None = None, cut: bool = False) -> Path:
    """Measure, print, write; with `cut`, the process ends GRACE seconds after its minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=list(PLANS), default="full")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    clock = Clock(given.device, given.minutes)
    if cut:
        faulthandler.dump_traceback_later(max(0.0, clock.left) + GRACE, exit=True)
    packages = ("torch", "diffusers", "numpy")
    result = {
        "machine": machine(given.device),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "task": {"steps": given.steps, "guidance_scale": 7.5, "batch": 2, "sampler": "ddim"},
        "matmul_tflop_per_s": {},
        "cases": {},
        "left_out": [f"{size} {kind}" for size, kind, way in PLANS[given.size] if way == MAIN],
    }
    name = "".join(c if c.isalnum() else "-" for c in result["machine"]["device"].lower())
    path = given.out / f"accelerator_{name}.json"
    write(path, result)
    measure(clock, PLANS[given.size], given.steps, result, lambda: write(path, result))
    print(f"written: {path.name}; left out: {result['left_out'] or 'nothing'}")
    return path


def measure(clock: Clock, plan: list, steps: int, result: dict, keep: Callable[[], None]) -> None:
    """Everything of a plan that there is time for, into `result`, which `keep` writes."""
    rates: dict[str, float] = {}
    benches: dict[str, Bench] = {}

    def begun(title: str, size: str, kind: str) -> Bench:
        dtype = getattr(torch, kind)
        if kind not in rates:
            rates[kind] = matmul_rate(clock.device, dtype)
            result["matmul_tflop_per_s"][kind] = round(rates[kind] / 1e12, 2)

        def told(found: dict) -> None:
            result["cases"][title] = found
            keep()

        return case(clock, size, dtype, rates[kind], steps, told)

    for size, kind, way in plan:
        title = f"{size} {kind}"
        ready = clock.left > 60 * START_MINUTES if way == MAIN else title in benches
        if not ready or pointless(clock.device, kind, way):
            continue
        print(f"{title}, {way}: {clock.left / 60:.1f} minutes left", flush=True)
        clock.fresh()
        try:
            if way == MAIN:
                result["left_out"].remove(title)
                benches[title] = begun(title, size, kind)
                table(benches[title].found)
            else:
                by_itself(benches[title], size, getattr(torch, kind), way)
                row(way, benches[title].found["ways"][way])
        except Exception as error:  # what comes after this is still worth its time
            print(f"  {title} failed: {type(error).__name__}: {error}"[:400])
            result["cases"].setdefault(title, {})["failed"] = type(error).__name__
            keep()


def row(name: str, numbers: dict) -> None:
    """What one way gave."""
    print(f"  {name:22}", "  ".join(f"{k} {v}" for k, v in numbers.items()), flush=True)


def table(found: dict) -> None:
    """What one case gave."""
    for name, numbers in found["ways"].items():
        row(name, numbers)
    for name, numbers in found["seconds_ratios"].items():
        print(f"  {name:32} {numbers}", flush=True)


def write(path: Path, result: dict) -> None:
    """The result so far, whole at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".part")
    whole.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    whole.replace(path)


if __name__ == "__main__":
    main(cut=True)
