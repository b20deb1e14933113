"""Claims about latents: numbers known by hand, autoencoders made by hand, and any checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from diffusionlab.analysis.autoencoder import roundtrip
from diffusionlab.claims import Bench, latents
from diffusionlab.claims.claim import Finding
from diffusionlab.errors import InputError
from diffusionlab.images import Preview, to_image, to_pixels
from diffusionlab.pipeline import load
from diffusionlab.toyland import render
from diffusionlab.training.judge_nets import Verdict

NEED_JUDGES = {"B4", "B26"}
CLAIMS = {claim.id: claim for claim in latents.CLAIMS}


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 4)


@pytest.fixture(scope="module")
def toyland():
    return Bench(load(device="cpu"), 4)


def verdict(name: str, bench) -> str:
    return Finding(CLAIMS[name], CLAIMS[name].ask(bench)).verdict


@pytest.mark.parametrize("name", sorted(set(CLAIMS) - NEED_JUDGES))
def test_it_is_asked_of_any_checkpoint(name, tiny):
    parts = CLAIMS[name].ask(tiny)
    assert parts and all(np.isfinite(part.measured.value) for part in parts)


@pytest.mark.parametrize("name", sorted(NEED_JUDGES))
def test_where_the_judges_are_needed_another_model_is_told_so(name, tiny):
    with pytest.raises(InputError, match=r"was not trained on Toyland.*use dl\.load\(\)"):
        CLAIMS[name].ask(tiny)


def test_what_the_architecture_decides(tiny):
    expected = {"B3": "partly", "B6": "true", "B17": "partly", "B19": "false", "B21": "partly",
                "B27": "true", "B31": "true"}  # fmt: skip
    assert {name: verdict(name, tiny) for name in expected} == expected


def test_the_saving_is_counted(tiny):
    numbers, size = latents.numbers_saved(tiny)
    assert numbers.measured.value == pytest.approx(47 / 48)
    assert size.measured.value == pytest.approx(23 / 24)
    many = SimpleNamespace(size=64, size_factor=8, latent_channels=16)  # as in later models
    assert verdict("B3", SimpleNamespace(model=many)) == "false"


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
    monkeypatch.setattr(latents, "_calls", lambda bench: calls)
    assert (verdict("B27", None), verdict("B31", None)) == (bypassed, latent)


def test_a_run_calls_the_networks_in_this_order_and_no_hook_stays(tiny):
    parts = tiny.model.unet, tiny.model.vae.decoder
    before = [dict(part._forward_pre_hooks) for part in parts]
    assert latents._calls(tiny) == ["unet"] * 4 + ["decoder"]
    assert [dict(part._forward_pre_hooks) for part in parts] == before


def test_convolutions_are_seen_with_their_shapes():
    net = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 2, stride=2))
    with latents._convolutions(net) as shapes:
        net(torch.zeros(1, 2, 4, 4))
    assert shapes == [((2, 4, 4), (5, 4, 4)), ((5, 4, 4), (3, 2, 2))]
    net(torch.zeros(1, 2, 4, 4))
    assert len(shapes) == 2


# ---- autoencoders made by hand -----------------------------------------------------------------
def through(bench: Bench, change):
    """Round trips whose latent is the mean of 8 × 8 pixels; `change` makes what comes back."""
    found = []
    for shown in bench.scenes:
        image = to_image(render(shown, 64).image)
        small = to_pixels(image.reduce(8)).transpose(2, 0, 1)
        pixels = change(to_pixels(image))
        found.append(roundtrip(image, lambda _, z=small: z, lambda _, p=pixels: to_image(p)))
    return found


def stretched(pixels):
    small = to_image(pixels).reduce(8)
    return to_pixels(small.resize((64, 64), 3))


def noisy(pixels):
    return np.clip(pixels + np.random.default_rng(0).normal(0, 0.3, pixels.shape), 0, 1)


CHANGES = {"same": lambda pixels: pixels, "stretched": stretched, "noisy": noisy}


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("B13", "same", "true"),
        ("B13", "stretched", "partly"),  # less than there was, nothing wrong
        ("B13", "noisy", "false"),
        ("B15", "same", "true"),
        ("B15", "stretched", "false"),
        ("B15", "noisy", "false"),
        ("B11", "same", "false"),  # this latent is a picture
    ],
)
def test_verdicts_on_an_autoencoder_made_by_hand(name, change, expected, tiny, monkeypatch):
    monkeypatch.setattr(latents, "_roundtrips", lambda bench: through(bench, CHANGES[change]))
    assert verdict(name, tiny) == expected


def test_a_latent_that_says_nothing_is_not_seen(tiny, monkeypatch):
    trips = through(tiny, CHANGES["same"])
    dice = np.random.default_rng(0)
    blind = [SimpleNamespace(before=t.before, cell=8, latent=dice.normal(size=t.latent.shape))
             for t in trips]  # fmt: skip
    monkeypatch.setattr(latents, "_roundtrips", lambda bench: blind)
    assert verdict("B11", tiny) == "true"


def test_what_is_explained_is_r_squared():
    before = np.zeros((16, 16, 3))
    before[:8], before[8:] = 0.25, 0.75
    trip = SimpleNamespace(before=before, cell=8)
    eye = Preview(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), np.ones(3))
    latent = np.repeat(np.array([[0.25, 0.25], [0.75, 0.75]])[None], 3, axis=0)
    assert latents._explained(eye, latent, trip) == pytest.approx(1)
    assert latents._explained(eye, np.full((3, 2, 2), 0.5), trip) == pytest.approx(0)


def test_psnr_known_by_hand():
    assert latents._psnr(np.zeros(4), np.full(4, 0.1)) == pytest.approx(20)
    assert latents._psnr(np.zeros(4), np.zeros(4)) == 120


# ---- the decoder's output ----------------------------------------------------------------------
@pytest.mark.parametrize(("worst", "expected"), [(1.0, "true"), (1.01, "partly"), (3.0, "false")])
def test_how_far_the_output_reaches(worst, expected, monkeypatch):
    values = np.linspace(-worst, worst, 3000).reshape(10, 100, 3)
    monkeypatch.setattr(latents, "_outputs", lambda bench, count=None: [(values, values)] * 12)
    assert verdict("B20", None) == expected


def test_pixels_that_nobody_computed_would_be_found(monkeypatch):
    raw = np.zeros((8, 8, 3))  # decodes to 127.5
    picture = np.full((8, 8, 3), 128.0)
    picture[:6] = 60
    monkeypatch.setattr(latents, "_outputs", lambda bench, count=None: [(raw, picture)])
    (part,) = latents.most_pixels_are_never_computed(None)
    assert part.measured.value == 0.25 and part.holds


# ---- judged ------------------------------------------------------------------------------------
def test_noise_with_and_without_things(toyland, monkeypatch):
    for things, expected in (({"car": "red"}, "true"), ({}, "false")):
        seen = Verdict(tuple(things), "city", None, "plain", things)
        bench = Bench(toyland.model, 4)
        monkeypatch.setattr(bench, "judged", lambda images, seen=seen: [seen] * len(images))
        assert verdict("B26", bench) == expected


def test_toylands_autoencoder_is_asked(toyland):
    for name in ("B4", "B12", "B26"):
        assert all(part.measured.count == 4 for part in CLAIMS[name].ask(toyland))
