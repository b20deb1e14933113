"""What one run of the playground is asked for, checked, and as the line of code that does it."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.samplers import Sampler, as_sampler
from diffusionlab.spacings import checked_spacing
from diffusionlab.timesteps import checked_num_steps
from diffusionlab.trace import Guidance, as_guidance


@dataclass(frozen=True)
class Request:
    """The arguments of one run, under the names that `generate` has for them. Raises InputError."""

    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    sampler: str | Sampler = "ddim"
    spacing: str | None = None
    num_steps: int = 20
    guidance_scale: float | Guidance = 4.0

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            _check_text(name, getattr(self, name))
        object.__setattr__(self, "seed", _checked_seed(self.seed))
        as_sampler(self.sampler)
        if self.spacing is not None:
            checked_spacing(self.spacing)
        steps = checked_num_steps(self.num_steps, sys.maxsize)  # the run knows its model's most
        object.__setattr__(self, "num_steps", steps)
        as_guidance(self.guidance_scale)

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the prompt, as keyword arguments."""
        names = [field.name for field in fields(self) if field.name != "prompt"]
        return {name: getattr(self, name) for name in names}

    def line(self, run: Callable[..., Any]) -> str:
        """The call that makes this run: of `dl.generate` if `run` is that, else of `run` itself."""
        start, more = opening(run)
        given = self.options | {name: v for name, v in more.items() if name not in self.options}
        options = ", ".join(f"{name}={code(value)}" for name, value in given.items())
        return f"{start}{code(self.prompt)}, {options})"


def opening(run: Callable[..., Any]) -> tuple[str, Mapping[str, Any]]:
    """How the call begins, and what it is given beside the form's values.

    `partial(dl.generate, model, …)` is written out; another function keeps to itself what a
    partial has fixed, and is called `run`, as it was handed over.
    """
    inner = getattr(run, "func", run)
    named = getattr(inner, "__module__", None), getattr(inner, "__qualname__", None)
    if named != ("diffusionlab.generate", "generate"):
        return "run(", {}
    fixed = getattr(run, "keywords", {})
    return "dl.generate(model, ", {name: v for name, v in fixed.items() if name != "model"}


def code(value: Any) -> str:
    """A value as Python writes it, under `import diffusionlab as dl`; sets in order."""
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(code, value))) + "}" if value else "set()"
    return f"dl.{value!r}" if isinstance(value, (Sampler, Guidance)) else repr(value)


def seed_of(text: str) -> int | str:
    """A seed as typed: a number, or the text itself, which `Request` then refuses."""
    typed = text.strip()
    return int(typed) if typed.removeprefix("-").isdecimal() and len(typed) < 40 else text


def _checked_seed(seed: Any) -> int:
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise InputError(
            f"seed must be an integer 0 <= seed < 2**63, got {shown(seed)}; use e.g. 7"
        )
    return number


def _check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise InputError(f"{name} is {shown(text)}; a str is allowed: pass text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{name} {shown(text)} is not valid Unicode text; decode it as UTF-8 first"
        ) from None
