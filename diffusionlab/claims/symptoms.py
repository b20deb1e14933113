"""Claims of the kind "when a picture looks like this, the cause is that" (notebook 10)."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from diffusionlab.analysis.latents import numbers
from diffusionlab.claims.bench import Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.claims.pictures import bands, rms, values
from diffusionlab.stages import decode, encode, tokenize
from diffusionlab.toyland import render
from diffusionlab.trace import Trace

HALF, SEEN = 0.5, 0.05  # of a latent's size; a share that is seen when it is gone
LARGEST = 512  # pixels of a drawn picture's side


def ignored_means_cut_off(bench: Bench) -> tuple[Part, ...]:
    """Change a word past the limit, then look at prompts of two things that are read whole.

    If cutting were the cause of ignored words, at most a twentieth of these would lose a colour.
    """
    whole = [p for p in bench.two_objects if not tokenize(bench.model, p.text).dropped]
    filler = "in the city at night and " * bench.model.context_length
    ends = [bench.run(f"{filler}{word}", num_steps=5).latents[-1] for word in ("red", "blue")]
    seen = bench.judged(bench.pictures([prompt.text for prompt in whole]))
    missed = [
        any(verdict.colours.get(kind) != colour for kind, colour in prompt.colours.items())
        for verdict, prompt in zip(seen, whole, strict=True)
    ]
    return (
        Part("change of the latent by a word past the limit", exact(rms(*ends)), "equals", 0),
        Part("prompts read whole whose picture misses a thing in its colour", share(missed),
             "below", SEEN),
    )  # fmt: skip


def washed_out_is_the_decoder(bench: Bench) -> tuple[Part, ...]:
    """Take the contrast that the VAE takes from drawn pictures; then halve the latent's scale.

    If the decoder were the cause, it would take some, and with one decoder the scale could not.
    """
    model, side = bench.model, min(bench.model.size, LARGEST)
    drawn = [Image.fromarray(render(s, side, masks=False).image) for s in bench.scenes]
    own = [_lost(image, decode(model, encode(model, image))) for image in drawn]
    scaled = [_lost(run.image, _read(bench, run, HALF)) for run in bench.traces(bench.texts)]
    return (
        Part("share of the contrast that encoding and decoding take", mean(own), "above", SEEN),
        Part("share that half the latent's scale takes, the decoder being the same", mean(scaled),
             "below", SEEN),
    )  # fmt: skip


def _read(bench: Bench, run: Trace, scale: float) -> Any:
    """The picture of a run's last latent, read at a multiple of its size."""
    return decode(bench.model, np.float32(scale * numbers(run.latents[-1])))


def _lost(before: Any, after: Any) -> float:
    """The share of a picture's contrast, the spread of its values, that another one lacks."""
    return float(1 - values(after).std() / max(values(before).std(), 1e-6))


def mushy_wants_more_steps(bench: Bench) -> tuple[Part, ...]:
    """Measure the power of fine detail after 1, 5, 20 and 50 steps: each must add a tenth."""
    counts = (1, 5, 20, 50)
    made = [[bands(values(image))[1] for image in bench.pictures(bench.texts, num_steps=n)]
            for n in counts]  # fmt: skip
    pairs = zip(counts, made, counts[1:], made[1:], strict=False)
    return tuple(
        Part(f"growth of fine detail from {few} steps to {many}".replace("1 steps", "1 step"),
             mean(np.array(fine) / np.array(before) - 1), "above", 0.1)
        for few, before, many, fine in pairs
    )  # fmt: skip


CLAIMS = (
    Claim("A10", "A word that is ignored was cut off at the limit.", "guide", 10,
          ignored_means_cut_off, True),
    Claim("B24", "A washed-out picture comes from the VAE's decoder.", "guide", 10,
          washed_out_is_the_decoder, True),
    Claim("F23", "Mushy details want more steps.", "guide", 10, mushy_wants_more_steps, True),
)  # fmt: skip
