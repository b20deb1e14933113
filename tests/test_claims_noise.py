"""Claims about noise: correlations known by hand, schedules made by hand, any checkpoint."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from asked import verdict

from diffusionlab.claims import CLAIMS, Bench, noise
from diffusionlab.schedule import NoiseSchedule


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 12)


def test_what_seeds_and_schedules_decide(tiny):
    expected = {"C1": "true", "C4": "partly", "C6": "partly", "C8": "partly", "C9": "false",
                "C11": "partly", "C12": "true", "C13": "true"}  # fmt: skip
    assert {name: verdict(name, tiny) for name in expected} == expected


# ---- neighbours --------------------------------------------------------------------------------
def test_neighbours_known_by_hand():
    board = np.indices((4, 4)).sum(axis=0) % 2  # each neighbour is the opposite
    assert noise.neighbours(board) == pytest.approx(-1)
    stripes = np.repeat([[0, 1, 0, 1]], 4, axis=0)  # alike downwards, opposite across
    assert noise.neighbours(stripes) == pytest.approx(0)
    slope = np.add.outer(np.arange(64.0), np.arange(64.0))
    assert noise.neighbours(slope) > 0.9
    white = np.random.default_rng(0).normal(size=(4, 64, 64))
    assert abs(noise.neighbours(white)) < 0.02


def test_the_mean_of_a_channel_is_no_likeness():
    white = np.random.default_rng(0).normal(size=(2, 64, 64))
    shifted = white + np.array([[[5.0]], [[-3.0]]])
    assert noise.neighbours(shifted) == pytest.approx(noise.neighbours(white))


def drawing(values):
    """What stands in for `draw_noise`: always the same values."""
    return lambda model, seed, *size: SimpleNamespace(values=torch.tensor(values))


def test_a_start_that_is_not_gaussian_or_not_white_is_found(tiny, monkeypatch):
    dice = np.random.default_rng(0)
    flat = dice.uniform(-1.7, 1.7, (4, 16, 16))
    monkeypatch.setattr(noise, "draw_noise", drawing(flat))
    assert verdict("C1", tiny) == "partly"  # white, not Gaussian
    slope = np.sort(dice.normal(size=(4, 256)), axis=1).reshape(4, 16, 16)
    monkeypatch.setattr(noise, "draw_noise", drawing(slope))
    assert verdict("C1", tiny) == "partly"  # Gaussian, not white
    steps = np.sort(flat.reshape(4, 256), axis=1).reshape(4, 16, 16)
    monkeypatch.setattr(noise, "draw_noise", drawing(steps))
    assert verdict("C1", tiny) == "false"


# ---- schedules ---------------------------------------------------------------------------------
def asked(schedule: NoiseSchedule, name: str) -> str:
    bench = SimpleNamespace(
        model=SimpleNamespace(schedule=schedule), rng=lambda name: np.random.default_rng(0)
    )
    return verdict(name, bench)


def test_other_schedules_give_other_verdicts():
    usual = NoiseSchedule.scaled_linear(prediction_type="v")
    assert asked(usual, "C11") == "partly"
    assert asked(usual.zero_terminal_snr(), "C11") == "true"
    short = NoiseSchedule.linear(num_train_steps=20)
    assert asked(short, "C11") == "false"
    assert asked(usual, "C12") == "true"
    assert asked(NoiseSchedule.linear(beta_start=0.02, beta_end=0.03), "C12") == "false"


def test_increments_that_do_not_add_up_would_be_found():
    usual = NoiseSchedule.scaled_linear()
    assert asked(usual, "C13") == "true"
    other = SimpleNamespace(beta=usual.beta[:100], num_train_steps=1000, level_at=usual.level_at)
    assert asked(other, "C13") == "false"


# ---- seeds -------------------------------------------------------------------------------------
def test_a_machine_that_ignored_the_seed_would_be_found(tiny, monkeypatch):
    kept, dice = noise.generate, iter(range(100))

    def loaded(model, prompt, **settings):
        return kept(model, prompt, **settings | {"seed": next(dice)})

    monkeypatch.setattr(noise, "generate", loaded)
    assert verdict("C9", tiny) == "true"
    assert verdict("C6", tiny) == "false"


def test_a_machine_without_entropy_would_be_found(tiny, monkeypatch):
    monkeypatch.setattr(noise.os, "urandom", lambda count: bytes(count))
    assert verdict("C8", tiny) == "true"


def test_a_generator_that_forgets_its_seed_would_be_found(tiny, monkeypatch):
    dice = iter(range(1000))
    monkeypatch.setattr(noise, "draw_noise", lambda *a: drawing(np.array([next(dice)]))(*a))
    assert [part.measured.value for part in CLAIMS["C8"].ask(tiny)] == [0, 0]
    assert verdict("C8", tiny) == "false"


# ---- the network -------------------------------------------------------------------------------
def removing(eps, picture):
    """A bench whose runs predict one eps and end in one latent."""
    said = SimpleNamespace(predictions=[SimpleNamespace()])
    trace = SimpleNamespace(steps=[said], latents=[picture])
    return SimpleNamespace(texts=["a"] * 8, traces=lambda *a, **s: [trace] * 8), eps


@pytest.mark.parametrize(("structured", "expected"), [(True, "true"), (False, "false")])
def test_a_network_that_removes_structure_and_one_that_removes_noise(
    structured, expected, monkeypatch
):
    slope = np.add.outer(np.arange(32.0), np.arange(32.0))[None]
    white = np.random.default_rng(0).normal(size=(1, 32, 32))
    bench, eps = removing(slope if structured else white, slope)
    monkeypatch.setattr(noise, "branch_eps", lambda said, branch: eps)
    assert verdict("C16", bench) == expected


def test_a_schedule_that_ends_in_pure_noise_leaves_nothing(tiny):
    schedule = NoiseSchedule.scaled_linear(prediction_type="v").zero_terminal_snr()
    bench = Bench(replace(tiny.model, schedule=schedule), 12)
    parts = CLAIMS["C10"].ask(bench)
    assert parts[0].holds and abs(parts[1].measured.value) < 0.1
