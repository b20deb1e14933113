"""The race: several runs side by side on one scrubber, at the same step, level or work."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from diffusionlab.analysis.race import ALIGNMENTS
from diffusionlab.analysis.same_runs import start_off
from diffusionlab.analysis.trajectories import ending
from diffusionlab.errors import InputError, shown
from diffusionlab.images import blank
from diffusionlab.levels import one_of
from diffusionlab.trace import Comparison, Trace
from diffusionlab.trace.summary import counted
from diffusionlab.views.lanes import has_x0, joined, lanes_data
from diffusionlab.views.page import plain
from diffusionlab.views.reels import latent_image, size_of
from diffusionlab.views.view import View

FEWEST, MOST = 2, 9
SIZE = 192  # pixels; nine runs stand side by side
WIDE = 14  # letters of a line below a picture of the still
LABELS = {"seed": "seed {}", "guidance_scale": "guidance {}", "num_steps": "{} steps"}
NAMES = {"guidance_scale": "guidance scale", "num_steps": "number of steps",
         "negative_prompt": "negative prompt", "num_train_steps": "training timesteps"}  # fmt: skip


def race(
    comparison: Comparison,
    *,
    align: str = "karras_sigma",
    reference: int | str | None = None,
    blind: bool = False,
    size: int = SIZE,
    every: int = 1,
) -> View:
    """Two to nine runs of a comparison side by side on one scrubber.

    Each shows x0-hat (decoded where all runs recorded "frames", else by the preview map), x_t, the
    final picture, or how far its x0-hat is from that of the `reference` (a run's number or its
    value; the first run where none is named). `align` says what a common place is: "step",
    "karras_sigma" or "network_calls" (`analysis.race.align` defines them). Distances are
    |a − b| / |b|, b being the reference's; x_t is compared at equal noise levels only.
    `blind=True` hides the names until they are revealed, and measures from "A" where no reference
    is named. `size` is the width of decoded pictures in pixels; `every=2` keeps every second step.
    Errors: InputError.
    """
    _check(comparison, align)
    values = [str(value) for value in comparison.values]
    labels = [label_of(comparison.axis, value) for value in values]
    order = blind_order(comparison)
    first = order[0] if blind else 0
    chosen = first if reference is None else _reference(reference, values)
    data = lanes_data(comparison.traces, labels, size_of(size, SIZE), every)
    data |= {
        "axis": NAMES.get(comparison.axis, comparison.axis),
        "title": _title(comparison),
        "order": order,
        "named": reference is not None,
        "start": start_told(comparison.traces),
    }
    places = max(len(one["places"]) for one in data["alignments"].values())
    return View(
        script="sampler_race",
        title=joined(data["title"]),
        alt=_alt(comparison, data, chosen, blind),
        data=data,
        live={
            "place": 0,
            "align": align,
            "show": "x0" if data["known"] else "x_t",
            "reference": chosen,
            "distance": "x0" if any(run["x0"] for run in data["runs"]) else "x_t",
            "scale": "all",
            "blind": bool(blind),
            "revealed": False,
        },
        limits={"place": (0, places - 1), "reference": (0, len(labels) - 1)},
        pictures=lambda: _ends(comparison, order if blind else None),
        lighter="Keep fewer pictures: race(comparison, every=2), or smaller ones: size=128.",
    )


def label_of(axis: str, value: str) -> str:
    """What a run is called: a bare number says of what."""
    if axis == "num_steps" and value == "1":
        return "1 step"
    told = LABELS.get(axis)
    return told.replace("{}", value) if told else value or f"(empty {NAMES.get(axis, axis)})"


def _check(comparison: Comparison, align: str) -> None:
    if not isinstance(comparison, Comparison):
        raise InputError(
            f"comparison is {shown(comparison)}; a Comparison of {FEWEST} to {MOST} runs is "
            "allowed: make one with compare(…)"
        )
    count = len(comparison.traces)
    if not FEWEST <= count <= MOST:
        raise InputError(
            f"a comparison of {count} run{'' if count == 1 else 's'} was given; {FEWEST} to {MOST} "
            "stand side by side: compare fewer, or see one run with explore(trace)"
        )
    one_of("align", align, ALIGNMENTS)


def _reference(reference: int | str, labels: Sequence[str]) -> int:
    """The number of the run that the others are compared with."""
    if isinstance(reference, str) and reference in labels:
        return labels.index(reference)
    whole = isinstance(reference, int) and not isinstance(reference, bool)
    if whole and 0 <= reference < len(labels):
        return reference
    raise InputError(
        f"reference is {shown(reference)}; a run's number, 0 to {len(labels) - 1}, or its value is "
        f"allowed: {', '.join(shown(label, 30) for label in labels)}"
    )


def blind_order(comparison: Comparison) -> list[int]:
    """The runs in an order that depends on their content only; the first one is called "A"."""
    settings = [f"{value!r} {trace.settings!r}" for value, trace in _pairs(comparison)]
    keys = [hashlib.sha256(f"{i} {text}".encode("utf-8", "replace")).hexdigest()
            for i, text in enumerate(settings)]  # fmt: skip
    return sorted(range(len(keys)), key=keys.__getitem__)


def _pairs(comparison: Comparison) -> Any:
    return zip(comparison.values, comparison.traces, strict=True)


def start_told(traces: Sequence[Trace]) -> str:
    """Whether the runs began with the same noise."""
    if len({trace.steps[0].latent.shape for trace in traces}) > 1:
        return "The runs have latents of different shapes; no distance is possible between those."
    off = [float(start_off(traces[0], trace)) for trace in traces[1:]]
    count = sum(not value <= 1e-6 for value in off)
    if not count:
        return "All runs started from the same noise."
    which = "All other runs started" if count == len(off) else f"{count} of them started"
    largest = max(off) if all(value == value for value in off) else float("nan")
    return f"{which} from other noise than the first (up to {_short(largest)} of its size away)."


def _short(value: float) -> str:
    number = plain(value)
    return number if isinstance(number, str) else f"{number:.2g}"


def _title(comparison: Comparison) -> list[Any]:
    axis = NAMES.get(comparison.axis, comparison.axis)
    start = [f"Race of {len(comparison.traces)} runs over ", {"text": axis}]
    return start + of_prompt(comparison.traces)


def of_prompt(traces: Sequence[Trace]) -> list[Any]:
    """The end of a title: the prompt, where all runs have the same."""
    prompts = {trace.settings.prompt for trace in traces}
    return [" · ", {"text": prompts.pop()}] if len(prompts) == 1 else []


def _alt(comparison: Comparison, data: dict, reference: int, blind: bool) -> str:
    count, title = len(comparison.traces), joined(data["title"])
    if blind:
        return f"{title}. {count} runs side by side, their names hidden. {data['start']}"
    told = [f"{run['label']} ({counted(run['count'], 'step')}, "
            f"{counted(run['calls'], 'network call')})" for run in data["runs"]]  # fmt: skip
    name = data["runs"][reference]["label"]
    return f"{title}: {', '.join(told)}. Reference: {name}. {data['start']}"


# ---- the still --------------------------------------------------------------------------------
def _ends(comparison: Comparison, order: list[int] | None) -> list[tuple[str, Any]]:
    """The pictures that the runs end in, captioned by their values, or by letters in that order."""
    if order is not None:
        traces = [comparison.traces[i] for i in order]
        return [(letter(i), end_picture(trace)) for i, trace in enumerate(traces)]
    axis = comparison.axis
    return [(caption(label_of(axis, str(v))), end_picture(t)) for v, t in _pairs(comparison)]


def letter(index: int) -> str:
    """A, B, C, …"""
    return chr(ord("A") + index)


def caption(text: str) -> str:
    """At most two short lines of a text, broken at spaces, underscores and hyphens where it can."""
    lines = [""]
    for piece in re.findall(r"[^\s_-]+[\s_-]*|[\s_-]+", text):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > WIDE:
            lines.append("")
        lines[-1] += piece
    cut = [line.strip()[:WIDE] for line in lines[:2]]
    whole = sum(map(len, cut)) >= len("".join(line.strip() for line in lines))
    return "\n".join(cut) + ("" if whole else "…")


def end_picture(trace: Trace) -> Any:
    """The image, else the end of the run by the preview map, else a grey one."""
    if trace.image is not None:
        return trace.image
    end = ending(trace)[0] if has_x0(trace) else trace.steps[-1].next_latent
    found = latent_image(end, trace.preview)
    return found if found is not None else blank(trace.settings.width, trace.settings.height)
