"""The quiz in Chromium: choosing, marking, starting again, and what Python hears of it."""

from __future__ import annotations

import pytest
from hosts import HOSTS

from diffusionlab.views import quiz

ASKED = [
    {"asks": "First?", "choices": ["a1", "b1", "c1"], "right": 1, "because": "Because of <b>."},
    {"asks": "Second?", "choices": ["a2", "b2"], "right": 0, "because": "So it is."},
]


def told(shown) -> list[str]:
    return [text for text in shown.frame.locator(".verdict").all_inner_texts() if text]


@pytest.mark.parametrize("host", HOSTS)
def test_answers_are_marked_with_their_reasons(opened, host):
    shown = opened(quiz(ASKED), host)
    score = shown.frame.locator(".score")
    assert score.inner_text() == "0 of 2 answered" and told(shown) == []
    shown.frame.get_by_label("b1").check()
    shown.frame.get_by_label("b2").check()
    assert score.inner_text() == "2 of 2 answered" and told(shown) == []
    shown.frame.get_by_role("button", name="Mark my answers").click()
    assert score.inner_text() == "1 of 2 right"
    assert told(shown) == ["✓ Right. Because of <b>.", "✗ Not so. So it is."]


def test_keys_alone_are_enough(opened):
    shown = opened(quiz(ASKED), "file")
    shown.frame.get_by_label("a1").focus()
    for key in ("ArrowDown", "Tab", "Space", "m"):
        shown.page.keyboard.press(key)
    assert shown.frame.locator(".score").inner_text() == "2 of 2 right"
    shown.page.keyboard.press("r")
    assert shown.frame.locator("input:checked").count() == 0 and told(shown) == []
    assert shown.frame.locator(".score").inner_text() == "0 of 2 answered"


def test_another_choice_takes_the_verdict_back_and_what_is_left_is_counted(opened):
    shown = opened(quiz(ASKED), "file")
    shown.frame.get_by_label("a1").check()
    shown.page.keyboard.press("m")
    assert shown.frame.locator(".score").inner_text() == "0 of 2 right, 1 not answered"
    shown.frame.get_by_label("b1").check()
    assert told(shown) == []
    shown.page.keyboard.press("m")
    assert shown.frame.locator(".score").inner_text() == "1 of 2 right, 1 not answered"
