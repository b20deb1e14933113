"""The record of a U-Net while it learns: its losses, its pictures, and what took part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffusionlab.trace.summary import Shown, counted, lines


@dataclass(frozen=True)
class Moment:
    """One look at the network: after how many seconds and steps, and what was found.

    `losses` (levels,) is its loss on pictures that it never learns from, at each of the record's
    levels; `images` is what it draws for each of the record's prompts.
    """

    seconds: float
    step: int
    losses: np.ndarray
    images: tuple[Image.Image, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Learning(Shown):
    """How a network learned, as far as it went; a later record of the same lesson holds more.

    `seconds` and `losses` (steps,): when each step ended, and the mean squared error of its batch.
    `moments` are looks in between, the first of them before the first step; `karras_sigmas` are the
    levels of their losses and `best` what the pictures of the prompts look like when the renderer
    draws them and the autoencoder passes them on. `pictures` were shown in all, `batch` of them in
    a step. `weights` counts each part's parameters and `learning` is the share of them that got a
    gradient; `calls` counts how often each part ran, by what it ran for.
    """

    model: str
    prediction_type: str
    prompts: tuple[str, ...]
    best: tuple[Image.Image, ...]
    pictures: int
    batch: int
    karras_sigmas: np.ndarray
    seconds: np.ndarray
    losses: np.ndarray
    moments: tuple[Moment, ...]
    weights: Mapping[str, int]
    learning: Mapping[str, float]
    calls: Mapping[str, Mapping[str, int]]
    stopped: bool = False

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.losses)

    def calls_per_step(self, part: str) -> float:
        """How often a part ran in one step of learning."""
        return self.calls["learning"].get(part, 0) / max(self.steps, 1)

    def __repr__(self) -> str:
        learns = (
            f"{part:12} {count:>10,} weights, {self.learning.get(part, 0):4.0%} learn, "
            f"{self.calls_per_step(part):g} calls a step"
            for part, count in self.weights.items()
        )
        ended = ", stopped by hand" if self.stopped else ""
        last = self.seconds[-1] if self.steps else 0.0
        return lines(
            f"Learning: {counted(self.steps, 'step')} in {last:.0f} s{ended}",
            f"{self.batch} of {self.pictures} pictures a step, {self.prediction_type} predicted",
            *learns,
            f"{counted(len(self.moments), 'look')} in between, at {len(self.karras_sigmas)} noise "
            f"levels; made by a lesson with the other parts of {self.model}",
        )
