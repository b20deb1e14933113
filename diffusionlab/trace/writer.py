"""Writing a trace file: its header, then its numbers in pieces, as a whole or not at all.

The format is safetensors': 8 bytes of the header's length, the header as JSON padded with spaces to
a multiple of 8, then the tensors' bytes, the widest types first, so that each begins at a multiple
of its own size. Nothing here holds more than one piece of a tensor at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from diffusionlab.errors import TraceError
from diffusionlab.trace.header import MOST_HEADER, MOST_TENSORS, NUMPY_TYPES
from diffusionlab.trace.spool import Stored, chunks, fingerprint
from diffusionlab.whole import replacing

FORMAT, FORMAT_VERSION = "diffusionlab.trace", "1.0"
CODES = {dtype: code for code, dtype in NUMPY_TYPES.items()}
Arrays = Mapping[str, np.ndarray | Stored]


def file_parts(
    record: str,
    tensors: Arrays,
    format_version: str = FORMAT_VERSION,
    known: Mapping[str, str] | None = None,
) -> Iterator[bytes | memoryview]:
    """The file's bytes in order: of a record's JSON and its tensors, with every checksum.

    `known` are the fingerprints of the tensors, where they were computed already.
    Errors: TraceError for more tensors, or a longer header, than a reader takes.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    metadata = _metadata(record, tensors, format_version, known or {})
    yield from _header(names, tensors, metadata)
    for name in names:
        yield from chunks(tensors[name])


def _metadata(record: str, tensors: Arrays, format_version: str, known) -> dict[str, str]:
    prints = {name: known.get(name) or fingerprint(array) for name, array in tensors.items()}
    manifest = {
        name: {"dtype": str(a.dtype), "shape": list(a.shape), "sha256": prints[name]}
        for name, a in tensors.items()
    }
    metadata = {
        "format": FORMAT,
        "format_version": format_version,
        "written_by": f"diffusionlab {own_version()}",
        "tensors": dump(manifest),
        "record": record,
    }
    return metadata | {"sha256": digest(metadata)}


def _header(names: list[str], tensors: Arrays, metadata: dict[str, str]) -> Iterator[bytes]:
    content: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        array, begin = tensors[name], end
        end += array.nbytes
        content[name] = {
            "dtype": CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    header = dump(content).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > MOST_HEADER or len(tensors) >= MOST_TENSORS:
        raise TraceError(
            f"a trace of {len(tensors)} arrays makes a header of {len(header)} bytes; at most "
            f"{MOST_TENSORS} arrays and {MOST_HEADER} bytes are read: record fewer steps"
        )
    yield len(header).to_bytes(8, "little") + header


def dump(value: Any) -> str:
    """JSON without NaN or infinity, in one spelling."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def digest(metadata: Mapping[str, str]) -> str:
    """One checksum over all metadata but itself."""
    rest = {name: text for name, text in metadata.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def own_version() -> str:
    """The installed version of this package, "unknown" in a bare source tree."""
    try:
        return version("diffusionlab")
    except PackageNotFoundError:
        return "unknown"


# ---- the file itself --------------------------------------------------------------------------
def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Replace a file by new bytes, as a whole or not at all. Errors: OSError naming the file."""
    try:
        with replacing(path) as temporary, temporary.open("xb") as file:
            for part in parts:
                file.write(part)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
