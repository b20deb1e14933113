"""Many tensors as few: laid end to end, one for each dtype, so that one copy moves them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layout:
    """Where each of several tensors lies in the packed ones: its dtype, offset and shape."""

    places: tuple[tuple[torch.dtype, int, torch.Size], ...]

    @classmethod
    def of(cls, values: Sequence[torch.Tensor]) -> Layout:
        """The layout of these tensors, in their order within each dtype."""
        ends: dict[torch.dtype, int] = {}
        places = []
        for value in values:
            begin = ends.get(value.dtype, 0)
            places.append((value.dtype, begin, value.shape))
            ends[value.dtype] = begin + value.numel()
        return cls(tuple(places))

    def unpack(self, packed: dict[torch.dtype, torch.Tensor]) -> list[torch.Tensor]:
        """Views of the packed tensors in the shapes that went in."""
        return [
            packed[dtype][begin : begin + math.prod(shape)].view(shape)
            for dtype, begin, shape in self.places
        ]


def pack(values: Sequence[torch.Tensor]) -> dict[torch.dtype, torch.Tensor]:
    """One flat tensor for each dtype, made by one concatenation each."""
    flat: dict[torch.dtype, list[torch.Tensor]] = {}
    for value in values:
        flat.setdefault(value.dtype, []).append(value.reshape(-1))
    return {dtype: torch.cat(parts) for dtype, parts in flat.items()}
