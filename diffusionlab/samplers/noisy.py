"""Noisy samplers with two calls per step: DPM2 and DPM++ 2S ancestral, DPM++ SDE, Heun with churn.

paper ↔ name: σ̂ = karras_sigma, q = σ̂_t/σ̂_s. An ancestral step goes to the lower level
σ̂_t·sqrt(1 - c²/sigma_t²) with second order, then adds noise of weight c; a, c and the whole x0
weight are those of `first_order_update`.
"""

from __future__ import annotations

import math

from diffusionlab.plan import Plan, PlannedStep, Stage, Update
from diffusionlab.samplers.first_order import first_order_step, first_order_update
from diffusionlab.samplers.rule import Rule, between
from diffusionlab.samplers.runge_kutta import dpmpp_2s_step, heun_step, midpoint_step, one_by_one
from diffusionlab.samplers.stage_levels import level_with, pair_at, timestep_at
from diffusionlab.schedule import NoiseLevel, NoiseSchedule


def _by_eta(eta: float):
    return lambda s, t, call: first_order_step(s, t, call, eta)


def ancestral_root(s: NoiseLevel, t: NoiseLevel, eta: float) -> float:
    """sqrt(q') with q' = q·sqrt(1 - c²/sigma_t²): the middle of the way to the lower level."""
    q = t.karras_sigma / s.karras_sigma
    return math.sqrt(q * math.sqrt((1.0 - eta) * (1.0 + eta) + (eta * q) ** 2))


def dpm2_ancestral(
    levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None, eta: float = 1.0
) -> Plan:
    """DPM-Solver-2 to a lower level, then noise back up to t."""

    def step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
        root = ancestral_root(s, t, eta)
        return midpoint_step(s, t, call, schedule, root, 1.0 / root, eta)

    return one_by_one(levels, step, _by_eta(eta))


def dpmpp_2s_ancestral(
    levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None, eta: float = 1.0
) -> Plan:
    """DPM-Solver++(2S) to a lower level, then noise back up to t."""

    def step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
        return midpoint_step(s, t, call, schedule, ancestral_root(s, t, eta), 1.0, eta)

    return one_by_one(levels, step, _by_eta(eta))


def dpmpp_sde(
    levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None, eta: float = 1.0
) -> Plan:
    """A noisy stage at the midpoint in ln karras_sigma, whose x0 carries the whole noisy step.

    Stage and step see one Brownian path (in snr): the step's noise is r·z_0 + sqrt(1 - r²)·z_1,
    where z_0 is the stage's and r² = (snr_m - snr_s)/(snr_t - snr_s) = q/(1 + q). With two
    independent noises instead the weak order falls from 2 to 1.
    """

    def step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
        q = t.karras_sigma / s.karras_sigma
        m = level_with(math.sqrt(q) * s.karras_sigma, s, t, schedule)
        whole = first_order_update(s, t, call + 1, eta)
        c = whole.noise[0][1]
        noise = ((0, c * math.sqrt(q / (1.0 + q))), (1, c / math.sqrt(1.0 + q)))
        stages = (Stage(s), Stage(m, first_order_update(s, m, call, eta)))
        return PlannedStep(s, t, stages, Update(whole.a, whole.terms, noise), ((s, m), (m, t)))

    if eta == 0.0:
        return one_by_one(levels, lambda s, t, call: dpmpp_2s_step(s, t, call, schedule))
    return one_by_one(levels, step, _by_eta(eta))


# ---- churn --------------------------------------------------------------------------------------
def heun_churn(
    levels: tuple[NoiseLevel, ...],
    schedule: NoiseSchedule | None = None,
    s_churn: float = 5.0,
    s_noise: float = 1.0,
) -> Plan:
    """Each step first adds noise, up to σ̂_s·(1 + gamma), and takes a Heun step from there.

    gamma = min(s_churn/num_steps, sqrt(2) - 1). s_noise != 1 breaks the noise balance on purpose.
    The step to sigma 0 adds none. Above the run's first level the network is told its timestep.
    """
    gamma = min(s_churn / (len(levels) - 1), math.sqrt(2.0) - 1.0)

    def step(s: NoiseLevel, t: NoiseLevel, call: int) -> PlannedStep:
        up = s.karras_sigma * (1.0 + gamma)
        told = timestep_at(min(up, levels[0].karras_sigma), s, t, schedule)
        told = min(told, levels[0].timestep)
        return churned_step(s, t, call, NoiseLevel(told, *pair_at(up, s, t)), s_noise)

    return one_by_one(levels, step if gamma else heun_step)


def churned_step(
    s: NoiseLevel, t: NoiseLevel, call: int, up: NoiseLevel, s_noise: float
) -> PlannedStep:
    """EDM's Algorithm 2: noise from s up to the level `up`, then Heun to t; one draw."""
    added = math.sqrt((up.karras_sigma - s.karras_sigma) * (up.karras_sigma + s.karras_sigma))
    raised = Update(up.alpha / s.alpha, (), ((0, s_noise * up.alpha * added),))
    heun = heun_step(up, t, call)
    second = Stage(t, _after(raised, heun.stages[1].update))
    update, exact = _after(raised, heun.update), s_noise == 1.0
    return PlannedStep(s, t, (Stage(up, raised), second), update, ((s, t),), exact)


def _after(raised: Update, update: Update) -> Update:
    """`update` applied to the raised latent, written in the step's own latent and its draw."""
    noise = tuple((draw, update.a * weight) for draw, weight in raised.noise)
    return Update(update.a * raised.a, update.terms, noise)


DPM2_ANCESTRAL = Rule(
    "dpm2_ancestral", dpm2_ancestral, 2, 2, False, "k-diffusion sample_dpm_2_ancestral",
    synonyms=("DPM2 a", "dpm_2_ancestral", "KDPM2AncestralDiscrete", "k_dpm_2_a"),
    options={"eta": between(0, 1, default=1.0)},
)  # fmt: skip
DPMPP_2S_ANCESTRAL = Rule(
    "dpmpp_2s_ancestral", dpmpp_2s_ancestral, 2, 2, False, "k-diffusion sample_dpmpp_2s_ancestral",
    synonyms=("DPM++ 2S a", "k_dpmpp_2s_a", "k_dpmpp_2s_ancestral"),
    options={"eta": between(0, 1, default=1.0)},
)  # fmt: skip
DPMPP_SDE = Rule(
    "dpmpp_sde", dpmpp_sde, 2, 2, False, "k-diffusion sample_dpmpp_sde; one Brownian path a step",
    synonyms=("DPM++ SDE", "DPMSolverSDE", "k_dpmpp_sde"),
    options={"eta": between(0, 1, default=1.0)},
)  # fmt: skip
HEUN_CHURN = Rule(
    "heun_churn", heun_churn, 2, 2, False, "EDM, arXiv 2206.00364 Algorithm 2",
    synonyms=("Heun with churn", "edm stochastic"),
    options={
        "s_churn": between(0, 1000, default=5.0),
        "s_noise": between(0.5, 1.5, default=1.0),
    },
)  # fmt: skip
