"""Spacings: where on a training schedule the levels of a run lie, noisiest first.

One definition each for all samplers. A spacing is `(schedule, num_steps) -> levels` without the
final level, which `NoiseSchedule.levels` appends. paper ↔ name: n = num_steps, i = 0 … n - 1,
T = num_train_steps, σ̂ = karras_sigma with the ends σ̂max, σ̂min of the whole training table.

Where the table ends at zero terminal SNR (σ̂max infinite), the spacings made in σ̂ are laid from
the noisiest finite entry, and their first level is then moved to the infinite one. That entry is
far noisier than any useful level: take `trailing` or `ays` there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionlab.errors import InputError, shown
from diffusionlab.levels import CLEAN, NoiseLevel, one_of
from diffusionlab.timesteps import (
    checked_num_steps,
    lcm,
    leading,
    leading_dpm,
    linspace,
    linspace_dpm,
    trailing,
)

if TYPE_CHECKING:
    from diffusionlab.schedule import NoiseSchedule

MOST_FLOW_STEPS = 10_000


# ---- spaced in karras_sigma -------------------------------------------------------------------
def _karras(part: np.ndarray, high: float, low: float) -> np.ndarray:
    return (high ** (1 / 7) * (1 - part) + low ** (1 / 7) * part) ** 7


def _exponential(part: np.ndarray, high: float, low: float) -> np.ndarray:
    return high * (low / high) ** part


def _beta(part: np.ndarray, high: float, low: float) -> np.ndarray:
    return low + (high - low) * beta_quantile(1 - part)


FORMULAS = {"karras": _karras, "exponential": _exponential, "beta": _beta}


def karras(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Equally spaced in σ̂^(1/7), both ends included (EDM, arXiv 2206.00364 Eq. 5, rho = 7)."""
    return _in_karras_sigma(schedule, num_steps, _karras)


def exponential(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Equally spaced in ln σ̂, which is uniform in log-SNR = -2 · ln σ̂; both ends included."""
    return _in_karras_sigma(schedule, num_steps, _exponential)


def beta(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """σ̂min + (σ̂max - σ̂min) · Q(1 - i/(n-1)), Q the quantile of Beta(0.6, 0.6).

    Many steps at both ends of σ̂ (arXiv 2407.12173, the quantile taken in σ̂ as diffusers does).
    """
    return _in_karras_sigma(schedule, num_steps, _beta)


def snr_uniform(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Equally spaced in snr = alpha² / sigma², both ends included.

    A counterexample: snr spans five decades, so all but the first level are nearly clean.
    """
    snr, table = schedule.snr, schedule.karras_sigma
    with np.errstate(divide="ignore"):
        found = 1 / np.sqrt(snr[-1] + (snr[0] - snr[-1]) * _parts(num_steps))
    return _levels(schedule, _with_ends(found, float(table[-1]), float(table[0])))


AYS_SD1 = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)
AYS_SDXL = (999, 845, 730, 587, 443, 310, 193, 116, 53, 13)


def ays(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Align Your Steps for Stable Diffusion 1.5 (arXiv 2404.14507): its ten timesteps.

    Other numbers of steps by linear interpolation of ln σ̂ over i/(n-1); on a table of another
    length the timesteps are scaled to it.
    """
    return _aligned(schedule, num_steps, AYS_SD1)


def ays_sdxl(schedule: NoiseSchedule, num_steps: int) -> list[NoiseLevel]:
    """Align Your Steps for SDXL, as `ays` with its own ten timesteps."""
    return _aligned(schedule, num_steps, AYS_SDXL)


SPACINGS: dict[str, Callable[[NoiseSchedule, int], list[NoiseLevel]]] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "leading_dpm": leading_dpm,
    "linspace_dpm": linspace_dpm,
    "lcm": lcm,
    "karras": karras,
    "exponential": exponential,
    "uniform_log_snr": exponential,  # the same list under the name that says what it is
    "beta": beta,
    "ays": ays,
    "ays_sdxl": ays_sdxl,
    "snr_uniform": snr_uniform,
}
# "karras in leading": between the ends of another spacing's levels instead of the table's
WITHIN = tuple(f"{name} in {base}" for name in FORMULAS for base in ("leading", "trailing"))


def _parts(num_steps: int) -> np.ndarray:
    """i / (n - 1) from 0 to 1; 0 alone for one step."""
    return np.arange(num_steps) / max(num_steps - 1, 1)


def _in_karras_sigma(
    schedule: NoiseSchedule, num_steps: int, formula: Callable[[Any, float, float], np.ndarray]
) -> list[NoiseLevel]:
    table = schedule.karras_sigma[np.isfinite(schedule.karras_sigma)]
    if not table.size:
        return [_noisiest(schedule)]
    high, low = float(table[-1]), float(table[0])
    found = np.clip(formula(_parts(num_steps), high, low), low, high)
    return _levels(schedule, _with_ends(found, float(schedule.karras_sigma[-1]), low))


def _within(schedule: NoiseSchedule, num_steps: int, spacing: str) -> list[NoiseLevel]:
    """A spacing of karras_sigma between the first and the last level of another spacing.

    Euler's, Heun's and LMS's classes in diffusers read a config with both so. Where the first
    level is infinitely noisy, the rest lies within the table's finite part.
    """
    name, _, base = spacing.partition(" in ")
    ends = SPACINGS[base](schedule, num_steps)
    finite = schedule.karras_sigma[np.isfinite(schedule.karras_sigma)]
    high, low = (min(ends[i].karras_sigma, float(finite[-1])) for i in (0, -1))
    found = np.clip(FORMULAS[name](_parts(num_steps), high, low), low, high)
    return _levels(schedule, _with_ends(found, ends[0].karras_sigma, low))


def _with_ends(sigmas: np.ndarray, first: float, last: float) -> np.ndarray:
    """The same with both ends exactly those of the table; one step has the first alone."""
    sigmas = np.concatenate([[first], sigmas[1:]])
    sigmas[1:][-1:] = last
    return sigmas


def _aligned(schedule: NoiseSchedule, num_steps: int, known: tuple[int, ...]) -> list[NoiseLevel]:
    last = schedule.num_train_steps - 1
    levels = [schedule.level_at(timestep=t * last / 999) for t in known]
    if num_steps == len(levels):
        return levels
    finite = float(np.max(schedule.karras_sigma[np.isfinite(schedule.karras_sigma)], initial=0))
    logs = [math.log(min(level.karras_sigma, finite)) for level in levels if level.alpha or finite]
    if not logs:
        return levels[:1]
    places = _parts(num_steps) * (len(logs) - 1)
    found = _levels(schedule, np.minimum(np.exp(np.interp(places, range(len(logs)), logs)), finite))
    return [levels[0], *found[1:]]


def _levels(schedule: NoiseSchedule, sigmas: np.ndarray) -> list[NoiseLevel]:
    return [schedule.level_at(karras_sigma=sigma) for sigma in sigmas.tolist()]


def _noisiest(schedule: NoiseSchedule) -> NoiseLevel:
    return schedule.level_at(timestep=schedule.num_train_steps - 1)


def beta_quantile(places: np.ndarray, shape: float = 0.6) -> np.ndarray:
    """The x in [0, 1] below which Beta(shape, shape) has these shares, by bisection.

    The distribution function is the series x^s/B · Σ_k c_k x^k/(s + k) with c_k = Π_j (j - s)/j,
    used for x ≤ 1/2 only; the other half is its mirror image.
    """
    wanted = np.asarray(places, dtype=np.float64)
    below = np.minimum(wanted, 1 - wanted)
    k = np.arange(60)
    series = np.cumprod(np.where(k > 0, (k - shape) / np.maximum(k, 1), 1.0)) / (shape + k)
    whole = math.gamma(shape) ** 2 / math.gamma(2 * shape)
    low, high = np.zeros_like(below), np.full_like(below, 0.5)
    for _ in range(60):
        middle = (low + high) / 2
        share = middle**shape / whole * np.polynomial.polynomial.polyval(middle, series)
        low, high = np.where(share < below, middle, low), np.where(share < below, high, middle)
    found = np.where(below > 0, (low + high) / 2, 0.0)
    return np.where(wanted > 0.5, 1 - found, found)


# ---- lists of one's own -----------------------------------------------------------------------
CUSTOM = {"custom timesteps": "timestep", "custom karras_sigmas": "karras_sigma"}


def custom_spacing(
    *, timesteps: Iterable[float] | None = None, karras_sigmas: Iterable[float] | None = None
) -> str:
    """A list of one's own as a spacing's name: 'custom timesteps [999.0, 500.0]'.

    The text is what `levels(spacing=…)`, `generate(spacing=…)` and a record's settings hold. Give
    exactly one list, strictly decreasing; timesteps may be fractional. Raises InputError.
    """
    if (timesteps is None) == (karras_sigmas is None):
        raise InputError("custom_spacing needs exactly one of timesteps= and karras_sigmas=")
    name = "custom timesteps" if karras_sigmas is None else "custom karras_sigmas"
    values = _checked_list(CUSTOM[name], timesteps if karras_sigmas is None else karras_sigmas)
    return f"{name} {json.dumps(values)}"


def checked_spacing(spacing: str) -> str:
    """The name of a spacing, or the text of `custom_spacing`, else InputError."""
    if isinstance(spacing, str) and spacing.startswith("custom"):
        _read_custom(spacing)
        return spacing
    return spacing if spacing in WITHIN else one_of("spacing", spacing, SPACINGS)


def spaced(schedule: NoiseSchedule, num_steps: int | None, spacing: str) -> list[NoiseLevel]:
    """The levels of a spacing by name or text, without the final one. Raises InputError."""
    if not checked_spacing(spacing).startswith("custom"):
        num_steps = checked_num_steps(num_steps, schedule.num_train_steps)
        if spacing in WITHIN:
            return _within(schedule, num_steps, spacing)
        return SPACINGS[spacing](schedule, num_steps)
    kind, values = _read_custom(spacing)
    ends_clean = values[-1] == (0 if kind == "karras_sigma" else -1)
    steps = len(values) - ends_clean
    if num_steps is not None and (isinstance(num_steps, bool) or num_steps != steps):
        raise InputError(
            f"num_steps {shown(num_steps)} was given with a custom list of {steps} steps; "
            f"allowed is num_steps={steps}, or leave it out where that is possible"
        )
    return [schedule.level_at(**{kind: value}) for value in values]


def _read_custom(text: str) -> tuple[str, list[float]]:
    for name, kind in CUSTOM.items():
        if text.startswith(name):
            try:
                return kind, _checked_list(kind, json.loads(text.removeprefix(name)))
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                break
    raise InputError(
        f"spacing {shown(text)} is no custom list; it reads e.g. 'custom timesteps [999, 500]': "
        "make it by custom_spacing(timesteps=[…]) or custom_spacing(karras_sigmas=[…])"
    )


def _checked_list(kind: str, values: Any) -> list[float]:
    """A strictly decreasing list of finite numbers; only its last may be the clean level."""
    given = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else None
    numbers = [_number(value) for value in given or ()]
    clean = 0.0 if kind == "karras_sigma" else -1.0
    least = [clean if i == len(numbers) - 1 else max(clean, 0.0) for i in range(len(numbers))]
    good = bool(numbers) and all(a > b for a, b in zip(numbers, numbers[1:], strict=False))
    good = good and all(n >= low for n, low in zip(numbers, least, strict=True))
    if not good or numbers[0] == clean or any(-1 < n < 0 for n in numbers):
        raise InputError(
            f"{kind}s {shown(values)}: a list of finite numbers is allowed, strictly decreasing, "
            f"noisiest first, e.g. [{'10.0, 1.0, 0.1' if clean == 0.0 else '999, 500, 100'}] "
            f"(only its last may be {clean:g}, the clean level)"
        )
    return numbers


def _number(value: Any) -> float:
    """The value as a float, NaN if it is no finite number."""
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


# ---- rectified flow ---------------------------------------------------------------------------
def flow_levels(
    num_steps: int, shift: float = 1.0, *, final: str = "clean", num_train_steps: int = 1000
) -> tuple[NoiseLevel, ...]:
    """The num_steps + 1 levels of a rectified flow: alpha = 1 - sigma, from pure noise to clean.

    sigma = 1 - i/n, then once shift · sigma / (1 + (shift - 1) · sigma) (arXiv 2403.03206 section
    5.3.2; shift > 1 spends more steps on high noise). The timestep is num_train_steps · sigma.
    `final` "none" leaves the clean level out. Raises InputError.
    """
    num_steps = checked_num_steps(num_steps, MOST_FLOW_STEPS, "steps allowed")
    if not _number(shift) > 0:
        raise InputError(f"shift {shown(shift)} must be a finite number above 0; use e.g. 3.0")
    one_of("final", final, ("clean", "none"))
    levels = []
    for sigma in (1 - i / num_steps for i in range(num_steps)):
        scale = 1 + (float(shift) - 1) * sigma
        moved = float(shift) * sigma / scale  # alpha apart: 1 - moved would lose its digits
        levels.append(NoiseLevel(num_train_steps * moved, (1 - sigma) / scale, moved))
    return strictly_decreasing(levels + ([CLEAN] if final == "clean" else []))


# ---- checks -----------------------------------------------------------------------------------
def strictly_decreasing(levels: list[NoiseLevel]) -> tuple[NoiseLevel, ...]:
    """The levels without those that are no cleaner than the one before."""
    kept = levels[:1]
    for level in levels[1:]:
        if level.karras_sigma < kept[-1].karras_sigma:
            kept.append(level)
    return tuple(kept)
