"""Text-to-image diffusion, stage by stage.

    import diffusionlab as dl
    model = dl.load()
    trace = dl.generate(model, "a red car in the city at night", seed=7)
    trace.image

Importing the package loads neither torch nor matplotlib nor transformers: a name is looked up in
its module the first time it is used. `dl.generate` is the function, whatever was imported before.
"""

from __future__ import annotations

import lazy_loader

__version__ = "0.1.0"

SUBMODULES = [
    "analysis",
    "display",
    "errors",
    "ideal",
    "images",
    "inside",
    "models",
    "noise",
    "pipeline",
    "plan",
    "plots",
    "samplers",
    "schedule",
    "stages",
    "taps",
    "toyland",
    "trace",
    "views",
    "vocabulary",
]

NAMES = {
    "errors": [
        "CheckpointError",
        "DiffusionLabError",
        "InputError",
        "MemoryExceeded",
        "NumericsError",
        "TraceError",
    ],
    "budget": ["RecordingSize", "recording_size"],
    "side_by_side": ["compare"],
    "generate": ["denoise", "denoise_many", "generate"],
    "inside.anatomy": ["anatomy"],
    "inside.estimate": ["estimate"],
    "inside.interventions": [
        "freeze_attention",
        "reweight_words",
        "swap_text",
        "zero_heads",
        "zero_tap",
    ],
    "inside.merges": ["merge_steps"],
    "inside.noising": ["fit_preview", "noise_image"],
    "inside.text": ["embed_images", "embed_layers"],
    "noise": ["BrownianPath", "Sequential"],
    "pipeline": ["LatentDiffusion", "checkpoints", "load", "save"],
    "pipeline.offload": ["offloaded"],
    "playground": ["playground"],
    "samplers": ["SAMPLERS", "Sampler", "make_plan", "translate_name"],
    "schedule": ["NoiseLevel", "NoiseSchedule", "SPACINGS", "custom_spacing", "flow_levels"],
    "stages": [
        "add_noise",
        "decode",
        "draw_noise",
        "embed",
        "encode",
        "predict",
        "tokenize",
        "update",
    ],
    "taps": ["find_taps", "recording", "watching"],
    "trace": [
        "Anatomy",
        "Comparison",
        "Estimate",
        "Guidance",
        "Latent",
        "Merges",
        "Noising",
        "Prediction",
        "Settings",
        "Step",
        "TextEmbedding",
        "TextLayers",
        "Tokens",
        "Trace",
    ],
    "views": [
        "View",
        "diff",
        "exhibit",
        "explore",
        "explore_schedule",
        "explore_text",
        "quiz",
        "race",
    ],
}

_listed, _list, __all__ = lazy_loader.attach(__name__, SUBMODULES, NAMES)


def __getattr__(name: str):
    """Plots and samplers are found in their packages, so that adding one needs no line here."""
    if name in __all__ or name.startswith("_"):
        return _listed(name)
    home = _listed("plots" if name.startswith("plot_") else "samplers")
    if name in dir(home) and (name.startswith("plot_") or name in home.SAMPLERS):
        return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    plots = [name for name in dir(_listed("plots")) if name.startswith("plot_")]
    return sorted({*_list(), *plots, *_listed("samplers").SAMPLERS, "__version__"})
