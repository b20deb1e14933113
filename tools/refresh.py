"""Redraw what depends on the weights: README pictures and figures, gallery, views, notebooks.

    python tools/refresh.py [pictures] [plots] [views] [figures] [notebooks] [glossary]

Without a name: all of them, as `make refresh` does.

The model is Toyland, or for a trial the folder in DIFFUSIONLAB_MODEL.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES, NOTEBOOKS, README = ROOT / "docs", ROOT / "notebooks", ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
OVERHEAD, QUALITY = RESULTS / "overhead.json", RESULTS / "quality.json"
MODEL = os.environ.get("DIFFUSIONLAB_MODEL", "toyland")
# The README's settings: seed 1, 20 steps of DDIM, guidance 4. Shown as they come out.
PROMPTS = [
    "a red car in the city at night",
    "a blue boat on the ocean at sunset",
    "an emperor penguin on the Antarctic snow",
    "a pink balloon in the mountains at sunset",
    "an orange cat in space",
    "a yellow tree in the meadow at day",
    "a purple house on the meadow at night",
    "a red dress near a blue car",
]
SETTINGS = dict(seed=1, num_steps=20, sampler="ddim", guidance_scale=4.0)
BEGIN, END = "<!-- figures: written by `make refresh` -->", "<!-- end of figures -->"
LARGEST = dict.fromkeys(
    ("gallery.png", "filmstrip.png", "world.png", "third_order.png"), 300_000
)  # bytes
LARGEST[".ipynb"] = 400_000
FRAME = re.compile(r"<iframe\b.*?</iframe>", re.S | re.I)  # a page inside is escaped: no tag of it
STILL_HINT = "Run this cell to make this interactive."


# ---- pictures --------------------------------------------------------------------------------
def pictures() -> None:
    """docs/gallery.png: the eight prompts; docs/filmstrip.png: the first one, step by step.

    docs/world.png: scenes as Toyland draws them, with what it can say about them.
    docs/third_order.png: 3M as it is commonly shipped and corrected, against an exact solution.
    """
    import diffusionlab as dl
    from diffusionlab.trace.filmstrip import filmstrip_of

    model = dl.load(MODEL)
    first = dl.generate(model, PROMPTS[0], **SETTINGS, record=("predictions", "frames"))
    others = [dl.generate(model, prompt, **SETTINGS, record=()) for prompt in PROMPTS[1:]]
    save(gallery([trace.image for trace in (first, *others)]), PICTURES / "gallery.png")
    save(filmstrip_of(first), PICTURES / "filmstrip.png")
    save(world(), PICTURES / "world.png")
    save(third_order(), PICTURES / "third_order.png")


def plots() -> None:
    """docs/gallery/: every plot once, as `make gallery` draws it."""
    subprocess.run([sys.executable, ROOT / "tools" / "gallery"], check=True)


def views() -> None:
    """docs/views/: the views in Chromium, as `make screenshots` takes them."""
    subprocess.run([sys.executable, ROOT / "tools" / "screenshots.py"], check=True)


def gallery(images: list, texts: list = PROMPTS):
    """The contact sheet: four pictures in a row, each text below its picture."""
    from diffusionlab.images import filmstrip, tile

    captions = [textwrap.fill(text, 22) for text in texts]
    rows = [
        filmstrip([images[i : i + 4]], [""], captions[i : i + 4], frame=224, text=24)
        for i in range(0, len(images), 4)
    ]
    return tile(rows, columns=1)


def third_order():
    """The figure of both third-order rules as a picture."""
    import io

    from PIL import Image

    from diffusionlab.analysis.convergence import third_order_twice
    from diffusionlab.plots import plot_convergence

    figure, buffer = plot_convergence(third_order_twice()), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return Image.open(buffer).convert("RGB")


def world():
    """Eight scenes, none chosen by hand: the first seeds that hold each style and each count."""
    from PIL import Image

    from diffusionlab.toyland import captions, render, scene

    wanted = [(style, count) for style in ("plain", "neon", "cyberpunk") for count in (1, 2)]
    wanted += [("plain", 0), ("cyberpunk", 0)]
    drawn = (scene(seed) for seed in range(100_000))
    found: dict = {}
    while len(found) < len(wanted):
        one = next(drawn)
        found.setdefault((one.style, len(one.things)), one)
        found = {key: value for key, value in found.items() if key in wanted}
    scenes = [found[key] for key in wanted]
    images = [Image.fromarray(render(one, 224, masks=False).image) for one in scenes]
    return gallery(images, [captions(one, 1)[0].text for one in scenes])


def save(image, path: Path) -> None:
    """A PNG of at most 256 colours, within its bound."""
    import io

    from diffusionlab.images import smaller_png

    buffer = io.BytesIO()
    image.save(buffer, format="png")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(smaller_png(buffer.getvalue()))
    told(path, LARGEST[path.name])


def told(path: Path, largest: float = math.inf) -> None:
    """Say what was written; stop where it is too large."""
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}  {size / 1000:.0f} kB")
    if size > largest:
        sys.exit(f"refresh: {path.name} has {size} bytes; at most {largest} are allowed")


# ---- figures ---------------------------------------------------------------------------------
def figures() -> None:
    """The README's block of numbers, between its two marks."""
    text = README.read_text(encoding="utf-8")
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        sys.exit(f"refresh: README.md has no block from {BEGIN} to {END}; put both lines back")
    lines = [*checkpoint_lines(checkpoint_folder()), *quality_lines(QUALITY)]
    block = "\n".join([*lines, *overhead_lines(OVERHEAD)])
    README.write_text(f"{before}{BEGIN}\n{block}\n{END}{after}", encoding="utf-8")
    told(README)


def checkpoint_folder() -> Path:
    from diffusionlab.toyland import checkpoint

    return checkpoint() if MODEL == "toyland" else Path(MODEL)


def checkpoint_lines(folder: Path) -> list[str]:
    """A table of the model's parts: parameters and size on disk, read from the weight files."""
    rows = ["| part | parameters | on disk |", "|---|---|---|"]
    parts = ("text_encoder", "unet", "vae", "image_encoder")
    counted = {part: measured(folder / part) for part in parts if (folder / part).is_dir()}
    counted["together"] = tuple(map(sum, zip(*counted.values(), strict=True)))
    for part, (count, size) in counted.items():
        rows.append(f"| {part} | {count / 1e6:.2f} million | {size / 1e6:.1f} MB |")
    if (world := folder / "toyland.json").is_file():
        known = len(json.loads(world.read_text(encoding="utf-8"))["words"])
        rows += ["", f"Toyland was shown {known} words; any other word is told in a printed line."]
    return rows


def measured(part: Path) -> tuple[int, int]:
    """Parameters and bytes of the safetensors files of one part, from their headers."""
    from safetensors import safe_open

    parameters = size = 0
    for path in sorted(part.glob("*.safetensors")):
        size += path.stat().st_size
        with safe_open(path, framework="np") as file:
            parameters += sum(math.prod(file.get_slice(k).get_shape()) for k in file.keys())  # noqa: SIM118
    return parameters, size


def quality_lines(path: Path) -> list[str]:
    """The gate table of benchmarks/quality.py as it measured it last; nothing if it never ran."""
    from diffusionlab.training.card import gate_lines

    if not path.is_file():
        return []
    return ["", *gate_lines(json.loads(path.read_text(encoding="utf-8")))]


def overhead_lines(path: Path) -> list[str]:
    """What benchmarks/overhead.py measured last, against diffusers; nothing if it never ran."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    warm, cold, memory = found["warm"], found["cold"], found["peak_memory_mb"]
    ours = warm["median_seconds"]["plain"]
    return textwrap.wrap(
        f"One picture of {found['task']['steps']} steps on {warm['threads']} threads "
        f"({found['machine']['cpu']}) takes {ours:.2f} s. Against diffusers' pipeline on "
        f"the same weights, as medians of the ratios in one alternating run: time "
        f"{warm['plain / diffusers']['median_ratio']:.2f}, with everything recorded "
        f"{warm['recorded / diffusers']['median_ratio']:.2f}, from an empty process to a picture "
        f"on disk {cold['diffusionlab / diffusers']['median_ratio']:.2f}; peak memory "
        f"{memory['plain']:.0f} MB against {memory['diffusers']:.0f} MB "
        "(`python benchmarks/overhead.py`).",
        100,
        initial_indent="\n",
    )


# ---- notebooks -------------------------------------------------------------------------------
def notebooks() -> None:
    """Run every notebook from top to bottom and keep its outputs, cleaned."""
    import nbformat

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = cleaned(executed(nbformat.read(path, as_version=4), path.parent))
        nbformat.write(notebook, path)
        told(path, LARGEST[".ipynb"])


def glossary() -> None:
    """docs/glossary.md: the vocabulary, with the notebooks that link to each word."""
    subprocess.run([sys.executable, ROOT / "tools" / "glossary.py"], check=True)


def executed(notebook, folder: Path):
    """The notebook with the outputs of one run in a fresh kernel, started in `folder`."""
    return client_of(notebook, folder).execute()


def client_of(notebook, folder: Path):
    """What runs the cells of a notebook in a fresh kernel that is started in `folder`."""
    from nbclient import NotebookClient

    return NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": folder}},
    )


def cleaned(notebook, frames: bool = False):
    """No widget state, times, progress bars, paths of this machine, kernel's name, or frames."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            kept = [output for output in cell.outputs if keeps(output)]
            kept = kept if frames else [without_frames(output) for output in kept]
            cell.outputs = [without_paths(output) for output in kept if shows(output)]
    return notebook


def keeps(output) -> bool:
    """No widget, and of stderr only what the package itself tells its user."""
    widget = any("widget" in kind for kind in output.get("data", {}))
    noise = output.get("name") == "stderr" and not output["text"].startswith("diffusionlab: ")
    return not widget and not noise


def without_frames(output):
    """Of a view its still alone, and no word of a frame that is not there to be trusted."""
    from diffusionlab.views.page import HINT

    page = output.get("data", {}).get("text/html")
    if page is not None:
        output["data"]["text/html"] = FRAME.sub("", page).replace(HINT, STILL_HINT)
    return output


def shows(output) -> bool:
    """Whether there is anything left of a page."""
    return bool(output.get("data", {}).get("text/html", "page").strip())


def without_paths(output):
    """Paths inside the repository are written from its root on."""
    for kind, text in output.get("data", {}).items():
        if isinstance(text, str):
            output["data"][kind] = text.replace(f"{ROOT}/", "")
    if "text" in output:
        output["text"] = output["text"].replace(f"{ROOT}/", "")
    return output


PARTS = {
    "pictures": pictures,
    "plots": plots,
    "views": views,
    "figures": figures,
    "notebooks": notebooks,
    "glossary": glossary,
}

if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        sys.exit(f"refresh: {unknown[0]!r} is not one of {', '.join(PARTS)}")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
