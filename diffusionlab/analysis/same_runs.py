"""Whether two runs differ in nothing but what is looked at: the same settings, the same dice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffusionlab.analysis.latents import numbers
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Trace

SETTINGS = (
    "model", "prompt", "negative_prompt", "seed", "num_steps", "sampler", "spacing", "final",
    "guidance", "height", "width", "noise", "prediction_type", "num_train_steps",
)  # fmt: skip


def check_same(
    base: Trace, other: Trace, but: Sequence[str] = (), told: str = "the other run"
) -> None:
    """Raise InputError unless settings, levels and dice of two runs are the same.

    `but` are the settings that may differ (`SETTINGS` has all names), `told` what the second run
    is called. Dice are the start noise and every draw that both runs recorded, to the last bit.
    """
    check_settings(base, other, but, told)
    check_path(base, other, told)
    off = dice_off(base, other)
    if off != 0:  # NaN too
        what = "start from different noise" if start_off(base, other) != 0 else "drew other noise"
        raise InputError(
            f"the run and {told} {what} (off by {off:.2g}); one and the same is needed: give run= "
            "the seed and the noise of the run"
        )


def check_settings(
    base: Trace, other: Trace, but: Sequence[str] = (), told: str = "the other run"
) -> None:
    """Raise InputError for the first setting that differs and is not among `but`."""
    for name in SETTINGS:
        ours, theirs = (getattr(trace.settings, name) for trace in (base, other))
        if name not in but and ours != theirs:
            only = f"differ in {' and '.join(but)} only" if but else "have the same settings"
            pair = f"{shown(ours)} in the run and {shown(theirs)} in {told}"
            raise InputError(
                f"runs that {only} are compared, but {name} is {pair}; all else must be the same: "
                "give run= the settings of the run"
            )


def check_path(base: Trace, other: Trace, told: str = "the other run") -> None:
    """Raise InputError unless both runs went through the same levels with latents of one shape."""
    counts = [len(trace.steps) for trace in (base, other)]
    if not counts[0] or counts[0] != counts[1]:
        raise InputError(
            f"runs of {counts[0]} and {counts[1]} steps were given, the second is {told}; equally "
            "many are needed, at least one: let both finish"
        )
    shapes = [tuple(trace.steps[0].latent.shape) for trace in (base, other)]
    if shapes[0] != shapes[1] or not np.allclose(base.karras_sigmas, other.karras_sigmas):
        raise InputError(
            f"the run and {told} have latents {shapes[0]} and {shapes[1]}, or go through other "
            "levels; both must visit the same: use one model, and give run= the settings of the run"
        )


def dice_off(base: Trace, other: Trace) -> float:
    """How far two runs' noises are apart, the start's and every draw that both recorded.

    The largest of their relative distances; NaN if one of them holds NaN.
    """
    steps = zip(base.steps, other.steps, strict=False)
    draws = [pair for a, b in steps for pair in zip(a.noises, b.noises, strict=False)]
    off = [distance(numbers(theirs), numbers(ours)) for ours, theirs in draws]
    return float(np.max([start_off(base, other), *off]))


def start_off(base: Trace, other: Trace) -> float:
    """How far two start noises are apart, relative to their size; their levels may differ."""
    ours, theirs = (numbers(t.steps[0].latent) / t.steps[0].level.sigma for t in (base, other))
    return distance(theirs, ours)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The root mean square of a - b over that of b."""
    return float(np.sqrt(np.mean((a - b) ** 2) / max(np.mean(b**2), 1e-24)))
