"""How a run comes to its end: how much x0-hat moves, how like the end it is, along which path."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.commitment import SIMILAR, similarity_to_final
from diffusionlab.analysis.trajectories import (
    CLEAN_END,
    Changes,
    Path,
    Trajectory,
    changes,
    stopped,
    trajectory,
)
from diffusionlab.plots.figure import (
    HEAT,
    INK,
    LINE,
    QUIET,
    SMALL,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    finish,
    heading,
    panels,
)
from diffusionlab.plots.panel import bar_beside, logarithmic, named, step_axis
from diffusionlab.plots.runs import path_told
from diffusionlab.trace import Trace

STEP = "step (below it: karras_sigma)"
LOOKS = (("blue", "o"), ("green", "s"), ("orange", "^"), ("purple", "D"), ("vermilion", "v"))


# ---- how much x0-hat moves --------------------------------------------------------------------
def plot_changes(record: Trace, *, ax: Axes | None = None) -> Figure | Axes:
    """How far x0-hat moves at each step from the step before, absolute and relative, log scale.

    Of samplers with several network calls to a step, the first calls are compared.
    """
    found = changes(record)
    axes = canvas(ax, (13, 6.2))
    for values, name, shade, mark in (
        (found.absolute, "root mean square (units of the latent)", "blue", "o"),
        (found.relative, "relative to x0-hat itself", "vermilion", "s"),
    ):
        axes.plot(found.steps, np.where(values > 0, values, np.nan), marker=mark, linewidth=LINE,
                  markersize=9, color=colour(shade), label=name)  # fmt: skip
    logarithmic(axes, found.absolute, found.relative)
    axes.legend(fontsize=TEXT, frameon=False, loc="upper right")
    axes.grid(alpha=0.3)
    step_axis(axes, found.steps, found.karras_sigmas, 10)
    axis_labels(axes, STEP, "|Δ x0-hat|")
    told = _moves_told(found)
    several = " (first call of each step)" if record.network_calls > len(record.steps) else ""
    heading(axes, with_stop(told + several, record), *path_told(record))
    ends = f"from {found.absolute[0]:.3g} at step 1 to {found.absolute[-1]:.3g} at the last"
    return finish(ax, axes, f"Curves of the change of x0-hat by step: {told}; {ends}.")


def with_stop(told: str, record: Trace) -> str:
    """The title, and that the run was stopped if it was."""
    return f"{told} ({stopped(record)})" if stopped(record) else told


def with_end(told: str, end: str) -> str:
    """The title, and what is taken for the end where that is not the final latent."""
    return told if end == CLEAN_END else f"{told}\nthe end here is {end}"


def _moves_told(found: Changes) -> str:
    if not np.isfinite(found.absolute).all():
        return "how much x0-hat moves"
    if found.relative.max() < 1e-5:
        return "x0-hat does not move"
    most = int(found.absolute.argmax())
    level = f"karras_sigma {found.karras_sigmas[most]:.3g}"
    return f"x0-hat moves most at step {found.steps[most]}, {level}"


# ---- how like the end it is -------------------------------------------------------------------
LOWEST = -0.25  # "variance explained" has no lower end


def plot_similarity_to_final(record: Trace, *, ax: Axes | None = None) -> Figure | Axes:
    """How like the end x0-hat is at each step, by several measures, with a line at 0.8.

    The measures are those of `analysis.commitment.similarity_to_final`; x_t is the contrast.
    """
    found = similarity_to_final(record)
    axes = canvas(ax, (14, 7))
    steps = np.arange(len(found.karras_sigmas))
    for (name, curve), (shade, mark) in zip(found.measures.items(), LOOKS, strict=False):
        axes.plot(steps, curve, marker=mark, linewidth=LINE, markersize=9, color=colour(shade),
                  label=_legend(name, curve, found.reached[name]))  # fmt: skip
    axes.plot(steps, found.noisy, "--", linewidth=LINE, color=QUIET, label="x_t itself (values)")
    axes.axhline(SIMILAR, color=INK, linewidth=2, linestyle=":")
    axes.set_ylim(LOWEST, 1.03)
    axes.legend(fontsize=TEXT, frameon=False, loc="lower right", title="0.8 or more for good",
                title_fontsize=TEXT)  # fmt: skip
    step_axis(axes, steps, found.karras_sigmas, 10)
    axis_labels(axes, STEP, "likeness to the end (1 = the same)")
    axes.grid(alpha=0.3)
    bad, *checks = path_told(record)
    text = "how like the end x0-hat is" if bad else f"{found}"
    heading(axes, with_end(text, found.end), bad, *checks, "" if bad else found.ends_at_one)
    told = "; ".join(f"{k} {_when(v, len(steps))}" for k, v in found.reached.items())
    return finish(ax, axes, f"Likeness of x0-hat to {found.end} by step. {found}: {told}.")


def _legend(name: str, curve: np.ndarray, step: int) -> str:
    lowest = min((float(x) for x in curve if np.isfinite(x)), default=0.0)
    below = f" (from {lowest:.2g})".replace("-", "−") if lowest < LOWEST else ""
    return f"{name}: {_when(step, len(curve))}{below}"


def _when(step: int, count: int) -> str:
    return f"step {step}" if step < count else "not reached"


# ---- the path ---------------------------------------------------------------------------------
def plot_trajectory(record: Trace, *, ax: Axes | None = None) -> Figure | Axes:
    """Distance of x_t and of x0-hat from their chords, and both paths along two main directions."""
    found = trajectory(record)
    axes = canvas(ax, (16, 6.6))
    curve, path, noisy = panels(
        axes, [(0.05, 0.15, 0.26, 0.77), (0.375, 0.15, 0.24, 0.77), (0.68, 0.15, 0.24, 0.77)]
    )
    _off_chord(curve, found)
    picture = _walk(path, found.x0, "x0-hat")
    _walk(noisy, found.latent, "x_t / alpha")
    bar_beside(noisy, picture, "step", whole=True)
    bad, *checks = path_told(record)
    what = "only the noise scale" if found.only_noise else "more than the noise scale"
    note = f"note: PC1 of x_t is {what} (correlation {found.noise_scale:.4f})"
    told = with_stop("paths of x0-hat and of x_t", record)
    heading(axes, told if bad else f"{told} · {note}", bad, *checks)
    return finish(ax, axes, _trajectory_alt(found, note))


def _off_chord(panel: Axes, found: Trajectory) -> None:
    for one, name, shade, mark in ((found.x0, "x0-hat", "vermilion", "o"),
                                   (found.latent, "x_t", "blue", "s")):  # fmt: skip
        panel.plot(np.arange(len(one.off)), one.off, marker=mark, linewidth=LINE, markersize=8,
                   color=colour(shade), label=name)  # fmt: skip
    sigmas = found.latent.karras_sigmas
    step_axis(panel, np.arange(len(sigmas)), sigmas, 5)
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=SMALL, frameon=False)
    panel.grid(alpha=0.3)
    named(panel, "distance from the chord", STEP, "distance / length of the chord")


def _walk(panel: Axes, path: Path, name: str) -> None:
    x, y = path.scores.T
    panel.plot(x, y, color=QUIET, linewidth=2.5, zorder=1)
    steps = np.arange(len(x))
    points = panel.scatter(x, y, c=steps, cmap=HEAT, s=110, edgecolor="white", zorder=2)
    for i, side in ((0, 1), (len(x) - 1, -1)):
        if np.isfinite(x[i] + y[i]):
            panel.annotate(f"step {i}", (x[i], y[i]), xytext=(9 * side, 7), fontsize=SMALL,
                           ha="left" if side > 0 else "right", textcoords="offset points",
                           color=INK)  # fmt: skip
    panel.margins(0.15)
    first, second = path.shares
    named(panel, f"{name}: main directions", f"PC1 ({first:.1%})", f"PC2 ({second:.1%})")
    return points


def _trajectory_alt(found: Trajectory, note: str) -> str:
    x0, latent = found.x0, found.latent
    return (
        f"Paths of a run. x0-hat leaves its chord by up to {np.max(x0.off):.2g} of the chord's "
        f"length, x_t by {np.max(latent.off):.2g}; two main directions hold {x0.shares.sum():.1%} "
        f"of x0-hat's variance, the first of x_t / alpha alone {latent.shares[0]:.1%}; {note}."
    )
