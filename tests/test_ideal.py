"""The exact Gaussian world: Bayes by sampling, the flow by its own ODE."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffusionlab.errors import InputError
from diffusionlab.ideal import GaussianWorld
from diffusionlab.schedule import CLEAN, NoiseLevel, NoiseSchedule

PAIRS = [NoiseLevel(500, 0.6, 0.8), NoiseLevel(500, 1.0, 3.0), NoiseLevel(500, 0.25, 0.75)]
WORLD = GaussianWorld([0.3, -1.0], [0.5, 2.0])


@pytest.mark.parametrize("level", PAIRS)
def test_readings_agree_with_the_latent(level):
    x = np.array([[1.0, -0.5], [0.2, 4.0]])
    said = WORLD.predict(x, level)
    assert np.allclose(level.alpha * said.x0 + level.sigma * said.eps, x, rtol=1e-12)
    assert np.allclose(said.v, level.alpha * said.eps - level.sigma * said.x0, rtol=1e-12)
    assert said.level == level and said.latent is x


@pytest.mark.parametrize("level", PAIRS)
def test_x0_is_the_conditional_mean(level):
    """The best linear guess of x0 from x, over many samples, is the formula."""
    rng = np.random.default_rng(0)
    x0 = 0.3 + math.sqrt(0.5) * rng.standard_normal(400_000)
    x = level.alpha * x0 + level.sigma * rng.standard_normal(x0.shape)
    slope, offset = np.polyfit(x, x0, 1)
    world = GaussianWorld(0.3, 0.5)
    at = np.array([-1.0, 2.0])
    assert np.allclose(world.x0(at, level), offset + slope * at, atol=0.01)
    assert not np.allclose(GaussianWorld(0.3, 0.6).x0(at, level), offset + slope * at, atol=0.01)


def test_the_flow_solves_the_ode():
    """d(x/alpha)/d(karras_sigma) = eps, checked by a central difference."""
    x = np.array([1.0, -0.5])
    for s in PAIRS:
        step = 1e-5
        up, down = (NoiseLevel(0, 1.0, s.karras_sigma + d) for d in (step, -step))
        slope = (WORLD.flow(x, s, up) - WORLD.flow(x, s, down)) / (2 * step)
        assert np.allclose(slope, WORLD.eps(x, s), rtol=1e-7)


def test_the_flow_composes_and_inverts():
    a, b, c = PAIRS[1], PAIRS[2], PAIRS[0]
    x = np.array([2.0, -3.0])
    assert np.allclose(WORLD.flow(WORLD.flow(x, a, b), b, c), WORLD.flow(x, a, c), rtol=1e-13)
    assert np.allclose(WORLD.flow(WORLD.flow(x, a, b), b, a), x, rtol=1e-13)


def test_standard_normal_data_stay_where_they_are():
    schedule = NoiseSchedule.scaled_linear()
    s, t = schedule.level_at(timestep=900), schedule.level_at(timestep=3)
    x = np.array([1.0, -2.0])
    assert np.allclose(GaussianWorld().flow(x, s, t), x, rtol=1e-12)


def test_the_flow_carries_the_marginals():
    s, t = PAIRS[1], PAIRS[2]
    (m, v), (m2, v2) = WORLD.marginal(s), WORLD.marginal(t)
    moved = WORLD.flow(m + np.sqrt(v) * np.array([[-1.0], [1.0]]), s, t)
    assert np.allclose(moved, m2 + np.sqrt(v2) * np.array([[-1.0], [1.0]]), rtol=1e-12)


def test_point_mass_and_ends():
    point, x = GaussianWorld(0.5, 0.0), np.array([3.0])
    assert np.array_equal(point.x0(x, PAIRS[0]), [0.5])
    assert np.array_equal(point.x0(x, CLEAN), [0.5]) and np.array_equal(point.eps(x, CLEAN), [0.0])
    assert np.array_equal(WORLD.x0(np.ones(2), CLEAN), np.ones(2))
    noise = NoiseLevel(999, 0.0, 1.0)
    assert np.array_equal(WORLD.x0(np.ones(2), noise), WORLD.mean)
    assert np.array_equal(WORLD.eps(np.ones(2), noise), np.ones(2))


@pytest.mark.parametrize("mean, variance", [(math.nan, 1.0), (0.0, -1.0), (0.0, math.inf)])
def test_bad_worlds(mean, variance):
    with pytest.raises(InputError):
        GaussianWorld(mean, variance)
