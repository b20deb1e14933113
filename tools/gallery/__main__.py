"""Draw every plot once, from runs of one model: docs/gallery/ with its page.

    python tools/gallery [part of a plot's name …]        (`make gallery`: all of them)

The model is Toyland, or the folder in DIFFUSIONLAB_MODEL.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from cases import AREAS, draw, made
from lab import PROMPT, Lab

PLACE = Path(__file__).parents[2] / "docs" / "gallery"
PAGE = PLACE / "README.md"
DPI, LARGEST = 60, 120_000  # bytes of one picture


def main(wanted: list[str]) -> None:
    """Draw the chosen cases; write the page when all were drawn."""
    lab, lines = Lab(), _head()
    PLACE.mkdir(parents=True, exist_ok=True)
    for area, cases in AREAS.items():
        lines += [f"## {area}", ""]
        for key in cases:
            if not wanted or any(part in key for part in wanted):
                lines += _drawn(lab, key)
    if not wanted:
        PAGE.write_text("\n".join(lines), encoding="utf-8")
        for path in PLACE.iterdir():
            if path.stem not in made() and path != PAGE:
                path.unlink()  # of a plot that is no more


def _head() -> list[str]:
    told = (
        f"Made by `make gallery` from runs of {PROMPT!r} (seed 1, 20 steps of DDIM, guidance 4) "
        "unless a title says otherwise. Each picture is one call; the sentence below it is the alt "
        "text that the plot wrote from its own data."
    )
    return ["# Every plot", "", *textwrap.wrap(told, 100), ""]


def _drawn(lab: Lab, key: str) -> list[str]:
    """One picture on disk, and its lines of the page."""
    figure = draw(lab, key)
    data, kind = figure.encoded(DPI, LARGEST)
    if len(data) > LARGEST:
        sys.exit(f"gallery: {key} has {len(data)} bytes, at most {LARGEST} are allowed")
    for path in PLACE.glob(f"{key}.*"):
        if path.stem == key:
            path.unlink()  # of the other kind
    name = f"{key}.{kind.removeprefix('image/')}"
    (PLACE / name).write_bytes(data)
    print(f"{key:40} {len(data) / 1000:6.1f} kB")
    alt = " ".join(figure.alt.split())
    safe = alt.replace("[", "(").replace("]", ")").replace("<", "&lt;")
    return [f"`{key.partition('.')[0]}`", "", f"![{safe}]({name})", "", f"*{safe}*", ""]


if __name__ == "__main__":
    main(sys.argv[1:])
