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
Look = Callable[[torch.Tensor], list[torch.Tensor]]
SMALL, LARGE = 2**22, 2**26  # bytes of a share
MOST_THREADS = 8  # more would wait for the memory, and for Python
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14; an older one refuses, and nothing is lost


def cast(
    source: torch.Tensor, target: torch.Tensor, look: Look, stopped: Asks, python_free: Asks
) -> list[torch.Tensor]:
    """Copy one row of numbers into another of another dtype, and what `look` says of all shares.

    look: is given the numbers of the narrower dtype, which are sooner read; a wider one holds all
    of them. stopped: whether to leave the rest. python_free: whether no other thread needs Python.
    """
    row = _Row(source, target, look, stopped, python_free)
    count = min(torch.get_num_threads(), MOST_THREADS, target.nbytes // LARGE)
    if count < 2 or sys.platform != "linux":
        return row.cast(asks=False)
    running = []
    with ThreadPoolExecutor(count, "diffusionlab-cast", torch_takes_one_thread) as threads:
        try:
            running += [threads.submit(row.cast, asks=True) for _ in range(count)]
            return [said for one in running for said in one.result()]
        finally:
            row.leave()  # the rest, if something went wrong
            running.clear()  # an error holds what its frames hold


class _Row:
    """What is to be cast, and how much of it was taken."""

    def __init__(self, source, target, look, stopped, python_free):
        self.source, self.target, self.look = source, target, look
        self.stopped, self.python_free = stopped, python_free
        self.taken, self.taking = 0, Lock()
        # as wide is not wide enough: bfloat16 holds what float16 does not
        self.wider = target.itemsize > source.itemsize

    def cast(self, asks: bool) -> list[torch.Tensor]:
        """Cast share after share until nothing is left. asks: for the memory of small ones."""
        said = []
        while not self.stopped():
            share, small = self._take()
            source, target = self.source[share], self.target[share]
            if not len(target):
                break
            if small and asks:
                ask_for(target)
            target.copy_(source)
            said += self.look(source if self.wider else target)
        return said

    def leave(self) -> None:
        """Let nobody take what is left."""
        with self.taking:
            self.taken = len(self.target)

    def _take(self) -> tuple[slice, bool]:
        with self.taking:
            small, start = self.python_free(), self.taken
            self.taken += (SMALL if small else LARGE) // self.target.itemsize
            return slice(start, self.taken), small


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
