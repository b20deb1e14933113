"""Views and the playground in a running JupyterLab: shown, driven by keyboard, saved, reopened."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from lab_server import Lab, server
from views_cases import CASES, WORDS_ONLY

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
VIEW = "import traces\nfrom diffusionlab.views import explore\nview = explore(traces.trace())\nview"
SLIDER = "input[type=range][aria-label=step]"
BELOW = "below = 'the cell below'\nbelow"


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    with server(tmp_path_factory.mktemp("lab")) as (address, token, folder):
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        found = Lab(address, token, folder, context)
        yield found
        context.close()
    assert found.errors == [] and found.asked == []


def test_a_view_moves_by_keyboard_and_lives_on_without_its_kernel(lab):
    notebook = lab.open("view", [VIEW, BELOW])
    notebook.run(0)
    slider = notebook.page.frame_locator("iframe[srcdoc]").locator(SLIDER)
    slider.focus()
    for key, step in (("ArrowRight", 1), ("ArrowDown", 0), ("End", 4), ("Home", 0)):
        slider.press(key)
        assert slider.get_attribute("aria-valuetext").startswith(f"step {step} of 4")
    assert notebook.active() == 0
    notebook.save()
    notebook.page.close()
    lab.end_kernels()
    again = lab.open("view")
    slider = again.page.frame_locator("iframe[srcdoc]").locator(SLIDER)
    slider.focus()
    slider.press("End")
    assert slider.get_attribute("aria-valuetext").startswith("step 4 of 4")
    assert again.output(0).locator("figure img[alt]").first.is_visible()
    again.page.close()


WIDGET = """import traces
from diffusionlab.views import explore
live = explore(traces.trace()).widget()
live"""


def test_a_widget_keeps_its_keys_and_shares_its_step(lab):
    notebook = lab.open("widget", [WIDGET, "live.step", "live.step = 2", "live.step = 9"])
    notebook.run(0)
    slider = notebook.output(0).locator(SLIDER)
    slider.focus()
    for key, step in (("ArrowRight", 1), ("ArrowDown", 0), ("End", 4), ("ArrowLeft", 3)):
        slider.press(key)
        assert slider.get_attribute("aria-valuetext").startswith(f"step {step} of 4")
    assert notebook.active() == 0
    floats = "[...document.querySelectorAll('.dl dt, .dl dd')].map(e => getComputedStyle(e).float)"
    assert set(notebook.page.evaluate(floats)) == {"none"}  # JupyterLab's style lays them over
    play = notebook.output(0).locator("button.play")
    play.press("Enter")  # JupyterLab would begin to edit the cell
    play.press("Enter")
    assert notebook.page.evaluate("document.activeElement.className") == "play"
    slider.press("End")
    slider.press("ArrowLeft")
    notebook.run(1)
    assert notebook.output(1).inner_text().strip().endswith("3")
    notebook.run(2)
    notebook.page.wait_for_function(
        "slider => slider.getAttribute('aria-valuetext').startsWith('step 2 of 4')",
        arg=slider.element_handle(),
    )
    notebook.run(3)
    assert "a whole number from 0 to 4 is allowed" in notebook.output(3).inner_text()
    notebook.page.close()


EVERY = """from views_cases import CASES
lives = {name: make("plain").widget() for name, make in CASES.items()}
before = {name: live.get_state() for name, live in lives.items()}"""
MOVED = "print(sorted(name for name in lives if lives[name].get_state() != before[name]))"


def test_every_view_is_a_widget_that_moves_by_key(lab):
    names = sorted(CASES)
    notebook = lab.open("every", [EVERY, *(f"lives[{name!r}]" for name in names), MOVED])
    notebook.run(0)
    for number, name in enumerate(names, 1):
        notebook.run(number)
        shown = notebook.output(number).locator(".dl")
        if name in WORDS_ONLY:
            shown.locator("input").first.press(" ")
            shown.locator("input").first.press("m")
            assert "1 of" in shown.locator(".score").inner_text(), name
            continue
        slider = shown.locator("input[type=range]:enabled >> visible=true").last
        before = slider.get_attribute("aria-valuetext")
        slider.press("Home" if slider.evaluate("el => el.value === el.max") else "End")
        assert slider.get_attribute("aria-valuetext") != before, name
        assert notebook.active() == number, name
        shown.first.press("t")
        assert shown.first.get_attribute("data-theme") == "dark", name
    notebook.run(len(names) + 1)
    assert notebook.output(len(names) + 1).inner_text().strip() == str(names)
    notebook.page.evaluate("console.error('heard')")
    assert lab.errors.pop() == "heard", "the check of errors can fail"
    notebook.page.close()


PANEL = """import functools, threading, fake_runs, traces
import diffusionlab as dl
gate = threading.Semaphore(0)
run = functools.partial(fake_runs.run, gate=gate)
panel = dl.playground(run, num_steps=5, preview=traces.preview())
panel"""


def test_the_playground_runs_shows_keeps_and_stops(lab):
    cells = [PANEL, "gate.release(2)", "gate.release(3)", "gate.release(5)", "len(panel.runs)"]
    notebook = lab.open("panel", cells)
    notebook.run(0)
    panel = notebook.output(0)
    prompt, seed = (panel.get_by_label(name, exact=True) for name in ("Prompt", "Seed"))
    bar = panel.locator("progress")
    prompt.fill("a blue <b>boat</b>")
    panel.get_by_role("button", name="Run", exact=True).click()
    bar.wait_for()
    notebook.run(1)
    panel.get_by_text("2 of 5").wait_for()
    assert panel.locator("img.belief").get_attribute("alt").startswith("x0-hat at step")
    notebook.run(2)
    panel.locator(SLIDER).wait_for()
    style = panel.locator(".tiles").evaluate("el => getComputedStyle(el).listStyleType")
    assert style == "none"  # the explorer's style sheet stands beside the panel's
    assert panel.locator(".tile").count() == 1 and not bar.is_visible()
    assert panel.locator(".tile bdi").inner_text() == "a blue <b>boat</b>"
    assert "'a blue <b>boat</b>'" in panel.locator(".code textarea").input_value()
    seed.fill("-1")
    panel.locator(".invalid", has_text="seed must be an integer").wait_for()
    seed.fill("12")
    prompt.press("Enter")
    bar.wait_for()
    panel.get_by_role("button", name="Stop", exact=True).click()
    panel.get_by_text("stopping after this step").wait_for()
    notebook.run(3)
    panel.locator(".tile", has_text="stopped after 1 of 5 steps").wait_for()
    panel.locator(".tile .thumb").first.press("Enter")  # the whole run again
    panel.locator(".tile .thumb[aria-pressed=true] img[alt^='Run 1']").wait_for()
    notebook.run(4)
    assert notebook.output(4).inner_text().strip().endswith("2")
    for part in (".dl-form", ".dl.desk"):
        found = Axe().run(notebook.page, context=part).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    desk = panel.locator(".dl.desk")
    desk.press("p")
    box = desk.bounding_box()
    assert box["x"] == box["y"] == 0 and box["width"] == 1280, "the desk fills the window"
    assert panel.locator(".tile.shown img").bounding_box()["width"] > 400
    desk.press("p")
    assert notebook.active() == 0
    shots = os.environ.get("SCREENSHOTS")
    if shots:
        panel.screenshot(path=f"{shots}/playground-lab.png")
    notebook.page.close()


def test_the_first_notebook_runs_by_shift_and_enter_alone(lab):
    """As a student does it: nothing is clicked but the first cell, nothing else is typed."""
    first = NOTEBOOKS / "01_prompt_to_picture.ipynb"
    bare = nbformat.read(first, as_version=4)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(bare, lab.folder / first.name)
    notebook = lab.open(first.stem)
    page, count = notebook.page, len(bare.cells)
    page.get_by_text("| Idle").wait_for()
    page.locator(".jp-Cell").first.click()
    page.keyboard.press("Escape")
    for _ in range(count):
        page.keyboard.press("Shift+Enter")
    last = sum(cell.cell_type == "code" for cell in bare.cells)
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.innerText)"
    page.wait_for_function(f"{prompts}.includes('[{last}]:')", timeout=240_000)
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    assert errors.all_inner_texts() == []
    quiz = page.frame_locator("iframe[srcdoc][title='Check yourself']")
    assert "5 answered" in quiz.locator(".score").inner_text()
    page.close()
