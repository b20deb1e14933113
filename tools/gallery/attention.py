"""The gallery's pictures of attention: maps, tables, honesty, and exact masks to point at."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from lab import PROMPT, SETTINGS

import diffusionlab as dl
from diffusionlab.analysis.attention import call_maps
from diffusionlab.analysis.honesty import Honesty, leave_one_out
from diffusionlab.analysis.pointing import Pointing, pointing_game
from diffusionlab.images import to_image
from diffusionlab.toyland import SHARES, captions, render, scene

FIRST, SCENES, SIGMA = 4_000_000, 24, 2.0
FEW = ("red", "car", "city", "night")


@cache
def with_self_attention(lab: Any) -> Any:
    """The run with self-attention of every step."""
    return lab.run(record={"predictions", "attention", "self_attention"})


@cache
def honesty(lab: Any) -> Honesty:
    """Every word of the prompt left out."""
    return leave_one_out(lab.trace, lab.run)


@cache
def untrained(lab: Any) -> Honesty:
    """Every word left out of a run on random weights."""
    run = partial(dl.generate, lab.untrained, **{"prompt": PROMPT} | SETTINGS)
    return leave_one_out(run(record={"predictions", "attention"}), run)


def named_scenes(model: Any, count: int) -> list[tuple[Any, str, str]]:
    """(scene, prompt, word) of scenes that hold one thing whose kind the caption names."""
    share = SHARES[model.config.get("toyland", {}).get("share", "small")]
    found, seed = [], FIRST
    while len(found) < count:
        shown, seed = scene(seed, share), seed + 1
        said = captions(shown, 1, share)[0]
        if len(shown.things) == 1 and said.claims and said.claims[0].kind == shown.things[0].kind:
            start, end = said.claims[0].kind_span
            found.append((shown, said.text, said.text[start:end]))
    return found


def on_the_car(lab: Any) -> tuple[int, int]:
    """A pixel of the gallery's first picture: (40, 82) of 128."""
    width, height = lab.trace.image.size
    return width * 5 // 16, height * 41 // 64


def pointing(lab: Any, shift: int = 0, model: Any = None) -> Pointing:
    """The map of each scene's thing after one call at karras_sigma 2, against its exact mask.

    `shift` counts tokens: 1 reads the map of the token after the word's. model: None for Toyland.
    """
    model, maps, masks, pictures, words = model or lab.model, [], [], [], []
    for seed, (shown, prompt, word) in enumerate(named_scenes(model, SCENES)):
        drawn = render(shown, model.size)
        maps.append(seen_map(model, drawn.image, prompt, word, seed, shift))
        masks.append(drawn.masks[shown.things[0].kind])
        pictures.append(drawn.image)
        words.append(word)
    told = f"karras_sigma {SIGMA:g}, finest layers" + (f", {shift} tokens off" if shift else "")
    told += "" if model is lab.model else ", random weights"
    return pointing_game(np.stack(maps), np.stack(masks), words, pictures=np.stack(pictures),
                         what=told)  # fmt: skip


def seen_map(
    model: Any, picture: np.ndarray, prompt: str, word: str, seed: int, shift: int = 0
) -> np.ndarray:
    """The word's mean map (h, w) over the finest layers when the noised picture is predicted."""
    clean = dl.encode(model, to_image(picture))
    noise = dl.draw_noise(model, seed)
    level = model.schedule.level_at(karras_sigma=SIGMA)
    tokens = dl.tokenize(model, prompt)
    with dl.recording(model.unet, ["*attn2.probabilities"]) as tape:
        dl.predict(
            model, dl.add_noise(clean, noise, level), level, dl.embed(model, tokens), None, 1
        )
    attention = {name: values[0].cpu().numpy() for name, values in tape.items()}
    if shift:
        attention = {name: np.roll(value, -shift, -1) for name, value in attention.items()}
    return call_maps(attention, tokens, [word], resolution="finest").maps[0, 0]


CASES: dict[str, Callable[[Any], tuple[Any, dict]]] = {
    "plot_attention": lambda lab: (lab.trace, {}),
    "plot_attention.over": lambda lab: (
        lab.trace,
        {"words": FEW, "over": "picture", "scaling": "word"},
    ),
    "plot_attention.special": lambda lab: (
        lab.trace,
        {"words": ["<start>", "red", "car", "<end>", "<pad>"], "steps": 5},
    ),
    "plot_attention_scalings": lambda lab: (lab.trace, {}),
    "plot_attention_steps": lambda lab: (lab.trace, {}),
    "plot_attention_layers": lambda lab: (lab.trace, {}),
    "plot_attention_heads": lambda lab: (lab.heads, {}),
    "plot_attention_mass": lambda lab: (lab.trace, {}),
    "plot_pixel_words": lambda lab: (lab.trace, {"pixel": on_the_car(lab)}),
    "plot_self_attention": lambda lab: (with_self_attention(lab), {"pixel": on_the_car(lab)}),
    "plot_honesty": lambda lab: (honesty(lab), {}),
    "plot_honesty.random": lambda lab: (untrained(lab), {}),
    "plot_pointing": lambda lab: (pointing(lab), {}),
    "plot_pointing.wrong": lambda lab: (pointing(lab, shift=3), {}),
    "plot_pointing.random": lambda lab: (pointing(lab, model=lab.untrained), {}),
}
