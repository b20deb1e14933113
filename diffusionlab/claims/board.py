"""The claims of a notebook, each held against a model, on one board that can be unfolded."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from diffusionlab.claims.bench import FEW, Bench
from diffusionlab.claims.catalogue import CLAIMS, examine, find
from diffusionlab.claims.claim import UNASKED, VERDICTS, Finding
from diffusionlab.errors import InputError, shown
from diffusionlab.pipeline import LatentDiffusion

MARKS = {"true": "✓", "partly": "◐", "false": "✗", "open": "?", UNASKED: "–"}


@dataclass(frozen=True, repr=False)
class Board:
    """Findings one below another: each is a line with its verdict, its numbers are folded."""

    findings: tuple[Finding, ...]

    @property
    def tally(self) -> str:
        """How many claims got which verdict."""
        verdicts = [finding.verdict for finding in self.findings]
        counts = {word: verdicts.count(word) for word in (*VERDICTS, UNASKED)}
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return f"{len(verdicts)} claims on {self.findings[0].model}: {told}"

    def __repr__(self) -> str:
        return "\n".join([self.tally, *(_line(finding) for finding in self.findings)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<details><summary>{html.escape(_line(finding))}</summary>{finding.items_html}"
            "</details>"
            for finding in self.findings
        )
        return f"<div><p><b>{html.escape(self.tally)}</b> (a line opens)</p>{rows}</div>"


def board(model: LatentDiffusion | Bench, of: int | Sequence[str], samples: int = FEW) -> Board:
    """Hold all claims of a notebook (its number), or those named, against a model.

    Hand over a `Bench` and the runs that were made for single claims are used again. Errors:
    InputError for a notebook without claims or an unknown name.
    """
    names = _names(of)
    bench = model if isinstance(model, Bench) else Bench(model, samples)
    return Board(tuple(examine(bench, name) for name in names))


def _names(of: int | Sequence[str]) -> list[str]:
    if isinstance(of, Sequence) and not isinstance(of, str) and of:
        return [find(name).id for name in of]
    names = [claim.id for claim in CLAIMS.values() if claim.notebook == of]
    if not names:
        numbers = sorted({claim.notebook for claim in CLAIMS.values()})
        raise InputError(
            f"of is {shown(of)}; the number of a notebook ({', '.join(map(str, numbers))}) or "
            "names of claims are allowed: use e.g. board(bench, 2) or board(bench, ['A5'])"
        )
    return names


def _line(finding: Finding) -> str:
    claim, verdict = finding.claim, finding.verdict
    return f"{MARKS[verdict]} {verdict} · {claim.id} · {claim.says}"
