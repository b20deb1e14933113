"""Toyland's autoencoder: KL-regularised, 8 pixels to a latent cell, trained without an adversary.

Loss = L1 + 0.5 · L1 of the picture's gradients at three scales + a small KL term (Kingma & Welling
2013, arXiv 1312.6114, Eq. 10). No adversarial term: what it cannot keep it blurs, never invents.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ..models import VAE, VAEConfig
from .data import SEEDS, World, to_pixels
from .loop import Training, averaged, begin_with
from .presets import Preset
from .team import processes
from .written import write_json


def vae_config(preset: Preset) -> dict:
    """config.json of an AutoencoderKL, one layer per block, no attention in the middle."""
    channels, blocks = preset.vae_channels, len(preset.vae_channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": list(channels),
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "mid_block_add_attention": False,
        "sample_size": preset.size,
        "scaling_factor": 1.0,
    }


def crops(pictures: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """One random window (n, size, size, 3) of each picture, on the grid of 8 pixels."""
    places = rng.integers(0, (pictures.shape[1] - size) // 8 + 1, size=(len(pictures), 2)) * 8
    return np.stack(
        [p[y : y + size, x : x + size] for p, (y, x) in zip(pictures, places, strict=True)]
    )


def gradient_loss(made: torch.Tensor, true: torch.Tensor, scales: int = 3) -> torch.Tensor:
    """L1 between horizontal and vertical differences at full, half and quarter size."""
    total = made.new_zeros(())
    for _ in range(scales):
        for axis in (-1, -2):
            total = total + (made.diff(dim=axis) - true.diff(dim=axis)).abs().mean()
        made, true = F.avg_pool2d(made, 2), F.avg_pool2d(true, 2)
    return total / scales


def kl_per_element(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Nats per latent element between N(mean, std²) and N(0, 1)."""
    return (0.5 * (mean**2 + std**2 - 1) - std.log()).mean()


def psnr(made: torch.Tensor, true: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1], after clamping to that range."""
    return float(10 * torch.log10(4 / F.mse_loss(made.clamp(-1, 1), true)))


def train_vae(
    folder: Path, preset: Preset, world: World, minutes: float, start: Path | None = None
) -> None:
    """Train for `minutes`; writes the averaged weights, and config.json with the latent scale.

    `start` is a checkpoint folder whose autoencoder it begins with, if that has the same shape.
    """
    vae = VAE(VAEConfig.from_dict(vae_config(preset))).to(preset.device)
    if start:
        begin_with(vae, load_file(start / "vae" / "diffusion_pytorch_model.safetensors"))
    rate = preset.vae_rate / 2 if start else preset.vae_rate
    training = Training(folder / "vae", vae, rate, 0.0, minutes)
    for step in training.steps("vae"):
        rng = np.random.default_rng([2, step, training.rank])
        rows = np.sort(rng.integers(len(world.pictures), size=preset.vae_batch))
        window = crops(world.pictures[rows], min(preset.vae_crop, preset.size), rng)
        pixels = to_pixels(window).to(preset.device)
        with torch.autocast(preset.device, torch.bfloat16, enabled=preset.bfloat16):
            mean, std = vae.encode(pixels)
            latent = mean + std * torch.randn_like(mean)
            made = vae.decode(latent)
        made, kl = made.float(), kl_per_element(mean.float(), std.float())
        loss = (made - pixels).abs().mean() + 0.5 * gradient_loss(made, pixels) + preset.vae_kl * kl
        training.learn(loss, kl=kl, psnr=psnr(made.detach(), pixels))
    if training.rank == 0:
        vae.load_state_dict(training.average.values)
        measure_latents(folder, preset, vae, world)


def train_decoder(
    folder: Path, preset: Preset, world: World, minutes: float, start: Path | None = None
) -> None:
    """Train the decoder further; the encoder, and with it every latent of the run, stays as it is.

    It begins with the run's own autoencoder, whatever `start` is. So the pictures may still become
    sharper while, or after, the U-Net learns those latents.
    """
    vae = trained_vae(folder, preset)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True), vae.post_quant_conv.requires_grad_(True)
    moments, cells = cached_latents(folder, preset, world), preset.vae_crop // 8
    scale = load_config(folder)["scaling_factor"]
    training = Training(folder / "decoder", vae, preset.vae_rate / 2, 0.0, minutes)
    for step in training.steps("decoder"):
        rng = np.random.default_rng([4, step, training.rank])
        rows = rng.integers(len(world.pictures), size=preset.vae_batch)
        y, x = rng.integers(0, moments.shape[-1] - cells + 1, size=2)
        window = moments[:, rows, :, y : y + cells, x : x + cells].astype(np.float32) / scale
        mean, std = torch.from_numpy(window).to(preset.device)
        size = 8 * cells
        seen = world.pictures[rows, 8 * y : 8 * y + size, 8 * x : 8 * x + size]
        pixels = to_pixels(seen).to(preset.device)
        with torch.autocast(preset.device, torch.bfloat16, enabled=preset.bfloat16):
            made = vae.decode(mean + std * torch.randn_like(std))
        made = made.float()
        loss = (made - pixels).abs().mean() + 0.5 * gradient_loss(made, pixels)
        training.learn(loss, psnr=psnr(made.detach(), pixels))
    if training.rank == 0:
        vae.load_state_dict(training.average.values)
        write_json(folder / "vae" / "report.json", held_out_quality(folder, preset, vae))


def vae_folder(folder: Path) -> Path:
    """Where the run's newest autoencoder lies: `decoder` if that part was trained, else `vae`."""
    return folder / ("decoder" if (folder / "decoder" / "state.json").exists() else "vae")


def trained_vae(folder: Path, preset: Preset) -> VAE:
    """The autoencoder that the run folder holds, with its averaged weights."""
    vae = VAE(VAEConfig.from_dict(load_config(folder)))
    vae.load_state_dict(averaged(vae_folder(folder)))
    return vae.eval().to(preset.device)


def cached_latents(folder: Path, preset: Preset, world: World) -> np.ndarray:
    """float16 (2, n, 4, h, w): mean and std of every picture's latent, times the latent scale."""
    path = folder / "vae" / f"latents_{len(world.pictures)}.npy"
    with processes(cpu=preset.device == "cpu").main_process_first():
        if not path.exists():
            scale = np.float16(load_config(folder)["scaling_factor"])
            moments = encode_all(trained_vae(folder, preset), world.pictures, preset.device)
            np.save(path, moments * scale)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def encode_all(vae: VAE, pictures: np.ndarray, device: str, batch: int = 50) -> np.ndarray:
    """Means and standard deviations, float16 (2, n, channels, h, w), of unscaled latents."""
    kept = []
    for i in range(0, len(pictures), batch):
        moments = vae.encode(to_pixels(pictures[i : i + batch]).to(device))
        kept.append(torch.stack(moments).half().cpu().numpy())
    return np.concatenate(kept, axis=1)


def measure_latents(
    folder: Path, preset: Preset, vae: VAE, world: World, count: int = 1000
) -> dict:
    """Write config.json with scaling_factor = 1/std over data, and report.json with the quality."""
    for outdated in (folder / "vae").glob("latents_*.npy"):
        outdated.unlink()
    moments = encode_all(vae, world.pictures[:count], preset.device).astype(np.float32)
    spread = np.sqrt(moments[0].var() + (moments[1] ** 2).mean())
    config = vae_config(preset) | {"scaling_factor": round(float(1 / spread), 6)}
    write_json(folder / "vae" / "config.json", config)
    report = held_out_quality(folder, preset, vae)
    write_json(folder / "vae" / "report.json", report)
    return report


@torch.no_grad()
def held_out_quality(folder: Path, preset: Preset, vae: VAE, count: int = 200) -> dict:
    """PSNR (dB) and nats per latent element on pictures of seeds that training never saw."""
    data, first = folder.parent / "data", SEEDS["validation"]
    held = World.rendered(data, count, preset.size, preset.share, first)
    scores, nats = [], []
    for i in range(0, count, 20):
        pixels = to_pixels(held.pictures[i : i + 20]).to(preset.device)
        mean, std = vae.encode(pixels)
        scores += [psnr(m, p) for m, p in zip(vae.decode(mean), pixels, strict=True)]
        nats.append(float(kl_per_element(mean, std)))
    return {
        "psnr_db": round(float(np.mean(scores)), 2),
        "nats_per_element": round(np.mean(nats), 3),
    }


def load_config(folder: Path) -> dict:
    """The config.json that `train_vae` wrote."""
    return json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
