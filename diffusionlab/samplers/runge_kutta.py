"""Samplers that call the network twice per step: Heun.

paper ↔ name: σ̂ = karras_sigma, q = σ̂_t/σ̂_s, A = sigma_t/sigma_s, B = alpha_t·(1 - q).
"""

from __future__ import annotations

from itertools import pairwise

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.first_order import at_an_end, first_order_step, first_order_update
from diffusionlab.samplers.rule import Rule
from diffusionlab.schedule import NoiseLevel


def heun(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Euler to t, a second call there, then the mean of both slopes in karras_sigma."""
    plan, call = [], 0
    for s, t in pairwise(levels):
        step = first_order_step(s, t, call) if at_an_end(s, t) else heun_step(s, t, call)
        plan.append(step)
        call += step.network_calls
    return tuple(plan)


def heun_step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
    """One step of EDM's Algorithm 1; its calls are `call` at s and `call + 1` at t."""
    q = t.karras_sigma / s.karras_sigma
    A, B = t.sigma / s.sigma, t.alpha * (1.0 - q)
    second = B / (2.0 * q)
    update = Update(A, (Term("x0", call, B - second), Term("x0", call + 1, second)))
    return PlannedStep(s, t, (Stage(s), Stage(t, first_order_update(s, t, call))), update)


HEUN = Rule(
    "heun", heun, 2, 2, True, "EDM, arXiv 2206.00364 Algorithm 1",
    synonyms=("Heun", "HeunDiscrete", "k_heun", "edm"),
)  # fmt: skip
