"""The library's own source on the page: what a notebook shows is what runs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusionlab.errors import InputError, shown

DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, repr=False)
class Source:
    """The text of one function or class, and where it stands."""

    text: str
    place: str

    def __repr__(self) -> str:
        return f"# {self.place}\n{self.text}"

    def _repr_markdown_(self) -> str:
        """A fenced block, which notebooks highlight in their own colours, light or dark."""
        fence = "`" * max(3, 1 + _longest_ticks(self.text))
        return f"`{self.place}`\n\n{fence}python\n{self.text}\n{fence}"


def show_source(function: Callable | type, *, docstring: bool = True) -> Source:
    """The source of a function, method or class: highlighted in a notebook, plain text elsewhere.

    Decorators are looked through. Without `docstring` the first line of each docstring stands for
    the whole, with an ellipsis where more was written. Errors: InputError for what has no Python
    source of its own.
    """
    inner: Any = inspect.unwrap(function) if callable(function) else function
    try:
        lines, start = inspect.getsourcelines(inner)
        path = Path(inspect.getsourcefile(inner) or "")
    except (TypeError, OSError):
        raise InputError(
            f"{shown(function)} has no Python source; a function or a class is allowed: "
            "name it without calling it, e.g. show_source(diffusionlab.generate)"
        ) from None
    text = textwrap.dedent("".join(lines)).rstrip()
    return Source(text if docstring else _folded(text), f"{_short(path)}, line {start}")


def _folded(text: str) -> str:
    """The source with every docstring of several lines cut to its first."""
    lines = text.split("\n")
    documented = [n for n in ast.walk(ast.parse(text)) if isinstance(n, DOCUMENTED)]
    told = [n.body[0] for n in documented if ast.get_docstring(n)]
    for first, last in sorted(((d.lineno, d.end_lineno or d.lineno) for d in told), reverse=True):
        if last > first:
            lines[first - 1 : last] = [f"{lines[first - 1]} …{lines[last - 1].rstrip()[-3:]}"]
    return "\n".join(lines)


def _short(path: Path) -> str:
    """`diffusionlab/generate.py` of a file of this package, else the file's name alone."""
    home = Path(__file__).parents[2]
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else path.name


def _longest_ticks(text: str) -> int:
    """The length of the longest run of backticks, so that a fence can be longer."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest
