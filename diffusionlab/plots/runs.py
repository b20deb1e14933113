"""A whole run on one sheet."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import Residual
from diffusionlab.analysis.updates import replay
from diffusionlab.plots.figure import Figure, canvas, finish, heading
from diffusionlab.trace import Trace, filmstrip_of


def plot_trace(record: Trace, *, most: int = 7, ax: Axes | None = None) -> Figure | Axes:
    """The filmstrip of a run: x0-hat and x_t over at most `most` of its steps, and the end."""
    strip = filmstrip_of(record, most=most, title="")
    axes = canvas(ax, (14, 14 * strip.height / strip.width + 0.6))
    axes.imshow(np.asarray(strip), interpolation="lanczos")
    axes.axis("off")
    heading(
        axes, f"{record.settings.prompt[:60]} · {record.settings.summary}", worst_replay(record)
    )
    return finish(ax, axes, trace_alt(record))


def worst_replay(record: Trace) -> Residual | str:
    """The step whose stored update fits its latents least; nothing if predictions are missing."""
    if not all(step.predictions for step in record.steps):
        return ""
    return max((replay(record, i) for i in range(len(record.steps))), key=lambda r: r.relative)


def trace_alt(record: Trace) -> str:
    """A sentence about a run: how it was made, and from which to which noise level."""
    sigmas = record.karras_sigmas
    size = "no image" if record.image is None else f"an image of {record.image.size} pixels"
    return (
        f"Run of {len(record.steps)} steps for the prompt {record.settings.prompt!r} "
        f"({record.settings.summary}): karras_sigma falls from {sigmas[0]:.3g} to "
        f"{sigmas[-1]:.3g}, ending in {size}."
    )
