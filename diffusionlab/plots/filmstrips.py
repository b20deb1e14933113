"""Rows of pictures over the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import eps_spread, numbers
from diffusionlab.analysis.trajectories import ending, stopped
from diffusionlab.errors import InputError, shown
from diffusionlab.images import spread, to_array
from diffusionlab.plots.figure import (
    Figure,
    drawable,
    finish,
    heading,
)
from diffusionlab.plots.runs import path_told
from diffusionlab.plots.sheets import Cell, Sheet, latent_cell
from diffusionlab.trace import Trace, statistics

NAMES = {"x_t": "x_t, scaled,", "x0": "x0-hat,", "eps": "eps-hat,"}


# ---- the filmstrip ----------------------------------------------------------------------------
def plot_filmstrip(
    record: Trace,
    *,
    rows: Sequence[str] = ("x_t", "x0", "eps"),
    steps: Sequence[int] | None = None,
    decode: Callable[[np.ndarray], Any] | None = None,
    most: int = 8,
    ax: Axes | None = None,
) -> Figure | Axes:
    """x_t, x0-hat and eps-hat over the steps of a run (at most `most` of them, unless `steps`).

    x_t is scaled to the spread of the run's end, so that it can be read by the same map at every
    level and for every kind of pair. x0-hat is drawn from the recorded frames; all rows are decoded
    where `decode(latent)` (to a PIL image) is given, else by the preview map. Errors: InputError.
    """
    last = len(record.x0s)  # says what is missing, of a run without steps or predictions
    chosen = few_steps(record, steps, last, max(2, most))
    kinds = _kinds(rows)
    end, _ = ending(record)
    shown_rows = {
        kind: _row(record, kind, chosen, float(end.std()) or 1.0, decode) for kind in kinds
    }
    names = [f"{NAMES[kind]}\n{how}" for kind, (how, _) in shown_rows.items()]
    cells = [found for _, found in shown_rows.values()]
    sheet = step_sheet(record, chosen, names, cells, 2.2 if len(chosen) < 6 else 1.75)
    axes = sheet.axes(ax)
    sheet.draw(axes)
    (stds, _), checks = eps_spread(record), path_told(record)
    told_stds = stds if "eps" in kinds else None
    heading(axes, _title(record, told_stds, checks), *checks)
    told = " ".join(str(check) for check in checks if str(check))
    return finish(ax, axes, _alt(record, chosen, names, told_stds) + (f" {told}." if told else ""))


def _title(record: Trace, stds: np.ndarray | None, checks: Sequence[Any]) -> str:
    """What is shown, and how well each step's stored update gives the next latent."""
    told, (bad, path, _) = stopped(record) or f"{len(record.steps)} steps of a run", checks
    told += "" if bad or str(path) else f", each replayed to {path.relative:.0e}"
    return told if stds is None else f"{told}; eps-hat has std {stds.min():.2f} … {stds.max():.2f}"


def _kinds(rows: Sequence[str]) -> list[str]:
    kinds = [rows] if isinstance(rows, str) else list(rows)
    if not kinds or not all(kind in NAMES for kind in kinds):
        raise InputError(f"rows {shown(rows)}; some of {', '.join(NAMES)} are allowed: ('x0',)")
    return kinds


def few_steps(
    record: Trace, steps: Sequence[int] | None, most: int, usual: int | None = None
) -> list[int]:
    """The steps to draw: those asked for, at most `most`; None: `usual` ones, evenly spread.

    Raises InputError.
    """
    count = len(record.steps)
    if steps is None:
        return list(spread(count, usual or most))
    listed = isinstance(steps, (Sequence, np.ndarray)) and not isinstance(steps, str)
    good = [isinstance(i, (int, np.integer)) and 0 <= i < count for i in (steps if listed else ())]
    if not good or not all(good) or len(good) > most:
        raise InputError(
            f"steps={shown(steps)}; 1 to {most} of the steps 0 to {count - 1} are allowed in this "
            f"run: steps=[0, {count - 1}]"
        )
    return [int(i) for i in steps]


def step_sheet(
    record: Trace, steps: Sequence[int], names: Sequence[str], cells: Sequence[Sequence[Cell]],
    wide: float,
) -> Sheet:  # fmt: skip
    """A sheet whose columns are steps of a run, with their karras_sigma."""
    columns = [f"{i}\n{record.steps[i].level.karras_sigma:.3g}" for i in steps]
    return Sheet(names, columns, cells, wide, "step\nkarras_sigma")


def _row(
    record: Trace, kind: str, chosen: Sequence[int], spread_of_end: float, decode: Any
) -> tuple[str, list[Cell]]:
    """How a row is shown, and its pictures."""
    if kind == "x0" and len(record.frames) == len(record.steps) and decode is None:
        return "decoded", [Cell(to_array(record.frames[i])) for i in chosen]
    latents = {"x_t": record.latents, "x0": record.x0s, "eps": record.eps}[kind]
    found = [numbers(latents[i]) for i in chosen]
    if kind == "x_t":
        found = [x * (spread_of_end / (statistics(x).std or 1.0)) for x in found]
    whole = decode is not None and all(np.isfinite(x).all() for x in found)
    how = "mean of\nchannels" if record.preview is None else "preview"
    cells = [latent_cell(x, record.preview, decode if whole else None) for x in found]
    return "decoded" if whole else how, cells


def _alt(
    record: Trace, chosen: Sequence[int], names: Sequence[str], stds: np.ndarray | None
) -> str:
    told = drawable(", ".join(name.replace(",\n", " (").replace("\n", " ") + ")" for name in names))
    sigmas = record.karras_sigmas
    spread = (
        "" if stds is None else f"; the std of eps-hat goes from {stds[0]:.3g} to {stds[-1]:.3g}"
    )
    return (
        f"Filmstrip of {len(chosen)} of {len(record.steps)} steps, karras_sigma "
        f"{sigmas[chosen[0]]:.3g} to {sigmas[chosen[-1]]:.3g}, rows: {told}{spread}."
    )
