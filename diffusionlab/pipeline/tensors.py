"""The numbers of safetensors files: mapped, cast and checked in pieces as large as a file.

A network has a thousand tensors that lie in its file one after the other. A thousand small
operations wait for each other and for Python; one over all of them runs at the memory's speed and
lets Python build the rest of the model meanwhile. So reading has two halves: `open_tensors` makes
the tensors, and what it returns with them, `settle`, fills them where they are cast and checks
every number. A block has an end, though, so that a model that is refused meanwhile is let go of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import CheckpointError
from .files import place
from .weights import FLOATING, Entry, malformed, some, torch_dtype

Named = tuple[str, Entry]
LARGEST_BLOCK = 2**31  # bytes that are read at once: after each, the thread waits for Python
ROW = 4096  # numbers that are summed at once: few enough for a sum of weights to fit in float16


class Weights(NamedTuple):
    """Tensors by name, and what must be called before their values are believed.

    settle: CheckpointError, naming the tensors, if one holds NaN or infinity, or does after the
    cast. It asks what it is given, block by block, whether to leave the rest.
    """

    tensors: dict[str, torch.Tensor]
    settle: Settling


def read_tensors(
    found: Mapping[str, Entry], *, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The tensors of `find_weights`, cast once and moved to the device, all of them finite.

    Errors: CheckpointError, naming the tensors, if one holds NaN or infinity, or does after the
    cast.
    """
    weights = open_tensors(found, device=device, dtype=dtype)
    weights.settle()
    return weights.tensors


def open_tensors(
    found: Mapping[str, Entry], *, device: torch.device, dtype: torch.dtype
) -> Weights:
    """The tensors of `find_weights` on the device and in the dtype, still to be settled.

    The keys of `found` name the result, so a caller may have renamed them. What has the wanted
    dtype stays mapped from its file on a CPU: it takes no memory of its own, and is copied by the
    system should anyone write to it. Entries that are not in floating point are left out.
    """
    tensors: dict[str, torch.Tensor] = {}
    pieces: list[_Piece] = []
    with torch.inference_mode(False):  # weights made in there could never be learnt again
        for path in sorted({entry.path for entry in found.values()}):
            mine = [(n, e) for n, e in found.items() if e.path == path and e.dtype in FLOATING]
            data = _mapped(path)
            for run in _runs(mine):
                pieces.append(piece := _Piece(run, data, device, dtype))
                tensors |= piece.tensors
    return Weights(
        {name: tensors[name] for name in found if name in tensors}, Settling(pieces, dtype)
    )


def stays_mapped(found: Mapping[str, Entry], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether to open and settle these takes no memory, whatever their size."""
    starts = {path: _start(path) for path in {entry.path for entry in found.values()}}
    return device.type == "cpu" and all(
        torch_dtype(entry) == dtype and (starts[entry.path] + entry.begin) % dtype.itemsize == 0
        for entry in found.values()
    )


def _start(path: Path) -> int:
    """Where in a checked file the bytes behind its header begin."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _mapped(path: Path) -> torch.Tensor:
    """The bytes of a checked file behind its header, mapped: read when they are first used."""
    try:
        start, size = _start(path), path.stat().st_size
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)[start:]
    except (OSError, RuntimeError) as error:
        if "Cannot allocate memory" in str(error):
            raise MemoryError(str(error)) from None
        raise malformed(path, error) from None


def _runs(named: Iterable[Named]) -> list[list[Named]]:
    """Tensors of one dtype that lie one after the other in their file, together."""
    runs: list[list[Named]] = []
    for name, entry in sorted(named, key=lambda item: (item[1].begin, item[1].end)):
        last = runs[-1][-1][1] if runs else None
        if last is None or (last.end, last.dtype) != (entry.begin, entry.dtype):
            runs.append([])
        runs[-1].append((name, entry))
    return runs


class _Block(NamedTuple):
    """Numbers that are read at once, where they are wanted, and which of both are looked at."""

    source: torch.Tensor
    target: torch.Tensor  # `source` itself where they stay mapped
    rows: torch.Tensor  # (rows, ROW)
    rest: torch.Tensor  # (1, fewer than ROW)


def _blocks(source: torch.Tensor, target: torch.Tensor) -> list[_Block]:
    """The blocks of two rows of numbers, made before a thread would wait for Python at each."""
    count = max(LARGEST_BLOCK // source.dtype.itemsize, 1)
    # a wider dtype holds every number of a narrower one, which is sooner read
    wider = target.dtype.itemsize > source.dtype.itemsize
    found = []
    for block in source.split(count):
        start = count * len(found)
        there = block if target is source else target[start : start + count]
        looked = block if wider else there
        whole = len(looked) // ROW * ROW
        found.append(_Block(block, there, looked[:whole].view(-1, ROW), looked[None, whole:]))
    return found


class _Piece:
    """A run of tensors as one row of numbers, here and where it is wanted."""

    def __init__(self, run: list[Named], data: torch.Tensor, device, dtype: torch.dtype):
        first, last, kind = run[0][1], run[-1][1], torch_dtype(run[0][1])
        self.where, begin = place(first.path), first.begin
        source = data[begin : last.end]
        if source.storage_offset() % kind.itemsize:  # an odd header: no number begins at its place
            source = source.clone()
        source = source.view(kind)
        on_cpu, target = device.type == "cpu", source
        if on_cpu and kind != dtype:
            target = torch.empty(len(source), dtype=dtype, device=device)
        self.tensors = {
            name: _part(target, (e.begin - begin) // kind.itemsize, e.shape) for name, e in run
        }
        if not on_cpu:  # tensors of their own: parts of a model may leave the device
            self.tensors = {n: t.to(device, dtype) for n, t in self.tensors.items()}
        self.blocks = _blocks(source, target) if on_cpu else []

    def settle(self, stopped: Callable[[], bool]) -> list[torch.Tensor]:
        """Fill the tensors and let go of the file; numbers that are finite only if all of them are.

        Those may be infinite where all are finite, as sums of large numbers: `wrong` decides.
        """
        if not self.blocks:
            return [end for tensor in self.tensors.values() for end in _ends(tensor)]
        sums = []
        for block in self.blocks:
            if stopped():
                break
            if block.target is not block.source:
                block.target.copy_(block.source)
            sums += [_sums(block.rows), _sums(block.rest)]
        self.blocks = []
        return sums

    def wrong(self) -> list[str]:
        """The names of the tensors that are not finite."""
        return [name for name, tensor in self.tensors.items() if not _finite(_ends(tensor))]


def _part(row: torch.Tensor, start: int, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor in a row's memory, which knows of no other tensor there."""
    made = torch.empty(0, dtype=row.dtype, device=row.device)
    return made.set_(row.untyped_storage(), row.storage_offset() + start, shape)


def _ends(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The smallest and the largest number, in one pass; NaN anywhere makes both NaN."""
    return tuple(tensor.aminmax()) if tensor.numel() else ()


def _sums(rows: torch.Tensor) -> torch.Tensor:
    """The sum of each row; NaN or infinity spoils it. float16 is sooner added than compared."""
    return rows.sum(1)


def _finite(numbers: Sequence[torch.Tensor]) -> bool:
    """Whether numbers of one dtype are."""
    return not numbers or bool(torch.cat([n.flatten() for n in numbers]).isfinite().all())


class Settling:
    """`settle` of `Weights`: a few large operations, and the questions about them at the end.

    A thread that comes back to Python waits there until another lets go of it.
    """

    def __init__(self, pieces: list[_Piece], dtype: torch.dtype):
        self.pieces, self.dtype = pieces[::-1], str(dtype).removeprefix("torch.")

    def __call__(self, stopped: Callable[[], bool] = lambda: False) -> None:
        read = []
        while self.pieces and not stopped():
            piece = self.pieces.pop()
            read.append((piece, piece.settle(stopped)))
        if stopped():
            return
        wrong = {n: piece.where for piece, e in read if not _finite(e) for n in piece.wrong()}
        if wrong:
            raise CheckpointError(
                f"{next(iter(wrong.values()))}: not finite in {self.dtype}: {some(wrong)}; weights "
                "are finite numbers; download again, load with a wider dtype, or see where they "
                "lead with load(…, allow_nonfinite=True)"
            )
