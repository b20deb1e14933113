"""Where things stand: one in the middle region, two beside or above each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diffusionlab.toyland.grammar import FLYING

# Heights that an object may have, as shares of the picture's height (wide ones stay lower).
HEIGHTS = {
    "car": (0.37, 0.45),
    "boat": (0.47, 0.60),
    "house": (0.44, 0.57),
    "tree": (0.48, 0.61),
    "balloon": (0.50, 0.62),
    "cat": (0.46, 0.58),
    "penguin": (0.46, 0.58),
    "dress": (0.46, 0.58),
    "golden retriever": (0.42, 0.52),
    "labrador": (0.42, 0.52),
    "spaceship": (0.50, 0.62),
    "flower": (0.48, 0.60),
}
# Half of the width, as a share of the height.
HALF_WIDTHS = {
    "car": 0.96,
    "boat": 0.68,
    "house": 0.66,
    "tree": 0.46,
    "balloon": 0.42,
    "cat": 0.48,
    "penguin": 0.43,
    "dress": 0.40,
    "golden retriever": 0.82,
    "labrador": 0.80,
    "spaceship": 0.34,
    "flower": 0.38,
}
ABOVE_SHARE = 0.5  # of the pairs that could hang one above the other


@dataclass(frozen=True)
class Thing:
    """One object of a scene, in shares of the picture.

    `x` is its middle, `y` its lowest point (counted from the top), `scale` its height, `tilt` in
    radians; `colour` is None for a dog in its natural coat.
    """

    kind: str
    colour: str | None
    x: float
    y: float
    scale: float
    flip: bool
    tilt: float


def one(rng: np.random.Generator, kind: str, colour: str | None, setting: str) -> Thing:
    """A single thing: a third to two thirds of the picture high, off the middle where it can."""
    scale = rng.uniform(*HEIGHTS[kind])
    room = min(0.2, 0.47 - HALF_WIDTHS[kind] * scale)
    x = 0.5 + rng.uniform(-room, room)
    floating = setting == "space"
    scale *= 0.93 if floating else 1.0
    y = 0.5 + scale / 2 + rng.uniform(-0.06, 0.06) if floating else _ground(rng, kind)
    tilt = rng.uniform(-0.13, 0.13) if floating else 0.0
    return Thing(kind, colour, x, y, scale, bool(rng.random() < 0.5), tilt)


def _ground(rng: np.random.Generator, kind: str) -> float:
    return rng.uniform(0.70, 0.76) if kind == "balloon" else rng.uniform(0.82, 0.89)


def two(rng: np.random.Generator, named: tuple, setting: str) -> tuple[tuple[Thing, Thing], str]:
    """Two things that do not hide each other, and their relation: "beside" or "above"."""
    things = [one(rng, kind, colour, setting) for kind, colour in named]
    flying = [i for i, thing in enumerate(things) if setting == "space" or thing.kind in FLYING]
    if flying and rng.random() < ABOVE_SHARE:
        upper = flying[int(rng.integers(len(flying)))]
        return _above(rng, things[upper], things[1 - upper]), "above"
    return _beside(rng, *things), "beside"


def _beside(rng, first: Thing, second: Thing) -> tuple[Thing, Thing]:
    gap = rng.uniform(0.03, 0.07)
    halves = np.array([HALF_WIDTHS[t.kind] * t.scale for t in (first, second)])
    shrink = min(0.86, (0.95 - gap) / (2 * halves.sum()))
    halves = halves * shrink
    left = rng.uniform(0.02, 0.98 - gap - 2 * halves.sum())
    middles = left + halves[0], left + 2 * halves[0] + gap + halves[1]
    placed = [_shrunk(t, shrink, x) for t, x in zip((first, second), middles, strict=True)]
    if rng.random() < 0.5:  # the first one stands to the right
        placed = [replace(t, x=1 - t.x) for t in placed]
    return placed[0], placed[1]


def _shrunk(thing: Thing, factor: float, x: float) -> Thing:
    """The same thing, smaller around its lowest point, at another place."""
    return replace(thing, x=float(x), scale=thing.scale * factor)


def _above(rng, upper: Thing, lower: Thing) -> tuple[Thing, Thing]:
    shrink = [min(1.0, rng.uniform(0.36, 0.40) / t.scale) for t in (upper, lower)]
    top = 0.04 + upper.scale * shrink[0] + rng.uniform(0, 0.03)
    upper = replace(_shrunk(upper, shrink[0], _shifted(rng, upper)), y=top)
    lower = replace(_shrunk(lower, shrink[1], _shifted(rng, lower)), y=rng.uniform(0.86, 0.90))
    return upper, lower


def _shifted(rng: np.random.Generator, thing: Thing) -> float:
    room = min(0.14, 0.47 - HALF_WIDTHS[thing.kind] * min(thing.scale, 0.40))
    return 0.5 + rng.uniform(-room, room)
