"""Questions with choices, marked on the page: five for each notebook, or an instructor's own."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.trace.summary import counted
from diffusionlab.views.view import View

MOST_QUESTIONS, CHOICES = 20, (2, 6)
WIDE = 72  # characters of a line in the still


@dataclass(frozen=True)
class Question:
    """What is asked, the choices, which of them is right (counted from 0), and why.

    Errors: InputError for fewer than 2 or more than 6 choices, two that are equal, an empty text or
    a right one that is not among them.
    """

    asks: str
    choices: tuple[str, ...]
    right: int
    because: str

    def __post_init__(self) -> None:
        if isinstance(self.choices, str) or not isinstance(self.choices, Sequence):
            raise InputError(f"choices is {shown(self.choices)}; a list of texts is allowed")
        object.__setattr__(self, "choices", tuple(self.choices))
        for text in (self.asks, self.because, *self.choices):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{shown(text)} in a question; texts that are not empty are "
                                 "allowed for what is asked, each choice and why")  # fmt: skip
        count = len(self.choices)
        if not CHOICES[0] <= count <= CHOICES[1] or len(set(self.choices)) < count:
            raise InputError(
                f"choices is {shown(self.choices)}; {CHOICES[0]} to {CHOICES[1]} different texts "
                "are allowed"
            )
        if type(self.right) is not int or not 0 <= self.right < count:
            raise InputError(
                f"right is {shown(self.right)}; the place of the right choice is allowed, "
                f"0 to {count - 1}"
            )


def quiz(
    questions: Sequence[Question | Mapping[str, Any]], *, title: str = "Check yourself"
) -> View:
    """Questions that the page marks itself, with a reason for each answer; works offline.

    `questions` are `Question`s, or mappings with `asks`, `choices`, `right` and `because`. As a
    live widget `.answered` and `.right` tell Python how it went. Errors: InputError for no
    question, more than 20, or one that is none.
    """
    asked = [_question(one) for one in _listed(questions)]
    if not isinstance(title, str) or not title.strip():
        raise InputError(f"title is {shown(title)}; a text is allowed, e.g. 'Check yourself'")
    count = len(asked)
    return View(
        script="quiz",
        title=title,
        alt=f"{title}: {counted(count, 'question')}. The first: {asked[0].asks.rstrip('.')}.",
        data={"title": [{"text": title}], "questions": [asdict(one) for one in asked]},
        live={"answered": 0, "right": 0},
        limits={"answered": (0, count), "right": (0, count)},
        figure=lambda: _figure(title, asked),
        lighter="Ask fewer questions.",
        height=min(160 + 210 * count, 1100),
    )


def _listed(questions: Any) -> list[Any]:
    listed = list(questions) if isinstance(questions, Sequence) else []
    if isinstance(questions, str) or not 1 <= len(listed) <= MOST_QUESTIONS:
        raise InputError(
            f"questions is {shown(questions)}; a list of 1 to {MOST_QUESTIONS} questions is allowed"
        )
    return listed


def _question(one: Any) -> Question:
    if isinstance(one, Question):
        return one
    names = {"asks", "choices", "right", "because"}
    if not isinstance(one, Mapping) or set(one) != names:
        raise InputError(
            f"{shown(one)} is no question; a mapping with exactly {', '.join(sorted(names))} is "
            "allowed"
        )
    return Question(**one)


def _figure(title: str, asked: Sequence[Question]) -> Any:
    """The questions and their choices on paper, without the answers."""
    from diffusionlab.plots.figure import SMALL, Figure, drawable

    lines = [title]
    for number, one in enumerate(asked, 1):
        lines += ["", *textwrap.wrap(f"{number}. {one.asks}", WIDE)]
        for letter, choice in zip("abcdef", one.choices, strict=False):
            lines += textwrap.wrap(
                f"{letter}) {choice}", WIDE, initial_indent="    ", subsequent_indent="        "
            )
    figure = Figure(figsize=(9, 0.4 + 0.237 * len(lines)))
    figure.text(0.02, 0.99, drawable("\n".join(lines)), va="top", fontsize=SMALL, parse_math=False)
    figure.alt = f"{title}, {counted(len(asked), 'question')} on paper: " + " ".join(
        f"{number}. {one.asks}" for number, one in enumerate(asked, 1)
    ).rstrip(".") + "."  # fmt: skip
    return figure
