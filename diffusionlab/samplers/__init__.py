"""Samplers: pure functions (levels, schedule) -> plan, one small file per family.

`from diffusionlab.samplers import ddim` gives the rule of that name; `ddim(eta=0.5)` chooses its
options and gives a `Sampler`. A new solver is its rule in a file here and one line in `SAMPLERS`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.plan import Plan
from diffusionlab.samplers.catalogue import SAMPLERS
from diffusionlab.samplers.names import Translation, translate_name
from diffusionlab.samplers.rule import Option, Rule, Sampler
from diffusionlab.schedule import NoiseLevel, NoiseSchedule

__all__ = [
    "SAMPLERS",
    "Option",
    "Rule",
    "Sampler",
    "Translation",
    "as_sampler",
    "make_plan",
    "translate_name",
]


def __getattr__(name: str) -> Rule:
    if name in SAMPLERS:
        return SAMPLERS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *SAMPLERS])


def as_sampler(sampler: str | Sampler | Rule) -> Sampler:
    """The sampler with all its options filled in and checked.

    Raises InputError for an unknown name (listing all; other tools' names are translated) and for
    an option that is unknown or out of range.
    """
    if isinstance(sampler, Rule):
        sampler = sampler.name
    if isinstance(sampler, str):
        sampler = Sampler(sampler)
    if not isinstance(sampler, Sampler):
        raise InputError(
            f"sampler {shown(sampler)} is neither a name nor a Sampler; "
            f"use one of {', '.join(SAMPLERS)}, or e.g. ddim(eta=0.5)"
        )
    return _rule_named(sampler.name)(**sampler.options)


def make_plan(
    sampler: str | Sampler | Rule, levels: tuple[NoiseLevel, ...], schedule: NoiseSchedule | None
) -> Plan:
    """Every coefficient of a run, known before the first network call.

    `levels` are noisiest first and strictly decreasing, at least two; `schedule` is asked only for
    levels in between, which are interpolated if it is None. Raises InputError.
    """
    chosen = as_sampler(sampler)
    levels = tuple(levels)
    _check_levels(levels)
    rule = SAMPLERS[chosen.name]
    if len(levels) - 1 < rule.min_steps:
        raise InputError(
            f"{rule.name} needs at least {rule.min_steps} steps, but these levels make "
            f"{len(levels) - 1}; use num_steps={rule.min_steps} or more, or another sampler"
        )
    return rule.function(levels, schedule, **chosen.options)


def _rule_named(name: Any) -> Rule:
    if isinstance(name, str) and name in SAMPLERS:
        return SAMPLERS[name]
    names = f"the names are: {', '.join(SAMPLERS)}"
    try:
        found = translate_name(name)
    except InputError as error:
        raise InputError(f"{error}; {names}") from None
    raise InputError(f"sampler {shown(name)} is called {found.words()} here; {names}")


def _check_levels(levels: tuple[NoiseLevel, ...]) -> None:
    if len(levels) < 2:
        raise InputError(
            f"levels holds {len(levels)} level(s), but a step needs two; "
            "use more steps or final='clean'"
        )
    for s, t in pairwise(levels):
        if not (t.karras_sigma < s.karras_sigma and math.isfinite(t.sigma) and t.alpha > 0):
            raise InputError(
                f"levels must be strictly decreasing in karras_sigma, but {s.karras_sigma!r} is "
                f"followed by {t.karras_sigma!r}; use schedule.levels(num_steps)"
            )
