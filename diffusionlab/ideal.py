"""Diffusion with no weights: worlds whose exact denoiser is a formula, in float64 NumPy.

Here a sampler can be compared with the true answer, so plans are proved on them. Every world has
`x0`, `eps`, `score`, `predict`, `sample`, `log_density` and `flow`, and works alike for
variance-preserving, variance-exploding and flow pairs (alpha, sigma): nothing here asks which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.levels import NoiseLevel

ALMOST_CLEAN = 1e-6  # karras_sigma at which a reference flow reads off x0
TINY = 1e-100  # the variance of a point mass with no noise left


@dataclass(frozen=True, eq=False)
class IdealPrediction:
    """What an exact denoiser says at one point: `latent` = alpha·x0 + sigma·eps at `level`."""

    level: NoiseLevel
    latent: np.ndarray
    x0: np.ndarray
    eps: np.ndarray

    @property
    def v(self) -> np.ndarray:
        """alpha·eps - sigma·x0."""
        return self.level.alpha * self.eps - self.level.sigma * self.x0


class _World:
    """What every world says once its x0, eps and score are known."""

    def predict(self, latent: np.ndarray, level: NoiseLevel) -> IdealPrediction:
        """Both readings at once; this is the `predict` that `plan.denoise` is handed."""
        return IdealPrediction(level, latent, self.x0(latent, level), self.eps(latent, level))


# ---- one Gaussian -----------------------------------------------------------------------------
class GaussianWorld(_World):
    """Data that are independent Gaussians: `mean` and `variance` broadcast with the latents.

    Raises InputError unless both are finite and the variance is not negative.
    """

    def __init__(self, mean: Any = 0.0, variance: Any = 1.0) -> None:
        self.mean = _finite("mean", mean)
        self.variance = _finite("variance", variance, least=0.0)
        try:
            self.shape = np.broadcast_shapes(self.mean.shape, self.variance.shape)
        except ValueError:
            raise InputError(
                f"mean {self.mean.shape} and variance {self.variance.shape} have shapes that do "
                "not fit together; give one number or arrays of one shape"
            ) from None

    def marginal(self, level: NoiseLevel) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of the latents at a level: alpha·mean, alpha²·variance + sigma²."""
        return level.alpha * self.mean, level.alpha**2 * self.variance + level.sigma**2

    def x0(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The mean of the data given the latent: mean + alpha·variance/total·(latent - centre)."""
        centre, total = self.marginal(level)
        return self.mean + level.alpha * self._share(self.variance, total) * (latent - centre)

    def eps(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The mean of the noise given the latent: sigma/total·(latent - centre)."""
        centre, total = self.marginal(level)
        return self._share(level.sigma, total) * (latent - centre)

    def score(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The gradient of `log_density`; InputError for a point mass without noise."""
        centre, total = self.marginal(level)
        _need_density(np.all(total > 0))
        return (centre - latent) / total

    def log_density(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """ln of the density of whole latents (…, *shape) at a level; InputError as `score`."""
        centre, total = (np.broadcast_to(part, self.shape) for part in self.marginal(level))
        _need_density(np.all(total > 0))
        each = -0.5 * ((latent - centre) ** 2 / total + np.log(2 * np.pi * total))
        return each.sum(axis=tuple(range(each.ndim - len(self.shape), each.ndim)))

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, *shape) draws of data."""
        draws = _checked_rng(rng).standard_normal((_checked_count(count), *self.shape))
        return self.mean + np.sqrt(self.variance) * draws

    def flow(self, latent: np.ndarray, level: NoiseLevel, next_level: NoiseLevel) -> np.ndarray:
        """Where the probability-flow ODE takes a latent: what a deterministic sampler converges to.

        A Gaussian keeps its rank, so the latent keeps its number of standard deviations
        (arXiv 2011.13456 section 4.3 for the ODE).
        """
        (centre, total), (next_centre, next_total) = self.marginal(level), self.marginal(next_level)
        return next_centre + np.sqrt(self._share(next_total, total)) * (latent - centre)

    @staticmethod
    def _share(part: Any, total: np.ndarray) -> np.ndarray:
        """part / total, and 0 where a point mass has no noise left (0 / 0)."""
        return np.divide(part, total, out=np.zeros_like(total + part), where=total > 0)


# ---- several Gaussians ------------------------------------------------------------------------
class MixtureWorld(_World):
    """A mixture of Gaussians in any dimension: its denoiser is not linear, and still a formula.

    `means` is (components, *shape), and latents are (…, *shape); with means (components,) every
    number of a latent is a point of one dimension. `variances` is one number, one per component
    (isotropic) or one per mean (diagonal), `weights` one positive number per component (equal if
    not given; scaled to sum to 1). Raises InputError for anything else.
    """

    def __init__(self, means: Any, variances: Any = 0.04, weights: Any = None) -> None:
        self.means = _finite("means", means)
        if self.means.ndim < 1 or not self.means.size:
            raise InputError(f"means {shown(means)} must be a list, one mean per component")
        count, self.shape = len(self.means), self.means.shape[1:]
        self.variances = _finite("variances", variances, least=0.0)
        if self.variances.shape not in ((), (count,), self.means.shape):
            raise InputError(
                f"variances have the shape {self.variances.shape}; allowed are one number, "
                f"{(count,)} (one per component) or {self.means.shape} (one per mean)"
            )
        self.weights = _finite("weights", np.ones(count) if weights is None else weights)
        if self.weights.shape != (count,) or not np.all(self.weights > 0):
            raise InputError(f"weights {shown(weights)} must be {count} numbers above 0")
        self.weights = self.weights / self.weights.sum()
        self._means = self.means.reshape(count, -1)
        flat = self.variances.reshape(len(self.variances), -1) if self.variances.ndim else None
        self._variances = self.variances.reshape(1, 1) if flat is None else flat

    def shares(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """(…, components): how probable it is that each component made the latent; sums to 1."""
        logs, _, _ = self._parts(latent, level)
        return _softmax(logs).reshape(*self._batch(latent), -1)

    def x0(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The mean of the data given the latent: Σ share · (the component's own mean given it)."""
        logs, off, total = self._parts(latent, level)
        each = self._means + level.alpha * self._variances / total * off
        return self._mean(logs, each, latent)

    def eps(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The mean of the noise given the latent: Σ share · sigma/total · (latent - centre)."""
        logs, off, total = self._parts(latent, level)
        return self._mean(logs, level.sigma / total * off, latent)

    def score(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The gradient of `log_density`; InputError where point masses have no noise left."""
        _need_density(level.sigma > 0 or np.all(self.variances > 0))
        logs, off, total = self._parts(latent, level)
        return self._mean(logs, -off / total, latent)

    def log_density(self, latent: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """ln of the density of latents (…, *shape) at a level, (…); InputError as `score`."""
        _need_density(level.sigma > 0 or np.all(self.variances > 0))
        logs, _, _ = self._parts(latent, level)
        top = logs.max(axis=1)
        with np.errstate(under="ignore"):
            found = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        return (found - 0.5 * self._means.shape[1] * math.log(2 * math.pi)).reshape(
            self._batch(latent)
        )

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, *shape) draws of data."""
        chosen = _checked_rng(rng).choice(len(self.weights), _checked_count(count), p=self.weights)
        spread = np.sqrt(np.broadcast_to(self._variances, self._means.shape))[chosen]
        draws = self._means[chosen] + spread * rng.standard_normal(spread.shape)
        return draws.reshape(count, *self.shape)

    def flow(self, latent: np.ndarray, level: NoiseLevel, next_level: NoiseLevel) -> np.ndarray:
        """Where the probability-flow ODE takes a latent.

        In one dimension exactly, since points cannot pass each other and so keep their quantile;
        otherwise by `reference_flow`.
        """
        if self._means.shape[1] > 1:
            return reference_flow(self, latent, level, next_level)
        _need_density(level.sigma > 0 or np.all(self.variances > 0))
        points = np.asarray(latent, dtype=np.float64)
        upper = self.tail(points, level) < 0.5  # the smaller tail keeps its digits
        shares = np.where(upper, self.tail(points, level), self.tail(points, level, below=True))
        return self._quantile(shares, upper, next_level)

    def tail(self, points: np.ndarray, level: NoiseLevel, below: bool = False) -> np.ndarray:
        """The share of the data above (or below) each point; of one-dimensional worlds."""
        _, off, total = self._parts(points, level)
        signed = (off / np.sqrt(total))[..., 0] * (-1.0 if below else 1.0)
        with np.errstate(under="ignore"):
            share = 0.5 * _erfc(signed / math.sqrt(2)) @ self.weights
        return share.reshape(np.shape(points))

    def _quantile(self, shares: np.ndarray, upper: np.ndarray, level: NoiseLevel) -> np.ndarray:
        """The points above which (where `upper`, else below) these shares of the data lie."""
        _, _, total = self._parts(np.zeros((1, *self.shape)), level)
        spread = 40.0 * math.sqrt(float(total.max()))  # beyond it, no share is left in float64
        low = np.full(shares.shape, level.alpha * self.means.min() - spread)
        high = np.full(shares.shape, level.alpha * self.means.max() + spread)
        for _ in range(80):
            middle = (low + high) / 2
            right = np.where(
                upper,
                self.tail(middle, level) > shares,
                self.tail(middle, level, below=True) < shares,
            )
            low, high = np.where(right, middle, low), np.where(right, high, middle)
        return (low + high) / 2

    def _batch(self, latent: np.ndarray) -> tuple[int, ...]:
        return np.shape(latent)[: np.ndim(latent) - len(self.shape)]

    def _parts(self, latent: np.ndarray, level: NoiseLevel) -> tuple[np.ndarray, ...]:
        """For P points, K components, D numbers: ln weight·density (P, K) up to a constant,
        latent - centre (P, K, D), and the variance at the level (K or 1, D or 1)."""
        points = np.asarray(latent, dtype=np.float64)
        if points.shape[points.ndim - len(self.shape) :] != self.shape:
            raise InputError(
                f"latent has the shape {points.shape}, but this world is of latents "
                f"(…, {', '.join(map(str, self.shape))})"
            )
        size = self._means.shape[1]
        off = points.reshape(-1, 1, size) - level.alpha * self._means
        total = np.maximum(level.alpha**2 * self._variances + level.sigma**2, TINY)
        spread = np.log(np.broadcast_to(total, (len(total), size))).sum(axis=1)
        return np.log(self.weights) - 0.5 * ((off**2 / total).sum(axis=2) + spread), off, total

    def _mean(self, logs: np.ndarray, each: np.ndarray, latent: np.ndarray) -> np.ndarray:
        shares = _softmax(logs)
        if each.ndim == 2:  # the same for every point
            return (shares @ each).reshape(np.shape(latent))
        return np.einsum("pk,pkd->pd", shares, each).reshape(np.shape(latent))


class FiniteWorld(MixtureWorld):
    """A finite data set, every item equally probable: the ideal denoiser of training data.

    It is what a network with enough capacity would learn if it only ever fitted its training set:
    its samples are those items again. `data` is (items, *shape), e.g. latents (n, 4, 16, 16).
    """

    def __init__(self, data: Any) -> None:
        super().__init__(data, variances=0.0)
        self.data = self.means

    def nearest(self, latent: np.ndarray) -> np.ndarray:
        """(…): the number of the nearest item of the data set."""
        away = np.reshape(latent, (-1, 1, self._means.shape[1])) - self._means
        return (away**2).sum(axis=2).argmin(axis=1).reshape(self._batch(latent))


# ---- the flow of any world --------------------------------------------------------------------
def reference_flow(
    world: Any, latent: np.ndarray, level: NoiseLevel, next_level: NoiseLevel, resolution: int = 128
) -> np.ndarray:
    """Where the probability-flow ODE takes a latent, by many small Runge-Kutta steps (order 4).

    On the angle θ = atan(sigma / alpha), du/dθ = cos θ · eps - sin θ · x0 for u = the latent over
    hypot(alpha, sigma) (arXiv 2202.00512 appendix D); `resolution` steps per unit of ln tan(θ/2),
    which is finite at pure noise. A clean end is read off as x0 at karras_sigma 1e-6.
    """
    if not (isinstance(resolution, int) and 1 <= resolution <= 10_000):
        raise InputError(f"resolution {shown(resolution)} must be a whole number, 1 to 10000")
    if level.sigma == 0:
        raise InputError("a flow from the clean level was asked; begin at a level with sigma > 0")
    start, end = _log_half_angle(level), _log_half_angle(next_level)
    count = max(1, math.ceil(abs(end - start) * resolution))
    places = np.linspace(start, end, 2 * count + 1).tolist()  # ends and middles of the steps
    step = (end - start) / count
    point = np.asarray(latent, dtype=np.float64) / math.hypot(level.alpha, level.sigma)
    for k in range(count):
        point = _runge_kutta(world, point, places[2 * k : 2 * k + 3], step)
    if next_level.sigma == 0:
        return next_level.alpha * world.x0(point, _on_circle(places[-1]))
    return point * math.hypot(next_level.alpha, next_level.sigma)


def _runge_kutta(world: Any, point: np.ndarray, places: list[float], step: float) -> np.ndarray:
    before, middle, after = (_on_circle(place) for place in places)
    slope1 = _slope(world, point, before)
    slope2 = _slope(world, point + step / 2 * slope1, middle)
    slope3 = _slope(world, point + step / 2 * slope2, middle)
    slope4 = _slope(world, point + step * slope3, after)
    return point + step / 6 * (slope1 + 2 * slope2 + 2 * slope3 + slope4)


def _slope(world: Any, point: np.ndarray, level: NoiseLevel) -> np.ndarray:
    """du/d ln tan(θ/2) = sin θ · v."""
    said: Callable[..., IdealPrediction] = world.predict
    return level.sigma * said(point, level).v


def _log_half_angle(level: NoiseLevel) -> float:
    """ln tan(θ/2): 0 at pure noise, falling without end towards the clean level."""
    alpha, sigma = (level.alpha, level.sigma) if level.sigma else (1.0, ALMOST_CLEAN)
    return math.log(sigma / (math.hypot(alpha, sigma) + alpha))


def _on_circle(place: float) -> NoiseLevel:
    half = 2 * math.atan(math.exp(min(place, 0.0)))
    return NoiseLevel(0.0, max(math.cos(half), 0.0), math.sin(half))


# ---- checks and small mathematics -------------------------------------------------------------
def _finite(what: str, values: Any, least: float = -math.inf) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(math.nan)
    if not np.all(np.isfinite(array) & (array >= least)):
        bound = "finite" if least == -math.inf else f"finite and >= {least:g}"
        raise InputError(f"{what} {shown(values)} must be {bound}; use numbers")
    return array


def _need_density(there: Any) -> None:
    if not there:
        raise InputError(
            "a density was asked where point masses have no noise left; use a level with sigma > 0"
        )


def _checked_rng(rng: Any) -> np.random.Generator:
    if isinstance(rng, np.random.Generator):
        return rng
    raise InputError(f"rng {shown(rng)} is no generator; use np.random.default_rng(seed)")


def _checked_count(count: Any) -> int:
    if isinstance(count, (int, np.integer)) and not isinstance(count, bool) and count >= 1:
        return int(count)
    raise InputError(f"count {shown(count)} must be a whole number >= 1; use e.g. 100")


def _softmax(logs: np.ndarray) -> np.ndarray:
    with np.errstate(under="ignore"):
        found = np.exp(logs - logs.max(axis=1, keepdims=True))
        return found / found.sum(axis=1, keepdims=True)


_erfc = np.vectorize(math.erfc, otypes=[np.float64])
