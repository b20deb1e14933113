"""Samplers' options and levels: factories, defaults, and errors that help."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from worlds import EQUAL_STEPS, SD, SMOOTH, levels_on, rough, uniform

from diffusionlab import samplers
from diffusionlab.errors import InputError
from diffusionlab.samplers import SAMPLERS, Sampler, as_sampler, make_plan
from diffusionlab.schedule import FINALS, NoiseLevel

EQUAL_SPACINGS = ("leading", "trailing", "linspace")


# ---- options ------------------------------------------------------------------------------------
def test_lower_order_final_is_an_option():
    short, long = levels_on(uniform, 10), levels_on(uniform, 20)
    lowered = [rule for rule in SAMPLERS.values() if "lower_order_final" in rule.options]
    assert len(lowered) >= 9
    for rule in lowered:
        if rule.name == "unipc_1":  # nothing to lower
            continue
        for levels, default in ((short, True), (long, False)):
            plans = {
                choice: make_plan(rule(lower_order_final=choice), levels, None)
                for choice in (None, True, False)
            }
            assert plans[None] == plans[default] != plans[not default]
            assert plans[True][:-2] == plans[False][:-2]


# ---- names, options, errors ---------------------------------------------------------------------
def test_factories_make_samplers():
    from diffusionlab.samplers import ddim, dpmpp_2m

    assert ddim(eta=0.5) == Sampler("ddim", {"eta": 0.5}) and repr(ddim(eta=0.5)) == "ddim(eta=0.5)"
    assert as_sampler("ddim") == as_sampler(ddim) == as_sampler(Sampler("ddim")) == ddim()
    assert json.loads(json.dumps(dataclasses.asdict(dpmpp_2m()))) == {
        "name": "dpmpp_2m", "options": {"solver_type": "midpoint", "lower_order_final": None}
    }  # fmt: skip
    with pytest.raises(AttributeError, match="nonsense"):
        samplers.nonsense  # noqa: B018


@pytest.mark.parametrize("wrong", [None, 3, b"ddim", ["ddim"], {"name": "ddim"}, "", "x" * 10_000])
def test_what_is_no_sampler(wrong):
    with pytest.raises(InputError, match="ddim") as error:
        as_sampler(wrong)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("ddim", {"eta": -0.1}, "0 <= eta <= 1"),
        ("ddim", {"eta": 5}, "0 <= eta <= 1"),
        ("ddim", {"eta": math.nan}, "0 <= eta <= 1"),
        ("ddim", {"eta": True}, "0 <= eta <= 1"),
        ("ddim", {"eta": "1"}, "0 <= eta <= 1"),
        ("euler_ancestral", {"eta": 1.5}, "0 <= eta <= 1"),
        ("lms", {"order": 0}, "one of 1, 2, 3, 4"),
        ("lms", {"order": 5}, "one of 1, 2, 3, 4"),
        ("lms", {"order": 2.0}, "one of 1, 2, 3, 4"),
        ("lms", {"order": True}, "one of 1, 2, 3, 4"),
        ("unipc_2", {"solver_type": "bh3"}, "'bh1', 'bh2'"),
        ("dpmpp_2m", {"lower_order_final": 1}, "None, True, False"),
        ("dpmpp_sde", {"eta": 5}, "0 <= eta <= 1"),
        ("dpmpp_2m_sde", {"eta": -1}, "0 <= eta <= 1"),
        ("dpmpp_2m_sde", {"solver_type": "bh1"}, "'midpoint', 'heun'"),
        ("deis", {"order": 4}, "one of 1, 2, 3"),
        ("tcd", {"gamma": 1.01}, "0 <= gamma <= 1"),
        ("heun_churn", {"s_churn": -1}, "0 <= s_churn <= 1000"),
        ("heun_churn", {"s_churn": math.inf}, "0 <= s_churn <= 1000"),
        ("ddim", {"etta": 0.5}, "did you mean 'eta'"),
        ("ddpm", {"eta": 0.5}, "its options are: none"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(InputError) as error:
        SAMPLERS[name](**options)
    assert words in str(error.value)
    with pytest.raises(InputError):
        make_plan(Sampler(name, options), SD.levels(3), SD)


def test_bad_levels():
    s, t = SD.level_at(timestep=500), SD.level_at(timestep=20)
    for wrong in ((), (s,), (t, s), (s, s), (s, t, t), (s, NoiseLevel(3, math.nan, 0.5))):
        with pytest.raises(InputError, match="levels"):
            make_plan("ddim", wrong, SD)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].min_steps > 1])
def test_too_few_steps(name):
    needed = SAMPLERS[name].min_steps
    make_plan(name, SD.levels(needed, "trailing"), SD)
    with pytest.raises(InputError, match=f"at least {needed} steps.*make {needed - 1}"):
        make_plan(name, SD.levels(needed - 1, "trailing"), SD)


@pytest.mark.parametrize("name", EQUAL_STEPS)
def test_unequal_steps_in_the_timestep_are_refused_with_lms(name):
    accepted = [SD.levels(n, spacing, final) for n in (6, 48, 61, 999) for final in FINALS
                for spacing in EQUAL_SPACINGS]  # fmt: skip
    accepted += [SMOOTH.levels(9), SD.levels(20, "trailing")[5:]]
    for levels in accepted:
        make_plan(name, levels, SD)
    times = (999, 700, 600, 400, 200, 0)
    untimed = tuple(dataclasses.replace(level, timestep=0.0) for level in levels_on(uniform, 8))
    for wrong in (
        levels_on(rough, 9),
        levels_on(uniform, 9),
        untimed,
        tuple(SD.level_at(timestep=t) for t in times),
    ):
        with pytest.raises(InputError, match="equal steps in the timestep.*'lms'"):
            make_plan(name, wrong, SD)
