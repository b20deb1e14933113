"""Running a diffusers scheduler class and a plan of ours side by side, in pipeline order.

The reference keeps its own list of timesteps and levels; `levels_of` turns it into ours, so both
run at the same levels. Both sides call the same network; its inputs are compared at every call,
then the ends. As shipped the classes compute in float32; `in_float64` lets them keep their digits.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import inspect
import math
import sys
import types
from unittest import mock

import diffusers
import numpy as np
import torch
from parity_draws import in_order

from diffusionlab.ideal import IdealPrediction
from diffusionlab.plan import denoise
from diffusionlab.schedule import CLEAN, NoiseLevel, NoiseSchedule, to_eps, to_x0

TOLERANCE = 1e-4
KINDS = {"eps": "epsilon", "v": "v_prediction", "flow": "flow_prediction"}
SHAPE = (4, 6, 6)
MIXING = torch.from_numpy(np.linspace(-1, 1, 16).reshape(4, 4)).sin()
SCHEDULE = NoiseSchedule.scaled_linear()
BETAS = dict(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
)
# how a spacing is asked for; the last three replace whatever "timestep_spacing" says
SPACINGS = {
    **{name: {"timestep_spacing": name} for name in ("leading", "trailing", "linspace")},
    **{name: {f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")},
}


# ---- the network ------------------------------------------------------------------------------
def network(latent, timestep, kind):
    """Float64: an x0 that bends with the latent and the timestep, told as eps, v or velocity."""
    mixed = torch.einsum("ij,jhw->ihw", MIXING, latent.double())
    x0 = torch.tanh(0.8 * mixed + 0.4 * latent.double().roll(1, -1) + timestep / 700.0)
    if kind == "flow":
        return (latent.double() - x0) / (timestep / 1000.0)
    alpha = float(np.interp(timestep, np.arange(1000), SCHEDULE.alpha))
    sigma = math.sqrt(1.0 - alpha * alpha)
    eps = (latent.double() - alpha * x0) / sigma
    return eps if kind == "eps" else alpha * eps - sigma * x0


def readings(output, latent, level, kind):
    """The prediction that a plan reads; velocity is eps - x0 on a flow pair."""
    if kind == "flow":
        x0, eps = latent - level.sigma * output, latent + level.alpha * output
        return IdealPrediction(level, latent, x0, eps)
    x0, eps = (to(output, latent, level, kind) for to in (to_x0, to_eps))
    return IdealPrediction(level, latent, x0, eps)


# ---- their side -------------------------------------------------------------------------------
def class_named(name):
    """The class; DPMSolverSDE imports torchsde for its own noise, which is never asked for here."""
    if name != "DPMSolverSDEScheduler":
        return getattr(diffusers, name)
    absent = importlib.util.find_spec("torchsde") is None and "torchsde" not in sys.modules
    if absent:
        sys.modules["torchsde"] = types.ModuleType("torchsde")
    try:
        return importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde").__dict__[
            name
        ]
    finally:
        if absent:
            del sys.modules["torchsde"]


def made(name, kind="eps", spacing="trailing", num_steps=10, **options):
    """A scheduler of diffusers with Stable Diffusion's betas and its steps set."""
    scheduler = copy.deepcopy(prepared(name, spacing, num_steps, tuple(options.items())))
    if kind != "flow" or "prediction_type" in scheduler.config:
        scheduler.register_to_config(prediction_type=KINDS[kind])
    return scheduler


@functools.lru_cache(maxsize=4)  # setting the steps of some takes a quarter of a second
def prepared(name, spacing, num_steps, options):
    made_by = class_named(name)
    known = inspect.signature(made_by.__init__).parameters
    assert {key for key, _ in options} <= set(known), (name, options)
    wanted = {**BETAS, **SPACINGS.get(spacing, {}), **dict(options)}
    scheduler = made_by(**{key: value for key, value in wanted.items() if key in known})
    scheduler.set_timesteps(num_steps)
    if hasattr(scheduler, "set_begin_index") and scheduler.timesteps[0] == scheduler.timesteps[1]:
        scheduler.set_begin_index(0)  # two rounded times are equal: it would start at the second
    return scheduler


def in_float64(scheduler):
    """The same numbers, held in float64: what the class computes from them loses no more digits.

    KDPM2Ancestral made three lists from its sigmas before, with sqrt(a² - b²) in float32: again.
    """
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            setattr(scheduler, name, value.double())
    if is_a(scheduler, "KDPM2AncestralDiscrete"):
        each = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])
        each = each[: scheduler.num_inference_steps + 1]
        after = torch.cat([each[1:], torch.zeros(1)]).double()
        down = torch.where(each > 0, after**2 / each, 0.0)
        middle = torch.cat([torch.sqrt(each * down)[:-2], torch.zeros(2)])
        made_again = dict(sigmas_down=down, sigmas_interpol=middle)
        made_again["sigmas_up"] = torch.sqrt(after**2 - down**2)
        for name, values in made_again.items():
            wide = torch.cat([values[:1], values[1:].repeat_interleave(2), values[-1:]])
            setattr(scheduler, name, wide.double())
    return scheduler


def theirs(scheduler, kind, seed=3, network=network, shape=SHAPE, **options):
    """(input of the network, timestep told) for every call, the end, and the draws it made."""
    generator = torch.Generator().manual_seed(seed)
    draws, seen = [], []

    def drawn(shape, **_):
        draws.append(torch.randn(shape, generator=generator))
        return draws[-1]

    scale = getattr(scheduler, "init_noise_sigma", 1.0)
    latent = torch.randn((1, *shape), generator=generator) * scale
    latent = latent.to(torch.float64 if is_wide(scheduler) else torch.float32)
    if type(scheduler).__name__ == "DPMSolverSDEScheduler":
        scheduler.noise_sampler = lambda *levels: drawn((1, *shape))
    module = sys.modules[type(scheduler).__module__]
    with mock.patch.object(module, "randn_tensor", drawn, create=True):
        for i, timestep in enumerate(times_of(scheduler)):
            before_step(scheduler, i)
            given = scaled(scheduler, latent, timestep)
            told = told_by(scheduler, timestep, i)
            seen.append((given[0].double(), told))
            output = network(given[0], told, kind).to(latent.dtype)[None]
            latent = scheduler.step(output, timestep, latent, **options).prev_sample
    return seen, latent[0].double(), [draw[0].double() for draw in draws]


def is_wide(scheduler):
    return any(
        getattr(value, "dtype", None) == torch.float64
        for name, value in vars(scheduler).items()
        if name in ("sigmas", "alphas_cumprod", "alphas")
    )


def times_of(scheduler):
    """Their list; IPNDM starts at alpha 0, where its first eps is no reading of x0: left out."""
    return scheduler.timesteps[1:] if is_a(scheduler, "IPNDM") else scheduler.timesteps


def scaled(scheduler, latent, timestep):
    scale = getattr(scheduler, "scale_model_input", None)
    return scale(latent, timestep) if scale else latent


def told_by(scheduler, timestep, index):
    """IPNDM counts its levels by an angle; the network is told 1000 times its share of the run."""
    if is_a(scheduler, "IPNDM"):
        return 1000.0 * (1.0 - (index + 1) / scheduler.num_inference_steps)
    return float(timestep)


def before_step(scheduler, index):
    """The singlestep class has one solver_type for two formulas; DPM-Solver-3 needs one of each."""
    if is_a(scheduler, "DPMSolverSinglestep") and scheduler.config.solver_order == 3:
        middle = scheduler.order_list[index] == 2
        scheduler.register_to_config(solver_type="heun" if middle else "midpoint")


def is_a(scheduler, name):
    return type(scheduler).__name__ == name + "Scheduler"


# ---- their list as levels of ours -------------------------------------------------------------
def levels_of(scheduler):
    """Their levels, strictly decreasing, with the timesteps that their network is told."""
    if is_a(scheduler, "IPNDM"):
        pairs = zip(scheduler.alphas.tolist(), scheduler.betas.tolist(), strict=True)
        total = scheduler.num_inference_steps
        return tuple(NoiseLevel(1000.0 * (1 - i / total), a, b) for i, (a, b) in enumerate(pairs))[
            1:
        ]
    if type(scheduler).__name__ in LAST_LEVEL:
        return levels_of_alphas(scheduler)
    sigmas, times = scheduler.sigmas.double().tolist(), scheduler.timesteps.tolist()
    if is_a(scheduler, "HeunDiscrete") or is_a(scheduler, "FlowMatchHeunDiscrete"):
        sigmas, times = [sigmas[0], *sigmas[1::2]], [times[0], *times[1::2]]
    elif any(map(functools.partial(is_a, scheduler), MIDPOINTS)):
        sigmas, times = [sigmas[0], *sigmas[1::2]], times[0::2]
    pair = flow_at if in_flow(scheduler) else at
    return strictly(pair(s, t) for s, t in zip(sigmas, [*times, 0.0, 0.0], strict=False))


MIDPOINTS = ("DPMSolverSDE", "KDPM2Discrete", "KDPM2AncestralDiscrete")
LAST_LEVEL = {  # what comes after the last timestep
    "DDIMScheduler": lambda scheduler: scheduler.final_alpha_cumprod,
    "DDPMScheduler": lambda scheduler: torch.tensor(1.0),
    "PNDMScheduler": lambda scheduler: scheduler.final_alpha_cumprod,
    "LCMScheduler": lambda scheduler: torch.tensor(1.0),
    "TCDScheduler": lambda scheduler: scheduler.alphas_cumprod[0],
}


def levels_of_alphas(scheduler):
    """The list of a class that is defined by its timesteps in the table of alpha_bar."""
    times = scheduler._timesteps[::-1] if is_a(scheduler, "PNDM") else scheduler.timesteps
    times = [int(time) for time in times]
    table = scheduler.alphas_cumprod.double()
    last = float(LAST_LEVEL[type(scheduler).__name__](scheduler))
    levels = [rates(float(table[time]), time) for time in times]
    return strictly([*levels, rates(last, 0)])


def rates(alpha_bar, timestep):
    if alpha_bar == 1.0:
        return CLEAN
    return NoiseLevel(float(timestep), math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar))


def in_flow(scheduler):
    return "FlowMatch" in type(scheduler).__name__ or scheduler.config.get("use_flow_sigmas", False)


def at(karras_sigma, timestep):
    root = math.hypot(1.0, karras_sigma)
    return NoiseLevel(float(timestep), 1 / root, karras_sigma / root) if karras_sigma else CLEAN


def flow_at(sigma, timestep):
    return NoiseLevel(float(timestep), 1.0 - sigma, sigma) if sigma else CLEAN


def strictly(levels):
    kept = []
    for level in levels:
        if not kept or level.karras_sigma < kept[-1].karras_sigma:
            kept.append(level)
    return tuple(kept)


def same_list(levels, others):
    """Whether two lists of levels are equal to the float32 rounding of theirs."""
    return len(levels) == len(others) and all(
        abs(a.timestep - b.timestep) < 0.02 and math.isclose(a.sigma, b.sigma, rel_tol=1e-4)
        for a, b in zip(levels, others, strict=True)
        if a.sigma or b.sigma
    )


# ---- our side ---------------------------------------------------------------------------------
def ours(plan, start, kind, draws, network=network, told=()):
    """(input of the network, timestep planned) for every call, then the end.

    `told`: the timesteps to tell the network instead. Theirs come from a float32 table, and a
    two-call rule with large steps multiplies a thousandth of a timestep by a hundred.
    """
    seen, tell = [], list(told)

    def predict(latent, level):
        timestep = tell[len(seen)] if len(seen) < len(tell) else level.timestep
        seen.append((latent, level.timestep))
        return readings(network(latent, timestep, kind), latent, level, kind)

    for step in denoise(plan, start, predict, in_order(plan, draws)):
        end = step.next_latent
    return seen, end


def distance(left, right):
    """Largest difference over the largest value; infinite where either is not finite."""
    found = float((left - right).abs().max() / right.abs().max())
    return found if math.isfinite(found) else math.inf


def largest(plan, scheduler, kind, seed=3, network=network, shape=SHAPE, **options):
    """The largest error over all inputs of the network and the end, each relative to its largest.

    A last step of theirs that goes nowhere (their last sigma twice) has no step of ours.
    """
    expected, expected_end, draws = theirs(scheduler, kind, seed, network, shape, **options)
    told = [timestep for _, timestep in expected]
    seen, end = ours(plan, expected[0][0], kind, draws, network, told)
    assert len(seen) == len(expected) or ends_twice(scheduler), (len(seen), len(expected))
    pairs = list(zip(seen, expected, strict=False))
    for (_, told), (_, told_there) in pairs:
        assert abs(told - told_there) < 0.02, (told, told_there)
    return max([*(distance(a, b) for (a, _), (b, _) in pairs), distance(end, expected_end)])


def ends_twice(scheduler):
    sigmas = getattr(scheduler, "sigmas", None)
    return sigmas is not None and float(sigmas[-1]) == float(sigmas[-2]) != 0.0
