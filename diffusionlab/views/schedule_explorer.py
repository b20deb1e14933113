"""The schedule explorer: which noise levels a run visits, and what a picture looks like there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diffusionlab.analysis.bands import EDGES, band_shares
from diffusionlab.errors import InputError, shown
from diffusionlab.plan import Plan
from diffusionlab.samplers import Sampler, as_sampler, make_plan
from diffusionlab.schedule import NoiseLevel, NoiseSchedule
from diffusionlab.spacings import checked_spacing
from diffusionlab.trace import Noising
from diffusionlab.views.facts import level_facts, update_facts
from diffusionlab.views.forward import (
    checked_noising,
    drawn_pictures,
    nearest_asked,
    noised_pictures,
)
from diffusionlab.views.page import plain
from diffusionlab.views.view import View

USUAL = ("trailing", "leading", "linspace", "karras", "exponential", "ays")
SOLVERS = ("ddim", "heun", "dpmpp_2m")
STEPS = (5, 10, 20, 50)
PLACES = 101  # of the scrubber
MOST_ROWS, MOST_STEPS = 13, 200
BANDS = (
    f"at karras_sigma {EDGES[0]:g} or above",
    *(f"at karras_sigma {low:g} to {high:g}" for high, low in zip(EDGES, EDGES[1:], strict=False)),
    f"below karras_sigma {EDGES[-1]:g}",
)
Levels = tuple[NoiseLevel, ...]


def explore_schedule(
    schedule: NoiseSchedule,
    *,
    num_steps: int = 20,
    spacings: Sequence[str] | None = None,
    samplers: Sequence[Any] | None = None,
    noising: Noising | None = None,
    steps: Sequence[int] = STEPS,
) -> View:
    """Spacings and solvers on the log-SNR axis, and a picture at each noise level.

    `schedule` is `model.schedule`. `spacings` are names (or texts of `custom_spacing`), the
    checkpoint's own first unless given; `samplers` names or samplers with options, () for none.
    `steps` are the numbers of steps that the reader may choose from, `num_steps` the first one
    shown. `noising` (of `noise_image(model, image)`) brings a picture of yours and what the network
    makes of it; without it a built-in drawing is noised in pixels. A spacing or sampler that cannot
    make a number of steps says why. Raises InputError.
    """
    if not isinstance(schedule, NoiseSchedule):
        raise InputError(
            f"schedule is {shown(schedule)}; a NoiseSchedule is allowed: pass model.schedule"
        )
    counts = _counts(schedule, num_steps, steps)
    names = _spacings(schedule, spacings)
    solvers = _samplers(samplers)
    if noising is not None:
        noising = checked_noising(noising, schedule)
    places = _places(schedule, noising)
    rows = [_row(schedule, name, counts, solvers) for name in names]
    title = f"noise schedule {schedule.name}".rstrip()
    first = counts.index(num_steps)
    data = {
        "title": ["noise schedule ", {"text": schedule.name}],
        "count": schedule.num_train_steps,
        "prediction_type": schedule.prediction_type,
        "steps": counts,
        "edges": [plain(-2 * math.log(edge)) for edge in EDGES],
        "karras_edges": list(EDGES),
        "ends": _ends(schedule),
        "places": places,
        "rows": rows,
        "samplers": [repr(s) if s.options else s.name for s in solvers],
        "pictures": _pictures(noising, places),
    }
    middle = min(range(len(places)), key=lambda i: abs(_number(places[i]["log_snr"])))
    return View(
        script="schedule_explorer",
        title=title,
        alt=_alt(schedule, rows, first),
        data=data,
        live={"place": middle, "spacing": 0, "steps": first},
        limits={
            "place": (0, len(places) - 1),
            "spacing": (0, len(rows) - 1),
            "steps": (0, len(counts) - 1),
        },
        figure=lambda: _figure(schedule, names, num_steps),
        lighter="Show fewer spacings, samplers or numbers of steps.",
        height=1040,
    )


# ---- what was asked for -----------------------------------------------------------------------
def _counts(schedule: NoiseSchedule, num_steps: int, steps: Iterable[int]) -> list[int]:
    """The numbers of steps to choose from, in order."""
    given = list(steps) if isinstance(steps, Iterable) and not isinstance(steps, str) else [steps]
    most = min(MOST_STEPS, schedule.num_train_steps)
    for name, value in (("num_steps", num_steps), *(("steps", value) for value in given)):
        if type(value) is not int or not 1 <= value <= most:
            raise InputError(
                f"{name} is {shown(value)}; whole numbers from 1 to {most} are allowed: use e.g. 20"
            )
    return sorted({num_steps, *(n for n in given)})


def _spacings(schedule: NoiseSchedule, spacings: Sequence[str] | None) -> list[str]:
    if spacings is None:
        return list(dict.fromkeys([schedule.spacing, *USUAL]))
    given = [spacings] if isinstance(spacings, str) else list(spacings)
    names = list(dict.fromkeys(checked_spacing(name) for name in given))
    if not 1 <= len(names) <= MOST_ROWS:
        raise InputError(
            f"spacings holds {len(names)} names; 1 to {MOST_ROWS} are allowed: "
            "choose a few, e.g. ('trailing', 'karras')"
        )
    return names


def _samplers(samplers: Sequence[Any] | None) -> list[Sampler]:
    if samplers is None:
        return [Sampler(name) for name in SOLVERS]
    given = [samplers] if isinstance(samplers, (str, Sampler)) else list(samplers)
    for one in given:
        as_sampler(one)
    if len(given) > MOST_ROWS:
        raise InputError(
            f"samplers holds {len(given)}; at most {MOST_ROWS} are allowed: choose a few"
        )
    return [
        one if isinstance(one, Sampler) else Sampler(getattr(one, "name", one)) for one in given
    ]


# ---- the scrubber -----------------------------------------------------------------------------
def _places(schedule: NoiseSchedule, noising: Noising | None) -> list[dict[str, Any]]:
    """The scrubber's stops, noisiest first: even in the timestep, and those of a record."""
    last = schedule.num_train_steps - 1
    stops = {round(i * last / (PLACES - 1)) for i in range(PLACES)}
    stops |= {level.timestep for level in noising.levels} if noising else set()
    levels = [schedule.level_at(timestep=t) for t in sorted(stops, reverse=True) if t >= 0]
    return [level_facts(x) | {"alpha_bar": plain(_alpha_bar(x))} for x in levels]


def _alpha_bar(level: NoiseLevel) -> float:
    """Of any pair: the share of the signal in the latent's power, alpha² / (alpha² + sigma²)."""
    return level.alpha**2 / (level.alpha**2 + level.sigma**2)


def _pictures(noising: Noising | None, places: list[dict[str, Any]]) -> dict[str, Any]:
    if noising is None:
        return drawn_pictures()
    nearest = nearest_asked(noising, [place["timestep"] for place in places])
    return noised_pictures(noising) | {"nearest": nearest}


def _ends(schedule: NoiseSchedule) -> list[float]:
    """The log-SNR of the axis' left and right end: the finite part of the table, and some room."""
    inside = schedule.karras_sigma[np.isfinite(schedule.karras_sigma)]
    found = (-2 * np.log(inside)).tolist() + [-2 * math.log(edge) for edge in EDGES]
    return [plain(min(found) - 0.6), plain(max(found) + 0.6)]


def _number(value: Any) -> float:
    return value if isinstance(value, float) else math.inf


# ---- one spacing ------------------------------------------------------------------------------
def _row(
    schedule: NoiseSchedule, name: str, counts: list[int], solvers: list[Sampler]
) -> dict[str, Any]:
    """A spacing with its levels for each number of steps."""
    runs = [_run(schedule, name, count, solvers) for count in counts]
    return {"name": name, "own": name == schedule.spacing, "runs": runs}


def _levels(schedule: NoiseSchedule, name: str, count: int) -> Levels:
    levels = schedule.levels(count, name)
    if len(levels) < 2:
        raise InputError(f"{name} makes {len(levels)} level(s) here; a step needs two")
    return levels


def _run(schedule: NoiseSchedule, name: str, count: int, solvers: list[Sampler]) -> dict[str, Any]:
    try:
        levels = _levels(schedule, name, count)
    except InputError as error:
        return {"error": str(error)}
    return {
        "levels": [[plain(x.timestep), plain(x.karras_sigma), plain(x.log_snr)] for x in levels],
        "shares": [plain(share) for share in band_shares(levels)],
        "told": _told(schedule, name, count, levels),
        "start": _start(schedule, name, levels),
        "plans": [_plan(solver, levels, schedule) for solver in solvers],
    }


def _told(schedule: NoiseSchedule, name: str, count: int, levels: Levels) -> str:
    """Where the steps are, beside those of the checkpoint's own spacing."""
    begun, total = _begun(levels), len(levels) - 1
    few = "" if total == count else f" ({count} were asked for; levels that coincide are dropped)"
    try:
        own = _levels(schedule, schedule.spacing, count)
    except InputError:
        own = levels
    theirs = _begun(own)
    if name == schedule.spacing or theirs == begun:
        band = max(range(len(begun)), key=lambda i: begun[i])
        which = "the checkpoint's own spacing" if name == schedule.spacing else "a spacing"
        like = "" if name == schedule.spacing else f"; as {schedule.spacing}, the checkpoint's own"
        return f"{name}, {which}, begins {begun[band]} of {total} steps {BANDS[band]}{like}{few}."
    gaps = [a / total - b / (len(own) - 1) for a, b in zip(begun, theirs, strict=True)]
    band = max(range(len(gaps)), key=lambda i: abs(gaps[i]))
    return (
        f"{name} begins {begun[band]} of {total} steps {BANDS[band]}; {schedule.spacing}, the "
        f"checkpoint's own, {theirs[band]} of {len(own) - 1}{few}."
    )


def _begun(levels: Levels) -> list[int]:
    """How many steps begin in each band."""
    return [round(share * (len(levels) - 1)) for share in band_shares(levels)]


def _start(schedule: NoiseSchedule, name: str, levels: Levels) -> str:
    """What a run that does not begin at the noisiest level leaves out, or nothing."""
    last = float(schedule.num_train_steps - 1)
    first, top = levels[0], schedule.level_at(timestep=last)
    if first.karras_sigma >= top.karras_sigma * (1 - 1e-9):
        return ""
    return (
        f"{name} begins at karras_sigma {first.karras_sigma:.3g} (timestep {first.timestep:.4g}), "
        f"not at the noisiest level {top.karras_sigma:.3g} ({last:g})."
    )


# ---- one solver on a spacing ------------------------------------------------------------------
def _plan(solver: Sampler, levels: Levels, schedule: NoiseSchedule) -> dict[str, Any]:
    try:
        plan = make_plan(solver, levels, schedule)
    except InputError as error:
        return {"error": str(error)}
    return {"calls": sum(step.network_calls for step in plan), "steps": _steps(plan)}


def _steps(plan: Plan) -> list[dict[str, Any]]:
    """For each step, where the network is asked (log-SNR) and what is made of its answers."""
    found, calls = [], 0
    for step in plan:
        at = [plain(stage.level.log_snr) for stage in step.stages]
        found.append({"at": at} | update_facts(step.update, calls))
        calls += step.network_calls
    return found


# ---- the still --------------------------------------------------------------------------------
def _alt(schedule: NoiseSchedule, rows: list[dict[str, Any]], first: int) -> str:
    ends = [f"{schedule.karras_sigma[i]:.3g}" for i in (-1, 0)]
    told = [row["runs"][first].get("told") for row in rows[:4]]
    said = " ".join(text for text in told if text)
    return (
        f"Schedule explorer: {schedule.num_train_steps} training timesteps, karras_sigma from "
        f"{ends[0]} down to {ends[1]}, and the levels of {len(rows)} spacings. {said}".strip()
    )


def _figure(schedule: NoiseSchedule, names: list[str], num_steps: int) -> Any:
    """Our matplotlib figure of the spacings that can make so many steps, else of the schedule."""
    from diffusionlab.plots import plot_schedule, plot_spacings

    drawn = {}
    for name in names:
        try:
            drawn[name] = _levels(schedule, name, num_steps)
        except InputError:
            continue
    return plot_spacings(drawn) if drawn else plot_schedule(schedule)
