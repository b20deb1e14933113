"""Whole pictures of every family equal diffusers' pipelines on the same random weights."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_tokenizer, tiny_vae

import diffusionlab as dl
from diffusionlab.trace import byte_count

diffusers = pytest.importorskip("diffusers")
SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def text_encoder(tokenizer, width=32, projects=False, act="quick_gelu"):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=64, projection_dim=20,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=32, hidden_act=act,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config).eval()


def xl_unet(**changes):
    options = dict(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=48,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2), use_linear_projection=True, norm_num_groups=8,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 20,
    )  # fmt: skip
    return diffusers.UNet2DConditionModel(**options | changes).eval()


def xl_pipeline(force_zeros=True, scheduler=None, **changes):
    """A reduced SDXL: two text encoders whose tokenizers pad differently."""
    first = tiny_tokenizer()
    second = copy.deepcopy(first)
    second.pad_token = "!"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return diffusers.StableDiffusionXLPipeline(
            vae=tiny_vae(),
            text_encoder=text_encoder(first),
            text_encoder_2=text_encoder(second, 16, projects=True, act="gelu"),
            tokenizer=first,
            tokenizer_2=second,
            unet=xl_unet(**changes),
            scheduler=scheduler
            or diffusers.EulerDiscreteScheduler(
                **SCALED, timestep_spacing="leading", steps_offset=1
            ),
            force_zeros_for_empty_prompt=force_zeros,
            add_watermarker=False,
        )


def segmind_pipeline(**changes):
    """A reduced SSD-1B: three blocks, two layers each, a middle without attention."""
    options = dict(
        block_out_channels=(16, 32, 32), layers_per_block=2, attention_head_dim=(2, 2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2D",
    )  # fmt: skip
    return xl_pipeline(**options | changes)


def sd_pipeline(**changes):
    """A reduced Stable Diffusion 1.x or 2.x; changes of its U-Net, "act" of its text encoder."""
    tokenizer, act = tiny_tokenizer(), changes.pop("act", "quick_gelu")
    scheduler = changes.pop("scheduler", None) or diffusers.PNDMScheduler(
        **SCALED, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    if changes.pop("pad", None):
        tokenizer.pad_token = "!"
    kind = changes.pop("kind", diffusers.StableDiffusionPipeline)
    options = dict(
        sample_size=8, block_out_channels=(32, 32, 64, 64), layers_per_block=1,
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(
            vae=tiny_vae(),
            text_encoder=text_encoder(tokenizer, act=act),
            tokenizer=tokenizer,
            unet=diffusers.UNet2DConditionModel(**options | changes).eval(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


DISTILLED = diffusers.LCMScheduler(**SCALED, original_inference_steps=50)
ANCESTRAL = diffusers.EulerAncestralDiscreteScheduler(**SCALED, timestep_spacing="trailing")
FAMILIES = {
    "Stable Diffusion 1.x": lambda: sd_pipeline(),
    "Stable Diffusion 2.x base": lambda: sd_pipeline(
        use_linear_projection=True, attention_head_dim=(1, 2, 4, 4), act="gelu", pad="!"
    ),
    "Stable Diffusion 2.x v": lambda: sd_pipeline(
        use_linear_projection=True, attention_head_dim=(1, 2, 4, 4), act="gelu", pad="!",
        upcast_attention=True, scheduler=diffusers.DDIMScheduler(
            **SCALED, clip_sample=False, set_alpha_to_one=False, steps_offset=1,
            prediction_type="v_prediction"),
    ),
    "SD-Turbo": lambda: sd_pipeline(
        use_linear_projection=True, attention_head_dim=(1, 2, 4, 4), act="gelu", pad="!",
        scheduler=ANCESTRAL,
    ),
    "BK-SDM small": lambda: sd_pipeline(mid_block_type=None, layers_per_block=1),
    "BK-SDM tiny": lambda: sd_pipeline(
        mid_block_type=None, layers_per_block=1, block_out_channels=(32, 32, 64),
        down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3,
    ),
    "LCM": lambda: sd_pipeline(
        time_cond_proj_dim=16, kind=diffusers.LatentConsistencyModelPipeline, scheduler=DISTILLED
    ),
    "SDXL": lambda: xl_pipeline(),
    "SDXL-Turbo": lambda: xl_pipeline(scheduler=ANCESTRAL),
    "SDXL, empty prompt encoded": lambda: xl_pipeline(force_zeros=False),
    "SSD-1B": lambda: segmind_pipeline(
        transformer_layers_per_block=[[1], [2, 2], [1, 3]],
        reverse_transformer_layers_per_block=[[1, 1, 3], [2, 1, 1], 1],
    ),
    "Segmind-Vega": lambda: segmind_pipeline(transformer_layers_per_block=(1, 1, 2)),
    "LCM-SDXL": lambda: xl_pipeline(time_cond_proj_dim=16, scheduler=DISTILLED),
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """One family: our model of its folder, and diffusers' pipeline that wrote it."""
    pipe = FAMILIES[request.param]()
    folder = tmp_path_factory.mktemp("family") / "model"
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    model = dl.load(folder, device="cpu")
    if model.schedule.spacing == "lcm":  # compared through DDIM, which has no such spacing
        model = replace(model, schedule=replace(model.schedule, spacing="leading"))
    return request.param, model, pipe


@pytest.mark.parametrize(
    ("size", "negative", "guidance"),
    [((64, 64), None, 4.0), ((64, 128), "a boat", 7.5), ((64, 64), None, 1.0)],
)
def test_every_family_makes_the_same_picture(family, size, negative, guidance):
    name, model, pipe = family
    height, width = size
    told = {} if name == "LCM" else {"negative_prompt": negative}
    if name == "LCM-SDXL" and guidance == 1:
        guidance = 2.0
    trace = dl.generate(model, "a red car", seed=3, num_steps=5, guidance_scale=guidance,
                        height=height, width=width, negative_prompt=negative or "",
                        progress=False)  # fmt: skip
    given = dict(num_inference_steps=5, height=height, width=width, guidance_scale=guidance,
                 latents=torch.tensor(trace.latents[0])[None]) | told  # fmt: skip
    spaced = matched(pipe, model)
    theirs = spaced("a red car", output_type="latent", **given).images[0].numpy()
    assert difference(trace.latents[-1], theirs) < 1e-4
    picture = spaced("a red car", output_type="np", **given).images[0]
    assert np.abs(np.asarray(trace.image) / 255 - picture).max() < 0.5 / 255 + 1e-3
    other = dl.generate(model, "a blue boat", seed=3, num_steps=5, guidance_scale=guidance,
                        height=height, width=width, progress=False)  # fmt: skip
    assert difference(other.latents[-1], theirs) > 1e-3  # the check can fail


def matched(pipe, model):
    """The pipeline with DDIM at our model's own levels, whatever its scheduler was."""
    given = dict(pipe.scheduler.config) | {
        "clip_sample": False,
        "timestep_spacing": model.schedule.spacing,
        "set_alpha_to_one": model.schedule.final == "clean",
        "steps_offset": model.schedule.steps_offset,
        "_use_default_values": [],  # else diffusers puts its own in the place of those above
    }
    pipe.scheduler = AnyDDIM.from_config(given)
    return pipe


class AnyDDIM(diffusers.DDIMScheduler):
    """DDIM for a pipeline that hands on what its own scheduler reads."""

    def set_timesteps(self, *given, original_inference_steps=None, **rest):
        super().set_timesteps(*given, **rest)

    def step(self, *given, eta=None, **rest):
        return super().step(*given, eta=eta or 0.0, **rest)


def difference(ours, theirs) -> float:
    """Largest deviation relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_sdxl_texts_equal_the_pipeline_s(family):
    name, model, pipe = family
    if not model.is_xl:
        pytest.skip("one text encoder")
    found = dl.embed(model, dl.tokenize(model, "a red car"))
    rows, _, pooled, _ = pipe.encode_prompt("a red car", device="cpu")
    assert difference(torch.cat(found.hidden, -1).numpy(), rows[0].detach().numpy()) < 1e-5
    assert difference(found.pooled.numpy(), pooled[0].detach().numpy()) < 1e-5
    assert found.extra["size_ids"].tolist() == [64, 64, 0, 0, 64, 64]


# ---- everything that works on Toyland works here -------------------------------------------------
def test_every_kind_of_record_is_kept_in_the_size_that_was_told(family):
    _, model, _ = family
    record = {"predictions", "attention", "heads", "self_attention", "blocks", "frames"}
    told = dl.recording_size(model, record=record, num_steps=2)
    trace = dl.generate(model, "a red car", num_steps=2, record=record, progress=False)
    plain = dl.generate(model, "a red car", num_steps=2, record=(), progress=False)
    assert byte_count(trace) == told.total
    assert trace.image.tobytes() == plain.image.tobytes()  # recording changes nothing


def test_the_anatomy_counts_every_weight(family):
    _, model, _ = family
    found = dl.anatomy(model)
    assert found.parameters == sum(weights.numel() for weights in model.unet.parameters())


def test_interventions_and_noising_work(family):
    _, model, _ = family
    text = dl.embed(model, dl.tokenize(model, "a blue boat"))
    run = dict(num_steps=2, record=(), progress=False)
    other = dl.generate(model, "a blue boat", **run)
    with dl.swap_text(model, text):
        swapped = dl.generate(model, "a red car", **run)
    if not model.is_xl:  # XL hears the pooled text besides
        assert np.array_equal(swapped.latents[-1], other.latents[-1])
    given = dl.generate(model, "a red car", text_embedding=text, **run)
    assert np.array_equal(given.latents[-1], other.latents[-1])
    noising = dl.noise_image(model, other.image, [100, 900], prompt="a blue boat")
    assert len(noising.x0_images) == 2 and dl.fit_preview(model, [other.image]).weight.shape[1] == 4


def test_runs_go_together_as_they_go_alone(family):
    _, model, _ = family
    run = dict(num_steps=3, noise="sequential", progress=False)
    both = dl.compare(model, prompts=["a red car", "a blue boat"], together=True, **run)
    for trace, prompt in zip(both.traces, ("a red car", "a blue boat"), strict=True):
        alone = dl.generate(model, prompt, **run)
        assert difference(trace.latents[-1], alone.latents[-1]) < 1e-4


# ---- folders as they were published in 2022 and 2023 -----------------------------------------
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
OLD_UNET = ("sample_size", "in_channels", "out_channels", "center_input_sample", "freq_shift",
            "flip_sin_to_cos", "down_block_types", "up_block_types", "block_out_channels",
            "layers_per_block", "downsample_padding", "mid_block_scale_factor", "act_fn",
            "norm_num_groups", "norm_eps", "cross_attention_dim", "attention_head_dim")  # fmt: skip
OLD_VAE = ("in_channels", "out_channels", "down_block_types", "up_block_types", "act_fn",
           "block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups",
           "sample_size")  # fmt: skip


def published(folder, halved: bool) -> None:
    """Rewrite a folder as Stable Diffusion 1.x was published: old keys, few config keys, shards."""
    rewrite_config(folder / "unet/config.json", OLD_UNET)
    rewrite_config(folder / "vae/config.json", OLD_VAE)
    scheduler = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **SCALED,
                 "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
                 "steps_offset": 1, "trained_betas": None, "clip_sample": False}  # fmt: skip
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    rewrite_weights(folder / "vae/diffusion_pytorch_model", old_vae_name, halved)
    rewrite_weights(folder / "text_encoder/model", old_text_name, halved)
    path = folder / f"text_encoder/model{'.fp16' if halved else ''}.safetensors"
    places = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    save_file(load_file(path) | places, path)
    shard(folder / "unet", halved)


def rewrite_config(path, keys) -> None:
    config = json.loads(path.read_text())
    kept = {key: config[key] for key in ("_class_name", *keys)}
    path.write_text(json.dumps(kept | {"_diffusers_version": "0.6.0"}))


def old_vae_name(name: str) -> str:
    for new, old in OLD_ATTENTION.items():
        name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
    return name


def old_text_name(name: str) -> str:
    return "text_model." + name.removeprefix("text_model.")


def rewrite_weights(stem, name, halved: bool) -> None:
    path = stem.parent / f"{stem.name}.safetensors"
    weights = {name(key): t.half() if halved else t for key, t in load_file(path).items()}
    path.unlink()
    save_file(weights, stem.parent / f"{stem.name}{'.fp16' if halved else ''}.safetensors")


def shard(folder, halved: bool) -> None:
    """The U-Net in two files with an index, named as diffusers names them."""
    path, middle = folder / "diffusion_pytorch_model.safetensors", ".fp16" if halved else ""
    weights = {key: t.half() if halved else t for key, t in load_file(path).items()}
    path.unlink()
    names, where = sorted(weights), {}
    for number, keys in enumerate((names[::2], names[1::2]), 1):
        file = f"diffusion_pytorch_model{middle}-{number:05d}-of-00002.safetensors"
        save_file({key: weights[key] for key in keys}, folder / file)
        where |= dict.fromkeys(keys, file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    named = f"diffusion_pytorch_model.safetensors.index{middle}.json"
    (folder / named).write_text(json.dumps(index))


@pytest.mark.parametrize("halved", [False, True], ids=["float32", "fp16 variant"])
def test_a_folder_as_published_makes_the_same_picture(tmp_path, halved):
    pipe = sd_pipeline()
    pipe.save_pretrained(tmp_path / "model")
    published(tmp_path / "model", halved)
    if halved:  # what the files hold is what diffusers must run with, too
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.half().float()
    pipe.set_progress_bar_config(disable=True)
    model = dl.load(tmp_path / "model", device="cpu", variant="fp16" if halved else None)
    trace = dl.generate(model, "a red car", seed=3, num_steps=5, progress=False)
    given = dict(num_inference_steps=5, guidance_scale=4.0, output_type="latent",
                 latents=torch.tensor(trace.latents[0])[None])  # fmt: skip
    theirs = matched(pipe, model)("a red car", **given).images[0].numpy()
    assert difference(trace.latents[-1], theirs) < 1e-4
    assert trace.settings.spacing == "leading" and trace.settings.final == "first"
