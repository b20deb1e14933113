"""A real JupyterLab on this machine, in folders of its own, driven in Chromium without a network.

`Lab.open(name, cells)` writes a notebook and opens it; `Notebook` runs its cells by keyboard.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

TESTS = Path(__file__).parents[1]
PATIENCE = 60.0  # seconds, for whatever a slow machine is waited for
QUIET = {  # no question about news, no dialog, no windowing that takes outputs off the page
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@dataclass
class Lab:
    """The server's address and folder, and the browser context that looks at it."""

    address: str
    token: str
    folder: Path
    context: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, name: str, cells: list[str] | None = None) -> Notebook:
        """A notebook of these cells (None: the file that is there), on a page of its own."""
        path = self.folder / f"{name}.ipynb"
        if cells is not None:
            notebook = new_notebook(cells=[new_code_cell(text) for text in cells], metadata=KERNEL)
            nbformat.write(notebook, path)
        page = self.context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.route("**/*", self._local_only)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)
        page.goto(f"{self.address}/doc/tree/{path.name}?token={self.token}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content")
        return Notebook(page, path)

    def end_kernels(self) -> None:
        """Shut every kernel down."""
        for kernel in json.loads(self._ask("GET", "api/kernels")):
            self._ask("DELETE", f"api/kernels/{kernel['id']}")

    def _ask(self, method: str, what: str) -> bytes:
        request = urllib.request.Request(f"{self.address}/{what}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()

    def _note(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _local_only(self, route: Any) -> None:
        if route.request.url.startswith((self.address, "data:", "blob:", "about:")):
            return route.continue_()
        self.asked.append(route.request.url)
        return route.abort()


@dataclass
class Notebook:
    """A notebook on a page of JupyterLab."""

    page: Any
    path: Path

    def cell(self, number: int) -> Any:
        """The cell of that number, from 0."""
        return self.page.locator(".jp-CodeCell").nth(number)

    def run(self, number: int) -> None:
        """Run a cell as a person does, and wait until it is done."""
        cell = self.cell(number)
        self.page.get_by_text("| Idle").wait_for()  # a kernel that only starts would drop the key
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        done = "cell => /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt').innerText)"
        self.page.wait_for_function(done, arg=cell.element_handle())

    def output(self, number: int) -> Any:
        """What a cell gave."""
        return self.cell(number).locator(".jp-Cell-outputArea")

    def active(self) -> int:
        """The number of the cell that JupyterLab thinks is the present one."""
        cells = self.page.locator(".jp-CodeCell")
        marked = [n for n in range(cells.count()) if "jp-mod-active" in _classes(cells.nth(n))]
        return marked[0]

    def save(self) -> None:
        """Save by its button, and wait for the end of it."""
        self.page.locator("[data-command='docmanager:save']").first.click()
        self.page.get_by_text("Saving completed").wait_for()


def _classes(locator: Any) -> str:
    return locator.get_attribute("class") or ""


def until(true: Any, otherwise: str) -> None:
    """Wait for a condition outside the browser, whose pages stand still meanwhile."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.05)


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """A JupyterLab server: its address, its token, and the folder of its notebooks."""
    for name in ("work", "config/labconfig", "data", "runtime", "ipython", "home"):
        (folder / name).mkdir(parents=True)
    overrides = folder / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.write_text(json.dumps(QUIET), encoding="utf-8")
    token, port = secrets.token_hex(16), _free_port()
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1",
         f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--LabApp.news_url=",
         "--LabApp.extension_manager=readonly", f"--ServerApp.root_dir={folder / 'work'}",
         *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])],
        env=_environment(folder, token), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or _answers(address), "JupyterLab did not start")
        if process.poll() is not None:
            raise AssertionError((folder / "server.log").read_text(errors="replace")[-2000:])
        yield address, token, folder / "work"
    finally:
        _end(process)
        log.close()


def _environment(folder: Path, token: str) -> dict[str, str]:
    """Ours, with every folder that Jupyter writes to moved, and the tests' modules importable."""
    paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "HOME": str(folder / "home"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_TOKEN": token,
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/login", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _end(process: subprocess.Popen) -> None:
    """End the server and its kernels: its own process group, politely, then not."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
