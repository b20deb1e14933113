"""What a notebook keeps of a panel: the widget while a kernel runs, else pictures and code."""

from __future__ import annotations

from typing import Any

from diffusionlab.display import escaped, html_of
from diffusionlab.errors import InputError
from diffusionlab.trace.summary import counted

HINT = "Playground. It lives while its kernel does: if no panel follows below, run this cell again."


def has_kernel() -> bool:
    """Whether a notebook's kernel runs here, which a live panel needs."""
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def text_of(panel: Any) -> str:
    """The panel in words."""
    try:
        line = panel.line
    except InputError as error:
        line = str(error)
    return f"Playground, {counted(len(panel.runs), 'run')} kept; now: {line}"


def still_of(panel: Any, folded: bool = False) -> dict[str, str]:
    """The kept runs as pictures and the form as code, for a page without a kernel."""
    shown = panel.comparison(*panel.numbers) if len(panel.runs) > 1 else panel.trace
    pictures = "" if shown is None else html_of(shown)
    body = f'{pictures}<pre style="white-space:pre-wrap">{escaped(text_of(panel))}</pre>'
    if folded:
        body = f"<details><summary>{HINT}</summary>{body}</details>"
    else:
        body = f"<div><p>{HINT}</p>{body}</div>"
    return {"text/html": body, "text/plain": text_of(panel)}


def bundle_of(panel: Any) -> dict[str, Any]:
    """One output: the widget, or the still; never both (JupyterLab shows an error for the pair)."""
    if not has_kernel():
        return still_of(panel)
    shown = panel.box._repr_mimebundle_()
    shown = shown[0] if isinstance(shown, tuple) else shown
    return {**shown, "text/plain": text_of(panel)}


def display_of(panel: Any) -> None:
    """What a bare name at the end of a cell does: a folded still that stays, then the panel."""
    from IPython.display import display

    if has_kernel():
        display(still_of(panel, folded=True), raw=True)
    display(bundle_of(panel), raw=True)
