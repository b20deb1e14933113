"""Every view once, for the tests that hold for all of them.

`CASES` makes each view of a constructed record whose texts are all the given one: a new view is not
finished without a line here. `OF_A_RUN` makes those that take a run from any run, `RUNS` are runs
that something is missing from, or that are unlike the usual one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import traces
from runs_of_x0 import noising
from test_text import layers

from diffusionlab import views
from diffusionlab.images import to_image
from diffusionlab.plan import Step, denoise
from diffusionlab.samplers import make_plan
from diffusionlab.trace import Comparison, Prediction, TextLayers, Tokens, Trace
from diffusionlab.views import View

HARMLESS = "plain"
HOSTILE = " ".join(traces.HOSTILE)


# ---- the cases -------------------------------------------------------------------------------
def tokens_of(text: str) -> Tokens:
    """Four words, each of them the text."""
    words = {"words": (text,) * 4, "dropped_words": (text,), "notices": (text,)}
    return replace(traces.tokens(text), pieces=(text,) * 12, **words)


def run_of(text: str = HARMLESS, num_steps: int = 5, **changes) -> Trace:
    """A run with the text as prompt, negative prompt, word, model, sampler, spacing and tap."""
    run = traces.trace(num_steps, prompt=text)
    settings = replace(
        run.settings, negative_prompt=text, model=text, notices=(text,), spacing=text, noise=text,
        sampler={"name": text, "options": {text: text}},
    )  # fmt: skip
    words = tokens_of(text)
    parts = {
        "settings": settings,
        "tokens": words,
        "text_embedding": replace(run.text_embedding, tokens=words),
        "attention": {f"{text}.attn2.probabilities": traces.attention(num_steps)},
        "versions": {text: text},
    }
    return replace(run, **(parts | changes))


def comparison_of(text: str = HARMLESS) -> Comparison:
    """Three runs along an axis that is the text, their values texts too; one was stopped."""
    runs = (run_of(text), run_of(text, 3), replace(run_of(text, 4), image=None, frames=()))
    return Comparison(text, (text, f"{text} 2", f"{text} 3"), runs)


def layers_of(text: str = HARMLESS) -> TextLayers:
    """What a text encoder of two layers holds of four words that are the text."""
    return replace(layers(), tokens=tokens_of(text))


def pair(run: Trace) -> View:
    """A run beside the usual one."""
    return views.diff(traces.trace(), run)


def questions_of(text: str = HARMLESS) -> list[dict]:
    """Five questions whose every text is the given one; the first choice is right."""
    choices = [f"{number} {text}" for number in range(3)]
    return [{"asks": text, "choices": choices, "right": 0, "because": text}] * 5


CASES: dict[str, Callable[[str], View]] = {
    "diff": lambda text: views.diff(
        run_of(text), replace(traces.trace(4), versions={text: text}), labels=(text, f"{text} 2")
    ),
    "exhibit": lambda text: views.exhibit(run_of(text), seconds=600),  # turns no page meanwhile
    "explore": lambda text: views.explore(run_of(text)),
    "explore_schedule": lambda text: views.explore_schedule(
        replace(traces.schedule(), name=text), noising=replace(noising(), prompt=text)
    ),
    "explore_text": lambda text: views.explore_text(layers_of(text)),
    "quiz": lambda text: views.quiz(questions_of(text), title=text),
    "race": lambda text: views.race(comparison_of(text)),
}
WORDS_ONLY = {"quiz"}  # without a picture, and without a slider over steps
OF_A_RUN: dict[str, Callable[[Trace], View]] = {
    "diff": pair,
    "exhibit": lambda run: views.exhibit(run, seconds=600),
    "explore": lambda run: views.explore(run),
    "explore_text": lambda run: views.explore_text(run),
    "race": lambda run: views.race(Comparison("run", ("usual", "other"), (traces.trace(), run))),
}


def public() -> list[str]:
    """The functions of `diffusionlab.views` that make a view."""
    return sorted(name for name in views.PLACES if name.islower())


# ---- runs unlike the usual one -----------------------------------------------------------------
def with_steps(run: Trace, change: Callable[[Step], Step]) -> Trace:
    return replace(run, steps=tuple(change(step) for step in run.steps))


def not_a_number() -> Trace:
    """From step 2 on every latent and every output of the network is NaN."""

    def broken(step: Step) -> Step:
        if step.index < 2:
            return step
        bad = np.full_like(step.latent, np.nan)
        calls = tuple(replace(p, latent=bad, cond=bad, uncond=bad) for p in step.predictions)
        return replace(step, latent=bad, predictions=calls, next_latent=bad)

    return replace(with_steps(traces.trace(), broken), image=None, frames=())


def unguided() -> Trace:
    """Guidance 1: the unconditional pass was not run."""

    def alone(step: Step) -> Step:
        calls = tuple(replace(p, cond=p.guided, uncond=None, guidance_scale=1.0)
                      for p in step.predictions)  # fmt: skip
        return replace(step, predictions=calls)

    run = with_steps(traces.trace(), alone)
    return replace(run, settings=replace(run.settings, guidance_scale=1.0))


def solved(sampler: str, num_steps: int = 4) -> Trace:
    """A run by a real sampler of a network that always says the same x0."""
    run = traces.trace(num_steps)
    random = np.random.default_rng(3)
    plan = make_plan(sampler, traces.schedule().levels(num_steps, "trailing", "clean"),
                     traces.schedule())  # fmt: skip
    x0 = run.x0s[-1].astype(np.float32)

    def predict(latent, level):
        eps = (latent - level.alpha * x0) / level.sigma
        return Prediction(level, latent, eps, 0.9 * eps, 1.0, "eps")

    def noise(level, following):
        return random.normal(size=x0.shape).astype(np.float32)

    start = noise(None, None)
    steps = tuple(denoise(plan, start, predict, noise))
    calls = sum(step.network_calls for step in steps)
    named = {"name": sampler, "options": {}}
    settings = replace(run.settings, sampler=named, guidance_scale=1.0)
    maps = {"mid_block.attn2.probabilities": traces.attention(calls)}
    frames = run.frames[:1] * len(steps)
    return replace(run, settings=settings, steps=steps, frames=frames, attention=maps)


def tall() -> Trace:
    """Higher than wide: pictures of 64 × 24 pixels, latents of 8 × 3, maps of 4 × 2."""

    def turned(array):
        return None if array is None else np.ascontiguousarray(array[:, :3].swapaxes(1, 2))

    def change(step: Step) -> Step:
        calls = tuple(replace(p, latent=turned(p.latent), cond=turned(p.cond),
                              uncond=turned(p.uncond)) for p in step.predictions)  # fmt: skip
        return replace(step, latent=turned(step.latent), predictions=calls,
                       next_latent=turned(step.next_latent))  # fmt: skip

    run = with_steps(traces.trace(), change)
    picture = to_image(np.linspace(0, 1, 64 * 24 * 3).reshape(64, 24, 3))
    maps = {"mid_block.attn2.probabilities": traces.attention(5).swapaxes(1, 2)[..., :2, :]}
    settings = replace(run.settings, height=64, width=24)
    frames = (picture,) * 5
    return replace(run, settings=settings, image=picture, frames=frames, attention=maps)


def stopped() -> Trace:
    """Three steps of five: no image, no decoded frames."""
    run = traces.trace(5)
    maps = {"mid_block.attn2.probabilities": traces.attention(3)}
    return replace(run, steps=run.steps[:3], image=None, frames=(), attention=maps)


RUNS: dict[str, Callable[[], Trace]] = {
    "NaN": not_a_number,
    "stopped": stopped,
    "guidance 1": unguided,
    "no preview map": lambda: traces.trace(preview=None),
    "no preview map, no frames": lambda: traces.trace(preview=None, frames=(), image=None),
    "prompt left out": lambda: traces.trace(prompt="", tokens=None, text_embedding=None,
                                            uncond_embedding=None),
    "nothing recorded inside": lambda: traces.trace(attention={}, frames=()),
    "two calls a step": lambda: solved("heun"),
    "earlier calls": lambda: solved("dpmpp_2m"),
    "fresh noise": lambda: solved("euler_ancestral"),
    "tall": tall,
    "one step": lambda: traces.trace(1),
    "Arabic and emoji": lambda: traces.trace(prompt="سيارة حمراء 👩‍👩‍👧 🇫🇷 in the city"),
}  # fmt: skip


# ---- what a page is made of --------------------------------------------------------------------
class Structure(HTMLParser):
    """The elements of a page in order, each with the names of its attributes; and its texts."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.values.append(dict(attrs))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> dict[str, str | None]:
        """The attributes of the first element of that kind."""
        return next(v for (name, _), v in zip(self.found, self.values, strict=True) if name == tag)


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
