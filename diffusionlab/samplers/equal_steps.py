"""PNDM and its relatives: Adams-Bashforth weights of equal steps in the timestep, on eps.

paper ↔ name: a *transfer* with the reading e is x_t = (alpha_t/alpha_s)·x + D·e with
D = sigma_t - alpha_t·sigma_s/alpha_s (arXiv 2202.09778 Eq. 11); e is the mean of the last eps with
the weights of `WEIGHTS`. These hold for equal steps only, so unequal timesteps are refused. The
last step may have another length (Stable Diffusion's own lists end so), as in the references.
"""

from __future__ import annotations

from itertools import pairwise

from diffusionlab.errors import InputError
from diffusionlab.plan import Plan, PlannedStep, Stage, Term, Update
from diffusionlab.samplers.adams_bashforth import extrapolated_step
from diffusionlab.samplers.first_order import first_order_step, first_order_update
from diffusionlab.samplers.rule import Rule
from diffusionlab.samplers.runge_kutta import heun_step
from diffusionlab.samplers.stage_levels import level_timed
from diffusionlab.schedule import NoiseLevel, NoiseSchedule

WEIGHTS = (  # newest first
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Pseudo linear multistep: a Heun step, then two, three and four readings."""
    return _multistep("plms", levels, lambda s, t, call: heun_step(s, t, call), 1)


def ipndm(levels: tuple[NoiseLevel, ...], schedule=None) -> Plan:
    """Improved PNDM: one, two, three, then four readings; no extra call (arXiv 2204.13902)."""
    return _multistep("ipndm", levels, first_order_step, 0)


def pndm(levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None = None) -> Plan:
    """Pseudo numerical methods: three Runge-Kutta steps of four calls, then four readings."""
    return _multistep("pndm", levels, lambda s, t, call: prk_step(s, t, call, schedule), 3)


def _multistep(name: str, levels: tuple[NoiseLevel, ...], start, num_starts: int) -> Plan:
    """`start` plans the first `num_starts` steps that have no infinite or clean end."""
    _check_equal_timesteps(name, levels)
    plan: list[PlannedStep] = []
    calls: list[int] = []  # of the steps' own latents, newest first
    call = 0
    for s, t in pairwise(levels):
        if s.alpha == 0.0:
            plan.append(first_order_step(s, t, call))
        else:
            calls = [call, *calls[:3]]
            if len(calls) <= num_starts and t.sigma:
                plan.append(start(s, t, call))
            else:
                plan.append(_transfer_step(s, t, calls))
        call += plan[-1].network_calls
    return tuple(plan)


def _transfer_step(s: NoiseLevel, t: NoiseLevel, calls: list[int]) -> PlannedStep:
    change = t.sigma - t.alpha * s.karras_sigma
    return extrapolated_step(s, t, calls, [change * weight for weight in WEIGHTS[len(calls) - 1]])


def prk_step(
    s: NoiseLevel, t: NoiseLevel, call: int, schedule: NoiseSchedule | None
) -> PlannedStep:
    """Classical Runge-Kutta with transfers for steps; its middle lies halfway in the timestep."""
    m = level_timed((s.timestep + t.timestep) / 2.0, s, t, schedule)
    readings = [Term("eps", call + k, 1.0) for k in range(4)]
    points = [
        first_order_update(s, m, call),
        transfer(s, m, readings[1:2]),
        transfer(s, t, readings[2:3]),
    ]
    stages = (Stage(s), *(Stage(k, p) for k, p in zip((m, m, t), points, strict=True)))
    change = t.sigma - t.alpha * s.karras_sigma
    own = Term("x0", call, -change / 6.0 / s.karras_sigma)
    later = [
        Term("eps", call + k, change * share) for k, share in ((1, 1 / 3), (2, 1 / 3), (3, 1 / 6))
    ]
    a = t.alpha / s.alpha + change / 6.0 / s.sigma
    return PlannedStep(s, t, stages, Update(a, (own, *later)))


def transfer(s: NoiseLevel, t: NoiseLevel, readings: list[Term]) -> Update:
    """The step from s to t along these eps readings, whose weights add up to 1."""
    change = t.sigma - t.alpha * s.karras_sigma
    terms = tuple(Term("eps", term.call, change * term.weight) for term in readings)
    return Update(t.alpha / s.alpha, terms)


def _check_equal_timesteps(name: str, levels: tuple[NoiseLevel, ...]) -> None:
    """Gaps equal but for the rounding to whole timesteps; the last gap is free."""
    times = [level.timestep for level in levels[:-1]]
    gaps = [high - low for high, low in pairwise(times)]
    if not gaps:
        return
    mean = (times[0] - times[-1]) / len(gaps)
    whole = all(time == int(time) for time in times)
    slack = 1.0 if whole else 1e-6 * mean
    if not (mean > 0 and all(abs(gap - mean) <= slack for gap in gaps)):
        raise InputError(
            f"{name} needs equal steps in the timestep, but the gaps of these levels go from "
            f"{min(gaps):g} to {max(gaps):g}; use spacing 'leading', 'trailing' or 'linspace', "
            "or the sampler 'lms', whose weights fit any spacing"
        )


PLMS = Rule(
    "plms", plms, 2, 1, True, "PNDM, arXiv 2202.09778, started by one two-call step",
    synonyms=("PLMS",),
    extra_calls=1,
)  # fmt: skip
IPNDM = Rule(
    "ipndm", ipndm, 2, 1, True, "iPNDM, arXiv 2204.13902; its Euler start limits the order to 2",
    synonyms=("iPNDM", "IPNDMScheduler"),
)  # fmt: skip
PNDM = Rule(
    "pndm", pndm, 2, 1, True, "PNDM, arXiv 2202.09778",
    synonyms=("PNDM", "PNDMScheduler"),
    extra_calls=9,
    min_steps=4,
)  # fmt: skip
