"""Memory that runs out: one error that names the call and three remedies, and a clean session."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretending import pretend

import diffusionlab as dl
from diffusionlab.errors import InputError, MemoryExceeded
from diffusionlab.pipeline.offload import offloaded
from diffusionlab.running.memory import give_back, is_out_of_memory, memory_told, remedies_for

ROOT = Path(__file__).parents[1]
CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.78 GiB of "
    "which 1.25 GiB is free. Including non-PyTorch memory, this process has 6.52 GiB memory in use."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 8000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


class Alloc:
    """A network that fails as an allocator does, in its n-th call, holding a large tensor."""

    def __init__(self, network, error, call):
        self.forward, self.error, self.left, self.held = network.forward, error, call, []

    def __call__(self, *given, **options):
        if self.left:
            self.left -= 1
            return self.forward(*given, **options)
        large = torch.zeros(1_000_000)
        self.held.append(weakref.ref(large))
        raise self.error


@pytest.fixture
def failing(tiny_model, monkeypatch):
    def fail(error, call=0):
        made = Alloc(tiny_model.unet, error, call)
        monkeypatch.setattr(tiny_model.unet, "forward", made, raising=False)
        return made

    yield fail


# ---- which errors --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA),
        RuntimeError(CPU),
        RuntimeError("Storage size calculation overflowed with sizes=[4611686018427387904, 4]"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.20 GB). Tried to allocate 1 GB"),
        RuntimeError("Invalid buffer size: 19.45 GB"),
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    ],
)
def test_errors_that_say_that_memory_ran_out(error):
    assert is_out_of_memory(error)


def test_real_errors_of_this_machine_are_known():
    for ask in (lambda: torch.empty(2**52), lambda: torch.empty(2**62, 4), lambda: np.empty(2**52)):
        with pytest.raises((RuntimeError, MemoryError)) as error:
            ask()
        assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("sizes differ"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_pass_as_they_are(tiny_model, failing, error):
    failing(error)
    with pytest.raises(type(error), match=str(error)) as seen:
        dl.generate(tiny_model, "a car", num_steps=2, progress=False)
    assert seen.value is error


# ---- the message ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "needed", "free"),
    [(torch.OutOfMemoryError(CUDA), 2.5 * 2**30, 1.25 * 2**30), (RuntimeError(CPU), 8e12, None)],
)
def test_the_error_names_stage_shape_needs_and_three_remedies(
    tiny_model, failing, error, needed, free
):
    failing(error, call=1)
    with pytest.raises(MemoryExceeded) as told:
        dl.generate(tiny_model, "a car", num_steps=3, guidance_scale=4, progress=False)
    found = told.value
    assert (found.stage, found.shape, found.needed, found.free) == (
        "predict", (4, 8, 8), needed, free,
    )  # fmt: skip
    assert len(found.remedies) == 3
    text = str(found)
    assert text.startswith("predict ran out of memory on cpu with an input of shape (4, 8, 8)")
    assert all(f"({i}) {remedy}" in text for i, remedy in enumerate(found.remedies, 1))
    assert ("free 1.34 GB" in text) == (free is not None)
    assert found.__cause__ is found.__context__ is None
    assert len(found.trace.steps) == 1 and found.trace.image is None  # the record so far


class Like:
    def __init__(self, device, dtype):
        self.device, self.dtype = torch.device(device), dtype


@pytest.mark.parametrize(
    ("stage", "device", "dtype", "words"),
    [
        ("predict", "cuda", torch.float32, ["float16", "offloaded", "smaller"]),
        ("predict", "cuda", torch.float16, ["offloaded", "smaller", "cpu"]),
        ("predict", "cpu", torch.float32, ["bfloat16", "smaller", "record"]),
        ("predict", "cpu", torch.bfloat16, ["smaller", "record", "close other"]),
        ("decode", "cuda", torch.float16, ["tile=256", "offloaded", "smaller"]),
        ("compare", "cuda", torch.float16, ["together=False", "offloaded", "smaller"]),
    ],
)
def test_the_remedies_are_those_of_the_call(stage, device, dtype, words):
    remedies = remedies_for(stage, Like(device, dtype))
    assert len(remedies) == 3
    assert all(word in remedy for word, remedy in zip(words, remedies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("stage", ["generate", "predict", "embed", "decode", "encode", "compare"])
def test_a_remedy_is_one_that_the_package_accepts(tiny_model, stage, dtype):
    """Only a model on the CPU may be offloaded, and only once."""
    card = remedies_for(stage, Like("cuda", dtype))
    told = [remedy for remedy in card if "offloaded" in remedy]
    assert len(card) == 3 and len(told) == 1
    assert told[0].startswith(
        'load the model with device="cpu", dtype="float16", then `with offloaded(model)'
    )
    with offloaded(tiny_model, "cpu") as small:
        small = replace(small, place=torch.device("cuda"))
        in_turn = remedies_for(stage, small)
    assert len(set(in_turn)) == 3 and not any("`with offloaded" in told for told in in_turn)


def test_every_stage_tells(tiny_model, monkeypatch):
    def fail(*given, **options):
        raise torch.OutOfMemoryError(CUDA)

    picture = dl.decode(tiny_model, torch.zeros(4, 8, 8))
    tokens = dl.tokenize(tiny_model, "a car")
    for part, name, stage, call in (
        (tiny_model.vae, "decode", "decode", lambda: dl.decode(tiny_model, torch.zeros(4, 8, 8))),
        (tiny_model.vae, "encode", "encode", lambda: dl.encode(tiny_model, picture)),
        (tiny_model.text_encoders[0], "forward", "embed", lambda: dl.embed(tiny_model, tokens)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(part, name, fail, raising=False)
            with pytest.raises(MemoryExceeded, match=f"^{stage} ran out") as told:
                call()
        assert told.value.stage == stage
    assert told.value.shape == ()


def test_a_comparison_that_does_not_fit(tiny_model, failing):
    failing(torch.OutOfMemoryError(CUDA), call=2)
    with pytest.raises(MemoryExceeded) as told:
        dl.compare(tiny_model, "a car", seeds=[1, 2], num_steps=3, together=True, progress=False)
    assert told.value.stage == "predict_many"
    assert hasattr(told.value, "comparison")


# ---- afterwards ----------------------------------------------------------------------------------
def test_nothing_of_the_failed_call_stays_alive(tiny_model, failing):
    """While the error itself is held, as a notebook holds sys.last_value and its traceback."""
    network = failing(torch.OutOfMemoryError(CUDA))
    network.error = None  # the fixture holds no traceback either

    def forward(*given, **options):
        large = torch.zeros(1_000_000)
        network.held.append(weakref.ref(large))
        raise torch.OutOfMemoryError(CUDA)

    tiny_model.unet.forward = forward
    try:
        dl.generate(tiny_model, "a car", num_steps=2, progress=False)
    except MemoryExceeded as error:
        kept = error, error.__traceback__
        sys.last_value, sys.last_traceback = kept
    gc.collect()
    try:
        assert network.held and all(ref() is None for ref in network.held)
        assert kept[0].trace is not None
    finally:
        del sys.last_value, sys.last_traceback


def test_the_check_for_what_stays_alive_can_fail():
    held = []

    def fails():
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        raise RuntimeError(CPU)

    with pytest.raises(RuntimeError) as kept:
        fails()
    assert held[0]() is not None and kept.value is not None
    with pytest.raises(MemoryExceeded) as told:
        memory_told("work")(lambda model: fails())(None)
    assert held[1]() is None and told.value.stage == "work"


def test_an_error_that_the_user_was_handling_keeps_its_frames(tiny_model, failing):
    failing(torch.OutOfMemoryError(CUDA))

    def fails():
        mine = [1, 2, 3]
        raise KeyError(len(mine))

    try:
        fails()
    except KeyError as error:
        kept = error
        with pytest.raises(MemoryExceeded) as told:
            dl.generate(tiny_model, "a car", num_steps=2, progress=False)
    assert kept.__traceback__.tb_next.tb_frame.f_locals["mine"] == [1, 2, 3]
    assert told.value.__suppress_context__


def test_loading_has_remedies_of_its_own():
    def fails(source):
        raise RuntimeError(CPU)

    with pytest.raises(MemoryExceeded, match=r"^load ran out of memory \(needed 8e") as told:
        memory_told("load")(fails)("somewhere")
    assert "float16" in told.value.remedies[0] and "offloaded" in told.value.remedies[1]


def test_the_session_goes_on_as_if_nothing_had_been(tiny_model, failing, monkeypatch):
    run = dict(seed=4, num_steps=3, record={"predictions", "attention"}, progress=False)
    before = dl.generate(tiny_model, "a car", **run)
    failing(torch.OutOfMemoryError(CUDA), call=1)
    with pytest.raises(MemoryExceeded):
        dl.generate(tiny_model, "a car", **run)
    monkeypatch.undo()
    after = dl.generate(tiny_model, "a car", **run)
    assert np.array_equal(before.latents, after.latents)
    assert not any(part._forward_hooks for part in tiny_model.unet.modules())
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_bad_input_is_still_bad_input(tiny_model):
    with pytest.raises(InputError):
        dl.generate(tiny_model, "a car", num_steps=0)
    assert dl.generate.__doc__.startswith("Make one picture")


LIMITED = """
import resource
import torch
torch.set_num_threads(1)
import diffusionlab as dl
model = dl.load(device="cpu")
run = dict(num_steps=2, seed=1, progress=False)
before = dl.generate(model, "a red car", **run)
noise = dl.draw_noise(model, 1, 1024, 1024)
size = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (size + 250 * 2**20, -1))
print(dl.decode(model, noise).size)
try:
    dl.generate(model, "a red car", height=3072, width=3072, **run)
except dl.MemoryExceeded as error:
    print(error)
    print(len(error.trace.steps), error.needed > 0)
after = dl.generate(model, "a red car", **run)
print((before.latents == after.latents).all())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the process's memory")
def test_a_process_with_little_memory_says_so_and_goes_on():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    size, told, partial, same = done.stdout.strip().splitlines()
    assert size == "(1024, 1024)" and "decoded in tiles" in done.stderr
    assert told.startswith("predict ran out of memory on cpu with an input of shape (4, 384, 384)")
    assert (partial, same) == ("0 True", "True")


def test_a_device_gives_its_memory_back(accelerator, tiny_folder):
    model = dl.load(tiny_folder, device=accelerator)
    dl.generate(model, "a car", num_steps=2, progress=False)
    give_back()
    before = torch.accelerator.memory_allocated()
    real = model.unet.forward

    def forward(*given, **options):
        first = torch.zeros(2**26, device=accelerator)  # 268 MB that the failed call holds
        return real(*given, **options) + first.sum() + torch.zeros(2**45, device=accelerator).sum()

    model.unet.forward = forward
    try:
        dl.generate(model, "a car", num_steps=2, progress=False)
    except MemoryExceeded as error:
        kept = error
    del model.unet.forward
    assert kept.needed > 2**46
    assert torch.accelerator.memory_allocated() - before < 2**24
    assert dl.generate(model, "a car", num_steps=2, progress=False).image is not None


def test_a_mac_gives_its_memory_back_where_the_common_name_fails(monkeypatch):
    """Before torch 2.13 (pytorch issue 186430)."""
    emptied = []

    def fail():
        raise RuntimeError("Allocator for mps is not a DeviceAllocator.")

    with pretend("mps"):
        monkeypatch.setattr(torch.accelerator, "empty_cache", fail)
        monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append(True))
        give_back()
        monkeypatch.undo()
    assert emptied == [True]
