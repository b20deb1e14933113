"""What can truly be said about a scene, and where in the sentence each word says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from diffusionlab.toyland import phrases as say
from diffusionlab.toyland.grammar import FULL, HYPERNYMS, Share
from diffusionlab.toyland.scenes import Scene

# How often each slot is mentioned, and how often a wording is chosen.
SAID = {"colour": 0.88, "setting": 0.90, "time": 0.80, "style": 0.92, "side": 0.25}
FILLER_SHARE, ADJECTIVE_SHARE, HYPERNYM_SHARE = 0.10, 0.04, 0.10
PAIR_SHARE = 0.85  # captions of a pair that name both

Span = tuple[int, int]


@dataclass(frozen=True)
class Claim:
    """One thing that a caption names: a kind or a hypernym, a colour or None, and their spans."""

    kind: str
    colour: str | None = None
    kind_span: Span = (0, 0)
    colour_span: Span | None = None


@dataclass(frozen=True, eq=False)
class Caption:
    """A sentence and what it claims.

    `claims` are the things that it names, in order; `atoms` maps setting, time, style, antarctic,
    side and relation (between the first and the second claim) to what is said of them, and street,
    wet, reflections and signs to themselves; `spans` has (start, end) in characters for each.
    """

    text: str
    claims: tuple[Claim, ...] = ()
    atoms: dict[str, str] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)


def is_true(said: Caption, scene: Scene) -> bool:
    """Whether everything that a caption claims holds in the scene."""
    shown = {
        "setting": scene.setting,
        "time": scene.time,
        "style": scene.style,
        "antarctic": "antarctic" if scene.antarctic else None,
        "side": scene.side,
    }
    if any(shown.get(slot, word) != word for slot, word in said.atoms.items()):
        return False
    return _claims_hold(said, scene)


def _claims_hold(said: Caption, scene: Scene) -> bool:
    relation = said.atoms.get("relation")
    orders = [(0, 1), (1, 0)] if len(scene.things) == 2 else [(0,)] if scene.things else [()]
    for order in orders:
        pairs = list(zip(said.claims, (scene.things[i] for i in order), strict=False))
        matched = len(pairs) == len(said.claims) and all(_matches(c, t) for c, t in pairs)
        if matched and (relation is None or relation in scene.relations(order[0])):
            return True
    return False


def _matches(claim: Claim, thing) -> bool:
    kinds = HYPERNYMS.get(claim.kind, (claim.kind,))
    return thing.kind in kinds and claim.colour in (None, thing.colour)


def captions(scene: Scene, count: int, share: Share = FULL) -> tuple[Caption, ...]:
    """`count` captions of a scene, the same ones every time; some may coincide."""
    rng = np.random.default_rng((scene.seed, 1))
    return tuple(caption(scene, rng, share) for _ in range(count))


def caption(
    scene: Scene, rng: np.random.Generator, share: Share = FULL, *, unseen: bool = False
) -> Caption:
    """One caption, its wording and what it leaves out drawn from `rng`.

    `share` limits the hypernyms to those that it gives two kinds; `unseen` takes the orders of
    clauses that training never uses. The prompts in KEPT_PROMPTS never come out.
    """
    write = _Writer(scene, rng, share)
    while True:
        made = _joined(write.unseen() if unseen else write.caption())
        if made.text.lower() not in say.KEPT_PROMPTS:
            return made


Piece = str | tuple[str, str, str]  # plain text, or (slot, its value, text with [the word])


class _Writer:
    """The choices of one caption, each drawn in the order of the sentence."""

    def __init__(self, scene: Scene, rng: np.random.Generator, share: Share) -> None:
        self.scene, self.rng, self.share = scene, rng, share

    def pick(self, options: tuple) -> object:
        return options[int(self.rng.integers(len(options)))]

    def says(self, slot: str) -> bool:
        return self.rng.random() < SAID[slot]

    def caption(self) -> list[Piece]:
        """A sentence in one of the orders that training uses, perhaps with a filler."""
        pieces = self.with_things() if self.scene.things else self.without_things()
        if self.rng.random() < FILLER_SHARE:
            if self.rng.random() < 0.5:
                return [self.pick(say.OPENINGS), *pieces]
            return [*pieces, self.pick(say.CLOSINGS)]
        return pieces

    def with_things(self) -> list[Piece]:
        things, place = self.things(), self.place() if self.says("setting") else []
        when = self.when() if self.says("time") else []
        order = self.rng.random()
        if place and order < 0.12:
            return [*_spaced(self.view(), when), " with ", *things]
        if when and order < 0.24:
            return [*when, ", ", *_spaced(things, place)]
        if order < 0.32:
            return _spaced(["there is"], things, place, when)
        return _spaced(things, place, when)

    def unseen(self) -> list[Piece]:
        """Orders of clauses that `caption` never uses; all words of them are trained ones."""
        if not self.scene.things:
            return _spaced(["there is"], self.view(), self.when())
        things, order = self.things(), self.rng.random()
        if order < 0.34:
            return _spaced(self.place(), self.when(), ["there is"], things)
        if order < 0.67:
            return [*_spaced(self.place(), self.when()), ", ", *things]
        return [*_spaced(things, self.when()), ", ", *self.place()]

    def things(self) -> list[Piece]:
        scene = self.scene
        numbers = list(range(len(scene.things)))
        if len(numbers) == 1:
            side = self.side() if scene.side and self.says("side") else []
            return _spaced(self.thing(0, 0), side)
        first = int(self.rng.integers(2))
        if self.rng.random() >= PAIR_SHARE:
            return self.thing(first, 0)
        both = self.thing(first, 0), self.thing(1 - first, 1)
        if self.rng.random() < 0.15:
            return [*both[0], " and ", *both[1]]
        word = self.pick(scene.relations(first))
        return [*both[0], ("relation", word, self.pick(say.BETWEEN[word])), *both[1]]

    def thing(self, number: int, claim: int) -> list[Piece]:
        """Article, adjectives, colour and name of one thing."""
        thing = self.scene.things[number]
        pieces: list[Piece] = []
        if self.rng.random() < ADJECTIVE_SHARE:
            pieces.append(self.pick(say.ADJECTIVES))
        if self.scene.style == "neon" and claim == 0 and self.says("style"):
            pieces += [("style", "neon", "[neon]"), " "]
        if thing.colour and self.says("colour"):
            pieces += [(f"colour{claim}", thing.colour, f"[{thing.colour}]"), " "]
        kind, name = self.name(thing.kind)
        pieces.append((f"kind{claim}", kind, f"[{name}]"))
        first = pieces[0] if isinstance(pieces[0], str) else pieces[0][2].lstrip("[")
        return ["an " if first[0] in "aeiou" else "a ", *pieces]

    def name(self, kind: str) -> tuple[str, str]:
        """What the claim is about and how it is called: the kind, a synonym or a hypernym."""
        if self.rng.random() < HYPERNYM_SHARE:
            wider = tuple(w for w, kinds in self.share.hypernyms.items() if kind in kinds)
            if wider:
                word = self.pick(wider)
                return word, word
        names = say.KINDS.get(kind, (kind,))
        return kind, names[0] if self.rng.random() < 0.5 else self.pick(names)

    def side(self) -> list[Piece]:
        return [("side", self.scene.side, self.pick(say.SIDE[self.scene.side]))]

    def place(self) -> list[Piece]:
        """Where: the setting, in the Antarctic often by that name, cyberpunk by its style."""
        scene = self.scene
        if scene.antarctic and self.rng.random() < 0.5:
            return [("antarctic", "antarctic", self.pick(say.ANTARCTIC_PLACES))]
        where = [("setting", scene.setting, self.pick(say.PLACES[scene.setting]))]
        if scene.style == "cyberpunk" and self.says("style"):
            if self.rng.random() < 0.6:
                return ["in a ", ("style", "cyberpunk", "[cyberpunk]"), " ", *self.bare_city()]
            return [*where, " ", *self.lights(say.CYBERPUNK)]
        return where

    def bare_city(self) -> list[Piece]:
        return [("setting", "city", self.pick(("[city]", "[cityscape]", "[street]")))]

    def lights(self, phrases: tuple[str, ...]) -> list[Piece]:
        """A phrase with several words in brackets, each a piece of its own."""
        pieces: list[Piece] = []
        for part in re.split(r"(\[[a-z]+\])", self.pick(phrases)):
            word = part.strip("[]")
            slot = say.SEEN_AS.get(word, word)
            value = "cyberpunk" if slot == "style" else slot
            pieces.append((slot, value, part) if part.startswith("[") else part)
        return [piece for piece in pieces if piece]

    def view(self) -> list[Piece]:
        """The setting as what is seen; a neon scene without things says so at the end."""
        scene = self.scene
        if scene.antarctic and self.rng.random() < 0.5:
            return [("antarctic", "antarctic", self.pick(say.ANTARCTIC_VIEWS))]
        if scene.style == "cyberpunk" and self.says("style"):
            tail = self.rng.random() < 0.4
            city = ["a ", ("style", "cyberpunk", "[cyberpunk]"), " ", *self.bare_city()]
            lights = [
                "neon" if isinstance(piece, tuple) and piece[0] == "style" else piece
                for piece in self.lights(say.CYBERPUNK[:2])
            ]
            return [*city, " ", *lights] if tail else city
        return [("setting", scene.setting, self.pick(say.VIEWS[scene.setting]))]

    def when(self) -> list[Piece]:
        time = self.scene.time
        return [("time", time, self.pick(say.WHEN[time]))] if time else []

    def without_things(self) -> list[Piece]:
        scene, view = self.scene, self.view()
        neon = [", in neon style"] if scene.style == "neon" and self.says("style") else []
        if scene.time is None:
            return [*view, *neon]
        order = self.rng.random()
        if order < 0.25 and scene.time == "sunset":
            return ["a ", ("time", "sunset", "[sunset]"), " over ", *view, *neon]
        if order < 0.40:
            return [*self.when(), ", ", *view, *neon]
        return [*_spaced(view, self.when() if self.says("time") else []), *neon]


def _spaced(*groups: list[Piece]) -> list[Piece]:
    """The groups that say something, with a space between each two."""
    joined: list[Piece] = []
    for group in filter(None, groups):
        joined += ([" "] if joined else []) + group
    return joined


def _joined(pieces: list[Piece]) -> Caption:
    text, spans, values = "", {}, {}
    for piece in pieces:
        slot, value, words = piece if isinstance(piece, tuple) else (None, None, piece)
        if slot:
            start = len(text) + words.index("[")
            spans[slot], values[slot] = (start, len(text) + words.index("]") - 1), value
        text += words.replace("[", "").replace("]", "")
    claims = tuple(
        Claim(
            values[f"kind{n}"], values.get(f"colour{n}"), spans[f"kind{n}"], spans.get(f"colour{n}")
        )
        for n in (0, 1)
        if f"kind{n}" in spans
    )
    atoms = {slot: value for slot, value in values.items() if slot[:-1] not in ("kind", "colour")}
    if "antarctic" in atoms:
        atoms["setting"], spans["setting"] = "snow", spans["antarctic"]
    return Caption(text, claims, atoms, {slot: spans[slot] for slot in atoms})
