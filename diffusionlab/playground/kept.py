"""The runs that a playground keeps: as small pictures with captions, and as a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Comparison, Trace
from diffusionlab.trace.summary import counted
from diffusionlab.views import View
from diffusionlab.views.reels import SHARP, latent_image, reel

MOST_IN_RACE = 9
AXES = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "sampler": "sampler",
    "spacing": "spacing",
    "num_steps": "num_steps",
    "guidance_scale": "guidance",
}


@dataclass(frozen=True, eq=False)
class Kept:
    """One finished (or stopped) run under its number, its sampler as it was asked for."""

    number: int
    trace: Trace
    sampler: str

    @property
    def how(self) -> str:
        """One line without the prompt; a sampler's options only where they were chosen."""
        asked = self.trace.settings
        told = f"{self.sampler}, {counted(asked.num_steps, 'step')}, guidance {asked.guidance}"
        return f"{told}, seed {asked.seed}"

    def said(self, axis: str) -> str:
        """One of its settings as a text."""
        return self.sampler if axis == "sampler" else str(getattr(self.trace.settings, AXES[axis]))

    @property
    def tile(self) -> dict[str, Any]:
        """The run as the page shows it: a small picture, its alt text and a caption."""
        settings, done = self.trace.settings, len(self.trace.steps)
        whole = self.trace.image is not None
        ended = "" if whole else f"; stopped after {done} of {settings.num_steps} steps"
        alt = f"Run {self.number}: {settings.prompt or '(empty prompt)'}, {self.how}{ended}"
        small = reel("", [self.picture], [alt], size=SHARP)
        return {
            "id": self.number,
            "source": small["sources"][0],
            "sharp": small["sharp"] and small["width"] < SHARP,
            "alt": alt,
            "prompt": settings.prompt,
            "how": self.how,
            "ended": ended.removeprefix("; "),
        }

    @property
    def picture(self) -> Any:
        """The final picture, or the last belief by the preview map; None where it is not finite."""
        if self.trace.image is not None:
            return self.trace.image
        last = self.trace.steps[-1]
        said = last.predictions[0].x0 if last.predictions else last.next_latent
        return latent_image(said, self.trace.preview)


class Shelf:
    """The last `most` runs, oldest first, and which of them are chosen for comparing."""

    def __init__(self, most: int):
        self.most = most
        self.runs: list[Kept] = []
        self.chosen: list[int] = []

    @property
    def numbers(self) -> list[int]:
        """The numbers of the runs that are kept."""
        return [kept.number for kept in self.runs]

    def keep(self, kept: Kept, looked_at: int | None) -> None:
        """One more; where it is full the oldest goes that is neither looked at nor chosen."""
        if len(self.runs) == self.most:
            busy = {looked_at, *self.chosen}
            gone = next((one for one in self.runs if one.number not in busy), self.runs[0])
            self.runs.remove(gone)
            self.chosen = [number for number in self.chosen if number != gone.number]
        self.runs.append(kept)

    def numbered(self, numbers: Sequence[int]) -> list[Kept]:
        """The runs of these numbers. Raises InputError for one that is not kept."""
        known = dict(zip(self.numbers, self.runs, strict=True))
        missing = [number for number in numbers if number not in known]
        if missing:
            there = ", ".join(map(str, known)) or "none yet"
            raise InputError(
                f"run {shown(missing[0])} is not kept; these are: {there}: name one of them"
            )
        return [known[number] for number in numbers]


def compared(kept: Sequence[Kept]) -> Comparison:
    """Runs as a comparison along whatever differs between their settings.

    Errors: InputError for no run.
    """
    if not kept:
        raise InputError("a comparison of 0 runs was asked for; make a run first")
    axes = [axis for axis in AXES if len({one.said(axis) for one in kept}) > 1]
    values = [" · ".join(one.said(axis) for axis in axes) for one in kept]
    if not axes or len(set(values)) < len(values):  # the same settings: told apart by number
        axes = [*axes, "run"]
        numbered = zip(values, kept, strict=True)
        values = [" · ".join(filter(None, (v, f"run {one.number}"))) for v, one in numbered]
    return Comparison(" and ".join(axes), tuple(values), tuple(one.trace for one in kept))


def comparing(kept: Sequence[Kept]) -> View:
    """Two runs as their difference, three to nine as a race. Errors: InputError."""
    from diffusionlab import views

    count = len(kept)
    if not 2 <= count <= MOST_IN_RACE:
        raise InputError(
            f"{count} run{'s were' if count != 1 else ' was'} chosen; 2 to {MOST_IN_RACE} can be "
            "compared: choose some of the kept runs"
        )
    if count == 2:
        return views.diff(*(one.trace for one in kept), labels=[f"run {k.number}" for k in kept])
    return views.race(compared(kept))
