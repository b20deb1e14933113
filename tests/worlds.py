"""Exact worlds, (alpha, sigma) pairs and grids of levels for the tests of samplers.

A Gaussian and a 1-D mixture (non-linear denoiser) have known ends of the probability flow.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffusionlab.ideal import GaussianWorld, IdealPrediction
from diffusionlab.plan import denoise
from diffusionlab.samplers import SAMPLERS, Sampler
from diffusionlab.schedule import NoiseLevel


def vp(karras_sigma, timestep=0.0):
    alpha = 1.0 / math.hypot(1.0, karras_sigma)
    return NoiseLevel(timestep, alpha, karras_sigma * alpha)


def ve(karras_sigma, timestep=0.0):
    return NoiseLevel(timestep, 1.0, karras_sigma)


def flow(karras_sigma, timestep=0.0):
    return NoiseLevel(timestep, 1.0 / (1.0 + karras_sigma), karras_sigma / (1.0 + karras_sigma))


HIGH, LOW = 10.0, 0.05


def uniform(num_steps):
    return np.exp(np.linspace(math.log(HIGH), math.log(LOW), num_steps + 1))


def karras(num_steps):
    return np.linspace(HIGH ** (1 / 7), LOW ** (1 / 7), num_steps + 1) ** 7


def rough(num_steps):
    """Steps in ln karras_sigma alternate 2 : 1."""
    steps = np.where(np.arange(num_steps) % 2 == 0, 2.0, 1.0)
    part = np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])
    return np.exp(math.log(HIGH) + part * math.log(LOW / HIGH))


GRIDS = {"uniform": uniform, "karras": karras, "rough": rough}


def levels_on(grid, num_steps, pair=vp):
    return tuple(pair(float(sigma)) for sigma in grid(num_steps))


class MixtureWorld:
    """1-D mixture of Gaussians: its denoiser is not linear; its flow keeps quantiles."""

    weights, means, variances = np.array([[0.5, 0.3, 0.2], [1.0, -1.0, 0.2], [0.3, 0.5, 0.2]])

    def parts(self, level):
        return level.alpha * self.means, level.alpha**2 * self.variances + level.sigma**2

    def predict(self, latent, level):
        centre, total = self.parts(level)
        off = latent[:, None] - centre  # (points, components)
        share = self.weights * np.exp(-0.5 * off**2 / total) / np.sqrt(total)
        share /= share.sum(axis=1, keepdims=True)
        each = self.means + level.alpha * self.variances / total * off
        x0 = (share * each).sum(axis=1)
        return IdealPrediction(level, latent, x0, (latent - level.alpha * x0) / level.sigma)

    def quantiles(self, level, places):
        ndtr = pytest.importorskip("scipy.special").ndtr
        centre, total = self.parts(level)
        low, high = np.full(places.shape, -60.0), np.full(places.shape, 60.0)
        for _ in range(70):
            middle = (low + high) / 2
            below = (self.weights * ndtr((middle[:, None] - centre) / np.sqrt(total))).sum(1)
            low, high = (
                np.where(below < places, middle, low),
                np.where(below < places, high, middle),
            )
        return (low + high) / 2


GAUSSIAN, MIXTURE = GaussianWorld([0.3, -1.0, 0.0], [0.5, 2.0, 0.04]), MixtureWorld()


def no_lowering(sampler):
    options = SAMPLERS[sampler.name].options
    return Sampler(sampler.name, sampler.options | (
        {"lower_order_final": False} if "lower_order_final" in options else {}
    ))  # fmt: skip


def last(plan, start, predict, noise=None):
    return list(denoise(plan, start, predict, noise))[-1].next_latent


def error_of(rule, world, levels):
    """Root mean square distance from the exact end of the probability flow."""
    if world is MIXTURE:
        places = np.linspace(0.05, 0.95, 19)
        start, end = (world.quantiles(level, places) for level in (levels[0], levels[-1]))
    else:
        start = np.array([4.0, -7.0, 9.0])
        end = world.flow(start, levels[0], levels[-1])
    got = last(rule(levels), start, world.predict)
    return float(np.sqrt(np.mean((got - end) ** 2)))


def slope(rule, world, grid, counts=(256, 512), pair=vp):
    errors = [error_of(rule, world, levels_on(grid, n, pair)) for n in counts]
    assert errors[-1] > 1e-11, "too small to judge"
    return math.log2(errors[0] / errors[1])
