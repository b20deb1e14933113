"""Shapes: polygons with a paint, and the few ways to write one down.

Points are written as text, "x y, x y, ...", like the paths of a vector drawing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionlab.toyland.grammar import RGB

# Paints of the coloured part: the colour itself, and its lit and shaded tones.
MAIN, LIGHT, DARK = "main", "light", "dark"


@dataclass(frozen=True, eq=False)
class Shape:
    """A polygon (n, 2), its paint, and how it takes part in the picture.

    `outlined`: part of the silhouette; `lamp`: a colour that it takes after dark.
    """

    points: np.ndarray
    paint: str | RGB
    outlined: bool = False
    lamp: RGB | None = None


def points(text: str) -> np.ndarray:
    """The text "x y, x y" as an array (n, 2); more numbers to a point make more columns."""
    return np.array([[float(number) for number in point.split()] for point in text.split(",")])


poly = points  # a polygon with straight edges is its corners


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """An upright rectangle (4, 2)."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def smooth(text: str, steps: int = 6) -> np.ndarray:
    """A closed Catmull-Rom curve through points, as a polygon (n * steps, 2)."""
    p = points(text)
    before, after, later = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.arange(steps)[None, :, None] / steps
    curve = (
        2 * p[:, None]
        + (after - before)[:, None] * t
        + (2 * before - 5 * p + 4 * after - later)[:, None] * t**2
        + (3 * p - before - 3 * after + later)[:, None] * t**3
    ) / 2  # (n, steps, 2)
    return curve.reshape(-1, 2)


def through(text: str, steps: int = 5) -> np.ndarray:
    """An open smooth curve: the closed one without its way back."""
    return smooth(text, steps)[: (len(points(text)) - 1) * steps + 1]


def band(line: np.ndarray | list, width: float) -> np.ndarray:
    """A line (n, 2) of some width as a polygon (2 n, 2)."""
    p = np.array(line, dtype=float)
    along = np.gradient(p, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across *= width / 2 / np.linalg.norm(across, axis=1, keepdims=True)
    return np.concatenate([p + across, (p - across)[::-1]])
