"""Runs whose every x0-hat is chosen, so that what is said of them is known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import traces

from diffusionlab.plan import Stage, Step, Term, Update
from diffusionlab.trace import Noising, Prediction, Trace

SHAPE = (4, 6, 8)
PREDICTS_X0 = {"prediction_type": "x0"}


def run_of(x0s: np.ndarray, stopped: int | None = None, loudness: float = 1.0, **changes) -> Trace:
    """DDIM (guidance 1) of a network that says x0s[k] (channels, h, w) at step k; float64."""
    x0s = np.asarray(x0s, np.float64)
    levels = traces.schedule().levels(len(x0s), "trailing", "clean")
    noise = loudness * np.random.default_rng(5).normal(size=x0s.shape[1:])
    x, steps = levels[0].alpha * x0s[0] + levels[0].sigma * noise, []
    for i, x0 in enumerate(x0s[:stopped]):
        here, there = levels[i], levels[i + 1]
        call = Prediction(here, x, x0, None, 1.0, "x0")
        kept = there.sigma / here.sigma
        rule = Update(kept, (Term("x0", i, there.alpha - kept * here.alpha),))
        following = there.alpha * x0 + there.sigma * call.eps
        steps.append(Step(i, here, there, x, (call,), (Stage(here),), rule, (), following))
        x = following
    run = traces.trace(len(x0s))
    settings = replace(run.settings, guidance_scale=1.0, **PREDICTS_X0)
    image = run.image if stopped is None else None
    parts = {"settings": settings, "steps": tuple(steps), "image": image, "frames": ()}
    return replace(run, **(parts | changes))


def wave(rows: float, columns: float, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """cos of `rows` cycles down and `columns` cycles across, the same in every channel."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    plane = np.cos(2 * np.pi * (rows * y / shape[1] + columns * x / shape[2]))
    return np.broadcast_to(plane, shape).copy()


def noising(error: float = 0.1, timesteps: tuple = (100, 500, 999)) -> Noising:
    """A noised picture of 48 × 64 pixels, and a network whose x0-hat is off by `error` all over."""
    random = np.random.default_rng(2)
    levels = tuple(traces.schedule().level_at(timestep=t) for t in timesteps)
    x0, noise = random.normal(size=(2, *SHAPE))
    run = traces.trace(2)
    pixels = np.asarray(run.image, np.float64) / 127.5 - 1
    pixel_noise = random.normal(size=pixels.shape)
    latents = np.stack([level.alpha * x0 + level.sigma * noise for level in levels])
    return Noising(
        levels=levels,
        x0=x0,
        noise=noise,
        latents=latents,
        pixels=pixels,
        pixel_noise=pixel_noise,
        noisy_pixels=np.stack([k.alpha * pixels + k.sigma * pixel_noise for k in levels]),
        predictions=tuple(
            Prediction(level, x, x0 + error, None, 1.0, "x0")
            for level, x in zip(levels, latents, strict=True)
        ),
        image=run.image,
        prompt="a red sky scraper",
        preview=run.preview,
    )
