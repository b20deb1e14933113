"""Parts of panels: axes of steps and of powers of ten, a colour bar, a panel's own title."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from diffusionlab.images import spread
from diffusionlab.plots.figure import INK, SMALL, TEXT, axis_labels, drawable


def step_axis(panel: Axes, steps: np.ndarray, sigmas: np.ndarray, most: int = 7) -> None:
    """Ticks that say the step and, below it, its karras_sigma."""
    chosen = spread(len(steps), most)
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
    """A colour bar at the right of a panel (which no layout engine moves); `whole`: of integers."""
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
    panel.set_title(drawable(name), fontsize=TEXT, color=INK, y=1.0, parse_math=False)
    if x or y:
        axis_labels(panel, x, y, SMALL)
