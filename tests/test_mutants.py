"""Planted mistakes in sampler rules: every one must be caught, and by the check that is named.

Five checks: the invariants of a plan ("invariants"), the timestep of every call ("told"), the order
on three grids in two exact worlds ("order"), the weak order by exact probing ("weak"), and the
pinned runs of another implementation ("pinned"). Orders cannot see everything: an inverted ρ in 2M
keeps order 2 on all three grids. The unchanged rule passes each check that its mutant fails.
"""

from __future__ import annotations

import math

import pytest
from mutants import MUTANTS, rho_inverted
from pinned import CASES, levels_of, pinned_error, plan_of
from worlds import GRIDS, SD, levels_on, rough, slopes, uniform, weak_errors

from diffusionlab.errors import NumericsError
from diffusionlab.plan import check_plan
from diffusionlab.samplers import make_plan


# ---- the checks ---------------------------------------------------------------------------------
def by_invariants(mutant, change):
    try:
        check_plan(change(make_plan(mutant.sampler, levels_on(rough, 9), SD)))
    except NumericsError as error:
        return [str(error)]
    return []


def by_order(mutant, change):
    def rule(levels):
        return change(make_plan(mutant.sampler, levels, SD))

    found = [slope for grid in GRIDS.values() for slope in slopes(rule, grid, (64, 128))]
    return [slope for slope in found if not mutant.window[0] <= slope <= mutant.window[1]]


def by_weak(mutant, change):
    errors = [weak_errors(change(make_plan(mutant.sampler, levels_on(uniform, n), SD)))[1]
              for n in (64, 128)]  # fmt: skip
    slope = math.log2(errors[0] / errors[1])
    return [] if mutant.window[0] <= slope <= mutant.window[1] else [slope]


def by_pinned(mutant, change):
    case = CASES[mutant.case]
    off = pinned_error(change(plan_of(case)), case)
    return [off] if off > 1e-10 else []


def by_told(mutant, change):
    """Calls whose timestep is not the schedule's for their karras_sigma."""
    plan = change(make_plan(mutant.sampler, levels_on(rough, 9), SD))
    asked = [stage.level for step in plan for stage in step.stages]
    return [level for level in asked if not math.isclose(
        level.timestep, SD.level_at(karras_sigma=level.karras_sigma).timestep, abs_tol=1e-6
    )]  # fmt: skip


CHECKS = {
    "told": by_told,
    "invariants": by_invariants,
    "order": by_order,
    "weak": by_weak,
    "pinned": by_pinned,
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_every_mutant_is_caught_and_its_rule_passes(name):
    mutant = MUTANTS[name]
    assert CHECKS[mutant.caught_by](mutant, mutant.change)
    assert not CHECKS[mutant.caught_by](mutant, lambda plan: plan)


def test_an_inverted_rho_keeps_its_order_so_only_pinned_numbers_catch_it():
    mutant = MUTANTS["2M, rho inverted"]
    assert not by_invariants(mutant, rho_inverted) and not by_order(mutant, rho_inverted)
    case = CASES[mutant.case]
    assert pinned_error(rho_inverted(plan_of(case)), case) > 1e-5


def test_there_are_ten_mutants_and_every_check_is_needed():
    assert len(MUTANTS) >= 10
    assert {mutant.caught_by for mutant in MUTANTS.values()} == set(CHECKS)


# ---- the pinned runs themselves -----------------------------------------------------------------
@pytest.mark.parametrize("name", list(CASES))
def test_pinned_runs(name):
    """Same levels at every call, same end, to the rounding of float64."""
    case = CASES[name]
    assert len(levels_of(case)) == case["num_steps"] + 1
    assert pinned_error(plan_of(case), case) < 1e-12
