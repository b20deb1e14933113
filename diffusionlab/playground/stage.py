"""The place below the form where one view stands at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets

from diffusionlab.views import View


class Stage:
    """One view, live; putting in another closes the one before, so that no widget is left over."""

    def __init__(self, lock: threading.RLock):
        self.lock, self.box = lock, ipywidgets.VBox([])
        self.view: View | None = None
        self._ticket = 0

    def put(self, make: Callable[[], View], then: Callable[[], None]) -> None:
        """Show what `make` makes, which may take a while, unless another was asked for since."""
        with self.lock:
            self._ticket += 1
            ticket = self._ticket
        view = make()
        with self.lock:
            if ticket != self._ticket:
                return
            before, self.box.children = self.box.children, (_opened(view),)
            for widget in before:
                widget.close()
            self.view = view
            then()


def _opened(view: View) -> Any:
    """The widget of a view, at the end of its run: that is where the picture is."""
    live = view.widget()
    if "step" in view.limits:
        live.step = view.limits["step"][1]
    return live


def close_all(widget: ipywidgets.Widget) -> None:
    """Close a widget with its layout and style, and everything inside it first."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
        if isinstance(part, ipywidgets.Widget):
            part.close()
