"""A device for machines that have none: tensors that say "cuda:0" or "mps:0", and its rules.

Numbers are kept and computed in the computer's memory. What a device refuses is refused here too:

- a tensor of the CPU among tensors of the device, but for single numbers in pointwise operations;
- NumPy's look at values that were not copied to the CPU;
- more memory than there is;
- float64 on Apple's.

And what is too early is seen:

- a copy to the CPU that nobody waits for arrives when its event, or the device, is waited for;
  until then there are wrong numbers;
- while a graph is captured nobody waits, no value is looked at and none crosses to or from the CPU;
  what was captured is wrong until it is replayed, and again when another graph of its pool is.

Nothing here tells how fast a device is, or how its kernels round. No gradients flow, nothing is
copied deeply or resized in place. There is one stream, so that none has to wait for another; pinned
memory is as any other; what a graph reads stays alive.

    with pretend("cuda"):  # pretending.py
        torch.ones(2, device="cuda")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from pretended_memory import Life, Memory
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import swap_tensors
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
COPY, TO_COPY = aten.copy_.default, aten._to_copy.default
LOOKS = {
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default,
    aten.is_nonzero.default, aten.masked_select.default, aten.bincount.default,
    aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor,
}  # fmt: skip
# their indices may be tensors of the CPU
INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
ATTENTION = aten._scaled_dot_product_efficient_attention.default


# ---- tensors -----------------------------------------------------------------------------------
class Pretended(torch.Tensor):
    """A tensor of the device. Its `numbers` lie in the computer."""

    numbers: torch.Tensor
    life: Life
    device_of: int

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> Pretended:
        with torch.inference_mode(numbers.is_inference()):
            made = torch.Tensor._make_wrapper_subclass(
                cls, numbers.shape, strides=numbers.stride(), dtype=numbers.dtype,
                storage_offset=numbers.storage_offset(), device=DEVICE.place,
            )  # fmt: skip
        made.numbers, made.device_of = numbers, DEVICE.number
        made.life = DEVICE.memory.count(numbers.untyped_storage())
        return made

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def numpy(self, *_, **__):
        raise TypeError(f"can't convert {self.device} device type tensor to numpy; .cpu() first")

    def tolist(self) -> list:
        return self.cpu().tolist()

    def __repr__(self, **_) -> str:
        return f"{self.numbers!r} on {self.device}"

    @classmethod
    def __torch_dispatch__(cls, operation, types, given=(), options=None):
        return DEVICE.do(operation, given, options or {})


class Everything(TorchDispatchMode):
    """Sends what is made on the device without a tensor of it, torch.zeros say, there as well."""

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        return DEVICE.do(operation, given, options or {})


SET_DATA = torch.Tensor.data.__set__


class Numbered(TorchFunctionMode):
    """What torch would ask the device: which one "cuda" is, and which attention is fast.

    It also lets a parameter move to the device and back.
    """

    def __torch_function__(self, function, types, given=(), options=None):
        if function == SET_DATA:
            return set_data(*given)
        given, options = changed(given, numbered), changed(options or {}, numbered)
        if function is F.scaled_dot_product_attention:
            query = given[0] if given else options["query"]
            function = attend if isinstance(query, Pretended) else function
        return function(*given, **options)


def numbered(value: Any) -> Any:
    """cuda:0 for "cuda"; anything else as it is."""
    named = isinstance(value, (torch.device, str)) and str(value) == DEVICE.place.type
    return DEVICE.place if named else value


def attend(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """Attention by the kernel that forms no probabilities; learning has none here."""
    assert not dropout_p
    return ATTENTION(query, key, value, attn_mask, False, 0.0, is_causal, scale=scale)[0]


def plain(value: Any) -> Any:
    """A tensor of the device as one of the CPU; anything else as it is."""
    return value.numbers if isinstance(value, Pretended) else value


def set_data(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """`tensor.data = values`, where one of them may be of the device."""
    if not any(isinstance(one, Pretended) for one in (tensor, values)):
        SET_DATA(tensor, values)
        return
    other = values.detach()
    if isinstance(tensor, nn.Parameter):
        other = nn.Parameter(other, tensor.requires_grad)
    swap_tensors(tensor, other)


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Tuples, lists and dictionaries with everything in them changed; or one changed value."""
    if isinstance(value, dict):
        return {name: changed(part, change) for name, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(changed(part, change) for part in value)
    return change(value)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


# ---- the device --------------------------------------------------------------------------------
class Device:
    """What runs operations, and knows of memory, of copies on their way and of a capture."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.number, self.on = 0, False
        self.begin("cuda")

    def begin(self, kind: str) -> None:
        """A device of this type that nobody has used; tensors of the last are of no use."""
        self.place, self.number = torch.device(kind, 0), self.number + 1
        self.late: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.note: Callable | None = None  # while a graph is captured: by this thread, in this mode
        self.by, self.mode = 0, ""
        self.memory = Memory(kind)

    def do(self, operation, given: tuple, options: dict) -> Any:
        """An operation as torch hands it over, on tensors of this device, of the CPU, or none."""
        if operation._can_decompose():  # inference mode hands over what consists of others
            with Everything():
                return operation.decompose(*given, **options)
        found = [*tensors((given, options))]
        mine = [value for value in found if isinstance(value, Pretended)]
        wanted = torch.device(options["device"]) if options.get("device") is not None else None
        options = {name: value for name, value in options.items() if name != "pin_memory"}
        if not mine and (wanted is None or wanted.type != self.place.type):
            return operation(*given, **options)
        if any(value.device_of != self.number or not self.on for value in mine):
            raise RuntimeError(f"{operation} was given a tensor of a device that is gone")
        with self.lock:
            others = [value for value in found if not isinstance(value, Pretended)]
            self._check_capture(operation, given, others, wanted)
            self._check_places(operation, given, mine, others)
            if operation is COPY and not isinstance(given[0], Pretended):
                return self._bring(*given[:2], late=any(given[2:]) or options.get("non_blocking"))
            return self._done(operation, given, options, mine, wanted)

    def _done(self, operation, given, options, mine: list[Pretended], wanted) -> Any:
        there = wanted is None or wanted.type == self.place.type
        if looks(operation, given) or not (there or options.get("non_blocking")):
            self.arrive()
        run = attention if operation is ATTENTION else operation
        own = {id(value.numbers): value for value in mine}
        options |= {"device": torch.device("cpu")} if there and wanted is not None else {}
        given, options = changed((given, options), plain)
        self.memory.check(wished(operation, given, options))
        made = run(*given, **options)
        if self.captures:
            self.note(run, operation, given, options, made, own)
        if operation is TO_COPY and not there and options.get("non_blocking"):
            return self._sent(made, made.clone())
        if strange := [v for v in mine if v.shape != v.numbers.shape]:
            raise NotImplementedError(f"{operation} changed the shape {strange[0].shape} in place")
        return changed(made, lambda value: self._here(value, own)) if there else made

    def _here(self, value: Any, own: dict[int, Pretended]) -> Any:
        """A result as a tensor of the device, the very one that was given where it is that."""
        if not isinstance(value, torch.Tensor):
            return value
        if self.place.type == "mps" and value.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"Cannot convert a MPS Tensor to {value.dtype}, which MPS has not")
        return own[id(value)] if id(value) in own else Pretended(value)

    # ---- what is refused ----
    @property
    def captures(self) -> bool:
        """Whether this thread is capturing a graph."""
        return self.note is not None and self.by == threading.get_ident()

    def check_wait(self, what: Any) -> None:
        """RuntimeError while a graph is captured that this thread may not wait beside."""
        if self.captures or (self.note is not None and self.mode == "global"):
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")

    def _check_capture(self, operation, given, others, wanted) -> None:
        crosses = operation in (COPY, TO_COPY) and bool(others)
        crosses |= operation in INDEXING and bool(others)
        leaves = operation is TO_COPY and wanted is not None and wanted.type == "cpu"
        if looks(operation, given) or leaves or crosses:
            self.check_wait(operation)

    def _check_places(self, operation, given, mine, others) -> None:
        if operation in (COPY, TO_COPY) or not mine:
            return
        single = torch.Tag.pointwise in operation.tags or "fill" in str(operation)
        if operation in INDEXING:
            indices = {id(index) for index in tensors(given[1])}
            others = [value for value in others if id(value) not in indices]
            single = True
        arguments = zip(operation._schema.arguments, given, strict=False)
        targets = {id(v) for a, v in arguments if a.alias_info and a.alias_info.is_write}
        if strange := [v for v in others if v.dim() or not single or id(v) in targets]:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {operation} was given some of "
                f"{self.place} and one of {strange[0].device} with shape {tuple(strange[0].shape)}"
            )

    # ---- copies on their way ----
    def _bring(self, target: torch.Tensor, source: Pretended, late: bool) -> torch.Tensor:
        """A copy into a tensor of the CPU, which arrives later if nobody waits for it."""
        if not late:
            self.arrive()
            return target.copy_(source.numbers)
        return self._sent(target, source.numbers.clone())

    def _sent(self, target: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        self.late.append((target, values))
        spoil(target)
        return target

    def wait(self, only: list | None = None) -> None:
        """Until everything has arrived, or some copies alone."""
        with self.lock:
            self.check_wait("a wait")
            self.arrive(only)

    def arrive(self, only: list | None = None) -> None:
        """What is on its way is there: everything, or some copies alone."""
        with self.lock, torch.inference_mode():
            wanted = {id(copy) for copy in (self.late if only is None else only)}
            for target, values in (copy for copy in self.late if id(copy) in wanted):
                target.copy_(values)
            self.late = [copy for copy in self.late if id(copy) not in wanted]


def looks(operation, given: tuple) -> bool:
    """Whether the CPU waits for values of the device: how many are true, say."""
    masks = [*tensors(given[1])] if operation in INDEXING else []
    return operation in LOOKS or any(mask.dtype == torch.bool for mask in masks)


def wished(operation, given: tuple, options: dict) -> int:
    """The bytes that torch.zeros and its like are asked for; 0 for other operations."""
    arguments = operation._schema.arguments
    if not arguments or arguments[0].name != "size":
        return 0
    dtype = options.get("dtype") or torch.get_default_dtype()
    return torch.Size(given[0]).numel() * dtype.itemsize


def attention(query, key, value, mask, _=False, dropout_p=0.0, is_causal=False, scale=None):
    """What the kernel of that name returns, three things that only learning needs left empty."""
    made = F.scaled_dot_product_attention(
        query, key, value, mask, dropout_p, is_causal, scale=scale
    )
    return made, *(torch.empty(0) for _ in range(3))


def spoil(tensor: torch.Tensor) -> None:
    """Make numbers wrong: NaN, the largest, or what was false true."""
    if tensor.dtype == torch.bool:
        tensor.logical_not_()
    else:
        floating = tensor.is_floating_point() or tensor.is_complex()
        tensor.fill_(torch.nan if floating else torch.iinfo(tensor.dtype).max)


DEVICE = Device()
