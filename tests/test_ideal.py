"""The exact worlds: Bayes by sampling and by numbers, densities by differences, flows by ODEs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffusionlab.errors import InputError
from diffusionlab.ideal import FiniteWorld, GaussianWorld, MixtureWorld, reference_flow
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


@pytest.mark.parametrize(
    "mean, variance", [(math.nan, 1.0), (0.0, -1.0), (0.0, math.inf), ("a", 1.0), ([1, 2], [1] * 3)]
)
def test_bad_worlds(mean, variance):
    with pytest.raises(InputError):
        GaussianWorld(mean, variance)


# ---- mixtures and finite data -------------------------------------------------------------------
LINE = MixtureWorld([1.0, -1.0, 0.2], [0.3, 0.5, 0.2], [5, 3, 2])
PLANE = MixtureWorld([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]], [[0.1, 0.3], [0.2, 0.2], [0.4, 0.05]])
ITEMS = FiniteWorld(np.random.default_rng(5).normal(size=(7, 4, 16, 16)))
WORLDS = {"gaussian": WORLD, "line": LINE, "plane": PLANE, "items": ITEMS}


def some_latents(world, level, count=3, seed=1):
    rng = np.random.default_rng(seed)
    data = world.sample(rng, count)
    return level.alpha * data + level.sigma * rng.standard_normal(data.shape)


@pytest.mark.parametrize("level", PAIRS)
@pytest.mark.parametrize("name", list(WORLDS))
def test_the_readings_of_every_world_agree(name, level):
    world = WORLDS[name]
    x = some_latents(world, level)
    said = world.predict(x, level)
    assert said.x0.shape == said.eps.shape == x.shape
    assert np.allclose(level.alpha * said.x0 + level.sigma * said.eps, x, rtol=1e-11, atol=1e-11)
    assert np.allclose(world.score(x, level), -said.eps / level.sigma, rtol=1e-11, atol=1e-11)
    assert world.log_density(x, level).shape == (3,)


@pytest.mark.parametrize("level", PAIRS)
@pytest.mark.parametrize("name", list(WORLDS))
def test_the_score_is_the_gradient_of_the_log_density(name, level):
    world, step = WORLDS[name], 1e-5
    x = some_latents(world, level, count=1)
    way = np.random.default_rng(2).standard_normal(x.shape)
    rise = world.log_density(x + step * way, level) - world.log_density(x - step * way, level)
    along = (world.score(x, level) * way).sum()
    assert rise[0] / (2 * step) == pytest.approx(along, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("world", [LINE, GaussianWorld(0.3, 0.5)])
def test_a_density_integrates_to_one_and_its_mean_is_the_marginals(world):
    for level in (*PAIRS, CLEAN):
        x = np.linspace(-25, 25, 50_001)
        density = np.exp(world.log_density(x, level)) * (x[1] - x[0])
        assert density.sum() == pytest.approx(1.0, rel=1e-9)
        mean = (LINE.weights @ LINE.means) if world is LINE else 0.3
        assert (density * x).sum() == pytest.approx(level.alpha * mean, abs=1e-9)


@pytest.mark.parametrize("level", PAIRS)
def test_the_mixtures_x0_is_the_conditional_mean(level):
    """Bayes by an integral over x0, which knows nothing of components' own means."""
    grid = np.linspace(-8, 8, 16_001)
    prior = np.exp(LINE.log_density(grid, CLEAN))
    for x in (-1.3, 0.0, 2.5):
        seen = prior * np.exp(-0.5 * ((x - level.alpha * grid) / level.sigma) ** 2)
        wanted = (seen * grid).sum() / seen.sum()
        assert LINE.x0(np.array([x]), level) == pytest.approx([wanted], rel=1e-9)
    other = MixtureWorld(LINE.means, LINE.variances)  # the check can fail: equal weights
    assert other.x0(np.array([x]), level) != pytest.approx([wanted], rel=1e-3)


def test_one_component_is_a_gaussian():
    one, level = MixtureWorld([[0.3, -1.0]], [[0.5, 2.0]]), PAIRS[1]
    x = some_latents(WORLD, level)
    for what in ("x0", "eps", "score", "log_density"):
        ours, theirs = getattr(one, what)(x, level), getattr(WORLD, what)(x, level)
        assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-12), what
    assert np.allclose(one.flow(x, level, PAIRS[0]), WORLD.flow(x, level, PAIRS[0]), rtol=1e-8)


def test_finite_data_are_weighed_by_their_distance():
    data = np.array([[0.0, 0.0], [3.0, 4.0]])
    world, level = FiniteWorld(data), NoiseLevel(0, 1.0, 2.0)
    x = np.array([[3.0, 0.0]])  # squared distances 9 and 16
    far = math.exp(-(16 - 9) / 8)
    assert world.shares(x, level)[0] == pytest.approx(np.array([1, far]) / (1 + far), rel=1e-12)
    assert world.x0(x, level)[0] == pytest.approx(data[1] * far / (1 + far), rel=1e-12)
    assert world.nearest(x).tolist() == [0]
    assert np.array_equal(world.x0(x, CLEAN), data[:1]) and np.all(world.eps(x, CLEAN) == 0)


def test_finite_data_of_latents_stay_finite_at_any_level():
    with np.errstate(all="raise"):
        for sigma in (1e-8, 1e-3, 1.0, 1e3):
            level = NoiseLevel(0, 1.0, sigma)
            x = ITEMS.data[2:4] + sigma * np.random.default_rng(0).normal(size=(2, 4, 16, 16))
            said = ITEMS.predict(x, level)
            assert np.isfinite(said.x0).all() and np.isfinite(said.eps).all()
            assert np.isfinite(ITEMS.log_density(x, level)).all()
            if sigma < 0.1:
                assert np.array_equal(said.x0, ITEMS.data[2:4])
    pure = NoiseLevel(999, 0.0, 1.0)
    assert np.allclose(ITEMS.x0(x, pure), ITEMS.data.mean(axis=0), rtol=1e-12)
    assert np.allclose(ITEMS.eps(x, pure), x, rtol=1e-12)


WAYS = [
    (PAIRS[1], NoiseLevel(100, 0.5, 0.5)),
    (PAIRS[2], PAIRS[0]),
    (PAIRS[0], CLEAN),
    (NoiseLevel(999, 0.0, 1.0), NoiseLevel(0, 0.9, 0.1)),
]


@pytest.mark.parametrize("s, t", WAYS)
def test_the_quantile_flow_and_the_reference_flow_agree(s, t):
    x = np.array([-2.0, -0.1, 0.4, 3.0])
    exact = LINE.flow(x, s, t)
    assert reference_flow(LINE, x, s, t) == pytest.approx(exact, rel=2e-8, abs=2e-8)
    assert LINE.tail(exact, t) == pytest.approx(LINE.tail(x, s), rel=1e-11)
    column = MixtureWorld(LINE.means[:, None], LINE.variances, LINE.weights)
    assert np.allclose(column.flow(x[:, None], s, t)[:, 0], exact, rtol=1e-12)
    gaussian = WORLD.flow(x[:2], s, t)
    assert reference_flow(WORLD, x[:2], s, t) == pytest.approx(gaussian, rel=1e-8)
    coarse = reference_flow(LINE, x, s, t, resolution=2)  # the check can fail
    assert coarse != pytest.approx(exact, rel=2e-8, abs=2e-8)


def test_quantiles_far_out_keep_their_digits():
    x = np.array([-30.0, 30.0])
    there = LINE.flow(x, PAIRS[1], PAIRS[0])
    assert LINE.flow(there, PAIRS[0], PAIRS[1]) == pytest.approx(x, rel=1e-9)


def test_the_reference_flow_composes_and_takes_every_kind_of_pair():
    """A flow knows karras_sigma only: VP, VE and flow pairs of one level are one place."""
    x = np.array([[1.5, -0.5], [-2.0, 2.0]])
    vp, ve, straight = (NoiseLevel(0, a, 3 * a) for a in (1 / math.sqrt(10), 1.0, 0.25))
    ends = [PLANE.flow(x * at.alpha, at, CLEAN) for at in (vp, ve, straight)]
    assert np.allclose(ends[0], ends[1], rtol=1e-10) and np.allclose(ends[0], ends[2], rtol=1e-10)
    halfway = PLANE.flow(x * vp.alpha, vp, PAIRS[0])
    assert np.allclose(PLANE.flow(halfway, PAIRS[0], CLEAN), ends[0], atol=1e-7)


def test_the_flow_of_finite_data_ends_on_an_item():
    level = NoiseLevel(999, 0.0, 1.0)
    world = FiniteWorld([[0.0, 0.0], [3.0, 4.0], [-2.0, 1.0]])
    x = np.random.default_rng(0).normal(size=(5, 2))
    ends = world.flow(x, level, CLEAN)
    assert np.allclose(ends, world.data[world.nearest(ends)], atol=1e-6)
    assert len(set(world.nearest(ends).tolist())) > 1


@pytest.mark.parametrize("name", ["gaussian", "line", "plane"])
def test_samples_have_the_worlds_mean_and_variance(name):
    world = WORLDS[name]
    draws = world.sample(np.random.default_rng(0), 100_000)
    assert draws.shape == (100_000, *world.shape)
    if name == "gaussian":
        mean, variance = world.mean, world.variance
    else:
        weights = world.weights.reshape(-1, *[1] * len(world.shape))
        mean = (weights * world.means).sum(axis=0)
        variance = (weights * (world.variances + world.means**2)).sum(axis=0) - mean**2
    assert draws.mean(axis=0) == pytest.approx(mean, abs=0.02)
    assert draws.var(axis=0) == pytest.approx(variance, rel=0.02)
    again = world.sample(np.random.default_rng(0), 100_000)
    assert np.array_equal(draws, again)


def test_finite_samples_are_items():
    draws = ITEMS.sample(np.random.default_rng(0), 40)
    assert np.array_equal(draws, ITEMS.data[ITEMS.nearest(draws)])
    assert len(set(ITEMS.nearest(draws).tolist())) == 7


@pytest.mark.parametrize("given", [
    {"means": 3.0}, {"means": []}, {"means": [math.nan]}, {"means": [1, 2], "variances": [1.0]},
    {"means": [1, 2], "variances": -1}, {"means": [1, 2], "weights": [1, 0]},
    {"means": [1, 2], "weights": [1]}, {"means": ["a"]}, {"means": [[1], [2, 3]]},
])  # fmt: skip
def test_bad_mixtures(given):
    with pytest.raises(InputError, match="means|variances|weights"):
        MixtureWorld(**given)


def test_bad_questions():
    level = PAIRS[0]
    with pytest.raises(InputError, match="shape"):
        PLANE.x0(np.zeros(3), level)
    for rng, count in ((7, 3), (np.random.default_rng(0), 0), (np.random.default_rng(0), True)):
        with pytest.raises(InputError, match="rng|count"):
            PLANE.sample(rng, count)
    for world in (ITEMS, GaussianWorld(0.0, 0.0)):
        for ask in (world.score, world.log_density):
            with pytest.raises(InputError, match="sigma > 0"):
                ask(np.zeros((4, 16, 16)), CLEAN)
    with pytest.raises(InputError, match="clean level"):
        reference_flow(PLANE, np.zeros(2), CLEAN, level)
    with pytest.raises(InputError, match="resolution"):
        reference_flow(PLANE, np.zeros(2), level, CLEAN, resolution=0)
