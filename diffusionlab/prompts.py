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
    spans = zip(plain, _offsets(text, encoded), strict=True)
    return [p if p.isascii() else text[start:end] for p, (start, end) in spans]


def _offsets(text: str, encoded) -> list[tuple[int, int]]:
    """Each token's characters in the text as it was typed, none but white space left over.

    The tokenizer composes letters and marks (NFC) and then names the letter alone: what stands
    between a token and the next one belongs to the token.
    """
    starts, following, found = [a for a, _ in encoded.offsets], len(text), []
    for i, (start, end) in reversed(list(enumerate(encoded.offsets))):
        if i + 1 < len(starts) and starts[i + 1] > start:
            following = starts[i + 1]
        while end < following and not text[end].isspace():
            end += 1
        found.append((start, end))
    return found[::-1]


def words_of(text: str, encoded) -> tuple[list[tuple[int, int]], list[int]]:
    """The characters (first, last) of the user's words and, for every token, its word's number.

    Combining marks belong to the letter before them, and what follows them at once to the same
    word: the tokenizer cuts there, a reader does not.
    """
    words: list[list[int]] = []
    owners: list[int] = []
    last_number, after_mark = None, False
    for number, (start, end) in zip(encoded.word_ids, _offsets(text, encoded), strict=True):
        if number != last_number:
            close = bool(words) and start <= words[-1][1]
            mark = close and (start < words[-1][1] or unicodedata.category(text[start])[0] == "M")
            if not mark and not (close and after_mark and text[start].isalpha()):
                words.append([start, end])
            last_number, after_mark = number, mark
        words[-1][1] = max(words[-1][1], end)
        owners.append(len(words) - 1)
    return [(first, last) for first, last in words], owners


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
        [w for w in dict.fromkeys(words) if _letters(w) and w.lower() not in known] if known else []
    )
    if strange:
        more = ", …" if len(strange) > 8 else ""
        listed = ", ".join(shown(word) for word in strange[:8])
        notices.append(f"{model.name} was never shown: {listed}{more}")
    return tuple(notice(text) for text in notices)


def _letters(word: str) -> bool:
    """Whether a word is letters and their marks alone."""
    return word[0].isalpha() and all(unicodedata.category(c)[0] in "LM" for c in word)
