"""Every notebook keeps to the style of the course and runs from top to bottom, offline.

Once on Toyland with its solutions; once on a tiny random model as a student gets it, and then the
solutions. In the kernel `kernel_side.py` blocks the network and asks every `check` again.
"""

from __future__ import annotations

import os
import socket

import httpx
import nbformat
import notebook_runs
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_course import about_course, about_number
from notebook_lint import LARGEST, about_cells, about_code, about_outputs, code_cells, tags
from notebook_runs import NOTEBOOKS, load_refresh, load_tool, quick, quick_source, ran, read
from offline import NetworkBlocked
from pretending import hindrance

from diffusionlab.toyland import checkpoint

__all__ = ["NOTEBOOKS", "about_cells", "about_code", "about_course", "about_outputs", "code_cells",
           "load_refresh"]  # fmt: skip
NAMES = [path.stem for path in NOTEBOOKS]
FIRST = "01_prompt_to_picture"


def has_toyland() -> bool:
    return (checkpoint() / "unet").is_dir()


# ---- as they are committed -------------------------------------------------------------------
def test_there_are_notebooks():
    assert FIRST in NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_the_source_keeps_to_the_style(path):
    notebook = read(path)
    nbformat.validate(notebook)
    told = about_cells(notebook) + about_code(notebook) + about_course(notebook, path.parent)
    told += about_number(notebook, NAMES, path.stem)
    assert not told, "\n".join(told)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_the_committed_outputs(path):
    size, notebook = path.stat().st_size, read(path)
    assert size <= LARGEST, f"{size} bytes: leave a figure out, or draw it smaller"
    if not any(cell.outputs for cell in code_cells(notebook)) and not has_toyland():
        pytest.skip("Toyland's weights are not there yet: outputs come with `make refresh`")
    told = about_outputs(notebook)
    assert not told, "\n".join([*told, "`make refresh` runs the notebooks again"])


# ---- as they run -----------------------------------------------------------------------------
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_runs_from_top_to_bottom(path, monkeypatch):
    if not has_toyland():
        pytest.skip("Toyland's weights are not there yet: the tiny model runs all the same")
    monkeypatch.delenv("DIFFUSIONLAB_MODEL", raising=False)
    found = ran(read(path), path.parent, path.stem)
    told = about_outputs(found.notebook) + found.told
    assert not told, "\n".join(told)
    assert found.asked >= 2
    if path.stem == FIRST:
        check_parts_are_the_whole(found.notebook)


def check_parts_are_the_whole(notebook) -> None:
    """The first notebook ends with its parts put together again."""
    shown = [out.data["text/plain"] for cell in code_cells(notebook) for out in cell.outputs
             if "are equal" in out.get("data", {}).get("text/plain", "")]  # fmt: skip
    assert shown and "True" in shown[-1] and "False" not in shown[-1], "the parts are not the whole"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_the_student_version_runs_on_a_tiny_model_and_so_do_the_solutions(
    path, tiny_folder, monkeypatch
):
    monkeypatch.setenv("DIFFUSIONLAB_MODEL", str(tiny_folder))
    notebook = quick(read(path))
    solved = [cell for cell in notebook.cells if "exercise" in tags(cell)]
    bare = load_tool("student").student_version(notebook)
    assert "SOLUTION" not in str(bare)
    told = about_outputs(ran(bare, path.parent, path.stem, afterwards=solved).notebook)
    assert not told, "\n".join(told)


# ---- the runs can fail -----------------------------------------------------------------------
def of(*sources: str):
    return new_notebook(cells=[new_code_cell(source) for source in sources])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_runs_where_models_come_to_a_device(path, monkeypatch):
    if not has_toyland():
        pytest.skip("Toyland's weights are not there yet: the tiny model runs all the same")
    if "lesson.learn(" in path.read_text(encoding="utf-8"):
        pytest.skip("no gradients flow on a pretended device")
    if why := hindrance():
        pytest.skip(why)
    monkeypatch.delenv("DIFFUSIONLAB_MODEL", raising=False)
    device = new_code_cell('import diffusionlab as dl; assert dl.load().device.type == "cuda"')
    begin = notebook_runs.BEGIN + notebook_runs.PRETENDED
    result = ran(quick(read(path)), path.parent, path.stem, (device,), begin)
    assert result.told + about_outputs(result.notebook) == []


def test_the_kernel_reaches_no_network_and_a_failing_cell_is_shown(tmp_path):
    source = "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=5)"
    with pytest.raises(pytest.fail.Exception, match="tests run offline") as found:
        ran(of("1 + 1", source), tmp_path, "a notebook")
    assert found.value.msg.startswith("a notebook, cell 1:") and source in found.value.msg
    assert "NetworkBlocked" in found.value.msg and "\x1b" not in found.value.msg


@pytest.mark.parametrize(
    "leave",
    [
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=5),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: send_datagram(("192.0.2.1", 53)),
        lambda: httpx.get("http://192.0.2.1/", timeout=5),
    ],
    ids=["address", "name", "datagram", "httpx"],
)
def test_every_way_out_is_blocked(leave):
    """Kernels and tests are blocked by the same function."""
    with pytest.raises(NetworkBlocked, match="tests run offline"):
        leave()


def send_datagram(address) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.sendto(b"x", address)


ASK = "from diffusionlab.course import check\n"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("check(3, 2, 'How many of the rows are the same?', because=f'{1}')", "solved"),
        ("check(..., 2, 'How many?', tolerance=9, because=f'{1}')", "counts as True"),
    ],
)
def test_checks_are_asked_again(source, complaint, tmp_path):
    found = ran(of(ASK + source, "1 + 1"), tmp_path)
    assert found.asked == 1 and any(complaint in line for line in found.told), found.told
    assert [cell.execution_count for cell in found.notebook.cells] == [1, 2]


def test_a_sound_check_is_not_complained_of(tmp_path):
    cells = [
        ASK + "import numpy as np",
        "check(2, np.int64(2), 'How many of the rows are the same?', because=f'{1}')",
        "check(..., np.float32(1.5), 'How much larger is it?', tolerance=0.1, because=f'{1}')",
        "check(..., np.bool_(True), 'Are both the same?', because=f'{1}')",
        "check(..., 'x0', 'Which of the readings is it?', because=f'{1}')",
    ]
    found = ran(of(*cells), tmp_path)
    assert found.asked == 4 and not found.told, found.told


def test_one_thread_is_seen_to(tmp_path, monkeypatch):
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert not ran(of("import torch"), tmp_path).told
    assert "threads" in ran(of("import torch\ntorch.set_num_threads(2)"), tmp_path).told[0]


def test_parameters_become_quick():
    assert quick_source("seconds = 45\nseed = 11  # any") == "seconds = 2\nseed = 11"
    notebook = of("minutes = 3", "minutes")
    assert quick(notebook) == notebook
    notebook.cells[0].metadata.tags = ["parameters"]
    assert quick(notebook).cells[0].source == "minutes = 0.02"
