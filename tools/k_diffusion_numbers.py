"""Numbers of k-diffusion's samplers, for tests/test_parity_k_diffusion.py.

    pip install k-diffusion torch           (in an environment of its own: it asks for a lot)
    python tools/k_diffusion_numbers.py     writes tests/data/k_diffusion.json

Everything is float64. The denoiser is a formula that the test repeats in NumPy (`DENOISER`); the
start and the draws come from `numpy.random.default_rng(SEED)` and are stored. A sampler takes the
stored draws in the order in which it asks for noise, each with unit variance and independent of
the others (k-diffusion's own default for some is a Brownian tree, whose draws are correlated).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "tests" / "data" / "k_diffusion.json"
SEED, SIZE, STEPS = 20221, 4, 8
DENOISER = "tanh(0.9 * (x @ M) / sqrt(1 + sigma**2) + 0.1 * log(sigma)), M[i, j] = sin(1 + 3 i + j)"


def karras(num_steps: int, high: float = 14.6, low: float = 0.03) -> list[float]:
    """EDM's grid, then 0."""
    part = np.linspace(high ** (1 / 7), low ** (1 / 7), num_steps) ** 7
    return [*part.tolist(), 0.0]


def rough(num_steps: int, high: float = 10.0, low: float = 0.05) -> list[float]:
    """Steps in ln sigma alternate 2 : 1, and the last level still has noise."""
    steps = np.where(np.arange(num_steps) % 2 == 0, 2.0, 1.0)
    part = np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])
    return np.exp(math.log(high) + part * math.log(low / high)).tolist()


GRIDS = {"karras": karras(STEPS), "rough": rough(STEPS)}
NOISY = ("sample_euler_ancestral", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral",
         "sample_dpmpp_sde", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde")  # fmt: skip
RUNS: list[tuple[str, dict]] = [
    ("sample_euler", {}),
    ("sample_heun", {}),
    ("sample_heun", {"s_churn": 2.0}),
    ("sample_dpm_2", {}),
    ("sample_dpmpp_2m", {}),
    *[("sample_lms", {"order": order}) for order in (1, 2, 3, 4)],
    *[(name, {"eta": eta}) for name in NOISY for eta in (0.0, 0.6, 1.0)],
]


class Draws:
    """The stored draws in the order in which they are asked for."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws, self.used = draws, 0

    def __call__(self, *levels, **options):
        import torch

        self.used += 1
        return torch.from_numpy(self.draws[self.used - 1].copy())[None]


def denoiser() -> Callable:
    import torch

    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    mixing = torch.from_numpy(np.sin(1.0 + 3.0 * rows + columns))

    def model(x, sigma):
        sigma = sigma[:, None]
        return torch.tanh(0.9 * (x @ mixing) / torch.sqrt(1 + sigma**2) + 0.1 * torch.log(sigma))

    return model


def latents(name: str, options: dict, sigmas: list[float], start, draws: Draws) -> list:
    """The latent at every level of a run, in k-diffusion's coordinates (data plus sigma noise)."""
    import torch
    from k_diffusion import sampling

    seen, model = [], denoiser()
    options = dict(options)
    if name in NOISY:
        options["noise_sampler"] = draws
    drawn, torch.randn_like = torch.randn_like, draws  # sample_heun draws by itself
    try:
        end = getattr(sampling, name)(
            model, start * sigmas[0], torch.tensor(sigmas, dtype=torch.float64), disable=True,
            callback=lambda info: seen.append(info["x"][0].tolist()), **options,
        )  # fmt: skip
    finally:
        torch.randn_like = drawn
    return [*seen, end[0].tolist()]


def third_order(sigmas: list[float], start) -> list:
    """DPM-Solver-3, step by step; k-diffusion has it inside its sample_dpm_fast."""
    import torch
    from k_diffusion.sampling import DPMSolver

    solver, x = DPMSolver(denoiser()), start * sigmas[0]
    times = [solver.t(torch.tensor(sigma, dtype=torch.float64)) for sigma in sigmas]
    seen = [x[0].tolist()]
    for now, after in zip(times[:-1], times[1:], strict=True):
        x, _ = solver.dpm_solver_3_step(x, now, after)
        seen.append(x[0].tolist())
    return seen


def numbers() -> dict:
    """All runs on all grids."""
    import torch

    random = np.random.default_rng(SEED)
    start, draws = random.standard_normal(SIZE), random.standard_normal((2 * STEPS, SIZE))
    first, runs = torch.from_numpy(start)[None], []
    for grid, sigmas in GRIDS.items():
        for name, options in RUNS:
            source = Draws(draws)
            seen = latents(name, options, sigmas, first, source)
            runs.append(dict(function=name, options=options, grid=grid, draws=source.used,
                             latents=seen))  # fmt: skip
    runs.append(dict(function="DPMSolver.dpm_solver_3_step", options={}, grid="rough", draws=0,
                     latents=third_order(GRIDS["rough"], first)))  # fmt: skip
    return dict(
        k_diffusion=version("k-diffusion"), torch=torch.__version__, denoiser=DENOISER, seed=SEED,
        grids=GRIDS, start=start.tolist(), draws=draws.tolist(), runs=runs,
    )  # fmt: skip


def main() -> None:
    found = numbers()
    rows = ",\n".join(json.dumps(run) for run in found.pop("runs"))
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(f'{{\n{head},\n"runs": [\n{rows}\n]\n}}\n', encoding="utf-8")
    print(f"wrote {TARGET} ({TARGET.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
