"""Redraw what depends on the weights: README pictures and notebook outputs (`make refresh`).

python tools/refresh.py [pictures] [notebooks]
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES, NOTEBOOKS = ROOT / "docs", ROOT / "notebooks"
# The README's settings: seed 1, 20 steps of DDIM, guidance 4. Shown as they come out.
PROMPTS = [
    "a red car in the city at night",
    "a blue boat on the ocean at sunset",
    "a green house on the snow",
    "a yellow tree in the meadow at day",
    "a pink balloon in the mountains at sunset",
    "an orange cat in space",
    "a white car in the desert at day",
    "a purple house on the meadow at night",
]
SETTINGS = dict(seed=1, num_steps=20, sampler="ddim", guidance_scale=4.0)


def pictures() -> None:
    """docs/gallery.png: the eight prompts; docs/filmstrip.png: the first one, step by step."""
    import diffusionlab as dl
    from diffusionlab.images import filmstrip, tile
    from diffusionlab.trace.filmstrip import filmstrip_of

    model = dl.load()
    record = ("predictions", "frames")
    first = dl.generate(model, PROMPTS[0], **SETTINGS, record=record)
    images = [first.image, *(dl.generate(model, p, **SETTINGS).image for p in PROMPTS[1:])]
    captions = ["\n".join(textwrap.wrap(prompt, 22)) for prompt in PROMPTS]
    rows = [
        filmstrip([images[i : i + 4]], [""], captions[i : i + 4], frame=192, text=18)
        for i in range(0, len(images), 4)
    ]
    PICTURES.mkdir(exist_ok=True)
    tile(rows, columns=1).save(PICTURES / "gallery.png", optimize=True)
    filmstrip_of(first).save(PICTURES / "filmstrip.png", optimize=True)
    print(f"{PICTURES / 'gallery.png'}\n{PICTURES / 'filmstrip.png'}")


def notebooks() -> None:
    """Run every notebook from top to bottom and keep its outputs, without widget state."""
    import nbformat
    from nbclient import NotebookClient

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": path.parent}}
        ).execute()
        notebook.metadata.pop("widgets", None)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        nbformat.write(notebook, path)
        print(path)


PARTS = {"pictures": pictures, "notebooks": notebooks}

if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        sys.exit(f"refresh: {unknown[0]!r} is not one of {', '.join(PARTS)}")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
