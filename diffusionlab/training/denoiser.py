"""Toyland's U-Net: predicts v at random noise levels, told the caption by cross-attention.

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
from torch import nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from ..models import UNet, UNetConfig
from ..schedule import NoiseSchedule
from .clip import token_ids
from .data import World
from .loop import Training, averaged
from .presets import SCALED_LINEAR, Preset
from .vae import cached_latents


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


class Conditioning:
    """Captions to the text tower's hidden states (n, tokens, width)."""

    def __init__(self, folder: Path, preset: Preset):
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        tower = CLIPTextModelWithProjection.from_pretrained(
            folder / "clip" / "text_tower", local_files_only=True
        )
        self.tower, self.preset = tower.eval().to(preset.device), preset

    def __call__(self, texts: list[str]) -> torch.Tensor:
        ids = token_ids(self.tokenizer, texts, self.preset.context_length)
        return self.tower(input_ids=ids.to(self.preset.device)).last_hidden_state


def batch_loss(unet, conditioning, world, moments, schedule, preset, step) -> torch.Tensor:
    """Mean squared error of v on one batch: fresh pictures, captions, noise and levels."""
    rng = np.random.default_rng([3, step])
    rows = rng.integers(len(world.scenes), size=preset.unet_batch)
    texts = [c.text for c in world.captions(rows, rng)]
    texts = ["" if rng.random() < preset.caption_dropout else text for text in texts]
    mean, std = torch.from_numpy(moments[:, rows]).to(preset.device).float()
    timesteps = draw_timesteps(schedule, len(rows), rng)
    latents, target = noised(mean + std * torch.randn_like(std), schedule, timesteps)
    told = torch.from_numpy(timesteps).float().to(preset.device)
    with torch.autocast(preset.device, torch.bfloat16, enabled=preset.bfloat16):
        made = unet(latents, told, conditioning(texts))
    return F.mse_loss(made.float(), target)


def train_denoiser(folder: Path, preset: Preset, world: World, minutes: float) -> None:
    """Train the U-Net for `minutes`, told by the frozen text tower; weights go below `folder`."""
    conditioning = Conditioning(folder, preset)
    conditioning.tower.requires_grad_(False)
    unet = UNet(UNetConfig.from_dict(unet_config(preset))).to(preset.device)
    training = Training(folder / "denoiser", unet, preset.unet_rate, 0.01, minutes, ema=0.9995)
    _learn(training, "denoiser", unet, conditioning, folder, preset, world)


def train_together(folder: Path, preset: Preset, world: World, minutes: float) -> None:
    """Train the U-Net and the text tower on together, on the same loss.

    A tower that was trained for minutes maps words that look alike to it (car and boat) to nearly
    the same rows; the pictures tell it which differences matter (so did Rombach et al. 2022, arXiv
    2112.10752, section 4.3.1, who trained theirs with the U-Net from the start).
    """
    conditioning = Conditioning(folder, preset)
    unet = UNet(UNetConfig.from_dict(unet_config(preset))).to(preset.device)
    unet.load_state_dict(averaged(folder / "denoiser"))
    both = nn.ModuleDict({"unet": unet, "tower": conditioning.tower})
    training = Training(folder / "together", both, preset.unet_rate / 2, 0.01, minutes)
    _learn(training, "together", unet, conditioning, folder, preset, world)


def _learn(training, title, unet, conditioning, folder, preset, world) -> None:
    schedule = NoiseSchedule.from_config(SCALED_LINEAR)
    moments = cached_latents(folder, preset, world)
    for step in training.steps(title):
        loss = batch_loss(unet, conditioning, world, moments, schedule, preset, step)
        training.learn(loss, seen=(step + 1) * preset.unet_batch)
