"""A view as a widget that shares its values with Python while a kernel runs."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import anywidget
import traitlets

from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.views.page import source, style

KINDS = {
    bool: traitlets.Bool,
    str: traitlets.Unicode,
    float: traitlets.Float,
    list: traitlets.List,
    dict: traitlets.Dict,
}


class LiveValueError(InputError, traitlets.TraitError):
    """A live value out of its limits: our InputError, which is traitlets' own error too."""


class Whole(traitlets.TraitType):
    """A whole number within limits; anything else is refused by an error that says them."""

    def __init__(self, value: int, low: int, high: int):
        super().__init__(value)
        self.low, self.high = low, high

    def validate(self, widget: Any, value: Any) -> int:
        """The value as an int."""
        try:
            number = operator.index(value)
        except TypeError:
            number = self.low - 1
        if isinstance(value, bool) or not self.low <= number <= self.high:
            raise LiveValueError(
                f"{self.name} is {shown(value)}; a whole number from {self.low} to {self.high} is "
                f"allowed here: set .{self.name} to one of them"
            )
        return number


class Amount(traitlets.TraitType):
    """A number within limits."""

    def __init__(self, value: float, low: float, high: float):
        super().__init__(value)
        self.low, self.high = low, high

    def validate(self, widget: Any, value: Any) -> float:
        """The value as a float."""
        try:
            number = math.nan if isinstance(value, (bool, str)) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not self.low <= number <= self.high:
            raise LiveValueError(
                f"{self.name} is {shown(value)}; a number from {self.low:g} to {self.high:g} is "
                f"allowed here: set .{self.name} to one of them"
            )
        return number


class Name(traitlets.TraitType):
    """One of several texts."""

    def __init__(self, value: str, names: Sequence[str]):
        super().__init__(value)
        self.names = names

    def validate(self, widget: Any, value: Any) -> str:
        """The value, if it is one of the names."""
        if not isinstance(value, str) or value not in self.names:
            near = close_matches(value, self.names) if isinstance(value, str) else ""
            raise LiveValueError(
                f"{self.name} is {shown(value)}; {near}one of {', '.join(map(shown, self.names))} "
                f"is allowed here: set .{self.name} to it"
            )
        return value


class Live(anywidget.AnyWidget):
    """The widget of one view; `data` never changes, the other traits go both ways."""

    data = traitlets.Dict().tag(sync=True)
    title = traitlets.Unicode().tag(sync=True)

    def close(self) -> None:
        """Take the widget off every page, its layout too, which ipywidgets would keep for ever."""
        layout = self.layout if self.comm is not None else None
        super().close()
        if layout is not None:
            layout.close()

    def __repr__(self) -> str:
        return f"Live view: {self.title}"


def widget_of(view: Any) -> Live:
    """The widget of a view: one trait for each of its live values."""
    traits = {name: _trait(value, view.limits.get(name)) for name, value in view.live.items()}
    looks = {"_esm": source(view.script), "_css": style(view.script)}
    kind = type(f"Live_{view.script}", (Live,), {**traits, **looks})  # a style sheet for each name
    return kind(data=dict(view.data), title=view.title)


def _trait(value: Any, limits: tuple | None) -> Any:
    """A trait of the value's type; `limits` are (low, high) of a number, or the names of a text."""
    if limits is not None:
        kind = Amount if isinstance(value, float) else Whole
        trait = Name(value, limits) if isinstance(value, str) else kind(value, *limits)
        return trait.tag(sync=True)
    return KINDS.get(type(value), traitlets.Any)(value).tag(sync=True)
