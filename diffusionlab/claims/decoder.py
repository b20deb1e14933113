"""Claims about the decoder and the way from it to a file (notebook 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from diffusionlab.claims.bench import FEWER_STEPS, Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.generate import generate
from diffusionlab.stages import decode, decode_pixels, draw_noise
from diffusionlab.trace import to_numpy


# ---- inside the networks -----------------------------------------------------------------------
@contextmanager
def _called(parts: dict[str, nn.Module]) -> Iterator[list[str]]:
    """The names of some modules, in the order in which they are called."""
    order: list[str] = []
    hooks = [
        part.register_forward_pre_hook(lambda module, given, name=name: order.append(name))
        for name, part in parts.items()
    ]
    try:
        yield order
    finally:
        for hook in hooks:
            hook.remove()


def _calls(bench: Bench) -> list[str]:
    """Which networks a short run calls, in order."""
    model = bench.model
    parts = {"unet": model.unet, "encoder": model.vae.encoder, "decoder": model.vae.decoder}
    with _called(parts) as order:
        generate(model, bench.prompt, num_steps=4, record=(), progress=False)
    return order


def encoder_is_bypassed(bench: Bench) -> tuple[Part, ...]:
    """Count what a run from text calls: no encoder, one decoder."""
    order = _calls(bench)
    return (
        Part("calls of the VAE's encoder", exact(order.count("encoder")), "equals", 0),
        Part("calls of the VAE's decoder", exact(order.count("decoder")), "equals", 1),
    )


def denoising_stays_latent(bench: Bench) -> tuple[Part, ...]:
    """Count the decoder's calls before the U-Net's last: denoising in latents has none."""
    order = _calls(bench)
    last = len(order) - order[::-1].index("unet")
    early = sum(name != "unet" for name in order[:last])
    return (Part("calls of the VAE before the last of the U-Net", exact(early), "equals", 0),)


@contextmanager
def _convolutions(network: nn.Module) -> Iterator[list[tuple[tuple, tuple]]]:
    """Shapes (channels, height, width) before and after each convolution, as they are called."""
    shapes: list[tuple[tuple, tuple]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, given, made: shapes.append((given[0].shape[1:], made.shape[1:]))
        )
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        yield shapes
    finally:
        for hook in hooks:
            hook.remove()


def decoder_trades_channels_for_size(bench: Bench) -> tuple[Part, ...]:
    """Watch every convolution of the decoder: size may only rise, channels may only fall."""
    with _convolutions(bench.model.vae) as shapes:
        decode(bench.model, draw_noise(bench.model, 0))
    smaller = sum(made[1] < given[1] for given, made in shapes)
    wider = sum(made[0] > given[0] for given, made in shapes)
    return (
        Part("convolutions that make the grid smaller", exact(smaller), "equals", 0),
        Part("convolutions that add channels", exact(wider), "equals", 0),
    )


# ---- from decoder to file ----------------------------------------------------------------------
def _outputs(bench: Bench, count: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the decoder gives (height, width, 3) for the last latents of runs, and the pictures."""
    found = []
    for trace in bench.traces(bench.texts, num_steps=FEWER_STEPS)[:count]:
        raw = decode_pixels(bench.model, torch.tensor(trace.latents[-1]))
        found.append((to_numpy(raw).transpose(1, 2, 0), np.asarray(trace.image, np.float64)))
    return found


def most_pixels_are_never_computed(bench: Bench) -> tuple[Part, ...]:
    """Set the picture beside the decoder's output, rounded: "never most" is less than half."""
    ((raw, picture), *_) = _outputs(bench, 1)
    own = np.abs(np.clip(255 * (raw / 2 + 0.5), 0, 255) - picture) <= 0.5 + 1e-3
    return (Part("share of the picture's numbers that the decoder computed", exact(own.mean()),
                 "below", 0.5),)  # fmt: skip


def output_lies_within_one(bench: Bench) -> tuple[Part, ...]:
    """Look at the decoder's output: nearly all of it (95 %) in -1 … 1, and usually all of it."""
    inside = [float((np.abs(raw) <= 1).mean()) for raw, _ in _outputs(bench)]
    return (
        Part("share of the values within -1 … 1", mean(inside), "above", 0.95),
        Part("share of pictures with none outside", share(x == 1 for x in inside), "above", 0.5),
    )


def pixels_by_formula(bench: Bench) -> tuple[Part, ...]:
    """Put values into (value + 1) / 2 · 255: the decoder's must give the pixels, to rounding.

    As it is told, the values are the latent's: there must be one for each number of the picture.
    """
    ((raw, picture), *_) = _outputs(bench, 1)
    off = np.abs(np.clip((raw + 1) / 2 * 255, 0, 255) - picture).max()
    latent = bench.model.latent_channels * np.prod(picture.shape[:2]) / bench.model.size_factor**2
    return (
        Part("largest error of the formula on the decoder's output", exact(off), "below", 0.501),
        Part("latent values to a number of the picture", exact(latent / picture.size), "equals", 1),
    )


CLAIMS = (
    Claim("B17", "In the decoder size rises while channels fall.", "article", 3,
          decoder_trades_channels_for_size),
    Claim("B19", "Most final pixels are never directly computed.", "article", 3,
          most_pixels_are_never_computed),
    Claim("B20", "The decoder's values lie between -1 and 1.", "article", 3,
          output_lies_within_one, True),
    Claim("B21", "A pixel is (latent value + 1) / 2 · 255.", "article", 3, pixels_by_formula),
    Claim("B27", "From text alone, the encoder is bypassed.", "essay", 3, encoder_is_bypassed),
    Claim("B31", "All denoising takes place in latent space.", "exhibit page", 3,
          denoising_stays_latent),
)  # fmt: skip
