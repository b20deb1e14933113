"""Toyland: a small world of drawn, captioned scenes, and the model that was trained on it."""

from __future__ import annotations

from pathlib import Path

from diffusionlab.toyland.captions import Caption, Claim, caption, captions, is_true
from diffusionlab.toyland.grammar import (
    COLOURS,
    FULL,
    GRAMMAR_VERSION,
    OBJECTS,
    RELATIONS,
    SETTINGS,
    SHARES,
    SMALL,
    STYLES,
    TIMES,
    Share,
    held_out,
)
from diffusionlab.toyland.layout import Thing
from diffusionlab.toyland.phrases import KEPT_PROMPTS, WORDS, known_words
from diffusionlab.toyland.renderer import Rendered, render
from diffusionlab.toyland.scenes import Scene, scene

__all__ = [
    "COLOURS",
    "FULL",
    "GRAMMAR_VERSION",
    "KEPT_PROMPTS",
    "OBJECTS",
    "RELATIONS",
    "SETTINGS",
    "SHARES",
    "SMALL",
    "STYLES",
    "TIMES",
    "WORDS",
    "Caption",
    "Claim",
    "Rendered",
    "Scene",
    "Share",
    "Thing",
    "caption",
    "captions",
    "checkpoint",
    "held_out",
    "is_true",
    "known_words",
    "render",
    "scene",
]


def checkpoint() -> Path:
    """The folder of the shipped model, in diffusers' layout."""
    return Path(__file__).parent / "checkpoint"
