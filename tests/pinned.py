"""The pinned runs of another implementation (tools/pin_samplers.py), and how ours are held to them.

NumPy only: the network is a formula of x/alpha and karras_sigma that the tool states.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from worlds import SD, last

from diffusionlab.ideal import IdealPrediction
from diffusionlab.samplers import Sampler, make_plan

RECORD = json.loads((Path(__file__).parent / "data" / "pinned.json").read_text())
CASES = {f"{case['sampler']}-{'-'.join(map(str, case['options'].values()))}-{case['num_steps']}":
         case for case in RECORD["cases"]}  # fmt: skip


def predict(latent, level):
    plain, sigma = latent / level.alpha, level.karras_sigma
    x0 = np.tanh(np.array([1.2, 0.7, 1.2, 0.7]) * plain / (1.0 + sigma) + 0.4)
    return IdealPrediction(level, latent, x0, (plain - x0) / sigma)


def levels_of(case):
    return SD.levels(case["num_steps"], "trailing", case["final"])


def plan_of(case):
    return make_plan(Sampler(case["sampler"], case["options"]), levels_of(case), SD)


def pinned_error(plan, case):
    """The largest distance from the pinned end; infinite where another level is asked."""
    asked = [stage.level.karras_sigma for step in plan for stage in step.stages]
    if len(asked) != len(case["karras_sigmas"]):
        return np.inf
    if not np.allclose(asked, case["karras_sigmas"], rtol=1e-10):
        return np.inf
    end = last(plan, np.array(RECORD["start"]), predict)
    return float(np.abs(end - case["end"]).max())
