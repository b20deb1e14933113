"""DPM-Solver++: extrapolation of x0 in λ = ln(alpha/sigma) (arXiv 2211.01095).

paper ↔ name: h = λ_t - λ_s, ρ = h_prev/h, A = sigma_t/sigma_s, B = alpha_t·(1 - e^(-h)).
"""

from __future__ import annotations

import math
from itertools import pairwise

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.first_order import at_an_end, first_order_step
from diffusionlab.samplers.rule import Rule, choice
from diffusionlab.schedule import NoiseLevel

LOWER_ORDER_FINAL = choice(None, True, False, default=None)


def order_at(index: int, num_steps: int, order: int, lower_order_final: bool | None) -> int:
    """The order that step `index` can have: low at the start, and at the end if asked for.

    `lower_order_final=None` means: below 15 steps, where high order near the end is unstable.
    """
    wanted = min(order, index + 1)
    if lower_order_final or (lower_order_final is None and num_steps < 15):
        wanted = min(wanted, num_steps - index)
    return max(1, wanted)


def dpmpp_2m(
    levels: tuple[NoiseLevel, ...], schedule=None, lower_order_final: bool | None = None
) -> Plan:
    """Second order with one call per step: the line through the last two x0, in λ."""
    plan, steps = [], list(pairwise(levels))
    for i, (s, t) in enumerate(steps):
        low = order_at(i, len(steps), 2, lower_order_final) == 1
        if low or at_an_end(s, t) or levels[i - 1].alpha == 0.0:
            plan.append(first_order_step(s, t, i))
        else:
            plan.append(two_point_step(levels[i - 1], s, t, i))
    return tuple(plan)


def two_point_step(r: NoiseLevel, s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
    """The step from s to t with x0 of calls `call` at s and `call - 1` at the level r before."""
    h = math.log(s.karras_sigma / t.karras_sigma)
    rho = math.log(r.karras_sigma / s.karras_sigma) / h
    B = -t.alpha * math.expm1(-h)
    extra = B / (2.0 * rho)
    update = Update(t.sigma / s.sigma, (Term("x0", call, B + extra), Term("x0", call - 1, -extra)))
    return PlannedStep(s, t, (Stage(s),), update)


DPMPP_2M = Rule(
    "dpmpp_2m", dpmpp_2m, 2, 1, True, "DPM-Solver++, arXiv 2211.01095 Algorithm 2",
    synonyms=(
        "DPM++ 2M", "dpm++2m", "dpmpp2m", "k_dpmpp_2m", "DPMSolverMultistep", "dpmsolver++",
        "DPM++ 2M Karras",
    ),
    options={"lower_order_final": LOWER_ORDER_FINAL},
)  # fmt: skip
