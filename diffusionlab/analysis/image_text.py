"""Pictures against captions in CLIP's common space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.analysis.text import cosines
from diffusionlab.errors import InputError
from diffusionlab.trace import TextEmbedding


@dataclass(frozen=True, eq=False)
class ImageText:
    """Cosines (images, captions), image i belonging to caption i, and who finds whom.

    `images_right` is the share of images whose own caption has the largest cosine of their row,
    `captions_right` the share of captions whose own image has the largest of their column; of k
    equal largest ones each counts 1 / k, so that `chance`, 1 / n, holds exactly. Only ranks carry
    meaning: matched cosines are small in CLIP. `unit` checks that the images' vectors have
    length 1.
    """

    matrix: np.ndarray
    captions: tuple[str, ...]
    images: tuple[Any, ...]
    images_right: float
    captions_right: float
    centred: bool
    unit: Residual

    @property
    def chance(self) -> float:
        """The share that is right for equal cosines."""
        return 1 / len(self.matrix)

    @property
    def own(self) -> float:
        """The mean cosine of an image with its caption."""
        return float(np.diag(self.matrix).mean())

    @property
    def others(self) -> float:
        """The mean cosine of an image with another's caption."""
        return float(self.matrix[~np.eye(len(self.matrix), dtype=bool)].mean())


def image_text(
    image_vectors: Any,
    texts: Sequence[TextEmbedding],
    *,
    images: Sequence[Any] = (),
    centre: bool = False,
) -> ImageText:
    """Every image against every caption, image i belonging to text i.

    `image_vectors` (n, width) come from `embed_images`, `texts` from `embed`, whose `pooled` is
    taken (Radford et al. 2021, arXiv 2103.00020); `images` (PIL, or arrays) are kept for the plot.
    `centre` subtracts the mean of either side: the two clouds lie apart (arXiv 2203.02053).
    Raises InputError for unequal counts or widths.
    """
    seen = numbers(image_vectors)
    said = np.stack([_pooled(text) for text in texts]) if len(texts) else np.zeros((0, 0))
    if seen.shape != said.shape or len(seen) < 2 or len(images) not in (0, len(seen)):
        raise InputError(
            f"image vectors {seen.shape}, text vectors {said.shape} and {len(images)} images were "
            "given; at least two of each, in the same order and of one width, are compared"
        )
    lengths = np.linalg.norm(seen, axis=1)
    if centre:
        seen, said = seen - seen.mean(axis=0), said - said.mean(axis=0)
    matrix = cosines(seen, said)
    captions = tuple(
        text.tokens.prompt if text.tokens else f"caption {i}" for i, text in enumerate(texts)
    )
    return ImageText(
        matrix=matrix,
        captions=captions,
        images=tuple(images),
        images_right=_right(matrix),
        captions_right=_right(matrix.T),
        centred=centre,
        unit=Residual(float(np.abs(lengths - 1).max()), 1e-3, "vectors have length 1"),
    )


def _pooled(text: TextEmbedding) -> np.ndarray:
    if text.pooled is None:
        raise InputError(
            "a text embedding without a pooled vector was given; CLIP compares that of the end "
            "token: pass what embed makes"
        )
    return numbers(text.pooled)


def _right(matrix: np.ndarray) -> float:
    """The share of rows whose diagonal entry is the largest; ties are shared out."""
    best = matrix == matrix.max(axis=1, keepdims=True)
    return float((np.diag(best) / np.maximum(best.sum(axis=1), 1)).mean())
