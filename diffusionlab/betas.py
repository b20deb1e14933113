"""The betas of a training schedule: by name, rescaled, and from a diffusers scheduler config.

`beta` at a timestep is the share of variance replaced by noise there; everything else of a
schedule follows from the list (`schedule.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffusionlab.errors import CheckpointError, InputError, shown


def linear_betas(num_train_steps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """(num_train_steps,) betas equally spaced (Ho et al., arXiv 2006.11239)."""
    return np.linspace(beta_start, beta_end, num_train_steps)


def scaled_linear_betas(num_train_steps: int, beta_start: float, beta_end: float) -> np.ndarray:
    """(num_train_steps,) betas whose square roots are equally spaced (arXiv 2112.10752)."""
    return np.linspace(beta_start**0.5, beta_end**0.5, num_train_steps) ** 2


def cosine_betas(num_train_steps: int, beta_start: float = 0, beta_end: float = 0) -> np.ndarray:
    """(num_train_steps,) betas of the squared-cosine alpha_bar, capped at 0.999; ends unused.

    Source: arXiv 2102.09672 section 3.2.
    """
    part = np.arange(num_train_steps + 1) / num_train_steps
    alpha_bar = np.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


BETA_SCHEDULES: dict[str, Callable[[int, float, float], np.ndarray]] = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "squaredcos_cap_v2": cosine_betas,
}


def rescaled_betas(betas: np.ndarray) -> np.ndarray:
    """The betas with sqrt(alpha_bar) shifted and scaled to end at exactly 0, its first unchanged.

    Source: arXiv 2305.08891, Algorithm 1.
    """
    root = np.sqrt(np.cumprod(1.0 - np.asarray(betas)))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return 1.0 - (root / np.concatenate([[1.0], root[:-1]])) ** 2


def checked_betas(betas: Any) -> tuple[float, ...]:
    """The betas as a tuple of floats, or InputError."""
    table = np.asarray(betas, dtype=np.float64)
    good = table.ndim == 1 and table.size > 0 and bool(np.all((table > 0) & (table <= 1)))
    if not good or np.any(table[:-1] == 1.0):
        raise InputError(
            f"betas {shown(betas)} are not a schedule: needed is a list of numbers above 0 and "
            "below 1 (only the last may be 1: zero terminal SNR)"
        )
    return tuple(table.tolist())


# ---- diffusers' scheduler_config.json -----------------------------------------------------------
PREDICTION_KEYS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_STARTS_LEADING = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
_READS_ALPHA_TO_ONE = ("DDIMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler")
_KNOWN = _STARTS_LEADING + (
    *(f"Euler{kind}DiscreteScheduler" for kind in ("", "Ancestral")),
    *(f"DPMSolver{kind}Scheduler" for kind in ("Multistep", "Singlestep", "SDE")),
    *(f"{kind}Scheduler" for kind in ("LMSDiscrete", "HeunDiscrete", "UniPCMultistep")),
    *(f"{kind}Scheduler" for kind in ("DEISMultistep", "KDPM2Discrete", "KDPM2AncestralDiscrete")),
)
_ONLY: dict[str, tuple[Any, ...]] = {
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "use_flow_sigmas": (False, None),
    "thresholding": (False, None),
    "clip_sample": (False, None),
    "timestep_type": ("discrete",),
    "interpolation_type": ("linear",),
    "variance_type": ("fixed_small", "fixed_small_log", None),
    "rescale_betas_zero_snr": (False, True),
    "final_sigmas_type": ("zero", "sigma_min"),
}


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler_config.json as keyword arguments of NoiseSchedule.

    Missing keys take diffusers' defaults. Raises CheckpointError naming key and value.
    """
    kind = config.get("_class_name", "DDIMScheduler")
    _require("_class_name", kind, _KNOWN)
    for key, allowed in _ONLY.items():
        _require(key, config.get(key, allowed[0]), allowed)
    prediction = config.get("prediction_type", "epsilon")
    spacing = config.get("timestep_spacing", "leading" if kind in _STARTS_LEADING else "linspace")
    _require("prediction_type", prediction, tuple(PREDICTION_KEYS))
    _require("timestep_spacing", spacing, ("leading", "trailing", "linspace"))
    name, betas = _read_betas(config)
    return {
        "betas": rescaled_betas(betas) if config.get("rescale_betas_zero_snr") else betas,
        "prediction_type": PREDICTION_KEYS[prediction],
        "spacing": spacing,
        "final": _read_final(config, kind),
        "steps_offset": _whole(config, "steps_offset", 0, 0),
        "name": name,
    }


def beta_config(betas: tuple[float, ...]) -> dict[str, Any]:
    """The config keys that make these betas again: a named schedule if one fits, else the list."""
    for name, make in BETA_SCHEDULES.items():
        if np.allclose(make(len(betas), betas[0], betas[-1]), betas, rtol=1e-12, atol=0):
            return {"beta_schedule": name, "beta_start": betas[0], "beta_end": betas[-1]}
    return {"beta_schedule": "linear", "trained_betas": list(betas)}


def _read_betas(config: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    if config.get("trained_betas") is not None:
        return "trained_betas", np.array(checked_betas(config["trained_betas"]))
    name = config.get("beta_schedule", "linear")
    _require("beta_schedule", name, tuple(BETA_SCHEDULES))
    ends = [config.get("beta_start", 1e-4), config.get("beta_end", 0.02)]
    for key, value in zip(("beta_start", "beta_end"), ends, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise CheckpointError(f"{_given(key, value)}; allowed is a number between 0 and 1")
    count = _whole(config, "num_train_timesteps", 1000, 1)
    return name, BETA_SCHEDULES[name](count, *ends)


def _read_final(config: Mapping[str, Any], kind: str) -> str:
    if kind in _READS_ALPHA_TO_ONE:
        ends_clean = config.get("set_alpha_to_one", kind != "PNDMScheduler")
        _require("set_alpha_to_one", ends_clean, (True, False))
        return "clean" if ends_clean else "first"
    return "first" if config.get("final_sigmas_type") == "sigma_min" else "clean"


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
