"""Write docs/glossary.md from the vocabulary, with the notebooks that link to each word.

python tools/glossary.py            (`make glossary`)
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from diffusionlab.vocabulary import GLOSSARY, Term

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "glossary.md"
NOTEBOOKS = ROOT / "notebooks"
LINK = re.compile(r"\]\(\.\./docs/glossary\.md#([^)\s]+)\)")
INTRO = """# Glossary

Written by `make glossary` from `diffusionlab/vocabulary.py`: {count} words, each in one spelling.
In Python `define("cfg_scale")` of that module finds a word by any of the names that others use.
"""


def page() -> str:
    """docs/glossary.md."""
    met = meetings()
    words = sorted(GLOSSARY, key=lambda term: (term.name.casefold(), term.name))
    return INTRO.format(count=len(words)) + "".join(entry(w, met.get(w.anchor, ())) for w in words)


def entry(term: Term, met: list[Path] | tuple = ()) -> str:
    """One word: its heading, what it means, what others say, where the course meets it."""
    lines = [f"\n## {term.name}\n", f"{term.meaning[0].upper()}{term.meaning[1:]}."]
    if term.synonyms:
        lines += [f"*Also seen as:* {', '.join(map(literal, term.synonyms))}."]
    if met:
        pages = ", ".join(f"[{title(path)}](../notebooks/{path.name})" for path in met)
        lines += [f"*Met in:* {pages}."]
    return "\\\n".join(lines).replace("\n\\\n", "\n\n") + "\n"


def literal(name: str) -> str:
    """A name of code as code, so that no mark-up is read into it."""
    return f"`{name}`" if "_" in name or "(" in name else name


def meetings() -> dict[str, list[Path]]:
    """The notebooks that link to each anchor, in their order."""
    met: dict[str, list[Path]] = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for anchor in dict.fromkeys(LINK.findall(prose(path))):
            met.setdefault(anchor, []).append(path)
    return met


def prose(path: Path) -> str:
    """The markdown of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def title(path: Path) -> str:
    """The heading of a notebook's first cell."""
    return prose(path).split("\n", 1)[0].removeprefix("# ")


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}: {len(GLOSSARY)} words")
