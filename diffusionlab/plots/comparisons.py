"""Runs side by side: a grid of ends, a ladder of steps, two runs and their difference."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.ladder import Rung, StepLadder, distance
from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.trajectories import Parting, parting
from diffusionlab.errors import InputError
from diffusionlab.images import Preview, spread
from diffusionlab.plots.figure import (
    INK,
    LINE,
    SMALL,
    TEXT,
    Figure,
    amounts,
    axis_labels,
    canvas,
    colour,
    contact_sheet,
    drawable,
    ending_picture,
    finish,
    heading,
    label,
    latent_picture,
    not_finite,
)
from diffusionlab.plots.sheets import Cell, Sheet
from diffusionlab.trace import Comparison, Trace


# ---- the ends of several runs -----------------------------------------------------------------
def plot_sampler_grid(record: Comparison, *, ax: Axes | None = None) -> Figure | Axes:
    """The pictures that the runs of a comparison end in, each with its steps and network calls.

    A run that has no image is shown by the preview map. Two axes that vary as in a table ("name ·
    number") are laid out as one.
    """
    if not record.traces:
        raise InputError("the comparison holds no run; compare at least one")
    pictures = [
        (_caption(value, trace), *ending_picture(trace))
        for value, trace in zip(record.values, record.traces, strict=True)
    ]
    columns = _columns([str(value) for value in record.values])
    rows, tall = -(-len(pictures) // columns), pictures[0][1].shape[0] / pictures[0][1].shape[1]
    wide = min(3.4, 16 / columns)
    size = (max(1.08 * wide * columns, 9.5), wide * (tall + 0.4) * rows + 0.7)
    axes = canvas(ax, size)
    contact_sheet(axes, pictures, columns=columns)
    settings = record.traces[0].settings
    ends = [t.steps[-1].next_latent for t in record.traces if t.image is None]
    bad = not_finite([numbers(end) for end in ends], "in the end of a run")
    heading(axes, f"{settings.prompt[:44]!r}, seed {settings.seed}, over {record.axis}", bad)
    told = "; ".join(caption.replace("\n", ", ") for caption, _, _ in pictures)
    return finish(ax, axes, f"Pictures of {len(pictures)} runs over {record.axis}: {told}.")


def _caption(value: Any, trace: Trace) -> str:
    calls = sum(step.network_calls for step in trace.steps)
    return drawable(f"{str(value)[:26]}\n{len(trace.steps)} steps, {calls} calls")


def _columns(values: list[str]) -> int:
    """As many columns as the last part of the values has, if they make a whole table."""
    lasts = dict.fromkeys(value.rpartition(" · ")[2] for value in values if " · " in value)
    if len(lasts) > 1 and len(values) % len(lasts) == 0:
        return len(lasts)
    return min(5, len(values)) if len(values) != 6 else 3


# ---- step k of N and k steps ------------------------------------------------------------------
def plot_step_ladder(record: StepLadder, *, ax: Axes | None = None) -> Figure | Axes:
    """Three rows over k: step k of N stopped there, x0-hat at step k of N, and a run of k steps.

    Drawn by the preview map, so that the rows compare like with like, unless all images are there.
    """
    total = record.num_steps
    rows = (
        (f"step k of {total},\nstopped", "stopped", lambda r: f"σ̂ {r.karras_sigma:.3g} left"),
        (f"x0-hat\nat step k\nof {total}", "x0", lambda r: f"step {r.num_steps}"),
        ("a run\nof k steps", "finished", _ending_told),
    )
    count = len(record.rungs)
    cells = [_row(record, what, caption) for _, what, caption in rows]
    columns = [f"k = {rung.num_steps}" for rung in record.rungs]
    sheet = Sheet([name for name, *_ in rows], columns, cells, 2.15)
    axes = sheet.axes(ax)
    sheet.draw(axes)
    latents = [getattr(rung, what) for rung in record.rungs for _, what, _ in rows]
    bad = not_finite([numbers(latent) for latent in latents], "in these runs")
    told = f"step k of {total} is not a run of k steps (σ̂: karras_sigma)"
    heading(axes, told, bad, record.start)
    return finish(ax, axes, f"A ladder of {count} rungs. {str(record).replace(chr(10), '; ')}.")


def _ending_told(rung: Rung) -> str:
    steps = f"{rung.num_steps} step{'s' if rung.num_steps > 1 else ''}"
    return f"{steps}, σ̂ {rung.end_karras_sigma:.2g}"


def _row(record: StepLadder, what: str, caption: Any) -> list[Cell]:
    if all(None not in (r.stopped_image, r.x0_image, r.finished_image) for r in record.rungs):
        found = [(np.asarray(getattr(r, f"{what}_image")), {}) for r in record.rungs]
    else:
        found = [latent_picture(getattr(r, what), record.preview) for r in record.rungs]
    pairs = zip(record.rungs, found, strict=True)
    return [Cell(*picture, caption=caption(rung)) for rung, picture in pairs]


# ---- two runs ---------------------------------------------------------------------------------
def plot_difference(
    record: Trace | Comparison, other: Trace | None = None, *, share: float = 0.05,
    ax: Axes | None = None,
) -> Figure | Axes:  # fmt: skip
    """Two runs, how their pictures differ, and how far their latents are apart at each level.

    `record` is a Trace beside `other`, or a Comparison, whose first two runs are taken. The line
    where they part lies at `share` of the latents' size.
    """
    first, second = _two(record, other)
    names = _names(record, first, second)
    pictures, most = _pictures(first, second, names, first.preview)
    tall = pictures[0][1].shape[0] / pictures[0][1].shape[1]
    axes = canvas(ax, (16, max(3.2 * tall + 1.5, 4.2)))
    axes.axis("off")
    sheet = axes.inset_axes((0.0, 0.0, 0.62, 1.0), label="pictures")
    contact_sheet(sheet, pictures, columns=3)
    curve = axes.inset_axes((0.7, 0.18, 0.29, 0.7), label="difference")
    found = parting(first, second, share)
    _curve(curve, found)
    bad = not_finite([numbers(t.latents) for t in (first, second)], "in the runs' latents")
    heading(axes, "two runs, and where they differ" if bad else str(found), bad)
    ends = distance(*(numbers(t.steps[-1].next_latent) for t in (first, second)))
    alt = f"Two runs, {names[0]} and {names[1]}: {found}; at the end their latents are {ends:.2g} "
    return finish(ax, axes, alt + f"of their size apart, pictures by up to {most:.2g}.")


def _two(record: Trace | Comparison, other: Trace | None) -> tuple[Trace, Trace]:
    if isinstance(record, Comparison) and other is None and len(record.traces) >= 2:
        return record.traces[0], record.traces[1]
    if isinstance(record, Trace) and isinstance(other, Trace):
        return record, other
    raise InputError(
        f"plot_difference got {type(record).__name__} and {type(other).__name__}; give two traces, "
        "or one comparison of at least two runs"
    )


def _names(record: Trace | Comparison, *traces: Trace) -> list[str]:
    if isinstance(record, Comparison):
        return [str(value)[:24] for value in record.values[:2]]
    return [f"{t.settings.sampler_text}, {len(t.steps)} steps"[:24] for t in traces]


def _pictures(
    first: Trace, second: Trace, names: list[str], preview: Preview | None
) -> tuple[list, float]:
    if first.image is not None and second.image is not None:
        arrays = [np.asarray(t.image, dtype=np.float64)[..., :3] / 255 for t in (first, second)]
        shown, unit = [(array, {}) for array in arrays], "of 1"
    else:
        arrays = [numbers(t.steps[-1].next_latent).transpose(1, 2, 0) for t in (first, second)]
        shown, unit = [latent_picture(a.transpose(2, 0, 1), preview) for a in arrays], "in latents"
    off = np.abs(arrays[0] - arrays[1]).mean(axis=2)
    most = float(off.max())
    pictures = [(drawable(name), *picture) for name, picture in zip(names, shown, strict=True)]
    return [*pictures, (f"difference ≤ {most:.2g} {unit}", off, amounts(most))], most


def _curve(panel: Axes, found: Parting) -> None:
    sigmas = np.array(found.karras_sigmas)
    places = np.arange(len(sigmas))
    panel.plot(places, found.differences, "o-", color=colour("blue"), linewidth=LINE, markersize=9)
    panel.axhline(found.share, color=colour("vermilion"), linewidth=2.5, linestyle="--")
    label(panel, places[-1], found.share, f"{found.share:.0%} ", color=colour("vermilion"),
          ha="right", va="bottom")  # fmt: skip
    if found.at is not None:
        panel.axvline(found.at, color=INK, linewidth=2, linestyle=":")
    chosen = spread(len(sigmas), 6)
    panel.set_xticks(chosen, [f"{sigmas[i]:.2g}" for i in chosen])
    panel.set_ylim(bottom=0)
    axis_labels(panel, "karras_sigma of the shared levels", "difference / size", SMALL)
    panel.set_title("how far the latents are apart", fontsize=TEXT, color=INK)
