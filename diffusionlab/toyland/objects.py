"""The six things of Toyland as lists of shapes.

Each lives in a frame of its own: height 1, the ground at y = 0, y counts up, x = 0 in the middle.
"""

from __future__ import annotations

from functools import lru_cache

from diffusionlab.toyland.canvas import ellipse_points
from diffusionlab.toyland.shapes import (
    DARK,
    LIGHT,
    MAIN,
    Shape,
    band,
    box,
    points,
    poly,
    smooth,
    through,
)

WOOD, TRUNK, SLATE = (122, 78, 48), (112, 72, 42), (92, 74, 88)
TYRE, STEEL, GLASS = (38, 38, 46), (206, 210, 220), (176, 220, 244)
CREAM, LAMP, TAIL = (252, 246, 228), (255, 240, 160), (250, 70, 60)


def car() -> list[Shape]:
    """A saloon from the side; windows, wheels and lights keep their own colours."""
    body = smooth(
        "-0.92 0.22, -0.93 0.46, -0.78 0.56, -0.4 0.6, 0.4 0.6, 0.8 "
        "0.54, 0.94 0.42, 0.93 0.2, 0.5 0.17, -0.5 0.17"
    )
    cabin = smooth("-0.66 0.54, -0.5 0.88, -0.3 0.99, 0.12 0.99, 0.34 0.86, 0.58 0.54")
    shapes = [
        Shape(cabin, MAIN, True),
        Shape(body, MAIN, True),
        Shape(smooth("-0.46 0.86, -0.2 0.96, 0.1 0.96, 0.2 0.9, -0.1 0.93"), LIGHT),
        Shape(poly("-0.52 0.58, -0.41 0.86, -0.14 0.89, -0.14 0.58"), GLASS, lamp=LAMP),
        Shape(poly("-0.05 0.58, -0.05 0.89, 0.16 0.87, 0.43 0.58"), GLASS, lamp=LAMP),
        Shape(box(-0.9, 0.46, 0.88, 0.5), LIGHT),
        Shape(poly("-0.92 0.22, 0.92 0.22, 0.9 0.31, -0.92 0.31"), DARK),
        Shape(box(-0.11, 0.22, -0.08, 0.56), DARK),
        Shape(box(-0.02, 0.42, 0.1, 0.455), DARK),
        Shape(ellipse_points(0.86, 0.42, 0.075, 0.075), LAMP),
        Shape(ellipse_points(-0.88, 0.43, 0.045, 0.07), TAIL),
    ]
    for x in (-0.52, 0.52):
        shapes += [
            Shape(ellipse_points(x, 0.21, 0.21, 0.21), TYRE, True),
            Shape(ellipse_points(x, 0.21, 0.11, 0.11), STEEL),
            Shape(ellipse_points(x, 0.21, 0.045, 0.045), TYRE),
        ]
    return shapes


def boat() -> list[Shape]:
    """A sailing boat: the hull and a band of the sail have the colour."""
    hull = smooth("-0.6 0.3, 0 0.265, 0.66 0.34, 0.5 0.12, 0.36 0.0, -0.4 0.0, -0.54 0.12")
    sail = poly("0.03 0.38, 0.03 0.95, 0.2 0.76, 0.38 0.5, 0.44 0.38")
    jib = poly("-0.05 0.4, -0.05 0.88, -0.26 0.62, -0.5 0.4")
    return [
        Shape(box(-0.03, 0.25, 0.015, 0.98), WOOD, True),
        Shape(sail, CREAM, True),
        Shape(poly("0.03 0.52, 0.03 0.74, 0.215 0.74, 0.365 0.52"), MAIN),
        Shape(jib, MAIN, True),
        Shape(poly("-0.05 0.4, -0.05 0.88, -0.13 0.4"), LIGHT),
        Shape(hull, MAIN, True),
        Shape(poly("-0.585 0.255, 0 0.215, 0.62 0.285, 0.58 0.225, 0 0.155, -0.57 0.195"), CREAM),
        Shape(smooth("-0.53 0.12, 0 0.08, 0.48 0.12, 0.36 0.0, -0.4 0.0"), DARK),
    ]


def house() -> list[Shape]:
    """Coloured walls under a dark roof, with a door, windows and a chimney."""
    shapes = [
        Shape(box(0.2, 0.62, 0.36, 0.98), (150, 84, 70), True),
        Shape(box(-0.5, 0.0, 0.5, 0.58), MAIN, True),
        Shape(box(-0.5, 0.0, 0.5, 0.06), DARK),
        Shape(box(-0.5, 0.5, 0.5, 0.56), DARK),
        Shape(poly("-0.64 0.54, -0.1 1.0, 0.1 1.0, 0.64 0.54"), SLATE, True),
        Shape(poly("-0.64 0.54, 0.64 0.54, 0.57 0.6, -0.57 0.6"), (70, 54, 70)),
        Shape(ellipse_points(0, 0.78, 0.1, 0.1), CREAM),
        Shape(ellipse_points(0, 0.78, 0.07, 0.07), GLASS, lamp=LAMP),
        Shape(box(-0.11, 0.0, 0.11, 0.37), CREAM),
        Shape(box(-0.085, 0.0, 0.085, 0.345), WOOD),
        Shape(ellipse_points(0.05, 0.17, 0.02, 0.02), LAMP),
    ]
    for x in (-0.31, 0.31):
        shapes += [
            Shape(box(x - 0.13, 0.17, x + 0.13, 0.43), CREAM),
            Shape(box(x - 0.105, 0.195, x + 0.105, 0.405), GLASS, lamp=LAMP),
            Shape(box(x - 0.013, 0.19, x + 0.013, 0.41), CREAM),
            Shape(box(x - 0.11, 0.288, x + 0.11, 0.312), CREAM),
        ]
    return shapes


def tree() -> list[Shape]:
    """A coloured crown on a brown trunk."""
    trunk = smooth("-0.12 0.0, -0.065 0.2, -0.06 0.5, 0.06 0.5, 0.065 0.2, 0.12 0.0")
    crown = "-0.24 0.5 0.2, 0.24 0.5 0.2, -0.21 0.7 0.19, 0.22 0.7 0.19, 0 0.79 0.2, 0 0.56 0.23"
    shapes = [Shape(trunk, TRUNK, True), Shape(box(0.01, 0.05, 0.055, 0.4), (84, 52, 30))]
    shapes += [Shape(ellipse_points(x, y, r, r), MAIN, True) for x, y, r in points(crown)]
    shapes += [
        Shape(
            smooth(
                "-0.42 0.44, -0.24 0.37, 0 0.4, 0.24 0.37, 0.42 0.46, 0.24 "
                "0.31, 0 0.335, -0.24 0.31"
            ),
            DARK,
        ),
        Shape(smooth("-0.12 0.58, 0.02 0.52, 0.16 0.58, 0.02 0.47"), DARK),
        Shape(smooth("0.14 0.75, 0.26 0.68, 0.36 0.73, 0.27 0.62"), DARK),
        Shape(ellipse_points(-0.06, 0.86, 0.1, 0.06), LIGHT),
        Shape(ellipse_points(-0.27, 0.75, 0.07, 0.055), LIGHT),
        Shape(ellipse_points(-0.29, 0.55, 0.07, 0.05), LIGHT),
    ]
    return shapes


def balloon() -> list[Shape]:
    """A hot-air balloon: coloured gores, a basket below."""
    bag = smooth(
        "0 1.0, 0.25 0.945, 0.39 0.78, 0.4 0.62, 0.27 0.42, 0.11 0.27, "
        "-0.11 0.27, -0.27 0.42, -0.4 0.62, -0.39 0.78, -0.25 0.945"
    )
    return [
        Shape(poly("-0.1 0.28, -0.085 0.14, -0.065 0.14, -0.08 0.28"), WOOD, True),
        Shape(poly("0.1 0.28, 0.085 0.14, 0.065 0.14, 0.08 0.28"), WOOD, True),
        Shape(bag, DARK, True),
        Shape(bag * (0.78, 1), MAIN),
        Shape(bag * (0.44, 1), LIGHT),
        Shape(bag * (0.2, 1), MAIN),
        Shape(smooth("-0.27 0.62, -0.26 0.76, -0.16 0.89, -0.2 0.76"), CREAM),
        Shape(poly("-0.12 0.3, 0.12 0.3, 0.1 0.255, -0.1 0.255"), SLATE, True),
        Shape(poly("-0.11 0.15, 0.11 0.15, 0.085 0.0, -0.085 0.0"), (176, 122, 70), True),
        Shape(box(-0.12, 0.125, 0.12, 0.16), WOOD, True),
    ]


def cat() -> list[Shape]:
    """A sitting cat with its tail to one side; the fur has the colour."""
    tail = "0.2 0.07, 0.38 0.06, 0.48 0.16, 0.47 0.3, 0.41 0.4, 0.43 0.5"
    body = smooth(
        "-0.25 0.0, -0.32 0.13, -0.25 0.34, -0.15 0.52, 0.15 0.52, 0.25 0.34, 0.32 0.13, 0.25 0.0"
    )
    head = smooth(
        "0 0.86, 0.2 0.83, 0.31 0.68, 0.27 0.52, 0.12 0.43, -0.12 0.43, "
        "-0.27 0.52, -0.31 0.68, -0.2 0.83"
    )
    shapes = [
        Shape(band(through(tail), 0.11), MAIN, True),
        Shape(ellipse_points(0.43, 0.5, 0.056, 0.056), LIGHT),
        Shape(body, MAIN, True),
        Shape(smooth("0.2 0.02, 0.29 0.13, 0.2 0.34, 0.14 0.44, 0.18 0.2"), DARK),
        Shape(smooth("0 0.42, 0.12 0.36, 0.11 0.2, 0 0.12, -0.11 0.2, -0.12 0.36"), LIGHT),
        Shape(ellipse_points(-0.12, 0.045, 0.1, 0.05), LIGHT),
        Shape(ellipse_points(0.12, 0.045, 0.1, 0.05), LIGHT),
    ]
    for side in (-1, 1):
        shapes += [
            Shape(poly("0.3 0.68, 0.27 1.0, 0.05 0.84") * (side, 1), MAIN, True),
            Shape(poly("0.25 0.78, 0.245 0.93, 0.13 0.84") * (side, 1), (250, 168, 178)),
        ]
    shapes += [Shape(head, MAIN, True), *_face()]
    return shapes


def _face() -> list[Shape]:
    shapes = [Shape(ellipse_points(0, 0.53, 0.13, 0.075), LIGHT)]
    for side in (-1, 1):
        shapes += [
            Shape(ellipse_points(side * 0.13, 0.665, 0.075, 0.08), (40, 40, 48)),
            Shape(ellipse_points(side * 0.13, 0.665, 0.063, 0.068), (190, 232, 96)),
            Shape(ellipse_points(side * 0.13, 0.665, 0.03, 0.06), (22, 22, 28)),
            Shape(ellipse_points(side * 0.13 - 0.018, 0.695, 0.018, 0.018), (255, 255, 255)),
        ]
        for rise in (-0.035, 0.025):
            whisker = [(side * 0.1, 0.53), (side * 0.38, 0.53 + 1.6 * rise)]
            shapes.append(Shape(band(whisker, 0.016), "whisker"))
    shapes.append(Shape(poly("-0.045 0.585, 0.045 0.585, 0 0.535"), (236, 100, 120)))
    shapes.append(Shape(smooth("-0.06 0.5, 0 0.52, 0.06 0.5, 0 0.485"), (90, 50, 60)))
    return shapes


FIGURES = {"car": car, "boat": boat, "house": house, "tree": tree, "balloon": balloon, "cat": cat}


@lru_cache(maxsize=len(FIGURES))
def figure(kind: str) -> tuple[Shape, ...]:
    """The shapes of a thing, back to front."""
    return tuple(FIGURES[kind]())
