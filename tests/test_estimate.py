"""What a run will cost: counted without running it, and held against what it then takes."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import diffusionlab as dl
from diffusionlab.conditioning import prepare
from diffusionlab.errors import InputError
from diffusionlab.inside.estimate import estimate
from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig
from diffusionlab.pipeline.offload import offloaded
from diffusionlab.running.ledger import LiveBytes, matmul_rate, price
from diffusionlab.trace import Estimate, StageCost

ROOT = Path(__file__).parents[1]
estimating = sys.modules[estimate.__module__]


# ---- counting ------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_on_a_sequence_known_by_hand(device):
    given = torch.zeros(100, device=device)
    with LiveBytes() as live:
        one = given + 1  # 400
        two = torch.cat([one, one])  # 800
        assert (live.now, live.peak) == (1200, 1200)
        half = two[:100]  # a view takes nothing
        given.add_(half)  # nor does work in place
        del one
        assert (live.now, live.peak) == (800, 1200)
        del two
        assert live.now == 800  # the view keeps it
        del half
        three = torch.ones(400, device=device)
        assert (live.now, live.peak) == (1600, 1600)
    del three
    assert live.now == 0


def test_the_price_of_a_matrix_product():
    left, right = torch.zeros(20, 30, device="meta"), torch.zeros(30, 50, device="meta")
    found = price(lambda: left @ right)
    assert (found.flops, found.peak) == (2 * 20 * 30 * 50, 4 * 20 * 50)


def test_attention_is_priced_as_a_fused_kernel():
    query = torch.zeros(1, 2, 64, 8, device="meta")
    attend = torch.nn.functional.scaled_dot_product_attention
    found = price(lambda: attend(query, query, query))
    assert found.flops == 2 * 2 * 2 * 64 * 64 * 8
    assert found.peak == query.numel() * 4  # the probabilities would be 8 times as much
    with LiveBytes() as live:
        attend(query, query, query)
    assert live.peak > 2 * 64 * 64 * 4  # the check can fail


def test_the_matmul_rate_is_a_rate():
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32, seconds=0) < 1e15


# ---- against real runs ---------------------------------------------------------------------------
def live_peak(call) -> int:
    with torch.no_grad(), LiveBytes() as live:
        call()
    return live.peak


@pytest.mark.parametrize("size", [(64, 64), (128, 192)])
def test_the_estimate_is_what_the_stages_take(tiny_model, size):
    model, (height, width) = tiny_model, size
    told = {s.name: s for s in estimate(model, height=height, width=width, rate=1e9).stages}
    tokens = dl.tokenize(model, "a red car")
    text, uncond = dl.embed(model, tokens), dl.embed(model, dl.tokenize(model, ""))
    noise = dl.draw_noise(model, 1, height, width)
    level = model.schedule.levels(4)[1]

    def asked():
        prepared = prepare(model, text, uncond, 4.0)
        dl.predict(model, noise, level, text, uncond, 4.0, prepared)

    found = {
        "embed": live_peak(lambda: dl.embed(model, tokens)),
        "predict": live_peak(asked),
        "decode": live_peak(lambda: dl.decode(model, noise)),
    }
    print({name: (told[name].activations, peak) for name, peak in found.items()})
    for name, peak in found.items():
        assert 0.75 * peak <= told[name].activations <= 1.35 * peak, name


MEMORY = """
import sys
import torch
torch.set_num_threads(1)
import diffusionlab as dl
def status(name):
    text = open("/proc/self/status").read()
    return 1024 * int(text.split(name + ":")[1].split()[0])
model = dl.load(device="cpu")
told = {s.name: s.activations for s in dl.estimate(model, height=1024, width=1024, rate=1e9).stages}
noise = dl.draw_noise(model, 1, 1024, 1024)
dl.decode(model, dl.draw_noise(model, 1))
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
dl.decode(model, noise)
print(told["decode"], status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_estimate_is_what_the_process_takes():
    """The memory that the system counts, kernels' own workspace included."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told, taken = map(int, done.stdout.split())
    print(f"decode at 1024 pixels: told {told / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB")
    assert 0.6 * told < taken < 1.4 * told


def test_the_estimate_is_what_a_device_takes(accelerator, tiny_folder):
    model = dl.load(tiny_folder)
    run = dict(height=512, width=512, num_steps=2)
    told = dl.estimate(model, **run)
    dl.generate(model, "a car", progress=False, **run)
    gc.collect()
    before = torch.accelerator.memory_allocated()  # weights, and workspace that libraries keep
    torch.accelerator.reset_peak_memory_stats()
    dl.generate(model, "a car", progress=False, **run)
    taken = torch.accelerator.max_memory_allocated() - before + told.weights
    assert 0.6 * taken < told.peak < 1.6 * taken


# ---- known networks ------------------------------------------------------------------------------
SD15 = dict(
    sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
    down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    cross_attention_dim=768, attention_head_dim=8,
)  # fmt: skip
SD_VAE = dict(
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
)  # fmt: skip


def of_full_size(tiny_model, dtype, **changes):
    """Stable Diffusion 1.5's U-Net and VAE without memory, on the tiny text encoder."""
    with torch.device("meta"):
        unet = UNet(UNetConfig.from_dict(SD15)).to(dtype)
        vae = VAE(VAEConfig.from_dict(SD_VAE | changes)).to(dtype)
    return replace(tiny_model, unet=unet, vae=vae)


def test_stable_diffusion_1_5(tiny_model):
    """803 GFLOP a call and 2514 a decode; 859,520,964 weights and 83,653,863 of the VAE."""
    found = estimate(of_full_size(tiny_model, torch.float16), rate=1e14, num_steps=50)
    _, network, decoder = found.stages
    print(found)
    assert network.weights == 2 * 859_520_964
    assert decoder.weights == 2 * 83_653_863
    assert network.flops / 100 == pytest.approx(803e9, rel=0.01)
    assert decoder.flops == pytest.approx(2514e9, rel=0.01)
    assert found.seconds == found.flops / (1e14 * 0.5)
    assert found.size == (512, 512) and not found.measured
    whole = estimate(of_full_size(tiny_model, torch.float16, force_upcast=False), rate=1e14)
    copies = 4 * 83_653_863
    cast = decoder.activations - copies  # float32 instead of float16, and a copy of the weights
    assert cast == pytest.approx(2 * whole.stages[2].activations, rel=0.02)


def test_guidance_frames_and_samplers_are_counted(tiny_model):
    plain = estimate(tiny_model, rate=1e9)
    one = estimate(tiny_model, rate=1e9, guidance_scale=1.0)
    assert 2 * one.stages[1].flops == plain.stages[1].flops
    assert one.stages[1].activations < plain.stages[1].activations
    part = estimate(tiny_model, rate=1e9, guidance_scale=dl.Guidance(4.0, interval=(0.5, 3.0)))
    assert one.flops < part.flops < plain.flops
    heun = estimate(tiny_model, rate=1e9, sampler="heun")
    assert heun.stages[1].calls == 39
    frames = estimate(tiny_model, rate=1e9, record={"predictions", "frames"})
    assert frames.stages[2].calls == 21 and frames.record > plain.record
    assert plain.record == dl.recording_size(tiny_model).total


def test_tiles_take_less_memory_and_more_arithmetic(tiny_model):
    whole = estimate(tiny_model, rate=1e9, height=512, width=512)
    tiles = estimate(tiny_model, rate=1e9, height=512, width=512, tile=128)
    assert tiles.stages[2].calls == 25
    assert tiles.stages[2].activations < whole.stages[2].activations / 3
    assert tiles.stages[2].flops > whole.stages[2].flops


# ---- the record ----------------------------------------------------------------------------------
def made(**changes):
    stages = (
        StageCost("embed", 2, 10**9, 100, 50),
        StageCost("predict", 20, 4 * 10**12, 1000, 500),
        StageCost("decode", 1, 10**9, 200, 900),
    )
    given = dict(model="m", device="cpu", dtype="float32", size=(64, 48), num_steps=20,
                 stages=stages, record=12_345, rate=1e12, share=0.5)  # fmt: skip
    return Estimate(**given | changes)


def test_the_sums_of_an_estimate():
    found = made()
    assert found.flops == 4_002 * 10**9
    assert found.seconds == pytest.approx(8.004)
    assert (found.weights, found.peak, found.peak_offloaded) == (1300, 2200, 1500)
    assert found.fits is None
    assert made(free=900).fits and not made(free=899).fits
    one = made(free=1500, offloaded=True)  # of which no weights are on the device yet
    assert one.fits and not replace(one, free=1499).fits


def test_an_offloaded_model_s_weights_are_not_there_yet(tiny_model, monkeypatch):
    whole = estimate(tiny_model, rate=1e9)
    room = [whole.peak_offloaded]
    monkeypatch.setattr(estimating, "free_memory", lambda device: room[0])
    assert estimate(tiny_model, rate=1e9).fits and not whole.offloaded
    with offloaded(tiny_model, "cpu") as small:
        found = estimate(small, rate=1e9)
        assert found.offloaded and found.fits
        room[0] -= 1
        assert whole.peak - whole.weights <= room[0]  # which would do for a loaded model
        assert not estimate(small, rate=1e9).fits
        there = replace(small, vae=VAE(tiny_model.vae.config).to("meta"))  # on the device by now
        assert estimate(there, rate=1e9).free == room[0] + found.stages[2].weights


def test_what_an_estimate_says():
    text = repr(made(free=10))
    for told in ("64 × 48", "20 steps", "predict", "4,000", "about 8 s", "50% of the 1 TFLOP/s",
                 "does not fit", "2.2 kB", "1.5 kB", "12.3 kB", "Estimate"):  # fmt: skip
        assert told in text, told
    shared = [line for line in repr(made(offloaded=True)).splitlines() if "memory at" in line]
    assert "at most 1.5 kB on the device" in shared[0] and "all parts 2.2 kB" in shared[0]
    assert "fit" not in repr(made())
    assert "TFLOP/s that a matrix product reached here\n" in repr(made())
    assert "TFLOP/s that were given as its rate\n" in repr(made(measured=False))
    assert "about 3 min" in repr(made(rate=5e10)) and "2.2 h" in repr(made(rate=1e9))
    assert "&lt;b&gt;" in made(model="<b>")._repr_html_()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"height": 65}, "height"),
        ({"num_steps": 0}, "num_steps"),
        ({"sampler": "dim"}, "sampler"),
        ({"record": "all"}, "record"),
        ({"tile": 5}, "tile"),
        ({"rate": 0}, "rate"),
        ({"rate": math.inf}, "rate"),
        ({"rate": "fast"}, "rate"),
    ],
)
def test_bad_input(tiny_model, given, told):
    with pytest.raises(InputError, match=told):
        estimate(tiny_model, **{"rate": 1e9} | given)


def test_it_is_measured_unless_told(tiny_model):
    assert dl.estimate(tiny_model, num_steps=2).rate > 1e8
