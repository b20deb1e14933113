"""A row of mapped numbers cast into fresh memory, by threads that share the row out.

Most of that time is the system's: memory that nobody has used comes page by page, at the first
write to each. Linux hands out megabytes at once if asked, for less, and they are still in the
processor's cache when they are written and looked at. So every thread asks for a small share, casts
it, looks at it, and takes the next. Between these it needs Python; while a network is being built,
which needs Python too, shares are large and come page by page.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock

import torch

Look = Callable[[torch.Tensor], list[torch.Tensor]]
SMALL, LARGE = 2**22, 2**26  # bytes of a share
MOST_THREADS = 8  # more would wait for the memory, and for Python
PAGE = 2**12
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14; an older one refuses, and nothing is lost


def cast(
    source: torch.Tensor,
    target: torch.Tensor,
    look: Look,
    stopped: Callable[[], bool],
    alone: Callable[[], bool],
) -> list[torch.Tensor]:
    """Copy one row of numbers into another of another dtype, and what `look` says of all shares.

    look: is given the numbers of the narrower dtype, which are sooner read; a wider one holds all
    of them. stopped: whether to leave the rest. alone: whether no other thread needs Python.
    """
    row = _Row(source, target, look, stopped, alone)
    count = min(torch.get_num_threads(), MOST_THREADS, target.nbytes // LARGE)
    if count < 2 or sys.platform != "linux":
        return row.cast(asks=False)
    return [said for each in _in_threads(lambda: row.cast(asks=True), count) for said in each]


class _Row:
    """What is to be cast, and how much of it was taken."""

    def __init__(self, source, target, look, stopped, alone):
        self.source, self.target, self.look = source, target, look
        self.stopped, self.alone = stopped, alone
        self.taken, self.taking = 0, Lock()
        self.wider = target.itemsize > source.itemsize

    def cast(self, asks: bool) -> list[torch.Tensor]:
        """Cast share after share until nothing is left. asks: for the memory of small ones."""
        said = []
        while not self.stopped():
            with self.taking:
                small = self.alone()
                start = self.taken
                self.taken += (SMALL if small else LARGE) // self.target.itemsize
                share = slice(start, self.taken)
            if start >= len(self.target):
                break
            source, target = self.source[share], self.target[share]
            if small and asks:
                _ask_for(target)
            target.copy_(source)
            said += self.look(source if self.wider else target)
        return said


def _in_threads(work: Callable[[], list], count: int) -> list[list]:
    """What `work` returns in each of some threads, in which torch has no threads of its own."""
    mine, ready = torch.get_num_threads(), Barrier(count + 1)

    def begin() -> list:
        torch.get_num_threads()  # a thread's first question sets its number: only then this one
        torch.set_num_threads(1)
        ready.wait()
        return work()

    with ThreadPoolExecutor(count, thread_name_prefix="diffusionlab-cast") as threads:
        try:
            running = [threads.submit(begin) for _ in range(count)]
            ready.wait()
        except BaseException:
            ready.abort()  # a thread could not be started: the others would wait for it
            threads.shutdown()
            raise
        finally:
            torch.set_num_threads(mine)  # of this thread, and of all that begin later
        return [one.result() for one in running]


def _ask_for(memory: torch.Tensor) -> None:
    """Have the system hand out the pages of a tensor at once."""
    start = memory.data_ptr() // PAGE * PAGE
    size = memory.data_ptr() + memory.nbytes - start
    _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), POPULATE_WRITE)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
