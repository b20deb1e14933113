"""The model card, written from the logs of the run, and the curves and sheets beside it."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..toyland import COLOURS, GRAMMAR_VERSION, OBJECTS, SETTINGS, TIMES
from .loop import write_atomically
from .presets import Preset

PARTS = {
    "clip": "text_encoder",
    "vae": "vae",
    "decoder": "vae",
    "denoiser": "unet",
    "together": "unet",
}


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


def _row(run: Path, target: Path, part: str) -> str:
    state, folder = read_state(run, part), target / PARTS[part]
    size = next(folder.glob("*.safetensors")).stat().st_size / 1e6
    last = ", ".join(f"{k} {v:g}" for k, v in state["log"][-1]["values"].items())
    return (
        f"| {part} ({PARTS[part]}) | {tensor_count(folder):,} | {size:.1f} MB "
        f"| {state['step']:,} | {state['seconds'] / 60:.1f} | {last} |"
    )


def model_card(run: Path, target: Path, preset: Preset) -> str:
    """Markdown: what the model knows, how it was trained, what was measured, what it cannot do."""
    report = json.loads((run / "vae" / "report.json").read_text(encoding="utf-8"))
    preview = json.loads((target / "preview.json").read_text(encoding="utf-8"))
    done = [part for part in PARTS if (run / part / "state.json").exists()]
    rows = "\n".join(_row(run, target, part) for part in done)
    return f"""# Toyland, grammar version {GRAMMAR_VERSION}

A small text-to-image latent diffusion model in the layout of Stable Diffusion, trained from random
weights on {preset.pictures:,} pictures of {preset.size} × {preset.size} pixels that
`diffusionlab.toyland` drew.
Written by `python -m diffusionlab.training export --preset {preset.name}` from the logs of the run.

**Words it knows.** Objects: {", ".join(OBJECTS)}. Colours: {", ".join(COLOURS)}.
Settings: {", ".join(SETTINGS)}. Times of day: {", ".join(TIMES)} (none in space).

| part | parameters | float16 file | training steps | minutes | last logged values |
|---|---|---|---|---|---|
{rows}

Trained on `{preset.device}` ({platform.machine()}, torch {torch.__version__}), preset
`{preset.name}`. Autoencoder on 200 held-out pictures: {report["psnr_db"]} dB,
{report["nats_per_element"]} nats per latent element. Linear latent-to-colour preview: R²
{", ".join(f"{r:.2f}" for r in preview["r2"])} (red, green, blue).

`clip` trains a text and an image tower on which caption is true of which picture; `together` goes
on with text tower and U-Net on the denoising loss, after which the text tower no longer matches
the image tower. The image tower is not shipped.

**Limits.** One object per picture; no relations, counts, styles or lettering. Every picture it saw
was drawn by one program, so it knows no photograph. Triples of object, colour and setting that
`held_out` names were never trained. Licence: Apache-2.0, as the project.
"""
