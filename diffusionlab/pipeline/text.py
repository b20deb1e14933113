"""The text half of a checkpoint: transformers' CLIP tokenizer and text encoder, from plain files.

Both are built from their vocabularies and numbers alone. A folder's config cannot choose a class,
an attention kernel or a file: only the keys listed here are handed on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, shown
from .files import AGAIN, inside, place, read_json, read_text
from .weights import Entry

TEXT_KEYS = {
    "vocab_size": int,
    "hidden_size": int,
    "intermediate_size": int,
    "projection_dim": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "max_position_embeddings": int,
    "layer_norm_eps": float,
    "hidden_act": str,
    "pad_token_id": int,
    "bos_token_id": int,
    "eos_token_id": int,
}
ACTIVATIONS = ("quick_gelu", "gelu")
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
ADDED_IN = ("tokenizer_config", "added_tokens", "tokenizer")  # where added tokens may be listed
MOST_ADDED = 10_000  # thirty times as many take a quarter of a minute
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token
_PREFIX = "text_model."  # published files have it; transformers ≥ 5.6 writes and builds without


def text_settings(config: Mapping[str, Any]) -> Any:
    """The CLIPTextConfig of a config; CheckpointError or ValueError for what it cannot be."""
    kind = config.get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        raise CheckpointError(
            f"text_encoder/config.json: model_type {shown(kind)} is not supported; only "
            "'clip_text_model' is read; use a Stable Diffusion 1.x, 2.x or XL checkpoint"
        )
    given = {key: config[key] for key in TEXT_KEYS if config.get(key) is not None}
    known = {key: _typed(key, TEXT_KEYS[key], value) for key, value in given.items()}
    if known.get("hidden_act", "quick_gelu") not in ACTIVATIONS:
        raise CheckpointError(
            f"text_encoder/config.json: hidden_act {shown(known['hidden_act'])} is not supported; "
            f"allowed are {', '.join(ACTIVATIONS)}; use another checkpoint"
        )
    # the narrowest imports there are; the model's takes more than twice as long as torch's
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.clip.configuration_clip import CLIPTextConfig

    try:
        return CLIPTextConfig(**known)
    except StrictDataclassError as error:
        raise ValueError(str(error).replace("\n", " ")) from None


def text_encoder(settings: Any, projects: bool = False) -> nn.Module:
    """The CLIPTextModel of a CLIPTextConfig.

    projects: a CLIPTextModelWithProjection, SDXL's second.
    """
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(settings)


def _typed(key: str, kind: type, value: Any) -> Any:
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise CheckpointError(
        f"text_encoder/config.json: {key} is {shown(value)}; a {kind.__name__} is allowed; {AGAIN}"
    )


def place_positions(encoder: nn.Module, device: torch.device) -> None:
    """The one buffer that no file holds: the position numbers 0 … context length - 1."""
    inner = getattr(encoder, "text_model", encoder)
    count = encoder.config.max_position_embeddings
    inner.embeddings.position_ids = torch.arange(count, device=device)[None]  # (1, tokens)


def rename_text_keys(found: Mapping[str, Entry], encoder: nn.Module) -> dict[str, Entry]:
    """File names → the names of this transformers' CLIPTextModel, with or without `text_model.`.

    The position numbers, which old files store as a tensor, are left out.
    """
    prefix = _PREFIX if hasattr(encoder, "text_model") else ""
    renamed = {
        name if name.startswith("text_projection.") else prefix + name.removeprefix(_PREFIX): entry
        for name, entry in found.items()
    }
    renamed.pop(f"{prefix}embeddings.position_ids", None)
    return renamed


def published_text_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that published checkpoints use, which every transformers release reads."""
    return {
        name if name.startswith("text_projection.") else _PREFIX + name.removeprefix(_PREFIX): t
        for name, t in state.items()
    }


# --- tokenizer ---------------------------------------------------------------------------------


def read_tokenizer(
    folder: Path, config: Mapping[str, Any], context_length: int, part: str = "tokenizer"
) -> Any:
    """A CLIPTokenizer from a checkpoint's folder: vocab.json + merges.txt or tokenizer.json.

    config: the contents of a tokenizer_config.json, for the special tokens; what was added to the
    vocabulary is told by the files beside it. CheckpointError if a piece is missing.
    """
    vocab, merges, whole = _vocabulary(folder, part)
    names = _special_tokens(folder, config, part)
    added = _added_tokens(folder, part, whole, set(names.values()))
    texts = _by_text(vocab, added)
    strange = [name for name in names.values() if name not in vocab and name not in texts]
    if strange:
        raise CheckpointError(
            f"tokenizer/vocab.json lacks the special token {shown(strange[0])}; every one that the "
            f"tokenizer's config names must be in it; {AGAIN}"
        )
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    # as from_pretrained hands them on: a special token that is listed has the flags listed there
    options = {key: texts.get(name, name) for key, name in names.items()}
    options |= {"model_max_length": context_length, "added_tokens_decoder": added}
    try:
        made = CLIPTokenizer(vocab, merges, **options)
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(
            f"the tokenizer's vocabulary and merges do not fit ({shown(str(error))}); {AGAIN}"
        ) from None
    for index, token in added.items():
        if (given := made.convert_tokens_to_ids(token.content)) != index:
            raise _bad_id(token.content, index, given)
    return made


def _vocabulary(
    folder: Path, part: str
) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, Any] | None]:
    """Vocabulary, merges, and the contents of tokenizer.json if they are from there."""
    contents, path = None, inside(folder, f"{part}/tokenizer.json", optional=True)
    if path and not inside(folder, f"{part}/vocab.json", optional=True):
        contents = read_json(path)
        model = contents.get("model")
        try:
            vocab = {**model["vocab"]}
            merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        except (TypeError, KeyError, AttributeError) as error:
            raise _bad_vocabulary(path, error) from None
        if set(map(type, chain.from_iterable(merges))) - {str}:
            raise _bad_vocabulary(path, "a merge is not two pieces")
    else:
        path = inside(folder, f"{part}/vocab.json")
        vocab = read_json(path)
        text = read_text(inside(folder, f"{part}/merges.txt"))
        lines = text.split("\n")[text.startswith("#version") :]
        # tuples: Python's collector, which lists keep busy for half a second, leaves them alone
        merges = list(map(tuple, map(str.split, filter(None, lines))))
    whole_numbers = set(map(type, vocab.values())) == {int}
    if not whole_numbers or sorted(vocab.values()) != list(range(len(vocab))):
        raise _bad_vocabulary(path, f"the ids are not 0 … {len(vocab) - 1}")
    if set(map(len, merges)) - {2}:
        raise _bad_vocabulary(path, "a merge is not two pieces")
    return vocab, merges, contents


def _bad_vocabulary(path: Path, reason: object) -> CheckpointError:
    return CheckpointError(f"{place(path)} is not a byte-pair vocabulary ({reason}); {AGAIN}")


# --- what was added to a vocabulary ------------------------------------------------------------


def _added_tokens(
    folder: Path, part: str, whole: Mapping[str, Any] | None, special: set[str]
) -> dict[int, Any]:
    """Id → AddedToken of what a vocabulary was given later, a learned word for one.

    As transformers reads them: the list of tokenizer_config.json counts alone; without it those of
    added_tokens.json, as textual inversion was saved in 2022, and of tokenizer.json, whose contents
    are `whole` if they have been read.
    """
    lies = [inside(folder, f"{part}/{name}.json", optional=True) for name in ADDED_IN]
    config = read_json(lies[0]) if lies[0] else {}
    if "added_tokens_decoder" in config:
        listed = config["added_tokens_decoder"]
        if not isinstance(listed, dict):
            raise _bad_added(lies[0], listed)
        return dict(_added_token(lies[0], *pair) for pair in listed.items())
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    added = {}
    for text, index in (read_json(lies[1]) if lies[1] else {}).items():
        plain = text not in special and text not in more
        entry = {"content": text, "normalized": plain, "special": not plain}
        added |= [_added_token(lies[1], index, entry)]
    if lies[2]:
        listed = (read_json(lies[2]) if whole is None else whole).get("added_tokens") or []
        if not isinstance(listed, list) or set(map(type, listed)) - {dict}:
            raise _bad_added(lies[2], listed)
        added |= [_added_token(lies[2], entry.get("id"), entry) for entry in listed]
    return added


def _added_token(path: Path, index: Any, entry: Any) -> tuple[int, Any]:
    from transformers.tokenization_utils_base import AddedToken

    if isinstance(index, str) and index.isdecimal() and len(index) < 10:
        index = int(index)
    given = entry if isinstance(entry, dict) else {}
    text, flags = given.get("content"), {k: given[k] for k in FLAGS if k in given}
    sound = type(index) is int and index >= 0 and isinstance(text, str) and text
    if not sound or set(map(type, flags.values())) - {bool}:
        raise _bad_added(path, {index: entry})
    try:
        return index, AddedToken(text, **flags)
    except UnicodeEncodeError:  # half of a surrogate pair
        raise _bad_added(path, {index: entry}) from None


def _bad_added(path: Path, given: object) -> CheckpointError:
    return CheckpointError(
        f"{place(path)} lists the added tokens {shown(given)}; an id of 0 or more, a text and "
        f"flags that are true or false are allowed for each; {AGAIN}"
    )


def _by_text(vocab: Mapping[str, int], added: Mapping[int, Any]) -> dict[str, Any]:
    """The added tokens by text; CheckpointError unless their ids are those they will be given."""
    if len(added) > MOST_ADDED:
        raise CheckpointError(
            f"the tokenizer has {len(added)} added tokens; at most {MOST_ADDED} are read; use "
            "another checkpoint"
        )
    found: dict[str, Any] = {}
    new: dict[str, int] = {}
    for index, token in sorted(added.items()):
        text = token.content
        allowed = vocab[text] if text in vocab else new.setdefault(text, len(vocab) + len(new))
        if index != allowed:
            raise _bad_id(text, index, allowed)
        found[text] = token
    return found


def _bad_id(text: str, index: int, allowed: int) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer's added token {shown(text)} has id {index}, and its place is {allowed}; "
        "words of the vocabulary keep their ids, others follow without a gap or a repeat; " + AGAIN
    )


def _special_tokens(folder: Path, config: Mapping[str, Any], part: str) -> dict[str, str]:
    extra = inside(folder, f"{part}/special_tokens_map.json", optional=True)
    mapped = read_json(extra) if extra else {}
    # as transformers reads them: the map counts, unless the config lists its added tokens
    given = mapped | dict(config) if "added_tokens_decoder" in config else dict(config) | mapped
    defaults = {"bos_token": "<|startoftext|>"}
    named = {key: given.get(key) or defaults.get(key, "<|endoftext|>") for key in SPECIAL_TOKENS}
    # an AddedToken is stored as an object whose "content" is the text
    texts = {k: v.get("content") if isinstance(v, dict) else v for k, v in named.items()}
    wrong = [key for key, text in texts.items() if not isinstance(text, str)]
    if wrong:
        raise CheckpointError(
            f"tokenizer_config.json: {wrong[0]} is {shown(named[wrong[0]])}; a text is allowed; "
            f"{AGAIN}"
        )
    return texts


def tokenizer_files(tokenizer: Any) -> tuple[dict[str, int], str, dict[str, Any]]:
    """What `tokenizer/` holds: vocab.json, the text of merges.txt, tokenizer_config.json.

    The config lists all added tokens, so that no file left from an earlier save counts beside it.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    pairs = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.model_max_length,
        **{key: str(getattr(tokenizer, key)) for key in SPECIAL_TOKENS},
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "added_tokens_decoder": {
            str(index): {key: getattr(token, key) for key in ("content", *FLAGS)}
            for index, token in sorted(tokenizer.added_tokens_decoder.items())
        },
    }
    return model["vocab"], "\n".join(["#version: 0.2", *pairs]) + "\n", config
