"""The U-Net that predicts the noise, in the layout of Stable Diffusion 1.x, 2.x and XL.

Ronneberger et al. 2015 (arXiv 1505.04597); with time embedding and attention: Ho et al. 2020 (arXiv
2006.11239, appendix B); with the text by cross-attention: Rombach et al. 2022 (arXiv 2112.10752,
section 3.3). Attribute names are the key names of diffusers' checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError
from ..taps import Tap
from .attention import Transformer
from .blocks import Downsample, ResBlock, TimeEmbedding, Upsample, timestep_waves
from .conditioning import NOTHING, PreparedText, TextInput, TimeExtras
from .unet_config import CROSS_DOWN, CROSS_MID, CROSS_UP, UNetConfig


def transformer(config: UNetConfig, block: int, depth: int) -> Transformer:
    """A transformer of this block's width and heads, `depth` transformer blocks deep."""
    return Transformer(config.block_out_channels[block], config.heads[block],
                       config.cross_attention_dim, depth, config.norm_num_groups,
                       config.use_linear_projection)  # fmt: skip


def resnet(config: UNetConfig, inputs: int, outputs: int) -> ResBlock:
    """A residual block that is told the time."""
    time_width = 4 * config.block_out_channels[0]
    return ResBlock(inputs, outputs, config.norm_num_groups, config.norm_eps, time_width)


class DownBlock(nn.Module):
    """Residual blocks, each with a transformer after it where the block attends; then half size."""

    def __init__(self, config: UNetConfig, block: int):
        super().__init__()
        channels = config.block_out_channels
        inputs, outputs, layers = channels[max(block - 1, 0)], channels[block], config.layers[block]
        self.resnets = nn.ModuleList(
            resnet(config, inputs if i == 0 else outputs, outputs) for i in range(layers)
        )
        attends = config.down_block_types[block] == CROSS_DOWN
        if attends:
            self.attentions = nn.ModuleList(
                transformer(config, block, depth) for depth in config.down_depths[block]
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
    """The lowest point of the U: residual block, transformer, residual block.

    Of `UNetMidBlock2D`, which SSD-1B has, the first residual block alone.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        width = config.block_out_channels[-1]
        self.attends = config.mid_block_type == CROSS_MID
        layers = 2 if self.attends else 1
        self.resnets = nn.ModuleList(resnet(config, width, width) for _ in range(layers))
        if self.attends:
            self.attentions = nn.ModuleList([transformer(config, -1, config.mid_depth)])
        self.output = Tap()

    def forward(self, x, time, text) -> torch.Tensor:
        x = self.resnets[0](x, time)
        if self.attends:
            x = self.resnets[1](self.attentions[0](x, text), time)
        return self.output(x)


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
            resnet(config, i + s, outputs) for i, s in zip(inputs, skips, strict=True)
        )
        self.attends = config.up_block_types[step] == CROSS_UP
        if self.attends:
            self.attentions = nn.ModuleList(
                transformer(config, block, depth) for depth in config.up_depths[step]
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
        width = 4 * channels[0]
        self.time_embedding = TimeEmbedding(channels[0], width, config.time_cond_proj_dim)
        if config.addition_embed_type:
            self.add_embedding = TimeEmbedding(config.projection_class_embeddings_input_dim, width)
        self.time, self.skip = Tap(), Tap()
        self.down_blocks = nn.ModuleList(DownBlock(config, i) for i in range(config.blocks))
        self.mid_block = MidBlock(config) if config.mid_block_type else None
        self.up_blocks = nn.ModuleList(UpBlock(config, i) for i in range(config.blocks))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor | TextInput | PreparedText,
    ) -> torch.Tensor:
        """What the network says of a latent: (batch, out_channels, h, w) of eps, v or x0.

        sample (batch, in_channels, h, w); timestep () or (batch,), any real number; text (batch,
        tokens, cross_attention_dim), a `TextInput` where the model is told more than that, or what
        `prepare_text` made of either.
        """
        prepared = isinstance(text, PreparedText)
        extras = text.extras if prepared else self.time_extras(text)
        time = self.embed_time(timestep.expand(sample.shape[0]), sample.dtype, extras)
        text = text.hidden if isinstance(text, TextInput) else text
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

    def embed_time(
        self, timestep: torch.Tensor, dtype: torch.dtype, extras: TimeExtras = NOTHING
    ) -> torch.Tensor:
        """SiLU of the time embedding (batch, 4 · first width), which every residual block reads."""
        config = self.config
        waves = timestep_waves(timestep, config.block_out_channels[0], config.flip_sin_to_cos,
                               config.freq_shift)  # fmt: skip
        embedded = self.time_embedding(waves.to(dtype), extras.waves)
        if extras.added is not None:
            embedded = embedded + extras.added
        return F.silu(self.time(embedded))

    def time_extras(self, text: torch.Tensor | TextInput) -> TimeExtras:
        """What a text adds to the time embedding; InputError if it lacks what the model reads.

        The six size numbers become sinusoids as the timestep does; so does the guidance scale, as
        1000 · (scale − 1), sines first.
        """
        config, given = self.config, text if isinstance(text, TextInput) else TextInput(text)
        added = waves = None
        if config.addition_embed_type:
            if given.pooled is None or given.size_ids is None:
                raise InputError(
                    "text has no pooled row or no size_ids, which this U-Net (SDXL) reads; pass a "
                    "TextInput with both, as embed and predict do"
                )
            sizes = timestep_waves(given.size_ids.flatten(), config.addition_time_embed_dim,
                                   config.flip_sin_to_cos, config.freq_shift)  # fmt: skip
            sizes = sizes.unflatten(0, given.size_ids.shape).flatten(1).to(given.pooled.dtype)
            added = self.add_embedding(torch.cat([given.pooled, sizes], dim=-1))
        if config.time_cond_proj_dim and given.guidance is not None:
            told = 1000 * (given.guidance.float() - 1)
            waves = timestep_waves(told, config.time_cond_proj_dim, False, 1).to(given.hidden.dtype)
        return TimeExtras(added, waves)

    def prepare_text(self, text: torch.Tensor | TextInput) -> PreparedText:
        """Keys and values of every cross-attention for a text (batch, tokens, width).

        They do not change from step to step: computed once, they stand in for `text` in `forward`.
        What depends on the timestep stays in `forward`: all timesteps in one product would round
        differently, and a run would no longer equal its stages run one by one.
        """
        hidden = text.hidden if isinstance(text, TextInput) else text
        layers = [part.attn2 for part in self.modules() if hasattr(part, "attn2")]
        pairs = {layer: layer.keys_values(hidden) for layer in layers}
        return PreparedText(pairs, self.time_extras(text), len(hidden))
