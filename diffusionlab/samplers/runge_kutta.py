"""Deterministic samplers with several calls per step: Heun (two clocks), DPM2, DPM++ 2S, DPM3.

paper ↔ name: σ̂ = karras_sigma, q = σ̂_t/σ̂_s, h = -ln q, A = sigma_t/sigma_s, B = alpha_t·(1 - q).
A stage between s and t lies at σ̂_s·q^r and is reached by an Euler step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.first_order import at_an_end, first_order_step, first_order_update
from diffusionlab.samplers.rule import Rule
from diffusionlab.samplers.stage_levels import flow_time, level_with
from diffusionlab.schedule import NoiseLevel, NoiseSchedule


def one_by_one(
    levels: tuple[NoiseLevel, ...],
    step: Callable[[NoiseLevel, NoiseLevel, int], PlannedStep],
    first_order: Callable[[NoiseLevel, NoiseLevel, int], PlannedStep] = first_order_step,
) -> Plan:
    """Steps that remember nothing: `step(s, t, first call)`, and first order at the two ends."""
    plan, call = [], 0
    for s, t in pairwise(levels):
        plan.append((first_order if at_an_end(s, t) else step)(s, t, call))
        call += plan[-1].network_calls
    return tuple(plan)


# ---- Heun: the mean of two slopes -----------------------------------------------------------
def heun(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Euler to t, a second call there, then the mean of both slopes in karras_sigma."""
    return one_by_one(levels, heun_step)


def heun_step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
    """One step of EDM's Algorithm 1; its calls are `call` at s and `call + 1` at t."""
    return _mean_of_slopes(s, t, call, t.karras_sigma / s.karras_sigma)


def heun_flow(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Heun's method in flow time sigma/(alpha + sigma), whose slope is eps - x0."""

    def first_order(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
        return heun_flow_step(s, t, call) if t.sigma else first_order_step(s, t, call)

    return one_by_one(levels, heun_flow_step, first_order)


def heun_flow_step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
    """The mean of eps - x0 at s and at t; regular at alpha_s = 0, where flow time is 1."""
    return _mean_of_slopes(s, t, call, flow_time(t.karras_sigma) / flow_time(s.karras_sigma))


def _mean_of_slopes(s: NoiseLevel, t: NoiseLevel, call: int, ratio: float) -> PlannedStep:
    """`ratio` is that of the times, in which x - time·slope = x0."""
    whole = t.alpha - t.sigma * s.alpha / s.sigma
    second = whole / (2.0 * ratio)
    terms = (Term("x0", call, whole - second), Term("x0", call + 1, second))
    stages = (Stage(s), Stage(t, first_order_update(s, t, call)))
    return PlannedStep(s, t, stages, Update(t.sigma / s.sigma, terms))


# ---- midpoints in λ ---------------------------------------------------------------------------
def dpm2(levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None) -> Plan:
    """DPM-Solver-2: eps at the midpoint in ln karras_sigma carries the whole step."""

    def step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
        root = math.sqrt(t.karras_sigma / s.karras_sigma)
        return midpoint_step(s, t, call, schedule, root, 1.0 / root)

    return one_by_one(levels, step)


def dpmpp_2s(levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None) -> Plan:
    """DPM-Solver++(2S): x0 at the midpoint in ln karras_sigma carries the whole step."""
    return one_by_one(levels, lambda s, t, call: dpmpp_2s_step(s, t, call, schedule))


def dpmpp_2s_step(
    s: NoiseLevel, t: NoiseLevel, call: int, schedule: NoiseSchedule | None
) -> PlannedStep:
    """One step of DPM-Solver++(2S) with r = 1/2."""
    return midpoint_step(s, t, call, schedule, math.sqrt(t.karras_sigma / s.karras_sigma), 1.0)


def midpoint_step(
    s: NoiseLevel,
    t: NoiseLevel,
    call: int,
    schedule: NoiseSchedule | None,
    root: float,
    share: float,
    eta: float = 0.0,
) -> PlannedStep:
    """A call at s, one at karras_sigma_s·`root` by Euler, which gets `share` of the x0 weight.

    The whole weight, `a` and the noise are those of the first-order step with this eta.
    """
    whole = first_order_update(s, t, call, eta)
    weight = whole.terms[0].weight
    terms = (Term("x0", call, weight * (1.0 - share)), Term("x0", call + 1, weight * share))
    m = level_with(root * s.karras_sigma, s, t, schedule)
    return PlannedStep(
        s,
        t,
        (Stage(s), Stage(m, first_order_update(s, m, call))),
        Update(whole.a, terms[1:] if share == 1.0 else terms, whole.noise),
        ((s, t),) if whole.noise else (),
    )


# ---- three calls ------------------------------------------------------------------------------
def dpm3(levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None) -> Plan:
    """DPM-Solver-3: two stages, at a third and at two thirds of the step in ln karras_sigma."""
    return one_by_one(levels, lambda s, t, call: dpm3_step(s, t, call, schedule))


def dpm3_step(
    s: NoiseLevel, t: NoiseLevel, call: int, schedule: NoiseSchedule | None
) -> PlannedStep:
    """Exponential Runge-Kutta in eps, r1 = 1/3 and r2 = 2/3, written in the x0 of its stages.

    With e_k the reading at stage k: e_1 - e_0 = (x0_0 - x0_1)/σ̂_1 =: d and
    e_2 - e_0 = (x0_0 - x0_2)/σ̂_2 - bend·d, where `bend` is stage 2's weight of d.
    """
    h = math.log(s.karras_sigma / t.karras_sigma)
    one, two = (
        level_with(s.karras_sigma * math.exp(-r * h), s, t, schedule) for r in (1 / 3, 2 / 3)
    )
    bend = 2.0 * (math.expm1(2 * h / 3) / (2 * h / 3) - 1.0)
    last = 1.5 * (math.expm1(h) / h - 1.0)
    changes = (Term("x0", call + 1, two.sigma * bend / one.karras_sigma),)
    first, second = first_order_update(s, one, call), _changed(s, two, call, changes)
    changes = (
        Term("x0", call + 1, -t.sigma * last * bend / one.karras_sigma),
        Term("x0", call + 2, t.sigma * last / two.karras_sigma),
    )
    stages = (Stage(s), Stage(one, first), Stage(two, second))
    return PlannedStep(s, t, stages, _changed(s, t, call, changes))


def _changed(s: NoiseLevel, t: NoiseLevel, call: int, changes: tuple[Term, ...]) -> Update:
    """The Euler step from s to t, some of its weight moved to later calls."""
    euler = first_order_update(s, t, call)
    kept = euler.terms[0].weight - sum(term.weight for term in changes)
    return Update(euler.a, (Term("x0", call, kept), *changes))


HEUN = Rule(
    "heun", heun, 2, 2, True, "EDM, arXiv 2206.00364 Algorithm 1",
    synonyms=("Heun", "HeunDiscrete", "k_heun", "edm"),
)  # fmt: skip
HEUN_FLOW = Rule(
    "heun_flow", heun_flow, 2, 2, True, "Heun's method on rectified flow, arXiv 2209.03003",
    synonyms=("FlowMatchHeunDiscrete", "flow heun"),
)  # fmt: skip
DPM2 = Rule(
    "dpm2", dpm2, 2, 2, True, "DPM-Solver-2, arXiv 2206.00927 Algorithm 1",
    synonyms=("DPM2", "dpm_2", "KDPM2Discrete", "k_dpm_2", "DPM-Solver-2"),
)  # fmt: skip
DPM3 = Rule(
    "dpm3", dpm3, 3, 3, True, "DPM-Solver-3, arXiv 2206.00927 Algorithm 2",
    synonyms=("DPM3", "dpm_3", "DPM-Solver-3"),
)  # fmt: skip
DPMPP_2S = Rule(
    "dpmpp_2s", dpmpp_2s, 2, 2, True, "DPM-Solver++(2S), arXiv 2211.01095 Algorithm 1",
    synonyms=("DPM++ 2S", "DPMSolverSinglestep", "k_dpmpp_2s"),
)  # fmt: skip
