"""Parts of panels: an axis of steps, a colour bar of a panel, a title that stays on the page."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.plots.figure import INK, SMALL, TEXT, axis_labels, heading

LETTER = 0.152  # inches that a letter of a title takes, on average


def title(ax: Axes, text: str, *checks: Any) -> None:
    """The heading; failed checks stand on lines of their own, and long lines are broken."""
    most = max(30, int(ax.figure.get_figwidth() * ax.get_position().width / LETTER))
    failed = [str(check) for check in checks if str(check)]
    if not failed:
        return heading(ax, textwrap.fill(text, most))
    return heading(ax, textwrap.fill(text, most), "\n" + textwrap.fill(" · ".join(failed), most))


def step_axis(panel: Axes, steps: np.ndarray, sigmas: np.ndarray, most: int = 7) -> None:
    """Ticks that say the step and, below it, its karras_sigma."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))
    panel.set_xticks([steps[i] for i in chosen], [f"{steps[i]}\n{sigmas[i]:.3g}" for i in chosen])


def bar_beside(panel: Axes, picture: Any, text: str) -> None:
    """A colour bar at the right of a panel (which no layout engine moves)."""
    place = panel.inset_axes((1.03, 0.0, 0.035, 1.0), label="colour bar")
    bar = panel.figure.colorbar(picture, cax=place)
    bar.set_label(text, fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, width=1.5)
    bar.outline.set_visible(False)


def named(panel: Axes, name: str, x: str = "", y: str = "") -> None:
    """A panel's own title, and its axis labels where they are given."""
    panel.set_title(name, fontsize=TEXT, color=INK)
    if x or y:
        axis_labels(panel, x, y, SMALL)
