"""DPM-Solver++ with one call per step: extrapolation of x0 in λ = ln(alpha/sigma), noise optional.

paper ↔ name: h = λ_t - λ_s, r_k = h_k/h for the k-th earlier step, A = sigma_t/sigma_s. With noise
(eta > 0) the step is

    x_t = A·e^(-eta·h)·x_s + β·x0_0 + … + sigma_t·sqrt(1 - e^(-2·eta·h))·noise
    β = alpha_t·(1 - e^(-H)),  H = (1 + eta)·h

and the dots are weights of the differences d_k = (x0_k - x0_(k+1))/r_k: second order puts
β/2 ("midpoint") or alpha_t·φ2 ("heun") on d_0; third order alpha_t·(φ2·D1 - φ3·D2) with
D1 = d_0 + (d_0 - d_1)·r_0/(r_0 + r_1) and D2 = κ·(d_0 - d_1)/(r_0 + r_1),
φ2 = 1 - (1 - e^(-H))/H, φ3 = φ2/H - 1/2 (arXiv 2211.01095).
"""

from __future__ import annotations

import math
from itertools import pairwise

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.first_order import at_an_end, first_order_step
from diffusionlab.samplers.rule import Rule, between, choice
from diffusionlab.samplers.runge_kutta import dpmpp_2s_step
from diffusionlab.schedule import NoiseLevel, NoiseSchedule

LOWER_ORDER_FINAL = choice(None, True, False, default=None)
SOLVER_TYPE = choice("midpoint", "heun", default="midpoint")


def order_at(index: int, num_steps: int, order: int, lower_order_final: bool | None) -> int:
    """The order that step `index` can have: low at the start, and at the end if asked for."""
    return min(index + 1, order_left(num_steps - index, num_steps, order, lower_order_final))


def order_left(left: int, num_steps: int, order: int, lower_order_final: bool | None) -> int:
    """The order allowed with `left` steps to go, this one included.

    `lower_order_final=None` means: below 15 steps, where high order near the end is unstable.
    """
    lowered = lower_order_final or (lower_order_final is None and num_steps < 15)
    return min(order, left) if lowered else order


# ---- one step ---------------------------------------------------------------------------------
def multistep(
    used: tuple[NoiseLevel, ...],
    calls: tuple[int, ...],
    t: NoiseLevel,
    eta: float = 0.0,
    solver_type: str = "midpoint",
    kappa: float = 1.0,
) -> PlannedStep:
    """The step to t from the levels `used`, newest first, one to three; `calls` are theirs."""
    s = used[0]
    logs = [math.log(level.karras_sigma) for level in (t, *used)]
    h, *earlier = [high - low for low, high in pairwise(logs)]
    H, ratios = (1.0 + eta) * h, [each / h for each in earlier]
    whole = -t.alpha * math.expm1(-H)
    weights = [whole] + [0.0] * len(ratios)
    for k, slope in enumerate(_slopes(ratios, H, solver_type, kappa)):
        weights[k] += t.alpha * slope / ratios[k]
        weights[k + 1] -= t.alpha * slope / ratios[k]
    terms = tuple(Term("x0", call, weight) for call, weight in zip(calls, weights, strict=True))
    a, c = t.sigma / s.sigma * math.exp(-eta * h), t.sigma * math.sqrt(-math.expm1(-2 * eta * h))
    noise = ((0, c),) if c else ()
    return PlannedStep(s, t, (Stage(s),), Update(a, terms, noise), ((s, t),) if c else ())


def _slopes(ratios: list[float], H: float, solver_type: str, kappa: float) -> list[float]:
    """The weight of each difference d_k, without alpha_t."""
    part = -math.expm1(-H)
    phi2 = 1.0 - part / H
    if len(ratios) == 2:
        r0, r1 = ratios
        bend = (phi2 * r0 - kappa * (phi2 / H - 0.5)) / (r0 + r1)  # weight of d_0 - d_1
        return [phi2 + bend, -bend]
    return [part / 2.0 if solver_type == "midpoint" else phi2][: len(ratios)]


# ---- whole plans ------------------------------------------------------------------------------
def multistep_plan(
    levels: tuple[NoiseLevel, ...],
    order: int,
    lower_order_final: bool | None,
    eta: float = 0.0,
    solver_type: str = "midpoint",
    kappa: float = 1.0,
    start=None,
) -> Plan:
    """First order at both ends, then as many earlier calls as the order asks and there are.

    A call at alpha 0 is no neighbour in λ. `start(s, t, call)` plans the first step that has no
    earlier call to use, unless its order is lowered to 1.
    """
    plan: list[PlannedStep] = []
    known: list[tuple[NoiseLevel, int]] = []  # usable levels with their calls, newest first
    steps, call = list(pairwise(levels)), 0
    for i, (s, t) in enumerate(steps):
        wanted = order_left(len(steps) - i, len(steps), order, lower_order_final)
        known = [(s, call), *known] if s.alpha else []
        if at_an_end(s, t):
            plan.append(first_order_step(s, t, call, eta))
        elif start and len(known) == 1 and wanted > 1:
            plan.append(start(s, t, call))
        else:
            used, calls = zip(*known[:wanted], strict=True)
            plan.append(multistep(used, calls, t, eta, solver_type, kappa))
        call += plan[-1].network_calls
    return tuple(plan)


def dpmpp_2m(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    solver_type: str = "midpoint",
    lower_order_final: bool | None = None,
) -> Plan:
    """Second order with one call per step: the line through the last two x0, in λ."""
    return multistep_plan(levels, 2, lower_order_final, 0.0, solver_type)


def dpmpp_2m_sde(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    eta: float = 1.0,
    solver_type: str = "midpoint",
    lower_order_final: bool | None = None,
) -> Plan:
    """DPM++ 2M for the reverse SDE; eta 0 is `dpmpp_2m`."""
    return multistep_plan(levels, 2, lower_order_final, eta, solver_type)


def dpmpp_3m_shipped(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    solver_type: str = "midpoint",
    lower_order_final: bool | None = None,
) -> Plan:
    """Third-order DPM++ as common code has it: κ = 1 halves the curvature, so it is second order.

    `solver_type` is that of its second step.
    """
    return multistep_plan(levels, 3, lower_order_final, 0.0, solver_type, kappa=1.0)


def dpmpp_3m_corrected(
    levels: tuple[NoiseLevel, ...],
    schedule: NoiseSchedule | None = None,
    lower_order_final: bool | None = None,
) -> Plan:
    """Third-order DPM++ with κ = 2; its first step is a two-call DPM++ 2S step."""

    def start(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
        return dpmpp_2s_step(s, t, call, schedule)

    return multistep_plan(levels, 3, lower_order_final, kappa=2.0, start=start)


def dpmpp_3m_sde(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    eta: float = 1.0,
    lower_order_final: bool | None = None,
) -> Plan:
    """DPM++ 3M for the reverse SDE, κ = 1 as in k-diffusion; eta 0 is `dpmpp_3m_shipped`."""
    return multistep_plan(levels, 3, lower_order_final, eta, "heun", kappa=1.0)


DPMPP_2M = Rule(
    "dpmpp_2m", dpmpp_2m, 2, 1, True, "DPM-Solver++, arXiv 2211.01095 Algorithm 2",
    synonyms=("DPM++ 2M", "dpm++2m", "k_dpmpp_2m", "DPMSolverMultistep", "dpmsolver++"),
    options={"solver_type": SOLVER_TYPE, "lower_order_final": LOWER_ORDER_FINAL},
)  # fmt: skip
DPMPP_2M_SDE = Rule(
    "dpmpp_2m_sde", dpmpp_2m_sde, 2, 1, False, "SDE-DPM-Solver++(2M), arXiv 2211.01095",
    synonyms=("DPM++ 2M SDE", "k_dpmpp_2m_sde", "sde-dpmsolver++"),
    options={
        "eta": between(0, 1, default=1.0),
        "solver_type": SOLVER_TYPE,
        "lower_order_final": LOWER_ORDER_FINAL,
    },
)  # fmt: skip
DPMPP_3M_SHIPPED = Rule(
    "dpmpp_3m_shipped", dpmpp_3m_shipped, 2, 1, True,
    "the authors' dpm_solver_pytorch.py, multistep third update; order 2, not 3",
    synonyms=("DPM++ 3M shipped",),
    options={"solver_type": SOLVER_TYPE, "lower_order_final": LOWER_ORDER_FINAL},
)  # fmt: skip
DPMPP_3M_CORRECTED = Rule(
    "dpmpp_3m_corrected", dpmpp_3m_corrected, 3, 1, True,
    "DPM-Solver++ 3M with the lost factor 2 put back, first step by 2S",
    synonyms=("DPM++ 3M corrected",),
    options={"lower_order_final": LOWER_ORDER_FINAL},
    extra_calls=1,
)  # fmt: skip
DPMPP_3M_SDE = Rule(
    "dpmpp_3m_sde", dpmpp_3m_sde, 2, 1, False, "k-diffusion sample_dpmpp_3m_sde",
    synonyms=("DPM++ 3M SDE", "k_dpmpp_3m_sde"),
    options={"eta": between(0, 1, default=1.0), "lower_order_final": LOWER_ORDER_FINAL},
)  # fmt: skip
