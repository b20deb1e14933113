"""What guidance does: how far the branches are apart, and what another scale would have made.

paper ↔ name: guided = uncond + g · (cond − uncond) (arXiv 2207.12598, Eq. 6, w = g − 1), with an
interval (arXiv 2404.07724) and a rescale φ (arXiv 2305.08891, Eqs. 14 to 16) as in `Guidance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, branch_eps, branch_x0, numbers, worst
from diffusionlab.analysis.same_runs import check_path, check_settings, dice_off, distance
from diffusionlab.analysis.similarity import angle
from diffusionlab.analysis.updates import replay
from diffusionlab.errors import InputError, shown
from diffusionlab.schedule import NoiseLevel
from diffusionlab.trace import Guidance, Prediction, Settings, Trace, as_guidance

__all__ = [
    "Curves",
    "GuidanceDial",
    "Stop",
    "call_at",
    "dial",
    "guidance_curves",
    "needs_two_passes",
    "recombine",
]

SCALES, MOST_SCALES = (0, 1, 2, 4, 8), 9
ONCE = "without its unconditional pass"
TOLD = (
    "is told its guidance as a number and has no unconditional pass; use Toyland, dl.load(), or a "
    "checkpoint that is not distilled this way"
)


# ---- the branches of a run --------------------------------------------------------------------
def needs_two_passes(model: Any) -> None:
    """Refuse a model without an unconditional pass, where guidance by two passes is the subject.

    Errors: InputError for a model that is told its guidance as a number (an LCM).
    """
    if model.embeds_guidance:
        raise InputError(f"{model.name} {TOLD}; this is about guidance by two passes")


def is_told(settings: Settings) -> bool:
    """Whether a run with a step of one pass is that of a model told its guidance as a number.

    A scale other than 1 without an interval runs both passes at every step of any other model.
    """
    return settings.guidance_scale != 1 and settings.guidance_interval is None


def call_at(trace: Trace, step: Any) -> Prediction:
    """The first network call of a step. Raises InputError for a step or a record that is not there.

    Steps count from 0; negative ones are refused, because a step's number is its place in the run.
    """
    count = len(trace.steps)
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 0 <= step < count:
        allowed = f"this run has steps 0 to {count - 1}" if count else "this run has no step"
        raise InputError(f"step {shown(step)} was given; {allowed}: take one of them")
    calls = trace.steps[step].predictions
    if not calls:
        raise InputError(
            f"step {step} of a trace recorded with {shown(trace.settings.record)} keeps no "
            'prediction; run again with record={"predictions"}'
        )
    return calls[0]


def guided_call(trace: Trace, step: Any) -> Prediction:
    """As `call_at`, but both branches must have been run. Raises InputError where they were not."""
    call = call_at(trace, step)
    if call.uncond is None:
        guidance = trace.settings.guidance
        why = (
            f"guidance is {guidance}, but this model {TOLD}"
            if is_told(trace.settings)
            else f"guidance is {guidance}, which is 1 there; choose a step inside the interval, or "
            "run again with a guidance_scale other than 1"
        )
        raise InputError(
            f"step {step} (karras_sigma {call.level.karras_sigma:.3g}) was run {ONCE}: {why}"
        )
    return call


def guided_steps(trace: Trace) -> tuple[int, ...]:
    """The steps whose first call ran both branches. Raises InputError if there is none."""
    found = [i for i in range(len(trace.steps)) if call_at(trace, i).uncond is not None]
    if not found:
        call_at(trace, 0)  # a run of no step has its own error
        told = f"guidance of this run is {trace.settings.guidance}"
        if is_told(trace.settings):
            raise InputError(f"{told}, but this model {TOLD}")
        raise InputError(
            f"{told}: every step was made {ONCE}; "
            "run again with a guidance_scale other than 1, e.g. 4"
        )
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Curves:
    """Per guided step: how long the difference of the branches is, and where it points.

    `steps` are those that ran both branches, at `karras_sigmas`, with the guidance scales `scales`;
    `ratios` are |cond − uncond| / |cond|, `apart` the angles between cond and uncond and `turned`
    those between the guided output and cond, in degrees, all in the eps reading of a step's first
    call; `x0_ratios` are the ratios in its x0. One Euler step moves x / alpha along eps, so
    `turned` is by how much guidance turns it. `check` is whether the stored path is the one that
    these branches and scales make.
    """

    steps: tuple[int, ...]
    num_steps: int
    karras_sigmas: np.ndarray
    scales: np.ndarray
    ratios: np.ndarray
    x0_ratios: np.ndarray
    apart: np.ndarray
    turned: np.ndarray
    check: Residual


def guidance_curves(trace: Trace) -> Curves:
    """The `Curves` of a run. Raises InputError for a run without guidance or predictions."""
    steps = guided_steps(trace)
    calls = [trace.steps[i].predictions[0] for i in steps]
    found = np.array([_apart(call) for call in calls])  # (guided steps, 4)
    return Curves(
        steps=steps,
        num_steps=len(trace.steps),
        karras_sigmas=np.array([call.level.karras_sigma for call in calls]),
        scales=np.array([call.guidance_scale for call in calls], np.float64),
        ratios=found[:, 0],
        x0_ratios=found[:, 1],
        apart=found[:, 2],
        turned=found[:, 3],
        check=recombined(trace),
    )


def _apart(call: Prediction) -> tuple[float, float, float, float]:
    """Of one call: the ratio in eps and in x0, and the two angles."""
    cond, uncond = branch_eps(call, "cond"), branch_eps(call, "uncond")
    with np.errstate(all="ignore"):  # NaN goes on into the curves, which say so
        return (
            _ratio(cond, uncond),
            _ratio(branch_x0(call, "cond"), branch_x0(call, "uncond")),
            degrees(cond, uncond),
            degrees(numbers(call.eps), cond),
        )


def _ratio(cond: np.ndarray, uncond: np.ndarray) -> float:
    return float(np.linalg.norm(cond - uncond) / max(np.linalg.norm(cond), 1e-12))


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    """The angle between two arrays read as vectors, in degrees."""
    return math.degrees(angle(a, b))


def recombined(trace: Trace) -> Residual:
    """Whether every stored step is what its branches, recombined at its scale, make of it.

    The worst step's `replay`; branches that changed places would show here.
    """
    for step in range(len(trace.steps)):
        call_at(trace, step)
    return worst(replay(trace, i) for i in range(len(trace.steps)))


# ---- the dial ---------------------------------------------------------------------------------
def recombine(call: Prediction, guidance: float | Guidance) -> Prediction:
    """A stored call at another guidance, without the network; at the scale of its own level.

    Equals `predict` with that guidance at the same point. Raises InputError if the unconditional
    pass was not run and is needed.
    """
    guidance = as_guidance(guidance)
    return replace(call, guidance_scale=guidance.at(call.level), guidance_rescale=guidance.rescale)


@dataclass(frozen=True, eq=False)
class Stop:
    """One guidance on the dial: x0-hat of this step alone, and of a whole run at that guidance.

    `x0`, `rerun` (both at the dial's step) and `end` are float64 (channels, h, w); `turned` is how
    far `x0` is from the run's own x0-hat, `drifted` how far `rerun` is from `x0`, `moved` how far
    `end` is from the run's own end: root mean squares relative to the latter. None: no whole run.
    """

    guidance: Guidance
    x0: np.ndarray
    turned: float
    rerun: np.ndarray | None = None
    end: np.ndarray | None = None
    drifted: float | None = None
    moved: float | None = None
    images: dict | None = None  # "x0", "rerun", "end" → PIL image, as far as they were decoded


@dataclass(frozen=True, eq=False)
class GuidanceDial:
    """One step of a run under other guidance: what only this step's, and all steps', would do.

    `replayed` is whether the step follows from its stored branches, `start` whether the whole runs
    began in the same noise and drew the same (None without whole runs).
    """

    step: int
    level: NoiseLevel
    own: Guidance
    stops: tuple[Stop, ...]
    replayed: Residual
    start: Residual | None
    prompt: str = ""
    preview: Any = None


def dial(
    trace: Trace,
    step: int,
    scales: Sequence[float | Guidance] = SCALES,
    run: Callable[..., Trace] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> GuidanceDial:
    """One step's x0-hat at other guidance, from its stored branches, beside whole runs at it.

    `scales` are numbers or `Guidance`; `run(guidance_scale=g)`, if given, makes the whole run at g
    (`functools.partial(generate, model, prompt, seed=1)`); `decode(latent)` makes pictures. Raises
    InputError for a step without both branches, and for whole runs that were not made at the asked
    guidance or differ in more than that.
    """
    call = guided_call(trace, step)
    wanted = _checked_scales(scales)
    runs = [run(guidance_scale=_plain(g)) for g in wanted] if run else [None] * len(wanted)
    stops = [_stop(trace, step, call, *pair) for pair in zip(wanted, runs, strict=True)]
    if decode is not None:
        stops = [replace(stop, images=_decoded(stop, decode)) for stop in stops]
    off = [dice_off(trace, other) for other in runs if run]
    return GuidanceDial(
        step=int(step),
        level=call.level,
        own=trace.settings.guidance,
        stops=tuple(stops),
        replayed=replay(trace, step),
        start=Residual(float(np.max(off)), 1e-4, "the same dice") if run else None,
        prompt=trace.settings.prompt,
        preview=trace.preview,
    )


def _checked_scales(scales: Any) -> list[Guidance]:
    good = isinstance(scales, (Sequence, np.ndarray, range)) and not isinstance(scales, str)
    if not good or not 1 <= len(scales) <= MOST_SCALES:
        raise InputError(
            f"scales is {shown(scales)}; a list of 1 to {MOST_SCALES} guidance scales is allowed, "
            "e.g. [0, 1, 4, 8]"
        )
    return [as_guidance(scale) for scale in scales]


def _plain(guidance: Guidance) -> float | Guidance:
    """The number alone where there is nothing else to say."""
    simple = guidance.interval is None and not guidance.rescale
    return guidance.scale if simple else guidance


def _stop(trace: Trace, step: int, call: Prediction, guidance: Guidance, run: Any) -> Stop:
    x0 = numbers(recombine(call, guidance).x0)
    turned = distance(x0, numbers(call.x0))
    if run is None:
        return Stop(guidance, x0, turned)
    _check_rerun(trace, guidance, run)
    rerun, end = numbers(call_at(run, step).x0), numbers(run.steps[-1].next_latent)
    moved = distance(end, numbers(trace.steps[-1].next_latent))
    return Stop(guidance, x0, turned, rerun, end, distance(rerun, x0), moved)


def _check_rerun(trace: Trace, guidance: Guidance, run: Trace) -> None:
    """The whole run is the run again, at the guidance that was asked for."""
    told = f"the whole run at {guidance}"
    check_settings(trace, run, ("guidance",), told)
    if run.settings.guidance != guidance:
        raise InputError(
            f"run(guidance_scale={guidance}) made a run at guidance {run.settings.guidance}; it "
            "must be the one that was asked for: let run= hand guidance_scale on to generate"
        )
    check_path(trace, run, told)


def _decoded(stop: Stop, decode: Callable[[Any], Any]) -> dict:
    """Pictures of what the stop holds, as far as it is finite."""
    parts = {"x0": stop.x0, "rerun": stop.rerun, "end": stop.end}
    return {
        name: decode(latent.astype(np.float32))
        for name, latent in parts.items()
        if latent is not None and np.isfinite(latent).all()
    }
