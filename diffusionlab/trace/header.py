"""An own check of a safetensors header, before anything in the file is believed.

safetensors itself accepts names that occur twice, path-like names and NaN; a file from someone else
is looked at here first: sizes, names, types, shapes and offsets, in Python's unbounded integers.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from diffusionlab.errors import TraceError, shown

MOST_HEADER, MOST_TENSORS, LONGEST_NAME, MOST_AXES = 100_000_000, 100_000, 200, 8
NUMPY_TYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
    "I16": np.dtype("int16"),
    "I8": np.dtype("int8"),
    "U64": np.dtype("uint64"),
    "U32": np.dtype("uint32"),
    "U16": np.dtype("uint16"),
    "U8": np.dtype("uint8"),
    "BOOL": np.dtype("bool"),
}


def strict_json(text: str | bytes, name: str) -> Any:
    """JSON with UTF-8, without repeated keys, NaN or infinity; anything else is a TraceError."""
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{name} is not valid JSON ({shown(str(error))}); copy it again") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def checked_header(data: bytes, name: str) -> dict[str, Any]:
    """The header of a safetensors file as a dictionary, checked against the file's size."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MOST_HEADER, len(data) - 8):
        raise TraceError(
            f"{name}, {len(data)} bytes, is not a whole safetensors file; is the download complete?"
        )
    header = strict_json(data[8 : 8 + size], f"{name}: its header")
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise TraceError(f"{name}: its header is no list of at most {MOST_TENSORS} tensors")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TraceError(f"{name}: the metadata of its header are not texts; write it again")
    _check_offsets([_span(n, t, name) for n, t in _tensors(header)], len(data) - 8 - size, name)
    return header


def _tensors(header: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, tensor) for name, tensor in header.items() if name != "__metadata__"]


def _span(tensor_name: str, tensor: Any, name: str) -> tuple[int, int]:
    """Begin and end of one tensor, whose length fits its type and shape."""
    wrong = TraceError(f"{name}: tensor {shown(tensor_name)} is malformed; copy the file again")
    if len(tensor_name) > LONGEST_NAME or not isinstance(tensor, dict):
        raise wrong
    kind, shape, offsets = (tensor.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(kind, str) and kind in NUMPY_TYPES and _counts(shape) and _counts(offsets)):
        raise wrong
    if len(shape) > MOST_AXES or len(offsets) != 2:
        raise wrong
    if offsets[1] - offsets[0] != math.prod(shape) * NUMPY_TYPES[kind].itemsize:
        raise wrong
    return tuple(offsets)


def _counts(value: Any) -> bool:
    """A list of integers >= 0; True and False are no integers here."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_offsets(spans: list[tuple[int, int]], length: int, name: str) -> None:
    """The tensors fill the file from 0 to its end, without gaps or overlaps."""
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise TraceError(f"{name}: its tensors overlap or leave gaps; copy the file again")
        end = stop
    if end != length:
        raise TraceError(f"{name}: {length} bytes of numbers where its header says {end}; torn?")
