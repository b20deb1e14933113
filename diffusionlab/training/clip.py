"""Toyland's CLIP: a text and an image tower trained with the SigLIP loss on true/false pairs.

SigLIP (Zhai et al. 2023, arXiv 2303.15343): −mean log sigmoid(label · (scale · cosine + bias)).
A caption is a positive of *every* picture that it is true of, because we know the scenes: with
one positive per row, "a red car" would be punished for matching the other red cars of the batch.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from .data import World, facts, to_pixels, truth
from .loop import Training
from .presets import Preset


def text_config(preset: Preset, vocab_size: int) -> CLIPTextConfig:
    """The text tower: causal, quick-GELU, ids of start and end as the tokenizer has them."""
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=preset.text_width,
        intermediate_size=4 * preset.text_width,
        num_hidden_layers=preset.text_layers,
        num_attention_heads=max(1, preset.text_width // 64),
        max_position_embeddings=preset.context_length,
        projection_dim=preset.text_width,
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )


def image_config(preset: Preset) -> CLIPVisionConfig:
    """The image tower: an 8 × 8 grid of patches, as wide as the text tower."""
    return CLIPVisionConfig(
        hidden_size=preset.text_width,
        intermediate_size=4 * preset.text_width,
        num_hidden_layers=preset.text_layers,
        num_attention_heads=max(1, preset.text_width // 64),
        image_size=preset.size,
        patch_size=preset.size // 8,
        projection_dim=preset.text_width,
    )


class Towers(nn.Module):
    """Both towers with SigLIP's scale (its logarithm) and bias."""

    def __init__(self, preset: Preset, vocab_size: int):
        super().__init__()
        self.text = CLIPTextModelWithProjection(text_config(preset, vocab_size))
        self.image = CLIPVisionModelWithProjection(image_config(preset))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-math.log(preset.text_batch)))

    def forward(self, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (captions, pictures)."""
        text = F.normalize(self.text(input_ids=ids).text_embeds.float(), dim=-1)
        image = F.normalize(self.image(pixel_values=pixels).image_embeds.float(), dim=-1)
        return self.log_scale.exp() * text @ image.T + self.bias


def siglip_loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean over pairs, positives and negatives weighted to count the same in total."""
    losses = -F.logsigmoid(torch.where(true, logits, -logits))
    return 0.5 * losses[true].mean() + 0.5 * losses[~true].mean()


def token_ids(
    tokenizer: CLIPTokenizer, texts: list[str], length: int | None = None
) -> torch.Tensor:
    """int64 (texts, tokens); without `length` as short as the longest text, exact since causal."""
    padding = "longest" if length is None else "max_length"
    limit = tokenizer.model_max_length if length is None else length
    encoded = tokenizer(texts, padding=padding, max_length=limit, truncation=True)
    return torch.tensor(encoded["input_ids"])


def train_clip(folder: Path, preset: Preset, world: World, minutes: float) -> Towers:
    """Train both towers for `minutes`; the averaged weights are written below `folder`."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    towers = Towers(preset, len(tokenizer)).to(preset.device)
    training = Training(folder / "clip", towers, preset.text_rate, 0.1, minutes, (0.9, 0.98))
    known = facts(world.scenes)
    for step in training.steps("clip"):
        rng = np.random.default_rng([1, step])
        rows = rng.integers(len(world.scenes), size=preset.text_batch)
        captions = world.captions(rows, rng)
        ids = token_ids(tokenizer, [c.text for c in captions]).to(preset.device)
        true = torch.from_numpy(truth(facts(c.atoms for c in captions), known[rows]))
        pixels = to_pixels(world.pictures[np.sort(rows)][np.argsort(np.argsort(rows))])
        with torch.autocast(preset.device, torch.bfloat16, enabled=preset.bfloat16):
            logits = towers(ids, pixels.to(preset.device))
        true = true.to(preset.device)
        training.learn(siglip_loss(logits, true), right=((logits > 0) == true).float().mean())
    towers.load_state_dict(training.average.values)
    towers.text.save_pretrained(folder / "clip" / "text_tower")
    towers.image.save_pretrained(folder / "clip" / "image_tower")
    return towers
