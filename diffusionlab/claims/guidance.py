"""Claims about guidance: the formula, its price, what a scale does to a picture (notebook 8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from diffusionlab.analysis.guidance import needs_two_passes, recombined
from diffusionlab.analysis.guidance_sweep import clipped, saturation
from diffusionlab.analysis.latents import branch_eps, branch_x0, numbers
from diffusionlab.analysis.same_runs import distance
from diffusionlab.analysis.similarity import angle, correlation
from diffusionlab.claims.bench import SEED, Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, gained, mean, share
from diffusionlab.claims.pictures import rms, scores, values
from diffusionlab.claims.steps import few, runs_of
from diffusionlab.generate import generate
from diffusionlab.inside.estimate import estimate
from diffusionlab.stages import decode, draw_noise, embed, predict, tokenize
from diffusionlab.trace import Prediction, Trace, to_numpy
from diffusionlab.training.quality import rendered, shuffled

STEPS = 12
NOTHING = 0.05  # of what was asked for; a smaller gain is no gain


def runs_at(bench: Bench, scale: float) -> tuple[Trace, ...]:
    """One run for each prompt; the seeds are the same at every scale."""
    return runs_of(bench, bench.texts, num_steps=STEPS, guidance_scale=scale)


def images_at(bench: Bench, scale: float) -> list:
    """The picture of each prompt at a guidance scale."""
    return [run.image for run in runs_at(bench, scale)]


def kept_to(bench: Bench, scale: float) -> np.ndarray:
    """(n,): how much of its prompt each picture shows at a scale."""
    prompts = bench.one_object
    return scores(bench, images_at(bench, scale), prompts)


# ---- a scale of one ------------------------------------------------------------------------------
def ignored_at_one(bench: Bench) -> tuple[Part, ...]:
    """Judge pictures at scale 1 against their own prompt, against another, and beside scale 0.

    An ignored prompt gains nothing over either; the bar is a twentieth of what was asked for.
    """
    own, off = kept_to(bench, 1), kept_to(bench, 0)
    other = scores(bench, images_at(bench, 1), shuffled(bench.one_object))
    return (
        Part("share kept to at 1, above another prompt's", gained(own - other), "below", NOTHING),
        Part("share kept to at 1, above scale 0", gained(own - off), "below", NOTHING),
    )


def little_effect_at_one(bench: Bench) -> tuple[Part, ...]:
    """Measure how far scale 1 moves a latent away from scale 0, of how far scale 4 does.

    A minimal effect is put at a tenth of it.
    """
    ends = [[numbers(run.latents[-1]) for run in runs_at(bench, g)] for g in (0, 1, 4)]
    moved = [rms(one, zero) / rms(four, zero) for zero, one, four in zip(*ends, strict=True)]
    return (Part("distance of scale 1 from 0, of that of 4 from 0", mean(moved), "below", 0.1),)


# ---- the formula and its price -------------------------------------------------------------------
def the_formula(bench: Bench) -> tuple[Part, ...]:
    """Replay a run from its stored branches, and combine their eps and x0 in the same way."""
    run = bench.run(num_steps=STEPS)
    eps = max(distance(_mixed(call, branch_eps), numbers(call.eps)) for call in run.predictions)
    x0 = max(distance(_mixed(call, branch_x0), numbers(call.x0)) for call in run.predictions)
    return (
        Part("error of the steps replayed", exact(recombined(run).relative), "below", 1e-4),
        Part("error of the same formula on eps", exact(eps), "below", 1e-4),
        Part("error of the same formula on x0", exact(x0), "below", 1e-4),
    )


def _mixed(call: Prediction, reading) -> np.ndarray:
    cond, uncond = reading(call, "cond"), reading(call, "uncond")
    return cond if uncond is None else uncond + call.guidance_scale * (cond - uncond)


def two_passes_per_step(bench: Bench) -> tuple[Part, ...]:
    """Count the U-Net's calls and rows while one step is run at scale 4, and at scale 1."""
    rows = []
    for scale in (4, 1):
        with _counted(bench) as sizes:
            generate(bench.model, bench.prompt, num_steps=1, guidance_scale=scale, progress=False)
        rows.append(sizes)
    return (
        Part("predictions per step at scale 4", exact(sum(rows[0])), "equals", 2),
        Part("predictions per step at scale 1", exact(sum(rows[1])), "equals", 2),
        Part("calls of the network per step at scale 4", exact(len(rows[0])), "equals", 2),
    )


@contextmanager
def _counted(bench: Bench) -> Iterator[list[int]]:
    """A `with` block that notes the rows of every call of the U-Net."""
    sizes: list[int] = []
    unet = bench.model.unet
    hook = unet.register_forward_pre_hook(lambda net, given: sizes.append(len(given[0])))
    try:
        yield sizes
    finally:
        hook.remove()


def twice_the_computation(bench: Bench) -> tuple[Part, ...]:
    """Count the arithmetic of 20 steps with guidance and without: of the U-Net, and of all."""
    runs = [estimate(bench.model, guidance_scale=g, rate=1.0) for g in (4, 1)]
    unet = runs[0].stages[1].flops / runs[1].stages[1].flops
    whole = runs[0].flops / runs[1].flops
    return (
        Part("the U-Net's arithmetic, with over without", exact(unet), "near", 2, 0.01),
        Part("the whole run's arithmetic, with over without", exact(whole), "near", 2, 0.1),
    )


def without_any_text(bench: Bench) -> tuple[Part, ...]:
    """Look at what the pass without a prompt reads, and put zeros in its place."""
    needs_two_passes(bench.model)
    model, level = bench.model, bench.model.schedule.levels(20)[0]
    empty = embed(model, tokenize(model, ""), negative=True)
    zeros = replace(empty, hidden=tuple(np.zeros_like(to_numpy(h)) for h in empty.hidden))
    rows = np.concatenate([to_numpy(h) for h in empty.hidden], axis=-1).any(axis=-1)
    off = []
    for seed in range(SEED, SEED + bench.samples):
        latent = level.sigma * draw_noise(model, seed).values
        said = [predict(model, latent, level, empty, text, 0).uncond for text in (zeros, empty)]
        off.append(distance(*map(numbers, said)))
    return (
        Part("rows of text that it reads", exact(rows.sum()), "equals", 0),
        Part("relative change of its answer without them", mean(off), "below", 0.01),
    )


# ---- the direction -------------------------------------------------------------------------------
def the_scale_sets_the_difference(bench: Bench) -> tuple[Part, ...]:
    """Compare runs at scales 2 and 8: how far the branches are apart, first at one same x_t."""
    needs_two_passes(bench.model)
    ends = {g: runs_at(bench, g) for g in (2, 8)}
    first = {g: [run.predictions[0] for run in runs] for g, runs in ends.items()}
    apart = max(_apart(b) / _apart(a) for a, b in zip(first[2], first[8], strict=True))
    pushed = min(_pushed(b) / _pushed(a) for a, b in zip(first[2], first[8], strict=True))
    later = [
        np.mean([_apart(q) / _apart(p) for p, q in zip(a.predictions, b.predictions, strict=True)])
        for a, b in zip(ends[2], ends[8], strict=True)
    ]
    return (
        Part("|cond − uncond| at scale 8 over 2, same x_t", exact(apart), "above", 1.01),
        Part("|guided − uncond| at scale 8 over 2, same x_t", exact(pushed), "above", 1.01),
        Part("|cond − uncond| at scale 8 over 2, along the runs", mean(later), "above", 1.01),
    )


def _apart(call: Prediction) -> float:
    return float(np.linalg.norm(numbers(call.cond) - numbers(call.uncond)))


def _pushed(call: Prediction) -> float:
    return float(np.linalg.norm(numbers(call.guided) - numbers(call.uncond)))


def the_text_direction_is_amplified(bench: Bench) -> tuple[Part, ...]:
    """Take angle and length of what guidance adds, beside the difference of the branches."""
    needs_two_passes(bench.model)
    calls = bench.run(num_steps=STEPS, guidance_scale=8.0).predictions
    turned = max(
        angle(numbers(c.guided) - numbers(c.uncond), numbers(c.cond) - numbers(c.uncond))
        for c in calls
    )
    longer = [_pushed(call) / _apart(call) for call in calls]
    worst = max(longer, key=lambda length: abs(length - 8))
    return (
        Part("largest angle between them in radians", exact(turned), "below", 1e-3),
        Part("length over length at scale 8, the worst step", exact(worst), "near", 8, 0.01),
    )


# ---- how much of it ------------------------------------------------------------------------------
def _colours(images: list, measure) -> np.ndarray:
    return np.array([measure(np.asarray(image.convert("RGB"))) for image in images])


def best_between_seven_and_twelve(bench: Bench) -> tuple[Part, ...]:
    """Set scale 8 beside 3: the share kept to, and how far off the true scene's saturation is."""
    gain = kept_to(bench, 8) - kept_to(bench, 3)
    true = rendered([prompt.scene for prompt in bench.one_object], bench.model.size)
    wanted = np.array([saturation(picture) for picture in true])
    off = [abs(_colours(images_at(bench, g), saturation) - wanted) for g in (3, 8)]
    return (
        Part("what scale 8 keeps to more than 3", gained(gain), "above", NOTHING),
        Part("error of its saturation, less that of 3", mean(off[1] - off[0]), "below", 0),
    )


def oversaturated_above_fifteen(bench: Bench) -> tuple[Part, ...]:
    """Take colours and cut-off values of pictures at scale 16 less those at 4, same seeds."""
    four, sixteen = images_at(bench, 4), images_at(bench, 16)
    richer = _colours(sixteen, saturation) - _colours(four, saturation)
    cut = _colours(sixteen, clipped) - _colours(four, clipped)
    spread = [np.array([run.latents[-1].std() for run in runs_at(bench, g)]) for g in (4, 16)]
    return (
        Part("growth of saturation from 4 to 16", mean(richer), "above", 0),
        Part("growth of the latent's spread", mean(spread[1] - spread[0]), "above", 0),
        Part("growth of the share of values at 0 or 255", mean(cut), "above", 0),
    )


def oversaturation_means_too_much(bench: Bench) -> tuple[Part, ...]:
    """Look for another cause: the same latents, at scale 4, read at 1.5 times their size."""
    runs = runs_at(bench, 4)
    own = _colours([run.image for run in runs], saturation)
    scaled = [decode(bench.model, 1.5 * np.array(run.latents[-1])) for run in runs]
    higher = _colours(images_at(bench, 16), saturation) - own
    other = _colours(scaled, saturation) - own
    return (
        Part("growth of saturation from scale 4 to 16", mean(higher), "above", 0),
        Part("growth of saturation by a wrong latent scale", mean(other), "below", 0),
    )


def higher_is_more_literal(bench: Bench) -> tuple[Part, ...]:
    """Judge scales 1, 4 and 16 on the same seeds: each should keep to the prompt more."""
    one, four, sixteen = (kept_to(bench, g) for g in (1, 4, 16))
    cut = _colours(images_at(bench, 16), clipped) - _colours(images_at(bench, 4), clipped)
    return (
        Part("what scale 4 keeps to more than 1", gained(four - one), "above", NOTHING),
        Part("what scale 16 keeps to more than 4", gained(sixteen - four), "above", NOTHING),
        Part("growth of the share of values at 0 or 255", mean(cut), "above", 0),
    )


def variety_against_adherence(bench: Bench) -> tuple[Part, ...]:
    """Draw "a car", say, from many seeds at scales 1 and 8: adherence should rise, variety fall.

    The prompt names its object alone, so that there is something left to vary. Variety is 1 less
    the correlation of a picture with the mean of all: contrast, which guidance changes, is out.
    """
    kind, kept, spread = bench.one_object[0].kinds[0], [], []
    for scale in (1, 8):
        texts = [f"a {kind}"] * bench.samples
        images = bench.pictures(texts, num_steps=STEPS, guidance_scale=scale)
        kept.append(np.array([float(kind in seen.kinds) for seen in bench.judged(images)]))
        arrays = np.stack([values(image) for image in images])
        arrays -= arrays.mean(axis=(1, 2, 3), keepdims=True)
        spread.append(np.array([1 - correlation(each, arrays.mean(axis=0)) for each in arrays]))
    away = mean(spread[1] - spread[0])
    return (
        Part(
            "growth of the share kept to from 1 to 8", gained(kept[1] - kept[0]), "above", NOTHING
        ),
        Part("growth of the variety from 1 to 8", away, "below", 0),
    )  # fmt: skip


def negative_prompts_act(bench: Bench) -> tuple[Part, ...]:
    """Name each prompt's colour as its negative prompt too: the picture changes, the colour goes.

    Bars: more than half of the pictures.
    """
    needs_two_passes(bench.model)
    prompts, changed = bench.one_object[: few(bench)], []
    texts = [prompt.text for prompt in prompts]
    colours = [next(iter(prompt.colours.values())) for prompt in prompts]
    for scale in (4, 1):
        settings = dict(num_steps=STEPS, guidance_scale=scale, negative_prompts=colours)
        made = bench.pictures(texts, **settings)
        pairs = zip(made, bench.pictures(texts, num_steps=STEPS, guidance_scale=scale), strict=True)
        changed.append(share(not np.array_equal(values(a), values(b)) for a, b in pairs))
        if scale == 4:
            seen = zip(colours, bench.judged(made), strict=True)
            gone = share(colour not in found.colours.values() for colour, found in seen)
    return (
        Part("share of pictures that change at scale 4", changed[0], "above", 0.5),
        Part("share of pictures that lose the colour at scale 4", gone, "above", 0.5),
        Part("share of pictures that change at scale 1", changed[1], "above", 0.5),
    )


CLAIMS = (
    Claim("G1", "At guidance 1 the prompt is essentially ignored.", "article", 8,
          ignored_at_one, True),
    Claim("G2", "At guidance 1 the prompt has minimal effect.", "guide", 8,
          little_effect_at_one, True),
    Claim("G3", "Guided is unconditional plus scale times the difference.", "article", 8,
          the_formula),
    Claim("G4", "The network runs twice per step.", "article", 8, two_passes_per_step),
    Claim("G5", "Guidance doubles the computation.", "guide", 8, twice_the_computation),
    Claim("G7", "The unconditional pass has no text at all.", "guide", 8, without_any_text, True),
    Claim("G8", "The scale sets how far the two predictions diverge.", "article", 8,
          the_scale_sets_the_difference, True),
    Claim("G9", "Guidance of 7 to 12 is best.", "article", 8, best_between_seven_and_twelve, True),
    Claim("G10", "Scales above 15 oversaturate pictures.", "article", 8,
          oversaturated_above_fifteen, True),
    Claim("G11", "Oversaturated colours mean that the scale is too high.", "guide", 8,
          oversaturation_means_too_much, True),
    Claim("G12", "A higher scale is more literal but can distort.", "tutorial", 8,
          higher_is_more_literal, True),
    Claim("G13", "Guidance trades variety for adherence.", "guide", 8,
          variety_against_adherence, True),
    Claim("G14", "Guidance amplifies the direction that the text gives.", "guide", 8,
          the_text_direction_is_amplified),
    Claim("G15", "A negative prompt acts at any scale.", "guide", 8, negative_prompts_act, True),
)  # fmt: skip
