"""Every error that diffusionlab raises on purpose, and the one way to tell the user a notice.

A message has three parts: what was given, what is allowed, what to do.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class DiffusionLabError(Exception):
    """Anything that diffusionlab refuses or cannot do."""


class InputError(DiffusionLabError, ValueError):
    """A value that the caller gave."""


class CheckpointError(DiffusionLabError):
    """A file or a config of a model."""


class TraceError(DiffusionLabError):
    """A saved trace."""


class NumericsError(DiffusionLabError):
    """NaN or infinity: the message names step, timestep and module."""


class MemoryExceeded(DiffusionLabError, RuntimeError):
    """Not enough memory: the message names stage, shape, needed, free and remedies.

    They are attributes too: `stage`, `shape` of what went in, `needed` and `free` in bytes (None
    where nobody told), `remedies` in the order in which to try them.
    """

    def __init__(
        self,
        message: str,
        *,
        stage: str = "",
        shape: tuple[int, ...] = (),
        needed: int | None = None,
        free: int | None = None,
        remedies: tuple[str, ...] = (),
    ):
        super().__init__(message)
        self.stage, self.shape, self.remedies = stage, shape, remedies
        self.needed, self.free = needed, free


def shown(value: object, width: int = 80) -> str:
    """The repr of a value, cut to `width` characters, as error messages quote it."""
    text = repr(value[: width + 1]) if isinstance(value, (str, bytes)) else repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def close_matches(name: str, names: Iterable[str]) -> str:
    """`did you mean 'ddim'? ` or nothing; names are compared without case and punctuation."""
    plain = {_plain(known): known for known in names}
    found = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(repr(plain[f]) for f in found)}? " if found else ""


def _plain(name: str) -> str:
    return "".join(c for c in name.lower().replace("+", "p") if c.isalnum())


def notice(text: str) -> str:
    """Print one line for the user and return it, for the record it also belongs in."""
    print(f"diffusionlab: {text}", file=sys.stderr)
    return text
