"""One step of a sampler as a few numbers, and whether they are the right ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers, worst
from diffusionlab.plan import PlannedStep, Step, Update, combine
from diffusionlab.trace import Trace


@dataclass(frozen=True)
class Coefficient:
    """One term of an update: what is weighted ("x_t", "x0", "eps", "noise") and by how much."""

    kind: str
    label: str
    weight: float


def coefficients(step: Step | PlannedStep) -> tuple[Coefficient, ...]:
    """The terms of `x_next = a · x + Σ weight · reading + Σ weight · noise`, in that order."""
    update = step.update
    terms = [Coefficient("x_t", "x_t", update.a)]
    terms += [Coefficient(t.reading, f"{t.reading}, call {t.call}", t.weight) for t in update.terms]
    terms += [Coefficient("noise", f"noise {draw}", weight) for draw, weight in update.noise]
    return tuple(terms)


def equation(step: Step | PlannedStep) -> str:
    """The update as a line of text: `x_next = 0.892 x_t + 0.182 x0`."""
    parts = [f"{abs(c.weight):.3g} {c.kind}" for c in coefficients(step)]
    signs = ["−" if c.weight < 0 else "+" for c in coefficients(step)]
    first = "−" + parts[0] if signs[0] == "−" else parts[0]
    rest = [f" {sign} {part}" for sign, part in zip(signs[1:], parts[1:], strict=True)]
    return "x_next = " + first + "".join(rest)


def invariants(step: Step | PlannedStep, tolerance: float = 1e-6) -> Residual:
    """Whether the update lands on its level: signal sums to alpha, noise in squares to sigma.

    x_t holds (alpha, sigma) of the step's level, every reading one unit of its own, and fresh draws
    add in squares: I1 and I2 of `plan.check_update`, as a number that a figure can show.
    """
    found, level, target = coefficients(step), step.level, step.next_level
    signal = sum(c.weight for c in found if c.kind == "x0") + step.update.a * level.alpha
    own = sum(c.weight for c in found if c.kind == "eps") + step.update.a * level.sigma
    fresh = sum(c.weight**2 for c in found if c.kind == "noise")
    off = max(abs(signal - target.alpha), abs(np.hypot(own, np.sqrt(fresh)) - target.sigma))
    return Residual(float(off), tolerance, "signal sums to alpha, noise to sigma")


def replay(trace: Trace, index: int, tolerance: float = 1e-5) -> Residual:
    """Whether a recorded step's next latent is what its stored update makes of the record."""
    step = trace.steps[index]
    made = combine(numbers(step.latent), step.update, trace.predictions, step.noises)
    return Residual(_off(made, step.next_latent), tolerance, f"step {index} replayed")


def path_check(trace: Trace, tolerance: float = 1e-5) -> Residual:
    """Whether the record of a run is one path: the worst of all its steps.

    Each step's stored update makes its next latent of the recorded latents and predictions; each
    step begins where the one before ended; and each network call at a step's own latent was made at
    that latent. Errors: InputError for a run without steps or without recorded predictions.
    """
    _ = trace.x0s  # says what is missing
    checks = [replay(trace, i, tolerance) for i in range(len(trace.steps))]
    for before, step in zip(trace.steps, trace.steps[1:], strict=False):
        off = _off(before.next_latent, step.latent)
        checks.append(Residual(off, tolerance, f"step {step.index} begins where the last ended"))
    for step in trace.steps:
        for call, stage in zip(step.predictions, step.stages, strict=True):
            if stage.update == Update():
                off = _off(call.latent, step.latent)
                name = f"the network was asked at x_t of step {step.index}"
                checks.append(Residual(off, tolerance, name))
    return worst(checks)


def _off(found: Any, wanted: Any) -> float:
    """The largest difference over the largest number; NaN if one of them is not finite."""
    wanted = numbers(wanted)
    with np.errstate(all="ignore"):
        return float(np.abs(numbers(found) - wanted).max() / max(np.abs(wanted).max(), 1e-12))
