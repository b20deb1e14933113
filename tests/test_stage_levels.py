"""Stages lie between a plan's levels: their timestep and their pair."""

from __future__ import annotations

import math

import pytest
from worlds import SD

from diffusionlab import samplers
from diffusionlab.errors import InputError
from diffusionlab.plan import check_plan
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import NoiseLevel


@pytest.mark.parametrize("name", ["dpm2", "dpmpp_2s", "dpm3", "dpmpp_sde", "dpm2_ancestral"])
def test_a_stage_is_told_the_timestep_of_its_karras_sigma(name):
    levels = SD.levels(7, "trailing")
    stages = [stage.level for step in make_plan(name, levels, SD) for stage in step.stages[1:]]
    assert len(stages) >= 6
    for level in stages:
        expected = SD.level_at(karras_sigma=level.karras_sigma)
        assert level.timestep == pytest.approx(expected.timestep, abs=1e-9)
        assert level.alpha == pytest.approx(expected.alpha, rel=1e-12)


def test_without_a_schedule_the_timestep_is_interpolated_between_the_two_ends():
    s, t = SD.level_at(timestep=700), SD.level_at(timestep=500)
    told = make_plan("dpm2", (s, t), None)[0].stages[1].level
    assert told.timestep == pytest.approx(600.0)  # the middle in ln karras_sigma
    assert told.karras_sigma == pytest.approx(math.sqrt(s.karras_sigma * t.karras_sigma))
    s, t = NoiseLevel(800.0, 0.2, 0.8), NoiseLevel(300.0, 0.7, 0.3)  # flow: timestep 1000·sigma
    told = make_plan("dpm2", (s, t), None)[0].stages[1].level
    assert told.timestep == pytest.approx(1000 * told.sigma)
    assert told.alpha + told.sigma == pytest.approx(1.0, rel=1e-15)
    far = make_plan("tcd", (NoiseLevel(999.0, 0.0, 1.0), t, NoiseLevel(-1, 1.0, 0.0)), None)
    assert far[0].update.noise[0][1] > 0


def test_a_pair_of_no_known_kind_keeps_its_own_shape():
    s, t = NoiseLevel(800.0, 0.5, 2.0), NoiseLevel(300.0, 2.0, 0.5)
    plan = make_plan("dpm3", (s, t), None)
    check_plan(plan)
    assert plan[0].stages[1].level.alpha == pytest.approx(0.5 * 4 ** (1 / 3))


def test_churn_starts_above_the_step_and_never_asks_beyond_the_schedule():
    levels = SD.levels(10, "trailing")
    plan = make_plan(samplers.heun_churn(s_churn=5.0), levels, SD)
    for step in plan[:-1]:
        up = step.stages[0].level
        assert up.karras_sigma == pytest.approx(1.4142135623730951 * step.level.karras_sigma)
        assert up.timestep <= 999
    assert plan[-1].stages[0].level == plan[-1].level  # to sigma 0: no churn
    mild = make_plan(samplers.heun_churn(s_churn=1.0), levels, SD)
    assert mild[3].stages[0].level.karras_sigma == pytest.approx(1.1 * levels[3].karras_sigma)


def test_tcd_asks_for_a_level_below_the_table_of_another_schedule():
    t = NoiseLevel(400.0, *[getattr(SD.level_at(timestep=200), k) for k in ("alpha", "sigma")])
    with pytest.raises(InputError, match="levels of that schedule"):
        make_plan(samplers.tcd(gamma=0.1), (SD.level_at(timestep=900), t), SD)
