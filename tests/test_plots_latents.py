"""The pictures of latents, paths, the autoencoder and noising, each on a record known by hand.

Their contract (own Axes, alt text, large type, untouched records) is tested in test_plots.py, which
takes the `RECORDS` of this file.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import traces
from runs_of_x0 import SHAPE, noising, run_of, wave
from test_latents import END, LATENT, PICTURE, decided_at, decode, encode, spoilt, waves_from

from diffusionlab import plots
from diffusionlab.analysis.autoencoder import Edit, latent_edits, roundtrip
from diffusionlab.analysis.forward import small_steps
from diffusionlab.analysis.latents import Residual, normality
from diffusionlab.errors import InputError
from diffusionlab.images import Preview
from diffusionlab.plots.figure import colour
from diffusionlab.trace import Latent

STEPS = np.arange(48).reshape(6, 8) % 5
RUN = run_of(decided_at(STEPS))
WAVES = run_of(waves_from((1, 2, 4, 6)))
NOISING = noising()
EDITS = latent_edits(LATENT, decode)
RECORDS = {
    "plot_changes": RUN,
    "plot_commitment": RUN,
    "plot_filmstrip": RUN,
    "plot_latent_edits": EDITS,
    "plot_latent_histogram": Latent(END, made_by="draw_noise"),
    "plot_noising": NOISING,
    "plot_noising_curve": NOISING,
    "plot_noising_spectrum": NOISING,
    "plot_preview_fit": traces.preview(),
    "plot_roundtrip": roundtrip(PICTURE, encode, decode),
    "plot_similarity_to_final": RUN,
    "plot_small_steps": small_steps(traces.schedule(), walkers=50),
    "plot_spectrum": WAVES,
    "plot_trajectory": RUN,
}
OF_A_RUN = ("plot_changes", "plot_commitment", "plot_filmstrip", "plot_similarity_to_final",
            "plot_spectrum", "plot_trajectory")  # fmt: skip


def texts(figure):
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def title(figure):
    return figure.axes[0].get_title(loc="left").replace("\n", " ")


def shade(figure):
    """The colour of the title."""
    told = figure.axes[0].get_title(loc="left")
    return next(t.get_color() for t in figure.findobj(matplotlib.text.Text)
                if t.get_text() == told)  # fmt: skip


def panels(figure):
    return figure.axes[0].child_axes


# ---- every plot of a run ------------------------------------------------------------------------
@pytest.mark.parametrize("name", OF_A_RUN)
@pytest.mark.parametrize("part", ["latent", "next_latent", "cond"])
def test_a_path_that_was_tampered_with_is_red(name, part):
    good = getattr(plots, name)(RUN)
    assert "CHECK FAILED" not in title(good) and shade(good) != colour("vermilion")
    step = RUN.steps[1]
    call = step.predictions[0]
    mirrored = {
        "latent": {"latent": step.latent[..., ::-1]},
        "next_latent": {"next_latent": step.next_latent[..., ::-1]},
        "cond": {"predictions": (replace(call, cond=call.cond[..., ::-1]),)},
    }[part]
    steps = (RUN.steps[0], replace(step, **mirrored), *RUN.steps[2:])
    bad = getattr(plots, name)(replace(RUN, steps=steps))
    assert "CHECK FAILED: off by" in title(bad) and shade(bad) == colour("vermilion")
    assert "(step 1 replayed)" in title(bad) or "(step 1 begins" in title(bad)


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_stopped_run_says_so_and_a_finished_one_does_not(name):
    stopped = plot_of(name, run_of(decided_at(STEPS), stopped=3))
    assert "stopped after 3 of 6 steps" in title(stopped) and "stopped" not in title(
        plot_of(name, RUN)
    )
    steps = RUN.steps[:-1]
    noisy = replace(RUN, steps=steps, settings=replace(RUN.settings, num_steps=5))
    left = f"the run ends at karras_sigma {RUN.karras_sigmas[5]:.2g}"
    shown = [texts(plot_of(name, replace(noisy, image=image))) for image in (RUN.image, None)]
    assert not any("stopped" in told for told in shown)
    if name in ("plot_commitment", "plot_similarity_to_final", "plot_spectrum"):
        assert all(left in told for told in shown)
        assert "the last x0-hat" in texts(stopped)


def plot_of(name, run):
    return getattr(plots, name)(run)


@pytest.mark.parametrize("name", OF_A_RUN)
@pytest.mark.parametrize("where", [3, -1])
def test_nan_is_told_and_nothing_breaks(name, where):
    x0 = RUN.x0s[where].copy()
    x0[0, 1, 2] = np.nan
    run = spoilt(RUN, where, x0=x0)
    if where == -1:
        steps = (*run.steps[:-1], replace(run.steps[-1], next_latent=x0))
        run = replace(run, steps=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = getattr(plots, name)(run)
        figure.to_png()
    assert "NaN or infinite" in title(figure) and shade(figure) == colour("vermilion")


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_stopped_run_without_a_picture_or_a_map_is_drawn(name):
    run = run_of(decided_at(STEPS), stopped=4, preview=None, tokens=None)
    figure = getattr(plots, name)(run)
    figure.to_png()
    assert "CHECK FAILED" not in title(figure)


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_run_without_predictions_says_how_to_record_them(name):
    bare = replace(RUN, steps=tuple(replace(step, predictions=()) for step in RUN.steps))
    with pytest.raises(InputError, match=r'record=\("predictions",\)'):
        getattr(plots, name)(bare)
    with pytest.raises(InputError, match="stopped before the first"):
        getattr(plots, name)(replace(RUN, steps=()))


def test_titles_stay_on_the_page():
    for plot, record in (("plot_noising", replace(NOISING, latents=NOISING.latents * 1.1)),
                         ("plot_commitment", spoilt(RUN, 1, x0=RUN.x0s[1] * 1.1))):  # fmt: skip
        figure = getattr(plots, plot)(record)
        figure.to_png()
        told = next(t for t in figure.findobj(matplotlib.text.Text)
                    if t.get_text() == figure.axes[0].get_title(loc="left"))  # fmt: skip
        assert "\n" in told.get_text()
        assert told.get_window_extent().x1 <= figure.bbox.width


# ---- values -------------------------------------------------------------------------------------
def test_the_histogram_is_beside_the_bell():
    figure = plots.plot_latent_histogram(Latent(END))
    found = normality(END)
    assert len(panels(figure)) == 4 and str(found) in title(figure)
    for i, panel in enumerate(panels(figure)):
        assert [bar.get_height() for bar in panel.patches] == pytest.approx(found.densities[i])
        x, y = panel.get_lines()[0].get_data()
        assert y == pytest.approx(np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))
        mean = f"mean {found.means[i]:+.2f}".replace("-", "−")
        assert mean in texts(panel) and f"distance {found.distances[i]:.2f}" in texts(panel)
    assert "is not N(0, 1)" in title(plots.plot_latent_histogram(Latent(END + 3)))


def test_the_histogram_of_a_run_takes_a_step():
    for step in (0, 4, 6):
        told = title(plots.plot_latent_histogram(RUN, step=step))
        assert str(normality(RUN.latents[step])) in told
        assert told.startswith("the end" if step == 6 else f"x_t at step {step}")
    for step in (7, -1, 1.5, True):
        with pytest.raises(InputError, match=r"0 to 6 are allowed in this run \(6 is its end\)"):
            plots.plot_latent_histogram(RUN, step=step)
    values = END.copy()
    values[0] = np.nan
    figure = plots.plot_latent_histogram(Latent(values))
    figure.to_png()
    assert "48 of 192 values are NaN" in title(figure)
    many = plots.plot_latent_histogram(Latent(np.repeat(END, 4, axis=0)))
    assert len(panels(many)) == 16


def test_the_map_is_drawn_with_its_numbers():
    record = traces.preview()
    table, ramps, bars = panels(plots.plot_preview_fit(record))
    drawn = table.images[0]
    assert np.array_equal(drawn.get_array(), np.column_stack([record.weight, record.bias]))
    assert drawn.get_clim() == (-0.5, 0.5) and "+0.250" in texts(table)
    ramp = np.asarray(ramps.images[0].get_array())
    assert ramp.shape == (4, 33, 3)
    middle, end = record.rgb(np.zeros((4, 1, 1)))[0, 0], ramp[0, -1]
    assert (ramp[:, 16] == middle).all() and end.tolist() == [255, 128, 128]  # 0.5 + 0.25 · 2
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([0.9, 0.8, 0.7])


def test_a_map_that_cannot_be_says_so():
    record = traces.preview()
    wrong = Preview(record.weight, record.bias, np.array([1.2, 0.8, 0.7]))
    assert "R² 1.2 is above 1" in title(plots.plot_preview_fit(wrong))
    broken = Preview(record.weight * np.nan, record.bias, record.r2)
    figure = plots.plot_preview_fit(broken)
    figure.to_png()
    assert "12 of 18 values are NaN" in title(figure) and shade(figure) == colour("vermilion")


# ---- the autoencoder ----------------------------------------------------------------------------
def test_the_roundtrip_shows_what_changed_and_where():
    record = RECORDS["plot_roundtrip"]
    figure = plots.plot_roundtrip(record)
    before, after, off, curve = panels(figure)
    assert np.array_equal(before.images[0].get_array(), record.before)
    assert np.array_equal(after.images[0].get_array(), record.after)
    assert np.array_equal(off.images[0].get_array(), record.residual.mean(axis=2))
    low, high = off.images[0].get_clim()
    assert low == -high and f"cut at ±{high:.2g}" in texts(off)
    squares = [(p.get_y() + 0.5, p.get_x() + 0.5) for p in off.patches]
    assert squares == [(top, left) for top, left, _ in record.worst]
    assert curve.get_lines()[0].get_ydata() == pytest.approx(record.lost[1:-1])
    assert f"PSNR {record.psnr:.1f} dB" in title(figure)
    assert "CHECK FAILED" in title(
        plots.plot_roundtrip(replace(record, parseval=Residual(1, 1e-6)))
    )
    blocks = decode(encode(PICTURE))
    exact = plots.plot_roundtrip(roundtrip(blocks, encode, decode))
    exact.to_png()
    assert "PSNR inf dB" in title(exact)


def test_the_edits_are_a_table_and_a_reach():
    figure = plots.plot_latent_edits(EDITS)
    table, reach = panels(figure)
    shown = [image.get_array() for image in table.images]
    assert len(shown) == 16
    assert all(np.array_equal(a, e.picture) for a, e in zip(shown, EDITS.edits, strict=False))
    plain, edited, change = (image.get_array() for image in reach.images)
    assert np.array_equal(plain, EDITS.picture)
    assert np.array_equal(edited, EDITS.edits[-1].picture)
    assert np.array_equal(change, EDITS.edits[-1].change)
    assert "100% of the change stays" in title(figure) and "≥ 2/255 in 8 × 8 px" in texts(reach)
    assert "CHECK FAILED" in title(plots.plot_latent_edits(replace(EDITS, repeats=Residual(1, 0))))
    for edits in ([Edit("zero", 0)], [Edit("add", None, 0.3, (0, 0))], [Edit("add", 3, 9, (1, 1))]):
        plots.plot_latent_edits(latent_edits(LATENT, decode, edits)).to_png()


# ---- filmstrip ----------------------------------------------------------------------------------
def test_the_filmstrip_shows_three_readings_of_each_step():
    axes = plots.plot_filmstrip(RUN).axes[0]
    assert len(axes.images) == 18
    for i in range(6):
        x_t, x0, eps = RUN.latents[i], RUN.x0s[i], RUN.eps[i]
        scaled = x_t / x_t.std() * RUN.latents[-1].std()
        for row, latent in enumerate((scaled, x0, eps)):
            drawn = axes.images[6 * row + i].get_array()
            assert np.abs(drawn.astype(int) - RUN.preview.rgb(latent).astype(int)).max() <= 1
    told = texts(axes)
    assert "x_t, scaled,\npreview" in told and "5\n" + f"{RUN.karras_sigmas[5]:.3g}" in told


def test_rows_steps_frames_and_decoders_of_the_filmstrip():
    run = traces.trace(9)
    axes = plots.plot_filmstrip(run, rows=("x0",), steps=(0, 8)).axes[0]
    assert [image.get_array().shape for image in axes.images] == [(48, 64, 3)] * 2
    assert "x0-hat,\ndecoded" in texts(axes)
    strip = plots.plot_filmstrip(run, rows="x_t", decode=decode, most=4).axes[0]
    assert len(strip.images) == 4 and "x_t, scaled,\ndecoded" in texts(strip)
    assert len(plots.plot_filmstrip(run).axes[0].images) == 3 * 8
    mapless = plots.plot_filmstrip(replace(run, preview=None, frames=()))
    assert "mean of\nchannels" in texts(mapless)


def test_the_filmstrip_warns_of_eps_without_unit_spread():
    wild = run_of(decided_at(STEPS), loudness=1.5)
    told = title(plots.plot_filmstrip(wild))
    assert "leaves 0.75 … 1.25" in told and "CHECK FAILED" not in told
    assert "6 steps of a run, each replayed to" in title(plots.plot_filmstrip(RUN))
    assert "leaves 0.75" not in title(plots.plot_filmstrip(RUN))
    assert "leaves 0.75 … 1.25" in title(plots.plot_filmstrip(wild, rows="x0"))


def test_the_filmstrip_tells_the_spread_of_eps_where_eps_is_drawn():
    assert "eps-hat has std" in title(plots.plot_filmstrip(RUN))
    assert "eps-hat" not in title(plots.plot_filmstrip(RUN, rows=("x0", "x_t")))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rows": ("x0", "v")}, "some of x_t, x0, eps are allowed"),
        ({"rows": ()}, "some of x_t, x0, eps are allowed"),
        ({"steps": (0, 6)}, "0 to 5 are allowed in this run"),
        ({"steps": (-1,)}, "0 to 5 are allowed"),
        ({"steps": ()}, "0 to 5 are allowed"),
    ],
)
def test_rows_and_steps_that_are_not_there(options, told):
    with pytest.raises(InputError, match=told):
        plots.plot_filmstrip(RUN, **options)


# ---- curves over the steps ----------------------------------------------------------------------
def test_changes_are_drawn_in_both_units():
    run = run_of([np.full(SHAPE, k + 1.0) for k in range(4)])
    figure = plots.plot_changes(run)
    absolute, relative = (line.get_ydata() for line in figure.axes[0].get_lines())
    assert absolute == pytest.approx([1, 1, 1]) and relative == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert figure.axes[0].get_yscale() == "log"
    ticks = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert ticks == [f"{k}\n{run.karras_sigmas[k]:.3g}" for k in (1, 2, 3)]
    still = plots.plot_changes(run_of([END] * 3))
    still.to_png()
    assert title(still) == "x0-hat does not move"
    assert "moves most at step 1, karras_sigma" in title(figure)
    twice = tuple(replace(s, predictions=s.predictions * 2, stages=s.stages * 2) for s in run.steps)
    assert "first call of each step" in title(plots.plot_changes(replace(run, steps=twice)))


def test_similarity_curves_have_a_line_at_the_mark():
    flat = END - END.mean(axis=(1, 2), keepdims=True)
    run = run_of([scale * flat for scale in (-1.0, 0.5, 0.9, 1.0)])
    figure = plots.plot_similarity_to_final(run)
    lines = {line.get_label().split(":")[0]: line for line in figure.axes[0].get_lines()}
    explained = lines["variance explained"]
    assert explained.get_ydata() == pytest.approx([-3, 0.75, 0.99, 1])
    assert explained.get_label() == "variance explained: step 2 (from −3)"
    assert "x_t itself (values)" in lines and "step 1 to 2 of 4" in title(figure)
    assert any(list(line.get_ydata()) == [0.8, 0.8] for line in lines.values())
    lost = replace(run.steps[-1], next_latent=-END)
    never = plots.plot_similarity_to_final(replace(run, steps=(*run.steps[:-1], lost)))
    assert "not reached" in texts(never)


def test_the_paths_and_their_note():
    along, across = np.zeros(SHAPE), np.zeros(SHAPE)
    along[0, 0, 0], across[1, 2, 3] = 2.0, 1.0
    run = run_of([0 * along, 0.25 * along + 0.5 * across, along])
    figure = plots.plot_trajectory(run)
    curve, path, noisy = panels(figure)
    assert curve.get_lines()[0].get_ydata() == pytest.approx([0, 0.25, 0], abs=1e-12)
    assert len(curve.get_lines()[1].get_ydata()) == 4
    points = path.collections[0].get_offsets()
    assert np.linalg.norm(points[2] - points[0]) == pytest.approx(2)
    assert "x_t / alpha" in texts(noisy)
    still = plots.plot_trajectory(run_of([END] * 6))
    assert "PC1 of x_t is only the noise scale (correlation 1.0000)" in title(still)
    assert shade(still) != colour("vermilion")  # a note, no failure
    wild = run_of(60 * np.random.default_rng(0).normal(size=(6, *SHAPE)))
    assert "only the noise scale" not in title(plots.plot_trajectory(wild))


# ---- when a picture is decided ------------------------------------------------------------------
def test_the_commitment_map_is_the_steps():
    figure = plots.plot_commitment(RUN)
    picture, places, curve = panels(figure)
    assert np.array_equal(picture.images[0].get_array(), np.asarray(RUN.image))
    assert np.array_equal(places.images[0].get_array(), STEPS)
    assert curve.get_lines()[0].get_ydata() == pytest.approx(
        [(k >= STEPS).mean() for k in range(6)]
    )
    assert "half of the picture is decided at step 2" in title(figure)
    assert (
        plots.plot_commitment(RUN, tolerance=5.0).axes[0].child_axes[1].images[0].get_array().max()
        == 0
    )


def test_places_that_are_never_decided_are_red_and_told():
    far = END.copy()
    far[:, 0, 7] += 9
    run = replace(RUN, steps=(*RUN.steps[:-1], replace(RUN.steps[-1], next_latent=far)))
    places = panels(plots.plot_commitment(run, tolerance=0.4))[1]
    drawn = np.ma.masked_invalid(places.images[0].get_array())
    assert drawn.mask[0, 7] and drawn.mask.sum() == 1 and "1 never (red)" in texts(places)
    bad = matplotlib.colors.to_hex(places.images[0].cmap(np.ma.masked))
    assert bad == colour("vermilion").lower()


def test_the_spectrum_and_its_marks():
    figure = plots.plot_spectrum(WAVES)
    lines, wrong = panels(figure)
    final = lines.get_lines()[-1].get_ydata()
    assert final == pytest.approx([0.5, 0.5, 0.5, 1.0], rel=1e-9)
    assert lines.get_lines()[0].get_ydata() == pytest.approx(final / 4, rel=1e-9)
    drawn = wrong.images[0].get_array()
    assert drawn.shape == (4, 8) and np.allclose(drawn[:, 0], 0.25)
    for marks in wrong.get_lines():
        assert marks.get_xdata().tolist() == [1, 2, 4, 6]
        assert marks.get_ydata().tolist() == [1, 2, 3, 4]
    assert "coarse before fine: rank correlation of frequency and step +1.00 (by power" in title(
        figure
    )
    assert "fine before coarse" in title(plots.plot_spectrum(run_of(waves_from((6, 4, 2, 1)))))
    assert "same step" in title(plots.plot_spectrum(run_of([END] * 3)))


def test_a_ring_that_never_stays_is_told():
    end = replace(WAVES.steps[-1], next_latent=WAVES.steps[-1].next_latent + 3 * wave(0, 2))
    figure = plots.plot_spectrum(replace(WAVES, steps=(*WAVES.steps[:-1], end)))
    figure.to_png()
    assert "never" in texts(panels(figure)[1]) and "2: never" in figure.alt


# ---- noising ------------------------------------------------------------------------------------
def test_noising_has_a_column_for_each_level():
    figure = plots.plot_noising(NOISING)
    images = [image.get_array() for image in figure.axes[0].images]
    assert len(images) == 12 and "CHECK FAILED" not in title(figure)
    for i in range(3):
        pixels = np.clip(NOISING.noisy_pixels[i] / 2 + 0.5, 0, 1)
        assert np.array_equal(images[1 + i], pixels)
        assert np.array_equal(images[5 + i], NOISING.preview.rgb(NOISING.latents[i]))
        assert np.array_equal(images[9 + i], NOISING.preview.rgb(NOISING.predictions[i].x0))
    assert "noisy\nlatent,\npreview" in texts(figure) and "999\n14.6\n0.0047" in texts(figure)
    decoded = replace(NOISING, x0_images=(NOISING.image,) * 3, noisy_images=(NOISING.image,) * 3)
    assert "one step,\ndecoded" in texts(plots.plot_noising(decoded))


@pytest.mark.parametrize("plot", ["plot_noising", "plot_noising_curve"])
def test_a_noising_that_does_not_add_up_is_red(plot):
    broken = replace(NOISING, latents=NOISING.latents * 1.1)
    figure = getattr(plots, plot)(broken)
    assert "(x_t = alpha x0 + sigma eps)" in title(figure)
    assert shade(figure) == colour("vermilion")
    loud = replace(NOISING, noise=NOISING.noise * 3)
    assert "(the noise has unit variance)" in title(getattr(plots, plot)(loud))
    gone = replace(NOISING, latents=NOISING.latents * np.nan)
    getattr(plots, plot)(gone).to_png()


def test_the_noising_curve_lies_on_its_schedule():
    figure = plots.plot_noising_curve(NOISING, schedule=traces.schedule())
    signal, errors = panels(figure)
    curve, marks, _ = signal.get_lines()
    assert curve.get_ydata() == pytest.approx(traces.schedule().snr)
    assert marks.get_xdata().tolist() == [100, 500, 999]
    assert marks.get_ydata() == pytest.approx(curve.get_ydata()[[100, 500, 999]], rel=1e-9)
    x0, eps, *_ = errors.get_lines()
    assert x0.get_ydata() == pytest.approx([0.1 / NOISING.x0.std()] * 3)
    sigmas = [level.karras_sigma for level in NOISING.levels]
    assert eps.get_ydata() == pytest.approx(0.1 / np.array(sigmas))
    assert len(panels(plots.plot_noising_curve(NOISING))[0].get_lines()) == 2
