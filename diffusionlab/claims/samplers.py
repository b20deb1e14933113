"""Claims about samplers: how many steps, which rule, what the dice do (notebook 7)."""

from __future__ import annotations

import math

import numpy as np

from diffusionlab.analysis.convergence import (
    Convergence,
    grid_levels,
    measured,
    weak_convergence,
)
from diffusionlab.analysis.latents import numbers
from diffusionlab.claims.bench import Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, gained, mean, share
from diffusionlab.claims.pictures import bands, psnr, right, rms, scores, values
from diffusionlab.claims.steps import few, long_runs
from diffusionlab.ideal import GaussianWorld, MixtureWorld
from diffusionlab.samplers import ddim, make_plan
from diffusionlab.trace import Trace

COUNTS = (8, 16, 32, 64)
VISIBLE = 30.0  # dB; below it, two pictures of 8 bits are seen to differ


# ---- on worlds whose answer is known -------------------------------------------------------------
def _errors(sampler: str) -> Convergence:
    """A sampler on a 1-D mixture, against its exact end."""
    world = MixtureWorld([1.0, -1.0, 0.2], [0.3, 0.5, 0.2], [0.5, 0.3, 0.2])
    return measured(sampler, world, np.linspace(-1.6, 1.6, 19), COUNTS)


def the_gain_is_in_longer_leaps(bench: Bench) -> tuple[Part, ...]:
    """Compare DPM-Solver++(2M) with DDIM on the same levels: its leaps, then its errors."""
    schedule = bench.model.schedule
    plans = [make_plan(name, schedule.levels(20), schedule) for name in ("dpmpp_2m", "ddim")]
    leaps = [plan[0].level.karras_sigma / plan[0].next_level.karras_sigma for plan in plans]
    if math.isinf(leaps[1]):  # zero terminal SNR
        leaps = [1.0, 1.0]
    error = _errors("ddim").errors[1] / _errors("dpmpp_2m").errors[1]
    return (
        Part("its first leap over DDIM's of twenty", exact(leaps[0] / leaps[1]), "above", 1),
        Part("DDIM's error over its error, exact world, 16 steps", exact(error), "above", 1),
    )


# ---- how many steps ------------------------------------------------------------------------------
def ddpm_needs_a_thousand(bench: Bench) -> tuple[Part, ...]:
    """Give DDPM 50 steps and let the judge look; needing 1000 would leave most pictures wrong.

    "Rigorous": on an exact world its error falls at least in proportion to the steps.
    """
    prompts = bench.one_object[: few(bench)]
    images = bench.pictures([p.text for p in prompts], num_steps=50, sampler="ddpm")
    found = right(bench, images, prompts)
    plans = [make_plan("ddpm", grid_levels("uniform", n), None) for n in (64, 128, 256)]
    order = weak_convergence(plans, GaussianWorld(0.5, 0.3), label="ddpm").order
    return (
        Part("share of 50-step pictures with all that was asked", share(found), "below", 0.5),
        Part("order of DDPM's error, exact world", exact(order), "near", 1, 0.1),
    )


def ddim_is_deterministic(bench: Bench) -> tuple[Part, ...]:
    """Run DDIM twice with other dice after the start, then judge its pictures of 50 steps."""
    prompts = bench.one_object[: few(bench)]
    again = [bench.run(num_steps=10, noise=noise) for noise in ("sequential", "brownian")]
    off = rms(*(numbers(run.latents[-1]) for run in again))
    found = right(bench, [run.image for run in long_runs(bench)], prompts)
    return (
        Part("difference that the dice make after the start", exact(off), "equals", 0),
        Part("share of 50-step pictures with all that was asked", share(found), "above", 0.5),
    )


def ten_to_twenty_suffice(bench: Bench) -> tuple[Part, ...]:
    """Judge ten steps of DPM-Solver++(2M), and compare its errors with DDIM's on an exact world."""
    prompts = bench.one_object
    images = bench.pictures(bench.texts, num_steps=10, sampler="dpmpp_2m")
    found = right(bench, images, prompts)
    error = _errors("ddim").errors[1] / _errors("dpmpp_2m").errors[1]
    return (
        Part("share of ten-step pictures with all that was asked", share(found), "above", 0.5),
        Part("DDIM's error over its error, exact world, 16 steps", exact(error), "above", 1),
    )


def twenty_to_fifty_are_needed(bench: Bench) -> tuple[Part, ...]:
    """Judge ten and twenty steps of DDIM: twenty should be good, and ten not good enough.

    Bars: half of the pictures, a twentieth of what was asked for, and 30 dB, where it is seen.
    """
    prompts = bench.one_object
    made = [bench.pictures(bench.texts, num_steps=n) for n in (10, 20)]
    good = right(bench, made[1], prompts)
    ten, twenty = (scores(bench, images, prompts) for images in made)
    off = mean(psnr(*pair) for pair in zip(*made, strict=True))
    return (
        Part("share of twenty-step pictures with all that was asked", share(good), "above", 0.5),
        Part("what twenty steps get right more than ten", gained(twenty - ten), "above", 0.05),
        Part("PSNR in dB of ten steps against twenty", off, "below", VISIBLE),
    )


def _twenty_and_fifty(bench: Bench) -> list[tuple[Trace, Trace]]:
    """DDIM's runs of both lengths, a few seeds each."""
    return list(zip(bench.traces(bench.texts[: few(bench)]), long_runs(bench), strict=True))


def more_steps_add_detail(bench: Bench) -> tuple[Part, ...]:
    """Take the spectra of 20-step and 50-step pictures: fine detail must grow by a tenth.

    The broad structure counts as captured where at most a tenth of its power is off.
    """
    pairs = [(values(a.image), values(b.image)) for a, b in _twenty_and_fifty(bench)]
    coarse = [bands(a - b)[0] / bands(b)[0] for a, b in pairs]
    fine = [bands(b)[1] / bands(a)[1] - 1 for a, b in pairs]
    return (
        Part("share of coarse power that is off after 20 steps", mean(coarse), "below", 0.1),
        Part("growth of fine detail from 20 steps to 50", mean(fine), "above", 0.1),
    )


def fewer_steps_look_alike(bench: Bench) -> tuple[Part, ...]:
    """Compare 20 steps with 50 of one seed, for DDIM and for a sampler with dice of its own.

    Bar: 30 dB, where a difference begins to be seen.
    """
    texts, noisy = bench.texts[: few(bench)], dict(sampler="euler_ancestral", noise="sequential")
    other = [[t.image for t in bench.traces(texts, num_steps=n, **noisy)] for n in (20, 50)]
    own = [psnr(a.image, b.image) for a, b in _twenty_and_fifty(bench)]
    dice = [psnr(*pair) for pair in zip(*other, strict=True)]
    return (
        Part("PSNR in dB of 20 steps against 50, DDIM", mean(own), "above", VISIBLE),
        Part("the same, Euler ancestral", mean(dice), "above", VISIBLE),
    )


# ---- which rule ----------------------------------------------------------------------------------
def samplers_change_the_picture(bench: Bench) -> tuple[Part, ...]:
    """Set two samplers beside DDIM on the same starts; 1 is how far apart two seeds' ends are.

    Bar: a tenth of that. Euler ancestral draws noise of its own, DPM-Solver++(2M) does not.
    """
    texts = bench.texts[: few(bench)]
    ends = {name: _ends(bench.traces(texts, sampler=name)) for name in RULES}
    own = ends["ddim"]
    unit = np.mean([rms(a, b) for a, b in zip(own, np.roll(own, 1, axis=0), strict=True)])
    return tuple(
        Part(
            f"distance of {told} from DDIM, 20 steps",
            mean(rms(a, b) / unit for a, b in zip(own, ends[name], strict=True)), "above", 0.1,
        )
        for name, told in RULES.items() if name != "ddim"
    )  # fmt: skip


RULES = {"ddim": "DDIM", "dpmpp_2m": "DPM-Solver++(2M)", "euler_ancestral": "Euler ancestral"}


def _ends(runs: tuple[Trace, ...]) -> np.ndarray:
    return np.stack([numbers(run.latents[-1]) for run in runs])


def some_explore(bench: Bench) -> tuple[Part, ...]:
    """Keep the start and change the later dice: how far apart the ends are, by DDIM's eta."""
    texts, spread = bench.texts[: few(bench)], []
    for eta in (0.0, 0.5, 1.0):
        ends = [
            _ends(bench.traces(texts, num_steps=10, sampler=ddim(eta=eta), noise=noise))
            for noise in ("sequential", "brownian")
        ]
        spread.append(np.array([rms(a, b) for a, b in zip(*ends, strict=True)]))
    return (
        Part("spread at eta 0, the largest", exact(spread[0].max()), "equals", 0),
        Part("spread at eta 0.5", mean(spread[1]), "above", 0),
        Part("growth of the spread from eta 0.5 to 1", mean(spread[2] - spread[1]), "above", 0),
    )


CLAIMS = (
    Claim("F4", "DDPM is rigorous but needs about a thousand steps.", "article", 7,
          ddpm_needs_a_thousand, True),
    Claim("F5", "DDIM is deterministic and good in about fifty steps.", "article", 7,
          ddim_is_deterministic, True),
    Claim("F7", "DPM-Solver gives good pictures in ten to twenty steps.", "article", 7,
          ten_to_twenty_suffice, True),
    Claim("F8", "DPM-Solver's gain is longer leaps through the noisy phase.", "article", 7,
          the_gain_is_in_longer_leaps),
    Claim("F11", "Twenty to fifty steps are needed.", "tutorial", 7, twenty_to_fifty_are_needed,
          True),
    Claim("F13", "Twenty steps capture the broad structure, more add detail.", "guide", 7,
          more_steps_add_detail, True),
    Claim("F15", "Twenty steps look almost identical to fifty.", "article", 7,
          fewer_steps_look_alike, True),
    Claim("F21", "Switching samplers changes the picture.", "guide", 7,
          samplers_change_the_picture, True),
    Claim("F22", "Some samplers are conservative, others exploratory.", "guide", 7, some_explore,
          True),
)  # fmt: skip
