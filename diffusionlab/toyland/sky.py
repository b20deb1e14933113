"""Skies: gradients for every setting and time, and the sun, moon, stars and clouds in them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from diffusionlab.toyland.canvas import (
    GROUND,
    MOON,
    SKY,
    STARS,
    SUN,
    Canvas,
    ellipse_points,
    gradient,
)
from diffusionlab.toyland.grammar import RGB, mix
from diffusionlab.toyland.scenes import Scene
from diffusionlab.toyland.shapes import points

# Light that falls on the scenery and on the object, channel by channel.
SCENERY_LIGHT = {"day": (1.0, 1.0, 1.0), "sunset": (0.97, 0.77, 0.70), "night": (0.34, 0.42, 0.64)}
OBJECT_LIGHT = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.92, 0.88), "night": (0.92, 0.92, 0.97)}
OWN_LIGHT = {  # where the common light would hide what the ground is made of
    ("snow", "night"): (0.50, 0.58, 0.84),
    ("snow", "sunset"): (1.0, 0.84, 0.84),
    ("desert", "night"): (0.46, 0.44, 0.60),
    ("meadow", "night"): (0.36, 0.48, 0.56),
    ("mountains", "night"): (0.42, 0.48, 0.72),
}

SKIES: dict[str, tuple[RGB, RGB, RGB]] = {  # top, middle, at the horizon
    "day": ((64, 146, 236), (136, 198, 250), (214, 238, 252)),
    "sunset": ((78, 52, 132), (232, 98, 104), (255, 204, 112)),
    "night": ((10, 14, 46), (24, 34, 86), (54, 68, 132)),
}
DESERT_DAY = ((70, 160, 226), (160, 212, 236), (250, 232, 190))
RETRO_SKY = ((0, (22, 6, 60)), (0.34, (96, 18, 120)), (0.56, (255, 96, 150)), (1, (20, 6, 48)))
DEEP_SPACE = ((12, 8, 36), (38, 18, 78), (14, 12, 48))


@lru_cache(maxsize=48)
def background(side: int, setting: str, time: str | None, style: str = "plain") -> Image.Image:
    """The sky alone; shared between scenes, so copy it before drawing."""
    if setting == "grid":
        return gradient(side, RETRO_SKY)
    if style == "cyberpunk":
        stops = zip((0, 0.32, 0.6, 1), (*SKIES[time], SKIES[time][2]), strict=True)
        return gradient(side, tuple((at, mix(tone, (70, 8, 110), 0.72)) for at, tone in stops))
    if time is None:
        top, middle, low = DEEP_SPACE
        return gradient(side, ((0, top), (0.5, middle), (1, low)))
    top, middle, low = DESERT_DAY if (setting, time) == ("desert", "day") else SKIES[time]
    return gradient(side, ((0, top), (0.32, middle), (0.6, low), (1, low)))


def draw_sky(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Sun, moon, stars and clouds, all behind the scenery."""
    if scene.time == "day":
        _sun(canvas, scene.light_x, scene.light_y, 0.075, (255, 226, 92), (255, 250, 214))
        _clouds(canvas, scene, rng, (255, 255, 255), 2)
    elif scene.time == "sunset":
        height = scene.horizon - (0.02 if scene.setting in ("ocean", "desert") else 0.2)
        _sun(canvas, scene.light_x, height, 0.105, (255, 226, 130), (255, 190, 110))
        _clouds(canvas, scene, rng, (250, 150, 140), 1)
    elif scene.time == "night":
        _moon(canvas, scene.light_x, scene.light_y + 0.01)
        _stars(canvas, rng, 9, 0.42, scene.light_x, scene.light_y)


def _sun(canvas: Canvas, x: float, y: float, radius: float, colour: RGB, glow: RGB) -> None:
    for factor, alpha in ((2.1, 0.16), (1.6, 0.2), (1.25, 0.3)):
        canvas.glaze(ellipse_points(x, y, radius * factor, radius * factor), glow, alpha)
    canvas.ellipse(x, y, radius, radius, colour, SUN)


def _moon(canvas: Canvas, x: float, y: float) -> None:
    canvas.glaze(ellipse_points(x, y, 0.125, 0.125), (190, 205, 255), 0.14)
    canvas.ellipse(x, y, 0.078, 0.078, (248, 244, 214), MOON)
    for dx, dy, r in ((-0.028, -0.018, 0.017), (0.024, 0.022, 0.021), (0.02, -0.034, 0.012)):
        canvas.ellipse(x + dx, y + dy, r, r, (220, 216, 190), MOON)


def star(x: float, y: float, radius: float) -> np.ndarray:
    """A four-pointed star as a polygon (8, 2)."""
    turn = np.arange(8) * np.pi / 4
    reach = np.where(np.arange(8) % 2 == 0, radius, radius * 0.36)
    return np.stack([x + reach * np.sin(turn), y - reach * np.cos(turn)], axis=1)


def _stars(canvas, rng, count: int, lowest: float, away_x: float, away_y: float) -> None:
    """Stars spread over a jittered grid of columns, none on the moon."""
    for column in range(count):
        x = (column + rng.uniform(0.2, 0.8)) / count
        y = rng.uniform(0.04, lowest)
        radius = rng.uniform(0.016, 0.026)
        if abs(x - away_x) + abs(y - away_y) > 0.17:
            canvas.polygon(star(x, y, radius), (255, 248, 214), STARS)


def _clouds(canvas: Canvas, scene: Scene, rng, colour: RGB, count: int) -> None:
    shade = mix(colour, (120, 150, 200), 0.16)
    for number in range(count):
        x = (1 - scene.light_x) + rng.uniform(-0.1, 0.1) + 0.42 * number * (scene.light_x - 0.5)
        y = 0.1 + 0.13 * number + rng.uniform(0, 0.06)
        w = rng.uniform(0.85, 1.15)
        puffs = points("-0.1 0.012 0.058, 0.1 0.014 0.052, -0.02 -0.02 0.072, 0.055 -0.008 0.055")
        for dx, dy, r in puffs:
            canvas.ellipse(x + dx * w, y + dy + 0.012, r * w * 1.15, r * 0.72, shade, SKY)
        for dx, dy, r in puffs:
            canvas.ellipse(x + dx * w, y + dy, r * w * 1.1, r * 0.68, colour, SKY)


def draw_space(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """A ringed planet, a small moon, a soft nebula and big stars."""
    for _ in range(3):
        x, y, rx, ry = rng.uniform((0.1, 0.2, 0.3, 0.12), (0.9, 0.8, 0.45, 0.2))
        for factor in (1.0, 0.7, 0.45):
            tint = (150, 60, 190) if x < 0.5 else (40, 110, 200)
            canvas.glaze(ellipse_points(x, y, rx * factor, ry * factor), tint, 0.10)
    for column in range(13):
        x, y = (column + rng.uniform(0.1, 0.9)) / 13, rng.uniform(0.04, 0.96)
        bright = (255, 250, 225) if column % 3 else (190, 215, 255)
        canvas.polygon(star(x, y, rng.uniform(0.018, 0.032)), bright, STARS)
    _planet(canvas, scene.light_x, scene.light_y + 0.02, 0.135, rng, GROUND)
    canvas.ellipse(1 - scene.light_x, 0.87, 0.062, 0.062, (150, 156, 180), GROUND)
    canvas.ellipse(1 - scene.light_x - 0.012, 0.858, 0.046, 0.046, (188, 194, 214), GROUND)
    canvas.ellipse(1 - scene.light_x + 0.01, 0.878, 0.014, 0.014, (140, 146, 172), GROUND)


PLANETS = (  # body and ring
    ((236, 152, 96), (255, 206, 150)),
    ((96, 176, 200), (190, 236, 240)),
    ((206, 120, 170), (250, 190, 220)),
)


def _planet(canvas: Canvas, x: float, y: float, r: float, rng, part: int) -> None:
    body, ring = PLANETS[int(rng.integers(len(PLANETS)))]
    turn = np.linspace(0, np.pi, 24)
    lean = np.array([[0.96, -0.28], [0.28, 0.96]])
    arc = np.stack([np.cos(turn) * r * 1.75, np.sin(turn) * r * 0.42], axis=1)
    canvas.line(-arc @ lean + (x, y), ring, 0.024, part)
    canvas.ellipse(x, y, r, r, mix(body, (20, 10, 60), 0.45), part)
    canvas.ellipse(x - r * 0.1, y - r * 0.08, r * 0.88, r * 0.88, body, part)
    shine = mix(body, (255, 255, 255), 0.4)
    canvas.ellipse(x - r * 0.3, y - r * 0.36, r * 0.3, r * 0.2, shine, part)
    canvas.line(arc @ lean + (x, y), ring, 0.024, part)


def draw_grid(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """A retrofuturistic plain: striped sun, wireframe ridge, glowing lines that meet far away."""
    y = scene.horizon
    for column in range(11):
        at = (column + rng.uniform(0.2, 0.8)) / 11, rng.uniform(0.03, 0.26)
        canvas.polygon(star(*at, rng.uniform(0.014, 0.022)), (255, 226, 250), STARS)
    _striped_sun(canvas, scene.light_x, y - 0.15)
    _wire_ridge(canvas, y, rng)
    canvas.box(-0.02, y, 1.02, 1.02, (24, 8, 56), GROUND)
    canvas.glow(np.array([(-0.02, y), (1.02, y)]), (80, 240, 255), 0.05, 0.25)
    for run in np.linspace(-1.6, 2.6, 15):
        canvas.line(np.array([(0.5 + (run - 0.5) * 0.2, y), (run, 1.02)]), NEON_LINE, 0.008, GROUND)
    for depth in np.linspace(0.0, 1, 7) ** 1.8:
        at = y + depth * (1.0 - y)
        canvas.line(np.array([(-0.02, at), (1.02, at)]), NEON_LINE, 0.008, GROUND)


NEON_LINE = (64, 214, 246)


def _striped_sun(canvas: Canvas, x: float, y: float) -> None:
    radius = 0.17
    for factor, alpha in ((1.5, 0.12), (1.22, 0.18)):
        canvas.glaze(ellipse_points(x, y, radius * factor, radius * factor), (255, 120, 180), alpha)
    for rise in np.linspace(-1, 1, 25)[:-1]:  # bands from yellow to pink, gaps towards the bottom
        low, high = rise, rise + 2 / 24
        if rise > 0 and round(rise * 12) % 3 == 0:
            continue
        half = [radius * np.sqrt(max(0.0, 1 - v * v)) for v in (low, min(1.0, high))]
        tone = mix((255, 236, 110), (255, 70, 150), (rise + 1) / 2)
        tops = (y + low * radius, y + high * radius)
        canvas.polygon(
            np.array(
                [
                    (x - half[0], tops[0]),
                    (x + half[0], tops[0]),
                    (x + half[1], tops[1]),
                    (x - half[1], tops[1]),
                ]
            ),
            tone,
            SUN,
        )


def _wire_ridge(canvas: Canvas, y: float, rng: np.random.Generator) -> None:
    """Dark peaks with glowing edges on both sides of the horizon."""
    for middle in (0.04, 0.24, 0.76, 0.96) + rng.uniform(-0.04, 0.04, 4):
        w, h = rng.uniform(0.13, 0.18), rng.uniform(0.10, 0.17)
        peak = np.array([(middle - w, y + 0.01), (middle, y - h), (middle + w, y + 0.01)])
        canvas.polygon(peak, (52, 14, 92), GROUND)
        for foot in np.linspace(-w, w, 5):
            edge = np.array([(middle, y - h), (middle + foot, y + 0.01)])
            canvas.line(edge, (236, 80, 214), 0.007, GROUND)
