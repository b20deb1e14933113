"""The last three panels of the exhibit: taking the noise away, decoding, and the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.attention import CROSS, attention_maps
from diffusionlab.analysis.latents import numbers
from diffusionlab.errors import InputError
from diffusionlab.images import enlarge
from diffusionlab.trace import Trace
from diffusionlab.trace.words import word_names
from diffusionlab.views.attention_data import pooled
from diffusionlab.views.exhibit_text import shortened, word_count
from diffusionlab.views.page import packed, plain
from diffusionlab.views.reels import decoded, latent_image, reel

LARGE = 768  # pixels of the width of the final picture, at most
CLEAR = 255  # in the bytes of a map: not finite, so that 254 is the largest value
DECODED, NOT_RECORDED = "decoded", "not recorded"
Decode = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Seen:
    """What there is to show of a run, decoded once.

    `beliefs`: x0-hat of each step as a picture, None where there is none; `how` they were made.
    `latent` is the last one, `picture` what it was decoded to (or None) and `what` that is.
    """

    beliefs: tuple[Any, ...]
    how: str
    latent: np.ndarray
    picture: Any
    what: str


def seen_of(trace: Trace, decode: Decode | None) -> Seen:
    """The pictures of a run; of a stopped one, the last x0-hat stands at the end."""
    beliefs, how = _believed(trace, decode)
    last = trace.steps[-1]
    if trace.image is not None:
        return Seen(beliefs, how, numbers(last.next_latent), trace.image, "the picture")
    latent = numbers(last.predictions[0].x0 if last.predictions else last.next_latent)
    picture = beliefs[-1] if how == DECODED else None
    what = "" if picture is None else f"x0-hat of step {len(trace.steps) - 1}, decoded"
    return Seen(beliefs, how, latent, picture, what)


def _believed(trace: Trace, decode: Decode | None) -> tuple[tuple[Any, ...], str]:
    steps = trace.steps
    if len(trace.frames) == len(steps):
        return trace.frames, DECODED
    if not all(step.predictions for step in steps):
        return (None,) * len(steps), NOT_RECORDED
    x0s = [numbers(step.predictions[0].x0).astype(np.float32) for step in steps]
    if decode is not None:
        return tuple(decoded(decode, x) for x in x0s), DECODED
    return tuple(latent_image(x, trace.preview) for x in x0s), _preview_told(trace)


def _preview_told(trace: Trace) -> str:
    return "preview map" if trace.preview is not None else "mean of the channels, grey"


# ---- panel 3: denoising -----------------------------------------------------------------------
def denoising_panel(trace: Trace, seen: Seen, size: int) -> dict[str, Any]:
    """x_t, x0-hat and where words were looked up, for every step."""
    points = [latent_image(step.latent, trace.preview) for step in trace.steps]
    how = _preview_told(trace)
    return {
        "name": "Denoising",
        "lead": [[_denoising_lead(trace)]],
        "said": [[[_step_said(trace, i)]] for i in range(len(trace.steps))],
        "x_t": reel(f"x_t: what is there ({how})", points, _alts(trace, "x_t", how, points)),
        "x0": reel(
            f"x0-hat: what the network believes ({seen.how})",
            seen.beliefs,
            _alts(trace, "x0-hat", seen.how, seen.beliefs),
            size,
        ),
        "attention": lookups(trace),
    }


def _alts(trace: Trace, name: str, how: str, pictures: Sequence[Any]) -> list[str]:
    last, told = len(trace.steps) - 1, []
    for i, (step, picture) in enumerate(zip(trace.steps, pictures, strict=True)):
        why = "was not recorded" if how == NOT_RECORDED else "holds NaN or infinity"
        level = f"karras_sigma {step.level.karras_sigma:.3g}, {how}"
        told.append(
            f"No picture: {name} of step {i} {why}."
            if picture is None
            else f"{name} at step {i} of {last}, {level}"
        )
    return told


def _denoising_lead(trace: Trace) -> str:
    done, asked = len(trace.steps), trace.settings.num_steps
    start = f"The start is noise, drawn with seed {trace.settings.seed}."
    steps = "1 step takes" if done == 1 else f"{done} steps take"
    if done < asked:
        return f"{start} {asked} steps were to take it away; this run was stopped after {done}."
    return f"{start} {steps} it away, each by asking the network what it believes."


def _step_said(trace: Trace, index: int) -> str:
    level = trace.steps[index].level
    calls = sum(step.network_calls for step in trace.steps[: index + 1])
    asked = "once" if calls == 1 else f"{calls} times"
    mixed = f"{level.alpha:.2f}\u00a0×\u00a0picture + {level.sigma:.2f}\u00a0×\u00a0noise"
    step = f"Step {index} of {len(trace.steps) - 1}"  # x_t, as x0-hat and eps-hat have it
    return f"{step}: the network takes the latent for {mixed}. It has been asked {asked}."


# ---- where words were looked up ---------------------------------------------------------------
def lookups(trace: Trace) -> dict[str, Any]:
    """Maps of the shown words as bytes: 254 is each word's largest value over the whole run.

    `peaks` (words, steps) are the largest shares of a place's attention; `best` is the word whose
    map stands out most. Where there are no maps, `missing` says why.
    """
    names = word_names(trace.tokens.words)[: word_count(trace)] if trace.tokens else ()
    if not any(tap.endswith(CROSS) for tap in trace.attention):
        return {"missing": "Which word was looked up where was not recorded in this run."}
    if not names:
        return {"missing": "The record has no words whose attention could be shown."}
    try:
        found = attention_maps(trace, names, by="step")
    except InputError as error:
        return {"missing": f"The attention cannot be shown: {error}"}
    maps = pooled(found.maps)  # (words, steps, h, w)
    with np.errstate(all="ignore"):
        peaks = maps.max(axis=(2, 3))  # NaN stays NaN
        tops = np.nan_to_num(np.nanmax(np.where(np.isfinite(maps), maps, 0), axis=(1, 2, 3))) + 0.0
        spread = np.nan_to_num(maps.mean(axis=1).std(axis=(1, 2)))
        bytes_of = np.round(maps / np.where(tops > 0, tops, 1)[:, None, None, None] * (CLEAR - 1))
    return {
        "missing": "",
        "maps": packed(np.where(np.isfinite(maps), bytes_of, CLEAR), "uint8"),
        "tops": [plain(top) for top in tops],
        "peaks": [[plain(peak) for peak in row] for row in peaks],
        "best": int(spread.argmax()),
        "measure": f"share of a place's attention; {shortened(found.reduction, 80)}",
        "check": str(found.rows),
    }


# ---- panels 4 and 5: decoding, the picture ----------------------------------------------------
def decoding_panel(seen: Seen) -> dict[str, Any]:
    """The small latent and the picture made of it, shown in squares that grow finer."""
    latent, picture = seen.latent, seen.picture
    finite = np.abs(latent[np.isfinite(latent)])
    stages = sharpening(picture, latent.shape)
    pictures, said = [p for p, _ in stages], [[[text]] for _, text in stages]
    limit = float(finite.max()) if finite.size and finite.max() else 1.0
    channels, height, width = latent.shape
    return {
        "name": "Decoding",
        "lead": [[_decoding_lead(latent, picture)]],
        "said": said,
        "latent": {"values": packed(latent, "float16"), "limit": limit},
        "latent_alt": f"The latent's {channels} channels of {height} × {width} numbers.",
        "reel": reel(seen.what, pictures, [text for _, text in stages], LARGE),
    }


def sharpening(picture: Any, latent: tuple[int, ...]) -> list[tuple[Any, str]]:
    """The picture averaged over squares, from as large as a place of the latent to one pixel."""
    if picture is None:
        return [(None, "The record ends with the latent.")]
    cell, found = max(1, round(picture.height / latent[1])), []
    while cell > 1:
        small = picture.reduce(cell)
        many = f"{_by(*small.size)} squares of {_by(cell, cell)} pixels"
        same = ", as many as the latent has places" if small.size == latent[:0:-1] else ""
        found.append((enlarge(small, picture.width), f"The picture averaged over {many}{same}."))
        cell //= 2
    full = f"All {_by(*picture.size)} pixels, as the decoder made them."
    return [*found, (picture, full)]


def _decoding_lead(latent: np.ndarray, picture: Any) -> str:
    channels, height, width = latent.shape
    small = f"The latent is small: {_by(channels, height, width)} = {latent.size:,} numbers."
    if picture is None:
        return f"{small} It was not decoded, so there is no picture of pixels to show."
    count = 3 * picture.width * picture.height
    return (
        f"{small} The decoder turns them into {_by(3, picture.height, picture.width)} = "
        f"{count:,} numbers, {count / latent.size:.3g} for each: the red, green and blue of pixels."
    )


def _by(*sizes: int) -> str:
    """4 × 16 × 16, never broken at the end of a line."""
    return "\u00a0×\u00a0".join(map(str, sizes))


def picture_panel(trace: Trace, seen: Seen) -> dict[str, Any]:
    """The end: as large as it can be, with what made it."""
    settings, picture = trace.settings, seen.picture
    done, asked = len(trace.steps), settings.num_steps
    facts = [
        ("seed", str(settings.seed)),
        ("sampler", shortened(settings.sampler_text, 60)),
        ("steps", str(done) if done == asked else f"{done} of {asked}"),
        ("guidance", str(settings.guidance)),
        ("network calls", str(trace.network_calls)),
        ("model", shortened(settings.model, 60)),
    ]
    if picture is not None:
        facts.append(("pixels", _by(*picture.size)))
    alt = f"The picture: {settings.prompt}" if trace.image is not None else seen.what
    missing = "There is no picture: the run was stopped before it was decoded."
    return {
        "name": "Picture",
        "lead": [_picture_lead(trace, seen)],
        "said": [[[_picture_said(trace)]]],
        "facts": facts,
        "reel": reel("", [picture], [alt if picture is not None else missing], LARGE),
    }


def _picture_lead(trace: Trace, seen: Seen) -> list[str]:
    if trace.image is not None:
        return ["“", shortened(trace.settings.prompt, 120), "”"]
    stop = f"Stopped after {len(trace.steps)} of {trace.settings.num_steps} steps"
    there = seen.picture is not None
    return [f"{stop}: this is {seen.what}." if there else f"{stop}: there is no picture."]


def _picture_said(trace: Trace) -> str:
    start = trace.steps[0].latent.size
    return f"It began as {start:,} random numbers from seed {trace.settings.seed}."
