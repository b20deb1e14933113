"""Weights that hold other values for a while, and their own again whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

HALVES = (torch.float16, torch.bfloat16)


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """All parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


@contextmanager
def lent(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """A `with` block in which every parameter and buffer holds what `change` makes of its values.

    Afterwards each holds its very own memory again: nothing is copied back or rounded twice.
    """
    own = [(tensor, tensor.data) for tensor in tensors_of(module)]
    try:
        with torch.inference_mode(False):  # weights made in there could never be learnt again
            for tensor, values in own:
                tensor.data = change(values)
        yield
    finally:
        for tensor, values in own:
            tensor.data = values


@contextmanager
def safe_precision(vae: nn.Module) -> Iterator[torch.dtype]:
    """A `with` block that gives the dtype in which an autoencoder computes finite numbers.

    float32 for one in half precision whose config says `force_upcast` (SDXL's overflows float16;
    diffusers decodes it so too), else its own. The weights are cast for the time of the block.
    """
    own = next(vae.parameters()).dtype
    if own in HALVES and getattr(vae.config, "force_upcast", False):
        with lent(vae, lambda values: values.float()):
            yield torch.float32
    else:
        yield own
