"""From a scene to a picture and the exact mask of every word that it shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from diffusionlab.errors import InputError, shown
from diffusionlab.toyland.canvas import (
    GROUND,
    MOON,
    REFLECTIONS,
    SIGNS,
    SKY,
    STARS,
    STREET,
    SUN,
    Canvas,
    labels_of,
)
from diffusionlab.toyland.drawing import draw_thing
from diffusionlab.toyland.grammar import FLYING, TIMELESS
from diffusionlab.toyland.scenes import Scene
from diffusionlab.toyland.settings import NEON_DIMMING, draw_setting, draw_water_line
from diffusionlab.toyland.sky import background, draw_sky

SUPERSAMPLING = 2
SMALLEST_MASK = 12.0  # pixels at 128 px: what is smaller is not said to be visible

LIGHTS = (SUN, MOON, STARS)
EARTH = (GROUND, STREET, REFLECTIONS, SIGNS)
WHOLE = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)


@dataclass(frozen=True, eq=False)
class Rendered:
    """A picture, uint8 (size, size, 3), and word -> mask, float32 (size, size) in [0, 1]."""

    image: np.ndarray
    masks: dict[str, np.ndarray] = field(default_factory=dict)


def render(scene: Scene, size: int = 128, *, masks: bool = True) -> Rendered:
    """Draw a scene at `size` pixels (a multiple of 8 up to 512): a pure function of the scene.

    The masks come from an index picture without antialiasing, averaged over each pixel. Their keys
    are each thing's kind and its colour (the coloured part alone), the setting, the time of day
    (the sky with what is in it), and sun, moon, stars, street, wet, reflections, signs where seen.
    """
    _check_size(size)
    side = size * SUPERSAMPLING
    canvas = Canvas(side, background(side, scene.setting, scene.time, scene.style), masks)
    rng = np.random.default_rng(scene.details)
    if scene.time:
        draw_sky(canvas, scene, rng)
    draw_setting(canvas, scene, rng)
    if scene.style == "neon":
        canvas.glaze(WHOLE, *NEON_DIMMING)
    _draw_things(canvas, scene, rng)
    image = np.asarray(canvas.image.reduce(SUPERSAMPLING))
    return Rendered(image, _masks(canvas.index, scene, size) if masks else {})


def _check_size(size: object) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size % 8 or not 8 <= size <= 512:
        raise InputError(
            f"size={shown(size)} was given; a scene is drawn at a multiple of 8 from 8 to 512 "
            "pixels. Choose one, for example size=128."
        )


def _draw_things(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """The things from back to front, each in water where the scene has any."""
    for number in sorted(range(len(scene.things)), key=lambda n: scene.things[n].y):
        thing = scene.things[number]
        hangs = thing.kind in FLYING or (scene.relation == "above" and number == 0)
        in_water = scene.setting == "ocean" and not hangs
        draw_thing(canvas, scene, number)
        if in_water:
            draw_water_line(canvas, scene, thing.y - 0.03, rng)


def _masks(index: Image.Image, scene: Scene, size: int) -> dict[str, np.ndarray]:
    """Word -> share (size, size) of each pixel that the word's parts cover."""
    found = {word: _share(index, which) for word, which in _parts(scene).items()}
    least = SMALLEST_MASK * (size / 128) ** 2
    return {word: mask for word, mask in found.items() if mask.sum() >= least}


def _parts(scene: Scene) -> dict[str, tuple[int, ...]]:
    """Word -> the numbers of the index picture that it covers."""
    sky = (SKY, *LIGHTS)
    parts = {"sun": (SUN,), "moon": (MOON,), "stars": (STARS,), "street": (STREET, REFLECTIONS)}
    parts |= {"reflections": (REFLECTIONS,), "signs": (SIGNS,)}
    if scene.style == "cyberpunk":
        parts["wet"] = (STREET, REFLECTIONS)
    parts[scene.setting] = (*EARTH, *sky) if scene.setting in TIMELESS else EARTH
    if scene.time:
        parts[scene.time] = sky
    for number, thing in enumerate(scene.things):
        own, coloured = labels_of(number)
        parts[thing.kind] = (own, coloured)
        if thing.colour:
            parts[thing.colour] = (*parts.get(thing.colour, ()), coloured)
    return parts


def _share(index: Image.Image, parts: tuple[int, ...]) -> np.ndarray:
    """Box averages of "is one of the parts": 0, 63, 126, 189 or 252 out of 252, exactly."""
    table = [252 if label in parts else 0 for label in range(256)]
    cells = np.asarray(index.point(table).reduce(SUPERSAMPLING))  # (size, size)
    return cells.astype(np.float32) / 252
