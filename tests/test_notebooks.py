"""Every notebook runs from top to bottom offline, and keeps to the style of the course.

Its source and its outputs are linted by functions that give complaints in words; Toyland runs them
where its weights are there, else a tiny random model.
"""

from __future__ import annotations

import ast
import base64
import copy
import importlib.util
import io
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from PIL import Image, ImageStat

from diffusionlab.toyland import checkpoint

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 400_000  # bytes, outputs included
README = ROOT / "README.md"
DRAWN = {"docs/gallery.png", "docs/filmstrip.png"}  # by `make refresh`


def load_refresh():
    """tools/refresh.py as a module: the tests run a notebook just as `make refresh` does."""
    spec = importlib.util.spec_from_file_location("refresh", ROOT / "tools" / "refresh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- the lint of a notebook's source ---------------------------------------------------------
def code_lines(cell) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip()]


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


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
    long = [line for cell in notebook.cells for line in cell.source.splitlines() if len(line) > 100]
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


def about_course(notebook, folder: Path) -> list[str]:
    """One question, predictions before runs, what is not shown, things to try, no dead link."""
    cells, text = notebook.cells, prose(notebook)
    told = []
    if not re.match(r"# .+\n\n\*\*.+\?\*\*", cells[0].source):
        told.append("the first cell is no title with one question in bold")
    asking = [i for i, cell in enumerate(cells) if "**Predict.**" in cell.source]
    if not 2 <= len(asking) <= 4:
        told.append(f"{len(asking)} predictions are asked for, not 2 to 4")
    told += [
        f"the prediction in cell {i} is not checked by the next cell"
        for i in asking
        if "check(" not in cells[i + 1].source
    ]
    if "What this does not show" not in text:
        told.append("no picture says what it does not show")
    if "hree things to try" not in cells[-1].source or "Next:" not in cells[-1].source:
        told.append("the end has no three things to try, or no next notebook")
    if text.count("<details>") != text.count("</details>"):
        told.append("a <details> is not closed")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    return told + [f"dead link: {link}" for link in links if not (folder / link).exists()]


# ---- the lint of its outputs -----------------------------------------------------------------
def about_outputs(notebook) -> list[str]:
    """Everything shows something; nothing is an error, a widget, a script or another machine's."""
    told = [] if "widgets" not in notebook.metadata else ["the notebook keeps widget state"]
    for number, cell in enumerate(code_cells(notebook)):
        if cell.execution_count != number + 1:
            told.append(f"code cell {number} was not run in its order")
        if number and not cell.outputs:
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
    """Scripts stay inside an iframe's srcdoc; every picture has words and is not blank."""
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    told = ["a script outside an iframe"] if "<script" in outside.lower() else []
    for image in re.findall(r"<img[^>]*>", outside):
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


# ---- the notebooks ---------------------------------------------------------------------------
def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_the_source_keeps_to_the_style(notebook):
    nbformat.validate(notebook)
    told = (
        about_cells(notebook) + about_code(notebook) + about_course(notebook, NOTEBOOKS[0].parent)
    )
    assert not told, "\n".join(told)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_outputs(path):
    size, notebook = path.stat().st_size, nbformat.read(path, as_version=4)
    assert size <= LARGEST, f"{size} bytes: leave a figure out, or draw it smaller"
    if not any(cell.outputs for cell in code_cells(notebook)) and not has_toyland():
        pytest.skip("Toyland's weights are not there yet: outputs come with `make refresh`")
    told = about_outputs(notebook)
    assert not told, "\n".join([*told, "`make refresh` runs the notebooks again"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tiny_folder, monkeypatch):
    if not has_toyland():
        monkeypatch.setenv("DIFFUSIONLAB_MODEL", str(tiny_folder))
    refresh = load_refresh()
    notebook = nbformat.read(path, as_version=4)
    told = about_outputs(refresh.cleaned(refresh.executed(notebook, path.parent)))
    assert not told, "\n".join(told)
    last = code_cells(notebook)[-1].outputs[-1].data["text/plain"]
    assert "True" in last and "False" not in last, "the parts are not the whole"


def has_toyland() -> bool:
    return (checkpoint() / "unet").is_dir()


# ---- the lint can fail -----------------------------------------------------------------------
def spoiled(change):
    """The first notebook after `change`."""
    notebook = copy.deepcopy(nbformat.read(NOTEBOOKS[0], as_version=4))
    change(notebook)
    return notebook


def append(*cells):
    return lambda notebook: notebook.cells.extend(cells)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (append(new_code_cell("\n".join(["x = 1"] * 26))), "over 25"),
        (append(*[new_code_cell("x")] * 60), "median"),
        (append(new_markdown_cell("word " * 3000)), "words of prose"),
        (append(*[new_code_cell("x")] * 3), "three code cells"),
        (append(new_code_cell("%matplotlib inline")), "magic"),
        (append(new_code_cell("for x in y:\n    x")), "loop"),
        (append(new_code_cell("class A: pass")), "class A"),
        (append(new_code_cell("def f():\n    x = 1\n    return x")), "several statements"),
        (append(new_markdown_cell("[next](02_not_there.ipynb)")), "dead link"),
        (append(new_markdown_cell("<details>")), "not closed"),
        (append(new_markdown_cell("**Predict.** What?"), new_code_cell("x")), "not checked"),
        (lambda notebook: notebook.cells.pop(0), "no title"),
        (lambda notebook: notebook.cells.pop(), "three things"),
    ],
)  # fmt: skip
def test_the_lint_of_the_source_can_fail(change, complaint):
    notebook = spoiled(change)
    told = about_cells(notebook) + about_code(notebook) + about_course(notebook, ROOT)
    assert any(complaint in line for line in told), told


BLANK = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU"
    b"\0\0\0\nIDATx\x9cc`\0\0\0\2\0\1H\xaf\xa4q\0\0\0\0IEND\xaeB`\x82"
).decode()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"text/html": '<img src="a.png">'}, "without alt text"),
        ({"text/html": '<img alt="one two three" src="a.png">'}, "not on the page"),
        ({"text/html": f'<img alt="a b c" src="data:image/png;base64,{BLANK}">'}, "blank"),
        ({"text/html": "<script>x</script>"}, "script"),
        ({"image/png": ""}, "no alt text"),
        ({"application/vnd.jupyter.widget-view+json": {}}, "type"),
        ({"text/plain": f"{ROOT}/x"}, "a path of this machine"),
    ],
)
def test_the_lint_of_the_outputs_can_fail(data, complaint):
    told = about_output(new_output("display_data", data=data))
    assert any(complaint in line for line in told), told
    assert not about_output(new_output("display_data", data={"text/plain": "fine"}))


def test_scripts_inside_an_iframe_and_notices_are_fine():
    assert not about_html('<iframe srcdoc="<script>x</script>"></iframe>')
    assert not about_output(new_output("stream", name="stderr", text="diffusionlab: a notice"))
    assert about_output(new_output("stream", name="stderr", text="Traceback"))


def test_a_cell_that_shows_nothing_or_was_not_run_is_told():
    notebook = nbformat.v4.new_notebook(
        cells=[new_code_cell("x", execution_count=1), new_code_cell("y", execution_count=3)]
    )
    told = about_outputs(notebook)
    assert "code cell 1 shows nothing" in told and "code cell 1 was not run in its order" in told


# ---- the README and tools/refresh.py ---------------------------------------------------------
def test_the_snippet_of_the_readme_runs(tiny_folder, tmp_path):
    snippet = re.search(r"```python\n(.+?)```", README.read_text(encoding="utf-8"), re.S)[1]
    assert len(snippet.splitlines()) == 8 and "dl.load()" in snippet
    code = snippet.replace("dl.load()", f"dl.load({str(tiny_folder)!r})")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run.safetensors").is_file()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_other_snippets_of_the_readme_run(number, tmp_path):
    snippets = re.findall(r"```python\n(.+?)```", README.read_text(encoding="utf-8"), re.S)
    assert len(snippets) == 5
    snippet = snippets[number]
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_names_files_that_are_there():
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text)
    named = re.findall(r"`((?:diffusionlab|tests|notebooks)/[^`]*)`", text)
    assert links and named
    missing = [name for name in (*links, *named) if not (ROOT / name).exists()]
    assert not missing or (set(missing) <= DRAWN and not has_toyland()), missing


def test_the_figures_are_counted_in_the_checkpoint(tiny_folder, tiny_model):
    lines = load_refresh().checkpoint_lines(tiny_folder)
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "text_encoder", "unet", "vae", "together"
    ]  # fmt: skip
    count, size = load_refresh().measured(tiny_folder / "unet")
    assert count == sum(p.numel() for p in tiny_model.unet.parameters())
    assert 4 * count <= size <= 4.2 * count  # float32, and a header


def test_the_readme_has_the_block_of_figures():
    refresh, text = load_refresh(), README.read_text(encoding="utf-8")
    assert text.count(refresh.BEGIN) == 1 and text.count(refresh.END) == 1
    assert text.index(refresh.BEGIN) < text.index(refresh.END)


def test_cleaning_keeps_notices_and_drops_what_belongs_to_one_machine():
    refresh = load_refresh()
    output = [
        new_output("stream", name="stderr", text="diffusionlab: a notice"),
        new_output("stream", name="stderr", text="a progress bar"),
        new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}}),
        new_output("display_data", data={"text/plain": f"{ROOT}/notebooks"}),
    ]
    cell = new_code_cell("x", outputs=output, metadata={"execution": {"t": "1"}})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"a": 1}})
    cleaned = refresh.cleaned(notebook)
    assert "widgets" not in cleaned.metadata and not cleaned.cells[0].metadata
    texts = [out.get("text") or out.data["text/plain"] for out in cleaned.cells[0].outputs]
    assert texts == ["diffusionlab: a notice", "notebooks"]
