"""Our VAE equals diffusers' AutoencoderKL on the same random weights, block by block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import assert_same, blocks_of, inner_outputs, normal, share_weights

from diffusionlab.models import VAE, VAEConfig, rename_attention_of_2022

diffusers = pytest.importorskip("diffusers")


def layout(*widths: int, **changes) -> dict:
    """A configuration with these widths."""
    return {
        "block_out_channels": list(widths),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "norm_num_groups": 4,
    } | changes


# name → (configuration, height, width)
CONFIGS = {
    "Stable Diffusion": (layout(8, 16, 32, 32, layers_per_block=2), 32, 32),
    "Toyland": (layout(8, 16, 32, 32, mid_block_add_attention=False), 32, 32),
    "no quantising convolutions": (
        layout(8, 16, use_quant_conv=False, use_post_quant_conv=False, latent_channels=16), 8, 8,
    ),
    "one block, other channels": (layout(12, in_channels=1, out_channels=5), 6, 6),
    "three layers": (layout(8, 8, layers_per_block=3), 8, 8),
    "oblong": (layout(8, 16, 16), 12, 20),
    "odd size": (layout(8, 16, 16), 13, 19),
}  # fmt: skip


def both(content: dict) -> tuple[VAE, torch.nn.Module]:
    """Ours and theirs with the same random weights."""
    ours, theirs = VAE(VAEConfig.from_dict(content)), diffusers.AutoencoderKL(**content)
    share_weights(ours, theirs)
    return ours, theirs


def compare(ours: VAE, theirs, height: int, width: int) -> None:
    """Encoder to mean and standard deviation, decoder to pixels, and everything inside."""
    pixels = normal(2, ours.config.in_channels, height, width).clamp(-1, 1)
    mine = inner_outputs(ours, lambda: ours.encode(pixels))
    reference = inner_outputs(theirs, lambda: theirs.encode(pixels).latent_dist.mean)
    latents = reference[""]
    mine |= inner_outputs(ours, lambda: ours.decode(latents)) | {"mean": mine[""]}
    reference |= inner_outputs(theirs, lambda: theirs.decode(latents)) | {"mean": reference[""]}
    assert_same(mine, reference, (blocks_of(ours) - {"encoder", "decoder"}) | {"mean"})


@pytest.mark.parametrize("name", CONFIGS)
def test_every_block_equals_diffusers(name):
    content, height, width = CONFIGS[name]
    compare(*both(content), height, width)


def test_standard_deviation_and_its_limits():
    ours, theirs = both(layout(8, 16))
    with torch.no_grad():
        theirs.quant_conv.bias[4:] = torch.tensor([-80.0, 0.0, 3.0, 60.0])
        ours.load_state_dict(theirs.state_dict())
        pixels = normal(1, 3, 8, 8)
        (_, mine), reference = ours.encode(pixels), theirs.encode(pixels).latent_dist.std
    torch.testing.assert_close(mine, reference, rtol=1e-4, atol=0)
    assert float(mine.min()) == pytest.approx(float(torch.tensor(-15.0).exp()), rel=1e-4)
    assert float(mine.max()) == pytest.approx(float(torch.tensor(10.0).exp()), rel=1e-4)


@st.composite
def supported(draw) -> tuple[dict, int, int]:
    """Any small configuration that both classes take, and a picture size."""
    widths = draw(st.lists(st.sampled_from([8, 12, 16]), min_size=1, max_size=3))
    content = layout(
        *widths,
        layers_per_block=draw(st.integers(1, 3)),
        latent_channels=draw(st.sampled_from([1, 4, 8])),
        norm_num_groups=draw(st.sampled_from([2, 4])),
        use_quant_conv=draw(st.booleans()),
        use_post_quant_conv=draw(st.booleans()),
        mid_block_add_attention=draw(st.booleans()),
    )
    return content, draw(st.integers(4, 17)), draw(st.integers(4, 17))


@settings(max_examples=8)
@given(supported())
def test_any_supported_configuration_equals_diffusers(drawn):
    content, height, width = drawn
    compare(*both(content), height, width)


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def as_of_2022(state: dict, convolutions: bool) -> dict:
    """The keys that diffusers wrote in 2022, weights as matrices or as 1 × 1 convolutions."""
    old = {}
    for key, value in state.items():
        for new_name, old_name in OLD_NAMES.items():
            if f"attentions.0.{new_name}." in key:
                key = key.replace(new_name, old_name)
                value = value[:, :, None, None] if convolutions and value.ndim == 2 else value
        old[key] = value
    return old


@pytest.mark.parametrize("convolutions", [False, True])
def test_attention_keys_of_2022(convolutions):
    ours, _ = both(layout(8, 16))
    state = ours.state_dict()
    old = as_of_2022(state, convolutions)
    assert len(old.keys() - state.keys()) == 16, "eight tensors in encoder and decoder each"
    renamed = rename_attention_of_2022(old)
    assert renamed.keys() == state.keys()
    assert all(torch.equal(renamed[key], state[key]) for key in state)
    VAE(ours.config).load_state_dict(renamed, strict=True)
    assert rename_attention_of_2022(state).keys() == state.keys(), "today's keys stay"


def test_the_check_fails_for_another_option():
    ours, theirs = both(layout(8, 16))
    other = VAE(replace(ours.config, norm_num_groups=2))
    other.load_state_dict(ours.state_dict())
    with pytest.raises(AssertionError, match="differs by"):
        compare(other, theirs, 8, 8)


@pytest.mark.parametrize(
    "key", ["encoder.conv_out.weight", "decoder.mid_block.attentions.0.to_k.bias"]
)
def test_the_check_fails_for_one_wrong_weight(key):
    """Softmax hides the bias of a key in the end result; the inner outputs show it."""
    ours, theirs = both(layout(8, 16))
    with torch.no_grad():
        ours.get_parameter(key).flatten()[0] += 1.0
    with pytest.raises(AssertionError, match="differs by"):
        compare(ours, theirs, 8, 8)


def sizes(content: dict) -> dict[str, int]:
    with torch.device("meta"):
        vae = VAE(VAEConfig.from_dict(content))
    return {
        name: sum(p.numel() for p in part.parameters())
        for name, part in {"": vae, "encoder": vae.encoder, "decoder": vae.decoder}.items()
    }


FULL = layout(128, 256, 512, 512, layers_per_block=2, norm_num_groups=32, sample_size=512)


def test_published_sizes():
    assert sizes(FULL)[""] == 83_653_863  # Stable Diffusion 1.x and 2.x
    toyland = layout(32, 64, 128, 128, norm_num_groups=8, mid_block_add_attention=False)
    assert sizes(toyland)["encoder"] == 1_397_672
    assert sizes(toyland)["decoder"] == 2_353_923


@pytest.mark.slow
def test_full_size_stable_diffusion():
    theirs = diffusers.AutoencoderKL(**FULL)
    ours = VAE(VAEConfig.from_dict(FULL))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    compare(ours, theirs, 256, 256)
