"""Configs, sizes and devices of the networks; what they compute is in test_parity_*."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusionlab.errors import CheckpointError
from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig, unet_config, vae
from diffusionlab.taps import recording

SD15 = UNetConfig(cross_attention_dim=768, sample_size=64)
SD21 = dataclasses.replace(
    SD15, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
)
SDXL = UNetConfig(
    sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
    down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
    use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)  # fmt: skip
SSD1B = dataclasses.replace(
    SDXL, mid_block_type="UNetMidBlock2D", transformer_layers_per_block=((1,), (2, 2), (4, 4)),
    reverse_transformer_layers_per_block=((4, 4, 10), (2, 1, 1), 1),
)  # fmt: skip
VEGA = dataclasses.replace(SSD1B, transformer_layers_per_block=(1, 1, 2),
                           reverse_transformer_layers_per_block=None)  # fmt: skip
SD_VAE = VAEConfig(
    block_out_channels=(128, 256, 512, 512), layers_per_block=2,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
)  # fmt: skip
TOYLAND_VAE = dataclasses.replace(
    SD_VAE, block_out_channels=(32, 64, 128, 128), layers_per_block=1, norm_num_groups=8,
    mid_block_add_attention=False,
)  # fmt: skip


def toyland_unet(channels: tuple[int, ...], layers: int) -> UNetConfig:
    """Cross-attention of width 256 at every level, heads 32 wide."""
    return UNetConfig(
        block_out_channels=channels, layers_per_block=layers, cross_attention_dim=256,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        attention_head_dim=tuple(width // 32 for width in channels),
    )  # fmt: skip


def parameters(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (SD15, 859_520_964),
        (SD21, 865_910_724),
        (SDXL, 2_567_463_684),
        (SSD1B, 1_331_334_404),  # published: 5.33 GB in float32
        (VEGA, 745_225_604),  # published: 2.98 GB in float32
        (toyland_unet((64, 128), 1), 4_463_236),
        (toyland_unet((96, 128), 2), 8_219_684),
        (toyland_unet((128, 192), 2), 16_617_348),
    ],
)
def test_known_unets_have_their_number_of_parameters(config, count):
    with torch.device("meta"):
        assert parameters(UNet(config)) == count


def test_the_blocks_of_vega_have_the_published_millions_of_parameters():
    with torch.device("meta"):
        unet = UNet(VEGA)
    blocks = (unet.down_blocks, unet.mid_block, unet.up_blocks)
    assert [round(parameters(part) / 1e6) for part in blocks] == [247, 31, 460]


def test_known_autoencoders_have_their_number_of_parameters():
    with torch.device("meta"):
        assert parameters(VAE(SD_VAE)) == 83_653_863
        ours = VAE(TOYLAND_VAE)
    assert (parameters(ours.encoder), parameters(ours.decoder)) == (1_397_672, 2_353_923)


@pytest.mark.parametrize(
    "config", [SD15, SD21, SSD1B, VEGA, toyland_unet((96, 128), 2), SD_VAE, TOYLAND_VAE]
)
def test_keys_and_shapes_are_those_of_diffusers(config):
    kind = UNet if isinstance(config, UNetConfig) else VAE
    reference = getattr(diffusers, config.to_dict()["_class_name"])
    with torch.device("meta"):
        ours, theirs = kind(config), reference.from_config(config.to_dict())
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]


# ---- configs -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reference", "config", "fixed"),
    [
        (diffusers.UNet2DConditionModel, UNetConfig, unet_config.FIXED),
        (diffusers.AutoencoderKL, VAEConfig, vae.FIXED),
    ],
)
def test_every_option_of_diffusers_is_known_at_its_default(reference, config, fixed):
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    assert not set(defaults) & set(fixed)
    for name, parameter in inspect.signature(reference.__init__).parameters.items():
        if name != "self":
            assert (defaults | fixed)[name] == parameter.default, name


@pytest.mark.parametrize(
    "config", [UNetConfig(), SD15, SD21, SSD1B, VEGA,
               dataclasses.replace(SD15, mid_block_type=None), VAEConfig(), SD_VAE, TOYLAND_VAE,
               dataclasses.replace(SD_VAE, shift_factor=0.1)]
)  # fmt: skip
def test_a_config_survives_json_and_diffusers(config):
    written = json.loads(json.dumps(config.to_dict()))
    assert type(config).from_dict(written) == config
    with torch.device("meta"):
        theirs = getattr(diffusers, written["_class_name"]).from_config(written)
    assert type(config).from_dict(json.loads(theirs.to_json_string())) == config


def test_missing_keys_are_diffusers_defaults_and_notes_are_ignored():
    assert UNetConfig.from_dict({"_class_name": "x", "_diffusers_version": "0.6"}) == UNetConfig()
    assert VAEConfig.from_dict({}) == VAEConfig()
    assert UNetConfig.from_dict({"an_option_of_the_future": None}) == UNetConfig()


# What the published checkpoints of Stable Diffusion have in their files.
SD15_FILE = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
    "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False, "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
    "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4,
    "sample_size": 64, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
SD21_FILE = SD15_FILE | {
    "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
    "dual_cross_attention": False, "num_class_embeds": None, "only_cross_attention": False,
    "use_linear_projection": True,
}  # fmt: skip
SDXL_FILE = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.19.0.dev0", "act_fn": "silu",
    "addition_embed_type": "text_time", "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280], "center_input_sample": False,
    "class_embed_type": None, "class_embeddings_concat": False, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "cross_attention_dim": 2048, "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2, "downsample_padding": 1,
    "dual_cross_attention": False, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
    "mid_block_only_cross_attention": None, "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-05, "norm_num_groups": 32,
    "num_attention_heads": None, "num_class_embeds": None, "only_cross_attention": False,
    "out_channels": 4, "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default", "sample_size": 128, "time_cond_proj_dim": None,
    "time_embedding_act_fn": None, "time_embedding_dim": None,
    "time_embedding_type": "positional", "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
    "upcast_attention": None, "use_linear_projection": True,
}  # fmt: skip
SSD1B_FILE = SDXL_FILE | {  # as its users report it; the first block does not read its list
    "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [[1], [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
}  # fmt: skip
AVERAGED = {  # what diffusers' EMAModel adds to the config of the weights that it averages
    "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 7, "power": 0.6667,
    "update_after_step": 0, "use_ema_warmup": False,
}  # fmt: skip


def test_published_configs_are_read():
    assert UNetConfig.from_dict(SD15_FILE) == SD15
    assert UNetConfig.from_dict(SD15_FILE | AVERAGED) == SD15
    assert UNetConfig.from_dict(SD21_FILE) == SD21
    assert UNetConfig.from_dict(SDXL_FILE) == SDXL
    assert UNetConfig.from_dict(SSD1B_FILE) == SSD1B
    assert (SD15.heads, SD15.layers, SD15.mid_depth) == ((8,) * 4, (2,) * 4, 1)
    assert (SD15.down_depths, SD15.up_depths) == (((1, 1),) * 4, ((1, 1, 1),) * 4)
    assert SD21.heads == (5, 10, 20, 20)
    assert SDXL.down_depths == ((1, 1), (2, 2), (10, 10)) and SDXL.mid_depth == 10
    assert SDXL.up_depths == ((10, 10, 10), (2, 2, 2), (1, 1, 1))
    assert SSD1B.down_depths == ((1,), (2, 2), (4, 4)) and SSD1B.mid_depth == 4
    assert SSD1B.up_depths == ((4, 4, 10), (2, 1, 1), (1, 1, 1))


WRONG_UNETS = [
    ("class_embed_type", "timestep"),
    ("addition_embed_type", "text_image"),
    ("dual_cross_attention", True),
    ("act_fn", "gelu"),
    ("resnet_time_scale_shift", "scale_shift"),
    ("only_cross_attention", [True, False]),
    ("conv_in_kernel", 5),
    ("num_attention_heads", 8),
    ("time_embedding_type", "fourier"),
    ("an_option_of_the_future", 3),
    ("dropout", 0.1),
    ("encoder_hid_dim", 640),
    ("attention_type", "gated"),
    ("down_block_types", ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]),
    ("down_block_types", ["DownBlock2D"]),
    ("down_block_types", "DownBlock2D"),
    ("up_block_types", [["UpBlock2D"]] * 4),
    ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn"),
    ("block_out_channels", []),
    ("block_out_channels", 320),
    ("block_out_channels", [320, 640, 1280, 0]),
    ("block_out_channels", [320, 640, 1280, 1e3]),
    ("block_out_channels", [320, 640, 1280, 16384]),
    ("block_out_channels", [32] * 17),
    ("norm_num_groups", 7),
    ("norm_num_groups", None),
    ("norm_eps", -1),
    ("norm_eps", math.nan),
    ("in_channels", [4]),
    ("in_channels", True),
    ("out_channels", "4"),
    ("sample_size", [64, 64]),
    ("layers_per_block", 0),
    ("layers_per_block", [2, 2]),
    ("layers_per_block", 17),
    ("transformer_layers_per_block", [[1, 2], 1, 1, 1]),
    ("attention_head_dim", 7),
    ("attention_head_dim", [5, 10, 20]),
    ("attention_head_dim", None),
    ("cross_attention_dim", [768, 768, 768, 768]),
    ("cross_attention_dim", 10**9),
    ("use_linear_projection", "yes"),
    ("freq_shift", 160),
]
WRONG_AUTOENCODERS = [
    ("act_fn", "mish"),
    ("latents_mean", [0.0] * 4),
    ("down_block_types", ["AttnDownEncoderBlock2D"]),
    ("up_block_types", ["UpDecoderBlock2D"] * 2),
    ("norm_num_groups", 48),
    ("latent_channels", 0),
    ("layers_per_block", [1]),
    ("scaling_factor", 0),
    ("scaling_factor", "0.18"),
    ("shift_factor", math.inf),
    ("sample_size", -1),
    ("mid_block_add_attention", None),
    ("use_quant_conv", 1.5),
    ("encoder_depth", 12),
]


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [(UNetConfig, *pair) for pair in WRONG_UNETS] + [(VAEConfig, *p) for p in WRONG_AUTOENCODERS],
)
def test_an_unsupported_value_is_refused_by_name(config, key, value):
    with pytest.raises(CheckpointError) as caught:
        config.from_dict({key: value})
    part = "unet" if config is UNetConfig else "vae"
    assert str(caught.value).startswith(f"{part} config has ") and key in str(caught.value)
    assert len(str(caught.value)) < 300


LISTS_UP, LISTS_DOWN = ([1, [1, 1, 1], 1, 1], [1, [1, 2], 1, 1])
WRONG_DEPTHS = [  # down, up, the key that is named, what is said of it
    (LISTS_DOWN, None, "reverse_transformer_layers_per_block = None; a list for the way up"),
    (LISTS_DOWN, 2, "reverse_transformer_layers_per_block = 2; a list for the way up"),
    (1, 2, "reverse_transformer_layers_per_block = 2; null or a list is allowed"),
    ([1, [1], 1, 1], LISTS_UP, r"one for each layer of a block \(\[2, 2, 2, 2\] layers\)"),
    ([1, [1, 2, 3], 1, 1], LISTS_UP, r"\[2, 2, 2, 2\] layers"),
    (LISTS_DOWN, [1, [1, 1], 1, 1], r"one for each layer of a block \(\[3, 3, 3, 3\] layers\)"),
    (LISTS_DOWN, [1, 1, 1], "reverse_.* for each of 4 blocks"),
    ([1, [1, 0], 1, 1], LISTS_UP, "integer from 1 to 16"),
    (1, [1, [1, 1, 17], 1, 1], "reverse_.*integer from 1 to 16"),
    (1, [1, [1, 1, [1]], 1, 1], "reverse_.*integer from 1 to 16"),
    ([1, 1, 1, []], LISTS_UP, "integer from 1 to 16"),  # the last says the middle's depth
    ([1, 1, 1, ["2"]], LISTS_UP, "integer from 1 to 16"),
]


@pytest.mark.parametrize(("down", "up", "what"), WRONG_DEPTHS)
def test_depths_within_a_block_that_do_not_fit_are_refused_by_name(down, up, what):
    given = {"transformer_layers_per_block": down, "reverse_transformer_layers_per_block": up}
    with pytest.raises(CheckpointError, match=f"unet config has .*{what}") as caught:
        UNetConfig.from_dict(given)
    assert len(str(caught.value)) < 300
    good = {"transformer_layers_per_block": LISTS_DOWN,
            "reverse_transformer_layers_per_block": LISTS_UP}  # fmt: skip
    assert UNetConfig.from_dict(good).up_depths[1] == (1, 1, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.data(), st.sampled_from([UNetConfig, VAEConfig]), JSON)
def test_any_json_value_makes_a_config_or_a_checkpoint_error(data, config, value):
    key = data.draw(st.sampled_from([field.name for field in dataclasses.fields(config)]))
    try:
        made = config.from_dict({key: value})
    except CheckpointError as error:
        assert len(str(error)) < 300
    else:
        assert config.from_dict(made.to_dict()) == made


def test_a_network_is_not_built_from_an_unsupported_config():
    with pytest.raises(CheckpointError, match="norm_num_groups = 5"):
        UNet(UNetConfig(norm_num_groups=5, block_out_channels=(32,) * 4))
    with pytest.raises(CheckpointError, match="layers_per_block = 99"):
        VAE(VAEConfig(layers_per_block=99))


# ---- devices and dtypes ------------------------------------------------------------------------
class NothingOnTheCPU(TorchDispatchMode):
    """Raises when an operation makes a tensor on the CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                raise AssertionError(f"{function} made a tensor on the CPU")
        return made


SMALL = dataclasses.replace(toyland_unet((32, 64), 1), cross_attention_dim=16)


def test_the_unet_makes_every_tensor_where_its_input_is():
    with torch.device("meta"):
        net = UNet(SMALL)
        sample, text = torch.empty(2, 4, 9, 8), torch.empty(2, 5, 16)
        times = torch.empty((), dtype=torch.float32)
    with NothingOnTheCPU():
        with recording(net, ["*"]) as record:
            made = net(sample, times, text)
        assert net(sample, times, net.prepare_text(text)).shape == made.shape == (2, 4, 9, 8)
    assert made.device.type == "meta" and record


def test_the_autoencoder_makes_every_tensor_where_its_input_is():
    with torch.device("meta"):
        net, pixels = VAE(TOYLAND_VAE), torch.empty(1, 3, 64, 32)
    with NothingOnTheCPU():
        mean, std = net.encode(pixels)
        made = net.decode(mean)
    assert mean.shape == std.shape == (1, 4, 8, 4) and made.shape == pixels.shape


def test_the_device_check_can_fail():
    with pytest.raises(AssertionError, match="made a tensor on the CPU"), NothingOnTheCPU():
        torch.zeros(1)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float64, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)]
)
def test_other_dtypes_agree_with_float32(dtype, limit):
    """A timestep rounded to the dtype, say, would show far outside of rounding."""
    net, times = trained_a_little(), torch.tensor([3.3, 997.3])
    sample, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    with torch.no_grad():
        exact, moved = net(sample, times, text), net(sample, times.bfloat16(), text)
        made = net.to(dtype)(sample.to(dtype), times, text.to(dtype))
    assert made.dtype == dtype
    assert 0 < (made.double() - exact).abs().max() < limit * exact.abs().max()
    assert (moved - exact).abs().max() > 4e-2 * exact.abs().max()  # the check can fail


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_autoencoder_keeps_the_dtype_of_its_weights(dtype):
    net = VAE(TOYLAND_VAE).to(dtype).eval()
    with torch.no_grad():
        mean, std = net.encode(torch.randn(1, 3, 16, 16, dtype=dtype))
        assert {mean.dtype, std.dtype, net.decode(mean).dtype} == {dtype}


def trained_a_little() -> UNet:
    """A small U-Net whose every parameter moved, so that time and text count."""
    torch.manual_seed(0)
    net = UNet(SMALL).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    return net


def test_an_untrained_network_starts_plain_and_can_learn():
    torch.manual_seed(0)
    net = UNet(SMALL)
    sample, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    plain = net(sample, torch.tensor(1.0), text)
    assert torch.equal(plain, net(sample, torch.tensor(900.0), 2 * text))  # branches begin at zero
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(4):
        optimiser.zero_grad()
        net(sample, torch.tensor([1.0, 900.0]), text).square().mean().backward()
        optimiser.step()
    without = [name for name, p in net.named_parameters() if not p.grad.count_nonzero()]
    assert without == []


# ---- an accelerator ----------------------------------------------------------------------------
def test_an_accelerator_agrees_with_the_cpu(accelerator):
    torch.manual_seed(0)
    net, coder = UNet(SMALL).eval(), VAE(TOYLAND_VAE).eval()
    sample, text, times = torch.randn(2, 4, 9, 8), torch.randn(2, 5, 16), torch.tensor(500.0)
    with torch.no_grad():
        for p in (*net.parameters(), *coder.parameters()):
            p.add_(0.05 * torch.randn(p.shape))
        here = net(sample, times, text), coder.decode(sample)
        given = [value.to(accelerator) for value in (sample, times, text)]
        there = net.to(accelerator)(*given), coder.to(accelerator).decode(given[0])
    for ours, theirs in zip(there, here, strict=True):
        assert (ours.cpu() - theirs).abs().max() < 2e-3 * theirs.abs().max()
