"""What a run keeps: live steps become NumPy records, watched taps become arrays of the trace."""

from __future__ import annotations

import fnmatch
import platform
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from .errors import InputError, close_matches, notice, shown
from .pipeline import LatentDiffusion
from .stages import decode
from .taps import find_taps, recording
from .trace import Step, Trace, to_numpy

CROSS, SELF = "*attn2.probabilities", "*attn1.probabilities"
KINDS = ("predictions", "attention", "heads", "self_attention", "blocks", "frames")


def tap_patterns(record: set[str]) -> list[str]:
    """The tap patterns that a `record=` set asks for; names that are no kind are patterns."""
    known = {"attention": [CROSS], "heads": [CROSS], "self_attention": [SELF]}
    known["blocks"] = ["*.output"]
    named = [pattern for kind in KINDS if kind in record for pattern in known.get(kind, [])]
    return list(dict.fromkeys([*named, *sorted(record - set(KINDS))]))


def check_taps(model: LatentDiffusion, record: set[str]) -> None:
    """Refuse a name that is neither a kind of record nor a pattern of this U-Net's taps."""
    taps = find_taps(model.unet)
    for name in sorted(record - set(KINDS)):
        if not fnmatch.filter(taps, name):
            raise InputError(
                f"record has {shown(name)}: {close_matches(name, [*KINDS, *taps])}allowed are "
                f"{', '.join(KINDS)}, and patterns of the {len(taps)} tap names, which "
                "find_taps(model.unet) lists"
            )


class Recorder:
    """Keeps the steps of one run, and its taps' values, for the `Trace`; a `with` block.

    Leaving the block takes every watcher away. If the run is stopped inside it, the partial record
    is put on the exception as `.trace`.
    """

    def __init__(self, model, settings, tokens, text, uncond):
        self.model, self.settings = model, settings
        self.texts = tokens, text, uncond
        self.record = set(settings.record)
        self.steps: list[Step] = []
        self.taken: dict[str, list[np.ndarray]] = {}
        self.stack = ExitStack()
        self.tape: dict[str, list[torch.Tensor]] = {}

    def __enter__(self) -> Recorder:
        patterns = tap_patterns(self.record)
        if patterns:
            heads = "heads" in self.record
            self.tape = self.stack.enter_context(recording(self.model.unet, patterns, heads=heads))
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.stack.close()
        if error is not None:
            error.trace = self.finish(None)
        if isinstance(error, KeyboardInterrupt):
            done = f"stopped after {len(self.steps)} of {self.settings.num_steps} steps"
            notice(f"{done}; the record so far: import sys; trace = sys.last_value.trace")

    def keep(self, step: Step) -> None:
        """Copy one live step to NumPy, and whatever the taps saw during it."""
        wanted = "predictions" in self.record
        calls = tuple(_prediction(p) for p in step.predictions) if wanted else ()
        arrays = {name: to_numpy(getattr(step, name)) for name in ("latent", "next_latent")}
        noises = tuple(to_numpy(n) for n in step.noises)
        self.steps.append(replace(step, predictions=calls, noises=noises, **arrays))
        for name, values in self.tape.items():
            self.taken.setdefault(name, []).extend(to_numpy(v)[0] for v in values)
            values.clear()

    def finish(self, image) -> Trace:
        """The record of the run, whole or partial."""
        tokens, text, uncond = self.texts
        return Trace(
            settings=self.settings,
            tokens=tokens,
            text_embedding=_embedding(text),
            uncond_embedding=_embedding(uncond),
            steps=tuple(self.steps),
            image=image,
            attention={name: np.stack(values) for name, values in self.taken.items() if values},
            frames=self._frames() if image is not None else (),
            preview=self.model.preview,
            versions=versions(self.model),
        )

    def _frames(self) -> tuple:
        """x0-hat of every step through the VAE, after the loop."""
        if "frames" not in self.record:
            return ()
        x0s = (torch.from_numpy(step.predictions[0].x0) for step in self.steps)
        return tuple(decode(self.model, x0) for x0 in x0s)


def _prediction(live):
    """A prediction with NumPy arrays."""
    uncond = None if live.uncond is None else to_numpy(live.uncond)
    return replace(live, latent=to_numpy(live.latent), cond=to_numpy(live.cond), uncond=uncond)


def _embedding(live):
    """A text embedding with NumPy arrays."""
    pooled = None if live.pooled is None else to_numpy(live.pooled)
    extra = {name: to_numpy(value) for name, value in live.extra.items()}
    return replace(live, hidden=tuple(to_numpy(h) for h in live.hidden), pooled=pooled, extra=extra)


def versions(model: LatentDiffusion) -> dict[str, str]:
    """What a run depended on: packages, device, dtype, threads."""
    names = ("diffusionlab", "torch", "transformers", "numpy")
    found = {name: _version(name) for name in names}
    here = {"python": platform.python_version(), "system": platform.system()}
    where = {"device": str(model.device), "dtype": str(model.dtype).removeprefix("torch.")}
    return found | here | where | {"threads": str(torch.get_num_threads())}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
