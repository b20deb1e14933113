"""Claims about prompts, tokens and embeddings (notebooks 1 and 2)."""

from __future__ import annotations

import numpy as np

from diffusionlab.claims.bench import Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.stages import embed, tokenize
from diffusionlab.trace import to_numpy


def _rows(bench: Bench, prompt: str) -> np.ndarray:
    """The hidden states of a prompt (tokens, width) of the first encoder."""
    return to_numpy(embed(bench.model, tokenize(bench.model, prompt)).hidden[0])


def later_words_do_not_reach_back(bench: Bench) -> tuple[Part, ...]:
    """Change the last word: the rows before it stay, those after it change."""
    before, after = _rows(bench, "a red car at night"), _rows(bench, "a red car at day")
    same = (before == after).all(axis=1)
    first = int(np.argmin(same))
    return (
        Part("rows before the changed word that changed", exact((~same[:first]).sum()), "above", 0),
        Part(
            "rows from the changed word on that changed", exact((~same[first:]).sum()), "above", 0
        ),
    )


def one_vector_for_the_prompt(bench: Bench) -> tuple[Part, ...]:
    """Count the vectors that the U-Net is handed."""
    rows = _rows(bench, bench.prompt)
    return (Part("vectors that the U-Net reads", exact(len(rows)), "equals", 1),)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def word_order_matters(bench: Bench) -> tuple[Part, ...]:
    """Shuffle the words of prompts: what the U-Net reads must change."""
    rng, moved = bench.rng("word order"), []
    for prompt in bench.one_object:
        words = prompt.text.split()
        mixed = [words[i] for i in rng.permutation(len(words))]
        a, b = _rows(bench, prompt.text), _rows(bench, " ".join(mixed))
        moved.append(1 - _cosine(a.ravel(), b.ravel()))
    changed = [change > 1e-6 for change in moved]
    return (
        Part("share of shuffled prompts whose rows change", share(changed), "above", 0.5),
        Part("mean change of all rows (1 − cosine)", mean(moved), "above", 0.01),
    )


CLAIMS = (
    Claim("A12", "The whole prompt becomes one vector.", "guide", 2, one_vector_for_the_prompt),
    Claim("A17", "Word order matters to the text encoder.", "guide", 2, word_order_matters, True),
    Claim("A20", "Attention lets all tokens of the prompt influence each other.", "guide", 2,
          later_words_do_not_reach_back),
)  # fmt: skip
