"""Pictures over the steps of a run, as data of a page: small ones exact, large ones as WebP."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import numbers
from diffusionlab.errors import InputError, NumericsError, shown
from diffusionlab.images import Preview, enlarge, to_image, to_rgb

SIZE, QUALITY = 256, 80  # width in pixels, and WebP's quality, of pictures that are not kept exact
SIZES = (16, 2048)  # allowed widths
SHARP = 128  # pictures up to this width are kept to the last bit


def reel(
    label: str,
    pictures: Iterable[Any],
    alts: Sequence[str],
    size: int = SIZE,
    exact: int = SHARP,
) -> dict:
    """Equally large PIL images (None where there is none) as JSON, an alt text for each.

    Latent previews (up to `exact` pixels wide) stay exact at their own size and the page enlarges
    them in sharp squares; larger ones go down to `size` pixels as WebP of quality 80.
    """
    images = list(pictures)
    if len(images) != len(alts):
        raise InputError(f"{len(images)} pictures with {len(alts)} alt texts: one each is needed")
    first = next((image for image in images if image is not None), None)
    sharp = first is not None and first.width <= exact
    width = 1 if first is None else first.width if sharp else min(size, first.width)
    height = 1 if first is None else max(1, round(first.height * width / first.width))
    return {
        "label": label,
        "width": width,
        "height": height,
        "sharp": sharp,
        "sources": [None if i is None else source_of(i, width, sharp) for i in images],
        "alts": list(alts),
    }


def source_of(image: Any, width: int, sharp: bool) -> str:
    """A picture as a data address."""
    buffer, small = io.BytesIO(), to_rgb(image)
    if small.width != width:
        small = enlarge(small, width)
    how = {"lossless": True, "quality": 50, "method": 2} if sharp else {"quality": QUALITY}
    small.save(buffer, "WEBP", **how)  # lossless, these are effort: 5 % more bytes, 8 times faster
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def decoded(decode: Callable[[Any], Any], latent: Any) -> Any:
    """What `decode` makes of a latent; None where there is none, or where it is not finite."""
    if latent is None or not np.isfinite(numbers(latent)).all():
        return None
    image = decode(latent)
    if not hasattr(image, "getbands"):
        raise InputError(
            f"decode(latent) gave {shown(image)}; a PIL image is needed, as stages.decode makes one"
        )
    return image


def latent_image(latent: Any, preview: Preview | None) -> Any:
    """A latent (channels, h, w) by the preview map, else its channels' mean in grey.

    None where a value is not finite: the page then says so instead of showing a plausible colour.
    """
    latent = np.asarray(latent, np.float32)
    try:
        if preview is not None:
            return to_image(preview.rgb(latent))
        mean = latent.astype(np.float64).mean(axis=0)
        top = np.abs(mean).max() or 1.0
        return to_image(mean / (2 * top) + 0.5)
    except NumericsError:
        return None


def size_of(size: Any, usual: int = SIZE) -> int:
    """A width of pictures that was asked for. Raises InputError for what is no such width."""
    low, high = SIZES
    if isinstance(size, bool) or not isinstance(size, Integral) or not low <= size <= high:
        raise InputError(
            f"size is {shown(size)}; a whole number of pixels from {low} to {high} is allowed, "
            f"e.g. {usual}"
        )
    return int(size)
