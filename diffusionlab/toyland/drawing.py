"""Putting a thing into the scene's light: its shadow, its outline, its tones, its neon glow."""

from __future__ import annotations

import numpy as np

from diffusionlab.toyland.canvas import Canvas, ellipse_points, labels_of
from diffusionlab.toyland.grammar import NATURAL_COATS, PALETTE, RGB, lit, mix
from diffusionlab.toyland.layout import HALF_WIDTHS, Thing
from diffusionlab.toyland.objects import figure
from diffusionlab.toyland.scenes import Scene
from diffusionlab.toyland.shapes import DARK, LIGHT, MAIN, Shape
from diffusionlab.toyland.sky import OBJECT_LIGHT

WHITE, INK, DARKNESS = (255, 255, 255), (24, 14, 40), (10, 6, 34)


def draw_thing(canvas: Canvas, scene: Scene, number: int) -> None:
    """Draw thing `number` of the scene, with its shadow where it stands on the ground."""
    thing = scene.things[number]
    if scene.setting not in ("space", "ocean") and not _hanging(scene, number):
        _shadow(canvas, thing)
    shapes = [(shape, _onto_picture(shape.points, thing)) for shape in figure(thing.kind)]
    own, coloured = labels_of(number)
    if scene.style == "neon":
        _draw_neon(canvas, shapes, thing, own, coloured)
    else:
        _draw_lit(canvas, shapes, scene, thing, own, coloured)


def _hanging(scene: Scene, number: int) -> bool:
    return scene.relation == "above" and number == 0


def _draw_lit(canvas, shapes, scene: Scene, thing: Thing, own: int, coloured: int) -> None:
    tones = _tones(scene, thing)
    for shape, points in shapes:
        if shape.outlined:
            canvas.line(_closed(points), tones["outline"], 0.024, own)
    for shape, points in shapes:
        part = coloured if shape.paint in (MAIN, LIGHT, DARK) else own
        canvas.polygon(points, _paint(shape, scene, tones), part)


def _draw_neon(canvas, shapes, thing: Thing, own: int, coloured: int) -> None:
    """Dark bodies with bright edges; the glow around them is light, not part of the thing."""
    light = neon_light(thing)
    outlined = [points for shape, points in shapes if shape.outlined]
    for radius, alpha in ((0.075, 0.32), (0.03, 0.42)):
        canvas.halo(outlined, light, radius, alpha)
    for shape, points in shapes:
        if shape.outlined:
            canvas.line(_closed(points), light, 0.03, coloured)
    for shape, points in shapes:
        if shape.paint in (MAIN, LIGHT, DARK):
            share = {MAIN: 0.80, LIGHT: 0.55, DARK: 0.88}[shape.paint]
            canvas.polygon(points, mix(light, DARKNESS, share), coloured)
        else:
            tone = light if shape.paint == "whisker" else shape.lamp or shape.paint
            canvas.polygon(points, mix(tone, DARKNESS, 0.35), own)
    for shape, points in shapes:
        if shape.outlined and shape.paint == MAIN:
            canvas.line(_closed(points), light, 0.012, coloured)


def neon_light(thing: Thing) -> RGB:
    """The colour of a thing's neon tubes."""
    if thing.colour == "black":
        return (96, 92, 140)
    base = PALETTE[thing.colour] if thing.colour else NATURAL_COATS[thing.kind]
    top = max(base)
    return mix(tuple(min(255, round(c * 255 / top)) for c in base), WHITE, 0.12)


def _closed(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, points[:2]])


def _onto_picture(points: np.ndarray, thing: Thing) -> np.ndarray:
    """Points (n, 2) of a thing's own frame, in shares of the picture (y down)."""
    x, y = points[:, 0] * (-1 if thing.flip else 1), points[:, 1] - 0.5
    cos, sin = np.cos(thing.tilt), np.sin(thing.tilt)
    across, up = x * cos - y * sin, x * sin + y * cos
    return np.stack([thing.x + across * thing.scale, thing.y - (up + 0.5) * thing.scale], axis=1)


def _shadow(canvas: Canvas, thing: Thing) -> None:
    y = 0.9 if thing.kind == "balloon" else thing.y - 0.004
    wide = 0.3 if thing.kind == "balloon" else HALF_WIDTHS[thing.kind]
    for factor, alpha in ((1.12, 0.12), (1.0, 0.16)):
        rx = wide * thing.scale * factor
        canvas.glaze(ellipse_points(thing.x, y, rx, 0.028 * factor), (16, 18, 50), alpha)


def _tones(scene: Scene, thing: Thing) -> dict[str, RGB]:
    """The thing's colour in the scene's light: lit, shaded and outlined."""
    colour = PALETTE[thing.colour] if thing.colour else NATURAL_COATS[thing.kind]
    dark_place = scene.time in ("night", None) or scene.style == "cyberpunk"
    light = OBJECT_LIGHT.get(scene.time, (1.0, 1.0, 1.0))
    shades = {
        MAIN: colour,
        LIGHT: mix(colour, WHITE, 0.14 if thing.colour == "black" else 0.34),
        DARK: mix(colour, (20, 16, 50), 0.18 if thing.colour == "white" else 0.30),
    }
    tones = {name: lit(tone, light) for name, tone in shades.items()}
    whisker = (90, 90, 104) if thing.colour in ("white", "yellow", "pink") else (250, 250, 250)
    return tones | {"whisker": whisker, "outline": _outline(thing.colour, colour, dark_place)}


def _outline(name: str | None, colour: RGB, dark_place: bool) -> RGB:
    if dark_place:
        rim = {"black": (168, 182, 224), "white": (96, 104, 150)}
        return rim.get(name, mix(colour, WHITE, 0.42))
    edge = {"black": (12, 12, 18), "white": (96, 104, 132)}
    return edge.get(name, mix(colour, INK, 0.62))


def _paint(shape: Shape, scene: Scene, tones: dict[str, RGB]) -> RGB:
    if isinstance(shape.paint, str):
        return tones[shape.paint]
    if shape.lamp and (scene.time == "night" or scene.style == "cyberpunk"):
        return shape.lamp
    return lit(shape.paint, OBJECT_LIGHT.get(scene.time, (1.0, 1.0, 1.0)))
