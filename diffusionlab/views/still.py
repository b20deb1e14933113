"""A view on paper: its pictures as a matplotlib contact sheet."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffusionlab.plots.figure import Figure, canvas, contact_sheet, finish, heading

COLUMNS = 7


def sheet_of(view: Any) -> Figure:
    """The captioned pictures of a view, in rows of seven."""
    named = view.pictures()
    columns = min(COLUMNS, len(named))
    rows = math.ceil(len(named) / columns)
    lines = 1 + max(caption.count("\n") for caption, _ in named)
    axes = canvas(None, (2.1 * columns, rows * (2.1 + 0.35 * lines) + 0.7))
    contact_sheet(axes, [(text, np.asarray(image), {}) for text, image in named], columns=columns)
    heading(axes, view.title)
    return finish(None, axes, view.alt)
