"""Cases of the gallery: a run, its steps and records, samplers and their exact worlds."""

from __future__ import annotations

from functools import partial

import numpy as np
from lab import PROMPT, SETTINGS, Lab

import diffusionlab as dl
from diffusionlab.analysis.convergence import grid_levels, third_order_twice
from diffusionlab.analysis.ladder import climb
from diffusionlab.ideal import MixtureWorld
from diffusionlab.samplers import make_plan

SHARED = {key: value for key, value in SETTINGS.items() if key not in ("sampler", "num_steps")}


def plans(lab: Lab) -> dict:
    """The plans of three samplers of different families for the same six levels."""
    schedule = lab.model.schedule
    names = ("heun", "dpmpp_2m", "dpmpp_2m_sde")
    return {name: make_plan(name, schedule.levels(6), schedule) for name in names}


def spaced(lab: Lab) -> dict:
    """Twenty steps placed in three ways."""
    names = ("trailing", "leading", "karras")
    return {name: lab.model.schedule.levels(20, name) for name in names}


def paths(lab: Lab) -> tuple[dict, dict]:
    """Points of the plane under two samplers, and the exact flow beneath them."""
    world = MixtureWorld([[2.0, 0.0], [-1.0, 1.6], [-1.0, -1.6]], 0.03)
    start = np.random.default_rng(3).standard_normal((5, 2))

    def walked(sampler: str, steps: int) -> list:
        plan = make_plan(sampler, grid_levels("uniform", steps), None)
        return list(dl.denoise(plan, start, world.predict, None))

    exact = walked("heun", 200)
    return {"euler": walked("euler", 8), "heun": walked("heun", 8)}, dict(exact=exact, world=world)


def samplers(lab: Lab) -> dl.Comparison:
    """Two samplers, each with few and with many steps."""
    given = {"samplers": ["ddim", "ddim", "dpmpp_2m", "dpmpp_2m"], "steps": [5, 20, 5, 20]}
    return dl.compare(lab.model, PROMPT, **given, **SHARED)


def ladder(lab: Lab):
    """Step k of 20 beside runs of k steps."""
    run = partial(dl.generate, lab.model, PROMPT, **SHARED, record={"predictions", "frames"})
    return climb(run, 20, [2, 5, 10, 20], lab.decode)


CASES = {
    "plot_tokens": lambda lab: (lab.trace.tokens, {}),
    "plot_text_embedding": lambda lab: (lab.trace.text_embedding, {}),
    "plot_schedule": lambda lab: (lab.model.schedule, {}),
    "plot_prediction": lambda lab: (lab.trace.predictions[5], {}),
    "plot_step": lambda lab: (lab.trace.steps[5], {}),
    "plot_update": lambda lab: (plans(lab)["dpmpp_2m_sde"][2], {}),
    "plot_trace": lambda lab: (lab.trace, {}),
    "plot_coefficients": lambda lab: (plans(lab), {}),
    "plot_spacings": lambda lab: (spaced(lab), {}),
    "plot_convergence": lambda lab: (third_order_twice(), {}),
    "plot_paths": paths,
    "plot_sampler_grid": lambda lab: (samplers(lab), {}),
    "plot_difference": lambda lab: (samplers(lab), {}),
    "plot_step_ladder": lambda lab: (ladder(lab), {}),
}
