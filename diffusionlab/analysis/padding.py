"""What the padding behind a prompt carries: its rows in numbers, and the runs that show it.

The text encoder's causal mask lets every padding token see the whole prompt, and the U-Net's
attention reads padding like any other row (Toker et al. 2025, arXiv 2501.06751).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.same_runs import check_same
from diffusionlab.analysis.text import cosines, hidden_of, tokens_of
from diffusionlab.analysis.text_edits import kind_rows, replace_rows
from diffusionlab.errors import InputError
from diffusionlab.trace import TextEmbedding, Tokens, Trace

EMPTIED = {
    "whole prompt": (),
    "without padding": ("pad",),
    "without words": ("word", "end"),
    "empty prompt": ("start", "word", "end", "pad"),
}


@dataclass(frozen=True, eq=False)
class EmptiedRun:
    """One run, some of whose rows were the empty prompt's: `emptied` are their kinds.

    `distance` is that of its last latent from the whole prompt's, as a share of the empty
    prompt's; 0 is the same picture, 1 as far off as with no prompt at all.
    """

    name: str
    emptied: tuple[str, ...]
    trace: Trace
    distance: float


@dataclass(frozen=True, eq=False)
class Padding:
    """The rows of a prompt, (tokens,) each: lengths, and cosines with two other rows.

    `to_end` is the cosine with the prompt's own end row, `to_empty` with the empty prompt's row at
    the same position, which is what padding says of no caption. `runs` are there if `run` was;
    `repeat` then checks that a run with the same rows makes the same latent.
    """

    tokens: Tokens
    norms: np.ndarray
    to_end: np.ndarray
    to_empty: np.ndarray
    runs: tuple[EmptiedRun, ...] = ()
    repeat: Residual = Residual(0.0, 1e-6, "the same rows make the same run")

    def mean(self, values: np.ndarray, kind: str) -> float:
        """The mean of some of these numbers over the rows of a kind; NaN if there are none."""
        chosen = [i for i, known in enumerate(self.tokens.kinds) if known == kind]
        return float(values[chosen].mean()) if chosen else float("nan")


def padding(
    embedding: TextEmbedding,
    empty: TextEmbedding,
    *,
    run: Callable[..., Trace] | None = None,
    encoder: int = 0,
) -> Padding:
    """What the padding of a prompt carries, beside what it carries in the empty prompt.

    `empty` is the embedding of "". `run(text_embedding=…)` makes one run with given rows
    (`functools.partial(generate, model, prompt, seed=1)`); it is called five times, each time with
    the rows of some kinds taken from the empty prompt at the same positions, and the last time with
    the whole prompt again. Raises InputError for embeddings of another shape, for stopped runs and
    for runs with other settings or other noise.
    """
    rows, tokens = hidden_of(embedding, encoder), tokens_of(embedding, encoder)
    others = hidden_of(empty, encoder)
    if rows.shape != others.shape:
        raise InputError(
            f"a prompt of rows {rows.shape} and an empty one of {others.shape} were given; both "
            'must be of one model: embed(model, tokenize(model, ""))'
        )
    end = rows[tokens.kinds.index("end")][None]
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
        to_empty = (rows * others).sum(axis=1) / lengths
    to_end = cosines(rows, end)[:, 0]
    found = Padding(tokens, np.linalg.norm(rows, axis=1), to_end, to_empty)
    if run is None:
        return found
    runs, off = _runs(run, embedding, empty)
    return replace(found, runs=runs, repeat=replace(found.repeat, relative=off))


def _runs(
    run: Callable[..., Trace], embedding: TextEmbedding, empty: TextEmbedding
) -> tuple[tuple[EmptiedRun, ...], float]:
    """The runs, and how far the last one is from the first, whose rows it has."""
    kinds = EMPTIED | {"again": ()}
    made = {}
    for name, emptied in kinds.items():
        edited = replace_rows(embedding, kind_rows(embedding, emptied), empty)
        made[name] = run(text_embedding=edited)
    ends = {name: _end(trace) for name, trace in made.items()}
    for trace in made.values():
        check_same(made["whole prompt"], trace, (), "a run with other rows")
    whole = ends["whole prompt"]
    far = max(_distance(ends["empty prompt"], whole), 1e-30)
    off = _distance(ends.pop("again"), whole) / far
    runs = tuple(
        EmptiedRun(name, kinds[name], made[name], _distance(end, whole) / far)
        for name, end in ends.items()
    )
    return runs, off


def _end(trace: Trace) -> np.ndarray:
    if not trace.steps or len(trace.steps) < trace.settings.num_steps:
        raise InputError(
            f"run(…) made a run that was stopped after {len(trace.steps)} steps; only whole runs "
            "are compared: let it finish"
        )
    return numbers(trace.steps[-1].next_latent)


def _distance(a: Any, b: Any) -> float:
    return float(np.sqrt(np.square(a - b).mean()))
