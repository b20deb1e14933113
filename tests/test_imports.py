"""What an import loads, measured in fresh interpreters: the view tower never needs torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "matplotlib",
    "transformers",
    "ipywidgets",
    "IPython",
    "diffusers",
    "numpy",
    "PIL",
)
WITHOUT_TORCH = [
    "schedule", "plan", "ideal", "images", "samplers", "trace", "trace.file", "trace.filmstrip",
    "analysis", "plots", "views", "display", "toyland", "playground", "course",
]  # fmt: skip


def run(code: str) -> str:
    """The output of a fresh interpreter that runs `code`; EAGER_IMPORT is off."""
    env = {name: value for name, value in os.environ.items() if name != "EAGER_IMPORT"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded(code: str, names: tuple[str, ...] = HEAVY) -> set[str]:
    """Which of the heavy packages are in sys.modules after `code` ran in a fresh interpreter."""
    return set(
        run(f"{code}\nimport sys\nprint(*[n for n in {names!r} if n in sys.modules])").split()
    )


def exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"diffusionlab.{module}") is not None
    except ModuleNotFoundError:
        return False


def test_importing_the_package_loads_nothing_heavy():
    assert loaded("import diffusionlab") == set()


def test_the_measurement_can_fail():
    assert {"torch", "numpy"} <= loaded("import diffusionlab, torch")
    with pytest.raises(AssertionError):
        run("import diffusionlab.no_such_module")


@pytest.mark.parametrize("module", [name for name in WITHOUT_TORCH if exists(name)])
def test_the_view_tower_and_the_records_never_load_torch(module):
    assert not loaded(f"import diffusionlab.{module}") & {"torch", "transformers", "diffusers"}


def test_a_trace_is_read_without_torch(tmp_path):
    code = f"""
from diffusionlab.trace import Trace
from diffusionlab.errors import TraceError
try:
    Trace.load({str(tmp_path / "no.safetensors")!r})
except TraceError:
    pass"""
    assert not loaded(code) & {"torch", "matplotlib"}


@pytest.mark.parametrize("argument", ["--help", "--version", "generate --help"])
def test_help_loads_nothing_heavy(argument):
    code = f"""
from diffusionlab.cli import main
try:
    main({argument.split()!r})
except SystemExit:
    pass
import sys
sys.stdout = sys.stderr = open({os.devnull!r}, "w")
"""
    names = "[n for n in ('torch', 'matplotlib', 'transformers', 'numpy') if n in sys.modules]"
    assert run(code + f"\nsys.stdout = sys.__stdout__\nprint('loaded', {names})").endswith("[]")


# ---- the facade ------------------------------------------------------------------------------
FUNCTION = "print(callable(dl.generate), type(dl.generate).__name__, dl.generate.__name__)"


@pytest.mark.parametrize(
    "before",
    [
        "import diffusionlab as dl",
        "import diffusionlab.generate\nimport diffusionlab as dl",
        "import diffusionlab.cli\nimport diffusionlab as dl",
        "import diffusionlab as dl\nfirst = dl.generate\nimport diffusionlab.generate\n"
        "import diffusionlab.cli\nassert dl.generate is first",
        "from diffusionlab.side_by_side import compare\nimport diffusionlab as dl",
        "from importlib import import_module as load\nload('diffusionlab.generate')\n"
        "import diffusionlab as dl",
        "import diffusionlab.cli\ndiffusionlab.cli.main(['generate', 'x', '--sampler', '?'])\n"
        "import diffusionlab as dl",
    ],
)
def test_generate_stays_the_function(before):
    assert run(f"{before}\n{FUNCTION}").splitlines()[-1] == "True function generate"


def test_the_module_behind_generate_is_still_importable():
    code = (
        "import sys, diffusionlab.generate\nfrom diffusionlab.generate import generate, denoise\n"
    )
    assert run(code + "print(type(sys.modules['diffusionlab.generate']).__name__)") == "module"


def test_every_public_name_is_there():
    import diffusionlab as dl

    missing = [name for name in dl.__all__ if not hasattr(dl, name)]
    assert not missing
    assert set(dl.__all__) <= set(dir(dl))


def test_plots_and_samplers_need_no_second_list():
    import diffusionlab as dl
    from diffusionlab import plots, samplers

    assert all(getattr(dl, name) is samplers.SAMPLERS[name] for name in samplers.SAMPLERS)
    drawn = [name for name in dir(plots) if name.startswith("plot_")]
    assert drawn
    assert all(getattr(dl, name) is getattr(plots, name) for name in drawn)
    assert {*samplers.SAMPLERS, *drawn} <= set(dir(dl))


@pytest.mark.parametrize("name", ["no_such_name", "plot_no_such_thing", "_private"])
def test_an_unknown_name_is_an_attribute_error(name):
    import diffusionlab as dl

    with pytest.raises(AttributeError, match=name):
        getattr(dl, name)


def test_the_stub_names_what_the_package_gives():
    import ast
    from pathlib import Path

    import diffusionlab as dl

    stub = ast.parse(Path(dl.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    froms = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.level]
    assert {alias.name for node in froms for alias in node.names} == set(dl.__all__)
