"""What `record=` may name, which taps that selects, and the shapes of what they will show."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch

from .errors import InputError, close_matches, shown
from .models import UNet, UNetConfig
from .models.conditioning import blank_text
from .pipeline import LatentDiffusion
from .taps import find_taps, matching, recording, rows
from .trace import to_numpy

CROSS, SELF = "*attn2.probabilities", "*attn1.probabilities"
INSIDE = {"attention": CROSS, "heads": CROSS, "self_attention": SELF, "blocks": "*.output"}
KINDS = ("predictions", "attention", "heads", "self_attention", "blocks", "frames")
Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]


def check_record(record: Iterable[str]) -> set[str]:
    """The names of what to keep, as a set."""
    names = list(record) if isinstance(record, Iterable) and not isinstance(record, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"record is {shown(record)}; a set of names is allowed, e.g. "
            '{"predictions", "attention"}: put the names into braces'
        )
    if "frames" in names and "predictions" not in names:
        raise InputError('record has "frames" without "predictions"; add "predictions"')
    return set(names)


def check_taps(model: LatentDiffusion, record: set[str]) -> None:
    """Refuse a name that is neither a kind of record nor a pattern of this U-Net's taps."""
    taps = find_taps(model.unet)
    for name in sorted(record - set(KINDS)):
        if not fnmatch.filter(taps, name):
            raise InputError(
                f"record has {shown(name)}: {close_matches(name, [*KINDS, *taps])}allowed are "
                f"{', '.join(KINDS)}, and patterns of the {len(taps)} tap names, which "
                "find_taps(model.unet) lists"
            )


def tap_patterns(record: set[str]) -> list[str]:
    """The tap patterns that a `record=` set asks for; names that are no kind are patterns."""
    named = [INSIDE[kind] for kind in KINDS if kind in record and kind in INSIDE]
    return list(dict.fromkeys([*named, *sorted(record - set(KINDS))]))


def chosen_taps(model: LatentDiffusion, record: set[str]) -> dict[str, str]:
    """Every tap that a `record=` set keeps, once: its name → the kind or pattern that asked."""
    patterns, found = tap_patterns(record), {}
    taps = find_taps(model.unet) if patterns else {}
    for pattern in patterns:
        kinds = [kind for kind, selects in INSIDE.items() if selects == pattern and kind in record]
        for name in matching(taps, pattern):
            found.setdefault(name, kinds[-1] if kinds else pattern)
    return found


def tap_shapes(
    model: LatentDiffusion, names: Iterable[str], latent: tuple[int, ...], heads: bool
) -> Shapes:
    """Shape and type of what each named tap shows of one row, as a trace keeps it.

    The network is run on torch's meta device, where tensors have shapes and no numbers; the model
    itself, and whoever watches it, is left alone. `latent` (channels, h, w).
    """
    names = list(names)
    if not names:
        return {}
    shapes = _shapes(model.unet.config, model.dtype, tuple(latent), model.context_length, heads)
    return {name: shapes[name] for name in names}


@lru_cache(maxsize=16)
def _shapes(config: UNetConfig, dtype: torch.dtype, latent, tokens: int, heads: bool) -> Shapes:
    with torch.device("meta"):
        network = UNet(config).to(dtype)
        sample, time = torch.zeros((1, *latent), dtype=dtype), torch.zeros(())
        text = blank_text(config, tokens).to(dtype)
    with torch.inference_mode(), rows(slice(None)), recording(network, ["*"], heads) as tape:
        network(sample, time, text)
    return {
        name: (tuple(seen[0].shape[1:]), kept_type(seen[0].dtype)) for name, seen in tape.items()
    }


def kept_type(dtype: torch.dtype) -> np.dtype:
    """The type in which a trace keeps values of a torch type."""
    return to_numpy(torch.empty(0, dtype=dtype, device="cpu")).dtype
