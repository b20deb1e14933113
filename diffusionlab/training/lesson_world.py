"""The small world of a lesson, its captions and pictures, and the network that is to learn it."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from ..pipeline import LatentDiffusion
from ..toyland import render, scene
from .data import SEEDS

KINDS, COLOURS, TIMES = ("house", "balloon"), ("red", "yellow", "blue"), ("day", "night")
SETTING, CELLS = "meadow", 8  # one place; latent cells to a side
FIRST_SEED = SEEDS["test"] + 7_000_000


def captions() -> list[tuple[str, dict[str, str]]]:
    """Every caption of the lesson's world with the words that its scenes are drawn from."""
    words = [dict(object=k, colour=c, time=t) for t, c, k in product(TIMES, COLOURS, KINDS)]
    return [(f"a {w['colour']} {w['object']} in the {SETTING} at {w['time']}", w) for w in words]


EMPTY = len(captions())  # the place of the empty prompt, behind them all
PROMPTS = tuple(captions()[i][0] for i in (0, 5, 8, 7))  # those of a look


def told_at(prompt: str) -> int:
    """The place of a caption among all."""
    return [text for text, _ in captions()].index(prompt)


def drawn_scene(number: int, words: dict[str, str], size: int) -> np.ndarray:
    """The scene of a number, uint8 (size, size, 3), with these words fixed."""
    shown = scene(FIRST_SEED + number, setting=SETTING, style="plain", **words)
    side = 8 * math.ceil(size / 8)  # the renderer's sizes
    pixels = render(shown, side, masks=False).image
    if side == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size)))


def unet_config(model: LatentDiffusion) -> dict[str, Any]:
    """config.json of the lesson's network: two levels, attention at the lower one alone."""
    config, given = {}, model.unet.config
    if model.is_xl:  # it is told the pooled text and the sizes too
        names = ("addition_embed_type", "addition_time_embed_dim",
                 "projection_class_embeddings_input_dim")  # fmt: skip
        config = {name: getattr(given, name) for name in names}
    return config | {
        "_class_name": "UNet2DConditionModel",
        "sample_size": CELLS,
        "in_channels": model.latent_channels,
        "out_channels": model.latent_channels,
        "block_out_channels": [32, 64],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": given.cross_attention_dim,
        "attention_head_dim": [1, 2],
        "norm_num_groups": 16,
    }
