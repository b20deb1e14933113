"""What a sampler is here: a rule (a pure function with its facts) and a choice of its options."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diffusionlab.errors import InputError, close_matches, shown


@dataclass(frozen=True)
class Option:
    """One option of a rule: its default, a check, and the words that say what is allowed."""

    default: Any
    check: Callable[[Any], bool]
    allowed: str


def between(low: float, high: float, default: float) -> Option:
    """A finite number from `low` to `high`."""
    return Option(
        default,
        lambda value: _is_number(value) and low <= value <= high,
        f"a number with {low:g} <= {{name}} <= {high:g}",
    )


def choice(*allowed: Any, default: Any) -> Option:
    """One of a few values; True is not 1."""
    return Option(
        default,
        lambda value: any(value == one and type(value) is type(one) for one in allowed),
        "one of " + ", ".join(map(repr, allowed)),
    )


@dataclass(frozen=True)
class Sampler:
    """A sampler's name with its options, plain JSON; a rule makes one: `ddim(eta=0.5)`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{self.name}({options})"


@dataclass(frozen=True)
class Rule:
    """A sampler's pure function `(levels, schedule, **options) -> plan` with its facts.

    `order` is that of its limit for many steps with default options (weak order where it draws
    noise, 0 where it has none: rules for distilled weights). `calls_per_step` counts network calls,
    `extra_calls` those that a run's start costs beyond that. `same_as` names the rule that it
    equals with default options. Calling a rule chooses options: `ddim(eta=0.5)` is a `Sampler`.
    """

    name: str
    function: Callable[..., tuple]
    order: int
    calls_per_step: int
    deterministic: bool
    source: str
    synonyms: tuple[str, ...] = ()
    options: dict[str, Option] = field(default_factory=dict, hash=False)
    same_as: str = ""
    extra_calls: int = 0
    min_steps: int = 1

    def __call__(self, **options: Any) -> Sampler:
        for name, value in options.items():
            self._check_option(name, value)
        defaults = {name: option.default for name, option in self.options.items()}
        return Sampler(self.name, defaults | options)

    def _check_option(self, name: str, value: Any) -> None:
        if name not in self.options:
            known = ", ".join(self.options) or "none"
            near = close_matches(name, self.options)
            raise InputError(
                f"{self.name} has no option {shown(name)}: {near}its options are: {known}"
            )
        option = self.options[name]
        if not option.check(value):
            raise InputError(
                f"{name} must be {option.allowed.format(name=name)}, got {shown(value)}; "
                f"use e.g. {self.name}({name}={option.default!r})"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
