"""Files that are there as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..whole import replacing


def write_atomically(path: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path` that takes its place: never a torn file."""
    with replacing(path) as temporary:
        write(temporary)
    return path


def write_json(path: Path, content: object) -> Path:
    """One JSON file, written atomically; NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    return write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
