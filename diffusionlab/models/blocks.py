"""What the networks are built of: residual blocks, half and double size, the time embedding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class ResBlock(nn.Module):
    """Two convolutions around what is added back (He et al. 2015, arXiv 1512.03385).

    `time_width` is the width of the time embedding, which is added between them; None in the VAE.
    Untrained, the block is the identity (or its shortcut): its last convolution starts at zero.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, eps: float, time_width: int | None = None
    ):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps=eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        if time_width is not None:
            self.time_emb_proj = nn.Linear(time_width, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps=eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        start_at_zero(self.conv2)

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        """x (batch, inputs, height, width); time (batch, time width), SiLU already applied."""
        inside = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            inside = inside + self.time_emb_proj(time)[:, :, None, None]
        inside = self.conv2(F.silu(self.norm2(inside)))
        return inside + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """A convolution of stride 2; the VAE of Stable Diffusion pads on the right and below only."""

    def __init__(self, width: int, lopsided: bool = False):
        super().__init__()
        self.lopsided = lopsided
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=0 if lopsided else 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.lopsided else x)


class Upsample(nn.Module):
    """Nearest neighbours, to twice the size or to the size asked for, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
        if size is None:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


def start_at_zero(layer: nn.Module) -> None:
    """Zero weight and bias, so that what a residual branch adds begins at nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def timestep_waves(timestep: torch.Tensor, width: int, flip: bool, shift: int) -> torch.Tensor:
    """Sinusoids of the timestep, float32 (batch, width) (arXiv 1706.03762, section 3.5).

    paper ↔ name: sin(t / 10000^(2i/d)); t = `timestep`, d = `width`. `flip` puts the cosines
    first; the last frequency is 1/10000 at `shift` 1 and just short of it at 0.
    """
    half = width // 2
    places = torch.arange(half, dtype=torch.float32, device=timestep.device)
    frequencies = torch.exp(-math.log(10_000) * places / (half - shift))
    angles = timestep.float()[:, None] * frequencies
    waves = (angles.cos(), angles.sin()) if flip else (angles.sin(), angles.cos())
    return torch.cat(waves, dim=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers from sinusoids to the width that the residual blocks read.

    `condition` is the width of further sinusoids that are added to the first ones through
    `cond_proj`: the guidance scale of a model that was distilled with it (arXiv 2310.04378).
    """

    def __init__(self, inputs: int, outputs: int, condition: int | None = None):
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)
        self.cond_proj = nn.Linear(condition, inputs, bias=False) if condition else None

    def forward(self, waves: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        if condition is not None:
            waves = waves + self.cond_proj(condition)
        return self.linear_2(F.silu(self.linear_1(waves)))
