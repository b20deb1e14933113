"""The model card, written from the logs of the run, and the curves and sheets beside it."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import InputError
from ..toyland import COLOURS, GRAMMAR_VERSION, TIMES, captions
from .data import World
from .presets import Preset
from .written import write_atomically

PARTS = ("clip", "vae", "denoiser", "image", "decoder", "judges")
BEGIN, END = "<!-- gates: written by benchmarks/quality.py -->", "<!-- end of gates -->"
UNMEASURED = "Not measured yet: `python benchmarks/quality.py` measures and writes this table."


def read_state(run: Path, part: str) -> dict:
    """What the part's last save says: step, seconds, log."""
    return json.loads((run / part / "state.json").read_text(encoding="utf-8"))


def draw_curve(run: Path, part: str) -> Path:
    """`curve.png` in the part's folder: every logged value against minutes of training."""
    log = read_state(run, part)["log"]
    minutes = [entry["seconds"] / 60 for entry in log]
    names = [name for name in log[-1]["values"] if name != "seen"] if log else []
    figure = Figure(figsize=(10, 4 * max(1, len(names))), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(np.atleast_1d(figure.subplots(max(1, len(names)))), names, strict=False):
        values = np.array([entry["values"][name] for entry in log])
        window = max(1, len(values) // 50)
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        axes.plot(minutes, values, color="0.8", linewidth=1, label="each logged step")
        axes.plot(minutes[window - 1 :], smooth, linewidth=2.5, label=f"mean of {window}")
        axes.set_xlabel("training time (minutes)", fontsize=14)
        axes.set_ylabel(name, fontsize=14)
        axes.legend(fontsize=12)
    return write_atomically(run / part / "curve.png", lambda p: figure.savefig(p, format="png"))


def tensor_count(folder: Path) -> int:
    """Number of parameters of a part of the checkpoint, from its safetensors file."""
    from safetensors.torch import load_file

    file = next(folder.glob("*.safetensors"))
    return sum(v.numel() for v in load_file(file).values())


def _row(run: Path, part: str) -> str:
    state = read_state(run, part)
    last = ", ".join(f"{k} {v:g}" for k, v in state["log"][-1]["values"].items())
    return f"| {part} | {state['step']:,} | {state['seconds'] / 60:.1f} | {last} |"


def _size(target: Path, part: str) -> str:
    folder = target / part
    size = next(folder.glob("*.safetensors")).stat().st_size / 1e6
    return f"| {part} | {tensor_count(folder):,} | {size:.1f} MB |"


def model_card(run: Path, target: Path, preset: Preset, world: World, begun: str = "") -> str:
    """Markdown: what the model knows, how it was trained, what was measured, what it cannot do.

    `begun` says in a sentence what the run began with, if not with random weights.
    """
    report = json.loads((run / "vae" / "report.json").read_text(encoding="utf-8"))
    preview = json.loads((target / "preview.json").read_text(encoding="utf-8"))
    done = [part for part in PARTS if (run / part / "state.json").exists()]
    rows = "\n".join(_row(run, part) for part in done)
    folders = ("text_encoder", "unet", "vae", "image_encoder")
    sizes = "\n".join(_size(target, folder) for folder in folders)
    share = preset.share
    return f"""# Toyland, grammar version {GRAMMAR_VERSION}, share "{share.name}"

A small text-to-image latent diffusion model in the layout of Stable Diffusion, trained on
{preset.pictures:,} pictures of {preset.size} × {preset.size} pixels that `diffusionlab.toyland`
drew (seeds 0 to {preset.pictures - 1:,}; grammar {grammar_hash(world)}).
Written by `python -m diffusionlab.training export --preset {preset.name}` from the logs of the run.
{begun or "All weights began as random numbers."}

**What it was shown.** Objects: {", ".join(share.objects)}. Colours: {", ".join(COLOURS)}.
Settings: {", ".join(share.settings)}. Times of day: {", ".join(TIMES)} (none in space).
Styles: {", ".join(share.styles)}. Two objects in {share.pairs:.0%} of the pictures, none in
{share.empty:.0%}. Never shown: one in ten triples of object, colour and setting (`held_out`), and,
word for word, the prompts in `KEPT_PROMPTS`.

| part | parameters | float16 file |
|---|---|---|
{sizes}

| trained | steps | minutes | last logged values |
|---|---|---|---|
{rows}

Trained on `{preset.device}` ({platform.machine()}, torch {torch.__version__}), preset
`{preset.name}`: {description(preset)}. Autoencoder on 200 held-out pictures:
{report["psnr_db"]} dB, {report["nats_per_element"]} nats per latent element. Linear
latent-to-colour preview: R² {", ".join(f"{r:.2f}" for r in preview["r2"])} (red, green, blue).

`clip` trains a text and an image tower on which caption is true of which picture. `denoiser` trains
the U-Net and goes on with both towers, the text tower on the denoising loss too; `image` then tunes
the image tower to the finished text tower. A text's embedding
for the image tower is the text encoder's last hidden state at the end token (its projection is the
identity and not stored).

## What it can do

Judged by a classifier and a segmenter that were trained on other pictures and condition nothing.

{BEGIN}
{UNMEASURED}
{END}

## Limits

Every picture it saw was drawn by one program: it knows no photograph, no counting, no lettering,
and of two objects it may mix up the colours, as the table says. Words outside its list are read in
pieces that mean nothing to it. Licence: Apache-2.0, as the project.
"""


def grammar_hash(world: World) -> str:
    """Sixteen hex digits that change when the first hundred scenes or their captions do."""
    digest = hashlib.sha256()
    for scene in world.scenes[:100]:
        digest.update(repr(scene).encode())
        for caption in captions(scene, 2, world.share):
            digest.update(caption.text.encode())
    return digest.hexdigest()[:16]


def description(preset: Preset) -> str:
    """The preset's sizes in a line."""
    channels = " × ".join(map(str, preset.unet_channels))
    return (
        f"U-Net {channels}, {preset.unet_layers} layer(s) a block, batch {preset.unet_batch}; "
        f"towers {preset.text_width} wide, {preset.text_layers} layers; autoencoder "
        f"{' × '.join(map(str, preset.vae_channels))}, KL weight {preset.vae_kl:g}; "
        f"captions dropped {preset.caption_dropout:.0%}"
    )


def gate_lines(result: dict) -> list[str]:
    """The gate table of a result of benchmarks/quality.py as Markdown, and what stands beside."""
    rows = [
        "| | measured | ceiling | chance | asked of a CPU run | of an accelerator run |",
        "|---|---|---|---|---|---|",
    ]
    for gate in result["gates"]:
        marks = [_limit(gate, column) for column in ("cpu", "accelerator")]
        beside = [_shown(gate[name]) for name in ("measured", "ceiling", "chance")]
        rows.append(f"| {' | '.join([gate['gate'], *beside, *marks])} |")
    task = result["task"]
    return [
        *rows,
        "",
        f"{task['prompts']} prompts of one object (half of them of held-out triples) and "
        f"{result['binding']['generated']['prompts']} of two, one picture each: {task['steps']} "
        f"steps of {task['sampler']}, guidance {task['guidance_scale']:g}. Ceiling: the judges on "
        "the true pictures of the same scenes. Chance: the same verdicts against other prompts. "
        "`python benchmarks/quality.py` measures it again.",
    ]


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f} dB" if value > 1.5 else f"{value:.3f}"


def _limit(gate: dict, column: str) -> str:
    if gate[column] is None:
        return "report"
    sign = "✓" if gate[f"{column}_holds"] == "pass" else "✗"
    return f"≥ {gate[column]:g} {sign}"


def write_gates(path: Path, result: dict) -> None:
    """Replace what stands between the two marks of a model card by the measured gate table."""
    text = path.read_text(encoding="utf-8")
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise InputError(f"{path.name} has no lines {BEGIN!r} and {END!r}; export the card again")
    table = "\n".join(gate_lines(result))
    new = f"{before}{BEGIN}\n{table}\n{END}{after}"
    write_atomically(path, lambda part: part.write_text(new, encoding="utf-8"))
