"""`config.json` of a U-Net as a frozen record: what is supported, and a refusal of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    per_layer,
    read_config,
    refuse_unless,
    write_config,
)

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
DOWN_KINDS, UP_KINDS = (CROSS_DOWN, PLAIN_DOWN), (CROSS_UP, PLAIN_UP)
CROSS_MID, PLAIN_MID = "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"
DOWN_DEPTHS = "transformer_layers_per_block"
UP_DEPTHS = f"reverse_{DOWN_DEPTHS}"  # needed where the depths differ within a block
Depths = tuple[int | tuple[int, ...], ...]  # by block, or by block and layer
TEXT_TIME, SIZE_IDS = "text_time", 6  # SDXL's additions to the time embedding

# Options of UNet2DConditionModel that are supported at this value only (diffusers' default).
FIXED = dict(
    center_input_sample=False, only_cross_attention=False, downsample_padding=1,
    mid_block_scale_factor=1, dropout=0.0, act_fn="silu", encoder_hid_dim=None,
    encoder_hid_dim_type=None, num_attention_heads=None, dual_cross_attention=False,
    class_embed_type=None, num_class_embeds=None, resnet_time_scale_shift="default",
    resnet_skip_time_act=False, resnet_out_scale_factor=1.0, time_embedding_type="positional",
    time_embedding_dim=None, time_embedding_act_fn=None, timestep_post_act=None,
    conv_in_kernel=3, conv_out_kernel=3, attention_type="default",
    class_embeddings_concat=False, mid_block_only_cross_attention=None, cross_attention_norm=None,
    addition_embed_type_num_heads=64,
)  # fmt: skip


@dataclass(frozen=True)
class UNetConfig:
    """`config.json` of a U-Net; missing keys are at diffusers' defaults.

    `attention_head_dim` is the *number of heads* of each block: diffusers keeps that misnomer.
    `transformer_layers_per_block` may hold a list for a block, a number for each of its layers
    (SSD-1B); then `reverse_transformer_layers_per_block` says as much of the way up, its first
    block first.
    `addition_embed_type` "text_time" is SDXL's: the pooled text and six size numbers, each as
    `addition_time_embed_dim` sinusoids, `projection_class_embeddings_input_dim` wide together, are
    added to the time embedding. `time_cond_proj_dim` is how many sinusoids tell a distilled model
    its guidance scale.
    `upcast_attention` is accepted and needs nothing: fused attention sums in float32.
    """

    sample_size: int | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    down_block_types: tuple[str, ...] = (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, PLAIN_DOWN)
    mid_block_type: str | None = CROSS_MID
    up_block_types: tuple[str, ...] = (PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1280
    transformer_layers_per_block: int | Depths = 1
    reverse_transformer_layers_per_block: Depths | None = None
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    upcast_attention: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    time_cond_proj_dim: int | None = None

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
        known = self.mid_block_type in (CROSS_MID, PLAIN_MID, None)
        refuse_unless(known, "unet", "mid_block_type", self.mid_block_type,
                      f"{CROSS_MID}, {PLAIN_MID} or null")  # fmt: skip
        self._check_blocks()
        self._check_conditions()

    def _check_blocks(self) -> None:
        """Heads divide channels, lists have an entry per block, the sinusoids have a width."""
        heads, _ = self.heads, self.down_depths  # each refuses a wrong list
        self._check_way_up()
        for width, count in zip(self.block_out_channels, heads, strict=True):
            allowed = f"a number of heads that divides {width} channels"
            refuse_unless(width % count == 0, "unet", "attention_head_dim", count, allowed)
        first = self.block_out_channels[0]
        refuse_unless(first % 2 == 0, "unet", "block_out_channels", first, "an even first number")
        check_number(self.freq_shift, "unet", "freq_shift", -1, first / 2)

    def _check_way_up(self) -> None:
        """Depths that differ within a block come with those of the way up, as in diffusers."""
        down, value = self.transformer_layers_per_block, self.reverse_transformer_layers_per_block
        within = isinstance(down, tuple) and any(isinstance(row, tuple) for row in down)
        good = isinstance(value, tuple) or (value is None and not within)
        allowed = f"a list for the way up (since {DOWN_DEPTHS} has lists within)"
        refuse_unless(good, "unet", UP_DEPTHS, value, allowed if within else "null or a list")
        _ = self.up_depths  # refuses a wrong list

    def _check_conditions(self) -> None:
        """SDXL's additions come together, and leave room for the pooled text."""
        kind, wide = self.addition_embed_type, self.addition_time_embed_dim
        refuse_unless(kind in (None, TEXT_TIME), "unet", "addition_embed_type", kind,
                      f"null or {TEXT_TIME}")  # fmt: skip
        if self.time_cond_proj_dim is not None:
            check_sizes(self, "unet", time_cond_proj_dim=MAX_CHANNELS)
        if kind is None:
            return
        check_sizes(self, "unet", addition_time_embed_dim=MAX_CHANNELS,
                    projection_class_embeddings_input_dim=MAX_CHANNELS)  # fmt: skip
        refuse_unless(self.pooled_width > 0, "unet", "projection_class_embeddings_input_dim",
                      self.projection_class_embeddings_input_dim,
                      f"more than {SIZE_IDS} · {wide}")  # fmt: skip

    @property
    def pooled_width(self) -> int:
        """The width of the pooled text that SDXL adds to the time; 0 in other models."""
        if self.addition_embed_type is None:
            return 0
        return self.projection_class_embeddings_input_dim - SIZE_IDS * self.addition_time_embed_dim

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
    def down_depths(self) -> tuple[tuple[int, ...], ...]:
        """Transformer blocks behind each residual block of each block on the way down."""
        attends = [kind == CROSS_DOWN for kind in self.down_block_types]
        return per_layer(self.transformer_layers_per_block, self.layers, attends, MAX_LAYERS,
                         "unet", DOWN_DEPTHS)  # fmt: skip

    @property
    def mid_depth(self) -> int:
        """Transformer blocks of the mid block: as many as in the last block's first layer."""
        return self.down_depths[-1][0]

    @property
    def up_depths(self) -> tuple[tuple[int, ...], ...]:
        """Transformer blocks behind each residual block on the way up, its first block first."""
        value, key = self.reverse_transformer_layers_per_block, UP_DEPTHS
        if value is None:
            value, key = self.transformer_layers_per_block, DOWN_DEPTHS
            value = value[::-1] if isinstance(value, tuple) else value
        layers = [count + 1 for count in self.layers[::-1]]
        attends = [kind == CROSS_UP for kind in self.up_block_types]
        return per_layer(value, layers, attends, MAX_LAYERS, "unet", key)

    def _per_block(self, key: str, limit: int) -> tuple[int, ...]:
        return per_block(getattr(self, key), self.blocks, limit, "unet", key)
