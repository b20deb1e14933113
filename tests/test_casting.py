"""A row of numbers cast by threads that share it out: every number once, nothing else changed."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from diffusionlab.pipeline import casting, folder, load
from diffusionlab.pipeline.casting import Row

PAIRS = [(torch.float16, torch.float32), (torch.float32, torch.float16),
         (torch.float64, torch.bfloat16), (torch.bfloat16, torch.float64),
         (torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16)]  # fmt: skip
KB = 2**10
linux = pytest.mark.skipif(sys.platform != "linux", reason="threads of its own on Linux only")


@pytest.fixture
def small_shares(monkeypatch):
    """Shares of 4 and 16 kB, so that a small row is shared out."""
    monkeypatch.setattr(casting, "SMALL", 4 * KB)
    monkeypatch.setattr(casting, "LARGE", 16 * KB)
    monkeypatch.setattr(casting, "ROW", 256)


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


def both(source, dtype, stopped=lambda: False, free=lambda: True):
    """The cast row (unwritten numbers are 7) and its sums."""
    target = torch.full((len(source),), 7, dtype=dtype)
    return target, Row(source, target).cast(stopped, free)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("stored", "wanted"), PAIRS)
def test_every_number_is_cast_and_summed_once(small_shares, stored, wanted, threads, free):
    source = numbers(100_003, stored)
    with torch_threads(threads):
        target, sums = both(source, wanted, free=lambda: free)
        assert torch.get_num_threads() == threads_of_torch() == threads
    assert torch.equal(target, source.to(wanted))
    narrow = source if stored.itemsize < wanted.itemsize else target
    rows = [row.sum() for row in narrow.split(256)]
    assert sums.dtype == narrow.dtype and len(sums) == len(rows) == 391
    torch.testing.assert_close(sums, torch.stack(rows))


@pytest.mark.parametrize("threads", [1, 2])
def test_one_number_spoils_its_sum_wherever_it_is(small_shares, threads):
    with torch_threads(threads):
        for place in (0, 255, 256, 4095, 50_000, 100_002):
            source = numbers(100_003, torch.float16)
            source[place] = torch.nan
            _, sums = both(source, torch.float32)
            assert (~sums.isfinite()).nonzero().flatten().tolist() == [place // 256]


@pytest.mark.parametrize("threads", [1, 2])
def test_in_inference_mode(small_shares, threads):
    source, target = numbers(100_003, torch.float16), torch.empty(100_003)
    with torch_threads(threads), torch.inference_mode():
        Row(source, target).cast(lambda: False, lambda: True)
    assert torch.equal(target, source.float()) and not target.is_inference()


@linux
def test_the_threads_are_torchs_number_each_with_one_of_its_own(small_shares):
    at_work, met, inside = threading.Barrier(3, timeout=30), threading.local(), []

    def stopped() -> bool:
        if not hasattr(met, "before"):
            met.before = True
            at_work.wait()  # all three are at work at once
            inside.append((threading.current_thread().name, torch.get_num_threads()))
        return False

    with torch_threads(3):
        both(numbers(100_000, torch.float16), torch.float32, stopped)
    assert len(set(inside)) == 3 and {count for _, count in inside} == {1}
    assert threading.current_thread().name not in {name for name, _ in inside}


@linux
def test_memory_is_asked_for_while_nobody_else_needs_python(small_shares, monkeypatch):
    asked = []
    monkeypatch.setattr(casting, "ask_for", lambda memory: asked.append(memory.nbytes))
    source = numbers(50_000, torch.float16)
    with torch_threads(2):
        both(source, torch.float32, free=lambda: False)
        assert asked == []
        both(source, torch.float32)
        assert sum(asked) == 200_000 and max(asked) == 4 * KB
    asked.clear()
    with torch_threads(1):  # torch works with the caller's thread
        both(source, torch.float32)
    assert asked == []


def anonymous_kb() -> int:
    """Anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


@linux
def test_asking_brings_the_pages():
    memory = torch.empty(2**24)  # 64 MB that nobody has touched
    before = anonymous_kb()
    if not casting.ask_for(memory[1 : 2**23 + 1]):  # not at a page's edge
        pytest.skip("Linux 5.14 or newer hands pages out at once")
    assert anonymous_kb() - before == pytest.approx(2**15, abs=500)


@linux
def test_a_system_that_refuses_changes_nothing(monkeypatch):
    memory = torch.arange(9000.0)
    monkeypatch.setattr(casting, "POPULATE_WRITE", 2**20)  # no such advice
    assert not casting.ask_for(memory)
    assert torch.equal(memory, torch.arange(9000.0))


def test_python_is_free_once_the_model_is_built(tiny_folder, monkeypatch):
    heard = []

    def told(row, stopped, python_free, first=Row.cast):
        heard.append((python_free(), built.wait(30), python_free()))
        return first(row, stopped, python_free)

    built, tokenizers = threading.Event(), folder.read_tokenizers

    def read_tokenizers(*given):
        done = tokenizers(*given)
        threading.Timer(0.2, built.set).start()  # after the last of what needs Python
        return done

    monkeypatch.setattr(folder, "read_tokenizers", read_tokenizers)
    monkeypatch.setattr(Row, "cast", told)
    load(tiny_folder, device="cpu", dtype="bfloat16")
    assert heard[0] == (False, True, True) and {after for *_, after in heard} == {True}


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
@pytest.mark.parametrize("where", ["sum", "start"])
def test_an_error_is_raised_soon_and_leaves_torch_as_it_was(small_shares, monkeypatch, where):
    tried, begun, start = [], [], threading.Thread.start

    def sum_rows(_parts):
        tried.append(1)
        raise ValueError("no sum")

    def start_one(thread):
        begun.append(thread)
        if len(begun) > 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    if where == "start":
        monkeypatch.setattr(threading.Thread, "start", start_one)
    else:
        monkeypatch.setattr(casting, "sum_rows", sum_rows)
    with torch_threads(2):
        with pytest.raises((ValueError, RuntimeError), match="no sum|can't start new thread"):
            both(numbers(1_000_000, torch.float16), torch.float32)
        monkeypatch.undo()
        assert torch.get_num_threads() == threads_of_torch() == 2
    assert len(tried) <= 2  # each thread ends with its error


@linux
def test_after_an_error_the_rest_is_left(small_shares, monkeypatch):
    done, first = [], casting.sum_rows

    def sum_rows(parts):
        done.append(1)
        if len(done) == 3:
            raise ValueError("no sum")
        time.sleep(0.002)
        first(parts)

    monkeypatch.setattr(casting, "sum_rows", sum_rows)
    with torch_threads(2), pytest.raises(ValueError, match="no sum"):
        both(numbers(1_000_000, torch.float16), torch.float32)
    assert len(done) < 500  # of a thousand shares


@linux
def test_threads_that_begin_meanwhile_keep_their_number(small_shares):
    found = []

    def stopped() -> bool:
        found.append(threads_of_torch())
        return False

    with torch_threads(3):
        both(numbers(20_000, torch.float16), torch.float32, stopped)
    assert set(found) == {3}


@linux
def test_at_most_eight_threads_and_none_for_a_small_row(small_shares, monkeypatch):
    asked = []

    class Threads(ThreadPoolExecutor):
        def __init__(self, count, *given):
            asked.append(count)
            super().__init__(count, *given)

    monkeypatch.setattr(casting, "ThreadPoolExecutor", Threads)
    with torch_threads(12):
        both(numbers(100_000, torch.float16), torch.float32)
        both(numbers(14_000, torch.float16), torch.float32)
        both(numbers(8_000, torch.float16), torch.float32)
    assert asked == [8, 3]


@linux
def test_where_openmp_cannot_be_told_the_numbers_are_the_same(small_shares, monkeypatch):
    monkeypatch.setattr(casting, "_of_openmp", lambda: None)
    source = numbers(100_003, torch.float16)
    with torch_threads(2):
        target, _ = both(source, torch.float32)
    assert torch.equal(target, source.float())
