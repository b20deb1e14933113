"""The animals of Toyland as lists of shapes, in the frame that `objects` describes."""

from __future__ import annotations

import numpy as np

from diffusionlab.toyland.canvas import ellipse_points
from diffusionlab.toyland.grammar import RGB
from diffusionlab.toyland.shapes import DARK, LIGHT, MAIN, Shape, band, poly, smooth, through

INK, GLINT, BEAK, PATCH = (22, 22, 28), (255, 255, 255), (252, 150, 40), (255, 190, 60)
BELLY, LEATHER = (252, 250, 244), (120, 70, 50)


def oval(x: float, y: float, rx: float, ry: float, paint: str | RGB, outlined=False) -> Shape:
    """An upright ellipse as a shape."""
    return Shape(ellipse_points(x, y, rx, ry), paint, outlined)


def cat() -> list[Shape]:
    """A sitting cat with its tail to one side; the fur has the colour."""
    tail = "0.2 0.07, 0.38 0.06, 0.48 0.16, 0.47 0.3, 0.41 0.4, 0.43 0.5"
    body = smooth(
        "-0.25 0.0, -0.32 0.13, -0.25 0.34, -0.15 0.52, 0.15 0.52, 0.25 0.34, 0.32 0.13, 0.25 0.0"
    )
    head = smooth(
        "0 0.87, 0.22 0.84, 0.34 0.68, 0.3 0.5, 0.13 0.41, -0.13 0.41, "
        "-0.3 0.5, -0.34 0.68, -0.22 0.84"
    )
    shapes = [
        Shape(band(through(tail), 0.11), MAIN, True),
        oval(0.43, 0.5, 0.056, 0.056, LIGHT),
        Shape(body, MAIN, True),
        Shape(smooth("0.2 0.02, 0.29 0.13, 0.2 0.34, 0.14 0.44, 0.18 0.2"), DARK),
        Shape(smooth("0 0.42, 0.12 0.36, 0.11 0.2, 0 0.12, -0.11 0.2, -0.12 0.36"), LIGHT),
        oval(-0.12, 0.045, 0.1, 0.05, LIGHT),
        oval(0.12, 0.045, 0.1, 0.05, LIGHT),
    ]
    for side in (-1, 1):
        shapes += [
            Shape(poly("0.33 0.68, 0.3 1.0, 0.05 0.85") * (side, 1), MAIN, True),
            Shape(poly("0.27 0.79, 0.265 0.93, 0.14 0.85") * (side, 1), (250, 168, 178)),
        ]
    return [*shapes, Shape(head, MAIN, True), *_cat_face()]


def _cat_face() -> list[Shape]:
    shapes = [oval(0, 0.52, 0.15, 0.085, LIGHT)]
    for side in (-1, 1):
        shapes += [
            oval(side * 0.15, 0.665, 0.095, 0.1, (40, 40, 48)),
            oval(side * 0.15, 0.665, 0.082, 0.088, (190, 236, 96)),
            oval(side * 0.15, 0.665, 0.042, 0.08, INK),
            oval(side * 0.15 - 0.02, 0.7, 0.024, 0.024, GLINT),
        ]
        for rise in (-0.035, 0.025):
            whisker = [(side * 0.12, 0.52), (side * 0.42, 0.52 + 1.6 * rise)]
            shapes.append(Shape(band(whisker, 0.018), "whisker"))
    shapes.append(Shape(poly("-0.055 0.585, 0.055 0.585, 0 0.52"), (236, 100, 120)))
    return shapes


def penguin() -> list[Shape]:
    """An emperor penguin from the front: coloured back and wings, white belly, golden neck."""
    body = smooth(
        "0 0.03, -0.24 0.06, -0.33 0.28, -0.28 0.56, -0.17 0.72, "
        "0.17 0.72, 0.28 0.56, 0.33 0.28, 0.24 0.06"
    )
    wing = smooth("0.25 0.64, 0.36 0.5, 0.43 0.26, 0.38 0.2, 0.3 0.34")
    shapes = [oval(side * 0.14, 0.03, 0.12, 0.04, BEAK, True) for side in (-1, 1)]
    shapes += [Shape(wing * (side, 1), DARK, True) for side in (-1, 1)]
    shapes += [Shape(body, MAIN, True), oval(0, 0.81, 0.2, 0.185, MAIN, True)]
    shapes += [oval(side * 0.12, 0.655, 0.075, 0.085, PATCH) for side in (-1, 1)]
    shapes += [
        Shape(
            smooth("0 0.07, -0.19 0.12, -0.23 0.32, -0.14 0.6, 0.14 0.6, 0.23 0.32, 0.19 0.12"),
            BELLY,
        ),
        oval(-0.09, 0.92, 0.055, 0.03, LIGHT),
    ]
    for side in (-1, 1):
        shapes += [
            oval(side * 0.085, 0.845, 0.062, 0.068, GLINT),
            oval(side * 0.078, 0.84, 0.034, 0.042, INK),
        ]
    return [*shapes, Shape(poly("-0.07 0.79, 0.07 0.79, 0 0.68"), BEAK, True)]


def labrador() -> list[Shape]:
    """A standing dog with a plain coat and a straight tail."""
    tail = Shape(band([(-0.44, 0.6), (-0.6, 0.7), (-0.76, 0.84)], 0.075), MAIN, True)
    return _dog(tail, [])


def golden_retriever() -> list[Shape]:
    """The same dog with a feathered tail, chest and belly."""
    plume = "-0.42 0.66, -0.56 0.8, -0.74 0.9, -0.8 0.78, -0.72 0.62, -0.62 0.5, -0.46 0.52"
    tail = Shape(smooth(plume), MAIN, True)
    fringe = [
        Shape(smooth("-0.72 0.84, -0.74 0.68, -0.6 0.54, -0.54 0.6, -0.62 0.7"), LIGHT),
        Shape(
            poly("-0.3 0.44, -0.24 0.3, -0.16 0.41, -0.08 0.27, 0 0.41, 0.08 0.28, 0.16 0.44"),
            LIGHT,
        ),
        Shape(
            poly("0.2 0.62, 0.18 0.46, 0.25 0.5, 0.28 0.36, 0.34 0.46, 0.42 0.38, 0.42 0.62"), LIGHT
        ),
    ]
    return _dog(tail, fringe)


def _dog(tail: Shape, fringe: list[Shape]) -> list[Shape]:
    body = smooth(
        "-0.46 0.4, -0.5 0.56, -0.4 0.68, 0 0.66, 0.26 0.72, "
        "0.42 0.62, 0.4 0.42, 0.1 0.36, -0.3 0.38"
    )
    far = [Shape(band([(x, 0.46), (x, 0.02)], 0.1), DARK, True) for x in (-0.3, 0.2)]
    near = []
    for x in (-0.42, 0.33):
        near += [
            Shape(band([(x, 0.5), (x, 0.02)], 0.13), MAIN, True),
            oval(x + 0.03, 0.035, 0.09, 0.04, LIGHT, True),
        ]
    neck = Shape(smooth("0.2 0.64, 0.42 0.5, 0.58 0.72, 0.5 0.86, 0.32 0.84"), MAIN, True)
    return [tail, *far, *near, Shape(body, MAIN, True), neck, *fringe, *_dog_head()]


def _dog_head() -> list[Shape]:
    collar = np.array([(0.27, 0.7), (0.4, 0.66), (0.52, 0.68)])
    return [
        Shape(band(collar, 0.05), LEATHER),
        Shape(smooth("0.5 0.9, 0.68 0.86, 0.82 0.82, 0.81 0.72, 0.66 0.69, 0.48 0.7"), MAIN, True),
        oval(0.47, 0.85, 0.18, 0.15, MAIN, True),
        Shape(smooth("0.56 0.76, 0.7 0.76, 0.81 0.78, 0.8 0.72, 0.66 0.69"), LIGHT),
        Shape(smooth("0.4 0.96, 0.45 0.88, 0.42 0.7, 0.33 0.66, 0.27 0.76, 0.31 0.92"), DARK, True),
        oval(0.55, 0.89, 0.042, 0.046, INK),
        oval(0.54, 0.905, 0.014, 0.014, GLINT),
        oval(0.81, 0.81, 0.045, 0.038, INK),
    ]
