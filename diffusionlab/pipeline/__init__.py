"""The frozen bundle of a model's parts, and the two functions around it: `load` and `save`.

files → weights → text → parts → folder, single_file → loading → saving; `hub` downloads,
`registry` knows names, `wrapping` takes a pipeline of diffusers. A checkpoint's files are data:
class names come from closed tables, configs are bounded, weights are safetensors, and no code of
a folder ever runs.
"""

from .bundle import LatentDiffusion
from .loading import load
from .registry import Checkpoint, checkpoints
from .saving import save

__all__ = ["Checkpoint", "LatentDiffusion", "checkpoints", "load", "save"]
