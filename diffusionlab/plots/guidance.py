"""Both branches of guidance: as pictures, and as lengths and angles over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator, NullLocator

from diffusionlab.analysis.guidance import (
    Curves,
    call_at,
    guidance_curves,
    guided_steps,
    recombined,
)
from diffusionlab.analysis.latents import branch_x0, numbers
from diffusionlab.images import spread
from diffusionlab.plots.figure import (
    HEAT,
    LINE,
    QUIET,
    SIGNED,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    colour_bar,
    finish,
    heading,
    label,
    largest,
    not_finite,
    panels,
    signed,
)
from diffusionlab.plots.filmstrips import few_steps, step_sheet
from diffusionlab.plots.sheets import Cell, amount_cell, latent_cell
from diffusionlab.trace import Prediction, Trace

MOST_STEPS = 8
NOT_RUN = "the unconditional\npass was not run"


# ---- pictures ---------------------------------------------------------------------------------
def plot_guidance(
    record: Trace,
    *,
    steps: Sequence[int] | None = None,
    decode: Callable[[Any], Any] | None = None,
    channels: bool = False,
    ax: Axes | None = None,
) -> Figure | Axes:
    """x0 of each branch, how they differ, and the guided x0, at some steps of a run.

    Pictures by the preview map, or decoded by `decode(latent)` → PIL image. `channels=True` draws
    cond − uncond in each latent channel instead. Raises InputError for a run without guidance.
    """
    guided_steps(record)
    chosen = few_steps(record, steps, MOST_STEPS, 6)
    calls = [call_at(record, step) for step in chosen]
    differences = [_difference(call) for call in calls]
    rows = _channel_rows(differences) if channels else _branch_rows(record, calls, decode)
    wide = 1.9 if len(chosen) < 7 else 1.6
    sheet = step_sheet(record, chosen, list(rows), list(rows.values()), wide)
    axes = sheet.axes(ax, bar=True, least=11.0)
    sheet.draw(axes)
    scale = Normalize(-1 if channels else 0, 1)
    colour_bar(axes, ScalarMappable(scale, SIGNED if channels else HEAT), _unit(channels, decode))
    found = [*differences, *(numbers(call.x0) for call in calls)]
    bad = not_finite(found, "in the difference or in x0-hat")
    heading(axes, _title(record, channels, decode), bad or recombined(record))
    return finish(ax, axes, _alt(record, chosen, differences))


def _difference(call: Prediction) -> np.ndarray | None:
    """cond − uncond in x0; None where only one branch was run."""
    uncond = branch_x0(call, "uncond")
    return None if uncond is None else branch_x0(call, "cond") - uncond


def _branch_rows(record: Trace, calls: Sequence[Prediction], decode: Any) -> dict[str, list[Cell]]:
    def cells(values: list) -> list[Cell]:
        return [_cell(value, record, decode) for value in values]

    rows = {
        _uncond_name(record): cells([branch_x0(call, "uncond") for call in calls]),
        "with the\nprompt": cells([branch_x0(call, "cond") for call in calls]),
    }
    rows["|difference|"] = _off_cells(calls, *rows.values(), decoded=decode is not None)
    guidance = record.settings.guidance
    rescaled = f"\nrescale {guidance.rescale:g}" if guidance.rescale else ""
    rows[f"guided\ng = {guidance.scale:g}{rescaled}"] = cells([numbers(c.x0) for c in calls])
    return rows


def _cell(value: np.ndarray | None, record: Trace, decode: Any) -> Cell:
    if value is None:
        return Cell(None, {}, NOT_RUN)
    return latent_cell(value, record.preview, decode)


def _uncond_name(record: Trace) -> str:
    negative = " ".join(record.settings.negative_prompt.split())
    if not negative:
        return "without\nthe prompt"
    short = negative if len(negative) <= 16 else negative[:15] + "…"
    return f"negative\nprompt\n“{short}”"


def _off_cells(calls: Any, uncond: list[Cell], cond: list[Cell], decoded: bool) -> list[Cell]:
    """How far the branches are apart at each place, each step on its own scale, told below it.

    Of decoded pictures the mean over red, green and blue, else the root mean square over channels.
    """
    found = []
    for call, *pair in zip(calls, uncond, cond, strict=True):
        difference = _difference(call)
        if difference is None:
            found.append(Cell(None, {}, NOT_RUN))
        elif decoded and np.isfinite(difference).all():
            one, other = (np.asarray(cell.array, np.float64) / 255 for cell in pair)
            found.append(amount_cell(np.abs(one - other).mean(axis=-1)))
        else:
            found.append(amount_cell(np.sqrt(np.square(difference).mean(axis=0))))
    return found


def _channel_rows(differences: Sequence[np.ndarray | None]) -> dict[str, list[Cell]]:
    """Each channel of cond − uncond, each step on its own scale, told below the last channel."""
    count = next((len(d) for d in differences if d is not None), 1)
    return {
        f"channel {channel}": [_channel_cell(d, channel, count) for d in differences]
        for channel in range(count)
    }


def _channel_cell(difference: np.ndarray | None, channel: int, count: int) -> Cell:
    if difference is None:
        return Cell(None, {}, NOT_RUN)
    top = largest(difference)
    note = f"up to ±{top:.2g}" if channel == count - 1 else ""
    return Cell(difference[channel], signed(difference), note)


def _unit(channels: bool, decode: Any) -> str:
    told = "difference in pixels, mean over RGB" if decode else "rms difference in x0-hat"
    return (
        "cond − uncond in x0-hat" if channels else told
    ) + ",\n1: the step's largest, told below"


def _title(record: Trace, channels: bool, decode: Any) -> str:
    if channels:
        return "where guidance pulls, in x0-hat"
    how = "decoded" if decode is not None else "by preview map"
    if record.preview is None and decode is None:
        how = "mean of the channels (no preview map)"
    return f"x0-hat of both branches, {how}"


def _alt(record: Trace, chosen: Sequence[int], differences: Sequence[np.ndarray | None]) -> str:
    told = "; ".join(
        f"step {i} {np.sqrt(np.square(d).mean()):.2g}" if d is not None else f"step {i} not run"
        for i, d in zip(chosen, differences, strict=True)
    )
    return (
        f"Both branches of guidance {record.settings.guidance} at {len(chosen)} steps; root mean "
        f"square of their difference in x0-hat: {told}."
    )


# ---- curves -----------------------------------------------------------------------------------
def plot_guidance_curves(record: Trace, *, ax: Axes | None = None) -> Figure | Axes:
    """How long the difference of the branches is, and by how much guidance turns a step.

    Over the steps of a run, karras_sigma on the upper axis; steps that were made without guidance
    are shaded. Raises InputError for a run without guidance.
    """
    found = guidance_curves(record)
    axes = canvas(ax, (14, 5.6))
    length, angles = panels(axes, [(0.08, 0.14, 0.4, 0.7), (0.58, 0.14, 0.4, 0.7)])
    _curve(length, found, "in eps-hat", found.ratios, "o-", "blue")
    _curve(length, found, "in x0-hat", found.x0_ratios, "D--", "green")
    _curve(angles, found, "cond from uncond", found.apart, "o-", "blue")
    _curve(angles, found, "guided from cond", found.turned, "s--", "vermilion")
    _amounts_axis(length, np.concatenate([found.ratios, found.x0_ratios]))
    angles.set_ylim(0, _above(np.concatenate([found.apart, found.turned])))
    axis_labels(length, "step", "|cond − uncond| / |cond|")
    axis_labels(angles, "step", "angle in eps-hat (degrees)")
    for panel in (length, angles):
        _steps_axis(panel, found, record)
        panel.legend(fontsize=TEXT, frameon=False, loc="best")
    values = np.concatenate([found.ratios, found.x0_ratios, found.apart, found.turned])
    title = f"what guidance {record.settings.guidance} adds, step by step"
    heading(axes, title, not_finite(values, "in the network's output") or found.check)
    return finish(ax, axes, _curves_alt(found, record))


def _curve(panel: Axes, found: Curves, name: str, values: Any, mark: str, hue: str) -> None:
    panel.plot(found.steps, values, mark, color=colour(hue), linewidth=LINE, markersize=8,
               label=name)  # fmt: skip


def _amounts_axis(panel: Axes, values: np.ndarray) -> None:
    """Powers of ten, written out, unless a value is 0."""
    good = values[np.isfinite(values)]
    if not good.size or good.min() <= 0:
        panel.set_ylim(0, _above(values))
        return
    panel.set_yscale("log")
    panel.set_ylim(good.min() / 1.5, good.max() * 1.5)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())


def _above(values: np.ndarray) -> float:
    return 1.15 * largest(values) or 1.0


def _steps_axis(panel: Axes, found: Curves, record: Trace) -> None:
    """Whole steps below, their karras_sigma above, grey where there was no guidance."""
    panel.set_xlim(-0.5, found.num_steps - 0.5)
    ticks = spread(found.num_steps, 6)
    panel.set_xticks(ticks)
    above = panel.secondary_xaxis("top")
    above.set_xticks(ticks, [f"{record.karras_sigmas[i]:.2g}" for i in ticks])
    above.tick_params(labelsize=TEXT, colors=QUIET, width=1.5, length=6)
    above.set_xlabel("karras_sigma", fontsize=TEXT, color=QUIET, labelpad=8)
    above.spines["top"].set_visible(False)
    for first, last in _runs_of([i for i in range(found.num_steps) if i not in found.steps]):
        panel.axvspan(first - 0.5, last + 0.5, color="#dddddd", linewidth=0)
        label(panel, (first + last) / 2, 0.5, "no guidance", rotation=90,
              transform=panel.get_xaxis_transform())  # fmt: skip


def _runs_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last of each unbroken run of rising whole numbers."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _curves_alt(found: Curves, record: Trace) -> str:
    top, top_x0 = (int(np.argmax(np.nan_to_num(y))) for y in (found.ratios, found.x0_ratios))
    return (
        f"Guidance {record.settings.guidance} over {found.num_steps} steps, {len(found.steps)} of "
        f"them guided: the difference of the branches is in eps largest at step {found.steps[top]} "
        f"({found.ratios[top]:.2g} of the conditional one), where guidance turns the output by "
        f"{found.turned[top]:.2g} degrees, in x0 at step {found.steps[top_x0]} "
        f"({found.x0_ratios[top_x0]:.2g}); at the last guided step it is "
        f"{found.ratios[-1]:.2g} of eps and {found.x0_ratios[-1]:.2g} of x0."
    )
