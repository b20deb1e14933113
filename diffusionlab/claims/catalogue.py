"""All claims by their name, found in the chapters; and the one function that examines one."""

from __future__ import annotations

from importlib import import_module

from diffusionlab.claims.bench import FEW, Bench
from diffusionlab.claims.claim import Claim, Finding
from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.pipeline import LatentDiffusion

CHAPTERS = ("text", "latents", "noise", "network", "attention", "steps", "samplers", "guidance")


def _gathered() -> dict[str, Claim]:
    found: dict[str, Claim] = {}
    for chapter in CHAPTERS:
        for claim in import_module(f"diffusionlab.claims.{chapter}").CLAIMS:
            if claim.id in found:
                raise ValueError(f"two claims are called {claim.id}")
            found[claim.id] = claim
    return found


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
    bench's. Errors: InputError for an unknown name, and where this model cannot be asked.
    """
    claim = find(name)
    bench = model if isinstance(model, Bench) else Bench(model, samples)
    return Finding(claim, claim.ask(bench), bench.model.name)
