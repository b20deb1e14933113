"""The pages of the course: nothing is fetched, no link is dead, views live, exercises folded."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from course_pages import NAMES, live_lesson, repository, writing, written
from lessons import code
from notebook_runs import NOTEBOOKS, ROOT, read

WAYS_OUT = ("src", "href", "poster", "data", "action", "srcset")


class Page(HTMLParser):
    """What a page asks for, links to, and offers as an anchor."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.asked, self.links, self.anchors, self.text = [], [], set(), path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given.get("id"), given.get("name")} - {None}
        for name in WAYS_OUT:
            if given.get(name) and not given[name].startswith("data:"):
                (self.links if tag == "a" else self.asked).append(given[name])


def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def dead(site: Path) -> list[str]:
    """Links and pictures that are not in the folder, and anchors that are not on their page."""
    found, told = pages(site), []
    for path, page in found.items():
        for target in (*page.links, *page.asked):
            if re.match(r"https?:|mailto:", target):
                continue
            place, _, anchor = target.partition("#")
            there = (path.parent / place).resolve() if place else path
            if not there.is_file() or (anchor and anchor not in found[there].anchors):
                told.append(f"{path.relative_to(site)}: {target}")
    return told


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return written(tmp_path_factory.mktemp("course"))


def lesson_page(site) -> Page:
    return Page(site / "notebooks" / f"{NAMES[0]}.html")


def test_nothing_is_asked_of_another_place(site):
    for page in pages(site).values():
        assert not [target for target in page.asked if re.match(r"\w+:|//", target)]
        assert "@import" not in page.text and "url(" not in page.text.split("srcdoc")[0]
        assert "default-src 'none'" in page.text and "MathJax" not in page.text
        assert not re.search(r"<script(?! type)[^>]*src=", page.text)


def test_every_link_leads_somewhere_and_no_notebook_is_linked_to(site):
    assert dead(site) == []
    links = [link for page in pages(site).values() for link in page.links]
    assert "../docs/glossary.html#latent" in links and f"{NAMES[1]}.html" in links
    assert not [link for link in links if link.endswith((".ipynb", ".md"))]
    assert (site / "docs" / "a.png").is_file()


def test_a_dead_link_is_told(tmp_path):
    root, notebook = repository(tmp_path / "root"), live_lesson(NAMES[0])
    notebook.cells[6].source = "[a](../docs/nothing.md) ![b](c.png) [d](../../root/README.md)"
    told = writing.write_course({root / "notebooks" / "01_a.ipynb": notebook}, tmp_path / "s", root)
    assert [line.split(" links to ")[1] for line in told][:3] == [
        "../docs/nothing.md, which is not there",
        "c.png, which is not there",
        "../../root/README.md, which is not there",
    ]


def test_views_are_alive_and_stills_are_for_paper(site):
    page = lesson_page(site)
    assert page.text.count("<iframe sandbox=") == 2
    assert "trust the notebook" not in page.text
    assert ".out figure:has(+ iframe) { display: none; }" in page.text


def test_exercises_are_folded_with_their_solutions(site):
    text = lesson_page(site).text
    folds = re.findall(r'<div class="cell"><details><summary>(.+?)</summary>', text)
    assert len(folds) == 3 and "solution" in folds[0]
    assert text.index(folds[0]) < text.index("BEGIN SOLUTION")


def test_headings_turns_and_the_index(site):
    text = lesson_page(site).text
    assert '<h2 id="check-yourself">' in text and text.count('href="#check-yourself"') == 2
    assert f'<a href="{NAMES[1]}.html" rel="next">02 another →</a>' in text
    assert 'rel="prev"' not in text
    index = (site / "index.html").read_text("utf-8")
    assert "1 · A lesson" in index and "What is six times seven?" in index
    assert "About 45 minutes<" in index and index.count("<img") == 2


def test_what_runs_only_elsewhere_is_left_out(tmp_path):
    root, notebook = repository(tmp_path / "root"), live_lesson(NAMES[1])
    badge = "[![Open in Colab](https://a.invalid/b.svg)](https://a.invalid/c)\n\n"
    notebook.cells[0].source += "\n\n" + badge
    notebook.cells.insert(1, code("install()", tags=["setup"]))
    notebook.cells[4].outputs[0].data["text/plain"] = "<b>\x1b[31m6 & 7"
    path = root / "notebooks" / f"{NAMES[1]}.ipynb"
    assert writing.write_course({path: notebook}, tmp_path / "s", root) == []
    text = (tmp_path / "s" / "notebooks" / f"{NAMES[1]}.html").read_text("utf-8")
    assert "a.invalid" not in text and "install()" not in text
    assert "&lt;b&gt;6 &amp; 7" in text


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    root = repository(tmp_path / "root")
    assert "somebody else" in writing.write_course({}, root, root)[0]
    assert (root / "README.md").is_file()
    assert writing.write_course({}, tmp_path / "s", root) == []
    assert writing.write_course({}, tmp_path / "s", root) == [], "its own it writes anew"


# ---- the course itself -----------------------------------------------------------------------
@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The committed notebooks and documents as pages; and the links of theirs that are dead."""
    folder = tmp_path_factory.mktemp("site")
    told = writing.write_course({path: read(path) for path in NOTEBOOKS}, folder, ROOT)
    return folder, told


def test_the_course_has_no_dead_link(course):
    folder, told = course
    assert told == [] and dead(folder) == []
    assert {path.stem for path in (folder / "notebooks").glob("*.html")} == {
        path.stem for path in NOTEBOOKS
    }


def test_the_command_says_what_it_wrote_and_what_it_does_not_know(tmp_path, capsys, monkeypatch):
    import importlib.util

    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("pages", ROOT / "tools/pages/__main__.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    monkeypatch.setattr(pages, "ROOT", root := repository(tmp_path / "root"))
    monkeypatch.setattr(pages, "NOTEBOOKS", root / "notebooks")
    pages.main(["--no-run", "--to", str(tmp_path / "s")])
    assert f"{len(NAMES)} notebooks, 0 of them run" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no notebook begins with '99'"):
        pages.main(["--only", "99"])
