"""A prompt in numbers: its tokens as a table, and how alike its words or several prompts are."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.trace import TextEmbedding, Tokens
from diffusionlab.trace.words import places_of, positions_of, word_names

SHUFFLES = 10  # of the control of a PCA


# ---- the table --------------------------------------------------------------------------------
@dataclass(frozen=True)
class TokenRow:
    """One row of the table: a position of the context, or a word that was cut off.

    `kind` is "start", "word", "end", "pad" or "cut"; a cut word has no position and no id. `part`
    counts the pieces of a word from 1 to `parts`; `byte` is (which, of how many) for the pieces
    that are single bytes of one character, such as an emoji, and show that character each.
    """

    position: int | None
    piece: str
    id: int | None
    word: str | None
    kind: str
    part: int = 1
    parts: int = 1
    byte: tuple[int, int] | None = None

    @property
    def kept(self) -> bool:
        """Whether the text encoder reads it."""
        return self.kind != "cut"

    @property
    def visible(self) -> str:
        """The piece as it can be seen: invisible characters by code points, bytes counted."""
        text = " ".join(self.piece.split())
        if not any(letter.isprintable() for letter in text):
            text = " ".join(f"U+{ord(letter):04X}" for letter in self.piece) or "␣"
        return f"{text} {self.byte[0]}/{self.byte[1]}" if self.byte else text


def token_table(tokens: Tokens) -> tuple[TokenRow, ...]:
    """Every position of the context in order, and the words that were cut before the end token."""
    table: list[TokenRow] = []
    columns = (tokens.pieces, tokens.ids, tokens.word_of, tokens.kinds)
    for position, (piece, number, owner, kind) in enumerate(zip(*columns, strict=True)):
        if kind == "end":
            table += [TokenRow(None, word, None, word, "cut") for word in tokens.dropped_words]
        if owner is None:
            table.append(TokenRow(position, piece, number, None, kind))
            continue
        own = [i for i, other in enumerate(tokens.word_of) if other == owner]
        place = own.index(position) + 1, len(own)
        byte = _byte(tokens, position, own)
        table.append(TokenRow(position, piece, number, tokens.words[owner], kind, *place, byte))
    return tuple(table)


def _byte(tokens: Tokens, position: int, own: Sequence[int]) -> tuple[int, int] | None:
    """Which of how many of the pieces that show one character beyond ASCII; None for a whole one.

    Equal characters of a word share their equal pieces evenly; in a word that was cut in the
    middle, as many belong to one as it has bytes.
    """
    piece, word = tokens.pieces[position], tokens.words[tokens.word_of[position]]
    if piece.isascii():
        return None
    same = [i for i in own if tokens.pieces[i] == piece]
    size, left = divmod(len(same), max(word.count(piece), 1))
    if left or (tokens.dropped and own[-1] == tokens.kept):
        size = len(unicodedata.normalize("NFC", piece).lower().encode(errors="surrogatepass"))
    place = same.index(position)
    return (place % size + 1, size) if size > 1 else None


# ---- words and their rows ---------------------------------------------------------------------
def word_rows(tokens: Tokens, word: str) -> tuple[int, ...]:
    """The positions of all pieces of a word, named as in `trace.words`: case does not matter.

    "red" is every "red" of the prompt, "red#2" the second one alone. Raises InputError for a word
    that is not in the prompt, with its words.
    """
    places = places_of(tokens.words, word)
    if not places:
        known = word_names(tokens.words)
        raise InputError(
            f"{shown(word)} is not in the prompt {shown(tokens.prompt, 60)}; "
            f"{close_matches(str(word), known)}its words are "
            f"{', '.join(map(repr, known)) or 'none'}: name one of them"
        )
    return positions_of(tokens, places)


def tokens_of(embedding: TextEmbedding, encoder: int = 0) -> Tokens:
    """The tokens of an embedding's rows. Raises InputError where they are missing or do not fit."""
    count = len(hidden_of(embedding, encoder))
    if embedding.tokens is None or len(embedding.tokens.kinds) != count:
        raise InputError(
            f"text embedding of {count} rows without its tokens, so that no row has a name; "
            "take what embed makes, from a trace whose prompt is kept"
        )
    return embedding.tokens


def hidden_of(embedding: TextEmbedding, encoder: int = 0) -> np.ndarray:
    """The rows of one text encoder as float64 (tokens, width). Raises InputError."""
    if not isinstance(embedding, TextEmbedding):
        raise InputError(
            f"{shown(embedding)} is no TextEmbedding; what embed makes is read: pass "
            "trace.text_embedding or embed(model, tokenize(model, prompt))"
        )
    count = len(embedding.hidden)
    if isinstance(encoder, bool) or not isinstance(encoder, int) or not 0 <= encoder < count:
        raise InputError(
            f"encoder is {shown(encoder)}; 0 to {count - 1} is allowed here: leave it out for the "
            "first text encoder"
        )
    return numbers(embedding.hidden[encoder])


# ---- vectors of words and of prompts ----------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Vectors:
    """Named vectors (n, width): of the words (`of` "words"), or of whole prompts ("prompts").

    `groups[i]` is the number of the prompt that vector i comes from.
    """

    names: tuple[str, ...]
    groups: tuple[int, ...]
    values: np.ndarray
    of: str


def text_vectors(
    embeddings: TextEmbedding | Sequence[TextEmbedding], of: str | None = None, encoder: int = 0
) -> Vectors:
    """One vector for each word, or for each prompt, of one or several text embeddings.

    A word's vector is the mean of the rows of its pieces, a prompt's the row of its end token,
    which alone has seen every word. `of` None means words for one prompt, prompts for several.
    Raises InputError.
    """
    given = [embeddings] if isinstance(embeddings, TextEmbedding) else list(embeddings)
    of = of or ("words" if len(given) == 1 else "prompts")
    if of not in ("words", "prompts"):
        raise InputError(f'of is {shown(of)}; "words" or "prompts" is allowed: choose one')
    names, groups, values = [], [], []
    for number, embedding in enumerate(given):
        rows, tokens = hidden_of(embedding, encoder), tokens_of(embedding, encoder)
        found = _words(rows, tokens) if of == "words" else _prompt(rows, tokens)
        tail = f" ({number + 1})" if of == "words" and len(given) > 1 else ""
        names += [name + tail for name in found]
        values += found.values()
        groups += [number] * len(found)
    if len(values) < 2 or len({len(v) for v in values}) > 1:
        raise InputError(
            f"{len(values)} {of} were given, of widths {sorted({len(v) for v in values})}; "
            "at least two of one width are compared: use a longer prompt, or several"
        )
    return Vectors(tuple(names), tuple(groups), np.stack(values), of)


def _words(rows: np.ndarray, tokens: Tokens) -> dict[str, np.ndarray]:
    owners = np.array([-1 if owner is None else owner for owner in tokens.word_of])
    return {name: rows[owners == i].mean(axis=0) for i, name in enumerate(word_names(tokens.words))}


def _prompt(rows: np.ndarray, tokens: Tokens) -> dict[str, np.ndarray]:
    return {tokens.prompt or "(empty prompt)": rows[tokens.kinds.index("end")]}


# ---- similarity -------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Similarity:
    """Cosines between named vectors, (n, n), with what they have to be held against.

    `common` is the share of the vectors' squared length that lies in their mean, which makes all
    of them alike; `centred` says whether the mean was subtracted. `chance` is 1 / √width, the
    spread of the cosines of random directions. `itself` checks that each vector is like itself.
    """

    vectors: Vectors
    matrix: np.ndarray
    common: float
    centred: bool
    chance: float
    itself: Residual

    @property
    def background(self) -> float:
        """The mean cosine of two different vectors."""
        return float(self.matrix[~np.eye(len(self.matrix), dtype=bool)].mean())


def similarity(
    embeddings: TextEmbedding | Sequence[TextEmbedding],
    *,
    of: str | None = None,
    centre: bool = False,
    encoder: int = 0,
) -> Similarity:
    """How alike the words of a prompt, or several prompts, are to the text encoder.

    `centre` subtracts the mean of all vectors first: most of the length is common to all of them,
    so that bare cosines are high for any pair (Ethayarajh 2019, arXiv 1909.00512, section 3.4).
    `of` and errors as `text_vectors`.
    """
    vectors = text_vectors(embeddings, of, encoder)
    values, mean = vectors.values, vectors.values.mean(axis=0)
    with np.errstate(all="ignore"):
        common = float(mean @ mean / np.maximum(np.square(values).sum(axis=1).mean(), 1e-30))
        matrix = cosines(values - mean, values - mean) if centre else cosines(values, values)
        off = float(np.abs(np.diag(matrix) - 1).max())
    own = Residual(off, 1e-9, "each is like itself")
    return Similarity(vectors, matrix, common, centre, values.shape[1] ** -0.5, own)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of every row of a (n, width) with every row of b (m, width): (n, m).

    A row of zeros has no direction: NaN.
    """
    with np.errstate(all="ignore"):
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        return a @ b.T


# ---- two dimensions of many -------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Plane:
    """Points in the plane that keeps most of their variance: principal component analysis.

    `points` (n, 2); `explained` are the shares of the variance along both axes. `chance` is what
    two axes explain after every column was shuffled by itself, which leaves no structure (Horn's
    parallel analysis, 1965); None where that says nothing, since three points always span a plane.
    """

    points: np.ndarray
    explained: tuple[float, float]
    chance: float | None

    @property
    def warning(self) -> str:
        """Why the picture may mislead, or nothing."""
        share = sum(self.explained)
        if self.chance is None:
            return f"{len(self.points)} points always fit"
        if share < min(1.25 * self.chance, 0.9):
            return "no more than chance"
        return f"{1 - share:.0%} is not seen" if share < 0.5 else ""


def plane(vectors: np.ndarray) -> Plane:
    """The two principal axes of (n, width) vectors, n ≥ 3, and where the vectors lie on them.

    Signs are chosen so that the largest coordinate on each axis is positive. Raises InputError for
    fewer than three vectors; vectors with NaN give NaN.
    """
    values = np.asarray(vectors, np.float64)
    if values.ndim != 2 or len(values) < 3:
        raise InputError(
            f"vectors {values.shape} were given; 3 or more, (n, width), span a plane: give more "
            "words or prompts"
        )
    if not np.isfinite(values).all():
        return Plane(np.full((len(values), 2), np.nan), (np.nan, np.nan), None)
    values = values - values.mean(axis=0)
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    points = left[:, :2] * sizes[:2]
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    points = points * np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    total = float((sizes**2).sum())
    first, second = ((points**2).sum(axis=0) / total).tolist() if total else (0.0, 0.0)
    return Plane(points, (first, second), _shuffled(values) if len(values) > 3 else None)


def _shuffled(values: np.ndarray) -> float:
    """The share of two axes when every column is shuffled by itself, mean of some shuffles."""
    random, shares = np.random.default_rng(0), []
    for _ in range(SHUFFLES):
        mixed = random.permuted(values, axis=0)
        small = mixed @ mixed.T if len(values) < values.shape[1] else mixed.T @ mixed
        powers = np.linalg.eigvalsh(small)
        shares.append(powers[-2:].sum() / max(powers.sum(), 1e-30))
    return float(np.mean(shares))
