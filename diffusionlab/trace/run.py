"""A whole run, and runs side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffusionlab.errors import InputError, shown
from diffusionlab.images import Preview
from diffusionlab.plan import Step
from diffusionlab.trace.records import Prediction, Settings, TextEmbedding, Tokens
from diffusionlab.trace.summary import Shown, byte_count, describe, lines, size_text, to_numpy


@dataclass(frozen=True, eq=False, repr=False)
class Trace(Shown):
    """The record of one run: one prompt, one image, no batch axis; NumPy arrays, never mutated.

    `attention` maps a tap's name to an array (network_calls, height, width, tokens); `frames` are
    the decoded x0 of each step if they were recorded; `preview` turns any latent into a
    small picture. A run that was stopped has fewer steps than `settings.num_steps` and no image.
    """

    settings: Settings
    tokens: Tokens | None = None
    text_embedding: TextEmbedding | None = None
    uncond_embedding: TextEmbedding | None = None
    steps: tuple[Step, ...] = ()
    image: Image.Image | None = None
    attention: dict = field(default_factory=dict)
    frames: tuple[Image.Image, ...] = ()
    preview: Preview | None = None
    versions: dict = field(default_factory=dict)

    @cached_property
    def latents(self) -> np.ndarray:
        """x_t from the first noise to the last latent: (num_steps + 1, channels, h, w)."""
        self._needs_steps("latents")
        return _stack([s.latent for s in self.steps] + [self.steps[-1].next_latent])

    @cached_property
    def karras_sigmas(self) -> np.ndarray:
        """sigma / alpha of every level of the run, float64 (num_steps + 1,)."""
        self._needs_steps("karras_sigmas")
        levels = [s.level for s in self.steps] + [self.steps[-1].next_level]
        return _read_only(np.array([level.karras_sigma for level in levels]))

    @cached_property
    def x0s(self) -> np.ndarray:
        """x0 of each step's first network call: (num_steps, channels, h, w)."""
        return _stack([call.x0 for call in self._first_calls("x0s")])

    @cached_property
    def eps(self) -> np.ndarray:
        """eps of each step's first network call: (num_steps, channels, h, w)."""
        return _stack([call.eps for call in self._first_calls("eps")])

    @cached_property
    def predictions(self) -> tuple[Prediction, ...]:
        """All network calls of the run in order, whatever the step."""
        return tuple(call for step in self.steps for call in step.predictions)

    @property
    def network_calls(self) -> int:
        """U-Net evaluations of the run, the two branches of guidance counted as one."""
        return sum(step.network_calls for step in self.steps)

    def _needs_steps(self, what: str) -> None:
        if not self.steps:
            raise InputError(f"trace of 0 steps has no {what}: it was stopped before the first")

    def _first_calls(self, what: str) -> list[Prediction]:
        self._needs_steps(what)
        if not all(step.predictions for step in self.steps):
            raise InputError(
                f"{what} of a trace recorded with {shown(self.settings.record)}: they come from "
                'the predictions; run again with record=("predictions",)'
            )
        return [step.predictions[0] for step in self.steps]

    def save(self, path: str | Path, *, redact_prompt: bool = False) -> Path:
        """Write the run into one safetensors file, replaced as a whole or not at all.

        `redact_prompt=True` leaves out prompts, tokens, text embeddings and notices; the picture
        and the attention maps stay, and can tell what the prompt was. The file is written piece by
        piece, without a copy of everything in memory. Errors: TraceError for what a file cannot
        hold, OSError.
        """
        from diffusionlab.trace.file import save

        return save(self, path, redact_prompt=redact_prompt)

    @classmethod
    def load(cls, path: str | Path, *, mapped: bool = False) -> Trace:
        """Read what `save` wrote; needs neither torch nor a model, and runs nothing of the file's.

        `mapped=True` leaves the arrays in the file and reads what is looked at: for a trace that is
        larger than the memory; do not change the file while the trace is in use.
        Errors: TraceError for a file that is damaged, foreign, or of a newer major version.
        """
        from diffusionlab.trace.file import load

        return load(path, mapped=mapped)

    def __repr__(self) -> str:
        done, asked = len(self.steps), self.settings.num_steps
        size = "no image" if self.image is None else f"image {self.image.size} pixels"
        kept = [f"{len(self.attention)} recorded taps"] if self.attention else []
        kept += [f"{len(self.frames)} decoded frames"] if self.frames else []
        return lines(
            f"Trace: {shown(self.settings.prompt)}",
            self.settings.summary + ("" if done == asked else f"; stopped after {done} steps"),
            describe("latents", self.latents, "num_steps + 1, channels, height / 8, width / 8")
            if self.steps
            else "no steps",
            f"{len(self.predictions)} of {self.network_calls} network calls recorded, {size}",
            ", ".join(kept),
            f"{size_text(byte_count(self))} of arrays; made by generate",
        )


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Shown):
    """Runs that share what they share and differ along one named axis: one value per trace."""

    axis: str
    values: tuple[Any, ...]
    traces: tuple[Trace, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.traces):
            raise InputError(
                f"comparison of {len(self.traces)} traces with {len(self.values)} values of "
                f"{self.axis}: one value per trace is needed"
            )

    def __repr__(self) -> str:
        values = ", ".join(shown(value, 40) for value in self.values[:12])
        return lines(
            f"Comparison of {len(self.traces)} traces over {self.axis}: {values}",
            f"{size_text(byte_count(self))} of arrays; made by compare",
        )


def _stack(arrays: list[Any]) -> np.ndarray:
    return _read_only(np.stack([to_numpy(array) for array in arrays]))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
