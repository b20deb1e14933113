"""Markdown, code and outputs as HTML: everything is on the page, nothing is fetched.

mistune and Pygments come with nbconvert; its own pages ask for scripts and styles from elsewhere.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

import mistune
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from diffusionlab.views.page import HINT

FOLDED = "One solution, and what its check says"


@dataclass
class Headings(mistune.HTMLRenderer):
    """Markdown's renderer with GitHub's anchors, coloured code, and a list of the headings."""

    found: list[tuple[int, str, str]] = field(default_factory=list)  # level, anchor, HTML

    def __post_init__(self) -> None:
        super().__init__(escape=False)

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        """A heading that can be linked to."""
        anchor = slug(text)
        if before := sum(slug(found) == anchor for _, _, found in self.found):
            anchor += f"-{before}"
        self.found.append((level, anchor, text))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def block_code(self, code: str, info: str | None = None) -> str:
        """A fenced block in the colours of its language."""
        return coloured(code, (info or "text").split()[0])


def slug(text: str) -> str:
    """The anchor that GitHub gives to a heading."""
    plain = html.unescape(re.sub(r"<[^>]+>", "", text)).lower().strip()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def coloured(code: str, language: str) -> str:
    """A block of code; the style sheet has the colours."""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    inner = highlight(code.rstrip(), lexer, HtmlFormatter(nowrap=True))
    return f'<pre class="code" tabindex="0"><code>{inner.rstrip()}</code></pre>\n'


def markdown(text: str, headings: Headings) -> str:
    """Markdown as HTML; wide tables scroll by themselves."""
    page = mistune.create_markdown(renderer=headings, plugins=["table", "strikethrough"])(text)
    return page.replace("<table>", '<div class="wide" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )


# ---- notebooks -------------------------------------------------------------------------------
def notebook_html(notebook: Any, headings: Headings) -> str:
    """The cells one below another, exercises folded, without the set-up of Colab."""
    cells = [cell for cell in notebook.cells if "setup" not in cell.metadata.get("tags", ())]
    return "\n".join(cell_html(cell, headings) for cell in cells)


def cell_html(cell: Any, headings: Headings) -> str:
    """One cell."""
    if cell.cell_type == "markdown":
        return f"<section>{markdown(without_badges(cell.source), headings)}</section>"
    outputs = "".join(f'<div class="out">{output_html(one)}</div>' for one in cell.outputs)
    inner = coloured(cell.source, "python") + outputs
    if "exercise" in cell.metadata.get("tags", ()):
        inner = f"<details><summary>{FOLDED}</summary>{inner}</details>"
    return f'<div class="cell">{inner}</div>'


def without_badges(text: str) -> str:
    """No line of badges, whose pictures lie elsewhere."""
    return re.sub(r"^\[!\[.*\]\(https?:.*\)\n*", "", text, flags=re.M)


def output_html(output: Any) -> str:
    """The richest form of an output that needs nothing but the page."""
    data = output.get("data", {})
    if "text/html" in data:
        return data["text/html"].replace(HINT, "")
    if "text/markdown" in data:
        return markdown(data["text/markdown"], Headings())
    text = output.get("text") or data.get("text/plain") or "\n".join(output.get("traceback", ()))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return f'<pre tabindex="0">{html.escape(plain.rstrip())}</pre>'
