"""One real step of the training code on a tiny U-Net, with everything counted that takes part."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from diffusionlab.claims.bench import Bench
from diffusionlab.toyland import scene
from diffusionlab.training.data import SEEDS, World
from diffusionlab.training.presets import Preset, preset
from diffusionlab.training.quality import rendered
from diffusionlab.training.written import write_json

PICTURES, BATCH = 8, 4


@dataclass(frozen=True)
class TrainingStep:
    """`calls`: how often each kind of network ran forward in the step, by its class.

    `learning`: the share of the weights of "unet" and of "text" (the text encoder, without its
    projection, which is fixed) that got a gradient.
    """

    calls: Counter
    learning: dict[str, float]


def training_step(bench: Bench) -> TrainingStep:
    """One step, made once for a bench."""
    return bench.kept("training step", lambda: _step(bench))


def _step(bench: Bench) -> TrainingStep:
    from diffusionlab.training.denoiser import Learner
    from diffusionlab.training.loop import Training

    tiny = replace(preset("smoke"), pictures=PICTURES, context_length=bench.model.context_length)
    with tempfile.TemporaryDirectory() as place, torch.random.fork_rng():
        torch.manual_seed(0)
        folder = Path(place)
        _prepare(folder, tiny, bench.model.tokenizer)
        learner = Learner(folder, tiny, _world(tiny))
        training = Training(folder / "denoiser", learner, tiny.unet_rate, 0.01, minutes=1.0)
        with _counted() as calls:
            training.learn(learner.denoising_loss(np.random.default_rng(0), BATCH))
    shares = {"unet": _share(learner.unet), "text": _share(learner.towers.text.text_model)}
    return TrainingStep(calls, shares)


def _world(tiny: Preset) -> World:
    scenes = tuple(scene(SEEDS["test"] + i, tiny.share) for i in range(tiny.pictures))
    return World(rendered(scenes, tiny.size), scenes, tiny.share)


def _prepare(folder: Path, tiny: Preset, tokenizer: Any) -> None:
    """What the earlier parts of a training run leave behind, untrained."""
    from diffusionlab.models import VAE, VAEConfig
    from diffusionlab.training.clip import Towers
    from diffusionlab.training.loop import Training
    from diffusionlab.training.vae import vae_config

    tokenizer.save_pretrained(folder / "tokenizer")
    Training(folder / "clip", Towers(tiny, len(tokenizer)), 1.0, 0.0, minutes=1.0).save()
    config = vae_config(tiny) | {"scaling_factor": 1.0}
    write_json(folder / "vae" / "config.json", config)
    vae = VAE(VAEConfig.from_dict(config))
    Training(folder / "vae", vae, 1.0, 0.0, minutes=1.0).save()


@contextmanager
def _counted() -> Iterator[Counter]:
    """How often each class of module runs forward while the block lasts."""
    calls: Counter = Counter()
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, given, made: calls.update([type(module).__name__])
    )
    try:
        yield calls
    finally:
        hook.remove()


def _share(part: nn.Module) -> float:
    """The share of a part's weights that have a gradient."""
    sizes = [(weights.numel(), weights.grad is not None) for weights in part.parameters()]
    return sum(size for size, learns in sizes if learns) / sum(size for size, _ in sizes)
