"""A picture on its way into noise, in pixels and in latents, and what the network makes of it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.noising import NoisingCurve, noising_curve
from diffusionlab.images import Preview
from diffusionlab.plots.figure import (
    INK,
    LINE,
    SMALL,
    Figure,
    canvas,
    colour,
    finish,
    heading,
    label,
    not_finite,
    panels,
)
from diffusionlab.plots.panel import named
from diffusionlab.plots.sheets import Cell, Sheet, latent_cell
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.trace import Noising


def plot_noising(
    record: Noising, *, preview: Preview | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """Noisy pixels, noisy latents and the network's one-step x0-hat, one column per level.

    Latents are decoded where the record holds the pictures, else shown by the preview map (of the
    record unless given). The first column is the clean picture.
    """
    preview = record.preview if preview is None else preview
    found = noising_curve(record)
    pixels = [Cell(np.clip(numbers(x) / 2 + 0.5, 0, 1)) for x in record.noisy_pixels]
    clean = Cell(np.asarray(record.image))
    rows, names = [[clean, *pixels]], ["noisy\npixels"]
    for name, latents, images in (
        ("noisy\nlatent", record.latents, record.noisy_images),
        ("x0-hat in\none step", [p.x0 for p in record.predictions], record.x0_images),
    ):
        pictures = _pictures(latents, images, preview)
        rows.append([_end(record, images, preview), *pictures])
        names.append(f"{name},\n{'decoded' if images else 'preview'}")
    captions = ["clean", *(_caption(found, i) for i in range(len(record.levels)))]
    corner = "timestep\nkarras_sigma\nSNR"
    sheet = Sheet(names, captions, rows, 2.0 if len(captions) < 6 else 1.5, corner)
    axes = sheet.axes(ax)
    sheet.draw(axes)
    guesses = [numbers(call.x0) for call in record.predictions]
    shown = [record.latents, record.noisy_pixels, record.x0, *guesses]
    bad = not_finite(shown, "in the noised picture or the network's output")
    told = f", told {record.prompt[:40]!r}" if record.prompt else ", told nothing"
    heading(
        axes, f"noised to {len(record.levels)} levels and one step back{told}", bad, *found.checks
    )
    return finish(ax, axes, f"A picture noised to {len(record.levels)} levels. {_told(found)}")


def _pictures(latents: np.ndarray, images: tuple, preview: Preview | None) -> list[Cell]:
    if images:
        return [Cell(np.asarray(image)) for image in images]
    return [latent_cell(numbers(latent), preview) for latent in latents]


def _end(record: Noising, images: tuple, preview: Preview | None) -> Cell:
    return Cell(np.asarray(record.image)) if images else latent_cell(numbers(record.x0), preview)


def _caption(found: NoisingCurve, i: int) -> str:
    ratio = f"{found.snr[i]:.0f}" if 100 <= found.snr[i] < 1e5 else f"{found.snr[i]:.2g}"
    return f"{found.timesteps[i]:g}\n{found.karras_sigmas[i]:.3g}\n{ratio}"


def _told(found: NoisingCurve) -> str:
    rows = (
        f"timestep {t:g}, karras_sigma {s:.3g}, SNR {r:.2g}, x0-hat off by {x:.2g} of its spread"
        for t, s, r, x in zip(
            found.timesteps, found.karras_sigmas, found.snr, found.x0_errors, strict=True
        )
    )
    return "; ".join(rows) + "." + "".join(f" {check}." for check in found.checks)


# ---- curves -----------------------------------------------------------------------------------
def plot_noising_curve(
    record: Noising, *, schedule: NoiseSchedule | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """The SNR at the record's levels, and how far the network is off there in one step.

    `schedule` draws the whole SNR curve under the record's marks. Errors are root mean squares: of
    x0-hat over the spread of the true x0 (1: as bad as always saying the mean), of eps-hat over the
    noise's own 1.
    """
    found = noising_curve(record)
    axes = canvas(ax, (13, 5.4))
    signal, errors = panels(axes, [(0.08, 0.14, 0.39, 0.77), (0.58, 0.14, 0.4, 0.77)])
    _signal(signal, found, schedule)
    _errors(errors, found)
    bad = not_finite([found.x0_errors, found.eps_errors], "in the errors")
    best = float(np.nanmin(found.x0_errors, initial=np.inf))
    worst = float(np.nanmax(found.x0_errors, initial=0.0))
    told = f"one step back is off by {best:.2g} … {worst:.2g} of the picture's spread"
    told = "how far one step back is off" if bad else told
    heading(axes, told, bad, *found.checks)
    return finish(ax, axes, f"Signal-to-noise ratio and one-step errors. {_told(found)}")


def _signal(panel: Axes, found: NoisingCurve, schedule: NoiseSchedule | None) -> None:
    if schedule is not None:
        snr = np.where(schedule.snr > 0, schedule.snr, np.nan)
        panel.plot(np.arange(len(snr)), snr, color=colour("green"), linewidth=LINE)
    good = (found.snr > 0) & np.isfinite(found.snr)
    panel.plot(found.timesteps[good], found.snr[good], "D", color=colour("vermilion"),
               markersize=13, markeredgecolor="white", zorder=3)  # fmt: skip
    panel.set_yscale("log")
    panel.axhline(1, color=INK, linewidth=2, linestyle=":")
    label(panel, 0.99, 1, "as much noise as signal", va="bottom", ha="right",
          transform=panel.get_yaxis_transform())  # fmt: skip
    panel.grid(alpha=0.3)
    named(panel, "SNR = alpha² / sigma²", "timestep", "signal-to-noise ratio")


def _errors(panel: Axes, found: NoisingCurve) -> None:
    order = np.argsort(found.timesteps)
    for values, name, shade, mark in (
        (found.x0_errors, "x0-hat / spread of x0", "vermilion", "o"),
        (found.eps_errors, "eps-hat / 1", "blue", "s"),
    ):
        panel.plot(found.timesteps[order], values[order], marker=mark, markersize=9,
                   linewidth=LINE, color=colour(shade), label=name)  # fmt: skip
    panel.axhline(1, color=INK, linewidth=2, linestyle=":")
    panel.set_ylim(0, max(1.15, 1.1 * float(np.nanmax(found.x0_errors, initial=0.0))))
    panel.legend(fontsize=SMALL, frameon=False, loc="upper center", ncols=2)
    panel.grid(alpha=0.3)
    named(panel, "the network's error in one step", "timestep", "root mean square error / size")
