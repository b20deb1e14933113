"""Toyland's CLIP: a text and an image tower trained with the SigLIP loss on true/false pairs.

SigLIP (Zhai et al. 2023, arXiv 2303.15343): −mean log sigmoid(label · (scale · cosine + bias)).
A caption is a positive of *every* picture that it is true of, because we know the scenes: with
one positive per row, "a red car" would be punished for matching the other red cars of the batch.
Beside one caption per picture every batch holds the short sentences of `every_word`, so that each
word is told from every other one all the time, not only where a caption happens to use it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ..toyland import COLOURS, KEPT_PROMPTS, Caption, Claim, Share
from ..toyland.phrases import VIEWS, WHEN
from .data import Facts, World, to_pixels, truth
from .loop import Training, averaged, begin_with, part_of
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
    """Both towers with SigLIP's scale (its logarithm) and bias.

    The text tower's projection is the identity and stays so: its embedding of a text is its last
    hidden state at the end token, which a checkpoint without the projection has as well.
    """

    def __init__(self, preset: Preset, vocab_size: int):
        super().__init__()
        self.text = CLIPTextModelWithProjection(text_config(preset, vocab_size))
        nn.init.eye_(self.text.text_projection.weight)
        self.text.text_projection.requires_grad_(False)
        self.image = CLIPVisionModelWithProjection(image_config(preset))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-math.log(preset.text_batch)))

    def forward(self, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (captions, pictures)."""
        text = F.normalize(self.text(input_ids=ids).text_embeds.float(), dim=-1)
        image = F.normalize(self.image(pixel_values=pixels).image_embeds.float(), dim=-1)
        return self.log_scale.exp() * text @ image.T + self.bias


def every_word(share: Share) -> list[Caption]:
    """Short captions for every kind, colour, hypernym, setting and time of a share."""
    kinds = [*share.objects, *share.hypernyms]
    coloured = [(kind, colour) for kind in share.objects for colour in COLOURS]
    claims = [(_an(k), Claim(k)) for k in kinds]
    claims += [(_an(f"{colour} {kind}"), Claim(kind, colour)) for kind, colour in coloured]
    said = [Caption(text, (claim,)) for text, claim in claims if text not in KEPT_PROMPTS]
    for slot, table in (("setting", VIEWS), ("time", WHEN)):
        for word, phrases in table.items():
            if slot == "time" or word in share.settings:
                texts = {phrase.replace("[", "").replace("]", "") for phrase in phrases}
                said += [Caption(text, (), {slot: word}) for text in sorted(texts)]
    return said


def _an(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


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


class Pairs:
    """Batches of pictures with captions, and which caption is true of which picture."""

    def __init__(self, tokenizer: CLIPTokenizer, world: World):
        self.tokenizer, self.world = tokenizer, world
        self.facts, self.words = Facts.of(world.scenes), every_word(world.share)

    def batch(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Token ids (captions, tokens), pixels (rows, 3, height, width), truth (captions, rows)."""
        said = self.world.captions(rows, rng) + self.words
        ids = token_ids(self.tokenizer, [caption.text for caption in said])
        order = np.argsort(rows, kind="stable")  # read the file in its order
        read = to_pixels(self.world.pictures[rows[order]])
        pixels = read[torch.from_numpy(np.argsort(order))]
        return ids, pixels, torch.from_numpy(truth(said, self.facts.rows(rows)))


def train_clip(
    folder: Path, preset: Preset, world: World, minutes: float, start: Path | None = None
) -> None:
    """Train both towers for `minutes`; the averaged weights are written below `folder`.

    `start` is a checkpoint folder whose text tower it begins with, as far as shapes agree.
    """
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    towers = Towers(preset, len(tokenizer))
    if start:
        begin_with(towers.text, earlier_tower(start, tokenizer, towers.text))
    towers.to(preset.device)
    training = Training(folder / "clip", towers, preset.text_rate, 0.1, minutes, (0.9, 0.98))
    _match(training, towers, "clip", preset, Pairs(tokenizer, world))
    if training.rank == 0:
        towers.load_state_dict(training.average.values)
        towers.text.save_pretrained(folder / "clip" / "text_tower")
        towers.image.save_pretrained(folder / "clip" / "image_tower")


def _match(training: Training, towers: Towers, title: str, preset: Preset, pairs: Pairs) -> None:
    """Learn from batches of pairs until the time is over."""
    for step in training.steps(title):
        rng = np.random.default_rng([1, step, training.rank])
        rows = rng.integers(len(pairs.world.scenes), size=preset.text_batch)
        ids, pixels, true = (t.to(preset.device) for t in pairs.batch(rows, rng))
        with torch.autocast(preset.device, torch.bfloat16, enabled=preset.bfloat16):
            logits = towers(ids, pixels)
        own = (logits[: len(rows)] > 0) == true[: len(rows)]
        training.learn(siglip_loss(logits, true), right=own.float().mean())


def train_image(
    folder: Path, preset: Preset, world: World, minutes: float, start: Path | None = None
) -> None:
    """Train the image tower on, alone, against the text tower that `denoiser` left.

    A text tower that stays as it is can still be matched (Zhai et al. 2022, arXiv 2111.07991).
    """
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    towers = Towers(preset, len(tokenizer))
    towers.load_state_dict(part_of(averaged(folder / "denoiser"), "towers"))
    towers.to(preset.device).text.requires_grad_(False)
    training = Training(folder / "image", towers, preset.text_rate, 0.1, minutes, (0.9, 0.98))
    _match(training, towers, "image", preset, Pairs(tokenizer, world))


def earlier_tower(start: Path, tokenizer: CLIPTokenizer, tower) -> dict[str, torch.Tensor]:
    """The text tower of a checkpoint with its token embeddings in the new vocabulary's order."""
    state = load_file(start / "text_encoder" / "model.safetensors")
    state = {name: value.float() for name, value in state.items()}
    name = "text_model.embeddings.token_embedding.weight"
    old = CLIPTokenizer.from_pretrained(start / "tokenizer", local_files_only=True).get_vocab()
    table = tower.state_dict()[name].clone()
    if table.shape[1] == state[name].shape[1]:
        for piece, row in tokenizer.get_vocab().items():
            if piece in old:
                table[row] = state[name][old[piece]]
        state[name] = table
    return state
