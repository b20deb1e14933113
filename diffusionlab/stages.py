"""The eight stages of a latent diffusion model, in the order in which a picture is made.

`tokenize → embed → draw_noise → (predict → update) × num_steps → decode`; `encode` and `add_noise`
are the way back, from a picture to a noisy latent. Each is a plain function of a `LatentDiffusion`
and of records; each result shows itself in a notebook.

One latent has no batch axis: (channels, height / 8, width / 8), float32, on the model's device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from .conditioning import (
    Asked,
    branch_texts,
    encoded,
    many_texts,
    scale_at,
    tensor_of,
)
from .errors import InputError, NumericsError, shown
from .finite import all_finite, origin
from .images import to_image, to_pixels
from .models.conditioning import PreparedText
from .noise import BrownianPath, Sequential
from .pipeline import LatentDiffusion
from .plan import Update, combine, current_step
from .prompts import check_prompt, pieces_of, token_notices, words_of
from .running.lending import safe_precision
from .running.memory import memory_told
from .running.tiles import in_pieces
from .schedule import NoiseLevel
from .taps import rows
from .trace import Guidance, Latent, Prediction, TextEmbedding, Tokens, as_guidance


# ---- text ------------------------------------------------------------------------------------
def tokenize(model: LatentDiffusion, prompt: str) -> Tokens:
    """Split a prompt into the pieces that the text encoder knows, with start, end and padding.

    At most `model.context_length - 2` pieces are kept; what is cut, and words that Toyland never
    saw, are told in one printed line each and stand in `Tokens.notices`.
    Errors: InputError for anything that is not one valid Unicode string.
    """
    text = check_prompt(prompt)
    tokenizer, limit = model.tokenizer, model.context_length - 2
    whole = tokenizer(
        text, add_special_tokens=False, truncation=False, padding=False, verbose=False
    )
    encoded = whole.encodings[0]
    ids, pieces = encoded.ids[:limit], pieces_of(text, encoded)[:limit]
    spans, word_of = words_of(text, encoded)
    words = [text[first:last] for first, last in spans]
    kept, dropped = len(ids), len(encoded.ids) - len(ids)
    lost = tuple(dict.fromkeys(word_of[limit:]))
    lost_words = tuple(words[i] for i in lost if i not in word_of[:limit])
    pads = model.context_length - kept - 2
    start, end, pad = (getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
    seen = 1 + max(word_of[:limit], default=-1)
    return Tokens(
        prompt=str(prompt),
        ids=(
            tokenizer.bos_token_id,
            *ids,
            tokenizer.eos_token_id,
            *[tokenizer.pad_token_id] * pads,
        ),
        pieces=("<start>", *pieces, "<end>", *["<pad>"] * pads),
        words=tuple(words[:seen]),
        word_of=(None, *word_of[:limit], None, *[None] * pads),
        kinds=("start", *["word"] * kept, "end", *["pad"] * pads),
        kept=kept,
        dropped=dropped,
        dropped_words=lost_words[:20],
        notices=token_notices(model, text, words[:seen], kept, dropped, lost_words),
        spans=tuple(spans[:seen]),
    )


@memory_told("embed")
@torch.inference_mode()
def embed(
    model: LatentDiffusion,
    tokens: Tokens,
    *,
    height: int | None = None,
    width: int | None = None,
    negative: bool = False,
) -> TextEmbedding:
    """Run the text encoders: one row of numbers per token, (tokens, width), not one per prompt.

    Row i depends on the tokens up to i only (causal mask; Radford et al. 2021, arXiv 2103.00020).
    height, width in pixels are told to SDXL (None: the model's own), as is whether this is the
    negative prompt: an empty one is zeros there, as the checkpoint's config says.
    Errors: NumericsError where a text encoder gives NaN or infinity.
    """
    made = [encoded(model, tokens, number) for number in range(len(model.text_encoders))]
    hidden, pooled = tuple(rows for rows, _ in made), made[-1][1]
    if negative and not tokens.kept and model.zeros_for_empty:
        hidden, pooled = tuple(map(torch.zeros_like, hidden)), torch.zeros_like(pooled)
    extra = {}
    if model.is_xl:
        size = check_size(model, "height", height), check_size(model, "width", width)
        extra["size_ids"] = torch.tensor([*size, 0, 0, *size], dtype=torch.float32)
    return TextEmbedding(hidden=hidden, pooled=pooled, extra=extra, tokens=tokens)


# ---- latents ---------------------------------------------------------------------------------
def draw_noise(
    model: LatentDiffusion,
    source: Sequential | BrownianPath | int,
    height: int | None = None,
    width: int | None = None,
) -> Latent:
    """The first Gaussian of a noise source (or of a seed): where a picture begins.

    height, width in pixels; None is the model's own size. Drawn on the CPU in float32, then moved:
    one seed gives one start noise on every device. Errors: InputError for sizes that cannot be.
    """
    source = Sequential(source) if not callable(source) else source
    height, width = check_size(model, "height", height), check_size(model, "width", width)
    factor = model.size_factor
    shape = (model.latent_channels, height // factor, width // factor)
    source.device = model.device
    return Latent(source.first(shape).to(model.device), None, "draw_noise", model.preview)


def check_size(model: LatentDiffusion, name: str, pixels: int | None) -> int:
    """A picture size in pixels that the VAE can take; None is the model's own."""
    factor = model.size_factor
    if pixels is None:
        return model.size
    if not isinstance(pixels, (int, np.integer)) or isinstance(pixels, bool):
        raise InputError(
            f"{name} is {shown(pixels)}; an integer of pixels is allowed, e.g. {model.size}"
        )
    if pixels < factor or pixels % factor or pixels > 4096:
        near = max(factor, min(4096, round(pixels / factor) * factor))
        raise InputError(
            f"{name} is {pixels}; multiples of {factor} from {factor} to 4096 are allowed: "
            f"the nearest is {near}"
        )
    return int(pixels)


def add_noise(latent: Latent, noise: Latent, level: NoiseLevel) -> Latent:
    """Jump to a noise level in one step: x_t = alpha · x0 + sigma · noise.

    DDPM (arXiv 2006.11239), Eq. 4. Errors: InputError for shapes that differ.
    """
    clean, drawn = values_of(latent), values_of(noise)
    if clean.shape != drawn.shape:
        raise InputError(
            f"latent {tuple(clean.shape)} and noise {tuple(drawn.shape)} differ in shape; "
            "draw noise of the picture's own height and width"
        )
    noisy = level.alpha * clean + level.sigma * drawn
    return Latent(noisy, level, "add_noise", getattr(latent, "preview", None))


def values_of(latent):
    """The bare array of a `Latent`, or the array itself."""
    return latent.values if isinstance(latent, Latent) else latent


# ---- one step --------------------------------------------------------------------------------
@memory_told("predict")
@torch.inference_mode()
def predict(
    model: LatentDiffusion,
    latent: Latent | torch.Tensor | np.ndarray,
    level: NoiseLevel,
    text_embedding: TextEmbedding,
    uncond_embedding: TextEmbedding | None,
    guidance_scale: float | Guidance,
    prepared: PreparedText | None = None,
) -> Prediction:
    """Ask the U-Net about a noisy latent, once with the prompt and once without.

    The guided output is uncond + g · (cond − uncond) (Ho & Salimans, arXiv 2207.12598, Eq. 6, their
    w = g − 1). At g = 1 the unconditional pass is not run; at g = 0 the guided output *is* the
    unconditional one (diffusers runs the conditional pass alone for every g ≤ 1). A `Guidance` may
    limit g to an interval of noise levels and rescale the result.
    `prepared` is what `prepare` made of the same texts and g, which saves doing it at every step.
    Errors: InputError for g that is not finite; NumericsError names the first module that fails.
    """
    guidance = as_guidance(guidance_scale)
    scale = scale_at(model, guidance, level)
    if uncond_embedding is None and scale != 1:
        raise InputError(
            f"uncond_embedding is None with guidance_scale {scale:g}; only 1 runs without it: "
            'pass embed(model, tokenize(model, ""))'
        )
    values = tensor_of(values_of(latent), model.device)
    count = 1 if scale == 1 else 2
    texts = (text_embedding, uncond_embedding, guidance, scale)
    text = prepared.last(count) if prepared else branch_texts(model, *texts)
    outputs = run_unet(model, values, level, text, count)
    if not all_finite(outputs):
        raise _not_finite(model, values, level, branch_texts(model, *texts))
    uncond = outputs[0] if scale != 1 else None
    kind = model.schedule.prediction_type
    return Prediction(level, values, outputs[-1], uncond, scale, kind, model.preview,
                      guidance.rescale)  # fmt: skip


@memory_told("predict_many")
def predict_many(
    model: LatentDiffusion, asked: Sequence[Asked], prepared: PreparedText | None = None
) -> list[Prediction]:
    """`predict` for several runs at once, each (latent, level, text, uncond, guidance_scale).

    All branches of all runs are the rows of one batch; the answers agree with single calls up to
    rounding. `prepared` is what `prepare_many` made of the same. Errors as `predict`.
    """
    guidances = [as_guidance(guidance) for *_, guidance in asked]
    scales = [scale_at(model, g, given[1]) for g, given in zip(guidances, asked, strict=True)]
    counts = [1 if scale == 1 else 2 for scale in scales]
    pairs = list(zip(asked, counts, strict=True))
    sample = torch.cat([given[0].to(model.dtype).expand(n, *given[0].shape) for given, n in pairs])
    times = [given[1].timestep for given, n in pairs for _ in range(n)]
    timestep = torch.tensor(times, dtype=torch.float32, device=sample.device)
    outputs = model.unet(sample, timestep, prepared or many_texts(model, asked)).float()
    kind, said = model.schedule.prediction_type, []
    for i, output in enumerate(outputs.split(counts)):
        (values, level, *texts), scale, share = asked[i], scales[i], guidances[i].rescale
        if not all_finite(output):
            text = branch_texts(model, *texts[:2], guidances[i], scale)
            raise _not_finite(model, values, level, text)
        first = output[0] if scale != 1 else None
        said.append(Prediction(level, values, output[-1], first, scale, kind, model.preview, share))
    return said


def run_unet(model, values, level, text, count) -> torch.Tensor:
    """Raw outputs (branches, channels, h, w) in float32; the last branch is the prompt's."""
    sample, timestep = unet_inputs(model, values, level, count)
    with rows(slice(count - 1, None)):
        return model.unet(sample, timestep, text).float()


def unet_inputs(model, values, level, count) -> tuple[torch.Tensor, torch.Tensor]:
    """The latent once for each branch, in the model's dtype, and the timestep."""
    sample = values.to(model.dtype).expand(count, *values.shape)
    return sample, torch.full((), level.timestep, dtype=torch.float32, device=values.device)


def _not_finite(model, values, level, text) -> NumericsError:
    """What went in that is not finite, or the first module inside where that arose."""
    given = {"the latent": values, "the text embedding": text.hidden}
    bad = [name for name, tensor in given.items() if not all_finite(tensor)]
    if bad:
        what = f"{bad[0]} that it was given already holds such values: look where it was made"
    else:
        sample, timestep = unet_inputs(model, values, level, len(text))
        what = origin(model.unet, sample, timestep, text)
    step = "" if current_step() is None else f"in step {current_step()}, "
    return NumericsError(
        f"the U-Net returned NaN or infinity {step}at timestep {level.timestep:g}; {what}"
    )


def update(latent, update: Update, predictions: Sequence[Prediction], noises: Sequence = ()):
    """The scheduler update: x_next = a·x + Σ weight·reading + Σ weight·noise, a few known numbers.

    `update` is a planned step's `Update` (or the step itself); `predictions` are *all* calls of the
    run so far, which its terms count from 0. A `Latent` gives a `Latent`, an array an array.
    """
    rule = getattr(update, "update", update)
    made = combine(values_of(latent), rule, predictions, noises)
    if not isinstance(latent, Latent):
        return made
    return Latent(made, getattr(update, "next_level", None), "update", latent.preview)


# ---- pictures --------------------------------------------------------------------------------
@memory_told("decode")
def decode(
    model: LatentDiffusion,
    latent: Latent | torch.Tensor | np.ndarray,
    *,
    tile: int | None = None,
) -> Image.Image:
    """The VAE's decoder: a latent to a picture, pixel = round(255 · clamp(y/2 + 0.5, 0, 1)).

    Half precision is left for float32 where the VAE's config says that it overflows. `tile` is the
    side in pixels of overlapping pieces that are decoded one by one and blended, for large pictures
    on small devices; None decodes the picture whole, and in pieces of 512 pixels (with a notice)
    only where that does not fit into memory.
    Errors: InputError for a tile that cannot be; NumericsError where the decoder gives NaN or
    infinity; MemoryExceeded.
    """
    pixels = decode_pixels(model, tensor_of(values_of(latent), model.device), tile)
    if not bool(torch.isfinite(pixels).all()):
        raise NumericsError(
            f"decode made NaN or infinity from a latent of shape {tuple(values_of(latent).shape)}; "
            "load the model with dtype=torch.float32"
        )
    return to_image((pixels.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy())


@torch.inference_mode()
def decode_pixels(
    model: LatentDiffusion, values: torch.Tensor, tile: int | None = None
) -> torch.Tensor:
    """The decoder's raw output (3, height, width), about -1…1, of a latent (channels, h, w)."""
    config, factor = model.vae.config, model.size_factor
    with safe_precision(model.vae) as dtype:
        raw = values.to(model.device, dtype) / config.scaling_factor + (config.shift_factor or 0.0)
        return in_pieces(model.vae, model.vae.decode, raw[None], tile, (1, factor))[0]


@memory_told("encode")
def encode(model: LatentDiffusion, image: Image.Image, *, tile: int | None = None) -> Latent:
    """The VAE's encoder: a picture to the mean of its clean latent, scaled as the U-Net expects it.

    `tile` and half precision as in `decode`. Errors: InputError for what is not a PIL image, or for
    sizes that are no multiple of the factor; MemoryExceeded.
    """
    if not isinstance(image, Image.Image):
        raise InputError(
            f"image is {shown(image)}; a PIL image is allowed: open it with PIL.Image.open"
        )
    check_size(model, "image width", image.width), check_size(model, "image height", image.height)
    pixels = torch.from_numpy(to_pixels(image)).permute(2, 0, 1) * 2 - 1  # (3, height, width)
    values = encode_pixels(model, pixels.to(model.device, torch.float32), tile)
    return Latent(values, model.schedule.level_at(timestep=-1), "encode", model.preview)


@torch.inference_mode()
def encode_pixels(
    model: LatentDiffusion, pixels: torch.Tensor, tile: int | None = None
) -> torch.Tensor:
    """The scaled mean latent (channels, h, w), float32, of pixels (3, height, width) in -1…1."""
    config, vae = model.vae.config, model.vae
    with safe_precision(vae) as dtype:
        given, sizes = pixels[None].to(model.device, dtype), (model.size_factor, 1)
        mean = in_pieces(vae, lambda part: vae.encode(part)[0], given, tile, sizes)
    return ((mean[0] - (config.shift_factor or 0.0)) * config.scaling_factor).float()
