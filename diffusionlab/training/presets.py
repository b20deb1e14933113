"""The sizes and budgets of a training run, by name."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError, close_matches, shown
from ..toyland import FULL, SMALL, Share

SCALED_LINEAR = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "clip_sample": False,
}


@dataclass(frozen=True)
class Preset:
    """Everything that distinguishes one training run from another.

    Minutes are wall-clock limits of each part; `pictures` is the size of the rendered data set.
    """

    name: str
    pictures: int
    minutes: dict[str, float]
    share: Share = FULL
    size: int = 128
    context_length: int = 32
    text_width: int = 128
    text_layers: int = 3
    text_batch: int = 128
    text_rate: float = 1e-3
    vae_channels: tuple[int, ...] = (16, 32, 64, 128)
    vae_batch: int = 16
    vae_crop: int = 64
    vae_rate: float = 1.5e-3
    vae_kl: float = 1e-3
    unet_channels: tuple[int, ...] = (64, 128)
    unet_layers: int = 1
    unet_batch: int = 32
    unet_rate: float = 8e-4
    caption_dropout: float = 0.1
    device: str = "cpu"
    bfloat16: bool = True


PRESETS = {
    "cpu": Preset(
        "cpu",
        40_000,
        {"clip": 20, "vae": 20, "denoiser": 82, "image": 12, "decoder": 12, "judges": 12},
        share=SMALL,
    ),
    # Sizes of the model to come; its minutes are estimates, this preset has not been run yet.
    "accelerator": Preset(
        "accelerator",
        500_000,
        {"clip": 2, "vae": 6, "denoiser": 15, "image": 1, "decoder": 1, "judges": 2},
        text_width=256,
        text_layers=4,
        text_batch=2048,
        vae_channels=(32, 64, 128, 128),
        vae_batch=64,
        vae_crop=128,
        vae_rate=1e-3,
        unet_channels=(96, 128),
        unet_layers=2,
        unet_batch=1024,
        device="cuda",
    ),
    "smoke": Preset(
        "smoke",
        96,
        {
            "clip": 0.1,
            "vae": 0.14,
            "denoiser": 0.18,
            "image": 0.03,
            "decoder": 0.03,
            "judges": 0.08,
        },
        share=SMALL,
        size=64,
        text_width=64,
        text_layers=1,
        text_batch=32,
        vae_channels=(8, 16, 32, 32),
        vae_batch=8,
        unet_channels=(32, 64),
        unet_batch=16,
        bfloat16=False,
    ),
}


def preset(name: str) -> Preset:
    """The preset of this name; an unknown name is an InputError that lists them."""
    if name not in PRESETS:
        raise InputError(
            f"preset {shown(name)} is not known: {close_matches(name, PRESETS)}"
            f"use one of {', '.join(PRESETS)}"
        )
    return PRESETS[name]
