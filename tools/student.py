"""The notebooks as a student gets them: student/, without solutions and without outputs.

    python tools/student.py [--to student] [--force]      (`make student`)

What stands between `### BEGIN SOLUTION` and `### END SOLUTION` becomes `# your code here`, the
cells of exercises are unfolded, and nbgrader's metadata stay. A notebook that somebody has run
there is somebody's work: it is only replaced with --force.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
BEGIN, END, PLACE = "### BEGIN SOLUTION", "### END SOLUTION", "# your code here"
REGION = re.compile(rf"^([ \t]*){BEGIN}[ \t]*\n.*?^[ \t]*{END}[ \t]*$", re.S | re.M)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="student", description="Write the student version.")
    parser.add_argument("--to", type=Path, default=ROOT / "student", help="the folder to write")
    parser.add_argument("--force", action="store_true", help="replace notebooks that were run")
    given = parser.parse_args(arguments)
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    worked = [path.name for path in paths if is_worked_in(given.to / path.name)]
    if worked and not given.force:
        sys.exit(f"student: {given.to / worked[0]} has been run; move it away, or --force")
    given.to.mkdir(parents=True, exist_ok=True)
    for path in paths:
        nbformat.write(student_version(nbformat.read(path, as_version=4)), given.to / path.name)
    print(f"{given.to}: {len(paths)} notebooks without solutions")


def student_version(notebook):
    """A copy of the notebook without its solutions and outputs."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(source=without_solution(cell.source), outputs=[], execution_count=None)
            cell.metadata = unfolded(cell.metadata)
    return notebook


def without_solution(source: str) -> str:
    """The code with a place for the reader's own. ValueError for a mark without its other one."""
    left = REGION.sub(rf"\1{PLACE}", source)
    if BEGIN in left or END in left:
        raise ValueError(f"a solution has one mark only, {BEGIN} or {END}:\n{source}")
    return left


def unfolded(metadata):
    """The metadata of a cell that shows its source and its output."""
    kept = {key: value for key, value in metadata.items() if key != "jupyter"}
    jupyter = {k: v for k, v in metadata.get("jupyter", {}).items() if not k.endswith("_hidden")}
    return nbformat.from_dict(kept | ({"jupyter": jupyter} if jupyter else {}))


def is_worked_in(path: Path) -> bool:
    """Whether a notebook is there in which a cell was run."""
    if not path.is_file():
        return False
    cells = nbformat.read(path, as_version=4).cells
    return any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


if __name__ == "__main__":
    main()
