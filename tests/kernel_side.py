"""Beside a notebook's cells, in its kernel: no network, and every `check` is asked once more.

`begin()` before the first cell, `report()` after the last one: complaints in words, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from functools import wraps

import offline

CALLS: list[tuple] = []  # (predicted, measured, question, the other keywords)
OTHER_KINDS = ([1, 2], None, {"a": 1}, object(), 1 + 2j, "a word", 12.5, True)


def begin() -> None:
    """Block the network and remember what is asked, before the notebook imports `check`."""
    offline.block()
    import diffusionlab.course as course

    original = course.check

    @wraps(original)
    def check(predicted, measured, question, **others):
        CALLS.append((predicted, measured, question, others))
        return original(predicted, measured, question, **others)

    course.check = check


def report() -> str:
    """What is wrong with the answers that this run's checks give, and with its threads."""
    from diffusionlab.course import check

    asked = CALLS.copy()
    told = [line for call in asked for line in about_call(check.__wrapped__, *call)]
    return json.dumps({"asked": len(asked), "told": told + about_threads()})


def about_call(check, predicted, measured, question, others) -> list[str]:
    """A right, a wrong and a wrong-type prediction: each gets a helpful answer, none an error."""
    measured = measured.item() if hasattr(measured, "item") else measured
    tried = [("right", measured, True), ("wrong", wrong(measured), False)]
    tried += [("wrong-type", kind, None) for kind in OTHER_KINDS if not alike(kind, measured)]
    if predicted is not ...:  # an exercise with its solution in place
        tried.append(("solved", predicted, True))
    told = [about_answer(check, given, measured, question, others, r) for _, given, r in tried]
    kinds = [kind for kind, *_ in tried]
    return [f"{question!r}: {kind}: {t}" for kind, t in zip(kinds, told, strict=True) if t]


def about_answer(check, given, measured, question, others, right) -> str:
    """What is wrong with the answer to one prediction; nothing if it is as it should be."""
    try:
        answer = check(given, measured, question, **others)
        page, text, said = answer._repr_html_(), repr(answer), answer.right
    except Exception as error:
        return f"{given!r} raised {type(error).__name__}: {error}"
    if right is not None and said is not right:
        return f"{given!r} counts as {said}, not as {right}: {text}"
    if right is None and (said is not None or "the answer is" not in page):
        return f"{given!r} is not told what kind of answer is wanted: {text}"
    if len(page) < len(question) or len(text.split()) < 5:
        return f"{given!r} gets hardly an answer: {text}"
    return ""


def wrong(measured):
    """A prediction of the right kind that no tolerance lets pass."""
    if isinstance(measured, bool):
        return not measured
    return (
        measured + " or not" if isinstance(measured, str) else measured + 10 * (1 + abs(measured))
    )


def alike(one, other) -> bool:
    """Whether both are of one kind: two bools, two numbers, two texts."""
    kinds = {bool: bool, int: float, float: float, str: str}
    return kinds.get(type(one)) is kinds.get(type(other), "none")


def about_threads() -> list[str]:
    """Two notebooks run at a time, each on one thread."""
    wanted = os.environ.get("OMP_NUM_THREADS")
    count = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 1
    return [f"torch runs {count} threads, not {wanted}"] if wanted and count != int(wanted) else []
