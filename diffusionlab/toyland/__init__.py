"""Toyland: a small world of drawn, captioned scenes, and the model that was trained on it."""

from __future__ import annotations

from pathlib import Path

from diffusionlab.toyland.captions import WORDS, Caption, caption, captions, is_true
from diffusionlab.toyland.grammar import (
    COLOURS,
    GRAMMAR_VERSION,
    OBJECTS,
    SETTINGS,
    TIMES,
    held_out,
)
from diffusionlab.toyland.renderer import Rendered, render
from diffusionlab.toyland.scenes import Scene, scene

__all__ = [
    "COLOURS",
    "GRAMMAR_VERSION",
    "OBJECTS",
    "SETTINGS",
    "TIMES",
    "WORDS",
    "Caption",
    "Rendered",
    "Scene",
    "caption",
    "captions",
    "checkpoint",
    "held_out",
    "is_true",
    "render",
    "scene",
]


def checkpoint() -> Path:
    """The folder of the shipped model, in diffusers' layout."""
    return Path(__file__).parent / "checkpoint"
