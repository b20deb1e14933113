"""The training pictures: scenes rendered once from their seeds, captions drawn anew each time."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..toyland import COLOURS, OBJECTS, SETTINGS, TIMES, Caption, Scene, caption, render, scene

SLOTS = {"object": OBJECTS, "colour": COLOURS, "setting": SETTINGS, "time": TIMES}
CHUNK = 250  # scenes per job


def _render_chunk(job: tuple[int, int, int]) -> np.ndarray:
    first, count, size = job
    return np.stack([render(scene(first + i), size, masks=False).image for i in range(count)])


def render_pictures(
    folder: Path, count: int, size: int, first_seed: int = 0, workers: int = 1
) -> np.ndarray:
    """Pictures of the scenes `first_seed …`, uint8 (count, size, size, 3), kept as one .npy file.

    A file of the right shape is used as it is; a render that was cut short starts again.
    """
    path = folder / f"pictures_{first_seed}_{count}_{size}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        kept = np.lib.format.open_memmap(part, "w+", np.uint8, (count, size, size, 3))
        jobs = [(first_seed + i, min(CHUNK, count - i), size) for i in range(0, count, CHUNK)]
        with ProcessPoolExecutor(workers) as pool:
            done = zip(jobs, pool.map(_render_chunk, jobs), strict=True)
            for (seed, n, _), chunk in tqdm(done, total=len(jobs), desc="render", mininterval=5):
                kept[seed - first_seed : seed - first_seed + n] = chunk
        kept.flush()
        part.rename(path)
    return np.load(path, mmap_mode="r")


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, height, width, 3) to float32 (n, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def facts(items: Iterable[dict[str, str | None] | Scene]) -> np.ndarray:
    """Each scene's, or each caption's atoms', slots as numbers (n, 4); −1 where nothing is said."""
    rows = []
    for item in items:
        said = item if isinstance(item, dict) else {k: getattr(item, k) for k in SLOTS}
        rows.append([SLOTS[k].index(said[k]) if said.get(k) else -1 for k in SLOTS])
    return np.array(rows)


def truth(captions: np.ndarray, scenes: np.ndarray) -> np.ndarray:
    """bool (captions, scenes): whether the caption is true of the scene, from `facts` of both."""
    said, shown = captions[:, None], scenes[None]
    return ((said == -1) | (said == shown)).all(axis=2)


@dataclass(frozen=True)
class World:
    """The rendered pictures with the scenes that they show."""

    pictures: np.ndarray  # uint8 (n, size, size, 3)
    scenes: tuple[Scene, ...]

    @classmethod
    def rendered(
        cls, folder: Path, count: int, size: int, first_seed: int = 0, workers: int = 1
    ) -> World:
        pictures = render_pictures(folder, count, size, first_seed, workers)
        return cls(pictures, tuple(scene(first_seed + i) for i in range(count)))

    def captions(self, rows: Iterable[int], rng: np.random.Generator) -> list[Caption]:
        """One fresh caption for each of these scenes."""
        return [caption(self.scenes[i], rng) for i in rows]
