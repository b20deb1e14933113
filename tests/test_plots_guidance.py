"""Plots of guidance and of the interior, on constructed records whose answers are known."""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import traces
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from test_guidance import by_hand, one_step, picture, run_at, runs_over
from test_interior import SHARES, large_anatomy, moved, recorded, small_anatomy

from diffusionlab import plots
from diffusionlab.analysis.ablations import ablate
from diffusionlab.analysis.guidance import dial, guidance_curves
from diffusionlab.analysis.guidance_sweep import sweep
from diffusionlab.analysis.interior import features, principal_colours, time_embedding
from diffusionlab.analysis.latents import branch_x0
from diffusionlab.errors import InputError
from diffusionlab.images import to_image
from diffusionlab.trace import Guidance

RUN = traces.trace(5)
COLOURS = ((120, 120, 120), (200, 100, 100), (255, 0, 0))


def decode(latent):
    """Height 48, width 64, by the preview map."""
    return to_image(traces.preview().rgb(latent)).resize((64, 48), Image.Resampling.NEAREST)


def ablation():
    images = {name: picture(60 * i, 0, 0) for i, name in enumerate(SHARES, 1)}
    base = replace(RUN, image=picture(0, 0, 0))
    return ablate(
        base, lambda name: moved(base, SHARES[name], 3, image=images[name]), list(SHARES),
        what="skip connection",
    )  # fmt: skip


RECORDS = {
    "plot_ablation": ablation(),
    "plot_compute": small_anatomy(),
    "plot_features": recorded(),
    "plot_guidance": RUN,
    "plot_guidance_curves": RUN,
    "plot_guidance_dial": dial(RUN, 1, [0, 1, 4, 8], run=run_at, decode=decode),
    "plot_guidance_sweep": sweep(runs_over([1, 4, 8], [picture(*c) for c in COLOURS])),
    "plot_hourglass": small_anatomy(),
    "plot_time_embedding": recorded(),
}


def texts(figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def panels(figure) -> list:
    return figure.axes[0].child_axes


def on_the_page(figure) -> bool:
    """Whether every text that is drawn lies inside the figure, tick labels left out."""
    FigureCanvasAgg(figure).draw()
    axes = figure.findobj(matplotlib.axes.Axes)
    ticks = {
        t for a in axes for axis in (a.xaxis, a.yaxis) for t in axis.get_ticklabels(which="both")
    }
    page = figure.bbox.padded(2)
    boxes = {
        t.get_text(): t.get_window_extent()
        for t in figure.findobj(matplotlib.text.Text)
        if t.get_text() and t.get_visible() and t not in ticks
    }
    outside = [
        text for text, b in boxes.items()
        if b.x0 < page.x0 or b.x1 > page.x1 or b.y0 < page.y0 or b.y1 > page.y1
    ]  # fmt: skip
    return not outside


def overlapping(figure) -> list[tuple[str, str]]:
    """The pairs of labels that lie on one another, in a figure that has been drawn."""
    axes = figure.findobj(matplotlib.axes.Axes)
    drawn = [(t.get_text(), t.get_window_extent()) for a in axes for t in a.texts if t.get_text()]
    return [
        (text, other)
        for i, (text, box) in enumerate(drawn)
        for other, its in drawn[i + 1 :]
        if box.overlaps(its)
    ]


def crowded() -> dict:
    """Each plot with as much in it as it takes."""
    long = traces.trace(12)
    names = [f"down_blocks.{i}.skips.{j}" for i in range(4) for j in range(3)]
    taps = {f"up_blocks.{i}.output": np.random.default_rng(i).normal(size=(12, 30, 3, 4))
            for i in range(4)}  # fmt: skip
    scales = [0, 1, 2, 3, 4, 8, 16, Guidance(8, rescale=0.7), Guidance(8, interval=(0.5, 6))]
    far = ablate(long, lambda name: moved(long, 2 + names.index(name), 11), names)
    return {
        "dial": plots.plot_guidance_dial(dial(RUN, 1, scales, run=run_at)),
        "branches": plots.plot_guidance(long, steps=range(8)),
        "channels": plots.plot_guidance(long, steps=range(8), channels=True),
        "features": plots.plot_features(replace(long, attention=taps), most=12),
        "ablation": plots.plot_ablation(far),
        "compute": plots.plot_compute(large_anatomy()),
        "sweep": plots.plot_guidance_sweep(
            sweep(runs_over([0, 1, 2, 3, 4, 5, 8, 16], [picture(9, 9, 9)] * 8))
        ),
    }


def test_texts_keep_apart_in_crowded_figures():
    for name, figure in crowded().items():
        assert on_the_page(figure), name
        assert not overlapping(figure), name
    figure = plots.plot_guidance_dial(RECORDS["plot_guidance_dial"])
    first, second = [t for t in figure.axes[0].texts if t.get_text()][:2]
    first.set_position(second.get_position())
    FigureCanvasAgg(figure).draw()
    assert overlapping(figure)


def test_a_text_that_leaves_the_page_is_found():
    figure = plots.plot_compute(small_anatomy())
    figure.text(0.99, 0.5, "far too long")
    assert not on_the_page(figure)


# ---- both branches -----------------------------------------------------------------------------
def test_branches_and_their_difference_as_pictures():
    figure = plots.plot_guidance(RUN, steps=[0, 3])
    images = figure.axes[0].images
    calls = [RUN.steps[i].predictions[0] for i in (0, 3)]
    assert len(images) == 8 and images[0].get_array().shape == (6, 8, 3)
    for column, call in enumerate(calls):
        uncond, cond = branch_x0(call, "uncond"), branch_x0(call, "cond")
        assert np.array_equal(images[column].get_array(), RUN.preview.rgb(uncond))
        assert np.array_equal(images[2 + column].get_array(), RUN.preview.rgb(cond))
        off = np.sqrt(np.square(cond - uncond).mean(axis=0))
        assert np.array_equal(images[4 + column].get_array(), off)
        assert images[4 + column].get_clim() == (0, off.max())
        assert np.array_equal(images[6 + column].get_array(), RUN.preview.rgb(call.x0))
    shown = texts(figure)
    assert "without\nthe prompt" in shown and "g = 4" in shown and "CHECK FAILED" not in shown
    size = np.sqrt(np.square(branch_x0(calls[1], "cond") - branch_x0(calls[1], "uncond")).mean())
    assert f"step 3 {size:.2g}" in figure.alt


def test_difference_in_each_channel():
    figure = plots.plot_guidance(RUN, steps=[2], channels=True)
    call = RUN.steps[2].predictions[0]
    wanted = branch_x0(call, "cond") - branch_x0(call, "uncond")
    images = figure.axes[0].images
    assert len(images) == 4
    for channel, image in enumerate(images):
        assert np.array_equal(image.get_array(), wanted[channel])
        assert image.get_clim() == (-np.abs(wanted).max(), np.abs(wanted).max())
    assert f"up to ±{np.abs(wanted).max():.2g}" in texts(figure)


def test_decoded_branches_differ_in_pixels():
    figure = plots.plot_guidance(RUN, steps=[1], decode=decode)
    uncond, cond, off, guided = figure.axes[0].images
    call = RUN.steps[1].predictions[0]
    assert np.array_equal(uncond.get_array(), np.asarray(decode(branch_x0(call, "uncond"))))
    wanted = np.abs(uncond.get_array() / 255 - cond.get_array() / 255).mean(axis=2)
    assert off.get_array().shape == (48, 64)
    assert np.asarray(off.get_array()) == pytest.approx(np.asarray(wanted))
    assert np.array_equal(guided.get_array(), np.asarray(decode(call.x0)))
    assert "decoded" in texts(figure)


def test_the_other_branch_is_named_after_the_negative_prompt():
    hostile = replace(RUN, settings=replace(RUN.settings, negative_prompt="$x_1$ <b> 🐧"))
    assert "“$x_1$ <b> □”" in texts(plots.plot_guidance(hostile, steps=[1]))
    assert plots.plot_guidance(hostile, steps=[1]).to_png()
    rescaled = run_at(Guidance(4.0, rescale=0.7))
    assert "g = 4\nrescale 0.7" in texts(plots.plot_guidance(rescaled, steps=[1]))


def test_steps_without_guidance_say_so():
    run = run_at(Guidance(4.0, interval=(0.5, 6.0)))
    figure = plots.plot_guidance(run)
    assert texts(figure).count("was not run") == 2 * (5 - len(guidance_curves(run).steps))
    assert "step 0 not run" in figure.alt
    everywhere = plots.plot_guidance(run, steps=[0], channels=True)
    assert len(everywhere.axes[0].images) == 0 and "was not run" in texts(everywhere)
    for plot in (plots.plot_guidance, plots.plot_guidance_curves):
        with pytest.raises(InputError, match="other than 1"):
            plot(run_at(1.0))
    for steps in ([], range(9), "12", 3):
        with pytest.raises(InputError, match="1 to 8 of the steps 0 to 4"):
            plots.plot_guidance(RUN, steps=steps)
    with pytest.raises(InputError, match="steps 0 to 4"):
        plots.plot_guidance(RUN, steps=[0, 5])


def test_curves_are_the_analysis():
    figure = plots.plot_guidance_curves(RUN)
    found = guidance_curves(RUN)
    length, angles = panels(figure)[:2]
    shown = [line.get_ydata() for panel in (length, angles) for line in panel.get_lines()]
    for line, wanted in zip(
        shown, (found.ratios, found.x0_ratios, found.apart, found.turned), strict=True
    ):
        assert np.array_equal(line, wanted)
    assert "karras_sigma" in texts(figure) and "CHECK FAILED" not in texts(figure)
    styles = {(line.get_marker(), line.get_linestyle()) for line in angles.get_lines()}
    assert len(styles) == 2  # told apart without colour
    plain = plots.plot_guidance_curves(one_step(by_hand()))
    assert plain.to_png() and "1 of them guided" in plain.alt
    for values, told in ((found.ratios, "in eps largest at"), (found.x0_ratios, "in x0 at")):
        top = int(np.argmax(values))
        assert f"{told} step {found.steps[top]} ({values[top]:.2g}" in figure.alt


def test_a_wrong_order_of_the_branches_is_in_the_titles():
    call = RUN.steps[2].predictions[0]
    swapped = replace(
        RUN.steps[2], predictions=(replace(call, cond=call.uncond, uncond=call.cond),)
    )
    run = replace(RUN, steps=(*RUN.steps[:2], swapped, *RUN.steps[3:]))
    figures = [plots.plot_guidance(run), plots.plot_guidance_curves(run),
               plots.plot_guidance_dial(dial(run, 2))]  # fmt: skip
    assert all("CHECK FAILED" in texts(figure) and on_the_page(figure) for figure in figures)


def nan_in(run, index):
    """The run with one NaN in the conditional output of a step."""
    call = run.steps[index].predictions[0]
    cond = call.cond.copy()
    cond[0, 0, 0] = np.nan
    changed = replace(run.steps[index], predictions=(replace(call, cond=cond),))
    return replace(run, steps=(*run.steps[:index], changed, *run.steps[index + 1 :]))


def test_nan_is_in_the_titles_and_draws_without_a_warning():
    run = nan_in(RUN, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            plots.plot_guidance(run, steps=[1]),
            plots.plot_guidance(run, steps=[1], decode=decode),
            plots.plot_guidance(run, steps=[1], channels=True),
            plots.plot_guidance_curves(run),
            plots.plot_guidance_dial(dial(run, 1, decode=decode)),
        ):
            assert "NaN or infinite" in texts(figure) and on_the_page(figure)


# ---- the dial and the sweep --------------------------------------------------------------------
def test_the_dial_shows_its_three_rows():
    record = RECORDS["plot_guidance_dial"]
    figure = plots.plot_guidance_dial(record)
    images = figure.axes[0].images
    assert len(images) == 12
    for column, stop in enumerate(record.stops):
        for row, part in enumerate(("x0", "rerun", "end")):
            shown = images[4 * row + column].get_array()
            assert np.array_equal(shown, np.asarray(decode(getattr(stop, part))))
    shown = texts(figure)
    assert "g = 4\n(this run)" in shown and "only step 1" in shown and "CHECK FAILED" not in shown
    assert f"{record.stops[3].turned:.0%} from the run's" in shown
    assert "g 8: this step alone" in figure.alt


def test_a_dial_without_whole_runs_has_one_row():
    record = dial(RUN, 2, [1, Guidance(8, rescale=0.7), Guidance(8, interval=(0.5, 6))])
    figure = plots.plot_guidance_dial(record)
    images = figure.axes[0].images
    assert len(images) == 3
    assert np.array_equal(images[1].get_array(), RUN.preview.rgb(record.stops[1].x0))
    shown = texts(figure)
    assert "rescale 0.7" in shown and "interval\n0.5 … 6" in shown and "whole run" not in shown
    bare = plots.plot_guidance_dial(dial(replace(RUN, preview=None), 2))
    assert bare.axes[0].images[0].get_array().shape == (6, 8)


def test_whole_runs_from_another_noise_are_in_the_title():
    record = RECORDS["plot_guidance_dial"]
    assert record.start.holds
    failed = replace(record, start=replace(record.start, relative=0.2))
    assert "CHECK FAILED: off by 0.2" in texts(plots.plot_guidance_dial(failed))


def test_the_sweep_draws_pictures_and_measures():
    record = sweep(runs_over([1, 4, Guidance(8, rescale=0.7)], [picture(*c) for c in COLOURS]),
                   lambda image: image.getpixel((0, 0))[0] / 255, "redness")  # fmt: skip
    figure = plots.plot_guidance_sweep(record)
    sheet, shares, values, sizes = panels(figure)
    assert [np.asarray(i.get_array())[0, 0].tolist() for i in sheet.images] == [
        list(c) for c in COLOURS
    ]
    adherence, colourful = shares.get_lines()
    assert adherence.get_ydata() == pytest.approx([120 / 255, 200 / 255, 1.0])
    assert adherence.get_label() == "redness"
    assert colourful.get_ydata() == pytest.approx([0, 0.5, 1.0])
    assert values.get_lines()[0].get_ydata() == pytest.approx([0, 0, 100])
    spread, ratio = sizes.get_lines()
    assert spread.get_ydata() == pytest.approx([p.spread for p in record.points])
    assert np.isnan(ratio.get_ydata()[0]) and ratio.get_ydata()[1] == record.points[1].ratio
    assert [t.get_text() for t in sizes.texts] == ["not\nrun"] and sizes.texts[0].get_position()[
        0
    ] == 0
    assert "redness 0.78" in figure.alt and "8\nrescale" in texts(figure)
    failed = replace(record, start=replace(record.start, relative=0.5))
    assert "CHECK FAILED" in texts(plots.plot_guidance_sweep(failed))
    bad = replace(record, points=(replace(record.points[0], adherence=np.nan), *record.points[1:]))
    assert "NaN or infinite, in the measures" in texts(plots.plot_guidance_sweep(bad))


# ---- the build ---------------------------------------------------------------------------------
def test_the_hourglass_has_every_block_and_bridge():
    figure = plots.plot_hourglass(small_anatomy())
    axes = figure.axes[0]
    shapes = {p.get_label(): p for p in axes.patches if isinstance(p, matplotlib.patches.Polygon)}
    assert list(shapes) == ["conv_in", "down_blocks.0", "mid_block", "up_blocks.0", "conv_out"]
    down = shapes["down_blocks.0"].get_xy()
    left, right = down[:, 0].min(), down[:, 0].max()
    ends = [np.ptp(down[np.isclose(down[:, 0], x), 1]) for x in (left, right)]
    assert ends[1] == pytest.approx(ends[0] / 2)  # 6 rows to 3
    bend = [left + 0.6 * (right - left), ends[0] / 2]  # the input's height, until it halves
    assert down[1] == pytest.approx(bend)
    wide = [np.ptp(shapes[n].get_xy()[:, 0]) for n in ("conv_in", "mid_block")]
    assert wide[1] / wide[0] == pytest.approx(np.sqrt(16 / 8))
    hatched = [name for name, p in shapes.items() if p.get_hatch()]
    assert hatched == ["down_blocks.0"]  # attention, without colour
    shown = texts(figure)
    for part in ("2 × 8×6×8", "4×6×8", "up 0", "12 tokens", "32 numbers", "1 layer", "3×4"):
        assert part in shown
    bridges = [line for line in axes.get_lines() if len(line.get_xdata()) == 4]
    assert len(bridges) == 2 and "3 skip connections" in figure.alt


def test_the_hourglass_of_a_large_network_keeps_its_texts_apart():
    figure = plots.plot_hourglass(large_anatomy())
    assert len([ln for ln in figure.axes[0].get_lines() if len(ln.get_xdata()) == 4]) == 8
    assert on_the_page(figure)
    assert not overlapping(figure)
    assert "860 M parameters" in texts(figure) and "258 M" in texts(figure)


def test_a_lost_skip_is_in_the_hourglass_title():
    lost = replace(small_anatomy(), skips=small_anatomy().skips[:2])
    assert "CHECK FAILED: 2 skips, 3 needed" in texts(plots.plot_hourglass(lost))
    assert "CHECK FAILED" not in texts(plots.plot_hourglass(small_anatomy()))


def test_compute_bars_are_the_shares():
    figure = plots.plot_compute(small_anatomy())
    blocks, kinds = panels(figure)
    heights = [bar.get_height() for bar in blocks.patches]
    assert heights == pytest.approx([0, 10, 10, 20, 50, 10, 10, 10, 20, 30, 20, 10])
    assert [bar.get_width() for bar in kinds.patches] == pytest.approx([96, 3, 1])
    assert "CHECK FAILED" not in texts(figure)
    odd = list(small_anatomy().blocks)
    odd[3] = replace(odd[3], flops=250)
    wrong = plots.plot_compute(replace(small_anatomy(), blocks=tuple(odd)))
    assert "CHECK FAILED" in texts(wrong)


# ---- what passes through -----------------------------------------------------------------------
def test_features_show_components_channels_and_sizes():
    run = recorded()
    figure = plots.plot_features(run, "down_blocks.0.output", step=1, most=6)
    sheet, sizes = panels(figure)
    found = features(run, "down_blocks.0.output", 1, 6)
    assert len(sheet.images) == 7  # the seventh in a second row
    assert np.array_equal(sheet.images[0].get_array(), found.colours)
    for image, values in zip(sheet.images[1:], found.maps, strict=True):
        assert np.array_equal(image.get_array(), values)
        low, high = image.get_clim()
        assert low == -high
    assert sheet.images[6].get_extent()[3] < sheet.images[5].get_extent()[2]
    assert np.array_equal(sizes.get_lines()[0].get_ydata(), found.energies)
    shown = texts(figure)
    assert "ch. 5, ±20" in shown and "100% of variance" in shown and "6×3×4" in shown
    assert len(panels(plots.plot_features(run))[1].get_lines()) == 2  # both blocks


def test_features_over_steps_share_one_basis():
    run = recorded()
    figure = plots.plot_features(run, "up*output", steps=[0, 2, 4])
    images = panels(figure)[0].images
    values = run.attention["up_blocks.0.output"][[0, 2, 4]].astype(np.float64)
    for image, wanted in zip(images, principal_colours(values)[0], strict=True):
        assert np.array_equal(image.get_array(), wanted)
    assert "6×3×4\n100% of var." in texts(figure)
    for steps in ([], range(10), "04"):
        with pytest.raises(InputError, match="1 to 9 of the steps 0 to 4"):
            plots.plot_features(run, steps=steps)
    with pytest.raises(InputError, match="steps 0 to 4"):
        plots.plot_features(run, steps=[0, 7])
    many = {f"block{i}.output": np.ones((5, 2, 3, 4)) for i in range(13)}
    with pytest.raises(InputError, match="at most 12"):
        plots.plot_features(replace(run, attention=many))


def test_features_with_nan_say_so():
    run = recorded()
    values = run.attention["down_blocks.0.output"].copy()
    values[2, 1, 0, 0] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.plot_features(replace(run, attention={"a.output": values}), step=2)
        assert "1 values are NaN or infinite" in texts(figure) and figure.to_png()


def test_time_embedding_is_drawn_in_order():
    figure = plots.plot_time_embedding(recorded())
    left, right = panels(figure)[:2]
    found = time_embedding(recorded())
    assert np.array_equal(left.images[0].get_array(), found.values[:, found.order])
    assert np.array_equal(right.images[0].get_array(), found.similarity)
    assert right.images[0].get_clim() == (-1, 1)
    assert [t.get_text() for t in left.get_yticklabels()] == [f"{t:g}" for t in found.timesteps]
    bad = recorded().attention["time"].copy()
    bad[1, 0] = np.nan
    broken = plots.plot_time_embedding(replace(recorded(), attention={"time": bad}))
    assert "NaN or infinite" in texts(broken)
    zero = replace(recorded(), attention={"time": np.zeros((5, 2))})
    assert "NaN" not in texts(plots.plot_time_embedding(zero))
    assert "CHECK FAILED" in texts(plots.plot_time_embedding(zero))


# ---- what is missed ----------------------------------------------------------------------------
def test_an_ablation_shows_the_largest_change_first():
    record = ablation()
    figure = plots.plot_ablation(record)
    sheet, heat = panels(figure)
    whole, *changed = sheet.images[:4]
    assert whole.get_array()[0, 0].tolist() == [0, 0, 0]
    assert [image.get_array()[0, 0, 0] for image in changed] == [120, 180, 60]
    offs = [image.get_array() for image in sheet.images[4:]]
    assert [off[0, 0] for off in offs] == pytest.approx([120 / 765, 180 / 765, 60 / 765])
    assert {image.get_clim() for image in sheet.images[4:]} == {(0.0, offs[1].max())}
    assert np.array_equal(heat.images[0].get_array(), [c.differences for c in record.changed])
    shown = texts(figure)
    for part in ("50% off\nover 5%\nafter step 2", "2% off\nnever\nover 5%", "in skip", "whole"):
        assert part in shown
    assert "CHECK FAILED" not in shown and "down 0 skip 0 50%, over 5% after" in figure.alt
    assert len(panels(plots.plot_ablation(record, most=2))[0].images) == 5
    assert ", 2 of 3" in texts(plots.plot_ablation(record, most=2))


def test_an_ablation_without_images_shows_latents():
    base = replace(RUN, image=None, preview=None)
    record = ablate(base, lambda name: moved(base, SHARES[name], 3), list(SHARES))
    images = panels(plots.plot_ablation(record))[0].images
    ends = [run.steps[-1].next_latent.astype(np.float64)
            for run in (base, record.changed[0].trace)]  # fmt: skip
    assert np.array_equal(images[0].get_array(), ends[0].mean(axis=0))
    assert np.array_equal(images[4].get_array(), np.abs(ends[0] - ends[1]).mean(axis=0))


def test_another_start_or_nan_is_in_the_ablations_title():
    start = ablate(RUN, lambda name: moved(RUN, 0.1, first=0), ["skip"])
    assert "CHECK FAILED" in texts(plots.plot_ablation(start))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bad = plots.plot_ablation(ablate(RUN, lambda name: moved(RUN, np.nan, 2), ["skip"]))
        assert "NaN or infinite" in texts(bad) and bad.to_png()
