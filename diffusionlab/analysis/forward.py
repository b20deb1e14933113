"""Forward diffusion as numbers: many small steps beside one jump, and which frequencies drown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers, worst
from diffusionlab.analysis.spectrum import ring_power, rings
from diffusionlab.errors import InputError, shown
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.trace import Noising

ERRORS = 5.0  # standard errors by which a sample may miss what it was drawn from


# ---- small steps --------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class SmallSteps:
    """One number, noised increment by increment by many walkers, beside the jump to each timestep.

    `paths` (timesteps + 1, walkers) starts with the clean number in row 0; row t + 1 is timestep t.
    `means` and `stds` are those of its rows; the jump has mean `alphas · start` and spread
    `sigmas`. `agrees` checks both against each other, in standard errors of as many walkers.
    """

    start: float
    paths: np.ndarray
    alphas: np.ndarray
    sigmas: np.ndarray
    agrees: Residual

    @property
    def means(self) -> np.ndarray:
        return self.paths.mean(axis=1)

    @property
    def stds(self) -> np.ndarray:
        return self.paths.std(axis=1)


def small_steps(
    schedule: NoiseSchedule, start: float = 2.0, walkers: int = 1000, seed: int = 0
) -> SmallSteps:
    """Walk through all increments of a schedule: x_t = √(1 − beta) · x_(t−1) + √beta · noise.

    That is Eq. 2 of arXiv 2006.11239; its Eq. 4, the jump, is x_t = alpha · x0 + sigma · noise.
    Errors: InputError for fewer than two walkers or a start that is no finite number.
    """
    if isinstance(walkers, bool) or not isinstance(walkers, int) or walkers < 2:
        raise InputError(f"walkers is {shown(walkers)}; 2 or more are allowed, 1000 is usual")
    if not isinstance(start, (int, float)) or not math.isfinite(start):
        raise InputError(f"start is {shown(start)}; a finite number is allowed, e.g. 2.0")
    random = np.random.default_rng(seed)
    paths = np.full((schedule.num_train_steps + 1, walkers), float(start))
    for t, beta in enumerate(schedule.beta):
        noise = random.standard_normal(walkers)
        paths[t + 1] = math.sqrt(1 - beta) * paths[t] + math.sqrt(beta) * noise
    alphas, sigmas = np.append(1.0, schedule.alpha), np.append(0.0, schedule.sigma)
    return SmallSteps(float(start), paths, alphas, sigmas, _agreeing(paths, start, alphas, sigmas))


def _agreeing(paths, start, alphas, sigmas) -> Residual:
    """The largest miss of a mean (error sigma/√n) or a spread (sigma/√2n), in standard errors."""
    later, count = slice(1, None), paths.shape[1]
    mean_off = np.abs(paths.mean(axis=1) - alphas * start)[later] / sigmas[later]
    std_off = np.abs(paths.std(axis=1) / np.where(sigmas > 0, sigmas, 1.0) - 1)[later]
    off = max(mean_off.max() * math.sqrt(count), std_off.max() * math.sqrt(2 * count))
    return Residual(float(off), ERRORS, "steps and jump agree, in standard errors")


# ---- the spectrum -------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Drowning:
    """The power of one clean picture by frequency, in units of noise of size one, and the floors.

    `power[k]` is the mean power of a wave of k cycles per longer side (k = 1 …, see `spectrum`),
    where white noise of variance 1 has 1 at every k. `floors` is karras_sigma² for each level: that
    of the noise, once x_t is divided by alpha. `heard[i]` is the highest frequency up to which all
    of them stand above floor i; 0 if the first does not.
    """

    power: np.ndarray
    floors: np.ndarray
    heard: np.ndarray

    @property
    def frequencies(self) -> np.ndarray:
        return np.arange(1, len(self.power) + 1)


@dataclass(frozen=True, eq=False)
class NoisingSpectrum:
    """Which frequencies of a noised picture stand above the noise: its pixels and its latent.

    `white` checks that the record's noise has the same power at every frequency, as the floors say.
    """

    pixels: Drowning
    latent: Drowning
    timesteps: np.ndarray
    white: Residual


def noising_spectrum(record: Noising) -> NoisingSpectrum:
    """The spectrum of a picture and its latent against the noise of each level.

    Errors: InputError for a record without levels, or for latents of one position.
    """
    if not record.levels:
        raise InputError("a Noising without levels was given; one is needed: timesteps=(100, 500)")
    if max(record.x0.shape[1:]) < 2:
        raise InputError(
            f"latents {record.x0.shape} have one position, a frequency needs two; take a larger "
            "picture"
        )
    floors = np.array([level.karras_sigma for level in record.levels]) ** 2
    pixels = numbers(record.pixels).transpose(2, 0, 1)
    pixel_noise = numbers(record.pixel_noise).transpose(2, 0, 1)
    return NoisingSpectrum(
        pixels=_drowning(pixels, floors),
        latent=_drowning(numbers(record.x0), floors),
        timesteps=np.array([level.timestep for level in record.levels]),
        white=worst(_white(noise) for noise in (pixel_noise, numbers(record.noise))),
    )


def _waves(height: int, width: int) -> np.ndarray:
    """How many waves each whole ring holds."""
    return np.bincount(rings(height, width).ravel(), minlength=max(height, width) // 2 + 2)[1:-1]


def _density(picture: np.ndarray) -> np.ndarray:
    """The mean power of a wave in each whole ring, over the channels; white noise of size 1: 1."""
    height, width = picture.shape[-2:]
    power = ring_power(picture).mean(axis=0)[1:-1] * height * width
    return power / _waves(height, width)


def _drowning(picture: np.ndarray, floors: np.ndarray) -> Drowning:
    power = _density(picture)
    above = power[None] > floors[:, None]  # (levels, frequencies)
    return Drowning(power, floors, np.cumprod(above, axis=1).sum(axis=1))


def _white(noise: np.ndarray) -> Residual:
    """Each ring's mean of n numbers |wave|², of mean 1 and spread 1, half of them independent."""
    count = len(noise) * _waves(*noise.shape[-2:])
    off = np.abs(_density(noise) - 1) * np.sqrt(count / 2)
    return Residual(float(off.max()), ERRORS, "the noise is white, in standard errors")
