"""Claims about one run: what a step does, and when what is decided (notebook 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.commitment import MEASURES, similarity_to_final
from diffusionlab.analysis.ladder import step_ladder
from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.spectrum import radial_spectrum
from diffusionlab.analysis.updates import coefficients
from diffusionlab.claims.bench import SEED, Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.claims.pictures import bands, right, rms, scores, values
from diffusionlab.plan import PlannedStep
from diffusionlab.samplers import make_plan
from diffusionlab.stages import decode
from diffusionlab.trace import Trace

ALIKE = 0.8  # the claims' own "80 %"


def few(bench: Bench) -> int:
    """A third of the samples, for runs of many steps."""
    return min(max(4, bench.samples // 3), bench.samples)


def runs_of(bench: Bench, texts: Sequence[str], **settings: Any) -> tuple[Trace, ...]:
    """A run of each text with what the network said."""
    return bench.traces(texts, record=("predictions",), **settings)


def long_runs(bench: Bench) -> tuple[Trace, ...]:
    """A few runs of fifty steps."""
    return runs_of(bench, bench.texts[: few(bench)], num_steps=50)


# ---- the rule of a step -------------------------------------------------------------------------
def the_noise_is_subtracted(bench: Bench) -> tuple[Part, ...]:
    """Write DDIM's steps in x_t and the predicted noise; a plain subtraction weighs x_t by 1."""
    schedule = bench.model.schedule
    levels = tuple(level for level in schedule.levels(20) if level.alpha)
    steps = make_plan("ddim", levels, schedule)
    weights = np.array([_in_noise(step) for step in steps])  # (steps, x_t and noise)
    scale = np.array([step.level.alpha / step.next_level.alpha for step in steps])
    noisy = make_plan("ddpm", levels, schedule)[0]
    fresh = [c.weight for c in coefficients(noisy) if c.kind == "noise"]
    return (
        Part("largest weight of the predicted noise", exact(weights[:, 1].max()), "below", 0),
        Part("largest weight of x_t", exact(weights[:, 0].max()), "near", 1, 0.01),
        Part(
            "largest weight of x_t / alpha, the latent as Euler's rule has it",
            exact((weights[:, 0] * scale).max()), "near", 1, 0.01,
        ),
        Part("fresh noise in DDPM's first step", exact(sum(fresh)), "equals", 0),
    )  # fmt: skip


def _in_noise(step: PlannedStep) -> tuple[float, float]:
    """The weights of x_t and of the predicted noise of a step that is written in x_t and x0."""
    x0 = sum(term.weight for term in step.update.terms) / step.level.alpha
    return step.update.a + x0, -x0 * step.level.sigma


def a_little_noise_each_step(bench: Bench) -> tuple[Part, ...]:
    """Watch the level of the noise within each step of two samplers: it should only fall."""
    schedule = bench.model.schedule
    plan = make_plan("ddim", schedule.levels(20), schedule)
    rises = sum(not step.next_level.karras_sigma < step.level.karras_sigma for step in plan)
    added = [sum(w**2 for _, w in step.update.noise) ** 0.5 for step in _ancestral(bench)]
    return (
        Part("steps of DDIM after which there is not less noise", exact(rises), "equals", 0),
        Part(
            "steps of Euler ancestral that put noise back", exact(np.count_nonzero(added)),
            "equals", 0,
        ),
    )  # fmt: skip


def _ancestral(bench: Bench) -> tuple[PlannedStep, ...]:
    schedule = bench.model.schedule
    return tuple(make_plan("euler_ancestral", schedule.levels(20), schedule))


def amounts_are_known_before(bench: Bench) -> tuple[Part, ...]:
    """Run two prompts from two seeds and compare the numbers of their steps."""
    runs = bench.run(num_steps=4), bench.run("", num_steps=4, seed=SEED + 1)
    pairs = list(zip(*(run.steps for run in runs), strict=True))
    differ = sum(ours.update != theirs.update for ours, theirs in pairs)
    return (Part("steps whose numbers depend on prompt or seed", exact(differ), "equals", 0),)


def the_end_is_noise_free(bench: Bench) -> tuple[Part, ...]:
    """Look at the level at which a run ends, and at its last latent beside its last x0-hat."""
    run = bench.run()
    end, guess = numbers(run.steps[-1].next_latent), numbers(run.x0s[-1])
    off = rms(end, guess) / float(end.std())
    return (
        Part("karras_sigma at the end", exact(run.karras_sigmas[-1]), "equals", 0),
        Part("relative distance of the end from the last x0-hat", exact(off), "below", 1e-4),
    )


# ---- when what is decided -----------------------------------------------------------------------
def coarse_before_fine(bench: Bench) -> tuple[Part, ...]:
    """Ask at which step each spatial frequency of x0-hat comes right; no order would give 0."""
    runs = runs_of(bench, bench.texts)
    order = [np.nan_to_num(radial_spectrum(run).order) for run in runs]
    reached = [similarity_to_final(run).reached for run in runs]
    later = [steps["edges"] - steps["coarse"] for steps in reached]
    return (
        Part("rank correlation of the step with the frequency", mean(order), "above", 0),
        Part("steps by which edges come after the coarse layout", mean(later), "above", 0),
    )


def most_structure_in_ten_of_fifty(bench: Bench) -> tuple[Part, ...]:
    """Measure how like the end a run of 50 steps is after 10; "80 %" is the bar for each measure.

    No measure is named by the claim, so each is a part; the last one looks at x_t itself.
    """
    found = [similarity_to_final(run) for run in long_runs(bench)]
    parts = [
        Part(
            f"likeness of x0-hat to the end, {name}",
            mean(s.measures[name][9] for s in found),
            "above",
            ALIKE,
        )
        for name in MEASURES
    ]
    noisy = mean(s.noisy[10] for s in found)
    return (*parts, Part("likeness of x_t to the end, values", noisy, "above", ALIKE))


def recognisable_after_ten_of_fifty(bench: Bench) -> tuple[Part, ...]:
    """Let the judge look at x_t and at x0-hat, decoded, after 10 of 50 steps; 80 % is claimed."""
    prompts = bench.one_object[: few(bench)]
    runs = long_runs(bench)
    latents = {"x_t": [run.latents[10] for run in runs], "x0-hat": [run.x0s[9] for run in runs]}
    parts = []
    for name, found in latents.items():
        images = [decode(bench.model, latent) for latent in found]
        seen = mean(scores(bench, images, prompts), span=(0, 1))
        parts.append(Part(f"share of the prompt that {name} shows", seen, "above", ALIKE))
    return tuple(parts)


def a_short_run_is_a_long_one_stopped(bench: Bench) -> tuple[Part, ...]:
    """Set step 10 of 20 beside a run of 10 steps; 1 is how far apart two seeds' pictures are."""
    long, short = runs_of(bench, bench.texts), bench.traces(bench.texts, num_steps=10)
    rungs = [step_ladder(*pair) for pair in zip(long, [[run] for run in short], strict=True)]
    rungs = [ladder.rungs[0] for ladder in rungs]
    others = [
        rms(a.finished, b.finished) for a, b in zip(rungs, rungs[1:] + rungs[:1], strict=True)
    ]
    unit = float(np.mean(others))
    left = rungs[0].karras_sigma
    stopped = [rms(r.stopped, r.finished) / unit for r in rungs]
    guess = [rms(r.x0, r.finished) / unit for r in rungs]
    return (
        Part("karras_sigma left after 10 of 20 steps", exact(left), "equals", 0),
        Part("x_t of the long run from the short one's end", mean(stopped), "below", 0.5),
        Part("x0-hat of the long run from the short one's end", mean(guess), "below", 0.5),
    )


def not_in_one_shot(bench: Bench) -> tuple[Part, ...]:
    """Let one step go the whole way, and judge it beside twenty steps of the same seed."""
    prompts = bench.one_object
    once, whole = (bench.pictures(bench.texts, num_steps=n) for n in (1, 20))
    found = [right(bench, images, prompts) for images in (once, whole)]
    fine = [bands(values(a))[1] / bands(values(b))[1] for a, b in zip(once, whole, strict=True)]
    return (
        Part(
            "share of one-step pictures that show all that was asked", share(found[0]), "below", 0.5
        ),
        Part("share of twenty-step pictures that do", share(found[1]), "above", 0.5),
        Part("fine detail in one step, of that in twenty", mean(fine), "below", 1),
    )


CLAIMS = (
    Claim("F2", "A step subtracts the predicted noise from the latent.", "article", 6,
          the_noise_is_subtracted),
    Claim("F3", "Each step removes a little noise.", "guide", 6, a_little_noise_each_step),
    Claim("F16", "Most of the structure forms in the first ten of fifty steps.", "article", 6,
          most_structure_in_ten_of_fifty, True),
    Claim("F17", "Early steps set the composition, later ones add detail.", "guide", 6,
          coarse_before_fine, True),
    Claim("F18", "After ten of fifty steps the image is mostly recognisable.", "article", 6,
          recognisable_after_ten_of_fifty, True),
    Claim("F20", "A picture cannot be made in one shot.", "guide", 6, not_in_one_shot, True),
    Claim("F24", "A run of ten steps is a long one stopped early.", "article", 6,
          a_short_run_is_a_long_one_stopped, True),
    Claim("F27", "How much noise a step removes is determined by an algorithm.", "article", 6,
          amounts_are_known_before),
    Claim("F28", "The run ends in a latent without any noise.", "essay", 6, the_end_is_noise_free),
)  # fmt: skip
