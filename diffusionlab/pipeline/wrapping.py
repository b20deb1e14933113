"""A pipeline of diffusers that a user already has, as our bundle: the same weights, no copy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError, shown
from ..models import rename_attention_of_2022
from .bundle import LatentDiffusion
from .configs import CLASSES, PIPELINES, SECOND, other_family
from .fitting import check_fit, check_vocabulary
from .folder import read_schedule
from .parts import empty_module, settings_of, shapes_of
from .text import place_positions, rename_text_keys
from .weights import compare_shapes, declared

JOINED = re.compile(r"\.to_(qkv|kv)\.")  # diffusers keeps both, joined and separate
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")


def from_diffusers(pipe: Any) -> LatentDiffusion:
    """What `LatentDiffusion.from_diffusers` returns."""
    check_pipeline(pipe)
    theirs = {n: getattr(pipe, n) for n in NETWORKS if getattr(pipe, n, None) is not None}
    check_place(theirs)
    check_computed(theirs)
    configs: dict[str, Any] = {name: _config(name, module) for name, module in theirs.items()}
    modules = {name: wrapped(name, theirs[name], configs[name]) for name in theirs}
    encoders = tuple(modules[name] for name in modules if name.startswith("text_encoder"))
    check_fit(modules["unet"].config, modules["vae"].config, [e.config for e in encoders])
    tokenizers = [pipe.tokenizer, getattr(pipe, "tokenizer_2", None)][: len(encoders)]
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        check_vocabulary(tokenizer, encoder)
    configs["scheduler"] = _plain(pipe.scheduler)
    zeros = bool(pipe.config.get("force_zeros_for_empty_prompt"))
    index = {"_class_name": type(pipe).__name__, "force_zeros_for_empty_prompt": zeros}
    name = str(pipe.config.get("_name_or_path") or "a pipeline of diffusers")
    configs |= {"model_index": index, "name": name}
    schedule, (first, *rest) = read_schedule(configs["scheduler"]), tokenizers
    networks = (first, encoders, modules["unet"], modules["vae"])
    return LatentDiffusion(*networks, schedule, None, configs, Path(name), *rest)


def check_pipeline(pipe: Any) -> None:
    """InputError for what is no pipeline that we know, by its class's name."""
    name = type(pipe).__name__
    if name not in PIPELINES or not hasattr(pipe, "unet"):
        raise InputError(
            f"pipe is of class {shown(name)}{other_family(name)}; allowed are pipelines of "
            f"diffusers: {', '.join(PIPELINES)}; make one of those with from_pretrained"
        )
    for part, allowed in (CLASSES | SECOND).items():
        given = getattr(pipe, part, None)
        optional = part in SECOND and "XL" not in name
        if allowed and not optional and type(given).__name__ not in allowed:
            raise InputError(
                f"the pipeline's {part} is of class {shown(type(given).__name__)}; allowed are "
                f"{', '.join(allowed)}; put such a part there"
            )


def check_place(modules: dict[str, nn.Module]) -> None:
    """InputError unless all parts are in one place, in one dtype, and really there."""
    places = {}
    for name, module in modules.items():
        first = next(module.parameters())
        places[name] = f"{str(first.dtype).removeprefix('torch.')} on {first.device}"
    if any(place.endswith("meta") for place in places.values()):
        raise InputError(
            f"the pipeline's parts are offloaded ({shown(places)}); weights must be in memory; "
            "make the pipeline without enable_model_cpu_offload or device_map"
        )
    if len(set(places.values())) > 1:
        raise InputError(
            f"the pipeline's parts are {shown(places, 200)}; one device and dtype is allowed; "
            "call pipe.to(device, dtype) first"
        )


def check_computed(modules: dict[str, nn.Module]) -> None:
    """InputError for what changes a network's numbers and stands in no config: it would be lost."""
    blocks = getattr(modules["unet"], "up_blocks", ())
    if any(getattr(b, key, None) is not None for b in blocks for key in ("s1", "s2", "b1", "b2")):
        raise InputError(
            "the pipeline's U-Net has FreeU switched on; skip connections without it are computed "
            "here; call pipe.disable_freeu() first"
        )
    for name, module in modules.items():
        modes = {part.padding_mode for part in module.modules() if isinstance(part, nn.Conv2d)}
        if odd := modes - {"zeros"}:
            raise InputError(
                f"convolutions of the pipeline's {name} pad with {shown(odd.pop())}; only 'zeros' "
                "is allowed here; load the pipeline again, or set each padding_mode back"
            )


def wrapped(name: str, module: nn.Module, config: dict[str, Any]) -> nn.Module:
    """Our network with the very tensors of theirs; CheckpointError unless they fit."""
    ours, state = empty_module(name, settings_of(name, config)), _unfused(name, module)
    if name == "vae":
        state = rename_attention_of_2022(state)
    elif name.startswith("text_encoder"):
        state = rename_text_keys(state, ours)
    compare_shapes(f"the pipeline's {name}", declared(state), shapes_of(ours))
    ours.load_state_dict(state, strict=True, assign=True)
    if name.startswith("text_encoder"):
        place_positions(ours, next(module.parameters()).device)
    return ours.eval().requires_grad_(False)


def _unfused(name: str, module: nn.Module) -> dict[str, Any]:
    """A network's tensors without the joined copies that fused projections leave behind."""
    state, used = module.state_dict(), getattr(module, "attn_processors", {}).values()
    kept = {key: tensor for key, tensor in state.items() if not JOINED.search(key)}
    if len(kept) < len(state) and any("Fused" in type(processor).__name__ for processor in used):
        raise InputError(
            f"the pipeline's {name} has fused query, key and value projections; separate ones are "
            f"allowed; call pipe.unfuse_qkv_projections() first, or "
            f"pipe.{name}.unfuse_qkv_projections() if that part alone was fused"
        )
    return kept


def _config(name: str, module: nn.Module) -> dict[str, Any]:
    return module.config.to_dict() if name.startswith("text_encoder") else _plain(module)


def _plain(thing: Any) -> dict[str, Any]:
    """The config of one of diffusers' objects, with its class and without its notes."""
    kept = {key: value for key, value in dict(thing.config).items() if not key.startswith("_")}
    return {"_class_name": type(thing).__name__} | kept
