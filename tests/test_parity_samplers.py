"""Plans step for step against diffusers' scheduler classes, in pipeline order.

The network is a fixed non-linear function of (latent, timestep), told as eps, v or velocity. Both
sides call it at the same levels; its inputs are compared at every call, and the ends. The pairs and
the reasons for what is missing are in parity_pairs.py; docs/parity.md shows the errors.
"""

from __future__ import annotations

import dataclasses
import math

import pytest

from diffusionlab import samplers
from diffusionlab.plan import Term
from diffusionlab.samplers import SAMPLERS, make_plan
from diffusionlab.schedule import NoiseSchedule

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

from parity_pairs import (  # noqa: E402
    COUNTS,
    LISTS,
    PAIRS,
    PLAIN,
    WITHOUT_CLASS,
    own_levels,
    parity,
    toyland_network,
)
from parity_samplers import (  # noqa: E402
    SCHEDULE,
    TOLERANCE,
    distance,
    in_float64,
    largest,
    levels_of,
    made,
    ours,
    same_list,
    theirs,
)

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = [(pair, spacing) for pair in PAIRS for spacing in pair.spacings]


def compared(pair):
    return [kind for kind in pair.kinds if kind not in pair.holes]


def test_every_sampler_has_a_class_or_a_reason():
    paired = {pair.sampler.name for pair in PAIRS}
    assert paired | set(WITHOUT_CLASS) == set(SAMPLERS)
    assert not paired & set(WITHOUT_CLASS)


@pytest.mark.parametrize("pair, spacing", CASES, ids=lambda value: str(value))
def test_parity(pair, spacing):
    """At 4, 10, 20 and 50 steps with every kind of network; kinds alternate to save time."""
    if spacing in pair.holes:
        pytest.skip(pair.holes[spacing])
    kinds = compared(pair)
    for i, num_steps in enumerate(COUNTS):
        error, _ = parity(pair, kinds[i % len(kinds)], spacing, num_steps)
        assert error < TOLERANCE, num_steps


@pytest.mark.slow
@pytest.mark.parametrize("pair, spacing", CASES, ids=lambda value: str(value))
def test_parity_with_every_kind_at_every_count(pair, spacing):
    for kind in compared(pair) if spacing not in pair.holes else ():
        for num_steps in COUNTS:
            assert parity(pair, kind, spacing, num_steps)[0] < TOLERANCE, (kind, num_steps)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_parity_with_the_class_as_shipped(pair):
    """Their float32 and all, at 20 steps of the first list."""
    spacing = "trailing" if "trailing" in pair.spacings else pair.spacings[0]
    error, _ = parity(pair, compared(pair)[-1], spacing, 20, wide=False)
    assert error < TOLERANCE


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.holes], ids=str)
def test_every_hole_is_one(pair):
    if (
        pair.scheduler == "PNDMScheduler"
    ):  # its last step of linspace goes nowhere: to the clean end
        pair = dataclasses.replace(pair, options={**pair.options, "set_alpha_to_one": True})
    for place in pair.holes:
        kind, spacing = (place, "trailing") if place in pair.kinds else ("eps", place)
        try:
            error, _ = parity(pair, kind, spacing, 10)
        except AssertionError as asked_elsewhere:  # pndm: not even the same timesteps
            assert "938" in str(asked_elsewhere)
        else:
            assert error > 1e-3, place


@pytest.mark.slow
def test_parity_on_toyland_at_10_steps():
    network, shape = toyland_network()
    for pair in PAIRS:
        if "v" in compared(pair):
            spacing = "trailing" if "trailing" in pair.spacings else pair.spacings[0]
            assert parity(pair, "v", spacing, 10, network, shape)[0] < TOLERANCE, pair


# ---- our own lists ------------------------------------------------------------------------------
ONE_LIST = ("EulerDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete", "DDPM")


@pytest.mark.parametrize("num_steps", [4, 20, 50])
@pytest.mark.parametrize("name", [*ONE_LIST, "DPMSolverMultistep", "DDIM"])
def test_our_list_of_a_name_is_theirs(name, num_steps):
    spacings = {"DPMSolverMultistep": ("trailing",), "DDIM": PLAIN[:2], "DDPM": PLAIN[:2]}
    for spacing in spacings.get(name, PLAIN + (LISTS if name in ONE_LIST[:1] else ())):
        scheduler = made(name + "Scheduler", "eps", spacing, num_steps)
        levels = levels_of(scheduler)
        assert same_list(own_levels(scheduler, spacing, num_steps), levels), spacing
        assert not same_list(own_levels(scheduler, spacing, num_steps - 1), levels)


def schedule_of(kind, spacing, offset=0, final="clean"):
    return NoiseSchedule.scaled_linear(
        prediction_type=kind, spacing=spacing, steps_offset=offset, final=final
    )


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_steps", [1, 5, 20])
@pytest.mark.parametrize("spacing, offset", [("leading", 1), ("leading", 0), ("trailing", 0)])
def test_ddim_at_our_own_levels(eta, num_steps, spacing, offset):
    for kind, final in (("eps", "clean"), ("v", "first")):
        scheduler = made("DDIMScheduler", kind, spacing, num_steps, steps_offset=offset,
                         clip_sample=False, set_alpha_to_one=final == "clean")  # fmt: skip
        levels = schedule_of(kind, spacing, offset, final).levels(num_steps)
        plan = make_plan(samplers.ddim(eta=eta), levels, None) if len(levels) > 1 else ()
        if len(plan) < num_steps or (eta and final == "first"):
            continue  # a last step that goes nowhere; theirs adds noise to it
        assert largest(plan, scheduler, kind, eta=eta) < TOLERANCE


@pytest.mark.parametrize("eta", [0.0, 0.5])  # at 1 theirs takes the root of a float32 rounding
def test_ddim_from_zero_terminal_snr(eta):
    scheduler = made("DDIMScheduler", "v", "trailing", 10, clip_sample=False,
                     rescale_betas_zero_snr=True)  # fmt: skip
    levels = NoiseSchedule.from_config(dict(scheduler.config)).levels(10)
    assert levels[0].alpha == 0.0
    plan = make_plan(samplers.ddim(eta=eta), levels, None)
    assert largest(plan, scheduler, "v", eta=eta) < TOLERANCE


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep"])
def test_both_ends_of_the_multistep_classes(name, final):
    sampler = {"DPMSolverMultistep": "dpmpp_2m", "UniPCMultistep": "unipc_2"}[name]
    options = {"lower_order_final": True} if name == "UniPCMultistep" else {}
    for num_steps in (2, 5, 20):
        scheduler = made(name + "Scheduler", "v", "trailing", num_steps, final_sigmas_type=final)
        plan = make_plan(getattr(samplers, sampler)(**options), levels_of(scheduler), None)
        assert (plan[-1].next_level.sigma == 0.0) == (final == "zero")
        assert largest(plan, scheduler, "v") < TOLERANCE


# ---- what orders cannot see, and that the check can fail ---------------------------------------
def test_2m_with_rho_inverted_keeps_its_order_but_not_parity():
    scheduler = made("DPMSolverMultistepScheduler", "eps", "trailing", 20)
    levels = levels_of(scheduler)

    def inverted(i, step):
        if len(step.update.terms) == 1:
            return step
        logs = [math.log(level.karras_sigma) for level in levels[i - 1 : i + 2]]
        rho = (logs[0] - logs[1]) / (logs[1] - logs[2])
        newest, older = step.update.terms
        extra = -older.weight * rho * rho
        terms = (
            Term("x0", newest.call, newest.weight + older.weight + extra),
            Term("x0", older.call, -extra),
        )
        return dataclasses.replace(step, update=dataclasses.replace(step.update, terms=terms))

    plan = make_plan("dpmpp_2m", levels, None)
    wrong = tuple(inverted(i, step) for i, step in enumerate(plan))
    assert largest(wrong, scheduler, "eps") > 1e-3


def test_parity_sees_another_sampler_another_option_and_another_noise():
    expected, end, _ = theirs(made("EulerDiscreteScheduler", "eps", "trailing", 20), "eps")
    levels = SCHEDULE.levels(20, "trailing")
    _, other = ours(make_plan("dpmpp_2m", levels, None), expected[0][0], "eps", [])
    assert distance(other, end) > 1e-2
    scheduler = made("LMSDiscreteScheduler", "eps", "trailing", 20)
    plan = make_plan(samplers.lms(order=3), levels_of(scheduler), None)
    assert largest(plan, in_float64(scheduler), "eps", order=4) > 1e-4
    scheduler = made("DDPMScheduler", "eps", "trailing", 20, clip_sample=False)
    expected, end, draws = theirs(scheduler, "eps")
    plan = make_plan("ddpm", levels_of(scheduler), None)
    _, other = ours(plan, expected[0][0], "eps", draws[::-1])
    assert distance(other, end) > 1e-2
    moved = [dataclasses.replace(k, timestep=k.timestep + 0.1) for k in levels_of(scheduler)]
    with pytest.raises(AssertionError):  # the network is told another timestep
        largest(make_plan("ddpm", tuple(moved), None), scheduler, "eps")
