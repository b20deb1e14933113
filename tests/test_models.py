"""Configs of the two networks, and networks that make no assumption about device or dtype."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from diffusionlab.errors import CheckpointError, shown
from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig

UNET = {
    "sample_size": 8,
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "attention_head_dim": [2, 4],
    "norm_num_groups": 8,
}
VAE_SMALL = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
    "scaling_factor": 0.5,
    "mid_block_add_attention": False,
}


def small_unet() -> UNet:
    return UNet(UNetConfig.from_dict(UNET)).eval()


def small_vae(**changes) -> VAE:
    return VAE(VAEConfig.from_dict(VAE_SMALL | changes)).eval()


# ---- configs ---------------------------------------------------------------------------------
NOT_SUPPORTED = [
    ("only_cross_attention", True),
    ("act_fn", "gelu"),
    ("class_embed_type", "timestep"),
    ("addition_embed_type", "text_time"),
    ("time_embedding_type", "fourier"),
    ("resnet_time_scale_shift", "scale_shift"),
    ("conv_in_kernel", 5),
    ("dropout", 0.1),
    ("encoder_hid_dim", 640),
    ("num_attention_heads", 8),
    ("attention_type", "gated"),
    ("mid_block_only_cross_attention", True),
    ("mid_block_type", "UNetMidBlock2D"),
    ("up_block_types", ["UpBlock2D", "AttnUpBlock2D"]),
    ("down_block_types", ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]),
]
WRONG = [
    ("in_channels", 0),
    ("in_channels", "4"),
    ("out_channels", True),
    ("out_channels", None),
    ("cross_attention_dim", [24, 24]),
    ("cross_attention_dim", 24.0),
    ("cross_attention_dim", 10**9),
    ("block_out_channels", 16),
    ("block_out_channels", []),
    ("block_out_channels", [16, "32"]),
    ("block_out_channels", [16, -32]),
    ("block_out_channels", [16, [32]]),
    ("block_out_channels", {"0": 16}),
    ("block_out_channels", [12, 32]),  # 8 groups do not divide 12
    ("norm_num_groups", 3),
    ("norm_num_groups", None),
    ("norm_eps", "small"),
    ("norm_eps", float("nan")),
    ("norm_eps", -1.0),
    ("layers_per_block", [1, 1, 1]),
    ("layers_per_block", "2"),
    ("layers_per_block", 0),
    ("layers_per_block", 10**6),
    ("transformer_layers_per_block", [1]),
    ("transformer_layers_per_block", [[1], [1]]),
    ("attention_head_dim", [2]),
    ("attention_head_dim", 3),  # does not divide 16
    ("attention_head_dim", None),
    ("down_block_types", ["DownBlock2D"]),
    ("down_block_types", "DownBlock2D"),
    ("up_block_types", [["UpBlock2D"], {}]),
    ("up_block_types", None),
    ("mid_block_type", ["UNetMidBlock2DCrossAttn"]),
    ("use_linear_projection", "yes"),
    ("flip_sin_to_cos", 1),
    ("freq_shift", "0"),
    ("freq_shift", 8),  # half of the first width: a division by zero
    ("sample_size", -8),
    ("sample_size", "large"),
]
WRONG_VAE = [
    ("act_fn", "relu"),
    ("latents_mean", [0.0, 0.0, 0.0, 0.0]),
    ("down_block_types", ["AttnDownEncoderBlock2D", "DownEncoderBlock2D"]),
    ("up_block_types", ["UpDecoderBlock2D"]),
    ("up_block_types", 3),
    ("block_out_channels", "8, 16"),
    ("block_out_channels", [8, 18]),
    ("block_out_channels", 8),
    ("layers_per_block", [1, 1]),
    ("latent_channels", 0),
    ("latent_channels", "4"),
    ("norm_num_groups", 0),
    ("scaling_factor", "0.18215"),
    ("scaling_factor", 0),
    ("scaling_factor", None),
    ("scaling_factor", float("inf")),
    ("scaling_factor", True),
    ("shift_factor", "none"),
    ("use_quant_conv", "false"),
    ("mid_block_add_attention", None),
    ("mid_block_add_attention", 2),
    ("sample_size", 0),
]


@pytest.mark.parametrize(("key", "value"), NOT_SUPPORTED + WRONG)
def test_unet_config_is_refused_by_key_and_value(key, value):
    with pytest.raises(CheckpointError) as caught:
        UNetConfig.from_dict(UNET | {key: value})
    assert_named(caught.value, "unet", key, value)


@pytest.mark.parametrize(("key", "value"), WRONG_VAE)
def test_vae_config_is_refused_by_key_and_value(key, value):
    with pytest.raises(CheckpointError) as caught:
        VAEConfig.from_dict(VAE_SMALL | {key: value})
    assert_named(caught.value, "vae", key, value)


def assert_named(error: CheckpointError, part: str, key: str, value) -> None:
    """Key and value as given; widths that the groups do not divide are told by the groups."""
    told = str(error)
    given = shown(tuple(value) if isinstance(value, list) else value)
    assert told.startswith(f"{part} config has ")
    assert f"{key} = {given}" in told or "norm_num_groups = " in told
    assert "allowed" in told or "supported" in told


def test_an_unknown_key_is_named_with_its_value():
    with pytest.raises(CheckpointError, match="'wavelets' = 7"):
        UNetConfig.from_dict(UNET | {"wavelets": 7})
    with pytest.raises(CheckpointError, match="'wavelets' = 'haar'"):
        VAEConfig.from_dict(VAE_SMALL | {"wavelets": "haar"})


def test_notes_of_diffusers_are_passed_over():
    notes = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "_name": [1]}
    assert UNetConfig.from_dict(notes | UNET) == UNetConfig.from_dict(UNET)


# What the published checkpoints of Stable Diffusion have in their files.
SD15 = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
    "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False, "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
    "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,
    "sample_size": 64, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
SD21 = SD15 | {
    "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "sample_size": 96,
    "dual_cross_attention": False, "num_class_embeds": None, "only_cross_attention": False,
    "upcast_attention": True, "use_linear_projection": True, "class_embed_type": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "resnet_time_scale_shift": "default",
    "dropout": 0.0, "mid_block_only_cross_attention": None, "time_embedding_type": "positional",
}  # fmt: skip


def test_published_configs_are_read():
    first, second = UNetConfig.from_dict(SD15), UNetConfig.from_dict(SD21)
    assert (first.heads, first.layers, first.depths) == ((8,) * 4, (2,) * 4, (1,) * 4)
    assert second.heads == (5, 10, 20, 20)
    assert second.use_linear_projection
    assert not first.use_linear_projection


def test_missing_keys_are_at_the_defaults_of_diffusers():
    """What diffusers fills in for an empty config is what we fill in, and nothing is refused."""
    diffusers = pytest.importorskip("diffusers")
    small = {"block_out_channels": [8] * 4, "norm_num_groups": 8, "cross_attention_dim": 8}
    filled = dict(diffusers.UNet2DConditionModel(**small).config)
    assert UNetConfig.from_dict(filled) == UNetConfig.from_dict(small)
    filled = dict(diffusers.AutoencoderKL(norm_num_groups=8).config)
    assert VAEConfig.from_dict(filled) == VAEConfig.from_dict({"norm_num_groups": 8})


@pytest.mark.parametrize("changes", [{}, {"mid_block_type": None, "sample_size": None}])
def test_diffusers_loads_what_a_unet_config_writes(changes):
    diffusers = pytest.importorskip("diffusers")
    config = UNetConfig.from_dict(UNET | changes)
    content = json.loads(json.dumps(config.to_dict()))
    assert UNetConfig.from_dict(content) == config
    theirs = diffusers.UNet2DConditionModel.from_config(content)
    assert theirs.state_dict().keys() == UNet(config).state_dict().keys()


@pytest.mark.parametrize("changes", [{}, {"use_quant_conv": False, "shift_factor": 0.25}])
def test_diffusers_loads_what_a_vae_config_writes(changes):
    diffusers = pytest.importorskip("diffusers")
    config = VAEConfig.from_dict(VAE_SMALL | changes)
    content = json.loads(json.dumps(config.to_dict()))
    assert VAEConfig.from_dict(content) == config
    theirs = diffusers.AutoencoderKL.from_config(content)
    assert theirs.state_dict().keys() == VAE(config).state_dict().keys()
    assert theirs.config.scaling_factor == 0.5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(f.name for f in dataclasses.fields(UNetConfig))), JSON)
def test_any_json_value_gives_a_config_or_a_checkpoint_error(key, value):
    try:
        config = UNetConfig.from_dict(UNET | {key: value})
    except CheckpointError as error:
        assert len(str(error)) < 400
    else:
        assert UNetConfig.from_dict(config.to_dict()) == config


@given(st.sampled_from(sorted(f.name for f in dataclasses.fields(VAEConfig))), JSON)
def test_any_json_value_gives_a_vae_config_or_a_checkpoint_error(key, value):
    try:
        config = VAEConfig.from_dict(VAE_SMALL | {key: value})
    except CheckpointError as error:
        assert len(str(error)) < 400
    else:
        assert VAEConfig.from_dict(config.to_dict()) == config


def test_a_network_is_not_built_from_a_config_that_fails():
    wrong = dataclasses.replace(UNetConfig.from_dict(UNET), norm_num_groups=5)
    with pytest.raises(CheckpointError, match="norm_num_groups = 5"):
        UNet(wrong)


# ---- device and dtype ------------------------------------------------------------------------
class Devices(TorchFunctionMode):
    """Notes the device type of every tensor that a torch function returns."""

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, torch.Tensor):
                self.seen.add(value.device.type)
        return made


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_a_pass_on_the_meta_device_makes_no_tensor_elsewhere():
    with torch.device("meta"):
        unet, vae = small_unet(), small_vae(mid_block_add_attention=True)
    with torch.no_grad(), Devices() as devices:
        prepared = unet.prepare_text(meta(2, 7, 24))
        made = unet(meta(2, 4, 8, 8), meta(), prepared)
        mean, std = vae.encode(meta(1, 3, 16, 16))
        pixels = vae.decode(mean)
    assert devices.seen == {"meta"}
    assert made.shape == (2, 4, 8, 8)
    assert mean.shape == std.shape == (1, 4, 8, 8)
    assert pixels.shape == (1, 3, 16, 16)


def test_the_device_check_can_fail():
    with Devices() as devices:
        meta(2) * torch.tensor(1.0)
    assert devices.seen == {"meta", "cpu"}


class Stray(torch.nn.Module):
    """A layer that makes its own float32 tensor: what the dtype test must catch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.ones(1, x.shape[1], 1, 1)


def dtypes_within(module: torch.nn.Module, call) -> set[torch.dtype]:
    """The dtypes of all submodules' outputs."""
    seen: set[torch.dtype] = set()

    def keep(_module, _given, made) -> None:
        seen.add((made[0] if isinstance(made, tuple) else made).dtype)

    hooks = [part.register_forward_hook(keep) for part in module.modules()]
    try:
        with torch.no_grad():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


HALVES = [torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("dtype", HALVES)
def test_networks_run_in_their_own_dtype(dtype):
    unet, vae = small_unet().to(dtype), small_vae(mid_block_add_attention=True).to(dtype)
    sample, text = torch.randn(2, 4, 8, 8).to(dtype), torch.randn(2, 7, 24).to(dtype)
    timestep = torch.tensor([3.0, 999.0])  # stays float32: float16 would round 999.4
    assert dtypes_within(unet, lambda: unet(sample, timestep, text)) == {dtype}
    encoded: list = []
    assert dtypes_within(vae.encoder, lambda: encoded.extend(vae.encode(sample[:, :3]))) == {dtype}
    assert {value.dtype for value in encoded} == {dtype}
    assert dtypes_within(vae.decoder, lambda: vae.decode(encoded[0])) == {dtype}


def test_the_dtype_check_can_fail():
    vae = small_vae().to(torch.bfloat16)
    vae.decoder.conv_out = torch.nn.Sequential(vae.decoder.conv_out, Stray())
    latents = torch.randn(1, 4, 4, 4).to(torch.bfloat16)
    found = dtypes_within(vae.decoder, lambda: vae.decode(latents))
    assert found == {torch.bfloat16, torch.float32}


def test_narrow_dtypes_agree_with_float32():
    """A wrong cast (a timestep rounded to bfloat16, say) would show far outside of rounding."""
    torch.manual_seed(0)
    unet = small_unet()
    torch.nn.init.normal_(unet.mid_block.resnets[1].conv2.weight, std=0.1)
    sample, text, timestep = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 24), torch.tensor(997.3)
    with torch.no_grad():
        exact = unet(sample, timestep, text)
        for dtype, limit in ((torch.float16, 4e-3), (torch.bfloat16, 4e-2)):
            unet.to(dtype)
            made = unet(sample.to(dtype), timestep, text.to(dtype)).float()
            gap = float((made - exact).abs().max() / exact.abs().max())
            assert 1e-6 < gap < limit, f"{dtype}: {gap:.1e}"


def test_an_untrained_network_begins_as_identities():
    """Residual branches start at zero, so a new network's blocks pass on what they are given."""
    unet = small_unet()
    x, time, text = torch.randn(1, 32, 4, 4), torch.randn(1, 64), torch.randn(1, 7, 24)
    with torch.no_grad():
        assert torch.equal(unet.mid_block(x, time, text), x)
