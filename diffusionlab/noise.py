"""Where Gaussian draws come from: always the CPU, always float32, one generator per image.

So one seed gives one start noise on every device, dtype and batch size. A noise source is asked
once per draw for the interval between two levels; its first draw, `first(shape)`, is x_T and fixes
the shape (no batch axis). The same seed gives the same x_T from either source.
"""

from __future__ import annotations

import hashlib
import math
import operator
from typing import Any

import torch

from diffusionlab.errors import InputError, shown
from diffusionlab.schedule import NoiseLevel


class Sequential:
    """One generator, draws in the order in which they are asked for, as diffusers does.

    `device` (None: the CPU) is where later draws are moved to after being drawn on the CPU.
    Raises InputError unless 0 <= seed < 2**63.
    """

    def __init__(self, seed: int) -> None:
        self.seed = checked_seed(seed)
        self.device: Any = None
        self.shape: tuple[int, ...] | None = None
        self._generator = _generator(self.seed)

    def first(self, shape: tuple[int, ...]) -> torch.Tensor:
        """x_T's noise: the first draw, float32 on the CPU; it fixes the shape of all draws."""
        if self.shape is not None:
            raise InputError("first() was called before; make a new source from the seed")
        self.shape = tuple(shape)
        return _draw(self._generator, self.shape)

    def __call__(self, level: NoiseLevel, next_level: NoiseLevel) -> torch.Tensor:
        """The next draw of the same shape, float32; this source does not look at the levels."""
        return _moved(_draw(self._generator, _fixed(self.shape)), self.device)


class BrownianPath:
    """Increments of one Brownian motion whose clock is the snr, so that solvers share a path.

    A draw for (level, next_level) is (W(snr_next) - W(snr)) / sqrt(snr_next - snr): a standard
    Gaussian, and draws over neighbouring intervals add up to the draw over their union. W is fixed
    by the seed alone, whatever is asked and in which order: every octave [2^k, 2^(k+1)] of the snr
    is a dyadic tree of Brownian bridges whose nodes are drawn from (seed, octave, place). The snr
    is rounded to 2^-24 of its octave; below 2^-40 it counts as 2^-40. `device` and errors as
    `Sequential`; InputError for an interval that is empty or ends at the clean level.
    """

    BITS = 24
    FLOOR = -40

    def __init__(self, seed: int) -> None:
        self.seed = checked_seed(seed)
        self.device: Any = None
        self.shape: tuple[int, ...] | None = None
        self._last: tuple[tuple[int, int], torch.Tensor] | None = None

    def first(self, shape: tuple[int, ...]) -> torch.Tensor:
        """x_T's noise: independent of the path, equal to that of `Sequential`."""
        if self.shape is not None:
            raise InputError("first() was called before; make a new source from the seed")
        self.shape = tuple(shape)
        return _draw(_generator(self.seed), self.shape)

    def __call__(self, level: NoiseLevel, next_level: NoiseLevel) -> torch.Tensor:
        """The standardised increment from `level` to `next_level`, float32."""
        _fixed(self.shape)
        low, high = self._grid(level.snr), self._grid(next_level.snr)
        if not low < high:
            raise InputError(
                f"a draw from snr {level.snr!r} to {next_level.snr!r} was asked; the second must "
                "be larger, by more than 1e-7 of it"
            )
        increment = self._inside(*high) - self._inside(*low)  # float64
        for octave in range(low[0], high[0]):
            increment = increment + self._inside(octave, 1 << self.BITS)
        variance = self._clock(*high) - self._clock(*low)
        return _moved((increment / math.sqrt(variance)).float(), self.device)

    def _grid(self, snr: float) -> tuple[int, int]:
        """The octave of an snr and the place in it, a whole number of 2^-BITS of the octave."""
        if not math.isfinite(snr):
            raise InputError(f"a draw at snr {snr!r} was asked; the clean level has no noise")
        if snr < 2.0**self.FLOOR:
            return self.FLOOR, 0
        mantissa, exponent = math.frexp(snr)  # snr = mantissa·2^exponent, mantissa in [1/2, 1)
        place = round((2.0 * mantissa - 1.0) * (1 << self.BITS))
        return (exponent, 0) if place == 1 << self.BITS else (exponent - 1, place)

    def _clock(self, octave: int, place: int) -> float:
        return math.ldexp(1.0 + place / (1 << self.BITS), octave)

    def _inside(self, octave: int, place: int) -> torch.Tensor:
        """W there minus W at the octave's start, float64; each step begins where the last ended."""
        if self._last is None or self._last[0] != (octave, place):
            self._last = ((octave, place), self._bisected(octave, place))
        return self._last[1]

    def _bisected(self, octave: int, place: int) -> torch.Tensor:
        length = math.ldexp(1.0, octave)
        low, high = 0, 1 << self.BITS
        left = torch.zeros(self.shape, dtype=torch.float64, device="cpu")
        right = math.sqrt(length) * self._node(octave, high)
        while place not in (low, high):
            middle = (low + high) // 2
            spread = 0.5 * math.sqrt(length * (high - low) / (1 << self.BITS))
            centre = 0.5 * (left + right) + spread * self._node(octave, middle)
            if place < middle:
                high, right = middle, centre
            else:
                low, left = middle, centre
        return left if place == low else right

    def _node(self, octave: int, place: int) -> torch.Tensor:
        key = hashlib.blake2b(f"{self.seed}/{octave}/{place}".encode(), digest_size=8).digest()
        return _draw(_generator(int.from_bytes(key, "big") >> 1), self.shape).double()


def checked_seed(seed: int) -> int:
    """The seed as an int, or InputError."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number < 2**63:
        raise InputError(
            f"seed must be an integer 0 <= seed < 2**63, got {shown(seed)}; use e.g. 7"
        )
    return number


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed)


def _draw(generator: torch.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def _moved(draw: torch.Tensor, device: Any) -> torch.Tensor:
    return draw if device is None else draw.to(device)


def _fixed(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if shape is None:
        raise InputError("no shape yet: call first(shape) of the noise source before any draw")
    return shape
