"""The benchmark's prompts: captions of scenes of the test seeds that say enough to be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as numbers
from itertools import product

import numpy as np

from ..errors import InputError
from ..toyland import COLOURS, Caption, Scene, Share, caption, held_out, scene
from .data import SEEDS

TRIES = 400  # captions drawn before a scene is passed over


@dataclass(frozen=True, eq=False)
class Prompt:
    """One caption with the scene that it is true of; `unseen`: its triple was never trained."""

    scene: Scene
    caption: Caption
    unseen: bool = False

    @property
    def text(self) -> str:
        return self.caption.text

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that the caption names, in its order."""
        return tuple(claim.kind for claim in self.caption.claims)

    @property
    def colours(self) -> dict[str, str]:
        """Kind -> the colour that the caption gives it."""
        return {c.kind: c.colour for c in self.caption.claims if c.colour}


def says_everything(told: Caption, shown: Scene) -> bool:
    """Whether a caption names every thing and its colour, the setting, and the time if any."""
    claimed = {(claim.kind, claim.colour) for claim in told.claims}
    things = {(thing.kind, thing.colour) for thing in shown.things}
    scenery = told.atoms.get("setting") == shown.setting and told.atoms.get("time") == shown.time
    return claimed == things and scenery


def full_caption(
    shown: Scene, share: Share, wanted: Callable[[Caption, Scene], bool]
) -> Caption | None:
    """The first caption in trained wordings that says what is wanted; None if none is found."""
    rng = np.random.default_rng([7, shown.seed])
    drawn = (caption(shown, rng, share) for _ in range(TRIES))
    return next((told for told in drawn if wanted(told, shown)), None)


def _taken(
    scenes: Iterator[Scene], share: Share, count: int, things: int, unseen: bool = False
) -> list[Prompt]:
    """Prompts of the first scenes that hold so many coloured things and have a full caption."""
    found: list[Prompt] = []
    for shown in scenes:
        if len(found) == count:
            break
        if len(shown.things) == things and all(thing.colour for thing in shown.things):
            told = full_caption(shown, share, says_everything)
            found += [Prompt(shown, told, unseen)] if told else []
    return found


def held_out_triples(share: Share) -> list[tuple[str, str, str]]:
    """Every (object, colour, setting) of a share of the world that its training never shows."""
    every = product(share.objects, COLOURS, share.settings)
    return [triple for triple in every if held_out(*triple)]


def _unseen_scenes(share: Share, first: int) -> Iterator[Scene]:
    triples = held_out_triples(share)
    if not triples:
        raise InputError(
            f"share {share.name!r} has no held-out triple; unseen prompts need a share with more "
            "objects, colours or settings"
        )
    order = np.random.default_rng(8).permutation(len(triples))
    for i in numbers():
        kind, colour, setting = triples[order[i % len(order)]]
        yield scene(first + i, share, object=kind, colour=colour, setting=setting)


def one_object_prompts(share: Share, count: int) -> list[Prompt]:
    """`count` prompts of one coloured object, the second half of them of held-out triples."""
    first = SEEDS["test"]
    seen = (scene(first + i, share) for i in numbers())
    unseen = _unseen_scenes(share, first + 1_000_000)
    half = count // 2
    return _taken(seen, share, count - half, 1) + _taken(unseen, share, half, 1, unseen=True)


def two_object_prompts(share: Share, count: int) -> list[Prompt]:
    """`count` prompts that name two objects of different kinds, each with its colour."""
    first = SEEDS["test"] + 2_000_000
    scenes = (scene(first + i, share) for i in numbers())
    return _taken((s for s in scenes if _colours_differ(s)), share, count, 2)


def _colours_differ(shown: Scene) -> bool:
    return len({thing.colour for thing in shown.things}) == 2


# ---- paraphrases -----------------------------------------------------------------------------
def said(told: Caption) -> tuple:
    """All that a caption says, in one comparable value; a relation reads from first to second."""
    claims = tuple((claim.kind, claim.colour) for claim in told.claims)
    return claims, tuple(sorted(told.atoms.items()))


def paraphrases(share: Share, count: int) -> list[tuple[str, str, str]]:
    """Triples of texts: a wording never trained, a trained one of the same meaning, another's.

    The third is a caption of another scene that says something else.
    """
    found: list[tuple[str, str, str]] = []
    first, rng = SEEDS["test"] + 3_000_000, np.random.default_rng(9)
    for i in numbers():
        if len(found) == count:
            return found
        shown, other = scene(first + 2 * i, share), scene(first + 2 * i + 1, share)
        held, random = caption(shown, rng, share, unseen=True), caption(other, rng, share)
        if said(random) == said(held):
            continue
        own = full_caption(shown, share, lambda told, _, held=held: said(told) == said(held))
        if own is not None:
            found.append((held.text, own.text, random.text))
    return found
