"""The step explorer: one run under one scrubber."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.images import blank, spread
from diffusionlab.plan import Step
from diffusionlab.trace import Trace, statistics, step_caption
from diffusionlab.trace.summary import counted
from diffusionlab.views.attention_data import attention_data
from diffusionlab.views.dial_data import dial_data, difference_data
from diffusionlab.views.equation import call_facts, check_facts
from diffusionlab.views.facts import cut_of, settings_facts, step_facts, titled
from diffusionlab.views.reels import SIZE, decoded, latent_image, reel, size_of
from diffusionlab.views.view import View

PANELS = ("end", "eps", "difference", "dial")
HEIGHT = 780  # of the frame in a notebook: all of it at 900 pixels of width
NOT_FINITE = "NaN or infinity in this latent: there is nothing to show."
UNRECORDED = 'x0-hat and eps-hat were not recorded: run again with record={"predictions"}.'


def explore(
    trace: Trace,
    *,
    words: str | Iterable[str] | None = None,
    decode: Callable[[Any], Any] | None = None,
    every: int = 1,
    size: int = SIZE,
) -> View:
    """A run under one scrubber: x_t, x0-hat, eps-hat, both branches, attention, the equation.

    `words` get a button (None: all of the prompt; the others are one sum); `decode(latent)` makes
    pictures of x0-hat where the trace has no frames, else its preview map does. `every=2` shows
    every second step and the last one; the live value `step` then counts those that are shown.
    The others are `word`, `panel` ("end", "eps", "difference" or "dial") and `guidance`.
    `size` is the width of decoded pictures. Raises InputError for what is not allowed, for a run of
    no step, and for words where no attention was recorded.
    """
    if not isinstance(trace, Trace):
        raise InputError(f"trace is {shown(trace)}; a Trace is needed: generate or Trace.load it")
    facts, indexes = step_facts(trace), chosen_steps(trace, every)
    size = size_of(size)
    beliefs, made = _beliefs(trace, indexes, decode)
    title, own = titled(trace), trace.settings.guidance_scale
    data = {
        "title": title,
        "settings": settings_facts(trace),
        "steps": [facts[i] | {"said": _said(trace, i)} for i in indexes],
        "calls": call_facts(trace, indexes),
        "check": check_facts(trace, indexes),
        "reels": _reels(trace, indexes, beliefs, made, size),
        "attention": attention_data(trace, indexes, words),
        "difference": difference_data(trace, indexes),
        "dial": dial_data(trace, indexes),
        "note": _note(trace, indexes),
    }
    return View(
        script="step_explorer",
        title="".join(part if isinstance(part, str) else part["text"] for part in title),
        alt=_alt(trace, made, data["attention"]),
        data=data,
        live={"step": 0, "word": "", "panel": "end", "guidance": float(own)},
        limits={
            "step": (0, len(indexes) - 1),
            "word": ("", *data["attention"]["words"]),
            "panel": PANELS,
            "guidance": (min(0.0, math.floor(own)), data["dial"]["top"]),
        },
        pictures=lambda: _still(trace, indexes, beliefs),
        height=HEIGHT,
        lighter="Show fewer steps, or smaller pictures: explore(trace, every=2, size=128).",
    )


def chosen_steps(trace: Trace, every: Any) -> list[int]:
    """Every so-manieth step from 0 on, and the last. Raises InputError."""
    count = len(trace.steps)
    whole = isinstance(every, (int, np.integer)) and not isinstance(every, bool)
    if not whole or not 1 <= every <= count:
        raise InputError(
            f"every is {shown(every)}; a whole number from 1 (all steps) to {count} is allowed: "
            "2 shows every second step"
        )
    return sorted({*range(0, count, int(every)), count - 1})


# ---- pictures ----------------------------------------------------------------------------------
def _beliefs(
    trace: Trace, indexes: Sequence[int], decode: Callable[[Any], Any] | None
) -> tuple[list[Any], str]:
    """x0-hat of each shown step as a picture (None where there is none), and how it was made."""
    if trace.frames and len(trace.frames) == len(trace.steps):
        return [trace.frames[i] for i in indexes], "decoded"
    found = [_first(trace.steps[i], "x0") for i in indexes]
    if decode is None:
        return [_preview(trace, x0) for x0 in found], _how(trace)
    return [decoded(decode, x0) for x0 in found], "decoded"


def _first(step: Step, reading: str) -> Any:
    """A reading of the step's first network call; None where none was recorded."""
    return getattr(step.predictions[0], reading) if step.predictions else None


def _preview(trace: Trace, latent: Any) -> Any:
    return None if latent is None else latent_image(latent, trace.preview)


def _how(trace: Trace) -> str:
    return "preview" if trace.preview is not None else "mean of the channels, no preview map"


def _reels(
    trace: Trace, indexes: Sequence[int], beliefs: Sequence[Any], made: str, size: int
) -> dict[str, Any]:
    steps, how = [trace.steps[i] for i in indexes], _how(trace)
    noises = [_preview(trace, _first(step, "eps")) for step in steps]
    points = [_preview(trace, step.latent) for step in steps]

    def told(name: str, images: Sequence[Any], latents: Sequence[Any], how: str) -> list[str]:
        return [
            _picture_alt(trace, i, name, how, image, latent)
            for i, image, latent in zip(indexes, images, latents, strict=True)
        ]

    x0s, eps = ([_first(step, reading) for step in steps] for reading in ("x0", "eps"))
    first = ", first network call" if any(step.network_calls > 1 for step in steps) else ""
    return {
        "x_t": reel(
            f"x_t: what the sampler holds ({how})",
            points,
            told("x_t", points, [s.latent for s in steps], how),
        ),
        "x0": reel(
            f"x0-hat: the network's belief ({made}{first})",
            beliefs,
            told("x0-hat", beliefs, x0s, made),
            size,
        ),
        "eps": reel(f"eps-hat ({how}{first})", noises, told("eps-hat", noises, eps, how)),
        "end": reel("the final picture", [trace.image], [_end_alt(trace)], size),
    }


def _picture_alt(trace: Trace, index: int, name: str, how: str, image: Any, latent: Any) -> str:
    """A sentence about one picture, with its numbers; or why there is none."""
    if image is None:
        return UNRECORDED if latent is None else NOT_FINITE
    numbers = "" if latent is None else f"; {statistics(latent)}"
    return f"{name} at {_said(trace, index)}, {how}{numbers}."


def _end_alt(trace: Trace) -> str:
    if trace.image is not None:
        width, height = trace.image.size
        return f"The final picture of {shown(trace.settings.prompt)}, {width} × {height} pixels."
    done, asked = len(trace.steps), trace.settings.num_steps
    if done < asked:
        return f"No final picture: the run was stopped after {done} of {counted(asked, 'step')}."
    return "No final picture is in this record."


# ---- sentences ---------------------------------------------------------------------------------
def _said(trace: Trace, index: int) -> str:
    level, last = trace.steps[index].level, len(trace.steps) - 1
    return (
        f"step {index} of {last}, timestep {level.timestep:.4g}, "
        f"karras_sigma {level.karras_sigma:.3g}"
    )


def _note(trace: Trace, indexes: Sequence[int]) -> list[Any]:
    """What is not there: steps that were not made, or are not shown; words that were cut off."""
    done, asked = len(trace.steps), trace.settings.num_steps
    told = (
        [f"The run was stopped after {done} of {counted(asked, 'step')}."] if done < asked else []
    )
    if len(indexes) < done:
        told.append(f"{len(indexes)} of {done} steps are shown.")
    return [" ".join(told), " " * bool(told), *cut_of(trace)]


def _alt(trace: Trace, made: str, attention: dict[str, Any]) -> str:
    settings, sigmas = trace.settings, trace.karras_sigmas
    words = (
        f", attention of {attention['kinds'].count('word')} words" if attention["choices"] else ""
    )
    return (
        f"Step explorer of {shown(settings.prompt)}: {counted(len(trace.steps), 'step')} of "
        f"{settings.sampler_text} from karras_sigma {sigmas[0]:.3g} to {sigmas[-1]:.3g}, guidance "
        f"{settings.guidance}; x0-hat {made}{words}."
    )


def _still(trace: Trace, indexes: Sequence[int], beliefs: Sequence[Any]) -> list[tuple[str, Any]]:
    """About six pictures of x0-hat, and the end."""
    first = next((image for image in beliefs if image is not None), blank(64, 64))
    found = [
        (step_caption(trace.steps[indexes[i]]), beliefs[i] or blank(*first.size))
        for i in spread(len(indexes), 6)
    ]
    if trace.image is not None:
        found.append((f"the end\n\nsigma-hat {trace.karras_sigmas[-1]:.3g}", trace.image))
    return found
