"""Named places inside a network where an interesting tensor is born, and the way to watch them.

    with recording(unet, ["*attn2.probabilities"]) as record:
        unet(sample, timestep, text)
    record["mid_block.attentions.0.transformer_blocks.0.attn2.probabilities"]  # list of tensors

Nobody watching: a tap hands its value on and costs one attribute look-up. A watcher sees the batch
rows that `rows(...)` selects (in a guided run: the prompt's). It returns None, and nothing changes
anywhere, or a new tensor of the shape that it was given, which takes the place of those rows.
(`every_row=True` asks for the whole batch instead, both branches of guidance.)
Watchers belong to one model and are taken away when their `with` block ends, however it ends.
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
MOST_AT_ONCE = 2**26  # attention probabilities of all heads together: 268 MB in float32
_selected: ContextVar[slice] = ContextVar("rows", default=slice(None))


@dataclass(frozen=True, eq=False)
class Watch:
    """One watcher on one tap; `heads` asks attention taps for every head instead of their mean."""

    function: Watcher
    name: str
    heads: bool
    every_row: bool = False

    @property
    def rows(self) -> slice:
        """The rows of the batch that it is shown."""
        return slice(None) if self.every_row else _selected.get()

    def __call__(self, value: torch.Tensor) -> torch.Tensor | None:
        """What the watcher puts in the place of the value; None leaves it."""
        answer = self.function(self.name, value)
        if answer is None:
            return None
        if not isinstance(answer, torch.Tensor) or answer.shape != value.shape:
            given = tuple(answer.shape) if isinstance(answer, torch.Tensor) else shown(answer)
            raise InputError(
                f"the watcher of tap {self.name} returned {given}; None or a tensor of shape "
                f"{tuple(value.shape)} is allowed: return a changed copy of what it was given"
            )
        return answer


class Tap:
    """The identity, with a place for watchers; its name is its path inside the module.

    Keep it as an attribute of an `nn.Module`, or in a tuple there, and call it on the value.
    """

    __slots__ = ("watches",)

    def __init__(self):
        self.watches: tuple[Watch, ...] = ()

    @property
    def watched(self) -> bool:
        """Whether anyone looks at this tap."""
        return bool(self.watches)

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        for watch in self.watches:
            seen = value[watch.rows]
            answer = watch(seen) if len(seen) else None
            if answer is not None:
                value = value.clone()
                value[watch.rows] = answer.to(value.dtype)
        return value


class AttentionTap(Tap):
    """A tap on attention probabilities, which fused attention never forms.

    A watcher is shown float16 (rows, height, width, tokens), the mean over heads, or, if it asked
    for heads, (rows, heads, height, width, tokens). What it returns, in any float dtype and not
    normalised, replaces the probabilities of those rows; a mean then serves every head. To change
    one token's share and nothing else, ask for heads.
    """

    __slots__ = ()

    def __call__(self, query, key, size: tuple[int, int]) -> tuple[slice, torch.Tensor] | None:
        """Show the probabilities to the watchers; query and key (batch, heads, places, head width).

        Returns the rows and their float32 (rows, heads, height · width, tokens) if a watcher
        replaced them, else None. Only the rows that someone sees are computed, in float32, beside
        the fused result.
        """
        wide = any(watch.every_row for watch in self.watches)
        rows = slice(None) if wide else _selected.get()
        query, key = query[rows].float(), key[rows].float()
        if not len(query):
            return None
        whole = any(watch.heads for watch in self.watches)
        probabilities = probabilities_of(query, key, whole)  # (rows, heads or 1, places, tokens)
        replaced = False
        for watch in self.watches:
            chosen = watch.rows if wide else slice(None)
            seen = probabilities[chosen] if watch.heads else probabilities[chosen].mean(dim=1)
            answer = watch(seen.half().unflatten(-2, size)) if len(seen) else None
            if answer is not None:
                flat = answer.to(probabilities).flatten(-3, -2)
                probabilities = probabilities.clone()
                probabilities[chosen] = flat if watch.heads else flat[:, None]
                replaced = True
        return (rows, probabilities) if replaced else None


def probabilities_of(query: torch.Tensor, key: torch.Tensor, heads: bool) -> torch.Tensor:
    """softmax(Q Kᵀ / √d), float32 (rows, heads, places, tokens), of (rows, heads, …, head width).

    Where the heads are not asked for and all of them together would be large (self-attention of a
    large picture), their mean (rows, 1, places, tokens), taken one by one.
    """
    count = query.shape[1]
    if heads or query.shape[:-1].numel() * key.shape[-2] <= MOST_AT_ONCE:
        return _scores(query, key).softmax(dim=-1)
    mean = 0.0
    for head in range(count):
        scores = _scores(query[:, head : head + 1], key[:, head : head + 1])
        mean = mean + scores.softmax(dim=-1) / count
    return mean


def _scores(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Q Kᵀ / √d, scaled inside the product: one pass over the largest tensor less."""
    flat, against = query.flatten(0, 1), key.flatten(0, 1).transpose(-1, -2)
    scale = query.shape[-1] ** -0.5
    scores = torch.baddbmm(flat.new_empty(1), flat, against, beta=0, alpha=scale)
    return scores.unflatten(0, query.shape[:2])


def find_taps(module: nn.Module) -> dict[str, Tap]:
    """Every tap of a module by its dotted path, in the order of construction.

    Taps in a tuple are numbered: `down_blocks.0.skips.1`.
    """
    found = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            taps = enumerate(value) if isinstance(value, tuple) else [(None, value)]
            for number, tap in taps:
                if isinstance(tap, Tap):
                    names = (path, name, "" if number is None else str(number))
                    found[".".join(filter(None, names))] = tap
    return found


def matching(taps: Mapping[str, Tap], pattern: str) -> list[str]:
    """The names that a glob pattern selects; none is an InputError with close matches."""
    known = isinstance(pattern, str)
    names = [name for name in taps if known and fnmatch.fnmatchcase(name, pattern)]
    if not names:
        raise InputError(
            f"{shown(pattern)} matches none of the {len(taps)} taps: "
            f"{close_matches(str(pattern), taps)}find_taps(model.unet) lists them; "
            "* stands for anything"
        )
    return names


@contextmanager
def watching(
    module: nn.Module,
    watchers: Mapping[str, Watcher],
    heads: bool = False,
    every_row: bool = False,
) -> Iterator[None]:
    """Call `function(name, value)` at every tap that its glob pattern selects, inside the block.

    None leaves the value; a tensor of the same shape replaces it for everything downstream (see
    `AttentionTap` for probabilities). Several watchers of one tap are asked in turn, each seeing
    what the last one left. heads: attention taps show every head instead of their mean. every_row:
    the whole batch is shown, both branches of guidance.
    Errors: InputError for a pattern that selects nothing, before any watcher is placed, and, while
    the network runs, for a returned tensor of another shape; a watcher's own errors pass through.
    """
    taps = find_taps(module)
    placed = [
        (taps[name], Watch(function, name, heads, every_row))
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
def unwatched(module: nn.Module) -> Iterator[None]:
    """Nobody looks at any tap of a module inside the block; the watchers are back after it."""
    kept = [(tap, tap.watches) for tap in find_taps(module).values()]
    try:
        for tap, _ in kept:
            tap.watches = ()
        yield
    finally:
        for tap, watches in kept:
            tap.watches = watches


def is_watched(module: nn.Module) -> bool:
    """Whether anyone looks at any tap of a module."""
    return any(tap.watched for tap in find_taps(module).values())


class Tape:
    """The watcher that only keeps, and so can change nothing."""

    def __init__(self) -> None:
        self.record: dict[str, list[torch.Tensor]] = {}

    def __call__(self, name: str, value: torch.Tensor) -> None:
        self.record.setdefault(name, []).append(value.detach())


@contextmanager
def recording(
    module: nn.Module, patterns: Iterable[str], heads: bool = False
) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Keep every value that the taps of these patterns pass on, as name → list of tensors.

    One entry per call of the network, on its device: (selected rows, …). heads: as in `watching`.
    """
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise InputError(
            f"patterns is {shown(patterns)}; a list of tap names is allowed: write it in brackets"
        )
    tape = Tape()
    with watching(module, dict.fromkeys(patterns, tape), heads):
        yield tape.record


def selected_rows() -> slice:
    """The rows of the batch that watchers are shown in this thread."""
    return _selected.get()


@contextmanager
def rows(chosen: slice) -> Iterator[None]:
    """Show watchers these rows of the batch only, in this thread, inside the block.

    An empty slice shows nothing and costs nothing. Errors: InputError for anything but a slice.
    """
    if not isinstance(chosen, slice):
        raise InputError(
            f"rows is {shown(chosen)}; a slice of the batch is allowed: slice(1, None) leaves out "
            "the first row"
        )
    token = _selected.set(chosen)
    try:
        yield
    finally:
        _selected.reset(token)
