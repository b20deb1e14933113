"""A picture on its way into noise: how much signal is left, and what the network makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers, worst
from diffusionlab.errors import InputError
from diffusionlab.trace import Noising


@dataclass(frozen=True, eq=False)
class NoisingCurve:
    """Numbers of a `Noising`, one entry per level.

    `x0_errors` are root mean square errors of the one-step x0-hat over the spread of the true x0,
    where always answering with the mean has 1; `eps_errors` those of eps-hat over the noise's own
    1. `mixes` checks latents = alpha · x0 + sigma · noise and the same in pixels, `unit` that the
    noise has mean square 1 (within 4 standard errors), and `agrees` that both errors are one:
    x0-hat − x0 = −karras_sigma · (eps-hat − eps).
    """

    timesteps: np.ndarray
    karras_sigmas: np.ndarray
    snr: np.ndarray
    x0_errors: np.ndarray
    eps_errors: np.ndarray
    mixes: Residual
    unit: Residual
    agrees: Residual

    @property
    def checks(self) -> tuple[str, ...]:
        """What failed, in words."""
        return tuple(str(check) for check in (self.mixes, self.unit, self.agrees) if str(check))


def noising_curve(record: Noising) -> NoisingCurve:
    """The numbers of a noised picture. Errors: InputError for a record without levels."""
    if not record.levels:
        raise InputError("a Noising without levels was given; one is needed: timesteps=(100, 500)")
    levels, x0 = record.levels, numbers(record.x0)
    spread = float(x0.std()) or 1.0
    guesses = [(numbers(p.x0), numbers(p.eps)) for p in record.predictions]
    off = np.array([_rms(guess - x0) for guess, _ in guesses])
    eps_off = np.array([_rms(eps - numbers(record.noise)) for _, eps in guesses])
    sigmas = np.array([level.karras_sigma for level in levels])
    return NoisingCurve(
        timesteps=np.array([level.timestep for level in levels]),
        karras_sigmas=sigmas,
        snr=np.array([level.snr for level in levels]),
        x0_errors=off / spread,
        eps_errors=eps_off,
        mixes=_mixes(record),
        unit=worst(_unit(numbers(noise)) for noise in (record.noise, record.pixel_noise)),
        agrees=_agrees(off, sigmas[: len(off)], eps_off, spread),
    )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def _mixes(record: Noising) -> Residual:
    """The worst of all levels, relative to the largest number there."""
    checks = []
    for i, level in enumerate(record.levels):
        for clean, noise, mixed in (
            (record.x0, record.noise, record.latents[i]),
            (record.pixels, record.pixel_noise, record.noisy_pixels[i]),
        ):
            wanted = level.alpha * numbers(clean) + level.sigma * numbers(noise)
            off = np.abs(wanted - numbers(mixed)).max() / max(np.abs(wanted).max(), 1e-12)
            checks.append(Residual(float(off), 1e-5, "x_t = alpha x0 + sigma eps"))
    return worst(checks)


def _unit(noise: np.ndarray) -> Residual:
    """The mean square of n Gaussian numbers is 1 with a standard error of √(2/n)."""
    off = abs(float((noise**2).mean()) - 1)
    return Residual(off, 4 * math.sqrt(2 / noise.size), "the noise has unit variance")


def _agrees(off: np.ndarray, sigmas: np.ndarray, eps_off: np.ndarray, spread: float) -> Residual:
    """At every level that is not noise alone; NaN where an error is NaN."""
    good = np.isfinite(sigmas)
    expected = sigmas[good] * eps_off[good]
    sizes = np.maximum(np.maximum(off[good], expected), spread)
    relative = np.abs(off[good] - expected) / sizes
    return Residual(float(relative.max(initial=0.0)), 1e-3, "both errors are one")
