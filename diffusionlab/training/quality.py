"""What a checkpoint of Toyland can do, in figures; `benchmarks/quality.py` is the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import CheckpointError
from ..pipeline import LatentDiffusion
from ..toyland import SHARES, Scene, Share, render, scene
from .data import SEEDS
from .judge_nets import Classifier, Verdict, judge
from .pictures import Drawn, decoded, latents_of, text_vectors
from .prompted import Prompt, paraphrases

ASPECTS = ("object", "colour", "setting", "time", "style", "all")


def share_of(model: LatentDiffusion) -> Share:
    """The part of the world that the checkpoint's toyland.json says it was trained on."""
    name = model.config.get("toyland", {}).get("share")
    if name not in SHARES:
        raise CheckpointError(
            f"toyland.json of {model.name} has share {name!r}; {', '.join(SHARES)} are known: "
            "export the checkpoint again with this version"
        )
    return SHARES[name]


def rendered(scenes: Sequence[Scene], size: int) -> np.ndarray:
    """The true pictures of scenes, uint8 (n, size, size, 3)."""
    return np.stack([render(shown, size, masks=False).image for shown in scenes])


def round_trip(model: LatentDiffusion, pictures: np.ndarray) -> np.ndarray:
    """uint8 pictures through the VAE and back."""
    return decoded(model, latents_of(model, pictures))


# ---- adherence -------------------------------------------------------------------------------
def aspects_right(verdict: Verdict, prompt: Prompt) -> dict[str, bool | None]:
    """What a one-object prompt asks for and the verdict finds; None where nothing was said.

    object: the named kind and no other; colour: any thing seen has it; all: everything said, the
    colour on the named kind.
    """
    kind, atoms = prompt.kinds[0], prompt.caption.atoms
    colour = prompt.colours[kind]
    right: dict[str, bool | None] = {
        "object": verdict.kinds == (kind,),
        "colour": colour in verdict.colours.values(),
    }
    for slot in ("setting", "time", "style"):
        wanted = atoms.get(slot)
        right[slot] = None if wanted is None else getattr(verdict, slot) == wanted
    bound = verdict.colours.get(kind) == colour
    right["all"] = bound and all(hit for hit in right.values() if hit is not None)
    return right


def adherence(verdicts: Sequence[Verdict], prompts: Sequence[Prompt]) -> dict[str, dict]:
    """Shares of right verdicts by aspect: of all prompts, of seen and of unseen triples."""
    rows = [aspects_right(v, p) for v, p in zip(verdicts, prompts, strict=True)]
    groups = {
        "every": rows,
        "seen": [row for row, p in zip(rows, prompts, strict=True) if not p.unseen],
        "unseen": [row for row, p in zip(rows, prompts, strict=True) if p.unseen],
    }
    return {name: _shares(group) for name, group in groups.items() if group}


def _shares(rows: list[dict]) -> dict[str, float | int]:
    shares: dict[str, float | int] = {"prompts": len(rows)}
    for aspect in ASPECTS:
        hits = [row[aspect] for row in rows if row[aspect] is not None]
        if hits:
            shares[aspect] = round(float(np.mean(hits)), 4)
    return shares


def shuffled(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts in an order in which none keeps its place."""
    order = np.random.default_rng(11).permutation(len(prompts))
    moved = np.empty(len(prompts), int)
    moved[order] = np.roll(order, 1)
    return [prompts[i] for i in moved]


def verdict_table(model, classifier: Classifier, prompts, pictures, measure) -> dict:
    """`measure` of the generated pictures, of the real ones, of those through the VAE, of chance.

    "real" is the judges' ceiling on the very same scenes; "chance" compares the verdicts with other
    prompts.
    """
    real = rendered([prompt.scene for prompt in prompts], model.size)
    verdicts = judge(classifier, pictures)
    return {
        "generated": measure(verdicts, prompts),
        "real": measure(judge(classifier, real), prompts),
        "vae": measure(judge(classifier, round_trip(model, real)), prompts),
        "chance": measure(verdicts, shuffled(prompts)),
    }


def binding(verdicts: Sequence[Verdict], prompts: Sequence[Prompt]) -> dict[str, float | int]:
    """Two-object prompts: both seen; each in its own colour; and how often colours were swapped."""
    pairs = list(zip(verdicts, prompts, strict=True))
    both = [set(p.kinds) <= set(v.kinds) for v, p in pairs]
    right = [all(v.colours.get(k) == c for k, c in p.colours.items()) for v, p in pairs]
    swapped = [_swapped(v, p) for v, p in pairs]
    found = {"both_objects": both, "right_colours": right, "swapped_colours": swapped}
    shares = {name: round(float(np.mean(hits)), 4) for name, hits in found.items()}
    return {"prompts": len(pairs), **shares}


def _swapped(verdict: Verdict, prompt: Prompt) -> bool:
    (first, one), (second, other) = prompt.colours.items()
    return verdict.colours.get(first) == other and verdict.colours.get(second) == one


# ---- autoencoder -----------------------------------------------------------------------------
def region_psnr(made: np.ndarray, true: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures (h, w, 3), weighted by a mask (h, w)."""
    error = ((made.astype(np.float64) - true) ** 2).mean(axis=-1)
    mean = np.average(error, weights=mask)
    return float(10 * np.log10(255**2 / max(mean, 1e-3)))


def vae_quality(model: LatentDiffusion, share: Share, count: int = 200) -> dict:
    """Mean PSNR (dB) on held-out plain pictures: whole, and in the region of each object."""
    scenes = [scene(SEEDS["test"] + 4_000_000 + i, share, style="plain") for i in range(count)]
    drawn = [render(shown, model.size) for shown in scenes]
    made = round_trip(model, np.stack([d.image for d in drawn]))
    kinds: dict[str, list[float]] = {}
    for shown, true, picture in zip(scenes, drawn, made, strict=True):
        for thing in shown.things:
            if thing.kind in true.masks:
                score = region_psnr(picture, true.image, true.masks[thing.kind])
                kinds.setdefault(thing.kind, []).append(score)
    whole = [region_psnr(m, d.image) for m, d in zip(made, drawn, strict=True)]
    return {
        "pictures": count,
        "psnr_db": round(float(np.mean(whole)), 2),
        "objects_db": {k: round(float(np.mean(v)), 2) for k, v in sorted(kinds.items())},
    }


# ---- text ------------------------------------------------------------------------------------
def paraphrase(model: LatentDiffusion, share: Share, count: int = 1000) -> dict:
    """How often a wording never trained is nearer (cosine) to its own meaning than to another's."""
    columns = zip(*paraphrases(share, count), strict=True)
    held, own, other = (text_vectors(model, texts) for texts in columns)
    mine = torch.cosine_similarity(held, own)
    theirs = torch.cosine_similarity(held, other)
    return {
        "pairs": count,
        "nearer": round(float((mine > theirs).float().mean()), 4),
        "median_cosine_own": round(float(mine.median()), 4),
        "median_cosine_other": round(float(theirs.median()), 4),
    }


# ---- memorisation ----------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Nearest:
    """For each picture the root mean square distance to its nearest training latent, and which."""

    distances: np.ndarray
    rows: np.ndarray


def nearest(latents: torch.Tensor, known: torch.Tensor) -> Nearest:
    """The nearest of `known` (m, channels, h, w) to each of `latents` (n, channels, h, w)."""
    size = latents[0].numel()
    distances, found = torch.cdist(latents.flatten(1), known.flatten(1)).min(dim=1)
    return Nearest((distances / size**0.5).cpu().numpy(), found.cpu().numpy())


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance between two empirical distribution functions (Kolmogorov-Smirnov)."""
    values = np.concatenate([first, second])
    shares = (np.searchsorted(np.sort(x), values, "right") / len(x) for x in (first, second))
    return float(np.abs(np.subtract(*shares)).max())


def memorisation(
    model: LatentDiffusion, share: Share, prompts: Sequence[Prompt], drawn: Drawn, count: int = 3000
) -> tuple[dict, list[tuple[np.ndarray, np.ndarray, float]]]:
    """Nearest training latents of generated pictures against those of renders of the same scenes.

    Both go through the VAE's encoder. Returns the figures and the 8 closest pairs (generated
    picture, training picture, distance).
    """
    trained = rendered([scene(SEEDS["train"] + i, share) for i in range(count)], model.size)
    known = latents_of(model, trained)
    real = rendered([prompt.scene for prompt in prompts], model.size)
    made = nearest(latents_of(model, drawn.pictures), known)
    held = nearest(latents_of(model, real), known)
    closest = np.argsort(made.distances)[:8]
    pairs = [(drawn.pictures[i], trained[made.rows[i]], made.distances[i]) for i in closest]
    report = {
        "training_pictures": count,
        "median_generated": round(float(np.median(made.distances)), 4),
        "median_held_out": round(float(np.median(held.distances)), 4),
        "smallest_generated": round(float(made.distances.min()), 4),
        "smallest_held_out": round(float(held.distances.min()), 4),
        "ks": round(ks_statistic(made.distances, held.distances), 4),
    }
    return report, pairs


# ---- gates -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gate:
    """One row of the gate table: where its figure stands, and what it must reach (None: report).

    `ceiling` is where the judges' figure on true pictures stands, `chance` that of a guess.
    """

    name: str
    path: tuple[str, ...]
    cpu: float | None
    accelerator: float | None
    ceiling: tuple[str, ...] | None = None
    chance: tuple[str, ...] | None = None


def _judged(name: str, part: str, *keys: str, cpu: float | None, accelerator: float) -> Gate:
    """A gate whose figure the judges also give for true pictures and for shuffled prompts."""
    paths = [(part, source, *keys) for source in ("generated", "real", "chance")]
    return Gate(name, paths[0], cpu, accelerator, *paths[1:])


def _mapped(name: str, key: str, cpu: float | None, accelerator: float) -> Gate:
    """A gate on the maps of the object's word, with the masks of other scenes as chance."""
    place = ("localisation", "object", "finest", "mean")
    return Gate(name, (*place, key), cpu, accelerator, None, (*place, f"chance_{key}"))


GATES = (
    _judged("object right", "adherence", "every", "object", cpu=0.90, accelerator=0.95),
    _judged("colour right", "adherence", "every", "colour", cpu=0.85, accelerator=0.90),
    _judged("setting right", "adherence", "every", "setting", cpu=0.92, accelerator=0.95),
    _judged("time of day right", "adherence", "every", "time", cpu=0.92, accelerator=0.95),
    _judged("two objects: right colours", "binding", "right_colours", cpu=None, accelerator=0.80),
    _judged("all right, seen triples", "adherence", "seen", "all", cpu=0.70, accelerator=0.90),
    _judged("all right, unseen triples", "adherence", "unseen", "all", cpu=0.50, accelerator=0.80),
    _mapped("attention: peak inside the mask", "inside", 0.70, 0.85),
    _mapped("attention: IoU at 0.4", "iou", None, 0.45),
    Gate("VAE PSNR, plain style (dB)", ("vae", "psnr_db"), 24.0, 28.0),
    Gate("paraphrase nearer than another", ("paraphrase", "nearer"), 0.90, 0.95),
)


def gate_table(result: dict) -> list[dict]:
    """One row for each gate: its measured value, and "pass", "miss" or "report" per column."""
    rows = []
    for gate in GATES:
        row = {"gate": gate.name, "measured": _at(result, gate.path)}
        row |= {"ceiling": _at(result, gate.ceiling), "chance": _at(result, gate.chance)}
        for column in ("cpu", "accelerator"):
            limit = row[column] = getattr(gate, column)
            held = "pass" if limit is not None and row["measured"] >= limit else "miss"
            row[f"{column}_holds"] = "report" if limit is None else held
        rows.append(row)
    return rows


def _at(result: dict, path: tuple[str, ...] | None) -> float | None:
    """The figure at a path of keys; None for no path."""
    if path is None:
        return None
    value = result
    for key in path:
        value = value[key]
    return value
