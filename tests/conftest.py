"""What all tests share: one thread, no network, derandomised Hypothesis, and a tiny model.

`tiny_folder` is a checkpoint with random weights in diffusers' folder layout, written by diffusers
and transformers themselves; `tiny_model` is what our `load` makes of it. Pictures are 64×64,
latents (4, 8, 8), the text context is 32 tokens.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

# One torch thread per worker, no downloads, no windows. Set before anything imports torch.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="agg",
)

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("nightly", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_runtest_setup(item):
    """Tests marked `gpu` are skipped where there is no accelerator."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.accelerator.is_available():
            pytest.skip("there is no accelerator")


def pytest_terminal_summary(terminalreporter):
    """Browser tests that had no browser are counted once, with what to install."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", ())
        if "tests/browser/" in report.nodeid and "no Chromium" in str(report.longrepr)
    ]
    if skipped:
        why = skipped[0].longrepr[-1].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(skipped)} browser tests skipped: {why}")


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Sockets reach this machine only (loopback and Unix sockets)."""
    import offline

    with pytest.MonkeyPatch.context() as patch:
        offline.block(patch.setattr)
        yield


@pytest.fixture(autouse=True)
def plain_float32(request):
    """In tests marked `gpu`: no TF32 (cuDNN's is on by default), and no trial of kernels."""
    if not request.node.get_closest_marker("gpu"):
        yield
        return
    from torch.backends import cuda, cudnn

    # not by monkeypatch, which would delete torch's computed attributes instead of restoring them
    before = cudnn.allow_tf32, cudnn.benchmark, cuda.matmul.allow_tf32
    cudnn.allow_tf32 = cudnn.benchmark = cuda.matmul.allow_tf32 = False
    yield
    cudnn.allow_tf32, cudnn.benchmark, cuda.matmul.allow_tf32 = before


@pytest.fixture(params=["like cuda", "like mps", pytest.param("real", marks=pytest.mark.gpu)])
def accelerator(request):
    """The machine's accelerator with `-m gpu`, else pretended ones: as device=None takes it."""
    import torch
    from pretending import pretend

    like, _, kind = request.param.rpartition(" ")
    with pretend(kind) if like else nullcontext():
        yield torch.accelerator.current_accelerator()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random-weight checkpoint in diffusers layout; treat it as read-only."""
    from tiny import write_tiny_checkpoint

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    """Our bundle of the tiny checkpoint, on the CPU in float32."""
    from diffusionlab.pipeline import load

    return load(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def toyland_bench():
    """Toyland on a bench of four samples."""
    from diffusionlab.claims import Bench
    from diffusionlab.pipeline import load

    return Bench(load(device="cpu"), 4)
