"""A view as a widget that shares its values with Python while a kernel runs."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from diffusionlab.views.page import source, style


class Live(anywidget.AnyWidget):
    """The widget of one view; `data` never changes, the other traits go both ways."""

    data = traitlets.Dict().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)

    def __repr__(self) -> str:
        return f"Live view: {self.title}"


def widget_of(view: Any) -> Live:
    """The widget of a view: one trait for each of its live values."""
    traits = {name: _trait(value, view.limits.get(name)) for name, value in view.live.items()}
    looks = {"_esm": source(view.script), "_css": style(view.script)}
    kind = type("Live", (Live,), {**traits, **looks})
    return kind(data=dict(view.data), title=view.title)


def _trait(value: Any, limits: tuple[int, int] | None) -> Any:
    """A trait of the value's type; whole numbers outside their limits are refused (TraitError)."""
    if limits is not None:
        return traitlets.Int(value, min=limits[0], max=limits[1]).tag(sync=True)
    kinds = {bool: traitlets.Bool, str: traitlets.Unicode, float: traitlets.Float}
    return kinds.get(type(value), traitlets.Any)(value).tag(sync=True)
