"""What a claim says when a test asks it."""

from __future__ import annotations

from diffusionlab.claims import CLAIMS, Bench, Finding


def finding(name: str, bench: Bench) -> Finding:
    """The claim's finding on a bench."""
    return Finding(CLAIMS[name], CLAIMS[name].ask(bench))


def verdict(name: str, bench: Bench) -> str:
    """true, false, partly or open."""
    return finding(name, bench).verdict
