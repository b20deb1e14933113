"""The seven settings: what lies below the sky, drawn behind the object (water also before it)."""

from __future__ import annotations

import numpy as np

from diffusionlab.toyland.canvas import GROUND, Canvas, ellipse_points
from diffusionlab.toyland.grammar import RGB, lit, mix
from diffusionlab.toyland.scenes import Scene
from diffusionlab.toyland.shapes import points
from diffusionlab.toyland.sky import OWN_LIGHT, SCENERY_LIGHT, draw_space

_ACROSS = np.linspace(-0.02, 1.02, 40)


class Ground:
    """The canvas as a setting sees it: one light, one part, hills by a formula."""

    def __init__(self, canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
        self.canvas, self.scene, self.rng = canvas, scene, rng
        self.light = OWN_LIGHT.get((scene.setting, scene.time), SCENERY_LIGHT[scene.time])
        self.dark = scene.time == "night"

    def colour(self, colour: RGB) -> RGB:
        return lit(colour, self.light)

    def polygon(self, points, colour: RGB, own_light: bool = False) -> None:
        self.canvas.polygon(points, colour if own_light else self.colour(colour), GROUND)

    def box(self, x0, y0, x1, y1, colour: RGB, own_light: bool = False) -> None:
        colour = colour if own_light else self.colour(colour)
        self.canvas.box(x0, y0, x1, y1, colour, GROUND)

    def ellipse(self, x, y, rx, ry, colour: RGB) -> None:
        self.canvas.ellipse(x, y, rx, ry, self.colour(colour), GROUND)

    def hill(self, y: float, swing: float, waves: float, colour: RGB) -> np.ndarray:
        """Fill everything below a rolling line; the line's heights (40,) come back."""
        line = y + swing * np.sin(_ACROSS * waves * 2 * np.pi + self.rng.uniform(0, 6.3))
        self.under(np.stack([_ACROSS, line], axis=1), colour)
        return line

    def under(self, line: np.ndarray, colour: RGB) -> None:
        """Fill from a line (n, 2) down to the bottom edge."""
        self.polygon(np.concatenate([line, [(1.02, 1.02), (-0.02, 1.02)]]), colour)


def city(g: Ground) -> None:
    """Two rows of towers with windows, a pavement and a road."""
    walls = ((150, 170, 204), (166, 178, 206)), ((112, 122, 158), (136, 118, 140), (96, 126, 150))
    if g.dark:
        walls = tuple(tuple(mix(c, (60, 70, 150), 0.3) for c in row) for row in walls)
    for row, (count, low, high) in enumerate(((6, 0.2, 0.34), (5, 0.3, 0.5))):
        edges = (np.arange(count + 1) + g.rng.uniform(-0.14, 0.14, count + 1)) / count
        edges[0], edges[-1] = -0.02, 1.02
        for number in range(count):
            top = g.rng.uniform(low, high)
            wall = walls[row][number % len(walls[row])]
            _tower(g, edges[number], edges[number + 1] - 0.012 * row, top, wall, row)
    g.box(-0.02, 0.72, 1.02, 0.78, (196, 192, 188))
    g.box(-0.02, 0.775, 1.02, 0.79, (150, 148, 150))
    g.box(-0.02, 0.79, 1.02, 1.02, (94, 96, 108))
    for x in np.arange(-0.05, 1.0, 0.24) + g.rng.uniform(0, 0.2):
        g.polygon(
            ((x + 0.02, 0.93), (x + 0.15, 0.93), (x + 0.13, 0.955), (x, 0.955)), (240, 232, 200)
        )


def _tower(g: Ground, x0: float, x1: float, top: float, wall: RGB, row: int) -> None:
    g.box(x0, top, x1, 0.75, wall)
    if not row:
        return
    g.box(x0, top, x1, top + 0.02, mix(wall, (255, 255, 255), 0.35))
    columns = max(2, round((x1 - x0) / 0.075))
    pitch = (x1 - x0) / columns
    for line in np.arange(top + 0.055, 0.69, 0.085):
        for column in range(columns):
            x = x0 + (column + 0.5) * pitch
            g.box(x - 0.019, line, x + 0.019, line + 0.044, *_pane(g))


def _pane(g: Ground) -> tuple[RGB, bool]:
    """A window's colour: lit after dark for most, at sunset for some."""
    share = {"day": 0.0, "sunset": 0.45, "night": 0.68}[g.scene.time]
    return ((255, 216, 112), True) if g.rng.random() < share else ((196, 224, 246), False)


def ocean(g: Ground) -> None:
    """Water to the horizon, lighter far away, with crests and the light's path."""
    far, near, y = (92, 178, 222), (18, 92, 164), g.scene.horizon
    for band in np.linspace(0, 1, 9):
        g.box(-0.02, y + band * (1.02 - y), 1.02, 1.02, mix(far, near, band))
    if g.scene.time != "day":
        _light_path(g, y)
    for depth in (0.1, 0.27, 0.5, 0.78):
        _crests(g, y + depth * (1 - y), 0.1 + 0.14 * depth, mix(far, (255, 255, 255), 0.45))


def _light_path(g: Ground, y: float) -> None:
    glow = (255, 206, 120) if g.scene.time == "sunset" else (200, 210, 250)
    for row in range(6):
        width = 0.055 + 0.018 * row + g.rng.uniform(-0.02, 0.02)
        at = y + 0.018 + 0.062 * row
        g.canvas.ellipse(g.scene.light_x, at, width, 0.011, mix(glow, (60, 80, 150), 0.3), GROUND)


def _crests(g: Ground, y: float, length: float, colour: RGB) -> None:
    start = g.rng.uniform(-length, 0)
    for x in np.arange(start, 1, length * 2.1):
        t = np.linspace(0, 1, 9)
        line = np.stack([x + t * length, y - 0.018 * np.sin(np.pi * t)], axis=1)
        g.canvas.line(line, g.colour(colour), 0.011, GROUND)


def snow(g: Ground) -> None:
    """White hills, blue in their shade, with snow-laden pines."""
    y = g.scene.horizon
    g.hill(y - 0.07, 0.035, 1.1, (196, 214, 238))
    for x in (0.07, 0.2, 0.8, 0.93) + g.rng.uniform(-0.035, 0.035, 4):
        _pine(g, x, y + 0.06, g.rng.uniform(0.2, 0.3))
    g.hill(y + 0.04, 0.025, 0.8, (226, 236, 248))
    g.hill(y + 0.14, 0.022, 1.3, (248, 251, 255))
    g.hill(0.93, 0.02, 1.0, (222, 233, 248))


def _pine(g: Ground, x: float, y: float, height: float) -> None:
    g.box(x - 0.012, y - 0.05, x + 0.012, y, (100, 74, 60))
    for tier in range(3):
        w, low = 0.085 - 0.02 * tier, y - 0.03 - tier * height * 0.24
        top = low - height * 0.44
        g.polygon(((x - w, low), (x, top), (x + w, low)), (44, 104, 92))
        rim = low - height * 0.2
        g.polygon(((x - w * 0.55, rim), (x, top), (x + w * 0.55, rim)), (244, 249, 255))


def meadow(g: Ground) -> None:
    """Rolling green hills and big flowers."""
    y = g.scene.horizon
    g.hill(y - 0.05, 0.04, 0.9, (124, 190, 112))
    g.hill(y + 0.04, 0.03, 1.1, (104, 186, 82))
    g.hill(y + 0.17, 0.02, 0.9, (92, 178, 66))
    g.hill(0.93, 0.015, 1.2, (72, 158, 56))
    petals = ((255, 255, 255), (255, 226, 80), (250, 130, 160), (255, 255, 255))
    for number in range(8):
        x = (number + g.rng.uniform(0.25, 0.75)) / 8
        y = g.rng.uniform(0.77, 0.84) if number in (0, 7) else g.rng.uniform(0.925, 0.965)
        _flower(g, x, y, petals[int(g.rng.integers(4))])


def _flower(g: Ground, x: float, y: float, petal: RGB) -> None:
    g.box(x - 0.004, y, x + 0.004, y + 0.05, (40, 110, 40))
    for dx, dy in ((-0.02, 0), (0.02, 0), (0, -0.02), (0, 0.02)):
        g.ellipse(x + dx, y + dy, 0.0175, 0.0175, petal)
    g.ellipse(x, y, 0.013, 0.013, (240, 160, 40))


def mountains(g: Ground) -> None:
    """Jagged ridges with snowy peaks over a rocky green valley."""
    _ridge(g, 0.24, 0.74, (146, 164, 202), 4)
    _ridge(g, 0.36, 0.8, (106, 118, 156), 3)
    g.hill(0.745, 0.02, 1.0, (104, 142, 112))
    g.hill(0.86, 0.018, 1.3, (88, 122, 92))
    for x in (0.06, 0.9) + g.rng.uniform(-0.03, 0.06, 2):
        g.ellipse(x, 0.9, 0.07, 0.035, (128, 132, 140))
        g.ellipse(x - 0.012, 0.892, 0.05, 0.022, (160, 164, 172))


def _ridge(g: Ground, top: float, low: float, rock: RGB, count: int) -> None:
    for number in range(count):
        x = (number + 0.5 + g.rng.uniform(-0.16, 0.16)) / count
        peak = top + g.rng.uniform(0, 0.1)
        half = 0.62 * (low - peak) * g.rng.uniform(0.95, 1.15)
        g.polygon(((x - half, low), (x, peak), (x + half, low)), rock)
        g.polygon(
            ((x, peak), (x + half, low), (x + half * 0.18, low)), mix(rock, (40, 46, 90), 0.28)
        )
        _cap(g, x, peak, half * 0.34, 0.34 * (low - peak))


def _cap(g: Ground, x: float, y: float, w: float, h: float) -> None:
    zigzag = points("-1 1, 0 0, 1 1, 0.5 0.78, 0.1 1.1, -0.45 0.76") * (w, h) + (x, y)
    g.polygon(zigzag, (250, 252, 255))
    g.polygon(zigzag[1:5], (206, 218, 240))


def desert(g: Ground) -> None:
    """Dunes with a lit and a shaded side, and two cacti."""
    y = g.scene.horizon
    g.hill(y - 0.02, 0.03, 0.8, (236, 186, 118))
    _dune(g, y + 0.05, (244, 202, 132), (214, 154, 88))
    for x in (0.09, 0.91) + g.rng.uniform(-0.03, 0.03, 2):
        _cactus(g, x, y + g.rng.uniform(0.13, 0.19), g.rng.uniform(0.8, 1.05))
    g.hill(0.78, 0.025, 0.9, (246, 208, 140))
    g.hill(0.93, 0.02, 1.1, (232, 184, 114))


def _dune(g: Ground, y: float, sun: RGB, shade: RGB) -> None:
    x = g.rng.uniform(0.2, 0.8)
    t = np.linspace(0, 1, 14)[:, None]
    left = np.concatenate([x - 0.75 * (1 - t), y + 0.17 * (1 - t**1.7)], axis=1)
    right = np.concatenate([x + 0.75 * t, y + 0.17 * t**0.7], axis=1)
    g.under(np.concatenate([left, right]), sun)
    edge = np.concatenate([x + 0.09 * np.sin(3 * t) + 0.1 * t, y + 0.3 * t], axis=1)
    g.polygon(np.concatenate([right, edge[::-1]]), shade)


def _cactus(g: Ground, x: float, y: float, size: float) -> None:
    green, pale = (62, 138, 78), (104, 176, 108)
    bars = ((0, -0.3, 0.027, 0.02), (-0.058, -0.21, 0.018, -0.1), (0.058, -0.25, 0.018, -0.14))
    for dx, top, w, low in bars:
        bar = np.array(((-w, low), (-w, top), (-w / 2, top - 0.022)))
        bar = np.concatenate([bar, bar[::-1] * (-1, 1)]) + (dx, 0)  # (6, 2), both sides
        g.polygon(bar * size + (x, y), green)
    for low, end in ((-0.1, -0.058), (-0.14, 0.058)):
        arm = points("0 -0.018, 1 -0.018, 1.25 0, 1 0.018, 0 0.018") * (end, 1) + (0, low)
        g.polygon(arm * size + (x, y), green)
    stripe = np.array(((-0.012, 0.0), (-0.012, -0.29), (-0.003, -0.29), (-0.003, 0.0)))
    g.polygon(stripe * size + (x, y), pale)


DRAWN = {f.__name__: f for f in (city, ocean, snow, meadow, mountains, desert)}


def draw_setting(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Everything of the setting that lies behind the object."""
    if scene.setting == "space":
        draw_space(canvas, scene, rng)
    else:
        DRAWN[scene.setting](Ground(canvas, scene, rng))


def draw_water_line(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Waves before the object, which floats in them."""
    g = Ground(canvas, scene, rng)
    y = scene.y - 0.03
    line = y + 0.012 * np.sin(_ACROSS * 2 * np.pi * 5 + rng.uniform(0, 6.3))
    crest = np.stack([_ACROSS, line], axis=1)
    g.under(crest, mix((92, 178, 222), (18, 92, 164), (y - scene.horizon) / (1 - scene.horizon)))
    canvas.line(crest, g.colour((226, 242, 250)), 0.012, GROUND)
    for depth in (0.5, 0.85):
        _crests(g, y + depth * (1 - y), 0.2, (170, 214, 236))
    if scene.time != "day":
        canvas.glaze(ellipse_points(scene.x, y + 0.07, 0.22, 0.03), (250, 220, 180), 0.10)
