"""diffusionlab against diffusers on the very same Toyland weights, alternating in one run.

`python benchmarks/overhead.py [--device cuda] [--rounds 15]` measures
- warm pictures: ours plain, ours with everything recorded (latents, both branches, head-mean
  attention), diffusers' StableDiffusionPipeline; same prompt, steps, guidance, dtype and threads;
- a cold picture: `diffusionlab generate --no-filmstrip` against the shortest diffusers script;
- peak memory of one process each, and import times.
It prints a table and writes results/overhead.json (overhead_<device>.json on another device).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PROMPT, STEPS, GUIDANCE = "a red car in the city at night", 20, 4.0
EVERYTHING = ("predictions", "attention")

DIFFUSERS_SCRIPT = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], local_files_only=True)
pipe.set_progress_bar_config(disable=True)
pipe = pipe.to(sys.argv[3])
image = pipe("{prompt}", num_inference_steps={steps}, guidance_scale={guidance},
             generator=torch.Generator().manual_seed(1)).images[0]
image.save(sys.argv[2])
"""
OURS_SCRIPT = """
import sys
from diffusionlab import generate, load
trace = generate(load(device=sys.argv[3]), "{prompt}", seed=1, num_steps={steps},
                 guidance_scale={guidance}, record={record}, progress=False)
trace.image.save(sys.argv[2])
"""
PEAK = "\nprint(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
IMPORTS = {
    "import diffusionlab": "import diffusionlab",
    "schedule, samplers, trace": "from diffusionlab import samplers, schedule, trace",
    "diffusionlab.generate": "import diffusionlab.generate",
    "torch alone": "import torch",
    "diffusers' pipeline": "from diffusers import StableDiffusionPipeline",
}


def filled(script: str, record: tuple[str, ...] = ()) -> str:
    """A script with the prompt, steps and guidance of this benchmark."""
    return script.format(prompt=PROMPT, steps=STEPS, guidance=GUIDANCE, record=repr(record))


def timed(call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(calls: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round; the order turns so that none is always first."""
    names, seconds = list(calls), {name: [] for name in calls}
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(timed(calls[name]))
    return seconds


def ratio(seconds: dict[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """Median of the rounds' ratios, with the smallest and the largest."""
    found = [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    keys = ("median_ratio", "lowest", "highest")
    values = statistics.median(found), min(found), max(found)
    return {k: round(v, 3) for k, v in zip(keys, values, strict=True)}


def warm(device: str, rounds: int) -> dict:
    """Pictures in a process that has everything loaded."""
    import torch
    from diffusers import StableDiffusionPipeline

    from diffusionlab import generate, load
    from diffusionlab.toyland import checkpoint

    model = load(device=device)
    pipe = StableDiffusionPipeline.from_pretrained(checkpoint(), torch_dtype=model.dtype).to(device)
    pipe.set_progress_bar_config(disable=True)

    def ours(record):
        generate(model, PROMPT, seed=1, num_steps=STEPS, guidance_scale=GUIDANCE, record=record,
                 progress=False)  # fmt: skip
        settle()

    def theirs():
        pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
             generator=torch.Generator().manual_seed(1))  # fmt: skip
        settle()

    def settle():
        if device != "cpu":
            torch.accelerator.synchronize()

    calls = {"plain": lambda: ours(()), "recorded": lambda: ours(EVERYTHING), "diffusers": theirs}
    alternate(calls, 2)
    seconds = alternate(calls, rounds)
    return {
        "threads": torch.get_num_threads(),
        "median_seconds": {k: round(statistics.median(v), 4) for k, v in seconds.items()},
        "plain / diffusers": ratio(seconds, "plain", "diffusers"),
        "recorded / diffusers": ratio(seconds, "recorded", "diffusers"),
        "recorded / plain": ratio(seconds, "recorded", "plain"),
    }


def run(script: str, folder: Path, device: str) -> str:
    """Standard output of one fresh Python process."""
    from diffusionlab.toyland import checkpoint

    command = [sys.executable, "-c", script, str(checkpoint()), str(folder / "a.png"), device]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def cold(device: str, rounds: int) -> dict:
    """From an empty process to a picture on disk."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        command = [
            *(sys.executable, "-m", "diffusionlab.cli", "generate", PROMPT, "--seed", "1"),
            *("--steps", str(STEPS), "--guidance", str(GUIDANCE), "--device", device),
            *("--no-filmstrip", "--out", str(folder)),
        ]

        def ours():
            subprocess.run(command, check=True, capture_output=True)

        calls = {
            "diffusionlab": ours,
            "diffusers": lambda: run(filled(DIFFUSERS_SCRIPT), folder, device),
        }
        alternate(calls, 1)
        seconds = alternate(calls, rounds)
    return {
        "median_seconds": {k: round(statistics.median(v), 2) for k, v in seconds.items()},
        "diffusionlab / diffusers": ratio(seconds, "diffusionlab", "diffusers"),
    }


def peak_memory(device: str) -> dict[str, float]:
    """Largest resident memory in MB of one process that makes one picture."""
    scripts = {
        "plain": filled(OURS_SCRIPT),
        "recorded": filled(OURS_SCRIPT, EVERYTHING),
        "diffusers": filled(DIFFUSERS_SCRIPT),
    }
    with tempfile.TemporaryDirectory() as made:
        found = {k: run(s + PEAK, Path(made), device) for k, s in scripts.items()}
    return {name: round(int(text.split()[-1]) / 1024, 1) for name, text in found.items()}


def import_seconds(rounds: int) -> dict[str, float]:
    """Median seconds of a fresh process that only imports, less those of one that does nothing."""
    scripts = {"nothing": "pass"} | IMPORTS
    calls = {k: (lambda s=s: subprocess.run([sys.executable, "-c", s], check=True))
             for k, s in scripts.items()}  # fmt: skip
    alternate(calls, 1)
    medians = {k: statistics.median(v) for k, v in alternate(calls, rounds).items()}
    return {k: round(v - medians["nothing"], 3) for k, v in medians.items() if k != "nothing"}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    packages = ("torch", "transformers", "diffusers", "numpy", "safetensors")
    result = {
        "machine": machine(given.device),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "task": {"prompt": PROMPT, "steps": STEPS, "guidance_scale": GUIDANCE, "sampler": "ddim"},
        "warm": warm(given.device, given.rounds),
        "cold": cold(given.device, max(3, given.rounds // 3)),
        "peak_memory_mb": peak_memory(given.device),
        "import_seconds": import_seconds(max(3, given.rounds // 3)),
    }
    for name, part in result.items():
        print(name)
        for key, value in part.items():
            print(f"  {key:28} {value}")
    RESULTS.mkdir(exist_ok=True)
    suffix = "" if given.device == "cpu" else f"_{given.device.replace(':', '')}"
    path = RESULTS / f"overhead{suffix}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(
        f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}"
    )


def machine(device: str) -> dict:
    """Processor, number of cores and the accelerator's own name."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return {"cpu": processor(), "cores": os.cpu_count(), "device": name}


def processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
