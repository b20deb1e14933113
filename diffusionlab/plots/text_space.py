"""Words and prompts as directions: how alike they are, and where they lie in a plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.text import Similarity, plane, similarity, text_vectors
from diffusionlab.plots.figure import (
    INK,
    OKABE_ITO,
    QUIET,
    SIGNED,
    SMALL,
    TEXT,
    Figure,
    axis_labels,
    canvas,
    colour_bar,
    drawable,
    finish,
    heading,
    label,
    not_finite,
)
from diffusionlab.trace import TextEmbedding

PRINTED = 12  # the longest side of a matrix whose values are printed
MARKS = "osD^vPX*<>"
SHADES = tuple(OKABE_ITO[i] for i in (5, 6, 3, 7, 1, 2, 0))
TURNED = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
Embeddings = TextEmbedding | Sequence[TextEmbedding]


def plot_similarity(
    record: Embeddings,
    *,
    of: str | None = None,
    centre: bool = False,
    encoder: int = 0,
    ax: Axes | None = None,
) -> Figure | Axes:
    """The cosines between the words of a prompt, or between prompts, as a matrix.

    `record`, `of`, `centre`, `encoder` and errors as `analysis.text.similarity`.
    """
    found = similarity(record, of=of, centre=centre, encoder=encoder)
    names, below = _labels(found.vectors.names)
    count, longest = len(names), max(len(name) for name in names)
    side = max(0.66 * count, 4.6) if count <= PRINTED else 0.36 * count + 3.6
    axes = canvas(ax, (side + 0.135 * longest + 2.6, side + 0.07 * len(below[-1]) + 1.6))
    picture = axes.imshow(found.matrix, cmap=SIGNED, vmin=-1, vmax=1)
    if count <= PRINTED:
        print_values(axes, found.matrix, "{:.2f}", np.abs(found.matrix) > 0.7)
    axes.set_yticks(range(count), names, parse_math=False)
    turned = {} if below != names else TURNED
    axes.set_xticks(range(count), below, parse_math=False, **turned)
    axis_labels(axes, "", "")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    colour_bar(axes, picture, f"cosine\n(random directions: 0 ± {found.chance:.2f})")
    bad = not_finite(found.matrix, "a row is zero or not finite")
    heading(axes, _title(found), bad, "" if bad else found.itself)
    return finish(ax, axes, _alt(found))


def _labels(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of rows and columns: long ones stand once, with numbers for the columns."""
    rows = [short(name, 34) for name in names]
    if max(len(name) for name in rows) <= 12:
        return rows, rows
    numbers = [str(i + 1) for i in range(len(rows))]
    return [f"{name}  {n}" for name, n in zip(rows, numbers, strict=True)], numbers


def _title(found: Similarity) -> str:
    if found.centred:
        return f"cosines of {found.vectors.of}, mean subtracted"
    return f"cosines of {found.vectors.of}, common direction {found.common:.0%}"


def _alt(found: Similarity) -> str:
    off = np.where(np.eye(len(found.matrix), dtype=bool), np.nan, found.matrix)
    alt = f"Cosines between {len(off)} {found.vectors.of}"
    if np.isfinite(off).any():
        ends = [np.unravel_index(f(off), off.shape) for f in (np.nanargmax, np.nanargmin)]
        most, least = (" and ".join(repr(found.vectors.names[i]) for i in pair) for pair in ends)
        alt += f": {most} are most alike ({np.nanmax(off):.2f}), {least} least"
        alt += f" ({np.nanmin(off):.2f})"
    mean = "subtracted" if found.centred else f"not subtracted; it holds {found.common:.0%}"
    return f"{alt}; on average {found.background:.2f}; the mean direction was {mean}."


def plot_text_pca(
    record: Embeddings, *, of: str | None = None, encoder: int = 0, ax: Axes | None = None
) -> Figure | Axes:
    """Words or prompts in the plane that keeps most of their variance, with how much that is.

    The title warns where two axes keep little, or hardly more than of shuffled numbers. `record`,
    `of`, `encoder` as `analysis.text.text_vectors`; at least three are needed (InputError).
    """
    vectors = text_vectors(record, of, encoder)
    found = plane(vectors.values)
    axes = canvas(ax, (12, 7.5))
    many = len(set(vectors.groups)) > 1
    for i, (point, group) in enumerate(zip(found.points, vectors.groups, strict=True)):
        shade, mark = kind_of_point(group if many else i)
        axes.plot(*point[:, None], mark, color=shade, markersize=15, markeredgecolor=INK)
    axes.axhline(0, color=QUIET, linewidth=1, zorder=0)
    axes.axvline(0, color=QUIET, linewidth=1, zorder=0)
    place_names(axes, found.points, [short(name, 34) for name in vectors.names], (10.4, 5.6), TEXT)
    first, second = found.explained
    chance = found.chance
    chance = "" if chance is None else f" (two axes of shuffled numbers: {chance:.0%})"
    axis_labels(axes, share_label("first axis", first) + chance, share_label("second axis", second))
    bad = not_finite(vectors.values, "in the text embedding")
    title = f"{vectors.of} in 2 of {vectors.values.shape[1]} dimensions"
    kept = "" if bad else f": {first + second:.0%} of the variance"
    heading(axes, title + kept, bad, "" if bad else found.warning)
    told = ", ".join(f"{name} at ({x:.2g}, {y:.2g})" for name, (x, y) in
                     zip(vectors.names, found.points, strict=True))  # fmt: skip
    alt = f"{len(found.points)} {vectors.of} in a plane that holds {first + second:.0%} of their "
    return finish(ax, axes, f"{alt}variance: {told}.")


# ---- shared by the plots of text --------------------------------------------------------------
def short(name: str, most: int) -> str:
    """A name on one line, cut to `most` characters, that the font can draw."""
    name = " ".join(name.split()) or "␣"
    return drawable(name if len(name) <= most else name[: most - 1] + "…")


def ordinal(number: int) -> str:
    """The name of a text encoder's number, which counts from 0."""
    return ("first", "second", "third")[number] if number < 3 else f"{number + 1}th"


def share_label(name: str, share: float) -> str:
    """An axis' name with its share of the variance."""
    return f"{name} (unknown share)" if np.isnan(share) else f"{name}, {share:.0%} of variance"


def kind_of_point(number: int) -> tuple[str, str]:
    """A colour and a marker; the pairs repeat after 70."""
    return SHADES[number % len(SHADES)], MARKS[number % len(MARKS)]


def print_values(ax: Axes, values: np.ndarray, text: str, light: np.ndarray) -> None:
    """Every finite value of a matrix in its cell, in white where `light` says so."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "white" if light[row, column] else INK
            told = text.format(value)
            told = told.lstrip("-") if float(told) == 0 else told.replace("-", "−")
            label(ax, column, row, told, color=ink, in_layout=False)


def place_names(
    ax: Axes, points: np.ndarray, names: Sequence[str], inches: tuple[float, float],
    size: float = SMALL, around: np.ndarray | None = None,
) -> None:  # fmt: skip
    """A name beside each point, moved down where it would lie on another, with a line to it.

    `inches` are about the size of the Axes, from which the room that a name needs is reckoned. The
    limits hold the points, their names, and `around`, (n, 2), what else is drawn.
    """
    good = np.flatnonzero(np.isfinite(points).all(axis=1))
    if not len(good):
        return
    points, names = points[good], [names[i] for i in good]
    room = size / np.array(inches) * (0.0088, 0.021)  # of a letter and a line, shares of the Axes
    places, limits = _places(points, names, room, points)
    if around is not None:
        around = around[np.isfinite(around).all(axis=1)]
        if ((around < limits[0]) | (around > limits[1])).any():
            places, limits = _places(points, names, room, np.concatenate([points, around]))
    for i in np.argsort(-points[:, 1], kind="stable"):
        left, y = places[i]
        if y != points[i, 1]:
            ax.plot([points[i, 0], left], [points[i, 1], y], color=QUIET, linewidth=1)
        ground = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5}
        label(ax, left, y, names[i], ha="left", fontsize=size, bbox=ground, in_layout=False)
    ax.set_xlim(*limits[:, 0])
    ax.set_ylim(*limits[:, 1])


def _places(
    points: np.ndarray, names: Sequence[str], room: np.ndarray, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the names begin, (n, 2), and the limits (low, high) that hold them and `held`."""
    low, high = held.min(axis=0), held.max(axis=0)
    letter, line = room
    widest = max(len(name) for name in names) * letter
    span = np.maximum(high - low, 1e-9) / (np.array([0.9 - widest, 0.8]))
    gap = np.array([0.02, line / 2]) * span
    taken = [(x - gap[0], x + gap[0], y) for x, y in points]  # left, right, middle
    places = points + (1.05 * gap[0], 0.0)
    for i in np.argsort(-points[:, 1], kind="stable"):
        left, y = places[i]
        right = left + len(names[i]) * letter * span[0]
        while hit := [b for a, z, b in taken if a < right and left < z and abs(b - y) < 2 * gap[1]]:
            y = min(hit) - 2.001 * gap[1]
        taken.append((left, right, y))
        places[i, 1] = y
    lowest = min(low[1], *(y for *_, y in taken))
    margin = np.array([[0.05, 0.08], [0.05 + widest, 0.1]]) * span
    return places, np.array([[low[0], lowest], high]) + [[-1], [1]] * margin
