"""Runs a notebook as `make refresh` does, in a kernel that is watched and cannot reach the network.

Cells of our own run aside: they are no part of the notebook and are not counted.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import new_code_cell

TESTS = Path(__file__).parent
ROOT = TESTS.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BEGIN = f"""import sys
sys.path.insert(0, {str(TESTS)!r})
import kernel_side as _side
sys.path.remove({str(TESTS)!r})
_side.begin()"""
PRETENDED = f"""
sys.path.insert(0, {str(TESTS)!r})
from contextlib import ExitStack as _Stack
from pretending import pretend as _pretend
sys.path.remove({str(TESTS)!r})
_stack = _Stack()
_stack.enter_context(_pretend("cuda"))"""
REPORT = "print(_side.report())"
# What a cell tagged `parameters` (papermill's convention) may hold, and enough to see it run.
QUICK = {"seconds": 2, "minutes": 0.02}


@dataclass
class Ran:
    """A notebook with the outputs of one run, cleaned; how often it asked, and all complaints."""

    notebook: nbformat.NotebookNode
    asked: int
    told: list[str]


def load_tool(name: str):
    """A file of tools/ as a module: the tests run a notebook just as `make refresh` does."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_refresh():
    return load_tool("refresh")


def read(path: Path):
    return nbformat.read(path, as_version=4)


def ran(notebook, folder: Path, name: str = "", afterwards: tuple = (), begin: str = BEGIN) -> Ran:
    """Run it from top to bottom, then the cells `afterwards`; a failing cell fails the test.

    begin: what is run before; BEGIN, and PRETENDED after it for a kernel with a CUDA device.
    """
    refresh, started = load_refresh(), time.monotonic()
    notebook = copy.deepcopy(notebook)
    client = refresh.client_of(notebook, folder)
    with client.setup_kernel():
        aside(client, new_code_cell(begin))
        for index, cell in enumerate(notebook.cells):
            run_cell(client, cell, index, name)
        for cell in afterwards:
            aside(client, cell, name)
        found = json.loads(aside(client, new_code_cell(REPORT)).outputs[0].text)
    print(f"{name} ran in {time.monotonic() - started:.0f} s, {found['asked']} checks")
    return Ran(refresh.cleaned(notebook), found["asked"], found["told"])


def aside(client, cell, name: str = "a cell of the tests"):
    """Run a cell that leaves no trace in the notebook's numbering."""
    client.nb.cells.append(cell)
    try:
        return run_cell(client, cell, len(client.nb.cells) - 1, name, store_history=False)
    finally:
        client.nb.cells.pop()


def run_cell(client, cell, index: int, name: str, **options):
    """One cell; where it fails, its code and the end of the traceback in words."""
    try:
        return client.execute_cell(cell, index, **options)
    except CellExecutionError as error:
        why = f"{error.ename}: {error.evalue}\n\n{plain(error.traceback)}"
    except CellTimeoutError:
        why = f"did not end within {client.timeout} s"
    except DeadKernelError:
        why = "the kernel died"
    pytest.fail(f"{name}, cell {index}:\n\n{cell.source}\n\n{why}", pytrace=False)


def plain(traceback: str) -> str:
    """A traceback without colours: its last lines."""
    return "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", traceback).splitlines()[-25:])


def quick(notebook):
    """The notebook with the numbers of its `parameters` cell small enough to see it run."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = quick_source(cell.source)
    return notebook


def quick_source(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            given = QUICK.get(node.targets[0].id)
            node.value = node.value if given is None else ast.Constant(given)
    return ast.unparse(tree)
