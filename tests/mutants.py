"""Planted mistakes in sampler rules, one table: `MUTANTS`. tests/test_mutants.py catches them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from worlds import SD, no_lowering

from diffusionlab.plan import Stage, Term, Update
from diffusionlab.samplers import Sampler, make_plan
from diffusionlab.samplers.adams_bashforth import extrapolated_step
from diffusionlab.samplers.dpmpp import multistep
from diffusionlab.samplers.unipc import unified_weights


# ---- how a plan is changed ----------------------------------------------------------------------
def with_terms(step, terms):
    return dataclasses.replace(step, update=dataclasses.replace(step.update, terms=tuple(terms)))


def with_noise(step, noise):
    return dataclasses.replace(step, update=dataclasses.replace(step.update, noise=tuple(noise)))


def moved(step, change):
    """The weight of every x0 but the newest becomes change(weight); the newest keeps the sum."""
    first, *others = step.update.terms
    if not others:
        return step
    new = [dataclasses.replace(term, weight=change(term.weight)) for term in others]
    kept = first.weight + sum(t.weight for t in others) - sum(t.weight for t in new)
    return with_terms(step, [dataclasses.replace(first, weight=kept), *new])


def second_stage(step, level, update=None):
    first, *stages = step.stages
    if not stages:
        return step
    changed = Stage(level, update or stages[0].update)
    return dataclasses.replace(step, stages=(first, changed, *stages[1:]))


def each(change):
    """A mutant that changes every step alone."""
    return lambda plan: tuple(change(step) for step in plan)


# ---- mistakes -----------------------------------------------------------------------------------
def rho_inverted(plan):
    """h/h_prev for h_prev/h."""
    steps = [plan[0]]
    for before, step in pairwise(plan):
        logs = [math.log(level.karras_sigma) for level in (before.level, step.level)]
        end = step.next_level.karras_sigma
        rho = (logs[0] - logs[1]) / (logs[1] - math.log(end)) if end else 1.0
        steps.append(moved(step, lambda weight, rho=rho: weight * rho * rho))
    return tuple(steps)


def h_for_one_minus_q(plan):
    """h written for 1 - e^(-h) in one step."""
    step = plan[3]
    h = math.log(step.level.karras_sigma / step.next_level.karras_sigma)
    terms = [dataclasses.replace(t, weight=t.weight * h / -math.expm1(-h))
             for t in step.update.terms]  # fmt: skip
    return (*plan[:3], with_terms(step, terms), *plan[4:])


def previous_level_told(plan):
    told = [dataclasses.replace(step, stages=(Stage(before.level),))
            for before, step in pairwise(plan)]  # fmt: skip
    return (plan[0], *told)


def previous_timestep_told(plan):
    told = [dataclasses.replace(step, stages=(
        Stage(dataclasses.replace(step.level, timestep=before.level.timestep)),
    )) for before, step in pairwise(plan)]  # fmt: skip
    return (plan[0], *told)


def stage_told_its_step(step):
    stage = step.stages[-1]
    return second_stage(
        step, dataclasses.replace(stage.level, timestep=step.level.timestep), stage.update
    )


def second_slope_only(step):
    whole = sum(term.weight for term in step.update.terms)
    return with_terms(step, [dataclasses.replace(step.update.terms[-1], weight=whole)])


def euler_point_kept(step):
    update = step.stages[-1].update if len(step.stages) > 1 else step.update
    return dataclasses.replace(step, update=update)


def one_level_off(plan):
    return tuple(
        dataclasses.replace(step, update=after.update) for step, after in pairwise(plan)
    )  # the last step is lost, too


def equal_step_weights(plan):
    """Adams-Bashforth weights of equal steps, (3, -1)/2, on any grid."""
    steps = [plan[0]]
    for i, step in enumerate(plan[1:], 1):
        s, t = step.level, step.next_level
        change = t.sigma - t.alpha * s.karras_sigma
        steps.append(extrapolated_step(s, t, [i, i - 1], [1.5 * change, -0.5 * change]))
    return tuple(steps)


def arithmetic_middle(step):
    """DPM2's stage halfway in karras_sigma, with the weights of the middle in its logarithm."""
    s, t = step.level, step.next_level
    sigma = (s.karras_sigma + t.karras_sigma) / 2
    middle = SD.level_at(karras_sigma=sigma)
    q = sigma / s.karras_sigma
    euler = Update(middle.sigma / s.sigma, (Term("x0", step.update.terms[0].call,
                                                middle.alpha * (1 - q)),))  # fmt: skip
    return second_stage(step, middle, euler)


def corrector_forgets_its_end(plan):
    """UniPC whose corrector's weights are halved."""
    levels = [step.level for step in plan] + [plan[-1].next_level]
    steps = list(plan[:1])
    for i, step in enumerate(plan[1:], 1):
        predicted = unified_weights(levels, i, min(2, i + 1), "bh2", with_end=False)
        terms = []
        for term in step.update.terms:
            plain = predicted.get(term.call, 0.0)
            terms.append(dataclasses.replace(term, weight=(term.weight + plain) / 2))
        steps.append(with_terms(step, terms))
    return tuple(steps)


def third_order_sign(plan):
    """3M-SDE with -1/2 for +1/2 in the weight of D2, as in diffusers 0.42."""
    steps = list(plan[:2])
    logs = [math.log(step.level.karras_sigma) for step in plan]
    for i, step in enumerate(plan[2:], 2):
        h = logs[i] - math.log(step.next_level.karras_sigma)
        r0, r1 = (logs[i - 1] - logs[i]) / h, (logs[i - 2] - logs[i - 1]) / h
        change = -step.next_level.alpha / (r0 + r1)
        more = (change / r0, -change / r0 - change / r1, change / r1)
        steps.append(with_terms(step, [
            dataclasses.replace(term, weight=term.weight + extra)
            for term, extra in zip(step.update.terms, more, strict=True)
        ]))  # fmt: skip
    return tuple(steps)


def eta_forgotten(plan):
    """2M-SDE whose extrapolation has B = alpha_t·(1 - e^(-h)) for β = alpha_t·(1 - e^(-2h))."""
    steps = []
    for step in plan:
        q = step.next_level.karras_sigma / step.level.karras_sigma
        steps.append(moved(step, lambda weight, q=q: weight / (1 + q)))
    return tuple(steps)


def its_own_noise(step):
    """The step of DPM++ SDE draws anew instead of going on with the stage's path."""
    c = math.hypot(*(weight for _, weight in step.update.noise))
    return with_noise(step, [(1, c)])


def told_before_churn(step):
    """The network is told the level before the noise was added."""
    first, *others = step.stages
    return dataclasses.replace(step, stages=(Stage(step.level, first.update), *others))


def noise_by_q(step):
    """sqrt(1 - q) for sqrt(1 - q²)."""
    q = step.next_level.karras_sigma / step.level.karras_sigma
    return with_noise(step, [(draw, w / math.sqrt(1 + q)) for draw, w in step.update.noise])


def middle_of_the_whole_step(step):
    """DPM++ 2S ancestral with its stage halfway to t, not halfway to the lower level."""
    return second_stage(step, *middle_of(step))


def middle_of(step):
    s, t = step.level, step.next_level
    level = SD.level_at(karras_sigma=math.sqrt(s.karras_sigma * t.karras_sigma))
    weight = level.alpha * (1 - level.karras_sigma / s.karras_sigma)
    return level, Update(
        level.sigma / s.sigma, (Term("x0", step.update.terms[0].call - 1, weight),)
    )


def three_m_without_d1(plan):
    """3M whose first difference is not bent: D1 = d_0."""
    steps = list(plan[:2])
    levels = [step.level for step in plan]
    for i, step in enumerate(plan[2:], 2):
        used = tuple(levels[i - k] for k in range(2))
        flat = multistep(used, (step.update.terms[0].call, step.update.terms[1].call),
                         step.next_level, solver_type="heun")  # fmt: skip
        steps.append(dataclasses.replace(step, update=flat.update))
    return tuple(steps)


@dataclass(frozen=True)
class Mutant:
    """A rule, what is done to its plan, the check that catches it, and the window of that check."""

    sampler: Sampler
    change: Callable
    caught_by: str
    window: tuple[float, float] = (1.8, 2.4)
    case: str = ""


TWO_M, HEUN = no_lowering(Sampler("dpmpp_2m")), Sampler("heun")
WEAK = (1.7, 2.4)
MUTANTS = {
    "2M, rho inverted": Mutant(TWO_M, rho_inverted, "pinned", case="dpmpp_2m-midpoint-20"),
    "2M, half forgotten": Mutant(TWO_M, each(lambda s: moved(s, lambda w: 2 * w)), "order"),
    "2M, sign flipped": Mutant(TWO_M, each(lambda s: moved(s, lambda w: -w)), "order"),
    "2M, h for 1 - e^-h": Mutant(TWO_M, h_for_one_minus_q, "invariants"),
    "2M, previous level told to the network": Mutant(TWO_M, previous_level_told, "invariants"),
    "2M, previous timestep told to the network": Mutant(TWO_M, previous_timestep_told, "told"),
    "DPM2, the stage told the timestep of its step": Mutant(
        Sampler("dpm2"), each(stage_told_its_step), "told"
    ),
    "Heun, second call at the old level": Mutant(
        HEUN, each(lambda s: second_stage(s, s.level)), "invariants"
    ),
    "Heun, second call at the old level and point": Mutant(
        HEUN, each(lambda s: second_stage(s, s.level, Update())), "order"
    ),
    "Heun, goes on from the Euler point": Mutant(HEUN, each(euler_point_kept), "order"),
    "Heun, second slope only": Mutant(HEUN, each(second_slope_only), "order"),
    "Euler, one level off": Mutant(Sampler("euler"), one_level_off, "invariants", (0.85, 1.25)),
    "LMS, equal-step weights": Mutant(
        Sampler("lms", {"order": 2}), equal_step_weights, "order", (1.8, 2.5)
    ),
    "DPM2, arithmetic middle": Mutant(Sampler("dpm2"), each(arithmetic_middle), "pinned",
                                      case="dpm2--20"),
    "DPM3, second stage's weight halved": Mutant(
        Sampler("dpm3"), each(lambda s: moved(s, lambda w: w / 2)), "order", (2.7, 3.5)
    ),
    "3M, the lost factor 2": Mutant(
        no_lowering(Sampler("dpmpp_3m_corrected")),
        lambda plan: make_plan(no_lowering(Sampler("dpmpp_3m_shipped")),
                               tuple(s.level for s in plan) + (plan[-1].next_level,), None),
        "order", (2.7, 3.6),
    ),
    "3M, first difference not bent": Mutant(
        no_lowering(Sampler("dpmpp_3m_corrected")), three_m_without_d1, "order", (2.7, 3.6)
    ),
    "UniPC, half a correction": Mutant(
        no_lowering(Sampler("unipc_2")), corrector_forgets_its_end, "order", (2.5, 3.6)
    ),
    "ancestral, sqrt(1 - q) for sqrt(1 - q²)": Mutant(
        Sampler("euler_ancestral"), each(noise_by_q), "invariants", (0.7, 1.4)
    ),
    "2S ancestral, middle of the whole step": Mutant(
        Sampler("dpmpp_2s_ancestral"), each(middle_of_the_whole_step), "weak", WEAK
    ),
    "SDE, two independent noises": Mutant(Sampler("dpmpp_sde"), each(its_own_noise), "weak", WEAK),
    "2M SDE, eta forgotten in the slope": Mutant(
        no_lowering(Sampler("dpmpp_2m_sde")), eta_forgotten, "weak", WEAK
    ),
    "3M SDE, sign of a half": Mutant(
        no_lowering(Sampler("dpmpp_3m_sde")), third_order_sign, "weak", WEAK
    ),
    "churn, the network is told the level before": Mutant(
        Sampler("heun_churn"), each(told_before_churn), "invariants", WEAK
    ),
}  # fmt: skip
