"""Plans: every sampler is a few numbers per step, and `walk` is the one interpreter of them.

paper ↔ name: a step goes from level s to level t; `x` is the latent at s, x0_k and eps_k are
readings of the k-th network call of the run, z_j is the j-th Gaussian draw of the step:

    x_next = a·x + Σ weight·x0_k + Σ weight·eps_k + Σ weight·z_j

The numbers depend on levels and position only, never on a tensor, so a plan is known before the
first network call. The arrays may be float64 NumPy (order tests) or torch (runs). A *prediction* is
anything with `.x0` and `.eps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from diffusionlab.errors import InputError, NumericsError, shown
from diffusionlab.schedule import NoiseLevel


@dataclass(frozen=True)
class Term:
    """One earlier reading with its weight; `call` counts the network calls of the run from 0."""

    reading: Literal["x0", "eps"]
    call: int
    weight: float


@dataclass(frozen=True)
class Update:
    """x_next = a·x + Σ weight·reading + Σ weight·draw; `noise` holds (draw of the step, weight)."""

    a: float = 1.0
    terms: tuple[Term, ...] = ()
    noise: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Stage:
    """One network call of a step: at `level`, at the point that `update` makes of the latent."""

    level: NoiseLevel
    update: Update = Update()


@dataclass(frozen=True)
class PlannedStep:
    """One step from `level` to `next_level`, before any number of the network is known.

    `stages` lists every network call; the ordinary one, at the step's own latent, has the identity
    update. `draws` are disjoint level intervals in time order, one Gaussian each. `exact=False`
    marks the few rules that break the two invariants of `check_update` on purpose.
    """

    level: NoiseLevel
    next_level: NoiseLevel
    stages: tuple[Stage, ...]
    update: Update
    draws: tuple[tuple[NoiseLevel, NoiseLevel], ...] = ()
    exact: bool = True

    @property
    def network_calls(self) -> int:
        return len(self.stages)

    def _repr_html_(self) -> str:
        from diffusionlab.display import html_of

        return html_of(self)


Plan = tuple[PlannedStep, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """One finished step: where it started, what the network said, what was drawn, where it ended.

    `predictions[j]` belongs to `stages[j]`; the arrays are those of the run (torch when live, NumPy
    when recorded), without a batch axis.
    """

    index: int
    level: NoiseLevel
    next_level: NoiseLevel
    latent: Any
    predictions: tuple[Any, ...]
    stages: tuple[Stage, ...]
    update: Update
    noises: tuple[Any, ...]
    next_latent: Any

    @property
    def network_calls(self) -> int:
        return len(self.stages)

    def __repr__(self) -> str:
        shape = tuple(self.next_latent.shape)
        low, high = float(self.next_latent.min()), float(self.next_latent.max())
        return (
            f"Step {self.index}: timestep {self.level.timestep:g} → {self.next_level.timestep:g}, "
            f"karras_sigma {self.level.karras_sigma:.4g} → {self.next_level.karras_sigma:.4g}, "
            f"next_latent {shape} in [{low:.3g}, {high:.3g}], network_calls {self.network_calls}"
        )

    def _repr_html_(self) -> str:
        from diffusionlab.display import html_of

        return html_of(self)


def combine(latent: Any, update: Update, predictions: Sequence[Any], noises: Sequence[Any]) -> Any:
    """The latent that `update` makes; arrays of one shape, NumPy or torch.

    `predictions` are those of all network calls of the run so far, `noises` the step's draws.
    """
    total = latent if update.a == 1.0 else update.a * latent
    for term in update.terms:
        total = total + term.weight * getattr(predictions[term.call], term.reading)
    for draw, weight in update.noise:
        total = total + weight * noises[draw]
    return total


def check_update(
    update: Update, source_level: NoiseLevel, target_level: NoiseLevel, tolerance: float = 1e-9
) -> None:
    """Raise NumericsError unless the update keeps signal and noise, for any (alpha, sigma) pair.

    Put x = alpha_s·x0 + sigma_s·eps with every reading agreeing:
    I1: a·alpha_s + Σ x0 weights = alpha_t (a point mass is hit exactly);
    I2: (a·sigma_s + Σ eps weights)² + Σ noise weights² = sigma_t² (noise taken out is put back).
    `tolerance` is relative to the size of the terms and of the pairs.
    """
    x0_weights = [term.weight for term in update.terms if term.reading == "x0"]
    eps_weights = [term.weight for term in update.terms if term.reading == "eps"]
    signal = [update.a * source_level.alpha, *x0_weights]
    kept = [update.a * source_level.sigma, *eps_weights]
    drawn = [weight for _, weight in update.noise]
    noise = math.hypot(sum(kept), *drawn)
    for name, got, wanted, sizes in (
        ("I1 (signal)", sum(signal), target_level.alpha, [source_level.alpha, *signal]),
        ("I2 (noise)", noise, target_level.sigma, [source_level.sigma, *kept, *drawn]),
    ):
        allowed = tolerance * (wanted + sum(map(abs, sizes)))
        if not abs(got - wanted) <= allowed < math.inf:  # written so that NaN and infinity fail
            raise NumericsError(
                f"invariant {name} of the step from timestep {source_level.timestep:g} to "
                f"{target_level.timestep:g} is broken: {got!r} instead of {wanted!r}; "
                "the sampler's coefficients are wrong (exact=False marks a rule that means it)"
            )


def check_plan(plan: Plan) -> None:
    """Raise NumericsError unless every exact step of the plan, stages included, keeps I1 and I2."""
    for planned in plan:
        if planned.exact:
            for stage in planned.stages:
                check_update(stage.update, planned.level, stage.level)
            check_update(planned.update, planned.level, planned.next_level)


_step: ContextVar[int | None] = ContextVar("step", default=None)


def current_step() -> int | None:
    """The step whose network call is being computed, in this thread; None between calls.

    Also None while several runs share a call, which belong to different steps.
    """
    return _step.get()


def walk(
    plan: Plan,
    latent: Any,
    noise: Callable[[NoiseLevel, NoiseLevel], Any] | None,
    calls: Sequence[Any] = (),
    start: int = 0,
) -> Generator[Any, Any, None]:
    """Run a plan as a coroutine that never calls the network itself.

    It yields `(point, level)` for every network call and is sent the prediction; after each step it
    yields a `Step` and is sent None. `noise(level, next_level)` is asked once per draw. To resume
    at step `start`, pass the latent there and `calls=`, the predictions of all earlier network
    calls. The plan holds no state. Raises InputError and NumericsError before the first call.
    """
    _check_start(plan, len(calls), start)
    if noise is None and any(planned.draws for planned in plan[start:]):
        raise InputError("noise None was given, but this plan draws noise; pass Sequential(seed)")
    check_plan(plan[start:])
    return _walk(plan, latent, noise, list(calls), start)


def _walk(plan: Plan, latent: Any, noise: Any, calls: list[Any], start: int) -> Generator:
    oldest = _oldest_calls(plan)
    for index, planned in enumerate(plan[start:], start):
        first = len(calls)
        noises = tuple(noise(*draw) for draw in planned.draws)
        for stage in planned.stages:
            prediction = yield combine(latent, stage.update, calls, noises), stage.level
            calls.append(prediction)
        next_latent = combine(latent, planned.update, calls, noises)
        yield Step(
            index=index,
            level=planned.level,
            next_level=planned.next_level,
            latent=latent,
            predictions=tuple(calls[first:]),
            stages=planned.stages,
            update=planned.update,
            noises=noises,
            next_latent=next_latent,
        )
        latent = next_latent
        calls[: oldest[index + 1]] = [None] * min(oldest[index + 1], len(calls))  # not asked again


def _oldest_calls(plan: Plan) -> list[int]:
    """For each step, and the end: the earliest network call that it or a later one refers to."""
    total = sum(planned.network_calls for planned in plan)
    oldest = [total]
    for planned in reversed(plan):
        updates = [stage.update for stage in planned.stages] + [planned.update]
        oldest.append(min([oldest[-1], *(t.call for u in updates for t in u.terms)]))
    return oldest[::-1]


def denoise(
    plan: Plan,
    latent: Any,
    predict: Callable[[Any, NoiseLevel], Any],
    noise: Callable[[NoiseLevel, NoiseLevel], Any] | None,
    calls: Sequence[Any] = (),
    start: int = 0,
) -> Generator[Step, None, None]:
    """Walk a plan with `predict(latent, level)` and yield its Steps; stop = stop pulling.

    Arguments and errors as `walk`.
    """
    return _drive(walk(plan, latent, noise, calls, start), predict, start)


def _drive(walker: Generator, predict: Callable, index: int) -> Generator:
    request = next(walker, None)
    while request is not None:
        if isinstance(request, Step):
            yield request
            index = request.index + 1
            request = next(walker, None)
        else:
            token = _step.set(index)
            try:
                prediction = predict(*request)
            finally:
                _step.reset(token)
            request = walker.send(prediction)


def denoise_many(
    plans: Sequence[Plan],
    latents: Sequence[Any],
    predict_many: Callable[[list[tuple[int, Any, NoiseLevel]]], Sequence[Any]],
    noises: Sequence[Callable[[NoiseLevel, NoiseLevel], Any] | None],
) -> Generator[tuple[int, Step], None, None]:
    """Walk several plans in lockstep and yield (number of the run, its Step).

    In each round all runs that wait for the network ask together: `predict_many` is handed their
    `(number of the run, point, level)` and returns one prediction for each. Runs may differ in
    length.
    """
    walkers = [walk(*run) for run in zip(plans, latents, noises, strict=True)]
    requests = {i: next(walker, None) for i, walker in enumerate(walkers)}
    while requests:
        for i, request in list(requests.items()):
            while isinstance(request, Step):
                yield i, request
                request = next(walkers[i], None)
            requests[i] = request
        requests = {i: request for i, request in requests.items() if request is not None}
        asked = [(i, *request) for i, request in requests.items()]
        answers = predict_many(asked) if asked else ()
        for i, answer in zip(requests, answers, strict=True):
            requests[i] = walkers[i].send(answer)


def _check_start(plan: Plan, num_calls: int, start: int) -> None:
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= len(plan):
        raise InputError(f"start {shown(start)} is not a step of this plan; use 0 to {len(plan)}")
    needed = sum(planned.network_calls for planned in plan[:start])
    if num_calls != needed:
        raise InputError(
            f"calls holds {num_calls} predictions, but steps 0 to {start} of this plan make "
            f"{needed} network calls: resuming needs exactly those (record='predictions'); "
            "a fresh plan from levels[start:] needs none"
        )
