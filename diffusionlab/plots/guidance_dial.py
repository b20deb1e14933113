"""Other guidance scales: one step of a run at each of them, and whole runs at each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffusionlab.analysis.guidance import GuidanceDial, Stop
from diffusionlab.analysis.guidance_sweep import Sweep, SweepPoint
from diffusionlab.plots.figure import (
    LINE,
    QUIET,
    SMALL,
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
from diffusionlab.plots.sheets import Cell, Sheet, latent_cell
from diffusionlab.trace import Guidance


# ---- the dial ---------------------------------------------------------------------------------
def plot_guidance_dial(record: GuidanceDial, *, ax: Axes | None = None) -> Figure | Axes:
    """x0-hat of one step at several guidance scales, above what whole runs at them hold and end in.

    The first row needs no network: it recombines the stored branches. Where the second differs from
    it, all the earlier steps, and not this one, made the difference.
    """
    rows = {f"only step {record.step}:\nx0-hat": [_cell(record, s, "x0") for s in record.stops]}
    if record.start is not None:
        rows[f"whole run:\nx0-hat, step {record.step}"] = [
            _cell(record, stop, "rerun") for stop in record.stops
        ]
        rows["whole run:\nits end"] = [_cell(record, stop, "end") for stop in record.stops]
    columns = [_name(stop.guidance, record.own) for stop in record.stops]
    wide = min(2.2, 12.5 / len(columns))
    sheet = Sheet(list(rows), columns, list(rows.values()), wide)
    axes = sheet.axes(ax, least=12.7)
    sheet.draw(axes)
    parts = [getattr(stop, part) for stop in record.stops for part in ("x0", "rerun", "end")]
    bad = not_finite(parts, "in this step or in a whole run")
    where = f"step {record.step}, karras_sigma {record.level.karras_sigma:.3g}"
    known = any(stop.guidance == record.own for stop in record.stops)
    run = "" if known else f", run at g = {record.own}"
    start = record.start if record.start is not None else ""
    heading(axes, f"the guidance dial at {where}{run}", bad or record.replayed, start)
    return finish(ax, axes, _dial_alt(record, where))


def _name(guidance: Guidance, own: Guidance | None = None) -> str:
    """The guidance on few short lines."""
    lines = [f"g = {guidance.scale:g}"]
    if guidance.interval is not None:
        lines.append(f"interval\n{guidance.interval[0]:g} … {guidance.interval[1]:g}")
    if guidance.rescale:
        lines.append(f"rescale {guidance.rescale:g}")
    if guidance == own:
        lines.append("(this run)")
    return "\n".join(lines)


def _cell(record: GuidanceDial, stop: Stop, part: str) -> Cell:
    gap = " " if len(record.stops) <= 6 else "\n"  # narrow pictures have notes of two lines
    notes = {
        "x0": f"{stop.turned:.0%} from{gap}the run's",
        "rerun": f"{stop.drifted or 0:.0%} from{gap}above",
        "end": f"{stop.moved or 0:.0%} from{gap}the run's",
    }
    image = (stop.images or {}).get(part)
    if image is not None:
        return Cell(np.asarray(image), {}, notes[part])
    return latent_cell(getattr(stop, part), record.preview, note=notes[part])


def _dial_alt(record: GuidanceDial, where: str) -> str:
    told = "; ".join(
        f"g {stop.guidance}: this step alone {stop.turned:.0%} from the run's own x0-hat"
        + (
            ""
            if stop.drifted is None
            else f", a whole run {stop.drifted:.0%} from that, its end {stop.moved:.0%} from "
            "the run's own"
        )
        for stop in record.stops
    )
    return f"The guidance dial at {where} of a run at guidance {record.own}: {told}."


# ---- the sweep --------------------------------------------------------------------------------
def plot_guidance_sweep(record: Sweep, *, ax: Axes | None = None) -> Figure | Axes:
    """Pictures over guidance scales, and below them what was measured on them, point by point."""
    points = record.points
    cells = [Cell(np.asarray(point.image), {}) for point in points]
    grid = Sheet([""], [_name(point.guidance) for point in points], [cells],
                min(2.4, 13.6 / len(points)))  # fmt: skip
    across, down = grid.size
    wide, tall = max(across, 13.0), down + 4.0
    axes = canvas(ax, (wide, tall + 0.8))
    share = down / tall
    deep = 0.05 * max(_marks(point.guidance).count("\n") for point in points)  # lines below ticks
    low, high = (0.17 + deep) * (1 - share), (0.76 - deep) * (1 - share)
    boxes = [(0.065, low, 0.25, high), (0.4, low, 0.25, high), (0.74, low, 0.25, high)]
    sheet, *below = panels(axes, [(0, 1 - share, 1, share), *boxes])
    grid.draw(sheet)
    _lines(below[0], points, _shares(record), "share (0 … 1)")
    percent = [100 * p.clipped for p in points]
    _lines(below[1], points, [("", percent, "s-", "black")], "values at 0 or 255 (%)")
    _lines(below[2], points, _sizes(points), "size (no unit)")
    values = [
        [value for value in (p.saturation, p.clipped, p.spread, p.ratio, p.adherence)
         if value is not None] for p in points
    ]  # fmt: skip
    count = points[0].count
    runs = f", mean of {count} runs" if count > 1 else ""
    title = f"what rises with guidance{runs}: {record.prompt[:80]!r}"
    heading(axes, title, not_finite(values, "in the measures") or record.start)
    return finish(ax, axes, _sweep_alt(record))


Series = tuple[str, Sequence[float | None], str, str]


def _shares(record: Sweep) -> list[Series]:
    found: list[Series] = [
        ("colour saturation", [p.saturation for p in record.points], "o--", "vermilion"),
    ]
    if record.adherence:
        scores = [p.adherence for p in record.points]
        found.insert(0, (record.adherence, scores, "D-", "green"))
    return found


def _sizes(points: Sequence[SweepPoint]) -> list[Series]:
    return [
        ("std of last x0-hat", [p.spread for p in points], "o-", "blue"),
        ("|cond − uncond| / |cond|", [p.ratio for p in points], "s--", "orange"),
    ]


def _lines(panel: Axes, points: Sequence[SweepPoint], series: list[Series], unit: str) -> None:
    places = np.arange(len(points))
    for name, values, mark, hue in series:
        known = [np.nan if value is None else value for value in values]  # a gap: not measured
        panel.plot(places, known, mark, color=colour(hue),
                   linewidth=LINE, markersize=9, label=drawable(name[:28]) or "_")  # fmt: skip
    for place in {i for _, values, *_ in series for i, v in enumerate(values) if v is None}:
        label(panel, place, 0.03, "not\nrun", color=QUIET, va="bottom",
              transform=panel.get_xaxis_transform())  # fmt: skip
    names = [f"{p.guidance.scale:g}" + _marks(p.guidance) for p in points]
    panel.set_xticks(places, names)
    panel.set_xlim(-0.3, len(points) - 0.7)
    _headroom(panel, series)
    axis_labels(panel, "guidance scale", unit)


def _headroom(panel: Axes, series: list[Series]) -> None:
    """Room above the curves for their names; no ticks up there."""
    good = [v for _, values, *_ in series for v in values if v is not None and np.isfinite(v)]
    top = max([*good, 1e-9])
    named = sum(bool(name) for name, *_ in series)
    ticks = [tick for tick in MaxNLocator(5).tick_values(0, top) if 0 <= tick <= 1.05 * top]
    panel.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    panel.set_ylim(0, (1.1 + 0.17 * named) * top)
    if named:
        shown = panel.legend(fontsize=SMALL, frameon=False, loc="upper left", borderaxespad=0)
        for text in shown.get_texts():
            text.set_parse_math(False)


def _marks(guidance: Guidance) -> str:
    told = "\ninterval" if guidance.interval is not None else ""
    return told + ("\nrescale" if guidance.rescale else "")


def _sweep_alt(record: Sweep) -> str:
    told = "; ".join(
        f"g {p.guidance}: saturation {p.saturation:.2g}, clipped {p.clipped:.1%}, "
        f"x0-hat std {p.spread:.2g}"
        + ("" if p.adherence is None else f", {record.adherence} {p.adherence:.2g}")
        for p in record.points
    )
    return f"Pictures of {record.prompt!r} over {len(record.points)} guidance scales: {told}."
