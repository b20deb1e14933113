"""Scheduler configs of diffusers: read, written, and refused by key and value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from diffusionlab.errors import CheckpointError
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.scheduler_config import KNOWN, modernised

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
    lcm = NoiseSchedule.from_config({"_class_name": "LCMScheduler"})
    assert lcm == NoiseSchedule.scaled_linear(spacing="lcm")
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
    ("use_lu_lambdas", True),
    ("use_flow_sigmas", True),
    ("thresholding", True),
    ("clip_sample", "yes"),
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


# ---- the levels of every class that a config may name -------------------------------------------
SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
EULERS = [name for name in KNOWN if "Euler" in name]
DPMS = [name for name in KNOWN if "step" in name]
BASES = ("leading", "trailing", "linspace")
KEYS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def check_levels_equal(name, options, counts, within=1e-2):
    """Our levels of a config are those of diffusers' class: karras_sigma and timestep."""
    diffusers = pytest.importorskip("diffusers")
    theirs = getattr(diffusers, name)(**SCALED | options)
    schedule = NoiseSchedule.from_config(dict(theirs.config) | {"_class_name": name})
    for num_steps in counts:
        theirs.set_timesteps(num_steps)
        levels = schedule.levels(num_steps)
        told = theirs.timesteps.numpy()
        if name == "PNDMScheduler":  # which asks once twice
            told = np.delete(told, 1)
        ours = [level.timestep for level in levels[:num_steps]]
        assert ours == pytest.approx(told, abs=within), num_steps
        if hasattr(theirs, "sigmas"):
            sigmas = [level.karras_sigma for level in levels[:num_steps]]
            assert sigmas == pytest.approx(theirs.sigmas.numpy()[:num_steps], rel=2e-3)
            assert levels[-1].karras_sigma == pytest.approx(theirs.sigmas.numpy()[-1], rel=1e-4)


@pytest.mark.parametrize("spacing", BASES)
@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", *EULERS])
def test_the_spacings_by_timestep_equal_the_class(name, spacing):
    options = {"timestep_spacing": spacing, "steps_offset": 1}
    extra = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    check_levels_equal(name, options | extra, (4, 20, 50), 0.51)


@pytest.mark.parametrize("spacing", BASES)
@pytest.mark.parametrize("name", DPMS)
def test_the_open_spacings_equal_the_class(name, spacing):
    if name == "DPMSolverSinglestepScheduler" and spacing != "linspace":
        pytest.skip("that class knows linspace only")
    options = {"timestep_spacing": spacing, "steps_offset": 1}
    if name == "DPMSolverSinglestepScheduler":
        options = {}
    check_levels_equal(name, options, (2, 10, 20, 33, 50))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "LMSDiscreteScheduler", *DPMS])
def test_the_spacings_by_sigma_equal_the_class(name, key):
    # DPM-Solver's classes tell the network a rounded or a cut timestep; ours is the level's own
    for spacing in BASES if name == "EulerDiscreteScheduler" else ("linspace",):
        options = {"timestep_spacing": spacing, "steps_offset": 1, key: True}
        if name == "DPMSolverSinglestepScheduler":
            options = {key: True}
        check_levels_equal(name, options, (5, 20), 1.01 if name in DPMS else 1e-2)


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
@pytest.mark.parametrize("original", [50, 40, 7])
def test_distilled_models_take_the_timesteps_of_their_class(name, original):
    options = {"original_inference_steps": original}
    check_levels_equal(name, options, range(1, original + 1))


def test_a_count_of_distilled_steps_that_cannot_be_is_refused():
    for wrong in (0, 1001, 2.0):
        config = {"_class_name": "LCMScheduler", "original_inference_steps": wrong}
        with pytest.raises(CheckpointError, match="original_inference_steps"):
            NoiseSchedule.from_config(config)


def test_classes_that_do_not_read_a_key_ignore_it():
    ddim = NoiseSchedule.from_config({"_class_name": "DDIMScheduler", "use_karras_sigmas": True})
    assert ddim.spacing == "leading"
    lms = {"_class_name": "LMSDiscreteScheduler", "final_sigmas_type": "sigma_min"}
    assert NoiseSchedule.from_config(lms).final == "clean"
    assert NoiseSchedule.from_config({"_class_name": "DEISMultistepScheduler"}).final == "first"


def test_clipping_is_switched_off_and_told(capsys):
    NoiseSchedule.from_config(SD_CONFIG | {"clip_sample": True})
    assert "clip_sample" in capsys.readouterr().err
    missing = {key: value for key, value in SD_CONFIG.items() if key != "clip_sample"}
    NoiseSchedule.from_config(missing)
    assert not capsys.readouterr().err


def test_outdated_configs_are_corrected_as_the_pipeline_does():
    old = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "clip_sample": True}
    assert modernised(old, "StableDiffusionPipeline") == old | {
        "steps_offset": 1, "clip_sample": False,
    }  # fmt: skip
    assert modernised(old, "StableDiffusionXLPipeline") == old


@pytest.mark.parametrize("final", ["clean", "first"])
@pytest.mark.parametrize(
    "spacing",
    ["karras", "exponential", "beta", "karras in leading", "beta in trailing", "lcm",
     "linspace_dpm", "leading_dpm"],
)  # fmt: skip
def test_what_a_config_can_say_round_trips(spacing, final):
    own = NoiseSchedule.scaled_linear(
        spacing=spacing, final=final, steps_offset=1, prediction_type="v",
        original_steps=40 if spacing == "lcm" else 50,
    )  # fmt: skip
    assert NoiseSchedule.from_config(own.to_config()) == own
    diffusers = pytest.importorskip("diffusers")
    config = own.to_config()
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    theirs.set_timesteps(8)
    assert theirs.timesteps.numpy() == pytest.approx(
        [level.timestep for level in own.levels(8, final="none")], abs=0.51
    )
