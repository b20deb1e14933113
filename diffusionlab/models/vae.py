"""The autoencoder between pixels and latents, in the layout of Stable Diffusion's AutoencoderKL.

Kingma & Welling 2013 (arXiv 1312.6114); as a first stage: Rombach et al. 2022 (arXiv 2112.10752,
section 3.1). Attribute names are the key names of diffusers' checkpoints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..taps import Tap
from .attention import Attention
from .blocks import Downsample, ResBlock, Upsample
from .config import (
    MAX_CHANNELS,
    MAX_GROUPS,
    MAX_LAYERS,
    check_channels,
    check_kinds,
    check_number,
    check_sizes,
    check_switches,
    read_config,
    write_config,
)

DOWN, UP, EPS = "DownEncoderBlock2D", "UpDecoderBlock2D", 1e-6

# Options of AutoencoderKL that are supported at this value only, or that this lab does not need.
FIXED = dict(act_fn="silu", latents_mean=None, latents_std=None)


@dataclass(frozen=True)
class VAEConfig:
    """`config.json` of an autoencoder; missing keys are at diffusers' defaults.

    latent the U-Net sees = (latent − shift_factor) · scaling_factor. `force_upcast` says that
    float16 overflows in this network.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = (DOWN,)
    up_block_types: tuple[str, ...] = (UP,)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> VAEConfig:
        """From the content of a `config.json`; errors: CheckpointError naming key and value."""
        config = read_config(cls, given, FIXED, "vae")
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that diffusers loads."""
        return write_config(self, "AutoencoderKL")

    def check(self) -> None:
        """Raise CheckpointError for sizes that make no network, before any memory is taken."""
        check_sizes(self, "vae", in_channels=MAX_CHANNELS, out_channels=MAX_CHANNELS,
                    latent_channels=MAX_CHANNELS, norm_num_groups=MAX_GROUPS,
                    layers_per_block=MAX_LAYERS, sample_size=MAX_CHANNELS)  # fmt: skip
        check_channels(self.block_out_channels, self.norm_num_groups, "vae")
        check_switches(self, "vae")
        for key, kind in (("down_block_types", DOWN), ("up_block_types", UP)):
            blocks = len(self.block_out_channels)
            check_kinds(getattr(self, key), blocks, (kind,), "vae", key)
        check_number(self.scaling_factor, "vae", "scaling_factor", 0, 1e6)
        if self.shift_factor is not None:
            check_number(self.shift_factor, "vae", "shift_factor", -1e6, 1e6)

    def resnet(self, inputs: int, outputs: int) -> ResBlock:
        """A residual block without time."""
        return ResBlock(inputs, outputs, self.norm_num_groups, EPS)

    def resnets(self, inputs: int, outputs: int, layers: int) -> nn.ModuleList:
        """`layers` residual blocks, the first of which changes the width."""
        return nn.ModuleList(
            self.resnet(inputs if i == 0 else outputs, outputs) for i in range(layers)
        )


class SpatialAttention(Attention):
    """Every place looks at every other place, one head, added to what was there."""

    def __init__(self, width: int, groups: int):
        super().__init__(width, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, width, eps=EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = tuple(x.shape[-2:])
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (batch, height · width, width)
        return x + super().forward(tokens, size).transpose(1, 2).unflatten(2, size)


class Middle(nn.Module):
    """Residual block, attention where the config has it, residual block."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        width = config.block_out_channels[-1]
        self.resnets = nn.ModuleList(config.resnet(width, width) for _ in range(2))
        attends = [SpatialAttention(width, config.norm_num_groups)] * config.mid_block_add_attention
        self.attentions = nn.ModuleList(attends)
        self.output = Tap()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.output(self.resnets[1](x))


class Down(nn.Module):
    """Residual blocks, then half size unless this is the last block."""

    def __init__(self, config: VAEConfig, block: int):
        super().__init__()
        channels = config.block_out_channels
        inputs, outputs = channels[max(block - 1, 0)], channels[block]
        self.resnets = config.resnets(inputs, outputs, config.layers_per_block)
        last = block == len(channels) - 1
        self.downsamplers = None if last else nn.ModuleList([Downsample(outputs, lopsided=True)])
        self.output = Tap()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return self.output(x if self.downsamplers is None else self.downsamplers[0](x))


class Up(nn.Module):
    """Residual blocks, then double size unless this is the last block."""

    def __init__(self, config: VAEConfig, step: int):
        super().__init__()
        channels = config.block_out_channels[::-1]
        inputs, outputs = channels[max(step - 1, 0)], channels[step]
        self.resnets = config.resnets(inputs, outputs, config.layers_per_block + 1)
        last = step == len(channels) - 1
        self.upsamplers = None if last else nn.ModuleList([Upsample(outputs)])
        self.output = Tap()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return self.output(x if self.upsamplers is None else self.upsamplers[0](x))


class Encoder(nn.Module):
    """Pixels to the mean and log-variance of a latent, still before `quant_conv`."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(Down(config, i) for i in range(len(channels)))
        self.mid_block = Middle(config)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[-1], eps=EPS)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """A latent to pixels: middle first, then up to the picture's size."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = nn.Conv2d(config.latent_channels, channels[-1], 3, padding=1)
        self.mid_block = Middle(config)
        self.up_blocks = nn.ModuleList(Up(config, i) for i in range(len(channels)))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[0], eps=EPS)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """Encoder and decoder of a picture; latents here are *not* multiplied by the scaling factor."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        config.check()
        self.config, latent = config, config.latent_channels
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        if config.use_quant_conv:
            self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
        if config.use_post_quant_conv:
            self.post_quant_conv = nn.Conv2d(latent, latent, 1)

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the latent, (batch, latent channels, h, w) each.

        pixels (batch, 3, 8h, 8w) in -1…1; 8 is 2 per block but the last (arXiv 1312.6114, Eq. 9).
        """
        moments = self.encoder(pixels)
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, (0.5 * log_variance.clamp(-30, 20)).exp()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (batch, 3, 8h, 8w), about -1…1, of latents (batch, latent channels, h, w)."""
        if self.config.use_post_quant_conv:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)


NAMES_OF_2022 = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def rename_attention_of_2022(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Checkpoint keys with the attention names that diffusers had in 2022 written as today's.

    Their weights may be 1 × 1 convolutions, which become (out, in) matrices.
    """
    renamed = {}
    for key, value in state.items():
        old = re.search(r"attentions\.\d+\.(query|key|value|proj_attn)\.(weight|bias)$", key)
        if old:
            key = f"{key[: old.start(1)]}{NAMES_OF_2022[old[1]]}.{old[2]}"
            value = value.flatten(1) if old[2] == "weight" else value
        renamed[key] = value
    return renamed
