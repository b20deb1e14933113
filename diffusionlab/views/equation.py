"""What a step is made of beyond its one equation: its network calls, and whether the record holds.

The equation itself is in `facts`; the page writes both with `js/equation.js`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusionlab.analysis.updates import invariants, path_check
from diffusionlab.errors import InputError
from diffusionlab.trace import Trace
from diffusionlab.views.facts import update_facts
from diffusionlab.views.page import plain


def call_facts(trace: Trace, indexes: Sequence[int]) -> list[list[dict[str, Any]]]:
    """For each step its network calls: the timestep, and the update that makes their point."""
    before, found = 0, []
    for step in trace.steps:
        found.append([
            {"timestep": plain(stage.level.timestep), "update": update_facts(stage.update, before)}
            for stage in step.stages
        ])  # fmt: skip
        before += step.network_calls
    return [found[i] for i in indexes]


def check_facts(trace: Trace, indexes: Sequence[int]) -> dict[str, Any]:
    """`warning` says that the record is not one path, "" if it is; `path` and `steps` tell more."""
    try:
        path = path_check(trace)
    except InputError as error:
        return {"warning": "", "path": f"Not checked: {error}.", "steps": _kept(trace, indexes)}
    held = f"Replayed: every step is what its equation makes of the record (worst {path.name}, off "
    return {
        "warning": str(path),
        "path": str(path) or f"{held}by {path.relative:.2g} of the largest value).",
        "steps": _kept(trace, indexes),
    }


def _kept(trace: Trace, indexes: Sequence[int]) -> list[str]:
    """One sentence a step: does its equation land on the next level?"""
    told = []
    for index in indexes:
        found = invariants(trace.steps[index])
        told.append(
            "This step's numbers add up: signal to the next alpha, noise to the next sigma."
            if found.holds
            else f"This step's numbers do not land on the next level: off by {found.relative:.2g} "
            "(some rules, such as lcm, mean it)."
        )
    return told
