"""A prompt as the model reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from diffusionlab.plots.figure import (
    QUIET,
    SMALL,
    Figure,
    canvas,
    colour,
    finish,
    heading,
    label,
    text_width,
)
from diffusionlab.trace import Tokens

PIECE, CHARACTER = 18, 11.2  # type size in points, width of a monospaced character at that size
GAP, ROW, WIDE = 7.0, 104.0, 980.0  # points: between boxes, between rows, of a figure of our own
FILL = {"start": "sky", "word": "yellow", "end": "sky", "pad": "white", "cut": "vermilion"}
LONGEST = 40
FONTS = ("DejaVu Sans Mono", "DejaVu Sans")


@dataclass(frozen=True)
class Box:
    """One drawn box: its text, what stands below, its kind, its word, and its place in points."""

    text: str
    below: str
    kind: str
    word: int | None = None
    left: float = 0.0
    row: int = 0

    @property
    def width(self) -> float:
        return max(len(self.text), 0.8 * len(self.below), 2) * CHARACTER + 12


def plot_tokens(record: Tokens, *, ax: Axes | None = None) -> Figure | Axes:
    """The pieces in boxes with their ids, grouped by word; start, end, padding and cut shown."""
    wide = WIDE if ax is None else ax.bbox.width * 72 / ax.figure.dpi
    boxes = _placed(_boxes(record), wide)
    rows = 1 + max(box.row for box in boxes)
    axes = canvas(ax, (WIDE / 72 + 0.4, (rows * ROW + 48) / 72))
    axes.set_xlim(-4, wide + 4)
    axes.set_ylim(-(rows - 1) * ROW - 50, 46)
    axes.axis("off")
    for box in boxes:
        _draw(axes, box)
    groups = [list(g) for _, g in groupby(boxes, key=lambda box: (box.row, box.word))]
    split = [group[0].word is not None and len(group) > 1 for group in groups]
    for i in (i for i, is_split in enumerate(split) if is_split):
        _bracket(
            axes, groups[i], record, crowded=any(split[max(i - 1, 0) : i] + split[i + 1 : i + 2])
        )
    pads = record.kinds.count("pad")
    cut = f" · {record.dropped} pieces cut off" if record.dropped else ""
    title = f"{len(record.words)} words = {record.kept} pieces + start + end + {pads} padding{cut}"
    heading(axes, title)
    return finish(ax, axes, _alt(record, title))


def _boxes(record: Tokens) -> list[Box]:
    """What is drawn, in order: equal paddings once, and the cut words at the place of the cut."""
    found: list[Box] = []
    pads = record.kinds.count("pad")
    rows = zip(record.pieces, record.ids, record.kinds, record.word_of, strict=True)
    for piece, number, kind, word in rows:
        if kind == "end" and record.dropped:
            words = " ".join(record.dropped_words[:6])
            found.append(Box(_short(f"✂ {words} …"), f"{record.dropped} pieces cut", "cut"))
        if kind == "pad":
            found.append(Box(f"{_short(piece)} × {pads}", f"id {number}", "pad"))
            break
        found.append(Box(_short(piece), str(number), kind, word))
    return found


def _short(text: str) -> str:
    text = " ".join(text.split()) or "␣"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _placed(boxes: list[Box], wide: float) -> list[Box]:
    """Left to right, in as many rows as needed; pieces of one word touch."""
    placed: list[Box] = []
    left, row = 0.0, 0
    for box in boxes:
        joined = placed and box.word is not None and box.word == placed[-1].word
        left += 0 if not placed or joined else GAP
        if placed and left + box.width > wide:
            left, row = 0.0, row + 1
        placed.append(replace(box, left=left, row=row))
        left += box.width
    return placed


def _draw(axes: Axes, box: Box) -> None:
    y = -box.row * ROW
    face = "white" if box.kind == "pad" else colour_of(box.kind)
    dashed = "--" if box.kind in ("pad", "cut") else "-"
    shape = FancyBboxPatch(
        (box.left + 1, y - 18), box.width - 2, 36, boxstyle="round,pad=0,rounding_size=5",
        facecolor="white" if box.kind == "cut" else face, edgecolor=_edge(box.kind),
        linewidth=2.5, linestyle=dashed, label=box.kind,
    )  # fmt: skip
    axes.add_patch(shape)
    middle = box.left + box.width / 2
    label(axes, middle, y, box.text, fontsize=PIECE, family=FONTS)
    label(axes, middle, y - 30, box.below, color=QUIET, fontsize=SMALL)


def colour_of(kind: str) -> str:
    """The fill of a kind of token."""
    return "white" if FILL[kind] == "white" else colour(FILL[kind])


def _edge(kind: str) -> str:
    return {"pad": QUIET, "cut": colour("vermilion")}.get(kind, "#141414")


def _bracket(axes: Axes, group: list[Box], record: Tokens, crowded: bool) -> None:
    """A line over the pieces of a word that was split, with the word; little beside another one."""
    y = -group[0].row * ROW + 23
    left, right = group[0].left + 2, group[-1].left + group[-1].width - 2
    axes.plot([left, right], [y, y], color=colour("vermilion"), linewidth=3)
    word = _short(record.words[group[0].word])
    told = f"one word: {word}"
    fits = not crowded or text_width(told, SMALL) * 72 <= right - left
    label(axes, (left + right) / 2, y + 12, told if fits else word, fontsize=SMALL)


def _alt(record: Tokens, title: str) -> str:
    split = [record.words[w] for w in dict.fromkeys(record.word_of) if _is_split(record, w)]
    told = f" Split words: {', '.join(split)}." if split else ""
    pieces = [p for p, kind in zip(record.pieces, record.kinds, strict=True) if kind == "word"]
    return f"Tokens of the prompt: {title}. Pieces: {' | '.join(pieces)}.{told}"


def _is_split(record: Tokens, word: int | None) -> bool:
    return word is not None and record.word_of.count(word) > 1
