"""Writes tests/data/pinned.json: ends of diffusers' schedulers, computed in float64.

Orders cannot see every mistake (an inverted ρ in DPM++ 2M keeps its order), so a few runs of
another implementation are pinned. diffusers computes in float32; here its modules are handed a
`torch` and a `numpy` whose float32 is float64. Run: `python tools/pin_samplers.py`.

The network is x0 = tanh(x̂·(1.2, 0.7)/(1 + σ̂) + 0.4) with x̂ = x/alpha and σ̂ = karras_sigma.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import diffusers
import numpy
import torch

TARGET = Path(__file__).parents[1] / "tests" / "data" / "pinned.json"
START = [1.5, -0.4, 0.3, -2.0]
GAINS = torch.tensor([1.2, 0.7, 1.2, 0.7], dtype=torch.float64)
TRAILING = {"timestep_spacing": "trailing"}
SKIP = {"skip_prk_steps": True}
TO_ONE = {"set_alpha_to_one": True}
CASES = [  # our sampler, its options, their class, its options
    ("euler", {}, "EulerDiscreteScheduler", TRAILING),
    ("heun", {}, "HeunDiscreteScheduler", TRAILING),
    ("dpm2", {}, "KDPM2DiscreteScheduler", TRAILING),
    ("lms", {}, "LMSDiscreteScheduler", TRAILING),
    ("plms", {}, "PNDMScheduler", {**TRAILING, **TO_ONE, **SKIP}),
    ("pndm", {}, "PNDMScheduler", {**TRAILING, **TO_ONE}),
    *(
        ("dpmpp_2m", {"solver_type": kind},
         "DPMSolverMultistepScheduler", {"solver_type": kind, **TRAILING})
        for kind in ("midpoint", "heun")
    ),
    ("dpmpp_3m_shipped", {}, "DPMSolverMultistepScheduler", {"solver_order": 3, **TRAILING}),
    *(
        ("deis", {"order": order},
         "DEISMultistepScheduler", {"solver_order": order, **TRAILING})
        for order in (1, 2, 3)
    ),
    *(
        (f"unipc_{order}", {"solver_type": kind, "lower_order_final": True},
         "UniPCMultistepScheduler", {"solver_order": order, "solver_type": kind,
         "final_sigmas_type": "sigma_min", **TRAILING})
        for order in (1, 2, 3) for kind in ("bh1", "bh2")
    ),
]  # fmt: skip


class Wide:
    """A module whose float32 is its float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name: str):
        return getattr(self.module, name)


def made(name: str, options: dict, num_steps: int):
    cls = getattr(diffusers, name)
    home = importlib.import_module(cls.__module__)
    home.torch, home.np = Wide(torch), Wide(numpy)
    scheduler = cls(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options)
    scheduler.set_timesteps(num_steps)
    return scheduler


def sigma_now(scheduler, timestep) -> float:
    """karras_sigma of the next network call."""
    if isinstance(scheduler, diffusers.PNDMScheduler):
        alpha_bar = float(scheduler.alphas_cumprod[int(timestep)])
        return math.sqrt((1 - alpha_bar) / alpha_bar)
    index = scheduler.step_index or 0
    between = type(scheduler).__name__.startswith("KDPM2") and not scheduler.state_in_first_order
    return float((scheduler.sigmas_interpol if between else scheduler.sigmas)[index])


def run(scheduler) -> tuple[list[float], list[float]]:
    """karras_sigma of every network call, and the latent at the end."""
    scaled = float(scheduler.init_noise_sigma) > 1.5  # latents in x/alpha
    latent = torch.tensor([START], dtype=torch.float64)
    first = sigma_now(scheduler, scheduler.timesteps[0])
    latent = latent * math.hypot(1.0, first) if scaled else latent
    sigmas = []
    for timestep in scheduler.timesteps:
        if scaled:
            scheduler.scale_model_input(latent, timestep)
        sigma = sigma_now(scheduler, timestep)
        plain = latent if scaled else latent * math.hypot(1.0, sigma)
        x0 = torch.tanh(GAINS * plain / (1.0 + sigma) + 0.4)
        latent = scheduler.step((plain - x0) / sigma, timestep, latent).prev_sample
        assert latent.dtype == torch.float64
        sigmas.append(sigma)
    return sigmas, latent[0].tolist()


def final_of(scheduler) -> str:
    """Our word for where the list ends: at sigma 0, or at the table's first level."""
    ends = getattr(scheduler, "sigmas", torch.zeros(1))[-1]
    return "first" if float(ends) else "clean"


def main() -> None:
    cases = []
    for sampler, options, name, theirs in CASES:
        for num_steps in (5, 20):
            scheduler = made(name, theirs, num_steps)
            sigmas, end = run(scheduler)
            cases.append({
                "sampler": sampler, "options": options, "scheduler": name, "its_options": theirs,
                "num_steps": num_steps, "final": final_of(scheduler),
                "karras_sigmas": sigmas, "end": end,
            })  # fmt: skip
    record = {"made_by": "tools/pin_samplers.py", "diffusers": diffusers.__version__,
              "start": START, "cases": cases}  # fmt: skip
    TARGET.write_text(json.dumps(record, indent=None).replace('{"sampler', '\n{"sampler') + "\n")
    print(f"wrote {len(cases)} runs to {TARGET}", file=sys.stderr)


if __name__ == "__main__":
    main()
