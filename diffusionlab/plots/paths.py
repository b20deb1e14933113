"""Paths of points through the plane under samplers, over the exact flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.trajectories import path_of
from diffusionlab.errors import InputError
from diffusionlab.plan import Step
from diffusionlab.plots.figure import (
    INK,
    QUIET,
    SMALL,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour,
    drawable,
    finish,
    heading,
    label,
    not_finite,
)

COLUMNS = 3


def plot_paths(
    record: Mapping[str, Sequence[Step]],
    *,
    exact: Sequence[Step] | None = None,
    world: Any = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Where each sampler takes points of the plane, over the exact flow: one panel per sampler.

    `record` maps a name to the Steps of a run whose latents are (points, 2), all from one start;
    `exact` are Steps of the exact flow (or of a run of many steps) from there, drawn in grey, and
    `world` (of `ideal`) gives the density of the data. The number in a panel is the median distance
    of its ends from the exact ones. Raises InputError for latents of another shape.
    """
    paths = {name: _plane(name, steps) for name, steps in record.items()}
    if not paths:
        raise InputError("plot_paths got no run; give {'euler': list of Steps, …}")
    truth = None if exact is None else _plane("exact", exact)
    columns = min(COLUMNS, len(paths))
    rows = -(-len(paths) // columns)
    axes = canvas(ax, (5.0 * columns + 0.4, 5.0 * rows + 0.9))
    axes.axis("off")
    shown = [*paths.values(), *([] if truth is None else [truth])]
    window = _window(np.concatenate([p.reshape(-1, 2) for p in shown]))
    level = next(iter(record.values()))[-1].next_level
    offs = {}
    for place, (name, path) in enumerate(paths.items()):
        x, y = place % columns, rows - 1 - place // columns
        box = (x / columns + 0.03, y / rows + 0.09 / rows, 0.92 / columns, 0.78 / rows)
        panel = axes.inset_axes(box, label=name)
        if world is not None:
            _density(panel, world, level, window)
        offs[name] = _panel(panel, path, truth, window)
        calls = sum(step.network_calls for step in record[name])
        told = f"{name}: {len(path) - 1} steps, {calls} calls"
        panel.set_title(drawable(told), fontsize=TEXT, color=INK, loc="left", parse_math=False)
        if truth is not None:
            label(panel, 0.03, 0.04, f"off by {offs[name]:.2g}", transform=panel.transAxes,
                  ha="left", va="bottom", fontsize=TEXT)  # fmt: skip
    bad = not_finite(np.concatenate([p.ravel() for p in paths.values()]), "in these runs")
    grey = "" if truth is None else ", grey: the exact flow"
    heading(axes, f"paths from noise (open) to data (filled){grey}", bad)
    return finish(ax, axes, _alt(paths, offs if truth is not None else {}))


def _plane(name: str, steps: Sequence[Step]) -> np.ndarray:
    """(steps + 1, points, 2)."""
    _, points = path_of(steps)
    if points.ndim == 2 and points.shape[1] == 2:
        points = points[:, None]
    if points.ndim != 3 or points.shape[2] != 2:
        raise InputError(
            f"the run {name!r} has latents {points.shape[1:]}; points of the plane, (points, 2), "
            "are drawn: take a world of two dimensions"
        )
    return points


def _window(points: np.ndarray) -> tuple[float, float, float, float]:
    """A square around everything finite, with a margin."""
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return (-1.0, 1.0, -1.0, 1.0)
    low, high = points.min(axis=0), points.max(axis=0)
    (x, y), half = (low + high) / 2, 0.55 * float((high - low).max()) + 1e-6
    return (x - half, x + half, y - half, y + half)


def _density(panel: Axes, world: Any, level: Any, window: tuple) -> None:
    xs, ys = np.linspace(*window[:2], 90), np.linspace(*window[2:], 90)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    density = np.exp(world.log_density(grid.reshape(-1, 2), level)).reshape(90, 90)
    steps = np.array([0.02, 0.1, 0.3, 0.6, 1.0]) * density.max()
    panel.contourf(
        xs, ys, density, levels=steps, colors=["#fff3d6", "#ffe6a8", "#ffd670", "#ffc533"]
    )


def _panel(panel: Axes, path: np.ndarray, truth: np.ndarray | None, window: tuple) -> float:
    for point in range(path.shape[1]):
        if truth is not None:
            panel.plot(*truth[:, point].T, color="#9a9a9a", linewidth=5, solid_capstyle="round")
        panel.plot(*path[:, point].T, color=colour("blue"), linewidth=2.5, marker="o", markersize=5)
    starts, ends = path[0], path[-1]
    panel.plot(*starts.T, "o", color="white", markeredgecolor=INK, markeredgewidth=2, markersize=10)
    panel.plot(*ends.T, "o", color=colour("vermilion"), markeredgecolor="white", markersize=12)
    panel.set_xlim(window[:2])
    panel.set_ylim(window[2:])
    panel.set_aspect("equal")
    axis_labels(panel, "first number of the latent", "second number", SMALL)
    panel.tick_params(colors=QUIET)
    if truth is None:
        return float("nan")
    return float(np.median(np.linalg.norm(ends - truth[-1], axis=1)))


def _alt(paths: Mapping[str, np.ndarray], offs: Mapping[str, float]) -> str:
    first = next(iter(paths.values()))
    told = "; ".join(
        f"{name} in {len(path) - 1} steps"
        + (f", ends {offs[name]:.2g} off in the median" if name in offs else "")
        for name, path in paths.items()
    )
    return f"Paths of {first.shape[1]} points in the plane, from noise to data: {told}."
