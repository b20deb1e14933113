"""What a run keeps: live steps become NumPy records, watched taps become arrays of the trace."""

from __future__ import annotations

import platform
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from .budget import Counts, latent_shape
from .errors import InputError, notice
from .memory_limit import MOST_MEMORY
from .outbox import Outbox
from .pipeline import LatentDiffusion
from .plan import Plan, Step, Update
from .recordable import (
    CROSS,
    KINDS,
    SELF,
    check_record,
    check_taps,
    chosen_taps,
    tap_patterns,
    tap_shapes,
)
from .stages import decode
from .taps import recording
from .trace import Settings, TextEmbedding, Tokens, Trace, to_numpy
from .trace.file import in_memory, load, save
from .trace.spool import Memory, Spool

__all__ = ["CROSS", "KINDS", "SELF", "Recorder", "check_record", "check_taps", "tap_patterns"]


class Recorder:
    """Keeps the steps of one run, and its taps' values, for the `Trace`; a `with` block.

    How many arrays there will be is known from the plan: each kind has its room before the first
    step, and every live value is copied once, into its place (`outbox` says how). With `save_to`
    the room is in a file, and the trace is read from the finished trace file.
    Leaving the block takes every watcher away. If the run is stopped inside it, the partial record
    is put on the exception as `.trace`.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        settings: Settings,
        tokens: Tokens,
        text: TextEmbedding,
        uncond: TextEmbedding,
        plan: Plan,
        save_to: str | Path | None = None,
    ):
        self.model, self.settings, self.path = model, settings, save_to
        self.texts = tokens, _embedding(text), _embedding(uncond)
        self.record, self.heads = set(settings.record), "heads" in settings.record
        self.taps = list(chosen_taps(model, self.record))
        self.steps: list[Step] = []
        self.image, self.frames = None, ()
        self.stack = ExitStack()
        self.tape: dict[str, list[torch.Tensor]] = {}
        self.store = Memory() if save_to is None else Spool(save_to)
        self.outbox = Outbox()
        self._make_room(Counts.of(plan, settings.guidance))

    def _make_room(self, count: Counts) -> None:
        """Room for every array of the run."""
        latent = latent_shape(self.model, self.settings.height, self.settings.width)
        said = (self.model.unet.config.out_channels, *latent[1:])
        room = self.store.room
        self.latents, self.noises = room(count.steps + 1, latent), room(count.draws, latent)
        wanted = "predictions" in self.record
        self.points = room(wanted * count.points, latent)
        self.conds = room(wanted * count.calls, said)
        self.unconds = room(wanted * count.guided, said)
        shapes = tap_shapes(self.model, self.taps, latent, self.heads)
        self.seen = {name: room(count.calls, *shape) for name, shape in shapes.items()}

    def __enter__(self) -> Recorder:
        with ExitStack() as opened:  # undone at once if Ctrl-C comes in between
            opened.enter_context(self.store)
            if self.taps:
                watch = recording(self.model.unet, self.taps, self.heads)
                self.tape = opened.enter_context(watch)
            self.stack = opened.pop_all()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        with self.stack:
            if error is not None:
                error.trace = self._rescued()
        if isinstance(error, KeyboardInterrupt):
            done = f"stopped after {len(self.steps)} of {self.settings.num_steps} steps"
            notice(f"{done}; the record so far: import sys; trace = sys.last_value.trace")

    def keep(self, step: Step) -> None:
        """Copy one live step into its place, and whatever the taps saw during it."""
        put = self.outbox.keep
        latent = self.steps[-1].next_latent if self.steps else put(self.latents, step.latent)
        wanted = zip(step.predictions, step.stages, strict=True)
        calls = [self._prediction(said, stage, latent) for said, stage in wanted
                 if "predictions" in self.record]  # fmt: skip
        noises = tuple(put(self.noises, noise) for noise in step.noises)
        for name in self.taps:
            self._keep_seen(name, step.network_calls)
        arrays = dict(latent=latent, next_latent=put(self.latents, step.next_latent))
        self.outbox.send()
        self.steps.append(replace(step, predictions=tuple(calls), noises=noises, **arrays))

    def _prediction(self, live, stage, latent):
        """A prediction in its place; its point is the step's own latent where the plan says so."""
        own, put = stage.update == Update(), self.outbox.keep
        point = latent if own else put(self.points, live.latent)
        uncond = None if live.uncond is None else put(self.unconds, live.uncond)
        return replace(live, latent=point, cond=put(self.conds, live.cond), uncond=uncond)

    def _keep_seen(self, name: str, calls: int) -> None:
        values = self.tape.get(name, [])
        if len(values) != calls:
            raise InputError(
                f"tap {name} was passed {len(values)} times in a step of {calls} network calls; "
                "exactly one each can be recorded: run the network elsewhere, not inside this run"
            )
        for value in values:
            self.outbox.keep(self.seen[name], value[0])
        values.clear()

    def finish(self, image) -> Trace:
        """The record of the run, whole or, without a picture, partial.

        With `save_to` it is in the file before it is returned, and read from there when looked at.
        """
        self.image = image
        self.outbox.wait()
        self.frames = () if image is None else self._frames()
        return self._finished()

    def _finished(self) -> Trace:
        self.outbox.wait()
        trace = self._trace()
        return trace if self.path is None else load(save(trace, self.path), mapped=True)

    def _rescued(self) -> Trace:
        """The record so far of a run that was stopped, in memory if the disk will not take it."""
        try:
            return self._finished()
        except OSError as error:
            trace = self._trace()
            if self.store.size > MOST_MEMORY:
                trace = replace(trace, attention={})
            notice(
                f"{self.path} cannot be written ({error.strerror}); the record is in memory"
                + ("" if trace.attention else " without what was seen inside the network")
            )
            return in_memory(trace)

    def _trace(self) -> Trace:
        """The record so far, its arrays where they were put."""
        tokens, text, uncond = self.texts
        calls = sum(step.network_calls for step in self.steps)
        return Trace(
            settings=self.settings,
            tokens=tokens,
            text_embedding=text,
            uncond_embedding=uncond,
            steps=tuple(self.steps),
            image=self.image,
            attention={name: rows.first(calls) for name, rows in self.seen.items() if calls},
            frames=self.frames,
            preview=self.model.preview,
            versions=versions(self.model),
        )

    def _frames(self) -> tuple:
        """x0-hat of every step through the VAE, after the loop."""
        if "frames" not in self.record:
            return ()
        return tuple(decode(self.model, _x0(step.predictions[0])) for step in self.steps)


def _x0(kept) -> torch.Tensor:
    """x0-hat of a recorded prediction, wherever its arrays lie."""
    arrays = {name: getattr(kept, name) for name in ("latent", "cond", "uncond")}
    read = {name: np.asarray(a) for name, a in arrays.items() if a is not None}
    return torch.from_numpy(replace(kept, **read).x0)


def _embedding(live: TextEmbedding) -> TextEmbedding:
    """A text embedding with NumPy arrays of its own."""
    pooled = None if live.pooled is None else _copy(live.pooled)
    extra = {name: _copy(value) for name, value in live.extra.items()}
    return replace(live, hidden=tuple(map(_copy, live.hidden)), pooled=pooled, extra=extra)


def _copy(value) -> np.ndarray:
    return np.array(to_numpy(value))


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
