"""What experiments measure of pictures: right or wrong, near or far, coarse or fine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.spectrum import ring_power
from diffusionlab.claims.bench import Bench
from diffusionlab.toyland import COLOURS, OBJECTS, SETTINGS, TIMES
from diffusionlab.training.prompted import Prompt
from diffusionlab.training.quality import aspects_right

ASKED = ("object", "colour", "setting", "time")


def scores(bench: Bench, images: Sequence[Any], prompts: Sequence[Prompt]) -> np.ndarray:
    """(n,): the share of what a prompt asks for that its picture shows, by the judge, 0 … 1."""
    found = [aspects_right(v, p) for v, p in zip(bench.judged(images), prompts, strict=True)]
    return np.array([np.mean([row[k] for k in ASKED if row[k] is not None]) for row in found])


def right(bench: Bench, images: Sequence[Any], prompts: Sequence[Prompt]) -> list[bool]:
    """Whether each picture shows everything that its prompt asks for, by the judge."""
    found = zip(bench.judged(images), prompts, strict=True)
    return [bool(aspects_right(verdict, prompt)["all"]) for verdict, prompt in found]


def keeps_to(bench: Bench, text: str) -> Callable[[Any], float] | None:
    """How much of what a text names of objects, colours, setting and time a picture shows, 0 … 1.

    A function of one picture, asked of the judge: for `analysis.guidance_sweep.sweep`. None where
    the judge cannot say: a model of another world, a text that names nothing of it.
    """
    named = {*OBJECTS, *COLOURS, *SETTINGS, *TIMES} & set(re.findall(r"\w+", text.casefold()))
    if "toyland" not in bench.model.config or not named:
        return None

    def shown(image: Any) -> float:
        seen = bench.judged([image])[0]
        found = {*seen.kinds, *seen.colours.values(), seen.setting, seen.time}
        return len(named & found) / len(named)

    return shown


def values(image: Any) -> np.ndarray:
    """A picture's channel values, 0 … 1, float64 (height, width, 3)."""
    return np.asarray(image.convert("RGB"), np.float64) / 255


def psnr(image: Any, other: Any) -> float:
    """Peak signal-to-noise ratio in dB; 100 for equal pictures."""
    error = float(((values(image) - values(other)) ** 2).mean())
    return 10 * float(np.log10(1 / max(error, 1e-10)))


def rms(a: np.ndarray, b: np.ndarray) -> float:
    """The root mean square of a difference."""
    return float(np.sqrt(((np.asarray(a, np.float64) - b) ** 2).mean()))


def bands(picture: np.ndarray) -> tuple[float, float]:
    """The power of a picture (height, width, 3) below and above a quarter of the frequencies.

    The mean is left out; a flat picture has 1e-12 in both, so that ratios exist.
    """
    power = ring_power(np.moveaxis(picture, -1, 0)).sum(axis=0)
    edge = 1 + (len(power) - 2) // 4
    return tuple(max(float(part.sum()), 1e-12) for part in (power[1:edge], power[edge:]))
