"""The import table of the package as a dictionary, and what no module may ever call.

A *part* is a module or sub-package directly under `diffusionlab/`. Imports go down only, those
inside functions and under TYPE_CHECKING included. The one upward edge: a record's rich repr may
import `display` inside the method.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "diffusionlab"

# ---- the table -------------------------------------------------------------------------------
RECORDS = {"schedule", "plan", "images", "trace"}
MACHINE = RECORDS | {"samplers", "noise", "taps", "models", "graphs", "pipeline", "running"}

MAY_IMPORT: dict[str, set[str]] = {
    "vocabulary": set(),
    "errors": set(),
    "whole": set(),
    "schedule": set(),
    "images": set(),
    "plan": {"schedule"},
    "ideal": {"schedule", "plan"},
    "samplers": {"schedule", "plan"},
    "trace": {"schedule", "plan", "images"},
    "taps": set(),
    "noise": {"schedule"},
    "models": {"taps"},
    "running": set(),
    "graphs": {"taps", "models", "running"},
    "toyland": {"images"},
    "pipeline": {"schedule", "models", "graphs", "images", "toyland", "running"},
    "stages": MACHINE,
    "generate": MACHINE | {"stages"},
    "inside": MACHINE | {"stages", "generate", "toyland"},
    "analysis": {"schedule", "plan", "images", "trace", "samplers", "ideal"},
    "plots": RECORDS | {"samplers", "ideal", "analysis"},
    "views": RECORDS | {"samplers", "ideal", "analysis", "plots"},
    "display": RECORDS | {"samplers", "ideal", "analysis", "plots", "views"},
    "playground": RECORDS | {"samplers", "ideal", "analysis", "plots", "views", "display"},
    "course": RECORDS | {"samplers", "ideal", "analysis", "plots", "views", "display"},
    "training": MACHINE | {"stages", "generate", "toyland", "analysis", "plots"},
}
MAY_IMPORT["claims"] = MAY_IMPORT["training"] | {"inside", "ideal", "training"}
MAY_IMPORT["cli"] = set(MAY_IMPORT)
EVERYONE = {"vocabulary", "errors", "whole"}
# Files that carry a part of another part's work, so that no file grows too long.
PART_OF = {
    "betas": "schedule",
    "levels": "schedule",
    "spacings": "schedule",
    "timesteps": "schedule",
    "scheduler_config": "schedule",
    "packing": "taps",
    "compiling": "graphs",
    "budget": "generate",
    "memory_limit": "generate",
    "outbox": "generate",
    "recordable": "generate",
    "recorder": "generate",
    "side_by_side": "generate",
    "prompts": "stages",
    "finite": "stages",
    "conditioning": "stages",
    "doctor": "cli",
    "field_words": "vocabulary",
}

TORCH = {
    "taps",
    "noise",
    "models",
    "graphs",
    "running",
    "pipeline",
    "stages",
    "generate",
    "inside",
    "training",
    "claims",
    "cli",
}
HOMES: dict[str, set[str]] = {
    "numpy": set(MAY_IMPORT),
    "PIL": {"images", "toyland", "trace", "stages", "inside", "training", "claims", "cli"},
    "safetensors": {"trace", "pipeline", "training", "claims"},
    "torch": TORCH,
    "transformers": {"pipeline", "inside", "training"},
    "huggingface_hub": {"pipeline", "cli"},
    "diffusers": {"pipeline"},  # an optional extra: its key names for single files
    "tqdm": {"generate", "training"},
    "matplotlib": {"plots", "views", "training"},  # training: the curves of its report
    "anywidget": {"views"},
    "traitlets": {"views", "playground"},
    "ipywidgets": {"display", "playground", "course"},
    "IPython": {"display", "playground", "course"},
    "accelerate": {"training"},
    "tokenizers": {"training"},
    "jupyterlab": {"cli"},
    "jupyter_client": {"cli"},
    "jupyter_core": {"cli"},
    "lazy_loader": {"__init__"},
}
RICH_REPRS = ("_repr_", "_ipython_display_")
# A module that is never imported, a call that is never made; `model.eval()` is another thing.
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
NEVER_CALLED = {"eval", "exec", "compile", "torch.load", "torch.jit.load", "torch.hub.load"}


# ---- the checker -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Import:
    """One imported module, and the function around the statement ("" at module level)."""

    module: str
    line: int
    inside: str


def imports(source: str, package: str) -> list[Import]:
    """Every import of a source text, also inside functions and by name; relative ones resolved."""
    found: list[Import] = []

    def visit(node: ast.AST, inside: str) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = node.name
        for module in imported(node, package):
            found.append(Import(module, node.lineno, inside))
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), "")
    return found


def imported(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package.split(".")[: len(package.split(".")) - node.level + 1]
        module = ".".join([*base, *filter(None, [node.module])]) if node.level else node.module
        # `from diffusionlab import x` imports diffusionlab.x
        if module == "diffusionlab":
            return [f"{module}.{alias.name}" for alias in node.names]
        return [module]
    if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in (
        "import_module",
        "__import__",
    ):
        return [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
    return []


def dotted(node: ast.AST) -> str:
    """`torch.load` of the expression torch.load; "" for what is no dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner else ""


def part_of(module: str) -> str:
    """`trace` for diffusionlab.trace.file."""
    part = module.split(".")[1] if "." in module else "__init__"
    return PART_OF.get(part, part)


def wrong_imports(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports of a module that the table does not allow, in words."""
    here = part_of(module)
    package = module if is_package else module.rpartition(".")[0]
    told = []
    for found in imports(source, package):
        if not allowed(found, here):
            told.append(f"{module}:{found.line}: {here} may not import {found.module}")
    return told


def allowed(found: Import, here: str) -> bool:
    top = found.module.split(".")[0]
    if top != "diffusionlab":
        return top in sys.stdlib_module_names or here in HOMES.get(top, set())
    part = part_of(found.module)
    if part in {here, "__version__"} | EVERYONE:
        return True
    if part == "display" and found.inside.startswith(RICH_REPRS):
        return True
    return part in MAY_IMPORT.get(here, set())


def wrong_calls(source: str, module: str) -> list[str]:
    """The banned modules and calls of a source text, in words."""
    told = []
    for node in ast.walk(ast.parse(source)):
        names = {name.split(".")[0] for name in imported(node, module)} & NEVER_IMPORTED
        told += [f"{module}:{node.lineno}: imports {name}" for name in sorted(names)]
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            told += [f"{module}:{node.lineno}: torch.load" for a in node.names if a.name == "load"]
        if isinstance(node, ast.Call):
            told += [f"{module}:{node.lineno}: {what}" for what in wrong_call(node)]
    return told


def wrong_call(node: ast.Call) -> list[str]:
    name = dotted(node.func).removeprefix("builtins.")
    told = [f"calls {name}"] if name in NEVER_CALLED else []
    for keyword in node.keywords:
        given = keyword.value.value if isinstance(keyword.value, ast.Constant) else "?"
        if keyword.arg in ("allow_pickle", "trust_remote_code") and given is not False:
            told.append(f"calls {name} with {keyword.arg}={given}")
    return told


def modules() -> dict[str, Path]:
    """Dotted name → file of every module of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


# ---- the tests -------------------------------------------------------------------------------
MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module):
    path = MODULES[module]
    source = path.read_text(encoding="utf-8")
    told = wrong_imports(source, module, is_package=path.name == "__init__.py")
    assert not told, "\n".join(told)


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled_or_evaluated(module):
    told = wrong_calls(MODULES[module].read_text(encoding="utf-8"), module)
    assert not told, "\n".join(told)


def test_every_part_stands_in_the_table():
    parts = {part_of(module) for module in MODULES} - {"__init__"}
    assert parts <= set(MAY_IMPORT), f"not in the table: {parts - set(MAY_IMPORT)}"
    strangers = {part for part, name in PART_OF.items() if name not in MAY_IMPORT}
    assert not strangers


def test_the_table_has_no_circle_and_the_towers_never_meet():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        ready = [p for p in MAY_IMPORT if p not in order and MAY_IMPORT[p] - {p} <= set(order)]
        assert ready, f"a circle among {set(MAY_IMPORT) - set(order)}"
        order += ready
    view_tower = {"analysis", "plots", "views", "display", "playground", "course"}
    torch_free = RECORDS | view_tower | {"ideal", "samplers", "toyland"}
    for part in torch_free:
        assert not (MAY_IMPORT[part] | {part}) & TORCH, f"{part} reaches torch"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("diffusionlab.plots.paths", "from diffusionlab.pipeline import load"),
        ("diffusionlab.plots.paths", "def f():\n    from ..stages import decode"),
        ("diffusionlab.schedule", "from .trace import Trace"),
        ("diffusionlab.schedule", "from . import plots"),
        ("diffusionlab.schedule", "from diffusionlab import load"),
        ("diffusionlab.schedule", "import torch"),
        (
            "diffusionlab.trace.run",
            "class T:\n    def save(self):\n        import matplotlib.pyplot",
        ),
        ("diffusionlab.trace.run", "def show(self):\n    from diffusionlab.display import picture"),
        ("diffusionlab.trace.run", "from diffusionlab.display import picture"),
        ("diffusionlab.models.unet", "import diffusers"),
        ("diffusionlab.stages", "import importlib\nimportlib.import_module('matplotlib')"),
    ],
)
def test_the_checker_finds_a_forbidden_import(module, source):
    assert wrong_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "diffusionlab.trace.run",
            "def _repr_html_(self):\n    from diffusionlab.display import x",
        ),
        ("diffusionlab.trace.run", "from .records import Settings\nfrom ..plan import Step"),
        ("diffusionlab.stages", "import torch\nfrom diffusionlab.errors import InputError"),
        ("diffusionlab.cli", "from diffusionlab import __version__"),
    ],
)
def test_the_checker_lets_the_table_pass(module, source):
    assert not wrong_imports(source, module)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from yaml import safe_load",
        "import torch\ntorch.load('a.pt', weights_only=True)",
        "from torch import load",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
        "np.load('a.npy', allow_pickle=flag)",
        "eval('1')",
        "import builtins\nbuiltins.exec('1')",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_the_checker_finds_a_forbidden_call(source):
    assert wrong_calls(source, "diffusionlab.example")


def test_the_checker_knows_innocent_calls():
    source = "model.eval()\nnp.load('a.npy', allow_pickle=False)\nimport re\nre.compile('a')"
    assert not wrong_calls(source, "diffusionlab.example")
