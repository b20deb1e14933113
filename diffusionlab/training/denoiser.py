"""Toyland's U-Net: predicts v at random noise levels, told the caption by cross-attention.

The text tower learns with it: a tower that was trained for minutes maps words that look alike to
it (car and boat) to nearly the same rows, and the pictures tell it which differences matter (so did
Rombach et al. 2022, arXiv 2112.10752, section 4.3.1). Every few steps the loss of `clip` is added,
so that the two towers go on matching.

v = alpha · eps − sigma · x0 (Salimans & Ho 2022, arXiv 2202.00512, section 4), mean squared error.
Half of each batch draws its timestep uniformly, half from karras_sigma = exp(N(0, 1.2²)) (Karras
et al. 2022, arXiv 2206.00364, Table 1, their P_mean −1.2 moved to 0 for the larger latents here).
One in ten captions is replaced by the empty prompt, which is what makes guidance possible (Ho &
Salimans 2022, arXiv 2207.12598).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

from ..models import UNet, UNetConfig
from ..schedule import NoiseSchedule
from .clip import Pairs, Towers, siglip_loss, token_ids
from .data import World
from .loop import Training, averaged, begin_with
from .presets import SCALED_LINEAR, Preset
from .vae import cached_latents

MATCH_EVERY, MATCH_WEIGHT, MATCHED = 8, 0.1, 32  # steps, weight and batch of the loss of `clip`


def unet_config(preset: Preset) -> dict:
    """config.json of a UNet2DConditionModel, cross-attention at every level, heads 32 wide."""
    channels, blocks = list(preset.unet_channels), len(preset.unet_channels)
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": preset.size // 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D"] * blocks,
        "up_block_types": ["CrossAttnUpBlock2D"] * blocks,
        "layers_per_block": preset.unet_layers,
        "cross_attention_dim": preset.text_width,
        "attention_head_dim": [c // 32 for c in channels],
        "norm_num_groups": 32,
    }


def draw_timesteps(schedule: NoiseSchedule, count: int, rng: np.random.Generator) -> np.ndarray:
    """int (count,): half uniform over the table, half log-normal in karras_sigma, nearest entry."""
    uniform = rng.integers(schedule.num_train_steps, size=count // 2)
    wanted = 1.2 * rng.standard_normal(count - count // 2)
    table = np.log(schedule.karras_sigma)
    nearest = np.clip(np.searchsorted(table, wanted), 0, len(table) - 1)
    return np.concatenate([uniform, nearest])


def noised(
    latents: torch.Tensor, schedule: NoiseSchedule, timesteps: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t = alpha·x0 + sigma·eps and the target v = alpha·eps − sigma·x0, of fresh noise."""
    pair = (schedule.alpha[timesteps], schedule.sigma[timesteps])
    alpha, sigma = (torch.from_numpy(p).float().view(-1, 1, 1, 1).to(latents.device) for p in pair)
    eps = torch.randn_like(latents)
    return alpha * latents + sigma * eps, alpha * eps - sigma * latents


class Learner(nn.Module):
    """The U-Net and both towers, with all that a batch is drawn from."""

    def __init__(self, folder: Path, preset: Preset, world: World):
        super().__init__()
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        self.unet = UNet(UNetConfig.from_dict(unet_config(preset)))
        self.towers = Towers(preset, len(tokenizer))
        self.towers.load_state_dict(averaged(folder / "clip"))
        self.to(preset.device)
        self.tokenizer, self.preset, self.world = tokenizer, preset, world
        self.pairs = Pairs(tokenizer, world)
        self.schedule = NoiseSchedule.from_config(SCALED_LINEAR)
        self.moments = cached_latents(folder, preset, world)

    def hidden_states(self, texts: list[str]) -> torch.Tensor:
        """The text tower's last hidden states (n, tokens, width)."""
        ids = token_ids(self.tokenizer, texts, self.preset.context_length)
        return self.towers.text(input_ids=ids.to(self.preset.device)).last_hidden_state

    def denoising_loss(self, rng: np.random.Generator, size: int) -> torch.Tensor:
        """Mean squared error of v on `size` fresh pictures, captions, noises and levels."""
        preset = self.preset
        rows = rng.integers(len(self.world.scenes), size=size)
        texts = [c.text for c in self.world.captions(rows, rng)]
        texts = ["" if rng.random() < preset.caption_dropout else text for text in texts]
        mean, std = torch.from_numpy(self.moments[:, rows]).to(preset.device).float()
        timesteps = draw_timesteps(self.schedule, len(rows), rng)
        clean = mean + std * torch.randn_like(std)
        latents, target = noised(clean, self.schedule, timesteps)
        told = torch.from_numpy(timesteps).float().to(preset.device)
        made = self.unet(latents, told, self.hidden_states(texts))
        return F.mse_loss(made.float(), target)

    def matching_loss(self, rng: np.random.Generator) -> torch.Tensor:
        """The loss of `clip` on a smaller batch."""
        size = min(MATCHED, self.preset.text_batch)
        rows = rng.integers(len(self.world.scenes), size=size)
        ids, pixels, true = (t.to(self.preset.device) for t in self.pairs.batch(rows, rng))
        return siglip_loss(self.towers(ids, pixels), true)


def train_denoiser(
    folder: Path, preset: Preset, world: World, minutes: float, start: Path | None = None
) -> None:
    """Train U-Net and towers for `minutes`; the averaged weights go below `folder`.

    `start` is a checkpoint folder whose U-Net it begins with, if that has the same shape.
    """
    learner = Learner(folder, preset, world)
    if start:
        begin_with(learner.unet, load_file(start / "unet" / "diffusion_pytorch_model.safetensors"))
    training = Training(folder / "denoiser", learner, preset.unet_rate, 0.01, minutes, ema=0.9995)
    for step in training.steps("denoiser"):
        rng = np.random.default_rng([3, step, training.rank])
        with torch.autocast(preset.device, torch.bfloat16, enabled=preset.bfloat16):
            loss = learner.denoising_loss(rng, preset.unet_batch // training.processes)
            both = loss
            if step % MATCH_EVERY == 0:
                both = loss + MATCH_WEIGHT * learner.matching_loss(rng)
        training.learn(both, v=loss, seen=(step + 1) * preset.unet_batch)
