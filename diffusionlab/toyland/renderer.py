"""From a scene to a picture and the exact mask of every word that it shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from diffusionlab.errors import InputError, shown
from diffusionlab.toyland.canvas import (
    COLOURED,
    GROUND,
    MOON,
    OBJECT,
    SKY,
    STARS,
    SUN,
    Canvas,
    ellipse_points,
)
from diffusionlab.toyland.grammar import PALETTE, RGB, lit, mix
from diffusionlab.toyland.objects import figure
from diffusionlab.toyland.scenes import Scene
from diffusionlab.toyland.settings import draw_setting, draw_water_line
from diffusionlab.toyland.shapes import DARK, LIGHT, MAIN, Shape
from diffusionlab.toyland.sky import OBJECT_LIGHT, background, draw_sky

SUPERSAMPLING = 2
SMALLEST_MASK = 12.0  # pixels at 128 px: what is smaller is not said to be visible


@dataclass(frozen=True, eq=False)
class Rendered:
    """A picture, uint8 (size, size, 3), and word -> mask, float32 (size, size) in [0, 1]."""

    image: np.ndarray
    masks: dict[str, np.ndarray] = field(default_factory=dict)


def render(scene: Scene, size: int = 128, *, masks: bool = True) -> Rendered:
    """Draw a scene at `size` pixels (a multiple of 8 up to 512): a pure function of the scene.

    The masks come from an index picture without antialiasing, averaged over each pixel; their
    keys are the object, its colour (the coloured part alone), the setting, the time of day (the
    sky with what is in it), and sun, moon and stars where they can be seen.
    """
    _check_size(size)
    side = size * SUPERSAMPLING
    canvas = Canvas(side, background(side, scene.setting, scene.time), masks)
    rng = np.random.default_rng(scene.details)
    if scene.time:
        draw_sky(canvas, scene, rng)
    draw_setting(canvas, scene, rng)
    if scene.object:
        _draw_object(canvas, scene, rng)
    image = np.asarray(canvas.image.reduce(SUPERSAMPLING))
    return Rendered(image, _masks(canvas.index, scene, size) if masks else {})


def _check_size(size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size % 8 or not 8 <= size <= 512:
        raise InputError(
            f"size={shown(size)} was given; a scene is drawn at a multiple of 8 from 8 to 512 "
            "pixels. Choose one, for example size=128."
        )


def _draw_object(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    in_water = scene.setting == "ocean" and scene.object != "balloon"
    if scene.setting != "space" and not in_water:
        _shadow(canvas, scene)
    shapes = [(shape, _onto_picture(shape.points, scene)) for shape in figure(scene.object)]
    tones = _tones(scene)
    for shape, points in shapes:
        if shape.outlined:
            closed = np.concatenate([points, points[:2]])
            canvas.line(closed, tones["outline"], 0.024, OBJECT)
    for shape, points in shapes:
        coloured = shape.paint in (MAIN, LIGHT, DARK)
        canvas.polygon(points, _paint(shape, scene, tones), COLOURED if coloured else OBJECT)
    if in_water:
        draw_water_line(canvas, scene, rng)


def _onto_picture(points: np.ndarray, scene: Scene) -> np.ndarray:
    """Points (n, 2) of an object's own frame, in shares of the picture (y down)."""
    x, y = points[:, 0] * (-1 if scene.flip else 1), points[:, 1] - 0.5
    cos, sin = np.cos(scene.tilt), np.sin(scene.tilt)
    across, up = x * cos - y * sin, x * sin + y * cos
    return np.stack([scene.x + across * scene.scale, scene.y - (up + 0.5) * scene.scale], axis=1)


def _shadow(canvas: Canvas, scene: Scene) -> None:
    wide = {"car": 0.98, "house": 0.66, "cat": 0.46, "boat": 0.56, "tree": 0.4, "balloon": 0.3}
    y = 0.9 if scene.object == "balloon" else scene.y - 0.004
    for factor, alpha in ((1.12, 0.12), (1.0, 0.16)):
        rx = wide[scene.object] * scene.scale * factor
        canvas.glaze(ellipse_points(scene.x, y, rx, 0.028 * factor), (16, 18, 50), alpha)


def _tones(scene: Scene) -> dict[str, RGB]:
    """The object's colour in the scene's light: lit, shaded and outlined."""
    colour = PALETTE[scene.colour]
    dark_place = scene.time in ("night", None)
    light = (1.0, 1.0, 1.0) if scene.time is None else OBJECT_LIGHT[scene.time]
    shades = {
        MAIN: colour,
        LIGHT: mix(colour, (255, 255, 255), 0.14 if scene.colour == "black" else 0.34),
        DARK: mix(colour, (20, 16, 50), 0.18 if scene.colour == "white" else 0.30),
    }
    tones = {name: lit(tone, light) for name, tone in shades.items()}
    whisker = (90, 90, 104) if scene.colour in ("white", "yellow", "pink") else (250, 250, 250)
    return tones | {"whisker": whisker, "outline": _outline(scene.colour, dark_place)}


def _outline(colour: str, dark_place: bool) -> RGB:
    if dark_place:
        rim = {"black": (168, 182, 224), "white": (96, 104, 150)}
        return rim.get(colour, mix(PALETTE[colour], (255, 255, 255), 0.42))
    edge = {"black": (12, 12, 18), "white": (96, 104, 132)}
    return edge.get(colour, mix(PALETTE[colour], (24, 14, 40), 0.62))


def _paint(shape: Shape, scene: Scene, tones: dict[str, RGB]) -> RGB:
    if isinstance(shape.paint, str):
        return tones[shape.paint]
    if shape.lamp and scene.time == "night":
        return shape.lamp
    return lit(shape.paint, OBJECT_LIGHT.get(scene.time, (1.0, 1.0, 1.0)))


def _masks(index: Image.Image, scene: Scene, size: int) -> dict[str, np.ndarray]:
    """Word -> share (size, size) of each pixel that the word's parts cover."""
    sky = (SKY, SUN, MOON, STARS)
    parts = {"sun": (SUN,), "moon": (MOON,), "stars": (STARS,)}
    parts[scene.setting] = (GROUND, *sky) if scene.setting == "space" else (GROUND,)
    if scene.time:
        parts[scene.time] = sky
    if scene.object:
        parts |= {scene.object: (OBJECT, COLOURED), scene.colour: (COLOURED,)}
    found = {word: _share(index, which) for word, which in parts.items()}
    least = SMALLEST_MASK * (size / 128) ** 2
    return {word: mask for word, mask in found.items() if mask.sum() >= least}


def _share(index: Image.Image, parts: tuple[int, ...]) -> np.ndarray:
    """Box averages of "is one of the parts": 0, 63, 126, 189 or 252 out of 252, exactly."""
    table = [252 if label in parts else 0 for label in range(256)]
    cells = np.asarray(index.point(table).reduce(SUPERSAMPLING))  # (size, size)
    return cells.astype(np.float32) / 252
