"""Narrow checkpoints of random weights in the layouts that people have of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from original_layout import pipeline, unet, write_cached_tokenizer, write_single_file
from test_parity_families import FAMILIES, published

from diffusionlab.pipeline import families


def in_a_folder(family: str, place: Path, name: str) -> Path:
    """As diffusers saves a pipeline of that family today."""
    FAMILIES[family]().save_pretrained(place / name)
    return place / name


def as_published(place: Path) -> Path:
    """Stable Diffusion 1.x as in 2022: old names and configs, PNDM, the U-Net in two files."""
    published(in_a_folder("Stable Diffusion 1.x", place, "sd1"), halved=False)
    return place / "sd1"


def hub(place: Path) -> Path:
    """Where the hub's cache is while a checkpoint below `place` is read."""
    return place / "hub"


def in_one_file(place: Path, pipe=None) -> Path:
    """Stable Diffusion 1.x in the original layout; its tokenizer lies in the hub's cache.

    Pictures of 128 pixels, from latents of 64 cells: a file cannot say that it has fewer.
    """
    pipe = pipe or with_many_cells(pipeline("SD 1"))
    write_cached_tokenizer(hub(place), pipe.tokenizer)
    return write_single_file(pipe, place / "one.safetensors")


def with_many_cells(pipe):
    """Cells of two pixels, which only the smallest of three resolutions of the U-Net attends."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe.unet = unet(
            block_out_channels=(32, 32, 32), attention_head_dim=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        pipe.vae = diffusers.AutoencoderKL(
            block_out_channels=(32, 32), layers_per_block=1, sample_size=128,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ).eval()  # fmt: skip
    return pipe


KINDS: dict[str, Callable[[Path], Path]] = {
    "SDXL folder": lambda place: in_a_folder("SDXL", place, "xl"),
    "SD1 file": in_one_file,
    "SD1 folder": as_published,
    "SD2v folder": lambda place: in_a_folder("Stable Diffusion 2.x v", place, "sd2"),
}


def small(kind: str, place: Path, patch: pytest.MonkeyPatch) -> Path:
    """One of `KINDS` for this process, which is made to think that a file means eight cells."""
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub(place)))
    patch.setattr(families, "FAMILIES", (replace(families.SD1, cells=8),))
    return in_one_file(place, pipeline("SD 1")) if kind == "SD1 file" else KINDS[kind](place)
