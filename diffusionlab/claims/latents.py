"""Claims about the latent space and the autoencoder (notebook 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from diffusionlab.analysis.autoencoder import Roundtrip, roundtrip
from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.spectrum import ring_power
from diffusionlab.claims.bench import SEED, Bench
from diffusionlab.claims.claim import Claim, Measured, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.images import Preview, to_pixels
from diffusionlab.inside.estimate import estimate
from diffusionlab.stages import decode, draw_noise, encode
from diffusionlab.toyland import render

HALF_BYTES, PIXEL_BYTES = 2, 1  # of a latent's number in float16, of a pixel's in 8 bits
LARGEST = 4096  # pixels that a picture may have


# ---- pictures there and back -------------------------------------------------------------------
def _drawn(bench: Bench) -> list:
    """The pictures of `bench.scenes` with their masks, at the model's size, 512 pixels at most."""
    return [render(shown, min(bench.model.size, 512)) for shown in bench.scenes]


def _roundtrips(bench: Bench) -> list[Roundtrip]:
    """Every drawn picture through the autoencoder and back, once for all claims."""
    model = bench.model

    def made() -> list[Roundtrip]:
        there, back = (lambda image: encode(model, image)), (lambda latent: decode(model, latent))
        return [roundtrip(Image.fromarray(d.image), there, back) for d in _drawn(bench)]

    return bench.kept("round trips", made)


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
        Part("error in the thing, as a multiple of that around it", _raised(mean(ratios)), "below",
             1),
    )  # fmt: skip


def _raised(doublings: Measured) -> Measured:
    """A mean of log2 ratios and its interval as a ratio: the geometric mean."""
    value, low, high = (2**x for x in (doublings.value, doublings.low, doublings.high))
    return replace(doublings, value=value, low=low, high=high)


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


def every_latent_is_a_pictures(bench: Bench) -> tuple[Part, ...]:
    """Decode latents and encode again: one that stands for a picture comes back, to 5 % variance.

    Latents of pictures are the control: without them a poor encoder could not be told from a latent
    that no picture has.
    """
    noises = [numbers(draw_noise(bench.model, SEED + i).values) for i in range(bench.samples)]
    pictures = [trip.latent for trip in _roundtrips(bench)]
    kinds = {"latents of pictures": pictures, "pure noise": noises}
    return tuple(
        Part(f"variance that does not come back, {name}",
             mean([_not_returned(bench, latent) for latent in found]), "below", 0.05)
        for name, found in kinds.items()
    )  # fmt: skip


def _not_returned(bench: Bench, latent: np.ndarray) -> float:
    """The share of a latent's variance that is wrong after its picture was encoded again."""
    picture = decode(bench.model, np.float32(latent))
    off = numbers(encode(bench.model, picture).values) - latent
    spread = latent - latent.mean(axis=(1, 2), keepdims=True)
    return float((off**2).sum() / (spread**2).sum())


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
    Claim("B26", "Every latent is the latent of some picture.", "essay", 3,
          every_latent_is_a_pictures, True),
)  # fmt: skip
