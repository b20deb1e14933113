"""Cross-attention in numbers: where each token was looked up, and whether the maps are maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual
from diffusionlab.errors import InputError
from diffusionlab.trace import Trace

CROSS = "attn2.probabilities"  # how the names of cross-attention taps end


@dataclass(frozen=True, eq=False)
class TokenMaps:
    """One map per position of the prompt, (tokens, height, width); `reduction` names the mean.

    `rows` is the check that at every place the probabilities of all tokens sum to 1.
    """

    maps: np.ndarray
    rows: Residual
    reduction: str


def token_maps(trace: Trace) -> TokenMaps:
    """The mean map of every token over all recorded calls, heads and layers, at the finest size.

    Coarser layers are enlarged by repetition, each layer counts the same.
    Errors: InputError if the run recorded no cross-attention.
    """
    cross = [array for name, array in trace.attention.items() if name.endswith(CROSS)]
    layers = [_mean(array) for array in cross]
    if not layers:
        raise InputError(
            f"trace with {len(trace.attention)} recorded taps, none of them cross-attention: "
            'run again with record={"predictions", "attention"}'
        )
    height, width = max(layer.shape[:2] for layer in layers)
    layers = [_enlarged(layer, height, width) for layer in layers]
    off = max(float(np.abs(layer.sum(axis=-1) - 1).max()) for layer in layers)
    maps = np.mean(layers, axis=0).transpose(2, 0, 1)  # (tokens, height, width)
    calls = cross[0].shape[0]
    plural = "s" if len(layers) > 1 else ""
    reduction = f"mean of {calls} calls and {len(layers)} layer{plural}"
    return TokenMaps(maps, Residual(off, 2e-2), reduction)


def _mean(array: np.ndarray) -> np.ndarray:
    """Over calls (and heads) to (height, width, tokens), in float64."""
    return array.astype(np.float64).mean(axis=tuple(range(array.ndim - 3)))


def _enlarged(layer: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = np.arange(height) * layer.shape[0] // height
    columns = np.arange(width) * layer.shape[1] // width
    return layer[rows][:, columns]
