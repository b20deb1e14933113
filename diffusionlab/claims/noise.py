"""Claims about noise, seeds and the forward process (notebook 4)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from PIL import Image

from diffusionlab.analysis.latents import branch_eps, normality, numbers
from diffusionlab.claims.bench import FEWER_STEPS, SEED, Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.generate import generate
from diffusionlab.stages import add_noise, decode, draw_noise, encode
from diffusionlab.toyland import render

NEGLIGIBLE = 0.01  # of the variance
WHITE = 0.1  # correlation of neighbours: 1 % of the variance of one is known from the other


def neighbours(values: Any) -> float:
    """The correlation of neighbouring numbers (…, height, width), along both axes; white noise: 0.

    Each channel's own mean is taken off.
    """
    x = numbers(values)
    x = x - x.mean(axis=(-2, -1), keepdims=True)
    pairs = (x[..., 1:, :] * x[..., :-1, :]).mean() + (x[..., 1:] * x[..., :-1]).mean()
    return float(pairs / 2 / (x**2).mean())


def _pixels(image: Image.Image) -> np.ndarray:
    """(3, height, width) in 0 … 1."""
    return np.asarray(image, np.float64).transpose(2, 0, 1) / 255


# ---- the start ---------------------------------------------------------------------------------
def start_is_standard_normal(bench: Bench) -> tuple[Part, ...]:
    """Test start noises at the 5 % level, which pure noise passes 19 times in 20: usually they do.

    Each for its distribution (Kolmogorov–Smirnov) and for neighbours: in white noise their
    correlation stays within 1.96 / √pairs.
    """
    normal, white = [], []
    for i in range(bench.samples):
        values = draw_noise(bench.model, SEED + i).values
        channels, height, width = values.shape
        pairs = channels * (height * (width - 1) + width * (height - 1))
        normal.append(normality(values).gaussian)
        white.append(abs(neighbours(values)) < 1.96 / pairs**0.5)
    return (
        Part("share of start noises that pass for N(0, 1)", share(normal), "above", 0.5),
        Part("share of start noises that pass for white", share(white), "above", 0.5),
    )


def scaled_by_the_number_of_steps(bench: Bench) -> tuple[Part, ...]:
    """Compare the first noise level of 10 and 50 steps: a factor that depends on N changes."""
    schedule, parts = bench.model.schedule, []
    for spacing in ("leading", "trailing"):
        few, many = (schedule.levels(n, spacing)[0].karras_sigma for n in (10, 50))
        name = f"change of the first karras_sigma from 10 to 50 steps, {spacing}"
        parts.append(Part(name, exact(abs(many / few - 1)), "above", 0))
    return tuple(parts)


# ---- seeds -------------------------------------------------------------------------------------
def _furthest(bench: Bench, **changed: Any) -> float:
    """The largest difference of a pixel (0 … 255) from the run of the same seed, run once more."""
    settings = dict(seed=SEED, num_steps=FEWER_STEPS, record=(), progress=False)
    one = bench.run(num_steps=FEWER_STEPS, record=()).image
    other = generate(bench.model, bench.prompt, **settings | changed).image
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def same_seed_same_picture(bench: Bench) -> tuple[Part, ...]:
    """Run again, then change what the claim does not name: the same picture has no difference."""
    again = {
        "nothing": {},
        "the steps": {"num_steps": FEWER_STEPS + 1},
        "the guidance": {"guidance_scale": 3.0},
        "the sampler": {"sampler": "heun"},
    }
    return tuple(
        Part(
            f"largest difference of a pixel, {name} changed",
            exact(_furthest(bench, **changed)),
            "equals",
            0,
        )  # fmt: skip
        for name, changed in again.items()
    )


def unrepeatable(bench: Bench) -> tuple[Part, ...]:
    """Run again with the same settings: an unrepeatable picture would differ."""
    return (Part("largest difference of a pixel when repeated", exact(_furthest(bench)), "above",
                 0),)  # fmt: skip


def every_start_comes_back(bench: Bench) -> tuple[Part, ...]:
    """Draw a hundred starts, each seeded by the operating system's entropy, and each seed twice.

    This asks whether starts come back. How random the entropy is, no such count can tell.
    """
    seeds = [int.from_bytes(os.urandom(7), "big") for _ in range(100)]
    first, second = ([_told(bench, seed) for seed in seeds] for _ in range(2))
    same = sum(a == b for a, b in zip(first, second, strict=True))
    return (
        Part("of 100 starts, those that come back with their seed", exact(same), "equals", 100),
        Part("of 100 starts whose seeds the machine drew anew, those seen before",
             exact(100 - len(set(first))), "above", 0),
    )  # fmt: skip


def _told(bench: Bench, seed: int) -> bytes:
    """The numbers of a start noise, to tell one from another."""
    return np.float32(numbers(draw_noise(bench.model, seed).values)).tobytes()


# ---- the forward process -----------------------------------------------------------------------
def nothing_is_left(bench: Bench) -> tuple[Part, ...]:
    """Noise pictures to the last level. Completely: a signal rate of 0.

    To the eye: less than 1 % of the variance, a correlation below 0.1.
    """
    model = bench.model
    last = model.schedule.level_at(timestep=model.schedule.num_train_steps - 1)
    found = []
    for i, shown in enumerate(bench.scenes):
        size = min(model.size, 512)
        clean = encode(model, Image.fromarray(render(shown, size, masks=False).image))
        noisy = add_noise(clean, draw_noise(model, SEED + i, size, size), last)
        pair = [numbers(latent.values).ravel() for latent in (clean, noisy)]
        found.append(np.corrcoef(*pair)[0, 1])
    return (
        Part("signal rate alpha at the last timestep", exact(last.alpha), "equals", 0),
        Part("correlation of the noised latent with the clean one", mean(found), "below", WHITE),
    )


def pure_noise_at_the_end(bench: Bench) -> tuple[Part, ...]:
    """Read the schedule. Pure: a signal-to-noise ratio of 0; as good as pure: below 1 %."""
    schedule = bench.model.schedule
    snr = schedule.level_at(timestep=schedule.num_train_steps - 1).snr
    return (
        Part("signal-to-noise ratio at the last timestep", exact(snr), "equals", 0),
        Part("the same, negligible", exact(snr), "below", NEGLIGIBLE),
    )


def clean_at_the_beginning(bench: Bench) -> tuple[Part, ...]:
    """Read the schedule: at timestep 0 less than 1 % of the variance is noise."""
    level = bench.model.schedule.level_at(timestep=0)
    return (Part("share of noise in the variance at timestep 0", exact(level.sigma**2), "below",
                 NEGLIGIBLE),)  # fmt: skip


def noise_in_many_small_steps(bench: Bench) -> tuple[Part, ...]:
    """Add all increments one by one and compare with the one jump that training takes instead.

    If noise is added that way, signal and noise must end where the jump does (noise: to 5 %, a draw
    of 4096 numbers is off by 1 %).
    """
    schedule, rng = bench.model.schedule, bench.rng("increments")
    signal, noise = 1.0, np.zeros(4096)
    for beta in schedule.beta:
        signal, kept = signal * np.sqrt(1 - beta), np.sqrt(1 - beta) * noise
        noise = kept + np.sqrt(beta) * rng.standard_normal(noise.shape)
    jump = schedule.level_at(timestep=schedule.num_train_steps - 1)
    return (
        Part("signal after all increments", exact(signal), "near", jump.alpha, 1e-6),
        Part("spread of the noise after all increments", exact(noise.std()), "near", jump.sigma,
             0.05),
    )  # fmt: skip


def removed_noise_has_structure(bench: Bench) -> tuple[Part, ...]:
    """Look at what the network takes for noise in the middle of runs, beside the finished latent.

    Structure: neighbours more than half as alike as in the latent of the picture.
    """
    beyond = []
    for trace in bench.traces(bench.texts, num_steps=FEWER_STEPS):
        said = trace.steps[len(trace.steps) // 2].predictions[0]
        removed = neighbours(branch_eps(said, "cond"))
        beyond.append(removed - neighbours(trace.latents[-1]) / 2)
    return (Part("correlation of neighbours in what is removed, minus half of the picture's",
                 mean(beyond), "above", 0),)  # fmt: skip


def starts_as_static(bench: Bench) -> tuple[Part, ...]:
    """Look at start noises and at what they decode to: static has neighbours that are not alike."""
    noises = [draw_noise(bench.model, SEED + i) for i in range(bench.samples)]
    latent = [neighbours(noise.values) for noise in noises]
    decoded = [neighbours(_pixels(decode(bench.model, noise))) for noise in noises]
    return (
        Part("correlation of neighbours in the latent", mean(latent), "below", WHITE),
        Part("correlation of neighbours in the picture", mean(decoded), "below", WHITE),
    )


CLAIMS = (
    Claim("C1", "Generation begins with pure random noise.", "exhibit page", 4,
          start_is_standard_normal, True),
    Claim("C4", "The first noise is scaled by the number of steps.", "article", 4,
          scaled_by_the_number_of_steps),
    Claim("C6", "Same seed and prompt give the same picture.", "article", 4,
          same_seed_same_picture),
    Claim("C8", "What a computer draws at random always comes back.", "essay", 4,
          every_start_comes_back),
    Claim("C9", "Every picture is unrepeatable.", "essay", 4, unrepeatable),
    Claim("C10", "Noise is added until nothing of the picture is left.", "essay", 4,
          nothing_is_left, True),
    Claim("C11", "At the last timestep there is pure noise.", "article", 4, pure_noise_at_the_end),
    Claim("C12", "At timestep 0 the picture is nearly free of noise.", "article", 4,
          clean_at_the_beginning),
    Claim("C13", "Noise is added slowly, over many steps.", "tutorial", 4,
          noise_in_many_small_steps),
    Claim("C16", "The network removes structured noise.", "article", 4,
          removed_noise_has_structure, True),
    Claim("C17", "It starts from a picture of television static.", "article", 4, starts_as_static,
          True),
)  # fmt: skip
