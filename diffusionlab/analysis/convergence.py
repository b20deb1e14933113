"""How fast a sampler converges, how straight its paths are, and where two runs part.

Every measure takes plans, Steps or traces, never a model. paper ↔ name: with an error e(n) after
n steps, the order is the slope of -ln e over ln n; on a smooth problem e(n) ~ n^-order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionlab.analysis.latents import Residual, numbers
from diffusionlab.errors import InputError, shown
from diffusionlab.ideal import GaussianWorld, MixtureWorld
from diffusionlab.levels import NoiseLevel, as_pair, one_of
from diffusionlab.plan import Plan, Step, denoise
from diffusionlab.samplers import SAMPLERS, Sampler, as_sampler, make_plan
from diffusionlab.trace import Trace

SMALLEST = 1e-11  # errors below it are rounding in float64, and say nothing about an order


# ---- grids of levels --------------------------------------------------------------------------
def _uniform(num_steps: int, high: float, low: float) -> np.ndarray:
    return high * (low / high) ** (np.arange(num_steps + 1) / num_steps)


def _karras(num_steps: int, high: float, low: float) -> np.ndarray:
    return np.linspace(high ** (1 / 7), low ** (1 / 7), num_steps + 1) ** 7


def _rough(num_steps: int, high: float, low: float) -> np.ndarray:
    steps = np.where(np.arange(num_steps) % 2 == 0, 2.0, 1.0)
    return high * (low / high) ** np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])


GRIDS = {"uniform": _uniform, "karras": _karras, "rough": _rough}


def grid_levels(
    grid: str, num_steps: int, *, high: float = 10.0, low: float = 0.05, pair: str = "vp"
) -> tuple[NoiseLevel, ...]:
    """num_steps + 1 levels from karras_sigma `high` to `low` > 0, for measuring orders.

    "uniform" in log-SNR, "karras", or "rough": steps in log-SNR that alternate 2 : 1, where weights
    that are right for equal steps only are found out. `pair` as `levels.as_pair`. The timestep is
    250 · ln(karras_sigma / low), so that plans of every rule can be made. Raises InputError.
    """
    make = GRIDS[one_of("grid", grid, GRIDS)]
    if isinstance(num_steps, bool) or not isinstance(num_steps, (int, np.integer)) or num_steps < 1:
        raise InputError(f"num_steps must be an integer >= 1, got {shown(num_steps)}; use e.g. 64")
    if not 0 < low < high < math.inf:
        raise InputError(f"high {shown(high)} and low {shown(low)} must be 0 < low < high")
    sigmas = make(int(num_steps), high, low).tolist()
    levels = (NoiseLevel(250 * math.log(max(sigma / low, 1.0)), 1.0, sigma) for sigma in sigmas)
    return tuple(as_pair(level, pair) for level in levels)


# ---- convergence ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Convergence:
    """One sampler's errors at growing numbers of steps, on one grid of levels.

    `what` says which distance the errors are; `slopes[i]` lies between counts i and i + 1 and is
    NaN where an error is rounding only (below 1e-11) or not finite.
    """

    label: str
    grid: str
    num_steps: tuple[int, ...]
    network_calls: tuple[int, ...]
    errors: tuple[float, ...]
    what: str = "root mean square distance"

    @property
    def slopes(self) -> tuple[float, ...]:
        """The order seen between neighbouring numbers of steps."""
        return _slopes(self.num_steps, self.errors)

    @property
    def slopes_by_calls(self) -> tuple[float, ...]:
        """The same against network calls."""
        return _slopes(self.network_calls, self.errors)

    @property
    def order(self) -> float:
        """The last slope that can be judged, which `plot_convergence` prints; NaN if none can."""
        good = [slope for slope in self.slopes if math.isfinite(slope)]
        return good[-1] if good else math.nan

    @property
    def fitted(self) -> float:
        """The slope of the least-squares line through all errors that can be judged."""
        pairs = [(n, e) for n, e in zip(self.num_steps, self.errors, strict=True) if _judged(e)]
        if len(pairs) < 2:
            return math.nan
        n, e = np.log(np.array(pairs)).T
        n, e = n - n.mean(), e - e.mean()
        return float(-(n @ e) / (n @ n))

    def calls_within(self, error: float) -> int | None:
        """The network calls from which on every run is at most `error` off; None if none is."""
        found = None
        for calls, off in zip(self.network_calls[::-1], self.errors[::-1], strict=True):
            if not off <= error:
                break
            found = calls
        return found

    def __str__(self) -> str:
        ends = f"error {self.errors[0]:.2g} to {self.errors[-1]:.2g}"
        steps = f"{self.num_steps[0]} to {self.num_steps[-1]} steps"
        return f"{self.label}, {self.grid} grid: {ends} over {steps}, last slope {self.order:.2f}"


def _judged(error: float) -> bool:
    return SMALLEST < error < math.inf


def _slopes(counts: Sequence[int], errors: Sequence[float]) -> tuple[float, ...]:
    found = []
    for n, m, e, f in zip(counts, counts[1:], errors, errors[1:], strict=False):
        good = _judged(e) and _judged(f) and n != m
        found.append(math.log(e / f) / math.log(m / n) if good else math.nan)
    return tuple(found)


DISTANCES: dict[str, Callable[[np.ndarray], float]] = {
    "root mean square distance": lambda off: float(np.sqrt(np.mean(off**2))),
    "median distance": lambda off: float(
        np.median(np.sqrt((off.reshape(len(off), -1) ** 2).sum(axis=1)))
    ),
    "largest difference": lambda off: float(np.abs(off).max()),
}


def convergence(
    runs: Sequence[Trace | Sequence[Step]],
    exact: Any,
    *,
    label: str,
    grid: str = "its own",
    what: str = "root mean square distance",
) -> Convergence:
    """The errors of finished runs, fewest steps first, against the exact or a reference end.

    `exact` is an array, or a run of many steps (a Trace or its Steps) whose end is taken. The
    "median distance" is over points (…, axis 0), for 2-D mixtures, where a point that crosses a
    basin's edge spoils the mean. Raises InputError for runs whose ends have another shape.
    """
    distance = DISTANCES[one_of("what", what, DISTANCES)]
    wanted = numbers(exact if isinstance(exact, np.ndarray) else _end(exact))
    found = []
    for run in runs:
        steps, end = steps_of(run), numbers(_end(run))
        if end.shape != wanted.shape:
            raise InputError(f"a run ends with {end.shape}, the exact end is {wanted.shape}")
        calls = sum(step.network_calls for step in steps)
        found.append((len(steps), calls, distance(end - wanted)))
    if not found:
        raise InputError("convergence got no runs; give at least one, e.g. of 8, 16 and 32 steps")
    counts, calls, errors = zip(*sorted(found), strict=True)
    return Convergence(label, grid, counts, calls, errors, what)


def measured(
    sampler: str | Sampler,
    world: Any,
    start: np.ndarray,
    counts: Sequence[int],
    *,
    grid: str = "uniform",
    pair: str = "vp",
    what: str = "root mean square distance",
) -> Convergence:
    """The convergence of a deterministic sampler on an exact world (`ideal`), in float64.

    `start` holds latents at karras_sigma 10 of a variance-preserving pair; the run stops at 0.05,
    with `lower_order_final` off, where the sampler has it: both would cap the order seen.
    """
    sampler = _with_full_order(as_sampler(sampler))
    exact, runs = None, []
    for num_steps in counts:
        levels = grid_levels(grid, num_steps, pair=pair)
        latent = np.asarray(start) * math.hypot(levels[0].alpha, levels[0].sigma)
        exact = world.flow(latent, levels[0], levels[-1]) if exact is None else exact
        runs.append(list(denoise(make_plan(sampler, levels, None), latent, world.predict, None)))
    return convergence(runs, exact, label=_label(sampler), grid=grid, what=what)


def third_order_twice(
    counts: Sequence[int] = (8, 16, 32, 64, 128, 256), grid: str = "uniform"
) -> tuple[Convergence, Convergence]:
    """The third-order multistep rule as corrected and as commonly shipped, on a 1-D mixture.

    The shipped one weighs the second divided difference, which is half of the second derivative,
    as if it were the derivative, and so has order 2 (`dpmpp_3m_corrected`, `dpmpp_3m_shipped`).
    """
    world = MixtureWorld([1.0, -1.0, 0.2], [0.3, 0.5, 0.2], [0.5, 0.3, 0.2])
    start = np.linspace(-1.6, 1.6, 19)  # of about the marginal at the first level, std 1
    names = ("dpmpp_3m_corrected", "dpmpp_3m_shipped")
    return tuple(measured(name, world, start, counts, grid=grid) for name in names)


def _with_full_order(sampler: Sampler) -> Sampler:
    if "lower_order_final" not in SAMPLERS[sampler.name].options:
        return sampler
    return Sampler(sampler.name, dict(sampler.options) | {"lower_order_final": False})


def _label(sampler: Sampler) -> str:
    """The name with the options that were chosen: `lms(order=2)`."""
    known = SAMPLERS[sampler.name].options
    chosen = [f"{k}={v!r}" for k, v in sampler.options.items() if v != known[k].default
              and k != "lower_order_final"]  # fmt: skip
    return f"{sampler.name}({', '.join(chosen)})" if chosen else sampler.name


def steps_of(run: Trace | Sequence[Step]) -> Sequence[Step]:
    """The Steps of a run, at least one, else InputError."""
    steps = run.steps if isinstance(run, Trace) else list(run)
    if not steps or not all(isinstance(step, Step) for step in steps):
        raise InputError(f"a run of {len(steps)} Steps was given; a Trace or list of Steps is used")
    return steps


def _end(run: Trace | Sequence[Step]) -> Any:
    return steps_of(run)[-1].next_latent


# ---- weak error -------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class WeakError:
    """The law of a noisy run's end on Gaussian data: mean and variance, found and wanted.

    `affine` is the check that the run is affine in its start and its draws, on which this rests.
    """

    mean: np.ndarray
    variance: np.ndarray
    wanted_mean: np.ndarray
    wanted_variance: np.ndarray
    affine: Residual

    @property
    def mean_error(self) -> float:
        return float(np.abs(self.mean - self.wanted_mean).max())

    @property
    def variance_error(self) -> float:
        return float(np.abs(self.variance - self.wanted_variance).max())


def weak_error(plan: Plan, world: GaussianWorld) -> WeakError:
    """Mean and variance of the end of a run from the world's own law at the first level, exactly.

    On Gaussian data a run is affine in the start and in every draw, so one probing run each gives
    its gains, with no Monte Carlo; all of them go through together.
    """
    if not isinstance(world, GaussianWorld):
        raise InputError(f"world {shown(world)} is not Gaussian; use ideal.GaussianWorld")
    probes = 2 + sum(len(step.draws) for step in plan)
    mixed = np.random.default_rng(0).standard_normal(probes)  # a run that superposes them all
    weights = np.vstack([np.eye(probes), mixed])
    weights[:, 0] = 1.0
    columns = iter(np.moveaxis(weights[:, 2:], 1, 0))

    def spread(column: np.ndarray) -> np.ndarray:
        return column.reshape(-1, *[1] * len(world.shape)) * np.ones(world.shape)

    runs = denoise(plan, spread(weights[:, 1]), world.predict, lambda s, t: spread(next(columns)))
    end = [step.next_latent for step in runs][-1]
    gains = end[1:-1] - end[0]
    off = np.abs(end[0] + np.tensordot(mixed[1:], gains, axes=1) - end[-1]).max()
    relative = float(off / max(np.abs(end[-1]).max(), 1e-12))
    (centre, total), wanted = world.marginal(plan[0].level), world.marginal(plan[-1].next_level)
    return WeakError(
        mean=end[0] + gains[0] * centre,
        variance=gains[0] ** 2 * total + (gains[1:] ** 2).sum(axis=0),
        wanted_mean=wanted[0] * np.ones(world.shape),
        wanted_variance=wanted[1] * np.ones(world.shape),
        affine=Residual(relative, 1e-9, "the run is affine in its start"),
    )


def weak_convergence(
    plans: Sequence[Plan],
    world: GaussianWorld,
    *,
    label: str,
    grid: str = "its own",
    what: str = "variance error",
) -> Convergence:
    """The "variance error" or "mean error" of plans of one sampler, fewest steps first."""
    one_of("what", what, ("variance error", "mean error"))
    found = []
    for plan in sorted(plans, key=len):
        error = weak_error(plan, world)
        value = error.variance_error if what == "variance error" else error.mean_error
        found.append((len(plan), sum(step.network_calls for step in plan), value))
    if not found:
        raise InputError("weak_convergence got no plans; give at least one")
    return Convergence(label, grid, *zip(*found, strict=True), what)
