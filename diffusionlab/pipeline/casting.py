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

import torch

Asks = Callable[[], bool]
ROW = 4096  # numbers that are summed at once: few enough for a sum of weights to fit in float16
SMALL, LARGE = 2**22, 2**26  # bytes of a share, in whole rows
MOST_THREADS = 8  # more would wait for the memory, and for Python
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14; an older one refuses, and nothing is lost


def sum_rows(numbers: torch.Tensor, sums: torch.Tensor) -> None:
    """The sum of each ROW numbers, and of what is left over; NaN or infinity spoils its sum.

    float16 is sooner added than compared. Into memory that is there: a thread that asks for some
    would wait until no other is being handed out any.
    """
    whole = len(numbers) // ROW
    torch.sum(numbers[: whole * ROW].view(-1, ROW), 1, out=sums[:whole])
    if whole < len(sums):
        torch.sum(numbers[None, whole * ROW :], 1, out=sums[whole:])


def room_for_sums(numbers: torch.Tensor) -> torch.Tensor:
    """Where `sum_rows` can put the sums of a row, from any thread: zeros."""
    with torch.inference_mode(False):  # what is made in there can be written in there only
        return numbers.new_zeros(-(-len(numbers) // ROW))


def cast(
    source: torch.Tensor, target: torch.Tensor, stopped: Asks, python_free: Asks
) -> torch.Tensor:
    """Copy one row of numbers into another of another dtype; the sums of what was copied.

    Those are of the narrower dtype, which is sooner read; a wider one holds all of its numbers.
    stopped: whether to leave the rest. python_free: whether no other thread needs Python.
    """
    row = _Row(source, target, stopped, python_free)
    count = min(torch.get_num_threads(), MOST_THREADS, target.nbytes // LARGE)
    if count < 2 or sys.platform != "linux":
        row.cast(asks=False)
        return row.sums
    running = []
    with ThreadPoolExecutor(count, "diffusionlab-cast", torch_takes_one_thread) as threads:
        try:
            running += [threads.submit(row.cast, asks=True) for _ in range(count)]
            for one in running:
                one.result()
        finally:
            row.leave()  # the rest, if something went wrong
            running.clear()  # an error holds what its frames hold
    return row.sums


class _Row:
    """What is to be cast, and how much of it was taken."""

    def __init__(self, source, target, stopped, python_free):
        self.source, self.target = source, target
        self.stopped, self.python_free = stopped, python_free
        self.taken, self.taking = 0, Lock()
        # as wide is not wide enough: bfloat16 holds what float16 does not
        self.summed = source if target.itemsize > source.itemsize else target
        self.sums = room_for_sums(self.summed)

    def cast(self, asks: bool) -> None:
        """Cast share after share until nothing is left. asks: for the memory of small ones."""
        while not self.stopped():
            start, end, small = self._take()
            if start >= end:
                break
            target = self.target[start:end]
            if small and asks:
                ask_for(target)
            target.copy_(self.source[start:end])
            sum_rows(self.summed[start:end], self.sums[start // ROW : -(-end // ROW)])

    def leave(self) -> None:
        """Let nobody take what is left."""
        with self.taking:
            self.taken = len(self.target)

    def _take(self) -> tuple[int, int, bool]:
        with self.taking:
            small, start = self.python_free(), self.taken
            rows = (SMALL if small else LARGE) // (self.target.itemsize * ROW)
            self.taken = min(start + max(rows, 1) * ROW, len(self.target))
            return start, self.taken, small


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
