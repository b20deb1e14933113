"""Claims about latents: numbers known by hand, autoencoders made by hand, and any checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from asked import verdict

from diffusionlab.analysis.autoencoder import roundtrip
from diffusionlab.claims import CLAIMS, Bench, latents
from diffusionlab.claims.claim import Measured
from diffusionlab.images import Preview, to_image, to_pixels
from diffusionlab.toyland import render


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 12)


def test_what_the_architecture_decides(tiny):
    assert {name: verdict(name, tiny) for name in ("B3", "B6")} == {"B3": "partly", "B6": "true"}


def test_the_saving_is_counted(tiny):
    numbers, size = latents.numbers_saved(tiny)
    assert numbers.measured.value == pytest.approx(47 / 48)
    assert size.measured.value == pytest.approx(23 / 24)
    many = SimpleNamespace(size=64, size_factor=8, latent_channels=16)  # as in later models
    assert verdict("B3", SimpleNamespace(model=many)) == "false"


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


@pytest.mark.parametrize(("wrong", "expected"), [(0.0, "true"), (0.1, "true"), (0.5, "false")])
def test_what_comes_back_of_noise(wrong, expected, tiny, monkeypatch):
    monkeypatch.setattr(latents, "decode", lambda model, z: z)
    monkeypatch.setattr(latents, "encode", lambda model, z: SimpleNamespace(values=(1 + wrong) * z))
    monkeypatch.setattr(latents, "_roundtrips", lambda bench: encoded(0))
    assert verdict("B26", tiny) == expected  # a tenth of the amplitude, a hundredth of the power


def encoded(mean):
    """What stands in for round trips: latents around a mean."""
    dice = np.random.default_rng(0)
    return [SimpleNamespace(latent=dice.normal(mean, 1, (4, 8, 8))) for _ in range(4)]


def test_latents_of_pictures_are_the_control(tiny, monkeypatch):
    def back(model, z):  # pictures lie around 7; of any other latent half is lost
        return SimpleNamespace(values=z if z.mean() > 5 else z / 2)

    monkeypatch.setattr(latents, "decode", lambda model, z: z)
    monkeypatch.setattr(latents, "encode", back)
    monkeypatch.setattr(latents, "_roundtrips", lambda bench: encoded(7))
    assert [part.measured.value for part in CLAIMS["B26"].ask(tiny)] == pytest.approx(
        [0, 0.25], abs=0.03
    )
    assert verdict("B26", tiny) == "partly"


def test_a_mean_of_doublings_is_told_as_a_ratio():
    told = latents._raised(Measured(1, -1, 3, 8))
    assert (told.value, told.low, told.high, told.count) == (2, 0.5, 8, 8)


# ---- Toyland ------------------------------------------------------------------------------------
def test_toylands_autoencoder_is_asked(toyland_bench):
    for name in ("B4", "B12"):
        assert all(part.measured.count == 4 for part in CLAIMS[name].ask(toyland_bench))
