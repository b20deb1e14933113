"""Exact worlds, (alpha, sigma) pairs and grids of levels for the tests of samplers.

A Gaussian and a 1-D mixture (non-linear denoiser) have known ends of the probability flow.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from diffusionlab.ideal import GaussianWorld, IdealPrediction
from diffusionlab.plan import denoise
from diffusionlab.samplers import SAMPLERS, Sampler
from diffusionlab.schedule import NoiseLevel, NoiseSchedule

SD = NoiseSchedule.scaled_linear()


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


@cache
def levels_on(grid, num_steps, pair=vp):
    """Levels timed as by Stable Diffusion's schedule, so that SD knows every level between."""
    return tuple(
        pair(float(sigma), SD.level_at(karras_sigma=float(sigma)).timestep)
        for sigma in grid(num_steps)
    )


class SmoothSchedule:
    """Stable Diffusion's schedule without its table, for steps that are equal in the timestep.

    ln alpha(t) = -T·((a + c·t)³ - a³)/(6c), t in (0, 1], and timestep = 1000·t.
    """

    T, a = 1000, math.sqrt(0.00085)
    c = math.sqrt(0.012) - a

    def level_at(self, timestep, pair=vp):
        t = timestep / self.T
        log_alpha = -self.T * ((self.a + self.c * t) ** 3 - self.a**3) / (6 * self.c)
        return pair(math.sqrt(math.expm1(-2 * log_alpha)), timestep)

    def levels(self, num_steps, low=100.0, pair=vp):
        times = np.linspace(1000.0, low, num_steps + 1)
        return tuple(self.level_at(float(time), pair) for time in times)


SMOOTH = SmoothSchedule()
EQUAL_STEPS = ("plms", "ipndm", "pndm")  # refuse unequal steps in the timestep


def levels_for(name, num_steps, grid=rough, pair=vp):
    """Levels that the rule accepts: on the grid, or equally spaced in the timestep."""
    if name not in EQUAL_STEPS:
        return levels_on(grid, num_steps, pair)
    levels = SD.levels(num_steps + 1, "linspace", "none")
    return tuple(pair(level.karras_sigma, level.timestep) for level in levels)


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


@cache
def ends_of(world, first, final):
    """Some latents at the first level, and where the probability flow takes them exactly."""
    if world is MIXTURE:
        places = np.linspace(0.05, 0.95, 19)
        return tuple(world.quantiles(level, places) for level in (first, final))
    start = np.array([4.0, -7.0, 9.0])
    return start, world.flow(start, first, final)


def error_of(rule, world, levels):
    """Root mean square distance from the exact end of the probability flow.

    `rule` makes a plan of levels, or is a plan of them.
    """
    start, end = ends_of(world, levels[0], levels[-1])
    plan = rule(levels) if callable(rule) else rule
    return float(np.sqrt(np.mean((last(plan, start, world.predict) - end) ** 2)))


def slopes(rule, grid, counts=(128, 256), pair=vp, worlds=None):
    """The order of a rule between two numbers of steps, in each exact world.

    `grid` is one of GRIDS, or SMOOTH for steps that are equal in the timestep.
    """
    errors = []
    for n in counts:
        levels = SMOOTH.levels(n, pair=pair) if grid is SMOOTH else levels_on(grid, n, pair)
        plan = rule(levels)
        errors.append([error_of(plan, world, levels) for world in worlds or (GAUSSIAN, MIXTURE)])
    assert min(errors[-1]) > 1e-11, "too small to judge"
    return [math.log2(coarse / fine) for coarse, fine in zip(*errors, strict=True)]


def weak_errors(plan, mean=0.4, variance=0.3):
    """Errors of mean and variance at the end of a plan, exactly and without dice.

    A noisy run on Gaussian data is affine in (x, draws), so unit probes give its law.
    """
    world = GaussianWorld(mean, variance)
    draws = sum(len(step.draws) for step in plan)
    probes = iter(np.eye(2 + draws)[2:])
    end = last(plan, np.eye(2 + draws)[1], world.predict, lambda s, t: next(probes))
    gains = end[1:] - end[0]
    centre, total = (float(x) for x in world.marginal(plan[0].level))
    wanted_mean, wanted = (float(x) for x in world.marginal(plan[-1].next_level))
    seen = gains[0] ** 2 * total + np.sum(gains[1:] ** 2)
    return abs(end[0] + gains[0] * centre - wanted_mean), abs(seen - wanted)
