"""The spacings of karras_sigma and of snr, lists of one's own, and the levels of a flow."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from diffusionlab.errors import InputError
from diffusionlab.schedule import CLEAN, FINALS, NoiseLevel, NoiseSchedule
from diffusionlab.spacings import (
    AYS_SD1,
    AYS_SDXL,
    SPACINGS,
    beta_quantile,
    custom_spacing,
    flow_levels,
)

SD = NoiseSchedule.scaled_linear()
ZERO = NoiseSchedule.scaled_linear(prediction_type="v").zero_terminal_snr()
OPEN = ("leading_dpm", "linspace_dpm")  # n + 1 whole timesteps without the last
NEW = [n for n in SPACINGS if n not in ("leading", "trailing", "linspace", "lcm", *OPEN)]


def sigmas(levels):
    return np.array([level.karras_sigma for level in levels])


def check_levels(levels, length):
    """Finite pairs, strictly decreasing, the right number of them."""
    assert len(levels) == length
    assert all(math.isfinite(v) for x in levels for v in (x.timestep, x.alpha, x.sigma))
    assert all(b.karras_sigma < a.karras_sigma for a, b in pairwise(levels))


# ---- what each spacing is -----------------------------------------------------------------------
PUBLISHED = {
    "karras": [14.615, 9.103, 5.478, 3.169, 1.749, 0.914, 0.447, 0.201, 0.082, 0.029],
    "exponential": [14.615, 7.325, 3.671, 1.840, 0.922, 0.462, 0.232, 0.116, 0.058, 0.029],
}


@pytest.mark.parametrize("spacing", list(PUBLISHED))
def test_ten_levels_of_stable_diffusion(spacing):
    found = sigmas(SD.levels(10, spacing, "none"))
    assert found == pytest.approx(PUBLISHED[spacing], abs=6e-4)
    with pytest.raises(AssertionError):  # the check can fail
        assert sigmas(SD.levels(10, "beta", "none")) == pytest.approx(PUBLISHED[spacing], abs=6e-4)


def test_exponential_is_uniform_in_log_snr_and_has_both_names():
    steps = np.diff([level.log_snr for level in SD.levels(20, "exponential", "none")])
    assert np.allclose(steps, steps[0], rtol=1e-10) and steps[0] > 0
    assert SD.levels(20, "uniform_log_snr") == SD.levels(20, "exponential")


def test_snr_uniform_is_uniform_in_snr():
    for schedule in (SD, ZERO):
        steps = np.diff([level.snr for level in schedule.levels(20, "snr_uniform", "none")])
        assert np.allclose(steps, steps[0], rtol=1e-9) and steps[0] > 0


def test_karras_is_uniform_in_the_seventh_root():
    steps = np.diff(sigmas(SD.levels(20, "karras", "none")) ** (1 / 7))
    assert np.allclose(steps, steps[0], rtol=1e-9)


def test_align_your_steps_are_its_lists_and_their_interpolation():
    for name, known in (("ays", AYS_SD1), ("ays_sdxl", AYS_SDXL)):
        assert [level.timestep for level in SD.levels(10, name)] == [*known, -1]
        fine = sigmas(SD.levels(19, name, "none"))  # every second one is one of the ten
        ten = sigmas(SD.levels(10, name, "none"))
        assert fine[::2] == pytest.approx(ten, rel=1e-12)
        assert fine[1::2] == pytest.approx(np.sqrt(ten[1:] * ten[:-1]), rel=1e-12)


@pytest.mark.parametrize("share, x", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_the_quantile_of_the_beta_distribution_at_its_middle_and_ends(share, x):
    assert beta_quantile(np.array([share])) == pytest.approx([x], abs=1e-15)


def test_the_quantile_inverts_the_distribution():
    places = np.linspace(0, 1, 401)
    assert beta_quantile(places, 1.0) == pytest.approx(places, abs=1e-14)  # the uniform one
    arcsine = np.sin(np.pi * places / 2) ** 2
    assert beta_quantile(places, 0.5) == pytest.approx(arcsine, rel=1e-12, abs=1e-15)
    special = pytest.importorskip("scipy.special")
    assert beta_quantile(places) == pytest.approx(special.betaincinv(0.6, 0.6, places), rel=1e-12)


@pytest.mark.parametrize("spacing, option", [("karras", "use_karras_sigmas"),
                                             ("exponential", "use_exponential_sigmas"),
                                             ("beta", "use_beta_sigmas")])  # fmt: skip
def test_the_levels_equal_diffusers(spacing, option):
    diffusers = pytest.importorskip("diffusers")
    for num_steps in (4, 10, 20, 50):
        theirs = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **{option: True}
        )
        theirs.set_timesteps(num_steps)
        ours = sigmas(SD.levels(num_steps, spacing))
        assert ours == pytest.approx(theirs.sigmas.numpy(), rel=1e-4, abs=1e-9)


def test_align_your_steps_equal_diffusers_lists():
    schedules = pytest.importorskip("diffusers.schedulers").AysSchedules
    assert list(AYS_SD1) == schedules["StableDiffusionTimesteps"]
    assert list(AYS_SDXL) == schedules["StableDiffusionXLTimesteps"]


# ---- every number of steps ----------------------------------------------------------------------
@pytest.mark.parametrize("schedule", [SD, ZERO], ids=["sd", "zero"])
@pytest.mark.parametrize("spacing", list(SPACINGS))
def test_numbers_of_steps(spacing, schedule):
    most = {"lcm": 50, **dict.fromkeys(OPEN, 999)}.get(spacing, 1000)
    for num_steps in [n for n in [*range(1, 18), 50, 61, 103, 999, 1000] if n <= most]:
        levels = schedule.levels(num_steps, spacing)
        check_levels(levels, num_steps + 1)
        assert levels[-1] == CLEAN
        if "leading" not in spacing:
            assert levels[0] == schedule.level_at(timestep=999)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [SD, ZERO], ids=["sd", "zero"])
@pytest.mark.parametrize("spacing", list(SPACINGS))
def test_every_number_of_steps(spacing, schedule):
    most = {"lcm": 50, **dict.fromkeys(OPEN, 999)}.get(spacing, 1000)
    for num_steps in range(1, most + 1):
        check_levels(schedule.levels(num_steps, spacing, "none"), num_steps)


@pytest.mark.parametrize("spacing", NEW)
def test_the_end_is_a_choice(spacing):
    for schedule in (SD, ZERO):
        found = {final: schedule.levels(8, spacing, final) for final in FINALS}
        first = schedule.level_at(timestep=0)
        coincides = not spacing.startswith("ays")  # these end at the table's first entry already
        assert found["clean"] == (*found["none"], CLEAN)
        assert found["first"] == (*found["none"], *([] if coincides else [first]))
        assert found["first"][-1] == first


@pytest.mark.parametrize("spacing", NEW)
def test_short_tables(spacing):
    for total in (1, 2, 3, 7, 50):
        short = NoiseSchedule.scaled_linear(num_train_steps=total, prediction_type="v")
        for num_steps in range(1, total + 1):
            check_levels(short.levels(num_steps, spacing), num_steps + 1)
        if total > 2:
            zero = short.zero_terminal_snr()
            for num_steps in range(1, total + 1):
                check_levels(zero.levels(num_steps, spacing), num_steps + 1)
    assert len(NoiseSchedule((1.0,), prediction_type="v").levels(1, spacing)) == 2


def test_a_spacing_that_a_config_cannot_say_is_refused_there():
    for spacing in ("ays", "snr_uniform"):
        with pytest.raises(InputError, match="scheduler_config"):
            NoiseSchedule.scaled_linear(spacing=spacing).to_config()
    assert NoiseSchedule.scaled_linear(spacing="karras").levels(5) == SD.levels(5, "karras")


# ---- what configs of single classes ask for -----------------------------------------------------
def times(levels):
    return [level.timestep for level in levels]


def test_lcm_takes_some_of_the_distilled_timesteps():
    assert times(SD.levels(4, "lcm", "none")) == [999, 759, 499, 259]
    assert times(SD.levels(50, "lcm", "none")) == [20 * k - 1 for k in range(50, 0, -1)]
    few = NoiseSchedule.scaled_linear(original_steps=10)
    assert times(few.levels(3, "lcm", "none")) == [999, 699, 399]
    for schedule, most in ((SD, 50), (few, 10)):
        with pytest.raises(InputError, match=rf"{most} steps that this model.*use 1 to {most}"):
            schedule.levels(most + 1, "lcm")


def test_the_open_spacings_leave_the_last_stride_to_the_clean_level():
    assert times(SD.levels(4, "linspace_dpm")) == [999, 749, 500, 250, -1]
    assert times(SD.levels(4, "leading_dpm")) == [800, 600, 400, 200, -1]
    assert len(SD.levels(1000, "linspace_dpm")) < 1001  # whole timesteps coincide there


def test_a_spacing_within_another():
    for base in ("leading", "trailing"):
        outer, inner = (SD.levels(12, name, "none") for name in (base, f"karras in {base}"))
        assert [inner[0], inner[-1]] == [outer[0], outer[-1]]
        steps = np.diff(sigmas(inner) ** (1 / 7))
        assert np.allclose(steps, steps[0], rtol=1e-9)
        assert sigmas(ZERO.levels(6, f"beta in {base}"))[1] < np.inf
    assert len(SD.levels(1, "beta in leading", "none")) == 1
    with pytest.raises(InputError, match="unknown"):
        SD.levels(5, "karras in linspace")


# ---- lists of one's own -------------------------------------------------------------------------
def test_a_list_of_timesteps():
    levels = SD.levels(timesteps=[999, 500.5, 3])
    assert [level.timestep for level in levels] == [999, 500.5, 3, -1]
    assert SD.levels(timesteps=[999, 500.5, 3, -1]) == levels
    assert SD.levels(3, timesteps=np.array([999, 500.5, 3])) == levels
    assert len(SD.levels(timesteps=(999, 500.5, 3), final="none")) == 3
    assert SD.levels(timesteps=AYS_SD1) == SD.levels(10, "ays")
    assert ZERO.levels(timesteps=[999])[0].alpha == 0.0


def test_a_list_of_karras_sigmas():
    levels = SD.levels(karras_sigmas=[10, 1, 0.01])
    assert sigmas(levels) == pytest.approx([10, 1, 0.01, 0], rel=1e-12)
    assert SD.levels(karras_sigmas=[10, 1, 0.01, 0]) == levels
    assert sigmas(SD.levels(karras_sigmas=[10, 1], final="first"))[-1] == SD.karras_sigma[0]


def test_a_list_is_kept_as_text_that_reads_back():
    text = custom_spacing(timesteps=range(900, 0, -300))
    assert text == "custom timesteps [900.0, 600.0, 300.0]"
    assert SD.levels(3, json.loads(json.dumps(text))) == SD.levels(timesteps=[900, 600, 300])
    other = custom_spacing(karras_sigmas=[5, 1 / 3])
    assert SD.levels(2, other) == SD.levels(karras_sigmas=[5, 1 / 3])
    own = NoiseSchedule.scaled_linear(spacing=text)
    assert own.levels() == own.levels(3) == SD.levels(3, text)


@pytest.mark.parametrize("bad", [[], [3, 999], [500, 500], [999.5, 3], [1000], [-2], [5, -1, -1],
                                 [500, -0.5], [500, math.nan], [math.inf, 3], ["a"], "999", 5,
                                 [True], [None], [[9, 3]], [10**400], [-1]])  # fmt: skip
def test_bad_timesteps(bad):
    with pytest.raises(InputError, match="timestep") as error:
        SD.levels(timesteps=bad)
    assert len(str(error.value)) < 350


@pytest.mark.parametrize("bad", [[], [0.1, 1], [1, 1], [15], [1, -1], [math.inf, 1], [0], [1, 0, 0],
                                 [math.nan], ["b"], {}])  # fmt: skip
def test_bad_karras_sigmas(bad):
    with pytest.raises(InputError, match="karras_sigma"):
        SD.levels(karras_sigmas=bad)


def test_other_bad_custom_lists():
    for wrong in ({}, {"timesteps": [3], "karras_sigmas": [3]}):
        with pytest.raises(InputError, match="exactly one"):
            custom_spacing(**wrong)
    for text in ("custom", "custom timesteps", "custom timesteps [3, 2", "custom alphas [3]"):
        with pytest.raises(InputError, match="custom_spacing"):
            SD.levels(1, text)
        with pytest.raises(InputError, match="custom_spacing"):
            NoiseSchedule.scaled_linear(spacing=text)
    with pytest.raises(InputError, match="custom list of 2 steps.*num_steps=2"):
        SD.levels(20, custom_spacing(timesteps=[9, 3]))
    with pytest.raises(InputError, match="beside a list"):
        SD.levels(spacing="karras", timesteps=[9, 3])
    with pytest.raises(InputError, match="num_steps must be an integer"):
        SD.levels(spacing="karras")
    with pytest.raises(InputError, match="did you mean 'karras'"):
        SD.levels(5, "Karras")


# ---- rectified flow -----------------------------------------------------------------------------
def test_flow_levels():
    levels = flow_levels(4)
    assert [level.sigma for level in levels] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [level.timestep for level in levels] == [1000, 750, 500, 250, -1]
    assert all(level.alpha == 1 - level.sigma for level in levels)
    assert flow_levels(4, final="none") == levels[:-1]
    assert flow_levels(1) == (NoiseLevel(1000.0, 0.0, 1.0), CLEAN)


@pytest.mark.parametrize("shift", [0.25, 1, 3.0, 1000.0])
def test_the_shift_is_applied_once_and_multiplies_karras_sigma(shift):
    for num_steps in (1, 2, 10, 1000):
        levels = flow_levels(num_steps, shift)
        check_levels(levels, num_steps + 1)
        wanted = shift * sigmas(flow_levels(num_steps))[1:]
        assert sigmas(levels)[1:] == pytest.approx(wanted, rel=1e-11)
        assert levels[0].alpha == 0.0 and levels[-1] == CLEAN


BAD_SHIFTS = [(4, 0), (4, -1), (4, math.nan), (4, math.inf), (4, "3"), (4, True)]


@pytest.mark.parametrize("num_steps, shift", [(0, 1), (2.5, 1), (10**9, 1), *BAD_SHIFTS])
def test_bad_flow_levels(num_steps, shift):
    with pytest.raises(InputError, match="num_steps|shift"):
        flow_levels(num_steps, shift)
