"""The text explorer: a prompt's pieces, how alike they are, and where each one looks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffusionlab.analysis.image_text import ImageText
from diffusionlab.analysis.latents import numbers
from diffusionlab.analysis.text import cosines, similarity, token_table
from diffusionlab.analysis.text_layers import layer_paths, text_attention
from diffusionlab.errors import InputError, shown
from diffusionlab.images import to_image
from diffusionlab.trace import TextEmbedding, TextLayers, Tokens, Trace
from diffusionlab.trace.words import word_names
from diffusionlab.views.page import packed, plain
from diffusionlab.views.reels import reel
from diffusionlab.views.view import View

MOST_PAIRS = 12  # pictures and captions that are shown against each other
HOW_LAYERS = (
    "layers=dl.embed_layers(model, tokens) brings the layers, where each token looks in them and "
    "how far they move it"
)
NO_TOKENS = "The tokens are not in this record (a prompt that was left out when it was saved?)"


@dataclass(frozen=True, eq=False)
class Parts:
    """What a record brings: some of tokens, rows that the U-Net reads, layers of the encoder."""

    tokens: Tokens | None = None
    rows: np.ndarray | None = None
    layers: TextLayers | None = None
    encoders: int = 1


def explore_text(
    record: Tokens | TextEmbedding | TextLayers | Trace,
    *,
    layers: TextLayers | None = None,
    image_text: ImageText | None = None,
) -> View:
    """A prompt piece by piece: words, ids and the cut; cosines; the layers of the text encoder.

    `record` is what `tokenize`, `embed` or `embed_layers` makes, or a whole trace. With a text
    embedding there is the similarity of tokens and words, with `layers` (of `embed_layers`) that
    after each layer, where each token looks, and how far it moves. `image_text` is the analysis of
    that name: pictures against captions. What a record lacks is told on the page. Raises
    InputError.
    """
    parts = _parts(record, layers)
    pictures = None if image_text is None else _image_text(image_text)
    count, names = _names(parts)
    told = _told(parts.tokens)
    first = _first_word(parts.tokens)
    states = _states(parts, count)
    last = max(len(states["names"]) - 1, 0)
    prompt = "" if parts.tokens is None else parts.tokens.prompt
    return View(
        script="text_explorer",
        title=f"{prompt[:80] or 'a prompt'} · text",
        alt=f"Text explorer: {told}",
        data={
            "title": ["the prompt as the model reads it"],
            "prompt": prompt,
            "told": told,
            "pieces": _pieces(parts.tokens, count),
            "names": names,
            "pads": 0 if parts.tokens is None else parts.tokens.kinds.count("pad"),
            "words": _words(parts.tokens),
            "cut": _cut(parts.tokens),
            "notices": list(parts.tokens.notices) if parts.tokens else [],
            "states": states,
            "attention": _attention(parts, count),
            "moves": _moves(parts, count),
            "image_text": pictures,
        },
        live={
            "piece": first,
            "state": last - (parts.layers is not None),
            "of": "tokens",
            "centred": False,
            "heads": "mean",
        },
        limits={
            "piece": (0, max(count - 1, 0)),
            "state": (0, last),
            "of": ("tokens", "words"),
            "heads": ("mean", "max"),
        },
        figure=lambda: _figure(parts),
        lighter="Leave out layers=.",
        height=1000,
    )


# ---- what the record brings -------------------------------------------------------------------
def _parts(record: Any, layers: TextLayers | None) -> Parts:
    if isinstance(record, Tokens):
        found = Parts(tokens=record)
    elif isinstance(record, TextLayers):
        found = Parts(record.tokens, numbers(record.final), record)
    elif isinstance(record, TextEmbedding):
        found = _embedded(record, record.tokens)
    elif isinstance(record, Trace):
        known = record.text_embedding
        found = Parts(record.tokens) if known is None else _embedded(
            known, record.tokens if known.tokens is None else known.tokens
        )  # fmt: skip
    else:
        raise InputError(
            f"record is {shown(record)}; Tokens, a TextEmbedding, TextLayers or a Trace is "
            "allowed: pass dl.tokenize(model, prompt) or what dl.embed makes of it"
        )
    return found if layers is None else _with_layers(found, layers)


def _embedded(embedding: TextEmbedding, tokens: Tokens | None) -> Parts:
    """The rows of the first text encoder; names only where tokens fit them."""
    rows = numbers(embedding.hidden[0])
    fits = tokens is not None and len(tokens.kinds) == len(rows)
    return Parts(tokens if fits else None, rows, encoders=len(embedding.hidden))


def _with_layers(parts: Parts, layers: TextLayers) -> Parts:
    if not isinstance(layers, TextLayers):
        raise InputError(
            f"layers is {shown(layers)}; TextLayers are allowed: make them by "
            "dl.embed_layers(model, dl.tokenize(model, prompt))"
        )
    same = parts.tokens is not None and parts.tokens.ids == layers.tokens.ids
    if parts.tokens is not None and not same:
        raise InputError(
            f"layers of the prompt {shown(layers.tokens.prompt, 60)} were given beside the prompt "
            f"{shown(parts.tokens.prompt, 60)}; both must have the same ids: make the layers of "
            "the record's tokens"
        )
    rows = numbers(layers.final) if parts.rows is None else parts.rows
    return replace(parts, tokens=layers.tokens, rows=rows, layers=layers)


def _names(parts: Parts) -> tuple[int, list[str]]:
    """How many positions are shown, all up to the first padding, and what they are called."""
    if parts.tokens is not None:
        count = len(parts.tokens.kinds) - max(parts.tokens.kinds.count("pad") - 1, 0)
        return count, [row.visible for row in token_table(parts.tokens) if row.kept][:count]
    count = 0 if parts.rows is None else len(parts.rows)
    return count, [f"row {i}" for i in range(count)]


def _first_word(tokens: Tokens | None) -> int:
    """The first word that says something: the longest of the prompt's pieces."""
    kinds = () if tokens is None else tokens.kinds
    places = [i for i, kind in enumerate(kinds) if kind == "word"]
    return max(places, key=lambda i: len(tokens.pieces[i]), default=0) if tokens else 0


# ---- pieces and words -------------------------------------------------------------------------
def _told(tokens: Tokens | None) -> str:
    """What became of the prompt, in one sentence with its numbers."""
    if tokens is None:
        return f"{NO_TOKENS}."
    words, pads = len(tokens.words), tokens.kinds.count("pad")
    cut = ""
    if tokens.dropped:
        first = f", from {tokens.dropped_words[0]} on" if tokens.dropped_words else ""
        cut = f" {tokens.dropped} pieces were cut off{first}: the model never sees them."
    return (
        f"{words} word{'s' * (words != 1)} became {tokens.kept} "
        f"piece{'s' * (tokens.kept != 1)}; with start, end and {pads} padding the model reads "
        f"{len(tokens.ids)} positions.{cut}"
    )


def _pieces(tokens: Tokens | None, count: int) -> list[dict[str, Any]]:
    """Every shown position: piece, id, kind, its word, and the characters of the prompt it is."""
    if tokens is None:
        return []
    table = [row for row in token_table(tokens) if row.kept][:count]
    spans = _piece_spans(tokens, count)
    return [
        {
            "position": row.position,
            "piece": row.piece,
            "id": row.id,
            "kind": row.kind,
            "word": tokens.word_of[row.position],
            "part": row.part,
            "parts": row.parts,
            "byte": list(row.byte) if row.byte else None,
            "span": spans[row.position],
        }
        for row in table
    ]


def _piece_spans(tokens: Tokens, count: int) -> list[list[int] | None]:
    """The characters (first, last) of each piece in the prompt; its word's where they are not sure.

    Letters of a word are used up from left to right; single bytes of a character, and what a
    tokenizer rewrote, stand for the whole word.
    """
    found: list[list[int] | None] = []
    cursor, owner = 0, None
    for piece, word in list(zip(tokens.pieces, tokens.word_of, strict=True))[:count]:
        if word is None or word >= len(tokens.spans):
            found.append(None)
            continue
        first, last = tokens.spans[word]
        cursor, owner = (cursor if word == owner else first), word
        text = tokens.prompt[cursor : min(cursor + len(piece), last)]
        if piece and text.casefold() == piece.casefold():
            found.append([cursor, cursor + len(piece)])
            cursor += len(piece)
        else:
            found.append([first, last])
    return found


def _words(tokens: Tokens | None) -> list[dict[str, Any]]:
    if tokens is None:
        return []
    spans = tokens.spans or (None,) * len(tokens.words)
    return [
        {"name": name, "span": list(span) if span else None}
        for name, span in zip(word_names(tokens.words), spans, strict=True)
    ]


def _cut(tokens: Tokens | None) -> dict[str, Any]:
    if tokens is None:
        return {"dropped": 0, "kept": 0, "words": []}
    return {"dropped": tokens.dropped, "kept": tokens.kept, "words": list(tokens.dropped_words)}


# ---- cosines ----------------------------------------------------------------------------------
def _states(parts: Parts, count: int) -> dict[str, Any]:
    """Cosines of tokens and of words, bare and with the mean taken off, at each state."""
    if parts.rows is None:
        why = "There is no text embedding here: pass what dl.embed makes to see how alike words are"
        return {"names": [], "why": f"{why}; {HOW_LAYERS}."}
    hidden = [*numbers(parts.layers.hidden)] if parts.layers is not None else []
    depth = len(hidden) - 1
    names = ["before layer 1: the vocabulary's row + its position"] if hidden else []
    names += [f"after layer {i} of {depth}" for i in range(1, depth + 1)]
    rows = [*hidden, parts.rows]
    of_two = "" if parts.encoders == 1 else f" (the first of {parts.encoders} text encoders)"
    bad = sum(not np.isfinite(state).all() for state in rows)
    return {
        "names": [*names, f"what the U-Net reads{of_two}"],
        "why": "" if hidden else f"One layer only: {HOW_LAYERS}.",
        "bad": f"{bad} of {len(rows)} states hold NaN or infinite numbers." if bad else "",
        "chance": plain(parts.rows.shape[1] ** -0.5),
        "tokens": [_packed([_alike(x[:count], centre) for x in rows]) for centre in (False, True)],
        "words": _word_states(parts.tokens, rows),
    }


def _alike(rows: np.ndarray, centre: bool) -> np.ndarray:
    values = rows - rows.mean(axis=0) if centre else rows
    return cosines(values, values)


def _word_states(tokens: Tokens | None, rows: list[np.ndarray]) -> list[dict[str, Any]] | None:
    """The same between words, as `analysis.text.similarity` has them; None for fewer than two."""
    if tokens is None or len(tokens.words) < 2:
        return None
    states = [TextEmbedding(hidden=(state,), tokens=tokens) for state in rows]
    return [
        _packed([similarity(state, of="words", centre=centre).matrix for state in states])
        for centre in (False, True)
    ]


def _packed(matrices: list[np.ndarray]) -> dict[str, Any]:
    return packed(np.stack(matrices))


# ---- layers -----------------------------------------------------------------------------------
def _attention(parts: Parts, count: int) -> dict[str, Any] | None:
    """Where each shown token looks, (layers, tokens, tokens): mean and largest of the heads."""
    if parts.layers is None:
        return None
    maps = numbers(parts.layers.attention)[:, :, :count, :count]
    checks = text_attention(parts.layers)
    return {
        "heads": maps.shape[1],
        "mean": packed(maps.mean(axis=1)),
        "max": packed(maps.max(axis=1)),
        "later": plain(np.abs(np.triu(numbers(parts.layers.attention), 1)).max()),
        "checks": [str(check) for check in (checks.sums, checks.causal) if str(check)],
    }


def _moves(parts: Parts, count: int) -> dict[str, Any] | None:
    """How far each layer moves each shown token, and the cosine with where it began."""
    if parts.layers is None:
        return None
    paths = layer_paths(parts.layers)
    return {
        "changes": packed(paths.changes[:, :count]),
        "to_start": packed(paths.to_start[:, :count]),
        "checks": [str(paths.closing)] if str(paths.closing) else [],
    }


# ---- pictures against captions ----------------------------------------------------------------
def _image_text(found: ImageText) -> dict[str, Any]:
    if not isinstance(found, ImageText):
        raise InputError(
            f"image_text is {shown(found)}; what analysis.image_text.image_text makes is allowed"
        )
    count = min(len(found.matrix), MOST_PAIRS)
    pictures = [
        to_image(image) if isinstance(image, np.ndarray) else image for image in found.images
    ][:count]
    alts = [f"picture of the caption: {caption}" for caption in found.captions[:count]]
    return {
        "captions": list(found.captions[:count]),
        "matrix": packed(found.matrix[:count, :count]),
        "reel": reel("pictures", pictures, alts, 96) if pictures else None,
        "told": f"{found.images_right:.0%} of {len(found.matrix)} pictures find their caption, "
        f"{found.captions_right:.0%} of the captions their picture; chance is {found.chance:.0%}. "
        f"Mean cosine of a pair {found.own:.3f}, of strangers {found.others:.3f}.".replace(
            " -", " −"
        ),
    }


# ---- the still --------------------------------------------------------------------------------
def _figure(parts: Parts) -> Any:
    """Our matplotlib figure of the tokens, else of the rows."""
    from diffusionlab.plots import plot_text_embedding, plot_tokens
    from diffusionlab.plots.figure import canvas, finish, heading

    if parts.tokens is not None:
        return plot_tokens(parts.tokens)
    if parts.rows is not None:
        return plot_text_embedding(TextEmbedding(hidden=(parts.rows,)))
    axes = canvas(None, (12, 1))
    axes.axis("off")
    heading(axes, "no tokens in this record")
    return finish(None, axes, f"{NO_TOKENS}.")
