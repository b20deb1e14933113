"""Adams-Bashforth samplers: extrapolation of eps over the last few steps. LMS.

paper ↔ name: dx̂/dσ̂ = eps with x̂ = x/alpha and σ̂ = karras_sigma, so

    x_t = (alpha_t/alpha_s)·x + Σ e_k·eps_k,   e_k = alpha_t·∫_{σ̂_s}^{σ̂_t} l_k(τ) dτ

with l_k the Lagrange polynomials through the last σ̂. In the canonical form the call at the step's
own latent is read as x0: eps_0 = (x - alpha_s·x0_0)/sigma_s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.first_order import first_order_step
from diffusionlab.samplers.rule import Rule, choice
from diffusionlab.schedule import NoiseLevel


def lagrange_integrals(nodes: Sequence[float], low: float, high: float) -> list[float]:
    """The integral over [low, high] of each Lagrange polynomial through the nodes.

    Exact, in the coordinate (τ - low)/(high - low): absolute ones lose digits at 1000 steps.
    """
    places = [(node - low) / (high - low) for node in nodes]
    weights = []
    for j, place in enumerate(places):
        powers = [1.0]  # coefficients of 1, τ, τ², …
        for other in places[:j] + places[j + 1 :]:
            raised, kept = [0.0, *powers], [*powers, 0.0]
            powers = [
                (up - other * same) / (place - other) for up, same in zip(raised, kept, strict=True)
            ]
        weights.append((high - low) * sum(c / (n + 1) for n, c in enumerate(powers)))
    return weights


def extrapolated_step(s: NoiseLevel, t: NoiseLevel, call: int, e: Sequence[float]) -> PlannedStep:
    """The step with eps weights `e`, newest first, in canonical form."""
    terms = [Term("x0", call, -e[0] * s.alpha / s.sigma)]
    terms += [Term("eps", call - k, weight) for k, weight in enumerate(e) if k > 0]
    update = Update(t.alpha / s.alpha + e[0] / s.sigma, tuple(terms))
    return PlannedStep(s, t, (Stage(s),), update)


def lms(levels: tuple[NoiseLevel, ...], schedule=None, order: int = 4) -> Plan:
    """Linear multistep: the polynomial through the last `order` eps, integrated in karras_sigma."""
    plan = []
    for i, (s, t) in enumerate(pairwise(levels)):
        if s.alpha == 0.0:
            plan.append(first_order_step(s, t, i))
            continue
        used = [level.karras_sigma for level in levels[max(0, i + 1 - order) : i + 1][::-1]]
        finite = [node for node in used if node < math.inf]
        weights = lagrange_integrals(finite, s.karras_sigma, t.karras_sigma)
        plan.append(extrapolated_step(s, t, i, [t.alpha * weight for weight in weights]))
    return tuple(plan)


LMS = Rule(
    "lms", lms, 2, 1, True, "k-diffusion sample_lms; its Euler start limits the order to 2",
    synonyms=("LMS", "LMSDiscrete", "k_lms"),
    options={"order": choice(1, 2, 3, 4, default=4)},
)  # fmt: skip
