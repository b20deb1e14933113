"""Update rules made for distilled weights: LCM and TCD. They run with any network, for the lesson.

Every step jumps to a guess of x0 and adds noise again, so more steps do not converge to the data
of an ordinary network: these rules have no order.
"""

from __future__ import annotations

import math
from itertools import pairwise

from diffusionlab.errors import InputError
from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.first_order import first_order_step
from diffusionlab.samplers.rule import Rule, between
from diffusionlab.samplers.stage_levels import level_timed
from diffusionlab.schedule import NoiseLevel, NoiseSchedule

SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0


def lcm(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Latent consistency model: x0 with its boundary scaling, then all the noise of t, fresh."""
    return tuple(lcm_step(s, t, i) for i, (s, t) in enumerate(pairwise(levels)))


def lcm_step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
    """x_t = alpha_t·(skip·x + out·x0) + sigma_t·noise, x in variance-preserving units.

    skip = 0.25/(k² + 0.25), out = k/sqrt(k² + 0.25), k = 10·timestep (arXiv 2310.04378): at
    timestep 0 the network is not believed, so the step keeps no invariant.
    """
    k = TIMESTEP_SCALING * s.timestep
    total = k * k + SIGMA_DATA**2
    a = t.alpha * SIGMA_DATA**2 / total / math.hypot(s.alpha, s.sigma)
    terms = (Term("x0", call, t.alpha * k / math.sqrt(total)),)
    noise, draws = (((0, t.sigma),), ((s, t),)) if t.sigma else ((), ())
    return PlannedStep(s, t, (Stage(s),), Update(a, terms, noise), draws, exact=False)


def tcd(
    levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None, gamma: float = 0.3
) -> Plan:
    """Trajectory consistency: DDIM to a lower level than t, then noise back up to t.

    The lower level has the timestep floor((1 - gamma)·timestep_t), not rounded where timestep_t is
    fractional (arXiv 2402.19159, strategic stochastic sampling). gamma 0 is `ddim`.
    """
    return tuple(tcd_step(s, t, i, schedule, gamma) for i, (s, t) in enumerate(pairwise(levels)))


def tcd_step(
    s: NoiseLevel, t: NoiseLevel, call: int, schedule: NoiseSchedule | None, gamma: float
) -> PlannedStep:
    """The first-order step whose noise weight is sigma_t·sqrt(1 - (σ̂_m/σ̂_t)²)."""
    lower = (1.0 - gamma) * t.timestep
    if t.timestep == int(t.timestep):
        lower = math.floor(lower)
    if t.sigma == 0.0 or not 0 <= lower < t.timestep:
        return first_order_step(s, t, call)
    m = level_timed(lower, s, t, schedule)
    if m.karras_sigma >= t.karras_sigma:
        raise InputError(
            f"these levels have karras_sigma {t.karras_sigma:.4g} at timestep {t.timestep:g}, but "
            f"the schedule has {m.karras_sigma:.4g} at {lower:g}; use levels of that schedule"
        )
    kept = m.karras_sigma / t.karras_sigma
    a, c = t.sigma * kept / s.sigma, t.sigma * math.sqrt((1.0 - kept) * (1.0 + kept))
    update = Update(a, (Term("x0", call, t.alpha - a * s.alpha),), ((0, c),))
    return PlannedStep(s, t, (Stage(s),), update, ((s, t),))


LCM = Rule(
    "lcm", lcm, 0, 1, False, "LCM, arXiv 2310.04378 Algorithm 3; meant for distilled weights",
    synonyms=("LCM", "LCMScheduler"),
)  # fmt: skip
TCD = Rule(
    "tcd", tcd, 0, 1, False, "TCD, arXiv 2402.19159; meant for distilled weights",
    synonyms=("TCD", "TCDScheduler"),
    options={"gamma": between(0, 1, default=0.3)},
)  # fmt: skip
