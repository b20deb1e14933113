"""From a prompt to a picture: the short loop over the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .conditioning import check_embedding, check_guidance, prepare
from .memory_limit import announced, tell
from .noise import BrownianPath, Sequential
from .pipeline import LatentDiffusion
from .plan import Step, denoise, denoise_many
from .recordable import check_record, check_taps
from .recorder import Recorder
from .running.memory import memory_told
from .samplers import Sampler, as_sampler, make_plan
from .schedule import one_of
from .stages import (
    check_prompt,
    check_size,
    decode,
    draw_noise,
    embed,
    predict,
    tokenize,
)
from .trace import Guidance, Settings, TextEmbedding, Trace, as_guidance

__all__ = ["denoise", "denoise_many", "generate"]

NOISES = {"sequential": Sequential, "brownian": BrownianPath}


@memory_told("generate")
def generate(
    model: LatentDiffusion,
    prompt: str,
    *,
    negative_prompt: str = "",
    seed: int = 0,
    num_steps: int = 20,
    sampler: str | Sampler = "ddim",
    spacing: str | None = None,
    guidance_scale: float | Guidance = 4.0,
    height: int | None = None,
    width: int | None = None,
    record: Iterable[str] = ("predictions",),
    noise: str = "sequential",
    text_embedding: TextEmbedding | None = None,
    save_to: str | Path | None = None,
    progress: bool | Callable[[Step], None] = True,
) -> Trace:
    """Make one picture from one prompt and keep everything that happened on the way.

    height, width in pixels (None: the model's own); `record` is a set out of "predictions",
    "attention", "heads" (every head of whatever attention is kept), "self_attention", "blocks",
    "frames" or tap patterns; what the taps saw is in `trace.attention`, by their names. `noise`
    says where the draws of a noisy sampler come from: "sequential" (one after the other, as in
    diffusers) or "brownian" (increments of one path, as `compare` takes them). `guidance_scale`
    may be a `Guidance` with an interval or a rescale, unless the model is told its guidance (latent
    consistency models; there a negative prompt does nothing, which a notice says).
    `text_embedding` takes the place of the prompt's own: an edited one of `analysis.text_edits`,
    say. `save_to` is a trace file that the record is written to as it is made, so that a long run
    needs no more memory than a short one; the returned trace reads from it. `progress` is a bar
    (True), nothing (False), or a function that is handed every live step once it is kept; a
    KeyboardInterrupt that it raises is Ctrl-C.
    Errors: InputError before any work for whatever cannot be run, MemoryExceeded for a record that
    is too large (`recording_size` says how large). Ctrl-C re-raises with the steps so far as
    `.trace` on the exception.
    """
    settings, levels, plan = checked(
        model, prompt, negative_prompt, seed, num_steps, sampler, spacing, guidance_scale,
        height, width, record, noise, text_embedding, save_to,
    )  # fmt: skip
    tell(settings)
    tokens, negative = tokenize(model, prompt), tokenize(model, negative_prompt)
    text = text_embedding or embed(model, tokens, height=height, width=width)
    uncond = embed(model, negative, height=height, width=width, negative=True)
    source = NOISES[noise](seed)
    start = draw_noise(model, source, height, width)
    prepared = prepare(model, text, uncond, guidance_scale)

    def ask(latent, level):
        return predict(model, latent, level, text, uncond, guidance_scale, prepared)

    recorder = Recorder(model, settings, tokens, text, uncond, plan, save_to)
    with recorder, torch.inference_mode():
        latent = levels[0].sigma * start.values  # x_T: pure noise at the first level
        steps = denoise(plan, latent, ask, source)
        for step in tqdm(steps, total=len(plan), disable=quiet(progress)):
            recorder.keep(step)
            if callable(progress):
                progress(step)
            latent = step.next_latent
        return recorder.finish(decode(model, latent))


def quiet(progress: bool | Callable[[Step], None]) -> bool | None:
    """tqdm's `disable`: None hides the bar where the output is no terminal."""
    return None if progress and not callable(progress) else True


def checked(model, prompt, negative_prompt, seed, num_steps, sampler, spacing, guidance_scale,
            height, width, record, noise, text_embedding=None, save_to=None):  # fmt: skip
    """Check every value before any work; give the settings, the noise levels and the plan."""
    check_prompt(prompt), check_prompt(negative_prompt)
    chosen, guidance = as_sampler(sampler), as_guidance(guidance_scale)
    check_guidance(model, guidance)
    size = check_size(model, "height", height), check_size(model, "width", width)
    NOISES[one_of("noise", noise, NOISES)](seed)  # refuses what is no seed
    levels = model.schedule.levels(num_steps, spacing)
    plan = make_plan(chosen, levels, model.schedule)
    names = check_record(record)
    check_taps(model, names)
    notices = ()
    if len(levels) - 1 < num_steps and model.schedule.final != "none":
        asked = f"{num_steps} steps were asked for"
        notices = (f"{asked}; levels that coincide were dropped: {len(plan)} run",)
    if text_embedding is not None:
        check_embedding(model, text_embedding)
        notices += ("the text embedding was given; it was not made from the prompt",)
    if model.embeds_guidance and negative_prompt:
        notices += (
            f"the negative prompt does nothing: {model.name} is told its guidance as a number and "
            "has no unconditional pass",
        )
    settings = Settings(
        model=model.name,
        prompt=str(prompt),
        negative_prompt=str(negative_prompt),
        seed=int(seed),
        num_steps=len(plan),
        sampler={"name": chosen.name, "options": dict(chosen.options)},
        spacing=spacing or model.schedule.spacing,
        final=model.schedule.final,
        guidance_scale=guidance.scale,
        guidance_interval=guidance.interval,
        guidance_rescale=guidance.rescale,
        height=size[0],
        width=size[1],
        record=tuple(sorted(names)),
        noise=noise,
        prediction_type=model.schedule.prediction_type,
        num_train_steps=model.schedule.num_train_steps,
        notices=notices,
    )
    return announced(model, settings, plan, text_embedding, save_to), levels, plan
