"""Badges that open the notebooks elsewhere: Colab in each notebook, Binder in README.md.

    python tools/badges.py [owner/name] [--branch main]     (`make badges REPO=owner/name`)

Without an address the one of `git remote get-url origin` is taken, if it is on GitHub. Running it
again changes nothing; another address replaces the one before.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
REMOTE = re.compile(r"(?:https://|ssh://)?(?:[\w-]+@)?github\.com[:/](.+?)/?(?:\.git)?/?")
COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"
BADGE = re.compile(r"^\[!\[Open in (?:Colab|Binder)\]\(.*\)\n*", re.M)
SETUP = """# On Google Colab this installs the package; elsewhere it does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "git+https://github.com/{repo}@{branch}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)"""
NONE = """badges: where does this repository lie? No address was given, and none on GitHub is named
by `git remote get-url origin`. Say it: make badges REPO=owner/name"""


def main(arguments: list[str] | None = None, root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(prog="badges", description="Write badges of one repository.")
    parser.add_argument("repo", nargs="?", default="", help="owner/name on GitHub")
    parser.add_argument("--branch", default="main")
    given = parser.parse_args(arguments)
    repo = given.repo or origin(root)
    if not repo:
        sys.exit(NONE)
    if not ADDRESS.fullmatch(repo):
        sys.exit(f"badges: {repo!r} is no owner/name of GitHub, e.g. make badges REPO=owner/name")
    changed = [path for path in (root / "notebooks").glob("*.ipynb")
               if badge_notebook(path, repo, given.branch)]  # fmt: skip
    changed += [root / "README.md"] if badge_readme(root, repo, given.branch) else []
    print(f"{repo}: {len(changed)} files changed")


def origin(root: Path) -> str:
    """owner/name of the remote `origin`, or nothing where that is not on GitHub."""
    command = ["git", "-C", root, "remote", "get-url", "origin"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except OSError:  # no git
        return ""
    found = REMOTE.fullmatch(told)
    return found[1] if found else ""


def badge_notebook(path: Path, repo: str, branch: str) -> bool:
    """The badge at the end of the first cell and the set-up cell after it; whether they changed."""
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    link = f"{COLAB}/github/{repo}/blob/{branch}/notebooks/{path.name}"
    first = notebook.cells[0]
    text = BADGE.sub("", first.source).rstrip()
    first.source = f"{text}\n\n[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"
    source = SETUP.format(repo=repo, branch=branch)
    if "setup" not in notebook.cells[1].metadata.get("tags", ()):
        cell = new_code_cell(source, id="setup", metadata={"tags": ["setup"]})
        notebook.cells.insert(1, cell)
    notebook.cells[1].source = source
    return replaced(path, before, nbformat.writes(notebook) + "\n")


def badge_readme(root: Path, repo: str, branch: str) -> bool:
    """The badge below the title of README.md; whether it changed."""
    path = root / "README.md"
    before = path.read_text(encoding="utf-8")
    title, _, rest = BADGE.sub("", before).partition("\n\n")
    start = sorted((root / "notebooks").glob("*.ipynb"))[0].name
    link = f"{BINDER}/v2/gh/{repo}/{branch}?urlpath=lab/tree/notebooks/{start}"
    badge = f"[![Open in Binder]({BINDER}/badge_logo.svg)]({link})"
    return replaced(path, before, f"{title}\n\n{badge}\n\n{rest}")


def replaced(path: Path, before: str, after: str) -> bool:
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


if __name__ == "__main__":
    main()
