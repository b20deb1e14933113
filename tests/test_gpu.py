"""Everything that touches a device: on the CPU, on pretended ones and, with `-m gpu`, on CUDA.

The pretended devices (pretended.py) compute as the CPU does and refuse much of what real ones do.

Tolerances between devices (float32, TF32 off): latents within 2e-3 of their largest value after
four steps, and pictures at a PSNR of 40 dB or more; half precision within 5 % and 20 dB.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pretending import pretend
from test_graphs import Rerun
from test_trace import same

import diffusionlab as dl
from diffusionlab import recorder
from diffusionlab.compiling import compiled
from diffusionlab.conditioning import prepare
from diffusionlab.errors import MemoryExceeded
from diffusionlab.graphs import graphed
from diffusionlab.outbox import Outbox
from diffusionlab.pipeline import LatentDiffusion
from diffusionlab.samplers import SAMPLERS
from diffusionlab.stages import predict_many
from diffusionlab.taps import recording, rows

PROMPT = "a red car"
FAST = dict(seed=1, num_steps=4, progress=False)
EVERYTHING = {"predictions", "attention", "heads", "self_attention", "blocks", "frames", "time"}


LATER = {"like mps": pytest.mark.slow, "cuda": pytest.mark.gpu}


@pytest.fixture(
    params=["cpu", "like cuda", *(pytest.param(name, marks=mark) for name, mark in LATER.items())]
)
def device(request) -> Iterator[torch.device]:
    """A device; conftest.py keeps its float32 plain."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    like, _, kind = request.param.rpartition(" ")
    with pretend(kind) if like else nullcontext():
        yield torch.device(kind)


@pytest.fixture
def model(device, tiny_folder) -> LatentDiffusion:
    return awake(dl.load(tiny_folder, device="cpu"), device)


def awake(made: LatentDiffusion, device, dtype=torch.float32) -> LatentDiffusion:
    """The model on a device, no branch of its U-Net adding nothing."""
    draws = torch.Generator().manual_seed(0)
    for name, weights in made.unet.named_parameters():
        if name.endswith(("proj_out.weight", "conv2.weight", "to_out.0.weight")):
            weights.copy_(0.1 * torch.randn(weights.shape, generator=draws))
    for part in (made.unet, made.vae, *made.text_encoders):
        part.to(device, dtype)
    return made


def replaying(model: LatentDiffusion) -> LatentDiffusion:
    """With CUDA's graphs there, and with a stand-in on the CPU."""
    capture = None if model.device.type == "cuda" else Rerun()
    return dataclasses.replace(model, unet=graphed(model.unet, capture))


def off(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, of the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def psnr(ours, theirs) -> float:
    """Of two pictures, in decibels."""
    a, b = (np.asarray(image, np.float64) for image in (ours, theirs))
    error = np.square(a - b).mean()
    return 10 * math.log10(255**2 / error) if error else math.inf


# ---- runs --------------------------------------------------------------------------------------
def test_start_noise_and_picture_are_those_of_the_cpu(device, model, tiny_folder):
    here = awake(dl.load(tiny_folder, device="cpu"), "cpu")
    noises = [dl.draw_noise(m, 5).values for m in (model, here)]
    assert noises[0].device.type == device.type and torch.equal(noises[0].cpu(), noises[1])
    ours, theirs = (dl.generate(m, PROMPT, **FAST) for m in (model, here))
    assert off(ours.latents, theirs.latents) < 2e-3 and psnr(ours.image, theirs.image) > 40
    other = dl.generate(here, PROMPT, **FAST | dict(seed=2))  # the check can fail
    assert off(other.latents, theirs.latents) > 0.1 and psnr(other.image, theirs.image) < 40


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_makes_about_the_same(device, model, tiny_folder, kind):
    half = awake(dl.load(tiny_folder, device="cpu"), device, kind)
    theirs = dl.generate(model, PROMPT, **FAST)
    ours = dl.generate(half, PROMPT, record={"predictions", "attention", "blocks"}, **FAST)
    assert ours.latents.dtype == np.float32 and off(ours.latents, theirs.latents) < 0.05
    assert psnr(ours.image, theirs.image) > 20


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "graphs"])
def test_capture_leaves_the_picture_bit_for_bit(model, fast):
    model = replaying(model) if fast else model
    plain, captured = (
        dl.generate(model, PROMPT, record=record, **FAST)
        for record in ({"predictions"}, EVERYTHING)
    )
    assert np.array_equal(plain.latents, captured.latents)
    assert plain.image.tobytes() == captured.image.tobytes() and len(captured.attention) > 10
    assert all(np.isfinite(maps).all() for maps in captured.attention.values())


def test_two_runs_are_equal_on_one_device(model):
    first, second = (dl.generate(model, PROMPT, **FAST) for _ in range(2))
    assert np.array_equal(first.latents, second.latents)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_runs(device, model, tiny_folder, sampler):
    here = awake(dl.load(tiny_folder, device="cpu"), "cpu") if device.type != "cpu" else model
    options = FAST | dict(sampler=sampler, num_steps=max(4, SAMPLERS[sampler].min_steps))
    ours, theirs = (dl.generate(m, PROMPT, **options) for m in (model, here))
    assert off(ours.latents, theirs.latents) < 2e-2


def test_the_record_is_packed_and_the_same(device, model, monkeypatch, tmp_path):
    def both(name):
        file = tmp_path / name / "a.safetensors"
        options = FAST | dict(record=EVERYTHING)
        return [dl.generate(model, PROMPT, save_to=place, **options) for place in (None, file)]

    class OneByOne(Outbox):
        def keep(self, rows, value):
            assert isinstance(value, torch.Tensor) and value.is_cuda == (device.type == "cuda")
            return rows.keep(value)

    packed = both("packed")
    monkeypatch.setattr(recorder, "Outbox", OneByOne)
    assert same(packed, both("one by one"))


def test_runs_share_calls(model):
    together, alone = (
        dl.compare(model, PROMPT, seeds=[1, 2, 3], num_steps=4, together=share, progress=False)
        for share in (True, False)
    )
    for a, b in zip(together.traces, alone.traces, strict=True):
        assert off(a.latents, b.latents) < 2e-3


# ---- stages and the inside ---------------------------------------------------------------------
def test_every_stage_stays_on_its_device(device, model):
    tokens = dl.tokenize(model, PROMPT)
    text, uncond = dl.embed(model, tokens), dl.embed(model, dl.tokenize(model, ""))
    assert text.hidden[0].device.type == device.type
    noise = dl.draw_noise(model, 1, 48, 64)
    latent = dl.encode(model, dl.decode(model, noise))
    level = model.schedule.level_at(timestep=500)
    noisy = dl.add_noise(latent, noise, level)
    asked = (noisy.values, level, text, uncond, 4.0)
    said = dl.predict(model, noisy, *asked[1:])
    prepared = dl.predict(model, noisy, *asked[1:], prepare(model, text, uncond, 4.0))
    for value in (latent.values, noisy.values, said.x0, prepared.x0):
        assert value.device.type == device.type
    assert torch.equal(said.guided, prepared.guided)
    for other in predict_many(model, [asked, asked]):
        torch.testing.assert_close(other.x0, said.x0, rtol=1e-3, atol=1e-3)


def test_the_inside_runs(device, model, tiny_folder):
    base = dl.generate(model, PROMPT, record={"attention", "heads"}, **FAST)
    text = dl.embed(model, dl.tokenize(model, "a blue boat"))
    blocks = [
        dl.zero_tap(model, "down_blocks.0.skips.0"),
        dl.zero_heads(model, "*attn1", [0, 2]),
        dl.reweight_words(model, base.tokens, {"red": 6.0}),
        dl.swap_text(model, text, steps=[0, 1]),
        dl.freeze_attention(model, base),
    ]
    for block in blocks:
        with block:
            dl.generate(model, PROMPT, **FAST)
    assert dl.embed_layers(model, base.tokens)
    assert dl.anatomy(model)
    noising = dl.noise_image(model, base.image, (0, 500), prompt=PROMPT)
    assert np.isfinite(noising.latents).all()
    assert dl.fit_preview(model, [base.image] * 2)


# ---- graphs ------------------------------------------------------------------------------------
def test_graphs_equal_the_ordinary_way(device, model):
    fast = replaying(model)
    for options in (
        dict(),
        dict(guidance_scale=1.0),
        dict(guidance_scale=dl.Guidance(4.0, interval=(0.5, 5.0))),
        dict(height=48, width=64, sampler="heun"),
        dict(record={"predictions", "attention", "heads", "self_attention"}),
    ):
        ours, theirs = (dl.generate(m, PROMPT, **FAST | options) for m in (fast, model))
        assert off(ours.latents, theirs.latents) < 1e-4
        for name, maps in theirs.attention.items():
            assert off(ours.attention[name].astype(float), maps.astype(float)) < 1e-2
    assert len(fast.unet.replays.graphs) == 4 and not fast.unet.replays.refused


def test_graphs_notice_watchers_and_weights(model):
    fast = replaying(model)
    plain = dl.generate(fast, PROMPT, **FAST)
    with dl.zero_tap(fast, "mid_block.output"), dl.zero_tap(model, "mid_block.output"):
        ours, theirs = (dl.generate(m, PROMPT, **FAST) for m in (fast, model))
    assert off(ours.latents, theirs.latents) < 1e-4 < off(ours.latents, plain.latents)
    assert np.array_equal(dl.generate(fast, PROMPT, **FAST).latents, plain.latents)
    other = torch.nn.Parameter(-fast.unet.conv_out.weight, requires_grad=False)
    fast.unet.conv_out.weight = other
    model.unet.conv_out.weight = other
    ours, theirs = (dl.generate(m, PROMPT, **FAST) for m in (fast, model))
    assert off(ours.latents, theirs.latents) < 1e-4 < off(ours.latents, plain.latents)


def test_what_a_graph_hands_out_stays(device, model):
    fast = replaying(model).unet
    sample = torch.randn(2, 4, 8, 8, device=device)
    text = torch.randn(2, 32, 32, device=device)
    with torch.no_grad(), rows(slice(1, None)), recording(fast, ["*"]) as record:
        first = fast(sample, torch.tensor(700.0, device=device), text)
        kept = first.clone(), {name: values[0].clone() for name, values in record.items()}
        fast(-sample, torch.tensor(3.0, device=device), -text)
    assert torch.equal(first, kept[0])
    assert all(torch.equal(record[name][0], value) for name, value in kept[1].items())


@pytest.mark.gpu
def test_compiled_parts_inside_a_graph(tiny_folder):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    model = awake(dl.load(tiny_folder, device="cpu"), "cuda")
    fast = dataclasses.replace(model, unet=compiled(graphed(model.unet)))
    theirs = dl.generate(model, PROMPT, **FAST)
    ours, captured = (
        dl.generate(fast, PROMPT, record=record, **FAST)
        for record in ({"predictions"}, {"predictions", "attention"})
    )
    assert off(ours.latents, theirs.latents) < 1e-2
    assert np.array_equal(ours.latents, captured.latents)


# ---- memory ------------------------------------------------------------------------------------
@pytest.mark.parametrize("fast", [False, True], ids=["plain", "graphs"])
def test_memory_that_runs_out_is_told_and_given_back(accelerator, tiny_folder, fast):
    if accelerator.type != "cuda":
        pytest.skip("only CUDA's memory can be limited")
    model = awake(dl.load(tiny_folder, device="cpu"), "cuda")
    model = replaying(model) if fast else model
    dl.generate(model, PROMPT, **FAST)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # the U-Net takes 53 MiB at 1024 pixels; the decoder would be content with tiles
    limit = (torch.cuda.memory_reserved() + 24 * 2**20) / total
    torch.cuda.set_per_process_memory_fraction(limit)
    try:
        with pytest.raises(MemoryExceeded) as told:
            dl.generate(model, PROMPT, height=1024, width=1024, **FAST)
        assert len(told.value.remedies) == 3
        dl.generate(model, PROMPT, **FAST)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
