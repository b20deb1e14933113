"""Constructed records with known answers, made without a network, to test the view tower on."""

from __future__ import annotations

import numpy as np

from diffusionlab.images import Preview, to_image
from diffusionlab.plan import Stage, Step, Term, Update
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.trace import Prediction, Settings, TextEmbedding, Tokens, Trace

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</figure></svg><iframe srcdoc=x>",
    "&lt;b&gt; \u2028 $\\frac{1}{0}$ {x} %s",
)


def schedule() -> NoiseSchedule:
    """Stable Diffusion's betas."""
    return NoiseSchedule.scaled_linear(prediction_type="eps")


def tokens(prompt: str = "a red sky scraper", context: int = 12) -> Tokens:
    """Four words, the last one split in two, as a context of 12 positions; two words were cut."""
    pads = context - 7
    return Tokens(
        prompt=prompt,
        ids=(49406, 320, 736, 2390, 900, 901, 49407, *[49407] * pads),
        pieces=("<start>", "a", "red", "sky", "scra", "per", "<end>", *["<pad>"] * pads),
        words=("a", "red", "sky", "scraper"),
        word_of=(None, 0, 1, 2, 3, 3, None, *[None] * pads),
        kinds=("start", *["word"] * 5, "end", *["pad"] * pads),
        kept=5,
        dropped=3,
        dropped_words=("at", "night"),
        notices=("5 kept, 3 dropped",),
    )


def preview() -> Preview:
    """Red, green and blue are channels 0, 1 and 2 at half strength around mid grey."""
    weight = np.eye(3, 4, dtype=np.float32) * 0.25
    return Preview(weight, np.full(3, 0.5, np.float32), np.array([0.9, 0.8, 0.7], np.float32))


def embedding(words: Tokens | None = None, seed: int = 0) -> TextEmbedding:
    """Twelve rows of eight numbers."""
    hidden = np.random.default_rng(seed).normal(size=(12, 8)).astype(np.float32)
    return TextEmbedding(hidden=(hidden,), pooled=hidden[6], extra={}, tokens=words)


def trace(num_steps: int = 5, prompt: str = "a red sky scraper", **changes) -> Trace:
    """A run towards a known x0 with eps known exactly: DDIM on a network that is always right."""
    random = np.random.default_rng(1)
    x0 = np.clip(random.normal(size=(4, 6, 8)), -2, 2).astype(np.float32)
    eps = random.normal(size=x0.shape).astype(np.float32)
    push = 0.4 * random.normal(size=x0.shape).astype(np.float32)  # 4 · (cond − uncond)
    levels = schedule().levels(num_steps, "trailing", "clean")
    points = [(np.float32(l.alpha) * x0 + np.float32(l.sigma) * eps) for l in levels]
    steps = []
    for i in range(num_steps):
        level, following = levels[i], levels[i + 1]
        call = Prediction(level, points[i], eps - 0.75 * push, eps - push, 4.0, "eps")
        ratio = following.sigma / level.sigma
        rule = Update(ratio, (Term("x0", i, following.alpha - ratio * level.alpha),))
        steps.append(
            Step(i, level, following, points[i], (call,), (Stage(level),), rule, (), points[i + 1])
        )
    settings = Settings("toyland", prompt, "", 7, num_steps, {"name": "ddim", "options": {}},
                        "trailing", "clean", 4.0, 48, 64, num_train_steps=1000)  # fmt: skip
    picture = to_image(preview().rgb(x0)).resize((64, 48))
    parts = {
        "tokens": tokens(prompt),
        "text_embedding": embedding(tokens(prompt)),
        "uncond_embedding": embedding(seed=1),
        "steps": tuple(steps),
        "image": picture,
        "attention": {"mid_block.attn2.probabilities": attention(num_steps)},
        "frames": tuple(picture for _ in steps),
        "preview": preview(),
        "versions": {"numpy": np.__version__},
    }
    return Trace(settings, **(parts | changes))


def attention(calls: int, tokens: int = 12) -> np.ndarray:
    """Maps (calls, 3, 4, tokens) whose tokens share out 1 at every place; token 2 gets half."""
    maps = np.full((calls, 3, 4, tokens), 0.5 / (tokens - 1), np.float16)
    maps[..., 2] = 0.5
    return maps
