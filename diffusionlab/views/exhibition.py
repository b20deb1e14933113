"""The exhibit: a run told to visitors in five panels that turn by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.images import blank, spread
from diffusionlab.trace import Trace, step_caption
from diffusionlab.views.exhibit_run import (
    Seen,
    decoding_panel,
    denoising_panel,
    picture_panel,
    seen_of,
)
from diffusionlab.views.exhibit_text import embedding_panel, prompt_panel, word_cards
from diffusionlab.views.facts import titled
from diffusionlab.views.reels import SIZE, size_of
from diffusionlab.views.view import View


def exhibit(
    trace: Trace,
    *,
    decode: Callable[[Any], Any] | None = None,
    loop: bool = True,
    seconds: float = 10.0,
    idle: float = 30.0,
    size: int = SIZE,
) -> View:
    """A run for visitors, in five panels: prompt, text embedding, denoising, decoding, picture.

    It plays by itself (not where the reader's system asks for less motion), `seconds` a panel and
    twice as long for denoising; any key or touch pauses it, and `idle` seconds without one let it
    go on. `loop=False` ends at the picture. x0-hat is shown decoded where the trace has `frames`
    or `decode` (latent → PIL image) is given, at most `size` pixels wide; else by the preview map.
    `exhibit(trace).save("x.html")` is the page for a museum's screen; `x.html#present` opens it
    without its tools. Errors: InputError for a run of no step, for seconds that are none.
    """
    seconds, idle = _seconds("seconds", seconds), _seconds("idle", idle)
    size = size_of(size)
    seen = seen_of(_begun(trace), decode)
    panels = [
        prompt_panel(trace),
        embedding_panel(trace),
        denoising_panel(trace, seen, size),
        decoding_panel(seen),
        picture_panel(trace, seen),
    ]
    title = titled(trace)
    best = panels[2]["attention"].get("best", 0)
    places = sum(len(panel["said"]) for panel in panels)
    words = word_cards(trace)
    return View(
        script="exhibition",
        title="".join(part if isinstance(part, str) else part["text"] for part in title),
        alt=_alt(trace),
        data={
            "title": title,
            "prompt": trace.settings.prompt,
            "panels": panels,
            "words": words,
            "loop": bool(loop),
            "seconds": seconds,
            "idle": idle,
        },
        live={"place": 0, "word": best},
        limits={"place": (0, places - 1), "word": (0, max(len(words) - 1, 0))},
        pictures=lambda: _still(trace, seen),
        lighter="Show smaller pictures: exhibit(trace, size=128); or record fewer steps.",
    )


def _begun(trace: Any) -> Trace:
    if not isinstance(trace, Trace):
        raise InputError(f"{shown(trace)} is no Trace; a run is shown: pass what generate returns")
    if not trace.steps:
        raise InputError("trace of 0 steps: there is nothing to show; run it to the first step")
    return trace


def _seconds(name: str, value: Any) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.2 <= value <= 3600:
        raise InputError(f"{name} is {shown(value)}; 0.2 to 3600 seconds are allowed: say how many")
    return float(value)


def _alt(trace: Trace) -> str:
    done, asked = len(trace.steps), trace.settings.num_steps
    stopped = "" if done == asked else f", stopped after {done}"
    end = "an image" if trace.image is not None else "no image"
    return (
        f"Exhibit in five panels of the run for {trace.settings.prompt!r} "
        f"({trace.settings.summary}{stopped}): prompt, text embedding, denoising from karras_sigma "
        f"{trace.karras_sigmas[0]:.3g} to {trace.karras_sigmas[-1]:.3g}, decoding, and {end} at "
        "the end."
    )


def _still(trace: Trace, seen: Seen) -> list[tuple[str, Any]]:
    """x0-hat at some steps, and the picture."""
    chosen = spread(len(trace.steps), 6 if seen.picture is None else 5)
    named = [(step_caption(trace.steps[i]), seen.beliefs[i] or blank(64, 64)) for i in chosen]
    caption = "the picture" if trace.image is not None else "x0-hat,\ndecoded"
    return named if seen.picture is None else [*named, (caption, seen.picture)]
