"""What a sampler does, as numbers, and how fast it converges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from diffusionlab.analysis.convergence import Convergence
from diffusionlab.analysis.latents import Residual
from diffusionlab.analysis.updates import invariants
from diffusionlab.errors import InputError
from diffusionlab.plan import PlannedStep
from diffusionlab.plots.figure import (
    INK,
    LINE,
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
)

Plans = Mapping[str, Sequence[PlannedStep]]
# What a bar can be, with its colour: the latent, readings by how many calls ago, noise.
KINDS = {
    "x_t": "blue",
    "x0, newest call": "green",
    "x0, 1 call earlier": "sky",
    "x0, 2 or more earlier": "yellow",
    "eps, newest call": "vermilion",
    "eps, 1 call earlier": "orange",
    "eps, 2 or more earlier": "black",
    "noise": "purple",
}
STRIP, PANEL = 0.8, 2.5  # inches: the legend, and a row with its name and its steps


# ---- coefficients -----------------------------------------------------------------------------
def plot_coefficients(
    record: Sequence[PlannedStep] | Plans, *, ax: Axes | None = None
) -> Figure | Axes:
    """The coefficients of every step as bars: a plan, or several by name, one row each.

    Each row has a scale of its own. A call is counted from the step's newest one backwards; of a
    two-call solver the call at the step's own latent is "1 call earlier". Weights two or more calls
    back are summed, those of fresh noise by their squares.
    """
    plans = record if isinstance(record, Mapping) else {"": record}
    if not plans or not all(len(plan) for plan in plans.values()):
        raise InputError("plot_coefficients got no step; give a plan, or {'heun': plan, …}")
    rows = {name: [weights(plan, i) for i in range(len(plan))] for name, plan in plans.items()}
    kinds = [k for k in KINDS if any(k in step for steps in rows.values() for step in steps)]
    axes = canvas(ax, (14, STRIP + 0.6 + PANEL * len(plans)))
    axes.axis("off")
    for place, (name, steps) in enumerate(rows.items()):
        panel = axes.inset_axes(_row_place(place, len(rows)), label=name)
        _bars(panel, steps, last=place == len(rows) - 1)
        panel.set_title(drawable(name), fontsize=TEXT, color=INK, loc="left", parse_math=False)
    _legend(axes, kinds)
    checks = [_worst(plan) for plan in plans.values()]
    heading(axes, "the next latent is made of: weight of each part, step by step", *checks)
    return finish(ax, axes, _coefficients_alt(rows, kinds))


def weights(plan: Sequence[PlannedStep], index: int) -> dict[str, float]:
    """The weights of one step by kind, as `plot_coefficients` draws them; zeros are left out."""
    update, newest = plan[index].update, sum(s.network_calls for s in plan[: index + 1]) - 1
    found = {"x_t": update.a}
    for term in update.terms:
        age = newest - term.call
        when = ("newest call", "1 call earlier")[age] if age < 2 else "2 or more earlier"
        kind = f"{term.reading}, {when}"
        found[kind] = found.get(kind, 0.0) + term.weight
    found["noise"] = math.hypot(*(weight for _, weight in update.noise))
    return {kind: weight for kind, weight in found.items() if weight != 0.0}


def _row_place(place: int, count: int) -> tuple[float, float, float, float]:
    """Left, bottom, width and height: rows under a strip that the legend takes."""
    whole = STRIP + PANEL * count
    bottom = PANEL * (count - 1 - place) + (0.16 if count == 1 else 0.24) * PANEL
    return (0.05, bottom / whole, 0.94, 0.62 * PANEL / whole)


def _legend(axes: Axes, kinds: list[str]) -> None:
    handles = [Patch(color=colour(KINDS[kind])) for kind in kinds]
    columns = len(kinds) if len(kinds) <= 5 else -(-len(kinds) // 2)
    axes.legend(handles, kinds, fontsize=SMALL, frameon=False, ncols=columns, loc="upper left",
                bbox_to_anchor=(0.04, 1.0), borderpad=0, borderaxespad=0)  # fmt: skip


def _bars(panel: Axes, steps: Sequence[Mapping[str, float]], last: bool) -> None:
    kinds = [kind for kind in KINDS if any(kind in step for step in steps)]
    wide = 0.84 / len(kinds)
    for n, kind in enumerate(kinds):
        places = np.arange(len(steps)) + (n - (len(kinds) - 1) / 2) * wide
        heights = [step.get(kind, 0.0) for step in steps]
        panel.bar(places, heights, wide, color=colour(KINDS[kind]), label=kind)
    panel.axhline(0, color=INK, linewidth=1.5)
    for edge in np.arange(len(steps) - 1) + 0.5:
        panel.axvline(edge, color="#dddddd", linewidth=1.0, zorder=0)
    panel.set_xlim(-0.5, len(steps) - 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(3))
    axis_labels(panel, "step" if last else "", "weight", SMALL)


def _worst(plan: Sequence[PlannedStep]) -> Residual | str:
    exact = [invariants(step) for step in plan if step.exact]
    return max(exact, key=lambda check: check.relative) if exact else ""


def _coefficients_alt(rows: Mapping[str, Sequence[Mapping[str, float]]], kinds: list) -> str:
    told = []
    for name, steps in rows.items():
        middle = steps[len(steps) // 2]
        parts = ", ".join(f"{middle[kind]:.3g} {kind}" for kind in kinds if kind in middle)
        told.append(f"{name or 'the plan'}, step {len(steps) // 2} of {len(steps)}: {parts}")
    return f"Bars of the coefficients of every step. {'; '.join(told)}."


# ---- convergence ------------------------------------------------------------------------------
SHADES = ("blue", "vermilion", "green", "purple", "orange", "black", "sky")
MARKERS = "osD^vPX"


def plot_convergence(
    record: Convergence | Sequence[Convergence], *, by: str = "steps", ax: Axes | None = None
) -> Figure | Axes:
    """Error against the number of steps (or network `calls`), log-log, with each last slope.

    The last slope lies between the two largest numbers (`Convergence.order`, by steps). For up to
    three results, dashed lines have the whole-number slopes nearest to those seen.
    """
    results = [record] if isinstance(record, Convergence) else list(record)
    if not results or by not in ("steps", "calls"):
        raise InputError(f"plot_convergence got {len(results)} results by {by!r}; give at least "
                         "one, by 'steps' or 'calls'")  # fmt: skip
    axes = canvas(ax, (13, 7.5))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ends = []
    for n, result in enumerate(results):
        shade, counts = colour(SHADES[n % 7]), _counts(result, by)
        axes.plot(counts, result.errors, color=shade, linewidth=LINE, marker=MARKERS[n % 7],
                  markersize=11, markeredgecolor="white", label=result.label)  # fmt: skip
        ends.append((counts[-1], result.errors[-1], _told(result, by), shade))
    if len(results) <= 3:
        _guides(axes, results, by)
    _end_labels(axes, ends)
    ticks = sorted({count for result in results for count in _counts(result, by)})
    if len(ticks) > 9:  # several solvers' own calls: powers of two
        ticks = [2**k for k in range(int(math.log2(ticks[0])), 1 + int(math.log2(ticks[-1])))]
    axes.set_xticks(_with_room(ticks))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, which="major")
    what = sorted({result.what for result in results})
    axis_labels(axes, "steps" if by == "steps" else "network calls", " / ".join(what))
    grids = ", ".join(dict.fromkeys(result.grid for result in results))
    heading(axes, f"error against {'steps' if by == 'steps' else 'network calls'}, {grids} grid")
    told = "; ".join(f"{_told(r, by)}, from {r.errors[0]:.2g} to {r.errors[-1]:.2g}"
                     for r in results)  # fmt: skip
    return finish(ax, axes, f"Log-log lines of the error on the {grids} grid: {told}.")


def _counts(result: Convergence, by: str) -> tuple[int, ...]:
    return result.num_steps if by == "steps" else result.network_calls


def _with_room(ticks: Sequence[int]) -> list[int]:
    """Of numbers so near that their texts would touch (39 and 40 steps), the larger ones."""
    kept: list[int] = []
    for tick in sorted(ticks, reverse=True):
        if not kept or 1.15 * tick < kept[-1]:
            kept.append(tick)
    return kept[::-1]


def _slope(result: Convergence, by: str) -> float:
    slopes = result.slopes if by == "steps" else result.slopes_by_calls
    good = [slope for slope in slopes if math.isfinite(slope)]
    return good[-1] if good else math.nan


def _told(result: Convergence, by: str) -> str:
    slope = _slope(result, by)
    return f"{result.label}: " + (f"last slope {slope:.2f}" if math.isfinite(slope) else "no slope")


def _guides(axes: Axes, results: Sequence[Convergence], by: str) -> None:
    """One dashed line per whole-number slope, under the lowest first error of that slope."""
    lowest: dict[int, tuple[float, float, float]] = {}
    for result in results:
        slope, counts = _slope(result, by), _counts(result, by)
        if math.isfinite(slope) and round(slope) >= 1:
            seen = (result.errors[0], counts[0], counts[-1])
            lowest[round(slope)] = min(seen, lowest.get(round(slope), seen))
    for slope, (error, first, last) in lowest.items():
        counts = np.array([first, last], dtype=float)
        line = 0.35 * error * (counts / first) ** -slope
        axes.plot(counts, line, "--", color="#8a8a8a", linewidth=2.5, zorder=0)
        label(axes, first, line[0], f"slope {slope} ", color="#5a5a5a", ha="right")


def _end_labels(axes: Axes, ends: list[tuple]) -> None:
    """Names at the ends of the lines, moved apart where they would touch."""
    good = sorted((end for end in ends if 0 < end[1] < math.inf), key=lambda end: end[1])
    if not good:
        return
    low, high = (math.log10(value) for value in axes.get_ylim())
    gap, at = 0.055 * (high - low), -math.inf
    for x, error, text, shade in good:
        at = max(math.log10(error), at + gap)
        label(axes, x * 1.06, 10**at, text, ha="left", fontsize=TEXT, color=shade,
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
    left, right = axes.get_xlim()
    longest = max(len(text) for _, _, text, _ in good)
    share = min(0.5, 0.0115 * longest)  # of the width, for the names
    axes.set_xlim(left * (left / right) ** 0.06, right * (right / left) ** (share / (1 - share)))
