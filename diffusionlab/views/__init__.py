"""Interactive views of records: in the notebook, live, and as one HTML file that works offline.

A function is imported when it is first asked for, so that one view does not load the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

PLACES = {
    "View": "view",
    "diff": "difference",
    "exhibit": "exhibition",
    "explore": "step_explorer",
    "explore_schedule": "schedule_explorer",
    "explore_text": "text_explorer",
    "quiz": "questions",
    "race": "sampler_race",
}
__all__ = list(PLACES)


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(PLACES)
