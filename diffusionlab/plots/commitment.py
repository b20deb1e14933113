"""When a picture is decided: place by place, and frequency by frequency."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from diffusionlab.analysis.commitment import Commitment, commitment
from diffusionlab.analysis.spectrum import RadialSpectrum, radial_spectrum
from diffusionlab.analysis.trajectories import CLEAN_END, ending
from diffusionlab.images import spread, to_array
from diffusionlab.plots.convergence_to_final import STEP, with_end
from diffusionlab.plots.figure import (
    HEAT,
    INK,
    LINE,
    SMALL,
    Figure,
    canvas,
    colour,
    finish,
    heading,
    label,
    latent_picture,
    panels,
)
from diffusionlab.plots.panel import bar_beside, logarithmic, named, step_axis
from diffusionlab.plots.runs import path_told
from diffusionlab.trace import Trace


# ---- place by place ---------------------------------------------------------------------------
def plot_commitment(
    record: Trace, *, tolerance: float = 0.25, ax: Axes | None = None
) -> Figure | Axes:
    """The end, the step at which each place is decided, and the share that is decided by step.

    Decided: x0-hat stays within `tolerance` of the end's spread from that step on, see
    `analysis.commitment.commitment`. Places that never stay are red.
    """
    found = commitment(record, tolerance)
    height, width = found.steps.shape
    high = 4.6 * min(max(height / width, 0.85), 1.3) + 0.6
    axes = canvas(ax, (16, high + 0.5))
    below = 0.85 / high  # room for the labels of the curve
    top = 0.92 if found.end == CLEAN_END else 0.87
    picture, places, curve = panels(
        axes, [(0.0, 0.0, 0.29, top), (0.31, 0.0, 0.29, top), (0.735, below, 0.26, top - below)]
    )
    end, options = _end(record)
    picture.imshow(end, **options)
    named(picture, _end_name(found.end))
    _map(places, found)
    for panel in (picture, places):
        panel.axis("off")
        panel.set_anchor("N")
    _share(curve, found)
    bad, *checks = path_told(record)
    told = "where x0-hat comes to stay near the end" if bad else str(found)
    heading(axes, with_end(told, found.end), bad, *checks, found.never_falls)
    return finish(ax, axes, _commitment_alt(found))


def _end(record: Trace) -> tuple[np.ndarray, dict]:
    """What `commitment` takes for the end: the image, or the last x0-hat."""
    end, told = ending(record)
    if told == CLEAN_END and record.image is not None:
        return to_array(record.image), {}
    if told != CLEAN_END and len(record.frames) == len(record.steps):
        return to_array(record.frames[-1]), {}
    return latent_picture(end, record.preview)


def _end_name(end: str) -> str:
    """ "the last x0-hat: stopped after 3 of 6 steps" on two lines."""
    return "the end" if end == CLEAN_END else end.replace(": ", ":\n")


def _map(panel: Axes, found: Commitment) -> None:
    count = len(found.share)
    values = np.where(found.steps < count, found.steps, np.nan).astype(float)
    colours = matplotlib.colormaps[HEAT].with_extremes(bad=colour("vermilion"))
    drawn = panel.imshow(values, cmap=colours, vmin=0, vmax=max(count - 1, 1),
                         interpolation="nearest")  # fmt: skip
    bar_beside(panel, drawn, "step at which a place is decided", whole=True)
    never = f", {found.open} never (red)" if found.open else ""
    named(panel, f"within {found.tolerance:g} of the spread{never}")


def _share(panel: Axes, found: Commitment) -> None:
    steps = np.arange(len(found.share))
    panel.plot(steps, found.share, "o-", color=colour("blue"), linewidth=LINE, markersize=8)
    panel.axhline(0.5, color=INK, linewidth=2, linestyle=":")
    if found.half < len(steps):
        panel.plot([found.half], [found.share[found.half]], "D", color=colour("vermilion"),
                   markersize=14, zorder=3)  # fmt: skip
    panel.set_ylim(-0.02, 1.02)
    panel.grid(alpha=0.3)
    step_axis(panel, steps, found.karras_sigmas, 5)
    named(panel, "how much is decided", STEP, "share of the places")


def _commitment_alt(found: Commitment) -> str:
    early, late = (float(np.quantile(found.steps, q)) for q in (0.1, 0.9))
    return (
        f"Map {found.steps.shape} of the step at which x0-hat comes to stay within "
        f"{found.tolerance:g} of the spread of {found.end}: {found}; a tenth of the places by step "
        f"{early:g}, nine tenths by step {late:g}, {found.open} never."
    )


SHOWN = (0.01, 10.0)  # shares of wrong power that the colours tell apart


# ---- frequency by frequency -------------------------------------------------------------------
def plot_spectrum(record: Trace, *, ax: Axes | None = None) -> Figure | Axes:
    """The radial spectrum of x0-hat over the steps, and when each ring has come right.

    Left: power by frequency, one line a step. Right: how much of each ring differs from the end,
    over its final power. A diamond marks the step from which on at most a fifth is wrong, a ring
    the one from which on the power alone stays within 0.8 … 1.25 of the final one.
    """
    found = radial_spectrum(record)
    axes = canvas(ax, (16, 6.6))
    lines, wrong = panels(axes, [(0.06, 0.15, 0.28, 0.77), (0.5, 0.15, 0.41, 0.77)])
    _lines(lines, found)
    _wrong(wrong, found)
    bad, *checks = path_told(record)
    told = "the spectrum of x0-hat, step by step" if bad else _order_told(found)
    heading(axes, with_end(told, found.end), bad, *checks, "" if bad else found.parseval)
    right = ", ".join(f"{r}: {_step(found, r)}" for r in range(1, len(found.final) - 1))
    alt = f"Spectrum of x0-hat by step, compared with {found.end}. {_order_told(found)}; "
    alt += "frequency: step of coming right: "
    return finish(ax, axes, f"{alt}{right}.")


def _order_told(found: RadialSpectrum) -> str:
    if not np.isfinite(found.order):
        return "all frequencies come right at the same step"
    word = "coarse before fine" if found.order > 0.5 else "no clear order of coarse and fine"
    word = "fine before coarse" if found.order < -0.5 else word
    told = f"{word}: rank correlation of frequency and step {found.order:+.2f}"
    by_power = f" (by power alone {found.order_by_power:+.2f})"
    told += by_power if np.isfinite(found.order_by_power) else ""
    return told.replace("-0.", "−0.").replace("-1.", "−1.")


def _step(found: RadialSpectrum, ring: int) -> str:
    step = int(found.right[ring])
    return f"{step}" if step < len(found.power) else "never"


def _lines(panel: Axes, found: RadialSpectrum) -> None:
    count, places = len(found.power), np.arange(len(found.final))[found.whole]
    colours = matplotlib.colormaps[HEAT]
    for i in spread(count, 6):
        values = np.where(found.power[i] > 0, found.power[i], np.nan)[found.whole]
        panel.plot(places, values, color=colours(i / max(count - 1, 1) * 0.92), linewidth=LINE,
                   label=f"{i}, {found.karras_sigmas[i]:.3g}")  # fmt: skip
    final = np.where(found.final > 0, found.final, np.nan)[found.whole]
    panel.plot(places, final, "--", color=INK, linewidth=LINE, label="the end")
    logarithmic(panel, found.power[:, found.whole], final)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.legend(fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0),
                 title="step, karras_sigma", title_fontsize=SMALL)  # fmt: skip
    panel.grid(alpha=0.3)
    named(panel, "power of x0-hat", "frequency (cycles per longer side)", "power in the ring")


def _wrong(panel: Axes, found: RadialSpectrum) -> None:
    values = np.clip(found.wrong_share[:, found.whole].T, *SHOWN)  # (rings, steps)
    rings, count = values.shape
    drawn = panel.imshow(values, cmap=HEAT, norm=LogNorm(*SHOWN), aspect="auto", origin="lower",
                         interpolation="nearest",
                         extent=(-0.5, count - 0.5, 0.5, rings + 0.5))  # fmt: skip
    for steps, mark, size, fill in ((found.level_of_power, "o", 17, "none"),
                                    (found.right, "D", 11, INK)):  # fmt: skip
        steps = steps[found.whole]
        good = steps < count
        panel.plot(steps[good], np.arange(1, rings + 1)[good], mark, color=fill, markersize=size,
                   markeredgecolor="white", markeredgewidth=2.5, clip_on=False)  # fmt: skip
    for ring in np.flatnonzero(found.right[found.whole] >= count):
        label(panel, count - 0.6, ring + 1, "never", ha="right", color="white")
    panel.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    step_axis(panel, np.arange(count), found.karras_sigmas)
    bar_beside(panel, drawn, "difference from the end / final power")
    named(panel, "◆ right: at most 0.2 wrong   ○ power is right", STEP, "frequency")
