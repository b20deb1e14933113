"""What the autoencoder keeps, and what the numbers of a latent do to the picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from diffusionlab.analysis.autoencoder import Edited, LatentEdits, Roundtrip
from diffusionlab.plots.figure import (
    HEAT,
    INK,
    LINE,
    SIGNED,
    Figure,
    canvas,
    colour,
    finish,
    heading,
    label,
    not_finite,
    panels,
)
from diffusionlab.plots.panel import bar_beside, logarithmic, named
from diffusionlab.plots.sheets import Cell, Sheet


# ---- there and back ---------------------------------------------------------------------------
def plot_roundtrip(record: Roundtrip, *, ax: Axes | None = None) -> Figure | Axes:
    """A picture, the same after encoding and decoding; below, what changed and what is lost.

    The loss is drawn by frequency, from coarse waves to fine ones.
    The residual is the mean over the colours, signed; squares mark its worst places.
    """
    tall = 4.6 * min(max(record.before.shape[0] / record.before.shape[1], 0.7), 1.4)  # a picture
    high = 2 * tall + 1.0  # two rows and their names
    axes = canvas(ax, (11, high + 0.5))
    side, below = tall / high, 0.95 / high  # below: room for the curve's labels
    upper = 1 - 0.5 / high - side
    *pictures, curve = panels(
        axes, [(0.0, upper, 0.42, side), (0.56, upper, 0.42, side), (0.0, 0.0, 0.42, side),
               (0.64, below, 0.34, side - below)]
    )  # fmt: skip
    _side_by_side(pictures, record)
    _lost(curve, record)
    told = f"there and back: PSNR {record.psnr:.1f} dB"
    bad = not_finite([record.before, record.after], "in the pictures")
    heading(axes, f"{told}; {record.compression:.3g} numbers became 1", bad, record.parseval)
    return finish(ax, axes, _roundtrip_alt(record))


def _side_by_side(pictures: list[Axes], record: Roundtrip) -> None:
    residual = record.residual.mean(axis=2)
    before, after, off = pictures
    before.imshow(record.before)
    after.imshow(np.clip(record.after, 0, 1))
    most = float(np.quantile(np.abs(residual), 0.995)) or 1.0
    drawn = off.imshow(residual, cmap=SIGNED, vmin=-most, vmax=most)
    for top, left, _ in record.worst:
        off.add_patch(
            Rectangle((left - 0.5, top - 0.5), record.cell, record.cell, fill=False, linewidth=3)
        )
    changed = f"what changed, cut at ±{most:.2g}"
    titles = ("the picture", "after the roundtrip", changed)
    for panel, name in zip(pictures, titles, strict=True):
        named(panel, name)
        panel.axis("off")
        panel.set_anchor("N")
    bar_beside(off, drawn, "after − before, mean of RGB")


def _lost(panel: Axes, record: Roundtrip) -> None:
    values = np.where(record.lost > 0, record.lost, np.nan)[1:-1]
    panel.plot(np.arange(1, len(values) + 1), values, color=colour("blue"), linewidth=LINE)
    panel.axhline(1, color=colour("vermilion"), linewidth=2.5, linestyle="--")
    label(panel, len(values), 1, "nothing kept", color=colour("vermilion"), ha="right", va="bottom")
    half = record.latent.shape[1] / record.before.shape[0] * len(values)
    panel.axvline(half, color=INK, linewidth=2, linestyle=":")
    logarithmic(panel, values, np.array([0.05, 1.0]))
    panel.set_ylim(top=4)
    panel.grid(alpha=0.3)
    told = "cycles per longer side (dotted: the\nfinest in a picture of the latent's size)"
    named(panel, "what is lost", told, "residual / picture (power)")


def _roundtrip_alt(record: Roundtrip) -> str:
    height, width = record.before.shape[:2]
    coarse, fine = (np.nanmean(part) for part in np.array_split(record.lost[1:-1], 2))
    where = "; ".join(f"{off:.2f} at row {top}, column {left}" for top, left, off in record.worst)
    return (
        f"A picture of {width} × {height} pixels before and after the autoencoder: PSNR "
        f"{record.psnr:.1f} dB; lost of the coarse half of the frequencies {coarse:.2g}, of the "
        f"fine half {fine:.2g}; largest residuals {where}."
    )


# ---- edits ------------------------------------------------------------------------------------
def plot_latent_edits(record: LatentEdits, *, ax: Axes | None = None) -> Figure | Axes:
    """The pictures of an edited latent, a row per channel, and the reach of a single position.

    On the right: the latent as it is, and for the first edit of a single place its picture and
    where it differs, with the box around every pixel that changed by 2/255 or more.
    """
    rows: dict = {}
    for edited in record.edits:
        if edited.edit.place is None:
            rows.setdefault(edited.edit.channel, []).append(edited)
    places = [edited for edited in record.edits if edited.edit.place is not None]
    sheet = _edits_sheet(rows)
    wide, high = sheet.size
    tall = 0.3 * high + 1.3  # of the column on the right, whose pictures stand three deep
    axes = canvas(ax, (wide + tall, max(high, 4.0) + 0.6))
    share = wide / (wide + tall)
    table, reach = panels(axes, [(0.0, 0.0, share, 1.0), (share + 0.02, 0.0, 0.98 - share, 1.0)])
    sheet.draw(table)
    _reach(reach, record, places[:1])
    changed = [array for e in record.edits for array in (e.picture, e.change)]
    bad = not_finite([record.picture, *changed], "in the pictures")
    heading(axes, _edits_title(places), bad, record.repeats)
    told = "; ".join(f"{e.edit}: pixels change by {e.root_mean_square:.2g}" for e in record.edits)
    return finish(ax, axes, f"A latent edited and decoded: {told}. {_edits_title(places)}.")


def _edits_title(places: list[Edited]) -> str:
    told = "single numbers of the latent, changed and decoded"
    if not places:
        return told
    if places[0].box is None:
        return "one position: no pixel changes that could be seen"
    one = places[0]
    return f"one position of the latent: {one.share:.0%} of the change stays in its own square"


def _edits_sheet(rows: dict[int | None, list[Edited]]) -> Sheet:
    """A row for each channel, each picture named by what was done to it."""
    names = ["all" if channel is None else f"channel\n{channel}" for channel in rows]
    cells = [[Cell(e.picture, caption=_short(e, c)) for e in row] for c, row in rows.items()]
    columns = [""] * max(map(len, rows.values()), default=0)
    return Sheet(names, columns, cells, 1.62)


def _short(edited: Edited, channel: int | None) -> str:
    return str(edited.edit).removeprefix(f"channel {channel} ").removeprefix("all ")


def _reach(panel: Axes, record: LatentEdits, places: list[Edited]) -> None:
    height, width = record.picture.shape[:2]
    shown = [("as it is", record.picture, {})]
    for one in places:
        most = float(np.quantile(one.change, 0.995)) or 1.0
        top = {"cmap": HEAT, "vmin": 0, "vmax": most}
        shown += [(str(one.edit), one.picture, {})]
        _, _, tall, wide = one.box or (0, 0, 0, 0)
        shown += [(f"≥ 2/255 in {wide} × {tall} px", one.change, top)]
    step = height + 0.17 * width
    for n, (name, array, options) in enumerate(shown):
        y = n * step
        panel.imshow(array, extent=(0, width, y + height, y), **options)
        label(panel, width / 2, y - 2, name, va="bottom")
        if places and n:
            _boxes(panel, places[0], y, record.cell, n == 2)
    panel.set_xlim(-0.04 * width, 1.04 * width)
    panel.set_ylim((len(shown) - 1) * step + height + 1, -0.17 * width)
    panel.set_aspect("equal", anchor="E")
    panel.axis("off")


def _boxes(panel: Axes, one: Edited, y: float, cell: int, told: bool) -> None:
    row, column = one.edit.place
    panel.add_patch(Rectangle((column * cell, y + row * cell), cell, cell, fill=False,
                              edgecolor=colour("vermilion"), linewidth=3))  # fmt: skip
    if one.box is not None and told:
        top, left, height, width = one.box
        panel.add_patch(Rectangle((left, y + top), width, height, fill=False, edgecolor="white",
                                  linewidth=2.5, linestyle="--"))  # fmt: skip
