"""The plots of the text side: tokens, layers, similarity, captions and padding."""

from __future__ import annotations

from functools import partial

import numpy as np
from lab import OTHER, PROMPT, Lab

import diffusionlab as dl
from diffusionlab.analysis.image_text import image_text
from diffusionlab.analysis.padding import padding
from diffusionlab.toyland import SHARES, Scene, captions, render, scene

STRANGE = "an orange 🐧 café near two skyscrapers"
LONG = (
    "a red car and a blue boat and a green house and an orange cat and a white car and a yellow "
    "tree and a pink balloon and a black penguin and a purple house"
)
PROMPTS = (
    "a red car in the city at night",
    "a blue car in the city at night",
    "a red car in the city",
    "a red boat on the ocean",
    "a blue boat on the ocean at sunset",
    "an orange cat in space",
    "a white cat in space",
    "a yellow tree in the meadow at day",
)


def embedded(lab: Lab, prompt: str):
    """The text embedding of a prompt."""
    return dl.embed(lab.model, dl.tokenize(lab.model, prompt))


def layers(lab: Lab, prompt: str = PROMPT):
    """The text encoder's layers of a prompt."""
    return dl.embed_layers(lab.model, dl.tokenize(lab.model, prompt))


def scenes() -> list[Scene]:
    """Eight scenes of the shipped model's share of Toyland, each of one object and a new colour."""
    share, found = SHARES["small"], {}
    for seed in range(90_000, 90_100):
        made = scene(seed, share)
        if len(made.things) == 1 and made.things[0].colour not in found:
            found[made.things[0].colour] = made
    return list(found.values())[:8]


def matched(lab: Lab, moved: int = 0):
    """Eight pictures against their captions; `moved` shifts the captions against the pictures."""
    shown = scenes()
    pictures = [render(s, masks=False).image for s in shown]
    texts = [embedded(lab, captions(s, 1, SHARES["small"])[0].text) for s in shown]
    texts = texts[moved:] + texts[:moved]
    return image_text(dl.embed_images(lab.model, pictures), texts, images=pictures)


def padded(lab: Lab, prompt: str = PROMPT):
    """What the padding of a prompt carries, with its runs."""
    run = partial(lab.run, prompt=prompt, record=())
    return padding(embedded(lab, prompt), embedded(lab, ""), run=run)


def spoilt(lab: Lab):
    """Layers whose attention looks ahead, as none of a causal encoder can."""
    from dataclasses import replace

    found = layers(lab)
    return replace(found, attention=found.attention[..., ::-1, ::-1].copy())


CASES = {
    "plot_token_table": lambda lab: (dl.tokenize(lab.model, PROMPT), {}),
    "plot_token_table.bytes": lambda lab: (dl.tokenize(lab.model, STRANGE), {}),
    "plot_token_table.cut": lambda lab: (dl.tokenize(lab.model, LONG), {}),
    "plot_merges": lambda lab: (dl.merge_steps(lab.model, "cyberpunk"), {}),
    "plot_text_layers": lambda lab: (layers(lab), {}),
    "plot_text_attention": lambda lab: (layers(lab), {}),
    "plot_text_attention.last": lambda lab: (layers(lab), {"layer": 2, "head": 0}),
    "plot_text_attention.failed": lambda lab: (spoilt(lab), {}),
    "plot_similarity": lambda lab: (embedded(lab, PROMPT), {}),
    "plot_similarity.prompts": lambda lab: ([embedded(lab, p) for p in PROMPTS], {}),
    "plot_similarity.centred": lambda lab: ([embedded(lab, p) for p in PROMPTS], {"centre": True}),
    "plot_text_pca": lambda lab: ([embedded(lab, p) for p in PROMPTS], {}),
    "plot_text_pca.words": lambda lab: (
        [embedded(lab, PROMPT), embedded(lab, OTHER)],
        {"of": "words"},
    ),
    "plot_text_pca.random": lambda lab: (noise(), {}),
    "plot_image_text": lambda lab: (matched(lab), {}),
    "plot_image_text.moved": lambda lab: (matched(lab, 1), {}),
    "plot_padding": lambda lab: (padded(lab), {}),
    "plot_padding.two_things": lambda lab: (padded(lab, OTHER), {}),
}


def noise(count: int = 10, width: int = 128) -> list[dl.TextEmbedding]:
    """Random numbers in the place of prompts: a plane of them must warn."""
    rows = np.random.default_rng(0).normal(size=(count, 1, width))
    tokens = [
        dl.Tokens(f"random {i}", (0,), ("<end>",), (), (None,), ("end",), 0) for i in range(count)
    ]
    return [dl.TextEmbedding((r,), None, {}, t) for r, t in zip(rows, tokens, strict=True)]
