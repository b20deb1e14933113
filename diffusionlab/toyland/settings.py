"""The settings: what lies below the sky, drawn behind the things (water also before them)."""

from __future__ import annotations

import numpy as np

from diffusionlab.toyland.canvas import GROUND, Canvas
from diffusionlab.toyland.city import city
from diffusionlab.toyland.grammar import RGB, mix
from diffusionlab.toyland.ground import ACROSS, Ground
from diffusionlab.toyland.scenes import Scene
from diffusionlab.toyland.shapes import points
from diffusionlab.toyland.sky import draw_grid, draw_space


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
    """White hills, blue in their shade, with snow-laden pines; icebergs in the Antarctic."""
    y = g.scene.horizon
    if g.scene.antarctic:
        _icebergs(g, y)
        return
    g.hill(y - 0.07, 0.035, 1.1, (196, 214, 238))
    for x in (0.07, 0.2, 0.8, 0.93) + g.rng.uniform(-0.035, 0.035, 4):
        _pine(g, x, y + 0.06, g.rng.uniform(0.2, 0.3))
    g.hill(y + 0.04, 0.025, 0.8, (226, 236, 248))
    g.hill(y + 0.14, 0.022, 1.3, (248, 251, 255))
    g.hill(0.93, 0.02, 1.0, (222, 233, 248))


def _icebergs(g: Ground, y: float) -> None:
    """A strip of cold sea with icebergs behind a flat shore of snow."""
    g.box(-0.02, y - 0.02, 1.02, 1.02, (104, 170, 214))
    for x in (0.08, 0.3, 0.7, 0.92) + g.rng.uniform(-0.06, 0.06, 4):
        w, h = g.rng.uniform(0.12, 0.17), g.rng.uniform(0.16, 0.28)
        rock = points("-1 0, -0.8 0.5, -0.42 0.72, -0.2 1, 0.16 0.9, 0.4 0.5, 0.8 0.36, 1 0")
        shade = points("-0.2 1, 0.16 0.9, 0.4 0.5, 0.8 0.36, 1 0, 0.1 0, -0.05 0.55")
        for outline, colour in ((rock, (240, 248, 255)), (shade, (164, 204, 234))):
            g.polygon(outline * (w, -h) + (x, y + 0.055), colour)
        g.box(x - w, y + 0.05, x + w, y + 0.06, (150, 200, 228))
    g.hill(y + 0.1, 0.012, 1.2, (226, 236, 248))
    g.hill(y + 0.17, 0.012, 0.9, (246, 250, 255))
    g.hill(0.93, 0.012, 1.0, (222, 233, 248))


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


NEON_DIMMING = (8, 4, 32), 0.62  # what lies around neon lights


DRAWN = {f.__name__: f for f in (city, ocean, snow, meadow, mountains, desert)}


def draw_setting(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """Everything of the setting that lies behind the object."""
    if scene.setting == "space":
        draw_space(canvas, scene, rng)
    elif scene.setting == "grid":
        draw_grid(canvas, scene, rng)
    else:
        DRAWN[scene.setting](Ground(canvas, scene, rng))


def draw_water_line(canvas: Canvas, scene: Scene, y: float, rng: np.random.Generator) -> None:
    """Waves from `y` down, before the things that float in them."""
    g = Ground(canvas, scene, rng)
    line = y + 0.012 * np.sin(ACROSS * 2 * np.pi * 5 + rng.uniform(0, 6.3))
    crest = np.stack([ACROSS, line], axis=1)
    g.under(crest, mix((92, 178, 222), (18, 92, 164), (y - scene.horizon) / (1 - scene.horizon)))
    canvas.line(crest, g.colour((226, 242, 250)), 0.012, GROUND)
    for depth in (0.5, 0.85):
        _crests(g, y + depth * (1 - y), 0.2, (170, 214, 236))
    if scene.style == "neon":
        below = np.concatenate([crest, [(1.02, 1.02), (-0.02, 1.02)]])
        canvas.glaze(below, *NEON_DIMMING)
