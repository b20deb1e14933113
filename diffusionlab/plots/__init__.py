"""Ink: one function per kind of picture, `plot_<what>(record, *, ax=None)`; numbers: `analysis`.

A function is imported when it is first asked for, so that `import diffusionlab.plots` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PLACES = {
    "Figure": "figure",
    "plot_attention": "attention",
    "plot_coefficients": "samplers",
    "plot_convergence": "samplers",
    "plot_difference": "comparisons",
    "plot_latent": "latents",
    "plot_paths": "paths",
    "plot_prediction": "predictions",
    "plot_sampler_grid": "comparisons",
    "plot_schedule": "schedule",
    "plot_spacings": "spacings",
    "plot_step": "predictions",
    "plot_step_ladder": "comparisons",
    "plot_text_embedding": "text",
    "plot_tokens": "tokens",
    "plot_trace": "runs",
    "plot_update": "predictions",
}
__all__ = list(PLACES)


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(PLACES)
