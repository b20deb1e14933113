"""A checkpoint folder in diffusers' layout: all configs first, then part by part the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, notice
from ..images import Preview
from ..schedule import NoiseSchedule
from ..scheduler_config import modernised
from .bundle import LatentDiffusion
from .configs import CONFIGS, read_configs
from .devices import best_dtype
from .files import AGAIN, inside, read_json
from .fitting import check_fit, check_vocabulary
from .hub import STEMS
from .parts import Part, filled, open_part, reading
from .text import read_tokenizer
from .weights import has_weights


def read_folder(
    folder: Path,
    name: str,
    *,
    variant: str | None,
    device: torch.device,
    dtype: torch.dtype | None,
    others: Mapping[str, Part],
    tokenizer_folder: Path | None = None,
    prediction_type: str | None = None,
    allow_nonfinite: bool = False,
) -> LatentDiffusion:
    """The model in a folder; `others` are parts that take the place of the folder's own."""
    configs = read_configs(folder)
    published = modernised(configs["scheduler"], configs["model_index"]["_class_name"])
    schedule = read_schedule(published, prediction_type)
    own = [part for part in STEMS if part in configs and part not in others]
    variants = _variants(folder, own, variant)
    parts = {
        part: others.get(part) or open_part(part, folder, configs[part], variants[part])
        for part in STEMS
        if part in configs
    }
    refuse_strangers(others, parts)
    fit(parts)
    if tokenizer_folder:  # another vocabulary, padded as this checkpoint pads
        pads = {part: config | {"added_tokens_decoder": {}} for part, config in configs.items()
                if part.startswith("tokenizer")}  # fmt: skip
        configs |= pads
    tokenizers = partial(read_tokenizers, tokenizer_folder or folder, dict(configs), parts)
    preview = read_preview(folder, parts["unet"].settings.in_channels)
    _tell_unread(configs["model_index"])
    configs |= {part: other.config for part, other in others.items()} | {"name": name}
    return assembled(
        parts, tokenizers, schedule, preview, configs, folder, device, dtype, allow_nonfinite
    )


def _variants(folder: Path, names: Iterable[str], variant: str | None) -> dict[str, str | None]:
    """The variant of each part: where only some have it, a notice says which are read without."""
    there = {name: has_weights(folder, STEMS[name], variant) for name in names}
    without = [name for name in there if not there[name]]
    if variant is None or not any(there.values()):
        return dict.fromkeys(there, variant)
    if without:
        notice(f"no variant {variant!r} of {', '.join(without)} is there: read without a variant")
    return {name: variant if there[name] else None for name in there}


def read_schedule(config: Mapping[str, Any], prediction_type: str | None = None) -> NoiseSchedule:
    """The training schedule of a scheduler config; `prediction_type` overrules what it says."""
    with reading(CONFIGS["scheduler"]):
        schedule = NoiseSchedule.from_config(config)
        return replace(schedule, prediction_type=prediction_type) if prediction_type else schedule


def refuse_strangers(others: Mapping[str, Part], parts: Mapping[str, Part]) -> None:
    """CheckpointError for a replacement of a part that the model does not have."""
    if strange := [name for name in others if name not in parts]:
        raise CheckpointError(
            f"{strange[0]}= was given, and the model has only {', '.join(parts)}; leave it out"
        )


def encoders_of(parts: Mapping[str, Part]) -> tuple[nn.Module, ...]:
    """The text encoders among the parts, in their order."""
    return tuple(parts[name].module for name in parts if name.startswith("text_encoder"))


def fit(parts: Mapping[str, Part]) -> None:
    """CheckpointError if the parts cannot work together."""
    encoders = [parts[name].settings for name in parts if name.startswith("text_encoder")]
    check_fit(parts["unet"].settings, parts["vae"].settings, encoders)


def assembled(
    parts: Mapping[str, Part],
    tokenizers: Callable[[], list[Any]],
    schedule: NoiseSchedule,
    preview: Preview | None,
    configs: dict[str, Any],
    path: Path,
    device: torch.device,
    dtype: torch.dtype | None,
    allow_nonfinite: bool = False,
) -> LatentDiffusion:
    """The bundle, after the weights of all parts were read, and the vocabulary meanwhile.

    dtype None is what fits the U-Net to the device.
    """
    dtype = dtype or best_dtype(device, parts["unet"].module)
    first, *rest = filled(parts, device, dtype, beside=tokenizers, allow_nonfinite=allow_nonfinite)
    unet, vae = parts["unet"].module, parts["vae"].module
    return LatentDiffusion(
        first, encoders_of(parts), unet, vae, schedule, preview, configs, path, *rest
    )


def read_tokenizers(
    folder: Path, configs: Mapping[str, Any], parts: Mapping[str, Part]
) -> list[Any]:
    """One tokenizer for each text encoder; CheckpointError unless they fit."""
    made = []
    for encoder, part in zip(encoders_of(parts), ("tokenizer", "tokenizer_2"), strict=False):
        context = encoder.config.max_position_embeddings
        below = _tokenizer_place(folder, part)
        made.append(read_tokenizer(folder, configs.get(part, {}), context, below))
        check_vocabulary(made[-1], encoder)
    if any(tokenizer.get_vocab() != made[0].get_vocab() for tokenizer in made[1:]):
        raise CheckpointError(
            "tokenizer/ and tokenizer_2/ have different vocabularies; only their padding may "
            f"differ; {AGAIN}"
        )
    return made


def _tokenizer_place(folder: Path, part: str) -> str:
    """Where in a folder a tokenizer lies: its own place, the first one's, or the folder itself."""
    for below in dict.fromkeys((part, "tokenizer", ".")):
        files = (f"{below}/{name}" for name in ("vocab.json", "tokenizer.json"))
        if any(inside(folder, name, optional=True) for name in files):
            return below
    return part


def read_preview(folder: Path, channels: int) -> Preview | None:
    """The linear latent → RGB map of preview.json, or None where a checkpoint has none."""
    if not (path := inside(folder, "preview.json", optional=True)):
        return None
    with reading("preview.json"):
        preview = Preview.from_json(read_json(path))
        if preview.weight.shape != (3, channels):
            raise ValueError(f"weight of shape {preview.weight.shape} for {channels} channels")
        return preview


def _tell_unread(index: Mapping[str, Any]) -> None:
    part = index.get("safety_checker")
    if isinstance(part, list) and part and part[0]:
        notice("the checkpoint's safety_checker is not loaded: pictures are shown unfiltered")
