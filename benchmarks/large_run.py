"""A made-up run with the shapes of Stable Diffusion 1.5, made without a network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import traces

from diffusionlab.images import to_image
from diffusionlab.plan import Stage, Step, Term, Update
from diffusionlab.trace import Prediction, TextEmbedding, Tokens, Trace


def large_run(turn: float, num_steps: int = 50) -> Trace:
    """A run of 50 steps towards a smooth picture; frames are gradients of 512×512."""
    base, size = traces.trace(2), (4, 64, 64)
    random = np.random.default_rng(7)
    eps, y, x = random.normal(size=size), *np.mgrid[:64, :64] / 64
    x0 = np.stack([np.cos(6 * (k + 1) * (x + turn * y)) for k in range(4)])
    levels = traces.schedule().levels(num_steps, "trailing", "clean")
    points = [(k.alpha * x0 + k.sigma * eps).astype(np.float32) for k in levels]
    steps = []
    for i in range(num_steps):
        level, following = levels[i], levels[i + 1]
        out = (eps + 0.02 * turn * x0).astype(np.float32)
        call = Prediction(level, points[i], out, (0.9 * out), 7.5, "eps")
        kept = following.sigma / level.sigma
        rule = Update(kept, (Term("x0", i, following.alpha - kept * level.alpha),))
        steps.append(
            Step(i, level, following, points[i], (call,), (Stage(level),), rule, (), points[i + 1])
        )
    words = large_tokens()
    settings = replace(base.settings, num_steps=num_steps, height=512, width=512,
                       guidance_scale=7.5, prompt=words.prompt)  # fmt: skip
    frames = tuple(gradient(i / num_steps, turn) for i in range(num_steps))
    embedding = TextEmbedding((random.normal(size=(77, 768)).astype(np.float32),), tokens=words)
    return replace(base, settings=settings, tokens=words, text_embedding=embedding,
                   uncond_embedding=None, steps=tuple(steps), image=frames[-1], frames=frames,
                   attention=large_attention(num_steps))  # fmt: skip


def large_tokens() -> Tokens:
    """Seventy words of one piece each, in a context of 77 positions."""
    words = tuple(f"word{i}" for i in range(70))
    return replace(
        traces.tokens(" ".join(words)), ids=tuple(range(77)), words=words,
        pieces=("<start>", *words, "<end>", *["<pad>"] * 5),
        word_of=(None, *range(70), None, *[None] * 5),
        kinds=("start", *["word"] * 70, "end", *["pad"] * 5), kept=70, dropped=0,
        dropped_words=(), notices=(),
    )  # fmt: skip


def large_attention(calls: int) -> dict[str, np.ndarray]:
    """Maps of four resolutions; every place shares out 1 over 77 tokens."""
    found = {}
    for name, cells in (("down_blocks.0", 64), ("down_blocks.1", 32), ("down_blocks.2", 16),
                        ("mid_block", 8)):  # fmt: skip
        y, x = np.mgrid[:cells, :cells] / cells
        maps = 1 + np.cos(np.multiply.outer(x + 2 * y, np.arange(77) / 9))
        maps = (maps / maps.sum(axis=-1, keepdims=True)).astype(np.float16)
        found[f"{name}.attn2.probabilities"] = np.broadcast_to(maps, (calls, *maps.shape))
    return found


def gradient(phase: float, turn: float) -> Any:
    """A picture of 512×512 without noise."""
    y, x = np.mgrid[:512, :512] / 512
    waves = [0.5 + 0.5 * np.sin(6 * (x + turn * y) + 3 * phase + k) for k in range(3)]
    return to_image(np.stack(waves, axis=-1))
