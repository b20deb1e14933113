"""What every notebook of the course has: goals, predictions, exercises, a self-check, claims.

Functions that give complaints in words, for `about_course`.
"""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path

from notebook_lint import calls, code_cells, prose, tags

SOLUTION = re.compile(r"^### BEGIN SOLUTION\n(.*?)^### END SOLUTION\n", re.S | re.M)
NBGRADER = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
TIME = "**Time and hardware.**"
README = "../README.md"


def about_course(notebook, folder: Path) -> list[str]:
    """Everything below, for a notebook whose links start in `folder`."""
    return [
        *about_frame(notebook),
        *about_predictions(notebook),
        *about_exercises(notebook),
        *about_checks(notebook),
        *about_links(notebook, folder),
        *about_numbers(notebook),
    ]


# ---- how it begins and ends ------------------------------------------------------------------
def about_frame(notebook) -> list[str]:
    """One question, goals, what is not shown, things to try, and the parts that all share."""
    cells, text = notebook.cells, prose(notebook)
    start, end = cells[0].source, cells[-1].source
    goals = re.search(r"\*\*You will be able to\*\*\s+((?:- .+\n(?:  .+\n)*)+)", start + "\n")
    count = len(re.findall(r"^- ", goals[1], re.M)) if goals else 0
    here = {name for cell in code_cells(notebook) for name in ("self_check", "claims.board")
            if calls(cell, name)}  # fmt: skip
    asked = {
        "the first cell is no title with one question in bold":
            re.match(r"# .+\n\n\*\*.+\?\*\*", start),
        f"{count} goals under **You will be able to**, not 3 or 4": 3 <= count <= 4,
        f"the first cell has no line {TIME}": f"\n{TIME} " in start,
        "no picture says what it does not show": "What this does not show" in text,
        "the end has no three things to try": re.search(
            r"## Three things to try\s+1\. .*^2\. .*^3\. ", end, re.S | re.M),
        "the end has no link to the next notebook": re.search(r"^Next: \[.+\]\(.+\)", end, re.M),
        "a <details> is not closed": text.count("<details>") == text.count("</details>"),
        "a formula in LaTeX, which needs a script from elsewhere: write it as code":
            not re.search(r"(?<!\\)\$[^$\n]+\$", without_code(text)),
        "no self_check(NN, ...)": "self_check" in here,
        "no claims.board(bench, NN)": "claims.board" in here,
    }  # fmt: skip
    return [complaint for complaint, holds in asked.items() if not holds]


def about_number(notebook, names: list[str], name: str) -> list[str]:
    """Its number in self-check, board and exercises, and the link to the one after it."""
    number, told = int(name[:2]), []
    after = dict(zip(names, names[1:], strict=False)).get(name)
    follows = f"{after}.ipynb" if after else README
    if f"]({follows})" not in notebook.cells[-1].source:
        told.append(f"Next: does not lead to {follows}")
    for cell in code_cells(notebook):
        for call in calls(cell, "self_check", "claims.board"):
            given = [node.value for node in call.args if isinstance(node, ast.Constant)]
            if number not in given and name[:2] not in given:
                told.append(f"{ast.unparse(call)[:40]} is not of notebook {number}")
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", name[:2])
        if not grade_id.startswith(name[:2]):
            told.append(f"the exercise {grade_id} is not of notebook {number}")
    return told


# ---- what is asked ---------------------------------------------------------------------------
def about_predictions(notebook) -> list[str]:
    cells = notebook.cells
    asking = [i for i, cell in enumerate(cells) if "**Predict.**" in cell.source]
    told = [] if 2 <= len(asking) <= 4 else [f"{len(asking)} predictions, not 2 to 4"]
    return told + [
        f"the prediction in cell {i} is not checked by the next cell"
        for i in asking
        if not any(asks(call) for call in calls(cells[i + 1], "check"))
    ]


def asks(call: ast.Call) -> bool:
    """Whether the place of the prediction is left to the reader."""
    return bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value is ...


def about_checks(notebook) -> list[str]:
    """Each answer is explained from the numbers of the run, never by a canned sentence."""
    told = []
    for number, cell in enumerate(code_cells(notebook)):
        for call in calls(cell, "check"):
            why = [word.value for word in call.keywords if word.arg == "because"]
            if not why or isinstance(why[0], ast.Constant):
                told.append(f'the check in code cell {number} needs because=f"..." with its values')
    return told


def about_exercises(notebook) -> list[str]:
    places = [i for i, cell in enumerate(notebook.cells) if "exercise" in tags(cell)]
    told = [] if 3 <= len(places) <= 5 else [f"{len(places)} exercises, not 3 to 5"]
    ids = [notebook.cells[i].metadata.get("nbgrader", {}).get("grade_id") for i in places]
    if len(set(ids)) < len(ids):
        told.append("two exercises share their nbgrader grade_id")
    for number, place in enumerate(places, 1):
        talk = [cell for cell in notebook.cells[:place] if cell.cell_type == "markdown"]
        if not talk or f"**Exercise {number}.**" not in talk[-1].source:
            told.append(f"no **Exercise {number}.** in the text before that exercise")
        told += [f"exercise {number}: {t}" for t in about_exercise(notebook.cells[place])]
    return told


def about_exercise(cell) -> list[str]:
    """Placeholder, marked solution, check; and what nbgrader wants to be told."""
    nbgrader = cell.metadata.get("nbgrader", {})
    told = [] if set(nbgrader) == NBGRADER and nbgrader["solution"] else ["no nbgrader metadata"]
    folded = cell.metadata.get("jupyter", {})
    told += [
        f"its {part} not folded: metadata jupyter.{name}"
        for part, name in (("source is", "source_hidden"), ("answer is", "outputs_hidden"))
        if not folded.get(name)
    ]
    found = SOLUTION.findall(cell.source)
    if len(found) != 1 or cell.source.count("SOLUTION") != 2:
        return [*told, "one ### BEGIN SOLUTION … ### END SOLUTION is wanted, from the margin on"]
    before, after = SOLUTION.split(cell.source)[::2]
    asked = {name for node in ast.walk(ast.parse(after)) if (name := getattr(node, "id", None))}
    missing = stored(found[0]) & asked - stored(before)
    told += [f"no placeholder {name} = ... before the solution" for name in sorted(missing)]
    return told if "check(" in after else [*told, "no check(...) after the solution"]


def stored(source: str) -> set[str]:
    """The names that a piece of code gives a value, without those inside a comprehension."""
    nodes = list(ast.walk(ast.parse(source)))
    inner = {id(name) for node in nodes if isinstance(node, ast.comprehension)
             for name in ast.walk(node.target)}  # fmt: skip
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            and id(n) not in inner}  # fmt: skip


# ---- links -----------------------------------------------------------------------------------
def about_links(notebook, folder: Path) -> list[str]:
    """Every file and every heading that is linked to is there; the glossary is linked to."""
    text = prose(notebook)
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)(?:#([^)\s]+))?\)", text)
    told = [] if any(p.endswith("glossary.md") and a for p, a in links) else ["no glossary link"]
    for path, anchor in dict.fromkeys(links):
        if not (folder / path).exists():
            told.append(f"dead link: {path}")
        elif anchor and path.endswith(".md") and anchor not in anchors(folder / path):
            told.append(f"dead link: {path}#{anchor}")
    return told


def anchors(path: Path) -> set[str]:
    """What `#…` may name in a Markdown file: its headings as GitHub does, and marks of its own."""
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    return slugs | set(re.findall(r'\b(?:id|name)="([^"]+)"', text))


# ---- numbers ---------------------------------------------------------------------------------
SPACE = "[ \u00a0\u2009\u202f,]"  # between thousands
NUMBER = re.compile(  # no part of a name (x0, ViT-L/14), of a version (3.11.2), of a fraction (1/8)
    rf"(?<![\w.,/])(?<!\w-)(?:\d{{1,3}}(?:{SPACE}\d{{3}})+|\d+)(?:\.\d+)?(?=x\b|\W|$)(?!\.\d|/\d)"
)
NOT_PROSE = re.compile(
    r"""```.*?```|`[^`]*`                                # code
    |!?\[[^\]]*\]\([^)]*\)|https?://\S+                  # links and pictures
    |^\#[^\n]*$|^\s*\d+\.\s                              # headings, the numbers of a list
    |^\*\*Time\ and\ hardware\.\*\*[^\n]*$               # the author's own minutes
    |</?[a-zA-Z][^>]*>                                   # tags and their attributes
    |(?i:arxiv)[:\s]*\d{4}\.\d{4,5}                      # where a formula stands
    |(?i:\beqs?\.|\bequations?|\bsections?|\bfigures?)\s+\(?\d[\d.]*
    |\bet\ al\.,?\s+\(?\d{4}|\((?:19|20)\d\d\)            # who wrote when
    |\b(?:Stable\ Diffusion|SDXL|SD|Python|version)\s+\d[\w.]*""",
    re.X | re.M | re.S,
)


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`]*`", " ", text, flags=re.S)


def about_numbers(notebook) -> list[str]:
    """A number from 11 on, or with a decimal point, in prose stands in some output or code."""
    if not any(cell.get("outputs") for cell in notebook.cells):
        return []
    here, told = printed(shown_text(notebook)), []
    for number in dict.fromkeys(numbers(NOT_PROSE.sub(" ", html.unescape(prose(notebook))))):
        if ("." in number or float(number) >= 11) and not is_printed(number, here):
            told.append(f"no cell prints the number {number} of the prose")
    return told


def numbers(text: str) -> list[str]:
    """The numbers of a text, without their sign and without what stands between thousands."""
    return [re.sub(SPACE, "", found) for found in NUMBER.findall(text)]


def printed(text: str) -> set[str]:
    """The numbers of code and outputs: "100,200" may be one or two, "24.8dB" is one."""
    return {*numbers(text), *re.findall(r"(?<![\d.])\d+(?:\.\d+)?", text)}


def is_printed(number: str, here: set[str]) -> bool:
    """Whether it is there: as it stands, or with more digits after the point."""
    digits = len(number.partition(".")[2])
    longer = (one for one in here if len(one.partition(".")[2]) > digits > 0)
    return any(float(number) == float(one) for one in here) or any(
        abs(float(number) - float(one)) <= 0.5000001 * 10**-digits for one in longer
    )


def shown_text(notebook) -> str:
    """Code and outputs as a reader sees them: no tags, no picture data, alt texts included."""
    shown = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            shown += [output.get("text", ""), visible(data.get("text/html", ""))]
            shown += [data.get(kind, "") for kind in ("text/plain", "text/markdown")]
    return "\n".join(shown)


def visible(page: str) -> str:
    named = " ".join(re.findall(r'\b(?:alt|title|aria-label)="([^"]*)"', page))
    return html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", " ", page) + " " + named)
