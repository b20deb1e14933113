"""What of the recorded attention is meant: words, layers, sizes, steps and heads, each checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.trace import Tokens, Trace
from diffusionlab.trace.words import only_place, places_of, positions_of, word_names

CROSS, SELF = "attn2.probabilities", "attn1.probabilities"  # how the names of taps end
SPECIAL = {"start": "<start>", "end": "<end>", "pad": "<pad>"}
_PLACE = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?(?:\.attentions\.(\d+))?")
_DEEPER = re.compile(r"transformer_blocks\.([1-9]\d*)")


# ---- words ------------------------------------------------------------------------------------
def token_groups(tokens: Tokens | None, count: int) -> dict[str, tuple[int, ...]]:
    """Name → positions, in the prompt's order: "<start>", its words, "<end>", "<pad>".

    A word that is there twice is "red#1" and "red#2". Without tokens (a redacted prompt) every
    position is a group, "token 0" and so on. Raises InputError if the number of positions differs.
    """
    if tokens is None:
        return {f"token {i}": (i,) for i in range(count)}
    if len(tokens.kinds) != count:
        raise InputError(
            f"the maps have {count} tokens and the record of the prompt {len(tokens.kinds)}; they "
            "must agree: take both from one run"
        )
    names = word_names(tokens.words)
    groups: dict[str, list[int]] = {}
    for i, (kind, word) in enumerate(zip(tokens.kinds, tokens.word_of, strict=True)):
        name = SPECIAL.get(kind) or (tokens.pieces[i] if word is None else names[word])
        groups.setdefault(name, []).append(i)
    return {name: tuple(positions) for name, positions in groups.items()}


def content_words(groups: Mapping[str, Any]) -> tuple[str, ...]:
    """The user's words among the groups; all groups if the prompt has none."""
    return tuple(name for name in groups if name not in SPECIAL.values()) or tuple(groups)


def chosen_groups(
    tokens: Tokens | None, count: int, words: str | Iterable[str] | None
) -> dict[str, tuple[int, ...]]:
    """The groups of the words that were asked for; None: every word of the prompt.

    Words are named as in `trace.words`: case does not matter, several that follow each other
    ("sailing boat") are one group; "token 5" is always position 5. Raises InputError for a word
    that is not in the prompt, and for one that is there twice.
    """
    groups = token_groups(tokens, count)
    if words is None:
        return {name: groups[name] for name in content_words(groups)}
    single = isinstance(words, str) or not isinstance(words, Iterable)
    asked = [words] if single else list(words)
    if not asked:
        raise InputError(f"words is empty; allowed are {listed(groups)}; name at least one")
    return dict(_group(word, groups, tokens, count) for word in asked)


def _group(
    word: Any, groups: Mapping[str, tuple], tokens: Tokens | None, count: int
) -> tuple[str, tuple[int, ...]]:
    """The name and the positions of what was asked for."""
    words = tokens.words if tokens is not None else ()
    names = word_names(words)
    others = {f"token {i}": (i,) for i in range(count)} | {
        name: positions for name, positions in groups.items() if name not in names
    }
    plain = word.casefold() if isinstance(word, str) else word
    for name, positions in others.items():
        if name.casefold() == plain:
            return name, positions
    place = only_place(words, word)
    if place is None:
        raise _no_word(word, groups, tokens)
    return names[place[0]] if len(place) == 1 else word, positions_of(tokens, [place])


def _no_word(word: Any, groups: Mapping[str, tuple], tokens: Tokens | None) -> InputError:
    cut = places_of(getattr(tokens, "dropped_words", ()), word)
    return InputError(
        f"the word {shown(word)} {'was cut off' if cut else 'is not in'} the prompt: "
        f"{close_matches(str(word), groups)}allowed are {listed(groups)}, and positions such as "
        "'token 0'; choose one of them"
    )


def listed(names: Iterable[Any], most: int = 24) -> str:
    """Names in quotes with commas, at most so many."""
    names = [shown(name, 40) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")


# ---- layers -----------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Layer:
    """One attention layer as recorded: `array` (calls, heads, h, w, tokens); heads 1 if a mean."""

    tap: str
    array: np.ndarray
    has_heads: bool

    @property
    def name(self) -> str:
        """The short name of a tap: "down 1.0" (block 1, attention 0), "mid", "up 0.2"."""
        found = _PLACE.search(self.tap)
        if found is None:
            return self.tap.rpartition("attn")[0].strip(".") or self.tap
        kind, block, attention = found.groups()
        deeper = _DEEPER.search(self.tap)
        numbers = [block, attention if block else None, deeper and deeper[1]]
        return f"{kind} {'.'.join(n for n in numbers if n)}".strip()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in cells."""
        return self.array.shape[2:4]


def layers_of(attention: Mapping[str, np.ndarray], ending: str = CROSS) -> list[Layer]:
    """The layers whose taps end so, in the order of the record."""
    return [
        Layer(tap, array if array.ndim == 5 else array[:, None], array.ndim == 5)
        for tap, array in attention.items()
        if tap.endswith(ending)
    ]


def cross_layers(attention: Mapping[str, np.ndarray]) -> list[Layer]:
    """The cross-attention layers; InputError that says how to record them if there are none."""
    found = layers_of(attention)
    if not found:
        raise InputError(
            f"record with {len(attention)} taps, none of them cross-attention: at least one is "
            'needed; run again with record={"predictions", "attention"}'
        )
    return found


def layers_of_run(trace: Trace) -> list[Layer]:
    """The cross-attention layers of a run of at least one step. Raises InputError."""
    if not trace.steps:
        raise InputError(
            "a run of 0 steps has no attention: it was stopped before its first step; at least one "
            "is needed: run it again and let it begin"
        )
    return cross_layers(trace.attention)


def chosen_layers(
    found: Sequence[Layer], layers: str | Iterable[str] | None, resolution: Any
) -> list[Layer]:
    """Layers by short name or tap, and by resolution ("16×16", (16, 16) or "finest")."""
    told = listed(f"{layer.name} ({size_of(layer.shape)})" for layer in found)
    kept = list(found)
    if layers is not None:
        single = isinstance(layers, str) or not isinstance(layers, Iterable)
        asked = [layers] if single else list(layers)
        strange = [n for n in asked if n not in {x for y in found for x in (y.name, y.tap)}]
        if strange or not asked:
            raise InputError(f"layers={shown(layers)}; allowed are {told}; choose one of them")
        kept = [layer for layer in kept if {layer.name, layer.tap} & set(asked)]
    if resolution is not None:
        size = _resolution(resolution, kept)
        kept = [layer for layer in kept if layer.shape == size]
    if not kept:
        raise InputError(
            f"resolution={shown(resolution)} (height × width in cells) has none of the chosen "
            f"layers; recorded are {told}; choose one of these sizes"
        )
    return kept


def size_of(shape: Sequence[int]) -> str:
    """(16, 24) → "16×24"."""
    return "×".join(str(n) for n in shape)


def _resolution(asked: Any, layers: Sequence[Layer]) -> tuple[int, ...]:
    if asked == "finest":
        return max(layer.shape for layer in layers)
    parts = re.split("[x×]", asked) if isinstance(asked, str) else asked
    try:
        return tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        return ()


# ---- steps and heads --------------------------------------------------------------------------
def calls_of_steps(trace: Trace, layer: Layer) -> list[slice]:
    """Which network calls each step made; InputError if the record holds another number of them."""
    ends = np.cumsum([0, *(step.network_calls for step in trace.steps)])
    if ends[-1] != len(layer.array):
        raise InputError(
            f"{layer.name} has {len(layer.array)} recorded calls, but the {len(trace.steps)} steps "
            f"of this run made {ends[-1]}; they must agree: record the run again"
        )
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


def chosen_numbers(what: str, asked: Any, count: int, told: str = "") -> tuple[int, ...]:
    """Whole numbers from 0 to count − 1; None: all of them. Raises InputError."""
    if asked is None:
        return tuple(range(count))
    single = isinstance(asked, (int, np.integer)) and not isinstance(asked, bool)
    given = [asked] if single else list(asked) if isinstance(asked, Iterable) else [None]
    whole = [isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in given]
    good = [ok and 0 <= n < count for ok, n in zip(whole, given, strict=True)]
    if not given or not all(good):
        raise InputError(
            f"{what}={shown(asked)}; whole numbers from 0 to {count - 1} are allowed{told}; "
            "choose one or several of them"
        )
    return tuple(dict.fromkeys(int(n) for n in given))


def chosen_heads(layers: Sequence[Layer], heads: Any, by: str | None) -> list[tuple[int, ...]]:
    """The heads of each layer; None: all. InputError where only their mean was recorded."""
    if heads is None and by != "head":
        return [tuple(range(layer.array.shape[1])) for layer in layers]
    if not all(layer.has_heads for layer in layers):
        raise InputError(
            "single heads were asked for, and only their mean was recorded; leave heads away, or "
            'run again with record={"predictions", "attention", "heads"}'
        )
    return [
        chosen_numbers("heads", heads, layer.array.shape[1], f" in layer {layer.name}")
        for layer in layers
    ]
