"""Every plot by its contract, and each on a constructed record whose answer is known."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import traces
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as PlainFigure
from matplotlib.patches import FancyBboxPatch
from test_lesson import RECORDS as LESSON_RECORDS
from test_plots_attention import RECORDS as ATTENTION_RECORDS
from test_plots_guidance import RECORDS as GUIDANCE_RECORDS
from test_plots_guidance import on_the_page
from test_plots_latents import RECORDS as LATENT_RECORDS
from test_plots_samplers import RECORDS as SAMPLER_RECORDS
from test_plots_text import RECORDS as TEXT_RECORDS
from test_trace import same

from diffusionlab import plots
from diffusionlab.analysis.latents import branch_eps, branch_x0, residual_of
from diffusionlab.analysis.updates import coefficients, equation, invariants, replay
from diffusionlab.errors import InputError
from diffusionlab.plan import Stage, Step, Term, Update
from diffusionlab.plots.figure import SMALL, Figure, canvas, colour, drawable, heading, text_width
from diffusionlab.plots.sheets import Cell, Sheet
from diffusionlab.trace import Latent, TextEmbedding

RUN = traces.trace(5)
LATENT = Latent(RUN.latents[0], RUN.steps[0].level, "draw_noise", RUN.preview)
RECORDS = {
    "plot_latent": LATENT,
    "plot_prediction": replace(RUN.predictions[1], preview=RUN.preview),
    "plot_schedule": traces.schedule(),
    "plot_step": RUN.steps[2],
    "plot_text_embedding": RUN.text_embedding,
    "plot_tokens": RUN.tokens,
    "plot_trace": RUN,
    "plot_update": RUN.steps[2],
    **SAMPLER_RECORDS,
    **ATTENTION_RECORDS,
    **GUIDANCE_RECORDS,
    **LATENT_RECORDS,
    **LESSON_RECORDS,
    **TEXT_RECORDS,
}
NAMES = [name for name in plots.__all__ if name.startswith("plot_")]


def texts(figure_or_ax) -> str:
    found = figure_or_ax.findobj(matplotlib.text.Text)
    return "\n".join(t.get_text() for t in found)


# ---- the contract ----------------------------------------------------------------------------
def test_every_plot_has_a_record_here():
    assert sorted(RECORDS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_without_axes_our_figure_shows_itself(name):
    plot = getattr(plots, name)
    parameters = inspect.signature(plot).parameters
    assert next(iter(parameters)) == "record" and parameters["ax"].kind.name == "KEYWORD_ONLY"
    before = copy.deepcopy(RECORDS[name])
    figure = plot(RECORDS[name])
    page = figure._repr_html_()
    assert isinstance(figure, plots.Figure) and same(before, RECORDS[name])
    assert page.startswith("<figure") and 'src="data:image/' in page
    assert len(figure.alt) > 30 and figure.alt.endswith(".") and len(page) < 120_000
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize("name", NAMES)
def test_with_axes_it_draws_there_and_nowhere_else(name):
    figure = PlainFigure(figsize=(12, 8))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    assert getattr(plots, name)(RECORDS[name], ax=right) is right
    assert right.has_data() or right.child_axes or right.images
    assert not left.has_data() and not left.texts and not left.get_title(loc="left")
    figure.canvas.draw()


@pytest.mark.parametrize("name", NAMES)
def test_text_is_large_lines_are_thick_and_no_setting_is_touched(name):
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = getattr(plots, name)(RECORDS[name])
        figure.to_png()
    assert dict(matplotlib.rcParams) == before
    drawn = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    minor = {t for axes in figure.findobj(matplotlib.axes.Axes) for t in _undrawn(axes)}
    assert min(t.get_fontsize() for t in drawn if t not in minor) >= SMALL >= 14
    curves = [
        line
        for axes in figure.findobj(matplotlib.axes.Axes)
        for line in axes.get_lines()
        if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"
    ]
    assert all(line.get_linewidth() >= 2.5 for line in curves)


@pytest.mark.parametrize("name", NAMES)
def test_no_text_leaves_the_page(name):
    assert on_the_page(getattr(plots, name)(RECORDS[name]))


def test_a_heading_wraps_and_failed_checks_stand_on_their_own_lines():
    calm, failed = canvas(None, (8, 3)), canvas(None, (8, 3))
    heading(calm, "a short title", "")
    heading(failed, "words " * 20, "CHECK FAILED: off by 1", "3 of 4 values are NaN")
    title = failed.get_title(loc="left").split("\n")
    assert calm.get_title(loc="left") == "a short title" and calm.figure.get_figheight() == 3
    assert title[-2:] == ["CHECK FAILED: off by 1", "3 of 4 values are NaN"] and len(title) > 3
    assert max(text_width(line, 20) for line in title) < 8
    assert failed.figure.get_figheight() == pytest.approx(3 + (len(title) - 1) / 3)
    assert on_the_page(failed.figure) and failed.title.get_color() != colour("vermilion")
    reds = [t for t in failed.findobj(matplotlib.text.Text) if t.get_color() == colour("vermilion")]
    assert [t.get_text() for t in reds] == ["\n".join(title)]


def test_a_page_of_photographs_is_webp_and_one_of_lines_is_png():
    ramp = np.add.outer(np.linspace(0.1, 0.5, 400), np.linspace(0, 0.4, 400))[..., None]
    noise = ramp + np.random.default_rng(0).normal(0, 0.02, (400, 400, 3))
    photographs, lines = Figure(figsize=(9, 9)), Figure(figsize=(9, 9))
    photographs.add_axes((0, 0, 1, 1)).imshow(noise)
    lines.add_subplot().plot([0, 1, 0], linewidth=3)
    assert photographs.encoded()[1] == "image/webp" and lines.encoded()[1] == "image/png"
    assert photographs.encoded(most=10**9)[1] == "image/png"
    assert photographs.to_png()[:4] == b"\x89PNG" and photographs.dpi == Figure().dpi
    assert len(lines._repr_html_()) < 4 / 3 * len(lines.encoded()[0])  # as lossless WebP


def test_a_sheet_places_names_captions_notes_and_gaps():
    wide, high = np.zeros((2, 4)), np.ones((6, 4))
    sheet = Sheet(["one", "two"], ["a", "b"], [
        [Cell(wide, note="below"), Cell(note="missing")],
        [Cell(high, caption="above"), Cell()],
    ])  # fmt: skip
    axes = sheet.axes(None)
    first, second = sheet.draw(axes)
    assert sheet.tall == 1.5 and first.get_extent() == [0, 1, -0.5, 0]
    left, right, low, top = second.get_extent()
    assert (left, right) == (0, 1) and top - low == pytest.approx(1.5) and top < -1.5
    places = {t.get_text(): t.get_position() for t in axes.texts}
    assert set(places) == {"one", "two", "a", "b", "below", "missing", "above"}
    assert places["below"][1] < -0.5 and places["above"][1] > top and places["one"][0] < 0
    assert places["missing"] == (1.56, -0.75) and on_the_page(axes.figure)


def _undrawn(axes) -> list:
    """Labels of minor ticks, which are empty or drawn as powers, and of axes that are off."""
    which = ("minor",) if axes.axison else ("minor", "major")
    both = (axes.xaxis, axes.yaxis)
    return [label for axis in both for w in which for label in axis.get_ticklabels(which=w)]


def test_no_text_of_the_user_is_read_as_html_or_mathematics():
    text = " ".join(("$\\frac{1}{0}$", *traces.HOSTILE))
    run = traces.trace(2, prompt=text)
    words = replace(run.tokens, pieces=(text,) * 12, words=(text,) * 4, dropped_words=(text,))
    run = replace(run, tokens=words, settings=replace(run.settings, model=text))
    layers, anatomy = RECORDS["plot_text_layers"], replace(RECORDS["plot_compute"], model=text)
    hostile_layers = replace(layers, tokens=_spoken(layers.tokens, text))
    padding, ablation = RECORDS["plot_padding"], replace(RECORDS["plot_ablation"], what=text)
    changed = tuple(replace(one, name=text) for one in ablation.changed)
    for figure in (
        plots.plot_noising(replace(RECORDS["plot_noising"], prompt=text)),
        plots.plot_text_layers(hostile_layers),
        plots.plot_text_attention(hostile_layers),
        plots.plot_compute(anatomy),
        plots.plot_hourglass(anatomy),
        plots.plot_padding(replace(padding, tokens=_spoken(padding.tokens, text))),
        plots.plot_guidance_sweep(replace(RECORDS["plot_guidance_sweep"], prompt=text)),
        plots.plot_ablation(replace(ablation, changed=changed)),
        plots.plot_filmstrip(run),
        plots.plot_trace(run),
        plots.plot_tokens(words),
        plots.plot_text_embedding(replace(run.text_embedding, tokens=words)),
        plots.plot_attention(run),
        plots.plot_latent(replace(LATENT, made_by=text)),
    ):
        page = figure._repr_html_()
        assert page.count("<") == 5 and page.count("<img ") == 1  # figure, img, figcaption


def _spoken(tokens, text):
    """The same tokens, all of whose words are a text."""
    return replace(tokens, prompt=text, pieces=(text,) * len(tokens.pieces),
                   words=(text,) * len(tokens.words), dropped_words=(text,))  # fmt: skip


def test_characters_without_a_glyph_become_boxes_without_a_warning():
    assert drawable("a é 🐧\n") == "a é □\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_trace(traces.trace(2, prompt="🐧 \x00 \ud800 مرحبا")).to_png()


def test_importing_the_view_tower_loads_no_torch_and_no_pyplot():
    code = (
        "import sys; import diffusionlab.plots, diffusionlab.analysis.updates, diffusionlab.trace; "
        "import diffusionlab.analysis.attention, diffusionlab.display; "
        "light = 'matplotlib' in sys.modules; "
        "[getattr(diffusionlab.plots, n) for n in diffusionlab.plots.__all__]; "
        "bad = {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules); "
        "sys.exit(f'loaded {bad} {light}' if bad or light else 0)"
    )
    root = Path(__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    broken = code.replace("import sys;", "import sys, types; sys.modules['torch'] = types;")
    assert subprocess.run([sys.executable, "-c", broken], cwd=root, capture_output=True).returncode
    with pytest.raises(AttributeError, match="plot_nothing"):
        _ = plots.plot_nothing


# ---- known answers ---------------------------------------------------------------------------
def test_latent_channels_share_one_symmetric_scale():
    axes = plots.plot_latent(LATENT).axes[0]
    assert len(axes.images) == 5
    for i, image in enumerate(axes.images[:4]):
        assert np.array_equal(image.get_array(), LATENT.values[i].astype(np.float64))
        low, high = image.get_clim()
        assert high == -low == pytest.approx(np.abs(LATENT.values).max())
    assert np.array_equal(axes.images[4].get_array(), RUN.preview.rgb(LATENT.values))
    mapless = plots.plot_latent(replace(LATENT, preview=None))
    assert len(mapless.axes[0].images) == 4 and "no preview map" in texts(mapless)


def test_a_latent_with_nan_says_so_instead_of_hiding_it():
    values = LATENT.values.copy()
    values[0, 0, 0] = np.nan
    title = texts(plots.plot_latent(replace(LATENT, values=values, made_by="update")))
    assert "1 of 192 values are NaN or infinite" in title and "made by update" in title
    assert "NaN" not in texts(plots.plot_latent(LATENT))


def test_prediction_shows_both_branches_and_checks_itself():
    call = RECORDS["plot_prediction"]
    axes = plots.plot_prediction(call).axes[0]
    assert len(axes.images) == 6 and "CHECK FAILED" not in texts(axes)
    assert np.array_equal(axes.images[3].get_array(), call.preview.rgb(call.x0))
    assert np.array_equal(axes.images[2].get_array(), call.preview.rgb(branch_x0(call, "cond")))
    single = plots.plot_prediction(replace(call, uncond=None, guidance_scale=1.0))
    assert len(single.axes[0].images) == 4 and "was not run" in single.alt
    wrong = replace(call)
    wrong.__dict__["eps"] = call.eps + 0.1  # the cached view, spoilt
    assert "CHECK FAILED" in texts(plots.plot_prediction(wrong))
    assert residual_of(call).holds and not residual_of(wrong).holds


def test_branches_stand_for_the_same_point():
    call = RUN.predictions[0]
    for branch in ("cond", "uncond"):
        back = call.level.alpha * branch_x0(call, branch) + call.level.sigma * branch_eps(
            call, branch
        )
        assert np.abs(back - call.latent).max() < 1e-5
    assert (
        branch_x0(replace(call, uncond=None), "uncond")
        is None
        is branch_eps(replace(call, uncond=None), "uncond")
    )


def test_update_bars_are_the_coefficients():
    step = RUN.steps[2]
    axes = plots.plot_update(step).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [c.weight for c in coefficients(step)]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x_t", "x0, call 2"]
    wrong = replace(step, update=Update(step.update.a * 1.01, step.update.terms))
    assert "CHECK FAILED" in texts(plots.plot_update(wrong)) and not invariants(wrong).holds
    assert "CHECK FAILED" not in texts(axes) and invariants(step).relative < 1e-9


def test_the_equation_reads_like_one():
    update = Update(1.24, (Term("x0", 0, 0.5), Term("eps", 0, -0.296)), ((0, 0.1),))
    step = replace(RUN.steps[0], update=update)
    assert equation(step) == "x_next = 1.24 x_t + 0.5 x0 − 0.296 eps + 0.1 noise"


def test_replaying_the_stored_update_gives_the_stored_latent():
    assert all(replay(RUN, i).holds for i in range(5))
    moved = replace(RUN.steps[3], next_latent=RUN.steps[3].next_latent + 0.01)
    broken = replace(RUN, steps=(*RUN.steps[:3], moved, RUN.steps[4]))
    assert not replay(broken, 3).holds and "CHECK FAILED" in texts(plots.plot_trace(broken))


def test_step_shows_noise_that_was_drawn():
    step = RUN.steps[1]
    drawn = replace(step, noises=(step.latent,))
    assert len(plots.plot_step(drawn).axes[0].images) == 5
    bare = plots.plot_step(replace(step, predictions=()))
    assert len(bare.axes[0].images) == 2 and "no preview map" in texts(bare)
    assert "no preview map" not in texts(plots.plot_step(step, preview=RUN.preview))


def test_schedule_curves_and_marked_levels():
    schedule = traces.schedule()
    levels = schedule.levels(10, "trailing", "clean")
    panels = {p.get_label(): p for p in plots.plot_schedule(schedule, levels).axes[0].child_axes}
    assert len(panels) == 5
    curve, marks = panels["karras_sigma = sigma / alpha"].get_lines()
    assert np.array_equal(curve.get_ydata(), schedule.karras_sigma)
    assert curve.get_ydata()[-1] == pytest.approx(14.614641, rel=1e-6)
    assert marks.get_xdata().tolist() == [level.timestep for level in levels[:-1]]
    for name, panel in panels.items():
        *_, line, dots = panel.get_lines()
        on_curve = np.interp(dots.get_xdata(), line.get_xdata(), line.get_ydata())
        assert np.allclose(on_curve, dots.get_ydata(), rtol=1e-6), name
    bare = plots.plot_schedule(schedule)
    assert all(len(p.get_lines()) <= 2 for p in bare.axes[0].child_axes)
    assert "levels of a run" not in bare.alt


def test_a_schedule_with_zero_terminal_snr_is_drawn():
    schedule = replace(traces.schedule(), prediction_type="v").zero_terminal_snr()
    figure = plots.plot_schedule(schedule, schedule.levels(5))
    assert "inf" in figure.alt and figure.to_png()


def test_split_words_side_by_side_do_not_write_over_each_other():
    words = replace(
        RUN.tokens, words=("cyberpunk", "cityscape"), kept=4, dropped=0, dropped_words=(),
        pieces=("<start>", "cyber", "punk", "city", "scape", "<end>", *["<pad>"] * 6),
        kinds=("start", *["word"] * 4, "end", *["pad"] * 6),
        word_of=(None, 0, 0, 1, 1, *[None] * 7),
    )  # fmt: skip
    figure = plots.plot_tokens(words)
    told = [t for t in figure.axes[0].texts if t.get_text() in words.words]
    assert len(told) == 2 and "one word" not in "".join(t.get_text() for t in figure.axes[0].texts)


def test_tokens_show_kinds_ids_words_and_the_cut():
    figure = plots.plot_tokens(RUN.tokens)
    shapes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    kinds = [p.get_label() for p in shapes]
    assert kinds == ["start", *["word"] * 5, "cut", "end", "pad"]
    shown = texts(figure)
    for part in ("scra", "900", "one word: scraper", "at night", "3 pieces cut", "<pad> × 5"):
        assert part in shown
    assert "Split words: scraper" in figure.alt
    whole = plots.plot_tokens(replace(RUN.tokens, dropped=0, dropped_words=()))
    assert "cut" not in texts(whole)


def test_long_prompts_wrap_into_rows_that_stay_inside():
    count = 75
    many = replace(
        RUN.tokens, ids=tuple(range(count)), pieces=("piece",) * count, kinds=("word",) * count,
        word_of=tuple(range(count)), words=("piece",) * count, kept=count, dropped=0,
    )  # fmt: skip
    axes = plots.plot_tokens(many).axes[0]
    boxes = [p.get_bbox() for p in axes.patches]
    assert len(boxes) == count and len({box.y0 for box in boxes}) > 3
    assert max(b.x1 for b in boxes) <= axes.get_xlim()[1] and min(b.x0 for b in boxes) >= 0
    assert min(b.y0 for b in boxes) > axes.get_ylim()[0]


def test_text_embedding_rows_are_the_tokens_rows():
    record = RUN.text_embedding
    axes = plots.plot_text_embedding(record).axes[0]
    assert np.array_equal(axes.images[0].get_array(), record.hidden[0][:8].astype(np.float64))
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert names[1:6] == ["a", "red", "sky", "scra", "per"] and names[-1] == "<pad> (1 of 5)"
    bare = plots.plot_text_embedding(TextEmbedding(record.hidden))
    assert bare.axes[0].images[0].get_array().shape == (12, 8)


def test_one_of_two_text_encoders_is_drawn_and_named():
    alone = RUN.text_embedding
    both = replace(alone, hidden=(alone.hidden[0], np.ones((12, 5), np.float32)))
    one = plots.plot_text_embedding(alone)
    assert one.axes[0].get_title("left").startswith("text embedding: 12 rows × 8 numbers, one row")
    assert one.alt.startswith("Heat map of 8 token rows with 8 numbers each, between")
    for encoder, (name, width) in enumerate((("first", 8), ("second", 5))):
        figure = plots.plot_text_embedding(both, encoder=encoder)
        title = " ".join(figure.axes[0].get_title("left").split())
        assert title.startswith(f"text embedding of the {name} of 2 encoders: 12 rows × {width}")
        assert f"{width} numbers each of the {name} of 2 encoders, between" in figure.alt
        drawn = figure.axes[0].images[0].get_array()
        assert np.array_equal(drawn, both.hidden[encoder][:8].astype(np.float64))
    assert plots.plot_text_embedding(both).alt.count("of the first of 2 encoders") == 1
    for encoder in (1, -1, True):
        with pytest.raises(InputError, match="encoder is .*; 0 to 0 is allowed"):
            plots.plot_text_embedding(alone, encoder=encoder)


def test_live_tensors_are_drawn_as_their_numbers():
    torch = pytest.importorskip("torch")
    latent = plots.plot_latent(replace(LATENT, values=torch.from_numpy(LATENT.values.copy())))
    assert np.allclose(latent.axes[0].images[0].get_array(), LATENT.values[0])
    step = RUN.steps[0]
    arrays = {n: torch.from_numpy(getattr(step, n).copy()) for n in ("latent", "next_latent")}
    assert len(plots.plot_step(replace(step, **arrays)).axes[0].images) == 4
    assert isinstance(step, Step) and isinstance(step.stages[0], Stage)
