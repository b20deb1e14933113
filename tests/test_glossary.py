"""docs/glossary.md is what its generator writes, and every link into it arrives."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from diffusionlab.vocabulary import GLOSSARY, Term

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "glossary.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def glossary():
    """tools/glossary.py as a module."""
    spec = importlib.util.spec_from_file_location("glossary", ROOT / "tools" / "glossary.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: str) -> list[str]:
    """The anchors of a page as GitHub makes them: lower case, letters, digits, - and _ kept."""
    titles = re.findall(r"^## (.+)$", page, re.M)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def dead(links: list[str], page: str) -> list[str]:
    return sorted(set(links) - set(anchors(page)))


def test_the_committed_page_is_what_the_generator_writes(glossary):
    assert PAGE.read_text(encoding="utf-8") == glossary.page(), "run `make glossary`"


def test_every_word_has_an_anchor_of_its_own():
    found = anchors(PAGE.read_text(encoding="utf-8"))
    assert sorted(found) == sorted(term.anchor for term in GLOSSARY)
    assert len(set(found)) == len(found)
    assert {"karras_sigma", "attention-map", "u-net", "x0"} <= set(found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_link_of_a_notebook_arrives(path, glossary):
    links = re.findall(r"glossary\.md#([\w\-.]+)", path.read_text(encoding="utf-8"))
    assert not dead(links, PAGE.read_text(encoding="utf-8")), "add a Term, then `make glossary`"


def test_a_dead_link_and_a_changed_word_would_be_told(glossary):
    assert dead(["latent", "laten"], PAGE.read_text(encoding="utf-8")) == ["laten"]
    unmet = next(term for term in GLOSSARY if term.anchor not in glossary.meetings())
    assert glossary.entry(unmet) in PAGE.read_text(encoding="utf-8")
    assert glossary.entry(Term("timestep", "another thing")) not in glossary.page()


def test_names_of_code_stand_as_code_and_others_as_words(glossary):
    told = glossary.entry(Term("a b", "a thing", ("x_y", "the z")), [ROOT / NOTEBOOKS[0]])
    assert told.startswith("\n## a b\n\nA thing.\\\n*Also seen as:* `x_y`, the z.\\\n*Met in:* [")
    assert Term("Zero (U-Net)_x", "").anchor == "zero-u-net_x"
