"""Pictures by spatial frequency: coarse and fine as numbers.

A frequency is counted in cycles per longer side of the picture, the same along both axes, so that
oblong pictures are right too. Rings are one cycle wide, ring 0 is the mean; everything beyond half
the longer side (the corners of the plane) is one last ring, so that nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers, worst
from diffusionlab.analysis.trajectories import ending, for_good
from diffusionlab.errors import InputError
from diffusionlab.trace import Trace

WRONG = 0.2  # of its final power: with less of it wrong, a ring counts as right
WITHIN = (0.8, 1.25)  # of its final power, whatever it is made of


def frequencies(height: int, width: int) -> np.ndarray:
    """The frequency of every entry of `numpy.fft.fft2`: (height, width), cycles per longer side."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    return np.hypot(rows, columns) * max(height, width)


def rings(height: int, width: int) -> np.ndarray:
    """The ring of every entry of `numpy.fft.fft2`: 0 … longer side // 2, and one more for corners.

    Half a cycle is rounded up.
    """
    found = np.floor(frequencies(height, width) + 0.5).astype(int)
    return np.minimum(found, max(height, width) // 2 + 1)


def ring_power(pictures: np.ndarray) -> np.ndarray:
    """The power of pictures (…, height, width) in each ring: (…, rings).

    The sum over all rings is the mean square of the picture (Parseval's theorem).
    """
    height, width = pictures.shape[-2:]
    power = np.abs(np.fft.fft2(pictures)) ** 2 / (height * width) ** 2
    which = rings(height, width).ravel()
    member = np.arange(max(height, width) // 2 + 2)[:, None] == which  # (rings, height · width)
    return power.reshape(*pictures.shape[:-2], -1) @ member.T.astype(np.float64)


@dataclass(frozen=True, eq=False)
class RadialSpectrum:
    """x0-hat by ring at each step, (steps, rings), the mean over the channels.

    `power` is that of x0-hat, `wrong` that of its difference from the run's end, `final` (rings,)
    that of the end. `right` (rings,) is the first step from which on at most a fifth of a ring's
    final power is wrong, `level_of_power` the first from which on its power stays within 0.8 … 1.25
    of the final one, the number of steps if none: power alone can be right by chance, and guidance
    overshoots it. `order` is the rank correlation of `right` with the frequency: 1 is strictly
    coarse to fine, NaN where all rings come together; `order_by_power` the other's. `parseval`
    checks the sums over the rings against the mean squares.
    """

    power: np.ndarray
    wrong: np.ndarray
    final: np.ndarray
    right: np.ndarray
    level_of_power: np.ndarray
    karras_sigmas: np.ndarray
    order: float
    order_by_power: float
    parseval: Residual
    end: str

    @property
    def whole(self) -> slice:
        """The rings that are whole: without the mean, and without the corners."""
        return slice(1, len(self.final) - 1)

    @property
    def wrong_share(self) -> np.ndarray:
        """wrong over final, (steps, rings); NaN where a ring ends with no power."""
        return self.wrong / np.where(self.final > 0, self.final, np.nan)


def radial_spectrum(trace: Trace) -> RadialSpectrum:
    """The spectrum of x0-hat over a run. Errors as `ending`, and for latents of one position."""
    end, told = ending(trace)
    if max(end.shape[1:]) < 2:
        raise InputError(
            f"latents {end.shape} have one position, a frequency needs two; take a larger picture"
        )
    guesses = numbers(trace.x0s)
    power, wrong, final = (ring_power(x).mean(axis=-2) for x in (guesses, guesses - end, end))
    low, high = WITHIN
    with np.errstate(invalid="ignore"):
        right = for_good(wrong <= WRONG * final)
        level = for_good((power >= low * final) & (power <= high * final))
    checks = [_parseval(p, x) for p, x in zip([*power, final], [*guesses, end], strict=True)]
    places = np.arange(len(final) - 2)
    return RadialSpectrum(
        power=power,
        wrong=wrong,
        final=final,
        right=right,
        level_of_power=level,
        karras_sigmas=np.array([step.level.karras_sigma for step in trace.steps]),
        order=rank_correlation(places, right[1:-1]),
        order_by_power=rank_correlation(places, level[1:-1]),
        parseval=worst(checks),
        end=told,
    )


def _parseval(power: np.ndarray, picture: np.ndarray) -> Residual:
    mean_square = float((picture**2).mean())
    off = abs(float(power.sum()) - mean_square) / max(mean_square, 1e-300)
    return Residual(off, 1e-6, "rings sum to the mean square")


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing theirs; NaN if one is flat."""
    if len(a) < 2 or not (np.ptp(a) and np.ptp(b)):
        return float("nan")
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]
