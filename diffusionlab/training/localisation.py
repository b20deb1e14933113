"""Does a word's cross-attention point at the thing that the word names?

Teacher-forced: a rendered scene is encoded and noised, so the exact mask is known. On generated
pictures the segmenter's mask stands in. `analysis.pointing` says what pointing and IoU are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..analysis.pointing import overlaps, points_inside
from ..pipeline import LatentDiffusion
from ..recorder import CROSS
from ..taps import watching
from ..toyland import OBJECTS, render
from .judge_nets import Segmenter, segment
from .pictures import Drawn, WordMaps, hidden_states, latents_of, token_weights
from .prompted import Prompt

SIGMAS = (1.0, 2.0, 4.0)  # karras_sigma
LEAST = 0.01  # share of the picture that a segmenter's mask must cover to be compared
WORDS = {"object": "kind_span", "colour": "colour_span"}


# ---- maps against masks ----------------------------------------------------------------------
def scores(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Pointing and IoU, and both against the masks of the next scene, which is chance."""
    others = np.roll(masks, 1, axis=0)
    found = {
        "inside": points_inside(maps, masks),
        "iou": overlaps(maps, masks),
        "chance_inside": points_inside(maps, others),
        "chance_iou": overlaps(maps, others),
    }
    return {name: round(float(values.mean()), 4) for name, values in found.items()}


# ---- teacher-forced --------------------------------------------------------------------------
def word_maps(
    model: LatentDiffusion,
    latents: torch.Tensor,
    prompts: Sequence[Prompt],
    karras_sigma: float,
    batch: int = 32,
) -> dict[str, dict[str, np.ndarray]]:
    """Maps (n, h, w) of the first object's word and of its colour's, "finest" and "every" layer.

    latents (n, channels, h, w) are clean; each is noised to `karras_sigma` by its own fixed draw.
    """
    kept: dict[str, dict[str, list]] = {word: {"finest": [], "every": []} for word in WORDS}
    for i in range(0, len(prompts), batch):
        some = prompts[i : i + batch]
        noise = torch.randn(latents[i : i + batch].shape, generator=_generator(i))
        found = _watched(model, latents[i : i + batch], noise, some, karras_sigma)
        for word, maps in found.items():
            kept[word]["finest"].append(maps.finest())
            kept[word]["every"].append(maps.every())
    return {w: {k: np.concatenate(v) for k, v in maps.items()} for w, maps in kept.items()}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.inference_mode()
def _watched(model, clean, noise, prompts, karras_sigma) -> dict[str, WordMaps]:
    """One call of the U-Net on a batch, with the words' maps that it made."""
    level = model.schedule.level_at(karras_sigma=karras_sigma)
    noisy = level.alpha * clean + level.sigma * noise.to(clean.device)
    texts = [prompt.text for prompt in prompts]
    maps = {}
    for word, span in WORDS.items():
        spans = [getattr(prompt.caption.claims[0], span) for prompt in prompts]
        maps[word] = WordMaps(token_weights(model, texts, spans))

    def look(name: str, value: torch.Tensor) -> None:
        for one in maps.values():
            one(name, value)

    timestep = torch.tensor(level.timestep, dtype=torch.float32, device=clean.device)
    with watching(model.unet, {CROSS: look}):
        model.unet(noisy.to(model.dtype), timestep, hidden_states(model, texts))
    return maps


def teacher_forced(
    model: LatentDiffusion, prompts: Sequence[Prompt], sigmas: Sequence[float] = SIGMAS
) -> dict:
    """Scores of one-object prompts by word, layers and karras_sigma, and their mean over sigmas."""
    drawn = [render(prompt.scene, model.size) for prompt in prompts]
    latents = latents_of(model, np.stack([d.image for d in drawn]))
    masks = {
        "object": [_mask(d, p.kinds[0], model.size) for d, p in zip(drawn, prompts, strict=True)],
        "colour": [
            _mask(d, p.colours[p.kinds[0]], model.size) for d, p in zip(drawn, prompts, strict=True)
        ],
    }
    report: dict = {"scenes": len(prompts)}
    for sigma in sigmas:
        for word, layers in word_maps(model, latents, prompts, sigma).items():
            for name, maps in layers.items():
                place = report.setdefault(word, {}).setdefault(name, {})
                place[f"sigma {sigma:g}"] = scores(maps, np.stack(masks[word]))
    for word in WORDS:
        for place in report[word].values():
            place["mean"] = _mean(list(place.values()))
    return report


def _mask(drawn, word: str, size: int) -> np.ndarray:
    """A word's mask; empty where it is hidden."""
    return drawn.masks.get(word, np.zeros((size, size), np.float32))


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


# ---- on generated pictures -------------------------------------------------------------------
def on_generated(drawn: Drawn, prompts: Sequence[Prompt], segmenter: Segmenter) -> dict:
    """Scores of the object word's maps of generated pictures against the segmenter's masks.

    Pictures in which it does not find the object are left out and counted.
    """
    classes = segment(segmenter, drawn.pictures)
    wanted = np.array([1 + OBJECTS.index(prompt.kinds[0]) for prompt in prompts])
    masks = (classes == wanted[:, None, None]).astype(np.float32)
    there = masks.mean(axis=(1, 2)) >= LEAST
    report: dict = {"pictures": len(prompts), "without_object": int((~there).sum())}
    if there.any():
        for name in ("finest", "every"):
            report[name] = scores(getattr(drawn, name)[there], masks[there])
    return report
