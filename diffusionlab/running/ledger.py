"""What a call takes in memory and arithmetic, counted while it runs, on tensors without memory too.

On the meta device a network runs through its shapes alone, so a call can be priced for a device
that is too small for it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Price:
    """Of one call: `flops`, a multiply-add counted as two, and `peak`, the most bytes it held."""

    flops: int
    peak: int


def price(call: Callable[[], Any]) -> Price:
    """Run a call, on meta tensors usually, and count.

    `peak` are all tensors that the call makes, at the moment when they are most: exact for what
    torch allocates, without a kernel's own workspace and without what an allocator rounds up.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call()
    with torch.no_grad(), LiveBytes() as live, FusedAttention():
        call()
    return Price(int(counter.get_total_flops()), live.peak)


class LiveBytes(TorchDispatchMode):
    """A `with` block that follows every memory made inside it: `now` and `peak` in bytes."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        before = {
            id(t.untyped_storage()) for t in tree_leaves(given) if isinstance(t, torch.Tensor)
        }
        made = operation(*given, **(options or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage(), before)
        return made

    def _follow(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        if id(storage) in self.known or id(storage) in before:
            return
        size, key = storage.nbytes(), id(storage)
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [t.untyped_storage() for t in tree_leaves(values) if isinstance(t, torch.Tensor)]


class FusedAttention(TorchFunctionMode):
    """A `with` block in which attention takes the memory of a fused kernel: its result alone.

    On the meta device torch would form all probabilities, which no real device does here.
    """

    def __torch_function__(self, function, types, given=(), options=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            query, _, value = given[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return function(*given, **(options or {}))


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Multiply-adds (as two each) a second of a large matrix product, measured for so long."""
    side = 1024 if device.type == "cpu" else 4096
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(left, right)
    _wait(device)
    begun, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds or not count:
        torch.mm(left, right)
        _wait(device)
        count += 1
    return 2 * side**3 * count / passed if passed else float("inf")


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
