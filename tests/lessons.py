"""A small notebook that has everything a notebook of the course has, to be spoiled by tests."""

from __future__ import annotations

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

START = """# A lesson

**What is six times seven?**

Numbers that follow from numbers.

**You will be able to**

- multiply
- divide
  and go on
- guess

**Time and hardware.** About 45 minutes; the cells run in under two minutes on two CPU cores."""
PREDICT = "**Predict.** What is {}? The [latent](../docs/glossary.md#latent) does not help."
END = """## Three things to try

1. Another number.
2. A larger one.
3. None at all.

Next: [the README](../README.md)"""
EXERCISE = """answer = ...  # yours
### BEGIN SOLUTION
answer = {0} * 7
### END SOLUTION
check(answer, number * 7, "How much?", because=f"{{number}} times 7")"""
TALK = " ".join(["word"] * 15)


def lesson():
    """The notebook, as `make refresh` would leave it."""
    cells = [
        new_markdown_cell(START),
        code("from diffusionlab import claims\nfrom diffusionlab.course import check, self_check\n"
             "number = 6\nnumber"),
        new_markdown_cell(PREDICT.format("6 · 7") + "\n\n*What this does not show:* anything."),
        code('check(..., number * 7, "How much?", because=f"{number} times 7")', "How much? 42"),
        new_markdown_cell(PREDICT.format("6 · 6")),
        code('check(..., number**2, "How much?", because=f"{number} times itself")', "36"),
        new_markdown_cell(f"The product is 42, see above.\n{TALK}"),
    ]  # fmt: skip
    for exercise in (1, 2, 3):
        cells += [new_markdown_cell(f"**Exercise {exercise}.** Multiply. {TALK}"), solved(exercise)]
    cells += [
        new_markdown_cell("## What is said"),
        code("bench = number\nclaims.board(bench, 1)"),
        new_markdown_cell("## Check yourself"),
        code("self_check(\n    1,\n    number=number,\n)"),
        new_markdown_cell(END),
    ]
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    return nbformat.v4.new_notebook(cells=cells)


def code(source: str, shown: str = "6", **metadata):
    """A code cell with an output."""
    outputs = [new_output("execute_result", data={"text/plain": shown})]
    return new_code_cell(source, outputs=outputs, metadata=metadata)


def solved(number: int):
    """An exercise with its solution in place."""
    nbgrader = {"grade": False, "grade_id": f"01-{number}", "locked": False,
                "schema_version": 3, "solution": True, "task": False}  # fmt: skip
    hidden = {"source_hidden": True, "outputs_hidden": True}
    return code(EXERCISE.format("number"), tags=["exercise"], jupyter=hidden, nbgrader=nbgrader)
