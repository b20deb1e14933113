"""From a run folder to the checkpoint that ships: diffusers layout, float16, preview map, card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModelWithProjection

from ..toyland import GRAMMAR_VERSION, WORDS
from .data import World
from .denoiser import unet_config
from .loop import write_atomically, write_json
from .presets import SCALED_LINEAR, Preset
from .vae import encode_all, load_config, trained_vae, vae_folder

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
}


def averaged(folder: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of one part of the run, float16."""
    loaded = load_file(folder / "weights.safetensors")
    return {k[4:]: v.half().contiguous() for k, v in loaded.items() if k.startswith("ema.")}


def fit_preview(latents: np.ndarray, pictures: np.ndarray) -> dict:
    """Least squares from latent cells to the mean colour (0…1) of their 8 × 8 pixels.

    latents (n, 4, h, w), scaled; pictures uint8 (n, 8h, 8w, 3). R² is given per colour.
    """
    n, channels, h, w = latents.shape
    cells = pictures.reshape(n, h, 8, w, 8, 3).astype(np.float64).mean(axis=(2, 4)) / 255
    inputs = np.moveaxis(latents, 1, -1).reshape(-1, channels).astype(np.float64)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    target = cells.reshape(-1, 3)
    solution, *_ = np.linalg.lstsq(inputs, target, rcond=None)
    left = ((target - inputs @ solution) ** 2).sum(axis=0)
    r2 = 1 - left / ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    rounded = solution.round(5)
    weight, bias = rounded[:-1].T.tolist(), rounded[-1].tolist()
    return {"weight": weight, "bias": bias, "r2": r2.round(4).tolist()}


def export_text_encoder(run: Path, target: Path) -> None:
    """The text tower without its projection, as CLIPTextModel, with published key names."""
    tower = CLIPTextModelWithProjection.from_pretrained(run / "clip" / "text_tower")
    state = {k: v.half().contiguous() for k, v in tower.state_dict().items()}
    state.pop("text_projection.weight")
    state = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in state.items()}
    config = json.loads((run / "clip" / "text_tower" / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["CLIPTextModel"], "dtype": "float32"}  # cast when loaded
    save_weights(target / "model.safetensors", state)
    write_json(target / "config.json", config)


def save_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Safetensors, written atomically."""
    write_atomically(path, lambda part: save_file(state, part, metadata={"format": "pt"}))


def export(run: Path, target: Path, preset: Preset, world: World) -> Path:
    """Write the whole checkpoint folder; returns it."""
    from .card import model_card

    write_json(target / "model_index.json", MODEL_INDEX)
    write_json(target / "scheduler" / "scheduler_config.json", SCALED_LINEAR)
    write_json(target / "unet" / "config.json", unet_config(preset))
    write_json(target / "vae" / "config.json", load_config(run))
    for part in ("unet", "vae"):
        source = run / "denoiser" if part == "unet" else vae_folder(run)
        save_weights(target / part / "diffusion_pytorch_model.safetensors", averaged(source))
    export_text_encoder(run, target / "text_encoder")
    shutil.copytree(run / "tokenizer", target / "tokenizer", dirs_exist_ok=True)
    count = min(1000, len(world.pictures))
    scale = load_config(run)["scaling_factor"]
    means = encode_all(trained_vae(run, preset), world.pictures[:count], preset.device)[0]
    write_json(target / "preview.json", fit_preview(means * scale, world.pictures[:count]))
    write_json(target / "toyland.json", {"grammar_version": GRAMMAR_VERSION, "words": list(WORDS)})
    card = model_card(run, target, preset)
    write_atomically(target / "README.md", lambda p: p.write_text(card, encoding="utf-8"))
    return target
