"""A trace on disk: one safetensors file; its header's metadata holds the records as JSON.

`format`, `format_version` (major.minor), `written_by`, `record` (the records, arrays replaced by
their names), `tensors` (type, shape and sha256 of each) and `sha256` over all of these.
Nothing is unpickled and nothing is run: reading builds records of a closed list only.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusionlab.errors import TraceError, shown
from diffusionlab.trace.codec import Packer, unpack
from diffusionlab.trace.header import NUMPY_TYPES, checked_header, strict_json
from diffusionlab.trace.run import Trace
from diffusionlab.trace.spool import CHUNK
from diffusionlab.trace.writer import (
    FORMAT,
    FORMAT_VERSION,
    Arrays,
    digest,
    dump,
    file_parts,
    write_whole,
)

MOST_BYTES = 16 * 1024**3  # of a file that is read into memory
REDACTED = "(left out)"
Data = bytes | mmap.mmap


# ---- writing ----------------------------------------------------------------------------------
def save(trace: Trace, path: str | Path, *, redact_prompt: bool = False) -> Path:
    """Write a trace; see `Trace.save`. Errors: TraceError for what a file cannot hold, OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _parts(redacted(trace) if redact_prompt else trace))
    return path


def redacted(trace: Trace) -> Trace:
    """The trace without prompts, tokens, text embeddings and notices."""
    settings = replace(
        trace.settings,
        prompt=REDACTED,
        negative_prompt=REDACTED if trace.settings.negative_prompt else "",
        notices=(),
    )
    return replace(
        trace, settings=settings, tokens=None, text_embedding=None, uncond_embedding=None
    )


def to_bytes(trace: Trace) -> bytes:
    """The file's bytes; equal arrays are stored once."""
    return b"".join(_parts(trace))


def pack_file(record: str, tensors: Arrays, format_version: str = FORMAT_VERSION) -> bytes:
    """A file of a record's JSON and its tensors, with every checksum."""
    return b"".join(file_parts(record, tensors, format_version))


def _parts(trace: Trace) -> Iterator[bytes | memoryview]:
    """The file's bytes piece by piece; what it cannot hold is refused before the first."""
    packer = Packer()
    record = dump(packer.pack(trace))
    return file_parts(record, packer.tensors, known=packer.fingerprints)


def in_memory(trace: Trace) -> Trace:
    """The trace with the arrays read that lie in a file."""
    packer = Packer()
    record = packer.pack(trace)
    tensors = {name: np.array(array) for name, array in packer.tensors.items()}
    return unpack(record, tensors, "trace")


# ---- reading ----------------------------------------------------------------------------------
def load(path: str | Path, *, mapped: bool = False) -> Trace:
    """Read a trace; see `Trace.load`."""
    path = Path(path)
    name = shown(str(path))
    try:
        data = _mapped(path) if mapped else _read(path, name)
    except OSError as error:
        raise TraceError(f"{name} cannot be read: {error.strerror}") from None
    return from_bytes(data, name)


def from_bytes(data: Data, name: str = "trace") -> Trace:
    """The trace in a file's bytes, every checksum compared before a record is built."""
    header = checked_header(data, name)
    metadata = header.get("__metadata__", {})
    _check_version(metadata, name)
    tensors = _checked_tensors(data, header, metadata, name)
    record = strict_json(metadata.get("record", ""), f"{name}: its record")
    trace = unpack(record, tensors, name)
    if not isinstance(trace, Trace):
        raise TraceError(f"{name} holds a {type(trace).__name__}, not a Trace: save it again")
    _check_arrays(trace, name)
    return trace


def _check_arrays(trace: Trace, name: str) -> None:
    """Every latent of the run has one shape, and what should be an array is one."""
    points = [x for s in trace.steps for x in (s.latent, s.next_latent, *s.noises)]
    calls = trace.predictions
    points += [x for p in calls for x in (p.latent, p.cond, p.uncond) if x is not None]
    shapes = {getattr(x, "shape", None) for x in points}
    if len(shapes) > 1 or any(shape is None or len(shape) != 3 for shape in shapes):
        raise TraceError(f"{name}: latents of shapes {shown(shapes)}: one shape is needed")
    texts = [t for t in (trace.text_embedding, trace.uncond_embedding) if t is not None]
    rest = [h for text in texts for h in text.hidden] + list(trace.attention.values())
    if not all(isinstance(x, np.ndarray) for x in rest):
        raise TraceError(f"{name}: a text embedding or an attention map is no array")


def _read(path: Path, name: str) -> bytes:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise TraceError(
            f"{name} has {size} bytes; at most {MOST_BYTES} are read into memory: "
            "Trace.load(path, mapped=True) leaves them in the file"
        )
    return path.read_bytes()


def _mapped(path: Path) -> Data:
    """The file as memory that is read from the disk when it is looked at; never changed."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _check_version(metadata: dict[str, str], name: str) -> None:
    if metadata.get("format") != FORMAT:
        what = f"a {FORMAT} file is needed: Trace.save writes one (this may be a model's weights)"
        raise TraceError(f"{name} is of format {shown(metadata.get('format'))}; {what}")
    found = metadata.get("format_version", "")
    major, _, minor = found.partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise TraceError(f"{name} has format_version {shown(found)}; e.g. '1.0' is needed")
    if len(major) > 4 or int(major) > int(FORMAT_VERSION.split(".")[0]):
        by = shown(metadata.get("written_by", "?"))
        raise TraceError(
            f"{name} was written by {by} and needs a diffusionlab that reads trace format "
            f"{shown(found)}; this one reads up to {FORMAT_VERSION}: upgrade diffusionlab"
        )


def _checked_tensors(data: Data, header: dict, metadata: dict, name: str) -> dict[str, np.ndarray]:
    """Views of the tensors inside the file's bytes, each compared with its checksum."""
    if metadata.get("sha256") != digest(metadata):
        raise TraceError(f"{name} is damaged: its header does not fit its checksum; copy it again")
    manifest = strict_json(metadata.get("tensors", ""), f"{name}: its list of tensors")
    start = 8 + int.from_bytes(data[:8], "little")
    entries = {tensor: entry for tensor, entry in header.items() if tensor != "__metadata__"}
    if not isinstance(manifest, dict):
        raise TraceError(f"{name} is damaged: its list of tensors is none; copy it again")
    for tensor in set(manifest) | set(entries):
        if not _fits(data, start, entries.get(tensor), manifest.get(tensor)):
            raise TraceError(
                f"{name} is damaged: tensor {shown(tensor)} does not fit its checksum; copy again"
            )
    return {tensor: _view(data, start, entry) for tensor, entry in entries.items()}


def _fits(data: Data, start: int, entry: dict | None, known: Any) -> bool:
    """Whether a tensor's type, shape and bytes are those that were written."""
    if entry is None:
        return False
    begin, end = (start + offset for offset in entry["data_offsets"])
    return known == {
        "dtype": str(NUMPY_TYPES[entry["dtype"]]),
        "shape": entry["shape"],
        "sha256": _sha256(data, begin, end),
    }


def _sha256(data: Data, begin: int, end: int) -> str:
    """Hexadecimal sha256 of a part; of a mapped file no more than a piece stays in memory."""
    found = hashlib.sha256()
    with memoryview(data) as whole:
        for place in range(begin, end, CHUNK):
            with whole[place : min(end, place + CHUNK)] as piece:
                found.update(piece)
            if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                data.madvise(mmap.MADV_DONTNEED)
    return found.hexdigest()


def _view(data: Data, start: int, entry: dict) -> np.ndarray:
    dtype, shape = NUMPY_TYPES[entry["dtype"]].newbyteorder("<"), entry["shape"]
    begin = start + entry["data_offsets"][0]
    return np.frombuffer(data, dtype, math.prod(shape), begin).reshape(shape)
