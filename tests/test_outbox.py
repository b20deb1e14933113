"""What goes to the record in packed copies is the same, all of it, and in its place."""

from __future__ import annotations

import importlib
import threading
from functools import partial

import numpy as np
import pytest
import torch
from test_trace import same

from diffusionlab import generate, outbox, recorder
from diffusionlab.outbox import Outbox
from diffusionlab.side_by_side import compare
from diffusionlab.trace.spool import Memory, Spool

FAST = dict(seed=5, num_steps=4, progress=False)
RECORD = {"predictions", "attention", "blocks", "time", "frames"}
generating = importlib.import_module("diffusionlab.generate")


Packing = partial(Outbox, packs_all=True)  # as everything on a CUDA device is


@pytest.fixture
def packing(monkeypatch):
    monkeypatch.setattr(recorder, "Outbox", Packing)
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("record")]


@pytest.mark.parametrize("sampler", ["ddim", "heun", "ddpm"])
def test_a_packed_record_is_the_record(tiny_model, packing, monkeypatch, sampler, tmp_path):
    options = FAST | dict(sampler=sampler, record=RECORD)

    def both(folder):
        folder.mkdir()
        file = folder / "a.safetensors"
        return [generate(tiny_model, "a car", save_to=place, **options) for place in (None, file)]

    packed = both(tmp_path / "packed")
    monkeypatch.setattr(recorder, "Outbox", Outbox)
    assert same(packed, both(tmp_path / "plain"))


def test_each_step_is_one_copy_for_each_dtype(tiny_model, packing, monkeypatch):
    packed = []
    real = outbox.pack
    monkeypatch.setattr(outbox, "pack", lambda values: packed.append(real(values)) or packed[-1])
    generate(tiny_model, "a red car", **FAST, record={"predictions", "attention"})
    assert len(packed) == 4
    assert all(set(made) == {torch.float32, torch.float16} for made in packed)


def test_runs_in_lockstep_are_delivered_too(tiny_model, packing, monkeypatch):
    options = dict(seeds=[1, 2], num_steps=3, together=True, progress=False)
    made = compare(tiny_model, "a red car", **options)
    monkeypatch.setattr(recorder, "Outbox", Outbox)
    plain = compare(tiny_model, "a red car", **options)
    for ours, theirs in zip(made.traces, plain.traces, strict=True):
        assert same(ours, theirs)


def test_a_stopped_run_has_its_steps(tiny_model, packing, monkeypatch):
    calls, real = [], generating.predict

    def stopping(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    whole = generate(tiny_model, "a red car", **FAST)
    monkeypatch.setattr(generating, "predict", stopping)
    with pytest.raises(KeyboardInterrupt) as caught:
        generate(tiny_model, "a red car", **FAST)
    trace = caught.value.trace
    assert len(trace.steps) == 2 and np.array_equal(trace.latents, whole.latents[:3])


def test_a_late_error_comes_out(monkeypatch):
    """A thread notices that a disk is full; the run hears of it two steps later, or at the end."""

    class Full:
        def reserve(self):
            return 0

        def fill(self, row, value):
            raise OSError(28, "No space left on device", "a.safetensors")

    def send():
        box.keep(Full(), torch.ones(2))
        box.send()

    box = Packing()
    send(), send()
    with pytest.raises(OSError, match="No space left"):
        send()
    with pytest.raises(OSError, match="No space left"):
        box.wait()
    box.wait()  # told, and gone


def test_a_buffer_is_written_to_in_and_out_of_inference_mode():
    rows, box = Memory().room(2, (2,)), Packing()
    with torch.inference_mode():
        box.keep(rows, torch.ones(2))
        box.wait(), box.buffers.reverse()  # the same buffer again
    box.keep(rows, torch.zeros(2))
    box.wait()
    assert np.array_equal(rows.array, [[1, 1], [0, 0]])


def test_the_event_is_on_the_stream_of_the_copy(monkeypatch):
    """With a model on cuda:1 the current device may well be cuda:0."""
    said = []

    class OnSecond(torch.Tensor):
        is_cuda, device = True, torch.device("cuda:1")

    class Event:
        def record(self, stream=None):
            said.append(stream)

        def synchronize(self):
            said.append("waited")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    real = outbox.pack
    here = lambda values: real([value.as_subclass(torch.Tensor) for value in values])  # noqa: E731
    monkeypatch.setattr(outbox, "pack", here)
    rows, box = Memory().room(1, (2,)), Outbox()
    box.keep(rows, torch.ones(2).as_subclass(OnSecond))
    box.wait()
    assert said == ["stream of cuda:1", "waited"] and np.array_equal(rows.array, [[1, 1]])


def test_bfloat16_and_arrays_find_their_place(tmp_path):
    with Spool(tmp_path / "a") as spool:
        for store in (Memory(), spool):
            rows = store.room(3, (2,))
            box = Packing()
            first = box.keep(rows, torch.tensor([1.5, 2.5], dtype=torch.bfloat16))
            box.keep(rows, np.array([3.0, 4.0]))
            box.keep(rows, torch.tensor([5.0, 6.0]))
            box.wait()
            assert np.array_equal(np.asarray(first), [1.5, 2.5])
            assert np.array_equal(np.asarray(rows.first(3)), [[1.5, 2.5], [3, 4], [5, 6]])
