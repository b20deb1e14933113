"""Where the levels of several spacings lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from diffusionlab.analysis.bands import EDGES, band_shares
from diffusionlab.errors import InputError
from diffusionlab.plots.figure import (
    INK,
    QUIET,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    finish,
    heading,
    label,
)
from diffusionlab.schedule import NoiseLevel

FURTHEST = -12  # log-SNR: a single start that is noisier would squeeze all other levels
COLOURS = ("blue", "vermilion", "green", "purple", "orange", "black", "sky")


def plot_spacings(
    record: Mapping[str, Sequence[NoiseLevel]], *, ax: Axes | None = None
) -> Figure | Axes:
    """The levels of each spacing on the log-SNR axis, and the share of its steps per noise band.

    `record` maps a name to levels (of `schedule.levels(…)`). Pure noise (log-SNR −∞) is a triangle
    at the left edge, and so is a level far out, hollow and with its number; the clean level, +∞, is
    not drawn.
    """
    if not record:
        raise InputError("plot_spacings got no spacing; give {'karras': schedule.levels(…), …}")
    axes = canvas(ax, (14, 1.6 + 0.95 * len(record)))
    inside = [x.log_snr for levels in record.values() for x in levels if math.isfinite(x.log_snr)]
    edges = [-2 * math.log(edge) for edge in EDGES]
    left = min([x for x in inside if x >= FURTHEST] + [edges[0] - 1]) - 0.7
    right = max([*inside, edges[-1] + 1]) + 0.5
    bounds = [left, *edges, right]
    for place, levels in enumerate(record.values()):
        _row(axes, -place, levels, bounds, colour(COLOURS[place % len(COLOURS)]))
    for edge in edges:
        axes.axvline(edge, color=QUIET, linewidth=2, linestyle=(0, (4, 3)))
    _band_names(axes, bounds)
    axes.set_xlim(left, right)
    axes.set_ylim(0.45 - len(record), 1.05)
    names = [f"{name}, {len(levels) - 1} steps" for name, levels in record.items()]
    axes.set_yticks([-i for i in range(len(record))], names)
    axis_labels(axes, "log-SNR = 2 · ln(alpha / sigma), noisy → clean", "")
    axes.tick_params(axis="y", labelsize=TEXT, length=0)
    heading(axes, "where the steps are: % of them that begin in each band of noise")
    return finish(ax, axes, _alt(record))


def _row(axes: Axes, y: float, levels: Sequence[NoiseLevel], bounds: list, shade: str) -> None:
    axes.axhline(y, color="#dddddd", linewidth=2, zorder=0)
    finite = [x.log_snr for x in levels if math.isfinite(x.log_snr)]
    axes.plot(finite, [y] * len(finite), "o", color=shade, markeredgecolor="white", markersize=12)
    wide, out = bounds[-1] - bounds[0], [x for x in finite if x < bounds[0]]
    if levels[0].alpha == 0 or out:
        fill = "white" if out else shade
        axes.plot([bounds[0] + 0.015 * wide], [y], "<", color=shade, mfc=fill, mew=2, markersize=14)
    if out:
        told = ", ".join(f"{x:.3g}" for x in out[:3])
        label(axes, bounds[0] + 0.035 * wide, y, told, color=INK, ha="left", va="center")
    for share, low, high in zip(band_shares(levels), bounds, bounds[1:], strict=False):
        label(axes, (low + high) / 2, y + 0.34, f"{share:.0%}", color=INK, fontsize=TEXT)


def _band_names(axes: Axes, bounds: list) -> None:
    high, *rest = EDGES
    names = [f"karras_sigma ≥ {high:g}", *(f"{b:g} – {a:g}" for a, b in zip(EDGES, rest,
             strict=False)), f"< {EDGES[-1]:g}"]  # fmt: skip
    for name, low, top in zip(names, bounds, bounds[1:], strict=False):
        label(axes, (low + top) / 2, 0.85, name, color=QUIET)


def _alt(record: Mapping[str, Sequence[NoiseLevel]]) -> str:
    told = []
    for name, levels in record.items():
        shares = ", ".join(f"{share:.0%}" for share in band_shares(levels))
        told.append(f"{name} {shares}")
    edges = ", ".join(f"{edge:g}" for edge in EDGES)
    return (
        f"Levels of {len(record)} spacings on the log-SNR axis; share of steps in the bands of "
        f"karras_sigma parted at {edges}, noisiest first: {'; '.join(told)}."
    )
