"""The runs that the gallery is made from, each made once, when it is first asked for."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from functools import cached_property, partial

import torch

import diffusionlab as dl

PROMPT, OTHER = "a red car in the city at night", "a red dress near a blue car"
SETTINGS = dict(seed=1, num_steps=20, sampler="ddim", guidance_scale=4.0, progress=False)


class Lab:
    """Toyland (or the folder in DIFFUSIONLAB_MODEL) and its runs of one prompt."""

    @cached_property
    def model(self):
        """The model of all pictures."""
        return dl.load(os.environ.get("DIFFUSIONLAB_MODEL", "toyland"))

    @cached_property
    def run(self):
        """`run(prompt="…")`, `run(record={…})`: one run at the gallery's settings."""
        return partial(dl.generate, self.model, **{"prompt": PROMPT} | SETTINGS)

    @cached_property
    def untrained(self):
        """The same model with a U-Net of random weights: the build without what was learned."""
        unet = copy.deepcopy(self.model.unet)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for part in unet.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
        return replace(self.model, unet=unet)

    @cached_property
    def trace(self):
        """The run of PROMPT with predictions, attention and decoded frames."""
        return self.run(record={"predictions", "attention", "frames"})

    @cached_property
    def heads(self):
        """The same run with every head of the cross-attention."""
        return self.run(record={"predictions", "attention", "heads"})

    def decode(self, latent):
        """A latent as a PIL image."""
        return dl.decode(self.model, torch.as_tensor(latent))

    def encode(self, image):
        """A PIL image as a NumPy latent (channels, h, w)."""
        return dl.encode(self.model, image).values.cpu().numpy()
