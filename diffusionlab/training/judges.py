"""Training the judges: pictures of their own seeds, blurred and made noisy as a VAE would.

A third of their scenes has a uniformly drawn (object, colour, setting), held-out triples included:
a judge that had never seen a purple tree in space would call a good one a mistake. The judges
measure the model and never condition it, so this tells the model nothing.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from ..toyland import COLOURS, OBJECTS, SETTINGS, STYLES, TIMES, Scene, Share, render, scene
from .data import CHUNK, SEEDS
from .judge_nets import (
    CELLS,
    NO_TIME,
    Classifier,
    Segmenter,
    Verdict,
    batch_of,
    judge,
    load_judges,
    resized,
    save_judges,
    segment,
    shipped_judges,
)
from .loop import Training
from .presets import Preset
from .team import processes
from .written import write_json

__all__ = [
    "Classifier", "Segmenter", "Verdict", "judge", "judge_report", "judge_scene", "load_judges",
    "save_judges", "segment", "shipped_judges", "train_judges",
]  # fmt: skip

MOST, HELD_BACK = 12_000, 2000  # scenes to train on; scenes of the report
BATCH, PAIRS = 48, 0.5
DRAWN = 128  # pixels at which they are drawn, before they are averaged down


def judge_scene(number: int, share: Share) -> Scene:
    """The judges' scene of a number; every third has a triple drawn without any exception.

    Half of the others are pairs, more than the share of the world has: they are harder to judge.
    """
    seed = SEEDS["judges"] + number
    if number % 3:
        return scene(seed, replace(share, pairs=PAIRS))
    rng = np.random.default_rng([5, seed])
    words = {"object": share.objects, "colour": COLOURS, "setting": share.settings}
    return scene(seed, share, **{k: v[int(rng.integers(len(v)))] for k, v in words.items()})


# ---- labels ----------------------------------------------------------------------------------
def labels_of(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """present float (n, 12), colour (n, 12; −1 without), setting, time and style (n)."""
    present = torch.zeros(len(scenes), len(OBJECTS))
    colour = torch.full((len(scenes), len(OBJECTS)), -1)
    for i, shown in enumerate(scenes):
        for thing in shown.things:
            kind = OBJECTS.index(thing.kind)
            present[i, kind] = 1
            colour[i, kind] = COLOURS.index(thing.colour) if thing.colour else -1
    times = [TIMES.index(s.time) if s.time else NO_TIME for s in scenes]
    return {
        "present": present,
        "colour": colour,
        "setting": torch.tensor([SETTINGS.index(s.setting) for s in scenes]),
        "time": torch.tensor(times),
        "style": torch.tensor([STYLES.index(s.style) for s in scenes]),
    }


def class_map(masks: dict[str, np.ndarray], cells: int = CELLS) -> np.ndarray:
    """uint8 (cells, cells): 1 + the kind that covers most of a cell, 0 where none covers half."""
    shares = np.zeros((len(OBJECTS) + 1, cells, cells), np.float32)
    for i, kind in enumerate(OBJECTS, 1):
        if kind in masks:
            step = masks[kind].shape[0] // cells
            shares[i] = masks[kind].reshape(cells, step, cells, step).mean(axis=(1, 3))
    shares[0] = 1 - shares[1:].sum(axis=0)
    return shares.argmax(axis=0).astype(np.uint8)


def _draw_chunk(job: tuple[int, int, Share]) -> tuple[np.ndarray, np.ndarray]:
    first, count, share = job
    drawn = [render(judge_scene(first + i, share), DRAWN) for i in range(count)]
    images = torch.from_numpy(np.stack([d.image for d in drawn])).permute(0, 3, 1, 2).float()
    small = resized(images).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return small, np.stack([class_map(d.masks) for d in drawn])


def render_labelled(
    folder: Path, first: int, count: int, share: Share, workers: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, 64, 64, 3) and class maps uint8 (n, 64, 64), kept as .npy files."""
    stem = f"judges_{share.name}_{first}_{count}"
    paths = folder / f"{stem}_pictures.npy", folder / f"{stem}_classes.npy"
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(first + i, min(CHUNK, count - i), share) for i in range(0, count, CHUNK)]
        with ProcessPoolExecutor(workers) as pool:
            chunks = pool.map(_draw_chunk, jobs)
            parts = list(tqdm(chunks, total=len(jobs), desc="judges' pictures", mininterval=5))
        for path, arrays in zip(paths, zip(*parts, strict=True), strict=True):
            part = path.with_suffix(".part.npy")
            np.save(part, np.concatenate(arrays))
            part.rename(path)
    return tuple(np.load(path, mmap_mode="r") for path in paths)


# ---- learning --------------------------------------------------------------------------------
def spoiled(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A batch as a decoder might draw it: part of it blurred, noisy, brighter or darker."""
    count = len(pixels) // 2
    blurred = pixels.clone()
    factor = rng.uniform(0.4, 0.9)  # what is lost by reducing and enlarging again
    small = F.interpolate(pixels[:count], scale_factor=factor, mode="bilinear", antialias=True)
    blurred[:count] = F.interpolate(small, pixels.shape[-2:], mode="bilinear")
    draw = torch.from_numpy(rng.uniform(size=(3, len(pixels), 1, 1, 1))).float()
    contrast, light, noise = 0.9 + 0.2 * draw[0], 0.1 * draw[1] - 0.05, 0.12 * draw[2] ** 2
    changed = blurred * contrast + light + noise * torch.randn_like(pixels)
    return changed.clamp(-1, 1)


def flipped(pixels: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every second picture mirrored, its class map with it; no judge is asked for sides."""
    pixels[::2], classes[::2] = pixels[::2].flip(-1), classes[::2].flip(-1)
    return pixels, classes


def classifier_loss(
    logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Binary cross entropy of presence, cross entropy of the rest; colours of coloured things."""
    loss = 4 * F.binary_cross_entropy_with_logits(logits["present"].float(), labels["present"])
    coloured = labels["colour"] >= 0
    if coloured.any():
        loss = loss + F.cross_entropy(
            logits["colour"][coloured].float(), labels["colour"][coloured]
        )
    scenery = (F.cross_entropy(logits[k].float(), labels[k]) for k in ("setting", "time", "style"))
    return loss + sum(scenery)


def train_judges(
    folder: Path, preset: Preset, world: object, minutes: float, start: Path | None = None
) -> None:
    """Train both judges for `minutes`; weights and report.json go to `folder`/judges.

    `world` and `start` are those of the model, with which the judges share nothing: they draw
    pictures of their own, as many as the preset's, MOST at most, and for the report as many more,
    HELD_BACK at most.
    """
    count = min(MOST, preset.pictures)
    with processes(cpu=preset.device == "cpu").main_process_first():
        drawn = render_labelled(folder.parent / "data", 0, count, preset.share)
    labels = labels_of([judge_scene(i, preset.share) for i in range(count)])
    both = nn.ModuleDict({"classifier": Classifier(), "segmenter": Segmenter()}).to(preset.device)
    training = Training(folder / "judges", both, 2e-3, 0.02, minutes)
    for step in training.steps("judges"):
        rng = np.random.default_rng([6, step, training.rank])
        loss, values = batch_loss(both, drawn, labels, preset, rng)
        training.learn(loss, **values)
    if training.rank == 0:
        both.load_state_dict(training.average.values)
        judges = both["classifier"].eval(), both["segmenter"].eval()
        save_judges(folder / "judges", *judges)
        judge_report(folder, *judges, count, preset.share, min(HELD_BACK, count))


def batch_loss(
    both: nn.ModuleDict,
    drawn: tuple[np.ndarray, np.ndarray],
    labels: dict[str, torch.Tensor],
    preset: Preset,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, dict]:
    """The loss of one fresh batch, flipped and spoiled, and what the log keeps of it."""
    device = preset.device
    rows = np.sort(rng.integers(len(drawn[0]), size=BATCH))
    told = {name: value[torch.from_numpy(rows)].to(device) for name, value in labels.items()}
    images, classes = (array[rows] for array in drawn)
    pixels, cover = flipped(batch_of(images), torch.from_numpy(classes.astype(np.int64)))
    pixels = spoiled(pixels, rng).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=preset.bfloat16):
        return _losses(both, pixels, told, cover.to(device))


def _losses(both: nn.ModuleDict, pixels, told, cover) -> tuple[torch.Tensor, dict]:
    """The sum that both learn by, and what the log keeps of one batch."""
    logits = both["classifier"](pixels)
    covered = F.cross_entropy(both["segmenter"](pixels).float(), cover)
    right = ((logits["present"] > 0) == (told["present"] > 0)).all(dim=1).float().mean()
    loss = classifier_loss(logits, told) + 3 * covered
    return loss, {"right": right, "covered": covered}


# ---- the ceiling -----------------------------------------------------------------------------
def judge_report(
    folder: Path,
    classifier: Classifier,
    segmenter: Segmenter,
    first: int,
    share: Share,
    count: int = HELD_BACK,
    workers: int = 1,
) -> dict:
    """Shares of right verdicts on `count` real pictures from number `first` on; report.json."""
    images, classes = render_labelled(folder.parent / "data", first, count, share, workers)
    scenes = [judge_scene(first + i, share) for i in range(count)]
    report = {"pictures": count, "share": share.name}
    report |= ceilings(judge(classifier, images), scenes)
    report["mean_iou"] = round(mean_iou(segment(segmenter, images), classes), 4)
    write_json(folder / "judges" / "report.json", report)
    return report


def ceilings(verdicts: list[Verdict], scenes: list[Scene]) -> dict[str, float]:
    """Shares in [0, 1] of right kinds, colours (of things that were seen), setting, time, style."""
    pairs = list(zip(verdicts, scenes, strict=True))
    colours = [
        verdict.colours[thing.kind] == thing.colour
        for verdict, shown in pairs
        for thing in shown.things
        if thing.colour and thing.kind in verdict.colours
    ]
    right = {
        "object": [set(v.kinds) == {t.kind for t in s.things} for v, s in pairs],
        "colour": colours,
        "setting": [v.setting == s.setting for v, s in pairs],
        "time": [v.time == s.time for v, s in pairs],
        "style": [v.style == s.style for v, s in pairs],
    }
    return {name: round(float(np.mean(hits or [0])), 4) for name, hits in right.items()}


def mean_iou(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over the kinds that occur of intersection over union, summed over all pictures."""
    scores = []
    for kind in np.unique(true[true > 0]):
        mine, its = found == kind, true == kind
        scores.append((mine & its).sum() / (mine | its).sum())
    return float(np.mean(scores)) if scores else 0.0
