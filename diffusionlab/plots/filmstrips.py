"""Rows of pictures over the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import eps_spread, numbers, worst_residual
from diffusionlab.analysis.trajectories import ending
from diffusionlab.errors import InputError, shown
from diffusionlab.images import spread
from diffusionlab.plots.figure import (
    QUIET,
    TEXT,
    Figure,
    canvas,
    drawable,
    finish,
    label,
    latent_picture,
    not_finite,
)
from diffusionlab.plots.panel import title
from diffusionlab.trace import Trace, statistics

NAMES = {"x_t": "x_t, scaled,", "x0": "x0-hat,", "eps": "eps-hat,"}
LEFT, GAP, LINE_HEIGHT = 0.95, 0.06, 0.27  # room for names, between pictures; inches of a line
Picture = tuple[np.ndarray, dict]  # an array, and the options of `imshow`


# ---- a table of pictures ----------------------------------------------------------------------
def sheet(
    ax: Axes | None, rows: Sequence[Sequence[Picture]], names: Sequence[str],
    captions: Sequence[str], corner: str = "", inches: float = 1.75,
) -> tuple[Axes, list[list[Any]]]:  # fmt: skip
    """Rows of pictures with a name at the left of each and a caption over each column.

    `corner` says what the lines of the captions are.
    Draws into `ax`, or into a new figure with pictures of `inches`; returns the Axes and, row by
    row, matplotlib's images. All pictures are one unit wide and as tall as the first one.
    """
    tall, columns = rows[0][0][0].shape[0] / rows[0][0][0].shape[1], max(map(len, rows))
    lines = 1 + max((caption.count("\n") for caption in captions), default=-1)
    top = lines * LINE_HEIGHT / inches
    wide, high = columns * (1 + GAP) - GAP, len(rows) * (tall + GAP) - GAP
    size = (inches * (wide + LEFT + 0.05), inches * (high + top + 0.05) + 0.5)
    axes = canvas(ax, size)
    drawn = []
    for n, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = -n * (tall + GAP)
        drawn.append([_picture(axes, picture, i, y, tall) for i, picture in enumerate(row)])
        label(axes, -0.06, y - tall / 2, name, ha="right", fontsize=TEXT)
    for i, caption in enumerate(captions):
        label(axes, i * (1 + GAP) + 0.5, 0.03, caption, va="bottom")
    label(axes, -0.06, 0.03, corner, va="bottom", ha="right", color=QUIET)
    axes.set_xlim(-LEFT, wide + 0.05)
    axes.set_ylim(-high - 0.05, top)
    axes.set_aspect("equal")
    axes.axis("off")
    return axes, drawn


def _picture(axes: Axes, picture: Picture, place: int, y: float, tall: float) -> Any:
    left = place * (1 + GAP)
    array, options = picture
    return axes.imshow(
        array, extent=(left, left + 1, y - tall, y), interpolation="nearest", **options
    )


# ---- the filmstrip ----------------------------------------------------------------------------
def plot_filmstrip(
    record: Trace,
    *,
    rows: Sequence[str] = ("x_t", "x0", "eps"),
    steps: Sequence[int] | None = None,
    decode: Callable[[np.ndarray], Any] | None = None,
    most: int = 8,
    ax: Axes | None = None,
) -> Figure | Axes:
    """x_t, x0-hat and eps-hat over the steps of a run (at most `most` of them, unless `steps`).

    x_t is scaled to the spread of the run's end, so that it can be read by the same map at every
    level and for every kind of pair. x0-hat is drawn from the recorded frames; all rows are decoded
    where `decode(latent)` (to a PIL image) is given, else by the preview map. Errors: InputError.
    """
    chosen = _chosen(record, steps, most)
    kinds = _kinds(rows)
    end, _ = ending(record)
    shown_rows = {
        kind: _row(record, kind, chosen, float(end.std()) or 1.0, decode) for kind in kinds
    }
    names = [f"{NAMES[kind]}\n{how}" for kind, (how, _) in shown_rows.items()]
    pictures = [found for _, found in shown_rows.values()]
    captions = [_caption(record, i) for i in chosen]
    inches = 2.2 if len(chosen) < 6 else 1.75
    axes, _ = sheet(ax, pictures, names, captions, "step\nkarras_sigma", inches)
    check, (stds, warning) = worst_residual(record), eps_spread(record)
    bad = not_finite(record.x0s, "in the network's output") or not_finite(record.latents, "in x_t")
    told = f"eps-hat has std {stds.min():.2f} … {stds.max():.2f}"
    identity = f"x_t = alpha · x0-hat + sigma · eps-hat (to {check.relative:.0e})"
    title(axes, f"{identity}, {told}", bad or check, "" if bad else warning)
    return finish(ax, axes, _alt(record, chosen, names, stds) + f" {check}".rstrip())


def _kinds(rows: Sequence[str]) -> list[str]:
    kinds = [rows] if isinstance(rows, str) else list(rows)
    if not kinds or not all(kind in NAMES for kind in kinds):
        raise InputError(f"rows {shown(rows)}; some of {', '.join(NAMES)} are allowed: ('x0',)")
    return kinds


def _chosen(record: Trace, steps: Sequence[int] | None, most: int) -> list[int]:
    count = len(record.x0s)  # says what is missing, of a run without steps or predictions
    if steps is None:
        return list(spread(count, max(2, most)))
    chosen, last = list(steps), count - 1
    if not chosen or not all(isinstance(i, (int, np.integer)) and 0 <= i <= last for i in chosen):
        raise InputError(
            f"steps {shown(steps)}; 0 to {last} are allowed in this run: steps=(0, {last})"
        )
    return chosen


def _caption(record: Trace, index: int) -> str:
    return f"{index}\n{record.steps[index].level.karras_sigma:.3g}"


def _row(
    record: Trace, kind: str, chosen: Sequence[int], spread_of_end: float, decode: Any
) -> tuple[str, list[Picture]]:
    """How a row is shown, and its pictures."""
    if kind == "x0" and len(record.frames) == len(record.steps) and decode is None:
        return "decoded", [(np.asarray(record.frames[i]), {}) for i in chosen]
    latents = {"x_t": record.latents, "x0": record.x0s, "eps": record.eps}[kind]
    found = [numbers(latents[i]) for i in chosen]
    if kind == "x_t":
        found = [x * (spread_of_end / (statistics(x).std or 1.0)) for x in found]
    if decode is not None and all(np.isfinite(x).all() for x in found):
        return "decoded", [(np.asarray(decode(x.astype(np.float32))), {}) for x in found]
    how = "mean of\nchannels" if record.preview is None else "preview"
    return how, [latent_picture(x, record.preview) for x in found]


def _alt(record: Trace, chosen: Sequence[int], names: Sequence[str], stds: np.ndarray) -> str:
    told = drawable(", ".join(name.replace(",\n", " (").replace("\n", " ") + ")" for name in names))
    sigmas = record.karras_sigmas
    return (
        f"Filmstrip of {len(chosen)} of {len(record.steps)} steps, karras_sigma "
        f"{sigmas[chosen[0]]:.3g} to {sigmas[chosen[-1]]:.3g}, rows: {told}; the std of eps-hat "
        f"goes from {stds[0]:.3g} to {stds[-1]:.3g}."
    )
