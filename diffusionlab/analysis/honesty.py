"""Is a heat map a cause? Each word is left out, from the same noise, and the change is compared.

A map says where a word was looked up. What the word did is the difference between the picture with
it and the picture without it. If the two agree no better than the map does after it was shifted to
somewhere else, the map says nothing about the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.attention import attention_maps
from diffusionlab.analysis.attention_choice import SPECIAL
from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.pointing import pooled
from diffusionlab.analysis.same_runs import check_same
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Tokens, Trace
from diffusionlab.trace.words import only_place, word_names

LEVEL = 0.05  # a fit that more shifted maps than this reach says nothing


@dataclass(frozen=True, eq=False)
class Honesty:
    """The run, the runs without one word each, and how their differences fit the words' maps.

    maps, differences (words, h, w): probabilities, and the mean |change| of the picture (of the
    latent where a run has no image, see `what`) in the maps' cells. `fits` (words, words): Pearson
    correlation of difference i with map j; `rank_fits` (words,): Spearman's of word i with its own.
    `p` (words,) is the share of all circular shifts of the own map that fit as well, `p_overall`
    the same when all maps are shifted together. Images, latents: of the whole prompt first.
    """

    prompt: str
    words: tuple[str, ...]
    prompts: tuple[str, ...]
    maps: np.ndarray
    differences: np.ndarray
    changes: np.ndarray  # (words, H, W), before the mean over cells
    latent_changes: np.ndarray  # (words, h, w), root mean square over channels
    fits: np.ndarray
    rank_fits: np.ndarray
    p: np.ndarray
    p_overall: float
    what: str
    images: tuple[Any, ...]
    latents: np.ndarray
    preview: Any  # the checkpoint's latent→RGB map, or None
    rows: Residual
    reduction: str

    @property
    def own_fits(self) -> np.ndarray:
        """The correlation of each word's map with its own difference, (words,)."""
        return self.fits.diagonal()

    @property
    def better(self) -> np.ndarray:
        """bool (words,): fits better than 95 % of its shifted copies."""
        return self.p <= LEVEL

    @property
    def own_is_best(self) -> np.ndarray:
        """bool (words,): no other word's map fits this word's difference as well."""
        others = self.fits - np.diag(np.full(len(self.words), np.inf))
        return self.own_fits > others.max(axis=1)

    @property
    def verdict(self) -> str:
        """One sentence that follows from the numbers."""
        cells = self.maps[0].size
        if not (np.isfinite(self.maps).all() and np.isfinite(self.differences).all()):
            return "NaN or infinity in the maps or pictures: they mean nothing"
        if cells * LEVEL < 1:
            return f"maps of {cells} cells are too coarse to tell chance from cause"
        if self.p_overall > LEVEL or not self.better.any():
            return "these maps say nothing about the cause: shifted maps fit as well"
        count, best = len(self.words), self.own_is_best.sum()
        told = (
            f"{self.better.sum()} of {count} maps fit their word's effect better than shifted ones"
        )
        return f"{told}, {best} better than every other word's map" if count > 1 else told


# ---- the runs ---------------------------------------------------------------------------------
def leave_one_out(
    trace: Trace,
    run: Callable[..., Trace],
    words: str | Iterable[str] | None = None,
    replacement: str | None = None,
    **chosen: Any,
) -> Honesty:
    """Run the prompt again without each word (or with `replacement` in its place), and compare.

    `run(prompt=…)` makes a run with all other settings as in `trace`, from the same noise, e.g.
    `functools.partial(generate, model, seed=1, num_steps=20)`. words: None for all of the prompt.
    `chosen`: steps, layers, resolution and heads of the maps as in `attention_maps`. Raises
    InputError for a run with another start noise, other draws or other settings, and for a word
    that cannot be taken out of the text (`without`).
    """
    maps = attention_maps(trace, words, **chosen)
    prompts = tuple(without(trace, word, replacement) for word in maps.words)
    runs = []
    for prompt in prompts:
        runs.append(run(prompt=prompt))
        check_same(trace, runs[-1], ("prompt",), "the one without the word")
    return compare_left_out(trace, runs, maps.words, **chosen)


def without(trace: Trace, word: str, replacement: str | None = None) -> str:
    """The prompt without a word or a phrase (named as in `trace.words`), or with another there.

    Raises InputError for a redacted prompt, for one that was cut, for a record that does not know
    where its words stand, for a word that stands several times, and for "<start>" and the like.
    """
    tokens = trace.tokens
    place = None if tokens is None else only_place(tokens.words, word)
    if place is None or tokens.dropped or len(tokens.spans) != len(tokens.words):
        raise InputError(
            f"the word {shown(word)} cannot be left out: the prompt {_why_not(tokens, place)}; a "
            "word of a whole prompt is allowed; choose one, or make the run again"
        )
    first, last = tokens.spans[place[0]][0], tokens.spans[place[-1]][1]
    return " ".join((tokens.prompt[:first] + (replacement or "") + tokens.prompt[last:]).split())


def _why_not(tokens: Tokens | None, place: tuple[int, ...] | None) -> str:
    """Why a word at this place cannot be taken out of the text."""
    if tokens is None:
        return "has no record of its words"
    if tokens.dropped:
        return "was cut off, so that leaving a word out lets another in"
    if place is None:
        return f"has the words {', '.join(map(shown, word_names(tokens.words)))}"
    return "was recorded by a version that did not keep where its words stand"


# ---- the comparison ---------------------------------------------------------------------------
def compare_left_out(
    trace: Trace, runs: Sequence[Trace], words: Sequence[str], **chosen: Any
) -> Honesty:
    """The result for finished runs, one without each of `words`, in their order."""
    if len(runs) != len(words) or not runs or set(words) & set(SPECIAL.values()):
        raise InputError(
            f"{len(runs)} runs for the words {shown(tuple(words))}; one run without each of the "
            "user's words is needed, at least one"
        )
    for other in runs:
        check_same(trace, other, ("prompt",), "one without a word")
    found = attention_maps(trace, words, **chosen)
    maps = found.maps[:, 0]
    ends = np.stack([numbers(t.steps[-1].next_latent) for t in (trace, *runs)])
    images = tuple(t.image for t in (trace, *runs))
    off = np.sqrt(np.square(ends[1:] - ends[0]).mean(axis=1))
    pictures, what = off, "latents"
    if all(image is not None for image in images):
        arrays = np.stack([np.asarray(i, np.float64)[..., :3] / 255 for i in images])
        pictures, what = np.abs(arrays[1:] - arrays[0]).mean(axis=3), "pictures"
    differences = pooled(pictures, found.size)
    shifted = np.stack([shifted_fits(m, d) for m, d in zip(maps, differences, strict=True)])
    return Honesty(
        prompt=trace.settings.prompt, words=found.words,
        prompts=tuple(other.settings.prompt for other in runs),
        maps=maps, differences=differences, changes=pictures, latent_changes=off,
        fits=np.array([[correlation(m, d) for m in maps] for d in differences]),
        rank_fits=np.array([rank_correlation(*pair) for pair in zip(maps, differences,
                                                                    strict=True)]),
        p=np.array([share_as_good(fits) for fits in shifted]),
        p_overall=share_as_good(shifted.mean(axis=0)),
        what=what, images=images, latents=ends, preview=trace.preview, rows=found.rows,
        reduction=found.reduction,
    )  # fmt: skip


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two pictures; 0 where one of them is constant, NaN stays NaN."""
    return float(shifted_fits(a, b, every=False)[0, 0])


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: Pearson's of the ranks, ties sharing their mean rank."""
    return correlation(_ranks(a), _ranks(b)) if np.isfinite([a, b]).all() else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places].reshape(values.shape)


def shifted_fits(a: np.ndarray, b: np.ndarray, every: bool = True) -> np.ndarray:
    """Pearson's correlation of b with a shifted by every (down, right), round the edges: (h, w).

    Entry [0, 0] is the unshifted one, which `every=False` alone computes.
    """
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a**2).sum() * (b**2).sum())
    if size <= 1e-12 * a.size:
        return np.zeros(a.shape if every else (1, 1))
    if not every:
        return np.array([[(a * b).sum() / size]])
    both = np.conj(np.fft.rfft2(a)) * np.fft.rfft2(b)
    return np.fft.irfft2(both, s=a.shape) / size


def share_as_good(fits: np.ndarray) -> float:
    """The share of shifts that fit at least as well as no shift at all; NaN counts as 1."""
    return float(np.mean(~(fits < fits[0, 0] - 1e-9)))
