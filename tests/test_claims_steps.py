"""Claims about steps and samplers: on any checkpoint, on made-up runs, a few on Toyland."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from asked import finding
from PIL import Image

from diffusionlab.claims import Bench, samplers, steps
from diffusionlab.claims.pictures import bands, psnr, right, rms, scores
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.training.judge_nets import Verdict


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 2)


def with_schedule(schedule):
    return SimpleNamespace(model=SimpleNamespace(schedule=schedule))


# ---- on any checkpoint --------------------------------------------------------------------------


def test_what_no_weights_decide(tiny):
    expected = {"F2": "partly", "F3": "partly", "F8": "partly", "F27": "true", "F28": "true"}
    assert {name: finding(name, tiny).verdict for name in expected} == expected


# ---- the rule of a step --------------------------------------------------------------------------
def test_a_step_in_noise_is_the_step(tiny):
    """DDIM from 501 to 401 of Stable Diffusion's schedule: 1.24006 x - 0.29619 eps."""
    schedule = NoiseSchedule.scaled_linear()
    levels = [schedule.level_at(timestep=t) for t in (501, 401)]
    step = steps.make_plan("ddim", levels, schedule)[0]
    assert steps._in_noise(step) == pytest.approx((1.24006, -0.29619), abs=1e-5)


def test_a_schedule_that_ends_at_a_little_noise_shows(tiny):
    model = replace(tiny.model, schedule=replace(tiny.model.schedule, final="first"))
    parts = steps.the_end_is_noise_free(Bench(model, 2))
    assert parts[0].measured.value == pytest.approx(0.0291672, rel=1e-5)
    assert not parts[0].holds


def test_zero_terminal_snr_is_no_stumbling_block():
    schedule = replace(NoiseSchedule.scaled_linear(), prediction_type="v", spacing="trailing")
    bench = with_schedule(schedule.zero_terminal_snr())
    assert [part.holds for part in steps.the_noise_is_subtracted(bench)] == [
        True, False, True, False,
    ]  # fmt: skip
    assert [part.holds for part in samplers.the_gain_is_in_longer_leaps(bench)] == [False, True]


def test_numbers_that_depend_on_the_prompt_would_show(tiny):
    """A run of other levels stands for a rule that looks at the picture."""
    runs = {None: tiny.run(num_steps=4), "": tiny.run("", num_steps=4, spacing="karras")}
    bench = SimpleNamespace(run=lambda prompt=None, **settings: runs[prompt])
    assert steps.amounts_are_known_before(bench)[0].measured.value >= 3


def test_a_picture_finished_at_once_would_show(tiny):
    """Pictures that keep all their detail in one step, and are right, refute F20."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    verdict = Verdict(("car",), "city", "night", "plain", {"car": "red"})
    prompt = SimpleNamespace(kinds=("car",), colours={"car": "red"}, unseen=False,
                             caption=SimpleNamespace(atoms={"setting": "city"}))  # fmt: skip
    bench = SimpleNamespace(
        texts=["a red car in the city"] * 100, one_object=[prompt] * 100,
        pictures=lambda texts, **settings: [image] * 100, judged=lambda images: [verdict] * 100,
    )  # fmt: skip
    assert [part.holds for part in steps.not_in_one_shot(bench)] == [False, True, False]
    assert [part.holds for part in samplers.twenty_to_fifty_are_needed(bench)] == [
        True, False, False,
    ]  # fmt: skip
    assert all(right(bench, [image] * 100, [prompt] * 100))
    assert scores(bench, [image] * 100, [prompt] * 100).tolist() == [1] * 100


def test_samplers_that_do_not_differ_would_show(tiny):
    runs = tiny.traces(tiny.texts)
    bench = SimpleNamespace(texts=tiny.texts, samples=2, traces=lambda *_, **__: runs)
    assert [part.holds for part in samplers.samplers_change_the_picture(bench)] == [False] * 2
    spread = samplers.some_explore(bench)
    assert [part.holds for part in spread] == [True, False, False]


# ---- pictures ------------------------------------------------------------------------------------
def test_measures_of_pictures():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    other = Image.new("RGB", (8, 8), (151, 151, 151))  # 0.2 brighter
    assert psnr(grey, grey) == 100
    assert psnr(grey, other) == pytest.approx(20 * np.log10(5))
    assert rms(np.zeros(4), np.full(4, 3.0)) == 3


def test_bands_know_coarse_from_fine():
    places = np.arange(32) / 32
    for cycles, expected in ((1, (1.5, 0.0)), (12, (0.0, 1.5))):  # three channels of power 1/2
        wave = np.broadcast_to(np.sin(2 * np.pi * cycles * places)[None, :, None], (32, 32, 3))
        assert bands(wave) == pytest.approx(expected, abs=1e-9)


def test_few_is_a_third_and_at_least_four():
    assert [steps.few(SimpleNamespace(samples=n)) for n in (2, 4, 12, 64)] == [2, 4, 4, 21]


# ---- on Toyland ----------------------------------------------------------------------------------
def test_ten_steps_are_enough_for_toyland(toyland_bench):
    assert finding("F7", toyland_bench).verdict == "true"
