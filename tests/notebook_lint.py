"""The style of the notebooks: functions that give complaints in words about source and outputs."""

from __future__ import annotations

import ast
import base64
import io
import os
import re
import statistics
from pathlib import Path

from PIL import Image, ImageStat

ROOT = Path(__file__).parents[1]
LARGEST = 400_000  # bytes, outputs included
SILENT = {"setup", "parameters"}  # tags of cells that may show nothing


# ---- reading ---------------------------------------------------------------------------------
def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def code_lines(cell) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


def code_cells(notebook) -> list:
    """The code cells of the course: without the one that `make badges` writes for Colab."""
    return [c for c in notebook.cells if c.cell_type == "code" and "setup" not in tags(c)]


def prose(notebook) -> str:
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"^\[!\[.*$", "", text, flags=re.M)  # badges


def calls(cell, *names: str) -> list[ast.Call]:
    """The calls in a code cell of functions of these names, also as `claims.board`."""
    try:
        nodes = ast.walk(ast.parse(cell.source))
    except SyntaxError:  # a magic, or prose; told elsewhere
        return []
    found = [node for node in nodes if isinstance(node, ast.Call)]
    return [call for call in found if ast.unparse(call.func) in names]


# ---- the source ------------------------------------------------------------------------------
def about_cells(notebook) -> list[str]:
    """The size of the code cells, the share of prose, and how cells follow each other."""
    sizes = [len(code_lines(cell)) for cell in code_cells(notebook)]
    told = [f"code cell {i} has {n} lines, over 25" for i, n in enumerate(sizes) if n > 25]
    if not 3 <= statistics.median(sizes) <= 6:
        told.append(f"the median code cell has {statistics.median(sizes)} lines, not 3 to 6")
    words = len(re.sub(r"<[^>]+>|[#*`|]", " ", prose(notebook)).split())
    if not 5 <= words / sum(sizes) <= 12:
        told.append(f"{words / sum(sizes):.1f} words of prose per code line, not 5 to 12")
    if "ccc" in "".join(cell.cell_type[0] for cell in notebook.cells):
        told.append("three code cells stand without a sentence between them")
    cells = [cell for cell in notebook.cells if "setup" not in tags(cell)]
    lines = [line for cell in cells for line in cell.source.splitlines()]
    long = [line for line in lines if len(line) > 100 and not line.startswith(("[![", "|"))]
    return told + [f"a line over 100 characters: {line[:40]}" for line in long]


def about_code(notebook) -> list[str]:
    """No magics, no loops, nothing defined that the package should hold."""
    told = []
    for number, cell in enumerate(code_cells(notebook)):
        if re.search(r"^\s*[%!]", cell.source, re.M):
            told.append(f"code cell {number} has a magic or a shell line")
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
                told.append(f"code cell {number} has a loop: show_source(...) shows the library's")
            if isinstance(node, ast.ClassDef):
                told.append(f"code cell {number} defines the class {node.name}")
            if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
                told.append(f"code cell {number} defines {node.name} with several statements")
    return told


# ---- the outputs -----------------------------------------------------------------------------
def about_outputs(notebook) -> list[str]:
    """Everything shows something; nothing is an error, a widget, a script or another machine's."""
    told = [] if "widgets" not in notebook.metadata else ["the notebook keeps widget state"]
    first = None
    for number, cell in enumerate(code_cells(notebook)):
        first = cell.execution_count or 0 if first is None else first
        if not first or cell.execution_count != first + number:
            told.append(f"code cell {number} was not run in its order")
        if number and not cell.outputs and not tags(cell) & SILENT:
            told.append(f"code cell {number} shows nothing")
        told += [f"code cell {number}: {t}" for out in cell.outputs for t in about_output(out)]
    return told


def about_output(output) -> list[str]:
    if output.output_type == "error":
        return [f"an error: {output.ename}"]
    if output.output_type == "stream":
        noisy = output.name == "stderr" and not output.text.startswith("diffusionlab: ")
        return [f"prints on stderr: {output.text[:60]}"] if noisy else about_text(output.text)
    told = []
    for kind, value in output.data.items():
        if kind.startswith("image/"):
            told.append(f"a bare {kind} has no alt text: show_pictures({{caption: image}})")
        elif kind not in ("text/html", "text/plain", "text/markdown"):
            told.append(f"an output of type {kind}")
        else:
            told += about_text(value) + (about_html(value) if kind == "text/html" else [])
    return told


def about_text(text: str) -> list[str]:
    places = [str(ROOT), str(Path.home()) + os.sep]
    return [f"a path of this machine: {place}" for place in places if place in text]


def about_html(page: str) -> list[str]:
    """Frames are dropped, no script is left; every picture has words and is not blank."""
    told = ["an interactive frame: `make refresh` drops it"] if "<iframe" in page.lower() else []
    told += ["a script"] if "<script" in page.lower() else []
    for image in re.findall(r"<img[^>]*>", page):
        alt = re.search(r'alt="([^"]*)"', image)
        if not alt or len(alt[1].split()) < 3:
            told.append("a picture without alt text")
        data = re.search(r"base64,([^\"]+)", image)
        if not data or is_blank(base64.b64decode(data[1])):
            told.append("a picture that is blank, or not on the page")
    return told


def is_blank(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return max(ImageStat.Stat(image.convert("RGB")).stddev) < 1
