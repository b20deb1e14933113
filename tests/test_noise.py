"""Noise sources: one stream per seed, and one Brownian path for all step counts."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch

from diffusionlab.errors import InputError
from diffusionlab.ideal import GaussianWorld
from diffusionlab.noise import BrownianPath, Sequential
from diffusionlab.plan import denoise
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import CLEAN, NoiseLevel, NoiseSchedule

SCHEDULE = NoiseSchedule.scaled_linear()
SEQ = [[0.09312, -0.30043], [-0.85424, 0.43763], [0.64891, 0.08307]]
BROWN = [[0.09312, -0.30043], [1.70298, 0.2398], [0.71513, 0.7616]]
A, B, C = (SCHEDULE.level_at(timestep=t) for t in (900, 500.25, 20))


def test_the_canary_of_torchs_stream():
    source = Sequential(0)
    first = source.first((4, 4, 4))
    canary = [-1.12584, -1.15236, -0.250579, -0.433879, 0.84871]
    assert np.allclose(first.flatten()[:5], canary, rtol=2e-5)
    assert np.allclose(
        Sequential(0).first((5,)), [1.540996, -0.293429, -2.178789, 0.568431, -1.084522], rtol=1e-5
    )


@pytest.mark.parametrize("source, expected", [(Sequential, SEQ), (BrownianPath, BROWN)])
def test_the_streams_are_pinned(source, expected):
    # Values, not a hash of them: the last bit may differ between processors.
    def draws():
        one = source(7)
        return [one.first((4, 8, 8)), one(A, B), one(B, C)]

    ends = [draw.flatten()[-2:].tolist() for draw in draws()]
    assert np.allclose(ends, expected, rtol=1e-4), ends
    first, again = (hashlib.sha256(torch.stack(draws()).numpy().tobytes()) for _ in range(2))
    assert first.digest() == again.digest()


def test_sequential_equals_diffusers_randn_tensor_in_order():
    randn_tensor = pytest.importorskip("diffusers.utils.torch_utils").randn_tensor
    source, generator = Sequential(3), torch.Generator().manual_seed(3)
    ours = [source.first((4, 8, 8)), source(A, B), source(B, C)]
    for draw in ours:
        theirs = randn_tensor((1, 4, 8, 8), generator=generator, dtype=torch.float32)
        assert torch.equal(draw, theirs[0])
    assert not torch.equal(ours[0], ours[1])


@pytest.mark.parametrize("source", [Sequential, BrownianPath])
def test_draws_do_not_depend_on_global_settings_or_other_runs(source):
    def three(other=None):
        one = source(11)
        draws = [one.first((2, 8, 8))]
        if other is not None:
            other.first((3, 4, 4)), other(A, B), torch.randn(5)
        return [*draws, one(A, B), one(B, C)]

    alone = three()
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            again = three(source(12))
    finally:
        torch.set_default_dtype(default)
    for one, two in zip(alone, again, strict=True):
        assert one.dtype == two.dtype == torch.float32 and one.device.type == "cpu"
        assert torch.equal(one, two)
    assert torch.equal(source(11).first((2, 8, 8)), Sequential(11).first((2, 8, 8)))


def test_device_moves_later_draws_after_drawing_on_the_cpu():
    for source in (Sequential(1), BrownianPath(1)):
        source.device = "meta"
        assert source.first((2, 2)).device.type == "cpu"
        assert source(A, B).device.type == "meta"


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.5, "a", True, None, 10**100])
def test_bad_seeds(seed):
    for source in (Sequential, BrownianPath):
        with pytest.raises(InputError, match=r"0 <= seed < 2\*\*63") as error:
            source(seed)
        assert len(str(error.value)) < 200


def test_edge_seeds_work():
    for seed in (0, 2**63 - 1, np.int64(5)):
        assert torch.isfinite(Sequential(seed).first((3,))).all()


def test_order_of_use_is_checked():
    for source in (Sequential(1), BrownianPath(1)):
        with pytest.raises(InputError, match="first"):
            source(A, B)
        source.first((2,))
        with pytest.raises(InputError, match="before"):
            source.first((2,))


# ---- the Brownian path ------------------------------------------------------------------------
def path(seed=5, shape=(64,)):
    source = BrownianPath(seed)
    source.first(shape)
    return source


def increment(source, low, high):
    return math.sqrt(high.snr - low.snr) * source(low, high).double()


ENDS = [
    (A, B, C),
    (NoiseLevel(999, 0.0, 1.0), A, B),
    (NoiseLevel(1, 1e-9, 1.0), A, C),
    tuple(SCHEDULE.level_at(timestep=t) for t in (500, 499, 498)),
    (A, NoiseLevel(0, 0.6, 0.6), NoiseLevel(0, 1.0, 0.5)),  # exactly at the ends of octaves
]


@pytest.mark.parametrize("low, middle, high", ENDS)
def test_increments_add_up(low, middle, high):
    source = path()
    parts = increment(source, low, middle) + increment(source, middle, high)
    assert torch.allclose(parts, increment(source, low, high), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(parts, increment(path(6), low, high), rtol=1e-2, atol=1e-2)


def test_the_path_does_not_depend_on_what_was_asked_before():
    source = path()
    source(B, C), source(A, C)
    assert torch.equal(source(A, B), path()(A, B))


def test_draws_are_standard_and_independent():
    source = path(shape=(40_000,))
    fine = SCHEDULE.levels(6, "trailing", "none")
    draws = torch.stack([source(s, t) for s, t in zip(fine[:-1], fine[1:], strict=True)]).double()
    seen = (draws @ draws.T / draws.shape[1]).numpy()
    assert np.allclose(seen, np.eye(len(draws)), atol=0.03)
    whole = source(fine[0], fine[-1]).double()
    assert abs(float(whole.var()) - 1.0) < 0.03
    shares = [math.sqrt(t.snr - s.snr) for s, t in zip(fine[:-1], fine[1:], strict=True)]
    seen = (draws @ whole / draws.shape[1]).numpy()
    assert np.allclose(seen, np.array(shares) / np.linalg.norm(shares), atol=0.03)


def test_one_path_takes_a_point_mass_to_one_place_whatever_the_steps():
    levels = [SCHEDULE.level_at(timestep=float(t)) for t in np.linspace(990, 30, 65)]
    world = GaussianWorld(0.5, 0.0)

    def end(stride, source):
        x = 0.3 * source.first((50,)).numpy().astype(np.float64)
        plan = make_plan("euler_ancestral", tuple(levels[::stride]), SCHEDULE)
        draw = lambda s, t: source(s, t).numpy().astype(np.float64)  # noqa: E731
        return list(denoise(plan, x, world.predict, draw))[-1].next_latent

    ends = [end(stride, BrownianPath(2)) for stride in (1, 4, 16, 64)]
    for other in ends[1:]:
        assert np.allclose(other, ends[0], rtol=0, atol=2e-5)
    loose = end(4, Sequential(2))
    assert not np.allclose(loose, ends[0], rtol=0, atol=1e-3)  # the check can fail


def test_intervals_that_make_no_sense():
    for low, high in ((A, CLEAN), (B, A), (A, A)):
        with pytest.raises(InputError, match="draw"):
            path()(low, high)
