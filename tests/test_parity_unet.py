"""Our U-Net equals diffusers' UNet2DConditionModel on the same random weights, block by block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_same, blocks_of, inner_outputs, normal, share_weights

from diffusionlab.models import UNet, UNetConfig

diffusers = pytest.importorskip("diffusers")

CROSS_DOWN, DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, UP = "CrossAttnUpBlock2D", "UpBlock2D"
SMALL = {
    "sample_size": 8,
    "block_out_channels": [16, 32],
    "down_block_types": [CROSS_DOWN, DOWN],
    "up_block_types": [UP, CROSS_UP],
    "layers_per_block": 2,
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
FOUR = {
    "block_out_channels": [16, 32, 32, 48],
    "down_block_types": [CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN],
    "up_block_types": [UP, CROSS_UP, CROSS_UP, CROSS_UP],
}
# name → (what differs from SMALL, height, width)
CONFIGS = {
    "SD 1.x": (FOUR, 16, 16),
    "SD 2.x": (
        FOUR | {"attention_head_dim": [2, 4, 8, 8], "use_linear_projection": True,
                "upcast_attention": True},
        16, 16,
    ),
    "Toyland": (
        {"block_out_channels": [32, 64], "down_block_types": [CROSS_DOWN] * 2,
         "up_block_types": [CROSS_UP] * 2, "layers_per_block": 1, "attention_head_dim": [2, 4]},
        16, 16,
    ),
    "three layers": ({"layers_per_block": 3}, 8, 8),
    "layers per block": ({"layers_per_block": [1, 3]}, 8, 8),
    "no mid block": ({"mid_block_type": None}, 8, 8),
    "no attention outside the middle": (
        {"down_block_types": [DOWN, DOWN], "up_block_types": [UP, UP]}, 8, 8,
    ),
    "no attention at all": (
        {"down_block_types": [DOWN, DOWN], "up_block_types": [UP, UP], "mid_block_type": None},
        8, 8,
    ),
    "deep transformers": ({"transformer_layers_per_block": [3, 2]}, 8, 8),
    "odd size": (FOUR, 13, 19),
    "one row": ({"block_out_channels": [16, 32]}, 2, 7),
    "one block": (
        {"block_out_channels": [16], "down_block_types": [CROSS_DOWN],
         "up_block_types": [CROSS_UP]},
        5, 8,
    ),
    "other channels, sine first": (
        {"in_channels": 9, "out_channels": 3, "flip_sin_to_cos": False, "freq_shift": 1,
         "norm_eps": 1e-3, "norm_num_groups": 4},
        8, 8,
    ),
}  # fmt: skip


def both(changes: dict) -> tuple[UNet, torch.nn.Module]:
    """Ours and theirs with the same random weights."""
    content = SMALL | changes
    ours = UNet(UNetConfig.from_dict(content))
    theirs = diffusers.UNet2DConditionModel(**content)
    share_weights(ours, theirs)
    return ours, theirs


def inputs(ours: UNet, height: int, width: int, batch: int = 2):
    config = ours.config
    sample = normal(batch, config.in_channels, height, width)
    text = normal(batch, 7, config.cross_attention_dim, seed=2)
    return sample, torch.linspace(3.25, 999.0, batch), text


def compare(ours: UNet, theirs, height: int, width: int) -> None:
    sample, timestep, text = inputs(ours, height, width)
    mine = inner_outputs(ours, lambda: ours(sample, timestep, text))
    reference = inner_outputs(theirs, lambda: theirs(sample, timestep, text))
    assert_same(mine, reference, blocks_of(ours))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_block_equals_diffusers(name):
    changes, height, width = CONFIGS[name]
    compare(*both(changes), height, width)


@st.composite
def supported(draw) -> tuple[dict, int, int]:
    """Any small configuration that both classes take, and a latent size."""
    blocks = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([2, 4]))
    widths = st.sampled_from([8, 16, 24])
    numbers = st.integers(1, 3)
    attends = draw(st.lists(st.booleans(), min_size=blocks, max_size=blocks))
    ups = draw(st.lists(st.booleans(), min_size=blocks, max_size=blocks))

    def one_or_many(strategy):
        return st.one_of(strategy, st.lists(strategy, min_size=blocks, max_size=blocks))

    changes = {
        "block_out_channels": draw(st.lists(widths, min_size=blocks, max_size=blocks)),
        "down_block_types": [CROSS_DOWN if a else DOWN for a in attends],
        "up_block_types": [CROSS_UP if a else UP for a in ups],
        "mid_block_type": draw(st.sampled_from(["UNetMidBlock2DCrossAttn", None])),
        "layers_per_block": draw(one_or_many(numbers)),
        "transformer_layers_per_block": draw(one_or_many(st.integers(1, 2))),
        "attention_head_dim": draw(one_or_many(st.sampled_from([1, 2, 4]))),
        "norm_num_groups": groups,
        "cross_attention_dim": draw(st.sampled_from([8, 20])),
        "use_linear_projection": draw(st.booleans()),
        "flip_sin_to_cos": draw(st.booleans()),
        "freq_shift": draw(st.integers(0, 1)),
    }
    return changes, draw(st.integers(4, 11)), draw(st.integers(4, 11))


@settings(max_examples=8)
@given(supported())
def test_any_supported_configuration_equals_diffusers(drawn):
    changes, height, width = drawn
    compare(*both(changes), height, width)


@pytest.mark.parametrize("name", ["SD 2.x", "deep transformers", "odd size"])
def test_prepared_text_changes_nothing(name):
    changes, height, width = CONFIGS[name]
    ours, _ = both(changes)
    sample, timestep, text = inputs(ours, height, width)
    with torch.no_grad():
        plain = ours(sample, timestep, text)
        prepared = ours.prepare_text(text)
        assert torch.equal(ours(sample, timestep, prepared), plain)
        assert torch.equal(ours(sample, timestep, prepared), plain), "the second step"


def test_one_timestep_for_the_whole_batch():
    ours, theirs = both({})
    sample, _, text = inputs(ours, 8, 8, batch=3)
    with torch.no_grad():
        mine, reference = (net(sample, torch.tensor(17.5), text) for net in (ours, theirs))
    assert_same({"": mine}, {"": reference.sample}, {""})


MUTANTS = {
    "heads": {"attention_head_dim": 2},
    "sine and cosine": {"flip_sin_to_cos": False},
    "frequencies": {"freq_shift": 1},
    "groups": {"norm_num_groups": 4},
    "eps": {"norm_eps": 1e-2},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_check_fails_for_another_option(name):
    """Options without weights of their own: only the numbers can tell."""
    ours, theirs = both({})
    other = UNet(replace(ours.config, **MUTANTS[name]))
    other.load_state_dict(ours.state_dict())
    with pytest.raises(AssertionError, match="differs by"):
        compare(other, theirs, 8, 8)


def test_the_check_fails_for_one_wrong_weight():
    ours, theirs = both({})
    with torch.no_grad():
        ours.up_blocks[1].attentions[0].transformer_blocks[0].attn2.to_v.weight[0, 0] += 1.0
    with pytest.raises(AssertionError, match="differs by"):
        compare(ours, theirs, 8, 8)


def parameters(content: dict) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(UNetConfig.from_dict(content)).parameters())


def test_published_sizes():
    assert parameters({"cross_attention_dim": 768}) == 859_520_964  # Stable Diffusion 1.5
    toyland = {"block_out_channels": [64, 128], "layers_per_block": 1, "cross_attention_dim": 256,
               "down_block_types": [CROSS_DOWN] * 2, "up_block_types": [CROSS_UP] * 2,
               "attention_head_dim": [2, 4]}  # fmt: skip
    assert parameters(toyland) == 4_463_236


@pytest.mark.slow
def test_full_size_stable_diffusion():
    """859 million weights, shared by both networks: 3.5 GB."""
    content = {"cross_attention_dim": 768, "sample_size": 64}
    theirs = diffusers.UNet2DConditionModel(**content)
    with torch.device("meta"):
        ours = UNet(UNetConfig.from_dict(content))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    sample, timestep, text = inputs(ours, 64, 64, batch=1)
    with torch.no_grad():
        mine = inner_outputs(ours, lambda: ours(sample, timestep, text))
        reference = inner_outputs(theirs, lambda: theirs(sample, timestep, text))
    assert_same(mine, reference, blocks_of(ours))
