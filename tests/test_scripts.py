"""What the scripts of the views never do, and the numbers that they hold in common with Python."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from diffusionlab.views.page import source, style

FOLDER = Path(__file__).parents[1] / "diffusionlab" / "views" / "js"
SCRIPTS = sorted(FOLDER.glob("*.js"))
PARTS = ("kit", "player", "colours", "host")
SVG = "http://www.w3.org/2000/svg"
# A text that becomes markup or code, and every way to the net, to storage or to another page.
NEVER = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|createContextualFragment"
    r"|DOMParser|srcdoc|\beval\b|\bFunction\s*\(|set(?:Timeout|Interval)\s*\(\s*[\"'`]"
    r"|\bfetch\b|XMLHttpRequest|WebSocket|EventSource|sendBeacon|\bimport\b|Worker\b|https?:|//\w+\."
    r"|window\.open|\blocation\b(?!\?\.hash ===)|postMessage|localStorage|sessionStorage"
    r"|indexedDB|\bcookie\b|\bparent\b\s*\.|\btop\b\s*\.|console\.|debugger|javascript:"
)
COMMENT = re.compile(r"^\s*//.*$|\s//\s.*$", re.M)
NEVER_IN_STYLE = re.compile(r"@import|url\(|expression\(|https?:|-moz-binding", re.I)


def name_of(path: Path) -> str:
    return path.name


def banned(text: str) -> list[str]:
    """What a script has and may not have, comments and the name of SVG left out."""
    return NEVER.findall(COMMENT.sub("", text).replace(SVG, ""))


# ---- what they never do --------------------------------------------------------------------------
@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_no_text_becomes_markup_or_code_and_nothing_leaves_the_page(path):
    text = path.read_text(encoding="utf-8")
    assert not banned(text)
    assert "</" not in text and "<!--" not in text and "]]>" not in text
    assert text.isascii() or not re.search("[\u2028\u2029\ufeff\u200b-\u200f\u202a-\u202e]", text)


def test_the_style_asks_the_net_for_nothing():
    for path in FOLDER.glob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not NEVER_IN_STYLE.search(text) and "</" not in text
        assert max(map(len, text.split("\n"))) <= 100, path.name
    assert NEVER_IN_STYLE.search("a { background: URL(x) }")


def test_a_style_sheet_belongs_to_the_scripts_that_name_it():
    """A page carries the common style and its own, not that of other views."""
    own = sorted(path.name for path in FOLDER.glob("*.css") if path.name != "view.css")
    named = {path.stem: path.read_text(encoding="utf-8").split("\n", 1)[0] for path in SCRIPTS}
    for name in own:
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert any(name in first for first in named.values()), f"no script names {name}"
        for script, first in named.items():
            if "export default" in (FOLDER / f"{script}.js").read_text(encoding="utf-8"):
                assert (text in style(script)) == (name in first), (script, name)


@pytest.mark.parametrize(
    "line",
    [
        "el.innerHTML = text;",
        "document.write(text);",
        "new Function(text)()",
        "setTimeout('f()', 1)",
        "fetch(`x`)",
        "import x from './x.js'",
        "const m = await import(address);",
        "image.src = 'https://a.org/x.png';",
        "image.src = '//a.org/x.png';",
        "window.location = x;",
    ],
)
def test_the_check_can_fail(line):
    assert banned(line) and not banned(f"// {line}")
    assert not banned(f'document.createElementNS("{SVG}", tag); const top = 3, parent = el;')


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_view_is_one_module_of_named_parts(path):
    """Parts say what they are made with; a view ends with its export and no name is given twice."""
    text = path.read_text(encoding="utf-8")
    if "export default" not in text:
        return
    first = text.split("\n", 1)[0]
    assert first.startswith("// with: kit.js") and text.rstrip().endswith(
        "export default { render };"
    )
    names = declared(source(path.stem))
    twice = sorted({name for name in names if names.count(name) > 1})
    assert "render" in names and not twice
    assert not set(names) & set(declared((FOLDER / "host.js").read_text(encoding="utf-8")))


def declared(text: str) -> list[str]:
    """Names declared at the left margin of a script."""
    return re.findall(r"^(?:async )?(?:function\*?|const|let|class) (\w+)", text, re.M)


def test_a_name_given_twice_is_found():
    assert declared("const a = 1;\nfunction b() {\n  const a = 2;\n}\nlet a;") == ["a", "b", "a"]


# ---- numbers in common ---------------------------------------------------------------------------
def table(name: str) -> np.ndarray:
    """A colour table of colours.js, (places, 3)."""
    text = (FOLDER / "colours.js").read_text(encoding="utf-8")
    given = re.search(rf"const {name} = stops\((.*?)\);", text, re.S)[1]
    colours = " ".join(re.findall(r'"([^"]*)"', given)).split()
    return np.array([[int(hexes[i : i + 2], 16) for i in (0, 2, 4)] for hexes in colours])


def off_by(places: np.ndarray, name: str) -> float:
    """The largest difference from matplotlib's table at 256 places, in steps of a byte."""
    unit = np.linspace(0, 1, 256)
    at = unit * (len(places) - 1)
    ours = np.stack([np.interp(at, np.arange(len(places)), c) for c in places.T], axis=1)
    return float(np.abs(ours.round() - 255 * matplotlib.colormaps[name](unit)[:, :3]).max())


@pytest.mark.parametrize("ours,theirs", [("VIRIDIS", "viridis"), ("SIGNED", "RdBu_r")])
def test_the_colours_are_those_of_the_plots(ours, theirs):
    assert off_by(table(ours), theirs) <= 6
    assert off_by(table(ours)[::-1], theirs) > 100


def test_the_colours_of_lines_are_those_of_the_plots():
    from diffusionlab.plots.figure import OKABE_ITO

    text = (FOLDER / "colours.js").read_text(encoding="utf-8")
    lines = re.findall(r'"(#\w{6})"', text)
    dashes = re.search(r"const DASHES = \[(.*?)\];", text, re.S)[1].split(",")
    assert set(OKABE_ITO) <= set(lines) and len(lines) == len(set(lines)) == len(dashes) == 9
