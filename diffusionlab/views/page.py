"""The page around a view's script, and how text gets into it without becoming a part of it.

The page holds everything and may fetch nothing (its content security policy forbids it). Data
stand as JSON in an element that is never run; the script puts texts on the page as texts.
"""

from __future__ import annotations

import base64
import html
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.whole import replacing

ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main id="root"></main>
<noscript><p>{alt} This page draws it with a script, and scripts are switched off here.</p></noscript>
<script type="application/json" id="state">{state}</script>
<script type="module">
{source}
{host}
</script>
</body>
</html>
"""  # noqa: E501
HINT = "Run this cell, or trust the notebook, to make this interactive."


def page_of(script: str, title: str, alt: str, state: dict[str, Any]) -> str:
    """One page that draws `state` with the script of that name; all texts escaped."""
    return PAGE.format(
        policy=POLICY,
        title=escaped(title),
        alt=escaped(alt),
        style=style(script),
        state=embedded(state),
        source=source(script),
        host=_read("host.js"),
    )


def escaped(text: str) -> str:
    """A text as HTML shows it; half a character (a lone surrogate) becomes a question mark."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)


def embedded(value: Any) -> str:
    """A value as JSON that can stand inside a script element: ASCII, without <, > and &."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda found: ESCAPES[found[0]], text)


def still_html(picture: bytes, alt: str, page: str, title: str, height: int) -> str:
    """A figure, then the page in a sandboxed frame: what a notebook's output holds.

    Where frames are not shown (GitHub, a notebook that is not trusted) the figure stays.
    """
    told = escaped(alt)
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure style="margin:0"><img alt="{told}" src="data:image/webp;base64,{data}" '
        f'style="max-width:100%;height:auto;background:#fff"><figcaption>{told} {HINT}</figcaption>'
        f"</figure>{frame_of(page, title, height)}"
    )


def frame_of(page: str, title: str, height: int) -> str:
    """A page in a frame that may run its script and nothing else."""
    return (
        f'<iframe sandbox="allow-scripts" allow="fullscreen" title="{escaped(title)}" '
        f'style="width:100%;height:{height:d}px;border:0" '
        f'srcdoc="{html.escape(page, quote=True)}"></iframe>'
    )


# ---- scripts and style -------------------------------------------------------------------------
@cache
def source(script: str) -> str:
    """The module of that name and, before it, the files that its first line says it is made with.

    The first line of a script is `// with: kit.js, player.js, own.css`; files are put in front.
    """
    own = f"{script}.js"
    return "\n".join([*(_read(n) for n in _made_with(script) if n.endswith(".js")), _read(own)])


@cache
def style(script: str) -> str:
    """The style sheet of all views, then those that the script's first line names."""
    own = [name for name in _made_with(script) if name.endswith(".css")]
    return "\n".join(map(_read, ["view.css", *own]))


def _made_with(script: str) -> list[str]:
    first, found, names = _read(f"{script}.js").split("\n", 1)[0].partition("// with:")
    return [name.strip() for name in names.split(",")] if found and not first else []


def _read(name: str) -> str:
    text = (files("diffusionlab.views") / "js" / name).read_text(encoding="utf-8")
    if "</" in text:  # could end the script element early
        raise ValueError(f"views/js/{name} holds '</': split that text")
    return text


# ---- values ------------------------------------------------------------------------------------
def plain(value: Any) -> Any:
    """A number for JSON: what is not finite becomes "∞", "−∞" or "NaN", which the page shows."""
    number = float(value)
    if np.isfinite(number):
        return number
    return "NaN" if np.isnan(number) else "∞" if number > 0 else "−∞"


def packed(array: Any, kind: str = "float32") -> dict[str, Any]:
    """An array as JSON: its shape and its bytes (little endian) in base64.

    `kind` is uint8, float16 or float32; the page reads it as `unpack(…)`.
    """
    values = np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<"))
    data = base64.b64encode(values.tobytes()).decode("ascii")
    return {"kind": kind, "shape": list(values.shape), "data": data}


def write_page(page: str, path: Path) -> Path:
    """Write a page as a whole or not at all; returns its path. Errors: InputError, OSError."""
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"path is {shown(str(path))}; a file that ends in .html is allowed")
    with replacing(path) as temporary:
        temporary.write_bytes(page.encode("utf-8"))
    return path
