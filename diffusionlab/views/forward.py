"""A picture on its way into noise, as data of a page, which mixes alpha · clean + sigma · noise.

The page mixes the two arrays at whatever level the reader stands; nothing is drawn beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.noising import noising_curve
from diffusionlab.errors import InputError
from diffusionlab.images import Preview
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.trace import Noising
from diffusionlab.views.page import packed, plain
from diffusionlab.views.reels import latent_image, reel

SIDE = 128  # the widest picture that is mixed; larger ones are averaged down to at most that
DRAWING = 96  # pixels of the built-in drawing
HALF = np.full(3, 0.5)


def mix(label: str, clean: Any, noise: Any, bias: Any, kind: str = "float32") -> dict[str, Any]:
    """Two (height, width, 3) arrays for bias + alpha · clean + sigma · noise on the page.

    Colours are in [0, 1] before clipping. Where a number is not finite, the page says so.
    """
    clean, noise = numbers(clean), numbers(noise)
    if not (np.isfinite(clean).all() and np.isfinite(noise).all()):
        return {"label": label, "missing": "not shown: it holds NaN or infinite numbers"}
    return {
        "label": label,
        "height": clean.shape[0],
        "width": clean.shape[1],
        "clean": packed(clean, kind),
        "noise": packed(noise, kind),
        "bias": [plain(value) for value in bias],
    }


def pixel_mix(label: str, pixels: Any, noise: Any) -> dict[str, Any]:
    """Of pixels in -1…1 and noise, (height, width, 3); at most 128 pixels wide and high.

    A larger picture is averaged down; of its noise every k-th pixel is kept, so that the noise
    stays as strong as it was.
    """
    pixels, noise = numbers(pixels), numbers(noise)
    times = max(1, -(-max(pixels.shape[:2]) // SIDE))
    height, width = (size // times for size in pixels.shape[:2])
    cut = pixels[: height * times, : width * times]
    small = cut.reshape(height, times, width, times, 3).mean(axis=(1, 3))
    grain = noise[: height * times : times, : width * times : times]
    name = label if times == 1 else f"{label} (1 of {times} × {times} pixels)"
    return mix(name, small / 2, grain / 2, HALF, "float16")


def latent_mix(x0: Any, noise: Any, preview: Preview | None) -> dict[str, Any]:
    """Of latents (channels, h, w): by the preview map, which is linear, else their mean in grey."""
    x0, noise = numbers(x0), numbers(noise)
    if preview is not None:
        weight = np.asarray(preview.weight, np.float64)
        maps = [np.einsum("rc,chw->hwr", weight, z) for z in (x0, noise)]
        return mix("x_t, preview", *maps, np.asarray(preview.bias, np.float64))
    top = 2 * max(float(np.nanmax(np.abs(x0.mean(axis=0)), initial=0)), 1.0)
    maps = [np.repeat(z.mean(axis=0)[..., None], 3, axis=-1) / top for z in (x0, noise)]
    return mix("x_t, channels' mean in grey", *maps, HALF)


# ---- what the page is handed ------------------------------------------------------------------
def drawn_pictures(seed: int = 0) -> dict[str, Any]:
    """The built-in drawing, noised in pixels: there is a picture even without a model."""
    pixels = drawing() * 2 - 1
    noise = np.random.default_rng(seed).standard_normal(pixels.shape)
    return {
        "mixes": [pixel_mix("x_t of a drawing", pixels, noise)],
        "of": "the drawing",
        "told": f"The picture is a built-in drawing of {DRAWING} × {DRAWING} pixels, noised in "
        "pixels; noising=dl.noise_image(model, image) shows one of yours and what the network "
        "makes of it.",
    }


def noised_pictures(noising: Noising) -> dict[str, Any]:
    """A `Noising`: its pixels and its latent at any level, x0-hat where the network was asked.

    Raises InputError for a record without levels.
    """
    curve = noising_curve(noising)
    height, width = np.shape(noising.x0)[1:]
    first = pixel_mix("noisy pixels", noising.pixels, noising.pixel_noise)
    second = latent_mix(noising.x0, noising.noise, noising.preview)
    told = f"The network was told {noising.prompt!r}" if noising.prompt else "It was told nothing"
    return {
        "mixes": [first, second],
        "of": "the picture",
        "guesses": _guesses(noising),
        "asked": [plain(level.timestep) for level in noising.levels],
        "off": [plain(error) for error in curve.x0_errors],
        "told": f"Seed {noising.seed}; a latent of {height} × {width}. {told}. "
        + " ".join(f"{check}." for check in curve.checks),
    }


def _guesses(noising: Noising) -> dict[str, Any]:
    """What one step back gives at each level that the network was asked at."""
    decoded = len(noising.x0_images) == len(noising.levels)
    pictures = noising.x0_images if decoded else [
        latent_image(call.x0, noising.preview) for call in noising.predictions
    ]  # fmt: skip
    alts = [
        f"x0-hat in one step from timestep {level.timestep:g}, karras_sigma "
        f"{level.karras_sigma:.3g}" + ("" if picture is not None else ": not finite, not shown")
        for level, picture in zip(noising.levels, pictures, strict=True)
    ]
    return reel(f"x0-hat, {'decoded' if decoded else 'preview'}", pictures, alts, 192)


def nearest_asked(noising: Noising, timesteps: list[float]) -> list[int]:
    """For each timestep, which of the record's levels is nearest."""
    known = np.array([level.timestep for level in noising.levels])
    return [int(np.abs(known - timestep).argmin()) for timestep in timesteps]


def checked_noising(noising: Any, schedule: NoiseSchedule) -> Noising:
    """A `Noising` whose levels are those of the schedule. Raises InputError."""
    if not isinstance(noising, Noising) or not noising.levels:
        raise InputError(
            f"noising is {type(noising).__name__}; a Noising with at least one level is allowed: "
            "make it by dl.noise_image(model, image)"
        )
    for level in noising.levels:
        own = schedule.level_at(timestep=level.timestep)
        if abs(own.alpha - level.alpha) > 1e-6:
            raise InputError(
                f"noising holds alpha {level.alpha:.6g} at timestep {level.timestep:g}, where this "
                f"schedule has {own.alpha:.6g}; both must be of one model: pass model.schedule"
            )
    return noising


# ---- the built-in drawing ---------------------------------------------------------------------
def drawing(side: int = DRAWING) -> np.ndarray:
    """A house on a hill under a sun, (side, side, 3) in [0, 1], drawn by formulas."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    picture = np.array([0.36, 0.62, 0.92]) + y[..., None] * np.array([0.45, 0.27, 0.05])
    hill = y > 0.72 - 0.10 * np.sin(2.2 * np.pi * x + 0.4)
    for shape, colour in (
        ((x - 0.79) ** 2 + (y - 0.2) ** 2 < 0.011, (1.0, 0.85, 0.2)),
        (hill, (0.25, 0.55, 0.25)),
        ((abs(x - 0.38) < 0.17) & (y > 0.46) & (y < 0.78), (0.93, 0.88, 0.78)),
        ((y < 0.47) & (y > 0.25 + 0.98 * abs(x - 0.38)), (0.75, 0.2, 0.16)),
        ((abs(x - 0.45) < 0.035) & (y > 0.62) & (y < 0.78), (0.42, 0.25, 0.14)),
        ((abs(x - 0.31) < 0.045) & (abs(y - 0.59) < 0.045), (0.25, 0.4, 0.6)),
        ((abs(x - 0.86) < 0.018) & (y > 0.6) & (y < 0.84), (0.36, 0.22, 0.12)),
        ((x - 0.86) ** 2 + (y - 0.56) ** 2 < 0.009, (0.12, 0.42, 0.2)),
    ):
        picture[shape] = colour
    return np.clip(picture, 0, 1)
