"""What holds for every view without a browser: page, file, frame, still, widget."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import traces
from test_plots_guidance import on_the_page
from views_cases import CASES, HARMLESS, HOSTILE, OF_A_RUN, RUNS, Structure, public

from diffusionlab import views
from diffusionlab.errors import InputError
from diffusionlab.plots.figure import SMALL, Figure
from diffusionlab.trace import Trace
from diffusionlab.views import View
from diffusionlab.views.page import POLICY, embedded, packed, plain, source
from diffusionlab.views.view import MOST

NAMES = sorted(CASES)
TEMPLATE = [
    ("html", ("lang",)),
    ("head", ()),
    ("meta", ("charset",)),
    ("meta", ("name", "content")),
    ("meta", ("http-equiv", "content")),
    ("title", ()),
    ("style", ()),
    ("body", ()),
    ("main", ("id",)),
    ("noscript", ()),
    ("p", ()),
    ("script", ("type", "id")),
    ("script", ("type",)),
]
OUTPUT = [
    ("figure", ("style",)),
    ("img", ("alt", "src", "style")),
    ("figcaption", ()),
    ("iframe", ("sandbox", "allow", "title", "style", "srcdoc")),
]


@pytest.fixture(scope="module")
def harmless() -> dict[str, View]:
    return {name: CASES[name](HARMLESS) for name in NAMES}


def small(**changes) -> View:
    """A view of one number, drawn by the step explorer's script (which no test here runs)."""
    image = traces.trace().image
    given = {"script": "step_explorer", "title": "a title", "alt": "One number, 3.",
             "data": {"a": 3}, "live": {"step": 0}, "limits": {"step": (0, 4)},
             "pictures": lambda: [("first", image), ("last", image)],
             "lighter": "Show fewer."}  # fmt: skip
    return View(**(given | changes))


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def addresses(page: str) -> list[str]:
    """Addresses of the net in a page, names of XML languages left out."""
    return re.findall(r"(?:https?:)?//(?!www\.w3\.org/\d{4}/)[\w-]+\.[\w./-]+", page)


def state_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="state">(.*?)</script>', page, re.S)
    return json.loads(found[1])


# ---- every view --------------------------------------------------------------------------------
def test_every_view_has_a_case():
    assert sorted(CASES) == public()
    assert set(OF_A_RUN) <= set(CASES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_the_template_whatever_the_texts(name, harmless):
    for text in (HARMLESS, *traces.HOSTILE):
        page = CASES[name](text).page
        assert Structure(page).found == TEMPLATE, text
        assert page.count("</script") == 2 and page.count("</style") == 1
        assert "\u2028" not in page.split("<script", 1)[1] and "<!--" not in page
        assert json.dumps(text)[1:-1] in json.dumps(state_of(page)), "the text is in the data"
    assert Structure(page).values[4]["content"] == POLICY


@pytest.mark.parametrize("name", NAMES)
def test_a_page_asks_the_net_for_nothing_and_keeps_its_data(name, harmless):
    view = harmless[name]
    assert not addresses(view.page)
    assert state_of(view.page) == json.loads(json.dumps({**view.live, "data": view.data}))
    assert set(view.limits) <= set(view.live) and "data" not in view.live
    assert len(view.page) < 3_000_000
    print(f"{name}: page of {len(view.page):,} bytes")


@pytest.mark.parametrize("name", NAMES)
def test_a_view_tells_what_it_shows(name, harmless):
    view = harmless[name]
    assert len(view.alt) >= 25 and view.alt.endswith(".") and re.search(r"\d", view.alt)
    assert view.title and view.lighter.endswith(".")
    assert repr(view).startswith(f"View {view.script}: ") and "\n" not in repr(view)
    assert CASES[name](HARMLESS).page == view.page, "the same record makes the same page"


@pytest.mark.parametrize("name", NAMES)
def test_an_output_is_a_figure_then_a_frame_that_may_not_leave_itself(name, harmless):
    for view in (harmless[name], CASES[name](HOSTILE)):
        output = view._repr_mimebundle_()
        assert set(output) == {"text/html", "text/plain"}
        found = Structure(output["text/html"])
        assert found.found == OUTPUT
        assert found.of("img")["alt"] == view.alt in found.text
        assert found.of("img")["src"].startswith("data:image/webp;base64,")
        frame = found.of("iframe")
        assert frame["sandbox"] == "allow-scripts" and frame["srcdoc"] == view.page
        assert frame["title"] == view.title


@pytest.mark.parametrize("name", NAMES)
def test_the_still_is_our_figure_and_reads_from_afar(name, harmless):
    figure = harmless[name].to_figure()
    assert isinstance(figure, Figure) and len(figure.alt) >= 25 and figure.alt.endswith(".")
    texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= SMALL
    assert on_the_page(figure)
    assert len(figure._repr_html_()) < 160_000


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_has_the_pages_script_and_a_trait_for_each_live_value(name, harmless):
    view = harmless[name]
    widget, other = view.widget(), view.widget()
    assert widget._esm == source(view.script) == other._esm
    assert widget._esm.rstrip() in view.page and widget._css in view.page
    assert widget.data == view.data and widget.title == view.title
    for trait, value in view.live.items():
        assert getattr(widget, trait) == value
        assert widget.trait_metadata(trait, "sync") is True
    for trait, (low, *_, high) in view.limits.items():
        named = isinstance(high, str)
        setattr(widget, trait, high)
        assert getattr(other, trait) == view.live[trait], "two widgets are two"
        with pytest.raises(Exception, match=high if named else f"{high:g}"):
            setattr(widget, trait, high + ("?" if named else 1))
        with pytest.raises(Exception, match=(low or "is allowed") if named else f"{low:g}"):
            setattr(widget, trait, ("?" + low) if named else low - 1)


@pytest.mark.parametrize("case", RUNS)
@pytest.mark.parametrize("name", sorted(OF_A_RUN))
def test_a_run_unlike_the_usual_one_is_drawn(name, case):
    view = OF_A_RUN[name](RUNS[case]())
    assert Structure(view.page).found == TEMPLATE
    assert Structure(view._repr_mimebundle_()["text/html"]).found == OUTPUT
    assert isinstance(view.to_figure(), Figure)


def test_a_view_is_made_without_matplotlib_torch_or_a_model():
    """The command line opens a saved run within a second."""
    program = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from views_cases import OF_A_RUN, traces\n"
        "for make in OF_A_RUN.values(): make(traces.trace()).page\n"
        "heavy = {'torch', 'matplotlib', 'transformers', 'anywidget', 'ipywidgets', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(root)}, check=True)  # fmt: skip
    assert done.stdout.strip() == "[]", done.stdout


def test_the_checks_can_fail():
    page = small().page
    assert Structure(page).found == TEMPLATE and not addresses(page)
    assert Structure(page.replace("</title>", "</title><b x=y>")).found != TEMPLATE
    assert addresses(page + "src=//cdn.net/x.js") and addresses(page + "https://a.org/x")
    assert not addresses('"http://www.w3.org/2000/svg" 3 // 4 // a note')


# ---- the file ------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", [*traces.HOSTILE, "../../etc/passwd", "half \ud800 a character"])
def test_a_page_is_saved_whatever_its_title(text, tmp_path):
    view = small(title=text, alt=f"{text} 1.")
    path = view.save(tmp_path / "new" / "page.html")
    assert listed(tmp_path / "new") == ["page.html"]
    assert path.read_text(encoding="utf-8") == view.page
    assert Structure(view.page).found == TEMPLATE
    assert Structure(view._repr_mimebundle_()["text/html"]).found == OUTPUT


@pytest.mark.parametrize("name", ['a"b<c>.html', "{x} %s.html", "a" * 240 + ".html", "b.HTM"])
def test_odd_file_names_are_names(name, tmp_path):
    small().save(tmp_path / name)
    assert listed(tmp_path) == [name]


@pytest.mark.parametrize("name", ["", "page.png", "page", ".."])
def test_what_is_no_page_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"path is .*a file that ends in \.html is allowed"):
        small().save(tmp_path / name)
    assert listed(tmp_path) == []


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("before", encoding="utf-8")

    def full(self, target):
        raise OSError("the disc is full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="disc is full"):
            small().save(path)
    assert listed(tmp_path) == ["page.html"] and path.read_text("utf-8") == "before"
    assert small().save(path) == path and path.read_text("utf-8") == small().page


# ---- size ----------------------------------------------------------------------------------------
def test_a_large_page_says_once_what_is_large_and_what_to_do(capsys):
    view = small(data={"reels": "x" * MOST, "words": "y" * 20_000, "a": 1, "b": 2})
    assert view.page is view.page
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("diffusionlab: the page of this view is ")
    assert "reels 8" in told[0] and "words" in told[0] and told[0].endswith("Show fewer.")
    assert told[0].index("reels") < told[0].index("words")
    assert small().page and capsys.readouterr().err == ""


# ---- values --------------------------------------------------------------------------------------
def test_numbers_become_json_and_come_back():
    numbers = np.array([0.0, -1.5, 1e-7, 3], np.float32)
    assert [plain(value) for value in numbers] == pytest.approx(numbers.tolist(), abs=0)
    assert [plain(v) for v in (np.inf, -np.inf, np.nan)] == ["∞", "−∞", "NaN"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded({"a": np.nan})
    assert json.loads(embedded({"<&>": "</script>\u2028"})) == {"<&>": "</script>\u2028"}
    assert embedded("</script>\u2028é").isascii() and "<" not in embedded("</script>")


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32"])
def test_arrays_come_back_to_the_last_bit(kind):
    import base64

    array = (np.arange(24).reshape(2, 3, 4) * 7.3).astype(kind)
    sent = packed(array.transpose(2, 0, 1), kind)
    values = np.frombuffer(base64.b64decode(sent["data"]), np.dtype(kind).newbyteorder("<"))
    assert np.array_equal(values.reshape(sent["shape"]), array.transpose(2, 0, 1))


# ---- stills --------------------------------------------------------------------------------------
def test_a_picture_that_cannot_be_drawn_is_grey_and_says_so():
    image = traces.trace().image
    view = small(pictures=lambda: [("first", image), ("last", None)])
    captions, images = view.captioned()
    assert captions == ["first", "last\nno picture"] and images[0] is image
    assert images[1].size == image.size and images[1].getcolors(1) is not None
    assert view.still().width > 2 * 160 and view.to_figure().alt == view.alt
    assert small(pictures=lambda: [("all", None)]).captioned()[1][0].size == (64, 64)


def test_a_view_may_make_a_figure_of_its_own():
    from diffusionlab.plots import plot_schedule

    view = small(pictures=None, figure=lambda: plot_schedule(traces.schedule()))
    assert "1000 timesteps" in view.to_figure().alt and view.still().mode == "RGB"
    assert Structure(view._repr_mimebundle_()["text/html"]).found == OUTPUT


def test_one_import_loads_one_view():
    assert set(dir(views)) == set(views.PLACES)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        views.nothing  # noqa: B018


def test_a_prompt_that_was_left_out_stays_out(tmp_path):
    run, path = traces.trace(prompt="xyzzy plugh"), tmp_path / "run.safetensors"
    run.save(path, redact_prompt=True)
    for name, make in OF_A_RUN.items():
        assert "xyzzy" not in make(Trace.load(path)).page, name
    assert "xyzzy" in OF_A_RUN["explore"](run).page, "this check can fail"
