"""The playground: what it asks for, whose turn it is, what it keeps, and what it tells."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
import threading
from html.parser import HTMLParser

import fake_runs
import ipywidgets
import numpy as np
import pytest
import traces
from ipywidgets.widgets.widget import _instances

import diffusionlab as dl
from diffusionlab import views
from diffusionlab.errors import InputError, NumericsError
from diffusionlab.playground import Playground, Request, playground, shown
from diffusionlab.playground.request import code, seed_of
from diffusionlab.playground.turns import ONE_RUN
from diffusionlab.trace import Guidance

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def panel():
    """panel(run=…, …): panels that are closed at the end."""
    made: list[Playground] = []

    def make(run=fake_runs.run, **options) -> Playground:
        made.append(playground(run, **{"num_steps": 5} | options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.wait()


def gated() -> tuple:
    """A run whose steps wait for `gate.release()`."""
    gate = threading.Semaphore(0)
    return functools.partial(fake_runs.run, gate=gate), gate


def until_running(one: Playground, number: int) -> None:
    wait_for(lambda: one._turns.current is not None and one._turns.current.number == number)


def wait_for(true) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came")


def status(one: Playground) -> dict:
    return one.desk.widget.status


def from_the_page(one: Playground, **said) -> None:
    """A message as the page sends it."""
    content = {"data": {"method": "custom", "content": said}}
    one.desk.widget._handle_msg({"content": content, "buffers": []})


# ---- requests -----------------------------------------------------------------------------------
REQUESTS = [
    Request(),
    *(Request(text, text, 2**63 - 1, "heun", "karras", 1, -2.5) for text in traces.HOSTILE),
    Request(
        'it\'s \\ "quoted"\n\u202e',
        sampler=dl.ddim(eta=0.5),
        guidance_scale=Guidance(4, (0.3, 5), 0.7),
    ),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_line_is_the_call_that_was_made(request_):
    line = request_.line(functools.partial(dl.generate, None, record={"predictions"}, num_steps=99))

    class Said:
        Guidance, ddim = Guidance, dl.ddim

        @staticmethod
        def generate(*given, **options):
            return given, options

    given, options = eval(line, {"dl": Said, "model": "the model"})  # noqa: S307
    assert given == ("the model", request_.prompt)
    assert options == request_.options | {"record": {"predictions"}}
    assert line.isprintable() and "\n" not in line


def test_the_line_names_the_function_that_runs():
    """Only `generate` is written out: what another function has fixed stays inside it."""
    gate = threading.Semaphore(0)
    for run in (fake_runs.run, functools.partial(fake_runs.run, gate=gate)):
        line = Request("a cat").line(run)
        assert line.startswith("run('a cat', negative_prompt='', seed=0, ") and "gate" not in line
    line = Request("a cat").line(functools.partial(dl.generate, model="m"))
    assert line.startswith("dl.generate(model, 'a cat', ") and "model=" not in line


def test_sets_are_written_in_order():
    """Their own order changes from one process to the next."""
    names = [f"name{number:02}" for number in range(40)]
    assert code(set(names)) == code(frozenset(names)) == "{" + str(names)[1:-1] + "}"
    assert repr(set(names)) != code(set(names)), "this check can fail"
    assert code(set()) == "set()" and eval(code({1, "a"})) == {1, "a"}  # noqa: S307


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": -1}, "seed must be an integer 0 <= seed < 2**63, got -1; use e.g. 7"),
        ({"seed": 2**63}, "seed must be an integer"),
        ({"seed": "seven"}, "got 'seven'"),
        ({"seed": True}, "seed must be an integer"),
        ({"num_steps": 0}, "num_steps must be an integer >= 1, got 0"),
        ({"sampler": "dimm"}, "sampler 'dimm' is unknown"),
        ({"spacing": "karas"}, "did you mean 'karras'?"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; a finite number is allowed"),
        ({"prompt": b"a"}, "prompt is b'a'; a str is allowed"),
        ({"negative_prompt": "\ud800"}, "negative_prompt '\\ud800' is not valid Unicode text"),
        ({"most": 1}, "most is 1; 2 to 64 runs can be kept"),
        ({"run": 3}, "run is 3; a callable is needed"),
    ],
)
def test_bad_input_is_refused_by_our_errors(changed, told):
    with pytest.raises(InputError) as refused:
        playground(**{"run": fake_runs.run} | changed)
    assert told in str(refused.value)


def test_a_typed_seed_is_a_number_or_stays_a_text_that_is_refused():
    assert [seed_of(text) for text in (" 12 ", "-1", "9007199254740993")] == [12, -1, 2**53 + 1]
    assert [seed_of(text) for text in ("1e3", "", "²", "9" * 5000)] == ["1e3", "", "²", "9" * 5000]


# ---- one run ------------------------------------------------------------------------------------
def test_one_is_not_some(panel):
    one = panel(num_steps=1).start().wait()
    assert one.desk.widget.runs[0]["how"] == "ddim, 1 step, guidance 4, seed 0"
    assert status(one)["text"].startswith("1 step, 1 network call, ")


def test_a_run_is_shown_and_kept(panel):
    one = panel(preview=traces.preview()).start(prompt="a blue boat", seed=3).wait()
    assert one.trace.settings.prompt == "a blue boat" and one.trace.settings.seed == 3
    assert one.runs == (one.trace,) and one.error == ""
    (live,) = one.box.children[2].children
    assert live.step == 4 and live.data == dict(one.view.data)
    (tile,) = one.desk.widget.runs
    assert tile["id"] == one.desk.widget.shown == 1
    assert tile["prompt"] == "a blue boat" and tile["how"] == "ddim, 5 steps, guidance 4, seed 3"
    assert tile["source"].startswith("data:image/webp") and "a blue boat" in tile["alt"]
    assert status(one)["text"].startswith("5 steps, 5 network calls, ")
    assert status(one)["notes"] == ["5 kept, 3 dropped"] and status(one)["phase"] == "idle"


def test_progress_reaches_the_page_step_by_step_with_what_the_network_believes(panel):
    run, gate = gated()
    one = panel(run, preview=traces.preview()).start()
    heard = []
    one.desk.widget.observe(lambda change: heard.append(change["new"]), names=["status"])
    gate.release(5)
    one.wait()
    assert [now["done"] for now in heard if now["phase"] == "running" and now["done"]][:5] == [
        1,
        2,
        3,
        4,
        5,
    ]
    pictures = [now["picture_alt"] for now in heard if now["picture"]]
    assert pictures and pictures[-1] == "x0-hat at step 4, preview"


def test_a_thread_runs_as_generate_does(panel, tiny_model):
    import torch

    modes = []

    def run(*given, **options):
        modes.append(torch.is_inference_mode_enabled())
        return dl.generate(tiny_model, *given, **options)

    one = panel(run, prompt="a red car", num_steps=2, sampler="heun").start(seed=5).wait()
    plain = dl.generate(
        tiny_model, "a red car", seed=5, num_steps=2, sampler="heun", progress=False
    )
    assert one.trace.image.tobytes() == plain.image.tobytes()
    assert np.array_equal(one.trace.latents, plain.latents)
    assert modes == [False] and torch.is_grad_enabled()


# ---- whose turn it is ---------------------------------------------------------------------------
def test_of_those_that_wait_only_the_last_is_run(panel):
    run, gate = gated()
    one = panel(run).start(seed=1)
    until_running(one, 1)
    for seed in (2, 3, 4):
        one.start(seed=seed)
    assert status(one)["queued"]
    gate.release(10)
    one.wait()
    assert [trace.settings.seed for trace in one.runs] == [1, 4]
    assert one.trace.settings.seed == 4 and not status(one)["queued"]


def test_eight_threads_end_with_the_last_request(panel):
    one, before = panel(most=3), threading.active_count()
    asked, lock = [], one._turns.lock

    def press(first: int) -> None:
        for seed in range(first, first + 50):
            with lock:
                one.start(seed=seed)
                asked.append(seed)

    threads = [threading.Thread(target=press, args=(1000 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.wait()
    assert len(asked) == 400 and one.trace.settings.seed == asked[-1]
    assert one.runs[-1] is one.trace and one.desk.widget.shown == 400
    assert f"seed={asked[-1]}," in one.line == one.desk.widget.line
    assert len(one.runs) == len(one.desk.widget.runs) <= 3 and one.error == ""
    wait_for(lambda: threading.active_count() == before)


def test_panels_take_turns(panel):
    inside, most = [0], []

    def run(prompt, **options):
        inside[0] += 1
        most.append(inside[0])
        trace = fake_runs.run(prompt, **options)
        inside[0] -= 1
        return trace

    several = [panel(run) for _ in range(4)]
    for one in several:
        one.start()
    for one in several:
        one.wait()
    assert most == [1, 1, 1, 1]


def test_a_panel_that_waits_for_another_can_be_stopped(panel):
    one = panel()
    with ONE_RUN:
        one.start()
        until_running(one, 1)
        one.stop().wait()
    assert "before the first step" in status(one)["text"] and not one.runs
    assert one.start().wait().trace is not None


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_stop_keeps_the_steps_so_far(panel, steps):
    run, gate = gated()
    one = panel(run).start()
    until_running(one, 1)
    for done in range(1, steps):
        gate.release()
        wait_for(lambda done=done: status(one)["done"] == done)
    one.stop()
    assert status(one)["phase"] == "stopping"
    gate.release(1)
    one.wait()
    assert len(one.trace.steps) == steps and one.trace.image is None
    assert one.desk.widget.runs[0]["ended"] == f"stopped after {steps} of 5 steps"
    assert f"stopped after {steps} of 5 steps" in status(one)["text"] and one.error == ""
    gate.release(5)
    assert len(one.start().wait().trace.steps) == 5


def test_stop_forgets_what_waits_and_says_nothing_when_nothing_runs(panel):
    run, gate = gated()
    one = panel(run).stop().start(seed=1)
    until_running(one, 1)
    one.start(seed=2).stop()
    gate.release(10)
    one.wait()
    assert [len(trace.steps) for trace in one.runs] == [1]


def test_a_second_stop_drops_whatever_comes_late(panel):
    free = threading.Event()

    def deaf(prompt, **options):
        free.wait(60)
        return traces.trace(5, prompt)

    one = panel(deaf).start()
    until_running(one, 1)
    one.stop().stop()
    assert status(one)["phase"] == "idle" and "dropped" in status(one)["text"]
    one.start(seed=9)  # waits for the deaf one, which still has the model
    free.set()
    one.wait()
    assert one.numbers == (2,)


def test_a_closed_panel_drops_its_run_and_refuses_more(panel):
    run, gate = gated()
    before = len(_instances)
    one = panel(run).start()
    until_running(one, 1)
    one.close()
    gate.release(5)
    one.wait()
    assert not one.runs and len(_instances) == before
    with pytest.raises(InputError, match="this playground was closed; make a new one"):
        one.start()


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C: a process that a shell put into the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name != "posix", reason="a signal is sent as POSIX does")
def test_after_ctrl_c_the_wait_lasts_until_the_steps_are_kept(panel, interruptible):
    """A real interrupt: Python 3.11's Thread.join would say that the thread has ended."""
    run, gate = gated()
    one = panel(run).start()
    until_running(one, 1)
    timers = [threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)),
              threading.Timer(0.8, gate.release)]  # fmt: skip
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        one.wait()
    for timer in timers:
        timer.join()
    assert len(one.runs) == 1 and len(one.trace.steps) == 1
    assert status(one)["text"].startswith("stopped after 1 of 5 steps")


def test_ctrl_c_while_waiting_stops_the_run_and_keeps_its_steps(panel, monkeypatch):
    run, gate = gated()
    one = panel(run).start()
    until_running(one, 1)
    real, calls = one._turns.wait, []

    def interrupted():
        calls.append(1)
        if len(calls) == 1:
            gate.release(1)
            wait_for(lambda: status(one)["done"] == 1)
            raise KeyboardInterrupt
        gate.release(1)
        real()

    monkeypatch.setattr(one._turns, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.wait()
    assert len(one.trace.steps) == 2


# ---- what goes wrong ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("height is 7; multiples of 8"), "height is 7; multiples of 8"),
        (ValueError("<b>no</b>"), "ValueError: <b>no</b>"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_an_error_of_a_run_is_told_and_the_panel_goes_on(panel, error, told):
    def run(prompt, *, seed, **options):
        if seed == 1:
            raise error
        return fake_runs.run(prompt, seed=seed, **options)

    one, before = panel(run), threading.active_count()
    one.start(seed=1).wait()
    assert status(one)["error"] == told and status(one)["phase"] == "idle"
    assert told.split(": ")[-1] in one.error and not one.runs
    assert one.start(seed=2).wait().trace.settings.seed == 2
    assert status(one)["error"] == ""
    wait_for(lambda: threading.active_count() == before)


def test_an_error_that_carries_its_steps_leaves_them(panel):
    def run(prompt, **options):
        error = NumericsError("NaN at step 2")
        error.trace = dataclasses.replace(
            traces.trace(), steps=traces.trace().steps[:2], image=None
        )
        raise error

    one = panel(run).start().wait()
    assert len(one.trace.steps) == 2 and status(one)["error"] == "NaN at step 2"


def test_what_is_no_trace_and_what_cannot_be_shown_is_told(panel):
    one = panel(lambda prompt, **options: "a picture").start().wait()
    assert "run gave 'a picture'; a Trace is needed" in status(one)["error"]

    def broken(trace):
        raise RuntimeError("no view")

    one = panel(view=broken).start().wait()
    assert status(one)["error"] == "RuntimeError: no view" and "no view" in one.error
    assert len(one.runs) == 1


def test_a_picture_that_is_not_finite_is_said_to_be_so(panel):
    def run(prompt, **options):
        trace = traces.trace()
        last = dataclasses.replace(
            trace.steps[-1],
            predictions=(),
            next_latent=np.full_like(trace.steps[-1].next_latent, np.nan),
        )
        return dataclasses.replace(trace, steps=(*trace.steps[:-1], last), image=None)

    one = panel(run, view=lambda trace: views.explore(traces.trace())).start().wait()
    assert one.desk.widget.runs[0]["source"] is None and status(one)["error"] == ""


def test_nothing_is_left_over_after_fifty_runs(panel):
    one = panel(most=4)
    one.start().wait()
    widgets, threads = len(_instances), threading.active_count()
    for seed in range(50):
        one.start(seed=seed).wait()
    assert len(_instances) == widgets and len(one.runs) == 4
    wait_for(lambda: threading.active_count() == threads)
    views.explore(one.trace).widget()  # the count can tell
    assert len(_instances) > widgets


# ---- the kept runs ------------------------------------------------------------------------------
def test_the_oldest_goes_unless_it_is_looked_at_or_chosen(panel):
    one = panel(most=3)
    for seed in range(3):
        one.start(seed=seed).wait()
    one.choose(1)
    one.start(seed=3).wait()
    assert list(one.numbers) == [1, 3, 4] == [tile["id"] for tile in one.desk.widget.runs]
    one.choose(1, 3, 4).start(seed=4).wait()
    assert one.numbers == (3, 4, 5) and one.desk.widget.chosen == [3, 4]
    with pytest.raises(InputError, match="run 1 is not kept; these are: 3, 4, 5: name one"):
        one.show(1)


def test_the_page_shows_chooses_and_compares(panel, monkeypatch):
    asked = []

    def fake(kind):
        def view(*given, **options):
            asked.append((kind, given, options))
            return views.explore(traces.trace(3))

        return view

    monkeypatch.setattr(views, "diff", fake("diff"), raising=False)
    monkeypatch.setattr(views, "race", fake("race"), raising=False)
    one = panel()
    for seed in range(3):
        one.start(seed=seed).wait()
    from_the_page(one, kind="show", value=1)
    assert one.trace is one.runs[0] and one.desk.widget.shown == 1
    from_the_page(one, kind="choose", value=[1, 3])
    assert one.desk.widget.chosen == [1, 3]
    from_the_page(one, kind="compare")
    assert asked == [("diff", (one.runs[0], one.runs[2]), {"labels": ["run 1", "run 3"]})]
    assert one.desk.widget.shown is None and len(one.view.data["steps"]) == 3
    one.compare(1, 2, 3)
    assert asked[-1][0] == "race" and asked[-1][1][0].values == ("0", "1", "2")
    for said in ({"kind": "show", "value": 99}, {"kind": "choose", "value": [[]]}):
        one.desk.tell(error="")
        from_the_page(one, **said)
        assert status(one)["error"], said
    one.choose(1)
    from_the_page(one, kind="compare")
    assert "1 run was chosen; 2 to 9 can be compared" in status(one)["error"]


def test_a_comparison_names_what_differs(panel):
    one = panel()
    with pytest.raises(InputError, match="a comparison of 0 runs was asked for; make a run first"):
        one.comparison()
    one.start(seed=1).wait().start(seed=2, sampler="heun").wait().start().wait()
    found = one.comparison(1, 2)
    assert (found.axis, found.values) == ("seed and sampler", ("1 · ddim", "2 · heun"))
    assert found.traces == one.runs[:2]
    assert one.comparison(2, 3).values == ("run 2", "run 3")
    assert one.comparison().axis == "seed and sampler and run"
    assert one.choose(3).comparison().traces == one.runs[2:]


# ---- form and output ----------------------------------------------------------------------------
def below(widget) -> list:
    return [widget, *(one for child in getattr(widget, "children", ()) for one in below(child))]


def test_every_input_has_a_label_and_no_text_is_html(panel):
    one = panel(prompt=traces.HOSTILE[1]).start().wait()
    found = below(one.box)
    assert not [w for w in found if isinstance(w, (ipywidgets.HTML, ipywidgets.HTMLMath))]
    inputs = [w for w in found if hasattr(w, "description")]
    assert len(inputs) == 10 and all(w.description for w in inputs)
    assert not any(getattr(w, "description_allow_html", False) for w in inputs)


def test_the_form_runs_on_enter_and_on_its_button_and_draws_seeds(panel):
    one = panel()
    prompt = one.form.inputs["prompt"]
    prompt.value = "by enter"
    prompt._handle_custom_msg({"event": "submit"}, [])
    one.wait()
    one.form.dice.click()
    drawn = int(one.form.inputs["seed"].value)
    one.form.run.click()
    one.wait()
    assert one.runs[0].settings.prompt == "by enter" and one.trace.settings.seed == drawn
    one.form.stop.click()
    assert 0 <= drawn < 10_000 and status(one)["error"] == ""


def test_what_is_typed_wrongly_is_told_and_not_run(panel):
    one = panel()
    one.form.inputs["seed"].value = "-3"
    assert "got -3" in status(one)["invalid"] and one.desk.widget.line == ""
    one.form.run.click()
    assert "got -3" in status(one)["error"] and not one._turns.serving
    assert "got -3" in repr(one) and "got -3" in one._repr_mimebundle_()["text/html"]
    one.form.inputs["seed"].value = "3"
    assert status(one)["invalid"] == "" and "seed=3," in one.desk.widget.line


def test_menus_offer_what_they_were_given_and_keep_options(panel):
    some = [dl.ddim(eta=1.0), "heun"]
    guidance = Guidance(3, (0.3, 5), 0.5)
    one = panel(sampler=some[0], samplers=some, spacings=["karras"], guidance_scale=guidance)
    assert [label for label, _ in one.form.inputs["sampler"].options] == ["ddim(eta=1.0)", "heun"]
    assert [v for _, v in one.form.inputs["spacing"].options] == ["karras", ""]
    one.form.inputs["guidance_scale"].value = 7.5
    request = one.form.request()
    assert request.guidance_scale == Guidance(7.5, (0.3, 5), 0.5) and request.spacing is None
    assert "sampler=dl.ddim(eta=1.0)" in one.line and "dl.Guidance(scale=7.5" in one.line
    with pytest.raises(InputError, match="this panel offers ddim.*make a panel with samplers="):
        one.start(sampler="euler")
    with pytest.raises(InputError, match="height: the form has no such input; it has prompt"):
        one.start(height=64)


class Structure(HTMLParser):
    """The elements and attribute names of a page, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [name for name, _ in attrs]))


@pytest.mark.parametrize("text", traces.HOSTILE)
def test_without_a_kernel_there_is_a_still_whose_structure_no_prompt_changes(panel, text):
    told = {}
    for prompt in ("a red car", text):
        one = panel(prompt=prompt, negative_prompt=prompt).start().wait()
        told[prompt] = one._repr_mimebundle_()
        assert set(told[prompt]) == {"text/html", "text/plain"}
    plain, hostile = (Structure(told[p]["text/html"]).found for p in ("a red car", text))
    assert hostile == plain and "img" in [tag for tag, _ in plain]
    assert Structure(text + "<b>").found != Structure("a red car").found  # the check can fail


def test_several_runs_are_kept_as_one_row_of_pictures(panel):
    one = panel().start(seed=1).wait().start(seed=2).wait()
    told = one._repr_mimebundle_()
    assert "differing in seed: 1, 2." in told["text/html"]
    assert told["text/plain"].startswith("Playground, 2 runs kept; now: run(")


def test_with_a_kernel_the_widget_stands_alone_after_a_folded_still(panel, monkeypatch):
    one, shown_ = panel(), []
    monkeypatch.setattr(shown, "has_kernel", lambda: True)
    bundle = one._repr_mimebundle_()
    assert WIDGET in bundle and "text/html" not in bundle
    assert bundle["text/plain"].startswith("Playground, 0 runs kept; now: run(")
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown_.append(data))
    one._ipython_display_()
    assert [WIDGET in data for data in shown_] == [False, True]
    assert shown_[0]["text/html"].startswith("<details>")


def test_the_playground_needs_neither_torch_nor_matplotlib():
    code = (
        "import sys, diffusionlab as dl; dl.playground(print); "
        "assert not {'torch', 'matplotlib', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
