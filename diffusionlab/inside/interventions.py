"""Change one thing inside the network while a `with` block lasts, and see what the picture says.

    with zero_heads(model, "mid_block*", heads=[3]):
        changed = generate(model, "a red car", seed=1)

One mechanism: a watcher of a tap returns another tensor (see `taps.watching`). When the block ends,
however it ends, nothing is left of it. Blocks nest; each sees what the one around it left. `steps`
are steps of a run (`range(10, 20)`, `[0, 1]`; None is all of them) and count from 0.
"""

from __future__ import annotations

import fnmatch
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from ..conditioning import check_embedding, joined, tensor_of
from ..errors import InputError, close_matches, shown
from ..pipeline import LatentDiffusion
from ..plan import current_step
from ..taps import find_taps, matching, watching
from ..trace import TextEmbedding, Tokens, Trace
from ..trace.words import places_of, positions_of, word_names

Steps = Iterable[int] | None
CROSS = "attn2"  # cross-attention; attn1 is self-attention


@contextmanager
def zero_tap(model: LatentDiffusion, name: str, steps: Steps = None) -> Iterator[None]:
    """Put zeros in the place of a tap's value, in both branches: a skip connection, a block.

    name: a tap or a glob pattern of `find_taps(model.unet)`, attention probabilities excepted (for
    those: `zero_heads`). Errors: InputError.
    """
    if any(tap.endswith("probabilities") for tap in matching(find_taps(model.unet), name)):
        raise InputError(
            f"name is {shown(name)}, which selects attention probabilities; any other tap is "
            "allowed: use zero_heads for attention"
        )
    now = during(steps)
    change = {name: lambda tap, value: torch.zeros_like(value) if now() else None}
    with watching(model.unet, change, every_row=True):
        yield


@contextmanager
def zero_heads(
    model: LatentDiffusion,
    layers: str = f"*{CROSS}",
    heads: Iterable[int] = (0,),
    steps: Steps = None,
) -> Iterator[None]:
    """Silence heads of attention layers: what they would add is 0, in both branches.

    layers: a glob pattern of attention modules ("*attn2" is all cross-attention, "mid_block*attn1"
    the middle's self-attention). Errors: InputError for a head that a layer lacks.
    """
    chosen, now = _numbers("heads", heads), during(steps)
    found = attention_layers(model, layers)
    for layer in found:
        count = model.unet.get_submodule(layer).heads
        if max(chosen) >= count:
            raise InputError(
                f"heads is {shown(chosen)}, but {layer} has {count}; 0 to {count - 1} are allowed"
            )

    def change(name: str, value: torch.Tensor) -> torch.Tensor | None:
        if not now():
            return None
        value = value.clone()  # (rows, heads, tokens, width of a head)
        value[:, chosen] = 0
        return value

    with watching(model.unet, {f"{layer}.values": change for layer in found}, every_row=True):
        yield


@contextmanager
def reweight_words(
    model: LatentDiffusion,
    tokens: Tokens,
    weights: Mapping[str, float],
    steps: Steps = None,
    layers: str = f"*{CROSS}",
) -> Iterator[None]:
    """Multiply how much of a word is read: its probabilities times a weight, not summing to 1 then.

    weights: word of the prompt → weight (0 removes it, 2 doubles it). "red" is every "red" of the
    prompt, "red#2" the second one alone (`trace.words`).
    Scaling a word's values is the same product as scaling its probabilities (Hertz et al. 2022,
    arXiv 2208.01626, section 3.2, attention re-weighting). Conditional branch only.
    Errors: InputError for a word that the prompt lacks, or a weight that is not finite.
    """
    scale = torch.tensor(_token_weights(tokens, weights), device=model.device)
    now = during(steps)

    def change(name: str, value: torch.Tensor) -> torch.Tensor | None:
        return value * scale.to(value.dtype)[:, None] if now() else None

    found = cross_layers(model, layers)
    with watching(model.unet, {f"{layer}.values": change for layer in found}):
        yield


@contextmanager
def swap_text(
    model: LatentDiffusion,
    text_embedding: TextEmbedding,
    layers: str = f"*{CROSS}",
    steps: Steps = None,
) -> Iterator[None]:
    """Let cross-attention layers read another text: at some layers, at some steps, or both.

    steps=range(10, 20) of 20 is prompt switching: the first half hears the run's own prompt.
    Conditional branch only. Errors: InputError for a text of another length or width.
    """
    check_embedding(model, text_embedding)
    found, now = cross_layers(model, layers), during(steps)
    hidden = joined(model, text_embedding)
    with torch.inference_mode():
        pairs = {
            layer: model.unet.get_submodule(layer).keys_values(hidden[None]) for layer in found
        }

    def change(name: str, value: torch.Tensor) -> torch.Tensor | None:
        layer, _, which = name.rpartition(".")
        return pairs[layer][which == "values"].expand_as(value) if now() else None

    names = [f"{layer}.{which}" for layer in found for which in ("keys", "values")]
    with watching(model.unet, dict.fromkeys(names, change)):
        yield


@contextmanager
def freeze_attention(
    model: LatentDiffusion, trace: Trace, layers: str = "*", steps: Steps = None
) -> Iterator[None]:
    """Use the attention maps of an earlier run: where to look is kept, what is read there is new.

    trace: a run with {"attention"} and, better, {"heads"} recorded (head means then serve every
    head); the same number of network calls and the same size. The k-th call of a layer inside the
    block takes its k-th recorded map (Hertz et al. 2022, arXiv 2208.01626, section 3.2).
    Conditional branch only: one run per block. Errors: InputError.
    """
    kept = {
        name: maps for name, maps in trace.attention.items()
        if name.endswith("probabilities") and fnmatch.fnmatchcase(_layer(name), layers)
    }  # fmt: skip
    if not kept:
        raise InputError(
            f"layers is {shown(layers)}; the trace holds {shown(sorted(trace.attention))}: record "
            'the earlier run with record={"predictions", "attention", "heads"}'
        )
    matching(find_taps(model.unet), next(iter(kept)))
    now, calls = during(steps), dict.fromkeys(kept, 0)

    def change(name: str, value: torch.Tensor) -> torch.Tensor | None:
        maps, call = kept[name], calls[name]
        calls[name] += 1
        if not now():
            return None
        if call >= len(maps) or maps.shape[1:] != value.shape[1:]:
            raise InputError(
                f"call {call} of {name} has maps {tuple(value.shape[1:])}; the trace recorded "
                f"{len(maps)} of {maps.shape[1:]}: one run of the same steps and size is allowed"
            )
        return tensor_of(maps[call], value.device)[None].expand_as(value)

    heads = next(iter(kept.values())).ndim == 5
    with watching(model.unet, dict.fromkeys(kept, change), heads=heads):
        yield


# ---- what they share ---------------------------------------------------------------------------
def during(steps: Steps) -> Callable[[], bool]:
    """Whether the network call that is being computed belongs to one of the steps."""
    if steps is None:
        return lambda: True
    wanted = frozenset(_numbers("steps", steps))

    def now() -> bool:
        step = current_step()
        if step is None:
            raise InputError(
                f"steps is {shown(sorted(wanted))}, but this network call belongs to no step; "
                "use generate or denoise, or leave steps out"
            )
        return step in wanted

    return now


def _numbers(name: str, given: Iterable[int]) -> list[int]:
    """Whole numbers from 0 on, at least one."""
    values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not values or not all(type(value) is int and value >= 0 for value in values):
        raise InputError(
            f"{name} is {shown(given)}; whole numbers from 0 on are allowed, e.g. {name}=[0, 1]"
        )
    return values


def attention_layers(model: LatentDiffusion, pattern: str) -> list[str]:
    """The attention modules of the U-Net that a glob pattern selects; none is an InputError."""
    known = [_layer(name) for name in find_taps(model.unet) if name.endswith("probabilities")]
    found = [
        name for name in known if isinstance(pattern, str) and fnmatch.fnmatchcase(name, pattern)
    ]
    if not found:
        raise InputError(
            f"layers is {shown(pattern)}, which selects none of {len(known)} attention layers: "
            f'{close_matches(str(pattern), known)}"*attn2" is all cross-attention'
        )
    return found


def cross_layers(model: LatentDiffusion, pattern: str) -> list[str]:
    """The cross-attention modules among those that a pattern selects; none is an InputError."""
    found = [name for name in attention_layers(model, pattern) if name.endswith(CROSS)]
    if not found:
        raise InputError(
            f'layers is {shown(pattern)}, which selects no cross-attention; "*attn2" is all of it'
        )
    return found


def _layer(name: str) -> str:
    return name.removesuffix(".probabilities")


def _token_weights(tokens: Tokens, weights: Mapping[str, float]) -> list[float]:
    """One weight per position of the prompt; of two names for one word the later one counts."""
    if not isinstance(weights, Mapping) or not weights:
        raise InputError(
            f'weights is {shown(weights)}; word: weight is allowed, e.g. {{"red": 2.0}}'
        )
    found = [1.0] * len(tokens.word_of)
    for word, weight in weights.items():
        places = places_of(tokens.words, word)
        if not places:
            known = ", ".join(word_names(tokens.words))
            raise InputError(
                f"{shown(word)} is not in the prompt; its words are {known}: name one of them"
            )
        real = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
        if not real or not math.isfinite(weight):
            raise InputError(
                f"the weight of {word!r} is {shown(weight)}; a finite number is allowed: 0 removes "
                "the word, 1 leaves it, 2 doubles it"
            )
        for position in positions_of(tokens, places):
            found[position] = float(weight)
    return found
