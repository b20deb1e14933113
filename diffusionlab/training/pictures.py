"""Many pictures at once: one plan, one batch axis, and what the words' attention did meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from ..noise import Sequential
from ..pipeline import LatentDiffusion
from ..plan import denoise
from ..recorder import CROSS
from ..running.lending import safe_precision
from ..samplers import make_plan
from ..schedule import NoiseLevel
from ..taps import rows, watching
from ..trace import Prediction

STEPS, GUIDANCE = 20, 4.0
Span = tuple[int, int]  # characters of a text


# ---- texts -----------------------------------------------------------------------------------
def encoded(model: LatentDiffusion, texts: Sequence[str]):
    """The tokenizer's answer for whole contexts, with the characters of every token."""
    limit = model.context_length
    return model.tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=limit, verbose=False
    )


def token_weights(model: LatentDiffusion, texts: Sequence[str], spans: Sequence[Span | None]):
    """float32 (texts, tokens): equal weights on the tokens of each span; zeros for a None."""
    weights = torch.zeros(len(texts), model.context_length)
    for row, (encoding, span) in enumerate(
        zip(encoded(model, texts).encodings, spans, strict=True)
    ):
        if span is not None:
            inside = [a < span[1] and span[0] < b for a, b in encoding.offsets]
            weights[row] = torch.tensor(inside).float() / max(1, sum(inside))
    return weights.to(model.device)


@torch.inference_mode()
def hidden_states(model: LatentDiffusion, texts: Sequence[str]) -> torch.Tensor:
    """The text encoder's last hidden states (texts, tokens, width)."""
    ids = torch.tensor(encoded(model, texts)["input_ids"], device=model.device)
    return model.text_encoders[0](input_ids=ids).last_hidden_state.to(model.dtype)


@torch.inference_mode()
def text_vectors(model: LatentDiffusion, texts: Sequence[str], batch: int = 200) -> torch.Tensor:
    """The hidden state at the end token, float32 (texts, width): the only one that saw it all."""
    found = []
    for i in range(0, len(texts), batch):
        ids = np.array(encoded(model, texts[i : i + batch])["input_ids"])
        end = (ids == model.tokenizer.eos_token_id).argmax(axis=1)
        hidden = hidden_states(model, texts[i : i + batch])
        found.append(hidden[torch.arange(len(ids)), torch.from_numpy(end)].float().cpu())
    return torch.cat(found)


# ---- attention -------------------------------------------------------------------------------
class WordMaps:
    """Sums, layer by layer, of where one word of each text was looked up; hand it to `watching`.

    `weights` (texts, tokens) says which tokens are the word's.
    """

    def __init__(self, weights: torch.Tensor):
        self.weights, self.layers = weights, {}

    def __call__(self, name: str, value: torch.Tensor) -> None:
        seen = torch.einsum("bhwt,bt->bhw", value.float(), self.weights)
        self.layers[name] = self.layers.get(name, 0) + seen

    def finest(self) -> np.ndarray:
        """The mean over the layers of the finest size, (texts, h, w)."""
        side = max(layer.shape[-1] for layer in self.layers.values())
        chosen = [layer for layer in self.layers.values() if layer.shape[-1] == side]
        return torch.stack(chosen).mean(dim=0).cpu().numpy()

    def every(self) -> np.ndarray:
        """The mean over all layers, coarser ones enlarged by repetition, (texts, h, w)."""
        side = max(layer.shape[-1] for layer in self.layers.values())
        enlarged = [
            layer.repeat_interleave(side // layer.shape[-1], 1).repeat_interleave(
                side // layer.shape[-1], 2
            )
            for layer in self.layers.values()
        ]
        return torch.stack(enlarged).mean(dim=0).cpu().numpy()


# ---- pictures --------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Drawn:
    """uint8 pictures (n, size, size, 3) and, if asked for, the maps of one word of each prompt."""

    pictures: np.ndarray
    finest: np.ndarray | None = None
    every: np.ndarray | None = None


def draw(
    model: LatentDiffusion,
    texts: Sequence[str],
    spans: Sequence[Span | None] | None = None,
    *,
    first_seed: int = 0,
    num_steps: int = STEPS,
    guidance_scale: float = GUIDANCE,
    batch: int = 32,
) -> Drawn:
    """One DDIM picture for each text, the i-th from seed `first_seed + i`, as `generate` draws it.

    `spans`: characters of the word of each text whose attention is kept (mean of all steps).
    """
    parts = []
    for i in range(0, len(texts), batch):
        some = texts[i : i + batch]
        maps = spans and WordMaps(token_weights(model, some, spans[i : i + batch]))
        noise = _start(model, range(first_seed + i, first_seed + i + len(some)))
        latents = _denoised(model, some, noise, num_steps, guidance_scale, maps)
        pictures = decoded(model, latents)
        parts.append((pictures, maps.finest(), maps.every()) if maps else (pictures,))
    return Drawn(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _start(model: LatentDiffusion, seeds: range) -> torch.Tensor:
    """The first Gaussians of these seeds, (n, channels, h, w)."""
    side = model.size // model.size_factor
    shape = (model.latent_channels, side, side)
    return torch.stack([Sequential(seed).first(shape) for seed in seeds]).to(model.device)


@torch.inference_mode()
def _denoised(model, texts, noise, num_steps, scale, maps) -> torch.Tensor:
    levels = model.schedule.levels(num_steps)
    plan = make_plan("ddim", levels, model.schedule)
    text = torch.cat([hidden_states(model, [""]).expand(len(texts), -1, -1),
                      hidden_states(model, texts)])  # fmt: skip
    prepared, count = model.unet.prepare_text(text), len(texts)

    def ask(latent: torch.Tensor, level: NoiseLevel) -> Prediction:
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=latent.device)
        sample = latent.to(model.dtype).repeat(2, 1, 1, 1)
        with rows(slice(count, None)):
            uncond, cond = model.unet(sample, timestep, prepared).float().chunk(2)
        return Prediction(level, latent, cond, uncond, scale, model.schedule.prediction_type, None)

    with ExitStack() as stack:
        if maps is not None:
            stack.enter_context(watching(model.unet, {CROSS: maps}))
        *_, last = denoise(plan, levels[0].sigma * noise, ask, None)
    return last.next_latent


@torch.inference_mode()
def decoded(model: LatentDiffusion, latents: torch.Tensor, batch: int = 32) -> np.ndarray:
    """uint8 pictures (n, height, width, 3) of scaled latents (n, channels, h, w)."""
    config, found = model.vae.config, []
    with safe_precision(model.vae) as dtype:
        for part in latents.split(batch):
            raw = part.to(dtype) / config.scaling_factor + (config.shift_factor or 0.0)
            unit = (model.vae.decode(raw).float() / 2 + 0.5).clamp(0, 1)
            found.append((255 * unit).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(found)


@torch.inference_mode()
def latents_of(model: LatentDiffusion, pictures: np.ndarray, batch: int = 50) -> torch.Tensor:
    """Scaled mean latents (n, channels, h, w), float32, of uint8 pictures."""
    config, found = model.vae.config, []
    with safe_precision(model.vae) as dtype:
        for i in range(0, len(pictures), batch):
            pixels = torch.from_numpy(np.array(pictures[i : i + batch])).permute(0, 3, 1, 2)
            pixels = pixels.to(model.device).float() / 127.5 - 1
            mean, _ = model.vae.encode(pixels.to(dtype))
            found.append((mean - (config.shift_factor or 0.0)) * config.scaling_factor)
    return torch.cat(found).float()
