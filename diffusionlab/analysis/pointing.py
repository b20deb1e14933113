"""Do maps point at the thing that their word names? Maps against exact masks, beside chance.

Pointing: more than half of a map's peak cell is mask (the pointing game of Zhang et al.,
arXiv 1608.00507, on cells). IoU: the map enlarged to the mask's size, at 0.4 of its
maximum, against the mask at 1/2 (after DAAM, arXiv 2210.04885).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diffusionlab.errors import InputError, shown

THRESHOLD = 0.4  # of a map's maximum
LEVEL = 0.01  # a rate that chance reaches more often than this says nothing
FEWEST, PAIRINGS = 8, 2000  # scenes for a verdict, random pairings of maps with masks


# ---- one map against one mask -----------------------------------------------------------------
def points_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """bool (n,): more than half of the peak cell of a map (n, h, w) is mask (n, H, W)."""
    rows = np.arange(len(maps))
    cells = pooled(masks, maps.shape[1:]).reshape(len(masks), -1)
    return cells[rows, peaks(maps)] > 0.5


def overlaps(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """float (n,): intersection over union of the map at THRESHOLD and the mask at 1/2."""
    with np.errstate(invalid="ignore"):
        large = stretched(maps, masks.shape[1:])
    found = large > THRESHOLD * large.max(axis=(1, 2), keepdims=True)
    true = np.asarray(masks) > 0.5
    both, either = (found & true).sum(axis=(1, 2)), (found | true).sum(axis=(1, 2))
    return both / np.maximum(either, 1)


def peaks(maps: np.ndarray) -> np.ndarray:
    """The place of the largest value of each map (n, h, w), counted row by row; the first of ties.

    A map that is not finite peaks where its first NaN stands.
    """
    return np.asarray(maps).reshape(len(maps), -1).argmax(axis=1)


def pooled(pictures: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Means over cells: pictures (n, H, W) to (n, h, w); a pixel on an edge counts in both."""
    down, across = (_means(*pair) for pair in zip(np.shape(pictures)[1:], size, strict=True))
    return down @ np.asarray(pictures, np.float64) @ across.T


def _means(many: int, few: int) -> np.ndarray:
    """(few, many): row i averages the pixels that cell i touches."""
    weights = np.zeros((few, many))
    for i in range(few):
        first, last = i * many // few, -(-(i + 1) * many // few)
        weights[i, first:last] = 1 / (last - first)
    return weights


def stretched(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Maps (n, h, w) at a larger size, bilinear between the centres of their cells."""
    down, across = (_between(*pair) for pair in zip(np.shape(maps)[1:], size, strict=True))
    return down @ np.asarray(maps, np.float64) @ across.T


def _between(few: int, many: int) -> np.ndarray:
    """(many, few): row i weighs the two cells whose centres are next to pixel i's."""
    places = np.clip((np.arange(many) + 0.5) * few / many - 0.5, 0, few - 1)
    low = np.minimum(places.astype(int), few - 1)
    high = np.minimum(low + 1, few - 1)
    weights = np.zeros((many, few))
    np.add.at(weights, (np.arange(many), low), 1 - (places - low))
    np.add.at(weights, (np.arange(many), high), places - low)
    return weights


# ---- many of them -----------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Pointing:
    """Maps (n, h, w) of one word each against their masks (n, H, W), and what chance would give.

    `inside` and `iou` are per scene; `chance_inside` and `chance_iou` are the same measures against
    the masks of other scenes, so that a map that always points at the middle earns nothing.
    `what` says which maps they are; `pictures` (n, H, W, 3) may be None.
    """

    words: tuple[str, ...]
    maps: np.ndarray
    masks: np.ndarray
    inside: np.ndarray
    iou: np.ndarray
    chance_inside: float
    chance_iou: float
    pictures: np.ndarray | None = None
    what: str = ""

    @property
    def rate(self) -> float:
        """The share of maps that point inside."""
        return float(self.inside.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the rate (`wilson`)."""
        return wilson(int(self.inside.sum()), len(self.inside))

    @cached_property
    def p(self) -> float:
        """How often maps paired at random with these masks point inside at least as often.

        A permutation test, (1 + as good) / (1 + pairings): it holds for any number of scenes.
        """
        return paired_at_random(_hits(self.maps, self.masks))

    @property
    def enough(self) -> bool:
        """Whether there are scenes enough for a verdict."""
        return len(self.maps) >= FEWEST

    @property
    def better_than_chance(self) -> bool:
        """Whether chance would do as well in less than 1 of 100 such tests."""
        return bool(self.enough and self.p < LEVEL)

    @property
    def verdict(self) -> str:
        """One sentence that follows from the numbers."""
        if not np.isfinite(self.maps).all():
            return "these maps hold NaN or infinity: they mean nothing"
        told = f"{self.rate:.0%} point inside, chance {self.chance_inside:.0%}"
        if not self.enough:
            return f"{told}: too few scenes to say, {FEWEST} are needed"
        if self.better_than_chance:
            return told
        if self.rate > 0.5 and self.interval[0] > self.chance_inside:
            return f"{told}: too few scenes to rule chance out (p {self.p:.2g})"
        return f"{told}: no better than chance, these maps mean nothing"


def pointing_game(
    maps: np.ndarray,
    masks: np.ndarray,
    words: Sequence[str] = (),
    *,
    pictures: np.ndarray | None = None,
    what: str = "",
) -> Pointing:
    """Whether each map (n, h, w) points inside its own mask (n, H, W), values 0…1, beside chance.

    Raises InputError for fewer than two scenes (chance needs another mask) and for other shapes.
    """
    maps, masks = np.asarray(maps, np.float64), np.asarray(masks, np.float64)
    _check(maps, masks, pictures)
    count = len(maps)
    names = tuple(words) or tuple(f"scene {i}" for i in range(count))
    if len(names) != count:
        raise InputError(f"{len(names)} words for {count} maps; give one each, or none")
    return Pointing(
        names, maps, masks, points_inside(maps, masks), overlaps(maps, masks),
        *_chance(maps, masks), pictures, what,
    )  # fmt: skip


def _chance(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """Pointing against every other scene's mask, IoU against those of the next eight."""
    count = len(maps)
    hits = _hits(maps, masks)
    others = (hits.sum() - hits.trace()) / (count * (count - 1))
    shifts = range(1, min(count, 9))
    return float(others), float(np.mean([overlaps(maps, np.roll(masks, k, 0)) for k in shifts]))


def _hits(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """bool (masks, maps): whether this map's peak lies inside that mask."""
    cells = pooled(masks, maps.shape[1:]).reshape(len(masks), -1)
    return cells[:, peaks(maps)] > 0.5


def _check(maps: np.ndarray, masks: np.ndarray, pictures: np.ndarray | None) -> None:
    shapes = [maps.shape, masks.shape] + ([] if pictures is None else [np.shape(pictures)[:3]])
    good = maps.ndim == masks.ndim == 3 and len(maps) >= 2
    if not good or len({shape[0] for shape in shapes}) != 1 or len(set(shapes[1:])) != 1:
        raise InputError(
            f"maps, masks and pictures of shapes {shown(shapes)}; allowed are (n, h, w), (n, H, W) "
            "and (n, H, W, 3) with n of 2 or more; give one map and one mask for each scene"
        )


# ---- what chance can do -----------------------------------------------------------------------
def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, p. 209)."""
    share = hits / count
    middle, spread = (
        share + z**2 / (2 * count),
        z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)),
    )
    low, high = ((middle + sign * spread) / (1 + z**2 / count) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def paired_at_random(hits: np.ndarray, seed: int = 0) -> float:
    """The share of random pairings that hit as often as the diagonal of hits (masks, maps).

    (1 + as good) / (1 + pairings), the own pairing counted, so that it is never 0 (Phipson and
    Smyth 2010, arXiv 1603.05766); where the pairing means nothing, p ≤ 0.01 comes up at
    most once in 100 times, however few scenes there are.
    """
    count = len(hits)
    pairs = np.random.default_rng(seed).permuted(np.tile(np.arange(count), (PAIRINGS, 1)), axis=1)
    found = hits[pairs, np.arange(count)].sum(axis=1)
    return float(1 + (found >= hits.trace()).sum()) / (1 + PAIRINGS)
