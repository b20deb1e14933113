"""torch.cuda's and torch.accelerator's names for the device of pretended.py."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from pretended import DEVICE, THERE, TOTAL, Everything, Numbered, changed, spoil, tensors

NAME = "a pretended device"
# torch asks the guard of a device type which device is the current one; without CUDA it has none
GUARD = """
#include <c10/core/impl/FakeGuardImpl.h>
namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuardImpl<DeviceType::CUDA>)
}
"""


# ---- streams, events, graphs ---------------------------------------------------------------------
class Stream:
    """The one stream there is, by any name."""

    device = THERE

    def __init__(self, *_, **__): ...

    def wait_stream(self, other: Stream) -> None:
        """Nothing is late for another stream."""

    def synchronize(self) -> None:
        DEVICE.arrive()


class Event:
    """A moment: who waits for it waits for the copies that were on their way then."""

    def __init__(self, *_, **__):
        self.late: list[tuple] = []

    def record(self, stream: Stream | None = None) -> None:
        self.late = list(DEVICE.late)

    def synchronize(self) -> None:
        DEVICE.arrive(self.late)


class Graph:
    """The operations of a capture, to be done again in the memory that they had."""

    pools: dict[int, list[Graph]] = {}

    def __init__(self, *_, **__):
        self.steps: list[tuple] = []
        self.made: list[torch.Tensor] = []
        self.shared = id(self)

    def pool(self) -> int:
        return self.shared

    def note(self, run, operation, given, options, made, own) -> None:
        """One operation more. Single numbers of the CPU are what they are now."""

        def kept(value):
            baked = isinstance(value, torch.Tensor) and id(value) not in own
            return value.clone() if baked else value

        given, options = changed((given, options), kept)
        fresh = all(result.alias_info is None for result in operation._schema.returns)
        results = [*tensors(made)] if fresh else []
        self.steps.append((run, given, options, results))
        self.made += results

    def spoil(self) -> None:
        with torch.inference_mode():
            for tensor in self.made:
                spoil(tensor)

    def replay(self) -> None:
        with DEVICE.lock, torch.inference_mode():
            for graph in self.pools[self.shared]:
                graph.spoil()
            for run, given, options, results in self.steps:
                again = run(*given, **options)
                for old, new in zip(results, tensors(again), strict=False):
                    old.copy_(new)


@contextmanager
def capture(graph: Graph, pool=None, stream=None, capture_error_mode="global") -> Iterator[None]:
    """torch.cuda.graph: what is done inside is remembered and not done."""
    DEVICE.arrive()
    graph.shared = pool or graph.shared
    graph.pools.setdefault(graph.shared, []).append(graph)
    DEVICE.note = graph.note
    try:
        yield
    finally:
        DEVICE.note = None
        graph.spoil()


# ---- names ---------------------------------------------------------------------------------------
def set_attributes(**values) -> None:
    vars(DEVICE).update(values)


PROPERTIES = SimpleNamespace(
    total_memory=TOTAL, name=NAME, major=8, minor=0, multi_processor_count=1
)
SHARED = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "synchronize": lambda device=None: DEVICE.arrive(),
    "empty_cache": lambda: set_attributes(reserved=DEVICE.allocated),
    "memory_allocated": lambda device=None: DEVICE.allocated,
    "memory_reserved": lambda device=None: DEVICE.reserved,
    "max_memory_allocated": lambda device=None: DEVICE.most,
    "max_memory_reserved": lambda device=None: DEVICE.most,
    "reset_peak_memory_stats": lambda device=None: set_attributes(most=DEVICE.allocated),
}
CUDA = SHARED | {
    "_lazy_init": lambda: None,
    "_exchange_device": lambda index: 0,
    "_maybe_exchange_device": lambda index: 0,
    "current_device": lambda: 0,
    "is_initialized": lambda: True,
    "current_stream": lambda device=None: Stream(),
    "stream": lambda stream: nullcontext(),
    "Stream": Stream,
    "Event": Event,
    "CUDAGraph": Graph,
    "graph": capture,
    "is_bf16_supported": lambda including_emulation=True: True,
    "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": lambda state, device=None: None,
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
    "get_device_name": lambda device=None: NAME,
    "get_device_capability": lambda device=None: (8, 0),
    "get_device_properties": lambda device=None: PROPERTIES,
    "mem_get_info": lambda device=None: (int(DEVICE.limit) - DEVICE.reserved, TOTAL),
    "set_per_process_memory_fraction": lambda f, device=None: set_attributes(limit=f * TOTAL),
}
ACCELERATOR = SHARED | {"current_accelerator": lambda check_available=False: torch.device("cuda")}


@functools.cache
def load_guard() -> None:
    """Compile the guard and give it to torch, for the rest of the process; or skip the test."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler, which a pretended device needs")
    place = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "guard.cpp"), Path(folder, "guard.so")
        source.write_text(GUARD, encoding="utf-8")
        subprocess.run([
            compiler, "-std=c++20", "-shared", "-fPIC", f"-I{place / 'include'}", str(source),
            "-o", str(library), f"-L{place / 'lib'}", "-lc10",
        ], check=True)  # fmt: skip
        torch.ops.load_library(str(library))


@contextmanager
def modes() -> Iterator[None]:
    """What a thread needs, so that its operations come to the device."""
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…) asks the device, not CUDA
    try:
        with Numbered(), Everything():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """A `with` block in which there is a CUDA device, in threads that begin inside too.

    The test is skipped where there is a real one.
    """
    if torch.accelerator.is_available():
        pytest.skip("there is a real accelerator")
    load_guard()
    DEVICE.forget()
    run = threading.Thread.run

    def run_with_it(thread: threading.Thread) -> None:
        with modes():
            run(thread)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_with_it))
        for place, names in ((torch.cuda, CUDA), (torch.accelerator, ACCELERATOR)):
            for name, value in names.items():
                stack.enter_context(mock.patch.object(place, name, value))
        stack.enter_context(modes())
        yield
    Graph.pools.clear()
