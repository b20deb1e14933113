"""The way back: a pipeline's weights under the names of the original single files.

Written from the published files' key names; nobody ships such an exporter.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file
from tiny import tiny_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from diffusionlab.pipeline.files import write_json, write_text
from diffusionlab.pipeline.text import tokenizer_files

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
          "conv_shortcut": "skip_connection"}  # fmt: skip
OUTSIDE = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
           "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
           "add_embedding.linear_1": "label_emb.0.0",
           "add_embedding.linear_2": "label_emb.0.2"}  # fmt: skip
VAE_NAMES = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
CLIP_NAMES = {"embeddings.token_embedding.weight": "token_embedding.weight",
              "embeddings.position_embedding.weight": "positional_embedding",
              "final_layer_norm": "ln_final", "encoder.layers": "transformer.resblocks",
              "layer_norm": "ln_", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
              "self_attn.out_proj": "attn.out_proj"}  # fmt: skip


# ---- the pipelines -----------------------------------------------------------------------------
def text_encoder(tokenizer, act, projects=False):
    """A narrow text encoder whose heads are 64 wide, as in every published one."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, projection_dim=64,
        num_hidden_layers=3, num_attention_heads=1, max_position_embeddings=32, hidden_act=act,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config).eval()


def vae(scaling_factor=0.18215):
    return diffusers.AutoencoderKL(
        sample_size=64, block_out_channels=(32,) * 4, layers_per_block=2, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=scaling_factor,
    ).eval()  # fmt: skip


def unet(**changes):
    options = dict(
        sample_size=8, block_out_channels=(32, 64, 64), layers_per_block=1, cross_attention_dim=64,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=8,
    )  # fmt: skip
    return diffusers.UNet2DConditionModel(**options | changes).eval()


def scheduler(prediction_type="epsilon"):
    return diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type=prediction_type,
    )  # fmt: skip


DEPTHS = {  # of SDXL and what was distilled from it
    "SDXL": dict(transformer_layers_per_block=(1, 2, 3)),
    "SSD-1B": dict(transformer_layers_per_block=[1, 2, [3]], mid_block_type="UNetMidBlock2D",
                   reverse_transformer_layers_per_block=[[3, 1], [2, 1], 1]),
    "Vega": dict(transformer_layers_per_block=(1, 1, 2), mid_block_type="UNetMidBlock2D"),
}  # fmt: skip


def pipeline(family: str):
    """A narrow pipeline of "SD 1", "SD 2", "SDXL", "SSD-1B" or "Vega" with random weights."""
    tokenizer = tiny_tokenizer()
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = "!"
    alone = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "SD 1":
            return diffusers.StableDiffusionPipeline(
                vae=vae(), text_encoder=text_encoder(tokenizer, "quick_gelu"), tokenizer=tokenizer,
                unet=unet(), scheduler=scheduler(), **alone)  # fmt: skip
        if family == "SD 2":
            wide = unet(block_out_channels=(64, 128, 128), attention_head_dim=(1, 2, 2),
                        use_linear_projection=True, layers_per_block=2)  # fmt: skip
            return diffusers.StableDiffusionPipeline(
                vae=vae(), text_encoder=text_encoder(padded, "gelu"), tokenizer=padded,
                unet=wide, scheduler=scheduler("v_prediction"), **alone)  # fmt: skip
        wide = unet(
            block_out_channels=(64, 64, 128), attention_head_dim=(1, 1, 2),
            use_linear_projection=True, cross_attention_dim=128,
            **DEPTHS[family], addition_embed_type="text_time",
            addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 64,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))  # fmt: skip
        return diffusers.StableDiffusionXLPipeline(
            vae=vae(0.13025), text_encoder=text_encoder(tokenizer, "quick_gelu"),
            text_encoder_2=text_encoder(padded, "gelu", projects=True), tokenizer=tokenizer,
            tokenizer_2=padded, unet=wide, scheduler=scheduler(), add_watermarker=False,
        )  # fmt: skip


# ---- the names ---------------------------------------------------------------------------------
def original_state(pipe) -> dict[str, torch.Tensor]:
    """Every weight of a pipeline under its original name, and what published files hold besides."""
    layers = pipe.unet.config.layers_per_block
    state = {f"model.diffusion_model.{unet_name(name, layers)}": tensor
             for name, tensor in pipe.unet.state_dict().items()}  # fmt: skip
    for name, tensor in pipe.vae.state_dict().items():
        matrix = "attentions" in name and tensor.ndim == 2
        value = tensor[:, :, None, None] if matrix else tensor
        blocks = len(pipe.vae.config.block_out_channels)
        state[f"first_stage_model.{vae_name(name, blocks)}"] = value
    if hasattr(pipe, "text_encoder_2"):
        state |= clip(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        state |= open_clip(pipe.text_encoder_2, "conditioner.embedders.1.model.")
    elif pipe.text_encoder.config.hidden_act == "gelu":
        state |= open_clip(pipe.text_encoder, "cond_stage_model.model.", unused=1)
    else:
        state |= clip(pipe.text_encoder, "cond_stage_model.transformer.")
    state |= {"alphas_cumprod": torch.zeros(4), "model_ema.decay": torch.zeros(())}
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def unet_name(name: str, layers: int) -> str:
    for new, old in OUTSIDE.items():
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    found = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name)
    if found:
        place = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{place}.{inner(found[1], found[3])}"
    way, block, kind, layer, rest = re.match(
        r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name
    ).groups()
    start = int(block) * (layers + 1) + (way == "down")
    side = "input" if way == "down" else "output"
    if kind == "downsamplers":
        return f"{side}_blocks.{start + layers}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"{side}_blocks.{start + layers}.UP.{rest}"  # 1 or 2: see `placed`
    place = 0 if kind == "resnets" else 1
    return f"{side}_blocks.{start + int(layer)}.{place}.{inner(kind, rest)}"


def inner(kind: str, rest: str) -> str:
    """Names within a block: residual blocks have numbers, transformers kept theirs."""
    first, _, end = rest.partition(".")
    return f"{RESNET[first]}.{end}" if kind == "resnets" else rest


def placed(state: dict) -> dict:
    """Doubling stands after the transformer where an output block has one."""
    found = {}
    for name, tensor in state.items():
        block = name.split(".UP.")[0]
        attends = any(other.startswith(f"{block}.1.transformer") for other in state)
        found[name.replace(".UP.", ".2." if attends else ".1.")] = tensor
    return found


def vae_name(name: str, blocks: int) -> str:
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    for i in range(blocks):
        name = name.replace(f"up_blocks.{i}.resnets", f"up.{blocks - 1 - i}.block")
        name = name.replace(f"up_blocks.{i}.upsamplers.0", f"up.{blocks - 1 - i}.upsample")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for new, old in VAE_NAMES.items():
            name = name.replace(f".{new}.", f".{old}.")
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def clip(encoder, prefix: str) -> dict[str, torch.Tensor]:
    names = {n.removeprefix("text_model."): t for n, t in encoder.state_dict().items()}
    names["embeddings.position_ids"] = torch.arange(32)[None]
    return {f"{prefix}text_model.{name}": tensor for name, tensor in names.items()}


def open_clip(encoder, prefix: str, unused: int = 0) -> dict[str, torch.Tensor]:
    """OpenCLIP's names: queries, keys and values as one matrix; `unused` last layers besides."""
    given = {n.removeprefix("text_model."): t for n, t in encoder.state_dict().items()}
    state = {"logit_scale": torch.zeros(()), "text_projection": torch.zeros(64, 64)}
    for name, tensor in given.items():
        if ".q_proj." in name:
            three = [given[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name = name.replace("self_attn.q_proj.", "attn.in_proj_")
            tensor = torch.cat(three)
        elif re.search(r"\.[kv]_proj\.", name):
            continue
        if name == "text_projection.weight":
            name, tensor = "text_projection", tensor.T
        for new, old in CLIP_NAMES.items():
            name = name.replace(new, old)
        state[name] = tensor
    last = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("transformer."))
    for i in range(unused):
        copies = {n.replace("blocks.0.", f"blocks.{last + i}."): t for n, t in state.items()}
        state |= copies
    return {prefix + name: tensor for name, tensor in state.items()}


def write_single_file(pipe, path: Path, change=None) -> Path:
    """The pipeline as one file in the original layout; `change` may alter the weights."""
    state = placed(original_state(pipe))
    save_file(change(state) if change else state, path)
    return path


def write_cached_tokenizer(cache: Path, tokenizer) -> Path:
    """A hub cache with a tokenizer where `load` looks for the one that a single file lacks."""
    repo = cache / "models--openai--clip-vit-large-patch14"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("c0ffee")
    vocab, merges, config = tokenizer_files(tokenizer)
    words = repo / "snapshots" / "c0ffee"
    write_json(words / "vocab.json", vocab)
    write_json(words / "tokenizer_config.json", config)
    write_text(words / "merges.txt", merges)
    return cache
