"""Saying what a run will keep before it runs, and refusing what would be too much."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

from .budget import RecordingSize, measured
from .errors import InputError, MemoryExceeded, notice, shown
from .pipeline import LatentDiffusion
from .plan import Plan
from .recordable import INSIDE, KINDS, chosen_taps
from .samplers import SAMPLERS, Sampler, make_plan
from .trace import Settings, TextEmbedding
from .trace.spool import try_to_write
from .trace.summary import size_text

MOST_MEMORY = 2_000_000_000  # bytes that the records of one call may keep in memory
# What is given up first, when a record is too large.
GIVEN_UP = ("self_attention", "blocks", "heads", "attention", "frames", "predictions")
# Lines that `compare` told for all its runs at once.
_told: ContextVar[frozenset[str]] = ContextVar("told", default=frozenset())


def announced(
    model: LatentDiffusion,
    settings: Settings,
    plan: Plan,
    text_embedding: TextEmbedding | None = None,
    save_to: str | Path | None = None,
) -> Settings:
    """The settings with a notice of what will be kept; what is too much is refused.

    Only what comes from inside the network is worth a line. Errors: MemoryExceeded with three
    cheaper choices; InputError for a `save_to` that cannot be written.
    """
    size = size_of(model, settings, plan, text_embedding)
    if save_to is not None:
        check_disk(save_to, size)
    elif size.total > MOST_MEMORY:
        raise too_much(model, settings, [size])
    if not size.inside:
        return settings
    place = "" if save_to is None else f" in {shown(Path(save_to).name)}"  # no folder of anyone's
    line = f"the record of this run will keep {size}{place}"
    return replace(settings, notices=(*settings.notices, line))


def size_of(model, settings, plan, text_embedding=None) -> RecordingSize:
    """What a run of these settings will keep."""
    return measured(model, set(settings.record), plan, settings.guidance, settings.height,
                    settings.width, text_embedding)  # fmt: skip


def tell(settings: Settings) -> None:
    """Print the notices of a run, but those that were told for all runs together."""
    for line in settings.notices:
        if line not in _told.get():
            notice(line)


@contextmanager
def told_together(model: LatentDiffusion, plans: list[tuple]) -> Iterator[None]:
    """One line for what the runs of a comparison keep, instead of one for each inside the block.

    `plans` are (settings, levels, plan) of each run. Errors: MemoryExceeded for all together.
    """
    sizes = [size_of(model, settings, plan) for settings, _, plan in plans]
    total, largest = sum(size.total for size in sizes), max(sizes, key=lambda size: size.total)
    if total > MOST_MEMORY:
        raise too_much(model, plans[sizes.index(largest)][0], sizes)
    if largest.inside:
        runs = f"the records of these {len(sizes)} runs will keep {size_text(total)}"
        notice(f"{runs}, the largest {largest}")
    token = _told.set(frozenset(settings.notices[-1] for settings, _, _ in plans if largest.inside))
    try:
        yield
    finally:
        _told.reset(token)


def check_disk(save_to: str | Path, size: RecordingSize) -> None:
    """Refuse a file that cannot be written, or whose disk has less room than twice the record."""
    try:
        path = Path(save_to)
        try_to_write(path)
        free = shutil.disk_usage(path.parent).free
    except (OSError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise InputError(
            f"save_to is {shown(str(save_to), 200)}, which cannot be written ({why}); a file in a "
            "folder that you may write to is allowed: choose another one"
        ) from None
    if free < 2 * size.total:
        raise MemoryExceeded(
            f"save_to is {shown(str(path))}: the run keeps {size} and needs twice that on the disk "
            f"while it is written, of which {size_text(free)} are free; choose another disk, or "
            "record less"
        )


# ---- cheaper choices --------------------------------------------------------------------------
def too_much(model, settings: Settings, sizes: list[RecordingSize]) -> MemoryExceeded:
    """The error for records that are over the limit: their size, the limit, cheaper choices."""
    total, runs = sum(size.total for size in sizes), len(sizes)
    what = "this run" if runs == 1 else f"each of {runs} runs, at most"
    largest = max(sizes, key=lambda size: size.total)
    choices = cheaper(model, settings, MOST_MEMORY // runs)
    told = "; ".join(f"{text} keeps {size_text(size.total * runs)}" for text, size in choices)
    file = 'generate with save_to="run.safetensors" writes the record to that file as it is made'
    return MemoryExceeded(
        f"recording needs {size_text(total)} of memory ({what}: {largest}); at most "
        f"{size_text(MOST_MEMORY)} are allowed. Cheaper: {told}. "
        + (f"Or: {file}" if runs == 1 else f"Or compare fewer runs at a time, or: {file}")
    )


def cheaper(model, settings: Settings, most: int) -> list[tuple[str, RecordingSize]]:
    """Up to three ways to keep less of this very run that fit, with their sizes, in order of merit.

    A way that alone does not fit is tried with fewer steps.
    """
    ways = [
        *_fewer_kinds(model, settings, most),
        *_one_block(model, settings, most),
        *_fewer_steps(model, settings, most),
        *_half_the_size(model, settings),
    ]
    found = {}
    for way in ways:
        for changed in (way, *_fewer_steps(model, way, most)):
            size = size_of(model, changed, _plan(model, changed))
            if size.total <= most:
                found.setdefault(_difference(settings, changed), size)
                break
    return list(found.items())[:3]


def _plan(model, settings: Settings) -> Plan:
    sampler = Sampler(settings.sampler["name"], settings.sampler["options"])
    steps = settings.num_steps + (model.schedule.final == "none")  # which makes one step fewer
    levels = model.schedule.levels(steps, settings.spacing)
    return make_plan(sampler, levels, model.schedule)


def _difference(settings: Settings, changed: Settings) -> str:
    """What one would type: `record={"attention"}` or `num_steps=12`."""
    names = ("num_steps", "height", "width")
    told = [
        f"{n}={getattr(changed, n)}" for n in names if getattr(settings, n) != getattr(changed, n)
    ]
    if changed.record != settings.record:
        inside = ", ".join(f'"{name}"' for name in changed.record)
        told.insert(0, f"record={{{inside}}}" if inside else "record=()")
    return ", ".join(told)


def _fewer_kinds(model, settings: Settings, most: int) -> Iterator[Settings]:
    """Kinds left out one after the other, the dearest first, until the rest fits or is nothing."""
    record = set(settings.record)
    changed, patterns = settings, sorted(record - set(KINDS))
    for name in (*GIVEN_UP[:2], *patterns, *GIVEN_UP[2:]):
        if name not in record:
            continue
        record.discard(name)
        if name == "heads":
            record.add("attention")  # their mean
        changed = replace(settings, record=tuple(sorted(record)))
        if size_of(model, changed, _plan(model, changed)).total <= most:
            break
    yield changed


def _one_block(model, settings: Settings, most: int) -> Iterator[Settings]:
    """The head means (or the self-attention, or the output) of the largest block that fits."""
    asked = [kind for kind in INSIDE if kind in settings.record]
    if not asked:
        return
    rest = {name for name in settings.record if name in ("predictions", "frames")}
    ending = INSIDE[asked[0]].removeprefix("*")
    blocks = dict.fromkeys(map(_block_of, chosen_taps(model, {asked[0]})))
    records = [tuple(sorted({*rest, f"{block}*{ending.lstrip('.')}"})) for block in blocks]
    sizes = {}
    for record in records:
        changed = replace(settings, record=record)
        sizes[record] = size_of(model, changed, _plan(model, changed)).total
    fitting = [record for record in records if sizes[record] <= most]
    best = max(fitting, key=sizes.get) if fitting else min(records, key=sizes.get)
    yield replace(settings, record=best)


def _block_of(tap: str) -> str:
    """`up_blocks.1.` of one of its taps; `mid_block.` has no number."""
    parts = tap.split(".")
    return ".".join(parts[: 1 if parts[0] == "mid_block" else 2]) + "."


def _fewer_steps(model, settings: Settings, most: int) -> Iterator[Settings]:
    """As many steps as fit."""
    size = size_of(model, settings, _plan(model, settings))
    fixed = size.total - size.per_step * size.num_steps
    steps = int((most - fixed) / size.per_step) - 1  # one less: a run of n steps has n + 1 latents
    fewest = max(1, SAMPLERS[settings.sampler["name"]].min_steps)
    if fewest <= steps < settings.num_steps:
        yield replace(settings, num_steps=steps)


def _half_the_size(model, settings: Settings) -> Iterator[Settings]:
    """A quarter of the pixels."""
    factor = model.size_factor
    half = [max(factor, n // 2 // factor * factor) for n in (settings.height, settings.width)]
    yield replace(settings, height=half[0], width=half[1])
