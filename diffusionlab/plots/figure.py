"""The one figure of all plots: built without pyplot, shows itself with alt text, reads from afar.

A plot is `plot_<what>(record, *, ax=None)`. Without `ax` it returns a `Figure`; with `ax` it draws
there and returns that Axes. Sizes are set on each artist, never in global settings.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator

from diffusionlab.images import Preview, same_webp, to_array, to_image, to_png, to_webp
from diffusionlab.trace import Trace

TITLE, TEXT, SMALL, LINE = 20, 16, 14, 3.0
SIGNED, HEAT = "RdBu_r", "viridis"  # signed data, amounts
INK, QUIET = "#141414", "#5a5a5a"


@cache
def colour(name: str) -> str:
    """A colour-blind safe colour by name (Okabe and Ito), as matplotlib reads it."""
    names = ("black", "orange", "sky", "green", "yellow", "blue", "vermilion", "purple")
    table = dict(zip(names, OKABE_ITO, strict=False))
    return table[name]


OKABE_ITO = tuple(to_hex(c) for c in matplotlib.color_sequences["okabe_ito"])


class Figure(MatplotlibFigure):
    """A matplotlib figure that draws itself in a notebook, and says in words what it shows."""

    alt: str = ""

    def drawn(self, dpi: float = 80) -> Any:
        """The figure as an RGB picture of PIL."""
        before, canvas = self.dpi, FigureCanvasAgg(self)
        try:
            self.dpi = dpi
            canvas.draw()  # once: `savefig` lays a constrained figure out twice
        finally:
            self.dpi = before
        return to_image(np.asarray(canvas.buffer_rgba())[..., :3])

    def to_png(self, dpi: float = 80) -> bytes:
        """The picture as a PNG file of at most 256 colours: a third of the bytes in a notebook."""
        return to_png(self.drawn(dpi))

    def encoded(self, dpi: float = 80, most: int = 86_000) -> tuple[bytes, str]:
        """The picture as bytes and their kind, "image/png" or "image/webp".

        PNG keeps the lines of drawings sharp. Photographs make it large: where it is more than
        `most` bytes, WebP is taken, of the best quality that is not.
        """
        image = self.drawn(dpi)
        found = to_png(image), "image/png"
        for quality in (80, 60, 40):
            if len(found[0]) <= most:
                break
            found = min(found, (to_webp(image, quality), "image/webp"), key=lambda x: len(x[0]))
        return found

    def _repr_html_(self) -> str:
        data, kind = self.encoded()  # in the page base64 adds a third
        if kind == "image/png":  # the same pixels, a fifth fewer bytes
            data, kind = min((data, kind), (same_webp(data), "image/webp"), key=lambda x: len(x[0]))
        return picture_html(data, self.alt, kind)


def picture_html(data: bytes, alt: str, kind: str, caption: str | None = None) -> str:
    """One `<figure>` with its picture inside the page; all text escaped."""
    source = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    told = html.escape(alt, quote=True)
    below = told if caption is None else html.escape(caption, quote=True)
    style = "max-width:100%;height:auto;background:#fff"
    image = f'<img alt="{told}" src="{source}" style="{style}">'
    return f'<figure style="margin:0">{image}<figcaption>{below}</figcaption></figure>'


def canvas(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The Axes to draw in: the given one, or one that fills a new `Figure` of `size` inches."""
    if ax is not None:
        return ax
    return Figure(figsize=size, layout="constrained").add_subplot()


def finish(given: Axes | None, ax: Axes, alt: str) -> Figure | Axes:
    """What a plot returns; the alt text goes to our figure, or is kept on the given Axes' label."""
    if given is not None:
        return given
    ax.figure.alt = alt
    return ax.figure


def heading(ax: Axes, text: str, *checks: Any) -> None:
    """The title, then every check that failed, on lines that stay on the page.

    Each failed check begins a line of its own and turns the title vermilion. Call it last and once:
    the room depends on the labels, and a figure of ours grows by every line after the first.
    """
    failed = [str(check) for check in checks if str(check)]
    own, room = _title_room(ax)
    parts = "\n".join([text, *failed]).split("\n")
    lines = [line for part in parts for line in _wrapped(drawable(part), TITLE, room)]
    if own:
        ax.figure.set_figheight(ax.figure.get_figheight() + TITLE / 60 * (len(lines) - 1))
    ax.set_title(
        "\n".join(lines),
        fontsize=TITLE,
        color=colour("vermilion") if failed else INK,
        loc="left",
        pad=12,
        y=1.0,
        parse_math=False,
    )  # fmt: skip  (a fixed y spares a measurement of the whole figure)


def _title_room(ax: Axes) -> tuple[bool, float]:
    """Whether the Axes has the page to itself; inches from its left edge to the end of it."""
    beside = [other for other in ax.figure.axes if other.get_label() != "<colorbar>"]
    wide = ax.figure.get_figwidth()
    if not isinstance(ax.figure, Figure) or beside != [ax]:
        return False, wide * ax.get_position().width
    named = ax.axison and isinstance(ax.yaxis.get_major_locator(), FixedLocator)
    names = [tick.get_text() for tick in ax.get_yticklabels()] if named else ["0.00"]
    left = max((text_width(name, SMALL) for name in names), default=0.0) if ax.axison else 0.0
    return True, wide - 0.3 - left - (0.35 if ax.axison and ax.get_ylabel() else 0.0)


def text_width(text: str, size: float) -> float:
    """Inches that the longest line of a text takes across at a size in points."""
    font, lines = FontProperties(size=size), drawable(text).split("\n")
    width = text_to_path.get_text_width_height_descent
    return max(width(line, font, False)[0] for line in lines) / 72


def _wrapped(text: str, size: float, room: float) -> list[str]:
    """The text in lines of at most `room` inches, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and text_width(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def axis_labels(ax: Axes, x: str, y: str, size: float = TEXT) -> None:
    """Labels with their units, large ticks, a quiet frame."""
    ax.set_xlabel(x, fontsize=size, color=INK, parse_math=False)
    ax.set_ylabel(y, fontsize=size, color=INK, parse_math=False)
    ax.tick_params(labelsize=SMALL, width=1.5, length=6, colors=INK)
    ax.spines[["top", "right"]].set_visible(False)


def label(ax: Axes, x: float, y: float, text: str, **options: Any) -> Any:
    """A text in data coordinates; what the user wrote is never read as mathematics."""
    settings = {"fontsize": SMALL, "color": INK, "ha": "center", "va": "center"} | options
    return ax.text(x, y, drawable(text), parse_math=False, **settings)


def colour_bar(ax: Axes, picture: Any, text: str) -> None:
    """A colour bar beside the Axes that says what its numbers are."""
    settled = ax.get_anchor() != "C"  # else the Axes moves to its bar
    bar = ax.figure.colorbar(
        picture, ax=ax, fraction=0.03, pad=0.01, aspect=14, shrink=0.75,
        panchor=False if settled else (1.0, 0.5),
    )  # fmt: skip
    bar.set_label(text, fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, width=1.5)
    bar.outline.set_visible(False)


def contact_sheet(
    ax: Axes, pictures: Sequence[tuple[str, np.ndarray, dict]], gap: float = 0.08, columns: int = 9
) -> list[Any]:
    """Pictures side by side in one Axes, a caption over each; returns matplotlib's images.

    Each entry is (caption, array (h, w) or (h, w, 3), options of `imshow`); every picture is one
    unit wide, rows are filled from the left.
    """
    tall = max(array.shape[0] / array.shape[1] for _, array, _ in pictures)
    step = tall + 0.2 * (1 + max(caption.count("\n") for caption, _, _ in pictures))
    columns = min(columns, len(pictures))
    drawn = []
    for n, (caption, array, options) in enumerate(pictures):
        left, top = n % columns * (1 + gap), -(n // columns) * step
        extent = (left, left + 1, top - tall, top)
        drawn.append(ax.imshow(array, extent=extent, interpolation="nearest", **options))
        label(ax, left + 0.5, top + 0.03, caption, fontsize=TEXT, va="bottom")
    rows = -(-len(pictures) // columns)
    ax.set_xlim(-0.02, columns * (1 + gap) - gap + 0.02)
    ax.set_ylim(-(rows - 1) * step - tall - 0.02, step - tall + 0.02)
    ax.set_aspect("equal", anchor="NW")
    ax.axis("off")
    return drawn


def panels(ax: Axes, boxes: Sequence[tuple[float, float, float, float]]) -> list[Axes]:
    """Several small Axes inside the given one, which is emptied: boxes are its own fractions.

    Each box is (left, bottom, width, height) of a panel's frame; leave room for its labels.
    """
    ax.axis("off")
    made = [ax.inset_axes(box, label=f"panel {n}") for n, box in enumerate(boxes)]
    for panel in made:
        panel.set_in_layout(False)  # which spares measuring it twice
    return made


def latent_picture(latent: np.ndarray, preview: Preview | None) -> tuple[np.ndarray, dict]:
    """A latent (channels, h, w) as RGB by its preview map; without one, its channels' mean."""
    if preview is not None and np.isfinite(latent).all():
        return preview.rgb(latent), {}
    mean = np.asarray(latent, np.float64).mean(axis=0)
    return mean, signed(mean)


def ending_picture(trace: Trace) -> tuple[np.ndarray, dict]:
    """The picture that a run ends in, by the preview map where it has no image."""
    if trace.image is not None:
        return to_array(trace.image), {}
    return latent_picture(np.asarray(trace.steps[-1].next_latent), trace.preview)


def largest(values: np.ndarray) -> float:
    """The largest absolute value among the finite ones; 0 if there is none."""
    good = np.abs(values[np.isfinite(values)])
    return float(good.max()) if good.size else 0.0


def amounts(top: float) -> dict[str, Any]:
    """The `imshow` options for amounts from 0 to `top` (where that is 0: to 1)."""
    return {"cmap": HEAT, "vmin": 0.0, "vmax": top or 1.0}


def signed(values: np.ndarray) -> dict[str, Any]:
    """The `imshow` options for signed numbers: a diverging map, the same range on both sides."""
    top = largest(values) or 1.0
    return {"cmap": SIGNED, "vmin": -top, "vmax": top}


def not_finite(values: Any, where: str) -> str:
    """A sentence for the title if an array, or one of a list of them, holds NaN or infinity.

    A plot hands in everything that it draws: else a gap, or a plausible colour, would say nothing.
    """
    given = values if isinstance(values, (list, tuple)) else [values]
    arrays = [np.asarray(value, np.float64) for value in given if value is not None]
    count = sum(array.size for array in arrays)
    bad = count - sum(int(np.isfinite(array).sum()) for array in arrays)
    return f"{bad} of {count} values are NaN or infinite, {where}" if bad else ""


@cache
def _glyphs() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def drawable(text: str) -> str:
    """The text with a box for each character that matplotlib's own font cannot draw."""
    return "".join(c if c == "\n" or ord(c) in _glyphs() else "□" for c in text)
