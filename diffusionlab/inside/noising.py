"""Forward diffusion on any picture, and what the network makes of it in one step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import InputError, notice, shown
from ..images import Preview, open_image, to_array, to_image, to_pixels, to_rgb
from ..pipeline import LatentDiffusion
from ..schedule import NoiseLevel
from ..stages import add_noise, decode, draw_noise, embed, encode, predict, tokenize
from ..toyland import render, scene
from ..trace import Guidance, Noising, Prediction, to_numpy

TIMESTEPS = (0, 199, 399, 599, 799, 999)


@torch.inference_mode()
def noise_image(
    model: LatentDiffusion,
    image: Any,
    timesteps: Iterable[float] = TIMESTEPS,
    *,
    prompt: str = "",
    seed: int = 0,
    guidance_scale: float | Guidance = 1.0,
    decoded: bool = True,
) -> Noising:
    """Noise a picture to several timesteps, in latents and in pixels, and ask the network at each.

    image: a path, a PIL image, an array (height, width, 3) or whatever has an `.image` of these (a
    scene that Toyland drew); made RGB, shrunk to at most `model.size` and cropped in the
    middle to the nearest sides that the VAE takes, with a notice. The same noise serves every
    level: x_t = alpha · x0 + sigma · noise (arXiv 2006.11239, Eq. 4). decoded=False leaves out the
    decoded pictures.
    Errors: InputError for what is no picture, has no room for a latent cell, or is no timestep.
    """
    levels = _levels(model, timesteps)
    picture = fitted(model, as_image(image))
    tokens = tokenize(model, prompt)
    text, uncond = embed(model, tokens), embed(model, tokenize(model, ""))
    x0 = encode(model, picture)
    noise = draw_noise(model, seed, picture.height, picture.width)
    noisy = [add_noise(x0, noise, level) for level in levels]
    said = [predict(model, z, z.level, text, uncond, guidance_scale) for z in noisy]
    pixels = to_pixels(picture) * 2 - 1  # (height, width, 3) in -1…1
    pixel_noise = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32)
    return Noising(
        levels=levels,
        x0=to_numpy(x0.values),
        noise=to_numpy(noise.values),
        latents=np.stack([to_numpy(z.values) for z in noisy]),
        pixels=pixels,
        pixel_noise=pixel_noise,
        noisy_pixels=np.stack([_mixed(level, pixels, pixel_noise) for level in levels]),
        predictions=tuple(_kept(p) for p in said),
        image=picture,
        x0_images=tuple(decode(model, p.x0) for p in said) if decoded else (),
        noisy_images=tuple(decode(model, z) for z in noisy) if decoded else (),
        prompt=str(prompt),
        seed=int(seed),
        preview=model.preview,
    )


def _mixed(level: NoiseLevel, clean: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return np.float32(level.alpha) * clean + np.float32(level.sigma) * noise


def _kept(live: Prediction) -> Prediction:
    """A prediction with NumPy arrays."""
    uncond = None if live.uncond is None else to_numpy(live.uncond)
    return replace(live, latent=to_numpy(live.latent), cond=to_numpy(live.cond), uncond=uncond)


def _levels(model: LatentDiffusion, timesteps: Iterable[float]) -> tuple[NoiseLevel, ...]:
    listed = isinstance(timesteps, Iterable) and not isinstance(timesteps, str)
    given = list(timesteps) if listed else []
    numbers = all(isinstance(t, (int, float, np.number)) and t is not True for t in given)
    if not given or not numbers:
        last = model.schedule.num_train_steps - 1
        raise InputError(
            f"timesteps is {shown(timesteps)}; a list of numbers from 0 to {last} is allowed, "
            f"e.g. {list(TIMESTEPS)}"
        )
    return tuple(model.schedule.level_at(timestep=t) for t in given)


# ---- pictures from anywhere --------------------------------------------------------------------
def as_image(image: Any) -> Image.Image:
    """A path, PIL image, array, or a record with an `.image` of these, as an RGB PIL image.

    Transparent parts become white. Errors: InputError for anything else, for addresses included.
    """
    if isinstance(image, (str, Path)):
        return open_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray):
        return _drawn_array(image)
    if getattr(image, "image", None) is not None:
        return as_image(image.image)
    raise InputError(
        f"image is {shown(image)}; a path, a PIL image, an array (height, width, 3) or a drawn "
        "scene is allowed: open the file with diffusionlab.images.open_image"
    )


def _drawn_array(array: np.ndarray) -> Image.Image:
    """An array as a picture; floats far outside 0…1 are no pixels of ours."""
    good = array[np.isfinite(array)] if array.dtype.kind == "f" else array[:0]
    if good.size and (good.min() < -0.01 or good.max() > 1.01):
        raise InputError(
            f"image is an array from {good.min():.3g} to {good.max():.3g}; floats from 0 to 1 or "
            "uint8 are allowed: divide by the value of white"
        )
    return to_image(array)


def fitted(model: LatentDiffusion, image: Image.Image) -> Image.Image:
    """The picture no larger than the model's own, its sides multiples of the latent's cell."""
    factor, most = model.size_factor, model.size
    shrink = min(1.0, most / max(image.size))
    sides = [int(side * shrink / factor + 0.5) * factor for side in image.size]
    if min(sides) < factor:
        raise InputError(
            f"image of {image.size} pixels: its shorter side would have "
            f"{min(image.size) * shrink:.3g} pixels, and half of {factor} is the least; crop it "
            "closer to a square"
        )
    if tuple(sides) == image.size:
        return image
    notice(f"the image of {image.size} pixels was fitted to {tuple(sides)}")
    scale = max(side / given for side, given in zip(sides, image.size, strict=True))
    grown = [max(side, round(given * scale)) for side, given in zip(sides, image.size, strict=True)]
    left, top = ((g - s) // 2 for g, s in zip(grown, sides, strict=True))
    large = image.resize(grown, Image.Resampling.LANCZOS)
    return large.crop((left, top, left + sides[0], top + sides[1]))


def fit_preview(model: LatentDiffusion, images: Sequence[Any] | None = None) -> Preview:
    """Fit the linear latent → RGB map of a checkpoint on pictures, by least squares.

    `model.with_parts(preview=fit_preview(model))` then shows latents in colour without a decoder.
    images: ten of varied colour do; None takes twelve scenes that Toyland draws.
    Errors: InputError for none, or of different sizes.
    """
    if images is None:
        size = min(model.size, 512) // 8 * 8  # the renderer's sizes
        images = [render(scene(seed), size, masks=False) for seed in range(12)]
    pictures = [fitted(model, as_image(image)) for image in images]
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        raise InputError(
            f"{len(pictures)} images of {len(sizes)} sizes were given; at least one is needed, and "
            "all of one size: crop them alike"
        )
    latents = np.stack([to_numpy(encode(model, picture).values) for picture in pictures])
    return Preview.fit(latents, np.stack([to_array(picture) for picture in pictures]))
