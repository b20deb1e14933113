"""The instructor's page: what it links to, names and calls is there, and its plans add up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffusionlab as dl
from diffusionlab import claims
from diffusionlab.cli import parser
from diffusionlab.views import View

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "teaching.md"
VIEWS = ("explore", "race", "diff", "explore_schedule", "explore_text", "exhibit")


def text() -> str:
    return PAGE.read_text(encoding="utf-8")


def snippet() -> str:
    return re.search(r"```python\n(.+?)```", text(), re.S)[1]


def section(name: str) -> str:
    return re.search(rf"^## {re.escape(name)}.*?\n(.*?)(?=^## |\Z)", text(), re.S | re.M)[1]


# ---- what is named is there ----------------------------------------------------------------------
def missing(page: str) -> list[str]:
    """What a page names and does not exist: links, make targets, claims, names of the package."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    plain = re.sub(r"```.*?```|#\w+", "", page, flags=re.S)
    return [
        *(link for link in links if not (PAGE.parent / link).exists()),
        *(f"make {name}" for name in re.findall(r"`make (\w+)", page) if name not in targets),
        *(name for name in re.findall(r"\b[A-I]\d+\b", plain) if name not in claims.CLAIMS),
        *(f"dl.{name}" for name in re.findall(r"\bdl\.(\w+)", page) if not hasattr(dl, name)),
        *(f"claims.{name}" for name in re.findall(r"`claims\.(\w+)\(", page)
          if not hasattr(claims, name)),
        *(f"diffusionlab {name}" for name in re.findall(r"`diffusionlab (\w+)`", page)
          if name not in commands()),
    ]  # fmt: skip


def commands() -> set[str]:
    return {name for action in parser()._subparsers._group_actions for name in action.choices}


def test_what_the_page_names_is_there():
    assert not missing(text())


@pytest.mark.parametrize(
    "line",
    ["[x](gone.md)", "`make coffee`", "says G99", "`dl.project`", "`claims.prove(1)`",
     "`diffusionlab brew`"],
)  # fmt: skip
def test_what_is_not_there_is_told(line):
    assert len(missing(line)) == 1


def test_every_notebook_and_every_view_has_its_place():
    notebooks = {name[:2] for name in re.findall(r"notebooks/(\d\d_\w+)\.ipynb", text())}
    assert notebooks == {f"{number:02d}" for number in range(1, 11)}
    table = section("Which view when")
    assert all(f"`dl.{view}`" in table for view in (*VIEWS, "playground"))


def test_wrong_answers_name_claims_of_every_notebook_but_the_last():
    named = re.findall(r"\b[A-I]\d+\b", section("Answers that you will hear"))
    assert {claims.CLAIMS[name].notebook for name in named} >= set(range(1, 10))


def test_no_figure_of_a_run_is_typed():
    """Numbers come from cells: the page has minutes and names, no decimal and no percent."""
    assert not re.search(r"\d[.,]\d|\d ?%", re.sub(r"```.*?```", "", text(), flags=re.S))


# ---- the plans add up ----------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "total"), [("45 minutes", 45), ("90 minutes", 90)])
def test_a_plan_has_no_gap(name, total):
    spans = re.findall(r"^\| (\d+)–(\d+) \|", section(name), re.M)
    ends = [0, *(int(end) for _, end in spans)]
    assert [int(start) for start, _ in spans] == ends[:-1] and ends[-1] == total


def test_each_session_has_its_ninety_minutes():
    rows = re.findall(r"^\| (\d) · .*$", section("Four sessions"), re.M)
    lines = [line for line in section("Four sessions").splitlines() if re.match(r"\| \d · ", line)]
    minutes = [sum(map(int, re.findall(r"(\d+) min\b", line))) for line in lines]
    assert rows == ["1", "2", "3", "4"] and minutes == [90, 85, 85, 85]  # five for the self-check


def headings_named() -> list[tuple[str, list[str]]]:
    """Of each part of a plan that links a notebook: its name, and the headings in italics after."""
    plans = section("90 minutes") + section("Four sessions")
    parts = re.findall(r"notebooks/(\d\d_\w+)\.ipynb\)(.*?)(?=\[\d\d\]|\|)", plans)
    return [(name, re.findall(r"\*([^*]+)\*", re.sub(r"\*\*.+?\*\*", "", rest)))
            for name, rest in parts]  # fmt: skip


def test_a_plan_says_which_sections_of_a_notebook_are_done():
    named = headings_named()
    assert {name[:2] for name, _ in named} == {f"{number:02d}" for number in range(1, 11)}
    assert all(there for _, there in named)
    for name, there in named:
        page = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        cells = ["".join(cell["source"]) for cell in page["cells"]]
        has = re.findall(r"^#+ (.+)$", "\n".join(cells), re.M)
        assert [one for one in there if one not in has] == [], name


# ---- the pages -----------------------------------------------------------------------------------
def test_the_pages_are_written(tiny_folder, tmp_path):
    code = snippet().replace("dl.load()", f"dl.load({str(tiny_folder)!r})")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = {path.name for path in tmp_path.iterdir()}
    named = set(re.findall(r"`(\d_\w+\.html)`", text()))
    assert named <= written and len(written) == len(VIEWS)
    assert all(view in snippet() for view in (f"dl.{name}(" for name in VIEWS))
    assert all("<script" in (tmp_path / name).read_text(encoding="utf-8") for name in written)


def test_every_view_of_the_page_can_be_presented():
    kit = (Path(dl.__file__).parent / "views" / "js" / "kit.js").read_text(encoding="utf-8")
    assert '"p"' in kit and "#present" in kit and hasattr(View, "save")
