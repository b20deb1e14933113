"""The ground as a setting draws it: one light, one label, hills by a formula."""

from __future__ import annotations

import numpy as np

from diffusionlab.toyland.canvas import GROUND, Canvas
from diffusionlab.toyland.grammar import RGB, lit
from diffusionlab.toyland.scenes import Scene
from diffusionlab.toyland.sky import OWN_LIGHT, SCENERY_LIGHT

ACROSS = np.linspace(-0.02, 1.02, 40)


class Ground:
    """The canvas as a setting sees it: one light, one part, hills by a formula."""

    def __init__(self, canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
        self.canvas, self.scene, self.rng = canvas, scene, rng
        self.light = OWN_LIGHT.get((scene.setting, scene.time), SCENERY_LIGHT[scene.time])
        self.dark = scene.time == "night"

    def colour(self, colour: RGB) -> RGB:
        return lit(colour, self.light)

    def polygon(self, points, colour: RGB, part: int = GROUND) -> None:
        self.canvas.polygon(points, self.colour(colour), part)

    def box(self, x0, y0, x1, y1, colour: RGB, own_light: bool = False, part=GROUND) -> None:
        colour = colour if own_light else self.colour(colour)
        self.canvas.box(x0, y0, x1, y1, colour, part)

    def ellipse(self, x, y, rx, ry, colour: RGB) -> None:
        self.canvas.ellipse(x, y, rx, ry, self.colour(colour), GROUND)

    def hill(self, y: float, swing: float, waves: float, colour: RGB) -> np.ndarray:
        """Fill everything below a rolling line; the line's heights (40,) come back."""
        line = y + swing * np.sin(ACROSS * waves * 2 * np.pi + self.rng.uniform(0, 6.3))
        self.under(np.stack([ACROSS, line], axis=1), colour)
        return line

    def under(self, line: np.ndarray, colour: RGB) -> None:
        """Fill from a line (n, 2) down to the bottom edge."""
        self.polygon(np.concatenate([line, [(1.02, 1.02), (-0.02, 1.02)]]), colour)
