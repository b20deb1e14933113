"""How like two pictures or latents are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

GREY = np.array([0.299, 0.587, 0.114])  # Rec. 601
WINDOW, SPREAD = 11, 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two arrays of one shape, whose means the caller took off; NaN for an empty one.

    Pearson's correlation, where the means of both are 0.
    """
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum() / size) if size > 0 else float("nan")


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Between two arrays read as vectors, in radians; exact for small angles too (Kahan).

    0 where one of them is 0.
    """
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if length_a == 0 or length_b == 0:
        return 0.0
    a, b = a / length_a, b / length_b
    return 2 * math.atan2(float(np.linalg.norm(a - b)), float(np.linalg.norm(a + b)))


def structural_similarity(pictures: Sequence[np.ndarray], other: np.ndarray) -> np.ndarray:
    """SSIM of each picture (height, width, 3) with another one; values in 0 … 1, 1 for the same.

    Wang et al., IEEE Transactions on Image Processing 13(4), 2004, Eq. 13, on grey values, with an
    11 × 11 Gaussian window of 1.5 pixels, K1 = 0.01, K2 = 0.03, L = 1, the mean over all windows
    that lie inside. As their own program does, pictures are first averaged down to about 256.
    """
    reference = _grey(other)
    mean, square = _blur(reference), _blur(reference**2)
    return np.array([_similarity(_grey(x), reference, mean, square) for x in pictures])


def _similarity(x: np.ndarray, y: np.ndarray, mean_y: np.ndarray, square_y: np.ndarray) -> float:
    mean_x = _blur(x)
    spread_x, spread_y = _blur(x**2) - mean_x**2, square_y - mean_y**2
    both = _blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + C1) * (2 * both + C2)
    return float((top / ((mean_x**2 + mean_y**2 + C1) * (spread_x + spread_y + C2))).mean())


def _grey(picture: np.ndarray) -> np.ndarray:
    grey = picture @ GREY
    times = max(1, round(min(grey.shape) / 256))
    height, width = (size // times for size in grey.shape)
    cut = grey[: height * times, : width * times]
    return cut.reshape(height, times, width, times).mean(axis=(1, 3))


def _blur(grey: np.ndarray) -> np.ndarray:
    """The mean under the window, where it lies inside."""
    places = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(places**2) / (2 * SPREAD**2))
    weights /= weights.sum()
    rows = sliding_window_view(grey, WINDOW, axis=0) @ weights
    return sliding_window_view(rows, WINDOW, axis=1) @ weights
