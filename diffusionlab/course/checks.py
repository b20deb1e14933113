"""Predict before you run: a reader's guess beside what the run itself says, never a canned line."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from numbers import Integral, Real
from types import EllipsisType
from typing import Any

from diffusionlab.errors import InputError, shown


@dataclass(frozen=True, repr=False)
class Check:
    """One question with the reader's prediction (`...`: none yet) and the value measured."""

    question: str
    predicted: Any
    measured: Any
    tolerance: float = 0.0

    @property
    def right(self) -> bool | None:
        """Whether the prediction holds; None while there is none."""
        if self.predicted is ...:
            return None
        if _is_number(self.measured):
            return math.isclose(self.predicted, self.measured, rel_tol=self.tolerance)
        return self.predicted == self.measured

    @property
    def verdict(self) -> str:
        """The comparison in one sentence."""
        measured = _told(self.measured)
        if self.right is None:
            return f"This run says {measured}."
        predicted = _told(self.predicted)
        return f"You predicted {predicted} and this run says {measured}: {_word(self.right)}."

    def __repr__(self) -> str:
        return f"{self.question} {self.verdict}"

    def _repr_html_(self) -> str:
        question, verdict = html.escape(self.question), html.escape(self.verdict)
        if self.right is not None:
            return f"<p><b>{question}</b> {verdict}</p>"
        asked = "No prediction yet: put yours in place of <code>...</code>, or open."
        return (
            f"<p><b>{question}</b></p><details><summary>{asked}</summary><p>{verdict}</p></details>"
        )


def check(predicted: Any, measured: Any, question: str, *, tolerance: float = 0.0) -> Check:
    """Hold a prediction against a value computed on the run; the result shows itself.

    `predicted` is `...` (no prediction yet: the answer is shown behind a fold) or of the kind of
    `measured`: a bool, a number (equal within the relative `tolerance`) or a text.
    Errors: InputError for a prediction of another kind, a measured NaN or a tolerance below 0.
    """
    kinds = {_kind(measured), EllipsisType} - {None}
    if _kind(measured) is None or measured != measured:
        raise InputError(
            f"measured is {shown(measured)}; a bool, a finite number or a str is allowed: "
            "reduce an array to one number first"
        )
    if _kind(predicted) not in kinds:
        raise InputError(
            f"predicted is {shown(predicted)}; a {_kind(measured).__name__} is allowed, as the "
            "answer is one, or ... for no prediction yet"
        )
    if not tolerance >= 0:
        raise InputError(f"tolerance is {shown(tolerance)}; 0 or more is allowed, e.g. 0.1")
    return Check(question, predicted, measured, tolerance)


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
