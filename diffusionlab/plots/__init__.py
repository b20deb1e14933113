"""Ink: one function per kind of picture, `plot_<what>(record, *, ax=None)`; numbers: `analysis`.

A function is imported when it is first asked for, so that `import diffusionlab.plots` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PLACES = {
    "Figure": "figure",
    "plot_ablation": "ablations",
    "plot_attention": "attention",
    "plot_attention_heads": "attention_grids",
    "plot_attention_layers": "attention_grids",
    "plot_attention_mass": "attention_tokens",
    "plot_attention_scalings": "attention",
    "plot_attention_steps": "attention_grids",
    "plot_changes": "convergence_to_final",
    "plot_coefficients": "samplers",
    "plot_commitment": "commitment",
    "plot_compute": "interior",
    "plot_convergence": "samplers",
    "plot_difference": "comparisons",
    "plot_features": "interior",
    "plot_filmstrip": "filmstrips",
    "plot_guidance": "guidance",
    "plot_guidance_curves": "guidance",
    "plot_guidance_dial": "guidance_dial",
    "plot_guidance_sweep": "guidance_dial",
    "plot_honesty": "honesty",
    "plot_hourglass": "hourglass",
    "plot_image_text": "image_text",
    "plot_latent": "latents",
    "plot_latent_edits": "autoencoder",
    "plot_latent_histogram": "latents",
    "plot_learning": "learning",
    "plot_merges": "merges",
    "plot_noising": "noising",
    "plot_noising_curve": "noising",
    "plot_noising_spectrum": "forward",
    "plot_padding": "padding",
    "plot_paths": "paths",
    "plot_pixel_words": "attention_tokens",
    "plot_pointing": "honesty",
    "plot_prediction": "predictions",
    "plot_preview_fit": "latents",
    "plot_roundtrip": "autoencoder",
    "plot_sampler_grid": "comparisons",
    "plot_schedule": "schedule",
    "plot_segmentation": "segmentation",
    "plot_self_attention": "attention_tokens",
    "plot_similarity": "text_space",
    "plot_similarity_to_final": "convergence_to_final",
    "plot_small_steps": "forward",
    "plot_spacings": "spacings",
    "plot_spectrum": "commitment",
    "plot_step": "predictions",
    "plot_step_ladder": "comparisons",
    "plot_text_attention": "text_layers",
    "plot_text_embedding": "text",
    "plot_text_layers": "text_layers",
    "plot_text_pca": "text_space",
    "plot_time_embedding": "interior",
    "plot_token_table": "token_table",
    "plot_tokens": "tokens",
    "plot_trace": "runs",
    "plot_trajectory": "convergence_to_final",
    "plot_update": "predictions",
}
__all__ = list(PLACES)


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(PLACES)
