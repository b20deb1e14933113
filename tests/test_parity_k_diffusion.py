"""Plans against k-diffusion's own numbers, level by level, in float64.

tests/data/k_diffusion.json comes from tools/k_diffusion_numbers.py, run once in an environment
with k-diffusion. Its latents are data plus sigma times noise (alpha 1); ours are compared in
variance-exploding, variance-preserving and flow pairs of the same karras_sigma. NumPy only.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from parity_draws import in_order
from worlds import flow, ve, vp

from diffusionlab.ideal import IdealPrediction
from diffusionlab.plan import denoise
from diffusionlab.samplers import SAMPLERS, Sampler, make_plan

DATA = json.loads((Path(__file__).parent / "data" / "k_diffusion.json").read_text("utf-8"))
DRAWS = np.array(DATA["draws"])
MIXING = np.sin(1.0 + 3.0 * np.arange(4)[:, None] + np.arange(4)[None, :])
OURS = {
    "sample_euler": "euler",
    "sample_euler_ancestral": "euler_ancestral",
    "sample_heun": "heun",
    "sample_dpm_2": "dpm2",
    "sample_dpm_2_ancestral": "dpm2_ancestral",
    "sample_lms": "lms",
    "sample_dpmpp_2s_ancestral": "dpmpp_2s_ancestral",
    "sample_dpmpp_sde": "dpmpp_sde",
    "sample_dpmpp_2m": "dpmpp_2m",
    "sample_dpmpp_2m_sde": "dpmpp_2m_sde",
    "sample_dpmpp_3m_sde": "dpmpp_3m_sde",
    "DPMSolver.dpm_solver_3_step": "dpm3",
}
AT_ETA_0 = {  # k-diffusion has these rules only as special cases
    "sample_dpmpp_2s_ancestral": "dpmpp_2s",
    "sample_dpmpp_2m_sde": "dpmpp_2m",
    "sample_dpmpp_3m_sde": Sampler("dpmpp_3m_shipped", {"solver_type": "heun"}),
}


def sampler_of(run):
    name = "heun_churn" if run["options"].get("s_churn") else OURS[run["function"]]
    return as_there(Sampler(name, run["options"]))


def as_there(sampler):
    """k-diffusion does not lower the order of the last steps."""
    sampler = sampler if isinstance(sampler, Sampler) else Sampler(sampler)
    lowered = "lower_order_final" in SAMPLERS[sampler.name].options
    extra = {"lower_order_final": False} if lowered else {}
    return Sampler(sampler.name, {**sampler.options, **extra})


def denoised(x, sigma):
    """The denoiser that the file names."""
    return np.tanh(0.9 * (x @ MIXING) / math.sqrt(1.0 + sigma**2) + 0.1 * math.log(sigma))


def predict(latent, level):
    x0 = denoised(latent / level.alpha, level.karras_sigma)
    return IdealPrediction(level, latent, x0, (latent - level.alpha * x0) / level.sigma)


def largest(run, sampler, pair):
    """The largest error over all levels, relative to the largest value at the level."""
    sigmas = DATA["grids"][run["grid"]]
    levels = tuple(pair(s, 100.0 * (len(sigmas) - i)) for i, s in enumerate(sigmas))
    plan = make_plan(sampler, levels, None)
    start = np.array(run["latents"][0]) * levels[0].alpha
    if "s_churn" in run["options"]:  # the callback shows the latent with the added noise
        start = np.array(DATA["start"]) * levels[0].sigma
    errors = []
    for i, step in enumerate(denoise(plan, start, predict, in_order(plan, DRAWS))):
        seen, wanted = step.next_latent / step.next_level.alpha, np.array(run["latents"][i + 1])
        if "s_churn" in run["options"] and i + 2 < len(levels):
            continue
        errors.append(np.abs(seen - wanted).max() / np.abs(wanted).max())
    return max(errors)


def named(run):
    options = ", ".join(f"{key}={value:g}" for key, value in run["options"].items())
    return f"{run['function']}({options}) {run['grid']}"


def churned_to_zero(run):
    return bool(run["options"].get("s_churn")) and DATA["grids"][run["grid"]][-1] == 0.0


@pytest.mark.parametrize("pair", [ve, vp, flow], ids=lambda pair: pair.__name__)
@pytest.mark.parametrize("run", [r for r in DATA["runs"] if not churned_to_zero(r)], ids=named)
def test_every_level_of_a_run(run, pair):
    assert largest(run, sampler_of(run), pair) < 1e-9
    if run["options"].get("eta") == 0.0 and run["function"] in AT_ETA_0:
        assert largest(run, as_there(AT_ETA_0[run["function"]]), pair) < 1e-9


def test_every_function_that_we_name_is_there():
    assert {run["function"] for run in DATA["runs"]} == set(OURS)
    assert len({json.dumps(run["latents"]) for run in DATA["runs"]}) > 40  # not one run copied


def test_the_check_sees_another_sampler_another_option_and_another_draw():
    runs = {named(run): run for run in DATA["runs"]}
    assert largest(runs["sample_heun() rough"], Sampler("dpm2"), vp) > 1e-4
    assert largest(runs["sample_lms(order=3) rough"], Sampler("lms", {"order": 4}), vp) > 1e-6
    run = runs["sample_dpmpp_sde(eta=1) rough"]
    assert largest(run, Sampler("dpmpp_sde", {"eta": 0.9}), vp) > 1e-4


# ---- where we differ on purpose -------------------------------------------------------------
def test_theirs_adds_churn_before_the_step_to_zero_and_ours_does_not():
    run = next(run for run in DATA["runs"] if churned_to_zero(run))
    wrong = largest(run, sampler_of(run), ve)
    assert 1e-6 < wrong < 1.0
    sigmas, steps = DATA["grids"][run["grid"]], len(DATA["grids"][run["grid"]]) - 1
    gamma = min(run["options"]["s_churn"] / steps, math.sqrt(2.0) - 1.0)
    up = sigmas[-2] * (1.0 + gamma)
    raised, end = np.array(run["latents"][-2]), np.array(run["latents"][-1])
    assert np.allclose(denoised(raised, up), end, rtol=1e-12)  # their last call is above the level


def test_shipped_3m_starts_with_another_second_step_here():
    """k-diffusion's 3M weighs the second step by φ2, ours and diffusers' by (1 - e^-h)/2."""
    run = next(r for r in DATA["runs"] if named(r) == "sample_dpmpp_3m_sde(eta=0) rough")
    assert 1e-5 < largest(run, as_there("dpmpp_3m_shipped"), vp) < 1e-1
