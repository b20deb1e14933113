"""A row of numbers cast by threads that share it out: every number once, nothing else changed."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from diffusionlab.pipeline import casting
from diffusionlab.pipeline.casting import cast

PAIRS = [(torch.float16, torch.float32), (torch.float32, torch.float16),
         (torch.float64, torch.bfloat16), (torch.bfloat16, torch.float64)]  # fmt: skip
KB = 2**10
linux = pytest.mark.skipif(sys.platform != "linux", reason="threads of its own on Linux only")


@pytest.fixture
def small_shares(monkeypatch):
    """Shares of 4 and 16 kB, so that a small row is shared out."""
    monkeypatch.setattr(casting, "SMALL", 4 * KB)
    monkeypatch.setattr(casting, "LARGE", 16 * KB)


@contextmanager
def torch_threads(count: int):
    """So many threads for torch, in this thread and those to come."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def numbers(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Normal numbers, the same ones each time."""
    return torch.randn(count, generator=torch.Generator().manual_seed(1)).to(dtype)


def threads_of_torch() -> int:
    """How many threads torch takes in a thread that begins now."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(torch.get_num_threads).result()


def both(source, dtype, look=lambda numbers: [], stopped=lambda: False, alone=lambda: True):
    """The cast row (unwritten numbers are 7) and what was said of it."""
    target = torch.full((len(source),), 7, dtype=dtype)
    return target, cast(source, target, look, stopped, alone)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("stored", "wanted"), PAIRS)
def test_every_number_is_cast_and_looked_at_once(small_shares, stored, wanted, threads, alone):
    source = numbers(100_003, stored)
    with torch_threads(threads):
        target, seen = both(source, wanted, lambda n: [n.clone()], alone=lambda: alone)
        assert torch.get_num_threads() == threads_of_torch() == threads
    assert torch.equal(target, source.to(wanted))
    narrow = source if stored.itemsize < wanted.itemsize else target
    assert {piece.dtype for piece in seen} == {narrow.dtype}
    assert torch.equal(torch.cat(seen).sort().values, narrow.sort().values)


@linux
def test_the_threads_are_torchs_number_each_with_one_of_its_own(small_shares):
    at_work = threading.Barrier(3, timeout=30)
    met = threading.local()
    inside = []

    def look(_numbers):
        if not hasattr(met, "done"):
            met.done = True
            at_work.wait()  # all three are at work at once
            inside.append((threading.current_thread().name, torch.get_num_threads()))
        return []

    with torch_threads(3):
        both(numbers(100_000, torch.float16), torch.float32, look)
    assert len(set(inside)) == 3 and {count for _, count in inside} == {1}
    assert threading.current_thread().name not in {name for name, _ in inside}


@linux
def test_memory_is_asked_for_while_nobody_else_needs_python(small_shares, monkeypatch):
    asked = []
    monkeypatch.setattr(casting, "_ask_for", lambda memory: asked.append(memory.nbytes))
    source = numbers(50_000, torch.float16)
    with torch_threads(2):
        both(source, torch.float32, alone=lambda: False)
        assert asked == []
        both(source, torch.float32)
        assert sum(asked) == 200_000 and max(asked) == 4 * KB
    asked.clear()
    with torch_threads(1):  # torch works with the caller's thread
        both(source, torch.float32)
    assert asked == []


@linux
def test_asking_brings_the_pages_and_a_system_that_refuses_changes_nothing(monkeypatch):
    memory = torch.arange(9000.0)
    kept = memory.clone()
    casting._ask_for(memory[1:-1])  # not at a page's edge
    assert torch.equal(memory, kept)
    monkeypatch.setattr(casting, "POPULATE_WRITE", 2**20)  # no such advice
    casting._ask_for(memory)
    assert torch.equal(memory, kept)


@linux
@pytest.mark.parametrize("threads", [1, 2])
def test_a_stop_leaves_the_rest(small_shares, threads):
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 6

    with torch_threads(threads):
        target, _ = both(numbers(100_000, torch.float16), torch.float32, stopped=stopped)
    assert int((target != 7).sum()) == 6 * KB  # six shares of 4 kB
    assert bool((target[6 * KB :] == 7).all())


@linux
@pytest.mark.parametrize("where", ["look", "start"])
def test_an_error_is_raised_and_leaves_torch_as_it_was(small_shares, monkeypatch, where):
    def look(_numbers):
        raise ValueError("no look")

    begun = []
    start = threading.Thread.start

    def start_one(thread):
        begun.append(thread)
        if len(begun) > 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    if where == "start":
        monkeypatch.setattr(threading.Thread, "start", start_one)
    with torch_threads(2):
        with pytest.raises((ValueError, RuntimeError), match="no look|can't start new thread"):
            both(numbers(100_000, torch.float16), torch.float32, look)
        monkeypatch.undo()
        assert torch.get_num_threads() == threads_of_torch() == 2
