"""Runs side by side: one start, one set of dice, one axis that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .conditioning import prepare_many, scale_at
from .errors import InputError, notice, shown
from .generate import NOISES, checked, generate, quiet
from .memory_limit import told_together
from .models.conditioning import PreparedText
from .pipeline import LatentDiffusion
from .plan import Plan, denoise_many
from .recordable import tap_patterns
from .recorder import Recorder
from .running.memory import memory_told
from .samplers import Sampler
from .schedule import NoiseLevel
from .stages import decode, draw_noise, embed, predict_many, tokenize
from .taps import is_watched
from .trace import Comparison, Guidance, Prediction, Settings, TextEmbedding, Tokens, Trace

VARIED = {
    "prompts": "prompt",
    "negative_prompts": "negative_prompt",
    "seeds": "seed",
    "samplers": "sampler",
    "spacings": "spacing",
    "guidance_scales": "guidance_scale",
    "steps": "num_steps",
}
MOST_RUNS, MOST_ROWS = 64, 32  # runs of a comparison; latents in one call of the network
SMALL = 50_000_000  # parameters of a U-Net whose runs go together unless asked otherwise
DEFAULTS = dict(negative_prompt="", seed=0, num_steps=20, sampler="ddim", spacing=None,
                guidance_scale=4.0, height=None, width=None, record=("predictions",),
                noise="brownian")  # fmt: skip


@memory_told("compare")
def compare(
    model: LatentDiffusion,
    prompt: str | None = None,
    *,
    prompts: Sequence[str] | None = None,
    negative_prompts: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    samplers: Sequence[str | Sampler] | None = None,
    spacings: Sequence[str] | None = None,
    guidance_scales: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
    together: bool | None = None,
    progress: bool = True,
    **shared: Any,
) -> Comparison:
    """Runs that share what they share and differ along the axes that are given as lists.

    Lists of equal length vary together; everything else (`seed=`, `num_steps=`, …) is shared, as
    arguments of `generate`. Runs of one seed share the start noise and, unless `noise="sequential"`
    is given, one Brownian path: 20 and 40 steps of a noisy sampler then differ by the method and
    not by the dice (`analysis.ledger` says what each consumed). `together=True` sends the runs
    through the network in one batch (None: where that was measured to be faster, and nothing is
    recorded inside the network); the pictures agree up to rounding. `together=False` makes each run
    exactly the run of `generate` with that noise.
    Errors: InputError for no list, for lists of different lengths (both are named), for 0 or more
    than 64 runs, for what cannot be shared. Ctrl-C re-raises with what there is as `.comparison`.
    """
    given = dict(prompts=prompts, negative_prompts=negative_prompts, seeds=seeds,
                 samplers=samplers, spacings=spacings, guidance_scales=guidance_scales,
                 steps=steps)  # fmt: skip
    axes = {name: _listed(name, values) for name, values in given.items() if values is not None}
    count = _common_length(axes)
    if prompt is not None:
        shared["prompt"] = prompt
    _check_shared(shared)
    runs = [
        DEFAULTS | shared | {VARIED[name]: values[i] for name, values in axes.items()}
        for i in range(count)
    ]
    plans = [checked(model, **run) for run in runs]  # all of them before the first one begins
    finished: dict[int, Trace] = {}
    each = _each_in_turn
    if _goes_together(model, plans, together):
        each = _in_lockstep
    try:
        with told_together(model, plans):
            for number, trace in each(model, runs, plans, progress):
                finished[number] = trace
    except BaseException as error:
        _keep_what_there_is(error, axes, runs, finished)
        raise
    return _comparison(axes, runs, finished)


# ---- what is compared --------------------------------------------------------------------------
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
    if not 1 <= count <= MOST_RUNS:
        raise InputError(
            f"compare was given {count} runs; 1 to {MOST_RUNS} are allowed: call it in parts"
        )
    return count


def _check_shared(shared: dict) -> None:
    for name in ("height", "width"):
        if isinstance(shared.get(name), (list, tuple)):
            raise InputError(
                f"{name} is {shown(shared[name])}; pictures of different sizes cannot share a "
                f"start noise: give one {name}, and compare other sizes in another call"
            )
    if "save_to" in shared:
        raise InputError(
            f"save_to is {shown(str(shared['save_to']))}; a file holds one run and not several: "
            "save each of the traces, or call generate with save_to"
        )
    unknown = set(shared) - set(DEFAULTS) - {"prompt"}
    if unknown:
        raise InputError(
            f"{', '.join(sorted(unknown))} is not known; compare shares the arguments of generate"
        )


def _label(value) -> str:
    if isinstance(value, Sampler):
        options = ", ".join(f"{k}={v}" for k, v in value.options.items())
        return f"{value.name}({options})" if options else value.name
    return str(value)


def _comparison(axes: dict, runs: list[dict], finished: dict[int, Trace]) -> Comparison:
    """The finished runs in the order in which they were given."""
    numbers = sorted(finished)
    names = [VARIED[name] for name in axes]
    values = tuple(" · ".join(_label(runs[i][name]) for name in names) for i in numbers)
    return Comparison(" and ".join(names), values, tuple(finished[i] for i in numbers))


def _keep_what_there_is(error: BaseException, axes, runs, finished: dict[int, Trace]) -> None:
    """Put the comparison of all traces so far, whole or partial, on the exception."""
    for number, trace in getattr(error, "partial_traces", {}).items():
        finished.setdefault(number, trace)
    if not finished:
        return
    error.comparison = _comparison(axes, runs, finished)
    if isinstance(error, KeyboardInterrupt):
        notice(
            f"stopped with {len(finished)} of {len(runs)} runs, some perhaps partial: "
            "import sys; comparison = sys.last_value.comparison"
        )


# ---- one after the other -----------------------------------------------------------------------
def _each_in_turn(model, runs, plans, progress) -> Iterator[tuple[int, Trace]]:
    for number, run in enumerate(tqdm(runs, disable=quiet(progress), unit="run")):
        yield number, generate(model, **run, progress=False)


# ---- in lockstep -------------------------------------------------------------------------------
def _goes_together(model: LatentDiffusion, plans: list, together: bool | None) -> bool:
    """Whether the runs share network calls: as asked, else where it was measured to be faster."""
    watched = any(tap_patterns(set(settings.record)) for settings, _, _ in plans)
    watched = watched or is_watched(model.unet)
    if together and watched:
        raise InputError(
            "together=True was given with a record from inside the network (attention, blocks or "
            "tap patterns) or inside a block that watches it, which is done run by run; leave "
            "together out, or record predictions only"
        )
    if together is None:
        return not watched and len(plans) > 1 and faster_together(model)
    return bool(together)


def faster_together(model: LatentDiffusion) -> bool:
    """Small networks gain from batches: eight runs of Toyland take 0.6 of their time one by one.

    Measured on two cores (benchmarks/samplers.py); a large network fills the device by itself.
    """
    return sum(weights.numel() for weights in model.unet.parameters()) < SMALL


@dataclass(eq=False)
class Run:
    """One of several runs that go through the network together."""

    settings: Settings
    plan: Plan
    text: TextEmbedding
    uncond: TextEmbedding
    source: Callable
    latent: torch.Tensor
    recorder: Recorder

    @property
    def asked(self) -> tuple[TextEmbedding, TextEmbedding, Guidance]:
        """What `predict_many` needs beside the point and its level."""
        return self.text, self.uncond, self.settings.guidance


class Texts:
    """Tokens and embeddings of each distinct text, made once, so that notices are told once."""

    def __init__(self, model: LatentDiffusion, height: int | None, width: int | None):
        self.model, self.size = model, {"height": height, "width": width}
        self.tokens: dict[str, Tokens] = {}
        self.known: dict[tuple[str, bool], TextEmbedding] = {}

    def __call__(self, text: str, negative: bool = False) -> tuple[Tokens, TextEmbedding]:
        if text not in self.tokens:
            self.tokens[text] = tokenize(self.model, text)
        tokens, key = self.tokens[text], (text, negative)
        if key not in self.known:
            self.known[key] = embed(self.model, tokens, **self.size, negative=negative)
        return tokens, self.known[key]


def _begun(model: LatentDiffusion, run: dict, plan: tuple, texts: Texts) -> Run:
    """A run before its first network call."""
    settings, levels, steps = plan
    tokens, text = texts(settings.prompt)
    _, uncond = texts(settings.negative_prompt, negative=True)
    source = NOISES[settings.noise](settings.seed)
    latent = levels[0].sigma * draw_noise(model, source, run["height"], run["width"]).values
    recorder = Recorder(model, settings, tokens, text, uncond, steps)
    return Run(settings, steps, text, uncond, source, latent, recorder)


class Shared:
    """The network's answers to all runs that wait for it, in calls of at most MOST_ROWS rows.

    The texts of a call are prepared once for as long as the same runs, with as many branches, share
    it: keys and values do not change from step to step.
    """

    def __init__(self, model: LatentDiffusion, runs: list[Run]):
        self.model, self.runs = model, runs
        self.prepared: dict[tuple, PreparedText] = {}

    def __call__(self, requests: list[tuple[int, torch.Tensor, NoiseLevel]]) -> list[Prediction]:
        most, said = MOST_ROWS // 2, []
        parts = [requests[i : i + most] for i in range(0, len(requests), most)]
        keys = [self.who(part) for part in parts]
        self.prepared = {key: text for key, text in self.prepared.items() if key in keys}
        for key, part in zip(keys, parts, strict=True):
            asked = [(point, level, *self.runs[i].asked) for i, point, level in part]
            if key not in self.prepared:
                self.prepared[key] = prepare_many(self.model, asked)
            said += predict_many(self.model, asked, self.prepared[key])
        return said

    def who(self, part: list[tuple[int, torch.Tensor, NoiseLevel]]) -> tuple[tuple[int, bool], ...]:
        """The runs of a call, and which of them are guided at their level."""
        scales = ((i, scale_at(self.model, self.runs[i].asked[-1], level)) for i, _, level in part)
        return tuple((i, scale != 1) for i, scale in scales)


@torch.inference_mode()
def _in_lockstep(model, given, plans, progress) -> Iterator[tuple[int, Trace]]:
    """All runs at once: those that wait for the network share its next call."""
    texts = Texts(model, given[0]["height"], given[0]["width"])
    runs = [_begun(model, run, plan, texts) for run, plan in zip(given, plans, strict=True)]
    steps = denoise_many([r.plan for r in runs], [r.latent for r in runs], Shared(model, runs),
                         [r.source for r in runs])  # fmt: skip
    total = sum(len(run.plan) for run in runs)
    try:
        for number, step in tqdm(steps, total=total, disable=quiet(progress), unit="step"):
            run = runs[number]
            run.recorder.keep(step)
            if step.index == len(run.plan) - 1:
                yield number, run.recorder.finish(decode(model, step.next_latent))
    except BaseException as error:
        begun = {i: run.recorder.finish(None) for i, run in enumerate(runs) if run.recorder.steps}
        error.partial_traces = begun
        raise
