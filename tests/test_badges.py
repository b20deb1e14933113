"""Badges and Binder: written from an address that is given or known, never from an invented one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from notebook_course import about_course
from notebook_lint import about_cells, about_code, about_outputs, code_cells
from notebook_runs import NOTEBOOKS, ROOT, load_tool, read

badges = load_tool("badges")


@pytest.fixture
def copied(tmp_path):
    """The notebooks and README.md, in a folder of their own."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    badges.main(["someone/diffusionlab"], tmp_path)
    return tmp_path


def texts(folder) -> dict[str, str]:
    return {
        path.name: path.read_text("utf-8") for path in (*folder.glob("*/*"), *folder.glob("*.md"))
    }


def test_the_badge_and_the_setup_cell_and_nothing_else(copied):
    for path in NOTEBOOKS:
        old, new = read(path), read(copied / "notebooks" / path.name)
        nbformat.validate(new)
        had = "setup" in old.cells[1].metadata.get("tags", ())
        assert new.cells[2:] == old.cells[2 if had else 1 :]
        first, badge = new.cells[0].source.rsplit("\n\n", 1)
        assert badges.BADGE.sub("", old.cells[0].source).rstrip() == first
        assert badge.endswith(f"/github/someone/diffusionlab/blob/main/notebooks/{path.name})")
    readme = (copied / "README.md").read_text("utf-8")
    assert readme.startswith("# diffusionlab\n\n[![Open in Binder](https://mybinder.org/badge")
    assert f"gh/someone/diffusionlab/main?urlpath=lab/tree/notebooks/{NOTEBOOKS[0].name})" in readme


def test_running_it_again_changes_nothing_and_another_address_replaces(copied, capsys):
    before = texts(copied)
    badges.main(["someone/diffusionlab"], copied)
    assert "0 files changed" in capsys.readouterr().out.splitlines()[-1]
    assert texts(copied) == before
    badges.main(["another/lab", "--branch", "dev"], copied)
    after = texts(copied)
    assert not [name for name, text in after.items() if "someone/" in text]
    assert all(text.count("another/lab") == 1 + name.endswith(".ipynb")
               for name, text in after.items())  # fmt: skip
    badges.main(["someone/diffusionlab"], copied)
    assert texts(copied) == before


def test_the_lint_knows_both(copied):
    def told(notebook):
        lints = about_cells(notebook) + about_code(notebook) + about_outputs(notebook)
        return lints + about_course(notebook, ROOT / "notebooks")

    for path in NOTEBOOKS:
        assert told(read(copied / "notebooks" / path.name)) == told(read(path))


def test_the_setup_cell_is_silent_here_and_installs_on_colab(copied, tmp_path):
    notebook = read(copied / "notebooks" / NOTEBOOKS[0].name)
    (source,) = (c.source for c in notebook.cells if "setup" in c.metadata.get("tags", ()))
    assert source not in [cell.source for cell in code_cells(notebook)]
    run = [sys.executable, "-c"]
    here = subprocess.run([*run, source], capture_output=True, text=True, timeout=60)
    assert (here.returncode, here.stdout, here.stderr) == (0, "", "")
    colab = (
        "import subprocess, sys\nsys.modules['google.colab'] = sys\n"
        "subprocess.run = lambda command, check: print(check, command[1:])\n"
    )
    there = subprocess.run([*run, colab + source], capture_output=True, text=True, timeout=60)
    assert there.stdout.strip() == (
        "True ['-m', 'pip', 'install', '-q', 'git+https://github.com/someone/diffusionlab@main']"
    )


@pytest.mark.parametrize("given", ["nobody", "a/b/c", "https://github.com/a/b", "a b/c", "../x"])
def test_what_is_no_address_is_refused(given, tmp_path):
    with pytest.raises(SystemExit, match="is no owner/name"):
        badges.main([given], tmp_path)


@pytest.mark.parametrize(
    ("remote", "found"),
    [
        ("https://github.com/a-b/c.d.git", "a-b/c.d"),
        ("https://github.com/a/b/", "a/b"),
        ("git@github.com:a/b.git", "a/b"),
        ("ssh://git@github.com/a/b.git", "a/b"),
        ("https://gitlab.com/a/b.git", ""),
        ("/srv/github.com/a", ""),
        ("", ""),
    ],
)
def test_the_address_of_origin(remote, found, tmp_path):
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if remote:
        subprocess.run([*git, "remote", "add", "origin", remote], check=True)
    assert badges.origin(tmp_path) == found
    if not found:
        with pytest.raises(SystemExit, match="make badges REPO=owner/name"):
            badges.main([], tmp_path)


def test_no_address_is_committed_that_nobody_gave():
    """The badges that are there, if any, all name one repository."""
    text = (ROOT / "README.md").read_text("utf-8") + "".join(
        p.read_text("utf-8") for p in NOTEBOOKS
    )
    named = re.findall(r"(?:/gh/|research\.google\.com/github/)([\w.-]+/[\w.-]+)", text)
    assert len(set(named)) <= 1


# ---- Binder ----------------------------------------------------------------------------------
def test_binder_installs_the_package_with_torch_for_the_cpu(tmp_path):
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    script = ROOT / ".binder" / "postBuild"
    assert os.access(script, os.X_OK)
    (tmp_path / "python").write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first.endswith("--extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0")
    assert second.startswith(f"{ROOT} ") and second.endswith("-e . -c constraints.txt")


def test_binder_has_a_python_that_the_package_takes():
    assert (ROOT / ".binder" / "runtime.txt").read_text() == "python-3.11\n"
    assert {path.name for path in (ROOT / ".binder").iterdir()} == {"postBuild", "runtime.txt"}
