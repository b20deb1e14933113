"""What a single file in the original layout is, and its configs, from keys and shapes alone.

Stable Diffusion was published as one file of weights beside a config that people never kept. The
public numbers of the three families stand here; whatever a tensor's shape shows is read from it, so
that narrower models load too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError, shown
from .configs import check_bounds

Shapes = Mapping[str, tuple[int, ...]]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
_TRANSFORMER = re.compile(
    r"((?:input|output)_blocks\.\d{1,6}|middle_block)\.1\.transformer_blocks\.(\d{1,6})\."
)
SUPPORTED = "whole models of Stable Diffusion 1.x, 2.x and XL are read"
OTHER_KINDS = (  # how a key begins, once a common prefix is gone → what the file is
    (("lora_", "lycoris_"), "a LoRA"),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet"),
    (("joint_blocks.",), "Stable Diffusion 3, a diffusion transformer"),
    (("double_blocks.", "single_blocks."), "Flux or a relative, a diffusion transformer"),
    (("adaln_single.", "t_block.", "caption_projection."), "PixArt, a diffusion transformer"),
    (("down_blocks.0.motion_modules.",), "a motion module (AnimateDiff)"),
    (("emb_params", "clip_g", "clip_l"), "a textual inversion, one word's embedding"),
    (("conditioner.embedders.0.model.",), "the refiner of SDXL"),
    (("edm_mean",), "Playground 2.5, with noise levels of its own"),
    (("embeddings.token_embedding.",), "a text encoder alone"),
    (("encoder.layers.", "decoder.layers."), "a tiny VAE alone"),
    (("encoder.", "decoder.", "first_stage_model."), "a VAE alone"),
    (("text_model.", "cond_stage_model.", "transformer."), "a text encoder alone"),
    (("down_blocks.", "input_blocks."), "a U-Net alone"),
)
LAST_KINDS = 5  # of OTHER_KINDS: parts that a whole model also has


@dataclass(frozen=True)
class Encoder:
    """Where a family's text encoder lies in the file; `unused`: last layers that nobody reads."""

    part: str
    prefix: str
    open_clip: bool
    pad: str
    unused: int = 0


@dataclass(frozen=True)
class Family:
    """The public numbers of a family; cells: the side of its latents; heads: None is 64 wide."""

    name: str
    pipeline: str
    cells: int
    heads: int | None
    scaling_factor: float
    prediction_type: str
    encoders: tuple[Encoder, ...]


END, MARK = "<|endoftext|>", "!"
SD1 = Family("Stable Diffusion 1", "StableDiffusionPipeline", 64, 8, 0.18215, "eps",
             (Encoder("text_encoder", "cond_stage_model.transformer.", False, END),))  # fmt: skip
SD2 = Family("Stable Diffusion 2", "StableDiffusionPipeline", 96, None, 0.18215, "v",
             (Encoder("text_encoder", "cond_stage_model.model.", True, MARK, 1),))  # fmt: skip
SDXL = Family("SDXL", "StableDiffusionXLPipeline", 128, None, 0.13025, "eps",
              (Encoder("text_encoder", "conditioner.embedders.0.transformer.", False, END),
               Encoder("text_encoder_2", "conditioner.embedders.1.model.", True, MARK))
              )  # fmt: skip
FAMILIES = (SDXL, SD2, SD1)


def recognise(names: Iterable[str], where: str) -> Family:
    """The family of a whole model in one file; CheckpointError says what else it is."""
    names = list(names)

    def there(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in names)

    stripped = [name.removeprefix(UNET) for name in names]
    for starts, what in OTHER_KINDS[:-LAST_KINDS]:
        if any(name.startswith(starts) for name in stripped) or _named_lora(what, names):
            raise _other(where, what)
    for family in FAMILIES:
        prefixes = [UNET, VAE, *(encoder.prefix for encoder in family.encoders)]
        if all(map(there, prefixes)):
            return family
    if what := _incomplete(there):
        raise _other(where, what)
    kinds = (
        w for starts, w in OTHER_KINDS[-LAST_KINDS:] if any(n.startswith(starts) for n in names)
    )
    raise _other(where, next(kinds, f"of an unknown model: its first keys are {shown(names[:3])}"))


def _incomplete(there: Callable[[str], bool]) -> str | None:
    """What a file with several parts of a model, or its U-Net alone, lacks of it."""
    nearest = max(FAMILIES, key=lambda family: sum(there(e.prefix) for e in family.encoders))
    missing = [there(e.prefix) for e in nearest.encoders].count(False)
    parts = {"U-Net": there(UNET)}
    if 0 < missing < len(nearest.encoders):  # which of SDXL's two
        parts["first text encoder"], parts["second text encoder"] = (
            there(e.prefix) for e in nearest.encoders
        )
    else:
        parts["text encoder"] = not missing
    parts["VAE"] = there(VAE)
    found = [name for name, here in parts.items() if here]
    lacking = " and ".join(name for name, here in parts.items() if not here)
    if found == ["U-Net"]:
        return f"a U-Net without {lacking}"
    return f"a model without its {lacking}" if len(found) > 1 else None


def _named_lora(what: str, names: list[str]) -> bool:
    return what == "a LoRA" and any(".lora_" in name or ".lora." in name for name in names)


def _other(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where} is a single safetensors file ({what}); {SUPPORTED}, from such a file or from a "
        "folder in diffusers' layout; name one of those"
    )


# --- configs out of shapes ---------------------------------------------------------------------


def configs_of(family: Family, shapes: Shapes, prediction_type: str, where: str) -> dict[str, Any]:
    """The configs of a single file by part, as diffusers would have written them, bounded.

    Errors: CheckpointError naming a tensor that is missing.
    """
    unet = _below(shapes, UNET, where)
    configs = {"unet": _unet(family, unet, where), "vae": _vae(family, _below(shapes, VAE, where))}
    for encoder in family.encoders:
        found = _below(shapes, encoder.prefix, where)
        configs[encoder.part] = (_open_clip if encoder.open_clip else _clip)(found, encoder)
    if family is SD2 and prediction_type == "eps":
        configs["unet"]["sample_size"] = 64  # the base model's pictures are smaller
    if family is SDXL:
        configs["unet"] |= _additions(unet, configs["text_encoder_2"]["projection_dim"])
    configs["scheduler"] = _scheduler(shapes, prediction_type)
    for part, config in configs.items():
        check_bounds(config, f"{where}, {part}")
    zeros = {"force_zeros_for_empty_prompt": family is SDXL}
    configs["model_index"] = {"_class_name": family.pipeline} | zeros
    return configs


class _Tensors(dict):
    """Shapes by name; one that is asked for and not there is a CheckpointError."""

    where = ""

    def __missing__(self, name: str):
        raise CheckpointError(
            f"{self.where} lacks the tensor {shown(name)}, which a whole model has; "
            "download the file again"
        )

    def numbers(self, pattern: str) -> list[int]:
        """The numbers that stand in the place of `#` in the keys, each once, in order."""
        regex = re.compile(re.escape(pattern).replace(r"\#", r"(\d{1,6})") + r"\.")
        return sorted({int(found[1]) for name in self if (found := regex.match(name))})


def _below(shapes: Shapes, prefix: str, where: str) -> _Tensors:
    found = _Tensors({n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)})
    found.where = f"{where} ({prefix}…)"
    return found


def _unet(family: Family, found: _Tensors, where: str) -> dict[str, Any]:
    inputs, outputs = found.numbers("input_blocks.#"), found.numbers("output_blocks.#")
    blocks = 1 + sum(f"input_blocks.{i}.0.op.weight" in found for i in inputs)
    layers = len(inputs) // blocks - 1
    # one input block makes the first channels; then each block has its layers, and a halving
    if layers < 1 or not inputs == outputs == list(range(blocks * (layers + 1))):
        raise CheckpointError(
            f"{where}: the U-Net has {len(inputs)} input and {len(outputs)} output blocks at "
            f"{blocks} sizes; equally many at each size are allowed; use another file"
        )
    firsts = [1 + block * (layers + 1) for block in range(blocks)]
    widths = [found[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in firsts]
    depths = _depths(found)
    down = [[depths[f"input_blocks.{i}"] for i in range(i, i + layers)] for i in firsts]
    up = [[depths[f"output_blocks.{i}"] for i in range(i - 1, i + layers)] for i in firsts]
    attends, middle = [any(block) for block in down], found.numbers("middle_block.#")
    width = next((s[1] for n, s in found.items() if n.endswith(".attn2.to_k.weight")), 0)
    flat = next((s for n, s in found.items() if n.endswith(".proj_in.weight")), ())
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": family.cells,
        "in_channels": found["input_blocks.0.0.weight"][1],
        "out_channels": found["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "attention_head_dim": [family.heads or max(width // 64, 1) for width in widths],
        "cross_attention_dim": width,
        "use_linear_projection": len(flat) == 2,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        "mid_block_type": f"UNetMidBlock2D{'' if middle == [0] else 'CrossAttn'}",
        **_told_depths(down, up, depths["middle_block"]),
    }


def _depths(names: Iterable[str]) -> Counter[str]:
    """How many transformer blocks stand behind each layer: `input_blocks.4` → 2, others → 0."""
    found = {layer.groups() for name in names if (layer := _TRANSFORMER.match(name))}
    return Counter(layer for layer, _ in found)


def _told_depths(down: list[list[int]], up: list[list[int]], middle: int) -> dict[str, Any]:
    """One depth for each block; those of SSD-1B, which differ within one, by layer and way.

    The middle reads the last of those on the way down, which says so where nothing attends there.
    """
    alike = all(len({*one, *other}) == 1 for one, other in zip(down, reversed(up), strict=True))
    down = [*down[:-1], [depth or middle for depth in down[-1]]]
    down, up = ([[max(depth, 1) for depth in block] for block in way] for way in (down, up))
    if alike:
        return {"transformer_layers_per_block": [block[0] for block in down]}
    return {"transformer_layers_per_block": down, "reverse_transformer_layers_per_block": up}


def _additions(unet: _Tensors, pooled: int) -> dict[str, Any]:
    """SDXL's pooled text and six sizes: what is not pooled text is six times a sinusoid's width."""
    width = unet["label_emb.0.0.weight"][1]
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled) // 6,
        "projection_class_embeddings_input_dim": width,
    }


def _vae(family: Family, found: _Tensors) -> dict[str, Any]:
    blocks = len(found.numbers("encoder.down.#"))
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [
            found[f"encoder.down.{i}.block.0.conv2.weight"][0] for i in range(blocks)
        ],
        "layers_per_block": len(found.numbers("encoder.down.0.block.#")),
        "latent_channels": found["decoder.conv_in.weight"][1],
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "mid_block_add_attention": "encoder.mid.attn_1.norm.weight" in found,
        "sample_size": family.cells * 8,
        "scaling_factor": family.scaling_factor,
    }


def _clip(found: _Tensors, encoder: Encoder) -> dict[str, Any]:
    below = "text_model." if any(name.startswith("text_model.") for name in found) else ""
    layers = len(found.numbers(f"{below}encoder.layers.#"))
    inner = found[f"{below}encoder.layers.0.mlp.fc1.weight"][0]
    tokens = found[f"{below}embeddings.token_embedding.weight"]
    positions = found[f"{below}embeddings.position_embedding.weight"][0]
    return _text(tokens, positions, layers, inner) | {"hidden_act": "quick_gelu"}


def _open_clip(found: _Tensors, encoder: Encoder) -> dict[str, Any]:
    layers = len(found.numbers("transformer.resblocks.#")) - encoder.unused
    inner = found["transformer.resblocks.0.mlp.c_fc.weight"][0]
    tokens, positions = found["token_embedding.weight"], found["positional_embedding"][0]
    config = _text(tokens, positions, layers, inner) | {"hidden_act": "gelu"}
    if encoder.part == "text_encoder_2":
        config["projection_dim"] = found["text_projection"][1]
    return config


def _text(tokens: tuple[int, ...], positions: int, layers: int, inner: int) -> dict[str, Any]:
    rows, width = tokens
    return {
        "model_type": "clip_text_model",
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": positions,
        "bos_token_id": max(rows - 2, 0),  # CLIP's start and end are its last two pieces
        "eos_token_id": max(rows - 1, 0),
        "pad_token_id": 1,
    }


def _scheduler(shapes: Shapes, prediction_type: str) -> dict[str, Any]:
    """The schedule that all three families were trained on, as their folders have it."""
    theirs = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
    return {
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "prediction_type": theirs[prediction_type],
        "rescale_betas_zero_snr": "ztsnr" in shapes,
    }
