"""What the network said at one point, and what one step made of it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import branch_x0, numbers, residual_of
from diffusionlab.analysis.updates import Coefficient, coefficients, equation, invariants
from diffusionlab.images import Preview
from diffusionlab.plan import PlannedStep, Step
from diffusionlab.plots.figure import (
    HEAT,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    contact_sheet,
    finish,
    heading,
    label,
    latent_picture,
    not_finite,
)
from diffusionlab.trace import Prediction, statistics


def plot_prediction(
    record: Prediction, *, preview: Preview | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """x_t, the x0 that each branch and the guided output stand for, eps, and where guidance pulls.

    Without an unconditional pass: x_t, the raw output as it is, and the x0 and eps in it.
    Pictures by the preview map (of the record unless given; without one, the mean of the channels).
    """
    preview = record.preview if preview is None else preview
    latent, x0, eps = (numbers(x) for x in (record.latent, record.x0, record.eps))
    uncond, cond = branch_x0(record, "uncond"), branch_x0(record, "cond")
    raw = f"raw output ({record.prediction_type})"
    shown = [("x_t", latent), (raw, numbers(record.guided)), ("x0", x0), ("eps", eps)]
    if uncond is not None:
        shown = [("x_t", latent), ("x0, uncond", uncond), ("x0, cond", cond)]
        shown += [(f"x0, guided g={record.guidance_scale:g}", x0), ("eps, guided", eps)]
    pictures = [(n, *latent_picture(v, preview)) for n, v in shown if v is not None]
    pull = "the unconditional pass was not run"
    if uncond is not None:
        difference = np.sqrt(np.square(numbers(record.cond) - numbers(record.uncond)).mean(axis=0))
        pictures.append(
            (f"|cond − uncond| ≤ {difference.max():.2g}", difference, {"cmap": HEAT, "vmin": 0})
        )
        pull = f"the branches differ by {difference.mean():.3g} on average"
    tall = latent.shape[1] / latent.shape[2]
    axes = canvas(ax, (2.7 * len(pictures), 2.6 * tall + 1.1))
    contact_sheet(axes, pictures)
    where = f"timestep {record.level.timestep:g}, karras_sigma {record.level.karras_sigma:.3g}"
    check = residual_of(record)
    bad = not_finite([value for _, value in shown], "in the network's output or in x_t")
    heading(
        axes, f"prediction of {record.prediction_type} at {where}{_mapless(preview)}", bad, check
    )
    alt = f"Prediction at {where}: {pull}; x0 has {statistics(x0)}; eps has {statistics(eps)}."
    return finish(ax, axes, alt + f" {check}".rstrip())


def plot_step(
    record: Step, *, preview: Preview | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """One step: x_t, the x0 and eps of its first network call, fresh noise if any, and x_next."""
    call = record.predictions[0] if record.predictions else None
    preview = getattr(call, "preview", None) if preview is None else preview
    shown = [(f"x_t, t {record.level.timestep:.4g}", record.latent)]
    if call is not None:
        shown += [("x0-hat", call.x0), ("eps-hat", call.eps)]
    shown += [(f"noise {i}", noise) for i, noise in enumerate(record.noises)]
    shown += [(f"x_next, t {record.next_level.timestep:.4g}", record.next_latent)]
    pictures = [(name, *latent_picture(numbers(value), preview)) for name, value in shown]
    height, width = record.latent.shape[1:]
    axes = canvas(ax, (3.2 * len(pictures), 3.1 * height / width + 1.15))
    contact_sheet(axes, pictures)
    bad = not_finite([numbers(value) for _, value in shown], f"in step {record.index}")
    check = invariants(record)
    heading(axes, f"step {record.index}: {equation(record)}{_mapless(preview)}", bad, check)
    before, after = record.level.karras_sigma, record.next_level.karras_sigma
    alt = f"Step {record.index} from karras_sigma {before:.3g} to {after:.3g}: {equation(record)}."
    return finish(ax, axes, alt + f" {check}".rstrip())


def plot_update(record: Step | PlannedStep, *, ax: Axes | None = None) -> Figure | Axes:
    """The coefficients of one step as bars: what the next latent is made of."""
    bars = coefficients(record)
    axes = canvas(ax, (10, 1.9 + 0.75 * len(bars)))
    colours = {"x_t": "blue", "x0": "green", "eps": "orange", "noise": "purple"}
    places = np.arange(len(bars))[::-1]
    axes.barh(places, [b.weight for b in bars], color=[colour(colours[b.kind]) for b in bars])
    axes.axvline(0, color="#141414", linewidth=1.5)
    for place, bar in zip(places, bars, strict=True):
        _weight(axes, place, bar)
    axes.set_yticks(places, [bar.label for bar in bars])
    axis_labels(axes, "weight (no unit)", "")
    axes.tick_params(axis="y", labelsize=TEXT)
    axes.margins(x=0.16)
    where = f"timestep {record.level.timestep:.4g} → {record.next_level.timestep:.4g}"
    check = invariants(record)
    heading(axes, f"the update as numbers, {where}", check)
    return finish(ax, axes, f"Bars of {equation(record)}, {where}. {check}".rstrip())


def _weight(axes: Axes, place: float, bar: Coefficient) -> None:
    side = "left" if bar.weight >= 0 else "right"
    label(axes, bar.weight, place, f" {bar.weight:.4g} ", ha=side, fontsize=TEXT)


def _mapless(preview: Preview | None) -> str:
    return "" if preview is not None else "\n(no preview map: mean of the channels)"
