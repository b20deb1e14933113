"""All cases of the gallery: what each plot is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attention
import guidance
import interior
import latents
import steps
import text
from lab import Lab

from diffusionlab import plots

Case = Callable[[Lab], tuple[Any, dict]]
AREAS: dict[str, dict[str, Case]] = {
    "Runs, steps and samplers": steps.CASES,
    "Text": text.CASES,
    "Attention": attention.CASES,
    "Guidance": guidance.CASES,
    "Latents and trajectories": latents.CASES,
    "Inside the U-Net": interior.CASES,
}


def made() -> dict[str, Case]:
    """Every case by its key: a plot's name, or "plot_name.variant"."""
    return {key: case for cases in AREAS.values() for key, case in cases.items()}


def draw(lab: Lab, key: str) -> plots.Figure:
    """The figure of one case."""
    record, options = made()[key](lab)
    return getattr(plots, key.partition(".")[0])(record, **options)
