"""Record type → picture: what a notebook shows for a bare name at the end of a cell.

One table. Every text that came from a user (prompts, pieces, file, checkpoint and tap names) is
escaped by the one function `escaped`, and attributes stand in double quotes.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable
from typing import Any

from diffusionlab.errors import InputError, NumericsError
from diffusionlab.images import blank, filmstrip, to_webp
from diffusionlab.plan import PlannedStep, Step
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.trace import (
    Anatomy,
    Comparison,
    Latent,
    Learning,
    Merges,
    Noising,
    Prediction,
    Segmentation,
    Settings,
    TextEmbedding,
    TextLayers,
    Tokens,
    Trace,
    filmstrip_of,
)

MOST_IN_COMPARISON = 12


def html_of(record: Any) -> str:
    """The picture of a record with its alt text, and below it its `repr`, all as safe HTML.

    A record that cannot be drawn says why above its `repr`; types that are not in the table show
    their `repr` alone.
    """
    draw = next((TABLE[kind] for kind in type(record).__mro__ if kind in TABLE), None)
    try:
        picture = "" if draw is None else draw(record)
    except (InputError, NumericsError) as error:
        picture = f"<p>{escaped(f'No picture: {error}')}</p>"
    return f"<div>{picture}{_text(repr(record), folded=picture.startswith('<figure'))}</div>"


def escaped(text: str) -> str:
    """The text as HTML shows it, safe inside elements and double-quoted attributes."""
    return html.escape(text, quote=True)


def _text(text: str, folded: bool) -> str:
    """A repr in small type, behind a fold where a picture comes first."""
    shown = f'<pre style="white-space:pre-wrap">{escaped(text)}</pre>'
    return f"<details><summary>numbers</summary>{shown}</details>" if folded else shown


def _plot(name: str) -> Callable[[Any], str]:
    """The HTML of the plot of that name, imported when first needed."""

    def draw(record: Any) -> str:
        from diffusionlab import plots

        return getattr(plots, name)(record)._repr_html_()

    return draw


def _learning(record: Learning) -> str:
    """The plot, packed tightly: it is drawn anew every few seconds."""
    from diffusionlab.plots import plot_learning
    from diffusionlab.plots.figure import picture_html

    figure = plot_learning(record)
    data, kind = figure.encoded(dpi=68, most=38_000)
    return picture_html(data, figure.alt, kind)


def _image_html(image: Any, alt: str) -> str:
    from diffusionlab.plots.figure import picture_html

    return picture_html(to_webp(image), alt, "image/webp")


def _trace(trace: Trace) -> str:
    from diffusionlab.plots.runs import trace_alt

    return _image_html(filmstrip_of(trace, most=7), trace_alt(trace))


def _comparison(comparison: Comparison) -> str:
    """The final images in one row, each with its value of the axis below."""
    pairs = list(zip(comparison.values, comparison.traces, strict=True))[:MOST_IN_COMPARISON]
    size = next((t.image.size for _, t in pairs if t.image is not None), (64, 64))
    images = [t.image or blank(*size) for _, t in pairs]
    captions = ["\n".join(textwrap.wrap(str(value), 22)) or "(empty)" for value, _ in pairs]
    strip = filmstrip([images], [comparison.axis[:24]], captions)
    missing = sum(t.image is None for _, t in pairs)
    values = ", ".join(str(value) for value, _ in pairs)
    told = (
        f"{len(pairs)} of {len(comparison.traces)} runs, differing in {comparison.axis}: {values}"
    )
    return _image_html(strip, told + (f"; {missing} runs have no image" if missing else "") + ".")


def _settings(settings: Settings) -> str:
    rows = (
        ("prompt", settings.prompt),
        ("negative prompt", settings.negative_prompt),
        ("model", settings.model),
        ("how", settings.summary),
        ("noise levels", f"{settings.spacing}, final {settings.final}"),
        ("pixels", f"{settings.height} × {settings.width}"),
        *(("notice", text) for text in settings.notices),
    )
    cells = "".join(
        f'<tr><th style="text-align:left">{escaped(name)}</th>'
        f'<td style="text-align:left"><bdi>{escaped(str(value))}</bdi></td></tr>'
        for name, value in rows
        if value
    )
    return f"<table>{cells}</table>"


TABLE: dict[type, Callable[[Any], str]] = {
    Anatomy: _plot("plot_hourglass"),
    Comparison: _comparison,
    Latent: _plot("plot_latent"),
    Learning: _learning,
    Merges: _plot("plot_merges"),
    NoiseSchedule: _plot("plot_schedule"),
    Noising: _plot("plot_noising"),
    PlannedStep: _plot("plot_update"),
    Prediction: _plot("plot_prediction"),
    Segmentation: _plot("plot_segmentation"),
    Settings: _settings,
    Step: _plot("plot_step"),
    TextEmbedding: _plot("plot_text_embedding"),
    TextLayers: _plot("plot_text_layers"),
    Tokens: _plot("plot_tokens"),
    Trace: _trace,
}
