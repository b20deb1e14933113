"""The student version has no solutions, and everything else of the notebooks."""

from __future__ import annotations

import nbformat
import pytest
from lessons import lesson
from notebook_course import about_links
from notebook_lint import ROOT, tags
from notebook_runs import NOTEBOOKS, load_tool, read

student = load_tool("student")


def test_solutions_and_outputs_go_and_the_rest_stays():
    before = lesson()
    after = student.student_version(before)
    nbformat.validate(after)
    assert before == lesson() | {"cells": before.cells}, "the original is not changed"
    assert [cell.id for cell in after.cells] == [cell.id for cell in before.cells]
    assert after.cells[8].source == (
        "answer = ...  # yours\n# your code here\n"
        'check(answer, number * 7, "How much?", because=f"{number} times 7")'
    )
    assert after.cells[8].metadata.nbgrader == before.cells[8].metadata.nbgrader
    assert "exercise" in tags(after.cells[8]) and "jupyter" not in after.cells[8].metadata
    assert before.cells[8].metadata.jupyter.source_hidden, "the check can fail"
    for old, new in zip(before.cells, after.cells, strict=True):
        assert not new.get("outputs") and not new.get("execution_count")
        assert new.source == old.source or "exercise" in tags(old)


@pytest.mark.parametrize(
    ("source", "left"),
    [
        ("a\n### BEGIN SOLUTION\nb\n### END SOLUTION\nc", "a\n# your code here\nc"),
        ("### BEGIN SOLUTION\nb\n### END SOLUTION", "# your code here"),
        (
            "if a:\n    ### BEGIN SOLUTION\n    b\n    ### END SOLUTION",
            "if a:\n    # your code here",
        ),
        ("### BEGIN SOLUTION\nb\n### END SOLUTION\n" * 2, "# your code here\n" * 2),
        ("plain", "plain"),
    ],
)
def test_what_is_left_of_a_cell(source, left):
    assert student.without_solution(source) == left


@pytest.mark.parametrize("source", ["### BEGIN SOLUTION\nb", "b\n### END SOLUTION"])
def test_half_a_mark_is_told(source):
    with pytest.raises(ValueError, match="one mark only"):
        student.without_solution(source)


def test_the_folder_is_written_beside_the_docs_and_no_work_is_lost(tmp_path, capsys, monkeypatch):
    student.main(["--to", str(tmp_path)])
    assert f"{len(NOTEBOOKS)} notebooks" in capsys.readouterr().out
    assert [path.name for path in sorted(tmp_path.glob("*"))] == [path.name for path in NOTEBOOKS]
    student.main(["--to", str(tmp_path)])  # untouched: written again
    worked = read(tmp_path / NOTEBOOKS[0].name)
    next(c for c in worked.cells if c.cell_type == "code").execution_count = 1
    nbformat.write(worked, tmp_path / NOTEBOOKS[0].name)
    with pytest.raises(SystemExit, match="has been run"):
        student.main(["--to", str(tmp_path)])
    student.main(["--to", str(tmp_path), "--force"])
    assert not student.is_worked_in(tmp_path / NOTEBOOKS[0].name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_solution_is_left_in_any_notebook(path):
    full, bare = read(path), student.student_version(read(path))
    assert "SOLUTION" not in str(bare)
    solutions = [found[0] for cell in full.cells for found in student.REGION.finditer(cell.source)]
    for cell in bare.cells:
        if "exercise" in tags(cell):
            assert student.PLACE in cell.source
            assert not any(text.split("\n")[1].strip() in cell.source for text in solutions)
    dead = [told for told in about_links(bare, ROOT / "notebooks") if told.startswith("dead")]
    assert dead == [told for told in about_links(full, ROOT / "notebooks") if "dead" in told]
