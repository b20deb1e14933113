"""Forward diffusion: small steps beside the jump, and frequencies that drown in the noise."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.forward import Drowning, SmallSteps, noising_spectrum
from diffusionlab.images import spread
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
from diffusionlab.plots.panel import logarithmic, named
from diffusionlab.trace import Noising

WALKERS, PLACES = 3, 125  # whose paths are drawn one by one, and at how many steps of them
LOOKED_AT = ((0.15, "green"), (0.4, "orange"), (1.0, "vermilion"))  # share of the way, colour


# ---- small steps --------------------------------------------------------------------------------
def plot_small_steps(record: SmallSteps, *, ax: Axes | None = None) -> Figure | Axes:
    """Walkers that take every increment, beside the one jump to the same timestep.

    Left: some paths; the line and the band are the jump's mean and two spreads to either side.
    Right: where all walkers are at three timesteps, and the bell that the jump has there.
    """
    axes = canvas(ax, (13, 5.4))
    walk, ends = panels(axes, [(0.07, 0.15, 0.43, 0.76), (0.575, 0.15, 0.42, 0.76)])
    last = len(record.paths) - 1
    times = [max(1, round(share * last)) for share, _ in LOOKED_AT]
    _paths(walk, record, times)
    _ends(ends, record, times)
    bad = not_finite([record.paths, record.alphas, record.sigmas], "in the walk")
    off = np.abs(record.means - record.alphas * record.start).max()
    wide = np.abs(record.stds - record.sigmas).max()
    told = f"{last} small steps and one jump: means differ by at most {off:.2g}, "
    heading(axes, f"{told}spreads by {wide:.2g}", bad, record.agrees)
    where = "; ".join(
        f"after {t} steps mean {record.means[t]:.3g}, std {record.stds[t]:.3g}, jump "
        f"{record.alphas[t] * record.start:.3g} and {record.sigmas[t]:.3g}" for t in times
    )  # fmt: skip
    count = record.paths.shape[1]
    return finish(ax, axes, f"{count} walkers from {record.start:g}, {last} steps each: {where}.")


def _paths(panel: Axes, record: SmallSteps, times: list[int]) -> None:
    steps = np.arange(len(record.paths))
    middle, reach = record.alphas * record.start, 2 * record.sigmas
    panel.fill_between(steps, middle - reach, middle + reach, color="#e6e6e6", linewidth=0)
    some = slice(None, None, max(1, len(steps) // PLACES))
    for walker in record.paths.T[:WALKERS]:
        panel.plot(steps[some], walker[some], color=colour("sky"), linewidth=2.5)
    panel.plot(steps, middle, color=INK, linewidth=LINE, label="jump: alpha · x0")
    panel.fill_between([], [], [], color="#e6e6e6", label="jump: ± 2 sigma")
    panel.plot([], [], color=colour("sky"), linewidth=LINE, label="some of the walkers")
    for t, (_, shade) in zip(times, LOOKED_AT, strict=True):
        panel.axvline(t, color=colour(shade), linewidth=LINE, linestyle=":")
    panel.legend(fontsize=SMALL, edgecolor="none", loc="lower left")
    panel.grid(alpha=0.3)
    named(panel, "one number on its way", "small steps taken", "value")


def _ends(panel: Axes, record: SmallSteps, times: list[int]) -> None:
    good = record.paths[np.isfinite(record.paths)]
    edges = np.linspace(good.min(initial=-1.0), good.max(initial=1.0), 49)
    fine = np.linspace(edges[0], edges[-1], 241)
    for t, (_, shade) in zip(times, LOOKED_AT, strict=True):
        here = record.paths[t][np.isfinite(record.paths[t])]
        panel.hist(here, edges, density=True, color=colour(shade), histtype="step",
                   linewidth=LINE, label=f"after {t} steps")  # fmt: skip
        sigma = max(float(record.sigmas[t]), 1e-9)
        away = (fine - record.alphas[t] * record.start) / sigma
        panel.plot(fine, np.exp(-(away**2) / 2) / (sigma * np.sqrt(2 * np.pi)), color=INK,
                   linewidth=2.5)  # fmt: skip
    panel.plot([], [], color=INK, linewidth=2.5, label="the jump")
    panel.legend(fontsize=SMALL, frameon=False, loc="upper left")
    panel.grid(alpha=0.3)
    named(panel, "where all walkers are", "value", "density")


# ---- the spectrum -------------------------------------------------------------------------------
def plot_noising_spectrum(record: Noising, *, ax: Axes | None = None) -> Figure | Axes:
    """Which frequencies stand above the noise: those of the picture's pixels, and of its latent.

    The curve is the clean one's power; each line is the noise of a level, which rises like water.
    Both are divided by alpha², so that the curve stays where it is. A dot marks the highest
    frequency up to which all of them stand above a line.
    """
    found = noising_spectrum(record)
    axes = canvas(ax, (13, 5.6))
    left, right = panels(axes, [(0.07, 0.15, 0.38, 0.75), (0.56, 0.15, 0.37, 0.75)])
    _waters(left, found.pixels, found.timesteps, "the picture's pixels", "power (noise of 1: 1)")
    _waters(right, found.latent, found.timesteps, "its latent", "")
    bad = not_finite([found.pixels.power, found.latent.power], "in the picture or its latent")
    told = "the noise floor rises: fine detail drowns first"
    drowns = all((np.diff(d.heard[np.argsort(d.floors)]) <= 0).all() and d.power[0] > d.power[-1]
                 for d in (found.pixels, found.latent))  # fmt: skip
    heading(axes, told if drowns else "the noise floor rises", bad, found.white)
    rows = "; ".join(
        f"timestep {t:g}: {a} of {len(found.pixels.power)} in pixels, {b} of "
        f"{len(found.latent.power)} in the latent"
        for t, a, b in zip(found.timesteps, found.pixels.heard, found.latent.heard, strict=True)
    )
    alt = "Frequencies that stand above the noise, counted from the coarsest on. "
    return finish(ax, axes, f"{alt}{rows}.")


def _waters(panel: Axes, found: Drowning, timesteps: np.ndarray, name: str, side: str) -> None:
    power = np.where(found.power > 0, found.power, np.nan)
    shades = np.linspace(0.75, 0.25, len(found.floors))
    shown = spread(len(found.floors), 7)
    floors = [f for f in found.floors if 0 < f < np.inf]
    logarithmic(panel, power, np.array(floors))
    for i in shown:
        floor = found.floors[i]
        if not 0 < floor < np.inf:
            continue
        panel.axhline(floor, color=str(shades[i]), linewidth=LINE)
        label(panel, 1.01, floor, f"t {timesteps[i]:g}", ha="left",
              transform=panel.get_yaxis_transform())  # fmt: skip
        if found.heard[i]:
            panel.plot([found.heard[i]], [floor], "o", color=colour("vermilion"), markersize=12,
                       markeredgecolor="white", zorder=4)  # fmt: skip
    panel.plot(found.frequencies, power, color=colour("blue"), linewidth=LINE + 1, zorder=3,
               marker="." if len(power) < 20 else "")  # fmt: skip
    panel.set_xscale("log")
    marks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= len(power)]
    panel.set_xticks(marks, [str(k) for k in marks])
    panel.minorticks_off()
    panel.grid(alpha=0.3, axis="x")
    named(panel, name, "frequency (cycles per longer side)", side)
