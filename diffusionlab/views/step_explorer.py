"""The step explorer: one run under one scrubber."""

from __future__ import annotations

from typing import Any

from diffusionlab.images import spread
from diffusionlab.trace import Trace, step_caption
from diffusionlab.views.facts import settings_facts, step_facts
from diffusionlab.views.reels import SIZE, latent_image, reel
from diffusionlab.views.view import View


def explore(trace: Trace, *, size: int = SIZE) -> View:
    """A run, step by step: x_t, x0-hat, the equation and the noise level under one scrubber."""
    facts = step_facts(trace)
    title = f"{trace.settings.prompt} · {trace.settings.summary}"
    pictures = [latent_image(x, trace.preview) for x in trace.latents[:-1]]
    beliefs = [latent_image(x, trace.preview) for x in trace.x0s]
    data: dict[str, Any] = {
        "title": title,
        "settings": settings_facts(trace),
        "steps": facts,
        "reels": {
            "x_t": reel("x_t, preview", pictures, [f"x_t at step {i}" for i in range(len(facts))]),
            "x0": reel("x0-hat, preview", beliefs, [f"x0 at step {i}" for i in range(len(facts))]),
        },
    }

    def still() -> list[tuple[str, Any]]:
        return [(step_caption(trace.steps[i]), beliefs[i]) for i in spread(len(facts), 6)]

    return View(
        script="step_explorer",
        title=title,
        alt=f"Explorer of a run of {len(facts)} steps.",
        data=data,
        live={"step": 0},
        limits={"step": (0, len(facts) - 1)},
        pictures=still,
        lighter="Show fewer pictures: explore(trace, size=128).",
    )
