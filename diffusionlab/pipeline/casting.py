"""A row of mapped numbers cast into fresh memory, by threads that share the row out.

Most of that time is the system's: memory that nobody has used comes page by page, at the first
write to each. Linux hands out megabytes at once if asked, for less, and they are still in the
processor's cache when they are written and looked at. So every thread asks for a small share, casts
it, looks at it, and takes the next. Between these it needs Python; while a network is being built,
which needs Python too, shares are large and come page by page.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Any

import torch

Asks = Callable[[], bool]
Sources = list[tuple[torch.Tensor, torch.Tensor]]  # numbers, (rows, ROW), and where their sums go
ROW = 4096  # numbers that are summed at once: few enough for a sum of weights to fit in float16
SMALL, LARGE = 2**22, 2**26  # bytes of a share, in whole rows
MOST_THREADS = 8  # more would wait for the memory, and for Python
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14; an older one refuses, and nothing is lost


class Sums:
    """The sums of each ROW numbers, and of what is left over; NaN or infinity spoils its sum.

    float16 is sooner added than compared. They are put into memory that is there: a thread that
    asks for some would wait until no other is being handed out any.
    """

    def __init__(self, numbers: torch.Tensor):
        self.numbers = numbers
        with torch.inference_mode(False):  # what is made in there can be written in there only
            self.found = numbers.new_zeros(-(-len(numbers) // ROW))

    def blocks(self, size: int) -> list[Sources]:
        """All numbers in `parts` of so many bytes."""
        count, last = _count(size, self.numbers), len(self.numbers)
        return [self.parts(n, min(n + count, last)) for n in range(0, last, count)]

    def parts(self, start: int, end: int) -> Sources:
        """What is to be summed of these numbers, and where to; `start` begins a row."""
        first, whole, last = start // ROW, end // ROW, -(-end // ROW)
        parts = [(self.numbers[start : whole * ROW].view(-1, ROW), self.found[first:whole])]
        if whole < last:
            parts.append((self.numbers[None, whole * ROW : end], self.found[whole:last]))
        return parts


def sum_rows(parts: Sources) -> None:
    """Sum what `Sums.parts` made."""
    for rows, sums in parts:
        torch.sum(rows, 1, out=sums)


def _count(size: int, numbers: torch.Tensor) -> int:
    """How many numbers like these make so many bytes, in whole rows."""
    return max(size // (numbers.itemsize * ROW), 1) * ROW


class Row:
    """A row of numbers to be cast into another of another dtype, and the sums of what was cast.

    Those are of the narrower dtype, which is sooner read; a wider one holds all of its numbers.
    To be made while Python is free: a thread may wait for it after each operation, however small.
    """

    def __init__(self, source: torch.Tensor, target: torch.Tensor):
        self.source, self.target = source, target
        # as wide is not wide enough: bfloat16 holds what float16 does not
        self.sums = Sums(source if target.itemsize > source.itemsize else target)
        self.taken, self.taking = 0, Lock()
        count = _count(LARGE, target)
        self.large = {start: self._views(start, start + count)
                      for start in range(0, len(target), count)}  # fmt: skip

    def cast(self, stopped: Asks, python_free: Asks) -> torch.Tensor:
        """Copy and sum every number; the sums.

        stopped: whether to leave the rest. python_free: whether no other thread needs Python.
        """
        count = min(torch.get_num_threads(), MOST_THREADS, self.target.nbytes // LARGE)
        if count < 2 or sys.platform != "linux":
            self._cast(stopped, python_free, asks=False)
            return self.sums.found
        running = []
        with ThreadPoolExecutor(count, "diffusionlab-cast", torch_takes_one_thread) as threads:
            try:
                running += [threads.submit(self._cast, stopped, python_free, asks=True)
                            for _ in range(count)]  # fmt: skip
                for one in running:
                    one.result()
            finally:
                self._leave()  # if something went wrong
                running.clear()  # an error holds what its frames hold
        return self.sums.found

    def _cast(self, stopped: Asks, python_free: Asks, asks: bool) -> None:
        """Cast share after share until nothing is left. asks: for the memory of small ones."""
        try:
            while not stopped():
                share, small = self._take(python_free)
                if share is None:
                    break
                source, target, parts = share
                if small and asks:
                    ask_for(target)
                target.copy_(source)
                sum_rows(parts)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        """Let nobody take what is left."""
        with self.taking:
            self.taken = len(self.target)

    def _take(self, python_free: Asks) -> tuple[Any, bool]:
        """The views of the next share, or None, and whether it is a small one."""
        with self.taking:
            small, start = python_free(), self.taken
            self.taken = end = start + _count(SMALL if small else LARGE, self.target)
        if start >= len(self.target):
            return None, small
        made = None if small else self.large.get(start)
        return made or self._views(start, end), small

    def _views(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor, Sources]:
        end = min(end, len(self.target))
        return self.source[start:end], self.target[start:end], self.sums.parts(start, end)


def torch_takes_one_thread() -> None:
    """In this thread, for good, torch computes with one thread; every other thread keeps its own.

    `torch.set_num_threads` would also set what threads begin with later. Without OpenMP it stays.
    """
    torch.get_num_threads()  # what a thread begins with is set when it first asks
    if set_threads := _of_openmp():
        set_threads(1)


@cache
def _of_openmp() -> Callable[[int], None] | None:
    """OpenMP's own function, looked for in torch's library and those that this depends on."""
    return getattr(ctypes.CDLL(torch._C.__file__), "omp_set_num_threads", None)


def ask_for(memory: torch.Tensor) -> bool:
    """Have Linux hand out the pages of a tensor at once; False if it did not."""
    start = memory.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    size = memory.data_ptr() + memory.nbytes - start
    return _of_libc()(ctypes.c_void_p(start), ctypes.c_size_t(size), POPULATE_WRITE) == 0


@cache
def _of_libc() -> Callable[..., int]:
    return ctypes.CDLL(None).madvise
