"""The README's snippets, files and figures, and what `make refresh` keeps of a notebook's run."""

from __future__ import annotations

import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output
from notebook_runs import ROOT, load_refresh

from diffusionlab.toyland import checkpoint

README = ROOT / "README.md"
DRAWN = {"docs/gallery.png", "docs/filmstrip.png"}  # by `make refresh`


# ---- the README ------------------------------------------------------------------------------
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
    assert not missing or (set(missing) <= DRAWN and not (checkpoint() / "unet").is_dir()), missing


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


# ---- what is kept of a run -------------------------------------------------------------------
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


def view_page():
    from views_cases import CASES

    return CASES["explore"]("plain")._repr_mimebundle_()


def cleaned_pages(*pages: str) -> list[str]:
    outputs = [new_output("display_data", data={"text/html": page}) for page in pages]
    notebook = nbformat.v4.new_notebook(cells=[new_code_cell("x", outputs=outputs)])
    cleaned = load_refresh().cleaned(notebook)
    return [out.data["text/html"] for out in cleaned.cells[0].outputs]


def test_of_a_view_the_still_stays_and_the_frame_goes():
    data = view_page()
    page = data["text/html"]
    assert "<iframe" in page and "trust the notebook" in page  # the check can fail
    (still,) = cleaned_pages(page)
    assert "<iframe" not in still and "srcdoc" not in still and "<script" not in still
    assert still.startswith("<figure") and still.endswith("</figure>")
    assert "trust" not in still and "Run this cell to make this interactive." in still
    assert still.count("<img") == 1 and len(still) < len(page) / 2


def test_frames_of_any_spelling_go_and_a_cell_of_frames_alone_shows_nothing():
    frames = '<IFRAME srcdoc="a"></IFRAME><p>between</p><iframe\nsrc="b">\n</iframe>'
    assert cleaned_pages(frames, '<iframe srcdoc="a"></iframe> ') == ["<p>between</p>"]
    assert cleaned_pages("<p>an iframe in words</p>") == ["<p>an iframe in words</p>"]
