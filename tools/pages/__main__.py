"""The course as a folder of pages that needs no network and no kernel, its views alive: site/.

    python tools/pages [--no-run] [--only 01] [--to site]      (`make site`)

Every notebook is run, for the frames of its views are left out of what is committed; `--no-run`
takes the committed outputs, `--only` runs some of them alone. `DIFFUSIONLAB_MODEL` is the model.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import nbformat  # noqa: E402
import refresh  # noqa: E402
from writing import write_course  # noqa: E402

NOTEBOOKS = ROOT / "notebooks"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="site", description="Write the course as pages.")
    parser.add_argument("--run", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--only", default="", help="which to run, e.g. 01,08")
    parser.add_argument("--to", type=Path, default=ROOT / "site", help="the folder to write")
    given = parser.parse_args(arguments)
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    only = given.only.split(",") if given.only else [path.stem[:2] for path in paths]
    unknown = set(only) - {path.stem[:2] for path in paths}
    if unknown:
        sys.exit(f"site: no notebook begins with {sorted(unknown)[0]!r}; one does with 01")
    running = {path for path in paths if given.run and path.stem[:2] in only}
    notebooks = {path: taken(path, path in running) for path in paths}
    told = write_course(notebooks, given.to, ROOT)
    if told:
        sys.exit("\n".join(f"site: {line}" for line in told))
    print(f"{given.to / 'index.html'}: {len(notebooks)} notebooks, {len(running)} of them run")


def taken(path: Path, run: bool):
    """A notebook with its committed outputs, or with those of a run of now."""
    notebook = nbformat.read(path, as_version=4)
    if not run:
        return notebook
    print(f"{path.name} …", end="", flush=True)
    started = time.monotonic()
    notebook = refresh.cleaned(refresh.executed(notebook, path.parent), frames=True)
    print(f" {time.monotonic() - started:.0f} s")
    return notebook


if __name__ == "__main__":
    main()
