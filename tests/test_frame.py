"""pyproject.toml, environment.yml, constraints.txt, the Makefile and the wheel agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# The first version without a known hole, or with what we need. A floor in pyproject or the conda
# environment may be higher, never lower. Packages "if named" come in through others.
FLOORS = {
    "torch": ("2.10", "CVE-2025-32434, CVE-2026-24747: code and memory faults of the loader"),
    "safetensors": ("0.8.0", "#762: a file saved over its own mmap was filled with zeros"),
    "pillow": ("13.0.0", "CVE-2026-112403, CVE-2026-112398: the JPEG decoder"),
    "transformers": ("5.3", "CVE-2026-4372, CVE-2026-5241: a config that runs code"),
    "diffusers": ("0.38", "CVE-2026-44513: trust_remote_code bypassed; for tests only"),
    "accelerate": ("1.15.0", "CVE-2026-69112: paths that leave the folder; for training only"),
    "jupyterlab": ("4.5.7", "CVE-2026-42557, CVE-2026-40171: the command linker"),
    "notebook": ("7.5.6", "the same; if named"),
    "jupyter-server": ("2.20.0", "CVE-2026-44727: stored script in /nbconvert"),
    "nbconvert": ("7.17.1", "CVE-2026-39378: reads any file"),
    "playwright": ("1.45", "page.clock, which lets a test wait without waiting; for tests only"),
    "tqdm": ("4.66.3", "CVE-2024-34062: eval of arguments"),
    "lazy-loader": ("0.6", "a function keeps its name when the module of that name is imported"),
}
IF_NAMED = {"notebook"}
# conda-forge's name → PyPI's, where they differ
CONDA_NAMES = {"pytorch-cpu": "torch", "pytorch-gpu": "torch", "matplotlib-base": "matplotlib"}


# ---- reading ---------------------------------------------------------------------------------
def floors(requirements: list[str]) -> dict[str, str]:
    """Name → lower bound; ValueError for a cap, a pin or a missing bound."""
    found = {}
    for text in requirements:
        requirement = Requirement(text)
        bounds = list(requirement.specifier)
        if len(bounds) != 1 or bounds[0].operator != ">=":
            raise ValueError(f"{text}: exactly one >= is wanted")
        found[canonicalize_name(requirement.name)] = bounds[0].version
    return found


def extras() -> dict[str, dict[str, str]]:
    return {
        name: floors(given) for name, given in PROJECT["project"]["optional-dependencies"].items()
    }


def conda(text: str) -> tuple[list[str], list[str]]:
    """(conda requirements, pip lines) of our environment.yml: a plain list, no YAML library."""
    body = text.split("\ndependencies:\n")[1]
    entries = re.findall(r"^  - (.+)$", body, re.MULTILINE)
    inner = re.findall(r"^      - (.+)$", body, re.MULTILINE)
    return [entry for entry in entries if entry != "pip:"], inner


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, pinned in found}


RUNTIME = floors(PROJECT["project"]["dependencies"])
EVERY = RUNTIME | extras()["test"] | extras()["train"]


# ---- floors ----------------------------------------------------------------------------------
def below(given: dict[str, str]) -> list[str]:
    """The floors that are lower than the table's."""
    return [
        name
        for name, (floor, _) in FLOORS.items()
        if name in given and Version(given[name]) < Version(floor)
    ]


def test_floors_are_those_of_the_table():
    assert not below(EVERY)
    assert set(FLOORS) - IF_NAMED <= set(EVERY)


def test_the_floor_check_can_fail():
    assert below({"torch": "2.6", "numpy": "1.0"}) == ["torch"]
    for text in ("torch", "torch==2.13.0", "torch>=2.10,<3", "torch<3"):
        with pytest.raises(ValueError, match=">="):
            floors([text])


def test_python_has_a_floor_and_no_cap():
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def test_conda_has_the_same_names_and_floors():
    entries, inner = conda((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert entries[:2] == ["python>=3.11", "pip"]
    given = floors(entries[2:])
    assert {CONDA_NAMES.get(name, name): floor for name, floor in given.items()} == RUNTIME
    assert inner == ["-e ."]


# ---- constraints -----------------------------------------------------------------------------
def needed(name: str, extra: str = "") -> set[str]:
    """The packages that an installed package asks for on this machine."""
    try:
        asked = [Requirement(text) for text in requires(name) or ()]
    except PackageNotFoundError:
        return set()
    return {
        canonicalize_name(requirement.name)
        for requirement in asked
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    }


def test_constraints_are_plain_pins_above_the_floors():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert not below(pins())
    assert pins()["torch"] == "2.13.0"
    assert all(Version(pins()[name]) >= Version(floor) for name, floor in EVERY.items())


@pytest.mark.skipif(sys.platform != "linux", reason="constraints are those of the Linux CI")
def test_constraints_cover_everything_that_gets_installed():
    seen, queue = set(), set(EVERY)
    while queue:
        name = queue.pop()
        seen.add(name)
        queue |= needed(name) - seen
    # a CUDA build of torch brings its own libraries, at versions that torch itself pins
    loose = {n for n in seen if n.startswith(("nvidia-", "cuda-", "triton")) or n == "setuptools"}
    assert not seen - set(pins()) - loose


def test_the_tests_run_on_the_pinned_versions_or_say_which_not():
    other = {n: version(n) for n in EVERY if version(n).split("+")[0] != pins()[n]}
    print("not the pinned versions:", other or "none")


# ---- what is shipped -------------------------------------------------------------------------
def git(*arguments: str) -> list[str]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    run = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.splitlines()


def test_package_data_is_inside_the_package_and_not_ignored():
    """The wheel takes all of diffusionlab/ that git does not ignore; see [tool.hatch.build]."""
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["diffusionlab"]}
    files = git("ls-files", "--cached", "--others", "--exclude-standard", "diffusionlab")
    assert {"diffusionlab/py.typed", "diffusionlab/__init__.pyi"} <= set(files)
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "diffusionlab").rglob("*")}
    assert {"diffusionlab/views/js/kit.js", "diffusionlab/views/js/view.css"} <= here
    kinds = (".safetensors", ".json", ".js", ".css", ".txt", ".toml")
    data = {name for name in here if name.endswith(kinds)}
    assert not data - set(files), "ignored by git, so missing from the wheel"


def test_nothing_heavy_is_committed():
    sizes = {
        name: (ROOT / name).stat().st_size for name in git("ls-files") if (ROOT / name).exists()
    }
    assert max(sizes.values()) < 100 * 2**20, "GitHub refuses files over 100 MB"


@pytest.mark.slow
def test_the_wheel_holds_code_types_checkpoint_and_scripts(tmp_path):
    """Needs hatchling from the package index, hence slow; `pip install build` is not needed."""
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, ROOT], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {n for n in git("ls-files", "diffusionlab") if (ROOT / n).exists()}
    assert wanted <= names
    scripts = {path.name for path in (ROOT / "diffusionlab/views/js").iterdir()}
    assert {"host.js", "kit.js", "view.css"} <= scripts
    assert {f"diffusionlab/views/js/{name}" for name in scripts} <= names
    assert not {n for n in names if n.startswith("tests/")}


def test_licence_and_entry_point():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["scripts"] == {"diffusionlab": "diffusionlab.cli:main"}


def test_contributing_stays_short():
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 50


def test_every_lint_rule_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[tool.ruff.lint]")[1].split("[tool.pytest")[0]
    bare = [line for line in section.splitlines() if re.match(r'\s+"|^"', line) and "#" not in line]
    assert not bare


# ---- the two commands ------------------------------------------------------------------------
def make(*arguments: str) -> subprocess.CompletedProcess:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, env=env
    )


def test_make_says_what_is_missing(tmp_path):
    done = make("demo", "PYTHON=no-such-python", f"VENV={tmp_path}/venv")
    assert done.returncode
    assert "no 'no-such-python' here" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("failing", "told"), [("version_info", "is too old"), ("ensurepip", "python3-venv")]
)
def test_make_refuses_an_unfit_python(tmp_path, failing, told):
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in --version) echo Python 3.8.1;; *{failing}*) exit 1;; esac\n'
    )
    fake.chmod(0o755)
    done = make("demo", f"PYTHON={fake}", f"VENV={tmp_path}/venv")
    assert done.returncode
    assert told in done.stderr


def test_make_demo_writes_the_three_files_and_make_test_ends_with_pytest(tmp_path):
    demo = make("-n", "demo", f"VENV={tmp_path}/venv").stdout
    assert "-c constraints.txt" in demo
    assert "torch==2.13.0" in demo
    assert "--out demo/" in demo
    tests = make("-n", "test", f"VENV={tmp_path}/venv").stdout.strip().splitlines()
    assert [line.split()[0].rpartition("/")[2] for line in tests[-3:]] == ["ruff", "ruff", "python"]
    assert "-m pytest -n 2" in tests[-1]


def test_ci_calls_the_test_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "\nmake test" in script.read_text(encoding="utf-8")


# ---- the browser of the browser tests --------------------------------------------------------
def stubs(folder: Path, **programs: str) -> dict[str, str]:
    """The environment of a machine that has these programs (sh scripts) and little else."""
    folder.mkdir()
    for name, script in programs.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name.replace("_", "-")).chmod(0o755)
    for name in ("bash", "sh", "env", "mktemp", "rm", "tail", "cat", "touch", "chmod", "id"):
        if name not in programs and shutil.which(name):
            (folder / name).symlink_to(shutil.which(name))
    return {"PATH": str(folder), "HOME": str(folder)}


def chromium(environment: dict[str, str]) -> subprocess.CompletedProcess:
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    script = [shutil.which("bash"), ROOT / ".ci" / "chromium"]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)


def test_a_browser_that_is_there_is_not_installed_again(tmp_path):
    done = chromium(stubs(tmp_path / "bin", chromium="exit 1", apt_get="touch $HOME/asked"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "bin" / "asked").exists()


def test_chromium_is_installed_quietly_at_the_second_try(tmp_path):
    apt = """case "$*" in
*update*) [ -e $HOME/tried ] || { touch $HOME/tried; echo no route; exit 100; };;
*install*) echo unpacking; cat /dev/null > $HOME/chromium; chmod +x $HOME/chromium;; esac"""
    done = chromium(stubs(tmp_path / "bin", apt_get=apt, id="echo 0"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ({}, "no apt-get; install a Chromium"),
        ({"apt_get": "exit 0", "id": "echo 1000", "sudo": "exit 1"}, "sudo apt install chromium"),
        ({"apt_get": "echo no route; exit 100", "id": "echo 0"}, "no route"),
        ({"apt_get": "exit 0", "id": "echo 0"}, "could not be installed"),
    ],
)
def test_a_browser_that_cannot_be_installed_is_told(tmp_path, programs, told):
    done = chromium(stubs(tmp_path / "bin", **programs))
    assert done.returncode == 1
    assert told in done.stdout


def test_ci_asks_for_a_browser_before_the_tests():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "chromium", os.X_OK)
    assert "export REQUIRE_BROWSER=1" in script
    assert script.index("\n.ci/chromium") < script.index("\nmake test")
    assert make("-n", "chromium").stdout.strip() == ".ci/chromium"


@pytest.mark.parametrize("required", [False, True])
def test_without_a_browser_tests_are_skipped_with_a_count_or_fail(tmp_path, required):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "CHROMIUM"))}
    environment |= {"PATH": str(tmp_path), "REQUIRE_BROWSER": "1" if required else ""}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    wanted = "tests/browser/test_exhibition.py::test_the_picture_check_can_fail"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", wanted]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    lines = done.stdout.strip().splitlines()
    if required:
        assert done.returncode == 1
        assert "there is no Chromium" in done.stdout
    else:
        assert done.returncode == 0
        assert lines[-2].startswith("1 browser tests skipped: there is no Chromium; install")
        assert lines[-1].startswith("1 skipped")
