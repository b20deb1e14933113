"""Levels that are no entry of a plan's list: where a rule evaluates between (or above) its levels.

A stage lies at a given karras_sigma; its (alpha, sigma) pair belongs to the same kind of pair as
the two ends of its step. The timestep that the network is told comes from the schedule. With
schedule None it is interpolated between the step's own two levels: linear in ln karras_sigma, or in
flow time sigma/(alpha + sigma) for flow pairs (whose timestep is linear in it) and from alpha = 0.
"""

from __future__ import annotations

import math

from diffusionlab.schedule import NoiseLevel, NoiseSchedule

PAIRS = {  # alpha as a function of karras_sigma
    "variance preserving": lambda karras_sigma: 1.0 / math.hypot(1.0, karras_sigma),
    "flow": lambda karras_sigma: 1.0 / (1.0 + karras_sigma),
    "variance exploding": lambda karras_sigma: 1.0,
}


def kind_of(s: NoiseLevel, t: NoiseLevel) -> str:
    """Which of `PAIRS` both levels obey, to 1e-6; "" for none of them."""
    for kind, alpha in PAIRS.items():
        if all(math.isclose(alpha(k.karras_sigma), k.alpha, rel_tol=1e-6) for k in (s, t)):
            return kind
    return ""


def pair_at(karras_sigma: float, s: NoiseLevel, t: NoiseLevel) -> tuple[float, float]:
    """(alpha, sigma) at a karras_sigma, of the kind of s and t; unknown kinds: ln alpha linear."""
    kind = kind_of(s, t)
    if kind:
        alpha = PAIRS[kind](karras_sigma)
    else:
        part = math.log(karras_sigma / s.karras_sigma) / math.log(t.karras_sigma / s.karras_sigma)
        alpha = s.alpha * (t.alpha / s.alpha) ** part
    return alpha, karras_sigma * alpha


def timestep_at(
    karras_sigma: float, s: NoiseLevel, t: NoiseLevel, schedule: NoiseSchedule | None
) -> float:
    """The timestep that the network is told at a karras_sigma near the step from s to t."""
    if schedule is not None:
        return schedule.level_at(karras_sigma=karras_sigma).timestep
    clock = _clock(s, t)
    start, end = clock(s.karras_sigma), clock(t.karras_sigma)
    return s.timestep + (clock(karras_sigma) - start) / (end - start) * (t.timestep - s.timestep)


def level_with(
    karras_sigma: float, s: NoiseLevel, t: NoiseLevel, schedule: NoiseSchedule | None
) -> NoiseLevel:
    """The level with this karras_sigma in the coordinates of the step from s to t."""
    timestep = timestep_at(karras_sigma, s, t, schedule)
    return NoiseLevel(timestep, *pair_at(karras_sigma, s, t))


def level_timed(
    timestep: float, s: NoiseLevel, t: NoiseLevel, schedule: NoiseSchedule | None
) -> NoiseLevel:
    """The level at this timestep in the coordinates of the step from s to t; t if both are timed
    alike and there is no schedule to ask."""
    if schedule is not None:
        karras_sigma = schedule.level_at(timestep=timestep).karras_sigma
    elif s.timestep == t.timestep:
        return t
    else:
        clock = _clock(s, t)
        start, end = clock(s.karras_sigma), clock(t.karras_sigma)
        place = start + (timestep - s.timestep) / (t.timestep - s.timestep) * (end - start)
        karras_sigma = math.exp(place) if clock is math.log else _of_flow_time(place)
    return NoiseLevel(timestep, *pair_at(karras_sigma, s, t))


def flow_time(karras_sigma: float) -> float:
    """sigma/(alpha + sigma): 1 for pure noise, 0 for a clean latent."""
    return 1.0 / (1.0 + 1.0 / karras_sigma) if karras_sigma else 0.0


def _of_flow_time(place: float) -> float:
    place = max(place, 0.0)
    return place / (1.0 - place)


def _clock(s: NoiseLevel, t: NoiseLevel):
    endless = s.alpha == 0.0 or t.sigma == 0.0
    return flow_time if endless or kind_of(s, t) == "flow" else math.log
