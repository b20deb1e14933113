"""Measures of samplers on input whose answer is known: orders, weak errors, bends, partings."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import traces

from diffusionlab.analysis.convergence import (
    GRIDS,
    Convergence,
    convergence,
    grid_levels,
    measured,
    third_order_twice,
    weak_convergence,
    weak_error,
)
from diffusionlab.analysis.ladder import distance, step_ladder
from diffusionlab.analysis.trajectories import curvature, parting, path_of
from diffusionlab.errors import InputError
from diffusionlab.ideal import GaussianWorld, MixtureWorld
from diffusionlab.levels import PAIRS, NoiseLevel, as_pair
from diffusionlab.plan import PlannedStep, Stage, Step, Term, Update, denoise
from diffusionlab.samplers import make_plan

NEAR = {"rel": 1e-6, "abs": 1e-12}
NOISE = NoiseLevel(999, 0.0, 1.0)


def steps_through(points, levels, calls=1):
    """Steps that visit these latents at these levels."""
    return [
        Step(i, levels[i], levels[i + 1], np.asarray(points[i]), (None,) * calls,
             (Stage(levels[i]),) * calls, Update(), (), np.asarray(points[i + 1]))
        for i in range(len(levels) - 1)
    ]  # fmt: skip


def run_of(num_steps, end, calls=1):
    levels = grid_levels("uniform", num_steps)
    return steps_through([np.zeros_like(end)] * num_steps + [end], levels, calls)


# ---- pairs and grids ----------------------------------------------------------------------------
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("sigma", [1e-3, 1.0, 40.0])
def test_a_level_as_another_pair(pair, sigma):
    level = as_pair(NoiseLevel(7.0, 0.5, 0.5 * sigma), pair)
    assert level.timestep == 7.0 and level.karras_sigma == pytest.approx(sigma, rel=1e-14)
    sums = {"vp": level.alpha**2 + level.sigma**2, "ve": level.alpha,
            "flow": level.alpha + level.sigma}  # fmt: skip
    assert sums[pair] == pytest.approx(1.0, rel=1e-14)
    assert sums["ve" if pair != "ve" else "vp"] != pytest.approx(1.0, rel=1e-9)


def test_pure_noise_has_no_variance_exploding_pair():
    assert as_pair(NOISE, "flow") == as_pair(NOISE, "vp") == NOISE
    with pytest.raises(InputError, match="use 'vp' or 'flow'"):
        as_pair(NOISE, "ve")
    with pytest.raises(InputError, match="vp, ve, flow"):
        as_pair(NOISE, "VP")


@pytest.mark.parametrize("grid", list(GRIDS))
def test_grids_end_where_they_say(grid):
    levels = grid_levels(grid, 9, high=8.0, low=0.25, pair="ve")
    sigmas = np.array([level.sigma for level in levels])
    assert len(levels) == 10 and np.all(np.diff(sigmas) < 0)
    assert sigmas[[0, -1]] == pytest.approx([8.0, 0.25], rel=1e-12)
    logs = np.diff(np.log(sigmas))
    if grid == "uniform":
        assert np.allclose(logs, logs[0], rtol=1e-9)
    if grid == "rough":
        assert np.allclose(logs[:-1:2], 2 * logs[1::2], rtol=1e-9)


@pytest.mark.parametrize("wrong", [{"grid": "smooth"}, {"num_steps": 0}, {"low": 0.0},
                                   {"low": 20.0}, {"high": math.nan}, {"pair": "edm"}])  # fmt: skip
def test_bad_grids(wrong):
    with pytest.raises(InputError):
        grid_levels(**({"grid": "uniform", "num_steps": 8} | wrong))


# ---- orders -------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", [1.0, 2.5])
def test_a_power_law_has_its_slope_everywhere(order):
    counts = (8, 16, 40, 64)
    runs = [run_of(n, np.full((2, 3), 3 * n**-order), calls=2) for n in counts]
    found = convergence(runs[::-1], np.zeros((2, 3)), label="made up", grid="uniform")
    assert found.num_steps == counts and found.network_calls == tuple(2 * n for n in counts)
    assert found.errors == pytest.approx([3 * n**-order for n in counts], **NEAR)
    assert found.slopes == pytest.approx([order] * 3, **NEAR)
    assert found.slopes_by_calls == pytest.approx([order] * 3, **NEAR)
    assert (found.order, found.fitted) == pytest.approx((order, order), **NEAR)
    with pytest.raises(AssertionError):  # the check can fail
        wrong = replace(found, errors=(*found.errors[:3], 2 * found.errors[3]))
        assert wrong.fitted == pytest.approx(order, **NEAR)


def test_the_calls_from_which_on_a_sampler_is_near():
    found = Convergence("a", "its own", (5, 10, 20, 40), (9, 19, 39, 79), (0.1, 0.3, 0.05, 0.01))
    assert [found.calls_within(error) for error in (0.3, 0.1, 0.05, 0.001)] == [9, 39, 39, None]
    lost = replace(found, errors=(0.1, 0.01, math.nan, 0.01))
    assert lost.calls_within(0.2) == 79
    assert replace(found, errors=(math.nan,) * 4).calls_within(1) is None


def test_the_fit_is_least_squares_and_rounding_is_left_out():
    errors = (1e-1, 3e-3, 2e-4, 1e-13)
    found = Convergence("x", "uniform", (4, 8, 16, 32), (4, 8, 16, 32), errors)
    wanted = -np.polyfit(np.log([4, 8, 16]), np.log(errors[:3]), 1)[0]
    assert found.fitted == pytest.approx(wanted, **NEAR)
    assert math.isnan(found.slopes[2]) and found.order == found.slopes[1]
    none = Convergence("x", "uniform", (4, 8), (4, 8), (0.0, math.inf))
    assert math.isnan(none.order) and math.isnan(none.fitted) and math.isnan(none.slopes[0])


def test_distances():
    end = np.array([[3.0, 4.0], [0.0, 0.0], [0.6, 0.8]])
    runs, exact = [run_of(4, end)], np.zeros((3, 2))
    found = {what: convergence(runs, exact, label="x", what=what).errors[0] for what in
             ("root mean square distance", "median distance", "largest difference")}  # fmt: skip
    wanted = [math.sqrt(26 / 6), 1.0, 4.0]
    assert list(found.values()) == pytest.approx(wanted, **NEAR)


def test_a_long_run_may_be_the_reference_and_traces_are_runs():
    long = traces.trace(5)
    short = traces.trace(3)
    found = convergence([short], long, label="ddim")
    off = short.steps[-1].next_latent.astype(float) - long.steps[-1].next_latent
    assert found.errors[0] == pytest.approx(np.sqrt((off**2).mean()), **NEAR)
    assert found.num_steps == (3,)


def test_bad_runs():
    with pytest.raises(InputError, match="no runs"):
        convergence([], np.zeros(3), label="x")
    with pytest.raises(InputError, match=r"\(2,\).*\(3,\)"):
        convergence([run_of(4, np.zeros(2))], np.zeros(3), label="x")
    with pytest.raises(InputError, match="0 Steps"):
        convergence([[]], np.zeros(3), label="x")
    with pytest.raises(InputError, match="unknown"):
        convergence([run_of(4, np.zeros(2))], np.zeros(2), label="x", what="mean")


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("sampler, low, high", [("euler", 0.85, 1.25), ("heun", 1.8, 2.4)])
def test_measured_orders(sampler, low, high, pair):
    world = GaussianWorld([0.3, -1.0, 0.0], [0.5, 2.0, 0.04])
    start = np.array([0.4, -0.7, 0.9])
    found = measured(sampler, world, start, (32, 64), grid="rough", pair=pair)
    assert low <= found.order <= high and found.label == sampler
    same = measured(sampler, world, start, (32, 64), grid="rough")
    scale = 1 / math.hypot(1, 0.05)  # of a variance-preserving latent at the end
    factor = {"vp": 1.0, "ve": 1 / scale, "flow": 1 / (scale * 1.05)}[pair]
    assert found.errors == pytest.approx(np.array(same.errors) * factor, rel=1e-6)


@pytest.mark.parametrize("grid", list(GRIDS))
def test_the_corrected_third_order_rule_has_order_3_and_the_shipped_one_2(grid):
    corrected, shipped = third_order_twice((64, 128), grid)
    assert 2.7 <= corrected.order <= 3.6 and 1.8 <= shipped.order <= 2.4
    assert corrected.label == "dpmpp_3m_corrected" and shipped.label == "dpmpp_3m_shipped"


# ---- weak errors --------------------------------------------------------------------------------
def test_the_law_of_one_noisy_step_is_found_exactly():
    """x_next = 0.5 x + 0.25 x0-hat + 0.3 z1 + 0.4 z2, worked out by hand."""
    s, t = NoiseLevel(9, 0.6, 0.8), NoiseLevel(3, 0.8, 0.6)
    middle = NoiseLevel(6, 0.7, 0.71)
    update = Update(0.5, (Term("x0", 0, 0.25),), ((0, 0.3), (1, 0.4)))
    draws = ((s, middle), (middle, t))
    plan = (PlannedStep(s, t, (Stage(s),), update, draws, exact=False),)
    world = GaussianWorld([0.4, -1.0], [0.3, 2.0])
    found = weak_error(plan, world)
    total = 0.36 * world.variance + 0.64
    gain = 0.5 + 0.25 * 0.6 * world.variance / total
    assert found.variance == pytest.approx(gain**2 * total + 0.25, **NEAR)
    assert found.mean == pytest.approx((0.5 * 0.6 + 0.25) * world.mean, **NEAR)
    assert found.wanted_mean == pytest.approx(0.8 * world.mean, **NEAR)
    assert found.wanted_variance == pytest.approx(0.64 * world.variance + 0.36, **NEAR)
    assert found.affine.holds
    assert found.mean_error == pytest.approx(0.25, **NEAR)


def test_the_check_of_affinity_fails_on_what_is_not_affine():
    class Bent(GaussianWorld):
        def predict(self, latent, level):
            said = super().predict(latent, level)
            return replace(said, x0=said.x0 + 0.01 * latent**2)

    plan = make_plan("ddpm", grid_levels("uniform", 6), None)
    assert weak_error(plan, GaussianWorld(0.4, 0.3)).affine.holds
    assert not weak_error(plan, Bent(0.4, 0.3)).affine.holds


def test_weak_orders():
    world = GaussianWorld(0.4, 0.3)
    for name, low, high in (("ddpm", 0.7, 1.4), ("dpmpp_2m_sde", 1.7, 2.4)):
        plans = [make_plan(name, grid_levels("uniform", n), None) for n in (64, 32)]
        found = weak_convergence(plans, world, label=name)
        assert found.num_steps == (32, 64) and low <= found.order <= high
    assert max(weak_convergence(plans, world, label=name, what="mean error").errors) < 1e-2


def test_weak_errors_agree_with_a_simulation():
    plan = make_plan("ddpm", grid_levels("uniform", 6), None)
    world, rng = GaussianWorld(0.4, 0.3), np.random.default_rng(0)
    centre, total = world.marginal(plan[0].level)
    start = centre + np.sqrt(total) * rng.standard_normal(200_000)
    *_, last = denoise(plan, start, world.predict, lambda s, t: rng.standard_normal(start.shape))
    found = weak_error(plan, world)
    assert last.next_latent.mean() == pytest.approx(float(found.mean), abs=0.01)
    assert last.next_latent.var() == pytest.approx(float(found.variance), rel=0.02)


def test_bad_weak_errors():
    plan = make_plan("ddpm", grid_levels("uniform", 3), None)
    with pytest.raises(InputError, match="not Gaussian"):
        weak_error(plan, MixtureWorld([1.0, -1.0]))
    with pytest.raises(InputError, match="no plans"):
        weak_convergence([], GaussianWorld(), label="x")


# ---- bends --------------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", PAIRS)
def test_a_path_between_noise_and_one_point_is_straight_in_every_pair(pair):
    levels = grid_levels("karras", 6, pair=pair)
    x0, eps = np.random.default_rng(0).normal(size=(2, 3, 4))
    found = curvature(steps_through([a.alpha * x0 + a.sigma * eps for a in levels], levels))
    assert found.turns == pytest.approx([0.0] * 5, abs=1e-9)
    assert found.length_ratio == pytest.approx(1.0, rel=1e-12)
    assert found.straightness == pytest.approx(0.0, abs=1e-12)


def test_a_right_angle():
    levels = [NoiseLevel(0, 1 - s, s) for s in (1.0, 0.5, 0.25)]
    found = curvature(steps_through([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]], levels))
    assert found.turns == pytest.approx([math.pi / 2], **NEAR)
    assert found.total_turn == pytest.approx(math.pi / 2, **NEAR)
    assert found.length_ratio == pytest.approx(7 / 5, **NEAR)
    mean = np.array([3.0, 4.0]) / 0.75
    speeds = np.array([[6.0, 0.0], [0.0, 16.0]])
    off = ((speeds - mean) ** 2).sum(axis=1) @ [0.5, 0.25]
    assert found.straightness == pytest.approx(off / 0.75 / (mean @ mean), **NEAR)


def test_uneven_speed_is_no_bend_but_not_straight_in_time():
    levels = [NoiseLevel(0, 1 - s, s) for s in (1.0, 0.5, 0.0)]
    found = curvature(steps_through([[0.0], [3.0], [4.0]], levels))
    assert found.turns == (0.0,) and found.length_ratio == pytest.approx(1.0, **NEAR)
    assert found.straightness == pytest.approx(0.25, **NEAR)  # speeds 6 and 2 around 4


def test_bad_paths():
    with pytest.raises(InputError, match="1 step"):
        curvature(run_of(1, np.zeros(2)))
    with pytest.raises(InputError, match="where it began"):
        curvature(run_of(3, np.zeros(2)))


# ---- partings -----------------------------------------------------------------------------------
def test_where_two_runs_part():
    levels = grid_levels("uniform", 4)
    a = steps_through(np.ones((5, 3)), levels)
    points = np.ones((5, 3)) * np.array([1, 1.01, 1.04, 1.2, 0.5])[:, None]
    found = parting(a, steps_through(points, levels), share=0.05)
    sizes = np.sqrt((1 + points[:, 0] ** 2) / 2)
    assert found.differences == pytest.approx(np.abs(points[:, 0] - 1) / sizes, **NEAR)
    assert found.at == 3 and found.steps[3] == (3, 3) and "from step 3 on" in str(found)
    assert parting(a, steps_through(points, levels), share=0.02).at == 2
    whole = parting(a, a)
    assert whole.at is None and whole.differences == (0.0,) * 5 and "stay within 5%" in str(whole)


def test_runs_of_other_lengths_are_compared_where_both_have_been():
    few, many = grid_levels("uniform", 4), grid_levels("uniform", 8)
    b = np.ones((9, 2))
    b[5:] = 3.0
    found = parting(steps_through(np.ones((5, 2)), few), steps_through(b, many))
    assert found.steps == ((0, 0), (1, 2), (2, 4), (3, 6), (4, 8)) and found.at == 3
    assert "steps 3 and 6" in str(found)


def test_nan_is_apart():
    levels = grid_levels("uniform", 2)
    points = np.ones((3, 2))
    spoilt = points.copy()
    spoilt[2] = math.nan
    assert parting(steps_through(points, levels), steps_through(spoilt, levels)).at == 2


def test_bad_partings():
    a = run_of(4, np.ones(3))
    for share in (0, -1, math.nan, True, "5%"):
        with pytest.raises(InputError, match="share"):
            parting(a, a, share)
    with pytest.raises(InputError, match="one shape"):
        parting(a, run_of(4, np.ones(2)))
    other = steps_through(np.ones((4, 3)), grid_levels("karras", 3, high=9.0, low=0.06))
    with pytest.raises(InputError, match=r"share 0 noise level"):
        parting(a, other)


def test_a_path_holds_every_latent():
    levels, points = path_of(traces.trace(5))
    assert len(levels) == len(points) == 6 and points.dtype == np.float64


# ---- the step ladder ----------------------------------------------------------------------------
def test_the_ladder_holds_the_latents_that_it_names():
    long, short = traces.trace(6), [traces.trace(4), traces.trace(2)]
    found = step_ladder(long, short)
    assert [rung.num_steps for rung in found.rungs] == [2, 4] and found.num_steps == 6
    for rung, run in zip(found.rungs, short[::-1], strict=True):
        k = rung.num_steps
        assert np.array_equal(rung.stopped, long.latents[k].astype(np.float64))
        assert np.array_equal(rung.x0, long.x0s[k - 1].astype(np.float64))
        assert np.array_equal(rung.finished, run.latents[-1].astype(np.float64))
        assert rung.karras_sigma == long.karras_sigmas[k] > 0
        assert rung.x0_image is long.frames[k - 1] and rung.finished_image is run.image
    assert found.start.holds and f"karras_sigma {long.karras_sigmas[2]:.3g}" in str(found)
    images = step_ladder(long, short, [short[0].image, short[1].image]).rungs
    assert images[0].stopped_image is short[1].image
    assert distance(np.full(3, 2.0), np.ones(3)) == pytest.approx(1.0, **NEAR)


def test_a_ladder_of_other_noise_says_so():
    other = traces.trace(2)
    moved = replace(other.steps[0], latent=-other.steps[0].latent)
    assert not step_ladder(
        traces.trace(6), [replace(other, steps=(moved, *other.steps[1:]))]
    ).start.holds


def test_bad_ladders():
    long = traces.trace(4)
    with pytest.raises(InputError, match="1 to 4"):
        step_ladder(long, [traces.trace(5)])
    with pytest.raises(InputError, match="prompt"):
        step_ladder(long, [traces.trace(2, prompt="a cat")])
    with pytest.raises(InputError, match="0 short runs"):
        step_ladder(long, [])
    with pytest.raises(InputError, match="one image for each"):
        step_ladder(long, [traces.trace(2)], [None, None])
    bare = replace(long, steps=tuple(replace(step, predictions=()) for step in long.steps))
    with pytest.raises(InputError, match="predictions"):
        step_ladder(bare, [traces.trace(2)])
