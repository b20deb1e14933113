"""A pipeline of diffusers becomes our model without a copy; parts can be swapped; SDXL is saved."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from original_layout import pipeline, scheduler, text_encoder, unet, vae
from safetensors.torch import load_file, save_file
from tiny import tiny_tokenizer
from tokenizers import AddedToken

import diffusionlab as dl
from diffusionlab.errors import CheckpointError, InputError
from diffusionlab.models import TinyVAE

RUN = dict(height=64, width=64, num_steps=3, seed=1, progress=False)


@pytest.fixture(scope="module", params=["SD 1", "SD 2", "SDXL"])
def pipe(request):
    made = pipeline(request.param)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A narrow Stable Diffusion 1 in a folder; not to be changed."""
    place = tmp_path_factory.mktemp("parts") / "model"
    pipeline("SD 1").save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder):
    return dl.load(folder, device="cpu")


def networks(model):
    return [model.unet, model.vae, *model.text_encoders]


def tensors(modules) -> dict[str, torch.Tensor]:
    return {f"{i}.{n}": t for i, m in enumerate(modules) for n, t in m.state_dict().items()}


def same(first, second) -> bool:
    ours, theirs = tensors(networks(first)), tensors(networks(second))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


# ---- from diffusers ----------------------------------------------------------------------------
def test_the_weights_are_shared_and_the_picture_is_the_same(pipe):
    model = dl.LatentDiffusion.from_diffusers(pipe)
    encoders = [pipe.text_encoder, *filter(None, [getattr(pipe, "text_encoder_2", None)])]
    addresses = {t.data_ptr() for m in (pipe.unet, pipe.vae, *encoders) for t in m.parameters()}
    assert all(p.data_ptr() in addresses for m in networks(model) for p in m.parameters())
    trace = dl.generate(model, "a red car", guidance_scale=4.0, **RUN)
    given = dict(num_inference_steps=3, height=64, width=64, guidance_scale=4.0,
                 latents=torch.tensor(trace.latents[0])[None])  # fmt: skip
    theirs = pipe("a red car", output_type="latent", **given).images[0].numpy()
    assert np.abs(trace.latents[-1] - theirs).max() < 1e-4 * np.abs(theirs).max()
    picture = pipe("a red car", output_type="np", **given).images[0]
    assert np.abs(np.asarray(trace.image) / 255 - picture).max() < 0.5 / 255 + 1e-3
    other = dl.generate(model, "a blue boat", guidance_scale=4.0, **RUN)
    assert np.abs(other.latents[-1] - theirs).max() > 1e-3 * np.abs(theirs).max()
    assert pipe.unet.conv_in.weight.requires_grad  # theirs is left as it was


def test_what_was_wrapped_can_be_saved_and_named(pipe, tmp_path):
    model = dl.LatentDiffusion.from_diffusers(pipe)
    assert "a pipeline of diffusers" in repr(model)
    assert same(dl.load(dl.save(model, tmp_path / "saved"), device="cpu"), model)


def test_a_latent_consistency_pipeline_is_wrapped():
    base = pipeline("SD 1")
    parts = dict(base.components) | {"unet": unet(time_cond_proj_dim=16)}
    parts["scheduler"] = diffusers.LCMScheduler.from_config(scheduler().config)
    model = dl.LatentDiffusion.from_diffusers(
        diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    )
    assert model.embeds_guidance
    assert dl.generate(model, "a red car", guidance_scale=8.0, **RUN).image


def test_what_stands_in_no_config_and_changes_the_numbers_is_refused():
    pipe, wrap = pipeline("SD 1"), dl.LatentDiffusion.from_diffusers
    before = wrap(pipe)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    with pytest.raises(InputError, match=r"FreeU switched on; .* pipe\.disable_freeu\(\) first"):
        wrap(pipe)
    pipe.disable_freeu()
    assert same(wrap(pipe), before)
    for name in ("unet", "vae"):
        part = getattr(pipe, name).conv_in if name == "unet" else pipe.vae.decoder.conv_in
        part.padding_mode = "circular"
        with pytest.raises(InputError, match=f"the pipeline's {name} pad with 'circular'"):
            wrap(pipe)
        part.padding_mode = "zeros"
    assert same(wrap(pipe), before)


@pytest.mark.parametrize("alone", [False, True])
def test_fused_projections_are_told_and_once_unfused_read(alone):
    pipe, wrap = pipeline("SD 1"), dl.LatentDiffusion.from_diffusers
    before = wrap(pipe)
    fused = pipe.unet if alone else pipe
    fused.fuse_qkv_projections()
    if alone:  # as the pipeline's own method does
        pipe.unet.set_attn_processor(diffusers.models.attention_processor.FusedAttnProcessor2_0())
    with pytest.raises(
        InputError, match=r"unet has fused .*pipe\.unfuse_qkv_projections\(\) first"
    ):
        wrap(pipe)
    fused.unfuse_qkv_projections()
    assert any(".to_qkv." in key for key in pipe.unet.state_dict())  # copies that nobody reads
    assert same(wrap(pipe), before)


def with_words(words, **flags):
    """A pipeline whose tokenizer has learned words, and whose encoder has rows for them."""
    pipe = pipeline("SD 1")
    pipe.tokenizer.add_tokens([AddedToken(word, **flags) for word in words])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer), mean_resizing=False)
    return pipe


@pytest.mark.parametrize("flags", [{}, {"special": True}, {"single_word": True, "rstrip": True}])
def test_learned_words_keep_their_ids_when_saved_and_loaded(tmp_path, flags):
    pipe = with_words(["<cat>", "Zwerg"], **flags)
    model = dl.LatentDiffusion.from_diffusers(pipe)
    dl.save(model, tmp_path / "saved")
    again = dl.load(tmp_path / "saved", device="cpu")
    theirs = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    for text in ("a <cat> car", "<CAT>s, a zwerg Zwerg  by<cat>the sea", "two Zwerge!"):
        expected = pipe.tokenizer(text).input_ids
        assert again.tokenizer(text).input_ids == expected
        assert theirs.tokenizer(text).input_ids == expected
        assert dl.tokenize(again, text).ids[: len(expected)] == tuple(expected)
    assert again.tokenizer.get_vocab() == pipe.tokenizer.get_vocab()
    assert same(again, model) and len(again.tokenizer) == again.text_encoders[0].config.vocab_size


def test_words_left_from_an_earlier_save_do_not_count(tmp_path):
    dl.save(dl.LatentDiffusion.from_diffusers(with_words(["<cat>"])), tmp_path)
    (tmp_path / "tokenizer" / "added_tokens.json").write_text('{"<dog>": 619}')
    dl.save(model := dl.LatentDiffusion.from_diffusers(pipeline("SD 1")), tmp_path)
    assert dl.load(tmp_path, device="cpu").tokenizer.get_vocab() == model.tokenizer.get_vocab()


class FluxPipeline:
    """Stands for a pipeline of another family."""


def test_other_pipelines_are_refused_by_name(tmp_path):
    wrap = dl.LatentDiffusion.from_diffusers
    with pytest.raises(InputError, match=r"'FluxPipeline' \(Flux, a diffusion transformer\); allo"):
        wrap(FluxPipeline())
    with pytest.raises(InputError, match="of class 'str'"):
        wrap("org/name")
    pipe = pipeline("SD 1")
    image_to_image = diffusers.StableDiffusionImg2ImgPipeline(
        **pipe.components, requires_safety_checker=False
    )
    with pytest.raises(InputError, match="StableDiffusionImg2ImgPipeline"):
        wrap(image_to_image)
    pipe.vae.to(torch.float16)
    with pytest.raises(InputError, match="one device and dtype is allowed; call pipe.to"):
        wrap(pipe)
    pipe.vae.to("meta")
    with pytest.raises(InputError, match="are offloaded"):
        wrap(pipe)
    pipe.vae = None
    with pytest.raises(InputError, match="the pipeline's vae is of class 'NoneType'"):
        wrap(pipe)
    pipe.vae = vae()
    pipe.unet.conv_in = torch.nn.Conv2d(4, 32, 1)
    with pytest.raises(CheckpointError, match="pipeline's unet: 'conv_in.weight' is F32 of shape"):
        wrap(pipe)


# ---- saving ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("offset", "spacing"), [(0, "leading"), (1, "leading"), (0, "trailing")])
def test_an_offset_that_will_be_read_otherwise_is_told(tmp_path, capsys, offset, spacing):
    theirs = pipeline("SD 1")
    scheduler = diffusers.DDIMScheduler(
        clip_sample=False, steps_offset=offset, timestep_spacing=spacing
    )
    theirs.scheduler = scheduler  # after the pipeline was made, which would correct it
    model = dl.LatentDiffusion.from_diffusers(theirs)
    capsys.readouterr()
    again = dl.load(dl.save(model, tmp_path / "saved"), device="cpu")
    moved = again.schedule.levels(4) != model.schedule.levels(4)
    told = "read with steps_offset 1, by diffusers too, and this schedule has 0" in (
        capsys.readouterr().err
    )
    assert told == moved == (offset == 0 and spacing == "leading")


# ---- saving SDXL -------------------------------------------------------------------------------
@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_makes_the_round_trip_and_diffusers_reads_it(tmp_path, zeros):
    theirs = pipeline("SDXL")
    theirs.register_to_config(force_zeros_for_empty_prompt=zeros)
    theirs.save_pretrained(tmp_path / "theirs")
    model = dl.load(tmp_path / "theirs", device="cpu")
    saved = dl.save(model, tmp_path / "saved")
    again = dl.load(saved, device="cpu")
    assert same(model, again) and again.zeros_for_empty is zeros
    assert again.pad_ids == model.pad_ids and again.pad_ids[0] != again.pad_ids[1]
    read = diffusers.DiffusionPipeline.from_pretrained(saved, local_files_only=True)
    assert type(read) is type(theirs) and read.config.force_zeros_for_empty_prompt is zeros
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        ours, other = getattr(read, part).state_dict(), getattr(theirs, part).state_dict()
        assert ours.keys() == other.keys(), part
        assert all(torch.equal(ours[name], other[name]) for name in other), part
    for part in ("tokenizer", "tokenizer_2"):
        ids = [getattr(p, part)("a red car über", padding="max_length").input_ids
               for p in (read, theirs)]  # fmt: skip
        assert ids[0] == ids[1]


# ---- other parts -------------------------------------------------------------------------------
def tiny_autoencoder(place: Path, **changes) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        diffusers.AutoencoderTiny(**changes).save_pretrained(place)
    return place


def test_a_tiny_vae_takes_the_place_of_the_vae(model, folder, tmp_path):
    place = tiny_autoencoder(tmp_path / "taesd")
    swapped, loaded = model.with_parts(vae=place), dl.load(folder, device="cpu", vae=place)
    assert isinstance(swapped.vae, TinyVAE) and isinstance(loaded.vae, TinyVAE)
    assert swapped.unet is model.unet and same(swapped, loaded)
    assert (swapped.size, swapped.size_factor) == (model.size, model.size_factor)
    latent = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(0))
    theirs = diffusers.AutoencoderTiny.from_pretrained(place).eval()
    with torch.no_grad():
        pixels = theirs.decode(latent[None]).sample[0]
    expected = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() * 255
    picture = dl.decode(swapped, latent)
    assert np.abs(np.asarray(picture) - expected).max() < 0.51
    with torch.no_grad():
        back = theirs.encode(torch.tensor(np.asarray(picture) / 127.5 - 1).float()
                             .permute(2, 0, 1)[None]).latents[0]  # fmt: skip
    assert torch.allclose(dl.encode(swapped, picture).values, back, rtol=1e-4, atol=1e-4)
    again = dl.load(dl.save(swapped, tmp_path / "saved"), device="cpu")
    assert isinstance(again.vae, TinyVAE) and same(again, swapped)
    assert diffusers.DiffusionPipeline.from_pretrained(tmp_path / "saved").vae.config.act_fn


def test_a_part_comes_from_a_folder_a_whole_model_a_model_or_a_network(model, tiny_folder):
    other = dl.load(tiny_folder, device="cpu")
    ways = [tiny_folder, tiny_folder / "vae", other, other.vae]
    made = [model.with_parts(vae=way) for way in ways]
    assert all(same(made[0], one) for one in made[1:])
    assert all(one.config["vae"]["norm_num_groups"] == 4 for one in made)
    assert made[3].vae is other.vae and not same(made[0], model)
    assert same(dataclasses.replace(model, vae=other.vae), made[0])  # the plain way, unchecked


def test_another_text_encoder_of_the_same_width(model, folder, tmp_path):
    torch.manual_seed(9)
    text_encoder(tiny_tokenizer(), "gelu").save_pretrained(tmp_path / "text")
    swapped = model.with_parts(text_encoder=tmp_path / "text")
    assert swapped.text_encoders[0].config.hidden_act == "gelu"
    rows = [dl.embed(m, dl.tokenize(m, "a red car")).hidden[0] for m in (model, swapped)]
    assert rows[0].shape == rows[1].shape and not torch.equal(*rows)
    loaded = dl.load(folder, device="cpu", text_encoder=tmp_path / "text")
    assert same(loaded, swapped)
    assert same(model.with_parts(text_encoder=loaded.text_encoders[0]), loaded)
    assert same(dl.load(dl.save(loaded, tmp_path / "saved"), device="cpu"), loaded)


def test_variants_of_a_part_are_taken_where_they_are(model, folder, tmp_path):
    place = tiny_autoencoder(tmp_path / "taesd")
    weights = place / "diffusion_pytorch_model.safetensors"
    halves = {name: t.half() for name, t in load_file(weights).items()}
    assert model.with_parts(vae=place, variant="fp16")  # none there: the plain one
    save_file(halves, place / "diffusion_pytorch_model.fp16.safetensors")
    weights.unlink()
    made = model.with_parts(vae=place, variant="fp16")
    assert made.vae.decoder.layers[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("part", "changed", "what"),
    [
        ("unet", {"out_channels": 8}, "the U-Net takes 4 channels and says 8"),
        ("vae", {"in_channels": 1, "out_channels": 1}, "pictures of 1 channels and makes 1"),
    ],
)
def test_parts_of_other_shapes_are_refused(model, folder, tmp_path, part, changed, what):
    place = shutil.copytree(folder / part, tmp_path / part)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(CheckpointError, match=what):
        model.with_parts(**{part: place})


def test_parts_that_do_not_fit_are_refused(model, folder, tmp_path, tiny_folder):
    with pytest.raises(CheckpointError, match="text of width 64 and the text encoder writes 32"):
        model.with_parts(text_encoder=tiny_folder)
    with pytest.raises(CheckpointError, match="text of width 64 and the text encoder writes 32"):
        dl.load(folder, device="cpu", text_encoder=tiny_folder)
    with pytest.raises(CheckpointError, match="text of width 32 and the text encoder writes 64"):
        model.with_parts(unet=tiny_folder)
    wide = tiny_autoencoder(tmp_path / "wide", latent_channels=16)
    with pytest.raises(CheckpointError, match="takes 4 channels and the VAE makes 16"):
        model.with_parts(vae=wide)
    with pytest.raises(CheckpointError, match="text_encoder_2= was given, and the model has only"):
        dl.load(folder, device="cpu", text_encoder_2=tiny_folder / "text_encoder")
    with pytest.raises(InputError, match="text_encoder_2= was given; this model has unet, vae"):
        model.with_parts(text_encoder_2=tiny_folder)
    with pytest.raises(CheckpointError, match="neither config.json nor vae/config.json; vae="):
        model.with_parts(vae=tmp_path)
    with pytest.raises(CheckpointError, match="is of class 'UNet2DConditionModel'; supported"):
        model.with_parts(vae=folder / "unet")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(CheckpointError, match="vae= names the file"):
        model.with_parts(vae=weights)
    with pytest.raises(InputError, match="vae is 'UNet'; allowed are a folder"):
        model.with_parts(vae=model.unet)
    with pytest.raises(InputError, match="vae is 'int'"):
        model.with_parts(vae=7)
    half = dl.load(folder, device="cpu", dtype="bfloat16")
    with pytest.raises(InputError, match="torch.bfloat16 on cpu, the model torch.float32 on cpu"):
        model.with_parts(vae=half)
