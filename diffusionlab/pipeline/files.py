"""The files of a checkpoint folder: checked before they are believed, written so that none tears.

A folder from the web is data from a stranger. Nothing here unpickles, imports or follows a name
out of the folder; a file's size and header are judged before a byte of weights enters memory.
Whatever is wrong comes out as one `CheckpointError`.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import whole
from ..errors import CheckpointError, shown

LARGEST_JSON = 10_000_000  # bytes of a config, an index or a vocabulary
PICKLED_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth", ".pkl", ".pickle")
AGAIN = "download the file again"
CONVERT = (
    "a pickle can run any program while it is read, so diffusionlab never opens one; "
    "take the .safetensors files of the same model, or convert it to safetensors with diffusers "
    "on a machine you can afford to lose"
)
_SIGNATURES = (  # how a file begins, what it then is, what to do
    (
        b"version https://git-lfs",
        "a Git-LFS pointer, not weights",
        "run `git lfs pull`, or " + AGAIN,
    ),
    (b"<!doctype", "a web page, not weights", AGAIN),
    (b"<html", "a web page, not weights", AGAIN),
    (b"<?xml", "an XML page, not weights", AGAIN),
    (b"pk\x03\x04", "a zip archive, as torch.save writes its pickles", CONVERT),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x89hdf", "an HDF5 file (Keras)", "take the .safetensors files of the same model"),
    (b"gguf", "a GGUF file", "take the .safetensors files of the same model"),
)


def place(path: Path) -> str:
    """The last two names of a path, as error messages quote it: `'unet/config.json'`."""
    return shown("/".join(path.parts[-2:]))


# --- what lies in the folder -------------------------------------------------------------------


def inside(folder: Path, name: str, *, optional: bool = False) -> Path | None:
    """The regular file `name` of a folder; None if it is `optional` and absent.

    Links may lead within the folder or, in the Hugging Face cache, to the blobs beside the
    snapshot; CheckpointError for a link that leaves, a FIFO, a device or a folder.
    """
    try:
        real = (folder / name).resolve(strict=True)
        mode = real.stat().st_mode
    except FileNotFoundError:
        if optional and not (folder / name).is_symlink():
            return None
        raise _missing(folder, name) from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{shown(name)} cannot be opened: {reason}; {AGAIN}") from None
    if not any(real.is_relative_to(root) for root in _roots(folder)):
        raise CheckpointError(
            f"{shown(name)} is a link that leaves the checkpoint's folder; only files inside it "
            "are read; copy the file itself into the folder"
        )
    if not stat.S_ISREG(mode):
        raise CheckpointError(
            f"{shown(name)} is no regular file; a checkpoint holds plain files; replace it"
        )
    return folder / name


def _roots(folder: Path) -> tuple[Path, ...]:
    real = folder.resolve()
    # hub cache: models--org--name/snapshots/<commit>/unet/config.json -> ../../../blobs/<hash>
    cached = real.parent.name == "snapshots"
    return (real, real.parent.parent / "blobs") if cached else (real,)


def _missing(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{place(folder)} has no file {shown(name)}; a checkpoint folder in diffusers' layout "
        "needs it; download the checkpoint again, or name another folder"
    )


def foreign(path: Path) -> str | None:
    """What a file is that begins like a pickle, an archive, a pointer or a page; else None.

    Decided by content; the name counts only for a file whose content says nothing.
    """
    with path.open("rb") as file:
        start = file.read(512)
    # safetensors: the header's length in 8 bytes, then the header, whatever the file is called
    if start[4:9] == b"\0\0\0\0{":
        return None
    if len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return f"a Python pickle; {CONVERT}"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, what, advice in _SIGNATURES:
        if text.startswith(signature):
            return f"{what}; {advice}"
    return f"a pickle by its name; {CONVERT}" if path.suffix in PICKLED_SUFFIXES else None


def read_text(path: Path) -> str:
    """The UTF-8 text of a small file; CheckpointError over 10 MB or for other bytes."""
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise CheckpointError(
            f"{place(path)} has {size} bytes; at most {LARGEST_JSON} are read; {AGAIN}"
        )
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{place(path)} is not UTF-8 text ({error.reason}); {AGAIN}"
        ) from None


def read_json(path: Path, *, endless: bool = False) -> dict[str, Any]:
    """The JSON object of a file: bounded, no name twice, no NaN; CheckpointError otherwise.

    endless: an infinite number is read as None, else refused as well.
    """
    text = read_text(path)
    try:
        return parse_json(text, endless)
    except (ValueError, RecursionError) as error:
        what = f"is {found}" if (found := foreign(path)) else f"is not a JSON object ({error})"
        raise CheckpointError(f"{place(path)} {what}; {AGAIN}") from None


def parse_json(text: str, endless: bool = False) -> dict[str, Any]:
    """A JSON object from text; ValueError for a name twice, NaN, or anything but an object.

    endless: an infinite number is read as None, else a ValueError as well.
    """
    value = json.loads(
        text,
        object_pairs_hook=_without_repeats,
        parse_constant=_no_end if endless else _finite,
        parse_float=_finite,
    )
    if type(value) is not dict:
        raise ValueError(f"it holds a {type(value).__name__}")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the name {shown(twice)} occurs twice")
    return found


def _no_end(text: str) -> None:
    if text == "NaN":
        _finite(text)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value


# --- writing -----------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well.

    At any moment the old or the new file is there, never half of one. CheckpointError naming the
    path if it cannot be written; the temporary file is removed whatever happens.
    """
    try:
        with whole.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise CheckpointError(
            f"cannot write {shown(str(path))}: {error.strerror or error}; the folder must be "
            "writable and have space; name another folder"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one piece (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object in one piece, keys in their order; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")
