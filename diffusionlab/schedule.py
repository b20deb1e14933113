"""Noise schedules: how much signal and how much noise a latent holds at each timestep.

Every latent obeys `x_t = alpha * x0 + sigma * eps`. The schedule is data; a sampler is an algorithm
(other libraries write "scheduler" for both). Everything here is float64 on the CPU: NumPy arrays
for the training table, Python floats for single levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from diffusionlab.betas import (
    checked_betas,
    cosine_betas,
    linear_betas,
    rescaled_betas,
    scaled_linear_betas,
)
from diffusionlab.errors import CheckpointError, InputError, shown
from diffusionlab.levels import (
    CLEAN,
    PREDICTION_TYPES,
    NoiseLevel,
    one_of,
    to_eps,
    to_v,
    to_x0,
)
from diffusionlab.scheduler_config import read_config, write_config
from diffusionlab.spacings import (
    SPACINGS,
    checked_spacing,
    custom_spacing,
    flow_levels,
    spaced,
    strictly_decreasing,
)

__all__ = [
    "CLEAN",
    "FINALS",
    "PREDICTION_TYPES",
    "SPACINGS",
    "NoiseLevel",
    "NoiseSchedule",
    "custom_spacing",
    "flow_levels",
    "one_of",
    "to_eps",
    "to_v",
    "to_x0",
]

FINALS = ("clean", "first", "none")


# ---- the schedule -----------------------------------------------------------------------------
@dataclass(frozen=True)
class NoiseSchedule:
    """The training schedule of a checkpoint, with the spacing and the end that its config asks for.

    `betas` is kept as a tuple of floats; `original_steps` counts the timesteps that a latent
    consistency model was distilled on (spacing "lcm"). Raises InputError for betas outside (0, 1],
    unknown names, and for zero terminal SNR with eps prediction (the noise alone says nothing about
    x0 there).
    """

    betas: tuple[float, ...]
    prediction_type: str = "eps"
    spacing: str = "leading"
    final: str = "clean"
    steps_offset: int = 0
    name: str = ""
    original_steps: int = 50

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", checked_betas(self.betas))
        one_of("prediction_type", self.prediction_type, PREDICTION_TYPES)
        checked_spacing(self.spacing)
        one_of("final", self.final, FINALS)
        if self.betas[-1] == 1.0 and self.prediction_type == "eps":
            raise InputError(
                "zero terminal SNR was given with prediction_type 'eps': at alpha = 0 the noise "
                "does not determine x0; allowed are 'v' and 'x0'; use a v-prediction model"
            )

    @classmethod
    def linear(cls, beta_start=1e-4, beta_end=0.02, num_train_steps=1000, **rest) -> NoiseSchedule:
        """The DDPM schedule (arXiv 2006.11239 section 4); `rest` as in the constructor."""
        return cls(linear_betas(num_train_steps, beta_start, beta_end), name="linear", **rest)

    @classmethod
    def scaled_linear(
        cls, beta_start=0.00085, beta_end=0.012, num_train_steps=1000, **rest
    ) -> NoiseSchedule:
        """The Stable Diffusion schedule; `rest` as in the constructor."""
        betas = scaled_linear_betas(num_train_steps, beta_start, beta_end)
        return cls(betas, name="scaled_linear", **rest)

    @classmethod
    def cosine(cls, num_train_steps=1000, **rest) -> NoiseSchedule:
        """The squared-cosine schedule (arXiv 2102.09672); `rest` as in the constructor."""
        return cls(cosine_betas(num_train_steps), name="squaredcos_cap_v2", **rest)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Read the contents of a diffusers `scheduler_config.json`.

        Raises CheckpointError that names the key and the value for anything not supported.
        """
        try:
            return cls(**read_config(config))
        except InputError as error:
            raise CheckpointError(f"scheduler config: {error}") from error

    def to_config(self) -> dict[str, Any]:
        """The `scheduler_config.json` that reads back as this schedule.

        Errors: InputError for final "none" and for spacings that such a file cannot say.
        """
        return write_config(self)

    def __repr__(self) -> str:
        last = f"last alpha {self.alpha[-1]:.4g}, karras_sigma {self.karras_sigma[-1]:.4g}"
        return (
            f"NoiseSchedule {self.name}: {self.num_train_steps} training timesteps, {last}; "
            f"predicts {self.prediction_type}; levels {self.spacing}, ending {self.final}"
        )

    def _repr_html_(self) -> str:
        from diffusionlab.display import html_of

        return html_of(self)

    def zero_terminal_snr(self) -> NoiseSchedule:
        """The same schedule with sqrt(alpha_bar) shifted and scaled to end at exactly 0.

        Source: arXiv 2305.08891, Algorithm 1; the first level is unchanged.
        """
        return replace(self, betas=rescaled_betas(self.beta))

    @property
    def num_train_steps(self) -> int:
        """The number of training timesteps, T."""
        return len(self.betas)

    @cached_property
    def beta(self) -> np.ndarray:
        """(num_train_steps,): the betas, read-only."""
        return _frozen(np.array(self.betas))

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """(num_train_steps,): product of 1 - beta (arXiv 2006.11239 Eq. 4)."""
        return _frozen(np.cumprod(1.0 - self.beta))

    @cached_property
    def alpha(self) -> np.ndarray:
        """(num_train_steps,): sqrt(alpha_bar), the signal rate."""
        return _frozen(np.sqrt(self.alpha_bar))

    @cached_property
    def sigma(self) -> np.ndarray:
        """(num_train_steps,): sqrt(1 - alpha_bar), the noise rate."""
        return _frozen(np.sqrt(1.0 - self.alpha_bar))

    @cached_property
    def snr(self) -> np.ndarray:
        """(num_train_steps,): alpha² / sigma²."""
        return _frozen(self.alpha_bar / (1.0 - self.alpha_bar))

    @cached_property
    def karras_sigma(self) -> np.ndarray:
        """(num_train_steps,): sigma / alpha, infinite where alpha is 0."""
        with np.errstate(divide="ignore"):
            return _frozen(self.sigma / self.alpha)

    def levels(
        self,
        num_steps: int | None = None,
        spacing: str | None = None,
        final: str | None = None,
        *,
        timesteps: Iterable[float] | None = None,
        karras_sigmas: Iterable[float] | None = None,
    ) -> tuple[NoiseLevel, ...]:
        """The levels of a run, noisiest first, strictly decreasing: up to num_steps + 1 of them.

        `None` means what the checkpoint's config says. `final` "clean" ends at sigma 0, "first" at
        the table's first entry, "none" appends nothing (one step fewer). Coinciding levels are
        dropped, so count the levels (`generate` says so in a notice). A list of one's own goes into
        `timesteps` or `karras_sigmas` instead of num_steps and spacing. Raises InputError.
        """
        if timesteps is not None or karras_sigmas is not None:
            if spacing is not None:
                raise InputError(f"spacing {shown(spacing)} was given beside a list; give one")
            spacing = custom_spacing(timesteps=timesteps, karras_sigmas=karras_sigmas)
        levels = spaced(self, num_steps, self.spacing if spacing is None else spacing)
        final = one_of("final", self.final if final is None else final, FINALS)
        ends = {"clean": [CLEAN], "first": [self.level_at(timestep=0)], "none": []}[final]
        return strictly_decreasing(levels + ends)

    def level_at(
        self, *, karras_sigma: float | None = None, timestep: float | None = None
    ) -> NoiseLevel:
        """The level with this karras_sigma or at this (fractional) timestep; give exactly one.

        Between table entries the timestep is linear in ln karras_sigma, both ways; the pair is
        variance preserving. karras_sigma below the table keeps timestep 0; 0 and timestep -1 are
        the clean level. Raises InputError outside the table.
        """
        if (karras_sigma is None) == (timestep is None):
            raise InputError("level_at needs exactly one of karras_sigma= and timestep=")
        if timestep is not None:
            return self._at_timestep(timestep)
        return self._at_karras_sigma(karras_sigma)

    def _at_timestep(self, timestep: float) -> NoiseLevel:
        last = self.num_train_steps - 1
        if timestep == -1:
            return CLEAN
        if not 0 <= timestep <= last:
            raise InputError(f"timestep {shown(timestep)} is outside 0 … {last} (-1 is clean)")
        low = int(timestep)
        part = float(timestep) - low
        if part == 0.0:
            return NoiseLevel(float(timestep), float(self.alpha[low]), float(self.sigma[low]))
        if self.alpha[low + 1] == 0.0:  # ln karras_sigma is infinite there: linear in alpha
            alpha = (1.0 - part) * float(self.alpha[low])
            return NoiseLevel(float(timestep), alpha, math.sqrt(1.0 - alpha * alpha))
        logs = np.log(self.karras_sigma[low : low + 2])
        return _level(float(timestep), math.exp((1.0 - part) * logs[0] + part * logs[1]))

    def _at_karras_sigma(self, karras_sigma: float) -> NoiseLevel:
        table, last = self.karras_sigma, self.num_train_steps - 1
        if not 0 <= karras_sigma <= table[-1]:
            raise InputError(
                f"karras_sigma {shown(karras_sigma)} is outside 0 … {table[-1]:.6g}, "
                "the noisiest level of this schedule"
            )
        if karras_sigma == 0:
            return CLEAN
        high = int(np.searchsorted(table, karras_sigma))
        if high == 0:
            return _level(0.0, karras_sigma)
        if table[high] == karras_sigma:
            return self._at_timestep(high)
        if math.isinf(table[last]) and high == last:
            part = 1.0 - 1.0 / math.sqrt(1.0 + karras_sigma**2) / float(self.alpha[last - 1])
        else:
            part = math.log(karras_sigma / table[high - 1]) / math.log(
                table[high] / table[high - 1]
            )
        return _level(high - 1 + part, karras_sigma)


# ---- checks -----------------------------------------------------------------------------------
def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _level(timestep: float, karras_sigma: float) -> NoiseLevel:
    if math.isinf(karras_sigma):
        return NoiseLevel(timestep, 0.0, 1.0)
    alpha = 1.0 / math.hypot(1.0, karras_sigma)
    return NoiseLevel(timestep, alpha, karras_sigma * alpha)
