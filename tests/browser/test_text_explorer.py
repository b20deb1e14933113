"""The text explorer in Chromium: pieces, keys, the heat maps' pixels, the sentences' numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import traces
from hosts import HOSTS
from test_views_text import layers, tokens

from diffusionlab import views
from diffusionlab.analysis.text import cosines
from diffusionlab.analysis.text_layers import text_attention
from diffusionlab.trace import TextEmbedding
from diffusionlab.views import explore_text

PIXELS = """([i]) => { const c = document.querySelectorAll('.map canvas')[i];
  return [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""
SHOWN = 8


@pytest.fixture(scope="module")
def view():
    return explore_text(layers())


def colours(values: np.ndarray, table: str, low: float) -> np.ndarray:
    """Numbers from low to 1 through a table of colours.js, linear between two of its places."""
    written = (Path(views.__file__).parent / "js" / "colours.js").read_text(encoding="utf-8")
    listed = re.search(rf"const {table} = stops\((.*?)\);", written, re.S)[1]
    found = re.findall(r"\b[0-9a-f]{6}\b", listed)
    stops = np.array([[int(h[i : i + 2], 16) for i in (0, 2, 4)] for h in found])
    at = np.clip((values - low) / (1 - low), 0, 1) * (len(stops) - 1)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, len(stops) - 1)
    share = (at - below)[..., None]
    return stops[below] + share * (stops[above] - stops[below])


def drawn(shown, number: int) -> np.ndarray:
    wide, tall, *flat = shown.js(PIXELS, [number])
    return np.array(flat, np.uint8).reshape(tall, wide, 4)


def said(shown, number: int) -> str:
    return shown.frame.locator(".said").nth(number).inner_text()


def check_piece(shown, view, piece: int) -> None:
    """The chosen button, the sentence, the prompt's mark and the slider agree on a position."""
    facts = view.data["pieces"][piece]
    buttons = shown.frame.locator(".pieces .choice")
    assert buttons.nth(piece).get_attribute("aria-checked") == "true"
    assert shown.frame.locator(".pieces [aria-checked=true]").count() == 1
    slider = shown.frame.locator(".player .slider").first
    assert slider.input_value() == str(piece)
    assert slider.get_attribute("aria-valuetext").startswith(f"position {piece} of {SHOWN - 1}")
    sentence = shown.frame.locator(".sentence").inner_text()
    assert sentence.startswith(f"Position {piece}: “{facts['piece']}”, id {facts['id']}")
    marked = shown.js("document.querySelector('mark').textContent")
    word = "" if facts["word"] is None else view.data["words"][facts["word"]]["name"]
    assert marked == word
    assert shown.js("document.querySelector('.prompt').textContent") == view.data["prompt"]


@pytest.mark.parametrize("host", HOSTS)
def test_every_key_moves_the_position(opened, view, host):
    shown = opened(view, host)
    check_piece(shown, view, view.live["piece"])
    shown.frame.locator(".player .slider").first.focus()
    for key, piece in (("Home", 0), ("ArrowRight", 1), ("PageUp", 6), ("ArrowLeft", 5),
                       ("End", SHOWN - 1), ("PageDown", 2)):  # fmt: skip
        shown.press(key)
        check_piece(shown, view, piece)


def test_a_word_is_chosen_by_mouse_and_by_keyboard(opened, view):
    shown = opened(view)
    buttons = shown.frame.locator(".pieces .choice")
    buttons.nth(4).click()
    check_piece(shown, view, 4)
    assert shown.js("document.querySelector('mark .part').textContent") == "scra"
    shown.press("ArrowRight")
    check_piece(shown, view, 5)
    assert "piece 2 of 2 of the word “scraper”" in shown.frame.locator(".sentence").inner_text()
    assert "characters 14 to 16" in shown.frame.locator(".sentence").inner_text()
    assert shown.js("document.querySelector('mark .part').textContent") == "per"


def test_hover_shows_a_piece_and_gives_the_chosen_one_back(opened, view):
    shown = opened(view)
    shown.frame.locator(".pieces .choice").nth(2).hover()
    assert "“red”" in shown.frame.locator(".sentence").inner_text()
    assert shown.js("document.querySelector('mark').textContent") == "red"
    shown.frame.locator("h2").hover()
    check_piece(shown, view, view.live["piece"])


def test_the_maps_are_the_numbers_of_the_layer(opened, view):
    shown, record = opened(view), layers()
    layer = shown.frame.get_by_label("layer of the text encoder")
    layer.focus()
    for state in (3, 2, 1):
        rows = record.hidden[state][:SHOWN]
        alike = cosines(rows, rows)
        assert np.abs(drawn(shown, 0)[..., :3] - colours(alike, "SIGNED", -1)).max() <= 0.51
        looks = text_attention(record, state - 1).matrix[:SHOWN, :SHOWN]
        found, seen = drawn(shown, 1), np.tril(np.ones((SHOWN, SHOWN), bool))
        assert (found[..., 3] == np.where(seen, 255, 0)).all()  # later tokens are left grey
        near = np.abs(found[..., :3] - colours(looks, "VIRIDIS", 0)).max(axis=-1)
        assert near[seen].max() <= 0.51
        assert near.max() > 1  # the check can fail: unseen cells are not viridis' zero
        assert f"after layer {state}" in layer.get_attribute("aria-valuetext")
        shown.press("ArrowLeft")
    assert layer.input_value() == "0" and shown.frame.locator(".map").nth(1).is_hidden()
    assert "No layer has run yet" in shown.frame.locator(".card").nth(1).inner_text()
    check_piece(shown, view, view.live["piece"])  # the layer's keys move the layer alone


def test_the_sentences_carry_the_analysis_numbers(opened, view):
    shown, record = opened(view), layers()
    shown.frame.locator(".pieces .choice").nth(3).click()
    rows = record.hidden[3][:SHOWN]
    alike = cosines(rows, rows)[3]
    alike[3] = -2
    best = int(alike.argmax())
    assert f"“{view.data['names'][best]}”, cosine {alike[best]:.3g}" in said(shown, 0).replace(
        "−", "-"
    )
    looks = text_attention(record, 2).matrix[3]
    most = int(looks.argmax())
    where = "itself" if most == 3 else f"“{view.data['names'][most]}”"
    assert f"looks most at {where}: {looks[most]:.3g}" in said(shown, 1)
    assert "it sees positions 0 to 3, 4 of 12; all later ones get 0" in said(shown, 1)


def test_words_and_what_is_common(opened, view):
    shown = opened(view)
    before = drawn(shown, 0)
    shown.frame.get_by_role("radio", name="words").click()
    assert drawn(shown, 0).shape == (4, 4, 4) and before.shape == (SHOWN, SHOWN, 4)
    assert said(shown, 0).startswith("Nearest to “scraper”")
    first = drawn(shown, 0)
    shown.frame.get_by_label("without what is common to all").click()
    assert (drawn(shown, 0) != first).any()
    shown.frame.locator(".map .plane").first.click(position={"x": 5, "y": 5})
    check_piece(shown, view, 1)  # the first piece of the first word
    shown.frame.locator(".pieces .choice").nth(0).click()
    assert said(shown, 0) == "This position belongs to no word."


def test_heads_are_averaged_or_the_largest_is_taken(opened, view):
    shown = opened(view)
    shown.frame.get_by_role("radio", name="largest of the heads").click()
    top = layers().attention[2].max(axis=0)[:SHOWN, :SHOWN]
    near = np.abs(drawn(shown, 1)[..., :3] - colours(top, "VIRIDIS", 0)).max(axis=-1)
    assert near[np.tril(np.ones((SHOWN, SHOWN), bool))].max() <= 0.51


def test_it_plays_through_the_prompt_and_stops_at_its_end(opened, view):
    shown = opened(view)
    shown.frame.locator("select").select_option("fast")
    shown.frame.locator(".player .slider").first.focus()
    shown.press("Home")
    shown.press("Space")
    shown.frame.wait_for_function("() => document.querySelector('.slider').value === '7'")
    shown.frame.wait_for_function(
        "() => document.querySelector('.play').getAttribute('aria-label') === 'play'"
    )
    check_piece(shown, view, SHOWN - 1)


def test_tokens_alone_say_what_is_missing(opened):
    shown = opened(explore_text(traces.tokens()))
    assert shown.frame.locator(".deep .slider").is_disabled()
    assert "dl.embed_layers" in shown.frame.locator(".deep").inner_text()
    assert "cut off 3: at night" in shown.frame.locator(".lost").inner_text()
    assert not shown.frame.locator(".cards").is_visible()
    redacted = replace(traces.trace(), tokens=None, text_embedding=None)
    shown = opened(explore_text(redacted))
    assert "not in this record" in shown.frame.locator(".sentence").inner_text()


def test_rows_without_tokens_and_with_nan(opened):
    rows = np.random.default_rng(0).normal(size=(6, 8))
    rows[2] = np.nan
    shown = opened(explore_text(TextEmbedding((rows,))))
    assert (drawn(shown, 0)[2, :, 3] == 0).all() and (drawn(shown, 0)[0, [0, 1], 3] == 255).all()
    assert "NaN" in shown.frame.locator(".notices").inner_text()


def test_spans_are_code_points_also_beyond_16_bits(opened):
    prompt = "🚗🚗 قطة b"
    words = replace(
        tokens(prompt), words=("🚗🚗", "قطة", "b"), spans=((0, 2), (3, 6), (7, 8)),
        pieces=("<start>", "🚗", "🚗", "قط", "ة", "b", "<end>", *["<pad>"] * 5),
        word_of=(None, 0, 0, 1, 1, 2, *[None] * 6),
    )  # fmt: skip
    shown = opened(explore_text(words))
    for piece, (word, part) in enumerate(
        (("🚗🚗", "🚗"), ("🚗🚗", "🚗"), ("قطة", "قط"), ("قطة", "ة"), ("b", "b")), start=1
    ):
        shown.frame.locator(".pieces .choice").nth(piece).click()
        assert shown.js("document.querySelector('mark').textContent") == word
        assert shown.js("document.querySelector('mark .part').textContent") == part


def test_present_mode_shows_only_the_essential(opened, view):
    shown = opened(view)
    shown.press("p")
    assert not shown.frame.locator(".ranking").first.is_visible()
    for part in (".prompt", ".pieces", ".player .slider", ".sentence", ".map .plane"):
        box = shown.frame.locator(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 768
    shown.press("p")
    assert shown.frame.locator(".ranking").first.is_visible()
