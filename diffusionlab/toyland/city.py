"""The city by day and night, and its streets in the cyberpunk style: wet and full of signs."""

from __future__ import annotations

import numpy as np

from diffusionlab.toyland.canvas import REFLECTIONS, SIGNS, STREET
from diffusionlab.toyland.grammar import RGB, mix
from diffusionlab.toyland.ground import Ground

WALLS = ((150, 170, 204), (166, 178, 206)), ((112, 122, 158), (136, 118, 140), (96, 126, 150))
NEON_WALLS = ((40, 34, 92), (52, 38, 104)), ((30, 24, 70), (46, 26, 78), (24, 34, 84))
NEON_LIGHTS = ((255, 64, 200), (40, 230, 255), (255, 64, 200), (170, 110, 255))
ROAD, KERB, PAVEMENT, WET_ROAD = (94, 96, 108), (150, 148, 150), (196, 192, 188), (26, 22, 58)


def city(g: Ground) -> None:
    """Two rows of towers with windows, a pavement and a road."""
    wet = g.scene.style == "cyberpunk"
    walls = NEON_WALLS if wet else WALLS
    if g.dark and not wet:
        walls = tuple(tuple(mix(c, (60, 70, 150), 0.3) for c in row) for row in walls)
    for row, (count, low, high) in enumerate(((6, 0.2, 0.34), (5, 0.3, 0.5))):
        edges = (np.arange(count + 1) + g.rng.uniform(-0.14, 0.14, count + 1)) / count
        edges[0], edges[-1] = -0.02, 1.02
        for number in range(count):
            top = g.rng.uniform(low, high)
            wall = walls[row][number % len(walls[row])]
            _tower(g, edges[number], edges[number + 1] - 0.012 * row, top, wall, row)
    if wet:
        _signs_and_wet_street(g)
    else:
        _street(g)


def _street(g: Ground) -> None:
    g.box(-0.02, 0.72, 1.02, 0.78, PAVEMENT, part=STREET)
    g.box(-0.02, 0.775, 1.02, 0.79, KERB, part=STREET)
    g.box(-0.02, 0.79, 1.02, 1.02, ROAD, part=STREET)
    for x in np.arange(-0.05, 1.0, 0.24) + g.rng.uniform(0, 0.2):
        mark = ((x + 0.02, 0.93), (x + 0.15, 0.93), (x + 0.13, 0.955), (x, 0.955))
        g.polygon(mark, (240, 232, 200), STREET)


def _tower(g: Ground, x0: float, x1: float, top: float, wall: RGB, row: int) -> None:
    wet = g.scene.style == "cyberpunk"
    g.box(x0, top, x1, 0.75, wall, own_light=wet)
    if not row:
        return
    g.box(x0, top, x1, top + 0.02, mix(wall, (255, 255, 255), 0.35), own_light=wet)
    columns = max(2, round((x1 - x0) / 0.075))
    pitch = (x1 - x0) / columns
    for line in np.arange(top + 0.055, 0.69, 0.085):
        for column in range(columns):
            x = x0 + (column + 0.5) * pitch
            g.box(x - 0.019, line, x + 0.019, line + 0.044, *_pane(g))


def _pane(g: Ground) -> tuple[RGB, bool]:
    """A window's colour: most are lit after dark, some at sunset, in neon tones for cyberpunk."""
    if g.scene.style == "cyberpunk":
        light = g.rng.random() < 0.5
        return (NEON_LIGHTS[int(g.rng.integers(4))] if light else (20, 18, 54)), True
    share = {"day": 0.0, "sunset": 0.45, "night": 0.68}[g.scene.time]
    return ((255, 216, 112), True) if g.rng.random() < share else ((196, 224, 246), False)


def _signs_and_wet_street(g: Ground) -> None:
    """Hanging signs, and a wet road in which each of them is mirrored as a streak."""
    g.box(-0.02, 0.72, 1.02, 0.785, (52, 44, 92), own_light=True, part=STREET)
    g.box(-0.02, 0.785, 1.02, 1.02, WET_ROAD, own_light=True, part=STREET)
    turn = int(g.rng.integers(4))
    for number, middle in enumerate((0.1, 0.32, 0.68, 0.9)):
        x, light = middle + g.rng.uniform(-0.05, 0.05), NEON_LIGHTS[(number + turn) % 4]
        top, w = g.rng.uniform(0.36, 0.46), 0.034
        frame = ((x - w, top), (x + w, top), (x + w, top + 0.2), (x - w, top + 0.2))
        g.canvas.glow([*frame, *frame[:2]], light, 0.07, 0.25)
        g.canvas.polygon(frame, mix(light, (16, 8, 40), 0.7), SIGNS)
        g.canvas.line([*frame, *frame[:2]], light, 0.014, SIGNS)
        for bar in range(3):
            y = top + 0.045 + 0.055 * bar
            length = w * (0.65, 0.4, 0.55)[(bar + number) % 3]
            g.canvas.box(
                x - length, y, x + length, y + 0.02, mix(light, (255, 255, 255), 0.4), SIGNS
            )
        _streak(g, x, w, light)


def _streak(g: Ground, x: float, w: float, light: RGB) -> None:
    """The sign's light on the wet road, broken into shorter and paler pieces."""
    y = 0.795
    for piece in range(5):
        width = w * (1.25 - 0.14 * piece) * g.rng.uniform(0.8, 1.15)
        height = 0.034 - 0.003 * piece
        shade = mix(light, WET_ROAD, 0.12 + 0.13 * piece)
        g.canvas.box(x - width, y, x + width, y + height * 0.7, shade, REFLECTIONS)
        y += height
