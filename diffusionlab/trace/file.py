"""A trace on disk: one safetensors file; its header's metadata holds the records as JSON.

`format`, `format_version` (major.minor), `written_by`, `record` (the records, arrays replaced by
their names), `tensors` (type, shape and sha256 of each) and `sha256` over all of these.
Nothing is unpickled and nothing is run: reading builds records of a closed list only.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from diffusionlab.errors import TraceError, shown
from diffusionlab.trace.codec import Packer, unpack
from diffusionlab.trace.header import NUMPY_TYPES, checked_header, strict_json
from diffusionlab.trace.run import Trace

FORMAT, FORMAT_VERSION = "diffusionlab.trace", "1.0"
MOST_BYTES = 16 * 1024**3
REDACTED = "(left out)"


# ---- writing ----------------------------------------------------------------------------------
def save(trace: Trace, path: str | Path, *, redact_prompt: bool = False) -> Path:
    """Write a trace; see `Trace.save`. Errors: TraceError for what a file cannot hold, OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = to_bytes(redacted(trace) if redact_prompt else trace)
    write_whole(path, data)
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
    packer = Packer()
    record = dump(packer.pack(trace))
    return pack_file(record, packer.tensors)


def pack_file(record: str, tensors: dict[str, np.ndarray], format_version=FORMAT_VERSION) -> bytes:
    """A safetensors file of a record's JSON and its tensors, with every checksum."""
    manifest = {
        name: {"dtype": str(a.dtype), "shape": list(a.shape), "sha256": sha256(a.tobytes())}
        for name, a in tensors.items()
    }
    metadata = {
        "format": FORMAT,
        "format_version": format_version,
        "written_by": f"diffusionlab {own_version()}",
        "tensors": dump(manifest),
        "record": record,
    }
    metadata["sha256"] = digest(metadata)
    return safetensors.save(tensors, metadata)


def dump(value: Any) -> str:
    """JSON without NaN or infinity, in one spelling."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def sha256(data: bytes) -> str:
    """Hexadecimal sha256."""
    return hashlib.sha256(data).hexdigest()


def digest(metadata: dict[str, str]) -> str:
    """One checksum over all metadata but itself."""
    rest = {name: text for name, text in metadata.items() if name != "sha256"}
    return sha256(json.dumps(rest, sort_keys=True).encode())


def own_version() -> str:
    """The installed version of this package, "unknown" in a bare source tree."""
    try:
        return version("diffusionlab")
    except PackageNotFoundError:
        return "unknown"


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file by new bytes, as a whole or not at all; the temporary is always removed."""
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sweep(path: Path, seconds: float = 86_400) -> None:
    """Remove what killed writers of this very file left behind, more than a day ago."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if left.stat().st_mtime < time.time() - seconds:
            left.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- reading ----------------------------------------------------------------------------------
def load(path: str | Path) -> Trace:
    """Read a trace; see `Trace.load`."""
    return from_bytes(_read(Path(path)), shown(str(path)))


def from_bytes(data: bytes, name: str = "trace") -> Trace:
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


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise TraceError(f"{shown(str(path))} has {size} bytes; at most {MOST_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise TraceError(f"{shown(str(path))} cannot be read: {error.strerror}") from None


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


def _checked_tensors(data: bytes, header: dict, metadata: dict, name: str) -> dict[str, np.ndarray]:
    if metadata.get("sha256") != digest(metadata):
        raise TraceError(f"{name} is damaged: its header does not fit its checksum; copy it again")
    manifest = strict_json(metadata.get("tensors", ""), f"{name}: its list of tensors")
    try:
        tensors = safetensors.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise TraceError(f"{name} is damaged: {shown(str(error))}; copy it again") from None
    for tensor in set(manifest) | set(tensors):
        array, known = tensors.get(tensor), manifest.get(tensor, {})
        fits = array is not None and known == {
            "dtype": str(NUMPY_TYPES[header[tensor]["dtype"]]),
            "shape": list(array.shape),
            "sha256": sha256(array.tobytes()),
        }
        if not fits:
            raise TraceError(
                f"{name} is damaged: tensor {shown(tensor)} does not fit its checksum; copy again"
            )
    return tensors
