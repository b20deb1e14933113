"""Whether the parts of a model can work together, told by their configs before weights are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import CheckpointError, shown
from ..models import TinyVAEConfig, UNetConfig, VAEConfig


def check_fit(unet: UNetConfig, vae: VAEConfig | TinyVAEConfig, encoders: Sequence[Any]) -> None:
    """CheckpointError if networks of these configs cannot work together."""
    channels, latent = unet.in_channels, vae.latent_channels
    if channels != latent:
        what = " (an inpainting model)" if channels == 2 * latent + 1 else ""
        raise CheckpointError(
            f"the U-Net takes {channels} channels{what} and the VAE makes {latent}; text-to-image "
            "models take what the VAE makes; use such a checkpoint"
        )
    if unet.out_channels != channels:
        raise CheckpointError(
            f"the U-Net takes {channels} channels and says {unet.out_channels}; the samplers here "
            "need a prediction of the latent's own shape; use such a checkpoint"
        )
    if (vae.in_channels, vae.out_channels) != (3, 3):
        raise CheckpointError(
            f"the VAE takes pictures of {vae.in_channels} channels and makes {vae.out_channels}; "
            "red, green and blue are read and shown here; use a VAE of pictures in colour"
        )
    wanted = unet.cross_attention_dim
    width = sum(encoder.hidden_size for encoder in encoders)
    if wanted != width:
        who = "the text encoder writes" if len(encoders) == 1 else "the text encoders write"
        raise CheckpointError(
            f"the U-Net reads text of width {shown(wanted)} and {who} {width}; "
            "they must be equal; take all parts from one checkpoint"
        )
    pooled, last = unet.pooled_width, encoders[-1]
    if pooled and (len(encoders) != 2 or last.projection_dim != pooled):
        raise CheckpointError(
            f"the U-Net is told {pooled} numbers of pooled text (SDXL), and {len(encoders)} text "
            f"encoder(s) write {last.projection_dim}; take all parts from one checkpoint"
        )


def check_vocabulary(tokenizer: Any, encoder: nn.Module) -> None:
    """CheckpointError if the tokenizer knows ids for which the encoder has no row."""
    if len(tokenizer) > encoder.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} ids and the text encoder "
            f"{encoder.config.vocab_size} rows; every id needs one; take both from one checkpoint"
        )
