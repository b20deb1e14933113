"""Constructed runs to lay beside one another: their distances are known by hand."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import traces

from diffusionlab.trace import Comparison, Trace


def moved(trace: Trace, by: float, **settings) -> Trace:
    """The same run with every x0-hat larger by `by`: x_t moves by alpha · by, eps-hat stays."""
    steps = []
    for step in trace.steps:
        point = step.latent + np.float32(step.level.alpha * by)
        end = step.next_latent + np.float32(step.next_level.alpha * by)
        calls = tuple(replace(call, latent=point) for call in step.predictions)
        steps.append(replace(step, latent=point, next_latent=end, predictions=calls))
    return replace(trace, steps=tuple(steps), settings=replace(trace.settings, **settings))


def doubled(trace: Trace) -> Trace:
    """The same run with two network calls per step."""
    steps = [replace(s, stages=s.stages * 2, predictions=s.predictions * 2) for s in trace.steps]
    return replace(trace, steps=tuple(steps))


def stopped_after(trace: Trace, count: int) -> Trace:
    """The run as a Ctrl-C leaves it."""
    frames = trace.frames[:count]
    return replace(trace, steps=trace.steps[:count], frames=frames, image=None)


def bad_from(trace: Trace, first: int) -> Trace:
    """The run with NaN in x_t and x0-hat from a step on, and no picture of it."""
    steps = []
    for step in trace.steps:
        if step.index >= first:
            point = np.full_like(step.latent, np.nan)
            calls = tuple(replace(call, latent=point) for call in step.predictions)
            step = replace(step, latent=point, next_latent=point, predictions=calls)
        steps.append(step)
    return replace(trace, steps=tuple(steps), frames=(), image=None)


def unrecorded(trace: Trace) -> Trace:
    """The run with latents only."""
    steps = tuple(replace(step, predictions=()) for step in trace.steps)
    return replace(trace, steps=steps, frames=(), settings=replace(trace.settings, record=()))


def cropped(trace: Trace, rows: int = 4) -> Trace:
    """The run on a latent of fewer rows."""
    steps = []
    for step in trace.steps:
        calls = tuple(
            replace(c, latent=c.latent[:, :rows], cond=c.cond[:, :rows], uncond=c.uncond[:, :rows])
            for c in step.predictions
        )
        steps.append(
            replace(
                step,
                latent=step.latent[:, :rows],
                next_latent=step.next_latent[:, :rows],
                predictions=calls,
            )
        )
    return replace(trace, steps=tuple(steps), frames=(), image=None)


def previewed(trace: Trace) -> Trace:
    """The run without decoded frames, so that the preview map draws it."""
    return replace(trace, frames=())


def comparison(*runs: Trace, axis: str = "sampler", values: tuple = ()) -> Comparison:
    """Runs under names: a, b, c, … where none are given."""
    names = values or tuple("abcdefghij"[: len(runs)])
    return Comparison(axis, names, runs)


def three() -> Comparison:
    """The run, one a little off, and one with two calls a step that is further off."""
    base = previewed(traces.trace())
    return comparison(base, moved(base, 0.1), doubled(moved(base, -0.5)), values=("ddim", "b", "c"))


class Elements(HTMLParser):
    """The elements of a page in order, each with the names of its attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, *sorted(name for name, _ in attrs)))


def elements(page: str) -> list[tuple]:
    """The structure of a page without its texts."""
    return Elements(page).found
