"""Large pictures in tiles: the layout, the seams, diffusers' tiles, and precision on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from parity import normal, shaken
from PIL import Image
from tiny import tiny_vae
from torch import nn

import diffusionlab as dl
from diffusionlab.errors import InputError
from diffusionlab.models import VAE, VAEConfig
from diffusionlab.running import tiles
from diffusionlab.running.ledger import price
from diffusionlab.running.lending import lent, safe_precision
from diffusionlab.training.pictures import decoded, latents_of


def latent(height, width, seed=0):
    return normal(4, height, width, seed=seed)


def smooth(height, width):
    """A latent that varies slowly, as those of pictures do."""
    coarse = normal(1, 4, 5, 5)
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0]


# ---- the layout ----------------------------------------------------------------------------------
def test_tiles_overlap_by_a_quarter_and_reach_the_end():
    assert tiles._spans(16, 16) == [(0, 16, (0, 0))]
    assert tiles._spans(28, 16) == [(0, 16, (0, 4)), (12, 16, (4, 0))]
    assert tiles._spans(17, 16) == [(0, 16, (0, 4)), (12, 5, (4, 0))]
    for length in range(1, 80):
        spans = tiles._spans(length, 16)
        assert spans[-1][0] + spans[-1][1] == length
        for (start, size, (_, after)), (following, _, (before, _)) in zip(
            spans, spans[1:], strict=False
        ):
            assert start + size - following == after == before == 4


@pytest.mark.parametrize("shape", [(16, 16), (17, 40), (64, 9), (33, 28)])
def test_the_weights_of_all_tiles_add_up_to_one_everywhere(shape):
    values = torch.ones(1, 2, *shape)
    made = tiles.tiled(lambda v: v.repeat_interleave(8, 2).repeat_interleave(8, 3), values, 16,
                       (1, 8))  # fmt: skip
    assert made.shape == (1, 2, 8 * shape[0], 8 * shape[1])
    torch.testing.assert_close(made, torch.ones_like(made), rtol=0, atol=1e-6)


def test_a_local_network_is_exact_in_tiles():
    """One that sees single cells only: nothing is lost, seams included."""
    values = latent(37, 50)[None]
    grow = nn.Upsample(scale_factor=8, mode="nearest")
    torch.testing.assert_close(tiles.tiled(grow, values, 16, (1, 8)), grow(values), rtol=0,
                               atol=1e-6)  # fmt: skip
    shrink = nn.AvgPool2d(8)
    pixels = normal(1, 3, 8 * 37, 8 * 50)
    made = tiles.tiled(shrink, pixels, 16, (8, 1))
    torch.testing.assert_close(made, shrink(pixels), rtol=0, atol=1e-6)


def test_inside_a_tile_its_own_values_stand_untouched():
    values = latent(28, 16)[None]
    calls = []

    def call(piece):
        calls.append(piece)
        return piece * len(calls)

    made = tiles.tiled(call, values, 16, (1, 1))
    assert torch.equal(made[..., :12, :], values[..., :12, :])
    assert torch.equal(made[..., 16:, :], 2 * values[..., 16:, :])
    assert not torch.equal(made[..., 13:16, :], values[..., 13:16, :])


# ---- the VAE -------------------------------------------------------------------------------------
@pytest.mark.parametrize("tile", [0, 60, 63, 129.0, True, "64", -64])
def test_a_tile_that_cannot_be_is_refused(tiny_model, tile):
    with pytest.raises(InputError, match="multiple of 8 from 64 on"):
        dl.decode(tiny_model, latent(8, 8), tile=tile)


def test_a_picture_no_larger_than_a_tile_is_decoded_whole(tiny_model):
    whole = np.asarray(dl.decode(tiny_model, latent(12, 8)))
    assert np.array_equal(np.asarray(dl.decode(tiny_model, latent(12, 8), tile=96)), whole)


def psnr(one, other, peak=2.0):
    return 10 * np.log10(peak**2 / float(((one - other) ** 2).mean()))


def test_the_seam_error_of_a_trained_vae():
    """Toyland's, tiles as large as its training pictures: 35 dB decoded when this was written."""
    model = dl.load(device="cpu")
    picture = Image.radial_gradient("L").resize((384, 256))
    picture = Image.merge("RGB", (picture, picture.rotate(180), picture.transpose(0)))
    latents = dl.encode(model, picture)
    whole = dl.stages.decode_pixels(model, latents.values)
    measured = [psnr(whole, dl.stages.decode_pixels(model, latents.values, t)) for t in (64, 128)]
    print("PSNR of tiles of 64 and of 128 pixels against the whole, dB:", measured)
    assert measured[1] > max(measured[0], 28)
    tiled = dl.encode(model, picture, tile=128).values
    assert psnr(latents.values, tiled, float(latents.values.abs().max())) > 25
    assert tiled.shape == latents.values.shape == (4, 32, 48)


@pytest.fixture(scope="module")
def pair():
    """The same weights in diffusers' autoencoder, in tiles of 128 pixels, and in ours."""
    pytest.importorskip("diffusers")
    theirs = shaken(tiny_vae(), seed=3)
    theirs.enable_tiling()
    theirs.tile_sample_min_size, theirs.tile_latent_min_size = 128, 16
    ours = VAE(VAEConfig.from_dict(dict(theirs.config))).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("shape", [(10, 24), (44, 12), (32, 10)])
def test_a_row_of_tiles_equals_diffusers(pair, shape):
    ours, theirs = pair
    values = latent(*shape)[None]
    with torch.no_grad():
        expected = theirs.decode(values).sample
        made = tiles.tiled(ours.decode, values, 16, (1, 8))
        pixels = expected.clamp(-1, 1)
        mean = theirs.encode(pixels).latent_dist.mean
        back = tiles.tiled(lambda v: ours.encode(v)[0], pixels, 16, (8, 1))
        whole = ours.decode(values)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back, mean, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole, expected, rtol=1e-3, atol=1e-3)  # the check can fail


def test_a_field_of_tiles_equals_diffusers_but_where_four_meet(pair):
    ours, theirs = pair
    values = latent(24, 24)[None]
    with torch.no_grad():
        expected = theirs.decode(values).sample
        made = tiles.tiled(ours.decode, values, 16, (1, 8))
    crossing = torch.zeros(192, 192, dtype=torch.bool)
    crossing[96:128, 96:128] = True  # cells 12 … 16 in both directions
    torch.testing.assert_close(made[..., ~crossing], expected[..., ~crossing], rtol=1e-4, atol=1e-4)
    assert (made - expected).abs().max() < (expected.max() - expected.min()) / 4


def test_memory_that_runs_out_falls_back_to_tiles_with_a_notice(tiny_model, monkeypatch, capsys):
    whole = tiny_model.vae.decode
    seen = []

    def too_large(values):
        seen.append(tuple(values.shape[-2:]))
        if max(values.shape[-2:]) > 64:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(values)

    monkeypatch.setattr(tiny_model.vae, "decode", too_large, raising=False)
    values = smooth(12, 80)
    made = dl.decode(tiny_model, values)
    assert "tiles of 512 pixels" in capsys.readouterr().err
    assert seen == [(12, 80), (12, 64), (12, 32)]
    assert made.size == (640, 96)
    expected = dl.decode(tiny_model, values, tile=512)
    assert np.array_equal(np.asarray(made), np.asarray(expected))
    assert not capsys.readouterr().err


def test_a_device_with_little_free_memory_decodes_in_tiles(tiny_model, monkeypatch, capsys):
    values = smooth(12, 80)
    needed = tiles.bytes_whole(tiny_model.vae, values, 8)
    tiled = np.asarray(dl.decode(tiny_model, values, tile=512))
    for free, expected in ((needed - 1, True), (needed, False), (None, False)):
        monkeypatch.setattr(tiles, "free_memory", lambda _, free=free: free)
        made = np.asarray(dl.decode(tiny_model, values))
        assert np.array_equal(made, tiled) == expected
        assert ("memory is short" in capsys.readouterr().err) == expected
    monkeypatch.setattr(tiles, "free_memory", lambda _: 0)
    picture = dl.decode(tiny_model, smooth(64, 64))  # no larger than a tile
    dl.encode(tiny_model, picture)
    assert not capsys.readouterr().err
    dl.encode(tiny_model, Image.new("RGB", (640, 64)))
    assert "encoded in tiles" in capsys.readouterr().err


@pytest.mark.parametrize(("side", "widths"), [(64, (128, 256, 512, 512)), (32, (16, 32, 64, 128)),
                                              (128, (128, 256, 512, 512))])  # fmt: skip
def test_the_bytes_of_a_whole_decode_are_bounded_closely(side, widths):
    blocks = len(widths)
    with torch.device("meta"):
        vae = VAE(VAEConfig(block_out_channels=widths, layers_per_block=2, norm_num_groups=8,
                            down_block_types=("DownEncoderBlock2D",) * blocks,
                            up_block_types=("UpDecoderBlock2D",) * blocks))  # fmt: skip
        values = torch.zeros(1, 4, side, side)
        pixels = torch.zeros(1, 3, 8 * side, 8 * side)
    taken = price(lambda: vae.decode(values)).peak
    assert taken < tiles.bytes_whole(vae, values, 8) < 1.6 * taken
    encoded = price(lambda: vae.encode(pixels)).peak
    assert encoded < tiles.bytes_whole(vae, pixels, 1)


# ---- precision -----------------------------------------------------------------------------------
def overflowing(dtype, **changes) -> VAE:
    """An autoencoder whose inner values pass float16's largest number, 65504, by far."""
    config = replace(VAEConfig.from_dict(dict(tiny_vae().config)), **changes)
    torch.manual_seed(0)
    vae = VAE(config).eval().requires_grad_(False)
    vae.decoder.conv_in.weight.mul_(1e5 / vae.decoder.conv_in.weight.abs().mean() / 36)
    vae.encoder.conv_in.weight.mul_(1e5 / vae.encoder.conv_in.weight.abs().mean() / 27)
    return vae.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_vae_that_overflows_decodes_in_float32_where_its_config_says_so(tiny_model, dtype):
    vae = overflowing(dtype)
    own = {name: (p.data_ptr(), p.clone()) for name, p in vae.named_parameters()}
    model = replace(tiny_model, vae=vae)
    made = dl.stages.decode_pixels(model, latent(8, 8))
    assert made.dtype == torch.float32
    assert torch.isfinite(made).all()
    exact = replace(tiny_model, vae=overflowing(dtype).float())
    assert torch.equal(made, dl.stages.decode_pixels(exact, latent(8, 8)))
    picture = dl.decode(model, latent(8, 8))
    assert torch.isfinite(dl.encode(model, picture).values).all()
    for name, parameter in vae.named_parameters():  # the very same memory, nothing rounded
        pointer, values = own[name]
        assert parameter.data_ptr() == pointer and torch.equal(parameter, values)
        assert not parameter.is_inference()


def test_many_pictures_at_once_pass_a_vae_that_overflows(tiny_model):
    """As a lesson encodes them: the very latents of one picture alone, in half precision too."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    model = replace(tiny_model, vae=overflowing(torch.float16))
    exact = replace(tiny_model, vae=overflowing(torch.float16).float())
    latents = latents_of(model, pictures)
    assert torch.isfinite(latents).all() and torch.equal(latents, latents_of(exact, pictures))
    assert np.array_equal(decoded(model, latents), decoded(exact, latents))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_accelerator_decodes_an_overflowing_vae_finitely(accelerator, tiny_folder, dtype):
    model = dl.load(tiny_folder, dtype=dtype)
    model = replace(model, vae=overflowing(dtype).to(model.device))
    assert torch.isfinite(dl.stages.decode_pixels(model, latent(8, 8))).all()
    tiled = dl.stages.decode_pixels(model, latent(20, 12), 64)
    assert tiled.shape == (3, 160, 96) and tiled.device.type == model.device.type


def test_a_vae_that_is_said_to_be_safe_stays_in_its_precision(tiny_model):
    vae = overflowing(torch.float16, force_upcast=False)
    with pytest.raises(dl.NumericsError, match="float32"):
        dl.decode(replace(tiny_model, vae=vae), latent(8, 8))
    small = overflowing(torch.bfloat16, force_upcast=False)
    assert torch.isfinite(
        dl.stages.decode_pixels(replace(tiny_model, vae=small), latent(8, 8))
    ).all()
    with safe_precision(small) as dtype:
        assert dtype == torch.bfloat16


def test_weights_return_after_an_interrupt():
    module = nn.Linear(3, 3)
    own = module.weight.data_ptr()
    with pytest.raises(KeyboardInterrupt), lent(module, lambda values: values.double()):
        assert module.weight.dtype == torch.float64
        raise KeyboardInterrupt
    assert module.weight.data_ptr() == own and module.weight.dtype == torch.float32
    calls = []

    def fails(values):
        calls.append(values)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return values.double()

    with pytest.raises(KeyboardInterrupt), lent(module, fails):
        pytest.fail("the block must not begin")
    assert module.weight.data_ptr() == own and module.weight.dtype == torch.float32


def test_pictures_are_refused_before_any_tile(tiny_model):
    with pytest.raises(InputError, match="PIL"):
        dl.encode(tiny_model, "a.png", tile=64)
    with pytest.raises(InputError, match="tile"):
        dl.encode(tiny_model, Image.new("RGB", (64, 64)), tile=5)
