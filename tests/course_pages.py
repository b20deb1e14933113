"""tools/pages on a course of two lessons with live views, for the tests of the site."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from lessons import lesson
from nbformat.v4 import new_output
from notebook_runs import ROOT
from views_cases import CASES

sys.path.insert(0, str(ROOT / "tools" / "pages"))

import writing

GLOSSARY = '# Words\n\n<a id="latent"></a>\n\n## latent\n\n| a | b |\n|---|---|\n| 1 | 2 |\n'
NAMES = ("01_a_lesson", "02_another")


def live_lesson(name: str):
    """A lesson in which a view and a self-check are alive."""
    notebook = lesson()
    for number, case in ((5, "explore"), (-2, "quiz")):
        data = CASES[case]("plain")._repr_mimebundle_()
        notebook.cells[number].outputs = [new_output("display_data", data=dict(data))]
    after = NAMES[NAMES.index(name) + 1 :]
    link = f"{after[0]}.ipynb" if after else "../README.md"
    notebook.cells[-1].source = notebook.cells[-1].source.replace("../README.md", link)
    return notebook


def repository(folder: Path) -> Path:
    """A folder with notebooks, documents and a picture, as this repository has them."""
    for name in ("notebooks", "docs/gallery"):
        (folder / name).mkdir(parents=True)
    (folder / "docs" / "glossary.md").write_text(GLOSSARY, encoding="utf-8")
    (folder / "docs" / "a.png").write_bytes((ROOT / "docs" / "gallery.png").read_bytes())
    text = "# The package\n\n![Eight pictures](docs/a.png)\n\n[Words](docs/glossary.md#latent)"
    (folder / "README.md").write_text(text, encoding="utf-8")
    for name in NAMES:
        nbformat.write(live_lesson(name), folder / "notebooks" / f"{name}.ipynb")
    return folder


def written(folder: Path) -> Path:
    """The site of that repository."""
    root = repository(folder / "root")
    notebooks = {root / "notebooks" / f"{name}.ipynb": live_lesson(name) for name in NAMES}
    dead = writing.write_course(notebooks, folder / "site", root)
    assert dead == []
    return folder / "site"
