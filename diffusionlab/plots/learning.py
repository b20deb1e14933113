"""A network while it learns: what it draws, its loss over time, and at each noise level."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from diffusionlab.analysis.learning import LevelLosses, LossCurve, level_losses, loss_curve
from diffusionlab.images import spread, to_array
from diffusionlab.plots.figure import (
    INK,
    LINE,
    QUIET,
    SMALL,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    drawable,
    finish,
    heading,
    label,
    not_finite,
    panels,
)
from diffusionlab.plots.sheets import Cell, Sheet
from diffusionlab.trace import Learning

COLUMNS, WIDE, CURVES = 6, 1.25, 5.4  # columns at least; inches of a picture, and of the curves


def plot_learning(record: Learning, *, ax: Axes | None = None) -> Figure | Axes:
    """Pictures of each look beside what is aimed at, the loss over time, and the loss by level.

    The loss is the mean squared error of what the network predicts. At each level it is that on
    pictures which were held back. Draws a record of a lesson that has just begun, too.
    """
    curve, levels = loss_curve(record), level_losses(record)
    sheet = _sheet(record)
    across, down = sheet.size
    wide, tall = across + CURVES, max(down, 5.6)
    axes = canvas(ax, (wide, tall + 0.8))
    left = (across + 0.95) / wide
    boxes = [
        (0, 0, across / wide, 1),
        (left, 0.5 + 0.55 / tall, 0.99 - left, 0.5 - 0.85 / tall),
        (left, 0.65 / tall, 0.99 - left, 0.5 - 1.05 / tall),
    ]
    pictures, over_time, by_level = panels(axes, boxes)
    sheet.draw(pictures)
    _over_time(over_time, curve)
    _by_level(by_level, levels, record)
    drawn = [curve.seconds, curve.losses, levels.karras_sigmas, levels.before, levels.now]
    bad = not_finite(drawn, "in the losses or where they stand")
    heading(axes, _title(record, curve), bad)
    return finish(ax, axes, _alt(record, curve, levels))


# ---- the pictures -----------------------------------------------------------------------------
def _sheet(record: Learning) -> Sheet:
    """What is aimed at, then the looks, first to last; room is kept for those to come."""
    looks = [record.moments[i] for i in spread(len(record.moments), COLUMNS - 1)]
    blank = COLUMNS - 1 - len(looks)
    columns = ["the aim", *(f"{m.seconds:.0f} s\nstep {m.step}" for m in looks), *[""] * blank]
    rows = [
        [_cell(record.best[i]), *(_cell(m.images[i]) for m in looks), *[Cell()] * blank]
        for i in range(len(record.prompts))
    ]
    names = ["\n".join(textwrap.wrap(prompt, 14)[:4]) for prompt in record.prompts]
    return Sheet(names, columns, rows, WIDE)


def _cell(image: object) -> Cell:
    return Cell(to_array(image))


# ---- the curves -------------------------------------------------------------------------------
def _over_time(panel: Axes, curve: LossCurve) -> None:
    if len(curve.losses):
        panel.plot(curve.seconds, curve.losses, ".", color=colour("sky"), markersize=4,
                   label="one batch")  # fmt: skip
        panel.plot(curve.seconds, curve.smooth, color=colour("blue"), linewidth=LINE,
                   label="running mean")  # fmt: skip
        panel.legend(fontsize=SMALL, frameon=False, loc="upper right")
    else:
        label(panel, 0.5, 0.5, "no step yet", transform=panel.transAxes, color=QUIET)
    panel.set_ylim(0, _top(curve.losses))
    panel.set_xlim(left=0)
    panel.set_title("loss over time", fontsize=TEXT, color=INK)
    axis_labels(panel, "seconds", "squared error")


def _by_level(panel: Axes, levels: LevelLosses, record: Learning) -> None:
    panel.plot(levels.karras_sigmas, levels.before, "s--", color=QUIET, linewidth=LINE,
               markersize=7, label="before")  # fmt: skip
    if len(record.moments) > 1:
        panel.plot(levels.karras_sigmas, levels.now, "o-", color=colour("vermilion"),
                   linewidth=LINE, markersize=7, label="at the last look")  # fmt: skip
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_ylim(0, 1.25 * _top(levels.before))
    panel.legend(fontsize=SMALL, frameon=False, loc="upper left", ncols=2)
    panel.set_title("loss by noise level, held-back pictures", fontsize=TEXT, color=INK)
    axis_labels(panel, "karras_sigma (noise to the right)", "squared error")


def _top(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return 1.1 * float(good.max()) if good.size else 1.0


# ---- words ------------------------------------------------------------------------------------
def _title(record: Learning, curve: LossCurve) -> str:
    size = record.weights.get("U-Net", 0) / 1e6
    told = f"{size:.2g} million weights learn: step {record.steps}"
    if record.steps:
        told += f", {curve.seconds[-1]:.0f} s"
    return drawable(told + (", stopped by hand" if record.stopped else ""))


def _alt(record: Learning, curve: LossCurve, levels: LevelLosses) -> str:
    told = f"A network learns to draw {len(record.prompts)} prompts: {record.steps} steps"
    if record.steps:
        told += (
            f" in {curve.seconds[-1]:.0f} s, the loss goes from {curve.smooth[0]:.2f} to "
            f"{curve.smooth[-1]:.2f}"
        )
    pairs = zip(levels.karras_sigmas, levels.before, levels.now, strict=True)
    by_level = ", ".join(f"{b:.2f} to {n:.2f} at karras_sigma {s:.2g}" for s, b, n in pairs)
    looks = ", ".join(f"{m.seconds:.0f} s" for m in record.moments)
    return f"{told}; held-back pictures: {by_level}; pictures after {looks}."
