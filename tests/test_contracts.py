"""Habits that a reader may rely on: sizes, docstrings, names, and what the package never does.

Only the outer bounds are asserted; medians and 90th percentiles are printed (pytest -rP), because
the aim is clarity and not a score.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diffusionlab"
PYTHON = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(PACKAGE.rglob("*.js"))
MOST_LINES = {"function": 60, "file": 350, "script function": 120, "script": 500}
STAGES = ["tokenize", "embed", "draw_noise", "add_noise", "predict", "update", "decode", "encode"]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(source: str) -> Iterator[tuple[str, int]]:
    """(name, lines without the docstring) of every function of a source text, methods included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTIONS):
            first = node.body[0]
            docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


def too_long(source: str, where: str) -> list[str]:
    """What breaks the outer bounds, in words."""
    told = [
        f"{where}: {name} has {lines} lines, at most {MOST_LINES['function']} are allowed"
        for name, lines in functions(source)
        if lines > MOST_LINES["function"]
    ]
    lines = source.count("\n")
    if lines > MOST_LINES["file"]:
        told.append(f"{where}: {lines} lines, at most {MOST_LINES['file']} are allowed")
    return told


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_functions_and_files_stay_readable(path):
    told = too_long(path.read_text(encoding="utf-8"), name_of(path))
    assert not told, "\n".join(told)


def test_the_size_check_can_fail():
    assert not too_long("def f():\n" + "    x = 1\n" * 59, "here")
    assert too_long("def f():\n" + "    x = 1\n" * 60, "here")
    assert not too_long('def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 59, "here")
    assert too_long("x = 1\n" * 351, "here")


def test_print_the_sizes():
    sizes = sorted(n for path in PYTHON for _, n in functions(path.read_text(encoding="utf-8")))
    files = [path.read_text(encoding="utf-8").count("\n") for path in PYTHON]
    tenth = statistics.quantiles(sizes, n=10)[-1]
    print(f"{len(sizes)} functions: median {statistics.median(sizes):g} lines, 90% ≤ {tenth:g}")
    print(f"{len(files)} files: median {statistics.median(files):g} lines, longest {max(files)}")


def script_functions(source: str) -> Iterator[tuple[str, int]]:
    """(name, lines) of every function of a script: declared, as an arrow with braces, or method."""
    code = without_texts(source)
    for found in SCRIPT_FUNCTION.finditer(code):
        depth, end = 1, found.end()
        while depth and end < len(code):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            end += 1
        yield found["name"] or found["method"] or "=>", code.count("\n", found.start(), end) + 1


# `function name(…) {`, `=> {`, and `name(…) {` at the start of a line, which is no `if` or `for`.
SCRIPT_FUNCTION = re.compile(
    r"\bfunction\b\s*(?P<name>\w*)\s*\([^{]*(?:\{[^{}]*\}[^{]*)?\)\s*\{|=>\s*\{"
    r"|^[ ]*(?P<method>(?!if\b|for\b|while\b|switch\b|catch\b)\w+)\([^(){}]*\)[ ]*\{",
    re.M,
)
TEXTS = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`", re.S
)


def without_texts(source: str) -> str:
    """A script whose comments and strings are blank; lines stay lines."""
    return TEXTS.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)


def too_long_script(source: str, where: str) -> list[str]:
    """What breaks the outer bounds of scripts, in words."""
    most = MOST_LINES["script function"]
    told = [
        f"{where}: {name} has {lines} lines, at most {most} are allowed"
        for name, lines in script_functions(source)
        if lines > most
    ]
    if source.count("\n") > MOST_LINES["script"]:
        told.append(f"{where}: more than {MOST_LINES['script']} lines")
    wide = [i for i, line in enumerate(source.split("\n"), 1) if len(line) > 100]
    return told + [f"{where}:{i}: more than 100 characters" for i in wide]


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_scripts_stay_readable(path):
    told = too_long_script(path.read_text(encoding="utf-8"), name_of(path))
    assert not told, "\n".join(told)


def test_the_size_check_of_scripts_can_fail():
    inside = "  x({ a: `}${1}` }); // }\n" * 118
    for head in ("function f({ a, b }) {", "const f = (a) => {", "  f(a, b) {"):
        assert not too_long_script(f"{head}\n{inside}}}\n", "here")
        assert "121 lines" in too_long_script(f"{head}\n{inside}x();\n}}\n", "here")[0]
    assert not too_long_script("if (a) {\n" + inside + "x();\n}\n", "here")
    assert too_long_script("x\n" * 501, "here") and too_long_script("x" * 101, "here")


# ---- docstrings, names, parameters -----------------------------------------------------------
def without_docstring(source: str) -> list[str]:
    """Public functions and classes at module level that have no docstring."""
    nodes = ast.parse(source).body
    public = [n for n in nodes if isinstance(n, (*FUNCTIONS, ast.ClassDef))]
    return [n.name for n in public if not n.name.startswith("_") and not ast.get_docstring(n)]


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_public_names_have_docstrings(path):
    source = path.read_text(encoding="utf-8")
    assert not without_docstring(source)
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), f"{name_of(path)} does not say what it holds"


def test_the_docstring_check_can_fail():
    source = (
        'def f():\n    """Does."""\ndef g():\n    pass\nclass H:\n    pass\ndef _i():\n    pass'
    )
    assert without_docstring(source) == ["g", "H"]


def test_a_stage_has_at_most_seven_parameters():
    tree = ast.parse((PACKAGE / "stages.py").read_text(encoding="utf-8"))
    found = {n.name: n.args for n in tree.body if isinstance(n, FUNCTIONS) and n.name in STAGES}
    assert sorted(found) == sorted(STAGES)
    counts = {
        name: len([*given.posonlyargs, *given.args, *given.kwonlyargs])
        for name, given in found.items()
    }
    assert max(counts.values()) <= 7, counts


def test_a_trace_stays_one_record():
    from diffusionlab.trace import Trace

    assert len(fields(Trace)) <= 15


def test_names_say_what_they_are():
    words = re.compile(r"^(get_\w+|set_\w+|\w*(Manager|Helper|Util|Utils))$")
    files = [path.stem for path in PYTHON if path.stem in ("utils", "helpers", "misc", "common")]
    named = [
        node.name
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and words.match(node.name)
    ]
    assert not files + named


# ---- what the package never does -------------------------------------------------------------
def forbidden(source: str) -> list[str]:
    """Asserts (python -O drops them), excepts that swallow all, pyplot, rcParams."""
    told = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            told.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.ExceptHandler) and node.type is None and not raises(node):
            told.append(f"line {node.lineno}: except without a type swallows Ctrl-C")
        if isinstance(node, ast.Attribute) and node.attr == "rcParams":
            told.append(f"line {node.lineno}: {node.attr}")
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            names = [module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)]
            if "matplotlib.pyplot" in names or "matplotlib.rcParams" in names:
                told.append(f"line {node.lineno}: {names[-1]}")
    return told


def raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_no_global_state_and_no_assert(path):
    assert not forbidden(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "assert x",
        "try:\n    pass\nexcept:\n    pass",
        "import matplotlib.pyplot as plt",
        "from matplotlib import pyplot",
        "import matplotlib\nmatplotlib.rcParams['a'] = 1",
    ],
)
def test_the_check_for_global_state_can_fail(source):
    assert forbidden(source)
