"""The betas of a training schedule: by name, rescaled, checked.

`beta` at a timestep is the share of variance replaced by noise there; everything else of a
schedule follows from the list (`schedule.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, shown


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
