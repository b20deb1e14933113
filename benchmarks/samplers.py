"""What a sampler costs beside the network, and what side by side saves.

`python benchmarks/samplers.py [--device cuda] [--rounds 9]` measures, alternating in one run,
- our plan and loop against diffusers' scheduler class on a network that does nothing: the time of
  one whole run of `--steps` steps on a Stable Diffusion latent, plan and schedule included;
- eight solvers of Toyland side by side in lockstep batches against the same eight one by one.
It prints a table and writes results/samplers.json (samplers_<device>.json on another device).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import diffusers
import torch
from overhead import machine

from diffusionlab import compare, load
from diffusionlab.ideal import IdealPrediction
from diffusionlab.noise import Sequential
from diffusionlab.plan import denoise
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import NoiseSchedule

RESULTS = Path(__file__).parent / "results"
SHAPE = (4, 64, 64)
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
PAIRS = {  # ours -> diffusers' class
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "unipc_2": diffusers.UniPCMultistepScheduler,
}
EIGHT = ["ddim", "euler_ancestral", "heun", "dpm2", "dpmpp_2m", "dpmpp_2m_sde", "lms", "unipc_2"]


def our_run(sampler: str, schedule: NoiseSchedule, steps: int, device: str) -> Callable[[], None]:
    """One run of ours from levels to the last latent."""
    latent = torch.randn(SHAPE, device=device)

    def run() -> None:
        source = Sequential(0)
        source.first(SHAPE)
        source.device = device
        plan = make_plan(sampler, schedule.levels(steps), schedule)
        for _ in denoise(plan, latent, lambda x, level: IdealPrediction(level, x, x, x), source):
            pass

    return run


def their_run(made: type, steps: int, device: str) -> Callable[[], None]:
    """One run of a diffusers scheduler, as its pipelines drive it."""
    start = torch.randn((1, *SHAPE), device=device)

    def run() -> None:
        scheduler = made(**BETAS)
        scheduler.set_timesteps(steps, device=device)
        latent, generator = start, torch.Generator().manual_seed(0)
        noisy = "generator" in scheduler.step.__code__.co_varnames
        more = {"generator": generator} if noisy else {}
        for timestep in scheduler.timesteps:
            output = scheduler.scale_model_input(latent, timestep)
            latent = scheduler.step(output, timestep, latent, **more).prev_sample

    return run


def seconds(run: Callable[[], None], device: str) -> float:
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratios(ours: Callable, theirs: Callable, rounds: int, device: str) -> dict:
    """Median seconds of both and the median of their ratios, in turn after one round unmeasured."""
    pairs = [(seconds(ours, device), seconds(theirs, device)) for _ in range(rounds + 1)][1:]
    return {
        "ours_seconds": statistics.median(a for a, _ in pairs),
        "theirs_seconds": statistics.median(b for _, b in pairs),
        "median_ratio": round(statistics.median(a / b for a, b in pairs), 3),
    }


def side_by_side(device: str, rounds: int) -> dict:
    """Eight solvers of ten steps together against one by one."""
    model = load(device=device)

    def run(together: bool) -> Callable[[], None]:
        return lambda: compare(
            model, "a red car in the city at night", samplers=EIGHT, num_steps=10,
            together=together, record=(), progress=False,
        )  # fmt: skip

    return ratios(run(True), run(False), rounds, device)


@torch.inference_mode()
def main() -> None:
    """Measure, print, write."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--device", default="cpu")
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--rounds", type=int, default=9)
    given = made.parse_args()
    schedule = NoiseSchedule.scaled_linear()
    loops = {
        name: ratios(our_run(name, schedule, given.steps, given.device),
                     their_run(theirs, given.steps, given.device), given.rounds, given.device)
        for name, theirs in PAIRS.items()
    }  # fmt: skip
    together = side_by_side(given.device, max(3, given.rounds // 2))
    for name, found in loops.items():
        ours, theirs = (1e3 * found[side] for side in ("ours_seconds", "theirs_seconds"))
        print(f"{name:16} {ours:8.2f} ms   {PAIRS[name].__name__:34} {theirs:8.2f} ms   "
              f"ratio {found['median_ratio']:.3f}")  # fmt: skip
    print(f"eight solvers together {together['ours_seconds']:.2f} s, one by one "
          f"{together['theirs_seconds']:.2f} s, ratio {together['median_ratio']:.3f}")  # fmt: skip
    packages = ("torch", "diffusers", "numpy")
    result = {
        "machine": machine(given.device),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "task": {"latent": SHAPE, "steps": given.steps, "threads": torch.get_num_threads()},
        "ours / diffusers' scheduler": loops,
        "eight together / one by one": together,
    }
    name = "samplers.json" if given.device == "cpu" else f"samplers_{given.device}.json"
    (RESULTS / name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
