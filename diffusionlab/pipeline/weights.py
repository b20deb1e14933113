"""The weights of a checkpoint: safetensors headers checked first, the numbers read afterwards.

The header says every tensor's name, dtype, shape and bytes; what is wrong there is refused before a
byte of weights enters memory. Nothing here unpickles.
"""

from __future__ import annotations

import codecs
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, shown
from .files import (
    AGAIN,
    CONVERT,
    PICKLED_SUFFIXES,
    foreign,
    inside,
    parse_json,
    place,
    read_json,
)

if TYPE_CHECKING:
    import torch

LARGEST_HEADER = 10_000_000  # bytes; safetensors itself stops at 100 MB, Stable Diffusion needs 0.1
MOST_TENSORS = 100_000
LONGEST_NAME = 512
SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Entry:
    """One tensor as the header of a safetensors file declares it: nothing of it is read yet."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def flatten(self, start: int) -> Entry:
        """The same tensor with the dimensions from `start` on as one, as `Tensor.flatten` does."""
        return replace(self, shape=(*self.shape[:start], math.prod(self.shape[start:])))


def read_header(path: Path) -> dict[str, Entry]:
    """What a safetensors file declares, checked against its size; no weights are read.

    Checked: header size, UTF-8 JSON object, no name twice, offsets contiguous from 0 to the end of
    the file, size = product of the shape x bytes of the dtype. CheckpointError otherwise.
    """
    if what := foreign(path):
        raise CheckpointError(f"{place(path)} is {what}")
    total = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(LARGEST_HEADER, total - 8):
            raise _headless(path, start + file.read(32), length)
        header = file.read(length)
    try:
        declared = parse_json(header.decode("utf-8"))
        declared.pop("__metadata__", None)
        return _entries(path, declared, total - 8 - length)
    except (ValueError, RecursionError) as error:
        raise malformed(path, error) from None


def _headless(path: Path, start: bytes, length: int) -> CheckpointError:
    """The error for a file whose first eight bytes are no header's length."""
    otherwise = malformed(path, f"{path.stat().st_size} bytes with a header of {length}")
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # its end may be cut
    except UnicodeDecodeError:
        return otherwise
    if len(start) < 8 or not "".join(text.split()).isprintable():
        return otherwise
    return CheckpointError(
        f"{place(path)} is text, not weights: it begins with {shown(text)}; name a .safetensors "
        "file, or the folder of a checkpoint"
    )


def malformed(path: Path, reason: object) -> CheckpointError:
    """The error for a file that is not whole."""
    return CheckpointError(f"{place(path)} is not a whole safetensors file ({reason}); {AGAIN}")


def _entries(path: Path, declared: dict[str, Any], size: int) -> dict[str, Entry]:
    if len(declared) > MOST_TENSORS:
        raise ValueError(f"{len(declared)} tensors, at most {MOST_TENSORS} are allowed")
    entries = {name: _entry(path, name, what) for name, what in declared.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise ValueError(f"{shown(name)} begins at {entry.begin}, expected {end}")
        end = entry.end
    if end != size:
        raise ValueError(f"the header declares {end} bytes of weights, the file holds {size}")
    return entries


def _entry(path: Path, name: str, what: Any) -> Entry:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a tensor's name has {len(name)} characters")
    if not isinstance(what, dict) or set(what) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} is declared as {shown(what)}")
    dtype, shape, offsets = what["dtype"], what["shape"], what["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise ValueError(f"{shown(name)} has dtype {shown(dtype)}")
    if not _naturals(shape) or len(shape) > 8:
        raise ValueError(f"{shown(name)} has shape {shown(shape)}")
    if not _naturals(offsets) or len(offsets) != 2:
        raise ValueError(f"{shown(name)} has offsets {shown(offsets)}")
    if offsets[1] - offsets[0] != math.prod(shape) * BYTES[dtype]:
        raise ValueError(f"{shown(name)} has offsets {offsets} for shape {shape} of {dtype}")
    return Entry(name, path, dtype, tuple(shape), *offsets)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def find_weights(folder: Path, stem: str, variant: str | None = None) -> dict[str, Entry]:
    """The declared tensors of one part: from `<stem>.safetensors` or from its shards.

    folder: the checkpoint; stem: e.g. `unet/diffusion_pytorch_model`; variant: e.g. `fp16`.
    CheckpointError if there are none, and it says what lies there instead.
    """
    dotted = f".{variant}" if variant else ""
    if path := inside(folder, f"{stem}{dotted}.safetensors", optional=True):
        return read_header(path)
    if path := inside(folder, f"{stem}.safetensors.index{dotted}.json", optional=True):
        return _shards(folder, path)
    raise _no_weights(folder, stem, dotted)


def has_weights(folder: Path, stem: str, variant: str | None = None) -> bool:
    """Whether `find_weights` has a file to open."""
    dotted = f".{variant}" if variant else ""
    names = (f"{stem}{dotted}.safetensors", f"{stem}.safetensors.index{dotted}.json")
    return any(inside(folder, name, optional=True) for name in names)


def _shards(folder: Path, index: Path) -> dict[str, Entry]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        raise CheckpointError(f"{place(index)} has no weight_map of names; {AGAIN}")
    part, found = index.parent.relative_to(folder).as_posix(), {}
    for shard in sorted(set(listed.values())):
        if not SHARD_NAME.fullmatch(shard):
            raise CheckpointError(
                f"{place(index)} names the shard {shown(shard)}; only plain names ending in "
                f".safetensors beside it are read; {AGAIN}"
            )
        entries = read_header(inside(folder, f"{part}/{shard}"))
        wrong = entries.keys() ^ {key for key, name in listed.items() if name == shard}
        if wrong:
            raise CheckpointError(
                f"{place(index)} and {shown(shard)} disagree about {some(wrong)}; every tensor "
                f"stands in the one shard that the index names; {AGAIN}"
            )
        found |= entries
    return found


def _no_weights(folder: Path, stem: str, dotted: str) -> CheckpointError:
    wanted = Path(f"{stem}{dotted}.safetensors")
    part = (folder / stem).parent
    names = sorted(p.name for p in part.iterdir()) if part.is_dir() else []
    base = re.escape(Path(stem).name)
    a_variant = re.compile(rf"{base}\.(\w+)\.safetensors|{base}\.safetensors\.index\.(\w+)\.json")
    variants = [
        (found[1] or found[2], name) for name in names if (found := a_variant.fullmatch(name))
    ]
    if dotted and has_weights(folder, stem):
        advice = "those without a variant are there: leave variant= out"
    elif variants:
        advice = f"load(..., variant={variants[0][0]!r}) takes {shown(variants[0][1])}"
    elif any(n.endswith(PICKLED_SUFFIXES) for n in names):
        advice = f"the weights there are pickled: {CONVERT}"
    else:
        advice = AGAIN
    return CheckpointError(
        f"{place(part)} has no weights {shown(wanted.name)}; weights are read from safetensors "
        f"files only; {advice}"
    )


def compare_shapes(
    where: str, found: Mapping[str, Entry], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    """CheckpointError unless a file declares exactly the wanted tensors, in floating point."""
    missing, unexpected = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing or unexpected:
        raise CheckpointError(
            f"the weights of {where} lack {some(missing)} and have unexpected {some(unexpected)}; "
            "names must be those of its config.json; take weights and config of the same model"
        )
    for name, entry in found.items():
        if entry.shape != wanted[name] or entry.dtype not in FLOATING:
            raise CheckpointError(
                f"{where}: {shown(name)} is {entry.dtype} of shape {list(entry.shape)}; its config "
                f"wants floating point of shape {list(wanted[name])}; take weights and config of "
                "the same model"
            )


def torch_dtype(entry: Entry) -> torch.dtype:
    """The dtype of an entry in floating point; int8 stands for every other."""
    import torch

    return getattr(torch, FLOATING.get(entry.dtype, "int8"))


def declared(state: Mapping[str, torch.Tensor]) -> dict[str, Entry]:
    """Tensors as the header of a file would declare them."""
    names = {f"torch.{kind}": name for name, kind in FLOATING.items()}
    return {
        name: Entry(name, Path(), names.get(str(t.dtype), str(t.dtype)), tuple(t.shape), 0, 0)
        for name, t in state.items()
    }


def some(names: Iterable[str], count: int = 3) -> str:
    """The first names of a set and how many more there are: `'a', 'b', 'c' and 4 more`."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - count} more" if len(ordered) > count else ""
    return (", ".join(shown(n) for n in ordered[:count]) or "nothing") + rest
