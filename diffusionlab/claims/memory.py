"""Does a model give back its training pictures? Toyland's are known, and can be drawn again."""

from __future__ import annotations

from itertools import count as numbers

import numpy as np

from diffusionlab.claims.bench import Bench
from diffusionlab.claims.claim import Part
from diffusionlab.claims.intervals import exact, share
from diffusionlab.claims.known_pictures import known
from diffusionlab.ideal import FiniteWorld
from diffusionlab.plan import denoise
from diffusionlab.samplers import make_plan
from diffusionlab.toyland import Scene, scene
from diffusionlab.training.data import SEEDS
from diffusionlab.training.pictures import latents_of
from diffusionlab.training.prompted import Prompt, full_caption, says_everything
from diffusionlab.training.quality import rendered

TWINS, APART = 9, 5_000_000  # fresh scenes per training scene; how far away their seeds begin
COPY = 0.1  # distance to the nearest training latent, over that between two of them
FORMULA_STEPS = 20


def nothing_is_memorised(bench: Bench) -> tuple[Part, ...]:
    """Prompt with training captions; then ask what training aims at, the exact denoiser of its set.

    A memory would pick its training picture from ten of one description (chance: 1 in 10) more
    often than not. "No picture" leaves the exact denoiser no copy at all.
    """
    trained = _training_prompts(bench)
    images = bench.pictures([prompt.text for prompt in trained])
    made = _latents(bench, np.stack([np.asarray(image) for image in images]))
    picked = [_nearest(bench, one, p.scene) == 0 for one, p in zip(made, trained, strict=True)]
    copies, asked = copies_by_formula(bench)
    return (
        Part("pictures nearer to their training picture than to nine fresh ones (chance: 0.1)",
             share(picked), "below", 0.5),
        Part(f"copies among {asked} pictures of the exact denoiser of so small a training set",
             exact(copies), "equals", 0),
    )  # fmt: skip


def _training_prompts(bench: Bench) -> list[Prompt]:
    """Captions that say everything of the first training scenes with one coloured thing."""
    found: list[Prompt] = []
    for i in numbers(SEEDS["train"]):
        if len(found) == bench.samples:
            return found
        shown = scene(i, bench.share)
        if len(shown.things) == 1 and shown.things[0].colour:
            told = full_caption(shown, bench.share, says_everything)
            found += [Prompt(shown, told)] if told else []
    return found


def _nearest(bench: Bench, latent: np.ndarray, shown: Scene) -> int:
    """Which is nearest to a latent: the scene (0) or one of its twins, drawn and encoded."""
    thing = shown.things[0]
    same = dict(object=thing.kind, colour=thing.colour, setting=shown.setting, time=shown.time,
                style=shown.style)  # fmt: skip
    first = SEEDS["test"] + APART + TWINS * shown.seed
    twins = [scene(first + i, bench.share, **same) for i in range(TWINS)]
    others = _latents(bench, rendered([shown, *twins], bench.model.size))
    return int(((others - latent) ** 2).sum(axis=(1, 2, 3)).argmin())


def _latents(bench: Bench, pictures: np.ndarray) -> np.ndarray:
    return latents_of(bench.model, pictures).cpu().numpy()


def copies_by_formula(bench: Bench) -> tuple[int, int]:
    """How many pictures of the exact denoiser of the known pictures are copies, and of how many.

    No network takes part. A copy is ten times nearer to one of them than they are to each other.
    """
    scenes, model = known(bench), bench.model
    world = FiniteWorld(scenes.latents)
    levels = model.schedule.levels(FORMULA_STEPS)
    plan = make_plan("ddim", levels, model.schedule)
    *_, last = denoise(plan, levels[0].sigma * scenes.noise.astype(float), world.predict, None)
    away = np.linalg.norm(_flat(last.next_latent)[:, None] - _flat(scenes.latents), axis=2)
    apart = np.linalg.norm(_flat(scenes.latents)[:, None] - _flat(scenes.latents), axis=2)
    usual = apart[apart > 0].mean()
    return int((away.min(axis=1) < COPY * usual).sum()), len(away)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(np.float64)
