"""Devices, dtypes, parts that take turns, and estimates before a run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import diffusionlab as dl
from diffusionlab.errors import InputError
from diffusionlab.models import UNet
from diffusionlab.pipeline import devices, offload
from diffusionlab.pipeline.devices import best_dtype, checked_device, checked_dtype
from diffusionlab.pipeline.offload import offloaded
from diffusionlab.running import tiles
from diffusionlab.running.lending import tensors_of
from diffusionlab.running.memory import give_back

RUN = dict(seed=5, num_steps=3, progress=False)


# ---- device and dtype ----------------------------------------------------------------------------
def unet_like(parameters, **config):
    """A network without memory and of so many parameters, with a config."""
    with torch.device("meta"):
        made = nn.Linear(parameters, 1, bias=False)
    made.config = type("Config", (), config)()
    return made


SMALL, LARGE = 100_000_000, 100_000_001


@pytest.mark.parametrize(
    ("device", "parameters", "upcast", "dtype"),
    [
        ("cpu", LARGE, False, torch.float32),
        ("cpu", SMALL, True, torch.float32),
        ("cuda", SMALL, False, torch.float32),
        ("cuda", LARGE, False, torch.float16),
        ("cuda", LARGE, True, torch.bfloat16),
        ("mps", SMALL, True, torch.float32),
        ("mps", LARGE, False, torch.float16),
        ("mps", LARGE, True, torch.bfloat16),
    ],
)
def test_the_dtype_follows_device_and_size(monkeypatch, device, parameters, upcast, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    unet = unet_like(parameters, upcast_attention=upcast)
    assert best_dtype(torch.device(device), unet) == dtype


def test_bfloat16_needs_a_device_that_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    unet = unet_like(LARGE, upcast_attention=True)
    assert best_dtype(torch.device("cuda"), unet) == torch.float16


def test_toyland_is_small(tiny_model):
    assert sum(p.numel() for p in dl.load(device="cpu").unet.parameters()) < devices.LARGE
    assert best_dtype(torch.device("cuda"), tiny_model.unet) == torch.float32


def test_a_given_dtype_is_checked_against_the_device():
    cpu, mps = torch.device("cpu"), torch.device("mps")
    assert checked_dtype(None, cpu) is None
    assert checked_dtype("torch.float16", mps) == checked_dtype(torch.float16, cpu) == torch.float16
    assert checked_dtype("float64", cpu) == torch.float64
    with pytest.raises(InputError, match="float64 is not on Apple"):
        checked_dtype("float64", mps)
    for wrong in ("int8", torch.int8, 16, "half"):
        with pytest.raises(InputError, match="allowed are float32"):
            checked_dtype(wrong, cpu)


def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert checked_device(None) == torch.device("cpu")
    for wrong in ("cuda", "mps", "cpu:3", "gpu", 7.5):
        with pytest.raises(InputError, match="allowed are 'cpu'"):
            checked_device(wrong)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    assert checked_device(None) == torch.device("mps")


def test_a_schedule_holds_no_tensor_that_a_device_could_not_take(tiny_model):
    """MPS knows no float64: what a run hands to the device is float32."""
    seen = set()
    with dl.recording(tiny_model.unet, ["time"]) as tape:
        dl.generate(tiny_model, "a car", **RUN)
    seen |= {value.dtype for values in tape.values() for value in values}
    assert seen == {torch.float32}
    assert isinstance(tiny_model.schedule.levels(3)[0].sigma, float)


@pytest.mark.parametrize(("dtype", "step"), [("float16", 2**-10), ("bfloat16", 2**-7)])
def test_a_model_in_half_precision_makes_a_picture(tiny_folder, dtype, step):
    model = dl.load(tiny_folder, device="cpu", dtype=dtype)
    trace = dl.generate(model, "a red car", **RUN)
    whole = dl.generate(dl.load(tiny_folder, device="cpu"), "a red car", **RUN)
    assert np.isfinite(trace.latents).all()
    difference = np.abs(trace.latents[-1] - whole.latents[-1]).max()
    print(f"{dtype}: largest difference of the last latent {difference:.3g}")
    assert 0 < difference < 100 * step * np.abs(whole.latents[-1]).max()
    assert trace.image.size == whole.image.size


# ---- parts that take turns -----------------------------------------------------------------------
@pytest.fixture
def counted(monkeypatch):
    """Which group of parts was moved, tensor by tensor."""
    seen = []
    real = offload.Turns.moved

    def moved(self, values):
        seen.append(self.present)
        return real(self, values)

    monkeypatch.setattr(offload.Turns, "moved", moved)
    return seen


def all_tensors(model):
    parts = (*model.text_encoders, model.unet, model.vae)
    return [t for part in parts for t in (*part.parameters(), *part.buffers())]


def untouched(model, pointers):
    assert [t.data_ptr() for t in all_tensors(model)] == pointers
    parts = (*model.text_encoders, model.unet, model.vae)
    hooks = [h for part in parts for m in part.modules() for h in m._forward_pre_hooks.values()]
    assert {h.__name__ for h in hooks} <= {"_in_channels_last"}  # which loading puts on a VAE
    names = set(offload.ENTRANCES)
    assert not any(names & set(vars(m)) for part in parts for m in part.modules())


def test_an_offloaded_run_is_the_same_and_moves_each_part_once(tiny_model, counted):
    expected = dl.generate(tiny_model, "a red car", **RUN)
    pointers = [t.data_ptr() for t in all_tensors(tiny_model)]
    with offloaded(tiny_model, "cpu") as small:
        trace = dl.generate(small, "a red car", **RUN)
        groups = [small.text_encoders, (small.unet,), (small.vae,)]
        counts = [sum(len(tensors_of(part)) for part in group) for group in groups]
        assert counted == [0] * counts[0] + [1] * counts[1] + [2] * counts[2]
        again = dl.generate(small, "a red car", **RUN)
        assert len(counted) == 2 * sum(counts)
    assert np.array_equal(trace.latents, expected.latents)
    assert np.array_equal(np.asarray(again.image), np.asarray(expected.image))
    untouched(tiny_model, pointers)


def test_only_one_part_is_away_from_home_at_a_time(tiny_model):
    home = {id(t): t.data_ptr() for t in all_tensors(tiny_model)}
    parts = {"text": tiny_model.text_encoders[0], "unet": tiny_model.unet, "vae": tiny_model.vae}
    seen = []

    def is_away(part):
        return any(t.data_ptr() != home[id(t)] for t in part.parameters())

    def away():
        return [name for name, part in parts.items() if is_away(part)]

    with ExitStack() as stack:
        for name, part in (parts | {"vae": parts["vae"].decoder}).items():
            hook = part.register_forward_hook(lambda *_, name=name: seen.append((name, away())))
            stack.callback(hook.remove)
        with offloaded(tiny_model, "cpu") as small:
            dl.generate(small, "a red car", **RUN)
    assert {name for name, _ in seen} == set(parts)
    assert all(there == [name] for name, there in seen)
    assert away() == []


def test_free_memory_is_asked_for_once_the_others_have_left_the_device(tiny_model, monkeypatch):
    home, seen = {id(t): t.data_ptr() for t in all_tensors(tiny_model)}, []

    def free_memory(_device):
        seen.append([any(t.data_ptr() != home[id(t)] for t in part.parameters())
                     for part in (tiny_model.unet, tiny_model.vae)])  # fmt: skip

    monkeypatch.setattr(tiles, "free_memory", free_memory)
    monkeypatch.setattr(tiles, "tile_cells", lambda *_: 0)  # a picture larger than a tile
    with offloaded(tiny_model, "cpu") as small:
        dl.generate(small, "a red car", **RUN)
    assert seen == [[False, True]]
    assert "arrive" not in vars(tiny_model.vae)


def test_offloading_works_in_half_precision_where_the_vae_is_cast(tiny_folder):
    model = dl.load(tiny_folder, device="cpu", dtype="float16")
    expected = dl.generate(model, "a red car", **RUN)
    pointers = [t.data_ptr() for t in all_tensors(model)]
    with offloaded(model, "cpu") as small:
        first = dl.generate(small, "a red car", **RUN)
        picture = dl.decode(small, first.latents[-1])
        dl.encode(small, picture)
    assert np.array_equal(np.asarray(first.image), np.asarray(expected.image))
    assert np.array_equal(np.asarray(picture), np.asarray(expected.image))
    untouched(model, pointers)


@pytest.mark.parametrize("where", ["text", "unet", "decoder"])
def test_an_interrupt_leaves_everything_in_place(tiny_model, where):
    pointers = [t.data_ptr() for t in all_tensors(tiny_model)]
    parts = dict(text=tiny_model.text_encoders[0], unet=tiny_model.unet,
                 decoder=tiny_model.vae.decoder)  # fmt: skip

    def stop(*_):
        raise KeyboardInterrupt

    hook = parts[where].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt), offloaded(tiny_model, "cpu") as small:
        dl.generate(small, "a red car", **RUN)
    hook.remove()
    untouched(tiny_model, pointers)


def test_interventions_and_layers_work_while_offloaded(tiny_model):
    text = dl.embed(tiny_model, dl.tokenize(tiny_model, "a blue boat"))
    with dl.swap_text(tiny_model, text, steps=None):
        expected = dl.generate(tiny_model, "a red car", **RUN)
    with offloaded(tiny_model, "cpu") as small, dl.swap_text(small, text, steps=None):
        trace = dl.generate(small, "a red car", **RUN)
    assert np.array_equal(trace.latents, expected.latents)


def test_what_cannot_be_offloaded(tiny_model):
    with pytest.raises(InputError, match="on the CPU is allowed"), offloaded("toyland"):
        pass
    with pytest.raises(InputError, match="not on this machine"), offloaded(tiny_model, "tpu"):
        pass
    with torch.device("meta"):
        on_meta = replace(tiny_model, unet=UNet(tiny_model.unet.config))
    with pytest.raises(InputError, match='load it with device="cpu"'), offloaded(on_meta, "cpu"):
        pass


# ---- how much a device holds ---------------------------------------------------------------------
BALLAST = 2**24  # float32 numbers that each part is given: far more than all else in a tiny run


class Allocated:
    """What the accelerator's allocator counts, beyond what was there at the start."""

    def __init__(self):
        give_back()
        self.before = torch.accelerator.memory_allocated()
        torch.accelerator.reset_peak_memory_stats()

    def count(self) -> int:
        return torch.accelerator.memory_allocated() - self.before

    @property
    def most(self) -> int:
        return torch.accelerator.max_memory_allocated() - self.before


@pytest.mark.parametrize("keeps", [False, True], ids=["in turn", "never sent home"])
def test_a_device_holds_one_part_at_a_time(accelerator, tiny_folder, monkeypatch, keeps):
    """At most the largest part and what a run makes; parts that stay would be seen as their sum."""
    expected = dl.generate(dl.load(tiny_folder, device=accelerator), "a red car", **RUN)
    model = dl.load(tiny_folder, device="cpu")
    parts = (*model.text_encoders, model.unet, model.vae)
    for part in parts:
        part.register_buffer("ballast", torch.zeros(BALLAST))
    with offloaded(model) as small:  # libraries take their workspace, and keep it
        dl.generate(small, "a red car", **RUN)
    memory = Allocated()
    with monkeypatch.context() as patch, offloaded(model) as small:
        assert small.device.type == accelerator.type
        if keeps:
            patch.setattr(offload.Turns, "send_home", lambda turns, number: None)
        trace = dl.generate(small, "a red car", **RUN)
        del small
    sizes = sorted(devices.bytes_of([part]) for part in parts)
    if keeps:
        assert memory.most >= sum(sizes)
    else:  # the ballast of a second part would be more than what a run makes
        assert sizes[-1] <= memory.most < sizes[0] + sizes[1]
    assert np.abs(trace.latents - expected.latents).max() < 1e-3
    assert memory.count() < 2**24 and model.device.type == "cpu"
