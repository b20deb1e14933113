"""The command line: what it writes, what it says, and how it ends when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffusionlab import cli, doctor
from diffusionlab.errors import CheckpointError, InputError

FILES = ["filmstrip.png", "image.png", "run.safetensors"]


@pytest.fixture
def tiny(tiny_folder, tmp_path):
    """Arguments of a short run of the tiny model, and the folder that it writes into."""
    out = tmp_path / "out"
    return ["generate", "a red car", "--steps", "3", "--model", str(tiny_folder)] + [
        "--device", "cpu", "--out", str(out),
    ], out  # fmt: skip


# ---- arguments -------------------------------------------------------------------------------
def test_the_defaults_are_those_of_generate():
    given = cli.parser().parse_args(["generate", "a red car"])
    assert (given.seed, given.steps, given.sampler, given.guidance) == (0, 20, "ddim", 4.0)
    assert (given.model, given.device, given.spacing, given.negative) == ("toyland", None, None, "")
    assert (given.width, given.height, given.filmstrip, given.out) == (
        None,
        None,
        True,
        Path("demo"),
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "generate|view|lab|doctor"),
        (["draw"], "invalid choice: 'draw'"),
        (["generate"], "prompt"),
        (["generate", "x", "--steps", "2.5"], "invalid int value: '2.5'"),
        (["generate", "x", "--guidance", "much"], "invalid float value: 'much'"),
        (["generate", "x", "--colour", "red"], "--colour"),
    ],
)
def test_wrong_arguments_end_with_status_2(arguments, told, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_an_unknown_sampler_is_refused_before_anything_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusionlab.pipeline", None)  # importing it would fail
    out = tmp_path / "out"
    assert cli.main(["generate", "x", "--sampler", "dimm", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "'dimm'" in error
    assert "ddim" in error
    assert "dpmpp_2m" in error
    assert not out.exists()


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert cli.main(["generate", "x", "--out", str(tmp_path / "out")]) == 2
    assert "--out is" in capsys.readouterr().err


def test_a_missing_checkpoint_is_one_line_and_status_2(tmp_path, capsys):
    missing = str(tmp_path / "nothing")
    assert cli.main(["generate", "x", "--model", missing, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "there is no folder" in error
    assert error.count("\n") == 1
    assert error.startswith("diffusionlab: ")


@pytest.mark.parametrize("error", [InputError("told"), CheckpointError("told")])
def test_our_errors_become_one_line_and_others_stay_loud(monkeypatch, capsys, error):
    def failing(options):
        raise error

    monkeypatch.setattr(cli, "run_doctor", failing)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "diffusionlab: told\n"
    monkeypatch.setattr(cli, "run_doctor", lambda options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


# ---- generate --------------------------------------------------------------------------------
def test_a_picture_its_filmstrip_and_its_record(tiny, capsys):
    arguments, out = tiny
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert sorted(Path(line.split()[0]).name for line in lines) == FILES
    image, strip = picture(out / "image.png"), picture(out / "filmstrip.png")
    assert image.size == (64, 64)
    assert strip.width > strip.height > 64

    from diffusionlab.trace import Trace

    trace = Trace.load(out / "run.safetensors")
    assert trace.settings.prompt == "a red car"
    assert len(trace.steps) == 3
    assert trace.image.tobytes() == image.tobytes()


def test_the_options_reach_the_run(tiny):
    arguments, out = tiny
    more = ["--seed", "5", "--sampler", "euler", "--guidance", "2", "--negative", "a boat"]
    more += ["--spacing", "leading", "--width", "48", "--height", "32", "--no-filmstrip"]
    assert cli.main([*arguments, *more]) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES[1:]

    from diffusionlab.trace import Trace

    made = Trace.load(out / "run.safetensors").settings
    assert (made.seed, made.sampler["name"], made.guidance_scale) == (5, "euler", 2.0)
    assert (made.negative_prompt, made.spacing) == ("a boat", "leading")
    assert (made.width, made.height) == (48, 32)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--steps", "0"), ("--steps", "1001"), ("--guidance", "nan"), ("--seed", "-1"),
        ("--width", "20"), ("--spacing", "wide"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_run_write_nothing(tiny, capsys, option, value):
    arguments, out = tiny
    assert cli.main([*arguments, option, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith("diffusionlab: ")
    assert value in error
    assert not list(out.iterdir())


def test_ctrl_c_says_how_far_it_came_and_keeps_the_steps(tiny, capsys, monkeypatch):
    import diffusionlab.generate  # noqa: F401 - the module behind the function
    from diffusionlab.trace import Trace

    module = sys.modules["diffusionlab.generate"]
    calls, predict = [], module.predict

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(*args, **kwargs)

    monkeypatch.setattr(module, "predict", interrupted)
    arguments, out = tiny
    assert cli.main(arguments) == 130
    assert "saving the 2 steps that are done" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["filmstrip.png", "run.safetensors"]
    trace = Trace.load(out / "run.safetensors")
    assert len(trace.steps) == 2
    assert trace.image is None


def test_ctrl_c_before_the_first_step_saves_nothing(tiny, capsys, monkeypatch):
    import diffusionlab.generate  # noqa: F401 - the module behind the function

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["diffusionlab.generate"], "predict", interrupted)
    arguments, out = tiny
    assert cli.main(arguments) == 130
    assert "nothing to save" in capsys.readouterr().err
    assert not list(out.iterdir())


def test_ctrl_c_while_loading_ends_quietly(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    import diffusionlab.pipeline

    monkeypatch.setattr(diffusionlab.pipeline, "load", interrupted)
    assert cli.main(["generate", "x", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "diffusionlab: stopped\n"


def test_a_file_that_cannot_be_written_leaves_the_old_one(tiny, capsys, monkeypatch):
    arguments, out = tiny
    out.mkdir()
    (out / "image.png").write_bytes(b"the old picture")

    def torn(image, path, **kwargs):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", torn)
    assert cli.main([*arguments, "--no-filmstrip"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert (out / "image.png").read_bytes() == b"the old picture"
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]


def test_a_picture_is_made_without_matplotlib(tiny):
    arguments, out = tiny
    code = f"""
from diffusionlab.cli import main
assert main({arguments!r}) == 0
import sys
names = "matplotlib", "ipywidgets", "diffusers", "jupyterlab"
print([name for name in names if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_demo_of_the_readme(tmp_path):
    command = [sys.executable, "-m", "diffusionlab.cli", "generate"]
    command += ["a red car in the city at night", "--seed", "7", "--steps", "4", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--out", tmp_path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert picture(tmp_path / "image.png").size == (128, 128)


# ---- view ------------------------------------------------------------------------------------
@pytest.fixture
def record(tmp_path):
    """A saved run of five steps."""
    import traces

    return traces.trace().save(tmp_path / "a run.safetensors")


@pytest.fixture
def browsers(tmp_path, monkeypatch):
    """The addresses that would have been opened; the cache is in tmp_path."""
    import webbrowser

    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return opened


def test_view_writes_the_page_where_it_is_told_to(record, tmp_path, capsys, browsers):
    page = tmp_path / "pages" / "run.html"
    assert cli.main(["view", str(record), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "a red sky scraper" in text
    assert browsers == []


def test_view_opens_a_page_that_stays(record, tmp_path, capsys, browsers):
    assert cli.main(["view", str(record)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert browsers == [page.as_uri()]
    assert page.is_relative_to(tmp_path / "cache" / "diffusionlab")
    assert page.stat().st_size > 10_000
    assert cli.main(["view", str(record), "--every", "2", "--size", "64"]) == 0
    assert Path(capsys.readouterr().out.strip()) == page  # one page a record: no litter
    assert len(list(page.parent.iterdir())) == 1


def test_view_without_a_browser_says_so(record, capsys, browsers, monkeypatch):
    import webbrowser

    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert cli.main(["view", str(record)]) == 0
    told = capsys.readouterr()
    assert Path(told.out.strip()).is_file()
    assert "no browser opened" in told.err


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "there is no file"),
        (lambda path: path.write_bytes(b""), "is not a whole safetensors file"),
        (lambda path: path.write_bytes(b"\x89PNG" * 100), "is not a whole safetensors file"),
    ],
)
def test_view_refuses_what_is_no_record(make, told, tmp_path, capsys, browsers):
    make(tmp_path / "run.safetensors")
    assert cli.main(["view", str(tmp_path / "run.safetensors")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("diffusionlab: ")
    assert error.count("\n") == 1
    assert browsers == []


def test_view_refuses_a_damaged_record(record, capsys, browsers):
    data = bytearray(record.read_bytes())
    data[-1] ^= 255
    record.write_bytes(data)
    assert cli.main(["view", str(record)]) == 2
    assert capsys.readouterr().err.startswith("diffusionlab: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--every", "9"], "every is 9"),
        (["--size", "5000"], "size is 5000"),
        (["--out", "page.txt"], "a file that ends in .html"),
    ],
)
def test_view_refuses_wrong_values(record, capsys, browsers, arguments, told):
    assert cli.main(["view", str(record), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_view_says_which_page_cannot_be_written(record, tmp_path, capsys, browsers):
    (tmp_path / "file").write_text("not a folder")
    page = tmp_path / "file" / "page.html"
    assert cli.main(["view", str(record), "--out", str(page)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert cli.main(["view", str(record)]) == 0


def test_view_needs_no_model_no_torch_and_no_matplotlib(record, tmp_path):
    code = f"""
from diffusionlab.cli import main
assert main(["view", {str(record)!r}, "--out", {str(tmp_path / "page.html")!r}]) == 0
import sys
names = "torch", "matplotlib", "transformers", "anywidget", "ipywidgets", "huggingface_hub"
print([name for name in names if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# ---- lab and doctor --------------------------------------------------------------------------
def test_lab_opens_a_folder_that_is_there(tmp_path, monkeypatch, capsys):
    import jupyterlab.labapp

    opened = []
    monkeypatch.setattr(jupyterlab.labapp, "main", opened.append)
    assert cli.main(["lab", str(tmp_path)]) == 0
    assert cli.main(["lab", str(tmp_path), "--allow-root"]) == 0
    assert opened == [[str(tmp_path)], [str(tmp_path), "--allow-root"]]
    assert cli.main(["lab", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert len(opened) == 2


def test_doctor_says_one_line_each(capsys):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(cli.CHECKS)
    assert lines[-1].split()[1] == "yes:"  # the tests run with HF_HUB_OFFLINE=1


def test_doctor_names_the_fix_and_fails(monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch, "__version__", "2.6.0")
    monkeypatch.setitem(cli.CHECKS, "cache", lambda: ("/nowhere", "set HF_HOME"))
    assert cli.main(["doctor"]) == 1
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"] == '2.6.0  → pip install -U "torch>=2.10"'
    assert lines["cache"] == "/nowhere  → set HF_HOME"
    assert "→" not in lines["Python"]


def test_doctor_lives_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found, fix = doctor.check_torch()
    assert "not usable" in found
    assert "torch>=2.10" in fix
    assert doctor.check_device() == ("unknown without torch", "")


def test_doctor_asks_the_kernel_and_the_server(monkeypatch, tmp_path):
    """Widgets have a side in Python and one in JupyterLab's pages; either may be missing."""
    assert doctor.check_kernel()[0].startswith("anywidget ") and doctor.check_kernel()[1] == ""
    found, fix = doctor.check_server()
    assert found.startswith("jupyterlab ") and fix == ""
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(tmp_path / name))
    assert "open this one by `diffusionlab lab`" in doctor.check_server()[0]
    monkeypatch.setattr("jupyter_core.paths.jupyter_path", lambda *_: [str(tmp_path)])
    (tmp_path / "@jupyter-widgets" / "jupyterlab-manager").mkdir(parents=True)
    found, fix = doctor.check_server()
    assert found.endswith("without the page's side of anywidget")
    assert fix == "pip install --force-reinstall --no-deps anywidget"
    monkeypatch.setattr(doctor, "_kernel_command", lambda: str(tmp_path / "python"))
    found, fix = doctor.check_kernel()
    assert f"notebooks start {tmp_path / 'python'}" in found and "ipykernel install" in fix


def test_doctor_names_the_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda *packages: ("none", list(packages)))
    assert doctor.check_kernel()[1].startswith("pip install anywidget ipywidgets ipykernel, then")
    assert doctor.check_server()[1].startswith("pip install jupyterlab jupyterlab_widgets, then")
    monkeypatch.undo()
    assert doctor._installed("numpy", "no-such-package")[1] == ["no-such-package"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [(["--seed", "-1"], "seed"), (["--guidance", "nan"], "guidance_scale")],
)
def test_wrong_numbers_are_refused_before_a_model_is_loaded(
    monkeypatch, capsys, tmp_path, flags, told
):
    monkeypatch.setattr("diffusionlab.pipeline.load", lambda *_, **__: pytest.fail("it loaded"))
    assert cli.main(["generate", "x", *flags, "--out", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
