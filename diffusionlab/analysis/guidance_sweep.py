"""Runs over several guidance scales: what rises with the scale, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.guidance import call_at, guidance_curves
from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.same_runs import check_path, check_settings, dice_off
from diffusionlab.errors import InputError
from diffusionlab.trace import Comparison, Guidance, Trace

__all__ = ["Sweep", "SweepPoint", "clipped", "saturation", "sweep"]


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """The runs at one guidance: the first one's picture, and means over all of them.

    `saturation` is the mean HSV S, `clipped` the share of channel values at 0 or 255, `spread` the
    standard deviation of the last step's x0-hat, `ratio` the mean over steps of
    |cond − uncond| / |cond| (None without guidance), `adherence` the mean of the given measure.
    """

    guidance: Guidance
    image: Any
    count: int
    saturation: float
    clipped: float
    spread: float
    ratio: float | None
    adherence: float | None


@dataclass(frozen=True, eq=False)
class Sweep:
    """The points of a sweep in the order in which they were given; `start`: do the noises agree."""

    points: tuple[SweepPoint, ...]
    prompt: str
    start: Residual
    adherence: str = ""  # what is measured, in words


def sweep(
    comparison: Comparison,
    adherence: Callable[[Any], float] | None = None,
    name: str = "adherence",
) -> Sweep:
    """Measure the runs of a comparison over guidance scales, and over seeds too if it has several.

    `adherence(image)` says how well a picture keeps to the prompt (0 to 1), `name` what that is.
    Raises InputError for runs without an image, for fewer than two scales, and if the scales do not
    all have the same prompts, seeds and settings.
    """
    groups: dict[str, list[Trace]] = {}
    for trace in comparison.traces:
        groups.setdefault(str(trace.settings.guidance), []).append(trace)
    _check(groups)
    points = tuple(_point(runs, adherence) for runs in groups.values())
    told = name if adherence else ""
    start = Residual(_dice_off(list(groups.values())), 1e-4, "the same dice for each seed")
    prompt = comparison.traces[0].settings.prompt
    return Sweep(points, prompt, start, told)


def _check(groups: dict[str, list[Trace]]) -> None:
    if len(groups) < 2:
        raise InputError(
            f"the comparison holds {len(groups)} guidance scale(s), at least 2 are needed: "
            "compare(model, prompt, guidance_scales=[1, 4, 8])"
        )
    for told, runs in groups.items():
        if any(run.image is None for run in runs):
            raise InputError(
                f"a run at guidance {told} has no image (it was stopped); only finished runs can "
                "be measured: run it again"
            )
    (first, own), *others = groups.items()
    for told, runs in others:
        if len(runs) != len(own):
            raise InputError(
                f"{len(own)} runs at guidance {first} and {len(runs)} at {told} were given; "
                "equally many, of the same seeds in one order, are needed: compare them all again"
            )
        for ours, theirs in zip(own, runs, strict=True):
            check_settings(ours, theirs, ("guidance",), f"the one at guidance {told}")
            check_path(ours, theirs, f"the one at guidance {told}")


def _dice_off(groups: list[list[Trace]]) -> float:
    """The largest relative distance of two runs' noises that should be one."""
    pairs = [pair for runs in groups[1:] for pair in zip(groups[0], runs, strict=True)]
    return float(np.max([dice_off(*pair) for pair in pairs]))


def _point(runs: list[Trace], adherence: Callable[[Any], float] | None) -> SweepPoint:
    arrays = [np.asarray(run.image.convert("RGB"), np.float64) for run in runs]
    ratios = [float(guidance_curves(run).ratios.mean()) for run in runs if _guided(run)]
    scores = [float(adherence(run.image)) for run in runs] if adherence else []
    last = [numbers(call_at(run, len(run.steps) - 1).x0) for run in runs]
    return SweepPoint(
        guidance=runs[0].settings.guidance,
        image=runs[0].image,
        count=len(runs),
        saturation=float(np.mean([saturation(a) for a in arrays])),
        clipped=float(np.mean([clipped(a) for a in arrays])),
        spread=float(np.mean([x0.std() for x0 in last])),
        ratio=float(np.mean(ratios)) if ratios else None,
        adherence=float(np.mean(scores)) if scores else None,
    )


def _guided(run: Trace) -> bool:
    return any(call_at(run, i).uncond is not None for i in range(len(run.steps)))


def saturation(array: np.ndarray) -> float:
    """The mean S of HSV, (max − min) / max over the channels (h, w, 3); black has 0."""
    array = np.asarray(array, np.float64)
    high, low = array.max(axis=-1), array.min(axis=-1)
    return float(np.where(high > 0, (high - low) / np.maximum(high, 1e-12), 0.0).mean())


def clipped(array: np.ndarray) -> float:
    """The share of an array's values (0 to 255) that lie on one of the two ends."""
    array = np.asarray(array)
    return float(((array <= 0) | (array >= 255)).mean())
