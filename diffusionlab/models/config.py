"""Reading `config.json` into frozen records: what we support, and a clear refusal of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ..errors import CheckpointError, shown

# what diffusers' EMAModel writes into the config of the weights that it averaged
EMA_NOTES = ("decay", "min_decay", "inv_gamma", "power", "optimization_step", "update_after_step",
             "use_ema_warmup")  # fmt: skip
MAX_CHANNELS, MAX_LAYERS, MAX_HEADS, MAX_GROUPS = 8192, 16, 1024, 1024
Config = TypeVar("Config")


def read_config(
    kind: type[Config], given: dict[str, Any], others: dict[str, Any], part: str
) -> Config:
    """A config record from the content of a `config.json`.

    Missing keys take diffusers' defaults; a switch that is off by default may be null (SDXL was
    published so); keys that start with `_` and an average's own are diffusers' notes.
    `others` are the defaults of keys that we do not support: another value there is a
    CheckpointError that names the key, as is a key that nobody knows unless it is null or false.
    """
    known = {field.name for field in fields(kind)}
    off = {field.name for field in fields(kind) if field.default is False}
    values = {}
    for key, value in given.items():
        if key.startswith("_") or key in EMA_NOTES or (value is None and key in off):
            continue
        value = _frozen(value)
        if key in known:
            values[key] = value
        elif key not in others and (value is None or value is False):
            continue
        elif key not in others:
            raise CheckpointError(
                f"{part} config has the key {shown(key)} = {shown(value)}, which is not known "
                "here: supported is the layout of Stable Diffusion 1.x, 2.x and XL"
            )
        elif value != others[key]:
            raise CheckpointError(
                f"{part} config has {key} = {shown(value)}; only {shown(others[key])} is "
                "supported: use a checkpoint in the layout of Stable Diffusion 1.x, 2.x or XL"
            )
    return kind(**values)


def write_config(config: Any, name: str) -> dict[str, Any]:
    """The `config.json` of a record, as diffusers reads it; None at a default is left out."""
    content: dict[str, Any] = {"_class_name": name}
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is None and field.default is not MISSING:
            continue
        content[field.name] = _thawed(value)
    return content


def _frozen(value: Any) -> Any:
    """Lists as tuples, and lists within a list, but no deeper ones."""
    lists = (list, tuple)
    if not isinstance(value, lists):
        return value
    return tuple(tuple(entry) if isinstance(entry, lists) else entry for entry in value)


def _thawed(value: Any) -> Any:
    return [_thawed(entry) for entry in value] if isinstance(value, tuple) else value


def refuse_unless(good: bool, part: str, key: str, value: Any, allowed: str) -> None:
    """CheckpointError naming key and value unless `good`."""
    if not good:
        raise CheckpointError(
            f"{part} config has {key} = {shown(value)}; {allowed} is allowed: check config.json"
        )


def is_size(value: Any, limit: int) -> bool:
    """Whether this is an integer from 1 to `limit` (True is none)."""
    return type(value) is int and 1 <= value <= limit


def check_sizes(config: Any, part: str, **limits: int) -> None:
    """Each named value of the config is an integer from 1 to its limit."""
    for key, limit in limits.items():
        value = getattr(config, key)
        refuse_unless(is_size(value, limit), part, key, value, f"an integer from 1 to {limit}")


def check_switches(config: Any, part: str) -> None:
    """Each option whose default is true or false is one of the two."""
    for field in fields(config):
        if isinstance(field.default, bool):
            value = getattr(config, field.name)
            refuse_unless(isinstance(value, bool), part, field.name, value, "true or false")


def check_channels(channels: Any, groups: int, part: str) -> None:
    """A list of at most 16 widths, each of which the groups of GroupNorm divide."""
    good = isinstance(channels, tuple) and 1 <= len(channels) <= MAX_LAYERS
    good = good and all(is_size(width, MAX_CHANNELS) for width in channels)
    allowed = f"a list of 1 to {MAX_LAYERS} integers from 1 to {MAX_CHANNELS}"
    refuse_unless(good, part, "block_out_channels", channels, allowed)
    for width in channels:
        divides = width % groups == 0
        refuse_unless(divides, part, "norm_num_groups", groups, f"a divisor of {width} channels")


def check_kinds(kinds: Any, blocks: int, allowed: tuple[str, ...], part: str, key: str) -> None:
    """A list of one allowed block type for each block."""
    good = isinstance(kinds, tuple) and len(kinds) == blocks and all(k in allowed for k in kinds)
    refuse_unless(good, part, key, kinds, f"{' or '.join(allowed)} for each of {blocks} blocks")


def check_number(value: Any, part: str, key: str, low: float, high: float) -> None:
    """A number strictly between `low` and `high`."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and low < value < high
    refuse_unless(good, part, key, value, f"a number between {low:g} and {high:g}")


def per_block(value: Any, blocks: int, limit: int, part: str, key: str) -> tuple[int, ...]:
    """One integer from 1 to `limit` per block, from one number for all or from a list."""
    entries = value if isinstance(value, tuple) else (value,) * blocks
    good = len(entries) == blocks and all(is_size(entry, limit) for entry in entries)
    allowed = f"an integer from 1 to {limit}, or a list with one for each of {blocks} blocks,"
    refuse_unless(good, part, key, value, allowed)
    return entries


def per_layer(
    value: Any, layers: Sequence[int], read: Sequence[bool], limit: int, part: str, key: str
) -> tuple[tuple[int, ...], ...]:
    """Integers from 1 to `limit` by block and layer; `layers` says how many layers a block has.

    `value` is one number for all, or a list with a number for each block, or with a list of one for
    each layer of it; that of a block that has no use for it (`read`) may have any length but 0.
    """
    entries = value if isinstance(value, tuple) else (value,) * len(layers)
    rows = tuple(
        entry if isinstance(entry, tuple) else (entry,) * count
        for entry, count in zip(entries, layers, strict=False)
    )
    good = len(entries) == len(layers) and all(
        row and (len(row) == count or not reads) and all(is_size(number, limit) for number in row)
        for row, count, reads in zip(rows, layers, read, strict=True)
    )
    allowed = (
        f"an integer from 1 to {limit}, or a list with one for each of {len(layers)} blocks or "
        f"with a list of one for each layer of a block ({shown([*layers])} layers),"
    )
    refuse_unless(good, part, key, value, allowed)
    return rows
