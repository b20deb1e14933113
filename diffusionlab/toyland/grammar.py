"""The words of Toyland's world, its palette, and which combinations training never sees."""

from __future__ import annotations

import hashlib

GRAMMAR_VERSION = 1

OBJECTS = ("car", "boat", "house", "tree", "balloon", "cat")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black")
SETTINGS = ("city", "ocean", "snow", "meadow", "mountains", "space", "desert")
TIMES = ("day", "sunset", "night")

SLOTS = {"object": OBJECTS, "colour": COLOURS, "setting": SETTINGS, "time": TIMES}

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


def held_out(kind: str, colour: str, setting: str) -> bool:
    """Whether a triple is kept from training: one in ten, by a hash that no run can change."""
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
