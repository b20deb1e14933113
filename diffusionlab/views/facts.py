"""What is true of each step of a run, as data of a page: levels, network calls, the equation."""

from __future__ import annotations

from typing import Any

from diffusionlab.errors import InputError
from diffusionlab.plan import Step, Update
from diffusionlab.schedule import NoiseLevel
from diffusionlab.trace import Guidance, Trace
from diffusionlab.trace.summary import counted
from diffusionlab.views.page import plain

BOOKKEEPING = "the record of this run will keep "
MOST_CUT = 4  # words that are named of those that were cut off


def level_facts(level: NoiseLevel) -> dict[str, Any]:
    """A noise level in all its spellings."""
    names = ("timestep", "alpha", "sigma", "karras_sigma", "snr", "log_snr")
    return {name: plain(getattr(level, name)) for name in names}


def update_facts(update: Update, first_call: int = 0) -> dict[str, Any]:
    """x_next = a·x + Σ weight·reading + Σ weight·draw, as the run did it.

    `ago` counts a term's network call back from the step's first one: 0 is this step's first call,
    1 the call before it, −1 this step's second call.
    """
    terms = [
        {"reading": t.reading, "ago": first_call - t.call, "weight": plain(t.weight)}
        for t in update.terms
    ]
    noise = [{"draw": draw, "weight": plain(weight)} for draw, weight in update.noise]
    return {"a": plain(update.a), "terms": terms, "noise": noise}


def step_facts(trace: Trace) -> list[dict[str, Any]]:
    """One entry per step. Raises InputError for a run that has none."""
    if not trace.steps:
        raise InputError("trace of 0 steps: there is nothing to show; run it to the first step")
    found, calls = [], 0
    for step in trace.steps:
        found.append(_facts(step, calls, trace.settings.guidance))
        calls += step.network_calls
    return found


def _facts(step: Step, calls_before: int, asked: Guidance) -> dict[str, Any]:
    call = step.predictions[0] if step.predictions else None
    return {
        "index": step.index,
        "level": level_facts(step.level),
        "next": level_facts(step.next_level),
        "calls": step.network_calls,
        "calls_so_far": calls_before + step.network_calls,
        "guidance_scale": plain(asked.at(step.level) if call is None else call.guidance_scale),
        "update": update_facts(step.update, calls_before),
    }


def settings_facts(trace: Trace) -> dict[str, Any]:
    """What the run was asked for, as texts and numbers."""
    settings = trace.settings
    names = ("prompt", "negative_prompt", "model", "seed", "num_steps", "sampler_text", "spacing",
             "final", "height", "width", "summary", "prediction_type")  # fmt: skip
    return {name: getattr(settings, name) for name in names} | {
        "guidance": str(settings.guidance),
        "notices": notices_of(trace),
        "done": len(trace.steps),
        "network_calls": trace.network_calls,
    }


def titled(trace: Trace) -> list[Any]:
    """A run's title: its prompt, and how it was drawn without the options of the sampler.

    Texts of ours are strings, a user's stand as {"text": …}: the page keeps them apart.
    """
    settings, name = trace.settings, str(trace.settings.sampler.get("name"))
    steps = counted(settings.num_steps, "step")
    how = f", {steps}, guidance {settings.guidance}, seed {settings.seed}"
    return [{"text": settings.prompt}, " · ", {"text": name}, how]


def notices_of(trace: Trace) -> list[str]:
    """What was told of a run: the notices of its prompt (a cut, words it was never shown) first.

    How large the record would be is left out: it matters before a run, and on no page.
    """
    own = [text for text in trace.settings.notices if not text.startswith(BOOKKEEPING)]
    return [*(trace.tokens.notices if trace.tokens else ()), *own]


def cut_of(trace: Trace) -> list[Any]:
    """A sentence about a prompt that did not fit, in parts of ours and of the user's, or []."""
    tokens = trace.tokens
    if tokens is None or not tokens.dropped:
        return []
    told = (
        f"The model reads {tokens.kept} of the {tokens.kept + tokens.dropped} pieces of this prompt"
    )
    if not tokens.dropped_words:
        return [f"{told}; the rest is cut off."]
    lost = " ".join(tokens.dropped_words[:MOST_CUT])
    more = " …" if len(tokens.dropped_words) > MOST_CUT else "."
    return [f"{told}; cut off: ", {"text": lost}, more]
