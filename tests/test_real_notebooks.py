"""The notebooks run on checkpoints in the layouts of Stable Diffusion, as on Toyland."""

from __future__ import annotations

import diffusers
import nbformat
import pytest
import torch
from nbclient.exceptions import CellExecutionError
from notebook_runs import quick
from original_layout import pipeline, unet, write_cached_tokenizer, write_single_file
from test_notebooks import NOTEBOOKS, about_outputs, code_cells, load_refresh
from test_parity_families import FAMILIES

CHOOSING = [path for path in NOTEBOOKS if "DIFFUSIONLAB_MODEL" in path.read_text(encoding="utf-8")]
FIRST, GUIDING = "01_prompt_to_picture", "08_guidance"


def small_pipeline():
    """Stable Diffusion 1 in pictures of 128 pixels: a file cannot say less than 64 cells."""
    pipe = pipeline("SD 1")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe.unet = unet(
            block_out_channels=(32, 32, 32), attention_head_dim=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        pipe.vae = diffusers.AutoencoderKL(
            block_out_channels=(32, 32), layers_per_block=1, sample_size=128,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ).eval()  # fmt: skip
    return pipe


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


@pytest.mark.parametrize("path", CHOOSING, ids=lambda path: path.stem)
def test_a_notebook_runs_on_sdxl_in_a_folder(path, tmp_path, monkeypatch):
    FAMILIES["SDXL"]().save_pretrained(tmp_path / "xl")
    cells = run(path, tmp_path / "xl", monkeypatch)
    assert "'xl'" in cells[0].outputs[-1].data["text/plain"]
    if path.stem == FIRST:
        check_parts_are_the_whole(cells)


def test_the_first_notebook_runs_on_a_single_file(tmp_path, monkeypatch):
    pipe = small_pipeline()
    cache = write_cached_tokenizer(tmp_path / "hub", pipe.tokenizer)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    file = write_single_file(pipe, tmp_path / "one.safetensors")
    cells = run(next(p for p in CHOOSING if p.stem == FIRST), file, monkeypatch)
    assert "one.safetensors" in cells[0].outputs[-1].data["text/plain"]
    check_parts_are_the_whole(cells)


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
