"""A claim, its parts, and how the verdict follows from what was measured."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

from diffusionlab.errors import InputError, shown

VERDICTS = ("true", "partly", "false", "open")
UNASKED = "not asked"  # where a model cannot be asked
SOURCES = ("exhibit page", "essay", "guide", "article", "tutorial", "textbook")
SENSES = {"above": "more than", "below": "less than", "equals": "exactly", "near": "within"}


@dataclass(frozen=True)
class Measured:
    """A number with its interval: `low` and `high` enclose it at 95 %, or equal it if exact.

    `count` is the sample size (0: nothing was sampled), `method` how the interval was made.
    """

    value: float
    low: float
    high: float
    count: int = 0
    method: str = "exact"

    def __str__(self) -> str:
        if not self.count:
            return f"{self.value:.4g}"
        return f"{self.value:.3g} ({self.low:.3g} … {self.high:.3g}, n = {self.count})"


@dataclass(frozen=True)
class Part:
    """One thing that a claim says, and the measured number that must clear a bar for it to hold.

    `sense`: "above" or "below" the bar, "equals" it to the last bit, or "near" it by `within`
    (relative). `says` is a clause in plain words.
    """

    says: str
    measured: Measured
    sense: str
    bar: float
    within: float = 0.0

    def __post_init__(self) -> None:
        if self.sense not in SENSES:
            raise InputError(f"sense is {shown(self.sense)}; allowed are {', '.join(SENSES)}")
        m = self.measured
        if not m.low <= m.value <= m.high:  # NaN too
            raise InputError(f"measured is {m}; a number inside its own interval is allowed")

    @property
    def holds(self) -> bool | None:
        """Whether the whole interval is on the claim's side of the bar; None if it straddles it."""
        low, high = self.measured.low, self.measured.high
        if self.sense == "above":
            return _decided(low > self.bar, high <= self.bar)
        if self.sense == "below":
            return _decided(high < self.bar, low >= self.bar)
        room = abs(self.bar) * self.within
        inside = low >= self.bar - room and high <= self.bar + room
        return _decided(inside, high < self.bar - room or low > self.bar + room)

    @property
    def sentence(self) -> str:
        """The part with its number and its bar."""
        asked = f"{SENSES[self.sense]} {self.bar:.4g}"
        if self.sense == "near":
            asked = f"within {100 * self.within:.2g} % of {self.bar:.4g}"
        answer = {True: "yes", False: "no", None: "not decided by these samples"}[self.holds]
        return f"{self.says}: {self.measured}; the claim needs {asked}: {answer}"


def _decided(yes: bool, no: bool) -> bool | None:
    return True if yes else False if no else None


@dataclass(frozen=True, repr=False)
class Finding:
    """A claim held against one model: the parts as they were measured, and the verdict.

    `refused` says why this model could not be asked; then there are no parts.
    """

    claim: Claim
    parts: tuple[Part, ...]
    model: str = ""
    refused: str = ""

    @property
    def verdict(self) -> str:
        """True if every part holds, false if none does, partly if some hold and some do not.

        Open where a part is, and where it could still change that; "not asked" if refused.
        """
        if self.refused:
            return UNASKED
        held = {part.holds for part in self.parts}
        if held >= {True, False}:
            return "partly"
        return "open" if None in held or not held else "true" if True in held else "false"

    @property
    def samples(self) -> int:
        """The sample size of the smallest sampled part; 0 if nothing was sampled."""
        return min((p.measured.count for p in self.parts if p.measured.count), default=0)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was measured, a sentence for each part; or why nothing was."""
        return (self.refused,) if self.refused else tuple(part.sentence for part in self.parts)

    def __repr__(self) -> str:
        lines = [f"{self.claim.id} {self.verdict}: {self.claim.says}"]
        return "\n".join([*lines, *(f"  {sentence}" for sentence in self.sentences)])

    def _repr_html_(self) -> str:
        style = "border-left:6px solid #5a5a5a;padding:0.3em 1em;margin:0.5em 0"
        head = f"<p><b>Claim {html.escape(self.claim.id)}</b> ({html.escape(self.claim.source)}): "
        said = f"{head}{html.escape(self.claim.says)}</p>"
        verdict = f"<p><b>Verdict on this model: {self.verdict}</b></p>"
        return f'<div style="{style}">{said}{self.items_html}{verdict}</div>'

    @property
    def items_html(self) -> str:
        """The sentences as a list in HTML."""
        told = (html.escape(sentence, quote=True) for sentence in self.sentences)
        return f"<ul>{''.join(f'<li>{text}</li>' for text in told)}</ul>"


@dataclass(frozen=True)
class Claim:
    """Something that is said of diffusion models, and the experiment that asks a model.

    `says` is the claim in a short sentence of ours, `source` the kind of text that it stands in,
    `notebook` where it is looked at; `ask(bench)` returns the parts; `sampled` says whether it
    draws samples, so that more of them narrow the intervals.
    """

    id: str
    says: str
    source: str
    notebook: int
    ask: Callable[..., tuple[Part, ...]]
    sampled: bool = False

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InputError(f"source is {shown(self.source)}; allowed are {', '.join(SOURCES)}")
