"""Our U-Net equals diffusers' on the same random weights, submodule by submodule."""

from __future__ import annotations

import dataclasses

import diffusers
import pytest
import torch
import torch.nn.functional as F
from diffusers import LatentConsistencyModelPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import TOLERANCE, normal, outputs, shaken, worst_differences, wrong

from diffusionlab.models import UNet, UNetConfig, attention
from diffusionlab.models.conditioning import TextInput

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
CROSS_MID, PLAIN_MID = "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"
SMALL = {"cross_attention_dim": 24, "norm_num_groups": 8}

# name: (options of UNet2DConditionModel, height and width of the latent)
CONFIGS = {
    "Stable Diffusion 1.x": (
        {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": 8}, (16, 16)),
    "2.x: linear projections, heads by block": (
        {"block_out_channels": (32, 32, 64, 64), "attention_head_dim": (1, 2, 4, 4),
         "use_linear_projection": True, "upcast_attention": True}, (16, 16)),
    "one layer": (
        {"block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": (1, 2),
         "down_block_types": (CROSS_DOWN,) * 2, "up_block_types": (CROSS_UP,) * 2}, (8, 8)),
    "three layers, not square": (
        {"block_out_channels": (16, 32), "layers_per_block": 3, "attention_head_dim": 4,
         "down_block_types": (CROSS_DOWN, PLAIN_DOWN), "up_block_types": (PLAIN_UP, CROSS_UP)},
        (4, 12)),
    "no mid block": (
        {"block_out_channels": (16, 32, 32), "layers_per_block": 1, "mid_block_type": None,
         "down_block_types": (CROSS_DOWN,) * 3, "up_block_types": (CROSS_UP,) * 3,
         "attention_head_dim": 2}, (8, 8)),
    "attention in the middle only": (
        {"block_out_channels": (16, 32), "layers_per_block": 1, "attention_head_dim": 4,
         "down_block_types": (PLAIN_DOWN,) * 2, "up_block_types": (PLAIN_UP,) * 2}, (8, 8)),
    "odd sizes": (
        {"block_out_channels": (16, 16, 32), "layers_per_block": 1, "attention_head_dim": 2,
         "down_block_types": (PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
         "up_block_types": (CROSS_UP, CROSS_UP, PLAIN_UP)}, (7, 13)),
    "lists: layers and transformer depth by block": (
        {"block_out_channels": (16, 32), "layers_per_block": (1, 2),
         "transformer_layers_per_block": (2, 1), "attention_head_dim": (2, 4),
         "down_block_types": (CROSS_DOWN,) * 2, "up_block_types": (CROSS_UP,) * 2}, (8, 8)),
    "no attention at all, one row": (
        {"block_out_channels": (16, 32), "layers_per_block": 2, "mid_block_type": None,
         "attention_head_dim": 4, "down_block_types": (PLAIN_DOWN,) * 2,
         "up_block_types": (PLAIN_UP,) * 2}, (1, 7)),
    "one block": (
        {"block_out_channels": (16,), "attention_head_dim": 4, "down_block_types": (CROSS_DOWN,),
         "up_block_types": (CROSS_UP,)}, (5, 8)),
    "SDXL: three blocks, deep transformers, pooled text and sizes": (
        {"block_out_channels": (32, 64, 64), "attention_head_dim": (1, 2, 4),
         "transformer_layers_per_block": (1, 2, 3), "use_linear_projection": True,
         "down_block_types": (PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
         "up_block_types": (CROSS_UP, CROSS_UP, PLAIN_UP), "addition_embed_type": "text_time",
         "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 8 * 6 + 20},
        (16, 12)),
    "SSD-1B: depths layer by layer, one residual block in the middle": (
        {"block_out_channels": (16, 32, 32), "attention_head_dim": (1, 2, 4),
         "transformer_layers_per_block": ((1,), (2, 1), (1, 3)), "mid_block_type": PLAIN_MID,
         "reverse_transformer_layers_per_block": ((1, 1, 3), (2, 1, 1), 1),
         "use_linear_projection": True, "down_block_types": (PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
         "up_block_types": (CROSS_UP, CROSS_UP, PLAIN_UP), "addition_embed_type": "text_time",
         "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 8 * 6 + 20},
        (12, 8)),
    "depths layer by layer, attention in the middle": (
        {"block_out_channels": (16, 32), "attention_head_dim": 4, "layers_per_block": (1, 2),
         "transformer_layers_per_block": (2, (3, 1)),
         "reverse_transformer_layers_per_block": ((1, 2, 3), (1, 2)),
         "down_block_types": (CROSS_DOWN,) * 2, "up_block_types": (CROSS_UP,) * 2}, (8, 8)),
    "other depths on the way up": (
        {"block_out_channels": (16, 32), "attention_head_dim": 4, "layers_per_block": 1,
         "transformer_layers_per_block": 1, "reverse_transformer_layers_per_block": (3, 2),
         "down_block_types": (CROSS_DOWN,) * 2, "up_block_types": (CROSS_UP,) * 2}, (8, 8)),
    "LCM: told its guidance scale": (
        {"block_out_channels": (32, 64), "attention_head_dim": 4, "time_cond_proj_dim": 16,
         "down_block_types": (CROSS_DOWN, PLAIN_DOWN), "up_block_types": (PLAIN_UP, CROSS_UP)},
        (8, 8)),
    "LCM of SDXL": (
        {"block_out_channels": (32, 64), "attention_head_dim": (1, 2), "time_cond_proj_dim": 16,
         "down_block_types": (PLAIN_DOWN, CROSS_DOWN), "up_block_types": (CROSS_UP, PLAIN_UP),
         "transformer_layers_per_block": (1, 2), "use_linear_projection": True,
         "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
         "projection_class_embeddings_input_dim": 8 * 6 + 20}, (8, 8)),
    "BK-SDM tiny: three blocks, one layer, no middle": (
        {"block_out_channels": (32, 32, 64), "layers_per_block": 1, "mid_block_type": None,
         "down_block_types": (CROSS_DOWN,) * 3, "up_block_types": (CROSS_UP,) * 3,
         "attention_head_dim": 8}, (16, 16)),
    "sines first, other shift, other channels": (
        {"block_out_channels": (16, 32), "layers_per_block": 1, "attention_head_dim": 4,
         "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 9, "out_channels": 5,
         "norm_eps": 1e-3, "down_block_types": (CROSS_DOWN, PLAIN_DOWN),
         "up_block_types": (PLAIN_UP, CROSS_UP)}, (8, 8)),
}  # fmt: skip


def pair(options: dict) -> tuple[UNet, diffusers.UNet2DConditionModel]:
    """Our network and diffusers', of the same options and weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = shaken(diffusers.UNet2DConditionModel(**SMALL | options))
    ours = UNet(UNetConfig.from_dict(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs


def compared(ours, theirs, size: tuple[int, int]) -> tuple[dict, dict]:
    """All submodule outputs of both on the same latents, fractional timesteps and text."""
    sample = normal(2, theirs.config.in_channels, *size)
    timestep, text = torch.tensor([3.25, 871.0]), normal(2, 7, theirs.config.cross_attention_dim)
    told, given = conditions(ours, theirs, text)
    mine = outputs(ours, lambda net: net(sample, timestep, told))
    reference = outputs(
        theirs, lambda net: net(sample, timestep, text, return_dict=False, **given)[0]
    )
    return mine, reference


def conditions(ours, theirs, text) -> tuple[TextInput, dict]:
    """What a network reads beside the text, for ours and as diffusers' arguments."""
    pooled = sizes = guidance = None
    given = {}
    if width := ours.config.pooled_width:
        pooled, sizes = normal(2, width), torch.tensor([[96.0, 64, 0, 8, 96, 64]] * 2)
        given["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes}
    if width := ours.config.time_cond_proj_dim:
        guidance = torch.tensor([1.0, 8.5])
        given["timestep_cond"] = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
            None, guidance - 1, width
        )
    return TextInput(text, pooled, sizes, guidance), given


@pytest.mark.parametrize("name", CONFIGS)
def test_every_submodule_equals_diffusers(name):
    options, size = CONFIGS[name]
    mine, reference = compared(*pair(options), size)
    assert wrong(mine, reference) == {}
    print(f"{name}: {len(reference)} outputs, {max(worst_differences(mine, reference).values())}")


def test_the_comparison_reaches_every_kind_of_submodule():
    ours, theirs = pair(CONFIGS["Stable Diffusion 1.x"][0])
    names = compared(ours, theirs, (16, 16))[1]
    kinds = {name.rsplit(".", 1)[-1] for name in names}
    assert {"time_embedding", "attn1", "attn2", "ff", "conv_shortcut", "mid_block"} <= kinds
    resnets = [n for n, part in theirs.named_modules() if hasattr(part, "time_emb_proj")]
    blocks = [n for n, part in theirs.named_modules() if hasattr(part, "attn2")]
    assert len(resnets) == 22 and len(blocks) == 16 and {*resnets, *blocks} <= set(names)


@st.composite
def drawn_options(draw) -> tuple[dict, tuple[int, int]]:
    """Options of a small U-Net out of everything that we support."""
    count = draw(st.integers(1, 3))
    widths = draw(st.lists(st.sampled_from([16, 32, 48]), min_size=count, max_size=count))
    either = st.lists(st.booleans(), min_size=count, max_size=count)
    layers, depths = st.integers(1, 3), st.integers(1, 2)
    options = {
        "block_out_channels": tuple(widths),
        "down_block_types": tuple(CROSS_DOWN if a else PLAIN_DOWN for a in draw(either)),
        "up_block_types": tuple(CROSS_UP if a else PLAIN_UP for a in draw(either)),
        "layers_per_block": draw(layers | st.tuples(*[layers] * count)),
        "attention_head_dim": draw(
            st.sampled_from([1, 2, 8]) | st.tuples(*[st.sampled_from([1, 2, 4])] * count)
        ),
        "transformer_layers_per_block": draw(depths | st.tuples(*[depths] * count)),
        "use_linear_projection": draw(st.booleans()),
        "mid_block_type": draw(st.sampled_from([CROSS_MID, PLAIN_MID, None])),
        "cross_attention_dim": draw(st.sampled_from([8, 20])),
        "norm_num_groups": draw(st.sampled_from([4, 8, 16])),
        "flip_sin_to_cos": draw(st.booleans()),
        "freq_shift": draw(st.integers(0, 1)),
    }
    if draw(st.booleans()):  # the way up has depths of its own
        key, layers = "reverse_transformer_layers_per_block", options["layers_per_block"]
        layers = layers[::-1] if isinstance(layers, tuple) else (layers,) * count
        options[key] = draw(
            st.tuples(*[depths | st.tuples(*[depths] * (layer + 1)) for layer in layers])
        )
    return options, draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))


@settings(max_examples=12, derandomize=True, deadline=None)
@given(drawn_options())
def test_drawn_configurations_equal_diffusers(drawn):
    options, size = drawn
    assert wrong(*compared(*pair(options), size)) == {}


def test_prepared_text_and_a_scalar_timestep_change_nothing():
    ours, _ = pair(CONFIGS["one layer"][0])
    sample, text = normal(2, 4, 8, 8), normal(2, 7, 24)
    with torch.no_grad():
        plain = ours(sample, torch.tensor([5.0, 5.0]), text)
        assert torch.equal(ours(sample, torch.tensor(5.0), ours.prepare_text(text)), plain)


# ---- the check can fail: a network wrong in one place, and the submodule that must tell --------
def other_heads(ours, monkeypatch):
    ours.down_blocks[1].attentions[0].transformer_blocks[0].attn2.heads = 1


def other_gelu(ours, monkeypatch):
    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate, approximate="tanh")

    monkeypatch.setattr(attention.GatedGELU, "forward", forward)


def other_eps(ours, monkeypatch):
    ours.mid_block.resnets[1].norm2.eps = 1e-2


def swapped_skips(ours, monkeypatch):
    forward = ours.up_blocks[1].forward
    swapped = lambda x, skips, *rest: forward(x, [skips[1], skips[0]], *rest)  # noqa: E731
    monkeypatch.setattr(ours.up_blocks[1], "forward", swapped)


def moved_weight(ours, monkeypatch):
    with torch.no_grad():
        ours.conv_out.weight *= 1 + 5 * TOLERANCE


MUTANTS = {
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2": other_heads,
    "down_blocks.0.attentions.0.transformer_blocks.0.ff": other_gelu,
    "mid_block.resnets.1.norm2": other_eps,
    "up_blocks.1.resnets.0.norm1": swapped_skips,
    "conv_out": moved_weight,
}


@pytest.mark.parametrize("place", MUTANTS)
def test_the_check_can_fail_and_says_where(place, monkeypatch):
    widths = {"block_out_channels": (32, 32)}
    ours, theirs = pair(CONFIGS["one layer"][0] | widths | {"attention_head_dim": 4})
    MUTANTS[place](ours, monkeypatch)
    assert next(iter(wrong(*compared(ours, theirs, (8, 8))))) == place


@pytest.mark.parametrize(
    "options",
    [{"flip_sin_to_cos": False}, {"freq_shift": 1}, {"norm_num_groups": 4}, {"norm_eps": 1e-2},
     {"attention_head_dim": (2, 2)}], ids=str,
)  # fmt: skip
def test_the_check_tells_options_that_have_no_weights(options):
    right, theirs = pair(CONFIGS["one layer"][0])
    ours = UNet(dataclasses.replace(right.config, **options)).eval()
    ours.load_state_dict(right.state_dict(), strict=True)
    assert wrong(*compared(ours, theirs, (8, 8)))


@pytest.mark.slow
def test_stable_diffusion_15_in_full_size():
    theirs = full_size()
    with torch.device("meta"):
        ours = UNet(UNetConfig.from_dict(dict(theirs.config)))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    assert sum(p.numel() for p in ours.parameters()) == 859_520_964
    mine, reference = compared(ours.eval(), theirs, (16, 16))
    assert wrong(mine, reference) == {} and len(reference) > 400
    print(f"{len(reference)} outputs, {max(worst_differences(mine, reference).values())}")


def full_size() -> diffusers.UNet2DConditionModel:
    """Stable Diffusion 1.5's U-Net with random weights, drawn in place to save a gigabyte."""
    with torch.device("meta"):
        net = diffusers.UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
    net = net.to_empty(device="cpu").eval()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.normal_(0, fan_in**-0.5, generator=draws)
    return net
