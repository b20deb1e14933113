"""`View.widget()`: the same script with traits that Python and the page share."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import traces
from ipywidgets.widgets.widget import _instances
from traitlets import TraitError

from diffusionlab.errors import InputError
from diffusionlab.views import View, explore, explore_text
from diffusionlab.views.live import Live
from diffusionlab.views.page import source


def view(**live) -> View:
    """A view with one value of every kind."""
    given = {
        "step": 1,
        "word": "red",
        "on": True,
        "scale": 4.0,
        "chosen": [],
        "now": {},
        "any": None,
    }
    limits = {"step": (0, 4)}
    return View("step_explorer", "a title", "A sentence.", {"n": 1}, given | live, limits)


def from_the_page(widget, **state) -> None:
    """What the page's side sends when somebody moves a control."""
    widget._handle_msg({"content": {"data": {"method": "update", "state": state}}, "buffers": []})


def test_the_module_and_the_style_are_the_page_s():
    shown = explore(traces.trace())
    live = shown.widget()
    assert live._esm == source("step_explorer") and live._esm in shown.page
    assert live._css in shown.page
    assert live.get_state()["data"] == dict(shown.data)


def test_each_script_keeps_a_style_sheet_of_its_own():
    """anywidget has one style element for each id: a second view must not take the first one's."""
    run = traces.trace()
    ids = [view.widget()._anywidget_id for view in (explore(run), explore_text(run), explore(run))]
    assert ids[0] != ids[1] and ids[0] == ids[2]


def test_values_go_both_ways():
    live, heard = explore(traces.trace()).widget(), []
    live.observe(lambda change: heard.append(change["new"]), names=["step"])
    from_the_page(live, step=3)
    assert live.step == 3
    live.step = 2
    assert live.get_state("step") == {"step": 2}
    live.step = np.int64(4)
    assert type(live.step) is int and heard == [3, 2, 4]


def test_every_kind_of_value_comes_back_as_it_was_sent():
    live = view().widget()
    sent = {"word": "a <b>", "on": False, "scale": 1.5, "chosen": [1, 2], "now": {"k": 1}, "any": 3}
    from_the_page(live, **sent)
    assert {name: getattr(live, name) for name in sent} == sent


@pytest.mark.parametrize("wrong", [5, -1, 1.5, "2", None, True, np.nan])
def test_a_step_that_does_not_exist_is_refused_with_the_range(wrong, caplog):
    live = view().widget()
    with pytest.raises(InputError, match="step is .*; a whole number from 0 to 4 is allowed"):
        live.step = wrong
    from_the_page(live, step=wrong)  # ipywidgets logs what a message did wrong
    assert live.step == 1 and "from 0 to 4 is allowed" in caplog.text


@pytest.mark.parametrize(
    ("name", "wrong", "allowed"),
    [
        ("guidance", 1e9, "a number from 0 to 12 is allowed"),
        ("guidance", np.nan, "a number from 0 to 12 is allowed"),
        ("guidance", "4", "a number from 0 to 12 is allowed"),
        ("panel", "dail", "did you mean 'dial'\\? one of 'end', 'eps', 'difference', 'dial'"),
        ("panel", 3, "one of 'end'"),
        ("word", "nope", "one of '', '<start>', 'a', 'red'"),
    ],
)
def test_a_value_that_means_nothing_is_refused_with_what_is_allowed(name, wrong, allowed, caplog):
    live = explore(traces.trace()).widget()
    before = getattr(live, name)
    with pytest.raises(InputError, match=allowed):
        setattr(live, name, wrong)
    from_the_page(live, **{name: wrong})
    assert getattr(live, name) == before and "is allowed" in caplog.text
    live.guidance, live.panel, live.word = np.float32(2.5), "dial", "red"
    assert (live.guidance, live.panel, live.word) == (2.5, "dial", "red")
    live.guidance, live.word = 3, ""
    assert type(live.guidance) is float


def test_the_values_of_the_text_explorer_are_named():
    live = explore_text(traces.tokens()).widget()
    live.of, live.heads = "words", "max"
    with pytest.raises(InputError, match="one of 'tokens', 'words'"):
        live.of = "letters"


def test_instances_are_independent():
    one, other, longer = view().widget(), view().widget(), explore(traces.trace(7)).widget()
    one.step, longer.step = 4, 6
    assert (one.step, other.step, longer.step) == (4, 1, 6)
    assert one.chosen is not other.chosen
    with pytest.raises(InputError):
        one.step = 6
    with pytest.raises(TraitError):  # traitlets' own error too
        one.step = 6


def test_the_repr_names_the_run_and_no_address():
    assert repr(explore(traces.trace()).widget()).startswith("Live view: a red sky scraper · ddim")


def test_closing_leaves_no_widget_and_no_class_behind():
    view().widget().close()
    gc.collect()
    widgets, classes = len(_instances), len(Live.__subclasses__())
    for _ in range(20):
        view().widget().close()
    gc.collect()
    assert len(_instances) == widgets
    assert len(Live.__subclasses__()) <= classes
    left = view().widget()  # the counts can tell
    assert len(_instances) > widgets and len(Live.__subclasses__()) > classes
    left.close()
