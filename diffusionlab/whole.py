"""Files that are there as a whole or not at all, whatever ends the program meanwhile."""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DAY = 86_400  # seconds after which a leftover belongs to nobody
LONGEST = 100  # characters of a file's name that its temporary one repeats


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; the file takes its place when the block ends well.

    At any moment the old or the new file is there, never half of one, and nothing is left behind
    whatever happens; a killed process leaves its temporary file, which a later call for the same
    path removes after a day. Makes the folder. Errors: OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    temporary = beside(path)
    try:
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _to_disk(path.parent)


def beside(path: Path, ending: str = "tmp") -> Path:
    """A new name in the same folder that `sweep` knows as a leftover (endings end in "tmp")."""
    name = path.name[:LONGEST]
    return path.with_name(f".{name}.{os.getpid()}.{secrets.token_hex(4)}.{ending}")


def sweep(path: Path, seconds: float = DAY) -> None:
    """Remove what killed writers of this very file left behind, more than a day ago."""
    for left in path.parent.glob(f".{glob.escape(path.name[:LONGEST])}.*.tmp"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - seconds:
                left.unlink()


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
