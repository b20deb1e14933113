"""Views in a real Chromium, driven by Playwright, with the network blocked.

`opened(view, host)` shows a view in one of `HOSTS` and returns what a test needs to drive it. At
the end of each test: no console error, no request that leaves the page. Where there is no Chromium
the tests are skipped and counted; `REQUIRE_BROWSER=1` makes that a failure.
"""

from __future__ import annotations

import html
import os
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HOSTS = ("file", "sandbox", "nbconvert")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OWN = ("data:", "file:", "blob:", "about:")


@dataclass
class Opened:
    """A view on a page: `frame` is the document that it lives in (the page's own, or an iframe)."""

    page: Any
    frame: Any
    folder: Path
    wait_for: str = ".dl"
    errors: list[str] = field(default_factory=list)
    asked: list[tuple[Any, str]] = field(default_factory=list)

    @property
    def requests(self) -> list[str]:
        """Addresses outside the page that the view's own document asked for."""
        return [address for frame, address in self.asked if frame == self.frame]

    def turn_to(self, view: Any, host: str = "file") -> Opened:
        """Another view in the same window."""
        self.page.goto(write(view, host, self.folder).as_uri())
        self.frame = self.page.main_frame
        if host != "file":
            self.frame = self.page.wait_for_selector("iframe").content_frame()
        self.frame.wait_for_selector(self.wait_for)
        return self

    def press(self, key: str) -> None:
        """A key as a person presses it: to whatever has the focus in the view's document."""
        self.frame.locator(".dl").first.press(key) if self._nothing_focused() else (
            self.frame.locator("*:focus").press(key)
        )

    def _nothing_focused(self) -> bool:
        return self.frame.evaluate("document.activeElement === document.body")

    def js(self, code: str, value: Any = None) -> Any:
        """A JavaScript expression (or function of `value`) in the view's document."""
        return self.frame.evaluate(code, value)


def chromium() -> str | None:
    """The browser's program, if there is one."""
    given = os.environ.get("CHROMIUM")
    return given or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser():
    """One Chromium for all tests of a worker."""
    program = chromium()
    if program is None:
        told = "there is no Chromium; install your system's package, or set CHROMIUM to its program"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(told)
        pytest.skip(told)
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if root else []
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """opened(view, host="file", width=1024, height=768, before="", clock=False, **context).

    `before` is a script that runs in every frame before the page's own; with `clock` time stands
    until `page.clock.run_for(milliseconds)`.
    """
    shown: list[Opened] = []
    contexts = []

    def show(view, host="file", width=1024, height=768, before="", clock=False, wait_for=".dl",
             **options):  # fmt: skip
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        if before:
            context.add_init_script(before)
        if clock:
            context.clock.install()
        page = context.new_page()
        found = Opened(page, page.main_frame, tmp_path, wait_for)
        watch(found)
        shown.append(found)
        return found.turn_to(view, host)

    yield show
    before = [one.requests for one in shown]
    for context in contexts:
        context.close()
    assert [error for one in shown for error in one.errors] == []
    assert [address for one in before for address in one] == []


def watch(found: Opened) -> None:
    """Collect errors, and block and collect every request that leaves the page.

    An exported notebook asks for scripts of nbconvert's own template; those are blocked too, but
    only what the view's frame asks for counts.
    """
    page = found.page

    def blocked(route):
        if route.request.url.startswith(OWN):
            return route.continue_()
        found.asked.append((route.request.frame, route.request.url))
        return route.abort()

    page.route("**/*", blocked)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("console", lambda told: found.errors.append(told.text) if bad(told) else None)


def bad(told) -> bool:
    """A console error of ours; a blocked script of the exported page around us is none."""
    return told.type == "error" and "net::ERR_FAILED" not in told.text


def write(view, host: str, folder: Path) -> Path:
    """The page that shows the view in that host."""
    path = folder / f"{host}.html"
    if host == "file":
        return view.save(path)
    output = view._repr_mimebundle_()
    if host == "sandbox":
        head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(host)}</title>'
        text = head + output["text/html"]
    else:
        text = exported(output)
    path.write_text(text, encoding="utf-8")
    return path


def exported(*outputs: dict[str, str]) -> str:
    """A notebook of one cell for each output, as nbconvert writes it."""
    import nbformat  # takes seconds
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    cells = [
        new_code_cell("view", outputs=[new_output("display_data", data=dict(output))])
        for output in outputs
    ]
    notebook = new_notebook(cells=cells)
    nbformat.validate(notebook)
    return exporter().from_notebook_node(notebook)[0]


@cache
def exporter():
    from nbconvert import HTMLExporter

    return HTMLExporter()
