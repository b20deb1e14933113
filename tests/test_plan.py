"""Plans and their one interpreter: the invariants, the coroutine, resuming, interleaving."""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types

import numpy as np
import pytest

from diffusionlab.errors import InputError, NumericsError
from diffusionlab.ideal import GaussianWorld
from diffusionlab.plan import (
    PlannedStep,
    Stage,
    Step,
    Term,
    Update,
    check_plan,
    check_update,
    combine,
    denoise,
    denoise_many,
    walk,
)
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import CLEAN, NoiseLevel, NoiseSchedule

SD = NoiseSchedule.scaled_linear()
LEVELS = SD.levels(6, "trailing")
WORLD = GaussianWorld([0.3, -1.0], [0.5, 2.0])
START = np.array([1.0, -0.5])
S, T = LEVELS[2], LEVELS[3]


def draws(seed=0):
    rng = np.random.default_rng(seed)
    return lambda level, next_level: rng.standard_normal(2)


def ends(steps):
    return [step.next_latent for step in steps]


# ---- combine and the invariants -----------------------------------------------------------------
def test_combine_is_the_weighted_sum():
    calls = [types.SimpleNamespace(x0=np.array([k, 1.0]), eps=np.array([1.0, k])) for k in (2, 3)]
    update = Update(0.5, (Term("x0", 1, 2.0), Term("eps", 0, -1.0)), ((1, 10.0),))
    noises = [np.array([100.0, 100.0]), np.array([1.0, 2.0])]
    got = combine(np.array([4.0, 8.0]), update, calls, noises)
    assert np.array_equal(got, [2 + 6 - 1 + 10, 4 + 2 - 2 + 20])


def test_the_identity_update_is_the_latent_itself():
    assert combine(START, Update(), [], []) is START


def test_combine_keeps_torch_float32():
    torch = pytest.importorskip("torch")
    calls = [types.SimpleNamespace(x0=torch.ones(3), eps=torch.zeros(3))]
    got = combine(torch.ones(3), Update(0.5, (Term("x0", 0, 0.25),)), calls, [])
    assert got.dtype == torch.float32 and torch.equal(got, torch.full((3,), 0.75))


def exact_update(eta=0.7):
    c = eta * T.sigma * 0.3
    a = math.sqrt(T.sigma**2 - c * c) / S.sigma
    return Update(a, (Term("x0", 0, T.alpha - a * S.alpha),), ((0, c),))


def test_an_exact_update_passes():
    check_update(exact_update(), S, T)
    check_update(Update(), S, S)
    check_update(Update(0.0, (Term("x0", 3, 1.0),)), S, CLEAN)


@pytest.mark.parametrize(
    "change, invariant",
    [
        (
            lambda u: dataclasses.replace(u, terms=(Term("x0", 0, u.terms[0].weight * 1.00001),)),
            "I1",
        ),
        (lambda u: dataclasses.replace(u, noise=((0, u.noise[0][1] * 1.001),)), "I2"),
        (lambda u: dataclasses.replace(u, noise=()), "I2"),
        (lambda u: dataclasses.replace(u, terms=(*u.terms, Term("eps", 0, 1e-3))), "I2"),
        (lambda u: dataclasses.replace(u, a=math.nan), "I1"),
        (lambda u: dataclasses.replace(u, noise=((0, math.inf),)), "I2"),
    ],
)
def test_a_broken_update_is_named(change, invariant):
    with pytest.raises(NumericsError, match=rf"{invariant} .*timestep {S.timestep:g} to"):
        check_update(change(exact_update()), S, T)


def test_stages_are_checked_too_and_inexact_steps_are_not():
    plan = make_plan("heun", LEVELS, SD)
    check_plan(plan)
    wrong = Stage(T, dataclasses.replace(plan[2].stages[1].update, a=0.9))
    broken = dataclasses.replace(plan[2], stages=(plan[2].stages[0], wrong))
    with pytest.raises(NumericsError):
        check_plan((*plan[:2], broken, *plan[3:]))
    check_plan((dataclasses.replace(broken, exact=False),))


# ---- walk and denoise ---------------------------------------------------------------------------
def test_walk_is_a_coroutine_that_never_calls_the_network():
    plan = make_plan("heun", LEVELS, SD)
    walker, answer, seen = walk(plan, START, None), None, []
    while True:
        try:
            request = walker.send(answer)
        except StopIteration:
            break
        if isinstance(request, Step):
            seen.append("step")
            answer = None
        else:
            point, level = request
            seen.append(level.timestep)
            answer = WORLD.predict(point, level)
    first, second = LEVELS[0].timestep, LEVELS[1].timestep
    assert seen[:4] == [first, second, "step", second]
    assert seen.count("step") == 6 and len(seen) == 6 + 11  # 2n - 1 calls to sigma 0


def test_steps_hold_what_happened():
    plan = make_plan("euler_ancestral", LEVELS, SD)
    steps = list(denoise(plan, START, WORLD.predict, draws()))
    assert [step.index for step in steps] == list(range(6))
    for step, planned in zip(steps, plan, strict=True):
        assert (step.level, step.next_level) == (planned.level, planned.next_level)
        assert (step.stages, step.update) == (planned.stages, planned.update)
        assert len(step.predictions) == step.network_calls == planned.network_calls == 1
        assert len(step.noises) == len(planned.draws) == (planned.next_level.sigma > 0)
        redone = combine(step.latent, step.update, self_calls(steps, step), step.noises)
        assert np.array_equal(redone, step.next_latent)
    assert all(a.next_latent is b.latent for a, b in zip(steps[:-1], steps[1:], strict=True))
    assert steps[0].latent is START


def self_calls(steps, last):
    return [call for step in steps[: last.index + 1] for call in step.predictions]


def test_noise_is_asked_for_the_interval_of_each_draw():
    asked = []

    def noise(level, next_level):
        asked.append((level, next_level))
        return np.zeros(2)

    list(denoise(make_plan("ddpm", LEVELS, SD), START, WORLD.predict, noise))
    assert asked == list(zip(LEVELS[:-2], LEVELS[1:-1], strict=True))


def test_a_plan_holds_no_state_and_runs_interleave():
    plan = make_plan("unipc_2", LEVELS, SD)
    once = ends(denoise(plan, START, WORLD.predict, None))
    pair = [denoise(plan, START, WORLD.predict, None) for _ in range(2)]
    both = [(next(pair[0]).next_latent, next(pair[1]).next_latent) for _ in plan]
    for alone, (one, two) in zip(once, both, strict=True):
        assert np.array_equal(alone, one) and np.array_equal(alone, two)


def test_stopping_is_not_pulling():
    calls = []

    def predict(latent, level):
        calls.append(level)
        return WORLD.predict(latent, level)

    run = denoise(make_plan("ddim", LEVELS, SD), START, predict, None)
    next(run), next(run)
    run.close()
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp_2m", "lms", "unipc_2"])
def test_resuming_equals_one_run(name):
    plan = make_plan(name, LEVELS, SD)
    whole = list(denoise(plan, START, WORLD.predict, None))
    for k in range(len(plan) + 1):
        calls = [call for step in whole[:k] for call in step.predictions]
        latent = whole[k].latent if k < len(plan) else whole[-1].next_latent
        rest = list(denoise(plan, latent, WORLD.predict, None, calls=calls, start=k))
        assert [step.index for step in rest] == list(range(k, len(plan)))
        for one, two in zip(rest, whole[k:], strict=True):
            assert np.array_equal(one.next_latent, two.next_latent)


def test_resuming_needs_the_earlier_predictions_before_any_work():
    plan = make_plan("dpmpp_2m", LEVELS, SD)
    whole = list(denoise(plan, START, WORLD.predict, None))
    calls = [call for step in whole[:3] for call in step.predictions]
    for wrong in ([], calls[:2], calls + calls[:1]):
        with pytest.raises(InputError, match="resuming"):
            denoise(plan, START, WORLD.predict, None, calls=wrong, start=3)
    for start in (-1, 7, 1.0, True, None):
        with pytest.raises(InputError, match="start"):
            walk(plan, START, None, calls=calls, start=start)


def test_a_noisy_plan_needs_noise():
    plan = make_plan("ddpm", LEVELS, SD)
    with pytest.raises(InputError, match="noise"):
        denoise(plan, START, WORLD.predict, None)
    last = list(denoise(plan, START, WORLD.predict, draws()))[-1]
    calls = [last.predictions[0]] * 5
    list(denoise(plan, last.latent, WORLD.predict, None, calls=calls, start=5))  # none is drawn


def test_a_broken_plan_is_refused_before_the_first_call():
    wrong = PlannedStep(S, T, (Stage(S),), Update(0.9))
    with pytest.raises(NumericsError):
        denoise((wrong,), START, lambda *_: pytest.fail("the network was called"), None)


def test_errors_of_the_network_come_through():
    def predict(latent, level):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(denoise(make_plan("ddim", LEVELS, SD), START, predict, None))


# ---- records ------------------------------------------------------------------------------------
def test_step_shows_itself_shortly(monkeypatch):
    step = next(denoise(make_plan("ddim", LEVELS, SD), START, WORLD.predict, None))
    text = repr(step)
    for part in ("Step 0", "999", "832", "karras_sigma", "(2,)", "network_calls 1"):
        assert part in text
    assert len(text) < 200
    fake = types.SimpleNamespace(html_of=lambda record: f"<b>{record.index}</b>")
    monkeypatch.setitem(sys.modules, "diffusionlab.display", fake)
    assert step._repr_html_() == "<b>0</b>"


def test_plans_are_plain_numbers():
    plan = make_plan("lms", LEVELS, SD)
    assert hash(plan) == hash(make_plan("lms", LEVELS, SD))
    for planned in plan:
        weights = [planned.update.a, *(term.weight for term in planned.update.terms)]
        assert all(type(weight) is float for weight in weights)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan[0].exact = False


def test_the_noise_level_of_the_records_is_the_schedules():
    assert inspect.signature(walk).parameters["start"].default == 0
    assert isinstance(make_plan("ddim", LEVELS, SD)[0].level, NoiseLevel)


# ---- several runs at once -----------------------------------------------------------------------
def test_runs_in_lockstep_equal_runs_alone_and_ask_together():
    plans = [make_plan("heun", LEVELS, SD), make_plan("ddpm", SD.levels(4, "leading"), SD)]
    rounds = []

    def predict_many(requests):
        rounds.append(len(requests))
        assert [number for number, *_ in requests] == sorted(number for number, *_ in requests)
        return [WORLD.predict(point, level) for _, point, level in requests]

    found = {0: [], 1: []}
    for number, step in denoise_many(plans, [START, 2 * START], predict_many, [None, draws(3)]):
        found[number].append(step)
    alone = [
        list(denoise(plan, start, WORLD.predict, noise))
        for plan, start, noise in zip(plans, [START, 2 * START], [None, draws(3)], strict=True)
    ]
    for number, steps in enumerate(alone):
        assert np.array_equal(ends(found[number]), ends(steps))
    calls = [sum(planned.network_calls for planned in plan) for plan in plans]
    assert sum(rounds) == sum(calls) and len(rounds) == max(calls)
    assert rounds[0] == 2 and rounds[-1] == 1
    assert not np.array_equal(ends(found[0])[-1], ends(found[1])[-1])
