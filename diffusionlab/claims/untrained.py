"""The same model before it was trained: what no claim about training may hold of."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffusionlab.errors import InputError, shown
from diffusionlab.pipeline import LatentDiffusion, load


def untrained(model: LatentDiffusion, folder: str | Path, seed: int = 0) -> LatentDiffusion:
    """Every weight of a model drawn anew, all else the same: written into `folder` and loaded.

    Matrices and kernels are N(0, 1 / inputs) (LeCun et al. 1998, "Efficient BackProp", Eq. 16),
    scales of norms 1 and biases 0. The map of the previews is left out: it was fitted to the old
    weights. Errors: InputError for a model that was not read from a folder, or a folder in use.
    """
    source, target = Path(model.path), Path(folder)
    if not (source / "unet").is_dir():
        raise InputError(
            f"{model.name} was not read from a folder in diffusers' layout; its configs are "
            "needed: write it with save(model, folder) and load that"
        )
    if target.exists() and any(target.iterdir()):
        raise InputError(f"folder {shown(str(target))} is not empty; name a new one")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin"))
    (target / "preview.json").unlink(missing_ok=True)
    dice = torch.Generator().manual_seed(seed)
    for path in sorted(target.rglob("*.safetensors")):
        drawn = {name: redrawn(name, old, dice) for name, old in load_file(path).items()}
        path.unlink()  # never write into a file that may be mapped
        save_file(drawn, path, metadata={"format": "pt"})
    return load(target, device=model.device, dtype=model.dtype)


def redrawn(name: str, old: torch.Tensor, dice: torch.Generator) -> torch.Tensor:
    """A tensor of the same shape and dtype as an untrained network would hold; counters stay."""
    if not old.is_floating_point():
        return old
    if old.ndim > 1:
        spread = (old[0].numel() or 1) ** -0.5
        return (spread * torch.randn(old.shape, generator=dice)).to(old.dtype)
    if name.endswith("bias"):
        return torch.zeros_like(old)
    return torch.ones_like(old)
