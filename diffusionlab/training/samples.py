"""What a part has learnt so far, as a picture beside its loss curve: `samples.png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..pipeline import load
from ..toyland import caption, scene
from .data import SEEDS, World, to_pixels
from .export import export
from .pictures import draw
from .presets import Preset
from .sheets import reconstruction_sheet, sample_sheet
from .vae import trained_vae

COUNT = 16  # prompts of a sheet; half as many pictures for the autoencoder


def draw_samples(run: Path, part: str, preset: Preset, world: World) -> Path | None:
    """Write `samples.png` for the parts that make pictures: vae, decoder and denoiser."""
    path = run / part / "samples.png"
    if part in ("vae", "decoder"):
        return _reconstructions(path, run, preset)
    if part == "denoiser":
        folder = export(run, run / "checkpoint", preset, world)
        model, rng = load(folder, device=preset.device), np.random.default_rng(12)
        scenes = (scene(SEEDS["validation"] + i, preset.share) for i in range(COUNT))
        texts = [caption(shown, rng, preset.share).text for shown in scenes]
        return sample_sheet(path, texts, draw(model, texts).pictures)
    return None


@torch.inference_mode()
def _reconstructions(path: Path, run: Path, preset: Preset) -> Path:
    first, count = SEEDS["validation"], COUNT // 2
    held = World.rendered(run.parent / "data", count, preset.size, preset.share, first)
    vae = trained_vae(run, preset)
    mean, _ = vae.encode(to_pixels(held.pictures).to(preset.device))
    unit = (vae.decode(mean).float() / 2 + 0.5).clamp(0, 1)
    made = (255 * unit).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return reconstruction_sheet(path, held.pictures, made)
