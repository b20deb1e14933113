"""The README's Python runs as it stands, from top to bottom, and its pictures are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs_as_it_stands(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what it saves is not left in the repository
    exec(compile(BLOCKS[number], f"README, block {number}", "exec"), {})  # noqa: S102


def test_the_pictures_and_files_that_it_names_are_there():
    named = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    named += re.findall(r"`((?:diffusionlab|docs|tests|benchmarks|tools)/[\w./]+)`", README)
    assert named and not [name for name in named if not (ROOT / name).exists()]
