"""Claims about cross-attention and about the whole pipeline (notebooks 9, 1 and 10).

Where a word looks is asked on drawn scenes, whose masks are exact; what a word does is asked by
taking it away, or by another in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from diffusionlab.analysis.pointing import points_inside, pooled
from diffusionlab.analysis.spectrum import ring_power
from diffusionlab.claims.bench import SEED, Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, mean, share
from diffusionlab.claims.known_pictures import ask, asked, built, known, level
from diffusionlab.claims.memory import copies_by_formula
from diffusionlab.errors import InputError
from diffusionlab.generate import generate
from diffusionlab.inside.interventions import swap_text, zero_tap
from diffusionlab.stages import decode, embed, tokenize
from diffusionlab.taps import probabilities_of, recording
from diffusionlab.toyland import COLOURS
from diffusionlab.trace import TextEmbedding, to_numpy
from diffusionlab.training.judge_nets import Verdict
from diffusionlab.training.localisation import word_maps
from diffusionlab.training.prompted import Prompt, one_object_prompts
from diffusionlab.training.quality import aspects_right

HALF = 0.5  # a share above it: more often than not
TWICE = 2.0
SWITCH_STEPS, GUIDANCE = 8, 4.0
SIZES = (8, 16, 32, 64)  # sides of maps that the claim names
WORDS = {"object": lambda prompt: prompt.kinds[0], "colour": lambda p: p.colours[p.kinds[0]]}


# ---- cross-attention ---------------------------------------------------------------------------
def text_enters_by_cross_attention(bench: Bench) -> tuple[Part, ...]:
    """Silence every cross-attention: two texts must give one answer, to the last bit."""
    scenes, at = known(bench), level(bench, 2.0)
    noisy, texts = asked(bench, 2.0)[0][:1], (scenes.texts[0], scenes.empty)

    def difference() -> float:
        first, second = (ask(bench, noisy, at, [text]).cond for text in texts)
        return float(np.abs(first - second).max())

    heard = difference()
    with zero_tap(bench.model, "*attn2.values"):
        deaf = difference()
    return (
        Part("what a text changes in the output", exact(heard), "above", 0),
        Part("what it changes with cross-attention silenced", exact(deaf), "equals", 0),
    )


def four_sizes(bench: Bench) -> tuple[Part, ...]:
    """The sides of the cross-attention maps at the model's own picture size."""
    cross = built(bench).cross
    sides = {max(shape[1:]) for shape in cross.values()}
    return (
        Part("sizes at which the text is read", exact(len(sides)), "above", 1),
        Part("share of them among 8, 16, 32 and 64", exact(len(sides & {*SIZES}) / len(sides)),
             "equals", 1),
        Part("share of 8, 16, 32 and 64 that are there", exact(len(sides & {*SIZES}) / len(SIZES)),
             "equals", 1),
    )  # fmt: skip


def words_find_their_place(bench: Bench) -> tuple[Part, ...]:
    """Does a word's map have its peak on what the word names, more often than not?"""
    return tuple(
        Part(f"maps of the {word}'s word with their peak on it",
             share(points_inside(maps, masks)), "above", HALF)
        for word, (maps, masks) in maps_and_masks(bench).items()
    )  # fmt: skip


def places_attend_differently(bench: Bench) -> tuple[Part, ...]:
    """Places inside a thing must give its word twice the attention of those outside, on average.

    Any two places differ by a little, in a network of random weights too; twice is a way of one's
    own.
    """
    maps, masks = maps_and_masks(bench)["object"]
    cells = pooled(masks, maps.shape[1:])
    there = cells.sum(axis=(1, 2)) > 0
    maps, cells = maps[there], cells[there]
    inside, outside = ((maps * w).sum(axis=(1, 2)) / w.sum(axis=(1, 2)) for w in (cells, 1 - cells))
    return (
        Part("attention to the thing's word inside the thing, over that outside",
             mean(inside / outside), "above", TWICE),
    )  # fmt: skip


def maps_and_masks(bench: Bench) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By word: maps of the finest layers (n, h, w) at karras_sigma 2, and masks (n, size, size)."""
    if bench.model.is_xl:
        raise InputError(
            f"{bench.model.name} reads two text encoders, and words are located with one alone; "
            "examine this claim on a model like Stable Diffusion 1 or Toyland"
        )
    scenes = known(bench)

    def make() -> dict:
        latents = torch.from_numpy(scenes.latents).to(bench.model.device)
        found = word_maps(bench.model, latents, scenes.prompts, 2.0)
        return {
            word: (found[word]["finest"], scenes.masks([named(p) for p in scenes.prompts]))
            for word, named in WORDS.items()
        }

    return bench.kept("maps and masks", make)


def attention_is_local(bench: Bench) -> tuple[Part, ...]:
    """Replace one query, then one corner of the latent: who notices?

    Computed locally means that other places' weights stay: in one layer, and in the network.
    """
    dice = torch.Generator().manual_seed(SEED)
    query, key = (torch.randn(1, 1, count, 16, generator=dice) for count in (64, 20))
    other = query.clone()
    other[:, :, 0] = 1.0
    before, after = (probabilities_of(q, key, True)[0, 0] for q in (query, other))
    noisy = asked(bench, 2.0)[0][:1]
    corner = noisy.copy()
    corner[..., :2, :2] = 0
    pairs = zip(_all_maps(bench, noisy), _all_maps(bench, corner), strict=True)
    changed = [(a != b).any(axis=-1)[a.shape[0] // 2 :, a.shape[1] // 2 :] for a, b in pairs]
    return (
        Part("in one layer: largest change of a weight at the 63 other places",
             exact((after - before)[1:].abs().max()), "below", 1e-6),
        Part("in the network: share of the far quarter's places that change",
             exact(np.mean([places.mean() for places in changed])), "equals", 0),
    )  # fmt: skip


def _all_maps(bench: Bench, noisy: np.ndarray) -> list[np.ndarray]:
    """The maps (h, w, tokens) of every cross-attention layer at karras_sigma 2."""
    with recording(bench.model.unet, ["*attn2.probabilities"]) as seen:
        ask(bench, noisy, level(bench, 2.0), known(bench).texts[:1])
    return [to_numpy(calls[0])[0] for calls in seen.values()]


def colours_bleed(bench: Bench) -> tuple[Part, ...]:
    """Two things, two colours: is a wrong colour the neighbour's more often than any other?

    A thing that is seen counts 1 in the neighbour's colour, 0 in its own, and −1/7 in one of the
    other seven, so that colours mixed up by chance come to 0; a picture counts the mean of its two.
    """
    prompts = bench.two_objects
    images = bench.pictures([prompt.text for prompt in prompts])
    scores = []
    for seen, prompt in zip(bench.judged(images), prompts, strict=True):
        (first, one), (second, other) = prompt.colours.items()
        pair = (seen.colours.get(first), one, other), (seen.colours.get(second), other, one)
        scores.append(np.mean([_bled(*colours) for colours in pair]))
    return (
        Part("neighbour's colour instead of one's own, beyond chance", mean(scores), "above", 0),
    )


def _bled(found: str | None, own: str, neighbours: str) -> float:
    """1 for the neighbour's colour, 0 for its own or nothing seen, else −1/7."""
    if found == neighbours:
        return 1.0
    return 0.0 if found in (own, None) else -1 / (len(COLOURS) - 2)


def coarse_layers_compose(bench: Bench) -> tuple[Part, ...]:
    """Let the coarser half of the layers read the empty prompt, then the finer half.

    What is coarse in x0-hat (composition) must miss the coarse layers more, what is fine (texture)
    the fine ones: log ratio of changes above 0, early and late, as the claim names no time.
    """
    parts = []
    for sigma in (4.0, 0.5):
        composition, texture = _coarse_over_fine(bench, sigma)
        parts += [
            Part(f"composition at karras_sigma {sigma:g} misses the coarse layers more: log ratio",
                 mean(composition), "above", 0),
            Part(f"texture at karras_sigma {sigma:g} misses the fine layers more: log ratio",
                 mean(-texture), "above", 0),
        ]  # fmt: skip
    return tuple(parts)


def _coarse_over_fine(bench: Bench, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Log ratio (n,) of what x0-hat loses without coarse and without fine layers: coarse, fine."""
    scenes, (noisy, usual) = known(bench), asked(bench, sigma)
    lost = []
    for layers in _halves(bench):
        with _reading(bench, layers, scenes.empty):
            changed = ask(bench, noisy, level(bench, sigma)).x0 - usual.x0
        lost.append(ring_power(changed).mean(axis=1) + 1e-12)  # (n, rings)
    middle = lost[0].shape[1] // 2
    bands = [(power[:, :middle].sum(axis=1), power[:, middle:].sum(axis=1)) for power in lost]
    return tuple(np.log(a / b) for a, b in zip(*bands, strict=True))


def _halves(bench: Bench) -> tuple[list[str], list[str]]:
    """The cross-attention layers of the coarser and of the finer sizes."""
    cross = built(bench).cross
    sizes = sorted({shape[1] * shape[2] for shape in cross.values()})
    if len(sizes) < 2:
        raise InputError(
            f"{bench.model.name} reads its text at {len(sizes)} size; two are needed to compare "
            "coarse with fine layers: examine this claim on another model"
        )
    small = sizes[: len(sizes) // 2]
    names = {name: shape[1] * shape[2] in small for name, shape in cross.items()}
    return [n for n, coarse in names.items() if coarse], [n for n, c in names.items() if not c]


@contextmanager
def _reading(bench: Bench, layers: list[str], text: TextEmbedding) -> Iterator[None]:
    """Some layers read another text while the block lasts."""
    with ExitStack() as stack:
        for name in layers:
            layer = name.removesuffix(".probabilities")
            stack.enter_context(swap_text(bench.model, text, layers=layer))
        yield


def prompt_is_a_constant_guide(bench: Bench) -> tuple[Part, ...]:
    """Put another prompt in after a quarter and after three quarters of the steps.

    A guide throughout must still turn the picture at both: more often than not to the new object.
    """
    prompts, quarter = bench.one_object, SWITCH_STEPS // 4
    others = [_of_another_kind(prompts, i) for i in range(len(prompts))]
    parts = []
    for name, first in (("a quarter", quarter), ("three quarters", 3 * quarter)):
        images = bench.kept(
            ("switched", first), lambda first=first: _all_switched(bench, prompts, others, first)
        )
        seen = zip(bench.judged(images), others, strict=True)
        turned = [prompt.kinds[0] in verdict.kinds for verdict, prompt in seen]
        told = f"pictures that show the object of a prompt put in after {name} of the steps"
        parts.append(Part(told, share(turned), "above", HALF))
    return tuple(parts)


def _all_switched(bench: Bench, prompts: list, others: list, first: int) -> list:
    pairs = enumerate(zip(prompts, others, strict=True))
    return [_switched(bench, a.text, b.text, first, SEED + i) for i, (a, b) in pairs]


def _switched(bench: Bench, prompt: str, later: str, first: int, seed: int) -> Any:
    """The picture of a prompt that another one replaces from step `first` on."""
    text = embed(bench.model, tokenize(bench.model, later))
    with swap_text(bench.model, text, steps=range(first, SWITCH_STEPS)):
        return generate(bench.model, prompt, seed=seed, num_steps=SWITCH_STEPS, record=(),
                        guidance_scale=GUIDANCE, progress=False).image  # fmt: skip


def _of_another_kind(prompts: list[Prompt], i: int) -> Prompt:
    """The next prompt that names another kind of thing; itself if there is none."""
    following = [*prompts[i + 1 :], *prompts[: i + 1]]
    return next((p for p in following if p.kinds != prompts[i].kinds), prompts[i])


# ---- the whole pipeline ------------------------------------------------------------------------
def three_parts_are_needed(bench: Bench) -> tuple[Part, ...]:
    """Count the parts, then do without all three: the exact denoiser of a few known latents.

    If diffusion needed them, a formula alone would reach none of these latents.
    """
    model = bench.model
    parts = (model.text_encoders, model.unet, model.vae)
    reached, asked_for = copies_by_formula(bench)
    return (
        Part("parts of a latent text-to-image model", exact(sum(bool(p) for p in parts)), "equals",
             3),
        Part(f"pictures of {asked_for} that a formula reaches without any of them",
             exact(reached), "equals", 0),
    )  # fmt: skip


def pixel_by_pixel(bench: Bench) -> tuple[Part, ...]:
    """Built one by one, most positions would wait at each step, and pixels come singly."""
    trace = bench.run(guidance_scale=GUIDANCE)
    waiting = [(s.latent == s.next_latent).all(axis=0).mean() for s in trace.steps]
    decoded: list[int] = []
    hook = bench.model.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    try:
        image = decode(bench.model, trace.steps[-1].next_latent)
    finally:
        hook.remove()
    return (
        Part("positions of the latent that wait at a step, at most", exact(max(waiting)), "above",
             HALF),
        Part("passes of the decoder, per pixel of the picture",
             exact(len(decoded) / (image.width * image.height)), "equals", 1),
    )  # fmt: skip


def makes_what_it_never_saw(bench: Bench) -> tuple[Part, ...]:
    """Triples of object, colour and setting that no training picture has: drawn, or not?

    More often than not is asked; a guess would be right in less than one of a hundred pictures.
    """
    count = bench.samples
    unseen = one_object_prompts(bench.share, 2 * count)[count:]
    images = bench.pictures([prompt.text for prompt in unseen])
    right = [_triple(v, p) for v, p in zip(bench.judged(images), unseen, strict=True)]
    return (Part("pictures of triples never shown that are right", share(right), "above", HALF),)


def _triple(verdict: Verdict, prompt: Prompt) -> bool:
    right = aspects_right(verdict, prompt)
    bound = verdict.colours.get(prompt.kinds[0]) == prompt.colours[prompt.kinds[0]]
    return bool(bound and right["object"] and right["setting"])


CLAIMS = (
    Claim("H1", "Cross-attention connects the prompt to the picture.", "article", 9,
          text_enters_by_cross_attention),
    Claim("H2", "Cross-attention works at 8×8, 16×16, 32×32 and 64×64.", "article", 9, four_sizes),
    Claim("H3", "A word's attention lies on what the word names.", "article", 9,
          words_find_their_place, True),
    Claim("H4", "Each region attends to the text in its own way.", "article", 9,
          places_attend_differently, True),
    Claim("H5", "Attention is computed locally.", "article", 9, attention_is_local),
    Claim("H6", "Colours bleed from one thing to another.", "article", 9, colours_bleed, True),
    Claim("H7", "Coarse layers compose, fine layers give texture.", "article", 9,
          coarse_layers_compose, True),
    Claim("H10", "The prompt is a constant guide throughout.", "exhibit page", 9,
          prompt_is_a_constant_guide, True),
    Claim("I9", "The picture is built pixel by pixel.", "exhibit page", 1, pixel_by_pixel),
    Claim("I12", "Diffusion needs text encoder, U-Net and VAE.", "essay", 1,
          three_parts_are_needed),
    Claim("I15", "It makes what its training never showed.", "article", 10,
          makes_what_it_never_saw, True),
)  # fmt: skip
