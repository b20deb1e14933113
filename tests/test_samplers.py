"""Every sampler keeps its contract: invariants, identities, and errors that help.

Their orders are measured in test_orders.py.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from worlds import MIXTURE, flow, karras, last, levels_on, rough, uniform, ve, vp

from diffusionlab import samplers
from diffusionlab.errors import InputError
from diffusionlab.ideal import GaussianWorld, IdealPrediction
from diffusionlab.plan import Term, Update, check_plan
from diffusionlab.samplers import SAMPLERS, Sampler, as_sampler, make_plan
from diffusionlab.schedule import FINALS, SPACINGS, NoiseLevel, NoiseSchedule, to_eps, to_x0

SD = NoiseSchedule.scaled_linear()
ZERO = NoiseSchedule.scaled_linear(prediction_type="v").zero_terminal_snr()
COSINE = NoiseSchedule.cosine(prediction_type="v")
VARIANTS = [Sampler(name) for name in SAMPLERS] + [
    Sampler("ddim", {"eta": 0.5}),
    Sampler("euler_ancestral", {"eta": 0.3}),
    *(Sampler("lms", {"order": order}) for order in (1, 2, 3)),
    Sampler("unipc_2", {"solver_type": "bh1"}),
    Sampler("unipc_2", {"corrector": False}),
    Sampler("dpmpp_2m", {"lower_order_final": True}),
]
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
    made = make_plan(name, levels_on(uniform, 8), None)
    assert rule.deterministic == (not any(step.draws for step in made))
    assert rule.calls_per_step == max(step.network_calls for step in made)


SOME = [1, 2, 3, 4, 7, 14, 15, 16, 31, 250, 999, 1000]


@each_variant
@pytest.mark.parametrize("schedule", [SD, COSINE, ZERO], ids=["sd", "cosine", "zero"])
def test_plans_keep_the_invariants_and_their_shape(sampler, schedule):
    for i, num_steps in enumerate(SOME):
        for k, spacing in enumerate(SPACINGS):
            final = FINALS[(i + k) % 3]
            levels = schedule.levels(num_steps, spacing, final)
            if len(levels) > 1:
                check_shape(make_plan(sampler, levels, schedule), levels)


def check_shape(plan, levels):
    check_plan(plan)
    assert all(step.exact for step in plan)
    assert [(step.level, step.next_level) for step in plan] == list(pairwise(levels))
    calls = 0
    for step in plan:
        own = calls  # the call at the step's own latent
        assert step.stages[0].level == step.level and step.stages[0].update == Update()
        for stage in step.stages:
            check_terms(stage.update, calls, own, len(step.draws))
            calls += 1
        check_terms(step.update, calls, own, len(step.draws))
        places = [level.karras_sigma for draw in step.draws for level in draw]
        assert places == sorted(places, reverse=True) and step.next_level.sigma * len(places) >= 0
        if step.next_level.sigma == 0:
            assert not step.draws and step.network_calls == 1
    return calls


def check_terms(update, calls, own, draws):
    numbers = [update.a, *(t.weight for t in update.terms), *(w for _, w in update.noise)]
    assert all(type(x) is float and math.isfinite(x) for x in numbers)
    assert all(0 <= term.call < calls for term in update.terms)
    assert not any(term.reading == "eps" and term.call == own for term in update.terms)
    assert all(0 <= draw < draws for draw, _ in update.noise)


@each_rule
def test_calls_of_a_run_to_sigma_zero(name):
    for num_steps in (1, 2, 10):
        plan = make_plan(name, SD.levels(num_steps, "trailing"), SD)
        calls = sum(step.network_calls for step in plan)
        assert calls == (2 * num_steps - 1 if SAMPLERS[name].calls_per_step == 2 else num_steps)


@each_variant
def test_the_last_step_to_sigma_zero_returns_x0(sampler):
    plan = make_plan(sampler, SD.levels(5, "trailing"), SD)
    if sampler.name == "lms":  # its usual step is regular there
        assert len(plan[-1].update.terms) == as_sampler(sampler).options["order"]
    else:
        calls = sum(step.network_calls for step in plan)
        assert plan[-1].update == Update(0.0, (Term("x0", calls - 1, 1.0),))


@each_variant
def test_from_pure_noise_the_first_step_is_first_order_and_gets_no_weight_later(sampler):
    plan = make_plan(sampler, ZERO.levels(6, "trailing"), ZERO)
    eta = {"ddpm": 1.0, "euler_ancestral": 1.0}.get(sampler.name, 0.0)
    eta = sampler.options.get("eta", eta)
    t = plan[0].next_level
    assert plan[0].update.a == pytest.approx(t.sigma * math.sqrt(1 - eta**2), rel=1e-14)
    assert [(k.reading, k.call) for k in plan[0].update.terms] == [("x0", 0)]
    later = [term for step in plan[1:] for term in step.update.terms if term.call == 0]
    assert not any(term.weight for term in later)


@each_variant
def test_a_point_mass_is_hit_exactly(sampler):
    world, draw = GaussianWorld(0.7, 0.0), np.random.default_rng(0).standard_normal
    for num_steps in (1, 2, 9):
        plan = make_plan(sampler, SD.levels(num_steps, "leading"), SD)
        end = last(plan, np.array([3.0, -9.0]), world.predict, lambda s, t: draw(2))
        assert np.allclose(end, 0.7, rtol=1e-11)


@each_variant
def test_vp_ve_and_flow_pairs_are_one_run(sampler):
    """In x/alpha all three coordinates take the same steps."""
    ends = []
    for pair in (vp, ve, flow):
        levels, draw = levels_on(rough, 18, pair), np.random.default_rng(1).standard_normal
        start = levels[0].alpha * np.linspace(-9, 9, 5)
        plan = make_plan(sampler, levels, None)
        check_plan(plan)
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
    starts, draws = np.random.default_rng(0).standard_normal((2, 3))
    together = last(plan, starts, MIXTURE.predict, lambda s, t: draws)
    for start, draw, end in zip(starts, draws, together, strict=True):
        alone = last(plan, np.array([start]), MIXTURE.predict, lambda s, t, d=draw: np.array([d]))
        assert np.allclose(alone, end, rtol=1e-12)


def test_rules_differ_unless_they_declare_an_identity():
    levels, draw = SD.levels(12, "trailing"), np.random.default_rng(3).standard_normal((12, 5))
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


# ---- identities ---------------------------------------------------------------------------------
def same_plans(one, two, tolerance=1e-12):
    levels = SD.levels(17, "leading")
    for grid in (levels, levels_on(rough, 17, ve), levels_on(karras, 17, flow)):
        for p, q in zip(make_plan(one, grid, SD), make_plan(two, grid, SD), strict=True):
            left, right = weights(p.update), weights(q.update)
            for key in {*left, *right}:
                close = abs(left.get(key, 0) - right.get(key, 0)) <= tolerance * max(
                    1, abs(left["a"])
                )
                if not close:
                    return False
    return True


def weights(update):
    terms = {(term.reading, term.call): term.weight for term in update.terms}
    return {"a": update.a} | terms | {("noise", draw): weight for draw, weight in update.noise}


def test_identities():
    assert same_plans("euler", "ddim")
    for eta in (0.0, 0.3, 1.0):
        assert same_plans(samplers.euler_ancestral(eta=eta), samplers.ddim(eta=eta))
    assert same_plans(samplers.ddim(eta=1.0), "ddpm")
    assert same_plans(samplers.lms(order=1), "euler")
    predictor = samplers.unipc_2(corrector=False)
    assert same_plans(predictor, "dpmpp_2m")
    assert not same_plans(samplers.unipc_2(corrector=False, solver_type="bh1"), "dpmpp_2m", 1e-2)
    assert not same_plans("heun", "euler", 1e-2)


def test_ddim_from_501_to_401():
    s, t = SD.level_at(timestep=501), SD.level_at(timestep=401)
    update = make_plan("ddim", (s, t), SD)[0].update
    assert update.a == pytest.approx(0.89220, abs=1e-5)
    b = update.terms[0].weight
    assert b == pytest.approx(0.18242, abs=1e-5)
    assert update.a + b / s.alpha == pytest.approx(1.24006, abs=1e-5)
    assert -b * s.sigma / s.alpha == pytest.approx(-0.29619, abs=1e-5)


def test_the_posterior_variance_of_ddpm():
    linear = NoiseSchedule.linear()
    for pair, variance in (((420, 400), 0.14771), ((980, 960), 0.32460)):
        levels = tuple(linear.level_at(timestep=t) for t in pair)
        ((_, c),) = make_plan("ddpm", levels, linear)[0].update.noise
        assert c * c == pytest.approx(variance, abs=1e-5)
    s, t = (linear.level_at(timestep=k) for k in (488, 487))
    ((_, c),) = make_plan("ddpm", (s, t), linear)[0].update.noise
    ours = linear.beta[488] * (1 - linear.alpha_bar[487]) / (1 - linear.alpha_bar[488])
    assert c * c == pytest.approx(ours, rel=1e-9)  # DDPM Eq. 7


def test_lower_order_final_is_an_option():
    short, long = levels_on(uniform, 10), levels_on(uniform, 20)
    for name in ("dpmpp_2m", "unipc_2"):
        rule = SAMPLERS[name]
        for levels, default in ((short, True), (long, False)):
            plans = {
                choice: make_plan(rule(lower_order_final=choice), levels, None)
                for choice in (None, True, False)
            }
            assert plans[None] == plans[default] != plans[not default]
            assert plans[True][:-1] == plans[False][:-1]


# ---- names, options, errors ---------------------------------------------------------------------
def test_factories_make_samplers():
    from diffusionlab.samplers import ddim, dpmpp_2m

    assert ddim(eta=0.5) == Sampler("ddim", {"eta": 0.5}) and repr(ddim(eta=0.5)) == "ddim(eta=0.5)"
    assert as_sampler("ddim") == as_sampler(ddim) == as_sampler(Sampler("ddim")) == ddim()
    assert json.loads(json.dumps(dataclasses.asdict(dpmpp_2m()))) == {
        "name": "dpmpp_2m", "options": {"lower_order_final": None}
    }  # fmt: skip
    with pytest.raises(AttributeError, match="nonsense"):
        samplers.nonsense  # noqa: B018


SYNONYMS = {
    "DPM++ 2M": "dpmpp_2m",
    "dpm++2m": "dpmpp_2m",
    "DPM++ 2M Karras": "dpmpp_2m",
    "k_dpmpp_2m": "dpmpp_2m",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "Euler a": "euler_ancestral",
    "sample_euler_ancestral": "euler_ancestral",
    "k_heun": "heun",
    "EulerDiscreteScheduler": "euler",
    "DDIM": "ddim",
    "PLMS": None,
    "UniPC": "unipc_2",
    "LMSDiscreteScheduler": "lms",
}


@pytest.mark.parametrize("given, ours", SYNONYMS.items())
def test_names_of_other_tools_are_translated(given, ours):
    with pytest.raises(InputError) as error:
        as_sampler(given)
    assert repr(given) in str(error.value)
    assert all(name in str(error.value) for name in SAMPLERS)
    if ours:
        assert f"is called {ours!r} here" in str(error.value)


def test_no_synonym_means_two_rules():
    known = [samplers._plain(word) for rule in SAMPLERS.values() for word in
             {samplers._plain(w) for w in (rule.name, *rule.synonyms)}]  # fmt: skip
    assert len(known) == len(set(known))


@pytest.mark.parametrize("wrong", [None, 3, b"ddim", ["ddim"], {"name": "ddim"}, "", "x" * 10_000])
def test_what_is_no_sampler(wrong):
    with pytest.raises(InputError, match="ddim") as error:
        as_sampler(wrong)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("ddim", {"eta": -0.1}, "0 <= eta <= 1"),
        ("ddim", {"eta": 5}, "0 <= eta <= 1"),
        ("ddim", {"eta": math.nan}, "0 <= eta <= 1"),
        ("ddim", {"eta": True}, "0 <= eta <= 1"),
        ("ddim", {"eta": "1"}, "0 <= eta <= 1"),
        ("euler_ancestral", {"eta": 1.5}, "0 <= eta <= 1"),
        ("lms", {"order": 0}, "one of 1, 2, 3, 4"),
        ("lms", {"order": 5}, "one of 1, 2, 3, 4"),
        ("lms", {"order": 2.0}, "one of 1, 2, 3, 4"),
        ("lms", {"order": True}, "one of 1, 2, 3, 4"),
        ("unipc_2", {"solver_type": "bh3"}, "'bh1', 'bh2'"),
        ("dpmpp_2m", {"lower_order_final": 1}, "None, True, False"),
        ("ddim", {"etta": 0.5}, "did you mean 'eta'"),
        ("ddpm", {"eta": 0.5}, "its options are: none"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(InputError) as error:
        SAMPLERS[name](**options)
    assert words in str(error.value)
    with pytest.raises(InputError):
        make_plan(Sampler(name, options), SD.levels(3), SD)


def test_bad_levels():
    s, t = SD.level_at(timestep=500), SD.level_at(timestep=20)
    for wrong in ((), (s,), (t, s), (s, s), (s, t, t), (s, NoiseLevel(3, math.nan, 0.5))):
        with pytest.raises(InputError, match="levels"):
            make_plan("ddim", wrong, SD)
