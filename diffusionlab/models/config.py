"""Reading `config.json` into frozen records: what we support, and a clear refusal of the rest."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ..errors import CheckpointError, shown

MAX_CHANNELS, MAX_LAYERS = 8192, 16
Config = TypeVar("Config")


def read_config(kind: type[Config], given: dict[str, Any], others: dict[str, Any], part: str) -> Config:
    """A config record from the content of a `config.json`.

    Missing keys take diffusers' defaults. `others` are the defaults of keys that we do not support:
    another value there is a CheckpointError that names the key, as is a key that nobody knows.
    """
    known = {field.name for field in fields(kind)}
    values = {}
    for key, value in given.items():
        if key.startswith("_"):
            continue
        value = tuple(value) if isinstance(value, list) else value
        if key in known:
            values[key] = value
        elif key not in others:
            raise CheckpointError(
                f"{part} config has the key {shown(key)} = {shown(value)}, which is not known here; "
                "supported is the layout of Stable Diffusion 1.x and 2.x"
            )
        elif value != others[key]:
            raise CheckpointError(
                f"{part} config has {key} = {shown(value)}; only {shown(others[key])} is supported: "
                "use a checkpoint in the layout of Stable Diffusion 1.x or 2.x"
            )
    return kind(**values)


def write_config(config: Any, name: str) -> dict[str, Any]:
    """The `config.json` of a record, as diffusers reads it; None at a default is left out."""
    content: dict[str, Any] = {"_class_name": name}
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is None and field.default is not MISSING:
            continue
        content[field.name] = list(value) if isinstance(value, tuple) else value
    return content


def refuse_unless(good: bool, part: str, key: str, value: Any, allowed: str) -> None:
    """CheckpointError naming key and value unless `good`."""
    if not good:
        raise CheckpointError(
            f"{part} config has {key} = {shown(value)}; {allowed} is allowed: check config.json"
        )


def check_sizes(part: str, limit: int, **sizes: Any) -> None:
    """Each value, or each entry of a tuple, is an integer from 1 to `limit`."""
    for key, value in sizes.items():
        entries = value if isinstance(value, tuple) else (value,)
        good = bool(entries) and all(type(n) is int and 1 <= n <= limit for n in entries)
        refuse_unless(good, part, key, value, f"an integer from 1 to {limit} (or a list of them)")


def per_block(value: int | tuple[int, ...], blocks: int, part: str, key: str) -> tuple[int, ...]:
    """One entry per block, from one number for all or from a list."""
    entries = value if isinstance(value, tuple) else (value,) * blocks
    refuse_unless(len(entries) == blocks, part, key, value, f"one entry for each of {blocks} blocks")
    return entries
