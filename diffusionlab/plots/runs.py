"""A whole run on one sheet."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import Residual, eps_spread
from diffusionlab.analysis.updates import path_check
from diffusionlab.plots.figure import Figure, canvas, finish, heading, not_finite
from diffusionlab.trace import Trace, filmstrip_of


def plot_trace(record: Trace, *, most: int = 7, ax: Axes | None = None) -> Figure | Axes:
    """The filmstrip of a run: x0-hat and x_t over at most `most` of its steps, and the end."""
    strip = filmstrip_of(record, most=most, title="")
    axes = canvas(ax, (14, 14 * strip.height / strip.width + 0.6))
    axes.imshow(np.asarray(strip), interpolation="lanczos")
    axes.axis("off")
    known = all(step.predictions for step in record.steps)
    bad = not_finite([record.latents, record.x0s if known else None], "in x_t or x0-hat")
    title = f"{record.settings.prompt[:60]} · {record.settings.summary}"
    heading(axes, title, bad or (path_check(record) if known else ""))
    return finish(ax, axes, trace_alt(record))


def path_told(record: Trace) -> tuple[str, Residual | str, str]:
    """What a plot of a run's path owes its title: NaN, else a broken path, and a doubtful eps-hat.

    Errors: InputError for a run without steps or without recorded predictions.
    """
    bad = not_finite([record.x0s, record.latents, record.eps], "in x0-hat, x_t or eps-hat")
    if bad:
        return bad, "", ""
    return "", path_check(record), eps_spread(record)[1]


def trace_alt(record: Trace) -> str:
    """A sentence about a run: how it was made, and from which to which noise level."""
    sigmas = record.karras_sigmas
    size = "no image" if record.image is None else f"an image of {record.image.size} pixels"
    return (
        f"Run of {len(record.steps)} steps for the prompt {record.settings.prompt!r} "
        f"({record.settings.summary}): karras_sigma falls from {sigmas[0]:.3g} to "
        f"{sigmas[-1]:.3g}, ending in {size}."
    )
