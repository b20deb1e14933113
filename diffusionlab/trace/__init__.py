"""The record of a run: the only bridge between the machine (torch) and the views (NumPy).

`Trace` holds `Step`s, a `Step` holds `Prediction`s; each is a frozen record that shows itself.
Nothing here imports torch, and no file is ever unpickled.
"""

from diffusionlab.plan import Step
from diffusionlab.trace.estimate import Estimate, StageCost
from diffusionlab.trace.filmstrip import filmstrip_of, step_caption
from diffusionlab.trace.guidance import Guidance, as_guidance
from diffusionlab.trace.inside import Anatomy, Block, Merge, Merges, Noising, Skip, TextLayers
from diffusionlab.trace.learning import Learning, Moment
from diffusionlab.trace.records import Latent, Prediction, Settings, TextEmbedding, Tokens
from diffusionlab.trace.run import Comparison, Trace
from diffusionlab.trace.segmentation import Segmentation
from diffusionlab.trace.summary import Statistics, byte_count, statistics, to_numpy

__all__ = [
    "Anatomy",
    "Block",
    "Comparison",
    "Estimate",
    "Guidance",
    "Latent",
    "Learning",
    "Merge",
    "Merges",
    "Moment",
    "Noising",
    "Prediction",
    "Segmentation",
    "Settings",
    "Skip",
    "StageCost",
    "Statistics",
    "Step",
    "TextEmbedding",
    "TextLayers",
    "Tokens",
    "Trace",
    "as_guidance",
    "byte_count",
    "filmstrip_of",
    "statistics",
    "step_caption",
    "to_numpy",
]
