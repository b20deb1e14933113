"""From a prompt to a picture: the short loop over the stages, and runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tqdm.auto import tqdm

from .errors import InputError, notice, shown
from .noise import Sequential
from .pipeline import LatentDiffusion
from .plan import denoise, denoise_many
from .recorder import Recorder, check_taps
from .samplers import Sampler, as_sampler, make_plan
from .stages import (
    check_guidance,
    check_prompt,
    check_size,
    decode,
    draw_noise,
    embed,
    predict,
    prepare,
    tokenize,
)
from .trace import Comparison, Settings, Trace

__all__ = ["compare", "denoise", "denoise_many", "generate"]


def generate(
    model: LatentDiffusion,
    prompt: str,
    *,
    negative_prompt: str = "",
    seed: int = 0,
    num_steps: int = 20,
    sampler: str | Sampler = "ddim",
    spacing: str | None = None,
    guidance_scale: float = 4.0,
    height: int | None = None,
    width: int | None = None,
    record: Iterable[str] = ("predictions",),
    progress: bool = True,
) -> Trace:
    """Make one picture from one prompt and keep everything that happened on the way.

    height, width in pixels (None: the model's own); `record` is a set out of "predictions",
    "attention", "heads" (every head of whatever attention is kept), "self_attention", "blocks",
    "frames" or tap patterns; what the taps saw is in `trace.attention`, by their names.
    Errors: InputError before any work for whatever cannot be run. Ctrl-C re-raises with the steps
    so far as `.trace` on the exception.
    """
    settings, levels, plan = checked(
        model, prompt, negative_prompt, seed, num_steps, sampler, spacing, guidance_scale,
        height, width, record,
    )  # fmt: skip
    for told in settings.notices:
        notice(told)
    tokens, negative = tokenize(model, prompt), tokenize(model, negative_prompt)
    text, uncond = embed(model, tokens), embed(model, negative)
    source = Sequential(seed)
    noise = draw_noise(model, source, height, width)

    prepared = prepare(model, text, uncond, guidance_scale)

    def ask(latent, level):
        return predict(model, latent, level, text, uncond, guidance_scale, prepared)

    with Recorder(model, settings, tokens, text, uncond) as recorder, torch.inference_mode():
        latent = levels[0].sigma * noise.values  # x_T: pure noise at the first level
        steps = denoise(plan, latent, ask, source)
        for step in tqdm(steps, total=len(plan), disable=quiet(progress)):
            recorder.keep(step)
            latent = step.next_latent
        return recorder.finish(decode(model, latent))


def quiet(progress: bool) -> bool | None:
    """tqdm's `disable`: None hides the bar where the output is no terminal."""
    return None if progress else True


def checked(model, prompt, negative_prompt, seed, num_steps, sampler, spacing, guidance_scale,
            height, width, record):  # fmt: skip
    """Check every value before any work; give the settings, the noise levels and the plan."""
    check_prompt(prompt), check_prompt(negative_prompt)
    chosen, scale = as_sampler(sampler), check_guidance(guidance_scale)
    size = check_size(model, "height", height), check_size(model, "width", width)
    Sequential(seed)  # refuses what is no seed
    levels = model.schedule.levels(num_steps, spacing)
    plan = make_plan(chosen, levels, model.schedule)
    names = check_record(record)
    check_taps(model, names)
    notices = ()
    if len(levels) - 1 < num_steps and model.schedule.final != "none":
        asked = f"{num_steps} steps were asked for"
        notices = (f"{asked}; levels that coincide were dropped: {len(plan)} run",)
    settings = Settings(
        model=model.name,
        prompt=str(prompt),
        negative_prompt=str(negative_prompt),
        seed=int(seed),
        num_steps=len(plan),
        sampler={"name": chosen.name, "options": dict(chosen.options)},
        spacing=spacing or model.schedule.spacing,
        final=model.schedule.final,
        guidance_scale=scale,
        height=size[0],
        width=size[1],
        record=tuple(sorted(names)),
        noise="sequential",
        prediction_type=model.schedule.prediction_type,
        num_train_steps=model.schedule.num_train_steps,
        notices=notices,
    )
    return settings, levels, plan


def check_record(record: Iterable[str]) -> set[str]:
    """The names of what to keep, as a set."""
    names = list(record) if isinstance(record, Iterable) and not isinstance(record, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"record is {shown(record)}; a set of names is allowed, e.g. "
            '{"predictions", "attention"}: put the names into braces'
        )
    if "frames" in names and "predictions" not in names:
        raise InputError('record has "frames" without "predictions"; add "predictions"')
    return set(names)


VARIED = {
    "prompts": "prompt",
    "seeds": "seed",
    "samplers": "sampler",
    "guidance_scales": "guidance_scale",
    "steps": "num_steps",
}


def compare(
    model: LatentDiffusion,
    prompt: str | None = None,
    *,
    prompts: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    samplers: Sequence[str | Sampler] | None = None,
    guidance_scales: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    **shared,
) -> Comparison:
    """Runs that share what they share and differ along the axes that are given as lists.

    Lists of equal length vary together; everything else (`seed=`, `num_steps=`, …) is shared. Each
    run draws its own noises in order from its seed (`Sequential`), the start noise first.
    Errors: InputError for no list, for lists of different lengths (both are named), for 0 or more
    than 64 runs.
    """
    given = dict(prompts=prompts, seeds=seeds, samplers=samplers,
                 guidance_scales=guidance_scales, steps=steps)  # fmt: skip
    axes = {name: _listed(name, values) for name, values in given.items() if values is not None}
    count = _common_length(axes)
    if prompt is not None:
        shared["prompt"] = prompt
    runs = [{VARIED[name]: values[i] for name, values in axes.items()} for i in range(count)]
    for run in runs:  # every run is checked before the first one begins
        _check_run(model, shared | run)
    traces = tuple(generate(model, **(shared | run)) for run in runs)
    values = tuple(" · ".join(_label(v) for v in run.values()) for run in runs)
    return Comparison(
        axis=" and ".join(VARIED[name] for name in axes), values=values, traces=traces
    )


def _label(value) -> str:
    if isinstance(value, Sampler):
        options = ", ".join(f"{k}={v}" for k, v in value.options.items())
        return f"{value.name}({options})" if options else value.name
    return str(value)


def _listed(name: str, values) -> list:
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray, range)):
        raise InputError(f"{name} is {shown(values)}; a list is allowed: write {name}=[…]")
    return list(values)


def _common_length(axes: dict[str, list]) -> int:
    lengths = {name: len(values) for name, values in axes.items()}
    if not lengths:
        raise InputError(f"compare got no list; give at least one of {', '.join(VARIED)}")
    if len(set(lengths.values())) > 1:
        told = " and ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(f"the lists of compare differ in length: {told}; give lists of one length")
    count = next(iter(lengths.values()))
    if not 1 <= count <= 64:
        raise InputError(f"compare was given {count} runs; 1 to 64 are allowed: call it in parts")
    return count


def _check_run(model: LatentDiffusion, given: dict) -> None:
    defaults = dict(negative_prompt="", seed=0, num_steps=20, sampler="ddim", spacing=None,
                    guidance_scale=4.0, height=None, width=None, record=())  # fmt: skip
    unknown = set(given) - set(defaults) - {"prompt", "progress"}
    if "prompt" not in given or unknown:
        wrong = f"{', '.join(sorted(unknown))} is not known" if unknown else "prompt is missing"
        raise InputError(f"{wrong}; compare shares the arguments of generate")
    checked(model, **{k: v for k, v in (defaults | given).items() if k != "progress"})
