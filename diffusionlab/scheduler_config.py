"""A diffusers `scheduler_config.json`: what of it is a training schedule, read and written.

The class that a config names decides what a missing key means and which keys it reads at all; the
sampler that it stands for is not taken over, since here a sampler is an argument of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionlab.betas import BETA_SCHEDULES, checked_betas, rescaled_betas
from diffusionlab.errors import CheckpointError, InputError, notice, shown
from diffusionlab.levels import one_of

if TYPE_CHECKING:
    from diffusionlab.schedule import NoiseSchedule

PREDICTION_KEYS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
# ---- what the classes have in common ------------------------------------------------------------
DISTILLED = ("LCMScheduler", "TCDScheduler")  # their steps are some of original_inference_steps
BY_TIMESTEP = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", *DISTILLED)
READ_ALPHA_TO_ONE = ("DDIMScheduler", "PNDMScheduler", *DISTILLED)
EULER = (
    "EulerDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
DPM = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler",
       "UniPCMultistepScheduler")  # fmt: skip
KNOWN = (*BY_TIMESTEP, *EULER, *DPM, "EulerAncestralDiscreteScheduler")
READ_FINAL_SIGMAS = ("EulerDiscreteScheduler", *(name for name in DPM if "DEIS" not in name))
# betas of a config that does not name them: (schedule, start, end), else linear from 1e-4 to 0.02
BETAS = dict.fromkeys(DISTILLED, ("scaled_linear", 0.00085, 0.012)) | dict.fromkeys(
    (*EULER[2:],), ("linear", 0.00085, 0.012)
)
SIGMA_KEYS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}
ONLY: dict[str, tuple[Any, ...]] = {
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "thresholding": (False, None),
    "timestep_type": ("discrete",),
    "interpolation_type": ("linear",),
    "variance_type": ("fixed_small", "fixed_small_log", None),
    "rescale_betas_zero_snr": (False, True),
    "final_sigmas_type": ("zero", "sigma_min"),
    "clip_sample": (False, True, None),
}
ONLY_LINSPACE = ("DPMSolverSinglestepScheduler",)  # it reads no timestep_spacing
UNCAPPED = (
    "the scheduler config asks for zero terminal SNR and {key}: its class takes the infinite "
    "noise level for 4096 and spaces from there; here the first level is pure noise and the "
    "others lie within the finite part of the schedule"
)
UNCLIPPED = (
    "the scheduler config has clip_sample = True, which cuts x0-hat to -1…1: latents reach far "
    "beyond, so it is not followed (diffusers' StableDiffusionPipeline switches it off when it is "
    "made; its SDXL pipeline, and a scheduler that is put in later, do clip)"
)


# ---- reading ------------------------------------------------------------------------------------
def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler_config.json as keyword arguments of NoiseSchedule.

    Missing keys take the defaults of diffusers' class, but for clip_sample, which no sampler here
    follows: missing is False, and True is told in a notice. Raises CheckpointError naming key and
    value.
    """
    kind = config.get("_class_name", "DDIMScheduler")
    _require("_class_name", kind, KNOWN)
    for key, allowed in ONLY.items():
        _require(key, config.get(key, allowed[0]), allowed)
    prediction = config.get("prediction_type", "epsilon")
    _require("prediction_type", prediction, tuple(PREDICTION_KEYS))
    if config.get("clip_sample"):
        notice(UNCLIPPED)
    name, betas = _read_betas(config, kind)
    betas = rescaled_betas(betas) if config.get("rescale_betas_zero_snr") else betas
    _tell_clipped(config.get("lambda_min_clipped"), betas)
    return {
        "betas": betas,
        "prediction_type": PREDICTION_KEYS[prediction],
        "spacing": _read_spacing(config, kind),
        "final": _read_final(config, kind),
        "steps_offset": _whole(config, "steps_offset", 0, 0),
        "name": name,
        "original_steps": _read_original(config, kind, len(betas)),
    }


def _tell_clipped(least: Any, betas: np.ndarray) -> None:
    """A notice where lambda_min_clipped leaves out timesteps of this schedule."""
    kept = np.prod(1 - betas)  # alpha_bar of the last timestep
    bounded = isinstance(least, (int, float)) and math.isfinite(least)
    if bounded and kept < 1 and (kept == 0 or 0.5 * math.log(kept / (1 - kept)) < least):
        notice(
            f"the scheduler config has lambda_min_clipped = {least:g}, which leaves out the "
            "noisiest timesteps; it is not followed: here a run starts at the last one"
        )


def modernised(config: Mapping[str, Any], pipeline: str) -> dict[str, Any]:
    """A scheduler config as diffusers' pipeline of this class corrects it before use.

    StableDiffusionPipeline sets steps_offset to 1 and clip_sample to False, whatever an outdated
    config says; the other pipelines take a config as it is.
    """
    corrected = {"steps_offset": 1, "clip_sample": False}
    return {**config, **(corrected if pipeline == "StableDiffusionPipeline" else {})}


def _read_betas(config: Mapping[str, Any], kind: str) -> tuple[str, np.ndarray]:
    if config.get("trained_betas") is not None:
        return "trained_betas", np.array(checked_betas(config["trained_betas"]))
    name, *ends = BETAS.get(kind, ("linear", 1e-4, 0.02))
    name = config.get("beta_schedule", name)
    _require("beta_schedule", name, tuple(BETA_SCHEDULES))
    keys = ("beta_start", "beta_end")
    ends = [config.get(key, default) for key, default in zip(keys, ends, strict=True)]
    for key, value in zip(keys, ends, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise CheckpointError(f"{_given(key, value)}; allowed is a number between 0 and 1")
    count = _whole(config, "num_train_timesteps", 1000, 1)
    return name, BETA_SCHEDULES[name](count, *ends)


def _read_spacing(config: Mapping[str, Any], kind: str) -> str:
    base = config.get("timestep_spacing", "leading" if kind in BY_TIMESTEP else "linspace")
    _require("timestep_spacing", base, ("leading", "trailing", "linspace"))
    base = "linspace" if kind in ONLY_LINSPACE else base
    if kind in DISTILLED:
        return "lcm"
    for key, spacing in SIGMA_KEYS.items():
        _require(key, config.get(key, False), (False, True, None))
        if config.get(key) and config.get("rescale_betas_zero_snr") and kind in (*EULER, *DPM):
            notice(UNCAPPED.format(key=key))
        if config.get(key) and kind in DPM:
            return spacing  # between the ends of the whole table, whatever the base
        if config.get(key) and kind in EULER:
            return spacing if base == "linspace" else f"{spacing} in {base}"
    return f"{base}_dpm" if kind in DPM and base != "trailing" else base


def _read_original(config: Mapping[str, Any], kind: str, total: int) -> int:
    count = _whole(config, "original_inference_steps", 50, 1) if kind in DISTILLED else 50
    if kind in DISTILLED and count > total:
        raise CheckpointError(
            f"{_given('original_inference_steps', count)}; allowed are 1 to {total}, the training "
            "steps; use another checkpoint"
        )
    return count


def _read_final(config: Mapping[str, Any], kind: str) -> str:
    if kind in READ_ALPHA_TO_ONE:
        ends_clean = config.get("set_alpha_to_one", kind != "PNDMScheduler")
        _require("set_alpha_to_one", ends_clean, (True, False))
        return "clean" if ends_clean else "first"
    if kind == "DEISMultistepScheduler":
        return "first"  # it has no choice
    told = config.get("final_sigmas_type") if kind in READ_FINAL_SIGMAS else None
    return "first" if told == "sigma_min" else "clean"


def _whole(config: Mapping[str, Any], key: str, default: int, least: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**6:
        raise CheckpointError(f"{_given(key, value)}; allowed is a whole number >= {least}")
    return value


def _require(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value == known and type(value) is type(known) for known in allowed):
        names = ", ".join(repr(known) for known in allowed if known is not None)
        raise CheckpointError(f"{_given(key, value)}; supported: {names}; use another checkpoint")


def _given(key: str, value: Any) -> str:
    return f"scheduler config has {key} = {shown(value)}"


# ---- writing ------------------------------------------------------------------------------------
def write_config(schedule: NoiseSchedule) -> dict[str, Any]:
    """The scheduler_config.json that reads back as this schedule, of the class that can say it.

    Raises InputError for final "none" and for a spacing that no such file can say.
    """
    if schedule.final == "none":
        raise InputError(
            "final is 'none', which a scheduler_config.json cannot say; 'clean' and 'first' "
            "are allowed: replace(schedule, final='clean')"
        )
    theirs = {ours: key for key, ours in PREDICTION_KEYS.items()}
    return {
        **_said(schedule),
        **beta_config(schedule.betas),
        "num_train_timesteps": schedule.num_train_steps,
        "prediction_type": theirs[schedule.prediction_type],
        "steps_offset": schedule.steps_offset,
    }


def _said(schedule: NoiseSchedule) -> dict[str, Any]:
    """The class, and the keys that say spacing and end in it."""
    name, _, base = schedule.spacing.partition(" in ")
    clean = schedule.final != "first"
    by_alpha = {"set_alpha_to_one": clean, "clip_sample": False}
    by_sigma = {"final_sigmas_type": "zero" if clean else "sigma_min"}
    if name == "lcm":
        original = {"original_inference_steps": schedule.original_steps}
        return {
            "_class_name": "LCMScheduler",
            "timestep_spacing": "leading",
            **by_alpha,
            **original,
        }
    if name in SIGMA_KEYS.values():
        key = next(key for key, spacing in SIGMA_KEYS.items() if spacing == name)
        said = {"timestep_spacing": base or "linspace", key: True}
        return {"_class_name": "EulerDiscreteScheduler", **said, **by_sigma}
    if name.endswith("_dpm"):
        said = {"timestep_spacing": name.removesuffix("_dpm")}
        return {"_class_name": "DPMSolverMultistepScheduler", **said, **by_sigma}
    one_of("spacing of a scheduler_config.json", name, IN_A_CONFIG)
    return {"_class_name": "DDIMScheduler", "timestep_spacing": name, **by_alpha}


IN_A_CONFIG = ("leading", "trailing", "linspace", "leading_dpm", "linspace_dpm", "lcm",
               *SIGMA_KEYS.values())  # fmt: skip


def beta_config(betas: tuple[float, ...]) -> dict[str, Any]:
    """The config keys that make these betas again: a named schedule if one fits, else the list."""
    for name, make in BETA_SCHEDULES.items():
        if np.allclose(make(len(betas), betas[0], betas[-1]), betas, rtol=1e-12, atol=0):
            return {"beta_schedule": name, "beta_start": betas[0], "beta_end": betas[-1]}
    return {"beta_schedule": "linear", "trained_betas": list(betas)}
