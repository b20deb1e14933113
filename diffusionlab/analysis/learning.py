"""What a network learned, in numbers: the loss over time, and at which noise levels it fell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionlab.errors import InputError
from diffusionlab.trace import Learning

SPAN = 40  # stretches that a whole curve is averaged in


@dataclass(frozen=True, eq=False)
class LossCurve:
    """The loss over time: every step's, and the mean of the steps around it."""

    seconds: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray


def loss_curve(record: Learning) -> LossCurve:
    """Each step's loss and a running mean over a fortieth of the steps, shorter at both ends.

    A step's loss is that of one batch at levels drawn anew, so it jumps; the mean shows the way.
    """
    losses = np.asarray(record.losses, np.float64)
    half = max(1, len(losses) // (2 * SPAN))
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    places = np.arange(len(losses))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(losses))
    smooth = (sums[high] - sums[low]) / (high - low)
    return LossCurve(np.asarray(record.seconds, np.float64), losses, smooth)


@dataclass(frozen=True, eq=False)
class LevelLosses:
    """The loss at each noise level on pictures never learned from: before, now, and what is left.

    `left` is now over before: 1 where nothing was learned.
    """

    karras_sigmas: np.ndarray
    before: np.ndarray
    now: np.ndarray
    left: np.ndarray

    @property
    def best(self) -> float:
        """The level at which most of the error went."""
        return float(self.karras_sigmas[int(np.argmin(self.left))])


def level_losses(record: Learning) -> LevelLosses:
    """The first look against the last one. Errors: InputError for a record without a look."""
    if not record.moments:
        raise InputError("the record has no look at the network; take a later one of the lesson")
    before, now = (
        np.asarray(m.losses, np.float64) for m in (record.moments[0], record.moments[-1])
    )
    sigmas = np.asarray(record.karras_sigmas, np.float64)
    return LevelLosses(sigmas, before, now, now / before)
