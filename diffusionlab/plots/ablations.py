"""What is missed: one run beside the same run with one thing taken away each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.ablations import Ablation, Changed
from diffusionlab.analysis.anatomy import short_name
from diffusionlab.analysis.latents import numbers
from diffusionlab.images import spread
from diffusionlab.plots.figure import (
    SMALL,
    Figure,
    amounts,
    axis_labels,
    canvas,
    drawable,
    ending_picture,
    finish,
    heading,
    largest,
    not_finite,
    panels,
)
from diffusionlab.plots.panel import bar_beside
from diffusionlab.plots.sheets import Cell, Sheet


def plot_ablation(record: Ablation, *, most: int = 7, ax: Axes | None = None) -> Figure | Axes:
    """A run beside the runs with one thing taken away each, the largest change first.

    Below each picture its difference from the whole run's, further down how far the latents are
    apart at each level. At most `most` of them are drawn.
    """
    chosen = record.changed[:most]
    base = ending_picture(record.base)
    offs = [_picture_off(record, changed) for changed in chosen]
    top = max(map(largest, offs))
    pictures = [Cell(*base), *(Cell(*ending_picture(c.trace), _change(c)) for c in chosen)]
    blank = Cell(None, {}, f"difference →\n{_off_unit(record)}\n(yellow: {top:.2g})")
    below = [blank, *(Cell(off, amounts(top)) for off in offs)]
    columns = ["whole", *(drawable(short_name(c.name)[:14]) for c in chosen)]
    grid = Sheet(["", ""], columns, [pictures, below], min(2.1, 15 / len(columns)))
    wide, tall = grid.size
    rows = max(0.36 * len(chosen), 1.9) + 1.3
    axes = canvas(ax, (max(wide, 11) + 0.9, tall + rows + 0.8))
    share = rows / (tall + rows)
    sheet, heat = panels(axes, [(0, share, 1, 1 - share), (0.17, 0.9 / (tall + rows), 0.7,
                                                         share - 1.2 / (tall + rows))])  # fmt: skip
    grid.draw(sheet)
    _apart(heat, chosen)
    shown_of = "" if len(chosen) == len(record.changed) else f", {most} of {len(record.changed)}"
    runs = (record.base, *(c.trace for c in chosen))
    ends = [numbers(trace.steps[-1].next_latent) for trace in runs]
    bad = not_finite([*ends, *(c.differences for c in chosen)], "in a run")
    heading(axes, f"what is missed without each {record.what}{shown_of}", bad, record.start)
    return finish(ax, axes, _ablation_alt(record))


def _in_pixels(record: Ablation) -> bool:
    return all(t.image is not None for t in (record.base, *(c.trace for c in record.changed)))


def _off_unit(record: Ablation) -> str:
    return "mean over RGB" if _in_pixels(record) else "mean over channels"


def _picture_off(record: Ablation, changed: Changed) -> np.ndarray:
    """How far the two pictures are apart at each place, (height, width)."""
    traces = (record.base, changed.trace)
    if _in_pixels(record):
        arrays = [np.asarray(t.image.convert("RGB"), np.float64) / 255 for t in traces]
        return np.abs(arrays[0] - arrays[1]).mean(axis=2)
    latents = [numbers(t.steps[-1].next_latent) for t in traces]
    return np.abs(latents[0] - latents[1]).mean(axis=0)


def _change(changed: Changed) -> str:
    at, share = changed.parting.at, f"over {changed.parting.share:.0%}"
    parts = f"never\n{share}" if at is None else f"{share}\nafter step {max(at - 1, 0)}"
    return f"{changed.final:.0%} off\n{parts}"


def _apart(panel: Axes, chosen: Sequence[Changed]) -> None:
    values = np.stack([c.differences for c in chosen])
    levels = values.shape[1]
    drawn = panel.imshow(values, aspect="auto", interpolation="nearest", **amounts(largest(values)))
    bar_beside(panel, drawn, "difference / size")
    panel.set_yticks(np.arange(len(chosen)), [drawable(short_name(c.name)[:20]) for c in chosen],
                     parse_math=False)  # fmt: skip
    ticks = spread(levels, 8)
    sigmas = chosen[0].parting.karras_sigmas
    panel.set_xticks(ticks, [f"{sigmas[i]:.2g}" for i in ticks])
    axis_labels(panel, "karras_sigma of the latents, in the order of the run", "", SMALL)


def _ablation_alt(record: Ablation) -> str:
    told = "; ".join(
        f"{short_name(c.name)} {c.final:.0%}, {' '.join(_change(c).split()[2:])}"
        for c in record.changed
    )
    return (
        f"A run of {len(record.base.steps)} steps and {len(record.changed)} with one {record.what} "
        f"taken away each, by how far their last latents are from the whole run's: {told}."
    )
