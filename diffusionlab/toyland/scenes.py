"""A scene: everything that a picture of Toyland is drawn from, drawn itself from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.toyland.grammar import (
    COLOURS,
    DOGS,
    FULL,
    OBJECTS,
    SETTINGS,
    STYLES,
    TIMELESS,
    TIMES,
    Share,
    held_out,
)
from diffusionlab.toyland.layout import Thing, one, two

NATURAL_SHARE = 0.5  # dogs in their natural coat
STYLE_SHARES = {"neon": 0.12, "cyberpunk": 0.35}  # of all scenes; of those in the city
ANTARCTIC_SHARE = 0.35  # snow with icebergs

SLOTS = {
    "object": OBJECTS,
    "colour": COLOURS,
    "other": OBJECTS,
    "other_colour": COLOURS,
    "setting": SETTINGS,
    "time": TIMES,
    "style": STYLES,
}


@dataclass(frozen=True)
class Scene:
    """What is in one picture; lengths are shares of the picture, y counts down from the top.

    `things` holds none, one or two `Thing`s of different kinds; of two, `relation` says whether
    they stand "beside" each other or the first is "above" the second. `light_x`, `light_y` place
    the sun or moon; `details` seeds the scenery.
    """

    seed: int
    setting: str
    time: str | None
    style: str
    things: tuple[Thing, ...]
    relation: str | None
    antarctic: bool
    horizon: float
    light_x: float
    light_y: float
    details: int

    @property
    def object(self) -> str | None:
        """The kind of the first thing."""
        return self.things[0].kind if self.things else None

    @property
    def colour(self) -> str | None:
        """The colour of the first thing; None without one, or for a dog's natural coat."""
        return self.things[0].colour if self.things else None

    @property
    def side(self) -> str | None:
        """`left` or `right` where a single thing stands clearly off the middle."""
        if len(self.things) != 1 or 0.41 < self.things[0].x < 0.59:
            return None
        return "left" if self.things[0].x < 0.5 else "right"

    def relations(self, first: int = 0) -> tuple[str, ...]:
        """What holds between thing `first` and the other one, out of RELATIONS."""
        if len(self.things) != 2:
            return ()
        mine, other = self.things[first], self.things[1 - first]
        if self.relation == "above":
            return ("above",) if first == 0 else ("below",)
        return ("beside", "left of" if mine.x < other.x else "right of")


def scene(seed: int, share: Share = FULL, **fixed: str | None) -> Scene:
    """The scene of a seed within a share of the world, with any words fixed by name.

    `object`, `colour`, `setting`, `time`, `style` fix what their names say; `other` and
    `other_colour` a second thing. `object=None` asks for scenery alone, `time=None` for a setting
    without a time of day. A fixed object or colour stands alone unless `other` is given too.
    What is not fixed avoids the held-out triples; fixed words are never refused.
    Raises InputError for a seed that is no integer in [0, 2**63) and for unknown words.
    """
    _check_seed(seed)
    _check_fixed(fixed)
    rng = np.random.default_rng(seed)
    setting, named = _what(rng, share, fixed)
    time = fixed["time"] if "time" in fixed else _pick(rng, TIMES)
    style = fixed.get("style") or _style(rng, share, setting)
    things, relation = _placed(rng, named, setting)
    side = 1 if rng.random() < 0.5 else -1
    return Scene(
        seed=int(seed),
        setting=setting,
        time=None if setting in TIMELESS else time,
        style=style,
        things=things,
        relation=relation,
        antarctic=setting == "snow" and bool(rng.random() < ANTARCTIC_SHARE),
        horizon=rng.uniform(0.55, 0.61),
        light_x=0.5 + side * rng.uniform(0.28, 0.36),
        light_y=rng.uniform(0.13, 0.2),
        details=int(rng.integers(2**31)),
    )


def _pick(rng: np.random.Generator, options: tuple) -> object:
    return options[int(rng.integers(len(options)))]


Named = tuple[str, str | None]  # kind and colour


def _what(rng, share: Share, fixed: dict) -> tuple[str, tuple[Named, ...]]:
    """The setting and none, one or two things by name."""
    settings = _settings(share, fixed)
    roll = rng.random()
    alone = {"object", "colour"} & set(fixed)
    if ("object" in fixed and fixed["object"] is None) or (roll < share.empty and not alone):
        return _pick(rng, settings), ()
    kind, colour, setting = _pick(
        rng, _triples(share, fixed.get("object"), fixed.get("colour"), settings)
    )
    first = (kind, _coat(rng, kind, colour, fixed.get("colour")))
    paired = {"other", "other_colour"} & set(fixed)
    if not paired and (alone or roll >= share.empty + share.pairs):
        return setting, (first,)
    return setting, (first, _second(rng, share, fixed, kind, setting))


def _second(rng, share: Share, fixed: dict, kind: str, setting: str) -> Named:
    triples = _triples(share, fixed.get("other"), fixed.get("other_colour"), (setting,))
    options = tuple(triple for triple in triples if triple[0] != kind)
    other, colour, _ = _pick(rng, options)
    return other, _coat(rng, other, colour, fixed.get("other_colour"))


def _coat(rng, kind: str, colour: str, fixed: str | None) -> str | None:
    natural = kind in DOGS and fixed is None and rng.random() < NATURAL_SHARE
    return None if natural else colour


def _style(rng: np.random.Generator, share: Share, setting: str) -> str:
    roll, drawn = rng.random(), "plain"
    if roll < STYLE_SHARES["neon"]:
        drawn = "neon"
    elif setting == "city" and roll < STYLE_SHARES["neon"] + STYLE_SHARES["cyberpunk"]:
        drawn = "cyberpunk"
    return drawn if drawn in share.styles else share.styles[0]


def _settings(share: Share, fixed: dict) -> tuple[str, ...]:
    """The settings left open by the fixed words."""
    if "setting" in fixed:
        return (fixed["setting"],)
    if fixed.get("style") == "cyberpunk":
        return ("city",)
    if "time" not in fixed:
        return share.settings
    return tuple(s for s in share.settings if (s in TIMELESS) == (fixed["time"] is None))


@lru_cache(maxsize=2048)
def _triples(share: Share, kind: str | None, colour: str | None, settings: tuple) -> tuple:
    kinds = (kind,) if kind else share.objects
    every = tuple(product(kinds, (colour,) if colour else COLOURS, settings))
    return tuple(triple for triple in every if not held_out(*triple)) or every


def _placed(rng, named: tuple[Named, ...], setting: str) -> tuple[tuple[Thing, ...], str | None]:
    if not named:
        return (), None
    if len(named) == 1:
        return (one(rng, *named[0], setting),), None
    return two(rng, named, setting)


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
    _check_time(fixed)
    _check_things(fixed)


def _check_time(fixed: dict) -> None:
    setting, time = fixed.get("setting"), fixed.get("time")
    if setting in TIMELESS and time is not None:
        raise InputError(
            f"time={shown(time)} was given with setting={shown(setting)}; {setting} has no time "
            "of day. Leave time out, or choose another setting."
        )
    if setting not in (None, *TIMELESS) and "time" in fixed and time is None:
        raise InputError(
            f"time=None was given with setting={shown(setting)}; only {' and '.join(TIMELESS)} "
            f"have no time of day. Choose one of {', '.join(TIMES)}."
        )
    if fixed.get("style") == "cyberpunk" and setting not in (None, "city"):
        raise InputError(
            f"style='cyberpunk' was given with setting={shown(setting)}; it is a style of the "
            "city. Leave the setting out, or choose plain or neon."
        )


def _check_things(fixed: dict) -> None:
    """Words that are right one by one and contradict each other."""
    if "object" in fixed and fixed["object"] is None:
        for slot in {"colour", "other", "other_colour"} & set(fixed):
            raise InputError(
                f"{slot}={shown(fixed[slot])} was given with object=None; it needs an object. "
                f"Leave {slot} out, or choose an object."
            )
    if fixed.get("other") is not None and fixed.get("other") == fixed.get("object"):
        raise InputError(
            f"other={shown(fixed['other'])} was given with the same object; two things of a scene "
            "are of different kinds. Choose another kind."
        )
