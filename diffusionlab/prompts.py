"""What `tokenize` needs to know of a prompt: is it one, what are its words, what must be told."""

from __future__ import annotations

import unicodedata

from .errors import InputError, notice, shown


def check_prompt(prompt: str) -> str:
    """The prompt as a str, white space alone read as the empty prompt; anything else is refused."""
    if isinstance(prompt, (list, tuple)):
        raise InputError(
            f"prompt is a {type(prompt).__name__} of {len(prompt)}; one string is allowed: "
            "for several prompts use compare(model, prompts=[…])"
        )
    if not isinstance(prompt, str):
        raise InputError(
            f"prompt is {shown(prompt)}, a {type(prompt).__name__}; a str is allowed, "
            "the empty one included: pass text"
        )
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"prompt {shown(prompt)} is not valid Unicode text (a lone surrogate at character "
            f"{error.start}); decode it as UTF-8 first"
        ) from None
    return str(prompt) if prompt.strip() else ""


def pieces_of(text: str, encoded) -> list[str]:
    """What each token stands for: its own letters, or the characters that its bytes belong to."""
    plain = [token.removesuffix("</w>") for token in encoded.tokens]
    spans = zip(plain, encoded.offsets, strict=True)
    return [p if p.isascii() else text[start:end] for p, (start, end) in spans]


def words_of(text: str, encoded) -> tuple[list[str], list[int]]:
    """The user's words and, for every token, the number of its word."""
    spans: dict[int, list[int]] = {}
    for number, (start, end) in zip(encoded.word_ids, encoded.offsets, strict=True):
        first, last = spans.setdefault(number, [start, end])
        spans[number] = [min(first, start), max(last, end)]
    order = {number: i for i, number in enumerate(spans)}
    return [text[a:b] for a, b in spans.values()], [order[n] for n in encoded.word_ids]


def token_notices(model, text, words, kept, dropped, lost_words) -> tuple[str, ...]:
    """What the user must know about this prompt, printed once and kept."""
    notices = []
    if dropped:
        first = " ".join(lost_words[:8])
        notices.append(
            f"the prompt has {kept + dropped} tokens and the model reads {kept}: "
            f"{kept} kept, {dropped} dropped, from {shown(first)} on"
        )
    hidden = sorted({c for c in text if unicodedata.category(c) == "Cf" and c != "\u200d"})
    if hidden:
        notices.append(
            "the prompt has invisible characters: " + ", ".join(f"U+{ord(c):04X}" for c in hidden)
        )
    known = model.config.get("toyland", {}).get("words")
    strange = (
        [w for w in dict.fromkeys(words) if w.isalpha() and w.lower() not in known] if known else []
    )
    if strange:
        notices.append(f"{model.name} was never shown: {shown(', '.join(strange))}")
    return tuple(notice(text) for text in notices)
