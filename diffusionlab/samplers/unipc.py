"""UniPC: a predictor like DPM-Solver++ and a corrector that costs no call (arXiv 2302.04867).

paper ↔ name: λ = ln(alpha/sigma), h = λ_t - λ_s, A = sigma_t/sigma_s, B = alpha_t·(1 - e^(-h)),
r_k = (λ_k - λ_s)/h for earlier levels (negative), r = 1 for the level t itself.

The network is called at the *predicted* point, and its answer corrects that point afterwards. We
record the predicted point as the step's latent and fold the correction into the coefficients of
the next step: a = A still, and a step of order p uses p + 1 predictions.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.dpmpp import LOWER_ORDER_FINAL, order_at
from diffusionlab.samplers.first_order import at_an_end, first_order_step
from diffusionlab.samplers.rule import Rule, choice
from diffusionlab.schedule import NoiseLevel

Weights = dict[int, float]  # network call -> weight of its x0


def unipc(
    levels: tuple[NoiseLevel, ...],
    order: int,
    solver_type: str = "bh2",
    corrector: bool = True,
    lower_order_final: bool | None = None,
) -> Plan:
    """UniPC of any order with data prediction; without its corrector it is UniP."""
    plan: list[PlannedStep] = []
    steps = list(pairwise(levels))
    noisiest = 1 if levels[0].alpha == 0.0 else 0  # a call at alpha 0 gets no weight later
    last: tuple[int, Weights] | None = None  # order and x0 weights of the step before
    for i, (s, t) in enumerate(steps):
        if at_an_end(s, t):
            plan.append(first_order_step(s, t, i))
            last = None
            continue
        p = min(order_at(i, len(steps), order, lower_order_final), max(1, i + 1 - noisiest))
        predicted = unified_weights(levels, i, p, solver_type, with_end=False)
        folded = dict(predicted)
        if corrector and last is not None:
            corrected = unified_weights(levels, i - 1, last[0], solver_type, with_end=True)
            for call in corrected:
                change = corrected[call] - last[1].get(call, 0.0)
                folded[call] = folded.get(call, 0.0) + t.sigma / s.sigma * change
        last = (p, predicted)
        terms = tuple(Term("x0", call, folded[call]) for call in sorted(folded, reverse=True))
        plan.append(PlannedStep(s, t, (Stage(s),), Update(t.sigma / s.sigma, terms)))
    return tuple(plan)


def unified_weights(
    levels: tuple[NoiseLevel, ...], i: int, order: int, solver_type: str, with_end: bool
) -> Weights:
    """x0 weights of the step from level i to i + 1: UniP-p, or UniC-p if `with_end`.

    UniC also reads the call at i + 1, which lies one order further.
    """
    s, t = levels[i], levels[i + 1]
    h = math.log(s.karras_sigma / t.karras_sigma)
    calls = [i - k for k in range(1, order)] + ([i + 1] if with_end else [])
    places = [math.log(s.karras_sigma / levels[call].karras_sigma) / h for call in calls]
    scale = -h if solver_type == "bh1" else math.expm1(-h)
    weights = {i: -t.alpha * math.expm1(-h)}
    for call, place, rho in zip(calls, places, _rhos(places, h, scale), strict=True):
        weight = -t.alpha * scale * rho / place
        weights[call] = weight
        weights[i] -= weight
    return weights


def _rhos(places: list[float], h: float, scale: float) -> list[float]:
    """Solve Σ_k rho_k·r_k^(n-1) = n!·z·φ_(n+1)(z)/B(h), n = 1 … p, with z = -h and B `scale`.

    φ_1(z) = (e^z - 1)/z, φ_(n+1)(z) = (φ_n(z) - 1/n!)/z. A single unknown is set to 1/2, which
    keeps the order (arXiv 2302.04867 section 3).
    """
    if len(places) <= 1:
        return [0.5] * len(places)
    moments, phi, factorial = [], math.expm1(-h) / -h - 1.0, 1
    for n in range(1, len(places) + 1):
        moments.append(phi * factorial / scale)
        factorial *= n + 1
        phi = phi / -h - 1.0 / factorial
    matrix = [[place**n for place in places] for n in range(len(places))]
    return [float(rho) for rho in np.linalg.solve(matrix, moments)]


def unipc_1(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    solver_type: str = "bh2",
    corrector: bool = True,
    lower_order_final: bool | None = None,
) -> Plan:
    """UniPC with a first-order predictor; its corrector lifts the order to 2."""
    return unipc(levels, 1, solver_type, corrector, lower_order_final)


def unipc_2(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    solver_type: str = "bh2",
    corrector: bool = True,
    lower_order_final: bool | None = None,
) -> Plan:
    """UniPC with a second-order predictor; its corrector lifts the order to 3."""
    return unipc(levels, 2, solver_type, corrector, lower_order_final)


def unipc_3(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    solver_type: str = "bh2",
    corrector: bool = True,
    lower_order_final: bool | None = None,
) -> Plan:
    """UniPC with a third-order predictor; its corrector lifts the order to 4."""
    return unipc(levels, 3, solver_type, corrector, lower_order_final)


OPTIONS = {
    "solver_type": choice("bh1", "bh2", default="bh2"),
    "corrector": choice(True, False, default=True),
    "lower_order_final": LOWER_ORDER_FINAL,
}
SOURCE = "UniPC, arXiv 2302.04867, data prediction"
UNIPC_1 = Rule(
    "unipc_1", unipc_1, 2, 1, True, SOURCE, synonyms=("UniPC-1", "unipc1"), options=OPTIONS
)
UNIPC_2 = Rule(
    "unipc_2", unipc_2, 3, 1, True, SOURCE,
    synonyms=("UniPC-2", "UniPCMultistep", "unipc2"),
    options=OPTIONS,
)  # fmt: skip
UNIPC_3 = Rule(
    "unipc_3", unipc_3, 4, 1, True, SOURCE,
    synonyms=("UniPC-3", "UniPC", "k_unipc", "uni_pc"),
    options=OPTIONS,
)  # fmt: skip
