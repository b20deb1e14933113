"""Parts of panels: an axis of steps, a colour bar of a panel, a title that stays on the page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from diffusionlab.plots.figure import (
    INK,
    SMALL,
    TEXT,
    TITLE,
    Figure,
    axis_labels,
    colour,
    drawable,
    panels,
)

LETTER = 0.152  # inches that a letter of a title takes, on average


def title(ax: Axes, text: str, *checks: Any) -> None:
    """As `figure.heading`, in lines that stay on the page; failed checks stand on their own."""
    failed = " · ".join(str(check) for check in checks if str(check))
    own = isinstance(ax.figure, Figure) and len(ax.figure.axes) == 1
    share = 0.98 if own else ax.get_position().width
    most = max(30, int(ax.figure.get_figwidth() * share / LETTER))
    lines = [textwrap.fill(drawable(part), most) for part in (text, failed) if part]
    shade = colour("vermilion") if failed else INK
    ax.set_title("\n".join(lines), fontsize=TITLE, color=shade, loc="left", pad=12, y=1.0,
                 parse_math=False)  # fmt: skip


def boxed(ax: Axes, boxes: Sequence[tuple[float, float, float, float]]) -> list[Axes]:
    """`figure.panels` whose labels have their room inside the Axes: no layout need measure them."""
    found = panels(ax, boxes)
    for panel in found:
        panel.set_in_layout(False)
    return found


def step_axis(panel: Axes, steps: np.ndarray, sigmas: np.ndarray, most: int = 7) -> None:
    """Ticks that say the step and, below it, its karras_sigma."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    panel.set_xticks([steps[i] for i in chosen], [f"{steps[i]}\n{sigmas[i]:.3g}" for i in chosen])


def logarithmic(panel: Axes, *curves: np.ndarray) -> None:
    """A logarithmic y axis whose whole powers of ten alone are labelled, at least two of them."""
    values = np.concatenate([np.ravel(curve) for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return
    low, high = np.log10(values.min()), np.log10(values.max())
    panel.set_yscale("log")
    panel.yaxis.set_minor_formatter(NullFormatter())
    if np.floor(high) - np.ceil(low) < 1:
        panel.set_ylim(10 ** np.floor(low) * 0.9, 10 ** np.ceil(high) * 1.1)


def bar_beside(panel: Axes, picture: Any, text: str, whole: bool = False) -> None:
    """A colour bar at the right of a panel (which no layout engine moves)."""
    place = panel.inset_axes((1.03, 0.0, 0.035, 1.0), label="colour bar")
    bar = panel.figure.colorbar(picture, cax=place)
    bar.set_label(text, fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, width=1.5)
    if whole:
        bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)


def named(panel: Axes, name: str, x: str = "", y: str = "") -> None:
    """A panel's own title, and its axis labels where they are given."""
    panel.set_title(name, fontsize=TEXT, color=INK, y=1.0)  # a fixed y spares a measurement
    if x or y:
        axis_labels(panel, x, y, SMALL)
