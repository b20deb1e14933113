"""A CUDA device for machines that have none: tensors that say "cuda:0", and what one must not do.

Numbers lie and are computed in the computer's memory. What a device refuses is refused here too:

- a tensor of the CPU among tensors of the device, but for single numbers in pointwise operations;
- NumPy's look at values that were not copied to the CPU;
- more memory than there is.

And what is too early is seen:

- a copy that nobody waits for arrives when its event, or the device, is waited for; until then its
  place holds NaN;
- while a graph is captured no value can be looked at and none crosses to or from the CPU; what was
  captured holds NaN until it is replayed, and again when another graph of its pool is.

Nothing here tells how fast a device is, or how its kernels round; learning does not work on it.

    with pretended_cuda():  # pretended_cuda.py
        torch.ones(2, device="cuda")
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import swap_tensors
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
THERE = torch.device("cuda", 0)
TOTAL = 80 * 10**9  # bytes
COPY, TO_COPY = aten.copy_.default, aten._to_copy.default
LOOKS = {
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default,
    aten.is_nonzero.default, aten.masked_select.default,
}  # fmt: skip
# their indices may be tensors of the CPU
INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
ATTENTION = aten._scaled_dot_product_efficient_attention.default


# ---- tensors -----------------------------------------------------------------------------------
class Held:
    """Lives as long as a tensor of the device; a tensor's own end cannot be waited for."""


class Pretended(torch.Tensor):
    """A tensor of the device. Its `numbers` lie in the computer."""

    numbers: torch.Tensor
    held: Held

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> Pretended:
        with torch.inference_mode(numbers.is_inference()):
            made = torch.Tensor._make_wrapper_subclass(
                cls, numbers.shape, strides=numbers.stride(), dtype=numbers.dtype,
                storage_offset=numbers.storage_offset(), device=THERE,
            )  # fmt: skip
        made.numbers, made.held = numbers, Held()
        return made

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def numpy(self, *_, **__):
        raise TypeError(f"can't convert {THERE} device type tensor to numpy; use .cpu() first")

    def tolist(self) -> list:
        return self.cpu().tolist()

    def __repr__(self, **_) -> str:
        return f"{self.numbers!r} on {THERE}"

    @classmethod
    def __torch_dispatch__(cls, operation, types, given=(), options=None):
        return DEVICE.do(operation, given, options or {})


class Everything(TorchDispatchMode):
    """Sends what is made on the device without a tensor of it, torch.zeros say, there as well."""

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        return DEVICE.do(operation, given, options or {})


SET_DATA = torch.Tensor.data.__set__


class Numbered(TorchFunctionMode):
    """What torch would ask CUDA: which device "cuda" is, and which attention is fast.

    It also lets a parameter move to the device and back.
    """

    def __torch_function__(self, function, types, given=(), options=None):
        if function == SET_DATA:
            return set_data(*given)
        given, options = changed(given, numbered), changed(options or {}, numbered)
        if function is F.scaled_dot_product_attention and isinstance(given[0], Pretended):
            return attend(*given, **options)
        return function(*given, **options)


def numbered(value: Any) -> Any:
    """cuda:0 for "cuda"; anything else as it is."""
    named = isinstance(value, (torch.device, str)) and str(value) == "cuda"
    return THERE if named else value


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
        self.forget()

    def forget(self) -> None:
        """A device that nobody has used."""
        self.late: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.note: Callable | None = None  # while a graph is captured
        self.uses: dict[int, int] = {}  # tensors by the address of their memory
        self.allocated = self.most = self.reserved = 0
        self.limit = TOTAL

    def do(self, operation, given: tuple, options: dict) -> Any:
        """An operation as torch hands it over, on tensors of this device, of the CPU, or none."""
        if operation._can_decompose():  # inference mode hands over what consists of others
            with Everything():
                return operation.decompose(*given, **options)
        found = [*tensors((given, options))]
        mine = [value for value in found if isinstance(value, Pretended)]
        wanted = torch.device(options["device"]) if options.get("device") is not None else None
        options = {name: value for name, value in options.items() if name != "pin_memory"}
        if not mine and (wanted is None or wanted.type != "cuda"):
            return operation(*given, **options)
        with self.lock:
            others = [value for value in found if not isinstance(value, Pretended)]
            self._check(operation, given, mine, others, wanted)
            if operation is COPY and not isinstance(given[0], Pretended):
                return self._bring(*given[:2], late=any(given[2:]) or options.get("non_blocking"))
            return self._done(operation, given, options, mine, wanted)

    def _done(self, operation, given, options, mine: list[Pretended], wanted) -> Any:
        there = wanted is None or wanted.type == "cuda"
        if looks(operation, given) or not there:
            self.arrive()
        run = attention if operation is ATTENTION else operation
        own = {id(value.numbers): value for value in mine}
        options |= {"device": torch.device("cpu")} if there and wanted is not None else {}
        given, options = changed((given, options), plain)
        self._fits(wished(operation, given, options))
        made = run(*given, **options)
        if self.note is not None:
            self.note(run, operation, given, options, made, own)
        if strange := [v for v in mine if v.shape != v.numbers.shape]:
            raise NotImplementedError(f"{operation} changed the shape {strange[0].shape} in place")
        return changed(made, lambda value: self._here(value, own)) if there else made

    def _here(self, value: Any, own: dict[int, Pretended]) -> Any:
        """A result as a tensor of the device, the very one that was given where it is that."""
        if not isinstance(value, torch.Tensor):
            return value
        return own[id(value)] if id(value) in own else self._counted(Pretended(value))

    def _check(self, operation, given, mine, others, wanted) -> None:
        """RuntimeError for what a device refuses."""
        copies = operation in (COPY, TO_COPY)
        leaves = operation is TO_COPY and wanted is not None and wanted.type == "cpu"
        if self.note is not None and (looks(operation, given) or leaves or (copies and others)):
            raise RuntimeError(f"operation not permitted when stream is capturing: {operation}")
        if copies or not mine:
            return
        if operation in INDEXING:
            others = [value for value in others if value is given[0]]
        single = torch.Tag.pointwise in operation.tags or "fill" in str(operation)
        if strange := [value for value in others if value.dim() or not single]:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {operation} was given some of "
                f"{THERE} and one of {strange[0].device} with shape {tuple(strange[0].shape)}"
            )

    # ---- copies on their way ----
    def _bring(self, target: torch.Tensor, source: Pretended, late: bool) -> torch.Tensor:
        """A copy into a tensor of the CPU, which arrives later if nobody waits for it."""
        self.late.append((target, source.numbers.clone()))
        if late:
            spoil(target)
        else:
            self.arrive()
        return target

    def arrive(self, only: list | None = None) -> None:
        """What is on its way is there: everything, or some copies alone."""
        with self.lock, torch.inference_mode():
            wanted = {id(copy) for copy in (self.late if only is None else only)}
            for target, values in (copy for copy in self.late if id(copy) in wanted):
                target.copy_(values)
            self.late = [copy for copy in self.late if id(copy) not in wanted]

    # ---- memory ----
    def _fits(self, more: int) -> None:
        if self.allocated + more > self.limit:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {more / 2**20:.2f} MiB. GPU 0 has a total "
                f"capacity of {TOTAL / 2**30:.2f} GiB of which "
                f"{(self.limit - self.allocated) / 2**20:.2f} MiB is free."
            )

    def _counted(self, value: Pretended) -> Pretended:
        storage = value.numbers.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key and key not in self.uses:
            self._fits(size)
            self.allocated += size
            self.most, self.reserved = (max(n, self.allocated) for n in (self.most, self.reserved))
        if key:
            self.uses[key] = self.uses.get(key, 0) + 1
            weakref.finalize(value.held, self._let_go, self.uses, key, size)
        return value

    def _let_go(self, uses: dict[int, int], key: int, size: int) -> None:
        with self.lock:
            uses[key] -= 1
            if not uses[key]:
                del uses[key]
                self.allocated -= size if uses is self.uses else 0


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
    """What CUDA's kernel of that name returns, three things that only learning needs left empty."""
    made = F.scaled_dot_product_attention(
        query, key, value, mask, dropout_p, is_causal, scale=scale
    )
    return made, *(torch.empty(0) for _ in range(3))


def spoil(tensor: torch.Tensor) -> None:
    """Numbers that nobody should read."""
    if tensor.dtype != torch.bool:
        floating = tensor.is_floating_point()
        tensor.fill_(torch.nan if floating else torch.iinfo(tensor.dtype).max)


DEVICE = Device()
