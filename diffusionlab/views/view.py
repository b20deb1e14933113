"""A view: a record's numbers as plain JSON, and one script that draws them in three places.

| place | made by | needs |
|---|---|---|
| the notebook | a bare name at the end of a cell | nothing: a figure, then the page in a frame |
| a file | `view.save("x.html")` | nothing: one page, opens without network |
| live | `view.widget()` | a kernel: the same script, its traits shared with Python |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusionlab.errors import notice
from diffusionlab.images import blank, filmstrip, to_webp
from diffusionlab.trace.summary import size_text
from diffusionlab.views.page import embedded, frame_of, page_of, still_html, write_page

MOST = 8_000_000  # bytes of a page, above which it says so
HEIGHT = 720  # of the frame in a notebook, in CSS pixels


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """One interactive picture of a record; every view stands alone, however many a page holds.

    `script` names the module in `views/js`; `data` is plain JSON that never changes; `live` are the
    values that the reader moves (a step, a word), `limits` what they may be: (low, high) of a
    number, the names of a text. `alt` is a sentence made from the data; `pictures` makes the
    captioned images (PIL; None for one that cannot be drawn) of the still, or `figure` makes a
    matplotlib figure instead. `lighter` says how to make the page smaller.
    """

    script: str
    title: str
    alt: str
    data: Mapping[str, Any]
    live: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, tuple] = field(default_factory=dict)
    pictures: Callable[[], Sequence[tuple[str, Any]]] | None = None
    figure: Callable[[], Any] | None = None
    lighter: str = ""
    height: int = HEIGHT

    @cached_property
    def page(self) -> str:
        """The whole page as text: HTML, style, script and data; it asks no network for anything."""
        page = page_of(self.script, self.title, self.alt, {**self.live, "data": self.data})
        told = self._too_large(len(page))  # ASCII in all that is large
        if told:
            notice(told)
        return page

    def _too_large(self, count: int) -> str:
        """A sentence about a page that is slow to mail and to open, or nothing."""
        if count <= MOST:
            return ""
        parts = sorted(((len(embedded(v)), k) for k, v in self.data.items()), reverse=True)[:3]
        largest = ", ".join(f"{name} {size_text(size)}" for size, name in parts)
        return (
            f"the page of this view is {size_text(count)}, more than {size_text(MOST)} (largest: "
            f"{largest}): it opens slowly. {self.lighter}".rstrip()
        )

    def save(self, path: str | Path) -> Path:
        """Write the page into one file, replaced as a whole or not at all; returns its path.

        Errors: OSError for a place that cannot be written.
        """
        return write_page(self.page, Path(path))

    def widget(self) -> Any:
        """The same view as a live widget (anywidget) whose values are shared with Python.

        `view.widget().step = 3` moves the page, moving the page sets `.step`. It needs a kernel;
        a notebook that is opened again without one shows nothing of it.
        """
        from diffusionlab.views.live import widget_of

        return widget_of(self)

    def to_figure(self) -> Any:
        """A still of the view for paper: our matplotlib `Figure`, with its alt text."""
        if self.figure is not None:
            return self.figure()
        from diffusionlab.views.still import sheet_of

        return sheet_of(self)

    def still(self) -> Any:
        """The still as a PIL image; drawn without matplotlib where the view is made of pictures."""
        if self.pictures is None:
            return self.to_figure().drawn()
        captions, images = self.captioned()
        return filmstrip([images], [""], captions, title=self.title)

    def captioned(self) -> tuple[list[str], list[Any]]:
        """Captions and images of the still, grey with a word about it where there is none."""
        named = [] if self.pictures is None else self.pictures()
        size = next((image.size for _, image in named if image is not None), (64, 64))
        captions = [text if image else f"{text}\nno picture" for text, image in named]
        return captions, [image or blank(*size) for _, image in named]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """A figure that needs no script, then the page in a frame that may not leave itself."""
        still = still_html(to_webp(self.still(), 60), self.alt, self.page, self.title, self.height)
        return {"text/html": still, "text/plain": repr(self)}

    @property
    def frame(self) -> str:
        """The page in a sandboxed frame, without the still."""
        return frame_of(self.page, self.title, self.height)

    def __repr__(self) -> str:
        return f"View {self.script}: {self.alt} .save(path) writes it as one page."
