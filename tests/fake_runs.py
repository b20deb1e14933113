"""Runs without a model, called like `generate`: for whatever is handed `run=`."""

from __future__ import annotations

import dataclasses
import threading

import traces


def run(prompt, *, negative_prompt="", seed=0, num_steps=5, sampler="ddim", spacing=None,
        guidance_scale=4.0, progress=None, gate: threading.Semaphore | None = None):  # fmt: skip
    """A constructed trace with these settings, told step by step; `gate` lets each step through.

    An interrupt raised by `progress` carries the steps so far, as that of `generate` does.
    """
    whole = traces.trace(num_steps, prompt)
    asked = dict(negative_prompt=negative_prompt, seed=seed, sampler={"name": str(sampler)},
                 guidance_scale=guidance_scale, spacing=spacing or "trailing")  # fmt: skip
    whole = dataclasses.replace(whole, settings=dataclasses.replace(whole.settings, **asked))
    for step in whole.steps:
        if gate is not None:
            gate.acquire(timeout=20)
        try:
            progress(step)
        except KeyboardInterrupt as stop:
            done = whole.steps[: step.index + 1]
            stop.trace = dataclasses.replace(whole, steps=done, image=None, frames=())
            raise
    return whole
