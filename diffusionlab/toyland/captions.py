"""What can truly be said about a scene, and where in the sentence each word says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.toyland.grammar import COLOURS, OBJECTS, SLOTS
from diffusionlab.toyland.scenes import Scene

SAID = {"colour": 0.88, "setting": 0.90, "time": 0.80}  # how often each is mentioned
FILLER_SHARE = 0.10

# The word itself stands in brackets: it is what the caption's span covers.
PLACES = {
    "city": ("in the [city]", "in the [city]", "in a [city]", "in the big [city]"),
    "ocean": ("on the [ocean]", "on the [ocean]", "in the [ocean]", "on the [sea]", "in the [sea]"),
    "snow": ("on the [snow]", "on the [snow]", "in the [snow]", "in the [snowy field]"),
    "meadow": ("in the [meadow]", "on the [meadow]", "in a [meadow]", "on a [meadow]"),
    "mountains": (
        "in the [mountains]",
        "in the [mountains]",
        "among the [mountains]",
        "before the [mountains]",
    ),
    "space": ("in [space]", "in [space]", "in outer [space]"),
    "desert": (
        "in the [desert]",
        "in the [desert]",
        "in a [desert]",
        "on the sand of the [desert]",
    ),
}
VIEWS = {
    "city": ("the [city]", "a [city]"),
    "ocean": ("the [ocean]", "the [sea]"),
    "snow": ("the [snow]", "the [snowy field]"),
    "meadow": ("the [meadow]", "a [meadow]"),
    "mountains": ("the [mountains]", "[mountains]"),
    "space": ("[space]", "outer [space]"),
    "desert": ("the [desert]", "a [desert]"),
}
WHEN = {
    "day": ("at [day]", "at [day]", "by [day]", "during the [day]"),
    "sunset": ("at [sunset]", "at [sunset]", "at [dusk]", "during [sunset]"),
    "night": ("at [night]", "at [night]", "by [night]", "[after dark]"),
}
OPENINGS = ("a photo of ", "a picture of ", "a painting of ")
CLOSINGS = (", highly detailed", ", beautiful", ", cinematic lighting")


@dataclass(frozen=True, eq=False)
class Caption:
    """A sentence, the atoms that it says (slot -> word), and atom slot -> (start, end)."""

    text: str
    atoms: dict[str, str]
    spans: dict[str, tuple[int, int]]


def is_true(atoms: dict[str, str], scene: Scene) -> bool:
    """Whether everything that the atoms say (slot -> word) holds in the scene."""
    for slot in atoms:
        if slot not in SLOTS:
            raise InputError(
                f"the atom {shown(slot)} was given; {close_matches(str(slot), SLOTS)}"
                f"atoms are {', '.join(SLOTS)}. Use one of these."
            )
    return all(getattr(scene, slot) == word for slot, word in atoms.items())


def captions(scene: Scene, count: int) -> tuple[Caption, ...]:
    """`count` captions of a scene, the same ones every time; some may coincide."""
    rng = np.random.default_rng((scene.seed, 1))
    return tuple(caption(scene, rng) for _ in range(count))


def caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """One caption, its wording and what it leaves out drawn from `rng`."""
    pieces = _with_object(scene, rng) if scene.object else _without_object(scene, rng)
    if rng.random() < FILLER_SHARE:
        before = rng.random() < 0.5
        pieces = [_pick(rng, OPENINGS), *pieces] if before else [*pieces, _pick(rng, CLOSINGS)]
    return _joined(pieces, scene)


Piece = str | tuple[str, str]  # plain text, or (slot, text with the [word] in brackets)


def _with_object(scene: Scene, rng: np.random.Generator) -> list[Piece]:
    colour, setting, time = (rng.random() < SAID[slot] for slot in ("colour", "setting", "time"))
    thing = _thing(scene, colour)
    when = [("time", _pick(rng, WHEN[scene.time]))] if time and scene.time else []
    order = rng.random()
    if setting and order < 0.15:
        view = [("setting", _pick(rng, VIEWS[scene.setting]))]
        return [*_spaced(view, when), " with ", *thing]
    place = [("setting", _pick(rng, PLACES[scene.setting]))] if setting else []
    if when and order < 0.30:
        return [*when, ", ", *_spaced(thing, place)]
    return _spaced(thing, place, when)


def _thing(scene: Scene, with_colour: bool) -> list[Piece]:
    first = scene.colour if with_colour else scene.object
    article = "an " if first[0] in "aeiou" else "a "
    colour = [("colour", f"[{scene.colour}]"), " "] if with_colour else []
    return [article, *colour, ("object", f"[{scene.object}]")]


def _without_object(scene: Scene, rng: np.random.Generator) -> list[Piece]:
    view = [("setting", _pick(rng, VIEWS[scene.setting]))]
    if scene.time is None:
        return view
    when = ("time", _pick(rng, WHEN[scene.time]))
    order = rng.random()
    if order < 0.25 and scene.time == "sunset":
        return ["a ", ("time", "[sunset]"), " over ", *view]
    if order < 0.40:
        return [when, ", ", *view]
    return _spaced(view, [when] if rng.random() < SAID["time"] else [])


def _spaced(*groups: list[Piece]) -> list[Piece]:
    """The groups that say something, with a space between each two."""
    joined: list[Piece] = []
    for group in filter(None, groups):
        joined += ([" "] if joined else []) + group
    return joined


def _joined(pieces: list[Piece], scene: Scene) -> Caption:
    text, spans = "", {}
    for piece in pieces:
        slot, words = piece if isinstance(piece, tuple) else (None, piece)
        if slot:
            start = len(text) + words.index("[")
            spans[slot] = (start, len(text) + words.index("]") - 1)
        text += words.replace("[", "").replace("]", "")
    return Caption(text, {slot: getattr(scene, slot) for slot in spans}, spans)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _every_word() -> tuple[str, ...]:
    tables = (PLACES, VIEWS, WHEN)
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [*OBJECTS, *COLOURS, *OPENINGS, *CLOSINGS, "a an with over"]
    return tuple(sorted(set(re.findall(r"[a-z]+", " ".join(phrases)))))


WORDS = _every_word()
