"""Scheduler configs of diffusers: read, written, and refused by key and value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from diffusionlab.errors import CheckpointError
from diffusionlab.schedule import NoiseSchedule

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SD = NoiseSchedule.scaled_linear()
ZERO = NoiseSchedule.scaled_linear(prediction_type="v").zero_terminal_snr()
SD_CONFIG = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def test_zero_terminal_snr_needs_v_prediction():
    config = SD_CONFIG | {"rescale_betas_zero_snr": True}
    with pytest.raises(CheckpointError, match="v-prediction"):
        NoiseSchedule.from_config(config)
    read = NoiseSchedule.from_config(config | {"prediction_type": "v_prediction"})
    assert np.array_equal(read.alpha_bar, ZERO.alpha_bar)


def test_the_config_of_stable_diffusion():
    read = NoiseSchedule.from_config(SD_CONFIG)
    assert read == NoiseSchedule.scaled_linear(final="first", steps_offset=1)
    assert read.levels(20)[0].karras_sigma == pytest.approx(11.0283, rel=1e-5)


def test_defaults_are_those_of_the_class():
    assert NoiseSchedule.from_config({}) == NoiseSchedule.linear()
    euler = NoiseSchedule.from_config({"_class_name": "EulerDiscreteScheduler"})
    assert (euler.spacing, euler.final) == ("linspace", "clean")
    sdxl = SD_CONFIG | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
    assert NoiseSchedule.from_config(sdxl).final == "clean"  # Euler ignores set_alpha_to_one
    assert NoiseSchedule.from_config({"_class_name": "PNDMScheduler"}).final == "first"
    dpm = {"_class_name": "DPMSolverMultistepScheduler", "final_sigmas_type": "sigma_min"}
    assert NoiseSchedule.from_config(dpm).final == "first"


@pytest.mark.parametrize(
    "schedule",
    [
        SD,
        ZERO,
        NoiseSchedule.linear(num_train_steps=50, prediction_type="x0"),
        NoiseSchedule.cosine(spacing="trailing", final="first", steps_offset=3),
        NoiseSchedule((0.1, 0.3, 0.2), "v", "linspace"),
    ],
)
def test_configs_round_trip_and_diffusers_reads_them(schedule):
    config = schedule.to_config()
    again = NoiseSchedule.from_config(config)
    assert dataclasses.replace(again, name="", betas=(0.1,)) == dataclasses.replace(
        schedule, name="", betas=(0.1,)
    )
    assert np.allclose(again.beta, schedule.beta, rtol=1e-12)
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler.from_config(config)
    assert np.allclose(theirs.alphas_cumprod, schedule.alpha_bar, rtol=2e-4, atol=1e-9)


def test_a_diffusers_config_reads_back(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    for name in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        for zero in (False, True):
            theirs = diffusers.DDIMScheduler(
                beta_schedule=name, rescale_betas_zero_snr=zero, clip_sample=False,
                prediction_type="v_prediction", timestep_spacing="trailing",
            )  # fmt: skip
            ours = NoiseSchedule.from_config(dict(theirs.config))
            assert np.allclose(ours.alpha_bar, theirs.alphas_cumprod, rtol=1e-4, atol=2e-7)
            assert (ours.prediction_type, ours.spacing, ours.final) == ("v", "trailing", "clean")


BAD = [
    ("beta_schedule", "sigmoid"),
    ("beta_schedule", None),
    ("beta_start", "0.1"),
    ("beta_end", 2),
    ("num_train_timesteps", 0),
    ("num_train_timesteps", 10**9),
    ("num_train_timesteps", 1000.0),
    ("prediction_type", "flow_prediction"),
    ("timestep_spacing", "karras"),
    ("steps_offset", -1),
    ("set_alpha_to_one", "no"),
    ("use_karras_sigmas", True),
    ("thresholding", True),
    ("clip_sample", True),
    ("variance_type", "learned_range"),
    ("_class_name", "FlowMatchEulerDiscreteScheduler"),
    ("_class_name", ["a", "b"]),
    ("trained_betas", [0.1, -1.0]),
]


@pytest.mark.parametrize("key, value", BAD)
def test_unsupported_configs_name_key_and_value(key, value):
    with pytest.raises(CheckpointError) as error:
        NoiseSchedule.from_config(SD_CONFIG | {key: value})
    assert ("betas" if key == "trained_betas" else key) in str(error.value)
    assert repr(value) in str(error.value)
