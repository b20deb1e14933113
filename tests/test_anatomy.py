"""The anatomy of a U-Net: shapes as they are, parameters all counted, FLOPs as known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import diffusionlab as dl
from diffusionlab.errors import InputError
from diffusionlab.models import UNet, UNetConfig
from diffusionlab.taps import is_watched, recording


def test_the_blocks_hold_every_parameter_and_their_real_shapes(tiny_model):
    found = dl.anatomy(tiny_model, 64, 48)
    assert found.parameters == sum(w.numel() for w in tiny_model.unet.parameters())
    assert found.latent == (4, 8, 6) and found.tokens == 32
    shapes = {}
    for block in found.blocks:
        part = tiny_model.unet.get_submodule(block.name)

        def keep(module, given, made, name=block.name):
            made = made[0] if isinstance(made, tuple) else made
            shapes[name] = tuple(made.shape[1:])

        hook = part.register_forward_hook(keep)
        with torch.no_grad():
            text = torch.zeros(1, 32, 32)
            tiny_model.unet(torch.zeros(1, 4, 8, 6), torch.tensor(3.0), text)
        hook.remove()
    assert {b.name: b.shape[: len(shapes[b.name])] for b in found.blocks} == shapes
    assert [b.kind for b in found.blocks] == [
        "time", "in", "down", "down", "mid", "up", "up", "out"]  # fmt: skip
    assert not is_watched(tiny_model.unet)


def test_skips_and_attention_are_those_of_a_run(tiny_model):
    found = dl.anatomy(tiny_model)
    names = [skip.tap for skip in found.skips] + list(found.cross) + list(found.self_)
    with torch.no_grad(), recording(tiny_model.unet, names, heads=True) as seen:
        tiny_model.unet(torch.zeros(1, 4, 8, 8), torch.tensor(3.0), torch.zeros(1, 32, 32))
    for skip in found.skips:
        assert skip.shape == tuple(seen[skip.tap][0].shape[1:])
    for taps in (found.cross, found.self_):
        assert taps == {name: tuple(seen[name][0].shape[1:4]) for name in taps}
    assert all(name.endswith("attn2.probabilities") for name in found.cross) and found.cross
    last_made, first_made = found.skips[-1], found.skips[0]
    assert last_made.target == "up_blocks.0" and first_made.target == "up_blocks.1"


def test_stable_diffusion_1_5_has_its_known_size_and_flops(tiny_model):
    with torch.device("meta"):
        unet = UNet(UNetConfig(cross_attention_dim=768, sample_size=64)).eval()
    found = dl.anatomy(replace(tiny_model, unet=unet), 512, 512)
    assert found.parameters == 859_520_964
    short = found.flops / 803.27344128e9  # the same with 77 tokens; this tokenizer reads 32
    assert 0.99 < short < 1
    assert len(found.skips) == 12 and len(found.cross) == 16
    kinds = {k: sum(b.flops_by_kind.get(k, 0) for b in found.blocks)
             for k in ("convolution", "linear", "attention")}  # fmt: skip
    shares = {kind: count / found.flops for kind, count in kinds.items()}
    assert shares == pytest.approx(
        {"convolution": 0.52, "linear": 0.32, "attention": 0.155}, abs=0.01
    )
    assert "859.52 M" in repr(found)


def test_a_size_that_cannot_be_is_refused(tiny_model):
    with pytest.raises(InputError, match="height is 7"):
        dl.anatomy(tiny_model, 7)
