"""What looking at attention costs: our capture beside the fused product, and the usual way.

`python benchmarks/capture.py [--size small] [--rounds 4]` runs one guided step (both branches, one
network call of batch 2, float32, CPU) of a U-Net of Stable Diffusion 1.5's size with random weights
on a 64×64 latent, three ways, alternating in one run:
- plain: nothing inside is recorded;
- captured: `record={"attention"}`, the head means of every cross-attention, the prompt's branch;
- usual: attention computed explicitly, as tools do that replace it: the softmax of every layer and
  head is formed for both branches, self-attention too, and what they keep is kept: every head of
  every cross-attention, and of self-attention up to 32×32 places, the prompt's branch.
It reports medians of the rounds' ratios, the time spent in the capture operations themselves (the
taps' and the copies into the record) as a share of the step, the bytes kept against those that
`recording_size` stated, and the peak memory of a fresh process each. It writes
results/capture.json (capture_small.json with --size small).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from overhead import RESULTS, alternate, machine, ratio

from diffusionlab import recording_size
from diffusionlab.conditioning import prepare
from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig, attention
from diffusionlab.pipeline import LatentDiffusion
from diffusionlab.plan import denoise
from diffusionlab.recorder import Recorder
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.stages import predict
from diffusionlab.taps import AttentionTap
from diffusionlab.trace import Settings, TextEmbedding, Trace

SIZES = {
    "sd15": dict(sample_size=64, cross_attention_dim=768),
    "small": dict(sample_size=32, cross_attention_dim=64, attention_head_dim=8,
                  block_out_channels=(64, 128, 256, 256)),
}  # fmt: skip
WAYS = ("plain", "captured", "usual")
TOKENS, GUIDANCE, LARGEST_KEPT = 77, 7.5, 32 * 32


def build(size: str) -> LatentDiffusion:
    """A bundle around a U-Net with random weights; its other parts only say how large they are."""
    torch.manual_seed(0)
    unet = UNet(UNetConfig(**SIZES[size])).eval().requires_grad_(False)
    vae = VAE(VAEConfig(block_out_channels=(4, 4, 4, 4), norm_num_groups=4,
                        down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4))  # fmt: skip
    encoder = torch.nn.Linear(1, 1)
    width = unet.config.cross_attention_dim
    encoder.config = SimpleNamespace(hidden_size=width, max_position_embeddings=TOKENS)
    schedule = NoiseSchedule.scaled_linear(prediction_type="eps")
    return LatentDiffusion(None, (encoder,), unet, vae, schedule, None, {"name": size}, Path())


def stepper(model: LatentDiffusion, record: tuple[str, ...]) -> Callable[[], Trace]:
    """One guided step with the package's own loop and recorder."""
    cells, pixels = model.unet.config.sample_size, model.size
    levels = model.schedule.levels(1)
    plan = make_plan("ddim", levels, model.schedule)
    width = model.unet.config.cross_attention_dim
    text, uncond = (TextEmbedding((torch.randn(TOKENS, width),)) for _ in range(2))
    latent = levels[0].sigma * torch.randn(4, cells, cells)
    settings = Settings("random", "", "", 0, 1, {"name": "ddim", "options": {}}, "leading",
                        "clean", GUIDANCE, pixels, pixels, record)  # fmt: skip
    prepared = prepare(model, text, uncond, GUIDANCE)

    def ask(point, level):
        return predict(model, point, level, text, uncond, GUIDANCE, prepared)

    def step() -> Trace:
        recorder = Recorder(model, settings, None, text, uncond, plan)
        with recorder, torch.inference_mode():
            for made in denoise(plan, latent, ask, None):
                recorder.keep(made)
        return recorder.finish(None)

    return step


@contextmanager
def explicit_attention(kept: list[torch.Tensor]):
    """Every attention forms its probabilities, and keeps the prompt's as the tools do."""

    def mix(query, key, value):
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        probabilities = scores.softmax(-1)  # (2, heads, places, tokens)
        if key.shape[2] == TOKENS or key.shape[2] <= LARGEST_KEPT:
            kept.append(probabilities[-1].clone())
        return probabilities @ value

    fused, attention.mix = attention.mix, mix
    try:
        yield
    finally:
        attention.mix = fused


def ways(model: LatentDiffusion) -> dict[str, Callable[[], int]]:
    """Each way as one step that gives the bytes of attention that it kept."""
    plain, captured = stepper(model, ("predictions",)), stepper(model, ("attention", "predictions"))

    def inside(trace: Trace) -> int:
        return sum(maps.nbytes for maps in trace.attention.values())

    def usual() -> int:
        kept: list[torch.Tensor] = []
        with explicit_attention(kept):
            plain()
        return sum(maps.nbytes for maps in kept)

    steps = (lambda: inside(plain()), lambda: inside(captured()), usual)
    return dict(zip(WAYS, steps, strict=True))


@contextmanager
def timed_capture(spent: list[float]):
    """Add up the seconds inside the attention taps and in the copies of what they showed."""
    places = [(AttentionTap, "__call__"), (Recorder, "_keep_seen")]
    real = [getattr(*place) for place in places]

    def timing(function):
        def call(*given):
            start = time.perf_counter()
            try:
                return function(*given)
            finally:
                spent[-1] += time.perf_counter() - start

        return call

    for (owner, name), function in zip(places, real, strict=True):
        setattr(owner, name, timing(function))
    try:
        yield
    finally:
        for (owner, name), function in zip(places, real, strict=True):
            setattr(owner, name, function)


def shares(spent: list[float], whole: list[float]) -> dict:
    """Seconds of the capture operations, and their share of the step that they were part of."""
    parts = [a / b for a, b in zip(spent, whole, strict=True)]
    return {
        "median_seconds": round(statistics.median(spent), 4),
        "median_share": round(statistics.median(parts), 5),
        "highest_share": round(max(parts), 5),
    }


def stated(model: LatentDiffusion) -> int:
    """Bytes of attention that a run of one step says it will keep."""
    return recording_size(model, record=("attention",), num_steps=1).parts["attention"]


def measured(size: str, rounds: int) -> dict:
    """Times and bytes of the three ways in this process."""
    model = build(size)
    calls = ways(model)
    kept = {name: call() for name, call in calls.items()}  # and warms up
    captured, spent = calls["captured"], []

    def timed() -> int:
        spent.append(0.0)
        with timed_capture(spent):
            return captured()

    calls["captured"] = timed
    seconds = alternate(calls, rounds)
    return {
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.unet.parameters()),
        "median_seconds": {k: round(statistics.median(v), 3) for k, v in seconds.items()},
        "captured / plain": ratio(seconds, "captured", "plain"),
        "usual / plain": ratio(seconds, "usual", "plain"),
        "capture operations": shares(spent, seconds["captured"]),
        "bytes_kept": kept,
        "bytes_stated": stated(model),
    }


def peak(size: str, way: str) -> dict[str, float]:
    """MB of a fresh process: its largest memory, and how much of it came with the step."""
    command = [sys.executable, __file__, "--size", size, "--one", way]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(size: str, way: str) -> None:
    """Make one step and print the memory of this process."""
    model = build(size)
    stated(model)  # what that imports is no part of the step
    call = ways(model)[way]
    before = memory("VmRSS")
    call()
    found = {"peak_mb": memory("VmHWM"), "above_the_weights_mb": memory("VmHWM") - before}
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))


def memory(what: str) -> float:
    """A line of Linux' account of this process, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="sd15")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.size, given.one)
    else:
        everything(given.size, given.rounds)


def everything(size: str, rounds: int) -> None:
    """All measurements, printed and written."""
    cells = SIZES[size]["sample_size"]
    result = {
        "machine": machine("cpu") | {"load_before": round(os.getloadavg()[0], 2)},
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "task": {
            "unet": size,
            "latent": [4, cells, cells],
            "batch": 2,
            "dtype": "float32",
            "rounds": rounds,
        },  # fmt: skip
        "peak_memory": {way: peak(size, way) for way in WAYS},
        "step": measured(size, rounds),
    }
    for name, part in result.items():
        print(name)
        for key, value in part.items():
            print(f"  {key:20} {value}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / ("capture.json" if size == "sd15" else f"capture_{size}.json")
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path.name}")


if __name__ == "__main__":
    main()
