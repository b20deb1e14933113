"""Samplers that use one prediction per step: DDIM, DDPM, Euler, Euler ancestral.

paper ↔ name: a step goes from level s to level t; σ̂ = karras_sigma = sigma/alpha; q = σ̂_t/σ̂_s.
Assuming that the present x0 stays right until t, the step is

    x_t = a·x_s + (alpha_t - a·alpha_s)·x0 + c·noise
    c = eta·sigma_t·sqrt(1 - q²),  a = sqrt(sigma_t² - c²)/sigma_s

which is DDIM for every eta (arXiv 2010.02502 Eq. 12 and 16), Euler in σ̂ at eta 0, and the DDPM
posterior (arXiv 2006.11239 Eq. 6-7) at eta 1. To sigma 0 it returns x0; from alpha 0, q is 0.
"""

from __future__ import annotations

import math
from itertools import pairwise

from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.rule import Rule, between
from diffusionlab.schedule import NoiseLevel


def first_order_update(s: NoiseLevel, t: NoiseLevel, call: int, eta: float = 0.0) -> Update:
    """The step from s to t with one prediction, `call`, and with draw 0 if eta > 0."""
    q = t.karras_sigma / s.karras_sigma
    kept = (1.0 - eta) * (1.0 + eta) + (eta * q) ** 2  # 1 - (c/sigma_t)², without cancellation
    a = t.sigma * math.sqrt(kept) / s.sigma
    c = eta * t.sigma * math.sqrt((1.0 - q) * (1.0 + q))
    return Update(a, (Term("x0", call, t.alpha - a * s.alpha),), ((0, c),) if c else ())


def first_order_step(s: NoiseLevel, t: NoiseLevel, call: int, eta: float = 0.0) -> PlannedStep:
    """One call at s, then `first_order_update`."""
    update = first_order_update(s, t, call, eta)
    return PlannedStep(s, t, (Stage(s),), update, ((s, t),) if update.noise else ())


def at_an_end(s: NoiseLevel, t: NoiseLevel) -> bool:
    """Whether ln(alpha/sigma) is infinite at s or t: every solver is first order there."""
    return t.sigma == 0.0 or s.alpha == 0.0


def ddim(levels: tuple[NoiseLevel, ...], schedule=None, eta: float = 0.0) -> Plan:
    """Denoising diffusion implicit models; eta 0 is deterministic, eta 1 is DDPM."""
    return tuple(first_order_step(s, t, i, eta) for i, (s, t) in enumerate(pairwise(levels)))


def ddpm(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Ancestral sampling by the posterior of the two levels, whatever their distance."""
    return ddim(levels, schedule, eta=1.0)


def euler(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Euler steps of the probability-flow ODE in karras_sigma; on flow levels, of its flow."""
    return ddim(levels, schedule, eta=0.0)


def euler_ancestral(levels: tuple[NoiseLevel, ...], schedule=None, eta: float = 1.0) -> Plan:
    """An Euler step to a lower level, then noise back up to t: algebraically DDIM with this eta."""
    return ddim(levels, schedule, eta)


DDIM = Rule(
    "ddim", ddim, 1, 1, True, "arXiv 2010.02502 Eq. 12, 16",
    synonyms=("DDIM", "DDIMScheduler", "k_ddim"),
    options={"eta": between(0, 1, default=0.0)},
    same_as="euler",
)  # fmt: skip
DDPM = Rule(
    "ddpm", ddpm, 1, 1, False, "arXiv 2006.11239 Algorithm 2",
    synonyms=("DDPM", "DDPMScheduler", "ancestral"),
)  # fmt: skip
EULER = Rule(
    "euler", euler, 1, 1, True, "arXiv 2206.00364 section 3, first order",
    synonyms=("Euler", "EulerDiscrete", "k_euler", "flow euler", "FlowMatchEulerDiscrete"),
)  # fmt: skip
EULER_ANCESTRAL = Rule(
    "euler_ancestral", euler_ancestral, 1, 1, False, "k-diffusion sample_euler_ancestral",
    synonyms=("Euler a", "k_euler_a", "k_euler_ancestral", "EulerAncestralDiscrete"),
    options={"eta": between(0, 1, default=1.0)},
    same_as="ddpm",
)  # fmt: skip
