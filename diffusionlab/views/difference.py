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
from diffusionlab.views.lanes import lanes_data
from diffusionlab.views.page import plain
from diffusionlab.views.reels import SIZE
from diffusionlab.views.sampler_race import NAMES, caption, end_picture
from diffusionlab.views.view import View

SHARE = 0.05  # of the latents' size: from here on two runs have parted


def diff(trace_a: Trace, trace_b: Trace, *, labels: Sequence[str] = ("A", "B")) -> View:
    """Two runs beside each other: the settings that differ, where they part, and both pictures.

    The two pictures lie over each other and a slider moves the line between them; x0-hat is decoded
    where both runs recorded "frames", else drawn by the preview map. Runs are aligned by step where
    they visit the same levels, else by karras_sigma, or by network calls (`analysis.race.align`).
    They have parted where their x_t differ by more than 5 % of their size
    (`analysis.trajectories.parting`). Errors: InputError.
    """
    traces, names = (trace_a, trace_b), _names(labels)
    _check(traces, names)
    found = differing(*traces)
    data = lanes_data(traces, names, SIZE, 1) | {
        "title": _title(traces, names),
        "labels": list(names),
        "differ": [[named(name), *values] for name, *values in found.differ],
        "same": [[named(name), value] for name, value in found.same],
        "sentences": [asked_told(found, names), start_told(found), ended_told(traces, names)],
        "parted": parted(*traces),
    }
    places = max(len(one["places"]) for one in data["alignments"].values())
    return View(
        script="difference",
        title=data["title"],
        alt=f"{data['title']}. {' '.join(filter(None, data['sentences']))} "
        f"{data['parted']['told']}",
        data=data,
        live={
            "place": 0,
            "align": _alignment(traces),
            "show": "x0" if data["known"] else "x_t",
            "scale": "all",
            "split": 50,
        },
        limits={"place": (0, places - 1), "split": (0, 100)},
        pictures=lambda: _still(traces, names),
        lighter="Compare runs of fewer steps.",
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


def _title(traces: Sequence[Trace], names: Sequence[str]) -> str:
    prompts = {trace.settings.prompt for trace in traces}
    start = f"Two runs, {names[0]} and {names[1]}"
    return f"{start} · {prompts.pop()}" if len(prompts) == 1 else start


def _alignment(traces: Sequence[Trace]) -> str:
    a, b = (trace.karras_sigmas for trace in traces)
    return "step" if len(a) == len(b) and np.allclose(a, b, rtol=1e-6) else "karras_sigma"


def named(setting: str) -> str:
    """A setting's name in words."""
    return NAMES.get(setting, setting.replace("_", " "))


# ---- sentences --------------------------------------------------------------------------------
def asked_told(found: Differing, names: Sequence[str]) -> str:
    """Which settings differ."""
    words = [named(name) for name, *_ in found.differ]
    if not words:
        return f"{names[0]} and {names[1]} were asked for the same."
    listed = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return f"They differ in {len(words)} setting{'s' * (len(words) > 1)}: {listed}."


def start_told(found: Differing) -> str:
    """Whether both began with the same noise."""
    if found.start is None:
        return "Their latents have different shapes, so that no noise is the same."
    if found.same_start:
        return "They start from the same noise."
    size = plain(found.start)
    told = size if isinstance(size, str) else f"{size:.2g}"
    return f"They start from different noise, {told} of its size apart."


def ended_told(traces: Sequence[Trace], names: Sequence[str]) -> str:
    """Which of them was stopped."""
    told = [f"{name} {stopped(trace)}" for name, trace in zip(names, traces, strict=True)
            if stopped(trace) and trace.image is None]  # fmt: skip
    return f"{'; '.join(told)}." if told else ""


def parted(a: Trace, b: Trace) -> dict[str, Any]:
    """Where two runs part, in words, and after how many steps of the first; why not, where not."""
    try:
        found = parting(a, b, SHARE)
    except InputError as error:
        return {"told": f"Where they part is not known: {error}.", "step": None}
    text = str(found)
    text = text[0].upper() + text[1:]
    if found.at is None:
        return {"told": f"{text} at the {len(found.steps)} levels that both visit.", "step": None}
    return {"told": f"{text}.", "step": found.steps[found.at][0]}


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
