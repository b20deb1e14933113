"""Measured orders of the samplers: strong against exact flows, weak by exact probing.

Orders are measured in float64, to sigma > 0, on three grids: smooth grids alone let wrong weights
pass. Each window holds the slopes that were seen on all grids, and no neighbouring order. The
planted mistakes that these measurements must catch are in test_mutants.py.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from worlds import (
    EQUAL_STEPS,
    GAUSSIAN,
    GRIDS,
    MIXTURE,
    SD,
    SMOOTH,
    error_of,
    flow,
    levels_on,
    no_lowering,
    rough,
    slopes,
    uniform,
    ve,
    weak_errors,
)

from diffusionlab import samplers
from diffusionlab.ideal import GaussianWorld
from diffusionlab.samplers import SAMPLERS, Sampler, make_plan
from diffusionlab.schedule import NoiseLevel

# ---- strong orders ----------------------------------------------------------------------------
FIRST, SECOND, THIRD = (0.85, 1.25), (1.8, 2.4), (2.7, 3.5)
ORDERS = [
    (samplers.ddim(), FIRST),
    (samplers.lms(order=1), FIRST),
    (samplers.deis(order=1), FIRST),
    (samplers.unipc_1(corrector=False), FIRST),
    (samplers.heun(), SECOND),
    (samplers.heun_flow(), SECOND),
    (samplers.dpm2(), SECOND),
    (samplers.dpm3(), THIRD),
    (samplers.dpmpp_2s(), SECOND),
    (samplers.dpmpp_2m(), SECOND),
    (samplers.dpmpp_2m(solver_type="heun"), SECOND),
    (samplers.dpmpp_3m_corrected(), (2.7, 3.6)),
    (samplers.dpmpp_3m_shipped(), SECOND),
    (samplers.dpmpp_3m_shipped(solver_type="heun"), SECOND),
    (samplers.lms(order=2), (1.8, 2.5)),
    (samplers.lms(order=3), (1.8, 3.4)),
    (samplers.lms(), (1.8, 4.5)),
    (samplers.deis(order=2), SECOND),
    (samplers.unipc_1(), SECOND),
    (samplers.unipc_1(solver_type="bh1"), SECOND),
    (samplers.unipc_2(), (2.5, 3.6)),
    (samplers.unipc_2(solver_type="bh1"), (2.5, 3.6)),
    (samplers.unipc_2(corrector=False), SECOND),
    (samplers.unipc_3(), (2.8, 4.3)),
    (samplers.unipc_3(solver_type="bh1"), (2.7, 4.8)),
    (samplers.unipc_3(corrector=False), (1.8, 3.4)),
]
ORDERS_EQUAL_STEPS = [(SAMPLERS[name](), (1.7, 2.6)) for name in EQUAL_STEPS]


def planner(sampler, schedule=None):
    return lambda levels: make_plan(no_lowering(sampler), levels, schedule)


@pytest.mark.parametrize("grid", list(GRIDS))
@pytest.mark.parametrize("sampler, window", ORDERS, ids=repr)
def test_order(sampler, window, grid):
    for measured in slopes(planner(sampler), GRIDS[grid]):
        assert window[0] <= measured <= window[1]


@pytest.mark.parametrize("sampler, window", ORDERS_EQUAL_STEPS, ids=repr)
def test_order_with_equal_steps_in_the_timestep(sampler, window):
    for measured in slopes(planner(sampler, SMOOTH), SMOOTH):
        assert window[0] <= measured <= window[1]


@pytest.mark.parametrize("grid", list(GRIDS))
def test_order_of_deis_3(grid):
    """2 in the limit; on the karras grid its error changes sign before (1.35, 1.73, …)."""
    for measured in slopes(planner(samplers.deis()), GRIDS[grid], (256, 512)):
        assert 1.6 <= measured <= 2.4


def test_declared_orders_are_the_measured_ones():
    measured = {s.name: window for s, window in ORDERS + ORDERS_EQUAL_STEPS
                if s == SAMPLERS[s.name]()}  # fmt: skip
    measured |= {"euler": measured["ddim"], "deis": (1.6, 2.4)}
    assert set(measured) == {name for name, rule in SAMPLERS.items() if rule.deterministic}
    for name, (low, high) in measured.items():
        assert low <= SAMPLERS[name].order <= high, name


@pytest.mark.parametrize("pair", [ve, flow])
@pytest.mark.parametrize("name", ["heun_flow", "dpm3", "dpmpp_3m_corrected"])
def test_orders_hold_for_other_pairs(name, pair):
    low, high = next(window for sampler, window in ORDERS if sampler.name == name)
    for measured in slopes(planner(SAMPLERS[name]()), rough, (64, 128), pair):
        assert low <= measured <= high


@pytest.mark.parametrize("name, window", [
    ("dpmpp_2m", SECOND), ("heun_flow", SECOND), ("dpmpp_3m_corrected", (1.8, 3.6)),
])  # fmt: skip
def test_orders_on_a_flow_pair_from_pure_noise(name, window):
    errors = []
    for num_steps in (128, 256):
        sigmas = np.linspace(1.0, 0.05, num_steps + 1).tolist()
        levels = tuple(NoiseLevel(1000 * s, 1.0 - s, s) for s in sigmas)
        world = GaussianWorld([0.3, -1.0, 0.0], [0.5, 2.0, 0.4])
        errors.append(error_of(planner(SAMPLERS[name]()), world, levels))
    assert window[0] <= math.log2(errors[0] / errors[1]) <= window[1]


def test_the_lost_factor_of_3m_costs_an_order():
    """The corrected rule has order 3, the shipped one 2, on every grid and in both worlds."""
    for grid in GRIDS.values():
        corrected = slopes(planner(samplers.dpmpp_3m_corrected()), grid, (64, 128))
        shipped = slopes(planner(samplers.dpmpp_3m_shipped()), grid, (64, 128))
        assert min(corrected) > 2.7 and max(shipped) < 2.4


# ---- weak orders --------------------------------------------------------------------------------
WEAK_FIRST, WEAK_SECOND = (0.7, 1.4), (1.7, 2.4)
WEAK = [
    (samplers.ddpm(), WEAK_FIRST),
    (samplers.euler_ancestral(), WEAK_FIRST),
    (samplers.ddim(eta=0.5), WEAK_FIRST),
    (samplers.dpm2_ancestral(), WEAK_SECOND),
    (samplers.dpmpp_2s_ancestral(), WEAK_SECOND),
    (samplers.dpmpp_sde(), WEAK_SECOND),
    (samplers.dpmpp_2m_sde(), WEAK_SECOND),
    (samplers.dpmpp_2m_sde(solver_type="heun"), WEAK_SECOND),
    (samplers.dpmpp_2m_sde(eta=0.5), WEAK_SECOND),
    (samplers.dpmpp_3m_sde(), WEAK_SECOND),
    (samplers.heun_churn(), WEAK_SECOND),
]
COUNTS = (64, 128)


def weak_slope(make):
    """The order of the variance's error between two numbers of steps."""
    errors = [weak_errors(make(levels_on(uniform, n))) for n in COUNTS]
    assert all(mean < 0.05 for mean, _ in errors)
    return math.log2(errors[0][1] / errors[1][1])


@pytest.mark.parametrize("sampler, window", WEAK, ids=repr)
def test_weak_order_of_noisy_samplers(sampler, window):
    assert window[0] <= weak_slope(planner(sampler)) <= window[1]
    if sampler == SAMPLERS[sampler.name]():
        assert window[0] <= SAMPLERS[sampler.name].order <= window[1]


def test_every_noisy_rule_is_measured_or_has_no_order():
    measured = {sampler.name for sampler, _ in WEAK}
    for name, rule in SAMPLERS.items():
        assert rule.deterministic or (name in measured) == (rule.order > 0), name


@pytest.mark.parametrize("name", ["lcm", "tcd"])
def test_rules_for_distilled_weights_have_no_order(name):
    """More steps do not bring the law of an ordinary network's data: order 0 is declared."""
    errors = [weak_errors(make_plan(name, levels_on(uniform, n), SD))[1] for n in COUNTS]
    assert SAMPLERS[name].order == 0 and errors[1] > 0.6 * errors[0] > 1e-3


def test_the_weak_measurement_sees_a_wrong_amount_of_noise():
    def less(levels):
        return tuple(map(with_less_noise, make_plan("ddpm", levels, None)))

    assert weak_slope(less) < 0.3


def with_less_noise(step):
    noise = tuple((draw, 0.9 * weight) for draw, weight in step.update.noise)
    update = dataclasses.replace(step.update, noise=noise)
    return dataclasses.replace(step, update=update, exact=False)


def test_dpmpp_sde_needs_one_brownian_path_per_step():
    """With two independent noises, the update's not containing the stage's, it is first order."""

    def independent(levels):
        return tuple(map(with_its_own_noise, make_plan("dpmpp_sde", levels, None)))

    assert weak_slope(independent) < 1.2
    path, own = (weak_errors(make(levels_on(uniform, 128)))[1]
                 for make in (planner(samplers.dpmpp_sde()), independent))  # fmt: skip
    assert own > 20 * path


def with_its_own_noise(step):
    c = math.hypot(*(weight for _, weight in step.update.noise))
    return dataclasses.replace(step, update=dataclasses.replace(step.update, noise=((1, c),)))


def test_the_exact_ends_are_those_of_the_worlds():
    """The reference itself: 400 small Heun steps end there in both worlds."""
    levels = levels_on(uniform, 400)
    assert max(error_of(planner(samplers.heun()), w, levels) for w in (GAUSSIAN, MIXTURE)) < 1e-3
    assert error_of(planner(Sampler("euler")), MIXTURE, levels[:200] + levels[-1:]) > 1e-2
