"""Benchmarks of speed run end to end at toy size; compiling changes nothing but rounding."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from parity import shaken

from diffusionlab import compiling
from diffusionlab.compiling import compiled
from diffusionlab.models import UNet, UNetConfig
from diffusionlab.models.attention import FeedForward
from diffusionlab.models.blocks import ResBlock
from diffusionlab.taps import find_taps, recording

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in ("accelerator", "unet", "random_unet", "overhead"):
        sys.modules.pop(name, None)


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return shaken(
        UNet(UNetConfig(
            block_out_channels=(16, 32), layers_per_block=1, attention_head_dim=(2, 4),
            down_block_types=("CrossAttnDownBlock2D",) * 2, norm_num_groups=8,
            up_block_types=("CrossAttnUpBlock2D",) * 2, cross_attention_dim=12,
        ))
    ).requires_grad_(False)  # fmt: skip


SAMPLE = torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))
TEXT = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def run(net: UNet) -> torch.Tensor:
    return net(SAMPLE, torch.tensor(700.0), TEXT)


# ---- the benchmarks --------------------------------------------------------------------------
def test_the_accelerator_benchmark_runs_anywhere(benchmark, tmp_path):
    path = benchmark("accelerator").main(
        ["--size", "tiny", "--device", "cpu", "--steps", "2", "--out", str(tmp_path)]
    )
    result = json.loads(path.read_text())
    assert list(result["cases"]) == ["tiny float32", "tinyxl float32"] and not result["left_out"]
    for found in result["cases"].values():
        assert found["difference"] < 1e-4
        ways = ["plain", "recording", "graphs", "graphs_recording", "diffusers"]
        assert list(found["ways"]) == [*ways, "graphs_channels_last"]
        assert all(0 < way["it_per_s"] < math.inf for way in found["ways"].values())
        assert len(found["seconds_ratios"]) == 5 and found["tflop_per_guided_step"] >= 0


def test_what_fails_or_has_no_time_is_named_and_the_rest_measured(benchmark, tmp_path, capsys):
    accelerator = benchmark("accelerator")

    def broken():
        raise RuntimeError("no such kernel\nmore")

    clock = accelerator.Clock("cpu", 1)
    assert list(accelerator.alternating(clock, {"a": broken, "b": lambda: None})) == ["b"]
    assert "a failed: RuntimeError: no such kernel\n" in capsys.readouterr().out
    path = accelerator.main(["--size", "tiny", "--device", "cpu", "--minutes", "0",
                             "--out", str(tmp_path)])  # fmt: skip
    assert len(json.loads(path.read_text())["left_out"]) == 2


def test_a_case_that_fails_keeps_what_was_known_and_lets_the_next_one_run(
    benchmark, tmp_path, monkeypatch
):
    accelerator = benchmark("accelerator")

    def stopping(clock, size, dtype, rate, steps, build, keep):
        keep({"ways": {"plain": {"it_per_s": 1.0}}})
        if size == "tiny":
            raise MemoryError("full")
        return {"ways": {}, "seconds_ratios": {}}

    monkeypatch.setattr(accelerator, "case", stopping)
    path = accelerator.main(["--size", "tiny", "--device", "cpu", "--out", str(tmp_path)])
    cases = json.loads(path.read_text())["cases"]
    assert cases["tiny float32"] == {"ways": {"plain": {"it_per_s": 1.0}}, "failed": "MemoryError"}
    assert "tinyxl float32" in cases


def test_the_step_benchmark_runs(benchmark, tmp_path):
    path = benchmark("unet").main(["--size", "tiny", "--rounds", "2", "--out", str(tmp_path)])
    step = json.loads(path.read_text())["step"]
    assert step["difference"] < 1e-4 and step["recording / diffusers"]["median_ratio"] > 0


# ---- compiling -------------------------------------------------------------------------------
def test_only_parts_without_taps_are_compiled(unet, monkeypatch):
    """`aot_eager` traces as every compiler does, and needs none."""
    monkeypatch.setattr(compiling, "why_not", lambda device: "")
    made = []
    real = torch.compile

    def traced(function, **options):
        made.append(function)
        return real(function, backend="aot_eager", **options)

    plain = run(unet)
    with recording(unet, ["*"]) as before:
        run(unet)
    monkeypatch.setattr(torch, "compile", traced)
    assert compiled(unet) is unet
    parts = [p for p in unet.modules() if isinstance(p, (ResBlock, FeedForward))]
    assert len(made) == len(parts) and not any(find_taps(part) for part in parts)
    quiet = run(unet)
    torch.testing.assert_close(quiet, plain, rtol=1e-5, atol=1e-5)
    with recording(unet, ["*"]) as after:
        assert torch.equal(run(unet), quiet)
    for name in before:
        torch.testing.assert_close(after[name][0], before[name][0], rtol=1e-3, atol=1e-3)


def test_without_a_compiler_the_network_is_as_it_was(unet, monkeypatch, capsys):
    def none_here(*given, **options):
        raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\nmore")

    plain = run(unet)
    monkeypatch.setattr(torch, "compile", none_here)
    assert torch.equal(run(compiled(unet)), plain)
    told = "".join(capsys.readouterr())
    assert "torch.compile does not work here (InvalidCxxCompiler: No working C++" in told
    assert not any(part._compiled_call_impl for part in unet.modules())
