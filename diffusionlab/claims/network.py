"""Claims about training, about memory and about the U-Net (notebook 5).

Most experiments noise pictures of which all is known and ask the network about them, once
(`known_pictures`). The bar of a difference is 0: what a network would give that knows nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import numpy as np
import torch

from diffusionlab.analysis.anatomy import costs
from diffusionlab.analysis.spectrum import rings
from diffusionlab.claims.bench import Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.claims.known_pictures import (
    ask,
    asked,
    built,
    known,
    level,
    likeness,
    noise_found,
    noised,
    picture_found,
    wrongness,
)
from diffusionlab.claims.memory import nothing_is_memorised
from diffusionlab.claims.training_step import training_step
from diffusionlab.models.blocks import timestep_waves
from diffusionlab.samplers import make_plan
from diffusionlab.stages import update
from diffusionlab.trace import TextEmbedding

OTHERS = 4  # captions of other scenes beside the true one
HALF = 0.5  # a share above it: more often than not; which of two is larger is a coin's throw


# ---- training ----------------------------------------------------------------------------------
def only_the_unet_learns(bench: Bench) -> tuple[Part, ...]:
    """One real training step: "only" asks for gradients in all of the U-Net and nowhere else."""
    step = training_step(bench)
    autoencoder = step.calls["Encoder"] + step.calls["Decoder"]
    return (
        Part("share of the U-Net's weights that learn", exact(step.learning["unet"]), "equals", 1),
        Part("passes through the autoencoder, which could teach it", exact(autoencoder), "equals",
             0),
        Part("share of the text encoder's weights that learn", exact(step.learning["text"]),
             "equals", 0),
    )  # fmt: skip


def training_denoises_and_decodes(bench: Bench) -> tuple[Part, ...]:
    """One real training step: a loop needs more than one pass of the U-Net, a picture a decoder."""
    calls = training_step(bench).calls
    return (
        Part("passes of the U-Net in a training step", exact(calls["UNet"]), "above", 1),
        Part("passes of the decoder in a training step", exact(calls["Decoder"]), "above", 0),
    )


def predicts_the_clean_picture(bench: Bench) -> tuple[Part, ...]:
    """Which the raw output is like, in most pictures, and what an exact rewriting makes of it."""
    return (
        *(_raw_output_is_like("picture", bench, sigma) for sigma in (0.25, 4.0)),
        Part("rewritten as x0-hat at karras_sigma 2: its likeness to the picture, less that of its "
             "input",
             mean(picture_found(bench, 2.0)), "above", 0),
    )  # fmt: skip


def predicts_the_noise(bench: Bench) -> tuple[Part, ...]:
    """Which the raw output is like, in most pictures; then the same for its rewriting as eps."""
    return (
        *(_raw_output_is_like("noise", bench, sigma) for sigma in (0.25, 4.0)),
        Part("rewritten as eps-hat at karras_sigma 1: its likeness to the noise, less that of its "
             "input",
             mean(noise_found(bench, 1.0)), "above", 0),
    )  # fmt: skip


def _raw_output_is_like(which: str, bench: Bench, sigma: float) -> Part:
    """Whether the raw output has more of the picture or of the noise, whatever its sign."""
    scenes, (_, said) = known(bench), asked(bench, sigma)
    picture, noise = (abs(likeness(said.cond, x)) for x in (scenes.latents, scenes.noise))
    nearer = picture > noise if which == "picture" else noise > picture
    told = f"raw output at karras_sigma {sigma:g} is more like the {which}"
    return Part(told, share(nearer), "above", HALF)


def predicts_how_much_noise(bench: Bench) -> tuple[Part, ...]:
    """Tell it a wrong level: a network that measures the amount itself finds the same (to 10 %)."""
    noisy, _ = asked(bench, 1.0)
    low, high = (level(bench, sigma) for sigma in (0.5, 2.0))
    less, more = (at.sigma * _size(ask(bench, noisy, at).eps) for at in (low, high))
    return (
        Part("pattern at karras_sigma 1: eps-hat's likeness to the noise, less that of its input",
             mean(noise_found(bench, 1.0)), "above", 0),
        Part("noise found when told karras_sigma 2, over that when told 0.5 (believing all: 4, "
             "measuring: 1)", mean(more / less),
             "near", 1, 0.1),
    )  # fmt: skip


def _size(values: np.ndarray) -> np.ndarray:
    """The root mean square of each, (n,)."""
    return np.sqrt(wrongness(values, np.zeros_like(values)))


def predicts_the_last_increment(bench: Bench) -> tuple[Part, ...]:
    """Noise in two jumps, the last of one timestep: is that one found better than the rest?"""
    scenes, schedule = known(bench), bench.model.schedule
    t = max(1, round(level(bench, 1.0).timestep))
    before, at = (schedule.level_at(timestep=i) for i in (t - 1, t))
    last = bench.rng("last increment").standard_normal(scenes.noise.shape)
    kept = at.alpha / before.alpha  # the increment's own alpha
    earlier = noised(scenes.latents, scenes.noise, before)
    noisy = kept * earlier + np.sqrt(1 - kept**2) * last
    found = ask(bench, noisy, at).eps
    more = likeness(found, last) - likeness(found, scenes.noise)
    total = (noisy - at.alpha * scenes.latents) / at.sigma
    return (
        Part("likeness to the last timestep's noise, less that to all before", mean(more), "above",
             0),
        Part("eps-hat's likeness to all the noise, less that of its input",
             mean(likeness(found, total) - likeness(noisy, total)), "above", 0),
    )  # fmt: skip


def learned_noise_patterns(bench: Bench) -> tuple[Part, ...]:
    """Noise on shuffled cells is found as well as on pictures if noise is what was learned."""
    scenes, at = known(bench), level(bench, 1.0)
    cells = scenes.latents.reshape(*scenes.latents.shape[:2], -1)
    order = bench.rng("shuffled cells").permutation(cells.shape[-1])
    shuffled = cells[..., order].reshape(scenes.latents.shape)
    found = ask(bench, noised(shuffled, scenes.noise, at), at).eps
    usual = wrongness(asked(bench, 1.0)[1].eps, scenes.noise)
    every = np.all([noise_found(bench, sigma) > 0 for sigma in (0.25, 1.0, 4.0)], axis=0)
    return (
        Part("pictures whose noise is found at karras_sigma 0.25, 1 and 4", share(every), "above",
             HALF),
        Part("pictures on whose shuffled cells it is found no worse",
             share(wrongness(found, scenes.noise) <= usual), "above", HALF),
    )  # fmt: skip


def learned_to_repair(bench: Bench) -> tuple[Part, ...]:
    """The one-step estimate must be liker to the picture than the damaged one, at each damage."""
    return tuple(
        Part(f"x0-hat's likeness to the picture, less that of the damaged one, at karras_sigma "
             f"{sigma:g}",
             mean(picture_found(bench, sigma)), "above", 0)
        for sigma in (0.5, 2.0, 8.0)
    )  # fmt: skip


def learned_what_texts_mean(bench: Bench) -> tuple[Part, ...]:
    """The true caption must help: more than none, and more than four others more often than not.

    Chance finds it once in five; a bar at chance would pass a network that is lucky everywhere.
    """
    scenes, at = known(bench), level(bench, 4.0)
    noisy, said = asked(bench, 4.0)

    def error(texts: Sequence[TextEmbedding]) -> np.ndarray:
        return wrongness(ask(bench, noisy, at, texts).x0, scenes.latents)

    right = wrongness(said.x0, scenes.latents)
    count = len(noisy)
    moved = [[*scenes.texts[k:], *scenes.texts[:k]] for k in range(1, min(count, OTHERS + 1))]
    best = right < np.min([error(texts) for texts in moved], axis=0)
    return (
        Part("error at karras_sigma 4 with no caption, less that with the true one",
             mean(error([scenes.empty] * count) - right), "above", 0),
        Part(f"scenes whose own caption helps more than {len(moved)} others", share(best), "above",
             HALF),
    )  # fmt: skip


# ---- the U-Net ---------------------------------------------------------------------------------
def compresses_and_expands(bench: Bench) -> tuple[Part, ...]:
    """Count positions: fewer in the middle than at both ends, where they must be equal."""
    unet = built(bench)
    sizes = [block.shape[1] * block.shape[2] for block in unet.blocks if block.kind != "time"]
    there = unet.latent[1] * unet.latent[2]
    return (
        Part("positions at the narrowest place, over those that go in", exact(min(sizes) / there),
             "below", 1),
        Part("positions that come out, over those that go in", exact(sizes[-1] / there), "equals",
             1),
    )  # fmt: skip


def works_at_the_latents_size(bench: Bench) -> tuple[Part, ...]:
    """Where the arithmetic is done: in blocks of the latent's own size, or at others too."""
    unet = built(bench)
    own = [block.flops for block in unet.blocks if block.shape[1:] == unet.latent[1:]]
    return (
        Part("share of the arithmetic in blocks that give the latent's size", exact(
             sum(own) / unet.flops), "above", HALF),
        Part("share of it in blocks of another size", exact(1 - sum(own) / unet.flops), "equals",
             0),
    )  # fmt: skip


def simply_convolutional(bench: Bench) -> tuple[Part, ...]:
    """Shares of the arithmetic: convolutions the largest part, and ("simply") nothing else."""
    kinds = costs(built(bench)).kinds
    return (
        Part("convolutions' share of the arithmetic", exact(kinds["convolution"]), "above", HALF),
        Part("share of linear layers and attention", exact(1 - kinds["convolution"]), "equals", 0),
    )


def predicts_and_removes(bench: Bench) -> tuple[Part, ...]:
    """One prediction, two step sizes: a network that removes leaves one latent, not two."""
    noisy, said = asked(bench, 2.0)
    levels = [(level(bench, 2.0), level(bench, sigma)) for sigma in (1.5, 0.5)]
    steps = [make_plan("ddim", pair, bench.model.schedule)[0] for pair in levels]
    short, long = (update(noisy, step, [said]) for step in steps)
    return (
        Part("predicts, at karras_sigma 2: eps-hat's likeness to the noise, less that of its input",
             mean(noise_found(bench, 2.0)), "above", 0),
        Part("removes: largest difference between what two step sizes leave",
             exact(np.abs(short - long).max()), "equals", 0),
    )  # fmt: skip


def three_inputs(bench: Bench) -> tuple[Part, ...]:
    """Spoil each input in turn: x0-hat must become worse for each that the network uses."""
    scenes, at = known(bench), level(bench, 2.0)
    noisy, said = asked(bench, 2.0)
    right = wrongness(said.x0, scenes.latents)
    spoiled = {
        "another noisy latent": ask(bench, np.roll(noisy, 1, axis=0), at),
        "a wrong time (karras_sigma 0.5)": ask(bench, noisy, level(bench, 0.5)),
        "another scene's text": ask(bench, noisy, at, scenes.wrong_texts),
    }
    given = len(inspect.signature(bench.model.unet.forward).parameters)
    extra = 2 * bench.model.is_xl  # pooled row and sizes, inside its text
    worse = [
        Part(f"error with {name}, less the usual one",
             mean(wrongness(one.x0, scenes.latents) - right), "above", 0)
        for name, one in spoiled.items()
    ]  # fmt: skip
    return (*worse, Part("inputs that it takes", exact(given + extra), "equals", 3))


def told_the_time_by_waves(bench: Bench) -> tuple[Part, ...]:
    """Waves obey sin² + cos² = 1; to say "how noisy", near times must look more alike than far."""
    unet, config = bench.model.unet, bench.model.unet.config
    last = bench.model.schedule.num_train_steps - 1
    times = torch.linspace(0, last, 41, device=bench.model.device)
    width = config.block_out_channels[0]
    waves = timestep_waves(times, width, config.flip_sin_to_cos, config.freq_shift)
    sums = (waves.unflatten(1, (2, -1)) ** 2).sum(dim=1)
    with torch.inference_mode():
        told = unet.time_embedding(waves.to(bench.model.dtype)).float()
    alike = torch.nn.functional.cosine_similarity(told[:, None], told[None], dim=-1)
    near, far = alike.diagonal(1).mean(), alike.diagonal(20).mean()
    return (
        Part("sin² + cos² of every wave, at worst", exact((sums - 1).abs().max() + 1), "near", 1,
             1e-4),
        Part("likeness (cosine) of near times, less that of far ones", exact(near - far), "above",
             0),
    )  # fmt: skip


def coarse_early_fine_late(bench: Bench) -> tuple[Part, ...]:
    """What one call adds to the noisy picture: more of the coarse early on, of the fine later.

    The two halves of the spatial frequencies are compared with the true latent one by one.
    """
    early, late = (_coarse_less_fine(bench, sigma) for sigma in (6.0, 0.3))
    return (
        Part("early (karras_sigma 6): gain in likeness of the coarse, less that of the fine",
             mean(early),
             "above", 0),
        Part("late (karras_sigma 0.3): the same the other way round", mean(-late), "above", 0),
    )  # fmt: skip


def _coarse_less_fine(bench: Bench, sigma: float) -> np.ndarray:
    noisy, said = asked(bench, sigma)
    clean, which = known(bench).latents, rings(*noisy.shape[2:])
    coarse = which <= which.max() // 2
    gains = []
    for band in (coarse, ~coarse):
        found, given, true = (_of_band(x, band) for x in (said.x0, noisy, clean))
        gains.append(likeness(found, true) - likeness(given, true))
    return gains[0] - gains[1]


def _of_band(values: np.ndarray, band: np.ndarray) -> np.ndarray:
    """The part of (n, channels, h, w) that has the frequencies of the band (h, w)."""
    return np.fft.ifft2(np.fft.fft2(values) * band).real


CLAIMS = (
    Claim("D1", "In training only the U-Net learns.", "essay", 5, only_the_unet_learns),
    Claim("D2", "Training denoises step by step, then decodes.", "essay", 5,
          training_denoises_and_decodes),
    Claim("D4", "The network predicts the clean picture.", "guide", 5, predicts_the_clean_picture,
          True),
    Claim("D5", "The network predicts how much noise was added.", "tutorial", 5,
          predicts_how_much_noise, True),
    Claim("D6", "It predicts the noise that the current timestep added.", "article", 5,
          predicts_the_last_increment, True),
    Claim("D7", "It learned noise patterns, at every timestep.", "article", 5,
          learned_noise_patterns, True),
    Claim("D8", "It learned to repair damaged pictures.", "guide", 5, learned_to_repair, True),
    Claim("D9", "It learned how texts belong to what is seen.", "guide", 5,
          learned_what_texts_mean, True),
    Claim("D10", "No training picture is memorised.", "guide", 5, nothing_is_memorised, True),
    Claim("D13", "The U-Net compresses its input, then expands it.", "essay", 5,
          compresses_and_expands),
    Claim("D14", "A U-Net is simply a convolutional network.", "essay", 5, simply_convolutional),
    Claim("E1", "The U-Net predicts the noise, not the picture.", "article", 5,
          predicts_the_noise, True),
    Claim("E2", "The U-Net predicts the noise and removes it.", "tutorial", 5,
          predicts_and_removes, True),
    Claim("E3", "The U-Net has three inputs: latent, time, text.", "article", 5, three_inputs,
          True),
    Claim("E4", "Sinusoids tell the network how noisy its input is.", "article", 5,
          told_the_time_by_waves),
    Claim("E5", "Early steps settle the coarse, late ones the fine.", "guide", 5,
          coarse_early_fine_late, True),
    Claim("E7", "The U-Net works at the latent's size.", "article", 5, works_at_the_latents_size),
)  # fmt: skip
