"""The notebooks run on checkpoints in the layouts of Stable Diffusion, as on Toyland."""

from __future__ import annotations

import re
from functools import cache

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from notebook_runs import quick
from real_kinds import KINDS, hub
from test_notebooks import NOTEBOOKS, about_outputs, code_cells, load_refresh
from test_parity_families import FAMILIES

CHOOSING = [path for path in NOTEBOOKS if "DIFFUSIONLAB_MODEL" in path.read_text(encoding="utf-8")]
FIRST, GUIDING = "01_prompt_to_picture", "08_guidance"


def run(path, source, monkeypatch) -> list:
    """The code cells of a notebook after a quick run with that model; nothing is complained of."""
    monkeypatch.setenv("DIFFUSIONLAB_MODEL", str(source))
    refresh = load_refresh()
    notebook = quick(nbformat.read(path, as_version=4))
    told = about_outputs(refresh.cleaned(refresh.executed(notebook, path.parent)))
    assert not told, "\n".join(told)
    return code_cells(notebook)


def check_parts_are_the_whole(cells) -> None:
    """The one cell that sets the parts beside the whole says True of latents and pictures."""
    (cell,) = (cell for cell in cells if "picture_equal" in cell.source)
    told = cell.outputs[-1].data["text/plain"]
    assert told.count("True") == 2 and "False" not in told, "the parts are not the whole"


# ---- every notebook on every kind of checkpoint ------------------------------------------------
TOLD = {  # what the first cell says of each
    "SDXL folder": ("'xl'", "32 tokens × 48", "predicts eps, leading"),
    "SD1 file": ("one.safetensors", "128 × 128", "predicts eps, leading"),
    "SD1 folder": ("'sd1'", "64 × 64", "predicts eps, leading"),
    "SD2v folder": ("'sd2'", "64 × 64", "predicts v, leading"),
}
XL, FILE, SD1, SD2V = TOLD
OFTEN = {  # by the number of a notebook: the kinds of every push; the others are `slow`
    "01": (XL, FILE), "02": (SD2V, FILE), "03": (XL, SD1), "04": (SD2V,), "05": (SD2V,),
    "06": (SD1,), "07": (SD1,), "08": (XL,), "09": (XL, SD2V), "10": (SD1,),
}  # fmt: skip


def pairs() -> list:
    """Every notebook on every kind."""
    return [
        pytest.param(path, kind, id=f"{path.stem}-{kind.replace(' ', '-')}",
                     marks=() if kind in OFTEN[path.stem[:2]] else pytest.mark.slow)
        for path in CHOOSING for kind in KINDS
    ]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """`source(kind)`: the path of such a checkpoint, and the hub's cache; each is written once."""
    place = tmp_path_factory.mktemp("sources")
    made = cache(lambda kind: KINDS[kind](place))
    return lambda kind: (made(kind), hub(place))


@pytest.mark.parametrize(("path", "kind"), pairs())
def test_a_notebook_runs_on_every_kind_of_checkpoint(path, kind, source, monkeypatch):
    model, cached = source(kind)
    monkeypatch.setenv("HF_HUB_CACHE", str(cached))
    cells = run(path, model, monkeypatch)
    shown = cells[0].outputs[-1].data["text/plain"]
    assert all(words in shown for words in TOLD[kind]), shown
    told = "\n".join(out.data["text/plain"] for cell in cells for out in cell.outputs
                     if "data" in out)  # fmt: skip
    assert not re.findall(r"\b(?:nan|inf|infinity)\b", told, re.I)
    if path.stem in CLOSER:
        CLOSER[path.stem](cells, told)


def check_heun_is_counted(cells, told) -> None:
    """Where a schedule ends before the clean picture, heun asks twice in its last step, too."""
    asked = "Network calls of heun in six steps? This run says"
    clean = "'xl'" in told  # that of SDXL ends clean
    last = "11. The last step ends clean" if clean else "12. The last step ends with a little noise"
    assert f"{asked} {last}" in told


def check_no_judge_is_quoted(cells, told) -> None:
    """The judge knows Toyland alone: two questions are not asked, and none says what it saw."""
    asked = [cell.outputs[-1].data["text/plain"] for cell in cells
             if "refusal or check(" in cell.source]  # fmt: skip
    assert len(asked) == 2 and all("the judges know Toyland alone" in words for words in asked)
    assert "judge saw" not in told and "seed 0: not judged" in told


CLOSER = {
    FIRST: lambda cells, told: check_parts_are_the_whole(cells),
    "07_samplers_side_by_side": check_heun_is_counted,
    "09_attention": check_no_judge_is_quoted,
}


def test_every_notebook_and_every_kind_is_run_often():
    often = {(param.values[0].stem, param.values[1]) for param in pairs() if not param.marks}
    assert {stem for stem, _ in often} == {path.stem for path in CHOOSING} > set(CLOSER)
    assert {kind for _, kind in often} == set(KINDS) == set(TOLD)


# ---- a model that is told its guidance ---------------------------------------------------------
@pytest.fixture(scope="module")
def lcm(tmp_path_factory):
    """A folder of a model that is told its guidance and has one pass."""
    folder = tmp_path_factory.mktemp("distilled") / "lcm"
    FAMILIES["LCM"]().save_pretrained(folder)
    return folder


def named(stem):
    return next(path for path in CHOOSING if path.stem == stem)


def test_the_first_notebook_runs_on_an_lcm(lcm, monkeypatch):
    cells = run(named(FIRST), lcm, monkeypatch)
    check_parts_are_the_whole(cells)
    mixing, counting = (
        cell.outputs[-1].data["text/plain"] for cell in cells if "refusal or" in cell.source
        or "branches" in cell.source
    )  # fmt: skip
    assert mixing.startswith("Not on this model: lcm is told its guidance as a number")
    assert "right" in counting and "one answer of" in counting


def test_the_notebook_of_two_passes_stops_on_an_lcm_with_one_sentence(lcm, monkeypatch):
    monkeypatch.setenv("DIFFUSIONLAB_MODEL", str(lcm))
    path, refresh = named(GUIDING), load_refresh()
    notebook = nbformat.read(path, as_version=4)
    with pytest.raises(CellExecutionError) as found:
        refresh.executed(notebook, path.parent)
    assert found.value.ename == "InputError" and found.value.evalue.startswith(
        "lcm is told its guidance as a number and has no unconditional pass; "
    )
    failed = [cell for cell in code_cells(notebook)
              if any(out.output_type == "error" for out in cell.outputs)]  # fmt: skip
    assert failed == code_cells(notebook)[:1]


def test_there_is_a_notebook_that_takes_other_models():
    assert FIRST in [path.stem for path in CHOOSING]
