"""When a run makes up its mind: per place of the picture, and as a whole by several measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.similarity import correlation, structural_similarity
from diffusionlab.analysis.spectrum import frequencies
from diffusionlab.analysis.trajectories import ending, for_good
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Trace


# ---- place by place ---------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Commitment:
    """Per place (h, w) of the latent, the first step from which on x0-hat stays near the end.

    `steps` counts from 0; the number of steps stands for a place that never stays there. `share`
    (steps,) is the share of places that are decided at each step; it never falls, which
    `never_falls` checks. `tolerance` is relative to the spread of the end.
    """

    steps: np.ndarray
    share: np.ndarray
    karras_sigmas: np.ndarray
    tolerance: float
    never_falls: Residual
    end: str

    @property
    def open(self) -> int:
        """How many places never stay near the end."""
        return int((self.steps == len(self.share)).sum())

    @property
    def levels(self) -> np.ndarray:
        """The same map in karras_sigma, (h, w); NaN where a place never stays."""
        return np.append(self.karras_sigmas, np.nan)[self.steps]

    @property
    def half(self) -> int:
        """The first step at which half of the places are decided; the number of steps if none."""
        return int(for_good(self.share >= 0.5))

    def __str__(self) -> str:
        count = len(self.share)
        if self.half == count:
            return f"fewer than half of the places are decided within {count} steps"
        level = self.karras_sigmas[self.half]
        return f"half of the picture is decided at step {self.half}, karras_sigma {level:.3g}"


def commitment(trace: Trace, tolerance: float = 0.25) -> Commitment:
    """Where x0-hat is decided first.

    Near means: the root mean square over the channels of x0-hat minus the end is at most
    `tolerance` standard deviations of the end's values. A place with NaN never stays. Errors:
    InputError for a tolerance that is not above 0, and as `trajectories.ending`.
    """
    good = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not good or not 0 < tolerance < math.inf:
        raise InputError(f"tolerance {shown(tolerance)}; a number above 0 is allowed, e.g. 0.25")
    end, told = ending(trace)
    off = np.sqrt(((numbers(trace.x0s) - end) ** 2).mean(axis=1))  # (steps, h, w)
    steps = for_good(off <= tolerance * (float(end.std()) or 1.0))
    share = np.array([(steps <= k).mean() for k in range(len(off))])
    sigmas = np.array([step.level.karras_sigma for step in trace.steps])
    falls = Residual(float(-np.diff(share).min(initial=0.0)), 0.0, "the share never falls")
    return Commitment(steps, share, sigmas, float(tolerance), falls, told)


# ---- as a whole -------------------------------------------------------------------------------
SIMILAR, COARSE = 0.8, 0.25  # the mark to pass; coarse: the lowest quarter of the frequencies


@dataclass(frozen=True, eq=False)
class SimilarityToFinal:
    """How like its end x0-hat is at each step, by several measures of (steps,) that are 1 there.

    `reached` maps a measure to the first step from which on it stays at 0.8 or more, the number of
    steps if none. `noisy` is the correlation of x_t itself with the end. `ends_at_one` checks that
    each measure gives 1 for the end compared with itself.
    """

    measures: dict
    noisy: np.ndarray
    karras_sigmas: np.ndarray
    ends_at_one: Residual
    end: str

    @property
    def reached(self) -> dict[str, int]:
        """Measure → step."""
        return {name: int(for_good(curve >= SIMILAR)) for name, curve in self.measures.items()}

    def __str__(self) -> str:
        steps, count = sorted(self.reached.values()), len(self.karras_sigmas)
        if steps[0] == count:
            return "no measure reaches 0.8 before the end"
        high = self.karras_sigmas[steps[0]]
        if steps[-1] == count:
            return f"0.8 is reached at step {steps[0]} or never, depending on the measure"
        if steps[0] == steps[-1]:
            return f"0.8 is reached at step {steps[0]} of {count} (karras_sigma {high:.3g})"
        return (
            f"0.8 is reached at step {steps[0]} to {steps[-1]} of {count}, depending on the "
            f"measure (karras_sigma {high:.3g} to {self.karras_sigmas[steps[-1]]:.3g})"
        )


def similarity_to_final(trace: Trace) -> SimilarityToFinal:
    """Several measures of how far a run has come, because "80 % of the structure" names none.

    Of x0-hat against the end, channel means removed: "values", their correlation; "coarse", that of
    the frequencies up to a quarter of the highest; "edges", that of the differences between
    neighbours; "variance explained", 1 − |x0-hat − end|² / |end − its mean|². Where every step was
    decoded, "SSIM of the pictures" (`similarity.structural_similarity`). Errors as `ending`.
    """
    end, told = ending(trace)
    if not _flat(end).any():
        raise InputError(
            f"the end of this run, {end.shape}, is one number per channel; likeness needs an end "
            "that varies over its places: take another run"
        )
    guesses, measures, of_itself = numbers(trace.x0s), {}, []
    for name, measure in MEASURES.items():
        measures[name] = np.array([measure(x, end) for x in guesses])
        of_itself.append(measure(end, end))
    pictures = _pictures(trace)
    if pictures:
        measures["SSIM of the pictures"] = structural_similarity(pictures[:-1], pictures[-1])
    noisy = np.array([correlation(_flat(numbers(step.latent)), _flat(end)) for step in trace.steps])
    sigmas = np.array([step.level.karras_sigma for step in trace.steps])
    off = float(np.abs(np.array(of_itself) - 1).max())
    one = Residual(off, 1e-9, "the end is 1 like itself")
    return SimilarityToFinal(measures, noisy, sigmas, one, told)


def _pictures(trace: Trace) -> list[np.ndarray]:
    """The frames of all steps and the last picture, as arrays of 0 … 1; empty if one is missing."""
    if len(trace.frames) != len(trace.steps) or min(trace.frames[0].size) < 11:
        return []
    last = trace.frames[-1] if trace.image is None else trace.image
    return [np.asarray(image, np.float64)[..., :3] / 255 for image in (*trace.frames, last)]


def _flat(latent: np.ndarray) -> np.ndarray:
    """Each channel's mean taken off."""
    return latent - latent.mean(axis=(1, 2), keepdims=True)


def _values(x0: np.ndarray, end: np.ndarray) -> float:
    return correlation(_flat(x0), _flat(end))


def _coarse(x0: np.ndarray, end: np.ndarray) -> float:
    height, width = end.shape[1:]
    found = frequencies(height, width)
    keep = (found > 0) & (found <= max(COARSE * max(height, width) / 2, 1))
    return correlation(*(np.fft.ifft2(np.fft.fft2(x) * keep).real for x in (x0, end)))


def _edges(x0: np.ndarray, end: np.ndarray) -> float:
    steps = [np.concatenate([np.diff(x, axis=a).ravel() for a in (1, 2)]) for x in (x0, end)]
    return correlation(*steps)


def _explained(x0: np.ndarray, end: np.ndarray) -> float:
    whole = float((_flat(end) ** 2).sum())
    return 1 - float(((x0 - end) ** 2).sum()) / whole if whole else math.nan


MEASURES = {
    "coarse": _coarse,
    "values": _values,
    "edges": _edges,
    "variance explained": _explained,
}
