"""A tiny autoencoder in the layout of diffusers' AutoencoderTiny (TAESD): latents seen at once.

Distilled from Stable Diffusion's autoencoder by O. B. Bohan (github.com/madebyollin/taesd): plain
convolutions, about 1.2 million numbers each way. Its latents need no scaling. Attribute names are
the key names of diffusers' checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..taps import Tap
from .config import (
    MAX_CHANNELS,
    MAX_LAYERS,
    check_number,
    check_sizes,
    check_switches,
    is_size,
    read_config,
    refuse_unless,
    write_config,
)

# Options of AutoencoderTiny that are supported at this value only.
FIXED = dict(act_fn="relu", upsample_fn="nearest", upsampling_scaling_factor=2)
TINY = "AutoencoderTiny"


@dataclass(frozen=True)
class TinyVAEConfig:
    """`config.json` of a tiny autoencoder; missing keys are at diffusers' defaults.

    One entry per block: its width and how many small residual blocks it has. Latents of
    ±`latent_magnitude` around `latent_shift` fill 0…1 when they are stored as a picture.
    """

    in_channels: int = 3
    out_channels: int = 3
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_channels: int = 4
    latent_magnitude: float = 3
    latent_shift: float = 0.5
    scaling_factor: float = 1.0
    shift_factor: float = 0.0
    force_upcast: bool = False

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> TinyVAEConfig:
        """From the content of a `config.json`; errors: CheckpointError naming key and value."""
        # diffusers writes the decoder's widths a second time
        given = {key: value for key, value in given.items() if key != "block_out_channels"}
        config = read_config(cls, given, FIXED, "vae")
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that diffusers loads."""
        return write_config(self, TINY)

    @property
    def block_out_channels(self) -> tuple[int, ...]:
        """The decoder's widths: one block per halving and one more, as in `VAEConfig`."""
        return self.decoder_block_out_channels

    @property
    def sample_size(self) -> None:
        """A tiny autoencoder's config names no picture size."""
        return

    def check(self) -> None:
        """Raise CheckpointError for sizes that make no network, before any memory is taken."""
        check_sizes(self, "vae", in_channels=MAX_CHANNELS, out_channels=MAX_CHANNELS,
                    latent_channels=MAX_CHANNELS)  # fmt: skip
        check_switches(self, "vae")
        for side in ("encoder", "decoder"):
            self._check_blocks(f"{side}_block_out_channels", f"num_{side}_blocks")
        same = len(self.encoder_block_out_channels) == len(self.decoder_block_out_channels)
        refuse_unless(same, "vae", "encoder_block_out_channels", self.encoder_block_out_channels,
                      "as many blocks as the decoder has")  # fmt: skip
        check_number(self.latent_magnitude, "vae", "latent_magnitude", 0, 1e6)
        check_number(self.scaling_factor, "vae", "scaling_factor", 0, 1e6)
        for key in ("latent_shift", "shift_factor"):
            check_number(getattr(self, key), "vae", key, -1e6, 1e6)

    def _check_blocks(self, widths_key: str, counts_key: str) -> None:
        """A width and a count per block; the widths are equal: nothing changes them."""
        widths, counts = getattr(self, widths_key), getattr(self, counts_key)
        good = isinstance(widths, tuple) and 1 <= len(widths) <= MAX_LAYERS
        good = good and all(is_size(w, MAX_CHANNELS) for w in widths) and len(set(widths)) == 1
        refuse_unless(good, "vae", widths_key, widths, "a list that repeats one width")
        good = isinstance(counts, tuple) and len(counts) == len(widths)
        good = good and all(is_size(count, MAX_LAYERS) for count in counts)
        allowed = f"a list of {len(widths)} integers from 1 to {MAX_LAYERS}"
        refuse_unless(good, "vae", counts_key, counts, allowed)


class TinyBlock(nn.Module):
    """Three convolutions with ReLU between them, added to what was there."""

    def __init__(self, width: int):
        super().__init__()
        convolutions = [_convolution(width, width) for _ in range(3)]
        self.conv = nn.Sequential(
            convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x) + x)


class TinyEncoder(nn.Module):
    """Pixels -1…1 to a latent: every block but the first halves."""

    def __init__(self, config: TinyVAEConfig):
        super().__init__()
        widths, layers = config.encoder_block_out_channels, []
        for block, (width, count) in enumerate(zip(widths, config.num_encoder_blocks, strict=True)):
            first = _convolution(config.in_channels, width)
            layers += [_convolution(width, width, stride=2, bias=False) if block else first]
            layers += [TinyBlock(width) for _ in range(count)]
        self.layers = nn.Sequential(*layers, _convolution(widths[-1], config.latent_channels))
        self.output = Tap()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.output(self.layers((pixels + 1) / 2))


class TinyDecoder(nn.Module):
    """A latent, squashed into ±3, to pixels -1…1: every block but the last doubles."""

    def __init__(self, config: TinyVAEConfig):
        super().__init__()
        widths, counts = config.decoder_block_out_channels, config.num_decoder_blocks
        layers = [_convolution(config.latent_channels, widths[0]), nn.ReLU()]
        for width, count in zip(widths[:-1], counts[:-1], strict=True):
            layers += [TinyBlock(width) for _ in range(count)]
            layers += [nn.Upsample(scale_factor=2), _convolution(width, width, bias=False)]
        layers += [TinyBlock(widths[-1]) for _ in range(counts[-1])]
        self.layers = nn.Sequential(*layers, _convolution(widths[-1], config.out_channels))
        self.output = Tap()

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.output(self.layers(torch.tanh(latents / 3) * 3)) * 2 - 1


def _convolution(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride, bias=bias)


class TinyVAE(nn.Module):
    """A small encoder and decoder that stand where a `VAE` stands, for quick pictures."""

    def __init__(self, config: TinyVAEConfig):
        super().__init__()
        config.check()
        self.config = config
        self.encoder, self.decoder = TinyEncoder(config), TinyDecoder(config)

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The latent (batch, latent channels, h, w) and its standard deviation, which is 0.

        pixels (batch, 3, 8h, 8w) in -1…1; 8 is 2 per block but the last.
        """
        latents = self.encoder(pixels)
        return latents, torch.zeros_like(latents)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (batch, 3, 8h, 8w), about -1…1, of latents (batch, latent channels, h, w)."""
        return self.decoder(latents)

    def to_unit(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as numbers 0…1, which a picture file can hold; what lies outside is cut off."""
        config = self.config
        return (latents / (2 * config.latent_magnitude) + config.latent_shift).clamp(0, 1)

    def from_unit(self, values: torch.Tensor) -> torch.Tensor:
        """Latents from numbers 0…1: the way back of `to_unit`."""
        return (values - self.config.latent_shift) * (2 * self.config.latent_magnitude)
