"""Pictures of one latent."""

from __future__ import annotations

from matplotlib.axes import Axes

from diffusionlab.analysis.latents import numbers
from diffusionlab.plots.figure import (
    Figure,
    canvas,
    colour_bar,
    contact_sheet,
    finish,
    heading,
    latent_picture,
    not_finite,
    signed,
)
from diffusionlab.trace import Latent, statistics


def plot_latent(record: Latent, *, ax: Axes | None = None) -> Figure | Axes:
    """The channels of a latent on one symmetric scale, and its picture by the preview map."""
    values = numbers(record.values)
    channels, scale = values.shape[0], signed(values)
    pictures = [(f"channel {i}", values[i], scale) for i in range(channels)]
    if record.preview is not None and not not_finite(values, ""):
        pictures.append(("preview (RGB)", *latent_picture(values, record.preview)))
    tall = values.shape[1] / values.shape[2]
    axes = canvas(ax, (2.7 * len(pictures) + 1.3, 2.6 * tall + 1.15))
    drawn = contact_sheet(axes, pictures)
    colour_bar(axes, drawn[0], "latent value")
    where = f", made by {record.made_by}" if record.made_by else ""
    place = "" if record.level is None else f" at timestep {record.level.timestep:g}"
    mapless = "" if record.preview is not None else " (this checkpoint has no preview map)"
    title = f"latent {values.shape}{place}, std {statistics(values).std:.3g}{mapless}"
    bad = not_finite(values, where.removeprefix(", ") or "where is not recorded")
    heading(axes, title, bad)
    alt = f"{channels} channel pictures of a latent {values.shape}{place}{where}"
    alt += f": {statistics(values)}."
    return finish(ax, axes, alt)
