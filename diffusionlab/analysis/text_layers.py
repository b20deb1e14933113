"""What happens to each token between the layers of the text encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.text import Plane, plane
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import TextLayers

BEFORE_LAST = Residual(0.0, 1e-2, "the rows before the last layer are what the U-Net reads")


@dataclass(frozen=True, eq=False)
class LayerPaths:
    """Every token through the layers, (layers + 1, tokens) each, entry 0 before the first layer.

    `norms` are lengths, `to_start` the cosines with the token's own row before the first layer,
    `changes` (layers, tokens) how far each layer moves it, as a share of its length before.
    `plane` holds the rows of words and end (positions `rows`) at all layers in two dimensions,
    (layers + 1, rows, 2) in `points`; start, the same in every prompt, is left out. `closing`
    checks that `final` is the normalised last layer times a gain plus a shift, one pair for each
    column (arXiv 1607.06450, Eq. 4); it holds for SDXL, which reads the rows before the last layer.
    `read` is the layer whose rows the U-Net reads.
    """

    norms: np.ndarray
    to_start: np.ndarray
    changes: np.ndarray
    rows: tuple[int, ...]
    plane: Plane
    points: np.ndarray
    closing: Residual
    read: int


def layer_paths(layers: TextLayers) -> LayerPaths:
    """Lengths, directions, moves and a plane of the tokens of one prompt over the layers."""
    hidden = numbers(layers.hidden)
    norms = np.linalg.norm(hidden, axis=-1)
    with np.errstate(all="ignore"):
        to_start = (hidden * hidden[0]).sum(axis=-1) / (norms * norms[0])
        changes = np.linalg.norm(np.diff(hidden, axis=0), axis=-1) / norms[:-1]
    rows = tuple(i for i, kind in enumerate(layers.tokens.kinds) if kind in ("word", "end"))
    found = plane(hidden[:, rows].reshape(-1, hidden.shape[-1]))
    points = found.points.reshape(len(hidden), len(rows), 2)
    before_last = len(hidden) > 1 and np.array_equal(layers.final, layers.hidden[-2])
    closing = BEFORE_LAST if before_last else _closing(layers)
    read = len(hidden) - (2 if before_last else 1)
    return LayerPaths(norms, to_start, changes, rows, found, points, closing, read)


def _closing(layers: TextLayers) -> Residual:
    """Column by column, the straight line through (normalised last layer, final), and its error."""
    last, final = numbers(layers.hidden[-1]), numbers(layers.final)
    with np.errstate(all="ignore"):
        x = (last - last.mean(axis=1, keepdims=True)) / last.std(axis=1, keepdims=True)
        x, y = x - x.mean(axis=0), final - final.mean(axis=0)
        gain = (x * y).sum(axis=0) / np.maximum((x * x).sum(axis=0), 1e-30)
        off = np.abs(y - gain * x).max() / max(np.abs(final).max(), 1e-30)
    return Residual(float(off), 1e-2, "the last layer, normalised, is what the U-Net reads")


# ---- attention --------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class TextAttention:
    """Where each token (row) looks among the tokens (columns), (tokens, tokens).

    `reduction` says which layer and head, or the mean of which; `sums` checks that each row sums
    to 1, `causal` that nothing is seen of later tokens.
    """

    matrix: np.ndarray
    reduction: str
    sums: Residual
    causal: Residual


def text_attention(
    layers: TextLayers, layer: int | None = None, head: int | None = None
) -> TextAttention:
    """The text encoder's attention of one layer and head; None is the mean over all of them.

    Raises InputError for a layer or head that is not there.
    """
    attention = numbers(layers.attention)
    told = []
    for axis, (name, number) in enumerate((("layer", layer), ("head", head))):
        count = attention.shape[axis]
        if number is not None and (type(number) is not int or not 0 <= number < count):
            raise InputError(
                f"{name} is {shown(number)}; this text encoder has {count}: 0 to {count - 1} is "
                "allowed, None for the mean of all"
            )
        told.append(f"{count} {name}s" if number is None else f"{name} {number}")
        attention = attention if number is None else attention.take([number], axis=axis)
    off = float(np.abs(attention.sum(axis=-1) - 1).max())
    seen = float(np.abs(np.triu(attention, 1)).max())
    matrix = attention.mean(axis=(0, 1))
    mean = "mean of " if attention.shape[0] * attention.shape[1] > 1 else ""
    sums = Residual(off, 1e-3, "rows sum to 1")
    causal = Residual(seen, 1e-6, "later tokens have 0")
    return TextAttention(matrix, mean + ", ".join(told), sums, causal)
