"""The training pictures: scenes rendered once from their seeds, captions drawn anew each time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..toyland import (
    COLOURS,
    FULL,
    GRAMMAR_VERSION,
    OBJECTS,
    RELATIONS,
    SETTINGS,
    STYLES,
    TIMES,
    Caption,
    Scene,
    Share,
    caption,
    render,
    scene,
)
from ..toyland.grammar import HYPERNYMS, SIDES

# Every use of scenes has its own range of seeds, so that no picture serves two purposes.
SEEDS = {"train": 0, "validation": 10_000_000, "judges": 20_000_000, "test": 30_000_000}
CHUNK = 250  # scenes per job


def _render_chunk(job: tuple[int, int, int, Share]) -> np.ndarray:
    first, count, size, share = job
    drawn = (render(scene(first + i, share), size, masks=False) for i in range(count))
    return np.stack([picture.image for picture in drawn])


def render_pictures(
    folder: Path, count: int, size: int, first_seed: int = 0, workers: int = 1, share: Share = FULL
) -> np.ndarray:
    """Pictures of the scenes `first_seed …`, uint8 (count, size, size, 3), kept as one .npy file.

    A file of the right name is used as it is; a render that was cut short starts again.
    """
    name = f"pictures_v{GRAMMAR_VERSION}_{share.name}_{first_seed}_{count}_{size}.npy"
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        kept = np.lib.format.open_memmap(part, "w+", np.uint8, (count, size, size, 3))
        starts = range(0, count, CHUNK)
        jobs = [(first_seed + i, min(CHUNK, count - i), size, share) for i in starts]
        with ProcessPoolExecutor(workers) as pool:
            done = zip(jobs, pool.map(_render_chunk, jobs), strict=True)
            for (seed, n, *_), chunk in tqdm(done, total=len(jobs), desc="render", mininterval=5):
                kept[seed - first_seed : seed - first_seed + n] = chunk
        kept.flush()
        part.rename(path)
    return np.load(path, mmap_mode="r")


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, height, width, 3) to float32 (n, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- which caption is true of which scene ------------------------------------------------------
# The same question as toyland.is_true, for all pairs of many captions and scenes at once.
ATOMS = {
    "setting": SETTINGS,
    "time": TIMES,
    "style": STYLES,
    "antarctic": ("antarctic",),
    "side": SIDES,
}


@dataclass(frozen=True)
class Facts:
    """Scenes as numbers: atoms (n, 5), kinds and colours (n, 2), relations (n, 2, 5); −1: none."""

    atoms: np.ndarray
    kinds: np.ndarray
    colours: np.ndarray
    relations: np.ndarray  # whether relation r holds from the first thing, from the second

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> Facts:
        atoms, kinds, colours = [], [], []
        relations = np.zeros((len(scenes), 2, len(RELATIONS)), bool)
        for row, s in enumerate(scenes):
            shown = {slot: getattr(s, slot) for slot in ATOMS}
            shown["antarctic"] = "antarctic" if s.antarctic else None
            atoms.append([_number(words, shown[slot]) for slot, words in ATOMS.items()])
            pairs = [(_number(OBJECTS, t.kind), _number(COLOURS, t.colour)) for t in s.things]
            pairs += [(-1, -1)] * (2 - len(pairs))
            kinds.append([kind for kind, _ in pairs])
            colours.append([colour for _, colour in pairs])
            for first in range(len(s.things)):
                holds = s.relations(first)
                relations[row, first] = [word in holds for word in RELATIONS]
        return cls(np.array(atoms), np.array(kinds), np.array(colours), relations)

    def rows(self, rows: np.ndarray) -> Facts:
        """The facts of some of the scenes."""
        return Facts(self.atoms[rows], self.kinds[rows], self.colours[rows], self.relations[rows])


def _number(words: tuple[str, ...], word: str | None) -> int:
    return -1 if word is None else words.index(word)


def truth(captions: Sequence[Caption], scenes: Facts) -> np.ndarray:
    """bool (captions, scenes): whether the caption is true of the scene."""
    said = np.array([[_number(w, c.atoms.get(s)) for s, w in ATOMS.items()] for c in captions])
    right = ((said[:, None] == -1) | (said[:, None] == scenes.atoms[None])).all(axis=2)
    fits = [[_fits(captions, claim, scenes, thing) for thing in (0, 1)] for claim in (0, 1)]
    asked = np.array([_number(RELATIONS, c.atoms.get("relation")) for c in captions])
    holds = scenes.relations[:, :, asked].transpose(2, 0, 1) | (asked == -1)[:, None, None]
    straight = fits[0][0] & fits[1][1] & holds[..., 0]
    crossed = fits[0][1] & fits[1][0] & holds[..., 1]
    return right & (straight | crossed)


def _fits(captions: Sequence[Caption], claim: int, scenes: Facts, thing: int) -> np.ndarray:
    """bool (captions, scenes): whether a claim matches a thing; True where there is no claim."""
    fits = np.ones((len(captions), len(scenes.kinds)), bool)
    for row, said in enumerate(captions):
        if claim < len(said.claims):
            one = said.claims[claim]
            kinds = [OBJECTS.index(kind) for kind in HYPERNYMS.get(one.kind, (one.kind,))]
            fits[row] = np.isin(scenes.kinds[:, thing], kinds)
            if one.colour:
                fits[row] &= scenes.colours[:, thing] == COLOURS.index(one.colour)
    return fits


@dataclass(frozen=True)
class World:
    """The rendered pictures with the scenes that they show."""

    pictures: np.ndarray  # uint8 (n, size, size, 3)
    scenes: tuple[Scene, ...]
    share: Share

    @classmethod
    def rendered(
        cls,
        folder: Path,
        count: int,
        size: int,
        share: Share,
        first_seed: int = 0,
        workers: int = 1,
    ) -> World:
        pictures = render_pictures(folder, count, size, first_seed, workers, share)
        return cls(pictures, tuple(scene(first_seed + i, share) for i in range(count)), share)

    def captions(self, rows: Iterable[int], rng: np.random.Generator) -> list[Caption]:
        """One fresh caption for each of these scenes."""
        return [caption(self.scenes[i], rng, self.share) for i in rows]
