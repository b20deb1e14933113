"""The plots of the U-Net's interior, each on a run of the gallery's prompt."""

from __future__ import annotations

import os

from lab import PROMPT, SETTINGS, Lab

import diffusionlab as dl
from diffusionlab.analysis.ablations import ablate

INSIDE = {"predictions", "blocks", "time", "*skip*"}


def without_skips(lab: Lab):
    """The run without each of the skip connections, one at a time."""

    def run(name: str):
        with dl.zero_tap(lab.model, name):
            return lab.run()

    names = [skip.tap for skip in dl.anatomy(lab.model).skips]
    return ablate(lab.trace, run, names, what="skip connection"), {}


def without_attention(lab: Lab):
    """The run without each head of one layer of cross-attention."""
    cross = dl.anatomy(lab.model).cross
    layer = max((name for name in cross if name.startswith("up")), key=lambda name: cross[name][0])

    def run(name: str):
        with dl.zero_heads(
            lab.model, layer.removesuffix(".probabilities"), heads=(int(name.split()[-1]),)
        ):
            return lab.run()

    names = [f"head {i}" for i in range(cross[layer][0])]
    return ablate(lab.trace, run, names, what="head of one cross-attention"), {}


def untrained(lab: Lab):
    """The same picture from a network of random weights: what is the build, and what is learned."""
    return dl.generate(lab.untrained, **{"prompt": PROMPT} | SETTINGS, record=INSIDE), {}


def stable_diffusion(lab: Lab):
    """The build of Stable Diffusion 1.5, from its sizes alone: no weight of it is needed."""
    from types import SimpleNamespace

    import torch

    from diffusionlab.models.unet import UNet, UNetConfig

    config = UNetConfig(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
        cross_attention_dim=768, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip
    with torch.device("meta"):
        unet = UNet(config)
    sizes = dict(latent_channels=4, size_factor=8, context_length=77, size=512)
    return dl.anatomy(SimpleNamespace(unet=unet, name="Stable Diffusion 1.5", **sizes)), {}


def lesson(lab: Lab):
    """A small U-Net that learned for a while with the model's frozen parts around it."""
    from diffusionlab.training.lesson import Lesson

    *_, record = Lesson(lab.model, seed=1).learn(float(os.environ.get("LESSON_SECONDS", "45")))
    return record, {}


def named_cells(lab: Lab):
    """A cat and a car, named by the judges' segmenter."""
    from diffusionlab.toyland import SMALL, scene
    from diffusionlab.training.segmented import name_cells

    words = dict(object="cat", colour="orange", other="car", other_colour="red", setting="city")
    return name_cells(scene(3, SMALL, time="day", **words)), {}


def with_options(**options):
    """The run with its inside recorded, and these options."""
    return lambda lab: (lab.run(record=INSIDE), options)


CASES = {
    "plot_hourglass": lambda lab: (dl.anatomy(lab.model), {}),
    "plot_hourglass.stable_diffusion": stable_diffusion,
    "plot_hourglass.wide": lambda lab: (dl.anatomy(lab.model, height=128, width=256), {}),
    "plot_compute": lambda lab: (dl.anatomy(lab.model), {}),
    "plot_compute.stable_diffusion": stable_diffusion,
    "plot_compute.large": lambda lab: (dl.anatomy(lab.model, height=512, width=512), {}),
    "plot_features": with_options(),
    "plot_features.one": with_options(tap="up_blocks.0.output", most=8),
    "plot_features.steps": with_options(steps=[0, 2, 4, 7, 11, 15, 19]),
    "plot_features.skips": with_options(tap="*skip*"),
    "plot_features.random_weights": untrained,
    "plot_time_embedding": with_options(),
    "plot_ablation": without_skips,
    "plot_ablation.heads": without_attention,
    "plot_learning": lesson,
    "plot_segmentation": named_cells,
}
