"""Contact sheets: what was asked, what was drawn, what the judge saw, what the VAE keeps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .judge_nets import Verdict
from .prompted import Prompt
from .quality import aspects_right
from .written import write_atomically

GOOD, BAD = "#1a7f37", "#b42318"


def _cell(axes, picture: np.ndarray, above: str, below: str, colour: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(textwrap.fill(above, 26), fontsize=11)
    axes.set_xlabel(below, fontsize=11, color=colour)
    axes.set_xticks([]), axes.set_yticks([])


def _grid(count: int, columns: int) -> tuple[Figure, list]:
    rows = -(-count // columns)
    figure = Figure(figsize=(2.6 * columns, 4.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    cells = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in cells[count:]:
        axes.axis("off")
    return figure, cells


def _saved(figure: Figure, path: Path) -> Path:
    return write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=80))


def verdict_right(verdict: Verdict, prompt: Prompt) -> bool:
    """Whether everything that the prompt says is seen, of one object or of two."""
    if len(prompt.kinds) == 1:
        return bool(aspects_right(verdict, prompt)["all"])
    scenery = all(
        getattr(verdict, slot) == prompt.caption.atoms[slot]
        for slot in ("setting", "time", "style")
        if slot in prompt.caption.atoms
    )
    return scenery and all(verdict.colours.get(k) == c for k, c in prompt.colours.items())


def verdict_sheet(
    path: Path, prompts: Sequence[Prompt], pictures: np.ndarray, verdicts: Sequence[Verdict]
) -> Path:
    """Prompts over their pictures, verdicts below: green if all is right, else red."""
    figure, cells = _grid(len(prompts), 8)
    for axes, prompt, picture, verdict in zip(cells, prompts, pictures, verdicts, strict=False):
        colour = GOOD if verdict_right(verdict, prompt) else BAD
        mark = " (unseen)" if prompt.unseen else ""
        _cell(axes, picture, prompt.text + mark, str(verdict), colour)
    return _saved(figure, path)


def sample_sheet(path: Path, texts: Sequence[str], pictures: np.ndarray) -> Path:
    """Prompts over the pictures that were drawn for them."""
    figure, cells = _grid(len(texts), 8)
    for axes, text, picture in zip(cells, texts, pictures, strict=False):
        _cell(axes, picture, text, "", "black")
    return _saved(figure, path)


def reconstruction_sheet(path: Path, true: np.ndarray, made: np.ndarray) -> Path:
    """Pictures (upper row) over what is left of them after the autoencoder."""
    figure, cells = _grid(2 * len(true), len(true))
    for i, pair in enumerate(zip(true, made, strict=True)):
        for row, (picture, name) in enumerate(zip(pair, ("true", "decoded"), strict=True)):
            _cell(cells[i + row * len(true)], picture, name, "", "black")
    return _saved(figure, path)


def pair_sheet(path: Path, pairs: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> Path:
    """Generated pictures (upper row) over their nearest training pictures, with the distance."""
    figure, cells = _grid(2 * len(pairs), len(pairs))
    for i, (made, trained, distance) in enumerate(pairs):
        _cell(cells[i], made, "generated", f"distance {distance:.3f}", "black")
        _cell(cells[i + len(pairs)], trained, "nearest in training", "", "black")
    return _saved(figure, path)
