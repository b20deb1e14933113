"""The frozen bundle of a model's parts, and the two functions around it: `load` and `save`.

files → weights → text → loading → saving; `hub` downloads. A checkpoint is a folder in diffusers'
layout and its files are data: class names come from closed tables, configs are bounded, weights
are safetensors, and no code of a folder ever runs.
"""

from .bundle import LatentDiffusion
from .loading import load
from .saving import save

__all__ = ["LatentDiffusion", "load", "save"]
