"""The words of Toyland's world, its palette, and which combinations training never sees."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

GRAMMAR_VERSION = 2

OBJECTS = (
    "car",
    "boat",
    "house",
    "tree",
    "balloon",
    "cat",
    "penguin",
    "dress",
    "golden retriever",
    "labrador",
    "spaceship",
    "flower",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
SETTINGS = ("city", "ocean", "snow", "meadow", "mountains", "space", "desert", "grid")
TIMES = ("day", "sunset", "night")
STYLES = ("plain", "neon", "cyberpunk")
RELATIONS = ("beside", "left of", "right of", "above", "below")
SIDES = ("left", "right")

TIMELESS = ("space", "grid")  # settings without a time of day
DOGS = ("golden retriever", "labrador")  # sometimes without a colour word: their natural coat
FLYING = ("balloon", "spaceship")  # what may hang above another thing

# A word that is true of several kinds; a share of the world says it if it has two of them.
HYPERNYMS = {
    "animal": ("cat", "penguin", *DOGS),
    "dog": DOGS,
    "vehicle": ("car", "boat", "spaceship"),
    "plant": ("tree", "flower"),
}

RGB = tuple[int, int, int]

PALETTE: dict[str, RGB] = {
    "red": (222, 38, 42),
    "orange": (250, 132, 22),
    "yellow": (252, 214, 40),
    "green": (44, 162, 66),
    "blue": (36, 98, 220),
    "purple": (130, 58, 184),
    "pink": (252, 128, 182),
    "white": (247, 247, 250),
    "black": (36, 36, 44),
}
NATURAL_COATS: dict[str, RGB] = {"golden retriever": (224, 154, 66), "labrador": (240, 218, 170)}


@dataclass(frozen=True)
class Share:
    """A part of the world that a model is trained on.

    `pairs` and `empty` are the shares of scenes with two objects and with none.
    """

    name: str
    objects: tuple[str, ...] = OBJECTS
    settings: tuple[str, ...] = SETTINGS
    styles: tuple[str, ...] = STYLES
    pairs: float = 0.30
    empty: float = 0.05

    @property
    def hypernyms(self) -> dict[str, tuple[str, ...]]:
        """Hypernym -> its kinds in this share, where there are at least two."""
        known = {w: tuple(k for k in kinds if k in self.objects) for w, kinds in HYPERNYMS.items()}
        return {word: kinds for word, kinds in known.items() if len(kinds) > 1}


FULL = Share("full")
SMALL = Share("small", OBJECTS[:8], SETTINGS[:7], ("plain",), pairs=0.20)
SHARES = {share.name: share for share in (FULL, SMALL)}


def held_out(kind: str, colour: str | None, setting: str) -> bool:
    """Whether a triple is kept from training: one in ten, by a hash that no run can change."""
    if colour is None:
        return False
    digest = hashlib.sha256(f"{kind} {colour} {setting}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10 == 0


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """`first` with `share` (0..1) of `second` in it."""
    r, g, b = (round(f + (s - f) * share) for f, s in zip(first, second, strict=True))
    return (r, g, b)


def lit(colour: RGB, light: tuple[float, float, float]) -> RGB:
    """A colour under a coloured light, channel by channel."""
    r, g, b = (min(255, round(c * factor)) for c, factor in zip(colour, light, strict=True))
    return (r, g, b)
