"""A cell that only some models can run: its result, or the reason as a sentence on the page."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffusionlab.errors import DiffusionLabError


@dataclass(frozen=True)
class Refusal:
    """Why there is nothing to show."""

    reason: str

    def __repr__(self) -> str:
        return f"Not on this model: {self.reason}"

    def _repr_html_(self) -> str:
        return f"<p><b>Not on this model:</b> {html.escape(self.reason)}</p>"


def shown_or_told(make: Callable[[], Any]) -> Any:
    """What `make()` returns; where this model cannot be asked, a `Refusal` that shows the reason.

    For `lambda: dl.plot_pointing(pointing(bench))`. Only errors of this package are told so.
    """
    try:
        return make()
    except DiffusionLabError as error:
        return Refusal(str(error))
