"""The parts that all scripts are built from, one by one, beside what Python says of the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import traces
from looking import Page
from views_cases import HARMLESS

from diffusionlab.images import to_array, to_image
from diffusionlab.views import View, explore, page
from diffusionlab.views.page import packed, plain
from diffusionlab.views.reels import reel

PARTS = ("kit", "player", "colours")
BODY = """
function render({ model, el }) {
  const data = model.get("data");
  const scrub = player({ model, count: 4, say: (i) => `step ${i} of 3` });
  const frame = shell({ model, el, title: data.title, keys: scrub.keys });
  const line = make("p", { class: "told" });
  const dial = make("input", { type: "range", min: 0, max: 10, value: 3, "aria-label": "dial",
    oninput: () => { line.textContent = dial.value; } });
  const words = chooser({ label: "words", items: ["a", "b", "c"], loose: true,
    chosen: (i) => { line.textContent = "chosen " + i; },
    pointed: (i) => { line.dataset.pointed = i; } });
  const kinds = chooser({ label: "kinds", items: ["x", "y"],
    chosen: (i) => put(model, "kind", i) });
  const field = make("input", { type: "number", value: 1, "aria-label": "number" });
  const tick = make("input", { type: "checkbox", "aria-label": "tick" });
  const glass = data.reel ? screen(data.reel) : null;
  frame.body.append(scrub.el, dial, words.el, kinds.el, field, tick, line);
  if (glass) frame.body.append(glass.el);
  globalThis.kit = { told, unpack, heat, bar, colourOf, VIRIDIS, SIGNED,
    make, model, glass, inside, put, follow, scrub };
  return () => { scrub.destroy(); frame.destroy(); };
}

export default { render };
"""


@pytest.fixture
def kit(opened, monkeypatch):
    """kit(**data): a page with one of everything, and the parts as `kit.told` and so on."""

    def show(**data):
        source = "\n".join([*map(page.source, PARTS), BODY])
        with monkeypatch.context() as patch:
            patch.setattr(page, "source", lambda name: source)
            view = View("kit", HARMLESS, "One of everything, 4 steps.",
                        {"title": HARMLESS, **data}, {"step": 0, "kind": 0})  # fmt: skip
            assert view.page
        return opened(view)

    return show


# ---- numbers -----------------------------------------------------------------------------------
def told(value: float, digits: int = 3) -> str:
    """What kit.js's `told` says of a number, written again in Python."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e6):
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    if value == int(value):
        return str(int(value)).replace("-", "−")
    rounded = float(f"{value:.{digits - 1}e}")
    text = str(int(rounded)) if rounded == int(rounded) else repr(rounded)
    return text.replace("-", "−")


def test_numbers_read_as_python_says(kit):
    random = np.random.default_rng(0)
    spread = random.normal(size=190) * 10.0 ** random.uniform(-6, 8, 190)
    numbers = [*spread.tolist(), 0, -0.0, 1, -3, 999, 12345, 999999, 1e6, 0.001, 0.125]
    found = kit().js("(values) => values.map((v) => kit.told(v))", numbers)
    assert len(numbers) == 200 and found == [told(value) for value in numbers]
    assert told(12345) == "12345" and told(-0.00012345) == "−1.23e−4" and told(2.5e7) == "2.50e7"
    assert told(0.98765) == "0.988" and told(-7.0) == "−7" and told(1234.5) == "1230"


def test_what_is_not_finite_or_not_there_reads_as_such(kit):
    found = kit()
    values = "[NaN, Infinity, -Infinity, null, undefined, 'text']"
    assert found.js(f"{values}.map((v) => kit.told(v))") == ["NaN", "∞", "−∞", "–", "–", "text"]
    sent = [plain(v) for v in (math.nan, math.inf, -math.inf)]
    assert found.js("(v) => v.map((x) => kit.told(x))", sent) == sent == ["NaN", "∞", "−∞"]
    assert found.js("[-2, 9, 1.4, 'x', NaN, '2'].map((v) => kit.inside(v, 4))") == [
        0,
        3,
        1,
        0,
        0,
        2,
    ]


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32"])
def test_arrays_arrive_as_they_left(kit, kind):
    values = np.concatenate([np.arange(250), [0.5, 1 / 3, 6e-8, 65504, 1e-5, 3e-5]])
    if kind != "uint8":
        values = np.concatenate([values, -values, [np.nan, np.inf, -np.inf]])
    array = values.astype(kind)[None]
    unpacked = (
        "(sent) => { const f = kit.unpack(sent); return [f.shape, [...f.values].map(String)] }"
    )
    shape, found = kit().js(unpacked, packed(array, kind))
    assert shape == list(array.shape)
    assert np.array_equal([float(x) for x in found], array[0].astype(float), equal_nan=True)


# ---- colours -----------------------------------------------------------------------------------
def test_a_heat_map_is_the_table_and_nothing_where_nothing_is(kit):
    drawn = """(table) => {
      const canvas = document.createElement("canvas");
      kit.heat(canvas, [0, 0.25, 1, NaN, -5, 9], 3, { table: kit[table] });
      kit.heat(canvas, [0, 0.25, 1, NaN, -5, 9], 3, { table: kit[table] });
      return [canvas.width, canvas.height,
        [...canvas.getContext("2d").getImageData(0, 0, 3, 2).data],
        [0, 0.25, 1, 0, 0, 1].map((u) => kit.colourOf(kit[table], u))];
    }"""
    for table in ("VIRIDIS", "SIGNED"):
        wide, tall, data, colours = kit().js(drawn, table)
        cells = np.reshape(data, (6, 4))
        assert (wide, tall) == (3, 2) and cells[3].tolist() == [0, 0, 0, 0]
        kept = [0, 1, 2, 4, 5]
        assert np.array_equal(cells[kept, :3], np.array(colours)[kept])
        assert set(cells[kept, 3]) == {255} and len(set(map(tuple, cells[kept].tolist()))) == 3


def test_a_colour_bar_names_what_it_measures(kit):
    found = kit().js("(() => { const el = kit.bar(kit.VIRIDIS, 'low', 'high', '<b>amount</b>');"
                     "return [el.textContent, el.querySelectorAll('b').length]; })()")  # fmt: skip
    assert found == ["lowhigh<b>amount</b>", 0]


# ---- pictures ----------------------------------------------------------------------------------
def test_a_sharp_reel_arrives_to_the_last_bit(kit):
    random = np.random.default_rng(1)
    arrays = random.integers(0, 256, (3, 6, 8, 3), np.uint8)
    pictures = [to_image(array) for array in arrays]
    sent = reel("a reel", [*pictures, None], ["zero", "one", "two", "no picture: NaN"])
    found = kit(reel=sent)
    found.js("kit.glass.ready")
    pixels = """(i) => { kit.glass.show(i); const c = kit.glass.canvas;
      return [c.getAttribute("aria-label"),
        [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]]; }"""
    for i, name in enumerate(["zero", "one", "two"]):
        alt, data = found.js(pixels, i)
        assert alt == name
        assert np.array_equal(np.reshape(data, (6, 8, 4))[..., :3], to_array(pictures[i]))
    alt, data = found.js(pixels, 3)
    assert alt == "no picture: NaN" and set(data) == {0}
    assert "no picture: NaN" in found.js("kit.glass.el.innerText")


def test_no_picture_is_taller_than_the_window(kit):
    tall = to_image(np.linspace(0, 1, 64 * 8 * 3).reshape(64, 8, 3))
    found = kit(reel=reel("tall", [tall], ["one"]))
    box = found.frame.locator(".screen canvas[role=img]").bounding_box()
    assert box["height"] == pytest.approx(768 * 0.6, rel=0.01)
    assert box["height"] == pytest.approx(8 * box["width"], rel=0.02)


# ---- keys --------------------------------------------------------------------------------------
def test_arrows_belong_to_the_player_but_not_where_a_control_needs_them(kit):
    found = kit()

    def step(*keys) -> int:
        for key in keys:
            found.page.keyboard.press(key)
        return found.js("kit.model.get('step')")

    found.js("document.querySelector('.dl').focus()")
    assert step("ArrowRight", "ArrowUp") == 2 and step("ArrowLeft") == 1
    assert step("End") == 3 and step("PageDown") == 0 and step("PageUp") == 3 and step("Home") == 0
    found.frame.locator("[aria-label=dial]").focus()
    assert step("ArrowRight", "End") == 0 and found.frame.locator(".told").inner_text() == "10"
    found.frame.locator("[aria-label=number]").focus()
    assert step("ArrowUp", "t", "p") == 0 and found.js("document.activeElement.value") == "2"
    assert found.js("document.querySelector('.present')") is None
    found.frame.locator("[aria-label=tick]").focus()
    assert step("ArrowRight", " ") == 1 and found.js("document.activeElement.checked")
    assert found.js("kit.scrub.playing()") is False
    found.page.keyboard.press("p")
    assert found.js("document.querySelector('.present') !== null")


def test_a_group_of_buttons_is_one_stop_and_lets_go(kit):
    found = kit()
    words = found.frame.locator("[role=toolbar] button")
    words.nth(0).focus()
    for key, name in (("ArrowRight", "b"), ("End", "c"), ("ArrowRight", "a"), ("ArrowLeft", "c")):
        found.page.keyboard.press(key)
        assert found.js("document.activeElement.textContent") == name
        assert words.evaluate_all("(all) => all.filter((b) => b.tabIndex === 0).length") == 1
    assert found.frame.locator(".told").get_attribute("data-pointed") == "2"
    found.page.keyboard.press("Enter")
    assert words.nth(2).get_attribute("aria-pressed") == "true"
    found.page.keyboard.press("Enter")
    assert words.nth(2).get_attribute("aria-pressed") == "false"
    assert found.frame.locator(".told").inner_text() == "chosen -1"
    kinds = found.frame.locator("[role=radiogroup] button")
    kinds.nth(0).focus()
    found.page.keyboard.press("ArrowDown")
    assert found.js("kit.model.get('kind')") == 1 and found.js("kit.model.get('step')") == 0
    assert kinds.nth(1).get_attribute("aria-checked") == "true"


def test_a_users_part_of_the_title_has_a_direction_of_its_own(kit):
    """A prompt that begins right to left stands before our words, not around them."""
    found = kit(title=[{"text": "سيارة red"}, " · ddim, 8 steps"])
    assert found.js("document.querySelector('h2').textContent") == "سيارة red · ddim, 8 steps"
    assert found.js("document.querySelector('.dl').ariaLabel") == "سيارة red · ddim, 8 steps"
    boxes = """() => { const [text, ours] = document.querySelector("h2").childNodes;
      const range = document.createRange();
      range.selectNode(ours);
      return [text.getBoundingClientRect().right, range.getBoundingClientRect().left]; }"""
    right, left = found.js(boxes)
    assert right <= left + 1
    one = kit(title="سيارة · ours")
    assert one.js("document.querySelector('h2 > bdi').textContent") == "سيارة · ours"


def test_after_a_click_the_keys_are_the_views_again(kit):
    """A chip that was clicked does not keep the arrows; one that was tabbed to does."""
    found = kit()
    for chip in ("[role=toolbar] button", "[role=radiogroup] button"):
        found.frame.locator(chip).nth(1).click()
        assert found.js("document.activeElement.className") == "dl"
        before = found.js("kit.model.get('step')")
        found.page.keyboard.press("ArrowRight")
        assert found.js("kit.model.get('step')") == before + 1
    assert found.js("kit.model.get('kind')") == 1
    found.page.keyboard.press(" ")
    assert found.js("kit.scrub.playing()")
    words = found.frame.locator("[role=toolbar] button")
    words.nth(2).focus()
    found.page.keyboard.press("Enter")
    assert found.js("document.activeElement.textContent") == "c"


def test_capitals_are_the_same_keys_and_a_remote_goes_on(kit):
    found = kit()
    press = found.page.keyboard.press
    found.js("document.querySelector('.dl').focus()")
    press("PageDown")
    assert found.js("kit.model.get('step')") == 0
    press("Shift+P")
    assert found.js("document.querySelector('.dl.present') !== null")
    press("PageDown")
    press("PageDown")
    assert found.js("kit.model.get('step')") == 2
    press("PageUp")
    assert found.js("kit.model.get('step')") == 1
    before = found.js("document.querySelector('.dl').dataset.theme")
    press("Shift+T")
    assert found.js("document.querySelector('.dl').dataset.theme") != before


def test_the_theme_follows_jupyterlab_until_the_reader_chooses(kit):
    found = kit()
    theme = "document.querySelector('.dl').dataset.theme"

    def lab(light: bool) -> str:
        found.js("(light) => { document.body.dataset.jpThemeLight = light; }", str(light).lower())
        found.js("new Promise(requestAnimationFrame)")
        return found.js(theme)

    assert [lab(False), lab(True), lab(False)] == ["dark", "light", "dark"]
    found.page.keyboard.press("t")
    assert found.js(theme) == "light"
    assert [lab(True), lab(False)] == ["light", "light"]


def test_playing_goes_to_the_end_and_begins_again(kit, opened):
    found = kit()
    found.page.clock.install()
    play = found.frame.locator(".play")
    play.click()
    assert play.get_attribute("aria-label") == "pause"
    found.page.clock.run_for(1100)
    assert found.js("kit.model.get('step')") == 2
    found.page.clock.run_for(1100)
    assert found.js("kit.model.get('step')") == 3 and play.get_attribute("aria-label") == "play"
    play.click()
    assert found.js("kit.model.get('step')") == 0
    found.frame.locator(".speed").select_option("fast")
    found.page.clock.run_for(310)
    assert found.js("kit.model.get('step')") == 2
    found.frame.locator(".slider").fill("1")
    assert play.get_attribute("aria-label") == "play", "a hand on the slider stops it"
    found.page.clock.run_for(2000)
    assert found.js("kit.model.get('step')") == 1


def test_a_view_that_cannot_start_says_so(opened):
    broken = explore(traces.trace()).page.replace('"steps":[', '"stops":[', 1)
    found = opened(Page(broken), wait_for="#root:not(:empty)")
    assert "This view could not start: " in found.js("document.body.innerText")
    assert found.errors
    found.errors.clear()
