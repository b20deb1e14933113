"""What the page shows beside form and explorer: progress, messages, code, and the kept runs.

Python sets traits and the page sends messages, never the other way round: so the thread of a run
and the page never write to the same thing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from diffusionlab.images import Preview
from diffusionlab.trace import to_numpy
from diffusionlab.views import View
from diffusionlab.views.reels import SHARP, latent_image, reel

PAUSE = 0.25  # seconds between two pictures; the messages beside them are a few bytes
IDLE = {
    "phase": "idle",
    "done": 0,
    "total": 0,
    "text": "Ready.",
    "notes": [],
    "error": "",
    "invalid": "",
    "queued": False,
    "picture": None,
    "picture_alt": "",
}


class Desk:
    """The widget of progress, messages, code and kept runs; its methods may come from any thread.

    `heard(kind, value)` is told what the page asks for: "show" a run, "choose" runs, "compare".
    """

    def __init__(self, most: int, heard: Callable[[str, Any], None]):
        self.lock = threading.RLock()
        live = {"status": dict(IDLE), "runs": [], "shown": None, "chosen": [], "line": ""}
        data = {"most": most}
        view = View("playground", "Playground", "Progress, messages and kept runs.", data, live)
        self.widget = view.widget()
        self.widget.on_msg(lambda _, said, __: heard(said.get("kind", ""), said.get("value")))
        self._drawn = 0.0

    def tell(self, **changes: Any) -> None:
        """Change some of what the status says."""
        with self.lock:
            self.widget.status = {**self.widget.status, **changes}

    def write(self, line: str, invalid: str = "") -> None:
        """The form as code, or why it is none."""
        with self.lock:
            self.widget.line = line
            self.tell(invalid=invalid)

    def begin(self, total: int, queued: bool) -> None:
        """A run of so many steps begins."""
        self._drawn = 0.0
        self.tell(phase="running", done=0, total=total, text="reading the prompt", error="",
                  notes=[], queued=queued, picture=None)  # fmt: skip

    def advance(self, step: Any, preview: Preview | None, text: str = "") -> None:
        """A step is done: the bar, and now and then what the network believes."""
        now, done = time.monotonic(), step.index + 1
        total = max(self.widget.status["total"], done)
        changes = {"done": done, "text": text or f"{done} of {total} steps are done"}
        if preview is not None and (now - self._drawn >= PAUSE or done == total):
            self._drawn = now
            changes |= _belief(step, preview)
        self.tell(**changes)

    def end(self, text: str, error: str = "", notes: Sequence[str] = ()) -> None:
        """A run is over; `notes` are its notices, which were printed where nobody looks."""
        self.tell(phase="idle", text=text, error=error, notes=list(notes), queued=False,
                  picture=None)  # fmt: skip

    def keep(self, numbers: Sequence[int], tile: dict[str, Any], chosen: Sequence[int]) -> None:
        """One more run in the strip, which now holds these numbers."""
        with self.lock:
            tiles = [one for one in [*self.widget.runs, tile] if one["id"] in numbers]
            self.widget.runs = tiles
            self.widget.chosen = list(chosen)

    def show(self, number: int | None) -> None:
        """Mark the run that is shown, if it is one."""
        with self.lock:
            self.widget.shown = number

    def choose(self, numbers: Sequence[int]) -> None:
        """Mark the runs that are chosen."""
        with self.lock:
            self.widget.chosen = list(numbers)


def _belief(step: Any, preview: Preview) -> dict[str, Any]:
    """x0-hat of a live step as a small picture; nothing where it is not finite."""
    said = step.predictions[0].x0 if step.predictions else step.next_latent
    alt = f"x0-hat at step {step.index}, preview"
    small = reel("", [latent_image(to_numpy(said), preview)], [alt], size=SHARP)
    return {"picture": small["sources"][0], "picture_alt": alt}
