"""Pictures of which all is known: drawn by us, noised by us, with a true caption; then we ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffusionlab.claims.bench import SEED, Bench
from diffusionlab.inside.anatomy import anatomy
from diffusionlab.inside.noising import as_image
from diffusionlab.schedule import NoiseLevel
from diffusionlab.stages import draw_noise, embed, encode, predict_many, tokenize
from diffusionlab.toyland import FULL, Rendered, render
from diffusionlab.trace import Anatomy, Prediction, TextEmbedding, to_numpy
from diffusionlab.training.prompted import Prompt, one_object_prompts

BATCH = 32
LARGEST = 512  # pixels of a drawn scene's side


@dataclass(frozen=True, eq=False)
class Known:
    """Scenes with one thing each: prompts, what was drawn, latents and noise (n, channels, h, w).

    `texts` are the embedded captions, `empty` the embedded empty prompt. Toyland's checkpoints get
    scenes of the part of the world that they were shown, any other model those of all of it.
    """

    prompts: tuple[Prompt, ...]
    drawn: tuple[Rendered, ...]
    latents: np.ndarray
    noise: np.ndarray
    texts: tuple[TextEmbedding, ...]
    empty: TextEmbedding

    @property
    def wrong_texts(self) -> tuple[TextEmbedding, ...]:
        """To each scene the caption of the next."""
        return (*self.texts[1:], self.texts[0])

    def masks(self, words: Sequence[str]) -> np.ndarray:
        """The mask of one word of each scene (n, size, size); empty where it is hidden."""
        blank = np.zeros(self.drawn[0].image.shape[:2], np.float32)
        return np.stack([d.masks.get(w, blank) for d, w in zip(self.drawn, words, strict=True)])


def known(bench: Bench) -> Known:
    """As many scenes as there may be samples, made once for a bench."""
    return bench.kept("known pictures", lambda: _made(bench))


def _made(bench: Bench) -> Known:
    model, count = bench.model, max(bench.samples, 2)
    share = bench.share if model.config.get("toyland") else FULL
    prompts = tuple(one_object_prompts(share, 2 * count)[:count])
    size = min(model.size, LARGEST)
    drawn = tuple(render(prompt.scene, size) for prompt in prompts)
    latents = [to_numpy(encode(model, as_image(one)).values) for one in drawn]
    noise = [to_numpy(draw_noise(model, SEED + i, size, size).values) for i in range(count)]
    texts = [embed(model, tokenize(model, p.text), height=size, width=size) for p in prompts]
    empty = embed(model, tokenize(model, ""), height=size, width=size)
    return Known(prompts, drawn, np.stack(latents), np.stack(noise), tuple(texts), empty)


def built(bench: Bench) -> Anatomy:
    """How the U-Net is built, for the model's own picture size; made once."""
    return bench.kept("anatomy", lambda: anatomy(bench.model))


def level(bench: Bench, karras_sigma: float) -> NoiseLevel:
    """A noise level of the model's own schedule."""
    return bench.model.schedule.level_at(karras_sigma=karras_sigma)


def noised(latents: np.ndarray, noise: np.ndarray, at: NoiseLevel) -> np.ndarray:
    """x_t = alpha · x0 + sigma · noise."""
    return at.alpha * latents + at.sigma * noise


def ask(
    bench: Bench,
    noisy: np.ndarray,
    at: NoiseLevel,
    texts: Sequence[TextEmbedding] | None = None,
) -> Prediction:
    """What the network says of noisy latents (n, channels, h, w) that it is told are at this level.

    Without guidance; `texts` are the captions unless given. One record holds all n.
    """
    texts, rows = known(bench).texts if texts is None else texts, []
    values = torch.from_numpy(np.asarray(noisy, np.float32)).to(bench.model.device)
    for i in range(0, len(values), BATCH):
        pairs = zip(values[i : i + BATCH], texts[i : i + BATCH], strict=True)
        rows += predict_many(bench.model, [(x, at, text, None, 1.0) for x, text in pairs])
    said = np.stack([to_numpy(row.cond) for row in rows])
    return replace(rows[0], latent=np.asarray(noisy, np.float32), cond=said)


def asked(bench: Bench, karras_sigma: float) -> tuple[np.ndarray, Prediction]:
    """The known pictures noised to a level, and what the network says of them; made once."""

    def make() -> tuple[np.ndarray, Prediction]:
        scenes, at = known(bench), level(bench, karras_sigma)
        noisy = noised(scenes.latents, scenes.noise, at)
        return noisy, ask(bench, noisy, at)

    return bench.kept(("asked", karras_sigma), make)


# ---- comparing (n, …) arrays picture by picture ------------------------------------------------
def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The correlation of each pair (n,), 0 where one of the two is flat."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), sizes, out=np.zeros(len(a)), where=sizes > 0)


def wrongness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The mean squared difference of each pair (n,)."""
    return ((a.astype(np.float64) - b) ** 2).reshape(len(a), -1).mean(axis=1)


def noise_found(bench: Bench, karras_sigma: float) -> np.ndarray:
    """How much more eps-hat is like the true noise than the noisy latent itself is, (n,).

    0 is what no knowledge of pictures gives: at a high level the noisy latent is mostly noise.
    """
    noisy, said = asked(bench, karras_sigma)
    noise = known(bench).noise
    return likeness(said.eps, noise) - likeness(noisy, noise)


def picture_found(bench: Bench, karras_sigma: float) -> np.ndarray:
    """How much more x0-hat is like the true latent than the noisy latent itself is, (n,)."""
    noisy, said = asked(bench, karras_sigma)
    clean = known(bench).latents
    return likeness(said.x0, clean) - likeness(noisy, clean)
