"""The claim about what guided runs draw, asked of worlds whose answer is known (notebook 8)."""

from __future__ import annotations

import numpy as np

from diffusionlab.analysis.convergence import grid_levels
from diffusionlab.analysis.same_runs import distance
from diffusionlab.claims.bench import Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact
from diffusionlab.ideal import GaussianWorld, IdealPrediction
from diffusionlab.levels import NoiseLevel
from diffusionlab.plan import denoise
from diffusionlab.samplers import make_plan


def draws_from_the_sharpened_density(bench: Bench) -> tuple[Part, ...]:
    """Guide exact denoisers of two Gaussians, with and without a prompt, at scale 4.

    p(x|c)^g · p(x)^(1−g) of Gaussians is one too (arXiv 2408.09000 for why runs do not reach it).
    """
    g, told, untold = 4, GaussianWorld(1.0, 0.25), GaussianWorld(0.0, 1.0)
    variance = 1 / (g / told.variance + (1 - g) / untold.variance)
    sharp = GaussianWorld(g * variance * told.mean / told.variance, variance)
    points = np.linspace(-2, 3, 21)

    def mixed(latent: np.ndarray, level: NoiseLevel, reading: str) -> np.ndarray:
        one, other = (getattr(world, reading)(latent, level) for world in (told, untold))
        return other + g * (one - other)

    def ask(latent: np.ndarray, level: NoiseLevel) -> IdealPrediction:
        readings = (mixed(latent, level, reading) for reading in ("x0", "eps"))
        return IdealPrediction(level, latent, *readings)

    clean, noisy = NoiseLevel(-1, 1.0, 0.0), NoiseLevel(0, 0.5**0.5, 0.5**0.5)
    off = [distance(mixed(points, at, "score"), sharp.score(points, at)) for at in (clean, noisy)]
    plan = make_plan("ddim", grid_levels("uniform", 200), None)
    centre, total = told.marginal(plan[0].level)
    start = centre + total**0.5 * np.array([-1.0, 1.0])  # one standard deviation to each side
    *_, last = denoise(plan, start, ask, noise=None)
    ends = last.next_latent / last.next_level.alpha
    spread = (ends[1] - ends[0]) / 2 / sharp.variance**0.5
    return (
        Part("error of the guided score as that density's, no noise", exact(off[0]), "below", 1e-6),
        Part("the same at karras_sigma 1, density noised", exact(off[1]), "below", 0.01),
        Part("spread of guided runs, of that density's", exact(spread), "near", 1, 0.05),
        Part("centre of guided runs, of that density's", exact(ends.mean() / sharp.mean), "near", 1,
             0.05),
    )  # fmt: skip


CLAIMS = (
    Claim("G16", "Guidance draws from p(x|c)^g · p(x)^(1−g).", "article", 8,
          draws_from_the_sharpened_density),
)  # fmt: skip
