"""Declared identities between samplers, to 1e-10 in every coefficient, and pinned single steps.

Plans are compared number by number: `a`, every weight of the step and of its stages, and the
karras_sigma of every call; so two plans that are equal here give one run with any network.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from worlds import MIXTURE, SD, flow, karras, last, levels_on, rough, uniform, ve

from diffusionlab import samplers
from diffusionlab.plan import Update
from diffusionlab.samplers import SAMPLERS, make_plan
from diffusionlab.samplers.dpmpp import multistep_plan
from diffusionlab.schedule import NoiseLevel, NoiseSchedule

GRIDS = [SD.levels(17, "leading"), levels_on(rough, 17, ve), levels_on(karras, 17, flow)]


def numbers(update):
    terms = {(term.reading, term.call): term.weight for term in update.terms}
    return {"a": update.a} | terms | {("noise", draw): weight for draw, weight in update.noise}


def distance(one, two):
    """The largest difference of two updates' numbers, relative to their largest number."""
    left, right = numbers(one), numbers(two)
    largest = max(map(abs, (*left.values(), *right.values())))
    return max(abs(left.get(k, 0.0) - right.get(k, 0.0)) for k in {*left, *right}) / largest


def step_distance(p, q):
    if p.network_calls != q.network_calls:
        return math.inf
    gaps = [distance(p.update, q.update)]
    for left, right in zip(p.stages, q.stages, strict=True):
        gaps.append(distance(left.update, right.update))
        ratio = left.level.karras_sigma / right.level.karras_sigma
        gaps.append(abs(ratio - 1.0) + abs(left.level.alpha / right.level.alpha - 1.0))
    return max(gaps)


def named(value):
    """An id that is the same in every process."""
    return getattr(value, "__name__", repr(value))


def planned(make, levels):
    return make(levels) if make is unified_3m else make_plan(make, levels, SD)


def gap(one, two, grids=GRIDS):
    """The largest difference between two samplers, or functions of levels, over the grids."""
    plans = [[planned(make, levels) for levels in grids] for make in (one, two)]
    pairs = zip(*plans, strict=True)
    return max(step_distance(p, q) for a, b in pairs for p, q in zip(a, b, strict=True))


def unified_3m(levels):
    """DPM++ 3M with κ = 2, midpoint second step and Euler start."""
    return multistep_plan(levels, 3, None, 0.0, "midpoint", kappa=2.0)


IDENTITIES = [
    ("euler", "ddim"),
    *((samplers.euler_ancestral(eta=eta), samplers.ddim(eta=eta)) for eta in (0.0, 0.3, 1.0)),
    (samplers.ddim(eta=1.0), "ddpm"),
    (samplers.lms(order=1), "euler"),
    (samplers.deis(order=1), "euler"),
    (samplers.unipc_1(corrector=False), "euler"),
    (samplers.unipc_1(corrector=False, solver_type="bh1"), "euler"),
    (samplers.unipc_2(corrector=False), "dpmpp_2m"),
    (samplers.unipc_3(corrector=False), unified_3m),
    (samplers.dpmpp_2m_sde(eta=0.0), "dpmpp_2m"),
    (samplers.dpmpp_2m_sde(eta=0.0, solver_type="heun"), samplers.dpmpp_2m(solver_type="heun")),
    (samplers.dpmpp_3m_sde(eta=0.0), samplers.dpmpp_3m_shipped(solver_type="heun")),
    (samplers.dpmpp_sde(eta=0.0), "dpmpp_2s"),
    (samplers.dpm2_ancestral(eta=0.0), "dpm2"),
    (samplers.dpmpp_2s_ancestral(eta=0.0), "dpmpp_2s"),
    (samplers.heun_churn(s_churn=0.0), "heun"),
    (samplers.tcd(gamma=0.0), "ddim"),
]
DIFFERENT = [  # what is nearly an identity: the comparison can fail
    (samplers.unipc_2(corrector=False, solver_type="bh1"), "dpmpp_2m", 1e-2),
    (samplers.unipc_3(corrector=False), "dpmpp_3m_shipped", 1e-2),
    (samplers.dpmpp_3m_sde(eta=0.0), "dpmpp_3m_shipped", 1e-3),
    (samplers.dpmpp_2m(solver_type="heun"), "dpmpp_2m", 1e-3),
    (samplers.dpmpp_2m_sde(eta=0.3), samplers.dpmpp_2m_sde(eta=0.31), 1e-3),
    ("heun_flow", "heun", 1e-2),
    ("deis", samplers.lms(order=3), 1e-2),
]


@pytest.mark.parametrize("one, two", IDENTITIES, ids=named)
def test_identities(one, two):
    assert gap(one, two) < 1e-10


@pytest.mark.parametrize("one, two, least", DIFFERENT, ids=named)
def test_what_is_not_identical(one, two, least):
    assert gap(one, two) > least


def test_identities_that_the_rules_declare():
    for rule in SAMPLERS.values():
        if rule.same_as:
            assert gap(rule.name, rule.same_as) < 1e-10


def test_the_first_step_of_plms_is_heun():
    levels = SD.levels(17, "trailing")
    plms, heun = make_plan("plms", levels, SD), make_plan("heun", levels, SD)
    assert step_distance(plms[0], heun[0]) < 1e-12 < step_distance(plms[1], heun[1])


def test_euler_on_flow_levels_is_the_rectified_flow_step():
    """x_t = x_s + (sigma_t - sigma_s)·(eps - x0), and its Heun step takes the mean of two."""
    levels = tuple(NoiseLevel(1000 * s, 1 - s, s) for s in (1.0, 0.8, 0.55, 0.2))
    x, slope = np.linspace(-2.0, 2.0, 5), lambda x, level: (
        MIXTURE.predict(x, level).eps - MIXTURE.predict(x, level).x0
    )  # fmt: skip
    y = x
    for s, t in zip(levels[:-1], levels[1:], strict=True):
        change = t.sigma - s.sigma
        x = x + change * slope(x, s)
        second = slope(y + change * slope(y, s), t)
        y = y + change * (slope(y, s) + second) / 2
    start = np.linspace(-2.0, 2.0, 5)
    ends = {name: last(make_plan(name, levels, None), start, MIXTURE.predict)
            for name in ("euler", "heun_flow", "heun")}  # fmt: skip
    assert np.allclose(ends["euler"], x, rtol=1e-12)
    assert np.allclose(ends["heun_flow"], y, rtol=1e-12)
    assert not np.allclose(ends["heun"], y, rtol=1e-3)


def test_dpm3_is_the_papers_algorithm():
    """arXiv 2206.00927 Algorithm 2, in eps, as printed; our plan holds it in the stages' x0."""
    s, t = levels_on(uniform, 2)[:2]
    x, eps = np.linspace(-9.0, 9.0, 5), lambda x, level: MIXTURE.predict(x, level).eps
    h = math.log(s.karras_sigma / t.karras_sigma)
    plan = make_plan("dpm3", (s, t), SD)
    one, two = (stage.level for stage in plan[0].stages[1:])
    g = lambda r: math.expm1(r * h)  # noqa: E731
    e0 = eps(x, s)
    u1 = one.alpha / s.alpha * x - one.sigma * g(1 / 3) * e0
    d1 = eps(u1, one) - e0
    u2 = two.alpha / s.alpha * x - two.sigma * (
        g(2 / 3) * e0 + 2.0 * (g(2 / 3) / (2 * h / 3) - 1.0) * d1
    )
    d2 = eps(u2, two) - e0
    end = t.alpha / s.alpha * x - t.sigma * (g(1.0) * e0 + 1.5 * (g(1.0) / h - 1.0) * d2)
    assert np.allclose(last(plan, x, MIXTURE.predict), end, rtol=1e-12)


def test_an_extrapolated_step_is_its_sum_of_eps():
    """PLMS from its fourth call on: transfer along (55, -59, 37, -9)/24 of the last four eps."""
    levels, seen = SD.levels(8, "trailing", "none"), []

    def predict(latent, level):
        seen.append(MIXTURE.predict(latent, level))
        return seen[-1]

    end = last(make_plan("ipndm", levels, SD), np.linspace(-2, 2, 5), predict)
    s, t = levels[-2:]
    e = sum(w * call.eps for w, call in zip((55, -59, 37, -9), seen[:-5:-1], strict=True)) / 24
    change = t.sigma - t.alpha * s.karras_sigma
    assert np.allclose(end, t.alpha / s.alpha * seen[-1].latent + change * e, rtol=1e-12)


def test_churn_adds_exactly_the_noise_between_two_levels():
    s, t = levels_on(uniform, 8, ve)[2:4]
    step = make_plan(samplers.heun_churn(s_churn=0.2), (s, t), SD)[0]
    assert step.stages[0].level.karras_sigma == pytest.approx(1.2 * s.karras_sigma)
    ((_, added),) = step.stages[0].update.noise
    assert added == pytest.approx(s.sigma * math.sqrt(1.2**2 - 1), rel=1e-12)
    assert step.stages[0].update == Update(1.0, (), ((0, added),))


# ---- pinned single steps ------------------------------------------------------------------------
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
