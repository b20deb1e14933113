"""Runs beside one another as data of a page: their pictures, common places and distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.race import (
    ALIGNMENTS,
    NEAR,
    Alignment,
    Apart,
    Lane,
    align,
    apart,
    arrival,
    has_x0,
    lane,
    to_ends,
)
from diffusionlab.analysis.trajectories import stopped
from diffusionlab.trace import Trace
from diffusionlab.trace.summary import counted
from diffusionlab.views.page import packed, plain
from diffusionlab.views.reels import latent_image, reel

EXACT = 64  # decoded pictures up to this width are kept to the last bit; wider ones take too much
MOST_LATENTS = 2_000_000  # bytes of x0-hat in a page; above it places are averaged in blocks
NO_X0 = 'x0-hat was not recorded in this run; run it again with record=("predictions",)'


def lanes_data(traces: Sequence[Trace], labels: Sequence[str], size: int, every: int) -> dict:
    """Everything that a page needs to show these runs at common places.

    Errors: InputError for a run of no step and for a bad `every`.
    """
    lanes = [lane(trace, every) for trace in traces]
    decoded = all(len(trace.frames) == len(trace.steps) for trace in traces)
    block = _block(traces, lanes)
    alignments = [align(lanes, name) for name in ALIGNMENTS]
    distances = apart(traces, lanes, alignments)
    return {
        "runs": [
            _run_data(trace, one, label, size, decoded, block)
            for trace, one, label in zip(traces, lanes, labels, strict=True)
        ],
        "alignments": {
            one.by: _alignment_data(one, far, lanes)
            for one, far in zip(alignments, distances, strict=True)
        },
        "to_ends": _ends_data(traces, lanes),
        "block": block,
        "near": NEAR,
        "known": decoded or any(has_x0(trace) for trace in traces),
        "ended": any(trace.image is not None for trace in traces),
    }


# ---- one run ----------------------------------------------------------------------------------
def _run_data(
    trace: Trace, one: Lane, label: str, size: int, decoded: bool, block: int
) -> dict[str, Any]:
    guesses = trace.x0s[one.steps] if has_x0(trace) else None
    sigmas = zip(one.steps, one.karras_sigmas, one.first_calls, strict=True)
    return {
        "label": label,
        "steps": [
            {"index": int(i), "karras_sigma": plain(s), "call": int(c)} for i, s, c in sigmas
        ],
        "count": len(trace.steps),
        "calls": one.calls,
        "stopped": stopped(trace) if one.asked > len(trace.steps) else "",
        "shape": " × ".join(str(n) for n in trace.steps[0].latent.shape),
        "x0": None if guesses is None else packed(averaged(guesses, block), "float16"),
        "reels": {
            "x0": _guesses(trace, one, size, decoded),
            "x_t": _latents(trace, one, size),
            "picture": reel("the final picture", [trace.image], [_end_alt(trace)], size, EXACT),
        },
    }


def _guesses(trace: Trace, one: Lane, size: int, decoded: bool) -> dict:
    """x0-hat of each step: decoded where all runs are, else by the preview map."""
    if not decoded and not has_x0(trace):
        return reel("x0-hat", [None] * len(one.steps), [NO_X0] * len(one.steps), size)
    if decoded:
        pictures = [trace.frames[i] for i in one.steps]
        return reel("x0-hat, decoded", pictures, _alts("x0-hat", one, pictures), size, EXACT)
    pictures = [latent_image(trace.x0s[i], trace.preview) for i in one.steps]
    return reel(f"x0-hat, {_how(trace)}", pictures, _alts("x0-hat", one, pictures), size)


def _latents(trace: Trace, one: Lane, size: int) -> dict:
    pictures = [latent_image(trace.steps[i].latent, trace.preview) for i in one.steps]
    return reel(f"x_t, {_how(trace)}", pictures, _alts("x_t", one, pictures), size)


def _end_alt(trace: Trace) -> str:
    if trace.image is not None:
        return f"the final picture, after {counted(len(trace.steps), 'step')}"
    return f"no final picture{': ' * bool(stopped(trace))}{stopped(trace)}"


def _how(trace: Trace) -> str:
    return "preview" if trace.preview is not None else "mean of the channels (no preview map)"


def _alts(what: str, one: Lane, pictures: Sequence[Any]) -> list[str]:
    found = zip(one.steps, one.karras_sigmas, pictures, strict=True)
    return [
        f"{what} at step {i}, karras_sigma {s:.3g}"
        + ("" if picture is not None else ": it holds NaN or infinity, there is no picture")
        for i, s, picture in found
    ]


# ---- words ------------------------------------------------------------------------------------
def joined(parts: Sequence[Any]) -> str:
    """The parts of a title or sentence, ours and {"text": a user's}, as one text."""
    return "".join(part if isinstance(part, str) else part["text"] for part in parts)


# ---- latents ----------------------------------------------------------------------------------
def _block(traces: Sequence[Trace], lanes: Sequence[Lane]) -> int:
    """How many places a side are averaged so that all x0-hats together stay small; 1 for none."""
    count = sum(len(one.steps) * trace.steps[0].latent.size * 2
                for trace, one in zip(traces, lanes, strict=True))  # fmt: skip
    block = 1
    while count / block**2 > MOST_LATENTS:
        block *= 2
    return block


def averaged(latents: np.ndarray, block: int) -> np.ndarray:
    """Latents (n, channels, h, w) averaged over block × block places; the border is repeated."""
    if block == 1:
        return latents
    pads = [(0, -size % block) for size in latents.shape[2:]]
    padded = np.pad(latents, [(0, 0), (0, 0), *pads], mode="edge")
    n, channels, h, w = padded.shape
    return padded.reshape(n, channels, h // block, block, w // block, block).mean(axis=(3, 5))


# ---- places and distances ---------------------------------------------------------------------
def _alignment_data(alignment: Alignment, far: Apart, lanes: Sequence[Lane]) -> dict[str, Any]:
    return {
        "places": [plain(place) for place in alignment.places],
        "told": [place_told(alignment, i, lanes) for i in range(len(alignment.places))],
        "about": about(alignment, lanes),
        "shown": alignment.shown.tolist(),
        "begun": alignment.begun.tolist(),
        "over": alignment.over.tolist(),
        "distances": {"x0": packed(far.x0), "x_t": packed(far.x_t)},
    }


def place_told(alignment: Alignment, index: int, lanes: Sequence[Lane]) -> str:
    """A place in words: "step 3 of 19", "karras_sigma 4.2", "12 network calls"."""
    place = alignment.places[index]
    if alignment.by == "step":
        longest = "" if one_length(lanes) else " of the longest run"
        return f"step {place:.0f} of {alignment.places[-1]:.0f}{longest}"
    if alignment.by == "karras_sigma":
        return f"karras_sigma {plain(place) if not np.isfinite(place) else f'{place:.3g}'}"
    return counted(int(place), "network call")


def one_length(lanes: Sequence[Lane]) -> bool:
    """Whether all runs were to have as many steps."""
    return len({one.asked for one in lanes}) == 1


def about(alignment: Alignment, lanes: Sequence[Lane]) -> str:
    """What a place is, and which step each run shows there."""
    count, first, last = len(alignment.places), alignment.places[0], alignment.places[-1]
    if alignment.by == "step":
        if one_length(lanes):
            return f"A place is a step; all runs have {lanes[0].asked} of them."
        longest = max(one.asked for one in lanes)
        return (
            f"A place is a step of the longest run ({longest} steps); shorter runs show the step "
            "at the nearest fraction of their way."
        )
    if alignment.by == "karras_sigma":
        top = f"{first:.3g}" if np.isfinite(first) else "∞ (pure noise)"
        return (
            f"A place is a noise level: {count} that the runs visit, karras_sigma {top} to "
            f"{last:.3g}. Each run shows its last step whose level is not below it."
        )
    return (
        f"A place is a number of network calls, 1 to {last:.0f}. Each run shows the step to which "
        "that call belongs, and its last step when it has made all of its calls."
    )


def _ends_data(traces: Sequence[Trace], lanes: Sequence[Lane]) -> list[list[dict | None]]:
    """[reference][run]: distances at the lane's steps, and when the run arrives for good."""
    return [
        [_end_data(found, one, trace) for found, one, trace in zip(row, lanes, traces, strict=True)]
        for row in to_ends(traces)
    ]


def _end_data(found: np.ndarray | None, one: Lane, trace: Trace) -> dict[str, Any] | None:
    if found is None:
        return None
    step = arrival(found)
    calls = np.cumsum([1, *(step.network_calls for step in trace.steps)])
    return {
        "distances": packed(found[one.steps]),
        "arrived": None if step is None else {"step": step, "call": int(calls[step])},
    }
