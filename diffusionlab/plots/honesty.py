"""Two tests of attention maps: what each word really does, and exact masks to point at."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from diffusionlab.analysis.honesty import Honesty
from diffusionlab.analysis.pointing import Pointing, peaks
from diffusionlab.images import spread, to_array
from diffusionlab.plots.figure import (
    HEAT,
    INK,
    LINE,
    SMALL,
    TEXT,
    Figure,
    amounts,
    axis_labels,
    canvas,
    colour,
    contact_sheet,
    finish,
    heading,
    label,
    largest,
    latent_picture,
    not_finite,
    panels,
)
from diffusionlab.plots.sheets import Cell, Sheet, amount_cell, scale_bar

MOST_WORDS, MOST_SCENES, COLUMNS = 6, 10, 5


# ---- leave one word out -----------------------------------------------------------------------
def plot_honesty(record: Honesty, *, ax: Axes | None = None) -> Figure | Axes:
    """Per word: its heat map, the picture without the word, and where the picture changed.

    `own` is the correlation of the map with the change, `other` that of the best of the other
    words' maps, p the share of shifted copies of the own map that fit as well. The words that
    change the picture most, at most six, in the prompt's order; maps on their own scales.
    """
    kept = _most_changing(record)
    sheet = _honesty_sheet(record, kept).fitted(down=7.0)
    axes = sheet.axes(ax, bar=True, least=11.0)
    sheet.draw(axes)
    scale_bar(axes, 1.0, "share of the scale's largest")
    measured = [record.differences, record.fits, record.p]
    latents = [] if record.what == "pictures" else [record.latents]
    bad = not_finite([record.maps, *measured, *latents], "in the maps or in what is compared")
    left = len(record.words) - len(kept)
    shown = f" ({len(kept)} of {len(record.words)} words, most effect)" if left else ""
    what = f"one word left out, same noise; Δ: mean change of the {record.what}{shown}"
    heading(axes, f"{record.verdict}\n{what}", bad, record.rows)
    told = "; ".join(
        f"{record.words[i]} r {record.own_fits[i]:.2f}, p {record.p[i]:.2g}" for i in kept
    )
    alt = f"Heat maps beside what leaving each word out changes: {record.verdict}. {told}."
    return finish(ax, axes, alt)


def _most_changing(record: Honesty) -> list[int]:
    """Indices of the words whose absence changes most, in the prompt's order."""
    means = np.nan_to_num(record.differences.mean(axis=(1, 2)))
    return sorted(np.argsort(-means, kind="stable")[:MOST_WORDS].tolist())


def _honesty_sheet(record: Honesty, kept: list[int]) -> Sheet:
    """Three rows: what the word's map says, the picture without it, and what changed."""
    top = largest(record.differences[kept])
    whole = Cell(*_ending(record, 0), caption="whole prompt")
    maps, pictures, changes = [Cell()], [whole], [Cell()]
    for i in kept:
        maps.append(amount_cell(record.maps[i], "0 to {:.2g}", above=True))
        moved = f"Δ {record.differences[i].mean():.2g}"
        pictures.append(Cell(*_ending(record, i + 1), caption=moved))
        changes.append(Cell(record.differences[i], amounts(top), caption=_fit(record, i)))
    names = ["heat map", "picture\nwithout it", f"change\n0 to {top:.2g}"]
    columns = ["", *(record.words[i][:12] for i in kept)]
    return Sheet(names, columns, [maps, pictures, changes])


def _ending(record: Honesty, run: int) -> tuple[np.ndarray, dict]:
    """The picture that a run ends in, its preview if one of the runs has no image."""
    if record.what == "pictures":
        return to_array(record.images[run]), {}
    return latent_picture(record.latents[run], record.preview)


def _fit(record: Honesty, i: int) -> str:
    """Three lines: the own map's fit, the best other's, and the share of shifts as good."""
    others = np.delete(record.fits[i], i)
    best = f"other r {others.max():.2f}\n" if others.size else ""
    mark = "✓" if record.better[i] else "✗"
    return f"own r {record.own_fits[i]:.2f}\n{best}p {record.p[i]:.2g} {mark}"


# ---- exact masks ------------------------------------------------------------------------------
def plot_pointing(
    record: Pointing, *, most: int = MOST_SCENES, ax: Axes | None = None
) -> Figure | Axes:
    """Scenes with the outline of the true mask and the map's peak, and the rates beside chance.

    A filled circle is a hit, a cross a miss; bars carry the 95 % interval (Wilson), the dashed
    line is what the masks of other scenes would give. At most `most` scenes are drawn, evenly
    taken; the rates are those of all.
    """
    kept = list(spread(len(record.maps), most))
    axes = canvas(ax, (16, 6.2 if len(kept) > COLUMNS else 4.2))
    low = 0.17 if len(kept) > COLUMNS else 0.26
    left, right = panels(axes, [(0.0, 0.0, 0.68, 1.0), (0.77, low, 0.22, 0.95 - low)])
    _scenes(left, record, kept)
    _rates(right, record)
    bad = not_finite([record.maps, record.masks, record.iou], "in the maps or masks")
    what = f", {record.what}" if record.what else ""
    heading(axes, f"{record.verdict}\n{len(record.maps)} maps on exact masks{what}", bad)
    low, high = record.interval
    return finish(ax, axes, f"{len(record.maps)} maps against exact masks: {record.verdict}; 95 % "
                  f"interval {low:.2f} to {high:.2f}, IoU {record.iou.mean():.2f}, chance "
                  f"{record.chance_iou:.2f}.")  # fmt: skip


def _scenes(panel: Axes, record: Pointing, kept: list[int]) -> None:
    """Pictures (or maps, where there are none) with mask outlines and peaks, five in a row."""
    scene = record.maps if record.pictures is None else record.pictures
    options = {"cmap": HEAT, "vmin": 0.0} if record.pictures is None else {}
    entries = [(record.words[i][:15], scene[i], options) for i in kept]
    drawn = contact_sheet(panel, entries, columns=min(COLUMNS, len(kept)))
    told = "circle: peak inside the outlined mask; cross: outside"
    label(panel, 0.0, -0.02, told, ha="left", va="top", fontsize=TEXT, transform=panel.transAxes)
    for image, i in zip(drawn, kept, strict=True):
        left, right, low, top = image.get_extent()
        _outline(panel, record.masks[i], left, top, top - low)
        row, column = divmod(int(peaks(record.maps[i : i + 1])[0]), record.maps.shape[2])
        x = left + (column + 0.5) / record.maps.shape[2] * (right - left)
        y = top - (row + 0.5) / record.maps.shape[1] * (top - low)
        marker, hue = ("o", "green") if record.inside[i] else ("X", "vermilion")
        panel.plot([x], [y], marker, color=colour(hue), markersize=16, markeredgecolor="white",
                   markeredgewidth=2.5)  # fmt: skip


def _outline(panel: Axes, mask: np.ndarray, left: float, top: float, across: float) -> None:
    """The edge of a mask at 1/2, white around black."""
    if not mask.min() < 0.5 < mask.max():
        return
    rows, columns = mask.shape
    x = left + (np.arange(columns) + 0.5) / columns
    y = top - (np.arange(rows) + 0.5) / rows * across
    panel.contour(x, y, mask, levels=[0.5], colors="white", linewidths=5)
    panel.contour(x, y, mask, levels=[0.5], colors=INK, linewidths=2.5)


def _rates(panel: Axes, record: Pointing) -> None:
    """Two bars: the share that points inside, and the mean IoU."""
    values = [record.rate, float(record.iou.mean())]
    chances = [record.chance_inside, record.chance_iou]
    good = record.better_than_chance
    hue = colour("blue") if good else "#9a9a9a"
    panel.bar([0, 1], values, 0.6, color=hue)
    low, high = record.interval
    panel.errorbar([0], [values[0]], [[values[0] - low], [high - values[0]]], color=INK,
                   linewidth=LINE, capsize=10, capthick=LINE)  # fmt: skip
    for place, chance in enumerate(chances):
        panel.plot([place - 0.42, place + 0.42], [chance] * 2, "--", color=colour("vermilion"),
                   linewidth=LINE)  # fmt: skip
    label(panel, 1.44, chances[1], "chance", color=colour("vermilion"), ha="left")
    panel.set_xticks(
        [0, 1], [f"peak inside\nthe mask\n{values[0]:.2f}", f"overlap\n(IoU)\n{values[1]:.2f}"]
    )
    panel.set_ylim(0, 1.05)
    panel.set_xlim(-0.5, 1.9)
    axis_labels(panel, "", f"mean of {len(record.maps)} scenes", TEXT)
    panel.tick_params(axis="x", length=0, labelsize=SMALL, colors=INK)
