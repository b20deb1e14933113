"""The plots of attention on constructed records: what they draw, and what they say."""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import traces
from test_attention import FINE, HEADS, MID, MIXED, planted, self_attention, squares

from diffusionlab import plots
from diffusionlab.analysis import honesty
from diffusionlab.analysis.attention import CROSS, attention_maps
from diffusionlab.analysis.attention_tokens import attention_mass, self_attention_at, words_at
from diffusionlab.analysis.pointing import pointing_game
from diffusionlab.errors import InputError

RUN = traces.trace(5)
SELF_RUN = replace(RUN, attention=self_attention())
TRACE, LEAVE = planted()
HONESTY = honesty.leave_one_out(TRACE, LEAVE, ["red", "sky"])
MAPS, MASKS = squares()
PICTURES = np.full((12, 48, 64, 3), 120, np.uint8)
POINTING = pointing_game(MAPS, MASKS, ["square"] * 12, pictures=PICTURES, what="constructed")
RECORDS = {
    "plot_attention": RUN,
    "plot_attention_heads": HEADS,
    "plot_attention_layers": MIXED,
    "plot_attention_mass": RUN,
    "plot_attention_scalings": RUN,
    "plot_attention_steps": RUN,
    "plot_honesty": HONESTY,
    "plot_pixel_words": RUN,
    "plot_pointing": POINTING,
    "plot_self_attention": SELF_RUN,
}
OF_A_TRACE = [n for n in RECORDS if n not in ("plot_honesty", "plot_pointing")]


def words_of(figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def line_of(figure) -> str:
    """The title on one line."""
    return " ".join(figure.axes[0].get_title(loc="left").split())


def panel(figure, number: int):
    return figure.axes[0].child_axes[number]


# ---- maps -------------------------------------------------------------------------------------
def test_attention_maps_are_drawn_on_one_scale_from_zero():
    figure = plots.plot_attention(MIXED)
    found = attention_maps(MIXED)
    images = figure.axes[0].images
    assert len(images) == 4  # a, red, sky, scraper
    for image, one in zip(images, found.maps[:, 0], strict=True):
        assert np.array_equal(image.get_array(), one)
        assert image.get_clim() == (0, pytest.approx(found.maps.max()))
    title = figure.axes[0].get_title(loc="left")
    assert title == "cross-attention, mean of steps 0–4, 2 layers and all heads"
    assert "probability, one scale" in words_of(figure) and "red 0." in figure.alt
    one = plots.plot_attention(MIXED, words="red", steps=2, layers="mid")
    assert "step 2, layer mid (3×4)" in words_of(one) and len(one.axes[0].images) == 1


def test_the_other_scalings_are_named():
    own = plots.plot_attention(MIXED, scaling="word")
    for image in own.axes[0].images:
        assert image.get_clim() == (0, image.get_array().max())
    assert "share of its own largest" in words_of(own) and "red ≤ 0.1" in words_of(own)
    raw = plots.plot_attention(MIXED, scaling="raw")
    assert {image.get_clim() for image in raw.axes[0].images} == {(0, 1)}
    with pytest.raises(InputError, match="scaling='none'; allowed are 'common', 'word', 'raw'"):
        plots.plot_attention(MIXED, scaling="none")
    three = plots.plot_attention_scalings(MIXED).axes[0].images
    limits = [image.get_clim()[1] for image in three]
    tops = [one.max() for one in attention_maps(MIXED).maps]
    assert limits[:4] == [max(tops)] * 4 and limits[4:8] == tops and limits[8:] == [1] * 4
    assert np.array_equal(three[1].get_array(), three[5].get_array())


def test_maps_over_a_picture_let_it_through_where_they_are_low():
    figure = plots.plot_attention(RUN, words=["a", "red"], over="picture")
    below, _, quiet, loud = figure.axes[0].images
    grey = np.asarray(RUN.image).astype(float) @ (0.299, 0.587, 0.114)
    assert below.get_array().shape == (48, 64, 3)
    assert np.abs(below.get_array()[..., 0].astype(float) - grey).max() <= 0.5
    assert loud.get_alpha() == pytest.approx(0.85) and np.all(quiet.get_alpha() < 0.2)
    assert below.get_extent() == quiet.get_extent()  # a map of 3 × 4 on a picture of 48 × 64
    x0 = plots.plot_attention(replace(RUN, frames=()), words="red", over="x0", steps=1)
    wanted = RUN.preview.rgb(RUN.predictions[1].x0).astype(float) @ (0.299, 0.587, 0.114)
    drawn = x0.axes[0].images[0].get_array()
    assert np.abs(drawn[..., 0].astype(float) - wanted).max() <= 0.5
    with pytest.raises(InputError, match="was stopped and has no image"):
        plots.plot_attention(replace(RUN, image=None), over="picture")
    with pytest.raises(InputError, match="a preview map, or decoded frames"):
        plots.plot_attention(replace(RUN, frames=(), preview=None), over="x0")
    with pytest.raises(InputError, match="over='sky'; allowed are None, 'picture', 'x0'"):
        plots.plot_attention(RUN, over="sky")


@pytest.mark.parametrize("name", OF_A_TRACE)
def test_a_failed_check_and_nan_stand_in_the_title(name):
    record, plot = RECORDS[name], getattr(plots, name)
    assert "CHECK FAILED" not in words_of(plot(record))
    wrong = {k: (a * np.float16(1.5)).astype(np.float16) for k, a in record.attention.items()}
    title = plot(replace(record, attention=wrong)).axes[0].get_title(loc="left")
    assert "CHECK FAILED: off by 0.5" in title
    for array in wrong.values():
        array[...] = np.nan
    figure = plot(replace(record, attention=wrong))
    assert "NaN or infinite" in figure.axes[0].get_title(loc="left") and figure.to_png()


@pytest.mark.parametrize("name", OF_A_TRACE)
def test_what_is_not_recorded_is_refused(name):
    wanted = "self_attention" if name == "plot_self_attention" else "attention"
    with pytest.raises(InputError, match=wanted):
        getattr(plots, name)(replace(RECORDS[name], attention={}))


@pytest.mark.parametrize("name", OF_A_TRACE)
def test_a_stopped_run_without_preview_words_or_guidance_is_drawn(name):
    record = RECORDS[name]
    kept = {tap: array[:2] for tap, array in record.attention.items()}
    bare = replace(record, attention=kept, steps=record.steps[:2], image=None, frames=(),
                   preview=None, tokens=None)  # fmt: skip
    steps = tuple(
        replace(s, predictions=tuple(replace(p, uncond=None, guidance_scale=1.0)
                                     for p in s.predictions))
        for s in bare.steps
    )  # fmt: skip
    for run in (replace(bare, steps=steps), replace(record, attention=kept, steps=steps)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure = getattr(plots, name)(run)
            assert figure.to_png() and figure.alt.endswith(".")


def test_many_words_are_cut_and_the_title_says_so():
    count = 40
    words = tuple(f"word{i}" for i in range(count))
    many = replace(RUN.tokens, words=words, kinds=("word",) * count, pieces=words,
                   word_of=tuple(range(count)), ids=tuple(range(count)))  # fmt: skip
    array = np.full((5, 3, 4, count), 1 / count, np.float16)
    run = replace(RUN, tokens=many, attention={MID: array})
    for name, most in (("plot_attention", 24), ("plot_attention_steps", 8)):
        figure = getattr(plots, name)(run)
        assert f"first {most} of 40 words" in words_of(figure) and len(figure.to_png()) < 90_000
    assert "first 16 of 40 words" in words_of(plots.plot_attention_mass(run))
    commas = replace(many, words=(",", *words[1:9], *(",",) * 31))
    drawn = words_of(plots.plot_attention_steps(replace(run, tokens=commas)))
    assert "word8" in drawn and ",#1" not in drawn


@pytest.mark.parametrize("name", OF_A_TRACE)
def test_no_word_of_the_user_is_read_as_html_or_mathematics(name):
    words = replace(RUN.tokens, words=traces.HOSTILE[:4], pieces=(traces.HOSTILE[4],) * 12)
    record = replace(RECORDS[name], tokens=words)
    page = getattr(plots, name)(record)._repr_html_()
    assert page.count("<") == 5 and page.count("<img ") == 1  # figure, img, figcaption
    maths = replace(words, words=("$\\frac{1}{0}$", "$a$", "$\\b$", "\x00"))
    assert getattr(plots, name)(replace(record, tokens=maths)).to_png()


# ---- tables -----------------------------------------------------------------------------------
def test_the_table_of_steps_has_x0_above_and_a_column_for_each_step():
    axes = plots.plot_attention_steps(MIXED, words=["red", "sky"]).axes[0]
    assert len(axes.images) == 15
    assert np.array_equal(axes.images[2].get_array(), np.asarray(RUN.frames[2]))
    found = attention_maps(MIXED, ["red", "sky"], by="step")
    assert np.array_equal(axes.images[8].get_array(), found.maps[0, 3])
    assert np.array_equal(axes.images[14].get_array(), found.maps[1, 4])
    assert {image.get_clim() for image in axes.images[5:]} == {(0, found.maps.max())}
    shown = [t.get_text() for t in axes.texts]
    assert "red" in shown and f"step 3\n{RUN.steps[3].level.karras_sigma:.3g}" in shown
    some = plots.plot_attention_steps(MIXED, words="red", steps=[4, 0]).axes[0]
    assert np.array_equal(some.images[2].get_array(), found.maps[0, 4])
    bare = replace(MIXED, frames=(), steps=tuple(replace(s, predictions=()) for s in RUN.steps))
    assert len(plots.plot_attention_steps(bare, words="red").axes[0].images) == 5
    with pytest.raises(InputError, match="from 0 to 4"):
        plots.plot_attention_steps(RUN, steps=[7])


def test_the_table_of_layers_follows_the_network():
    mixed = {FINE: MIXED.attention[FINE], MID: MIXED.attention[MID]}  # up before mid
    down = f"down_blocks.0.attentions.1.{CROSS}"
    run = replace(MIXED, attention=mixed | {down: MIXED.attention[MID]})
    axes = plots.plot_attention_layers(run, words="red").axes[0]
    headings = [t.get_text() for t in axes.texts][:3]
    assert headings == ["down 0.1\n3×4", "mid\n3×4", "up 1.2\n6×8"]
    wanted = attention_maps(run, "red", layers="up 1.2").maps[0, 0]
    assert np.array_equal(axes.images[2].get_array(), wanted)
    taps = {f"down_blocks.{i}.attentions.0.{CROSS}": MIXED.attention[MID] for i in range(11)}
    many = plots.plot_attention_layers(replace(RUN, attention=taps))
    assert "8 of 11 layers" in words_of(many)


def test_heads_stand_beside_their_layer_with_their_likeness(monkeypatch):
    figure = plots.plot_attention_heads(HEADS, word="red")
    axes = figure.axes[0]
    assert len(axes.images) == 5  # two heads of mid, three of up 1.2
    found = attention_maps(HEADS, "red", by="head")
    assert np.array_equal(axes.images[0].get_array(), found.maps[0, 0])
    assert np.array_equal(axes.images[4].get_array(), found.maps[0, 4])
    starts = [image.get_extent()[0] for image in axes.images]
    assert starts[:2] == starts[2:4] and starts[4] > starts[3]  # more heads than layers: across
    fine = found.maps[0, 2:]
    r = np.corrcoef(fine[2].ravel(), fine.mean(axis=0).ravel())[0, 1]
    assert f"r {r:.2f}" in [t.get_text() for t in axes.texts]
    assert "'red' head by head, mean of steps 0–4" in words_of(figure)
    loud = {k: a.copy() for k, a in HEADS.attention.items()}
    loud[MID][..., 3] = 1.0
    assert "'sky' head by head" in words_of(
        plots.plot_attention_heads(replace(HEADS, attention=loud))
    )
    monkeypatch.setattr(plots.attention_grids, "MOST_COLUMNS", 2)  # too many heads to go across
    below = plots.plot_attention_heads(HEADS, word="red").axes[0].images
    assert [round(image.get_extent()[0]) for image in below] == [0, 1, 0, 1, 1]
    with pytest.raises(InputError, match='"heads"'):
        plots.plot_attention_heads(RUN)


# ---- tokens and pixels ------------------------------------------------------------------------
def test_the_lines_of_the_mass_are_the_groups():
    figure = plots.plot_attention_mass(MIXED)
    found, lines = attention_mass(MIXED), panel(figure, 0).get_lines()
    wanted = [found.of(*found.words), *(found.of(n) for n in ("<start>", "<end>", "<pad>"))]
    for line, share in zip(lines, wanted, strict=True):
        assert np.array_equal(line.get_ydata(), share)
    assert sum(line.get_ydata() for line in lines) == pytest.approx(1, abs=1e-3)
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines})
    rows = panel(figure, 1).images[0].get_array()
    assert np.array_equal(rows, np.stack([found.of(word) for word in found.words]))
    names = [t.get_text() for t in panel(figure, 1).get_yticklabels()]
    assert names == ["a", "red", "sky", "scraper"]


def test_the_words_of_a_pixel_are_ranked_lines_and_its_cell_is_framed():
    figure = plots.plot_pixel_words(MIXED, pixel=(63, 0))
    found = words_at(MIXED, (63, 0))
    for n, line in enumerate(panel(figure, 1).get_lines()):
        assert np.array_equal(line.get_ydata(), found.probabilities[:, n])
    shown = words_of(figure)
    assert f"1. {found.words[0]}" in shown and f"4. {found.words[3]}" in shown
    assert "<start>" in panel(figure, 1).get_title(loc="left")
    box = panel(figure, 0).patches[0].get_bbox()
    assert (box.x0, box.y0, box.x1, box.y1) == (56, 0, 64, 8)  # 6 × 8 cells of 8 pixels
    for plot in (plots.plot_pixel_words, plots.plot_self_attention):
        with pytest.raises(InputError, match="choose one inside the picture"):
            plot(SELF_RUN if plot is plots.plot_self_attention else RUN, pixel=(64, 0))


def test_self_attention_is_shown_as_multiples_of_the_even_share():
    figure = plots.plot_self_attention(SELF_RUN, pixel=(33, 41))
    picture, fine, coarse, mean = figure.axes[0].images
    found = self_attention_at(SELF_RUN, (33, 41))
    assert picture.get_array().shape == (48, 64, 3)
    assert fine.get_array()[5, 4] == 48 and coarse.get_array()[2, 2] == 12
    assert np.array_equal(mean.get_array(), 48 * found.mean)
    assert {i.get_clim() for i in (fine, coarse, mean)} == {(0, 48)}
    frames = figure.axes[0].patches[::2]
    for image, frame, cell in zip((picture, fine, coarse), frames, ((5, 4), (5, 4), (2, 2)),
                                  strict=False):  # fmt: skip
        left, right, low, high = image.get_extent()
        rows, columns = (3, 4) if image is coarse else (6, 8)
        box = frame.get_bbox()
        assert (box.x0 - left) / (right - left) * columns == pytest.approx(cell[1])
        assert (high - box.y1) / (high - low) * rows == pytest.approx(cell[0])
    assert "times the even share" in words_of(figure)
    with pytest.raises(InputError, match="it will take 1.44 kB"):
        plots.plot_self_attention(RUN)


# ---- honesty ----------------------------------------------------------------------------------
def test_honesty_shows_map_picture_and_change_of_each_word():
    figure = plots.plot_honesty(HONESTY)
    images = figure.axes[0].images
    assert len(images) == 2 + 3 + 2
    assert np.array_equal(images[0].get_array(), HONESTY.maps[0])
    assert np.array_equal(images[3].get_array(), np.asarray(HONESTY.images[1]))
    assert np.array_equal(images[5].get_array(), HONESTY.differences[0])
    assert images[5].get_clim() == images[6].get_clim() == (0, HONESTY.differences.max())
    shown = words_of(figure)
    assert HONESTY.verdict in line_of(figure) and HONESTY.verdict in figure.alt
    assert f"own r {HONESTY.own_fits[0]:.2f}" in shown and "✓" in shown and "✗" in shown
    lone = plots.plot_honesty(honesty.leave_one_out(TRACE, LEAVE, ["red"]))
    assert "other r" not in words_of(lone)


def test_honesty_takes_the_words_that_change_most():
    count = 9
    random = np.random.default_rng(0)
    maps = random.random((count, 9, 12))
    differences = maps * np.arange(count)[:, None, None]
    wide = replace(
        HONESTY, words=tuple(f"w{i}" for i in range(count)), maps=maps, differences=differences,
        changes=differences, fits=np.eye(count), p=np.full(count, 0.01),
        images=HONESTY.images[:1] * (count + 1),
    )  # fmt: skip
    figure = plots.plot_honesty(wide)
    shown = words_of(figure)
    assert "w8" in shown and "w3" in shown and "w2" not in shown
    assert "6 of 9 words, most effect" in line_of(figure)


def test_honesty_of_latents_of_nan_and_of_too_few_cells_says_so():
    bare = replace(HONESTY, images=(None,) * 3, what="latents",
                   latents=np.stack([RUN.latents[0]] * 3))  # fmt: skip
    drawn = plots.plot_honesty(bare).axes[0].images[2].get_array()
    assert np.array_equal(drawn, RUN.preview.rgb(RUN.latents[0]))
    assert plots.plot_honesty(replace(bare, preview=None)).to_png()
    broken = HONESTY.maps.copy()
    broken[0, 0, 0] = np.nan
    assert "they mean nothing" in words_of(plots.plot_honesty(replace(HONESTY, maps=broken)))
    few = replace(HONESTY, maps=HONESTY.maps[:, :3, :4])
    assert "12 cells are too coarse" in few.verdict
    wrong = replace(HONESTY, rows=replace(HONESTY.rows, relative=1.0))
    assert "CHECK FAILED" in words_of(plots.plot_honesty(wrong))


# ---- pointing ---------------------------------------------------------------------------------
def test_pointing_marks_hits_and_misses_and_the_rate_beside_chance():
    half = MAPS.copy()
    half[::2] = np.roll(MAPS, 1, axis=0)[::2]
    record = pointing_game(half, MASKS, pictures=PICTURES, what="half of them wrong")
    figure = plots.plot_pointing(record)
    scenes, rates = (panel(figure, i) for i in (0, 1))
    marks = [line.get_marker() for line in scenes.get_lines()]
    assert len(scenes.images) == len(marks) == 10  # scenes 0, 1, 2, 4, 5, 6, 7, 9, 10, 11
    shown = [round(i * 11 / 9) for i in range(10)]
    assert marks == ["o" if record.inside[i] else "X" for i in shown] and len(set(marks)) == 2
    first = scenes.get_lines()[1]
    left, right, low, high = scenes.images[1].get_extent()
    row, column = divmod(int(half[1].argmax()), 8)
    x, y = first.get_xdata()[0], first.get_ydata()[0]
    assert (x - left) / (right - left) * 8 == pytest.approx(column + 0.5)
    assert (high - y) / (high - low) * 6 == pytest.approx(row + 0.5)
    heights = [bar.get_height() for bar in rates.patches]
    assert heights == [record.rate, record.iou.mean()] and record.rate == 0.5
    assert "half of them wrong" in words_of(figure) and record.verdict in figure.alt
    few = plots.plot_pointing(record, most=4)
    assert len(panel(few, 0).images) == 4 and few.get_figheight() < figure.get_figheight()
    assert panel(few, 1).patches[0].get_height() == record.rate  # of all of them


def test_pointing_that_is_chance_says_that_the_maps_mean_nothing():
    lost = pointing_game(np.roll(MAPS, 1, axis=0), MASKS)
    figure = plots.plot_pointing(lost)
    title = figure.axes[0].get_title(loc="left")
    assert "no better than chance, these maps mean nothing" in title
    assert panel(figure, 0).images[0].get_array().shape == (6, 8)  # no picture: the map
    hues = {bar.get_facecolor() for f in (figure, plots.plot_pointing(POINTING))
            for bar in panel(f, 1).patches}  # fmt: skip
    assert len(hues) == 2
    broken = MAPS.copy()
    broken[0, 2, 2] = np.nan
    assert "NaN" in plots.plot_pointing(pointing_game(broken, MASKS)).axes[0].get_title(loc="left")
