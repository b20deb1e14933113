"""A noise schedule, and the levels of a run on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import Residual
from diffusionlab.plots.figure import (
    INK,
    LINE,
    SMALL,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    finish,
    heading,
    label,
    panels,
)
from diffusionlab.schedule import NoiseLevel, NoiseSchedule

# title, (curve, colour, line style), ... , logarithmic
PANELS = (
    ("beta", (("beta", "blue", "-"),), False),
    ("alpha_bar", (("alpha_bar", "blue", "-"),), False),
    ("alpha and sigma", (("alpha", "blue", "-"), ("sigma", "vermilion", "--")), False),
    ("SNR = alpha² / sigma²", (("snr", "green", "-"),), True),
    ("karras_sigma = sigma / alpha", (("karras_sigma", "purple", "-"),), True),
)


def plot_schedule(
    record: NoiseSchedule, levels: Sequence[NoiseLevel] | None = None, *, ax: Axes | None = None
) -> Figure | Axes:
    """beta, alpha_bar, alpha and sigma, SNR and karras_sigma against the training timestep.

    `levels` (of `record.levels(…)`) are marked on every curve; the clean level has no timestep of
    the table and is told in words.
    """
    axes = canvas(ax, (14, 8.6))
    places = [_place(number) for number in range(len(PANELS))]
    marked = [level for level in levels or () if level.timestep >= 0]
    drawn = zip(panels(axes, places), PANELS, strict=True)
    for panel, (title, curves, logarithmic) in drawn:
        panel.set_label(title)
        for name, shade, style in curves:
            _curve(panel, record, name, colour(shade), style)
            _marks(panel, record, name, colour(shade), marked)
        panel.set_yscale("log" if logarithmic else "linear")
        panel.set_title(title, fontsize=TEXT, color=INK, y=1.0)
        axis_labels(panel, "timestep", "", SMALL)
        panel.grid(alpha=0.3)
        if len(curves) > 1:
            panel.legend(fontsize=SMALL, frameon=False, loc="center right")
    told = _words(record, levels)
    label(axes, 0.70, 0.32, told, ha="left", va="top", fontsize=TEXT, transform=axes.transAxes)
    worst = float(np.abs(record.alpha**2 + record.sigma**2 - 1).max())
    check = Residual(worst, 1e-9, "alpha² + sigma² = 1")
    heading(axes, f"noise schedule {record.name}".rstrip(), check)
    return finish(ax, axes, _alt(record, marked))


def _place(number: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a panel: two rows of three, with room for text."""
    return (0.065 + number % 3 * 0.335, 0.57 if number < 3 else 0.08, 0.25, 0.36)


def _curve(panel: Axes, schedule: NoiseSchedule, name: str, shade: str, style: str) -> None:
    values = np.where(np.isfinite(getattr(schedule, name)), getattr(schedule, name), np.nan)
    panel.plot(np.arange(len(values)), values, style, color=shade, linewidth=LINE, label=name)


def _marks(panel: Axes, schedule: NoiseSchedule, name: str, shade: str, levels: list) -> None:
    """A dot on the curve at every level; beta and alpha_bar are read off the table."""
    if not levels:
        return
    times = np.array([level.timestep for level in levels])
    table = np.arange(schedule.num_train_steps)
    known = {"alpha_bar": [level.alpha**2 for level in levels]}
    values = known.get(name) or [
        getattr(level, name, np.interp(level.timestep, table, schedule.beta)) for level in levels
    ]
    panel.plot(times, values, "o", color=shade, markeredgecolor="white", markersize=10)


def _words(schedule: NoiseSchedule, levels: Sequence[NoiseLevel] | None) -> str:
    lines = [
        f"{schedule.num_train_steps} training timesteps",
        f"the network predicts {schedule.prediction_type}",
        f"last alpha {schedule.alpha[-1]:.4g}",
        f"last karras_sigma {schedule.karras_sigma[-1]:.4g}",
    ]
    if levels:
        clean = levels[-1].sigma == 0
        lines += ["", f"● {len(levels)} levels of a run,"]
        lines += [f"   from timestep {levels[0].timestep:.5g}"]
        lines += [
            "   to the clean level (sigma 0)" if clean else f"   to {levels[-1].timestep:.5g}"
        ]
    return "\n".join(lines)


def _alt(schedule: NoiseSchedule, marked: list) -> str:
    ends = [f"{schedule.karras_sigma[i]:.4g}" for i in (0, -1)]
    text = f"Five curves over {schedule.num_train_steps} timesteps: karras_sigma rises from "
    text += f"{ends[0]} to {ends[1]}, alpha_bar falls to {schedule.alpha_bar[-1]:.4g}"
    return text + (f"; {len(marked)} levels of a run are marked." if marked else ".")
