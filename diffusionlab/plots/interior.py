"""Inside the U-Net: what its parts cost, what its blocks hand on, how it is told the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffusionlab.analysis.anatomy import costs, short_name
from diffusionlab.analysis.interior import (
    MOST_TAPS,
    Features,
    at_step,
    feature_taps,
    features,
    principal_colours,
    time_embedding,
)
from diffusionlab.errors import InputError, shown
from diffusionlab.images import spread
from diffusionlab.plots.figure import (
    INK,
    LINE,
    SIGNED,
    SMALL,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    drawable,
    finish,
    heading,
    largest,
    not_finite,
    panels,
    signed,
)
from diffusionlab.plots.filmstrips import few_steps, step_sheet
from diffusionlab.plots.panel import bar_beside
from diffusionlab.plots.sheets import Cell, Sheet
from diffusionlab.trace import Anatomy, Trace

PER_ROW = 5
HUES = ("blue", "vermilion", "green", "purple", "orange", "black")
MARKS = ("o-", "s--", "D-.", "^:", "v-", "P--")


# ---- what it costs ----------------------------------------------------------------------------
def plot_compute(record: Anatomy, *, ax: Axes | None = None) -> Figure | Axes:
    """Each block's share of a network call's operations and of the weights, and the operations'."""
    found = costs(record)
    axes = canvas(ax, (max(1.2 * len(found.names) + 4.6, 13), 5.4))
    blocks, kinds = panels(axes, [(0.065, 0.14, 0.6, 0.8), (0.78, 0.14, 0.2, 0.8)])
    places = np.arange(len(found.names))
    for shift, shares, hue, hatch, name in (
        (-0.21, found.flops, "blue", None, "operations of one call"),
        (0.21, found.parameters, "orange", "//", "weights"),
    ):
        drawn = blocks.bar(places + shift, 100 * np.array(shares), 0.4, color=colour(hue),
                           hatch=hatch, edgecolor="white", label=name)  # fmt: skip
        blocks.bar_label(drawn, [_percent(share) for share in shares], fontsize=SMALL, padding=2)
    blocks.set_xticks(places, found.names)
    blocks.set_ylim(0, 118 * max([*found.flops, *found.parameters]))
    blocks.legend(fontsize=TEXT, frameon=False, loc="upper left")
    axis_labels(blocks, "block, in the order of computation", "share (%)")
    rows = np.arange(len(found.kinds))[::-1]
    drawn = kinds.barh(rows, [100 * s for s in found.kinds.values()], color=colour("blue"))
    kinds.set_yticks(rows, list(found.kinds))
    kinds.bar_label(drawn, [_percent(s) for s in found.kinds.values()], fontsize=TEXT, padding=3)
    kinds.set_xlim(0, 122 * max(found.kinds.values()))
    axis_labels(kinds, "operations (%)", "")
    flops = f"{_words(record.flops)} operations a call"
    heading(axes, f"where the U-Net of {record.model[:24]} works: {flops}", found.check)
    return finish(ax, axes, _compute_alt(record, found))


def _words(number: int) -> str:
    """1 234 567 → 1.23 million."""
    for unit, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.005 or share == 0 else "<1"


def _compute_alt(record: Anatomy, found: Any) -> str:
    rows = zip(found.names, found.flops, found.parameters, strict=True)
    told = ", ".join(f"{name} {f:.0%} and {p:.0%}" for name, f, p in rows)
    kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in found.kinds.items())
    return (
        f"Shares of {_words(record.flops)} operations and {_words(record.parameters)} weights by "
        f"block: {told}; operations by kind: {kinds}."
    )


# ---- what the blocks hold ---------------------------------------------------------------------
def plot_features(
    record: Trace,
    tap: str | None = None,
    *,
    step: int | None = None,
    steps: Sequence[int] | None = None,
    most: int = 5,
    ax: Axes | None = None,
) -> Figure | Axes:
    """What blocks hand on at one step: main components as colours, and their liveliest channels.

    `tap` is a glob pattern of recorded taps (None: every block's output), `step` one step (None:
    where karras_sigma is nearest to 1). `steps` draws the colours at several steps instead, in one
    basis per block. Raises InputError for what was not recorded or is not there.
    """
    found = [features(record, name, step, most) for name in _few_taps(record, tap)]
    if steps is None:
        grid, title = _channel_grid(found), _features_title(found)
    else:
        grid, title = _step_grid(record, found, steps), "what each block hands on, step by step"
    wide, tall = grid.size
    tall = max(tall, 4.2)
    axes = canvas(ax, (wide + 5.3, tall + 0.75))
    share = wide / (wide + 5.3)
    sheet, sizes = panels(
        axes,
        [
            (0, 0, share, 1),
            (
                share + 1.05 / (wide + 5.3),
                0.6 / tall,
                0.98 - share - 1.05 / (wide + 5.3),
                1 - 1.1 / tall,
            ),
        ],
    )
    grid.draw(sheet)
    _energies(sizes, found)
    bad = sum(f.bad for f in found)
    heading(axes, title, f"{bad} values are NaN or infinite, in the run's taps" if bad else "")
    return finish(ax, axes, _features_alt(found))


def _few_taps(record: Trace, tap: str | None) -> list[str]:
    taps = feature_taps(record, tap)
    if len(taps) > MOST_TAPS:
        raise InputError(
            f"tap {shown(tap)} matches {len(taps)} taps; at most {MOST_TAPS} can be drawn: "
            "take a narrower pattern"
        )
    return taps


def _features_title(found: Sequence[Features]) -> str:
    where = f"step {found[0].step}, karras_sigma {found[0].level.karras_sigma:.3g}"
    what = f"tap {found[0].tap}" if len(found) == 1 else "what each block hands on"
    return f"{what} at {where}"


def _name(found: Features) -> str:
    return f"{short_name(found.tap)[:20]}\n" + "×".join(map(str, found.shape))


def _channel_grid(found: Sequence[Features]) -> Sheet:
    """Per tap its components and, in rows of five, its channels."""
    names, cells = [], []
    for f in found:
        main = Cell(_visible(f.colours), {}, f"{f.explained.sum():.0%} of variance")
        drawn = [
            Cell(values, signed(values), f"ch. {number}, ±{largest(values):.2g}")
            for number, values in zip(f.channels, f.maps, strict=True)
        ]
        for first in range(0, len(drawn), PER_ROW):
            row = [Cell(None) if first else main, *drawn[first : first + PER_ROW]]
            cells.append(row)
            names.append("" if first else _name(f))
    count = max(len(row) for row in cells)
    columns = ["main three\ncomponents", "liveliest\nchannels →", "", "", "", ""][:count]
    return Sheet(names, columns, [row + [Cell(None)] * (count - len(row)) for row in cells], 1.55)


def _step_grid(record: Trace, found: Sequence[Features], steps: Sequence[int]) -> Sheet:
    steps = few_steps(record, steps, 9)
    names, cells = [], []
    for f in found:
        values = np.stack([at_step(record, f.tap, step) for step in steps])
        colours, explained = principal_colours(values)
        names.append(f"{_name(f)}\n{explained.sum():.0%} of var.")
        cells.append([Cell(_visible(picture)) for picture in colours])
    return step_sheet(record, steps, names, cells, min(1.55, 10.5 / len(steps)))


def _visible(colours: np.ndarray) -> np.ndarray:
    """White where a feature is not finite, as in the maps beside."""
    return np.where(np.isfinite(colours), colours, 1.0)


def _energies(panel: Axes, found: Sequence[Features]) -> None:
    for n, f in enumerate(found):
        panel.plot(f.energies, MARKS[n % 6], color=colour(HUES[n % 6]), linewidth=LINE,
                   markersize=7, label=drawable(short_name(f.tap)[:24]))  # fmt: skip
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis_labels(panel, "step", "root mean square")
    panel.set_title("size over the run", fontsize=TEXT, color=INK)
    if len(found) > 1:
        panel.legend(fontsize=SMALL, frameon=False, loc="best")


def _features_alt(found: Sequence[Features]) -> str:
    told = "; ".join(
        f"{short_name(f.tap)} {'×'.join(map(str, f.shape))}: channel {f.channels[0]} varies most "
        f"({f.variances[0]:.0%} of the variance), three components hold {f.explained.sum():.0%}"
        for f in found
    )
    return f"Feature maps at step {found[0].step}. {told}."


# ---- the time ---------------------------------------------------------------------------------
def plot_time_embedding(record: Trace, *, ax: Axes | None = None) -> Figure | Axes:
    """What the network is told about the time at each step, and how alike the steps are told.

    The numbers are sorted by how they change over the run. Needs record={"predictions", "time"}.
    """
    found = time_embedding(record)
    steps, width = found.values.shape
    axes = canvas(ax, (15, 6))
    left, right = panels(axes, [(0.06, 0.14, 0.4, 0.76), (0.61, 0.14, 0.29, 0.76)])
    edges = (-0.5, width - 0.5, steps - 0.5, -0.5)
    drawn = left.imshow(found.values[:, found.order], aspect="auto", interpolation="nearest",
                        extent=edges, **signed(found.values))  # fmt: skip
    bar_beside(left, drawn, "value")
    drawn = right.imshow(found.similarity, aspect="auto", interpolation="nearest", cmap=SIGNED,
                         vmin=-1.0, vmax=1.0)  # fmt: skip
    bar_beside(right, drawn, "cosine (1: the same)")
    chosen = spread(steps, 6)
    names = [f"{found.timesteps[i]:g}" for i in chosen]
    for panel in (left, right):
        panel.set_yticks(chosen, names)
    right.set_xticks(chosen, names)
    axis_labels(left, f"the {width} numbers, from falling to rising", "timestep")
    axis_labels(right, "timestep", "timestep")
    left.set_title("the time embedding at each step", fontsize=TEXT, color=INK)
    right.set_title("how alike two steps are told", fontsize=TEXT, color=INK)
    bad = not_finite(found.values, "in the time embedding")
    heading(axes, "how the network knows how noisy its input is", bad or found.check)
    return finish(ax, axes, _time_alt(found))


def _time_alt(found: Any) -> str:
    steps, width = found.values.shape
    return (
        f"Time embedding of {width} numbers at {steps} steps, timestep {found.timesteps[0]:g} to "
        f"{found.timesteps[-1]:g}: values up to {largest(found.values):.2g}; those of the first "
        f"and the last step have a cosine of {found.similarity[0, -1]:.2g}."
    )
