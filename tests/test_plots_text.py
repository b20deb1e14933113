"""The pictures of the text side, each on a record whose answer is known.

Their contract (own Axes, alt text, large type, untouched records) is tested in test_plots.py, which
takes the `RECORDS` of this file.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import traces
from matplotlib.patches import Rectangle
from test_text import half_and_half, layers, pooled, told

from diffusionlab import plots
from diffusionlab.analysis.image_text import image_text
from diffusionlab.analysis.padding import padding
from diffusionlab.analysis.text_layers import layer_paths
from diffusionlab.errors import InputError
from diffusionlab.plots.figure import Figure
from diffusionlab.plots.text_space import place_names
from diffusionlab.trace import Merge, Merges, TextEmbedding

TOKENS = traces.tokens()
WORDS = traces.embedding(TOKENS)
PROMPTS = [traces.embedding(replace(TOKENS, prompt=f"prompt number {i}"), seed=i) for i in range(5)]
PICTURES = [np.full((4, 6, 3), 60 * i, np.uint8) for i in range(3)]
MATCHED = image_text(np.eye(3), pooled([1, 0, 0], [0, 1, 0.2], [0.1, 0, 1]), images=PICTURES)


def padded(**changes):
    rows = np.zeros((12, 8))
    rows[:, 0] = 1
    whole = TextEmbedding(((rows + [0, 1, 0, 0, 0, 0, 0, 0]).astype(np.float32),), None, {}, TOKENS)
    rows[1:, 0], rows[1:, 1] = 0, 1
    empty = TextEmbedding((rows.astype(np.float32),), None, {}, TOKENS)
    return padding(whole, empty, **({"run": half_and_half} | changes))


MERGED = Merges(
    "lower",
    ("l", "o", "w", "e", "r "),
    (
        Merge("l", "o", 1, ("lo", "w", "e", "r ")),
        Merge("e", "r ", 3, ("lo", "w", "er ")),
    ),
    3,
)
RECORDS = {
    "plot_image_text": MATCHED,
    "plot_merges": MERGED,
    "plot_padding": padded(),
    "plot_similarity": WORDS,
    "plot_text_attention": layers(),
    "plot_text_layers": layers(),
    "plot_text_pca": PROMPTS,
    "plot_token_table": TOKENS,
}


def texts(figure_or_ax) -> str:
    found = figure_or_ax.findobj(matplotlib.text.Text)
    return "\n".join(t.get_text() for t in found)


def panel(figure, number):
    return figure.axes[0].child_axes[number]


def spoilt(embedding: TextEmbedding, row: int, value: float) -> TextEmbedding:
    hidden = embedding.hidden[0].copy()
    hidden[row] = value
    return replace(embedding, hidden=(hidden,))


# ---- merges -----------------------------------------------------------------------------------
def test_each_merge_is_a_row_of_boxes_as_wide_as_their_letters():
    figure = plots.plot_merges(MERGED)
    axes, boxes = figure.axes[0], figure.axes[0].patches
    rows = [[b.get_width() for b in boxes if round(b.get_y()) == -i] for i in range(3)]
    assert [np.round(np.add(row, 0.12)).tolist() for row in rows] == [
        [1, 1, 1, 1, 1], [2, 1, 1, 1], [2, 1, 2],
    ]  # fmt: skip
    assert [b.get_label() for b in boxes].count("new") == 2
    assert len(axes.lines) == 3  # the mark of the word's end, once a row
    assert "e + r, merge 3" in texts(figure) and "letters" in texts(figure)
    assert figure.alt.startswith("lower: 5 letters, 3 pieces: lo | w | er. l + o, merge 1; e + r")


def test_of_a_long_word_the_last_merges_are_drawn():
    letters = tuple("abcdefghijklmnopqrst")
    steps = tuple(
        Merge("".join(letters[:i]), letters[i], i, ("".join(letters[: i + 1]), *letters[i + 1 :]))
        for i in range(1, 20)
    )
    figure = plots.plot_merges(Merges("".join(letters), letters, steps, 19))
    assert "first 4 rows left out" in figure.alt and figure.get_size_inches()[1] < 10
    assert "merge 19" in texts(figure) and "letters" not in texts(figure).split("\n")[1:]


# ---- the table -------------------------------------------------------------------------------
def test_the_table_names_every_row_folds_padding_and_marks_the_cut():
    figure = plots.plot_token_table(TOKENS)
    chips = [p.get_label() for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    kinds = [label for label in chips if label != "one word"]
    assert kinds == ["start", *["word"] * 5, "cut", "cut", "end", "pad"]
    assert chips.count("one word") == 1  # scra + per
    shown = texts(figure).split("\n")
    for cell in ("scra", "900", "scraper", "<pad> × 5", "7 … 11", "at", "cut", "6"):
        assert cell in shown, cell
    assert shown.count("scraper") == 1
    assert "3 pieces cut" in figure.alt and "scraper into 2" in figure.alt
    assert "Cut off from 'at' on" in figure.alt
    whole = plots.plot_token_table(replace(TOKENS, dropped=0, dropped_words=()))
    assert "cut" not in texts(whole).lower()


def test_bytes_of_one_character_are_counted_in_the_table():
    tokens = replace(
        told("x", "y"), pieces=("<start>", "é", "é", "<end>", *["<pad>"] * 4), words=("é",),
        word_of=(None, 0, 0, *[None] * 5),
    )  # fmt: skip
    shown = texts(plots.plot_token_table(tokens)).split("\n")
    assert "é byte 1 of 2" in shown and "é byte 2 of 2" in shown


@pytest.mark.parametrize(("count", "most"), [(30, 33), (75, 34)])
def test_long_prompts_stand_in_two_blocks_of_readable_rows(count, most):
    many = replace(
        TOKENS, ids=tuple(range(count + 2)), pieces=("<start>", *["piece"] * count, "<end>"),
        kinds=("start", *["word"] * count, "end"), word_of=(None, *range(count), None),
        words=("piece",) * count, kept=count, dropped=0, dropped_words=(),
    )  # fmt: skip
    figure = plots.plot_token_table(many)
    axes = figure.axes[0]
    assert len({p.get_x() for p in axes.patches}) == 2 and len(axes.patches) <= most
    assert figure.get_size_inches()[1] < 9
    assert ("more rows" in texts(figure)) == (count == 75)
    boxes = [p.get_bbox() for p in axes.patches]
    assert max(b.x1 for b in boxes) <= axes.get_xlim()[1]
    assert min(b.y0 for b in boxes) > axes.get_ylim()[0]


# ---- layers ----------------------------------------------------------------------------------
def test_layers_are_drawn_as_lengths_cosines_and_a_plane():
    record = layers()
    figure, found = plots.plot_text_layers(record), layer_paths(record)
    shown = list(range(8))  # the five paddings once
    assert np.array_equal(panel(figure, 0).images[0].get_array(), found.norms[:, shown].T)
    turned = panel(figure, 1).images[0].get_array()
    assert np.array_equal(turned, found.to_start[:, shown].T)
    assert panel(figure, 1).images[0].get_clim() == (-1, 1)
    names = [t.get_text() for t in panel(figure, 0).get_yticklabels()]
    assert names == [*TOKENS.pieces[:7], "<pad> (1 of 5)"]
    paths = [line for line in panel(figure, 2).get_lines() if len(line.get_xdata()) == 3]
    assert np.array_equal(paths[1].get_xydata(), found.points[:, 1])
    assert "CHECK FAILED" not in texts(figure) and "1 of" not in figure.alt
    wrong = plots.plot_text_layers(replace(record, final=record.final[::-1]))
    assert "CHECK FAILED" in texts(wrong)


def test_layers_with_nan_say_so():
    hidden = layers().hidden.copy()
    hidden[1, 3] = np.nan
    figure = plots.plot_text_layers(layers(hidden=hidden))
    figure.to_png()
    assert "8 of 288 values are NaN or infinite" in texts(figure)


def test_many_layers_are_drawn_without_numbers():
    hidden = np.random.default_rng(0).normal(size=(13, 12, 8)).astype(np.float32)
    figure = plots.plot_text_layers(layers(hidden=hidden))
    assert len(panel(figure, 0).texts) == 0 and len(panel(figure, 0).get_xticks()) > 5
    assert len(panel(plots.plot_text_layers(layers()), 0).texts) == 24


def test_attention_is_a_triangle_of_the_chosen_layer_and_head():
    record = layers()
    axes = plots.plot_text_attention(record, layer=0, head=1).axes[0]
    drawn = axes.images[0].get_array()
    assert drawn.shape == (8, 8) and drawn.mask[np.triu_indices(8, 1)].all()
    assert np.asarray(drawn)[3, :4] == pytest.approx(0.25) and drawn[0, 0] == 1
    assert axes.images[0].get_clim() == (0, 1) and "layer 0, head 1" in texts(axes)
    assert "later tokens\nare not seen" in texts(axes) and "CHECK FAILED" not in texts(axes)
    assert "mean of 2 layers, 3 heads" in texts(plots.plot_text_attention(record))
    with pytest.raises(InputError, match="this text encoder has 2: 0 to 1 is allowed"):
        plots.plot_text_attention(record, layer=2)


def test_attention_that_breaks_a_rule_says_which():
    record = layers()
    ahead = layers(attention=record.attention[..., ::-1, ::-1].copy())
    shown = texts(plots.plot_text_attention(ahead))
    assert "(later tokens have 0)" in shown and "are not seen" not in shown
    louder = texts(plots.plot_text_attention(layers(attention=record.attention * 2)))
    assert "off by 1 (rows sum to 1)" in louder and "later tokens have" not in louder
    holes = record.attention.copy()
    holes[0, 0, 3, 1] = np.nan
    figure = plots.plot_text_attention(layers(attention=holes))
    figure.to_png()
    assert "1 of 864 values are NaN" in texts(figure)


# ---- similarity ------------------------------------------------------------------------------
def test_similarity_prints_its_values_and_names_its_words():
    figure = plots.plot_similarity(WORDS)
    axes = figure.axes[0]
    rows = WORDS.hidden[0].astype(np.float64)
    a, b = rows[1], rows[4:6].mean(axis=0)
    wanted = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert axes.images[0].get_array()[0, 3] == pytest.approx(wanted, abs=1e-12)
    assert axes.images[0].get_clim() == (-1, 1) and len(axes.texts) == 16
    assert f"{wanted:.2f}".replace("-", "−") in [t.get_text() for t in axes.texts]
    for ticks in (axes.get_yticklabels(), axes.get_xticklabels()):
        assert [t.get_text() for t in ticks] == ["a", "red", "sky", "scraper"]
    assert "random directions: 0 ± 0.35" in texts(figure)
    assert "mean subtracted" in texts(plots.plot_similarity(PROMPTS, centre=True))


def test_long_names_stand_once_and_many_values_are_not_printed():
    axes = plots.plot_similarity(PROMPTS).axes[0]
    assert axes.get_yticklabels()[1].get_text() == "prompt number 1  2"
    assert axes.get_xticklabels()[1].get_text() == "2"
    axes = plots.plot_similarity(PROMPTS * 3).axes[0]
    assert axes.images[0].get_array().shape == (15, 15) and not axes.texts


def test_similarity_tells_a_row_without_direction():
    figure = plots.plot_similarity(spoilt(WORDS, 2, 0.0))
    figure.to_png()
    assert "7 of 16 values are NaN or infinite" in texts(figure)


# ---- planes ----------------------------------------------------------------------------------
def test_the_plane_shows_its_points_and_what_they_explain():
    rows = np.zeros((8, 4))
    rows[1:5, 0], rows[1:5, 2] = [-3, -1, 1, 3], [0.9, -0.9, -0.9, 0.9]
    words = TextEmbedding((rows,), None, {}, told("one", "two", "six", "ten"))
    figure = plots.plot_text_pca(words)
    axes = figure.axes[0]
    points = [line.get_xydata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert np.abs(points) == pytest.approx(np.abs(rows[1:5][:, [0, 2]]), abs=1e-9)
    assert [t.get_text() for t in axes.texts if t.get_text()].count("ten") == 1
    assert "100% of the variance" in axes.get_title(loc="left")
    assert axes.get_xlabel().startswith("first axis, 86% of variance")


def test_the_plane_warns_in_its_title():
    noise = np.random.default_rng(0).normal(size=(30, 40))
    prompts = [spoilt(PROMPTS[0], 6, 0.0) for _ in noise]
    prompts = [
        replace(p, hidden=(np.broadcast_to(v, (12, 40)),))
        for p, v in zip(prompts, noise, strict=True)
    ]
    assert "no more than chance" in texts(plots.plot_text_pca(prompts))
    assert "3 points always fit" in texts(plots.plot_text_pca(PROMPTS[:3]))
    bad = plots.plot_text_pca(spoilt(WORDS, 2, np.inf))
    bad.to_png()
    assert "8 of 32 values are NaN or infinite" in texts(bad)
    with pytest.raises(InputError, match="3 or more"):
        plots.plot_text_pca(PROMPTS[:2])


def test_names_of_points_never_lie_on_each_other():
    points = np.array([[0, 0], [0, 0], [0.01, 0.01], [0, 0.02], [1, 1], [1, 1.0]])
    figure = Figure(figsize=(10, 6))
    axes = figure.add_axes((0.1, 0.1, 0.85, 0.85))
    place_names(axes, points, ["a rather long name"] * 6, (8.5, 5.1))
    figure.to_png()
    boxes = [t.get_window_extent() for t in axes.texts]
    inside = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_names_keep_apart_where_the_axes_hold_more_than_their_points():
    points = np.array([[0, 0], [0, 0], [0.01, 0.01], [0, 0.02], [1, 1], [1, 1.0]])
    around = np.array([[-9, 0], [3, -7.0], [np.nan, 0]])
    figure = Figure(figsize=(10, 6))
    axes = figure.add_axes((0.1, 0.1, 0.85, 0.85))
    place_names(axes, points, ["a rather long name"] * 6, (8.5, 5.1), around=around)
    figure.to_png()
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < -9 and right > 3 and low < -7 and high > 1
    boxes = [t.get_window_extent() for t in axes.texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


# ---- images and captions ---------------------------------------------------------------------
def test_captions_are_rows_images_columns_and_the_best_are_marked():
    axes = plots.plot_image_text(MATCHED).axes[0]
    assert np.array_equal(axes.images[0].get_array(), MATCHED.matrix.T)
    assert len(axes.images) == 4 and np.array_equal(axes.images[2].get_array(), PICTURES[1])
    marks = [line.get_marker() for line in axes.get_lines()]
    assert marks == ["o"] * 3 and len(axes.patches) == 3
    assert "finds caption: 3 of 3" in texts(axes) and "(chance: 1 of 3)" in texts(axes)
    moved = image_text(np.eye(3), pooled([0, 1, 0], [0, 0, 1], [1, 0, 0]))
    wrong = plots.plot_image_text(moved)
    assert [line.get_marker() for line in wrong.axes[0].get_lines()] == ["X"] * 3
    assert len(wrong.axes[0].images) == 1 and "0 of 3" in texts(wrong)
    assert "chance 33%" in wrong.alt
    long = image_text(2 * np.eye(3), pooled([1, 0, 0], [0, 1, 0], [0, 0, 1]))
    assert "CHECK FAILED: off by 1" in texts(plots.plot_image_text(long))
    holes = plots.plot_image_text(image_text(np.eye(3), pooled([0, 0, 0], [0, 1, 0], [0, 0, 1])))
    holes.to_png()
    assert "3 of 9 values are NaN" in texts(holes)


# ---- padding ---------------------------------------------------------------------------------
def test_padding_shows_runs_differences_and_rows():
    record = padded()
    figure = plots.plot_padding(record)
    rows, sheet = figure.axes[0].child_axes
    assert len(sheet.images) == 7  # four ends, three differences
    ends = [run.trace.preview.rgb(run.trace.steps[-1].next_latent) for run in record.runs]
    assert np.array_equal(sheet.images[0].get_array(), ends[0])
    off = np.abs(ends[3].astype(float) - ends[0]).mean(axis=-1)
    assert np.array_equal(sheet.images[6].get_array(), off) and off.shape == (6, 8)
    curves = {line.get_label(): line.get_ydata() for line in rows.get_lines()}
    assert np.array_equal(curves["with the end row"], record.to_end)
    assert np.array_equal(curves["with the empty prompt's row"], record.to_empty)
    assert "moved 0.25 without padding, 0.75 without words" in texts(figure)
    pictured = [replace(run, trace=replace(run.trace, image=traces.trace(2).image))
                for run in record.runs]  # fmt: skip
    with_image = plots.plot_padding(replace(record, runs=tuple(pictured)))
    first = panel(with_image, 1).images[0].get_array()
    assert first.shape == (48, 64, 3)


def test_padding_without_runs_and_with_runs_that_do_not_repeat():
    bare = plots.plot_padding(padded(run=None))
    assert len(bare.axes[0].child_axes) == 1 and "Distance" not in bare.alt
    calls = iter(range(9))
    restless = padded(run=lambda text_embedding: half_and_half(text_embedding, off=next(calls)))
    assert "CHECK FAILED" in texts(plots.plot_padding(restless))
    assert "CHECK FAILED" not in texts(plots.plot_padding(padded()))
    full = replace(padded(run=None), tokens=replace(TOKENS, kinds=("start", *["word"] * 10, "end")))
    plots.plot_padding(full).to_png()


# ---- the user's text -------------------------------------------------------------------------
def test_no_text_of_the_user_is_read_as_html_or_mathematics():
    text = " ".join(traces.HOSTILE) + " 🐧 \x00 \ud800 مرحبا"
    words = replace(
        TOKENS, prompt=text, pieces=(text,) * 12, words=(text,) * 4, dropped_words=(text,)
    )
    prompts = [traces.embedding(words, seed=i) for i in range(4)]
    named = replace(MATCHED, captions=(text,) * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            plots.plot_token_table(words),
            plots.plot_text_layers(layers(tokens=words)),
            plots.plot_text_attention(layers(tokens=words)),
            plots.plot_similarity(prompts),
            plots.plot_similarity(prompts[0]),
            plots.plot_text_pca(prompts),
            plots.plot_image_text(named),
            plots.plot_padding(replace(padded(run=None), tokens=words)),
        ):
            page = figure._repr_html_()
            assert page.count("<") == 5 and page.count("<img ") == 1  # figure, img, figcaption


def test_a_prompt_without_padding_and_the_empty_one_are_drawn():
    letters = "abcdefghij"
    full = replace(
        TOKENS, kinds=("start", *["word"] * 10, "end"), word_of=(None, *range(10), None),
        words=tuple(letters), pieces=("<start>", *letters, "<end>"),
    )  # fmt: skip
    none = replace(
        TOKENS, kinds=("start", "end", *["pad"] * 10), word_of=(None,) * 12, words=(),
        pieces=("<start>", "<end>", *["<pad>"] * 10), dropped=0, dropped_words=(),
    )  # fmt: skip
    for tokens in (full, none):
        plots.plot_token_table(tokens).to_png()
        plots.plot_text_attention(layers(tokens=tokens)).to_png()
        plots.plot_text_layers(layers(tokens=tokens)).to_png()
    assert "0 words" in plots.plot_token_table(none).alt
