"""Spacings laid in the timestep; those laid in karras_sigma are in `spacings.py`.

paper ↔ name: n = num_steps, i = 0 … n - 1, T = num_train_steps.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.levels import NoiseLevel

if TYPE_CHECKING:
    from diffusionlab.schedule import NoiseSchedule


def leading(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Every (T // n)-th timestep counted from 0, plus the checkpoint's steps_offset."""
    last, stride = schedule.num_train_steps - 1, schedule.num_train_steps // num_steps
    steps = (i * stride + schedule.steps_offset for i in reversed(range(num_steps)))
    return [schedule.level_at(timestep=min(step, last)) for step in steps]


def trailing(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """round(T · k / n) - 1 for k = n … 1: begins at the noisiest timestep."""
    total = schedule.num_train_steps
    steps = (round(total * k / num_steps) - 1 for k in range(num_steps, 0, -1))
    return [schedule.level_at(timestep=step) for step in steps]


def linspace(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Equally spaced from T - 1 to 0, both included, fractional timesteps kept."""
    last, gaps = schedule.num_train_steps - 1, max(num_steps - 1, 1)
    steps = (last - last * i / gaps for i in range(num_steps))
    return [schedule.level_at(timestep=step) for step in steps]


def linspace_dpm(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """n + 1 whole timesteps equally spaced from T - 1 to 0, without the last.

    DPM-Solver, DEIS and UniPC lay `linspace` so in diffusers: their last step begins one stride
    above 0, the others' at 0 itself.
    """
    last = schedule.num_train_steps - 1
    steps = (round(last * k / num_steps) for k in range(num_steps, 0, -1))
    return [schedule.level_at(timestep=step) for step in steps]


def leading_dpm(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Every (T // (n + 1))-th timestep, n … 1, plus the checkpoint's steps_offset.

    As DPM-Solver, DEIS and UniPC lay `leading` in diffusers.
    """
    last = schedule.num_train_steps - 1
    stride = max(schedule.num_train_steps // (num_steps + 1), 1)
    steps = (k * stride + schedule.steps_offset for k in range(num_steps, 0, -1))
    return [schedule.level_at(timestep=min(step, last)) for step in steps]


def lcm(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """n of the original_steps timesteps that a latent consistency model was distilled on.

    Those are k · (T // original_steps) - 1 for k = 1 … original_steps (arXiv 2310.04378 section
    4.3, its skipping steps); taken are the entries at i · original_steps / n from the noisiest.
    Raises InputError for more steps than there are.
    """
    total = schedule.num_train_steps
    count = min(schedule.original_steps, total)
    num_steps = checked_num_steps(num_steps, count, "steps that this model was distilled on")
    known = [k * (total // count) - 1 for k in range(count, 0, -1)]
    return [schedule.level_at(timestep=known[i * count // num_steps]) for i in range(num_steps)]


def checked_num_steps(
    num_steps: Any, cap: int, what: str = "training steps of this schedule"
) -> int:
    """A whole number from 1 to `cap`, or InputError that says what the cap is."""
    try:
        number = 0 if isinstance(num_steps, (bool, np.bool_)) else operator.index(num_steps)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(
            f"num_steps must be an integer >= 1, got {shown(num_steps)}; use e.g. num_steps=20"
        )
    if number > cap:
        raise InputError(
            f"num_steps {shown(num_steps)} is more than the {cap} {what}; use 1 to {cap}"
        )
    return number
