"""A view on paper: its pictures as a matplotlib contact sheet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffusionlab.plots.figure import Figure, canvas, contact_sheet, finish, heading

COLUMNS = 7


def sheet_of(view: Any) -> Figure:
    """The captioned pictures of a view, in rows of seven."""
    captions, images = view.captioned()
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    lines = 1 + max(caption.count("\n") for caption in captions)
    tall = max(image.height / image.width for image in images)
    axes = canvas(None, (max(2.1 * columns, 6.3), rows * (2.1 * tall + 0.35 * lines) + 0.7))
    named = zip(captions, images, strict=True)
    contact_sheet(axes, [(text, np.asarray(image), {}) for text, image in named], columns=columns)
    heading(axes, view.title)
    return finish(None, axes, view.alt)
