"""Pictures of one latent: its channels, its values, and its map to a small picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from diffusionlab.analysis.latents import Normality, normality, numbers
from diffusionlab.errors import InputError, shown
from diffusionlab.images import Preview
from diffusionlab.plots.figure import (
    INK,
    LINE,
    SMALL,
    Figure,
    canvas,
    colour,
    colour_bar,
    contact_sheet,
    finish,
    heading,
    label,
    latent_picture,
    not_finite,
    panels,
    signed,
)
from diffusionlab.plots.panel import named
from diffusionlab.trace import Latent, Trace, statistics


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


# ---- the values ------------------------------------------------------------------------------
def plot_latent_histogram(
    record: Latent | Trace, *, step: int = 0, ax: Axes | None = None
) -> Figure | Axes:
    """Each channel's values as a histogram beside N(0, 1), and whether they pass for it.

    Of a Trace, x_t at the start of `step` is taken; the number of steps stands for the end. The
    verdict is a Kolmogorov–Smirnov test of all values together. Errors: InputError.
    """
    latent, where = _latent_of(record, step)
    found = normality(latent)
    count = len(found.means)
    columns, rows = min(count, 4), -(-count // min(count, 4))
    axes = canvas(ax, (max(3.9 * columns, 9) + 0.4, 4.1 * rows + 0.5))
    boxes = [
        (0.055 + n % columns * 0.945 / columns, 1 - (n // columns + 0.83) / rows,
         0.78 / columns, 0.73 / rows) for n in range(count)
    ]  # fmt: skip
    for n, panel in enumerate(panels(axes, boxes)):
        _histogram(panel, found, n, first=n % columns == 0)
    bad = not_finite(latent, "left out here") if found.bad else ""
    heading(axes, f"{where} {found}", bad)
    told = "; ".join(
        f"channel {i} mean {found.means[i]:.2f}, std {found.stds[i]:.2f}" for i in range(count)
    )
    return finish(
        ax, axes, f"Histograms of {count} channels beside N(0, 1): {where} {found}; {told}."
    )


def _latent_of(record: Latent | Trace, step: int) -> tuple[np.ndarray, str]:
    if isinstance(record, Latent):
        made = f"the latent of {record.made_by}" if record.made_by else "this latent"
        return numbers(record.values), made
    count = len(record.latents) - 1
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 0 <= step <= count:
        raise InputError(
            f"step {shown(step)}; 0 to {count} are allowed in this run ({count} is its end): step=0"
        )
    return numbers(record.latents[step]), "the end" if step == count else f"x_t at step {step}"


def _histogram(panel: Axes, found: Normality, channel: int, first: bool) -> None:
    middles = (found.edges[:-1] + found.edges[1:]) / 2
    panel.bar(middles, found.densities[channel], np.diff(found.edges), color=colour("sky"))
    places = np.linspace(found.edges[0], found.edges[-1], 161)
    bell = np.exp(-(places**2) / 2) / np.sqrt(2 * np.pi)
    panel.plot(places, bell, "--", color=INK, linewidth=LINE, label="N(0, 1)")
    panel.set_ylim(0, max(0.62, 1.25 * float(found.densities.max())))
    told = f"mean {found.means[channel]:+.2f}\nstd {found.stds[channel]:.2f}"
    label(panel, 0.02, 0.98, told.replace("-", "−"), transform=panel.transAxes, ha="left", va="top")
    if first:
        panel.legend(fontsize=SMALL, frameon=False, loc="upper right", handlelength=1.2,
                     borderaxespad=0)  # fmt: skip
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    named(panel, f"channel {channel}: distance {found.distances[channel]:.2f}", "latent value",
          "density" if first else "")  # fmt: skip


# ---- the preview map --------------------------------------------------------------------------
RGB = ("red", "green", "blue")


def plot_preview_fit(record: Preview, *, ax: Axes | None = None) -> Figure | Axes:
    """The linear map from latent to colour: its numbers, what each channel does, how well it fits.

    Left: the matrix and its bias. Middle: the colour of a latent whose one channel goes from −2 to
    2, the others 0. Right: the share of each colour's variance that the map explains (R²).
    """
    if record is None:
        raise InputError(
            "preview is None: this checkpoint brings no map; a Preview is allowed: "
            "dl.fit_preview(model) makes one"
        )
    weight, bias, r2 = (np.asarray(x, np.float64) for x in (record.weight, record.bias, record.r2))
    channels = weight.shape[1]
    axes = canvas(ax, (16, 6.2))
    table, ramps, bars = panels(
        axes, [(0.055, 0.13, 0.42, 0.79), (0.54, 0.13, 0.23, 0.79), (0.845, 0.13, 0.15, 0.79)]
    )
    _matrix(table, weight, bias)
    bad = not_finite(np.concatenate([weight.ravel(), bias, r2]), "in this map: fit it again")
    if not bad:
        _ramps(ramps, record, channels)
    _explained(bars, r2)
    mean = float(np.mean(r2))
    poor = f"CHECK FAILED: R² {r2.max():.3g} is above 1" if r2.max() > 1 + 1e-6 else ""
    told = f"rgb = weight · latent + bias explains {mean:.0%} of the colours' variance"
    heading(axes, told, bad, poor)
    parts = ", ".join(f"{name} R² {value:.3f}" for name, value in zip(RGB, r2, strict=True))
    return finish(ax, axes, f"The preview map from {channels} latent channels to RGB: {parts}.")


def _matrix(panel: Axes, weight: np.ndarray, bias: np.ndarray) -> None:
    values = np.column_stack([weight, bias])
    panel.imshow(values, aspect="auto", **signed(values))
    largest = np.abs(np.where(np.isfinite(values), values, 0)).max()
    for (row, column), value in np.ndenumerate(values) if values.shape[1] <= 6 else ():
        shade = "white" if abs(value) > 0.6 * largest else INK
        label(panel, column, row, f"{value:+.3f}".replace("-", "−"), color=shade)
    channels = weight.shape[1]
    panel.set_xticks(range(channels + 1), [*map(str, range(channels)), "bias"])
    panel.set_yticks(range(3), RGB)
    named(panel, "the map", "latent channel")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def _ramps(panel: Axes, record: Preview, channels: int) -> None:
    values = np.linspace(-2, 2, 33)
    latent = np.eye(channels)[:, :, None] * values  # (channels, row of the picture, value)
    panel.imshow(record.rgb(latent), aspect="auto", extent=(-2, 2, channels - 0.5, -0.5))
    for edge in np.arange(channels - 1) + 0.5:
        panel.axhline(edge, color="white", linewidth=4)
    panel.set_yticks(range(channels))
    named(panel, "one channel, the others 0", "value of the channel", "channel")


def _explained(panel: Axes, r2: np.ndarray) -> None:
    shades = [colour(name) for name in ("vermilion", "green", "blue")]
    panel.bar(range(3), np.where(np.isfinite(r2), r2, 0), color=shades, width=0.7)
    for n, value in enumerate(r2):
        label(panel, n, max(value, 0) + 0.02 if np.isfinite(value) else 0, f"{value:.2f}",
              va="bottom")  # fmt: skip
    panel.set_xticks(range(3), RGB)
    panel.set_ylim(0, 1.12)
    named(panel, "R²", "", "share of the variance")
