"""Claims about training and the U-Net: each experiment runs, and its verdict follows the network.

`oracle` answers in the network's place with the truth; what it says as eps or as v decides the
verdicts of claims about what is predicted.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from asked import finding
from torch import nn

import diffusionlab as dl
from diffusionlab.claims import Bench, known_pictures, memory, training_step
from diffusionlab.claims.known_pictures import known, likeness, noised, wrongness
from diffusionlab.claims.network import CLAIMS
from diffusionlab.errors import InputError
from diffusionlab.levels import NoiseLevel
from diffusionlab.trace import Prediction
from diffusionlab.training import team


@pytest.fixture(scope="module")
def bench(tiny_model):
    return Bench(tiny_model, samples=2)


def truthful(kind: str, bench: Bench, monkeypatch) -> Bench:
    """A bench whose network always says the truth, as eps or as v."""
    fresh = Bench(bench.model, samples=4)
    scenes = known(fresh)
    latents = scenes.latents / scenes.latents.std()  # as large as those of a trained VAE
    fresh._runs["known pictures"] = dataclasses.replace(scenes, latents=latents)
    clean = torch.from_numpy(latents)

    def answer(model, asked):
        said = []
        for x0, (latent, at, *_) in zip(clean, asked, strict=True):
            eps = (latent - at.alpha * x0) / at.sigma
            raw = eps if kind == "eps" else at.alpha * eps - at.sigma * x0
            said.append(Prediction(at, latent, raw, None, 1.0, kind, None))
        return said

    monkeypatch.setattr(known_pictures, "predict_many", answer)
    return fresh


def test_claims_are_short_and_their_names_are_letters_d_and_e():
    assert all(len(claim.says.split()) <= 12 for claim in CLAIMS)
    assert {claim.id[0] for claim in CLAIMS} == {"D", "E"} and len(
        {claim.id for claim in CLAIMS}
    ) == len(CLAIMS)


# ---- training ----------------------------------------------------------------------------------
def test_a_training_step_is_one_pass_of_the_unet_and_no_picture(bench):
    step = training_step.training_step(bench)
    assert step.calls["UNet"] == 1 and step.calls["Encoder"] == step.calls["Decoder"] == 0
    assert step.learning["unet"] == 1
    assert finding("D2", bench).verdict == "false"


def test_the_count_would_see_a_decoder():
    class Decoder(nn.Identity):
        pass

    with training_step._counted() as calls:
        Decoder()(1)
    Decoder()(1)
    assert calls["Decoder"] == 1


def test_the_share_of_weights_that_learn():
    part = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 1, bias=False))
    part[1].weight.requires_grad_(False)
    part(torch.ones(1, 3)).sum().backward()
    assert training_step._share(part) == 0.75


def test_a_training_step_needs_no_training_extra(tiny_model, monkeypatch):
    monkeypatch.setattr(team, "find_spec", lambda name: None)
    assert isinstance(team.team(True), team.Alone) and isinstance(team.processes(True), team.Alone)
    assert finding("D2", Bench(tiny_model)).verdict == "false"


def test_processes_that_nothing_joins_are_refused(monkeypatch):
    monkeypatch.setattr(team, "find_spec", lambda name: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r'pip install "diffusionlab\[train\]"'):
        team.team(True)


# ---- what is predicted -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "noise", "picture"), [("eps", "true", "partly"), ("v", *["partly"] * 2)]
)
def test_what_the_raw_output_is_decides_what_is_predicted(kind, noise, picture, bench, monkeypatch):
    oracle = truthful(kind, bench, monkeypatch)
    assert finding("E1", oracle).verdict == noise
    assert finding("D4", oracle).verdict == picture


def test_a_network_that_knows_the_truth_repairs_and_one_at_random_does_not(bench, monkeypatch):
    rough = finding("D8", Bench(bench.model, samples=4))
    assert rough.verdict != "true"
    oracle = truthful("v", bench, monkeypatch)
    assert finding("D8", oracle).verdict == "true"
    found = finding("D6", oracle)
    assert [part.holds for part in found.parts] == [False, True]


def test_who_ignores_the_text_has_not_learned_it(bench, monkeypatch):
    found = finding("D9", truthful("v", bench, monkeypatch))
    assert found.verdict == "false" and all(part.measured.value == 0 for part in found.parts)


# ---- known pictures ----------------------------------------------------------------------------
def test_known_pictures_are_noised_by_the_formula_and_come_with_their_masks(bench):
    scenes = known(bench)
    assert scenes is known(bench) and len(scenes.prompts) == 2
    half = noised(scenes.latents, scenes.noise, NoiseLevel(0.0, 0.6, 0.8))
    np.testing.assert_allclose(half, 0.6 * scenes.latents + 0.8 * scenes.noise)
    kinds = [prompt.kinds[0] for prompt in scenes.prompts]
    assert scenes.masks(kinds).shape == (2, 64, 64) and scenes.masks(kinds).any(axis=(1, 2)).all()
    assert not scenes.masks(["nothing", "of this"]).any()
    assert scenes.wrong_texts[0] is scenes.texts[1] and scenes.wrong_texts[1] is scenes.texts[0]


def test_likeness_and_wrongness_by_hand():
    a = np.array([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    np.testing.assert_allclose(likeness(a, 5 - 2 * a), [-1, 0], atol=1e-12)
    np.testing.assert_allclose(wrongness(a, a + [[[1]], [[-3]]]), [1, 9])


# ---- memory ------------------------------------------------------------------------------------
def test_the_exact_denoiser_gives_its_data_back_and_a_blurred_one_does_not(bench, monkeypatch):
    assert memory.copies_by_formula(bench) == (2, 2)

    class Blurred(memory.FiniteWorld):
        def __init__(self, data):
            super().__init__(np.repeat(np.mean(data, axis=0, keepdims=True), 2, axis=0))

    monkeypatch.setattr(memory, "FiniteWorld", Blurred)
    assert memory.copies_by_formula(bench) == (0, 2)


def test_a_model_that_returns_its_training_pictures_is_found_out(toyland_bench, monkeypatch):
    few = Bench(toyland_bench.model, samples=4)
    trained = memory._training_prompts(few)
    copies = memory.rendered([prompt.scene for prompt in trained], few.model.size)
    monkeypatch.setattr(few, "pictures", lambda prompts: list(copies))
    found = finding("D10", few)
    assert found.parts[0].measured.value == 1 and found.parts[0].holds is False
    assert found.verdict == "false"


# ---- Toyland -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "verdict"),
    [("D8", "true"), ("D13", "true"), ("D5", "partly"), ("E2", "partly"), ("D2", "false")],
)
def test_verdicts_on_toyland_that_any_trained_model_must_have(name, verdict, toyland_bench):
    assert finding(name, toyland_bench).verdict == verdict


def test_silence_about_noise_makes_the_verdict_fall(toyland_bench):
    """With the U-Net's last layer at 0, eps-hat is the noisy picture itself (but for rounding)."""
    unet = dl.load(device="cpu").unet
    nn.init.zeros_(unet.conv_out.weight), nn.init.zeros_(unet.conv_out.bias)
    mute = Bench(dataclasses.replace(toyland_bench.model, unet=unet), samples=4)
    predicts = finding("E2", mute).parts[0]
    assert not predicts.holds and abs(predicts.measured.value) < 1e-6
    assert finding("E5", mute).verdict != "true"
