"""Claims about the latent space and the autoencoder (notebook 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from diffusionlab.analysis.autoencoder import Roundtrip, roundtrip
from diffusionlab.analysis.spectrum import ring_power
from diffusionlab.claims.bench import FEWER_STEPS, Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.generate import generate
from diffusionlab.images import Preview, to_pixels
from diffusionlab.inside.estimate import estimate
from diffusionlab.stages import decode, decode_pixels, draw_noise, encode
from diffusionlab.toyland import render
from diffusionlab.trace import to_numpy

HALF_BYTES, PIXEL_BYTES = 2, 1  # of a latent's number in float16, of a pixel's in 8 bits
LARGEST = 4096  # pixels that a picture may have


# ---- pictures there and back -------------------------------------------------------------------
def _drawn(bench: Bench) -> list:
    """The pictures of `bench.scenes` with their masks, at the model's size, 512 pixels at most."""
    return [render(shown, min(bench.model.size, 512)) for shown in bench.scenes]


def _roundtrips(bench: Bench) -> list[Roundtrip]:
    """Every drawn picture through the autoencoder and back."""
    model = bench.model
    there, back = (lambda image: encode(model, image)), (lambda latent: decode(model, latent))
    return [roundtrip(Image.fromarray(d.image), there, back) for d in _drawn(bench)]


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pixels in 0 … 1, 120 at most."""
    return float(-10 * np.log10(max(((a - b) ** 2).mean(), 1e-12)))


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.round(255 * pixels).astype(np.uint8)


def numbers_saved(bench: Bench) -> tuple[Part, ...]:
    """Count numbers and bytes of a picture and its latent. 98 % is told to two digits: 0.5 off."""
    side, factor = bench.model.size, bench.model.size_factor
    pixels, latent = 3 * side**2, bench.model.latent_channels * (side // factor) ** 2
    bytes_left = latent * HALF_BYTES / (pixels * PIXEL_BYTES)
    return (
        Part("share of the numbers that is saved", exact(1 - latent / pixels), "near", 0.98, 0.005),
        Part("share of the bytes that is saved (float16 for 8 bits)", exact(1 - bytes_left), "near",
             0.98, 0.005),
    )  # fmt: skip


def eight_to_a_side(bench: Bench) -> tuple[Part, ...]:
    """Encode pictures of three shapes: at each of them both sides must be an eighth."""
    found = set()
    for height, width in ((64, 64), (96, 64), (64, 128)):
        values = encode(bench.model, Image.new("RGB", (width, height))).values
        found |= {height / values.shape[1], width / values.shape[2]}
    return tuple(
        Part("pixels to a side of one latent position", exact(f), "equals", 8)
        for f in sorted(found)
    )


def quality_is_kept(bench: Bench) -> tuple[Part, ...]:
    """Look at pictures after the round trip: usually the same things must be seen in them.

    And the error must be that of usual lossy compression, 30 to 50 dB for 8-bit pictures.
    """
    trips = _roundtrips(bench)
    before, after = (
        bench.judged([_bytes(getattr(t, side)) for t in trips]) for side in ("before", "after")
    )
    same = [a.colours == b.colours and a.setting == b.setting and a.time == b.time
            for a, b in zip(before, after, strict=True)]  # fmt: skip
    return (
        Part("share of pictures judged the same afterwards", share(same), "above", 0.5),
        Part("PSNR in dB", mean([_psnr(trip.before, trip.after) for trip in trips]), "above", 30),
    )


def only_redundancy_is_lost(bench: Bench) -> tuple[Part, ...]:
    """Compare errors. What a latent's grid can hold must come back to 5 % of its power.

    And the thing that the picture is of must lose no more per pixel than the scenery.
    """
    coarse, ratios = [], []
    for trip, drawn, shown in zip(_roundtrips(bench), _drawn(bench), bench.scenes, strict=True):
        coarse.append(_lost(trip, slice(1, trip.latent.shape[1] // 2 + 1)))
        mask, off = drawn.masks[shown.object] > 0.5, (trip.residual**2).mean(axis=2)
        ratios.append(np.log2(off[mask].mean() / off[~mask].mean()) / 2)
    return (
        Part("share of the power lost that the latent's grid can hold", mean(coarse), "below",
             0.05),
        Part("error in the thing over that around it (doublings)", mean(ratios), "below", 0),
    )  # fmt: skip


def _lost(trip: Roundtrip, rings: slice) -> float:
    """The power of the residual over that of the picture, in some rings of the spectrum."""
    error, power = (
        ring_power(x.transpose(2, 0, 1)).mean(axis=0)[rings].sum()
        for x in (trip.residual, trip.before)
    )
    return float(error / power)


def decoder_fills_in_detail(bench: Bench) -> tuple[Part, ...]:
    """Compare detail finer than two latent positions. Filled in: as much power as before, to 20 %.

    And plausible: nearer to the picture's own detail than leaving it blank would be.
    """
    powers, lost = [], []
    for trip in _roundtrips(bench):
        fine = slice(trip.latent.shape[1] // 2 + 1, None)
        after, before = (
            ring_power(x.transpose(2, 0, 1)).mean(axis=0)[fine].sum()
            for x in (trip.after, trip.before)
        )
        powers.append(after / before)
        lost.append(_lost(trip, fine))
    return (
        Part("fine detail afterwards over before (power)", mean(powers), "near", 1, 0.2),
        Part("error in fine detail over its power", mean(lost), "below", 1),
    )


def decoding_is_no_stretching(bench: Bench) -> tuple[Part, ...]:
    """Set the round trip against the picture's own small version, stretched: it must be nearer.

    That small version holds the true mean of each position's pixels, the best there is to stretch.
    """
    gained = []
    for trip in _roundtrips(bench):
        image = Image.fromarray(_bytes(trip.before))
        small = image.reduce(trip.cell).resize(image.size, Image.Resampling.BICUBIC)
        stretched = to_pixels(small).astype(np.float64)
        gained.append(_psnr(trip.before, trip.after) - _psnr(trip.before, stretched))
    return (Part("PSNR beyond that of stretching (dB)", mean(gained), "above", 0),)


def latents_cannot_be_seen(bench: Bench) -> tuple[Part, ...]:
    """Fit one colour per position, linearly, on half of the pictures; ask the other half.

    Invisible: less than half of the variance of the small picture can be told from its latent.
    """
    trips = _roundtrips(bench)
    pictures, half = [_bytes(trip.before) for trip in trips], len(trips) // 2
    latents = np.stack([trip.latent for trip in trips])
    told = []
    for fitted, asked in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        preview = Preview.fit(latents[fitted], np.stack(pictures[fitted]))
        for latent, trip in zip(latents[asked], trips[asked], strict=True):
            told.append(_explained(preview, latent, trip))
    return (Part("share of the small picture's variance that is seen", mean(told), "below", 0.5),)


def _explained(preview: Preview, latent: np.ndarray, trip: Roundtrip) -> float:
    """R² of a linear preview against the means of each position's pixels."""
    _, height, width = latent.shape
    true = trip.before.reshape(height, trip.cell, width, trip.cell, 3).mean(axis=(1, 3))
    seen = np.einsum("rc,chw->hwr", preview.weight, latent) + preview.bias
    return float(1 - ((seen - true) ** 2).sum() / ((true - true.mean(axis=(0, 1))) ** 2).sum())


def any_latent_is_a_picture(bench: Bench) -> tuple[Part, ...]:
    """Decode Gaussian noise, which is a latent too: usually one thing must be seen in it."""
    noises = [draw_noise(bench.model, seed) for seed in range(bench.samples)]
    seen = bench.judged([decode(bench.model, noise) for noise in noises])
    things = [len(verdict.kinds) > 0 for verdict in seen]
    return (Part("share of decoded noises with a thing in them", share(things), "above", 0.5),)


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


def ten_to_a_hundred_times_faster(bench: Bench) -> tuple[Part, ...]:
    """Count the arithmetic of the same U-Net on latents and on a grid of the picture's pixels."""
    factor = bench.model.size_factor
    side = min(bench.model.size, LARGEST // factor)
    small, large = (
        next(s.flops for s in _cost(bench, pixels).stages if s.name == "predict")
        for pixels in (side, side * factor)
    )
    return (
        Part("operations on pixels over those on latents", exact(large / small), "above", 10),
        Part("the same, not beyond a hundred", exact(large / small), "below", 100),
    )


def _cost(bench: Bench, pixels: int) -> Any:
    return estimate(bench.model, num_steps=1, height=pixels, width=pixels, rate=1e9)


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
    Claim("B3", "A latent is 98 % less data.", "essay", 3, numbers_saved),
    Claim("B4", "48-fold compression keeps the quality.", "article", 3, quality_is_kept, True),
    Claim("B6", "Each side is an eighth.", "guide", 3, eight_to_a_side),
    Claim("B8", "Working on latents is 10 to 100 times faster.", "tutorial", 3,
          ten_to_a_hundred_times_faster),
    Claim("B11", "A latent shows nothing to the eye.", "exhibit page", 3, latents_cannot_be_seen,
          True),
    Claim("B12", "Only redundant data is discarded.", "guide", 3, only_redundancy_is_lost, True),
    Claim("B13", "The decoder fills in plausible detail.", "article", 3, decoder_fills_in_detail,
          True),
    Claim("B15", "Decoding is more than stretching.", "article", 3, decoding_is_no_stretching,
          True),
    Claim("B17", "In the decoder size rises while channels fall.", "article", 3,
          decoder_trades_channels_for_size),
    Claim("B19", "Most final pixels are never directly computed.", "article", 3,
          most_pixels_are_never_computed),
    Claim("B20", "The decoder's values lie between -1 and 1.", "article", 3,
          output_lies_within_one, True),
    Claim("B21", "A pixel is (latent value + 1) / 2 · 255.", "article", 3, pixels_by_formula),
    Claim("B26", "The decoder makes a picture of whatever latent.", "essay", 3,
          any_latent_is_a_picture, True),
    Claim("B27", "From text alone, the encoder is bypassed.", "essay", 3, encoder_is_bypassed),
    Claim("B31", "All denoising takes place in latent space.", "exhibit page", 3,
          denoising_stays_latent),
)  # fmt: skip
