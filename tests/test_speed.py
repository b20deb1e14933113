"""Benchmarks of speed run end to end at toy size; compiling changes nothing but rounding."""

from __future__ import annotations

import ast
import importlib
import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import torch
from original_layout import write_cached_tokenizer, write_single_file
from parity import shaken
from pretending import NAME as PRETENDED
from pretending import pretend

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
    for name in ("accelerator", "checkpoints", "unet", "random_unet", "overhead"):
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
        ways = ["diffusers", "plain", "recording", "graphs", "graphs_recording"]
        assert list(found["ways"]) == [*ways, "graphs_channels_last"]
        assert all(0 < way["it_per_s"] < math.inf for way in found["ways"].values())
        assert len(found["seconds_ratios"]) == 5 and found["tflop_per_guided_step"] > 1e-6
        graphs = [way["graphs"] for name, way in found["ways"].items() if "graphs" in name]
        assert graphs == [0, 0, 0], "there are none on a CPU"


def test_the_script_for_a_device_runs_every_file_that_has_tests_for_one():
    script = (BENCHMARKS / "on_a_device.sh").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -lE '([^']+)' tests/test_\*\.py", script)
    paths = sorted(Path(__file__).parent.glob("test_*.py"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    listed = {name for name, text in texts.items() if re.search(pattern, text)}
    taking = {name for name, text in texts.items() if "accelerator" in arguments_of_tests(text)}
    taking |= {name for name, text in texts.items() if "test_gpu.device" in text}
    marked = {name for name, text in texts.items() if re.search(r"^@.*mark\.gpu", text, re.M)}
    assert len(taking) > 7 and len(marked) > 1 and taking | marked <= listed


def arguments_of_tests(source: str) -> set[str]:
    """What the tests of a module take: fixtures, among others."""
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {a.arg for node in found if node.name.startswith("test") for a in node.args.args}


def test_the_accelerator_benchmark_replays_graphs_on_a_device(benchmark, tmp_path, monkeypatch):
    accelerator = benchmark("accelerator")
    monkeypatch.setattr(accelerator, "matmul_rate", lambda device, dtype: 1e12)
    monkeypatch.setattr(accelerator, "MOST_ROUNDS", 1)
    with pretend("cuda"):
        result = tiny(accelerator, tmp_path, "--device", "cuda", "--steps", "1")
    assert result["machine"]["device"] == PRETENDED and not result["left_out"]
    replayed = dict(graphs=2, graphs_recording=2, graphs_channels_last=1, graphs_compiled=1)
    for found in result["cases"].values():
        ways = found["ways"]
        assert found["difference"] < 1e-4 and len(found["seconds_ratios"]) == 5
        assert all(way["rounds"] and way["peak_gb"] is not None for way in ways.values())
        assert {name: way["graphs"] for name, way in ways.items() if "graphs" in way} == replayed
        assert not any(way.get("refused") for way in ways.values())


def test_the_benchmark_tells_that_nothing_could_be_captured(benchmark, tmp_path, monkeypatch):
    accelerator = benchmark("accelerator")
    real = accelerator.graphed

    def capture(call):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(accelerator, "MOST_ROUNDS", 1)
    monkeypatch.setattr(accelerator, "graphed", lambda unet: real(unet, capture))
    ways = tiny(accelerator, tmp_path, "--steps", "1")["cases"]["tiny float32"]["ways"]
    told = {name: (way.get("graphs"), way.get("refused")) for name, way in ways.items()}
    assert told.pop("graphs_channels_last") == (0, 1)
    assert told.pop("graphs") == told.pop("graphs_recording") == (0, 2)
    assert set(told.values()) == {(None, None)}


@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's")
@pytest.mark.parametrize(
    ("layout", "dtype", "copies"),
    [("folder", "float32", 0), ("folder", "float16", 1), ("single file", "float16", 1)],
)
def test_loading_takes_no_second_copy_of_the_weights(
    benchmark, tmp_path, monkeypatch, layout, dtype, copies
):
    """Beside what a model almost without weights takes: the vocabulary, Python's objects."""
    checkpoints = benchmark("checkpoints")
    checkpoints.SIZES["least"] = ((32,) * 4, 64, (32,) * 4, 1)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = {}
    for size in ("small", "least"):
        where = checkpoints.write_folder(tmp_path / size, size, "float32")
        if layout == "single file":
            where = as_single_file(where, tmp_path / "hub")
        found[size] = checkpoints.measured(checkpoints.OURS, where, dtype, watch="watched")
    weights, peak = (found["small"][k] - found["least"][k] for k in ("size", "peak"))
    assert weights > 100e6 and peak < (copies + 0.15) * weights


def as_single_file(folder: Path, cache: Path) -> Path:
    """The same weights in the original layout; the tokenizer goes into the hub's cache."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    if not cache.exists():
        write_cached_tokenizer(cache, pipe.tokenizer)
    return write_single_file(pipe, folder / "one.safetensors")


class Slow:
    """Loops that take no time, on a clock that says they took `seconds`; `seen` before each."""

    def __init__(self, accelerator, monkeypatch, seconds: float, seen=lambda: None):
        self.now, self.loops = 1000.0, 0

        def loop(*given, **options):
            def run():
                seen()
                self.now += seconds
                self.loops += 1

            return run

        for name in ("our_loop", "their_loop"):
            monkeypatch.setattr(accelerator, name, loop)
        monkeypatch.setattr(accelerator, "matmul_rate", lambda device, dtype: 1e12)
        clock = SimpleNamespace(monotonic=lambda: self.now, perf_counter=lambda: self.now)
        monkeypatch.setattr(accelerator, "time", clock)


def tiny(accelerator, folder: Path, *more: str) -> dict:
    given = ["--size", "tiny", "--device", "cpu", "--out", str(folder), *more]
    return json.loads(accelerator.main(given).read_text())


@pytest.mark.parametrize(
    ("seconds", "loops", "rounds"),
    [
        (14, 25, {0, 1, 3}),
        pytest.param(20, 18, {0, 1}, marks=pytest.mark.slow),
        pytest.param(30, 12, {0, 1}, marks=pytest.mark.slow),
        (500, 1, {0}),
    ],
)
def test_the_accelerator_benchmark_ends_in_time_with_something_of_both_sizes(
    benchmark, tmp_path, monkeypatch, seconds, loops, rounds
):
    accelerator = benchmark("accelerator")
    slow = Slow(accelerator, monkeypatch, seconds)
    result = tiny(accelerator, tmp_path, "--minutes", "6")
    assert slow.now - 1000 <= max(360, seconds), (
        "a loop was begun that the time did not suffice for"
    )
    assert slow.loops == loops
    ways = [way for found in result["cases"].values() for way in found["ways"].values()]
    assert {way["rounds"] for way in ways if "rounds" in way} == rounds
    assert all("rounds" in way or way == {"left_out": "no time"} for way in ways)
    if seconds <= 20:  # both sizes have a ratio, and share the time
        for found in result["cases"].values():
            assert found["seconds_ratios"]["plain / diffusers"]["median_ratio"] == 1
            assert found["ways"]["diffusers"]["ms_per_step"] == 50 * seconds
    else:
        assert result["left_out"] == (["tinyxl float32"] if seconds == 500 else [])


@pytest.mark.slow
def test_every_loop_is_on_disk_before_the_next_begins(benchmark, tmp_path, monkeypatch):
    accelerator = benchmark("accelerator")
    found = []

    def seen():
        cases = json.loads((tmp_path / "accelerator_cpu.json").read_text())["cases"].values()
        ways = [way for case in cases for way in case["ways"].values()]
        found.append(sum(1 + way["rounds"] for way in ways))

    slow = Slow(accelerator, monkeypatch, 1, seen)
    tiny(accelerator, tmp_path)
    assert found == list(range(slow.loops)) and slow.loops == 48


def test_what_fails_or_has_no_time_is_named_and_the_rest_measured(benchmark, tmp_path, capsys):
    accelerator = benchmark("accelerator")
    calls = iter([None, None, RuntimeError("no more memory")])

    def broken():
        raise RuntimeError("no such kernel\nmore")

    def later():
        if error := next(calls):
            raise error

    bench = accelerator.Bench(accelerator.Clock("cpu", 1), 1, 1.0, 1e12, lambda found: None)
    for name, call in {"a": broken, "b": lambda: None, "c": later}.items():
        bench.begin(name, lambda call=call: call)
    bench.rounds()
    ways = bench.found["ways"]
    assert ways["a"] == {"failed": "RuntimeError: no such kernel"}
    assert ways["b"]["rounds"] == 3 and "failed" not in ways["b"]
    assert ways["c"]["rounds"] == 1 and ways["c"]["failed"] == "RuntimeError: no more memory"
    assert "a failed: RuntimeError: no such kernel\n" in capsys.readouterr().out
    result = tiny(accelerator, tmp_path, "--minutes", "0")
    assert result["left_out"] == ["tiny float32", "tinyxl float32"] and not result["cases"]


def test_peak_memory_is_what_the_allocator_held_in_a_ways_own_first_call(benchmark, monkeypatch):
    """An allocator whose cache keeps what was let go of, as CUDA's does."""
    held = {"used": 2, "cached": 0, "peak": 0}

    def call(gigabytes):
        held["cached"] = max(held["cached"], gigabytes)
        held["peak"] = max(held["peak"], held["used"] + held["cached"])

    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    told = {"reset_peak_memory_stats": lambda: held.update(peak=held["used"] + held["cached"]),
            "max_memory_reserved": lambda: held["peak"] * 10**9}  # fmt: skip
    for name, function in told.items():
        monkeypatch.setattr(torch.cuda, name, function)
    accelerator = benchmark("accelerator")
    monkeypatch.setattr(accelerator, "give_back", lambda: held.update(cached=0))
    bench = accelerator.Bench(accelerator.Clock("cuda", 1), 1, 1.0, 1e12, lambda found: None)
    for name, gigabytes in {"large": 5, "small": 1}.items():
        bench.begin(name, lambda gigabytes=gigabytes: lambda: call(gigabytes))
    assert [way["peak_gb"] for way in bench.found["ways"].values()] == [7, 3]


@pytest.mark.slow
def test_graphs_are_made_when_the_other_ways_have_shown_their_memory(
    benchmark, tmp_path, monkeypatch
):
    accelerator = benchmark("accelerator")
    shown, real = [], accelerator.graphed

    def graphed(unet):
        path = tmp_path / "accelerator_cpu.json"
        shown.append(list(json.loads(path.read_text())["cases"]["tiny float32"]["ways"]))
        return real(unet)

    monkeypatch.setattr(accelerator, "graphed", graphed)
    Slow(accelerator, monkeypatch, 1)
    tiny(accelerator, tmp_path)
    assert shown[0] == ["diffusers", "plain", "recording"]


def test_a_script_ends_itself_half_a_minute_after_its_time(benchmark, tmp_path, monkeypatch):
    accelerator = benchmark("accelerator")
    armed = []
    later = SimpleNamespace(dump_traceback_later=lambda *given, **how: armed.append((given, how)))
    monkeypatch.setattr(accelerator, "faulthandler", later)
    tiny(accelerator, tmp_path, "--minutes", "0")
    assert not armed  # a test's process must live
    accelerator.main(["--size", "tiny", "--minutes", "0", "--device", "cpu", "--out",
                      str(tmp_path)], cut=True)  # fmt: skip
    assert armed == [((30.0,), {"exit": True})]


def test_a_case_that_fails_keeps_what_was_known_and_lets_the_next_one_run(
    benchmark, tmp_path, monkeypatch
):
    accelerator = benchmark("accelerator")
    real = accelerator.case

    def stopping(clock, size, dtype, rate, steps, keep):
        if size != "tiny":
            return real(clock, size, dtype, rate, steps, keep)
        keep({"ways": {"plain": {"it_per_s": 1.0}}})
        raise MemoryError("full")

    Slow(accelerator, monkeypatch, 1)
    monkeypatch.setattr(accelerator, "case", stopping)
    cases = tiny(accelerator, tmp_path)["cases"]
    assert cases["tiny float32"] == {"ways": {"plain": {"it_per_s": 1.0}}, "failed": "MemoryError"}
    assert cases["tinyxl float32"]["ways"]["graphs_channels_last"]["rounds"] == 3


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
