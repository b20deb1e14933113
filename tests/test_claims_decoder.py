"""Claims about the decoder: calls and outputs made by hand, and any checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from asked import verdict
from torch import nn

from diffusionlab.claims import CLAIMS, Bench, decoder


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 4)


def test_what_the_architecture_decides(tiny):
    expected = {"B17": "partly", "B19": "false", "B21": "partly", "B27": "true", "B31": "true"}
    assert {name: verdict(name, tiny) for name in expected} == expected
    assert all(part.measured.count == 4 for part in CLAIMS["B20"].ask(tiny))


# ---- calls -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("calls", "bypassed", "latent"),
    [
        (["unet", "unet", "decoder"], "true", "true"),
        (["unet", "decoder", "unet", "decoder"], "partly", "false"),
        (["encoder", "unet", "unet", "decoder"], "partly", "false"),
    ],
)
def test_calls_in_another_order_would_change_the_verdicts(calls, bypassed, latent, monkeypatch):
    monkeypatch.setattr(decoder, "_calls", lambda bench: calls)
    assert (verdict("B27", None), verdict("B31", None)) == (bypassed, latent)


def test_a_run_calls_the_networks_in_this_order_and_no_hook_stays(tiny):
    parts = tiny.model.unet, tiny.model.vae.decoder
    before = [dict(part._forward_pre_hooks) for part in parts]
    assert decoder._calls(tiny) == ["unet"] * 4 + ["decoder"]
    assert [dict(part._forward_pre_hooks) for part in parts] == before


def test_convolutions_are_seen_with_their_shapes():
    net = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 2, stride=2))
    with decoder._convolutions(net) as shapes:
        net(torch.zeros(1, 2, 4, 4))
    assert shapes == [((2, 4, 4), (5, 4, 4)), ((5, 4, 4), (3, 2, 2))]
    net(torch.zeros(1, 2, 4, 4))
    assert len(shapes) == 2


# ---- the decoder's output ----------------------------------------------------------------------
@pytest.mark.parametrize(("worst", "expected"), [(1.0, "true"), (1.01, "partly"), (3.0, "false")])
def test_how_far_the_output_reaches(worst, expected, monkeypatch):
    values = np.linspace(-worst, worst, 3000).reshape(10, 100, 3)
    monkeypatch.setattr(decoder, "_outputs", lambda bench, count=None: [(values, values)] * 12)
    assert verdict("B20", None) == expected


def test_pixels_that_nobody_computed_would_be_found(monkeypatch):
    raw = np.zeros((8, 8, 3))  # decodes to 127.5
    picture = np.full((8, 8, 3), 128.0)
    picture[:6] = 60
    monkeypatch.setattr(decoder, "_outputs", lambda bench, count=None: [(raw, picture)])
    (part,) = decoder.most_pixels_are_never_computed(None)
    assert part.measured.value == 0.25 and part.holds
