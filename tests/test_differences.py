"""Where our samplers and diffusers' differ on purpose, each difference with what it is exactly."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from diffusionlab import samplers
from diffusionlab.plan import Term
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.spacings import flow_levels

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from parity_samplers import (  # noqa: E402
    SCHEDULE,
    SHAPE,
    TOLERANCE,
    in_float64,
    largest,
    levels_of,
    made,
    ours,
    theirs,
)

pytestmark = pytest.mark.filterwarnings("ignore")


# ---- lists of levels ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, sampler",
    [("DPMSolverMultistep", "dpmpp_2m"), ("UniPCMultistep", "unipc_2"), ("DEISMultistep", "deis")],
)
def test_1000_steps_are_nan_there_and_finite_here(name, sampler):
    """Two of their 1000 times are equal, so h = 0; ours are strictly decreasing."""
    scheduler = made(name + "Scheduler", "eps", "linspace", 1000)
    sigmas = scheduler.sigmas.numpy()
    assert np.any(sigmas[1:] == sigmas[:-1])
    scheduler.set_begin_index(max(0, int(np.argmax(sigmas[1:] == sigmas[:-1])) - 4))
    latent = torch.ones(1, *SHAPE)
    for timestep in scheduler.timesteps[scheduler.begin_index :][:8]:
        latent = scheduler.step(0.5 * latent, timestep, latent).prev_sample
    assert bool(torch.isnan(latent).any())
    levels = SCHEDULE.levels(1000, "linspace")
    assert len(levels) == 1001
    for step in make_plan(sampler, levels, SCHEDULE):
        weights = [step.update.a, *(term.weight for term in step.update.terms)]
        assert all(map(math.isfinite, weights))


def test_trailing_with_61_steps_has_a_62nd_there():
    scheduler = made("EulerDiscreteScheduler", "eps", "trailing", 61)
    assert len(scheduler.timesteps) == 62
    assert float(scheduler.timesteps[-1]) == -1.0
    levels = SCHEDULE.levels(61, "trailing")
    assert len(levels) == 62  # with the clean one
    assert levels[-2].timestep > 0
    assert len(made("EulerDiscreteScheduler", "eps", "trailing", 60).timesteps) == 60


def shifted(sigma, shift):
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def test_the_flow_shift_is_applied_twice_there_and_once_here():
    """Their list runs from the shifted largest to the shifted smallest sigma, and is shifted."""
    shift, num_steps = 3.0, 10
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(1000, shift=shift)
    scheduler.set_timesteps(num_steps)
    last = float(scheduler.sigmas[-2])
    assert last == pytest.approx(shifted(shifted(1 / 1000, shift), shift), rel=1e-4)
    assert last != pytest.approx(shifted(1 / 1000, shift), rel=0.5)
    levels = flow_levels(num_steps, shift)
    wanted = [shifted(1 - i / num_steps, shift) for i in range(num_steps + 1)]
    assert [level.sigma for level in levels] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_where_a_run_begins(spacing):
    """Ours is sigma_T·noise. DDIM there takes 1·noise, Euler either, depending on the spacing."""
    level = SCHEDULE.levels(10, spacing)[0]
    scheduler = made("EulerDiscreteScheduler", "eps", spacing, 10)
    top = scheduler.sigmas[0]
    native = float(scheduler.init_noise_sigma / torch.sqrt(top**2 + 1))
    assert native == pytest.approx({"leading": 1.0, "trailing": level.sigma}[spacing], rel=1e-6)
    assert float(made("DDIMScheduler", "eps", spacing, 10).init_noise_sigma) == 1.0
    assert level.sigma < 0.999


# ---- third order ------------------------------------------------------------------------------
def integrated(levels, call_weights, power):
    """(what a step makes of x0 = (λ - λ_s)^power, what is exact), for the middle of the run."""
    s, t = levels[2], levels[3]
    place = [math.log(s.karras_sigma / level.karras_sigma) for level in levels]
    h = place[3]
    nodes, shares = np.polynomial.legendre.leggauss(40)
    u = (nodes + 1.0) * h / 2.0
    exact = t.alpha * float(np.sum(shares * h / 2.0 * np.exp(u - h) * u**power))
    return sum(weight * place[call] ** power for call, weight in call_weights.items()), exact


def weights_of(sampler, levels):
    step = make_plan(sampler, levels, None)[2]
    first = {term.call: term.weight for term in step.update.terms}
    extra = max(first) - 2  # the corrected rule makes two calls in its first step
    return {max(0, call - extra): weight for call, weight in first.items()}


def test_shipped_3m_has_half_of_the_curvature_and_so_has_theirs():
    """x0 = u² is integrated exactly with the factor 2, and to one half of it without."""
    levels = tuple(SCHEDULE.level_at(karras_sigma=sigma) for sigma in (9.0, 5.0, 3.0, 1.6, 1.0))
    rules = {name: getattr(samplers, name)(lower_order_final=False)
             for name in ("dpmpp_3m_shipped", "dpmpp_3m_corrected")}  # fmt: skip
    for power in (0, 1):
        for rule in rules.values():
            made_of, exact = integrated(levels, weights_of(rule, levels), power)
            assert made_of == pytest.approx(exact, rel=1e-10)
    made_of, exact = integrated(levels, weights_of(rules["dpmpp_3m_corrected"], levels), 2)
    assert made_of == pytest.approx(exact, rel=1e-10)
    wrong, _ = integrated(levels, weights_of(rules["dpmpp_3m_shipped"], levels), 2)
    assert abs(wrong / exact - 1.0) > 0.05
    scheduler = made("DPMSolverMultistepScheduler", "v", "trailing", 20, solver_order=3)
    levels = levels_of(in_float64(scheduler))
    assert largest(make_plan("dpmpp_3m_shipped", levels, None), scheduler, "v") < TOLERANCE
    scheduler = made("DPMSolverMultistepScheduler", "v", "trailing", 20, solver_order=3)
    expected, end, _ = theirs(in_float64(scheduler), "v")
    plan = make_plan("dpmpp_3m_corrected", levels, SCHEDULE)
    _, other = ours(plan, expected[0][0], "v", [])
    assert 1e-3 < float((other - end).abs().max()) < 0.5


def with_their_sign(plan):
    """3M-SDE with - 0.5 for + 0.5 in the weight of the curvature: each step loses alpha·D2."""

    def change(step, earlier):
        if len(step.update.terms) < 3:
            return step
        s, t = step.level, step.next_level
        h = math.log(s.karras_sigma / t.karras_sigma)
        r0 = math.log(earlier[1].karras_sigma / s.karras_sigma) / h
        r1 = math.log(earlier[0].karras_sigma / earlier[1].karras_sigma) / h
        d2 = {0: 1 / r0, 1: -1 / r0 - 1 / r1, 2: 1 / r1}
        terms = tuple(Term("x0", k.call, k.weight - t.alpha * d2[i] / (r0 + r1))
                      for i, k in enumerate(step.update.terms))  # fmt: skip
        return dataclasses.replace(step, update=dataclasses.replace(step.update, terms=terms))

    levels = [step.level for step in plan]
    return tuple(change(step, levels[max(0, i - 2) : i]) for i, step in enumerate(plan))


def test_third_order_sde_has_a_sign_wrong_there():
    asked = dict(solver_order=3, algorithm_type="sde-dpmsolver++", solver_type="heun")
    plans = {}
    for name in ("ours", "with their sign"):
        scheduler = in_float64(made("DPMSolverMultistepScheduler", "v", "trailing", 20, **asked))
        plan = make_plan("dpmpp_3m_sde", levels_of(scheduler), None)
        plan = plan if name == "ours" else with_their_sign(plan)
        plans[name] = largest(plan, scheduler, "v")
    assert plans["with their sign"] < TOLERANCE
    assert plans["ours"] > 1e-2


# ---- digits -----------------------------------------------------------------------------------
def test_third_order_deis_loses_its_digits_in_float32_there():
    """Its closed forms cancel for small steps; held in float64 the class agrees with ours."""
    found = []
    for wide in (False, True):
        scheduler = made("DEISMultistepScheduler", "v", "trailing", 50, solver_order=3)
        scheduler = in_float64(scheduler) if wide else scheduler
        plan = make_plan("deis", levels_of(scheduler), None)
        found.append(largest(plan, scheduler, "v"))
    assert found[0] > TOLERANCE
    assert found[1] < 1e-9


def test_zero_terminal_snr_is_patched_there_and_exact_here():
    """Theirs puts alpha_bar = 2^-24 (karras_sigma 4096) at the end; ours keeps alpha 0."""
    scheduler = made("EulerDiscreteScheduler", "v", "trailing", 10, rescale_betas_zero_snr=True)
    assert float(scheduler.sigmas[0]) == pytest.approx(4096.0, rel=1e-3)
    levels = NoiseSchedule.scaled_linear(prediction_type="v").zero_terminal_snr().levels(10)
    assert NoiseSchedule.scaled_linear(prediction_type="v").zero_terminal_snr().alpha[-1] == 0.0
    assert math.isfinite(levels[1].karras_sigma)


def test_unipc_bh1_is_nan_in_its_last_step_there():
    """To sigma 0 its B(h) is minus infinity, times a sum of 0; ours returns x0 as bh2 does."""
    for kind, finite in (("bh1", False), ("bh2", True)):
        scheduler = made("UniPCMultistepScheduler", "v", "trailing", 10, solver_type=kind)
        levels = levels_of(scheduler)
        _, end, _ = theirs(scheduler, "v")
        assert bool(torch.isfinite(end).all()) == finite
        last = make_plan(samplers.unipc_2(solver_type=kind), levels, None)[-1].update
        assert (last.a, [term.weight for term in last.terms]) == (0.0, [1.0])
