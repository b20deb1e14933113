"""Named places inside a network where an interesting tensor is born, and the way to watch them.

    with recording(unet, ["*attn2.probabilities"]) as record:
        unet(sample, timestep, text)
    record["mid_block.attentions.0.transformer_blocks.0.attn2.probabilities"]  # list of tensors

Nobody watching: a tap hands its value on and costs one attribute look-up. A watcher sees the batch
rows that `rows(...)` selects (in a guided run: the prompt's), and may return a tensor of the same
shape to put in their place. Watchers are taken away when the `with` block ends, however it ends.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn

from .errors import InputError, close_matches, shown

Watcher = Callable[[str, torch.Tensor], torch.Tensor | None]
_selected: ContextVar[slice] = ContextVar("rows", default=slice(None))


@dataclass(frozen=True)
class Watch:
    """One watcher on one tap; `heads` asks attention taps for every head instead of their mean."""

    function: Watcher
    name: str
    heads: bool

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        answer = self.function(self.name, value)
        if answer is None:
            return value
        if not isinstance(answer, torch.Tensor) or answer.shape != value.shape:
            given = tuple(answer.shape) if isinstance(answer, torch.Tensor) else shown(answer)
            raise InputError(
                f"the watcher of tap {self.name} returned {given}; None or a tensor of shape "
                f"{tuple(value.shape)} is allowed: return what it was given, changed in place or not"
            )
        return answer


class Tap:
    """The identity, with a place for watchers. Its name is its path inside the module."""

    __slots__ = ("watches",)

    def __init__(self):
        self.watches: tuple[Watch, ...] = ()

    @property
    def watched(self) -> bool:
        """Whether anyone looks at this tap."""
        return bool(self.watches)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        if not self.watches:
            return value
        chosen = _selected.get()
        before = seen = value[chosen]
        if not len(seen):
            return value
        for watch in self.watches:
            seen = watch(seen)
        if seen is before:
            return value
        changed = value.clone()
        changed[chosen] = seen.to(value.dtype)
        return changed


class AttentionTap(Tap):
    """A tap on attention probabilities, which fused attention never forms.

    `__call__(query, key, size)` computes them beside the fused result for the selected rows only:
    float16, (rows, height, width, tokens), the mean over heads; (rows, heads, height, width, tokens)
    for a watcher that asked for heads. It returns the probabilities that a watcher put in their
    place, (rows, heads, queries, tokens), or None.
    """

    __slots__ = ()

    def __call__(self, query, key, size):
        chosen = _selected.get()
        query, key = query[chosen].float(), key[chosen].float()  # (rows, heads, queries, width)
        if not len(query):
            return None
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        exact = scores.softmax(dim=-1)  # (rows, heads, queries, tokens)
        replaced = None
        for watch in self.watches:
            shown_heads = exact if watch.heads else exact.mean(dim=1)
            value = shown_heads.half().unflatten(-2, size)
            answer = watch(value)
            if answer is not value:
                flat = answer.float().flatten(-3, -2)
                replaced = flat if watch.heads else flat[:, None].expand_as(exact)
        return replaced


def find_taps(module: nn.Module) -> dict[str, Tap]:
    """Every tap of a module by its dotted path, in the order of construction."""
    found = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Tap):
                found[f"{path}.{name}".lstrip(".")] = value
    return found


def matching(taps: Mapping[str, Tap], pattern: str) -> list[str]:
    """The names that a glob pattern selects; none is an InputError with close matches."""
    names = [name for name in taps if fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise InputError(
            f"{shown(pattern)} matches none of the {len(taps)} taps: "
            f"{close_matches(pattern, taps)}find_taps(model.unet) lists them; * stands for anything"
        )
    return names


@contextmanager
def watching(module: nn.Module, watchers: Mapping[str, Watcher], heads: bool = False) -> Iterator[None]:
    """Call `function(name, value)` at every tap that its glob pattern selects, inside the block.

    A returned tensor replaces the value (attention then computes explicitly for those rows).
    Errors: InputError for a pattern that selects nothing, before any watcher is placed.
    """
    taps = find_taps(module)
    placed = [
        (taps[name], Watch(function, name, heads))
        for pattern, function in watchers.items()
        for name in matching(taps, pattern)
    ]
    try:
        for tap, watch in placed:
            tap.watches = (*tap.watches, watch)
        yield
    finally:
        for tap, watch in placed:
            tap.watches = tuple(w for w in tap.watches if w is not watch)


@contextmanager
def recording(module: nn.Module, patterns: Iterable[str], heads: bool = False
              ) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Keep every value that the taps of these patterns pass on, as name → list of tensors."""
    record: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        record.setdefault(name, []).append(value.detach())

    with watching(module, dict.fromkeys(patterns, keep), heads):
        yield record


@contextmanager
def rows(chosen: slice) -> Iterator[None]:
    """Show watchers these rows of the batch only, in this thread, inside the block."""
    token = _selected.set(chosen)
    try:
        yield
    finally:
        _selected.reset(token)


def selected_rows() -> slice:
    """The rows that watchers see in this thread."""
    return _selected.get()
