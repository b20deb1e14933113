"""Pictures side by side on the page, each with its caption, and with alt text for all."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.images import filmstrip, to_webp

FRAME, TEXT, QUALITY = 224, 20, 80  # width and type size in pixels; WebP's quality


@dataclass(frozen=True, repr=False)
class Pictures:
    """Captions and their PIL images; a bare name at the end of a cell draws them in one row."""

    named: Mapping[str, Any]

    def __repr__(self) -> str:
        return "Pictures: " + " | ".join(self.named)

    def _repr_html_(self) -> str:
        from diffusionlab.plots.figure import picture_html

        captions = [textwrap.fill(caption, 24) for caption in self.named]
        strip = filmstrip([list(self.named.values())], [""], captions, frame=FRAME, text=TEXT)
        told = "Side by side: " if len(self.named) > 1 else "A picture: "
        return picture_html(
            to_webp(strip, QUALITY), told + "; ".join(self.named) + ".", "image/webp"
        )


def show_pictures(named: Mapping[str, Any]) -> Pictures:
    """PIL images by caption, in one row: `show_pictures({"the end": trace.image})`.

    Errors: InputError for no picture, an empty caption, or a value that is no PIL image.
    """
    if not isinstance(named, Mapping) or not named:
        raise InputError(
            f"named is {shown(named)}; a dict of caption: PIL image is allowed: give at least one"
        )
    for caption, image in named.items():
        if not isinstance(caption, str) or not caption.strip() or not hasattr(image, "getpixel"):
            raise InputError(
                f"{shown(caption)}: {shown(image)} was given; a caption with a PIL image is "
                "allowed: decode(model, latent) makes one of a latent"
            )
    return Pictures(dict(named))
