"""Our tiny autoencoder equals diffusers' AutoencoderTiny on the same random weights."""

from __future__ import annotations

import diffusers
import pytest
import torch
from parity import normal, shaken

from diffusionlab.errors import CheckpointError
from diffusionlab.models import TinyVAE, TinyVAEConfig

CONFIGS = {
    "TAESD": {},
    "narrow, three blocks": {
        "encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (16, 16, 16),
        "num_encoder_blocks": (1, 2, 1), "num_decoder_blocks": (2, 1, 1)},
    "16 latent channels, grey, scaled": {
        "latent_channels": 16, "in_channels": 1, "out_channels": 1, "latent_magnitude": 2,
        "latent_shift": 0.25, "scaling_factor": 0.5, "shift_factor": 0.1,
        "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8),
        "num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)},
}  # fmt: skip


def pair(name: str) -> tuple[TinyVAE, diffusers.AutoencoderTiny]:
    """Our autoencoder and diffusers', of the same options and weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = shaken(diffusers.AutoencoderTiny(**CONFIGS[name]))
    ours = TinyVAE(TinyVAEConfig.from_dict(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs


def difference(made: torch.Tensor, reference: torch.Tensor) -> float:
    return float((made - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_encode_and_decode_equal_diffusers(name):
    ours, theirs = pair(name)
    pixels = normal(2, theirs.config.in_channels, 16, 24).clamp(-1, 1)
    mean, std = ours.encode(pixels)
    assert difference(mean, theirs.encode(pixels).latents) < 1e-5 and not std.any()
    latents = 4 * normal(2, theirs.config.latent_channels, 3, 5)  # beyond ±3, where it squashes
    assert difference(ours.decode(latents), theirs.decode(latents).sample) < 1e-5
    unit = ours.to_unit(latents)
    assert torch.allclose(unit, theirs.scale_latents(latents), rtol=1e-6, atol=1e-7)
    assert torch.allclose(ours.from_unit(unit), theirs.unscale_latents(unit), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_check_can_fail():
    ours, theirs = pair("narrow, three blocks")
    latents = normal(1, 4, 3, 5)
    ours.decoder.layers[0].bias += 0.1
    assert difference(ours.decode(latents), theirs.decode(latents).sample) > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_the_config_makes_the_round_trip(name):
    config = TinyVAEConfig.from_dict({**CONFIGS[name], "block_out_channels": [1, 2]})
    assert TinyVAEConfig.from_dict(config.to_dict()) == config
    assert diffusers.AutoencoderTiny.from_config(config.to_dict()).config.latent_channels
    assert config.block_out_channels == config.decoder_block_out_channels


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"act_fn": "gelu"}, "act_fn = 'gelu'; only 'relu'"),
        ({"upsample_fn": "bilinear"}, "upsample_fn"),
        ({"latent_channels": 0}, "latent_channels = 0"),
        ({"encoder_block_out_channels": [64, 32, 64, 64]}, "repeats one width"),
        ({"decoder_block_out_channels": 64}, "repeats one width"),
        ({"num_decoder_blocks": [3, 3]}, "a list of 4 integers"),
        ({"num_encoder_blocks": [1, 1, 1, 10**6]}, "from 1 to 16"),
        (
            {"encoder_block_out_channels": [8, 8], "num_encoder_blocks": [1, 1]},
            "as many blocks as the decoder",
        ),
        ({"latent_magnitude": 0}, "latent_magnitude = 0"),
        ({"force_upcast": 3}, "true or false"),
        ({"auto": 3}, "not known"),
    ],
)
def test_configs_that_make_no_network_are_refused(changes, what):
    with pytest.raises(CheckpointError, match=what):
        TinyVAEConfig.from_dict(changes)
