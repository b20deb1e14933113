"""The lint of the notebooks finds what it is there to find, and nothing in a sound notebook."""

from __future__ import annotations

import base64

import pytest
from lessons import code, lesson, solved
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from notebook_course import NOT_PROSE, about_course, about_number, is_printed, numbers, printed
from notebook_lint import ROOT, about_cells, about_code, about_html, about_output, about_outputs

FOLDER = ROOT / "notebooks"


def complaints(notebook, folder=FOLDER) -> list[str]:
    told = about_cells(notebook) + about_code(notebook) + about_course(notebook, folder)
    return told + about_outputs(notebook) + about_number(notebook, ["01_a"], "01_a")


def test_nothing_is_found_in_a_sound_notebook(tmp_path):
    assert not complaints(lesson(), docs(tmp_path))


def docs(tmp_path):
    """A folder of notebooks beside a glossary and a README."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "glossary.md").write_text('# Words\n\n<a id="latent"></a>\n\n## Two Words')
    (tmp_path / "README.md").write_text("")
    return tmp_path / "notebooks"


# ---- changes that must be found --------------------------------------------------------------
def append(*cells):
    return lambda notebook: notebook.cells.extend(cells)


def replace(number: int, old: str, new: str):
    """A change of the text of one cell; the old text must be there."""

    def change(notebook):
        assert old in notebook.cells[number].source
        notebook.cells[number].source = notebook.cells[number].source.replace(old, new)

    return change


def say(text: str):
    return replace(6, "see above", text)


def drop(number: int):
    return lambda notebook: notebook.cells.pop(number)


def metadata(number: int, key: str, value=None):
    return lambda notebook: notebook.cells[number].metadata.update({key: value or {}})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (append(new_code_cell("\n".join(["x = 1"] * 26))), "over 25"),
        (append(*[new_code_cell("x")] * 60), "median"),
        (append(new_markdown_cell("word " * 3000)), "words of prose"),
        (append(*[new_code_cell("x")] * 3), "three code cells"),
        (append(new_markdown_cell("x" * 101)), "over 100 characters"),
        (append(new_code_cell("%matplotlib inline")), "magic"),
        (append(new_code_cell("for x in y:\n    x")), "loop"),
        (append(new_code_cell("class A: pass")), "class A"),
        (append(new_code_cell("def f():\n    x = 1\n    return x")), "several statements"),
        (append(new_markdown_cell("[next](02_not_there.ipynb)")), "dead link: 02_not"),
        (say("[a word](../docs/glossary.md#nothing)"), "dead link: ../docs/glossary.md#nothing"),
        (append(new_markdown_cell("<details>")), "not closed"),
        (append(new_markdown_cell("**Predict.** What?"), new_code_cell("x")), "not checked"),
        (replace(3, "check(...", "check(42"), "not checked"),
        (drop(2), "1 predictions"),
        (drop(0), "no title"),
        (drop(-1), "three things"),
        (replace(-1, "Next: [the README](../README.md)", "Next: the end"), "no link to the next"),
        (replace(-1, "../README.md", "../docs/glossary.md"), "does not lead to ../README.md"),
        (replace(0, "- multiply\n", ""), "2 goals"),
        (replace(0, "Time and hardware", "Time"), "no line **Time"),
        (replace(2, "What this does not show", "What this shows"), "what it does not show"),
        (say("$x^2$"), "LaTeX"),
        (replace(3, 'because=f"{number} times 7"', "tolerance=0"), "needs because="),
        (replace(3, 'f"{number} times 7"', '"six times seven"'), "needs because="),
        (replace(14, "claims.board(bench, 1)", "bench"), "no claims.board"),
        (replace(14, "claims.board(bench, 1)", "claims.board(bench, 2)"), "not of notebook 1"),
        (replace(16, "self_check", "print"), "no self_check"),
        (replace(7, "Exercise 1", "Exercise 2"), "no **Exercise 1.** in the text"),
        (append(new_markdown_cell("**Exercise 4.**"), solved(3)), "share their nbgrader grade_id"),
        (metadata(8, "tags"), "2 exercises, not 3 to 5"),
        (metadata(8, "nbgrader"), "no nbgrader metadata"),
        (metadata(8, "jupyter"), "not folded"),
        (replace(8, "### END SOLUTION", "# end"), "one ### BEGIN SOLUTION"),
        (replace(8, "answer = ...  # yours\n", "guess = ...\n"), "no placeholder answer"),
        (replace(8, "\ncheck(", "\nprint("), "no check(...) after"),
        (lambda nb: nb.cells[8].metadata.nbgrader.update(grade_id="02-1"), "not of notebook 1"),
        (say("or 43"), "the number 43"),
        (say("or 0.5"), "the number 0.5"),
    ],
)  # fmt: skip
def test_it_is_found(change, complaint, tmp_path):
    notebook = lesson()
    change(notebook)
    told = complaints(notebook, docs(tmp_path))
    assert any(complaint in line for line in told), told


# ---- numbers in prose ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is 42, or 0.5: 12% of −3.25 and -7.5.", ["42", "0.5", "12", "3.25", "7.5"]),
        ("1,000 or 1 000 or 1\u202f000.5 or 12,34", ["1000", "1000", "1000.5", "12"]),
        ("48× fewer, 48x fewer, 512×512, 20-step, 0…999, 1–30", None),
        ("x0, ViT-L/14, float16, A14, 3.11.2, 1/16, 1e-4, DPM-13", []),
        ("`17` and ```\n18\n``` and [19](x20.md) and ![21](x)", []),
        ("# 15 things\n\n12. a list\n13. more", []),
        ("arXiv 2010.02502, arXiv:2206.00364, equation 14, eq. 15, section 4.5", []),
        ("Lin et al. 2023, Ho et al. (2020), Song and Ermon (2019)", []),
        ("Stable Diffusion 2.1, SD 1.5, SDXL 1.0, Python 3.11", []),
        ("**Time and hardware.** About 45 minutes.\n\nBut 46", ["46"]),
        ("if a < 0.5 and b > 12 <b title='13'>14</b>", ["0.5", "12", "14"]),
    ],
)
def test_what_counts_as_a_number_in_prose(text, found):
    if found is None:
        found = ["48", "48", "512", "512", "20", "0", "999", "1", "30"]
    assert numbers(NOT_PROSE.sub(" ", text)) == found


@pytest.mark.parametrize(
    ("number", "text", "holds"),
    [
        ("42", "seed=42", True),
        ("42", "142 4.2 420", False),
        ("1000", "1,000 steps", True),
        ("1000", "1000.0", True),
        ("200", "[100,200]", True),
        ("24.8", "24.8dB", True),
        ("0.97", "measured 0.9734", True),
        ("0.98", "measured 0.9734", False),
        ("0.9734", "measured 0.97", False),
        ("97", "measured 0.97", False),
        ("7.5", "-7.50", True),
        ("48", "47.9", False),
    ],
)
def test_what_counts_as_printed(number, text, holds):
    assert is_printed(number, printed(text)) is holds


def test_alt_texts_and_pages_count_but_not_the_data_of_pictures():
    page = '<img alt="a peak at 17" src="data:image/png;base64,18"><p style="top:19px">20 &lt; 21'
    for number, missing in ((17, False), (18, True), (19, True), (20, False), (21, False)):
        notebook = lesson()
        notebook.cells[1].outputs[0].data["text/html"] = page
        notebook.cells[6].source = f"It is {number}."
        assert any(f"number {number}" in t for t in about_course(notebook, FOLDER)) is missing


# ---- outputs ---------------------------------------------------------------------------------
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
        ({"text/html": '<iframe srcdoc="x"></iframe>'}, "frame"),
        ({"image/png": ""}, "no alt text"),
        ({"application/vnd.jupyter.widget-view+json": {}}, "type"),
        ({"text/plain": f"{ROOT}/x"}, "a path of this machine"),
    ],
)
def test_the_lint_of_the_outputs_can_fail(data, complaint):
    told = about_output(new_output("display_data", data=data))
    assert any(complaint in line for line in told), told
    assert not about_output(new_output("display_data", data={"text/plain": "fine"}))


def test_notices_are_fine():
    assert not about_html("<p>an iframe, a script: words</p>")
    assert not about_output(new_output("stream", name="stderr", text="diffusionlab: a notice"))
    assert about_output(new_output("stream", name="stderr", text="Traceback"))


def test_a_cell_that_shows_nothing_or_was_not_run_is_told():
    notebook = lesson()
    notebook.cells[3].outputs = []
    notebook.cells[5].execution_count = 7
    notebook.metadata.widgets = {"a": 1}
    told = about_outputs(notebook)
    assert "code cell 1 shows nothing" in told and "code cell 2 was not run in its order" in told
    assert "the notebook keeps widget state" in told


def test_the_setup_cell_of_colab_is_no_cell_of_the_course(tmp_path):
    notebook = lesson()
    notebook.cells.insert(1, code('"' + "x" * 200 + '"', tags=["setup"]))
    notebook.cells[1].outputs = []
    assert not complaints(notebook, docs(tmp_path))
    for cell in notebook.cells:  # as a run counts them
        if cell.cell_type == "code":
            cell.execution_count = (cell.execution_count or 0) + 1
    assert not about_outputs(notebook)


def test_a_cell_of_parameters_may_be_silent():
    notebook = lesson()
    notebook.cells[5] = code("minutes = 1", tags=["parameters"])
    notebook.cells[5].update(outputs=[], execution_count=3)
    assert not about_outputs(notebook)


def test_an_exercise_may_prepare_and_comprehend(tmp_path):
    notebook = lesson()
    cell = notebook.cells[8]
    cell.source = cell.source.replace("answer = number * 7", "answer = sum(s for s in [42])")
    cell.source = cell.source.replace("number * 7, ", "sum(s for s in [number] * 7), ")
    notebook.cells.insert(8, code("number"))
    notebook.cells[9].execution_count = 4
    told = complaints(notebook, docs(tmp_path))
    assert [line for line in told if "order" not in line] == []
