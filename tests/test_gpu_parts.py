"""Every family, every way to a model and all that stands beside a run, on every kind of device.

In float32 devices and tolerances are those of tests/test_gpu.py; vectors, maps and losses are
within 2e-3 of the CPU's largest too, and losses after the first step of learning within 1e-2.
float16 is within 1e-2 and 45 dB of float32: on a CPU it is within 2e-3 and 58 dB, and another
prompt no nearer than 3e-2 and 44 dB.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil

import diffusers
import numpy as np
import pytest
import test_gpu
import torch
from original_layout import pipeline, text_encoder, write_single_file
from pretended import Pretended
from safetensors.torch import load_file, save_file
from test_gpu import FAST, PROMPT, off, psnr, replaying
from test_parity_families import FAMILIES
from tiny import tiny_tokenizer
from torch import nn

import diffusionlab as dl
from diffusionlab import cli, doctor
from diffusionlab.claims import Bench
from diffusionlab.claims.attention import maps_and_masks
from diffusionlab.claims.known_pictures import asked, known
from diffusionlab.claims.network import told_the_time_by_waves
from diffusionlab.claims.untrained import untrained
from diffusionlab.errors import CheckpointError, InputError, NumericsError
from diffusionlab.models import TinyVAE
from diffusionlab.pipeline.offload import offloaded
from diffusionlab.pipeline.tensors import ROW, read_tensors
from diffusionlab.pipeline.weights import read_header
from diffusionlab.running.lending import tensors_of
from diffusionlab.trace import Trace
from diffusionlab.training import lesson as lessons
from diffusionlab.training import presets
from diffusionlab.training.judge_nets import judge, load_judges, segment
from diffusionlab.training.pictures import draw, latents_of, text_vectors
from diffusionlab.training.quality import nearest

device, model = test_gpu.device, test_gpu.model  # fixtures
SMALL = FAST | dict(height=64, width=64)


def parts(made: dl.LatentDiffusion) -> list[nn.Module]:
    return [made.unet, made.vae, *made.text_encoders]


def places(made: dl.LatentDiffusion) -> set[str]:
    """Where the weights and the buffers lie."""
    return {tensor.device.type for part in parts(made) for tensor in tensors_of(part)}


def weights(made: dl.LatentDiffusion) -> list[torch.Tensor]:
    return [tensor.cpu() for part in parts(made) for tensor in part.state_dict().values()]


def same_weights(ours: dl.LatentDiffusion, theirs: dl.LatentDiffusion) -> bool:
    return all(map(torch.equal, weights(ours), weights(theirs)))


def alike(ours: Trace, theirs: Trace) -> bool:
    """One start noise, and latents and picture within the tolerances."""
    start = np.array_equal(ours.latents[0], theirs.latents[0])
    near = off(ours.latents, theirs.latents) < 2e-3
    return start and near and psnr(ours.image, theirs.image) > 40


# ---- families ----------------------------------------------------------------------------------
HERE = ("Stable Diffusion 2.x v", "SDXL", "LCM-SDXL")  # the others wait for `-m gpu`
LATER = [pytest.param(name, marks=pytest.mark.gpu) for name in FAMILIES if name not in HERE]


@pytest.fixture(scope="module", params=[*HERE, *LATER])
def family(request, tmp_path_factory):
    """A family's folder, as diffusers writes it."""
    folder = tmp_path_factory.mktemp("family") / "model"
    FAMILIES[request.param]().save_pretrained(folder)
    return folder


def test_every_family_makes_the_picture_of_the_cpu(device, family):
    there, here = (dl.load(family, device=where) for where in (device, "cpu"))
    assert places(there) == {device.type}
    ours, theirs = (dl.generate(m, PROMPT, **FAST) for m in (there, here))
    assert alike(ours, theirs)
    other = dl.generate(here, "a blue boat", **FAST)
    assert not alike(other, theirs)  # the check can fail
    captured = dl.generate(there, PROMPT, record={"predictions", "attention"}, **FAST)
    assert np.array_equal(captured.latents, ours.latents)
    assert captured.image.tobytes() == ours.image.tobytes() and captured.attention
    fast = replaying(there)
    replayed = dl.generate(fast, PROMPT, **FAST)
    assert off(replayed.latents, ours.latents) < 1e-4
    assert fast.unet.replays.graphs and not fast.unet.replays.refused


def test_every_family_works_in_half_precision(device, family):
    half, whole = (dl.load(family, device=device, dtype=d) for d in ("float16", "float32"))
    ours, theirs = (dl.generate(m, PROMPT, **FAST) for m in (half, whole))
    other = dl.generate(whole, "a blue boat", **FAST)
    assert off(ours.latents, theirs.latents) < 1e-2 < off(other.latents, theirs.latents)
    assert psnr(ours.image, theirs.image) > 45 > psnr(other.image, theirs.image)
    pixels = dl.stages.decode_pixels(half, dl.draw_noise(half, 1).values)
    assert (pixels.dtype, pixels.device.type) == (torch.float32, device.type)  # `force_upcast`
    assert {p.dtype for part in parts(half) for p in part.parameters()} == {torch.float16}


def test_every_family_shares_calls_and_can_be_changed(device, family):
    made, run = dl.load(family, device=device), FAST | dict(num_steps=2)
    both = dl.compare(made, prompts=[PROMPT, "a blue boat"], seed=1, num_steps=2, together=True,
                      progress=False)  # fmt: skip
    for trace, prompt in zip(both.traces, (PROMPT, "a blue boat"), strict=True):
        assert off(trace.latents, dl.generate(made, prompt, **run).latents) < 2e-3
    text = dl.embed(made, dl.tokenize(made, "a blue boat"))
    with dl.swap_text(made, text):
        swapped = dl.generate(made, PROMPT, **run)
    wanted, plain = (trace.latents for trace in both.traces[::-1])
    near, far = off(swapped.latents, wanted), off(swapped.latents, plain)
    assert near < 2e-3 or made.is_xl  # which hears the pooled text besides
    assert far > 2e-3
    noising = dl.noise_image(made, both.traces[0].image, (0, 500), prompt=PROMPT)
    assert np.isfinite(noising.latents).all() and len(noising.x0_images) == 2


def test_sdxl_s_text_and_its_turns_on_the_device(device, tmp_path):
    FAMILIES["SDXL"]().save_pretrained(tmp_path)
    there, home = (dl.load(tmp_path, device=d, dtype="float16") for d in (device, "cpu"))
    text = dl.embed(there, dl.tokenize(there, PROMPT))
    assert {text.pooled.device.type, *(rows.device.type for rows in text.hidden)} == {device.type}
    expected = dl.generate(there, PROMPT, **FAST)
    with offloaded(home, device) as small:
        trace = dl.generate(small, PROMPT, **FAST)
        told = dl.estimate(small, num_steps=2, rate=1e12)
    assert np.array_equal(trace.latents, expected.latents)
    assert psnr(trace.image, expected.image) > 40
    assert (told.free is None) == (device.type == "cpu") and places(home) == {"cpu"}


# ---- other ways to a model ---------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["SD 2", "SDXL"])
def test_a_single_file_is_its_folder(device, tmp_path, kind):
    pipe = pipeline(kind)
    pipe.save_pretrained(tmp_path / "folder")
    path = write_single_file(pipe, tmp_path / "model.safetensors")
    there = dl.load(path, device=device, tokenizer=tmp_path / "folder")
    here = dl.load(tmp_path / "folder", device="cpu")
    assert places(there) == {device.type} and same_weights(there, here)
    ours, theirs = (dl.generate(m, PROMPT, **SMALL) for m in (there, here))
    assert alike(ours, theirs)


@pytest.mark.parametrize("kind", ["SD 1", "SDXL"])
def test_a_pipeline_on_the_device_is_shared_without_a_copy(device, kind):
    pipe = pipeline(kind)
    pipe.set_progress_bar_config(disable=True)
    expected = dl.generate(dl.LatentDiffusion.from_diffusers(pipe), PROMPT, **SMALL)
    made = dl.LatentDiffusion.from_diffusers(pipe.to(device))
    theirs = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    addresses = {tensor.data_ptr() for part in theirs for tensor in part.parameters()}
    assert places(made) == {device.type}
    assert {tensor.data_ptr() for part in parts(made) for tensor in part.parameters()} == addresses
    trace = dl.generate(made, PROMPT, guidance_scale=4.0, **SMALL)
    assert alike(trace, expected)
    start = torch.tensor(trace.latents[0], device=device)[None]
    latents = pipe(PROMPT, latents=start, num_inference_steps=4, height=64, width=64,
                   guidance_scale=4.0, output_type="latent").images[0]  # fmt: skip
    assert off(trace.latents[-1], latents.cpu().numpy()) < 2e-3


def test_other_parts_come_to_the_device(device, tmp_path):
    pipeline("SD 1").save_pretrained(tmp_path / "model")
    torch.manual_seed(5)
    diffusers.AutoencoderTiny().save_pretrained(tmp_path / "taesd")
    text_encoder(tiny_tokenizer(), "gelu").save_pretrained(tmp_path / "text")
    given = dict(vae=tmp_path / "taesd", text_encoder=tmp_path / "text")
    plain, here = (dl.load(tmp_path / "model", device=where) for where in (device, "cpu"))
    swapped, loaded = plain.with_parts(**given), dl.load(tmp_path / "model", device=device, **given)
    expected = dl.generate(here.with_parts(**given), PROMPT, **SMALL)
    for made in (swapped, loaded, plain.with_parts(vae=loaded, text_encoder=loaded)):
        assert isinstance(made.vae, TinyVAE) and places(made) == {device.type}
        assert same_weights(made, loaded) and made.unet.conv_in.weight.device == plain.device
        assert alike(dl.generate(made, PROMPT, **SMALL), expected)
    back = [dl.encode(m, expected.image).values.cpu().numpy() for m in (swapped, loaded)]
    assert np.array_equal(*back)
    assert not alike(dl.generate(plain, PROMPT, **SMALL), expected)
    with torch.device("meta"):
        elsewhere = TinyVAE(swapped.vae.config)
    with pytest.raises(InputError, match=f"float32 on meta, the model torch.float32 on {device}"):
        plain.with_parts(vae=elsewhere)


def test_what_is_saved_from_the_device_is_the_same(device, tiny_folder, tmp_path):
    there, here = (dl.load(tiny_folder, device=where) for where in (device, "cpu"))
    again = dl.load(dl.save(there, tmp_path / "saved"), device="cpu")
    assert places(again) == {"cpu"} and same_weights(again, here)


# ---- numbers that are not finite ---------------------------------------------------------------
class Elsewhere(str):
    """A device's name, for a device that is not the CPU even where it is."""

    type = "elsewhere"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_weights_that_are_not_finite_off_the_cpu_are_named(device, tmp_path, dtype):
    where, count = Elsewhere(device), 3 * ROW + 5
    path = tmp_path / "a.safetensors"
    large = torch.full((count,), torch.finfo(dtype).max)  # its sum would be infinite
    plain = dict(a=torch.zeros(count), large=large.float(), none=torch.zeros(0), one=torch.ones(()))
    save_file(plain, path)
    read = read_tensors(read_header(path), device=where, dtype=dtype)
    assert all(tensor.device.type == device.type for tensor in read.values())
    assert torch.equal(read["large"].cpu().float(), plain["large"])
    for place in (0, ROW, count - 1):
        for wrong in (torch.nan, torch.inf, -torch.inf):
            bad = torch.zeros(count)
            bad[place] = wrong
            save_file(plain | dict(a=bad, one=torch.tensor(wrong)), path)
            with pytest.raises(CheckpointError, match=r"not finite in \w+: 'a', 'one';"):
                read_tensors(read_header(path), device=where, dtype=dtype)


def test_what_the_cast_makes_infinite_is_named_off_the_cpu(device, tmp_path):
    save_file(dict(a=torch.tensor([1.0, 7e4])), path := tmp_path / "a.safetensors")
    for dtype in (torch.float32, torch.bfloat16):
        read_tensors(read_header(path), device=Elsewhere(device), dtype=dtype)
    with pytest.raises(CheckpointError, match="not finite in float16: 'a';"):
        read_tensors(read_header(path), device=Elsewhere(device), dtype=torch.float16)


def test_nan_in_a_network_is_told_with_its_place(device, tiny_folder, tmp_path, capsys):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    path.unlink()
    save_file(state | {"conv_in.bias": torch.full_like(state["conv_in.bias"], torch.nan)}, path)
    with pytest.raises(CheckpointError, match=r"not finite in float32: 'conv_in\.bias'"):
        dl.load(folder, device=device)
    broken = dl.load(folder, device=device, allow_nonfinite=True)
    assert "'conv_in.bias'; they are used as they are" in capsys.readouterr().err
    with pytest.raises(NumericsError, match="first non-finite module: conv_in;"):
        dl.generate(broken, PROMPT, **FAST)
    encoder = broken.text_encoders[0]
    getattr(encoder, "text_model", encoder).final_layer_norm.weight.fill_(torch.nan)
    with pytest.raises(NumericsError, match="text encoder 0 returned NaN .*final_layer_norm;"):
        dl.embed(broken, dl.tokenize(broken, PROMPT))
    with pytest.raises(NumericsError, match="decode made NaN"):
        dl.decode(broken, torch.full((4, 8, 8), torch.nan, device=device))


# ---- beside a run ------------------------------------------------------------------------------
def test_records_of_the_cpu_serve_a_model_elsewhere(device, model, tiny_folder):
    here = test_gpu.awake(dl.load(tiny_folder, device="cpu"), "cpu")
    trace, level = dl.generate(here, PROMPT, **FAST), here.schedule.level_at(timestep=500)
    texts = [dl.embed(here, dl.tokenize(here, text)) for text in (PROMPT, "")]
    ours, theirs = (dl.predict(m, trace.latents[1], level, *texts, 4.0) for m in (model, here))
    assert ours.x0.device.type == device.type
    assert off(ours.x0.cpu().numpy(), theirs.x0.numpy()) < 2e-3
    assert psnr(dl.decode(model, trace.latents[-1]), trace.image) > 40
    given = dl.generate(model, "a blue boat", text_embedding=texts[0], **FAST)
    assert alike(given, trace)


def test_pictures_are_embedded_as_on_the_cpu(device):
    dice = np.random.default_rng(0)
    images = [dice.integers(0, 256, (*s, 3), dtype=np.uint8) for s in ((100, 160), (128, 128))]
    images.append(np.full((64, 64, 3), 200, np.uint8))
    ours, theirs = (dl.embed_images(dl.load(device=w), images) for w in (device, "cpu"))
    assert ours.dtype == np.float32 and off(ours, theirs) < 2e-3 < off(ours[::-1], theirs)
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < 1e-3


def test_a_lesson_learns_as_on_the_cpu(device, tiny_folder, monkeypatch):
    if isinstance(torch.empty(0, device=device), Pretended):
        pytest.skip("no gradients flow on a pretended device")
    few = dict(MOST=16, BATCH=8, HELD_BACK=16, WARMUP=2, LOOKS=(), SHOWN_STEPS=2)
    for name, value in few.items():
        monkeypatch.setattr(lessons, name, value)

    def taught(where, seed=3):
        made = lessons.Lesson(dl.load(tiny_folder, device=where), seed=seed)
        *_, record = made.learn(600, steps=4)
        return made, record

    (there, ours), (_, theirs), (_, other) = taught(device), taught("cpu"), taught("cpu", 4)
    assert {p.device.type for p in there.unet.parameters()} == places(there.model) == {device.type}
    assert off(ours.losses[:1], theirs.losses[:1]) < 2e-3
    assert off(ours.losses, theirs.losses) < 1e-2 < off(other.losses, theirs.losses)
    assert off(ours.moments[-1].losses, theirs.moments[-1].losses) < 1e-2
    assert ours.learning["U-Net"] == 1 and ours.learning["decoder"] == 0


def measured(bench: Bench) -> dict[str, np.ndarray]:
    """What the claims and the measures of training ask of a model, by name."""
    made, prompts = bench.model, bench.one_object
    texts, spans = zip(*[(p.text, p.caption.claims[0].kind_span) for p in prompts], strict=True)
    drawn = draw(made, texts, spans, num_steps=2)
    pictures = np.stack([one.image for one in known(bench).drawn])
    latents = latents_of(made, pictures)
    assert latents.device.type == made.device.type
    near = nearest(latents, latents.flip(0) + 0.01)
    assert near.rows.tolist() == [1, 0] and np.allclose(near.distances, 0.01, rtol=1e-2)
    return {
        "pictures": drawn.pictures.astype(float),
        "finest": drawn.finest,
        "every": drawn.every,
        "maps": maps_and_masks(bench)["object"][0],
        "said": asked(bench, 2.0)[1].cond,
        "texts": text_vectors(made, texts).numpy(),
        "latents": latents.cpu().numpy(),
    }


def test_claims_measure_the_same(device, toyland_bench, tmp_path):
    bench, here = Bench(dl.load(device=device), 2), Bench(toyland_bench.model, 2)
    ours, theirs = measured(bench), measured(here)
    for name, values in theirs.items():
        close = 1e-2 if name == "pictures" else 2e-3  # they are rounded
        assert off(ours[name], values) < close < off(ours[name][::-1], values), name
    assert all(part.holds for part in told_the_time_by_waves(bench))
    fresh = untrained(bench.model, tmp_path / "fresh")
    assert places(fresh) == {device.type} and not same_weights(fresh, bench.model)


def test_judges_say_the_same(device, toyland_bench):
    pictures = np.stack([one.image for one in known(toyland_bench).drawn])
    verdicts, classes = (
        [function(net.to(where), pictures) for where in (device, "cpu")]
        for function, net in zip((judge, segment), load_judges(), strict=True)
    )
    assert verdicts[0] == verdicts[1] != verdicts[1][::-1]
    assert (classes[0] == classes[1]).mean() > 0.99 > (classes[0] == classes[1][::-1]).mean()


def test_the_command_line_takes_the_device(device, tiny_folder, tmp_path):
    arguments = ["generate", PROMPT, "--steps", "2", "--model", str(tiny_folder)]
    assert cli.main([*arguments, "--device", str(device), "--out", str(tmp_path)]) == 0
    trace = Trace.load(tmp_path / "run.safetensors")
    assert torch.device(trace.versions["device"]).type == device.type


def test_the_doctor_names_the_device(accelerator):
    found, fix = doctor.check_device()
    assert found.startswith(accelerator.type) and not fix


@pytest.mark.gpu
@pytest.mark.slow
def test_training_goes_the_whole_way(tmp_path, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    smoke = dataclasses.replace(presets.preset("smoke"), bfloat16=True)
    training = importlib.import_module("diffusionlab.training.__main__")  # it draws curves
    monkeypatch.setattr(training, "preset", lambda name: smoke)
    run = tmp_path / "run"
    training.main(["all", "--run", str(run), "--device", "cuda"])
    for part in ("clip", "vae", "denoiser", "judges"):
        log = json.loads((run / part / "state.json").read_text(encoding="utf-8"))["log"]
        losses = [entry["values"]["loss"] for entry in log]
        assert min(losses[-2:]) < 0.95 * losses[0], part
    made = dl.load(run / "checkpoint", device="cuda")
    assert dl.generate(made, PROMPT, **FAST).image.size == (64, 64)
