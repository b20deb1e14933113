"""The pages of the course: notebooks, documents, an index; no link leaves the folder.

The folder mirrors the repository, so that a link only changes its ending.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cells import Headings, markdown, notebook_html
from PIL import Image

STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
POLICY = (
    "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#main">To the text</a>
<header class="site"><strong><a href="{up}index.html">diffusionlab</a></strong>{links}</header>
<div class="around{plain}">{toc}
<main id="main">
{body}
</main></div>
<footer class="site">{turns}</footer>
</body>
</html>
"""
DOCUMENTS = {  # in the head of every page, where they are there
    "docs/teaching.md": "For instructors",
    "docs/glossary.md": "Glossary",
    "docs/claims.md": "Claims",
    "docs/gallery/README.md": "Every plot",
    "README.md": "The package",
}
LINK = re.compile(r'\b(href|src)="(?!https?:|mailto:|data:|#)([^"#]*)((?:#[^"]*)?)"')
PICTURE = re.compile(r'<img alt="([^"]*)" src="data:image/\w+;base64,([^"]+)"')
TOLD = (r"^# (.+)", r"^\*\*(.+?\?)\*\*", r"^\*\*Time and hardware\.\*\* ([^.;]+)")  # first cells
THUMB = 480  # pixels
MARK = "WRITTEN_BY_MAKE_SITE.txt"


@dataclass(frozen=True)
class Card:
    """What the index tells of a notebook."""

    name: str
    title: str
    question: str
    time: str
    picture: str


def write_course(notebooks: Mapping[Path, Any], to: Path, root: Path) -> list[str]:
    """Write everything; the links that lead nowhere, in words."""
    if to.exists() and any(to.iterdir()) and not (to / MARK).exists():
        return [f"{to} holds files of somebody else; name a folder that is not there yet"]
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    (to / MARK).write_text("`make site` writes this folder anew.\n", encoding="utf-8")
    names = [path.stem for path in notebooks]
    documents = {name: title for name, title in DOCUMENTS.items() if (root / name).is_file()}
    site = Site(to, root, documents)
    for path, notebook in notebooks.items():
        headings = Headings()
        body = notebook_html(notebook, headings)
        site.write(f"notebooks/{path.name}", body, headings, turns_of(path.stem, names))
    for name in documents:
        site.document(name)
    while site.waiting:
        site.document(site.waiting.pop())
    site.index(cards_of(notebooks))
    return list(dict.fromkeys(site.dead))


class Site:
    """The folder that is written, what it still lacks, and which links lead nowhere."""

    def __init__(self, to: Path, root: Path, documents: Mapping[str, str]) -> None:
        self.to, self.root, self.documents = to, root, documents
        self.written: set[str] = set()
        self.waiting: set[str] = set()
        self.dead: list[str] = []

    def document(self, name: str) -> None:
        """A Markdown file of the repository as a page."""
        if name not in self.written:
            headings = Headings()
            text = (self.root / name).read_text(encoding="utf-8")
            self.write(name, markdown(text, headings), headings)

    def write(self, name: str, body: str, headings: Headings, turns: str = "") -> None:
        """One page; what it links to is copied, or written later."""
        self.written.add(name)
        title = re.sub(r"<[^>]+>", "", next((t for _, _, t in headings.found), name))
        linked = LINK.sub(lambda found: self.linked(name, *found.groups()), body)
        self.put(name, title, linked, toc_of(headings), turns)

    def put(self, name: str, title: str, body: str, toc: str, turns: str) -> None:
        """The file of a page that is ready."""
        up = "../" * (len(PurePosixPath(name).parts) - 1)
        links = "".join(f'<a href="{up}{page_of(d)}">{t}</a>' for d, t in self.documents.items())
        plain = "" if toc else " plain"
        text = PAGE.format(policy=POLICY, style=STYLE, title=title, up=up, links=links, toc=toc,
                           plain=plain, body=body, turns=turns)  # fmt: skip
        path = self.to / page_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def linked(self, name: str, attribute: str, target: str, anchor: str) -> str:
        """A link of a page to where its target lies in this folder."""
        place = html.unescape(target)
        path = PurePosixPath(os.path.normpath(PurePosixPath(name).parent / place)).as_posix()
        here = self.root / path
        if here.is_dir() and (here / "README.md").is_file():
            path, place, here = f"{path}/README.md", f"{place}/README.md", here / "README.md"
        if path.startswith("..") or not here.is_file():
            self.dead.append(f"{name} links to {target}, which is not there")
        elif path.endswith(".md"):
            self.waiting |= {path} - self.written
        elif not path.endswith(".ipynb"):
            (self.to / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(here, self.to / path)
        return f'{attribute}="{html.escape(page_of(place))}{anchor}"'

    def index(self, cards: list[Card]) -> None:
        """The first page: every notebook with its question."""
        rows = "".join(f"<li>{card_html(card)}</li>" for card in cards)
        body = (
            f"<h1>How a text-to-image model works</h1><p>{len(cards)} notebooks around a small "
            "model that is real: every picture on these pages was made by it, every number was "
            "measured on it. The pages need no network. To change a cell and run it, install the "
            "package.</p>"
            f'<ol class="cards">{rows}</ol>'
        )
        self.put("index.html", "diffusionlab: the course", body, "", "")


# ---- pieces of pages -------------------------------------------------------------------------
def page_of(name: str) -> str:
    """The page of a document or notebook; another file keeps its name."""
    return re.sub(r"\.(md|ipynb)$", ".html", name)


def toc_of(headings: Headings) -> str:
    """The headings of a page: beside the text, or folded above it where the screen is narrow."""
    shown = [one for one in headings.found if one[0] in (2, 3)]
    if len(shown) < 3:
        return ""
    items = "".join(
        f'<li{" class=deep" if level == 3 else ""}><a href="#{anchor}">{untagged(text)}</a></li>'
        for level, anchor, text in shown
    )
    wide = f'<nav class="toc" aria-label="On this page"><ol>{items}</ol></nav>'
    return f'{wide}<details class="toc"><summary>On this page</summary><ol>{items}</ol></details>'


def untagged(text: str) -> str:
    return re.sub(r"</?a\b[^>]*>", "", text)


def turns_of(name: str, names: list[str]) -> str:
    """Links to the notebook before and the one after."""
    place = names.index(name)
    before = f'<a href="{names[place - 1]}.html" rel="prev">← {said(names[place - 1])}</a>'
    after = place + 1 < len(names) and names[place + 1]
    return (before if place else "<span></span>") + (
        f'<a href="{after}.html" rel="next">{said(after)} →</a>' if after else ""
    )


def said(name: str) -> str:
    """`02_words_to_vectors` in words."""
    return name.replace("_", " ")


def cards_of(notebooks: Mapping[Path, Any]) -> list[Card]:
    """What the first cells say, and a picture out of each notebook that no other one has."""
    cards, shown = [], set()
    for path, notebook in notebooks.items():
        title, question, time = (
            (re.search(pattern, notebook.cells[0].source, re.M) or ["", ""])[1].strip()
            for pattern in TOLD
        )
        picture = picture_of(notebook, shown)
        shown.add(picture)
        cards.append(Card(path.stem, title, question, time, picture))
    return cards


def picture_of(notebook: Any, shown: set[str]) -> str:
    """A picture that was not shown yet, small: what the model made rather than a plot."""
    pages = [out.get("data", {}).get("text/html", "") for cell in notebook.cells
             for out in cell.get("outputs", ())]  # fmt: skip
    found = [(alt, opened(data)) for page in pages for alt, data in PICTURE.findall(page)]
    for alt, image in sorted(found, key=unlike_a_card):
        text = f'<img alt="{alt}" src="data:image/webp;base64,{thumb(image)}">'
        if image.height > 64 and text not in shown:
            return text
    return ""


def unlike_a_card(one: tuple[str, Image.Image]) -> tuple[bool, bool]:
    """Plots, and what is much wider than high, come last."""
    alt, image = one
    return image.width > 3 * image.height, not alt.startswith(("Side by side", "A picture"))


def thumb(image: Image.Image) -> str:
    """A small copy as base64."""
    image.thumbnail((THUMB, THUMB))
    buffer = io.BytesIO()
    image.save(buffer, format="webp", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def card_html(card: Card) -> str:
    title, question, time = map(html.escape, (card.title, card.question, card.time))
    return (
        f'<a href="notebooks/{card.name}.html">{card.picture}<b>{int(card.name[:2])} · {title}</b>'
        f"{question}<br><small>{time}</small></a>"
    )
