"""Drawing a picture and, with the same shapes, an exact map of what is where."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from diffusionlab.toyland.grammar import RGB

# What a pixel of the index picture can be.
SKY, GROUND, SUN, MOON, STARS, STREET, REFLECTIONS, SIGNS = range(8)


def labels_of(thing: int) -> tuple[int, int]:
    """The index picture's numbers of thing 0 or 1: its own parts, its coloured part."""
    return 8 + 2 * thing, 9 + 2 * thing


_TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)  # (40, 2)


class Canvas:
    """An RGB picture of `side` pixels and its index picture, addressed in shares of the side."""

    def __init__(self, side: int, background: Image.Image, indexed: bool) -> None:
        self.side = side
        self.image = background.copy()
        self._ink = ImageDraw.Draw(self.image)
        self._glaze = ImageDraw.Draw(self.image, "RGBA")
        self.index = Image.new("L", (side, side), SKY) if indexed else None
        self._labels = ImageDraw.Draw(self.index) if indexed else None

    def polygon(self, points: np.ndarray, colour: RGB, part: int) -> None:
        """Fill a polygon of points (n, 2) as x, y from the top left corner."""
        flat = (np.asarray(points) * self.side).ravel().tolist()
        self._ink.polygon(flat, fill=colour)
        if self._labels:
            self._labels.polygon(flat, fill=part)

    def glaze(self, points: np.ndarray, colour: RGB, alpha: float) -> None:
        """Lay a transparent colour over the picture; the index picture does not change."""
        flat = (np.asarray(points) * self.side).ravel().tolist()
        self._glaze.polygon(flat, fill=(*colour, round(255 * alpha)))

    def glow(self, points: np.ndarray, colour: RGB, width: float, alpha: float) -> None:
        """Lay a transparent line through points (n, 2); the index picture does not change."""
        flat = (np.asarray(points) * self.side).ravel().tolist()
        pixels = max(1, round(width * self.side))
        self._glaze.line(flat, fill=(*colour, round(255 * alpha)), width=pixels, joint="curve")

    def halo(self, outlines: list[np.ndarray], colour: RGB, radius: float, alpha: float) -> None:
        """Soft light around filled outlines; `radius` in shares of the side."""
        small = self.side // 4
        light = Image.new("L", (small, small), 0)
        ink = ImageDraw.Draw(light)
        for points in outlines:
            ink.polygon((np.asarray(points) * small).ravel().tolist(), fill=255)
        soft = light.filter(ImageFilter.GaussianBlur(radius * small))
        share = soft.point([min(255, round(level * 2 * alpha)) for level in range(256)])
        self.image.paste(colour, (0, 0), share.resize(self.image.size, Image.Resampling.BILINEAR))

    def line(self, points: np.ndarray, colour: RGB, width: float, part: int) -> None:
        """Draw a line through points (n, 2); the width is a share of the side."""
        flat = (np.asarray(points) * self.side).ravel().tolist()
        pixels = max(1, round(width * self.side))
        joint = "curve" if pixels > 8 else None  # notches of thinner lines vanish when reduced
        self._ink.line(flat, fill=colour, width=pixels, joint=joint)
        if self._labels:
            self._labels.line(flat, fill=part, width=pixels, joint=joint)

    def ellipse(self, x, y, rx, ry, colour: RGB, part: int) -> None:
        """Fill an upright ellipse around (x, y)."""
        box = [v * self.side for v in (x - rx, y - ry, x + rx, y + ry)]
        self._ink.ellipse(box, fill=colour)
        if self._labels:
            self._labels.ellipse(box, fill=part)

    def box(self, x0, y0, x1, y1, colour: RGB, part: int) -> None:
        """Fill an upright rectangle."""
        corners = [v * self.side for v in (x0, y0, x1, y1)]
        self._ink.rectangle(corners, fill=colour)
        if self._labels:
            self._labels.rectangle(corners, fill=part)


def ellipse_points(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """An ellipse as a polygon (40, 2)."""
    return _CIRCLE * (rx, ry) + (x, y)


def gradient(side: int, stops: tuple[tuple[float, RGB], ...]) -> Image.Image:
    """A picture shaded from top to bottom through colours at given heights (0..1)."""
    heights = [height for height, _ in stops]
    rows = (np.arange(side) + 0.5) / side
    channels = [np.interp(rows, heights, [colour[c] for _, colour in stops]) for c in range(3)]
    column = np.stack(channels, axis=1).round().astype(np.uint8)  # (side, 3)
    return Image.fromarray(np.repeat(column[:, None], side, axis=1))  # (side, side, 3)
