"""Memory that runs out: told as one error with remedies, and given back so that work goes on.

An allocator's error keeps every tensor of the failed call alive through its traceback, in a
notebook through the shell's own copy of it too. So the error is converted outside the failing
frames, which are cleared first: what they held is free when the message is read.
"""

from __future__ import annotations

import functools
import gc
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from ..errors import MemoryExceeded

TOLD = (
    "can't allocate memory",
    "out of memory",
    "Invalid buffer size",  # of Apple's, for one tensor beyond what it can hold
    "Storage size calculation overflowed",
    "Unable to allocate",
    "_ALLOC_FAILED",  # of cuBLAS and cuDNN
    "ALLOCATION_FAILED",
)
UNITS = {"bytes": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}  # fmt: skip
IN_TURN = (
    'device="cpu", dtype="float16", then `with offloaded(model) as small:` run small, one part at '
    "a time"
)
LOADING = (
    'dtype="float16" (on a CPU "bfloat16"): half the memory',
    IN_TURN,
    "a smaller checkpoint",
)
AMOUNT = r"([\d.]+) ?(bytes|[KMGT]i?B|B)\b"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: torch's on any device, Python's, NumPy's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(told in str(error) for told in TOLD)


def free_memory(device: torch.device) -> int | None:
    """Bytes that torch can still take on an accelerator, its own unused ones included; or None."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def let_go(error: BaseException, outside: BaseException | None = None) -> None:
    """Clear the frames that an error has passed, and with them the tensors that they held.

    Those of errors that it grew out of as well, but of none that the caller was handling before
    (`outside`).
    """
    seen: set[int] = {id(outside)}
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error.__traceback__, error = None, error.__cause__ or error.__context__


def give_back() -> None:
    """Collect what nobody holds, and hand the accelerator's unused memory back to the system."""
    gc.collect()
    if not torch.accelerator.is_available():
        return
    on_mps = torch.accelerator.current_accelerator().type == "mps"
    # torch.accelerator's fails on MPS before torch 2.13 (pytorch issue 186430)
    (torch.mps if on_mps else torch.accelerator).empty_cache()


def memory_told(stage: str) -> Callable[[Callable], Callable]:
    """A decorator: where `function(model, subject, …)` runs out of memory, MemoryExceeded says so.

    What failed inside (a stage in a run) keeps its name. The record so far stays on the error as
    `.trace` (or `.comparison`). Nothing is tried again.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*given: Any, **options: Any) -> Any:
            outside = sys.exception()
            try:
                return function(*given, **options)
            except (RuntimeError, MemoryError) as error:
                if not (isinstance(error, MemoryExceeded) or is_out_of_memory(error)):
                    raise
                told = _told(error, stage, *given[:2])
                let_go(error, outside)
            give_back()
            raise told from None

        return run

    return decorate


# ---- the message --------------------------------------------------------------------------------
def _told(error: BaseException, stage: str, model: Any = None, subject: Any = None) -> Exception:
    """A fresh MemoryExceeded for an error, with whatever record that one carries."""
    if isinstance(error, MemoryExceeded):
        told = MemoryExceeded(str(error))
        vars(told).update(vars(error))
    else:
        told = _described(str(error), stage, model, _shape(subject))
    for record in ("trace", "comparison"):
        if hasattr(error, record):
            setattr(told, record, getattr(error, record))
    return told


def _described(text: str, stage: str, model: Any, shape: tuple[int, ...]) -> MemoryExceeded:
    needed = _amount(rf"(?:allocate|allocate:|buffer size:) {AMOUNT}", text)
    free = _amount(rf"of which {AMOUNT} is free", text)
    where = getattr(model, "device", None)
    numbers = [f"needed {_shown(needed)}"] if needed is not None else []
    numbers += [f"free {_shown(free)}"] if free is not None else []
    remedies = remedies_for(stage, model)
    steps = "; ".join(f"({i}) {remedy}" for i, remedy in enumerate(remedies, 1))
    return MemoryExceeded(
        f"{stage} ran out of memory" + (f" on {where}" if where is not None else "")
        + (f" with an input of shape {shape}" if shape else "")
        + (f" ({', '.join(numbers)})" if numbers else "")
        + f"; a smaller call fits. Try in this order: {steps}",
        stage=stage, shape=shape, needed=needed, free=free, remedies=remedies,
    )  # fmt: skip


def remedies_for(stage: str, model: Any) -> tuple[str, ...]:
    """Three things to do about a stage that did not fit, the one that changes least first."""
    on_cpu = getattr(getattr(model, "device", None), "type", "cpu") == "cpu"
    in_turn = hasattr(model, "place")  # it is offloaded already
    if stage == "load":
        return LOADING
    whole = getattr(model, "dtype", torch.float32) in (torch.float32, torch.float64)
    half = "bfloat16" if on_cpu else "float16"
    there = " and run it without offloaded" if in_turn else ""
    known = [
        (stage in ("decode", "encode"), f"{stage}(…, tile=256): pieces of 256 pixels, blended"),
        (stage == "compare", "together=False: one run at a time"),
        (whole, f'load the model with dtype="{half}": half the memory'),
        (not on_cpu and not in_turn, f"load the model with {IN_TURN}"),
        (True, "a smaller picture, by height= and width=: attention grows with their product"),
        (not on_cpu, f'load the model with device="cpu"{there}: slower, in the computer\'s memory'),
        (True, 'record less, e.g. record={"predictions"}, and delete results that hold arrays'),
        (True, "close other programs, or use a larger computer"),
    ]
    return tuple(remedy for holds, remedy in known if holds)[:3]


def _shape(subject: Any) -> tuple[int, ...]:
    """The shape of a record's values, of an array, or of a picture (height, width)."""
    values = subject if hasattr(subject, "shape") else getattr(subject, "values", subject)
    shape = getattr(values, "shape", None)
    if shape is None and isinstance(size := getattr(subject, "size", None), tuple):
        shape = size[::-1]
    return tuple(int(side) for side in shape or ())


def _amount(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return None if found is None else int(float(found[1].rstrip(".")) * UNITS[found[2]])


def _shown(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
