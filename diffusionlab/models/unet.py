"""The U-Net that predicts the noise, in the layout of Stable Diffusion 1.x and 2.x.

Ronneberger et al. 2015 (arXiv 1505.04597); with time embedding and attention: Ho et al. 2020 (arXiv
2006.11239, appendix B); with the text by cross-attention: Rombach et al. 2022 (arXiv 2112.10752,
section 3.3). Attribute names are the key names of diffusers' checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..taps import Tap
from .attention import PreparedText, Transformer
from .blocks import Downsample, ResBlock, TimeEmbedding, Upsample, timestep_waves
from .config import (
    MAX_CHANNELS,
    MAX_GROUPS,
    MAX_HEADS,
    MAX_LAYERS,
    check_channels,
    check_kinds,
    check_number,
    check_sizes,
    check_switches,
    per_block,
    read_config,
    refuse_unless,
    write_config,
)

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
DOWN_KINDS, UP_KINDS = (CROSS_DOWN, PLAIN_DOWN), (CROSS_UP, PLAIN_UP)
MID = "UNetMidBlock2DCrossAttn"

# Options of UNet2DConditionModel that are supported at this value only (diffusers' default).
FIXED = dict(
    center_input_sample=False, only_cross_attention=False, downsample_padding=1,
    mid_block_scale_factor=1, dropout=0.0, act_fn="silu", reverse_transformer_layers_per_block=None,
    encoder_hid_dim=None, encoder_hid_dim_type=None, num_attention_heads=None,
    dual_cross_attention=False, class_embed_type=None, addition_embed_type=None,
    addition_time_embed_dim=None, num_class_embeds=None, resnet_time_scale_shift="default",
    resnet_skip_time_act=False, resnet_out_scale_factor=1.0, time_embedding_type="positional",
    time_embedding_dim=None, time_embedding_act_fn=None, timestep_post_act=None,
    time_cond_proj_dim=None, conv_in_kernel=3, conv_out_kernel=3,
    projection_class_embeddings_input_dim=None, attention_type="default",
    class_embeddings_concat=False, mid_block_only_cross_attention=None, cross_attention_norm=None,
    addition_embed_type_num_heads=64,
)  # fmt: skip


@dataclass(frozen=True)
class UNetConfig:
    """`config.json` of a U-Net; missing keys are at diffusers' defaults.

    `attention_head_dim` is the *number of heads* of each block: diffusers keeps that misnomer.
    `upcast_attention` is accepted and needs nothing: fused attention sums in float32.
    """

    sample_size: int | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: tuple[str, ...] = (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, PLAIN_DOWN)
    mid_block_type: str | None = MID
    up_block_types: tuple[str, ...] = (PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    upcast_attention: bool = False

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> UNetConfig:
        """From the content of a `config.json`; errors: CheckpointError naming key and value."""
        config = read_config(cls, given, FIXED, "unet")
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that diffusers loads."""
        content = write_config(self, "UNet2DConditionModel")
        return content | {"mid_block_type": self.mid_block_type}

    def check(self) -> None:
        """Raise CheckpointError for sizes that make no network, before any memory is taken."""
        check_sizes(self, "unet", in_channels=MAX_CHANNELS, out_channels=MAX_CHANNELS,
                    norm_num_groups=MAX_GROUPS, cross_attention_dim=MAX_CHANNELS)  # fmt: skip
        check_channels(self.block_out_channels, self.norm_num_groups, "unet")
        check_switches(self, "unet")
        check_number(self.norm_eps, "unet", "norm_eps", 0, 1)
        if self.sample_size is not None:
            check_sizes(self, "unet", sample_size=MAX_CHANNELS)
        for key, allowed in (("down_block_types", DOWN_KINDS), ("up_block_types", UP_KINDS)):
            check_kinds(getattr(self, key), self.blocks, allowed, "unet", key)
        known = self.mid_block_type in (MID, None)
        refuse_unless(known, "unet", "mid_block_type", self.mid_block_type, f"{MID} or null")
        self._check_blocks()

    def _check_blocks(self) -> None:
        """Heads divide channels, lists have an entry per block, the sinusoids have a width."""
        heads, _, _ = self.heads, self.layers, self.depths  # each refuses a wrong list
        for width, count in zip(self.block_out_channels, heads, strict=True):
            allowed = f"a number of heads that divides {width} channels"
            refuse_unless(width % count == 0, "unet", "attention_head_dim", count, allowed)
        first = self.block_out_channels[0]
        refuse_unless(first % 2 == 0, "unet", "block_out_channels", first, "an even first number")
        check_number(self.freq_shift, "unet", "freq_shift", -1, first / 2)

    @property
    def blocks(self) -> int:
        """How many blocks lead down (and as many up)."""
        return len(self.block_out_channels)

    @property
    def heads(self) -> tuple[int, ...]:
        """Heads of attention in each block."""
        return self._per_block("attention_head_dim", MAX_HEADS)

    @property
    def layers(self) -> tuple[int, ...]:
        """Residual blocks of each block on the way down; there is one more on the way up."""
        return self._per_block("layers_per_block", MAX_LAYERS)

    @property
    def depths(self) -> tuple[int, ...]:
        """Transformer blocks behind each residual block."""
        return self._per_block("transformer_layers_per_block", MAX_LAYERS)

    def _per_block(self, key: str, limit: int) -> tuple[int, ...]:
        return per_block(getattr(self, key), self.blocks, limit, "unet", key)

    def transformer(self, block: int, width: int) -> Transformer:
        """A transformer of this block's heads and depth."""
        return Transformer(width, self.heads[block], self.cross_attention_dim, self.depths[block],
                           self.norm_num_groups, self.use_linear_projection)  # fmt: skip

    def resnet(self, inputs: int, outputs: int) -> ResBlock:
        """A residual block that is told the time."""
        time_width = 4 * self.block_out_channels[0]
        return ResBlock(inputs, outputs, self.norm_num_groups, self.norm_eps, time_width)


class DownBlock(nn.Module):
    """Residual blocks, each with a transformer after it where the block attends; then half size."""

    def __init__(self, config: UNetConfig, block: int):
        super().__init__()
        channels = config.block_out_channels
        inputs, outputs, layers = channels[max(block - 1, 0)], channels[block], config.layers[block]
        self.resnets = nn.ModuleList(
            config.resnet(inputs if i == 0 else outputs, outputs) for i in range(layers)
        )
        attends = config.down_block_types[block] == CROSS_DOWN
        if attends:
            self.attentions = nn.ModuleList(
                config.transformer(block, outputs) for _ in range(layers)
            )
        last = block == config.blocks - 1
        self.downsamplers = None if last else nn.ModuleList([Downsample(outputs)])
        self.attends, self.output = attends, Tap()
        self.skips = tuple(Tap() for _ in range(layers if last else layers + 1))

    def forward(self, x, time, text) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The block's output and, for the way up, what every layer of it made."""
        skips = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            if self.attends:
                x = self.attentions[i](x, text)
            skips.append(self.skips[i](x))
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(self.skips[-1](x))
        return self.output(x), skips


class MidBlock(nn.Module):
    """The lowest point of the U: residual block, transformer, residual block."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        width = config.block_out_channels[-1]
        self.resnets = nn.ModuleList(config.resnet(width, width) for _ in range(2))
        self.attentions = nn.ModuleList([config.transformer(-1, width)])
        self.output = Tap()

    def forward(self, x, time, text) -> torch.Tensor:
        x = self.attentions[0](self.resnets[0](x, time), text)
        return self.output(self.resnets[1](x, time))


class UpBlock(nn.Module):
    """The way down again, each residual block fed with a skip connection too; then double size."""

    def __init__(self, config: UNetConfig, step: int):
        super().__init__()
        channels, block = config.block_out_channels, config.blocks - 1 - step
        outputs, layers = channels[block], config.layers[block] + 1
        before = channels[min(block + 1, config.blocks - 1)]
        skips = [outputs] * (layers - 1) + [channels[max(block - 1, 0)]]
        inputs = [before] + [outputs] * (layers - 1)
        self.resnets = nn.ModuleList(
            config.resnet(i + s, outputs) for i, s in zip(inputs, skips, strict=True)
        )
        self.attends = config.up_block_types[step] == CROSS_UP
        if self.attends:
            self.attentions = nn.ModuleList(
                config.transformer(block, outputs) for _ in range(layers)
            )
        self.upsamplers = None if block == 0 else nn.ModuleList([Upsample(outputs)])
        self.output = Tap()

    def forward(self, x, skips: list[torch.Tensor], time, text) -> torch.Tensor:
        """`skips` are consumed from the end; odd sizes grow to the size of the next one."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), time)
            if self.attends:
                x = self.attentions[i](x, text)
        if self.upsamplers is not None:
            x = self.upsamplers[0](x, tuple(skips[-1].shape[-2:]))
        return self.output(x)


class UNet(nn.Module):
    """Says what the network believes about a noisy latent at a timestep, given a text."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        config.check()
        self.config, channels = config, config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0])
        self.time, self.skip = Tap(), Tap()
        self.down_blocks = nn.ModuleList(DownBlock(config, i) for i in range(config.blocks))
        self.mid_block = MidBlock(config) if config.mid_block_type else None
        self.up_blocks = nn.ModuleList(UpBlock(config, i) for i in range(config.blocks))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor | PreparedText
    ) -> torch.Tensor:
        """What the network says of a latent: (batch, out_channels, h, w) of eps, v or x0.

        sample (batch, in_channels, h, w); timestep () or (batch,), any real number; text (batch,
        tokens, cross_attention_dim) or what `prepare_text` made of it.
        """
        time = self.embed_time(timestep.expand(sample.shape[0]), sample.dtype)
        x = self.conv_in(sample)
        skips = [self.skip(x)]
        for block in self.down_blocks:
            x, made = block(x, time, text)
            skips += made
        if self.mid_block is not None:
            x = self.mid_block(x, time, text)
        for block in self.up_blocks:
            x = block(x, skips, time, text)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def embed_time(self, timestep: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """SiLU of the time embedding (batch, 4 · first width), which every residual block reads."""
        config = self.config
        waves = timestep_waves(timestep, config.block_out_channels[0], config.flip_sin_to_cos,
                               config.freq_shift)  # fmt: skip
        return F.silu(self.time(self.time_embedding(waves.to(dtype))))

    def prepare_text(self, text: torch.Tensor) -> PreparedText:
        """Keys and values of every cross-attention for a text (batch, tokens, width).

        They do not change from step to step: computed once, they stand in for `text` in `forward`.
        """
        layers = [part.attn2 for part in self.modules() if hasattr(part, "attn2")]
        return PreparedText({layer: layer.keys_values(text) for layer in layers})
