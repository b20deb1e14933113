"""Forward diffusion as numbers and as pictures: steps against the jump, waves against the noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traces
from runs_of_x0 import noising

from diffusionlab import plots
from diffusionlab.analysis.forward import noising_spectrum, small_steps
from diffusionlab.errors import InputError
from diffusionlab.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.scaled_linear()
WALK = small_steps(SCHEDULE, walkers=400)


def waves(height: int, width: int, across: int) -> np.ndarray:
    """Three channels of a cosine with `across` cycles along a row."""
    one = np.cos(2 * np.pi * across * np.arange(width) / width)
    return np.broadcast_to(one, (3, height, width)).copy()


def title(figure):
    return figure.axes[0].get_title(loc="left").replace("\n", " ")


# ---- small steps --------------------------------------------------------------------------------
def test_the_small_steps_end_where_the_jump_does():
    assert WALK.paths.shape == (1001, 400) and (WALK.paths[0] == 2.0).all()
    assert WALK.alphas[1:] == pytest.approx(SCHEDULE.alpha) and WALK.alphas[0] == 1
    assert WALK.agrees.holds and WALK.agrees.relative > 0.5
    assert WALK.means[-1] == pytest.approx(2 * SCHEDULE.alpha[-1], abs=0.2)
    assert WALK.stds[-1] == pytest.approx(SCHEDULE.sigma[-1], rel=0.15)


def test_without_noise_the_steps_are_the_jump(monkeypatch):
    class Silent:
        def standard_normal(self, count):
            return np.zeros(count)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Silent())
    walked = small_steps(SCHEDULE, start=3.0, walkers=200)
    assert walked.means[1:] == pytest.approx(3 * SCHEDULE.alpha, rel=1e-12)
    assert not walked.agrees.holds  # nothing spreads


def test_the_same_seed_walks_the_same_way():
    again, other = (small_steps(SCHEDULE, walkers=400, seed=s) for s in (0, 1))
    assert np.array_equal(again.paths, WALK.paths) and not np.array_equal(other.paths, WALK.paths)


@pytest.mark.parametrize("given", [{"walkers": 1}, {"walkers": 2.5}, {"start": float("nan")}])
def test_a_walk_that_cannot_be_made_is_refused(given):
    with pytest.raises(InputError, match="allowed"):
        small_steps(SCHEDULE, **given)


def test_the_walk_is_drawn_beside_the_jump():
    figure = plots.plot_small_steps(WALK)
    walk, ends = figure.axes[0].child_axes
    jump = next(line for line in walk.get_lines() if line.get_label().startswith("jump"))
    assert jump.get_ydata() == pytest.approx(2 * WALK.alphas)
    assert walk.get_lines()[0].get_ydata() == pytest.approx(WALK.paths[::8, 0])
    assert len(ends.get_lines()) == 4 and "1000 small steps and one jump" in title(figure)
    assert "CHECK FAILED" not in title(figure)
    wrong = replace(WALK, agrees=replace(WALK.agrees, relative=9.0))
    assert "steps and jump agree" in title(plots.plot_small_steps(wrong))


# ---- the spectrum -------------------------------------------------------------------------------
def test_white_noise_has_power_one_at_every_frequency():
    found = noising_spectrum(noising())
    noise = np.random.default_rng(0).standard_normal((4, 64, 64))
    level = noising_spectrum(replace(noising(), x0=noise)).latent.power
    assert level == pytest.approx(np.ones(32), abs=0.5)  # the lowest ring has few waves
    assert level.mean() == pytest.approx(1, abs=0.05)
    assert found.white.holds
    loud = replace(noising(), noise=noising().noise * 3)
    assert not noising_spectrum(loud).white.holds


def test_one_wave_stands_where_it_is_and_drowns_by_its_power():
    record = replace(noising(timesteps=(100, 999)), x0=waves(16, 16, 3))
    found = noising_spectrum(record).latent
    assert np.argmax(found.power) == 2 and found.power[[0, 1, 3]] == pytest.approx(0, abs=1e-12)
    members = 256 * 0.5 / found.power[2]  # of its ring; a cosine has mean square 1/2
    assert members == pytest.approx(round(members))
    assert found.floors == pytest.approx([k.karras_sigma**2 for k in record.levels])
    assert list(found.heard) == [0, 0]  # frequency 1 has no power, and counting stops there


def test_heard_counts_from_the_coarsest_on():
    picture = waves(16, 16, 1) + 0.5 * waves(16, 16, 2) + 0.01 * waves(16, 16, 4)
    record = replace(noising(timesteps=(10, 300, 999)), x0=picture)
    found = noising_spectrum(record).latent
    above = [[p > floor for p in found.power] for floor in found.floors]
    assert [row.index(False) for row in above] == list(found.heard)
    assert list(found.heard) == sorted(found.heard, reverse=True)


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(InputError, match="without levels"):
        noising_spectrum(replace(noising(), levels=()))
    with pytest.raises(InputError, match="one position"):
        noising_spectrum(replace(noising(), x0=np.zeros((4, 1, 1))))


def test_the_floors_are_lines_and_dots_are_where_they_cross():
    record = noising()
    found = noising_spectrum(record)
    figure = plots.plot_noising_spectrum(record)
    for panel, one in zip(figure.axes[0].child_axes, (found.pixels, found.latent), strict=True):
        lines = [line.get_ydata() for line in panel.get_lines()]
        assert any(len(y) == len(one.power) and y == pytest.approx(one.power) for y in lines)
        flat = {y[0] for y in lines if len(y) == 2 and y[0] == y[1]}
        assert flat == set(one.floors)
    for t, k in zip(found.timesteps, found.pixels.heard, strict=True):
        assert f"timestep {t:g}: {k} of {len(found.pixels.power)} in pixels" in figure.alt
    loud = plots.plot_noising_spectrum(replace(record, noise=record.noise * 3))
    assert "the noise is white" in title(loud)
    pure = replace(traces.schedule(), prediction_type="v").zero_terminal_snr()
    last = (*record.levels[:-1], pure.level_at(timestep=999))
    nothing_left = plots.plot_noising_spectrum(replace(record, levels=last))
    assert "timestep 999: 0 of 32 in pixels" in nothing_left.alt and nothing_left.to_png()
