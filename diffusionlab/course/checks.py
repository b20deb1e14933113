"""Predict before you run: a reader's guess beside what the run itself says, never a canned line."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from numbers import Integral, Real
from types import EllipsisType
from typing import Any

from diffusionlab.errors import InputError, shown

ANSWERS = {
    bool: "True or False",
    float: "a number, e.g. 3 or 0.5",
    str: 'a text in quotation marks, e.g. "x0"',
}


@dataclass(frozen=True, repr=False)
class Check:
    """One question with the reader's prediction (`...`: none yet) and the value measured."""

    question: str
    predicted: Any
    measured: Any
    tolerance: float = 0.0
    because: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the prediction holds; None while there is none, or one of another kind."""
        if self.predicted is ... or self.misfit:
            return None
        if _is_number(self.measured):
            return math.isclose(self.predicted, self.measured, rel_tol=self.tolerance)
        if isinstance(self.measured, str):
            return self.predicted.strip().casefold() == self.measured.strip().casefold()
        return bool(self.predicted == self.measured)

    @property
    def misfit(self) -> str:
        """What to write instead of a prediction that is no answer to the question, or nothing."""
        if _kind(self.predicted) in (EllipsisType, _kind(self.measured)):
            return ""
        asked = ANSWERS[_kind(self.measured)]
        return f"You wrote {shown(self.predicted)}; the answer is {asked}. Try again."

    @property
    def verdict(self) -> str:
        """The comparison in one sentence, and why."""
        why = f" {self.because}" if self.because else ""
        measured = _told(self.measured)
        if self.right is None:
            return f"This run says {measured}.{why}"
        predicted = _told(self.predicted)
        return f"You predicted {predicted} and this run says {measured}: {_word(self.right)}.{why}"

    def __repr__(self) -> str:
        return f"{self.question} {self.misfit or self.verdict}"

    def _repr_html_(self) -> str:
        question, verdict = html.escape(self.question), html.escape(self.verdict)
        if self.right is not None:
            return f"<p><b>{question}</b> {verdict}</p>"
        hint = "No prediction yet: put yours in place of <code>...</code>, or open."
        if self.misfit:
            hint = html.escape(self.misfit)
        return (
            f"<p><b>{question}</b></p><details><summary>{hint}</summary><p>{verdict}</p></details>"
        )


def check(
    predicted: Any, measured: Any, question: str, *, tolerance: float = 0.0, because: str = ""
) -> Check:
    """Hold a prediction against a value computed on the run; the result shows itself.

    `predicted` is the learner's: `...` (none yet: the answer is shown behind a fold) or of the kind
    of `measured`: a bool, a number (equal within the relative `tolerance`) or a text, whose case
    does not count. Anything else is answered with what is asked for. `because` says why, made from
    the run's numbers. Errors: InputError for a measured value of another kind, not finite, or a
    tolerance below 0.
    """
    kind = _kind(measured)
    if kind not in ANSWERS or (kind is float and not math.isfinite(measured)):
        raise InputError(
            f"measured is {shown(measured)}; a bool, a finite number or a str is allowed: "
            "reduce an array to one number first"
        )
    if not tolerance >= 0:
        raise InputError(f"tolerance is {shown(tolerance)}; 0 or more is allowed, e.g. 0.1")
    return Check(question, predicted, measured, tolerance, because)


def _kind(value: Any) -> type | None:
    """bool, float, str or the type of `...`; None for anything else. NumPy's scalars count."""
    if value is ...:
        return EllipsisType
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    kinds = {bool: bool, int: float, float: float, str: str}
    return kinds.get(type(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and _kind(value) is float


def _told(value: Any) -> str:
    if _kind(value) is bool:
        return "yes" if value else "no"
    return f"{value:.4g}" if _is_number(value) and not isinstance(value, Integral) else str(value)


def _word(right: bool) -> str:
    return "right" if right else "not so; look again at why"
