"""Plans step for step against diffusers' scheduler classes, in pipeline order.

The network is a fixed non-linear function of (latent, timestep). Both sides call it; its inputs are
compared at every call, and the ends. diffusers computes its coefficients in float32, so the
tolerance is 1e-4 of the largest value. Where a class has its own list of timesteps ("leading" and
"linspace" of the multistep classes; fractional ones between table entries), its list is fed in.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from diffusionlab import samplers
from diffusionlab.ideal import IdealPrediction
from diffusionlab.plan import Term, denoise
from diffusionlab.samplers import Sampler, make_plan
from diffusionlab.schedule import CLEAN, NoiseLevel, NoiseSchedule, to_eps, to_x0

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KINDS = {"eps": "epsilon", "v": "v_prediction"}
SHAPE = (4, 6, 6)
MIXING = torch.from_numpy(np.linspace(-1, 1, 16).reshape(4, 4)).sin()
ALPHA = NoiseSchedule.scaled_linear().alpha


def network(latent, timestep, kind):
    """Float64: an x0 that bends with the latent and the timestep, told as eps or v."""
    alpha = float(np.interp(float(timestep), np.arange(1000), ALPHA))
    sigma = math.sqrt(1.0 - alpha * alpha)
    mixed = torch.einsum("ij,jhw->ihw", MIXING, latent.double())
    x0 = torch.tanh(0.8 * mixed + 0.4 * latent.double().roll(1, -1) + timestep / 700.0)
    eps = (latent.double() - alpha * x0) / sigma
    return eps if kind == "eps" else alpha * eps - sigma * x0


def theirs(scheduler, kind, seed, **options):
    """Every input of the network, with its timestep, in native coordinates; then the end."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn((1, *SHAPE), generator=generator)
    latent, seen = draw * scheduler.init_noise_sigma, []
    for timestep in scheduler.timesteps:
        given = scheduler.scale_model_input(latent, timestep)
        seen.append((float(timestep), given[0].double()))
        output = network(given[0], float(timestep), kind).float()[None]
        latent = scheduler.step(output, timestep, latent, **options, **(
            {"generator": generator} if takes_generator(scheduler) else {}
        )).prev_sample  # fmt: skip
    return seen, latent[0].double()


def takes_generator(scheduler):
    name = type(scheduler).__name__
    return name in ("DDIMScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler")


def ours(plan, start, kind, seed):
    """The same for a plan; noise comes from the same generator after the same first draw."""
    generator, seen = torch.Generator().manual_seed(seed), []
    torch.randn((1, *SHAPE), generator=generator)

    def predict(latent, level):
        seen.append((level.timestep, latent))
        output = network(latent, level.timestep, kind)
        x0, eps = (to(output, latent, level, kind) for to in (to_x0, to_eps))
        return IdealPrediction(level, latent, x0, eps)

    def noise(level, next_level):
        return torch.randn((1, *SHAPE), generator=generator)[0].double()

    for step in denoise(plan, start, predict, noise):
        end = step.next_latent
    return seen, end


def distance(left, right):
    return float((left - right).abs().max() / right.abs().max())


def worst(plan, scheduler, kind, seed=3, **options):
    expected, expected_end = theirs(scheduler, kind, seed, **options)
    seen, end = ours(plan, expected[0][1], kind, seed)
    assert len(seen) == len(expected)
    assert [t for t, _ in seen] == pytest.approx([t for t, _ in expected], rel=1e-5, abs=1e-3)
    gaps = [distance(a, b) for (_, a), (_, b) in zip(seen, expected, strict=True)]
    return max([*gaps, distance(end, expected_end)])


def made(name, kind, spacing, num_steps, offset=0, **options):
    scheduler = getattr(diffusers, name)(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        timestep_spacing=spacing, steps_offset=offset, prediction_type=KINDS[kind], **options,
    )  # fmt: skip
    scheduler.set_timesteps(num_steps)
    return scheduler


def schedule_of(kind, spacing, offset=0, final="clean"):
    return NoiseSchedule.scaled_linear(
        prediction_type=kind, spacing=spacing, steps_offset=offset, final=final
    )


def levels_of(scheduler):
    """The list of a class that is defined by its karras_sigmas (Heun repeats each)."""
    sigmas, times = scheduler.sigmas.double().tolist(), scheduler.timesteps.tolist()
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):
        sigmas, times = [sigmas[0], *sigmas[1::2]], [times[0], *times[1::2]]
    return tuple(at(s, t) for t, s in zip([*times, 0.0], sigmas, strict=True))


def at(karras_sigma, timestep):
    root = math.hypot(1.0, karras_sigma)
    return NoiseLevel(float(timestep), 1 / root, karras_sigma / root) if karras_sigma else CLEAN


def same_list(levels, others):
    return len(levels) == len(others) and all(
        abs(a.timestep - b.timestep) < 1e-3 and math.isclose(a.sigma, b.sigma, rel_tol=1e-4)
        for a, b in zip(levels, others, strict=True)
    )


# ---- classes in native coordinates: our own lists --------------------------------------------
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("num_steps", [1, 5, 20, 50])
@pytest.mark.parametrize("spacing, offset", [("leading", 1), ("leading", 0), ("trailing", 0)])
def test_ddim(kind, eta, num_steps, spacing, offset):
    for final in ("clean", "first"):
        scheduler = made("DDIMScheduler", kind, spacing, num_steps, offset,
                         clip_sample=False, set_alpha_to_one=final == "clean")  # fmt: skip
        levels = schedule_of(kind, spacing, offset, final).levels(num_steps)
        plan = make_plan(samplers.ddim(eta=eta), levels, None) if len(levels) > 1 else ()
        if len(plan) < num_steps or (eta and final == "first"):
            continue  # a last step that goes nowhere; theirs adds noise to it
        assert worst(plan, scheduler, kind, eta=eta) < 1e-4


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("num_steps", [5, 20, 100])
@pytest.mark.parametrize("spacing, offset", [("leading", 0), ("leading", 1), ("trailing", 0)])
def test_ddpm(kind, num_steps, spacing, offset):
    scheduler = made("DDPMScheduler", kind, spacing, num_steps, offset, clip_sample=False)
    levels = schedule_of(kind, spacing, offset).levels(num_steps)
    assert worst(make_plan("ddpm", levels, None), scheduler, kind) < 1e-4


@pytest.mark.parametrize("eta", [0.0, 0.5])  # at 1 theirs takes the root of a float32 rounding
def test_ddim_from_zero_terminal_snr(eta):
    scheduler = made("DDIMScheduler", "v", "trailing", 10, clip_sample=False,
                     rescale_betas_zero_snr=True)  # fmt: skip
    levels = NoiseSchedule.from_config(dict(scheduler.config)).levels(10)
    assert levels[0].alpha == 0.0
    assert worst(make_plan(samplers.ddim(eta=eta), levels, None), scheduler, "v", eta=eta) < 1e-4


# ---- classes in karras_sigma --------------------------------------------------------------------
CLASSES = {
    "EulerDiscreteScheduler": ["euler", "ddim", Sampler("lms", {"order": 1})],
    "EulerAncestralDiscreteScheduler": ["euler_ancestral"],
    "HeunDiscreteScheduler": ["heun"],
    "LMSDiscreteScheduler": ["lms"],
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", list(CLASSES))
@pytest.mark.parametrize("num_steps", [2, 7, 20, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_karras_sigma_classes(name, kind, num_steps, spacing):
    for sampler in CLASSES[name]:
        scheduler = made(name, kind, spacing, num_steps)
        levels = schedule_of(kind, spacing).levels(num_steps)
        if spacing == "linspace" or name.startswith("Heun"):
            # Between entries theirs is linear in sigma; Heun at few steps multiplies the float32
            # rounding of the smallest sigma (1.3e-5) by up to 50.
            levels = levels_of(scheduler)
        if spacing != "linspace":
            assert same_list(schedule_of(kind, spacing).levels(num_steps), levels)
        assert same_list(levels, levels_of(scheduler))
        assert worst(make_plan(sampler, levels, None), scheduler, kind) < 1e-4


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_order_of_lms(order):
    scheduler = made("LMSDiscreteScheduler", "eps", "trailing", 20)
    levels = schedule_of("eps", "trailing").levels(20)
    plan = make_plan(samplers.lms(order=order), levels, None)
    assert worst(plan, scheduler, "eps", order=order) < 1e-4
    other = make_plan(samplers.lms(order=order % 4 + 1), levels, None)
    scheduler = made("LMSDiscreteScheduler", "eps", "trailing", 20)
    assert worst(other, scheduler, "eps", order=order) > 1e-3  # the check can fail


# ---- multistep classes in native coordinates ---------------------------------------------------
def multistep(name, kind, spacing, num_steps, final, **options):
    scheduler = made(name, kind, spacing, num_steps, final_sigmas_type=final, **options)
    levels = schedule_of(kind, spacing, 0, {"zero": "clean"}.get(final, "first")).levels(num_steps)
    if spacing == "trailing":
        assert same_list(levels, levels_of(scheduler))
    else:
        levels = levels_of(scheduler)  # theirs has n + 1 points and leaves out the last
    return scheduler, levels


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("num_steps", [1, 2, 5, 10, 20, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_dpmpp_2m(kind, final, num_steps, spacing):
    scheduler, levels = multistep("DPMSolverMultistepScheduler", kind, spacing, num_steps, final)
    assert worst(make_plan("dpmpp_2m", levels, None), scheduler, kind) < 1e-4


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("num_steps", [1, 2, 5, 10, 20, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
def test_unipc_2(kind, final, num_steps, spacing, solver_type):
    name, options = "UniPCMultistepScheduler", {"solver_type": solver_type}
    scheduler, levels = multistep(name, kind, spacing, num_steps, final, **options)
    # theirs lowers the last order at every number of steps
    sampler = samplers.unipc_2(solver_type=solver_type, lower_order_final=True)
    assert worst(make_plan(sampler, levels, None), scheduler, kind) < 1e-4


# ---- what orders cannot see ---------------------------------------------------------------------
def test_2m_with_rho_inverted_keeps_its_order_but_not_parity():
    scheduler, levels = multistep("DPMSolverMultistepScheduler", "eps", "trailing", 20, "zero")

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
    assert worst(wrong, scheduler, "eps") > 1e-3


def test_parity_sees_another_sampler_and_another_prediction_type():
    levels = schedule_of("eps", "trailing").levels(20)
    scheduler = made("HeunDiscreteScheduler", "eps", "trailing", 20)
    half = make_plan("heun", levels, None)
    assert worst(half, scheduler, "eps") < 1e-4
    expected, end = theirs(made("EulerDiscreteScheduler", "eps", "trailing", 20), "eps", 3)
    seen, other = ours(make_plan("dpmpp_2m", levels, None), expected[0][1], "eps", 3)
    assert distance(other, end) > 1e-2
