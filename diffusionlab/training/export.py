"""From a run folder to the checkpoint that ships: diffusers layout, float16, preview map, card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection

from ..images import Preview
from ..pipeline.saving import MODEL_INDEX
from ..toyland import GRAMMAR_VERSION, WORDS
from .data import World
from .denoiser import unet_config
from .loop import averaged, write_atomically, write_json
from .presets import SCALED_LINEAR, Preset
from .vae import encode_all, load_config, trained_vae, vae_folder


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as they ship: float16."""
    return {name: value.half().contiguous() for name, value in state.items()}


def denoiser_weights(run: Path, part: str) -> dict[str, torch.Tensor] | None:
    """Weights of "unet" or "tower" if they were trained together, else the U-Net's own or None."""
    if (run / "together" / "state.json").exists():
        both = averaged(run / "together")
        return {k.removeprefix(f"{part}."): v for k, v in both.items() if k.startswith(f"{part}.")}
    return averaged(run / "denoiser") if part == "unet" else None


def export_text_encoder(run: Path, target: Path) -> None:
    """The text tower without its projection, as CLIPTextModel, with published key names."""
    tower = CLIPTextModelWithProjection.from_pretrained(run / "clip" / "text_tower")
    state = half(denoiser_weights(run, "tower") or tower.state_dict())
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
    name = "diffusion_pytorch_model.safetensors"
    save_weights(target / "unet" / name, half(denoiser_weights(run, "unet")))
    save_weights(target / "vae" / name, half(averaged(vae_folder(run))))
    export_text_encoder(run, target / "text_encoder")
    shutil.copytree(run / "tokenizer", target / "tokenizer", dirs_exist_ok=True)
    count = min(1000, len(world.pictures))
    scale = load_config(run)["scaling_factor"]
    means = encode_all(trained_vae(run, preset), world.pictures[:count], preset.device)[0]
    preview = Preview.fit(means * scale, world.pictures[:count])
    write_json(target / "preview.json", preview.to_json())
    write_json(target / "toyland.json", {"grammar_version": GRAMMAR_VERSION, "words": list(WORDS)})
    card = model_card(run, target, preset)
    write_atomically(target / "README.md", lambda p: p.write_text(card, encoding="utf-8"))
    return target
