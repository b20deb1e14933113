"""What the autoencoder keeps of a picture, and what single numbers of a latent do to it.

Nothing here knows a model: `encode(image)` and `decode(latent)` are handed in.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.spectrum import ring_power
from diffusionlab.errors import InputError, shown
from diffusionlab.images import to_pixels, to_rgb
from diffusionlab.trace import Latent


# ---- there and back ---------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Roundtrip:
    """A picture, encoded and decoded again: pixels (height, width, 3) of 0 … 1, float64.

    `psnr` in dB. `lost` (rings,) is the power of the residual over that of the picture by spatial
    frequency (see `spectrum`): 0 is kept exactly, 1 is what leaving it out would cost. `worst` are
    the squares of `cell` pixels with the largest residual, as (top, left, root mean square).
    `parseval` checks the rings against the mean square residual. `latent` is what lay between.
    """

    before: np.ndarray
    after: np.ndarray
    latent: np.ndarray
    psnr: float
    lost: np.ndarray
    worst: tuple[tuple[int, int, float], ...]
    cell: int
    parseval: Residual

    @property
    def residual(self) -> np.ndarray:
        """after − before, (height, width, 3)."""
        return self.after - self.before

    @property
    def compression(self) -> float:
        """Numbers of the picture over numbers of the latent."""
        return self.before.size / self.latent.size


def psnr(one: Any, other: Any) -> float:
    """The peak signal-to-noise ratio of two PIL images of one size, in dB; infinite where equal.

    −10 · log10(mean square error) at a peak of 1: every 6 dB halve the error. Errors: InputError.
    """
    a, b = (to_pixels(to_rgb(image)).astype(np.float64) for image in (one, other))
    if a.shape != b.shape:
        raise InputError(
            f"images of {one.size} and {other.size} pixels were given; two of one size are "
            "allowed: resize one of them"
        )
    return _decibels(float(((a - b) ** 2).mean()))


def _decibels(mean_square: float) -> float:
    return -10 * math.log10(mean_square) if mean_square else math.inf


def roundtrip(
    image: Any, encode: Callable[[Any], Any], decode: Callable[[Any], Any], worst: int = 3
) -> Roundtrip:
    """Encode a PIL image, decode it, and compare. Transparent parts are shown on white.

    `encode(image)` gives a Latent or an array (channels, h, w), `decode(latent)` a PIL image.
    PSNR = −10 · log10(mean square error) at a peak of 1. Errors: InputError for what is no PIL
    image, or comes back in another size; whatever `encode` refuses.
    """
    flat = to_rgb(image)  # refuses what is no image
    before = to_pixels(flat).astype(np.float64)
    values = _values(encode(flat))
    after = to_pixels(decode(values)).astype(np.float64)
    if after.shape != before.shape:
        raise InputError(
            f"an image of {image.size} pixels came back as {after.shape[1::-1]}; resize it to that"
        )
    off = after - before
    error, power = (ring_power(x.transpose(2, 0, 1)).mean(axis=0) for x in (off, before))
    mean_square = float((off**2).mean())
    cell = before.shape[0] // values.shape[1]
    return Roundtrip(
        before=before,
        after=after,
        latent=values,
        psnr=_decibels(mean_square),
        lost=error / np.where(power > 0, power, np.nan),
        worst=_worst_places(off, cell, worst),
        cell=cell,
        parseval=_parseval(error, mean_square),
    )


def _parseval(error: np.ndarray, mean_square: float) -> Residual:
    off = abs(float(error.sum()) - mean_square) / max(mean_square, 1e-12)
    return Residual(off, 1e-6, "rings sum to the mean square")


def _worst_places(off: np.ndarray, cell: int, count: int) -> tuple[tuple[int, int, float], ...]:
    height, width = (size // cell for size in off.shape[:2])
    cells = off[: height * cell, : width * cell].reshape(height, cell, width, cell, -1)
    found = np.sqrt((cells**2).mean(axis=(1, 3, 4)))
    first = np.argsort(-found, axis=None, kind="stable")[:count]
    return tuple(
        (int(i // width) * cell, int(i % width) * cell, float(found.flat[i])) for i in first
    )


def _values(latent: Any) -> np.ndarray:
    return numbers(latent.values if isinstance(latent, Latent) else latent).astype(np.float32)


# ---- edits ------------------------------------------------------------------------------------
KINDS = ("zero", "mean", "add")
SEEN = 2 / 255  # a change of a pixel below this is not counted


@dataclass(frozen=True)
class Edit:
    """One change to a latent: a channel set to 0 or to its mean, or `amount` added to it.

    `place` (row, column) restricts it to one position; `channel` None stands for all of them.
    """

    kind: str
    channel: int | None = None
    amount: float = 0.0
    place: tuple[int, int] | None = None

    def __str__(self) -> str:
        what = "all" if self.channel is None else f"channel {self.channel}"
        where = "" if self.place is None else f" at {self.place}"
        told = {"zero": "= 0", "mean": "= its mean"}.get(
            self.kind, f"{self.amount:+g}".replace("-", "−")
        )
        return f"{what} {told}{where}"

    def of(self, latent: np.ndarray) -> np.ndarray:
        """The edited copy of a latent (channels, h, w). Raises InputError for what is not there."""
        self._check(latent.shape)
        channels = range(len(latent)) if self.channel is None else [self.channel]
        where = (slice(None),) * 2 if self.place is None else tuple(self.place)
        edited = latent.copy()
        for i in channels:
            new = {"zero": 0.0, "mean": latent[i].mean()}
            edited[i][where] = (
                new[self.kind] if self.kind in new else latent[i][where] + self.amount
            )
        return edited

    def _check(self, shape: tuple[int, ...]) -> None:
        channels, height, width = shape
        if self.kind not in KINDS:
            raise InputError(f"kind {shown(self.kind)} of an edit; use one of {', '.join(KINDS)}")
        if self.channel is not None and self.channel not in range(channels):
            raise InputError(
                f"channel {shown(self.channel)} of a latent {shape}; 0 to {channels - 1} are "
                "allowed: choose one, or None for all"
            )
        if self.place is not None and not _inside(self.place, (height, width)):
            raise InputError(
                f"place {shown(self.place)} of a latent {shape}; (row, column) of 0 to "
                f"{height - 1} and 0 to {width - 1} is allowed: choose one inside"
            )


def _inside(place: Any, size: tuple[int, int]) -> bool:
    """Whether a place is two whole numbers inside a grid of this size."""
    try:
        row, column = (operator.index(n) for n in place)
    except (TypeError, ValueError):
        return False
    return 0 <= row < size[0] and 0 <= column < size[1]


@dataclass(frozen=True, eq=False)
class Edited:
    """One edit decoded: pixels (height, width, 3) of 0 … 1, and where they differ.

    `change` (height, width) is the largest difference over the colours; `box` (top, left, height,
    width) holds every pixel that changed by 2/255 or more, None if none did; `share` is the share
    of the squared change that lies inside the position's own square of pixels (NaN for a channel).
    """

    edit: Edit
    picture: np.ndarray
    change: np.ndarray
    box: tuple[int, int, int, int] | None
    share: float

    @property
    def root_mean_square(self) -> float:
        """Of `change`."""
        return float(np.sqrt((self.change**2).mean()))


@dataclass(frozen=True, eq=False)
class LatentEdits:
    """A latent decoded as it is (`picture`) and after each edit; `cell` pixels to a position.

    `repeats` checks that decoding the unchanged latent twice gives the same picture.
    """

    picture: np.ndarray
    edits: tuple[Edited, ...]
    cell: int
    repeats: Residual


def standard_edits(latent: np.ndarray, amount: float = 2.0) -> tuple[Edit, ...]:
    """The first four channels set to 0, to their mean, shifted down and up; then one position.

    Channel by channel. The position is the middle one, raised in all channels by twice `amount`.
    """
    edits = []
    for channel in range(min(len(latent), 4)):
        edits += [Edit("zero", channel), Edit("mean", channel)]
        edits += [Edit("add", channel, -amount), Edit("add", channel, amount)]
    middle = (latent.shape[1] // 2, latent.shape[2] // 2)
    return (*edits, Edit("add", None, 2 * amount, middle))


def latent_edits(
    latent: Any, decode: Callable[[np.ndarray], Any], edits: Sequence[Edit] | None = None
) -> LatentEdits:
    """Decode a latent (channels, h, w) as it is and after each edit (default: `standard_edits`).

    `decode(latent)` gives a PIL image. Errors: InputError for another shape, no edit, or an edit of
    a channel or place that the latent has not.
    """
    values = _values(latent)
    if values.ndim != 3:
        raise InputError(
            f"latent of shape {values.shape}; (channels, h, w) is allowed: take one latent"
        )
    chosen = standard_edits(values) if edits is None else tuple(edits)
    if not chosen:
        raise InputError("no edit was given; at least one is needed: edits=[Edit('zero', 0)]")
    changed = [edit.of(values) for edit in chosen]  # all are checked before any is decoded
    plain, again = (to_pixels(decode(values)).astype(np.float64) for _ in range(2))
    cell = plain.shape[0] // values.shape[1]
    found = [
        _edited(edit, to_pixels(decode(new)).astype(np.float64), plain, cell)
        for edit, new in zip(chosen, changed, strict=True)
    ]
    repeats = Residual(float(np.abs(plain - again).max()), 0.0, "decoded twice is the same")
    return LatentEdits(plain, tuple(found), cell, repeats)


def _edited(edit: Edit, picture: np.ndarray, plain: np.ndarray, cell: int) -> Edited:
    change = np.abs(picture - plain).max(axis=2)
    box, share = None, math.nan
    rows, columns = np.nonzero(change >= SEEN - 1e-9)
    if rows.size:
        top, left = int(rows.min()), int(columns.min())
        box = (top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)
    if edit.place is not None and change.any():
        top, left = (cell * k for k in edit.place)
        own = change[top : top + cell, left : left + cell]
        share = float((own**2).sum() / (change**2).sum())
    return Edited(edit, picture, change, box, share)
