"""Two runs: what was asked differently, where they part, and one picture over the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.differing import Differing, differing
from diffusionlab.analysis.trajectories import parting, stopped
from diffusionlab.errors import InputError, shown
from diffusionlab.images import blank, to_image, to_pixels
from diffusionlab.trace import Trace
from diffusionlab.trace.summary import counted
from diffusionlab.views.lanes import joined, lanes_data
from diffusionlab.views.page import plain
from diffusionlab.views.reels import SIZE, size_of
from diffusionlab.views.sampler_race import NAMES, caption, end_picture, of_prompt
from diffusionlab.views.view import View

SHARE = 0.05  # of the latents' size: from here on two runs have parted


def diff(
    trace_a: Trace,
    trace_b: Trace,
    *,
    labels: Sequence[str] = ("A", "B"),
    size: int = SIZE,
    every: int = 1,
) -> View:
    """Two runs beside each other: the settings that differ, where they part, and both pictures.

    The two pictures lie over each other and a slider moves the line between them; x0-hat is decoded
    where both runs recorded "frames", else drawn by the preview map. Runs are aligned by step where
    they visit the same levels, else by karras_sigma, or by network calls (`analysis.race.align`).
    They have parted where their x_t differ by more than 5 % of their size, at a level that both
    visit (`analysis.trajectories.parting`). `size` is the width of decoded pictures in pixels;
    `every=2` keeps every second step. Errors: InputError.
    """
    traces, names = (trace_a, trace_b), _names(labels)
    _check(traces, names)
    found = differing(*traces)
    data = lanes_data(traces, names, size_of(size), every) | {
        "title": _title(traces, names),
        "labels": list(names),
        "differ": [[named(name), *values] for name, *values in found.differ],
        "same": [[named(name), value] for name, value in found.same],
        "sentences": list(
            filter(None, [asked_told(found, names), start_told(found), ended_told(traces, names)])
        ),
        "parted": parted(*traces),
    }
    places = max(len(one["places"]) for one in data["alignments"].values())
    return View(
        script="difference",
        title=joined(data["title"]),
        alt=" ".join(
            [f"{joined(data['title'])}.", *map(joined, data["sentences"]), data["parted"]["told"]]
        ),
        data=data,
        live={
            "place": 0,
            "align": "step" if same_levels(*traces) else "karras_sigma",
            "show": "x0" if data["known"] else "x_t",
            "scale": "all",
            "split": 50,
        },
        limits={"place": (0, places - 1), "split": (0, 100)},
        pictures=lambda: _still(traces, names),
        lighter="Keep fewer pictures: diff(a, b, every=2), or smaller ones: size=128.",
    )


def _names(labels: Any) -> tuple[str, str]:
    good = isinstance(labels, Sequence) and not isinstance(labels, (str, bytes))
    good = good and len(labels) == 2 and all(isinstance(one, str) and one for one in labels)
    if not good or labels[0] == labels[1]:
        raise InputError(
            f'labels is {shown(labels)}; two different texts are allowed, e.g. ("before", "after")'
        )
    return str(labels[0]), str(labels[1])


def _check(traces: Sequence[Any], names: Sequence[str]) -> None:
    for trace, name in zip(traces, names, strict=True):
        if not isinstance(trace, Trace):
            raise InputError(
                f"run {name} is {shown(trace)}; a Trace is allowed: make one with generate(…), or "
                "read one with Trace.load(path)"
            )


def _title(traces: Sequence[Trace], names: Sequence[str]) -> list[Any]:
    return ["Two runs, ", {"text": names[0]}, " and ", {"text": names[1]}, *of_prompt(traces)]


def same_levels(a: Trace, b: Trace) -> bool:
    """Whether two runs visit the same noise levels (to 1e-6)."""
    ours, theirs = a.karras_sigmas, b.karras_sigmas
    return len(ours) == len(theirs) and np.allclose(ours, theirs, rtol=1e-6)


def named(setting: str) -> str:
    """A setting's name in words."""
    return NAMES.get(setting, setting.replace("_", " "))


# ---- sentences --------------------------------------------------------------------------------
# Each is a list of parts, ours and {"text": a user's}.
def asked_told(found: Differing, names: Sequence[str]) -> list[Any]:
    """Which settings differ."""
    words = [named(name) for name, *_ in found.differ]
    if not words:
        return [{"text": names[0]}, " and ", {"text": names[1]}, " were asked for the same."]
    listed = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return [f"They differ in {counted(len(words), 'setting')}: {listed}."]


def start_told(found: Differing) -> list[Any]:
    """Whether both began with the same noise."""
    if found.start is None:
        return ["Their latents have different shapes, so that no noise is the same."]
    if found.same_start:
        return ["They start from the same noise."]
    size = plain(found.start)
    told = size if isinstance(size, str) else f"{size:.2g}"
    return [f"They start from different noise, {told} of its size apart."]


def ended_told(traces: Sequence[Trace], names: Sequence[str]) -> list[Any]:
    """Which of them was stopped."""
    told: list[Any] = []
    for name, trace in zip(names, traces, strict=True):
        if stopped(trace) and trace.image is None:
            told += [*(["; "] if told else []), {"text": name}, f" {stopped(trace)}"]
    return [*told, "."] if told else []


def parted(a: Trace, b: Trace) -> dict[str, Any]:
    """Where two runs part, in words, and after how many steps of the first; why not, where not."""
    try:
        found = parting(a, b, SHARE)
    except InputError as error:
        return {"told": f"Where they part is not known: {error}.", "step": None, "mark": ""}
    text = str(found)
    text = text[0].upper() + text[1:]
    if found.at is None:
        told = f"{text} at the {len(found.steps)} levels that both visit."
        return {"told": told, "step": None, "mark": ""}
    ours, theirs = found.steps[found.at]
    if same_levels(a, b):
        return {"told": f"{text}.", "step": ours, "mark": "they part"}
    told = (
        f"They visit different noise levels, {len(found.steps)} in common. The first of these "
        f"where their x_t differ by more than {SHARE:.0%} is karras_sigma "
        f"{found.karras_sigmas[found.at]:.3g}, after {ours} and {counted(theirs, 'step')}."
    )
    return {"told": told, "step": ours, "mark": "x_t differ here"}


# ---- the still --------------------------------------------------------------------------------
def _still(traces: Sequence[Trace], names: Sequence[str]) -> list[tuple[str, Any]]:
    ends = [end_picture(trace) for trace in traces]
    named = [(caption(name), end) for name, end in zip(names, ends, strict=True)]
    if ends[0].size != ends[1].size:
        return [*named, ("other size:\nno difference", blank(*ends[0].size))]
    off = np.abs(to_pixels(ends[0]) - to_pixels(ends[1])).mean(axis=2)
    most = float(off.max())
    picture = to_image(1 - off / most) if most else blank(*ends[0].size)
    return [*named, (f"difference\nblack: {most:.2g}" if most else "difference:\nnone", picture)]
