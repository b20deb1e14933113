"""Every sampler keeps its contract: invariants, ends, coordinates, and errors that help.

Their orders are measured in test_orders.py, their identities in test_identities.py, planted
mistakes are caught in test_mutants.py.
"""

from __future__ import annotations

import inspect
import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from worlds import (
    EQUAL_STEPS,
    MIXTURE,
    SD,
    flow,
    last,
    levels_for,
    levels_on,
    rough,
    uniform,
    ve,
    vp,
)

from diffusionlab import samplers
from diffusionlab.errors import InputError
from diffusionlab.ideal import GaussianWorld, IdealPrediction
from diffusionlab.plan import Term, Update, check_plan
from diffusionlab.samplers import SAMPLERS, Sampler, as_sampler, make_plan
from diffusionlab.schedule import (
    FINALS,
    SPACINGS,
    NoiseSchedule,
    to_eps,
    to_x0,
)

ZERO = NoiseSchedule.scaled_linear(prediction_type="v").zero_terminal_snr()
COSINE = NoiseSchedule.cosine(prediction_type="v")
VARIANTS = [Sampler(name) for name in SAMPLERS] + [
    samplers.ddim(eta=0.5),
    samplers.euler_ancestral(eta=0.3),
    samplers.dpm2_ancestral(eta=0.5),
    samplers.dpmpp_2s_ancestral(eta=0.0),
    samplers.dpmpp_sde(eta=0.0),
    samplers.dpmpp_sde(eta=0.4),
    samplers.dpmpp_2m_sde(eta=0.4, solver_type="heun"),
    samplers.dpmpp_3m_sde(eta=0.4),
    samplers.dpmpp_3m_shipped(solver_type="heun", lower_order_final=False),
    samplers.heun_churn(s_churn=0.0),
    samplers.heun_churn(s_churn=80.0),
    *(samplers.lms(order=order) for order in (1, 2, 3)),
    *(samplers.deis(order=order) for order in (1, 2)),
    samplers.unipc_1(corrector=False),
    samplers.unipc_2(solver_type="bh1"),
    samplers.unipc_2(corrector=False),
    samplers.unipc_3(solver_type="bh1", lower_order_final=False),
    samplers.dpmpp_2m(lower_order_final=True),
    samplers.tcd(gamma=0.0),
    samplers.tcd(gamma=1.0),
]
USUAL_LAST_STEP = ("lms", *EQUAL_STEPS)  # regular at sigma 0, as the references take it
each_variant = pytest.mark.parametrize("sampler", VARIANTS, ids=repr)
each_rule = pytest.mark.parametrize("name", list(SAMPLERS))


# ---- the contract -------------------------------------------------------------------------------
@each_rule
def test_a_rule_states_its_facts(name):
    rule = SAMPLERS[name]
    assert rule.name == name and rule.source and rule.synonyms and rule.function.__doc__
    parameters = list(inspect.signature(rule.function).parameters.values())
    assert [p.name for p in parameters[:2]] == ["levels", "schedule"]
    assert {p.name: p.default for p in parameters[2:]} == {
        key: option.default for key, option in rule.options.items()
    }
    assert getattr(samplers, name) is rule and name in dir(samplers)
    made = make_plan(name, levels_for(name, 20), SD)
    assert rule.deterministic == (not any(step.draws for step in made))
    calls = [step.network_calls for step in made]
    assert rule.calls_per_step == calls[-1] and sum(calls) == 20 * calls[-1] + rule.extra_calls
    assert rule.order >= 0 and rule.min_steps >= 1
    assert (rule.order == 0) == ("distilled" in rule.source)


def plan_or_refusal(sampler, levels, schedule, equal):
    """The plan, or None where the rule says why not: too few steps, or unequal ones for AB4."""
    try:
        return make_plan(sampler, levels, schedule)
    except InputError as error:
        few = len(levels) - 1 < SAMPLERS[sampler.name].min_steps
        uneven = sampler.name in EQUAL_STEPS and not equal
        assert ("at least" in str(error) and few) or ("'lms'" in str(error) and uneven), error
        return None


EQUAL_SPACINGS = ("leading", "trailing", "linspace")
SHORT = ("lcm", "leading_dpm", "linspace_dpm")  # never as many steps as the training had
DISTINCT = list({function: name for name, function in SPACINGS.items()}.values())  # no synonyms


@cache
def spaced(schedule, num_steps, spacing, final):
    return schedule.levels(num_steps, spacing, final)


@each_variant
@pytest.mark.parametrize(
    "schedule, counts",
    [(SD, (1, 2, 3, 4, 10, 15, 50)), (COSINE, (2, 9, 16)), (ZERO, (2, 9, 16))],
    ids=["sd", "cosine", "zero"],
)
def test_plans_keep_the_invariants_and_their_shape(sampler, schedule, counts):
    made = 0
    for i, num_steps in enumerate(counts):
        for k, spacing in enumerate(DISTINCT):
            levels = spaced(schedule, num_steps, spacing, FINALS[(i + k) % 3])
            if len(levels) > 1:
                plan = plan_or_refusal(sampler, levels, schedule, spacing in EQUAL_SPACINGS)
                made += plan is not None
                check_shape(plan or (), levels)
    assert made >= len(counts)


@each_rule
@pytest.mark.parametrize("num_steps", [999, 1000])
def test_plans_of_as_many_steps_as_the_training_had(name, num_steps):
    made = 0
    for k, spacing in enumerate(name for name in DISTINCT if name not in SHORT):
        levels = spaced(SD, num_steps, spacing, FINALS[k % 3])
        plan = plan_or_refusal(Sampler(name), levels, SD, spacing in EQUAL_SPACINGS)
        check_plan(plan or ())
        assert all(math.isfinite(weight) for step in plan or () for weight in weights_of(step))
        made += plan is not None
    assert made >= 3


def weights_of(step):
    for update in (step.update, *(stage.update for stage in step.stages)):
        yield from (update.a, *(t.weight for t in update.terms), *(w for _, w in update.noise))


def check_shape(plan, levels):
    check_plan(plan)
    if plan:
        assert [(step.level, step.next_level) for step in plan] == list(pairwise(levels))
    calls = 0
    for step in plan:
        own = calls  # the call at the step's own latent
        first = step.stages[0]
        if first.level == step.level:
            assert first.update == Update()
        else:  # churn: the first call is above the step's level
            assert first.level.karras_sigma > step.level.karras_sigma and first.update.noise
        for stage in step.stages:
            check_terms(stage.update, calls, own, len(step.draws))
            assert -1 < stage.level.timestep <= levels[0].timestep
            calls += 1
        check_terms(step.update, calls, own, len(step.draws))
        places = [level.karras_sigma for draw in step.draws for level in draw]
        assert places == sorted(places, reverse=True)
        assert not places or (places[0], places[-1]) == (
            step.level.karras_sigma, step.next_level.karras_sigma
        )  # fmt: skip
        if step.next_level.sigma == 0:
            assert not step.draws and step.network_calls == 1


def check_terms(update, calls, own, draws):
    numbers = [update.a, *(t.weight for t in update.terms), *(w for _, w in update.noise)]
    assert all(type(x) is float and math.isfinite(x) for x in numbers)
    assert all(0 <= term.call < calls for term in update.terms)
    assert not any(term.reading == "eps" and term.call == own for term in update.terms)
    assert all(0 <= draw < draws for draw, _ in update.noise)


@each_rule
def test_calls_of_a_run_to_sigma_zero(name):
    rule = SAMPLERS[name]
    for num_steps in (n for n in (1, 4, 10, 20) if n >= rule.min_steps):
        plan = make_plan(name, SD.levels(num_steps, "trailing"), SD)
        per_step = rule.calls_per_step
        expected = num_steps * per_step - (per_step - 1) + rule.extra_calls * (num_steps > 1)
        assert sum(step.network_calls for step in plan) == expected


@each_variant
def test_the_last_step_to_sigma_zero_returns_x0(sampler):
    plan = make_plan(sampler, SD.levels(6, "trailing"), SD)
    calls = sum(step.network_calls for step in plan)
    if sampler.name == "lcm":  # scales x0 at every timestep, here by 4e-8
        assert plan[-1].update.a == pytest.approx(0.25 / (10 * plan[-1].level.timestep) ** 2)
    elif sampler.name in USUAL_LAST_STEP and sampler != Sampler("lms", {"order": 1}):
        assert len(plan[-1].update.terms) == as_sampler(sampler).options.get("order", 4)
    else:
        assert plan[-1].update == Update(0.0, (Term("x0", calls - 1, 1.0),))


ETA_THERE = {"ddpm": 1.0, "heun_churn": 0.0, "dpmpp_sde": 1.0, "dpmpp_2m_sde": 1.0}


@each_variant
def test_from_pure_noise_the_first_step_is_first_order_and_gets_no_weight_later(sampler):
    plan = make_plan(sampler, ZERO.levels(6, "trailing"), ZERO)
    s, t, first = plan[0].level, plan[0].next_level, plan[0].update
    assert s.alpha == 0.0
    if sampler.name in ("lcm", "tcd"):  # their usual step
        assert plan[0].network_calls == 1
    elif sampler.name == "heun_flow":
        assert plan[0].network_calls == 2 and first.a == t.sigma
    else:
        eta = as_sampler(sampler).options.get("eta", ETA_THERE.get(sampler.name, 0.0))
        assert first.a == pytest.approx(t.sigma * math.sqrt(1 - eta**2), rel=1e-14)
        assert [(k.reading, k.call) for k in first.terms] == [("x0", 0)]
        assert [weight for _, weight in first.noise] == ([eta * t.sigma] if eta else [])
    later = [term for step in plan[1:] for term in step.update.terms if term.call == 0]
    assert not any(term.weight for term in later)


@each_variant
def test_a_point_mass_is_hit_exactly(sampler):
    world, draw = GaussianWorld(0.7, 0.0), np.random.default_rng(0).standard_normal
    for num_steps in (1, 2, 4, 9):
        if num_steps >= SAMPLERS[sampler.name].min_steps:
            plan = make_plan(sampler, SD.levels(num_steps, "leading"), SD)
            end = last(plan, np.array([3.0, -9.0]), world.predict, lambda s, t: draw(2))
            # lcm does not believe the network at timestep 0: its boundary condition
            assert np.allclose(end, 0.7, rtol=1e-11) == (sampler.name != "lcm")


def test_only_rules_that_say_so_are_inexact():
    for name in SAMPLERS:
        plan = make_plan(name, levels_for(name, 8), SD)
        assert all(step.exact == (name != "lcm") for step in plan)
    loud = make_plan(samplers.heun_churn(s_noise=1.003), levels_on(uniform, 8), SD)
    assert not any(step.exact for step in loud)


@each_variant
def test_vp_ve_and_flow_pairs_are_one_run(sampler):
    """In x/alpha all three coordinates take the same steps."""
    ends = []
    for pair in (vp, ve, flow):
        levels = levels_for(sampler.name, 18, rough, pair)
        draw = np.random.default_rng(1).standard_normal
        start = levels[0].alpha * np.linspace(-9, 9, 5)
        plan = make_plan(sampler, levels, SD)
        check_plan(plan)
        for stage in (stage for step in plan for stage in step.stages):
            told = stage.level
            assert told.alpha == pytest.approx(pair(told.karras_sigma).alpha, rel=1e-12)
        end = last(plan, start, MIXTURE.predict, lambda s, t, draw=draw: draw(5))
        ends.append(end / levels[-1].alpha)
    assert np.allclose(ends[1], ends[0], rtol=1e-10, atol=1e-12)
    assert np.allclose(ends[2], ends[0], rtol=1e-10, atol=1e-12)


@each_variant
def test_eps_x0_and_v_models_give_one_run(sampler):
    levels, start = SD.levels(9, "trailing"), np.linspace(-2, 2, 5)
    plan, ends = make_plan(sampler, levels, SD), []
    for kind in ("eps", "x0", "v"):

        def predict(latent, level, kind=kind):
            said = MIXTURE.predict(latent, level)
            output = getattr(said, kind)
            x0, eps = (f(output, latent, level, kind) for f in (to_x0, to_eps))
            return IdealPrediction(level, latent, x0, eps)

        draw = np.random.default_rng(1).standard_normal
        ends.append(last(plan, start, predict, lambda s, t, draw=draw: draw(5)))
    assert np.allclose(ends[1], ends[0], rtol=1e-9) and np.allclose(ends[2], ends[0], rtol=1e-9)


@each_variant
def test_many_images_at_once_equal_single_runs(sampler):
    plan = make_plan(sampler, SD.levels(7, "trailing"), SD)
    starts, draws = np.random.default_rng(0).standard_normal((2, 3))  # three images
    together = last(plan, starts, MIXTURE.predict, lambda s, t: draws)
    for start, draw, end in zip(starts, draws, together, strict=True):
        alone = last(plan, np.array([start]), MIXTURE.predict, lambda s, t, d=draw: np.array([d]))
        assert np.allclose(alone, end, rtol=1e-12)


def test_rules_differ_unless_they_declare_an_identity():
    levels, draw = SD.levels(12, "trailing"), np.random.default_rng(3).standard_normal((30, 5))
    ends = {}
    for name in SAMPLERS:
        noises = iter(draw)
        plan = make_plan(name, levels, SD)
        ends[name] = last(
            plan, np.linspace(-2, 2, 5), MIXTURE.predict, lambda s, t, n=noises: next(n)
        )
    for one, two in ((a, b) for a in SAMPLERS for b in SAMPLERS if a < b):
        declared = SAMPLERS[one].same_as == two or SAMPLERS[two].same_as == one
        assert np.allclose(ends[one], ends[two], rtol=1e-5, atol=1e-5) == declared, (one, two)
