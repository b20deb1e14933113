"""The names that torch has for a device, for the one of pretended.py."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from pretended import DEVICE, Everything, Numbered, changed, spoil, tensors
from pretended_memory import TOTAL

NAME = "a pretended device"
# torch asks the guard of a device type which device is the current one; the CPU's build has none
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, NoOpDeviceGuardImpl<DeviceType::CUDA>)
C10_REGISTER_GUARD_IMPL(MPS, NoOpDeviceGuardImpl<DeviceType::MPS>)
}
"""


# ---- streams, events, graphs ---------------------------------------------------------------------
class Stream:
    """The one stream there is, by any name."""

    def __init__(self, *_, **__):
        self.device = DEVICE.place

    def wait_stream(self, other: Stream) -> None:
        """Nothing is late for another stream."""

    def synchronize(self) -> None:
        DEVICE.wait()


class Event:
    """A moment: who waits for it waits for the copies that were on their way then."""

    def __init__(self, *_, **__):
        self.late: list[tuple] = []

    def record(self, stream: Stream | None = None) -> None:
        self.late = list(DEVICE.late)

    def synchronize(self) -> None:
        DEVICE.wait(self.late)


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
    """torch.cuda.graph: what this thread does inside is remembered and not done."""
    DEVICE.wait()
    graph.shared = pool or graph.shared
    graph.pools.setdefault(graph.shared, []).append(graph)
    set_on_device(note=graph.note, by=threading.get_ident(), mode=capture_error_mode)
    try:
        yield
    finally:
        set_on_device(note=None)
        graph.spoil()


# ---- names ---------------------------------------------------------------------------------------
def set_on_device(**values) -> None:
    vars(DEVICE).update(values)


def set_memory(**values) -> None:
    vars(DEVICE.memory).update(values)


PROPERTIES = SimpleNamespace(
    total_memory=TOTAL, name=NAME, major=8, minor=0, multi_processor_count=1
)
SHARED = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "synchronize": lambda device=None: DEVICE.wait(),
    "empty_cache": lambda: set_memory(reserved=DEVICE.memory.allocated),
    "memory_allocated": lambda device=None: DEVICE.memory.allocated,
    "memory_reserved": lambda device=None: DEVICE.memory.reserved,
    "max_memory_allocated": lambda device=None: DEVICE.memory.most,
    "max_memory_reserved": lambda device=None: DEVICE.memory.most,
    "reset_peak_memory_stats": lambda device=None: set_memory(most=DEVICE.memory.allocated),
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
    "mem_get_info": lambda device=None: (int(DEVICE.memory.limit) - DEVICE.memory.reserved, TOTAL),
    "set_per_process_memory_fraction": lambda f, device=None: set_memory(limit=f * TOTAL),
}
MPS = {
    "synchronize": lambda: DEVICE.wait(),
    "empty_cache": lambda: set_memory(reserved=DEVICE.memory.allocated),
    "recommended_max_memory": lambda: int(DEVICE.memory.limit),
    "driver_allocated_memory": lambda: DEVICE.memory.reserved,
}
ACCELERATOR = SHARED | {
    "current_accelerator": lambda check_available=False: torch.device(DEVICE.place.type)
}
PLACES = {
    "cuda": [(torch.cuda, CUDA)],
    "mps": [(torch.mps, MPS), (torch.backends.mps, {"is_available": lambda: True})],
}


@functools.cache
def hindrance() -> str:
    """Why there can be no pretended device here, "" for nothing: then torch has its guard."""
    if torch.accelerator.is_available():
        return "there is a real accelerator"
    if sys.platform != "linux":
        return "a pretended device is made for Linux"
    place = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "guard.cpp"), Path(folder, "guard.so")
        source.write_text(GUARD, encoding="utf-8")
        try:
            subprocess.run([
                "c++", "-std=c++20", "-shared", "-fPIC", f"-I{place / 'include'}", str(source),
                "-o", str(library), f"-L{place / 'lib'}", "-lc10",
            ], check=True, capture_output=True)  # fmt: skip
            torch.ops.load_library(str(library))
        except (OSError, subprocess.CalledProcessError) as error:
            return f"there is no C++ compiler for a pretended device: {error}"
    return ""


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
def pretend(kind: str) -> Iterator[None]:
    """A `with` block in which there is a device, "cuda" or "mps", in threads begun inside too.

    The test is skipped where that cannot be. Afterwards torch has the guard, and believes that
    CUDA was begun.
    """
    if DEVICE.on:
        raise RuntimeError("there is a pretended device already")
    if why := hindrance():
        pytest.skip(why)
    run = threading.Thread.run

    def run_with_it(thread: threading.Thread) -> None:
        with modes():
            run(thread)

    DEVICE.begin(kind)
    with ExitStack() as stack:
        set_on_device(on=True)
        stack.callback(set_on_device, on=False)
        stack.callback(Graph.pools.clear)
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_with_it))
        for place, names in (*PLACES[kind], (torch.accelerator, ACCELERATOR)):
            for name, value in names.items():
                stack.enter_context(mock.patch.object(place, name, value))
        stack.enter_context(modes())
        yield
