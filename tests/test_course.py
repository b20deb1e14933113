"""Self-checks and shown sources: the answer is measured, the source is the one that runs."""

from __future__ import annotations

import math
from functools import wraps
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffusionlab.course import (
    check,
    needs_two_passes,
    show_pictures,
    show_source,
    shown_or_told,
)
from diffusionlab.errors import InputError
from diffusionlab.images import blank
from diffusionlab.plan import combine
from diffusionlab.schedule import NoiseSchedule


def test_a_right_and_a_wrong_prediction():
    assert check(32, 32, "How many?").right is True
    assert check(8, 32, "How many?").right is False
    text = repr(check(8, 32, "How many?"))
    assert text.startswith("How many?") and "predicted 8" in text and "says 32" in text


def test_no_prediction_yet_folds_the_measured_answer():
    asked = check(..., 32, "How many?")
    assert asked.right is None
    page = asked._repr_html_()
    assert page.index("<details>") < page.index("32") < page.index("</details>")
    assert "<details>" not in check(32, 32, "How many?")._repr_html_()


@pytest.mark.parametrize(
    ("predicted", "tolerance", "right"),
    [(1.04, 0.05, True), (1.06, 0.05, False), (0.96, 0.05, True), (0.94, 0.05, False)],
)
def test_the_tolerance_is_relative_and_two_sided(predicted, tolerance, right):
    assert check(predicted, np.float64(1.0), "Size?", tolerance=tolerance).right is right


def test_bools_and_texts():
    assert check(True, np.bool_(True), "Equal?").right
    assert "yes" in check(..., np.bool_(True), "Equal?").verdict
    assert check("x0", "eps", "Which?").right is False


@pytest.mark.parametrize(
    ("predicted", "measured", "told"),
    [
        ("8", 8, "a number, e.g. 3 or 0.5"),
        (True, 1, "a number"),
        (1, True, "True or False"),
        (None, 8, "a number"),
        ([8], 8, "a number"),
        (np.ones(3), 8, "a number"),
        (8, "x0", "a text in quotation marks"),
        (print, True, "True or False"),
    ],
)
def test_a_prediction_of_another_kind_is_answered_with_what_is_asked(predicted, measured, told):
    asked = check(predicted, measured, "How many?")
    assert asked.right is None and told in repr(asked) and "Try again" in repr(asked)
    page = asked._repr_html_()
    assert page.index("Try again") < page.index("</summary>") < page.index("This run says")


@pytest.mark.parametrize("measured", [math.nan, math.inf, np.ones(2), None, ...])
def test_a_measured_value_that_is_none_is_refused(measured):
    with pytest.raises(InputError, match="reduce an array to one number first"):
        check(..., measured, "How many?")


def test_why_is_told_with_the_answer_and_not_before():
    asked = check(..., 32, "How many?", because="The context has 32 places <all of them>.")
    page = asked._repr_html_()
    assert page.index("</summary>") < page.index("The context has 32 places &lt;all")
    assert repr(check(32, 32, "?", because="So it is.")).endswith("right. So it is.")
    assert "So it is" not in repr(check("a", 32, "?", because="So it is."))


def test_the_case_of_a_text_does_not_count():
    assert check(" X0", "x0", "Which?").right and check("x", "x0", "Which?").right is False


def test_a_negative_tolerance_is_refused():
    with pytest.raises(InputError, match="tolerance is -1"):
        check(1, 1, "?", tolerance=-1)


def test_what_the_reader_wrote_is_escaped():
    page = check("<script>", "a", "<b>?")._repr_html_()
    assert "<script>" not in page and "<b>?" not in page


def test_the_source_is_the_one_that_runs():
    shown = show_source(combine)
    assert shown.text.startswith("def combine(") and "return total" in shown.text
    assert shown.place.startswith("diffusionlab/plan.py, line ")
    line = int(shown.place.split()[-1])
    written = Path(combine.__globals__["__file__"]).read_text(encoding="utf-8").splitlines()
    assert written[line - 1].startswith("def combine(")
    assert shown.text in repr(shown)


def test_decorators_are_looked_through_and_methods_dedented():
    @wraps(combine)
    def outer(*given):
        return combine(*given)

    assert show_source(outer).text == show_source(combine).text
    assert not show_source(NoiseSchedule.levels).text.startswith(" ")
    assert show_source(NoiseSchedule).text.count("class NoiseSchedule") == 1


def test_a_docstring_is_folded_to_its_first_line_and_nothing_else():
    def documented():
        """Short.

        More of it.
        """

        def inner():
            """One line."""
            return "kept"

        return inner

    whole, folded = show_source(documented).text, show_source(documented, docstring=False).text
    assert '"""Short. …"""' in folded and "More of it" in whole and "More of it" not in folded
    assert '"""One line."""' in folded and len(folded.split("\n")) == len(whole.split("\n")) - 3
    assert folded.split("def inner")[1] == whole.split("def inner")[1]
    assert show_source(NoiseSchedule, docstring=False).text.count("def ") == (
        show_source(NoiseSchedule).text.count("def ")
    )
    assert show_source(documented(), docstring=False).text == show_source(documented()).text


def test_markdown_is_one_closed_fence_even_with_backticks_inside():
    def ticked():
        return "```"

    lines = show_source(ticked)._repr_markdown_().split("\n")
    assert lines[-1] == "````" and lines[2] == "````python"


@pytest.mark.parametrize("thing", [len, 3, None, combine])
def test_what_has_no_source_is_refused(thing):
    if thing is combine:  # the check can pass
        assert show_source(thing)
        return
    with pytest.raises(InputError, match="has no Python source"):
        show_source(thing)


def test_pictures_have_captions_and_alt_text():
    shown = show_pictures({"the <first>": blank(8, 8), "the end": blank(16, 16)})
    page = shown._repr_html_()
    assert page.count("<img") == 1 and "the &lt;first&gt;" in page and "the end" in page
    assert "the <first>" not in page and repr(shown) == "Pictures: the <first> | the end"


@pytest.mark.parametrize("given", [{}, [], None, {"": blank(8, 8)}, {"a": 3}, {3: blank(8, 8)}])
def test_pictures_without_a_caption_are_refused(given):
    with pytest.raises(InputError, match="is allowed"):
        show_pictures(given)


# ---- what only some models can show ----------------------------------------------------------
def test_a_model_that_cannot_be_asked_is_told_and_other_errors_pass():
    assert shown_or_told(lambda: 7) == 7

    def refuse():
        raise InputError("no <judges> here")

    told = shown_or_told(refuse)
    assert repr(told) == "Not on this model: no <judges> here"
    assert "no &lt;judges&gt; here" in told._repr_html_()
    with pytest.raises(ZeroDivisionError):
        shown_or_told(lambda: 1 / 0)


def test_a_model_of_one_pass_is_told_so_where_guidance_has_two():
    needs_two_passes(SimpleNamespace(embeds_guidance=False, name="plain"))
    with pytest.raises(InputError, match=r"lcm is told .* dl\.load\(\), .* two passes"):
        needs_two_passes(SimpleNamespace(embeds_guidance=True, name="lcm"))
