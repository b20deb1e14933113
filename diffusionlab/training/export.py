"""From a run folder to the checkpoint that ships: diffusers layout, float16, preview map, card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..images import Preview
from ..toyland import GRAMMAR_VERSION, known_words
from .data import World
from .denoiser import unet_config
from .loop import averaged, part_of
from .presets import SCALED_LINEAR, Preset
from .vae import encode_all, load_config, trained_vae, vae_folder
from .written import write_atomically, write_json


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as they ship: float16."""
    return {name: value.half().contiguous() for name, value in state.items()}


def export_text_encoder(run: Path, target: Path) -> None:
    """The text tower without its projection (the identity), as CLIPTextModel."""
    state = half(part_of(averaged(run / "denoiser"), "towers.text"))
    state.pop("text_projection.weight")
    state = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in state.items()}
    config = read_config(run / "clip" / "text_tower")
    config |= {"architectures": ["CLIPTextModel"], "dtype": "float32"}  # cast when loaded
    save_weights(target / "model.safetensors", state)
    write_json(target / "config.json", config)


def export_image_encoder(run: Path, target: Path, preset: Preset) -> None:
    """The image tower, and beside it how `CLIPImageProcessor` prepares a picture for it."""
    newest, name = (
        (run / "image", "image")
        if (run / "image" / "state.json").exists()
        else (
            run / "denoiser",
            "towers.image",
        )
    )
    state = half(part_of(averaged(newest), name))
    save_weights(target / "image_encoder" / "model.safetensors", state)
    config = read_config(run / "clip" / "image_tower") | {"dtype": "float32"}
    write_json(target / "image_encoder" / "config.json", config)
    side = {"height": preset.size, "width": preset.size}
    preparing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": preset.size},
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    write_json(target / "feature_extractor" / "preprocessor_config.json", preparing)


def read_config(folder: Path) -> dict:
    """The config.json of a folder."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def about(preset: Preset) -> dict:
    """toyland.json: which part of the world the model was trained on, and its words."""
    return {
        "grammar_version": GRAMMAR_VERSION,
        "share": preset.share.name,
        "words": list(known_words(preset.share)),
    }


MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "requires_safety_checker": False,
}


def save_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Safetensors, written atomically."""
    write_atomically(path, lambda part: save_file(state, part, metadata={"format": "pt"}))


def export(run: Path, target: Path, preset: Preset, world: World, begun: str = "") -> Path:
    """Write the whole checkpoint folder; returns it.

    `begun` is a sentence for the model card on what the run began with; the run knows if it is "".
    """
    from .card import model_card

    write_json(target / "model_index.json", MODEL_INDEX)
    write_json(target / "scheduler" / "scheduler_config.json", SCALED_LINEAR)
    write_json(target / "unet" / "config.json", unet_config(preset))
    write_json(target / "vae" / "config.json", load_config(run))
    name = "diffusion_pytorch_model.safetensors"
    save_weights(target / "unet" / name, half(part_of(averaged(run / "denoiser"), "unet")))
    save_weights(target / "vae" / name, half(averaged(vae_folder(run))))
    export_text_encoder(run, target / "text_encoder")
    export_image_encoder(run, target, preset)
    shutil.copytree(run / "tokenizer", target / "tokenizer", dirs_exist_ok=True)
    count = min(1000, len(world.pictures))
    scale = load_config(run)["scaling_factor"]
    means = encode_all(trained_vae(run, preset), world.pictures[:count], preset.device)[0]
    preview = Preview.fit(means * scale, world.pictures[:count])
    write_json(target / "preview.json", preview.to_json())
    write_json(target / "toyland.json", about(preset))
    if not begun and (run / "start.json").exists():
        started = json.loads((run / "start.json").read_text(encoding="utf-8"))
        begun = f"It began with the weights of the checkpoint `{started['folder']}`."
    card = model_card(run, target, preset, world, begun)
    write_atomically(target / "README.md", lambda p: p.write_text(card, encoding="utf-8"))
    return target
