"""Another part in the place of a model's own: a second VAE, a tiny one, another text encoder."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from torch import nn

from ..errors import InputError, shown
from ..images import Preview
from ..models import VAE, TinyVAE, UNet
from .bundle import LatentDiffusion
from .fitting import check_fit, check_vocabulary
from .loading import other_part
from .parts import filled
from .text import TEXT_KEYS

Given = str | os.PathLike | nn.Module | LatentDiffusion
KINDS = {"vae": (VAE, TinyVAE), "unet": (UNet,)}


def with_parts(
    model: LatentDiffusion,
    *,
    preview: Preview | None = None,
    variant: str | None = None,
    **given: Given | None,
) -> LatentDiffusion:
    """What `LatentDiffusion.with_parts` returns."""
    modules = own_parts(model)
    wanted = {name: source for name, source in given.items() if source is not None}
    if strange := [name for name in wanted if name not in modules]:
        raise InputError(
            f"{strange[0]}= was given; this model has {', '.join(modules)}; choose one"
        )
    opened, config = {}, dict(model.config)
    for name, source in wanted.items():
        if isinstance(source, (str, os.PathLike)):
            opened[name] = part = other_part(name, source, variant, {})
            modules[name], config[name] = part.module, part.config
        else:
            modules[name] = module = checked_module(model, name, source)
            config[name] = config_of(module)
    encoders = tuple(modules[name] for name in modules if name.startswith("text_encoder"))
    check_fit(modules["unet"].config, modules["vae"].config, [e.config for e in encoders])
    for tokenizer, encoder in zip((model.tokenizer, model.tokenizer_2), encoders, strict=False):
        check_vocabulary(tokenizer, encoder)
    preview = model.preview if preview is None else checked_preview(model, preview)
    filled(opened, model.device, model.dtype)
    return dataclasses.replace(
        model, text_encoders=encoders, unet=modules["unet"], vae=modules["vae"], preview=preview,
        config=config,
    )  # fmt: skip


def own_parts(model: LatentDiffusion) -> dict[str, nn.Module]:
    """The networks of a model by the names of their folders."""
    names = ("text_encoder", "text_encoder_2")
    encoders = dict(zip(names, model.text_encoders, strict=False))
    return {"unet": model.unet, "vae": model.vae, **encoders}


def checked_module(model: LatentDiffusion, name: str, source: Any) -> nn.Module:
    """A network, or another model's, as a part of this one; InputError unless it is one.

    It must be where the model is, in the same dtype: a part that others hold is never moved.
    """
    other = own_parts(source).get(name) if isinstance(source, LatentDiffusion) else source
    kinds = KINDS.get(name) or (type(own_parts(model)[name]),)
    if not isinstance(other, kinds):
        raise InputError(
            f"{name} is {shown(type(other).__name__)}; allowed are a folder, a hub id, another "
            f"model, or a network of class {' or '.join(k.__name__ for k in kinds)}; pass one"
        )
    first = next(other.parameters())
    if (first.device, first.dtype) != (model.device, model.dtype):
        raise InputError(
            f"{name} is {first.dtype} on {first.device}, the model {model.dtype} on "
            f"{model.device}; they must agree; load both alike"
        )
    return other


def checked_preview(model: LatentDiffusion, preview: Preview) -> Preview:
    """A linear map from this model's latents to RGB; InputError unless it is one."""
    wanted = 3, model.latent_channels
    found = np.shape(preview.weight) if isinstance(preview, Preview) else None
    if found != wanted:
        what = shown(preview) if found is None else f"a map of {found}"
        raise InputError(
            f"preview is {what}; a map of {wanted} is what this model's latents need: "
            "dl.fit_preview(model) makes one"
        )
    return preview


def config_of(module: nn.Module) -> dict[str, Any]:
    """The content of a network's config.json."""
    if hasattr(module.config, "model_type"):
        kept = {key: getattr(module.config, key) for key in TEXT_KEYS}
        return {"model_type": "clip_text_model"} | kept
    return module.config.to_dict()
