"""The things of Toyland as lists of shapes.

Each lives in a frame of its own: height 1, the ground at y = 0, y counts up, x = 0 in the middle.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from diffusionlab.toyland.animals import cat, golden_retriever, labrador, penguin
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


def dress() -> list[Shape]:
    """A dress on a stand: bodice, belt and a wide skirt with folds."""
    skirt = (
        "-0.12 0.58, 0 0.585, 0.12 0.58, 0.25 0.36, 0.38 0.14, "
        "0.2 0.1, 0 0.125, -0.2 0.1, -0.38 0.14, -0.25 0.36"
    )
    bodice = (
        "-0.125 0.56, -0.15 0.72, -0.17 0.8, -0.09 0.87, 0 0.79, "
        "0.09 0.87, 0.17 0.8, 0.15 0.72, 0.125 0.56"
    )
    shapes = [
        Shape(ellipse_points(0, 0.02, 0.17, 0.024), SLATE, True),
        Shape(box(-0.016, 0.02, 0.016, 0.97), SLATE, True),
        Shape(ellipse_points(0, 0.965, 0.035, 0.035), SLATE, True),
        Shape(band([(-0.15, 0.84), (0, 0.93), (0.15, 0.84)], 0.028), SLATE),
    ]
    shapes += [Shape(band([(x, 0.8), (x * 0.75, 0.91)], 0.05), MAIN, True) for x in (-0.11, 0.11)]
    shapes += [
        Shape(smooth(skirt), MAIN, True),
        Shape(poly(bodice), MAIN, True),
        Shape(poly("-0.06 0.52, -0.11 0.12, -0.03 0.125, -0.015 0.52"), DARK),
        Shape(poly("0.06 0.52, 0.2 0.11, 0.27 0.125, 0.09 0.52"), DARK),
        Shape(poly("-0.1 0.5, -0.28 0.14, -0.22 0.13, -0.07 0.5"), LIGHT),
        Shape(poly("0.02 0.5, 0.06 0.13, 0.11 0.125, 0.05 0.5"), LIGHT),
        Shape(smooth("-0.11 0.78, -0.05 0.72, -0.06 0.64, -0.11 0.66"), LIGHT),
        Shape(box(-0.13, 0.555, 0.13, 0.615), CREAM),
    ]
    return shapes


def spaceship() -> list[Shape]:
    """A rocket with fins, portholes and a flame; hull and fins have the colour."""
    hull = (
        "0 1.0, 0.1 0.88, 0.17 0.68, 0.18 0.48, 0.12 0.2, "
        "-0.12 0.2, -0.18 0.48, -0.17 0.68, -0.1 0.88"
    )
    fin = poly("0.13 0.42, 0.33 0.2, 0.33 0.06, 0.11 0.2")
    shapes = [
        Shape(
            smooth("-0.1 0.19, 0.1 0.19, 0.07 0.08, 0 0.0, -0.07 0.08"),
            (255, 150, 40),
            lamp=(255, 150, 40),
        ),
        Shape(smooth("-0.055 0.19, 0.055 0.19, 0.03 0.11, 0 0.06, -0.03 0.11"), LAMP, lamp=LAMP),
        Shape(box(-0.1, 0.165, 0.1, 0.22), SLATE, True),
    ]
    shapes += [Shape(fin * (side, 1), DARK, True) for side in (-1, 1)]
    shapes += [
        Shape(smooth(hull), MAIN, True),
        Shape(smooth("-0.06 0.9, -0.12 0.7, -0.13 0.48, -0.08 0.26, -0.06 0.5, -0.06 0.7"), LIGHT),
        Shape(smooth("0.08 0.88, 0.155 0.68, 0.165 0.48, 0.11 0.22, 0.1 0.5"), DARK),
        Shape(poly("-0.125 0.8, -0.07 0.9, 0 1.0, 0.07 0.9, 0.125 0.8"), CREAM),
        Shape(box(-0.15, 0.3, 0.15, 0.345), CREAM),
    ]
    for y, r in ((0.66, 0.09), (0.46, 0.065)):
        shapes.append(Shape(ellipse_points(0, y, r, r), STEEL, True))
        shapes.append(Shape(ellipse_points(0, y, r * 0.7, r * 0.7), GLASS, lamp=LAMP))
    return shapes


def flower() -> list[Shape]:
    """One tall flower: coloured petals around a brown eye, a stem with two leaves."""
    green, pale = (58, 142, 62), (98, 182, 90)
    leaf = smooth("0.01 0.1, 0.14 0.3, 0.34 0.34, 0.26 0.18, 0.1 0.08")
    shapes = [Shape(band([(0, 0.0), (0.015, 0.3), (0, 0.62)], 0.05), green, True)]
    shapes += [Shape(leaf * (side, 1), green, True) for side in (-1, 1)]
    shapes += [
        Shape(band([(side * 0.04, 0.13), (side * 0.25, 0.29)], 0.018), pale) for side in (-1, 1)
    ]
    turns = np.arange(8) * np.pi / 4
    petals = [_petal(turn) for turn in turns]
    shapes += [Shape(petal, MAIN, True) for petal in petals]
    shapes += [Shape(petal * (0.55, 0.55) + (0, 0.68 * 0.45), LIGHT) for petal in petals]
    shapes += [
        Shape(ellipse_points(0, 0.68, 0.125, 0.125), DARK),
        Shape(ellipse_points(0, 0.68, 0.105, 0.105), (104, 66, 36)),
        Shape(ellipse_points(-0.03, 0.71, 0.04, 0.035), (164, 110, 60)),
    ]
    return shapes


def _petal(turn: float) -> np.ndarray:
    """A long petal (40, 2) that points away from the middle of the flower."""
    cos, sin = np.cos(turn), np.sin(turn)
    return ellipse_points(0.2, 0, 0.125, 0.082) @ np.array([[cos, sin], [-sin, cos]]) + (0, 0.68)


FIGURES = {
    "car": car,
    "boat": boat,
    "house": house,
    "tree": tree,
    "balloon": balloon,
    "cat": cat,
    "penguin": penguin,
    "dress": dress,
    "golden retriever": golden_retriever,
    "labrador": labrador,
    "spaceship": spaceship,
    "flower": flower,
}


@lru_cache(maxsize=len(FIGURES))
def figure(kind: str) -> tuple[Shape, ...]:
    """The shapes of a thing, back to front."""
    return tuple(FIGURES[kind]())
