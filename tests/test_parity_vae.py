"""Our autoencoder equals diffusers' on the same random weights, submodule by submodule."""

from __future__ import annotations

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import normal, outputs, shaken, worst_differences, wrong

from diffusionlab.models import VAE, VAEConfig, rename_attention_of_2022

# name: options of AutoencoderKL beside the block types
CONFIGS = {
    "Stable Diffusion, narrow": {
        "block_out_channels": (16, 32, 64, 64), "layers_per_block": 2, "norm_num_groups": 16},
    "Toyland": {
        "block_out_channels": (8, 16, 32, 32), "layers_per_block": 1, "norm_num_groups": 8,
        "mid_block_add_attention": False},
    "no quant_conv, 16 latent channels, shifted": {
        "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
        "use_quant_conv": False, "use_post_quant_conv": False, "latent_channels": 16,
        "shift_factor": 0.1159},
    "one block, three layers, grey": {
        "block_out_channels": (24,), "layers_per_block": 3, "norm_num_groups": 8,
        "in_channels": 1, "out_channels": 1},
}  # fmt: skip


def pair(options: dict) -> tuple[VAE, diffusers.AutoencoderKL]:
    """Our autoencoder and diffusers', of the same options and weights."""
    blocks = len(options["block_out_channels"])
    kinds = {
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = shaken(diffusers.AutoencoderKL(**kinds | options))
    ours = VAE(VAEConfig.from_dict(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs


def encoded(ours, theirs, size=(16, 24)) -> tuple[dict, dict]:
    """Submodule outputs of both while they encode, with mean and std of the latent."""
    pixels = normal(2, theirs.config.in_channels, *size)
    mine = outputs(ours, lambda net: torch.stack(net.encode(pixels)))

    def moments(net):
        made = net.encode(pixels).latent_dist
        return torch.stack([made.mean, made.std])

    return mine, outputs(theirs, moments)


def decoded(ours, theirs, size=(3, 5)) -> tuple[dict, dict]:
    """Submodule outputs of both while they decode; latents of any size, odd too."""
    latents = normal(2, theirs.config.latent_channels, *size)
    mine = outputs(ours, lambda net: net.decode(latents))
    return mine, outputs(theirs, lambda net: net.decode(latents).sample)


@pytest.mark.parametrize("direction", [encoded, decoded])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_submodule_equals_diffusers(name, direction):
    mine, reference = direction(*pair(CONFIGS[name]))
    assert wrong(mine, reference) == {} and len(reference) > 15
    print(f"{name}: {len(reference)} outputs, {max(worst_differences(mine, reference).values())}")


def test_the_standard_deviation_is_limited_as_in_diffusers():
    """The log-variance is cut to -30…20, so that no exponential overflows."""
    ours, theirs = pair(CONFIGS["Toyland"])
    with torch.no_grad():
        ours.quant_conv.bias[-4:] = theirs.quant_conv.bias[-4:] = torch.tensor([-1e3, 1e3, 0, 0])
    mine, reference = encoded(ours, theirs)
    assert wrong(mine, reference) == {}
    _, std = mine[""]  # (batch, channels, height, width)
    for channel, power in ((0, -15.0), (1, 10.0)):
        assert std[:, channel].log().sub(power).abs().max() < 1e-4


@st.composite
def drawn_options(draw) -> dict:
    """Options of a small autoencoder out of everything that we support."""
    widths = st.lists(st.sampled_from([8, 16, 24]), min_size=1, max_size=3)
    return {
        "block_out_channels": tuple(draw(widths)),
        "layers_per_block": draw(st.integers(1, 3)),
        "norm_num_groups": draw(st.sampled_from([1, 4, 8])),
        "latent_channels": draw(st.sampled_from([2, 4, 16])),
        "mid_block_add_attention": draw(st.booleans()),
        "use_quant_conv": draw(st.booleans()),
        "use_post_quant_conv": draw(st.booleans()),
    }


@settings(max_examples=10, derandomize=True, deadline=None)
@given(drawn_options())
def test_drawn_configurations_equal_diffusers(options):
    ours, theirs = pair(options)
    assert wrong(*encoded(ours, theirs)) == {}
    assert wrong(*decoded(ours, theirs)) == {}


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def as_in_2022(state: dict[str, torch.Tensor], convolutions: bool) -> dict[str, torch.Tensor]:
    """The same weights under the names of 2022, as linear layers or as 1 × 1 convolutions."""
    old = {}
    for key, value in state.items():
        for new_name, old_name in OLD_NAMES.items():
            if f".{new_name}.weight" in key and convolutions:
                value = value[:, :, None, None]
            key = key.replace(f".{new_name}.", f".{old_name}.")
        old[key] = value
    return old


@pytest.mark.parametrize("convolutions", [False, True])
def test_attention_names_of_2022_are_renamed(convolutions):
    ours, theirs = pair(CONFIGS["Stable Diffusion, narrow"])
    state = theirs.state_dict()
    old = as_in_2022(state, convolutions)
    assert len(set(old) - set(state)) == 16
    renamed = rename_attention_of_2022(old)
    ours.load_state_dict(renamed, strict=True)
    assert all(torch.equal(renamed[key], state[key]) for key in state)
    assert rename_attention_of_2022(state).keys() == state.keys()


def padded_evenly(ours):
    down = ours.encoder.down_blocks[0].downsamplers[0]
    down.lopsided, down.conv.padding = False, (1, 1)


def two_heads(ours):
    ours.encoder.mid_block.attentions[0].heads = 2


MUTANTS = {
    "encoder.down_blocks.0.downsamplers.0.conv": padded_evenly,
    "encoder.mid_block.attentions.0": two_heads,
}


@pytest.mark.parametrize("place", MUTANTS)
def test_the_check_can_fail_and_says_where(place):
    ours, theirs = pair(CONFIGS["Stable Diffusion, narrow"])
    MUTANTS[place](ours)
    assert next(iter(wrong(*encoded(ours, theirs)))) == place
    assert wrong(*decoded(ours, theirs)) == {}


@pytest.mark.slow
def test_stable_diffusion_in_full_size():
    ours, theirs = pair({"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2})
    assert sum(p.numel() for p in ours.parameters()) == 83_653_863
    for mine, reference in (encoded(ours, theirs, (64, 64)), decoded(ours, theirs, (8, 8))):
        assert wrong(mine, reference) == {} and len(reference) > 70
        print(f"{len(reference)} outputs, {max(worst_differences(mine, reference).values())}")
