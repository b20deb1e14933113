"""From text encoders to a record, and from the record to what the U-Net reads.

A part of the stages: `embed` and `predict` are its users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .errors import InputError, NumericsError, shown
from .finite import all_finite, first_not_finite
from .models.conditioning import PreparedText, TextInput
from .pipeline import LatentDiffusion
from .schedule import NoiseLevel
from .trace import Guidance, TextEmbedding, Tokens, as_guidance

# What one of several runs asks the network: latent, level, text, uncond, guidance_scale.
Asked = tuple[torch.Tensor, NoiseLevel, TextEmbedding, TextEmbedding | None, float | Guidance]


def tensor_of(values, device: torch.device | str) -> torch.Tensor:
    """A tensor on a device; a record's NumPy array, which nobody may write to, is copied."""
    if isinstance(values, np.ndarray):
        return torch.tensor(values, device=device)
    return torch.as_tensor(values, device=device)


# ---- out of the text encoders ------------------------------------------------------------------
def encoded(
    model: LatentDiffusion, tokens: Tokens, number: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one text encoder makes of a prompt: rows (tokens, width) and pooled (width,).

    SDXL reads the rows before the last layer, un-normalised (arXiv 2307.01952, section 2.1), and
    the second encoder's projection as the pooled one. Errors: NumericsError for NaN or infinity.
    """
    encoder = model.text_encoders[number]
    ids = torch.tensor([token_ids(model, tokens, number)], device=model.device)  # (1, tokens)
    out = encoder(input_ids=ids, output_hidden_states=model.is_xl)
    rows = out.hidden_states[-2][0] if model.is_xl else out.last_hidden_state[0]
    if not all_finite(rows):
        part = first_not_finite(encoder, input_ids=ids)
        raise NumericsError(
            f"text encoder {number} returned NaN or infinity; first non-finite module: "
            f"{part}; load the checkpoint again, or with dtype=torch.float32"
        )
    projected = getattr(out, "text_embeds", None)
    return rows, (out.pooler_output if projected is None else projected)[0]


def token_ids(model: LatentDiffusion, tokens: Tokens, number: int) -> tuple[int, ...]:
    """The ids for one text encoder: they differ in the padding alone."""
    pad = model.pad_ids[number]
    return tuple(
        pad if kind == "pad" else i for i, kind in zip(tokens.ids, tokens.kinds, strict=True)
    )


# ---- into the U-Net ----------------------------------------------------------------------------
def check_guidance(model: LatentDiffusion, guidance: Guidance) -> None:
    """Refuse an interval or a rescale where no unconditional pass is there for them to act on."""
    if model.embeds_guidance and (guidance.interval is not None or guidance.rescale):
        raise InputError(
            f"guidance is {guidance}, but {model.name} is told its guidance as a number and has no "
            "unconditional pass; a scale alone is allowed: leave interval and rescale out, e.g. "
            f"guidance_scale={guidance.scale:g}"
        )


def check_embedding(model: LatentDiffusion, embedding: TextEmbedding) -> None:
    """Refuse what is no text embedding of this model's shape, or is not finite."""
    width, asked_for = model.unet.config.cross_attention_dim, len(model.text_encoders)
    asked = f"a TextEmbedding of ({model.context_length}, {width}) finite numbers is allowed"
    if not isinstance(embedding, TextEmbedding):
        raise InputError(f"text_embedding is {shown(embedding)}; {asked}: embed makes one")
    shapes = [tuple(np.shape(part)) for part in embedding.hidden]
    fits = len(shapes) == asked_for and all(s[:1] == (model.context_length,) for s in shapes)
    fits = fits and sum(shape[1] for shape in shapes) == width
    if not fits or not all(all_finite(tensor_of(part, "cpu")) for part in embedding.hidden):
        what = "numbers that are NaN or infinite" if fits else " and ".join(map(str, shapes))
        raise InputError(f"text_embedding holds {what}; {asked}: make it from embed's result")


def joined(model: LatentDiffusion, embedding: TextEmbedding) -> torch.Tensor:
    """The rows of all text encoders side by side, (tokens, width), for cross-attention."""
    parts = [tensor_of(part, model.device) for part in embedding.hidden]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).to(model.dtype)


def branch_texts(
    model: LatentDiffusion,
    text_embedding: TextEmbedding,
    uncond_embedding: TextEmbedding | None,
    guidance: Guidance,
    scale: float,
) -> TextInput:
    """The texts of the branches that a guidance scale runs, the prompt's last."""
    branches = [text_embedding] if scale == 1 else [uncond_embedding, text_embedding]
    hidden = torch.stack([joined(model, branch) for branch in branches])
    pooled = sizes = told = None
    if model.is_xl:
        rows = [tensor_of(branch.pooled, model.device) for branch in branches]
        pooled = torch.stack(rows).to(model.dtype)
        sizes = torch.stack([_size_ids(model, branch) for branch in branches])
    if model.embeds_guidance:
        told = torch.full((len(branches),), guidance.scale, device=model.device)
    return TextInput(hidden, pooled, sizes, told)


def _size_ids(model: LatentDiffusion, embedding: TextEmbedding) -> torch.Tensor:
    if "size_ids" not in embedding.extra:
        raise InputError(
            "text embedding without size_ids, which this model (SDXL) reads; make it from embed's "
            "result, whose `extra` holds them"
        )
    return tensor_of(embedding.extra["size_ids"], model.device).to(torch.float32)


def stacked(inputs: Sequence[TextInput]) -> TextInput:
    """Several texts as the rows of one batch."""
    names = ("hidden", "pooled", "size_ids", "guidance")
    columns = ([getattr(text, name) for text in inputs] for name in names)
    return TextInput(*(None if part[0] is None else torch.cat(part) for part in columns))


def many_texts(model: LatentDiffusion, asked: Sequence[Asked]) -> TextInput:
    """The branches of several runs as the rows of one batch."""
    guided = [(given[1:4], as_guidance(given[4])) for given in asked]
    return stacked(
        [
            branch_texts(model, text, uncond, guidance, scale_at(model, guidance, level))
            for (level, text, uncond), guidance in guided
        ]
    )


def scale_at(model: LatentDiffusion, guidance: float | Guidance, level) -> float:
    """The scale that branches are combined with: 1 where the network is told it instead."""
    guidance = as_guidance(guidance)
    check_guidance(model, guidance)
    return 1.0 if model.embeds_guidance else guidance.at(level)


@torch.inference_mode()
def prepare(model, text_embedding, uncond_embedding, guidance_scale) -> PreparedText:
    """What the texts of a run alone decide: keys and values of every cross-attention, and more."""
    guidance = as_guidance(guidance_scale)
    scale = 1.0 if model.embeds_guidance else guidance.scale
    texts = branch_texts(model, text_embedding, uncond_embedding, guidance, scale)
    return model.unet.prepare_text(texts)


@torch.inference_mode()
def prepare_many(model: LatentDiffusion, asked: Sequence[Asked]) -> PreparedText:
    """`prepare` for runs that share a call; it holds for as long as they run the same branches.

    All rows go through each product at once, as they would in the call: row by row they would round
    differently on some devices.
    """
    return model.unet.prepare_text(many_texts(model, asked))
