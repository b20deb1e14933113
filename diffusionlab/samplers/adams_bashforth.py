"""Adams-Bashforth samplers: extrapolation of eps over the last few steps. LMS and DEIS.

paper ↔ name: dx̂/dσ̂ = eps with x̂ = x/alpha and σ̂ = karras_sigma, so

    x_t = (alpha_t/alpha_s)·x + Σ e_k·eps_k,   e_k = alpha_t·∫_{σ̂_s}^{σ̂_t} l_k(τ) dτ

with l_k the Lagrange polynomials through the last σ̂ (LMS), or in ln τ through the last ln σ̂ (DEIS).
In the canonical form the call at the step's own latent is read as x0:
eps_0 = (x - alpha_s·x0_0)/sigma_s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.dpmpp import LOWER_ORDER_FINAL, order_at
from diffusionlab.samplers.first_order import at_an_end, first_order_step
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


def extrapolated_step(
    s: NoiseLevel, t: NoiseLevel, calls: Sequence[int], e: Sequence[float]
) -> PlannedStep:
    """The step with eps weights `e` of these calls, newest first, in canonical form."""
    terms = [Term("x0", calls[0], -e[0] * s.alpha / s.sigma)]
    terms += [Term("eps", call, weight) for call, weight in zip(calls[1:], e[1:], strict=True)]
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
        calls = range(i, i - len(finite), -1)
        plan.append(extrapolated_step(s, t, calls, [t.alpha * weight for weight in weights]))
    return tuple(plan)


def deis(
    levels: tuple[NoiseLevel, ...],
    schedule=None,
    order: int = 3,
    lower_order_final: bool | None = None,
) -> Plan:
    """Diffusion exponential integrator: the polynomial in ln karras_sigma through the last eps."""
    plan, steps = [], list(pairwise(levels))
    for i, (s, t) in enumerate(steps):
        if at_an_end(s, t):
            plan.append(first_order_step(s, t, i))
            continue
        wanted = order_at(i, len(steps), order, lower_order_final)
        used = [level for level in levels[i + 1 - wanted : i + 1][::-1] if level.alpha]
        calls = range(i, i - len(used), -1)
        plan.append(extrapolated_step(s, t, calls, exponential_weights(used, t)))
    return tuple(plan)


def exponential_weights(used: Sequence[NoiseLevel], t: NoiseLevel) -> list[float]:
    """The eps weights of DEIS, newest level first (arXiv 2204.13902, tAB-DEIS).

    With u = (λ - λ_s)/h: e_k = -alpha_t·σ̂_s·h·∫_0^1 l_k(u)·e^(-h·u) du, by a Gauss rule that is
    exact to rounding (the closed forms lose digits for small h).
    """
    s = used[0]
    h = math.log(s.karras_sigma / t.karras_sigma)
    places = [math.log(s.karras_sigma / level.karras_sigma) / h for level in used]
    nodes, shares = _gauss_rule()
    u, weights = (nodes + 1.0) / 2.0, []
    for j, place in enumerate(places):
        values = np.exp(-h * u) * shares / 2.0
        for other in places[:j] + places[j + 1 :]:
            values = values * (u - other) / (place - other)
        weights.append(-t.alpha * s.karras_sigma * h * float(values.sum()))
    return weights


@cache
def _gauss_rule() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(32)


LMS = Rule(
    "lms", lms, 2, 1, True, "k-diffusion sample_lms; its Euler start limits the order to 2",
    synonyms=("LMS", "LMSDiscrete", "k_lms"),
    options={"order": choice(1, 2, 3, 4, default=4)},
)  # fmt: skip
DEIS = Rule(
    "deis", deis, 2, 1, True, "tAB-DEIS, arXiv 2204.13902; its Euler start limits the order to 2",
    synonyms=("DEIS", "DEISMultistep"),
    options={"order": choice(1, 2, 3, default=3), "lower_order_final": LOWER_ORDER_FINAL},
)  # fmt: skip
