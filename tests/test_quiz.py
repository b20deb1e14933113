"""Questions: their texts and numbers, what is refused, and how a notebook shows them."""

from __future__ import annotations

import re
import tomllib

import pytest
from views_cases import questions_of

from diffusionlab.course import self_check, self_checks
from diffusionlab.errors import InputError
from diffusionlab.views import quiz
from diffusionlab.views.questions import Question

USUAL = {"asks": "How many {things}?", "choices": ["{count}", "none"], "right": 0,
         "because": "There are {count}."}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Questions of a notebook 7 only, with two names in their texts."""
    lines = ["[[question]]", 'asks = "How many {things}?"', 'choices = ["{count}", "none"]',
             "right = 0", 'because = "There are {count}."']  # fmt: skip
    (tmp_path / "07.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(self_checks, "QUESTIONS", tmp_path)
    return tmp_path


def test_numbers_of_the_run_stand_in_the_texts(folder):
    one = self_check(7, things="rows", count=32).questions[0]
    assert one["asks"] == "How many rows?" and one["choices"] == ("32", "none")
    assert one["because"] == "There are 32."
    assert self_check(7, things="rows", count=0.12345).questions[0]["choices"][0] == "0.123"


@pytest.mark.parametrize(
    ("facts", "told"),
    [({"things": "rows"}, "missing ['count']"),
     ({"things": "a", "count": 1, "more": 2}, "not asked for ['more']"),
     ({}, "missing ['count', 'things']")],
)  # fmt: skip
def test_facts_are_exactly_those_that_the_texts_need(folder, facts, told):
    with pytest.raises(InputError, match=re.escape(told)):
        self_check(7, **facts)


@pytest.mark.parametrize("number", [8, "7", 7.0, True, None])
def test_a_notebook_without_questions_is_told_which_have_some(folder, number):
    with pytest.raises(InputError, match="notebooks with questions are 7"):
        self_check(number)


def test_a_notebook_shows_text_with_folded_answers_then_the_frame(folder):
    found = self_check(7, things="<b>rows</b>", count=32)
    page = found._repr_mimebundle_()["text/html"]
    text, _, frame = page.partition("<iframe")
    assert text.index("Answer") < text.index("There are 32.") and "<b>rows" not in text
    assert text.count("<details>") == text.count("</details>") == 2
    assert 'sandbox="allow-scripts"' in frame and "How many &lt;b" in text
    assert "How many" in repr(found) and "There are 32" not in repr(found)


@pytest.mark.parametrize("number", self_checks.numbers())
def test_the_questions_of_the_course(number):
    text = (self_checks.QUESTIONS / f"{number:02d}.toml").read_text(encoding="utf-8")
    asked = [Question(**one) for one in tomllib.loads(text)["question"]]
    assert len(asked) == 5, "five questions for each notebook"
    assert len({one.right for one in asked}) > 1, "the right ones stand at different places"
    assert len({one.asks for one in asked}) == 5


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"right": 2}, "0 to 1"), ({"right": True}, "right is True"), ({"right": -1}, "0 to 1"),
     ({"choices": ["a"]}, "2 to 6 different texts"), ({"choices": ["a", "a"]}, "different"),
     ({"choices": "ab"}, "a list of texts"), ({"choices": ["a", " "]}, "texts that are not empty"),
     ({"asks": ""}, "texts that are not empty"), ({"because": 3}, "3 in a question")],
)  # fmt: skip
def test_what_is_no_question(changes, told):
    with pytest.raises(InputError, match=told):
        quiz([USUAL | changes])


@pytest.mark.parametrize("questions", [[], "abc", None, [USUAL] * 21, [{"asks": "?"}], [3]])
def test_what_is_no_list_of_questions(questions):
    with pytest.raises(InputError, match="allowed"):
        quiz(questions)
    with pytest.raises(InputError, match="title is ''"):
        quiz(questions_of(), title="")


def test_the_data_are_the_questions_and_a_still_does_not_give_the_answers_away():
    view = quiz([USUAL, Question("Why?", ("x", "y", "z"), 2, "z it is.")])
    assert [one["right"] for one in view.data["questions"]] == [0, 2]
    assert view.limits == {"answered": (0, 2), "right": (0, 2)}
    drawn = " ".join(text.get_text() for text in view.to_figure().texts)
    assert "Why?" in drawn and "a) x" in drawn and "z it is" not in drawn
