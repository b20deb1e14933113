"""Large pictures through an autoencoder piece by piece: overlapping tiles, blended linearly.

Memory then follows the tile and not the picture. The price is a seam error: inside a tile the
normalisations (GroupNorm) and the middle attention see that tile alone, so colours may drift a
little from tile to tile; the overlap of a quarter of a tile turns steps into ramps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from ..errors import InputError, notice, shown
from .memory import free_memory, give_back, is_out_of_memory, let_go

TILE = 512  # pixels of a tile's side where nothing else is asked for
LEAST_CELLS = 8  # of a latent along a tile's side


def tile_cells(tile: int | None, factor: int) -> int:
    """Latent cells along the side of a tile of so many pixels (None: 512); or InputError."""
    if tile is None:
        return max(TILE // factor, LEAST_CELLS)
    least = LEAST_CELLS * factor
    if not isinstance(tile, int) or isinstance(tile, bool) or tile < least or tile % factor:
        raise InputError(
            f"tile is {shown(tile)}; a number of pixels is allowed, a multiple of {factor} from "
            f"{least} on, e.g. {max(TILE, least)}; or None for as few tiles as memory needs"
        )
    return tile // factor


def in_pieces(
    vae: Any,
    call: Callable[[torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    tile: int | None,
    sizes: tuple[int, int],
) -> torch.Tensor:
    """`call` of an autoencoder on (1, channels, h, w) as a whole, or `tiled` in `tile` pixels.

    None: whole if that fits, else in tiles of 512 pixels with a notice: if the accelerator has less
    free memory than `bytes_whole`, or after memory ran out (outside the failing call). A picture no
    larger than a tile is never cut. `sizes` as in `tiled`.
    """
    cells = tile_cells(tile, max(sizes))
    if max(values.shape[-2:]) <= cells * sizes[0]:
        return call(values)
    if tile is None:
        getattr(vae, "arrive", lambda: None)()  # offloaded: after which the others have left
        needed, free = bytes_whole(vae, values, sizes[1]), free_memory(values.device)
        outside = sys.exception()
        try:
            if None in (needed, free) or needed <= free:
                return call(values)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            let_go(error, outside)
        give_back()
        done = "decoded" if sizes[0] == 1 else "encoded"
        notice(f"memory is short, so the picture was {done} in tiles of {TILE} pixels, blended")
    return tiled(call, values, cells, sizes)


def bytes_whole(vae: Any, values: torch.Tensor, cell: int) -> int | None:
    """About what an autoencoder takes for a whole picture, a third more than its tensors.

    Those of the last block at full size: four of its width, and the picture. None for a network
    that does not tell its widths. `cell` is the length of one of `values`' places in pixels.
    """
    widths = getattr(vae.config, "block_out_channels", None)
    if not widths:
        return None
    places = values.shape[-2] * values.shape[-1] * cell**2
    return (4 * widths[min(1, len(widths) - 1)] + 16) * places * values.element_size()


def tiled(
    call: Callable[[torch.Tensor], torch.Tensor],
    values: torch.Tensor,
    cells: int,
    sizes: tuple[int, int],
) -> torch.Tensor:
    """`call` on overlapping tiles of (1, channels, h, w), put together again with linear ramps.

    `sizes` are the lengths of one latent cell in the input and in the output: (1, 8) to decode,
    (8, 1) to encode with Stable Diffusion. Neighbours overlap by a quarter of `cells`. The tiles
    lie as diffusers' `tiled_decode` lays them (but for its last one where that would add nothing);
    where four overlap the weights are the products of the two ramps.
    """
    inside, outside = sizes
    rows, columns = (_spans(side // inside, cells) for side in values.shape[-2:])
    made = None
    for top, height, down in rows:
        for left, width, across in columns:
            piece = values[..., top * inside : (top + height) * inside,
                           left * inside : (left + width) * inside]  # fmt: skip
            piece = call(piece)
            if made is None:
                sides = (side // inside * outside for side in values.shape[-2:])
                made = piece.new_zeros(*piece.shape[:2], *sides)
            weight = _ramps(*down, height, outside)[:, None] * _ramps(*across, width, outside)
            y, x = top * outside, left * outside
            made[..., y : y + height * outside, x : x + width * outside] += piece * weight.to(piece)
    return made


def tile_count(sides: tuple[int, int], cells: int) -> int:
    """How many tiles of so many cells a latent of (h, w) cells takes."""
    return len(_spans(sides[0], cells)) * len(_spans(sides[1], cells))


def _spans(length: int, cells: int) -> list[tuple[int, int, tuple[int, int]]]:
    """(start, length, (overlap before, overlap after)) of each tile along one side, in cells."""
    overlap = cells // 4
    starts = range(0, max(length - overlap, 1), cells - overlap)
    last = starts[-1]
    return [
        (s, min(cells, length - s), (overlap if s else 0, overlap if s != last else 0))
        for s in starts
    ]


def _ramps(before: int, after: int, length: int, outside: int) -> torch.Tensor:
    """The weights along one side of a tile: up over the overlap before it, down over that after."""
    weights = torch.ones(length * outside)
    if up := before * outside:
        weights[:up] = torch.arange(up) / up
    if down := after * outside:
        weights[-down:] = 1 - torch.arange(down) / down
    return weights
