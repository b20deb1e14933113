"""Noise schedules: the published constants, the spacings, the conversions, the refusals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from diffusionlab.errors import InputError
from diffusionlab.schedule import (
    CLEAN,
    FINALS,
    NoiseLevel,
    NoiseSchedule,
    to_eps,
    to_v,
    to_x0,
)

SPACINGS = ("leading", "trailing", "linspace")  # in the timestep; the others: test_spacings.py
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SD = NoiseSchedule.scaled_linear()
SD_V = NoiseSchedule.scaled_linear(prediction_type="v")
ZERO = SD_V.zero_terminal_snr()


def timesteps(schedule, *args):
    return [level.timestep for level in schedule.levels(*args)]


# ---- the training table -------------------------------------------------------------------------
def test_constants_of_stable_diffusion():
    assert SD.num_train_steps == len(SD.beta) == 1000
    assert SD.alpha_bar[0] == pytest.approx(0.99915, rel=1e-12)
    assert SD.alpha_bar[999] == pytest.approx(0.004660099, rel=1e-6)
    assert SD.alpha[999] == pytest.approx(0.0682649, rel=1e-6)
    assert SD.snr[999] == pytest.approx(0.0046819, rel=1e-5)
    assert SD.karras_sigma[[0, 999]] == pytest.approx([0.02916716, 14.61464123], rel=3e-7)
    published = {100: 0.3439, 250: 0.6958, 500: 1.6183, 750: 4.0992, 781: 4.6917, 900: 8.3466,
                 951: 11.0283, 981: 13.1204}  # fmt: skip
    for timestep, sigma in published.items():
        assert SD.karras_sigma[timestep] == pytest.approx(sigma, rel=2e-4)
    assert [int(np.argmax(SD.karras_sigma >= s)) for s in (1, 2, 5, 10)] == [354, 563, 796, 934]
    noisier = [np.mean(SD.karras_sigma > s) for s in (1, 5, 0.2)]
    assert noisier == pytest.approx([0.646, 0.204, 1 - 0.041], abs=6e-4)
    with pytest.raises(AssertionError):  # the check can fail: float32 code shows other digits
        assert SD.karras_sigma[999] == pytest.approx(14.614647, rel=3e-7)


def test_constants_of_the_other_schedules():
    linear, cosine = NoiseSchedule.linear(), NoiseSchedule.cosine()
    assert linear.alpha_bar[[0, 999]] == pytest.approx([0.9999, 4.03583e-5], rel=1e-5)
    assert linear.karras_sigma[[0, 999]] == pytest.approx([0.010001, 157.4073], rel=1e-4)
    assert cosine.alpha_bar[999] == pytest.approx(2.4288e-9, rel=1e-4)
    assert cosine.karras_sigma[999] == pytest.approx(20_291, rel=1e-4)
    assert max(cosine.beta) == 0.999
    assert np.argmax(cosine.beta == 0.999) == 999  # capped once only


def test_arrays_are_consistent_and_read_only():
    for schedule in (SD, ZERO, NoiseSchedule.cosine()):
        assert np.allclose(schedule.alpha**2 + schedule.sigma**2, 1.0, rtol=1e-15)
        assert np.all(np.diff(schedule.karras_sigma) > 0)
        for name in ("beta", "alpha_bar", "alpha", "sigma", "snr", "karras_sigma"):
            table = getattr(schedule, name)
            assert table.dtype == np.float64 and table.shape == (1000,)
            with pytest.raises(ValueError, match="read-only"):
                table[0] = 1.0


def test_schedules_are_values():
    assert NoiseSchedule.scaled_linear() == SD and hash(SD) == hash(NoiseSchedule.scaled_linear())
    assert NoiseSchedule.linear() != SD
    with pytest.raises(dataclasses.FrozenInstanceError):
        SD.spacing = "trailing"


def test_zero_terminal_snr():
    assert ZERO.alpha_bar[999] == 0.0 and math.isinf(ZERO.karras_sigma[999])
    assert ZERO.alpha_bar[0] == pytest.approx(SD.alpha_bar[0], rel=1e-14)
    shift = SD.alpha[999]
    wanted = (SD.alpha - shift) * SD.alpha[0] / (SD.alpha[0] - shift)
    assert np.allclose(ZERO.alpha, wanted, rtol=1e-10, atol=1e-15)
    five = [level.karras_sigma for level in ZERO.levels(5, "trailing")]
    assert five[1:] == pytest.approx([7.4107, 2.6049, 1.2414, 0.59475, 0.0], rel=1e-4)
    assert math.isinf(five[0])


def test_zero_terminal_snr_needs_v_prediction():
    with pytest.raises(InputError, match="v-prediction"):
        SD.zero_terminal_snr()


@pytest.mark.parametrize("betas", [[], [0.0, 0.1], [0.1, 1.5], [0.1, math.nan], [1.0, 0.1], 0.1])
def test_bad_betas(betas):
    with pytest.raises(InputError, match="betas"):
        NoiseSchedule(betas)


def test_bad_names_are_answered_with_the_names():
    for field, value in (("prediction_type", "epsilon"), ("spacing", "Leading"), ("final", "zero")):
        with pytest.raises(InputError, match=field):
            NoiseSchedule.scaled_linear(**{field: value})
    with pytest.raises(InputError, match="did you mean 'trailing'.*leading, trailing, linspace"):
        SD.levels(10, "trailling")
    with pytest.raises(InputError, match="clean, first, none"):
        SD.levels(10, None, "last")


# ---- spacings -----------------------------------------------------------------------------------
def test_levels_of_ten_steps():
    assert timesteps(SD, 10, "leading") == [*range(900, -1, -100), -1]
    assert timesteps(SD, 10, "linspace") == [*range(999, -1, -111), -1]
    assert timesteps(SD, 10, "trailing") == [*range(999, 98, -100), -1]
    offset = NoiseSchedule.scaled_linear(steps_offset=1)
    assert timesteps(offset, 10) == [*range(901, 0, -100), -1]
    assert timesteps(offset, 50)[:2] == [981, 961]
    assert timesteps(SD, 20, "linspace")[1] == pytest.approx(946.42, abs=0.01)


def test_the_end_is_a_choice():
    offset = NoiseSchedule.scaled_linear(steps_offset=1, final="first")
    assert timesteps(offset, 5) == [801, 601, 401, 201, 1, 0]
    assert timesteps(offset, 5, None, "clean")[-1] == -1
    assert timesteps(offset, 5, None, "none")[-1] == 1
    assert offset.levels(5)[-1].alpha == math.sqrt(offset.alpha_bar[0])
    assert offset.levels(5, None, "clean")[-1] == CLEAN
    # it coincides with the last level of the run, and is dropped
    assert timesteps(SD, 5, "leading", "first") == [800, 600, 400, 200, 0]


@pytest.mark.parametrize("spacing", list(SPACINGS))
@pytest.mark.parametrize("offset", [0, 1])
def test_every_number_of_steps(spacing, offset):
    schedule = NoiseSchedule.scaled_linear(steps_offset=offset)
    for num_steps in range(1, 1001):
        levels = schedule.levels(num_steps, spacing, FINALS[num_steps % 3])
        sigmas = np.array([level.karras_sigma for level in levels])
        assert np.all(np.isfinite(sigmas)) and np.all(np.diff(sigmas) < 0)
        assert all(type(v) is float for v in dataclasses.astuple(levels[0]))
        final = FINALS[num_steps % 3]
        run = num_steps - (spacing == "leading" and offset == 1 and num_steps == 1000)
        appended = {"clean": 1, "first": levels[run - 1].timestep > 0, "none": 0}[final]
        assert len(levels) == run + appended
        if spacing != "leading":
            assert levels[0].timestep == 999


def test_n_equal_to_t_with_the_offset_drops_the_coinciding_level():
    levels = NoiseSchedule.scaled_linear(steps_offset=1).levels(1000, "leading")
    assert [level.timestep for level in levels[:3]] == [999, 998, 997] and len(levels) == 1000


def test_other_table_lengths():
    for total in (1, 2, 7, 50):
        schedule = NoiseSchedule.scaled_linear(num_train_steps=total)
        for spacing in SPACINGS:
            for num_steps in range(1, total + 1):
                assert len(schedule.levels(num_steps, spacing)) == num_steps + 1


@pytest.mark.parametrize("num_steps", [0, -1, 2.5, True, "20", None, math.nan, [5]])
def test_num_steps_must_be_a_whole_number(num_steps):
    with pytest.raises(InputError, match="num_steps must be an integer >= 1"):
        SD.levels(num_steps)


@pytest.mark.parametrize("num_steps", [1001, 10**9, 10**400])
def test_num_steps_has_a_cap(num_steps):
    with pytest.raises(InputError, match="1000") as error:
        SD.levels(num_steps)
    assert "use 1 to 1000" in str(error.value) and len(str(error.value)) < 200


def test_numpy_integers_are_integers():
    assert SD.levels(np.int64(10)) == SD.levels(10)


@pytest.mark.parametrize("spacing", list(SPACINGS))
@pytest.mark.parametrize("offset", [0, 1])
def test_spacings_equal_diffusers(spacing, offset):
    diffusers = pytest.importorskip("diffusers")
    schedule = NoiseSchedule.scaled_linear(spacing=spacing, steps_offset=offset)
    for num_steps in (1, 2, 4, 5, 7, 10, 20, 30, 50, 100, 250, 999):
        theirs = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            timestep_spacing=spacing, steps_offset=offset,
        )  # fmt: skip
        theirs.set_timesteps(num_steps)
        ours = schedule.levels(num_steps)
        if spacing == "linspace" and num_steps == 1:
            continue  # theirs is the cleanest level, ours the noisiest
        assert [level.timestep for level in ours[:-1]] == pytest.approx(
            theirs.timesteps.tolist(), rel=1e-6, abs=1e-6
        )
        # Between entries they are linear in sigma, we in its logarithm: at most 1e-3 apart.
        close = 1e-3 if spacing == "linspace" else 3e-5
        assert [level.karras_sigma for level in ours] == pytest.approx(
            theirs.sigmas.tolist(), rel=close
        )


def test_trailing_has_no_step_too_many_where_diffusers_does():
    for num_steps in (61, 103, 121):
        levels = SD.levels(num_steps, "trailing")
        assert len(levels) == num_steps + 1 and levels[-2].timestep > 0


# ---- any level ----------------------------------------------------------------------------------
def test_a_timestep_for_any_karras_sigma():
    found = [SD.level_at(karras_sigma=s).timestep for s in (1, 2, 5, 10)]
    assert found == pytest.approx([353.9, 562.3, 795.2, 933.5], abs=0.05)


@pytest.mark.parametrize("schedule", [SD, ZERO, NoiseSchedule.cosine()])
def test_level_at_inverts_itself(schedule):
    for timestep in [0, 0.001, 0.5, 17, 500.25, 998, 998.5, 999, np.float32(3.5), np.int64(7)]:
        level = schedule.level_at(timestep=timestep)
        assert level.timestep == timestep and type(level.timestep) is float
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1.0, rel=1e-14)
        again = schedule.level_at(karras_sigma=level.karras_sigma)
        assert again.timestep == pytest.approx(level.timestep, rel=1e-9, abs=1e-9)
        assert again.alpha == pytest.approx(level.alpha, rel=1e-12)
        assert again.sigma == pytest.approx(level.sigma, rel=1e-12)
    low, high = schedule.level_at(timestep=20), schedule.level_at(timestep=21)
    half = schedule.level_at(timestep=20.5)
    assert half.log_snr == pytest.approx((low.log_snr + high.log_snr) / 2, rel=1e-12)


def test_the_ends_of_level_at():
    assert SD.level_at(timestep=-1) == SD.level_at(karras_sigma=0) == CLEAN
    below = SD.level_at(karras_sigma=0.01)
    assert below.timestep == 0.0 and below.karras_sigma == pytest.approx(0.01, rel=1e-12)
    assert ZERO.level_at(karras_sigma=math.inf) == NoiseLevel(999.0, 0.0, 1.0)
    for wrong in ({}, {"karras_sigma": 1.0, "timestep": 3}):
        with pytest.raises(InputError, match="exactly one"):
            SD.level_at(**wrong)
    for wrong in (-0.5, 999.5, 1000, math.nan, -2):
        with pytest.raises(InputError, match="outside 0 … 999"):
            SD.level_at(timestep=wrong)
    for wrong in (-1.0, 15.0, math.inf, math.nan):
        with pytest.raises(InputError, match="karras_sigma .* outside"):
            SD.level_at(karras_sigma=wrong)


def test_views_of_a_level():
    level = NoiseLevel(3, 0.6, 0.8)
    assert (level.karras_sigma, level.snr) == pytest.approx((0.8 / 0.6, 0.5625))
    assert level.log_snr == pytest.approx(math.log(0.5625))
    assert (CLEAN.karras_sigma, CLEAN.snr, CLEAN.log_snr) == (0.0, math.inf, math.inf)
    noise = NoiseLevel(999, 0.0, 1.0)
    assert (noise.karras_sigma, noise.snr, noise.log_snr) == (math.inf, 0.0, -math.inf)


# ---- conversions --------------------------------------------------------------------------------
PAIRS = [NoiseLevel(500, 0.6, 0.8), NoiseLevel(500, 1.0, 3.0), NoiseLevel(500, 0.25, 0.75)]


@pytest.mark.parametrize("level", PAIRS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_conversions(level, library):
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, 5))
    if library == "torch":
        torch = pytest.importorskip("torch")
        x0, eps = torch.from_numpy(x0), torch.from_numpy(eps)
    latent = level.alpha * x0 + level.sigma * eps
    wanted = {"x0": x0, "eps": eps, "v": level.alpha * eps - level.sigma * x0}
    for kind, output in wanted.items():
        for convert, right in ((to_x0, "x0"), (to_eps, "eps"), (to_v, "v")):
            got = convert(output, latent, level, kind)
            assert type(got) is type(output)
            assert np.allclose(got, wanted[right], rtol=1e-12, atol=1e-12)
    wrong = to_x0(eps, latent, level, "v")
    assert not np.allclose(wrong, x0, rtol=1e-3)


def test_conversions_at_the_ends():
    noise, x = NoiseLevel(999, 0.0, 1.0), np.ones(2)
    assert np.array_equal(to_x0(-x, x, noise, "v"), x)
    assert np.array_equal(to_eps(-x, x, noise, "v"), x)
    with pytest.raises(InputError, match="v-prediction"):
        to_x0(x, x, noise, "eps")
    with pytest.raises(InputError, match="sigma is 0"):
        to_eps(x, x, CLEAN, "x0")
    with pytest.raises(InputError, match="did you mean 'eps'"):
        to_x0(x, x, noise, "eps.")
