"""Five questions at the end of a notebook, their numbers taken from the reader's own run."""

from __future__ import annotations

import html
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.views import View, quiz

QUESTIONS = files("diffusionlab.course") / "questions"
TEXTS = ("asks", "choices", "because")


@dataclass(frozen=True, eq=False, repr=False)
class SelfCheck:
    """The questions of one notebook: as text with folded answers, and marked on the page."""

    view: View

    @property
    def questions(self) -> list[dict[str, Any]]:
        """What is asked, the choices, the place of the right one, and why."""
        return self.view.data["questions"]

    def __repr__(self) -> str:
        asked = (f"{i}. {one['asks']}" for i, one in enumerate(self.questions, 1))
        return "\n".join([self.view.title, *asked])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The questions as text, folded, then the page in a frame that marks them."""
        items = "".join(f"<li>{_item(one)}</li>" for one in self.questions)
        fold = "<details><summary>The questions as text, answers folded</summary>"
        page = f"{fold}<ol>{items}</ol></details>{self.view.frame}"
        return {"text/html": page, "text/plain": repr(self)}


def self_check(number: int, **facts: Any) -> SelfCheck:
    """The five questions of notebook `number`, with this run's numbers in their texts.

    A text's {name} stands for the fact of that name. Errors: InputError for a number without
    questions, and for facts that are missing or that no text asks for.
    """
    asked = _read(number)
    names = {name for one in asked for text in _texts(one) for name in _names(text)}
    if names != set(facts):
        missing, needless = sorted(names - set(facts)), sorted(set(facts) - names)
        raise InputError(
            f"facts are {shown(sorted(facts))}; the questions of notebook {number} need exactly "
            f"{sorted(names)}: missing {missing}, not asked for {needless}"
        )
    filled = [_filled(one, {name: _told(value) for name, value in facts.items()}) for one in asked]
    return SelfCheck(quiz(filled, title="Check yourself"))


def numbers() -> list[int]:
    """The notebooks that have questions."""
    found = QUESTIONS.iterdir() if QUESTIONS.is_dir() else ()
    return sorted(int(path.name[:2]) for path in found if path.name.endswith(".toml"))


def _read(number: Any) -> list[dict[str, Any]]:
    if type(number) is not int or number not in numbers():
        raise InputError(
            f"number is {shown(number)}; notebooks with questions are "
            f"{', '.join(map(str, numbers()))}: self_check(2, …) asks those of the second"
        )
    text = (QUESTIONS / f"{number:02d}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["question"]


def _texts(one: Mapping[str, Any]) -> list[str]:
    return [one["asks"], one["because"], *one["choices"]]


def _names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def _filled(one: Mapping[str, Any], facts: Mapping[str, str]) -> dict[str, Any]:
    choices = [choice.format_map(facts) for choice in one["choices"]]
    asks, because = (one[name].format_map(facts) for name in ("asks", "because"))
    return {"asks": asks, "choices": choices, "right": one["right"], "because": because}


def _told(value: Any) -> str:
    """A number with three digits, whole ones with all of theirs; a text as it is."""
    if isinstance(value, str):
        return value
    return f"{float(value):.3g}" if float(value) != int(value) else str(int(value))


def _item(one: Mapping[str, Any]) -> str:
    asks, because = html.escape(one["asks"]), html.escape(one["because"])
    choices = "".join(f"<li>{html.escape(choice)}</li>" for choice in one["choices"])
    right = html.escape(one["choices"][one["right"]])
    return (
        f"{asks}<ul>{choices}</ul><details><summary>Answer</summary><p><b>{right}</b><br>{because}"
        "</p></details>"
    )
