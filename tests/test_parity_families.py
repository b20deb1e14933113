"""Whole pictures of every family equal diffusers' pipelines on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer, tiny_vae

import diffusionlab as dl

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


def xl_pipeline(force_zeros=True, **changes):
    """A reduced SDXL: two text encoders whose tokenizers pad differently."""
    first, second = tiny_tokenizer(), tiny_tokenizer()
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
            scheduler=diffusers.DDIMScheduler(
                **SCALED, clip_sample=False, set_alpha_to_one=False, steps_offset=1
            ),
            force_zeros_for_empty_prompt=force_zeros,
            add_watermarker=False,
        )


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    pipe = xl_pipeline()
    folder = tmp_path_factory.mktemp("xl") / "model"
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return dl.load(folder, device="cpu"), pipe, folder


def difference(ours, theirs) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(
    ("size", "negative", "guidance"),
    [
        ((64, 64), None, 4.0),
        ((64, 48), None, 4.0),
        ((64, 64), "a boat", 4.0),
        ((64, 64), None, 1.0),
    ],
)  # fmt: skip
def test_sdxl_makes_the_same_picture(xl, size, negative, guidance):
    model, pipe, _ = xl
    height, width = size
    trace = dl.generate(model, "a red car", seed=3, num_steps=5, guidance_scale=guidance,
                        height=height, width=width, negative_prompt=negative or "",
                        progress=False)  # fmt: skip
    theirs = pipe("a red car", negative_prompt=negative, num_inference_steps=5, height=height,
                  width=width, guidance_scale=guidance, output_type="latent",
                  latents=torch.tensor(trace.latents[0])[None]).images[0].numpy()  # fmt: skip
    assert difference(trace.latents[-1], theirs) < 1e-4
    other = dl.generate(model, "a blue boat", seed=3, num_steps=5, guidance_scale=guidance,
                        height=height, width=width, progress=False)  # fmt: skip
    assert difference(other.latents[-1], theirs) > 1e-3  # the check can fail


def test_sdxl_texts_equal_the_pipeline_s(xl):
    model, pipe, _ = xl
    found = dl.embed(model, dl.tokenize(model, "a red car"))
    rows, _, pooled, _ = pipe.encode_prompt("a red car", device="cpu")
    assert difference(torch.cat(found.hidden, -1).numpy(), rows[0].detach().numpy()) < 1e-5
    assert difference(found.pooled.numpy(), pooled[0].detach().numpy()) < 1e-5
    assert found.extra["size_ids"].tolist() == [64, 64, 0, 0, 64, 64]
