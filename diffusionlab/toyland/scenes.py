"""A scene: everything that a picture of Toyland is drawn from, drawn itself from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.toyland.grammar import COLOURS, OBJECTS, SETTINGS, SLOTS, TIMES, held_out

EMPTY_SHARE = 0.05

# Heights that an object may have, as shares of the picture's height (wide ones stay lower).
HEIGHTS = {
    "car": (0.37, 0.45),
    "boat": (0.47, 0.60),
    "house": (0.44, 0.57),
    "tree": (0.48, 0.61),
    "balloon": (0.50, 0.62),
    "cat": (0.46, 0.58),
}

HALF_WIDTHS = {"car": 0.96, "boat": 0.68, "house": 0.66}  # shares of the height


@dataclass(frozen=True)
class Scene:
    """What is in one picture; lengths are shares of the picture, y counts down from the top.

    `x` is the middle of the object, `y` its lowest point, `scale` its height, `tilt` in radians.
    `light_x`, `light_y` place the sun or moon; `details` seeds the scenery.
    """

    seed: int
    setting: str
    time: str | None
    object: str | None
    colour: str | None
    x: float
    y: float
    scale: float
    flip: bool
    tilt: float
    horizon: float
    light_x: float
    light_y: float
    details: int


def scene(seed: int, **fixed: str | None) -> Scene:
    """The scene of a seed, with any of `object`, `colour`, `setting`, `time` fixed by name.

    `object=None` asks for scenery alone; `time=None` for space, which has no time of day.
    What is not fixed avoids the held-out triples; three fixed words are never refused.
    Raises InputError for a seed that is no integer in [0, 2**63) and for unknown words.
    """
    _check_seed(seed)
    _check_fixed(fixed)
    rng = np.random.default_rng(seed)
    kind, colour, setting = _what(rng, fixed)
    time = fixed["time"] if "time" in fixed else _pick(rng, TIMES)
    return _placed(rng, int(seed), kind, colour, setting, None if setting == "space" else time)


def _pick(rng: np.random.Generator, options: tuple) -> object:
    return options[int(rng.integers(len(options)))]


def _what(rng: np.random.Generator, fixed: dict) -> tuple[str | None, str | None, str]:
    empty = rng.random() < EMPTY_SHARE and not {"object", "colour"} & set(fixed)
    if empty or ("object" in fixed and fixed["object"] is None):
        return None, None, _pick(rng, _settings(fixed))
    wanted = tuple(fixed.get(slot) for slot in ("object", "colour"))
    return _pick(rng, _triples(*wanted, _settings(fixed)))


def _settings(fixed: dict) -> tuple[str, ...]:
    """The settings left open by the fixed words: space has no time, all others have one."""
    if "setting" in fixed:
        return (fixed["setting"],)
    if "time" not in fixed:
        return SETTINGS
    return tuple(s for s in SETTINGS if (s == "space") == (fixed["time"] is None))


@lru_cache(maxsize=512)
def _triples(kind: str | None, colour: str | None, settings: tuple[str, ...]) -> tuple:
    kinds = (kind,) if kind else OBJECTS
    every = tuple(product(kinds, (colour,) if colour else COLOURS, settings))
    return tuple(triple for triple in every if not held_out(*triple)) or every


def _placed(rng, seed, kind, colour, setting, time) -> Scene:
    low, high = HEIGHTS.get(kind, (0.5, 0.5))
    scale = rng.uniform(low, high)
    room = min(0.09, 0.47 - HALF_WIDTHS.get(kind, 0) * scale)
    x = 0.5 + rng.uniform(-room, room)
    side = 1 if rng.random() < 0.5 else -1
    floating = setting == "space"
    scale *= 0.93 if floating else 1.0
    y = 0.5 + scale / 2 + rng.uniform(-0.06, 0.06) if floating else rng.uniform(0.82, 0.89)
    if kind == "balloon" and not floating:
        y = rng.uniform(0.70, 0.76)
    return Scene(
        seed=seed,
        setting=setting,
        time=time,
        object=kind,
        colour=colour,
        x=x,
        y=y,
        scale=scale,
        flip=bool(rng.random() < 0.5),
        tilt=rng.uniform(-0.13, 0.13) if floating else 0.0,
        horizon=rng.uniform(0.55, 0.61),
        light_x=0.5 + side * rng.uniform(0.28, 0.36),
        light_y=rng.uniform(0.13, 0.2),
        details=int(rng.integers(2**31)),
    )


def _check_seed(seed: object) -> None:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise InputError(
            f"seed={shown(seed)} was given; a scene's seed is an integer with 0 <= seed < 2**63. "
            "Give such a number, for example seed=0."
        )


def _check_fixed(fixed: dict) -> None:
    for slot, word in fixed.items():
        if slot not in SLOTS:
            raise InputError(
                f"scene() was given {shown(slot)}; {close_matches(slot, SLOTS)}"
                f"it fixes only {', '.join(SLOTS)}. Leave the rest to the seed."
            )
        if word not in SLOTS[slot] and not (word is None and slot in ("object", "time")):
            raise InputError(
                f"{slot}={shown(word)} was given; {close_matches(str(word), SLOTS[slot])}"
                f"Toyland knows {', '.join(SLOTS[slot])}. Choose one of these."
            )
    _check_together(fixed)


def _check_together(fixed: dict) -> None:
    """Words that are right one by one and contradict each other."""
    setting, time = fixed.get("setting"), fixed.get("time")
    if setting == "space" and time is not None:
        raise InputError(
            f"time={shown(time)} was given with setting='space'; space has no time of day. "
            "Leave time out, or choose another setting."
        )
    if setting not in (None, "space") and "time" in fixed and time is None:
        raise InputError(
            f"time=None was given with setting={shown(setting)}; only space has no time of day. "
            f"Choose one of {', '.join(TIMES)}."
        )
    if "object" in fixed and fixed["object"] is None and "colour" in fixed:
        raise InputError(
            f"colour={shown(fixed['colour'])} was given with object=None; the colour belongs to "
            "the object. Leave colour out, or choose an object."
        )
