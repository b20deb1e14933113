"""All claims by their name, found in the chapters; and the one function that examines one."""

from __future__ import annotations

import re
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO

from diffusionlab.claims.bench import FEW, Bench
from diffusionlab.claims.claim import Claim, Finding
from diffusionlab.errors import DiffusionLabError, InputError, close_matches, shown
from diffusionlab.pipeline import LatentDiffusion

CHAPTERS = (
    "text",
    "latents",
    "decoder",
    "noise",
    "network",
    "attention",
    "steps",
    "samplers",
    "guidance",
    "sharpened",
    "symptoms",
)


def _gathered() -> dict[str, Claim]:
    found: dict[str, Claim] = {}
    for chapter in CHAPTERS:
        for claim in import_module(f"diffusionlab.claims.{chapter}").CLAIMS:
            if claim.id in found:
                raise ValueError(f"two claims are called {claim.id}")
            found[claim.id] = claim
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(name: str) -> tuple[str, int, str]:
    """Where a name stands: B4 before B12."""
    letter, number, rest = re.fullmatch(r"([A-Z])(\d+)(.*)", name).groups()
    return letter, int(number), rest


CLAIMS: dict[str, Claim] = _gathered()


def find(name: str) -> Claim:
    """The claim of that name. Errors: InputError that lists all names."""
    if name not in CLAIMS:
        known = ", ".join(CLAIMS)
        raise InputError(
            f"claim {shown(name)} is not known; {close_matches(str(name), CLAIMS)}known are {known}"
        )
    return CLAIMS[name]


def examine(model: LatentDiffusion | Bench, name: str, samples: int = FEW) -> Finding:
    """Hold one claim against a model and return what was measured, with the verdict.

    Hand the same `Bench` to several claims and they share their runs; then `samples` is the
    bench's. Notices are not printed: the prompts are the experiment's own, and some are too long on
    purpose. A model that cannot be asked (no judges for its pictures, …) gets the verdict "not
    asked" with the reason. Errors: InputError for an unknown name.
    """
    claim = find(name)
    bench = model if isinstance(model, Bench) else Bench(model, samples)
    with redirect_stderr(StringIO()):
        try:
            return Finding(claim, claim.ask(bench), bench.model.name)
        except DiffusionLabError as error:
            return Finding(claim, (), bench.model.name, refused=str(error))
