"""The pictures of the samplers' lab, each on a record whose answer is known.

Their contract (own Axes, alt text, large type, untouched records) is tested in test_plots.py, which
takes the `RECORDS` of this file.
"""

from __future__ import annotations

import math
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import traces

from diffusionlab import plots
from diffusionlab.analysis.bands import band_shares
from diffusionlab.analysis.convergence import Convergence, grid_levels, third_order_twice
from diffusionlab.analysis.ladder import step_ladder
from diffusionlab.errors import InputError
from diffusionlab.ideal import MixtureWorld
from diffusionlab.plan import PlannedStep, Stage, Term, Update, denoise
from diffusionlab.plots.samplers import weights
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import CLEAN, NoiseLevel, NoiseSchedule
from diffusionlab.trace import Comparison

SD = traces.schedule()
ZERO = replace(SD, prediction_type="v").zero_terminal_snr()
LEVELS = SD.levels(6, "trailing", "clean")
PLANS = {name: make_plan(name, LEVELS, SD) for name in ("heun", "lms", "dpmpp_2m_sde")}
SPACED = {name: SD.levels(20, name) for name in ("trailing", "karras")}
SPACED["zero SNR"] = ZERO.levels(20, "trailing")
WORLD = MixtureWorld([[2.0, 0.0], [-1.0, 1.6], [-1.0, -1.6]], 0.03)
START = np.random.default_rng(3).standard_normal((5, 2))


def walked(sampler, num_steps):
    plan = make_plan(sampler, grid_levels("uniform", num_steps), None)
    return list(denoise(plan, START, WORLD.predict, None))


PATHS = {"euler": walked("euler", 6), "heun": walked("heun", 8)}
POWERS = [
    Convergence(f"order {p}", "uniform", (8, 16, 32), (16, 32, 64), (8.0**-p, 16.0**-p, 32.0**-p))
    for p in (1, 2)
]
RUNS = Comparison("sampler and num_steps", ("a · 3", "a · 6", "b · 3", "b · 6"),
                  tuple(traces.trace(n) for n in (3, 6, 3, 6)))  # fmt: skip
LADDER = step_ladder(traces.trace(6), [traces.trace(k) for k in (1, 2, 4)])
RECORDS = {
    "plot_coefficients": PLANS,
    "plot_convergence": POWERS,
    "plot_difference": RUNS,
    "plot_paths": PATHS,
    "plot_sampler_grid": RUNS,
    "plot_spacings": SPACED,
    "plot_step_ladder": LADDER,
}


def texts(figure):
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def panels(figure):
    return {panel.get_label(): panel for panel in figure.axes[0].child_axes}


# ---- coefficients -------------------------------------------------------------------------------
def test_weights_count_calls_from_the_newest_one():
    s, t = NoiseLevel(9, 0.6, 0.8), NoiseLevel(3, 0.8, 0.6)
    two = (Stage(s), Stage(t))
    terms = (Term("x0", 0, 0.1), Term("x0", 1, 0.2), Term("x0", 2, 0.3), Term("x0", 3, 0.4),
             Term("eps", 2, -0.5))  # fmt: skip
    update = Update(0.7, terms, ((0, 0.3), (1, 0.4)))
    plan = (PlannedStep(s, t, two, Update()), PlannedStep(s, t, two, update, ((s, t), (s, t))))
    assert weights(plan, 1) == pytest.approx(
        {"x_t": 0.7, "x0, newest call": 0.4, "x0, 1 call earlier": 0.3,
         "x0, 2 or more earlier": 0.3, "eps, 1 call earlier": -0.5, "noise": 0.5}, rel=1e-12,
    )  # fmt: skip
    assert weights(plan, 0) == {"x_t": 1.0}


def test_the_bars_are_the_coefficients():
    figure = plots.plot_coefficients(PLANS)
    assert list(panels(figure)) == list(PLANS)
    for name, panel in panels(figure).items():
        drawn = {bars.get_label(): [bar.get_height() for bar in bars] for bars in panel.containers}
        for index in range(6):
            found = {kind: heights[index] for kind, heights in drawn.items() if heights[index]}
            assert found == weights(PLANS[name], index)
    assert "CHECK FAILED" not in texts(figure)
    single = plots.plot_coefficients(PLANS["heun"])
    assert len(panels(single)) == 1
    wrong = list(PLANS["heun"])
    wrong[2] = replace(wrong[2], update=replace(wrong[2].update, a=1.5))
    assert "CHECK FAILED" in texts(plots.plot_coefficients({"heun": tuple(wrong)}))


def test_nothing_to_draw_is_an_error():
    for plot, record in (("plot_coefficients", {}), ("plot_coefficients", ()), ("plot_paths", {}),
                         ("plot_spacings", {}), ("plot_convergence", []),
                         ("plot_sampler_grid", Comparison("seed", (), ())),
                         ("plot_difference", traces.trace(3))):  # fmt: skip
        with pytest.raises(InputError, match="give|at least one"):
            getattr(plots, plot)(record)
    with pytest.raises(InputError, match="'steps' or 'calls'"):
        plots.plot_convergence(POWERS, by="time")


# ---- spacings -----------------------------------------------------------------------------------
def test_shares_of_steps_per_band():
    sigmas = (10, 5, 4.9, 1, 0.5, 0.2, 0.1, 0.05)
    levels = [NoiseLevel(0, 1.0, sigma) for sigma in sigmas] + [CLEAN]
    assert band_shares(levels) == (2 / 8, 2 / 8, 2 / 8, 2 / 8)
    assert band_shares(levels[:4], (4.95,)) == pytest.approx((2 / 3, 1 / 3), rel=1e-12)
    assert band_shares(ZERO.levels(2, "trailing"))[0] == 0.5  # pure noise counts
    for bad in ((1.0, 5.0), (0.0,), (math.nan,)):
        with pytest.raises(InputError, match="edges"):
            band_shares(levels, bad)
    with pytest.raises(InputError, match="two"):
        band_shares(levels[:1])


def test_spacings_lie_at_their_log_snr():
    figure = plots.plot_spacings(SPACED)
    axes = figure.axes[0]
    rows = {}
    for line in axes.get_lines():
        if line.get_marker() in ("o", "<"):
            rows.setdefault(line.get_ydata()[0], {})[line.get_marker()] = line.get_xdata()
    for place, levels in enumerate(SPACED.values()):
        finite = [x.log_snr for x in levels if math.isfinite(x.log_snr)]
        assert list(rows[-place]["o"]) == finite
        shown = [t.get_text() for t in axes.texts if abs(t.get_position()[1] + place - 0.34) < 1e-9]
        assert shown == [f"{share:.0%}" for share in band_shares(levels)]
    assert "<" in rows[-2] and "<" not in rows[0]  # pure noise has a mark of its own
    assert [t.get_text() for t in axes.get_yticklabels()][0] == "trailing, 20 steps"
    assert "karras 25%, 30%, 20%, 25%" in figure.alt


def test_a_start_far_out_does_not_squeeze_the_others():
    cosine = NoiseSchedule.cosine().levels(20, "trailing")
    far = [x.log_snr for x in cosine if x.log_snr < -12]
    axes = plots.plot_spacings(SPACED | {"cosine": cosine}).axes[0]
    assert len(far) == 1 and axes.get_xlim()[0] > -12.8
    hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == "white"]
    assert [(line.get_marker(), line.get_ydata()[0]) for line in hollow] == [("<", -len(SPACED))]
    assert f"{far[0]:.3g}" in [text.get_text() for text in axes.texts]


# ---- convergence --------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["steps", "calls"])
def test_convergence_lines_and_their_slopes(by):
    figure = plots.plot_convergence(POWERS, by=by)
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    for result in POWERS:
        counts = result.num_steps if by == "steps" else result.network_calls
        assert list(lines[result.label].get_xdata()) == list(counts)
        assert list(lines[result.label].get_ydata()) == list(result.errors)
        assert f"{result.label}: last slope {result.label[-1]}.00" in texts(figure)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert "slope 1 " in texts(figure) and "slope 3" not in texts(figure)
    assert ("network calls" in axes.get_xlabel()) == (by == "calls")


def test_an_error_that_is_rounding_has_no_slope():
    result = Convergence("exact", "uniform", (8, 16), (8, 16), (1e-15, 1e-16))
    assert "exact: no slope" in plots.plot_convergence(result).alt


def test_labels_of_lines_that_end_together_do_not_touch():
    same = [replace(POWERS[0], label=f"rule {i}") for i in range(6)]
    axes = plots.plot_convergence(same).axes[0]
    at = sorted(math.log10(t.get_position()[1]) for t in axes.texts if "rule" in t.get_text())
    low, high = np.log10(axes.get_ylim())
    assert len(at) == 6 and min(np.diff(at)) > 0.04 * (high - low)


def test_the_figure_of_the_two_third_order_rules():
    figure = plots.plot_convergence(third_order_twice((16, 32, 64)))
    slopes = {name: float(figure.alt.split(f"dpmpp_3m_{name}: last slope ")[1][:4])
              for name in ("corrected", "shipped")}  # fmt: skip
    assert 2.7 <= slopes["corrected"] <= 3.6 and 1.8 <= slopes["shipped"] <= 2.4


# ---- paths --------------------------------------------------------------------------------------
def test_paths_are_drawn_over_the_exact_flow():
    exact = walked("heun", 64)
    figure = plots.plot_paths(PATHS, exact=exact, world=WORLD)
    ends = {name: steps[-1].next_latent for name, steps in PATHS.items()}
    for name, panel in panels(figure).items():
        drawn = [line.get_xydata() for line in panel.get_lines()]
        for point in range(5):
            path = [step.latent[point] for step in PATHS[name]] + [ends[name][point]]
            assert any(np.array_equal(line, path) for line in drawn)
            truth = [step.latent[point] for step in exact] + [exact[-1].next_latent[point]]
            assert any(np.array_equal(line, truth) for line in drawn)
        off = np.median(np.linalg.norm(ends[name] - exact[-1].next_latent, axis=1))
        assert f"off by {off:.2g}" in texts(panel) and panel.collections
    assert "heun: 8 steps, 16 calls" in texts(figure)
    bare = plots.plot_paths(PATHS)
    assert "off by" not in texts(bare) and "exact" not in texts(bare)
    assert len(panels(bare)["euler"].get_lines()) == 5 + 2


def test_paths_need_a_plane_and_name_what_is_not_finite():
    plan = make_plan("euler", grid_levels("uniform", 3), None)
    line = list(denoise(plan, START[:, 0], MixtureWorld([1.0, -1.0]).predict, None))
    with pytest.raises(InputError, match=r"latents \(5,\)"):
        plots.plot_paths({"line": line})
    spoilt = [*PATHS["euler"][:-1],
              replace(PATHS["euler"][-1], next_latent=np.full((5, 2), np.nan))]  # fmt: skip
    assert "10 of 70 values are NaN" in texts(plots.plot_paths({"euler": spoilt}))


# ---- comparisons --------------------------------------------------------------------------------
def test_the_grid_shows_every_run_as_a_table():
    figure = plots.plot_sampler_grid(RUNS)
    images = figure.axes[0].images
    assert len(images) == 4
    assert np.array_equal(images[2].get_array(), np.asarray(RUNS.traces[2].image))
    corners = [image.get_extent()[0] for image in images]
    assert corners[0] == corners[2] < corners[1] == corners[3]  # two columns: 3 and 6
    assert "b · 6\n6 steps, 6 calls" in texts(figure)
    imageless = replace(RUNS, traces=tuple(replace(t, image=None) for t in RUNS.traces))
    shown = plots.plot_sampler_grid(imageless).axes[0].images[0].get_array()
    assert np.array_equal(shown, RUNS.traces[0].preview.rgb(RUNS.traces[0].latents[-1]))


def test_the_ladder_shows_three_rows():
    figure = plots.plot_step_ladder(LADDER)
    images, preview = figure.axes[0].images, LADDER.preview
    assert len(images) == 9
    for n, rung in enumerate(LADDER.rungs):
        for row, values in enumerate((rung.stopped, rung.x0, rung.finished)):
            assert np.array_equal(images[3 * row + n].get_array(), preview.rgb(values))
        assert f"σ̂ {rung.karras_sigma:.3g} left" in texts(figure)
        assert f"k = {rung.num_steps}" in texts(figure)
    pixels = tuple(replace(rung, stopped_image=rung.finished_image) for rung in LADDER.rungs)
    images = plots.plot_step_ladder(replace(LADDER, rungs=pixels)).axes[0].images
    for n, rung in enumerate(pixels):
        assert np.array_equal(images[3 + n].get_array(), np.asarray(rung.x0_image))
        assert np.array_equal(images[6 + n].get_array(), np.asarray(rung.finished_image))
    assert "CHECK FAILED" not in texts(figure)
    off = replace(LADDER, start=replace(LADDER.start, relative=1.0))
    assert "CHECK FAILED" in texts(plots.plot_step_ladder(off))


def test_the_difference_of_two_runs():
    a, b = traces.trace(6), traces.trace(3)
    moved = b.steps[-1].next_latent + np.float32(0.5)
    b = replace(b, steps=(*b.steps[:-1], replace(b.steps[-1], next_latent=moved)), image=None)
    figure = plots.plot_difference(a, b)
    curve = panels(figure)["difference"].get_lines()[0]
    size = np.sqrt((np.mean(a.latents[-1] ** 2) + np.mean(moved**2)) / 2)
    assert curve.get_ydata() == pytest.approx([0, 0, 0, 0.5 / size], rel=1e-5, abs=1e-5)
    assert "steps 6 and 3 on" in texts(figure)
    images = panels(figure)["pictures"].images
    assert len(images) == 3 and np.allclose(images[2].get_array(), 0.5, rtol=1e-5)
    same = plots.plot_difference(a, a)
    assert "stay within 5%" in texts(same)
    assert not panels(same)["pictures"].images[2].get_array().any()
