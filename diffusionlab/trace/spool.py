"""Where a run's arrays are put as they are made: in memory, or in a file beside the trace file.

Either is asked for room for rows of one shape and type, whose number is known before the run, and
each row is copied into its place once. A spooled row is `Stored`: it knows where it lies in the
file and is read when asked for, so that a long run needs no more memory than a short one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffusionlab.trace.summary import to_numpy
from diffusionlab.whole import beside

CHUNK = 4 * 1024**2  # bytes that are read, hashed or written at a time


@dataclass(frozen=True, eq=False)
class Stored:
    """An array that lies in a spool; `np.asarray` reads it."""

    file: BinaryIO
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        data = b"".join(chunks(self))
        return np.frombuffer(data, self.dtype).reshape(self.shape).astype(dtype or self.dtype)


def chunks(array: np.ndarray | Stored) -> Iterator[bytes | memoryview]:
    """The bytes of an array in order, a few at a time; a contiguous array is not copied."""
    if isinstance(array, Stored):
        array.file.seek(array.offset)
        for begin in range(0, array.nbytes, CHUNK):
            yield array.file.read(min(CHUNK, array.nbytes - begin))
        return
    flat = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    for begin in range(0, len(flat), CHUNK):
        yield flat[begin : begin + CHUNK]


def fingerprint(array: np.ndarray | Stored) -> str:
    """Hexadecimal sha256 of an array's bytes."""
    found = hashlib.sha256()
    for chunk in chunks(array):
        found.update(chunk)
    return found.hexdigest()


class Rows:
    """Room in memory for a known number of arrays of one shape and type."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: Any) -> None:
        self.array = np.empty((count, *shape), dtype)
        self.kept = 0

    def keep(self, value: Any) -> np.ndarray:
        """Copy an array or tensor into the next row, and give that row."""
        row = self.reserve()
        self.fill(row, value)
        return row

    def reserve(self) -> np.ndarray:
        """The next row, to be filled later."""
        self.kept += 1
        return self.array[self.kept - 1]

    def fill(self, row: np.ndarray, value: Any) -> None:
        """Copy an array or tensor into a row that was reserved."""
        row[...] = to_numpy(value)

    def first(self, count: int) -> np.ndarray:
        """The first rows as one array."""
        return self.array if count == len(self.array) else self.array[:count]


class Memory:
    """Keeps a run's arrays in memory."""

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def room(self, count: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Rows:
        """Room for `count` arrays."""
        return Rows(count, shape, dtype)


class StoredRows:
    """Room in a spool for a known number of arrays of one shape and type."""

    def __init__(self, spool: Spool, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.spool, self.offset, self.shape, self.dtype = spool, offset, shape, dtype
        self.kept = 0

    def keep(self, value: Any) -> Stored:
        """Write an array or tensor into the next row."""
        row = self.reserve()
        self.fill(row, value)
        return row

    def reserve(self) -> Stored:
        """The next row, to be filled later."""
        self.kept += 1
        return self._stored(self.kept - 1, self.shape)

    def fill(self, row: Stored, value: Any) -> None:
        """Write an array or tensor into a row that was reserved."""
        array = np.ascontiguousarray(to_numpy(value), self.dtype)
        if array.shape != self.shape:
            raise ValueError(f"a row of shape {array.shape} where {self.shape} was expected")
        self.spool.write(row.offset, array)

    def first(self, count: int) -> Stored:
        """The first rows as one array."""
        return self._stored(0, (count, *self.shape))

    def _stored(self, row: int, shape: tuple[int, ...]) -> Stored:
        one = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        return Stored(self.spool.file, self.offset + row * one, shape, self.dtype)


class Spool:
    """Keeps a run's arrays in a file beside `path` while its `with` block lasts, then removes it.

    Errors: OSError that names the file, for a disk that is full.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.place = beside(self.path, "spool.tmp")
        self.file: BinaryIO | None = None
        self.size = 0
        self.lock = threading.Lock()  # a place is found and written to without anyone in between

    def __enter__(self) -> Spool:
        self.file = self.place.open("x+b", buffering=0)
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self.file.close()
        finally:
            self.place.unlink(missing_ok=True)

    def room(self, count: int, shape: tuple[int, ...], dtype: Any = np.float32) -> StoredRows:
        """Room for `count` arrays."""
        rows = StoredRows(self, self.size, tuple(shape), np.dtype(dtype))
        self.size += count * int(np.prod(shape, dtype=np.int64)) * rows.dtype.itemsize
        return rows

    def write(self, offset: int, array: np.ndarray) -> None:
        """Put an array's bytes at a place of the file."""
        try:
            with self.lock:
                self.file.seek(offset)
                for chunk in chunks(array):
                    while len(chunk):
                        chunk = chunk[self.file.write(chunk) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


def try_to_write(path: Path) -> None:
    """Make the folder of a file, and make sure that a file can be made there; OSError if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(21, "it is a folder", str(path))
    trial = beside(path, "spool.tmp")
    try:
        trial.open("xb").close()
    finally:
        trial.unlink(missing_ok=True)
