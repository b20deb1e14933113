"""The text explorer without a browser: pieces, cosines, layers, its page, its errors."""

from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import traces

from diffusionlab.analysis.image_text import image_text
from diffusionlab.analysis.text import cosines, similarity
from diffusionlab.analysis.text_layers import layer_paths, text_attention
from diffusionlab.errors import InputError
from diffusionlab.images import to_image
from diffusionlab.trace import TextEmbedding, TextLayers, Tokens
from diffusionlab.views import explore_text
from diffusionlab.views.page import embedded

SPANS = ((0, 1), (2, 5), (6, 9), (10, 17))
SHOWN = 8  # positions up to the first padding


def unpacked(value: dict) -> np.ndarray:
    kind = np.dtype(value["kind"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(value["data"]), kind).reshape(value["shape"])


def tokens(prompt: str = "a red sky scraper at night") -> Tokens:
    return replace(traces.tokens(prompt), spans=SPANS)


def layers(words: Tokens | None = None, depth: int = 3, heads: int = 2) -> TextLayers:
    """Random rows; each token looks at all up to itself, with rows that sum to 1."""
    random, words = np.random.default_rng(4), words or tokens()
    count = len(words.ids)
    hidden = random.normal(size=(depth + 1, count, 16))
    seen = np.tril(random.uniform(0.1, 1, size=(depth, heads, count, count)))
    last = hidden[-1] - hidden[-1].mean(axis=1, keepdims=True)
    final = last / hidden[-1].std(axis=1, keepdims=True)
    return TextLayers(words, hidden, final, seen / seen.sum(axis=-1, keepdims=True))


# ---- pieces -----------------------------------------------------------------------------------
def test_each_piece_has_its_word_its_id_and_its_characters():
    view = explore_text(tokens())
    pieces = view.data["pieces"]
    assert len(pieces) == SHOWN and view.limits["piece"] == (0, SHOWN - 1)
    assert [piece["kind"] for piece in pieces] == ["start", *["word"] * 5, "end", "pad"]
    assert [piece["id"] for piece in pieces] == [49406, 320, 736, 2390, 900, 901, 49407, 49407]
    assert [piece["word"] for piece in pieces] == [None, 0, 1, 2, 3, 3, None, None]
    assert [(piece["part"], piece["parts"]) for piece in pieces[4:6]] == [(1, 2), (2, 2)]
    assert pieces[2]["span"] == [2, 5] and pieces[4]["span"] == [10, 14]
    assert pieces[5]["span"] == [14, 17] and pieces[0]["span"] is None
    assert view.data["pads"] == 5 and view.data["names"][4] == "scra"


def test_a_piece_that_is_not_in_its_word_stands_for_the_whole_word():
    def spans(*pieces: str) -> list:
        record = replace(tokens(), pieces=("<start>", *pieces, "<end>", *["<pad>"] * 5))
        return [piece["span"] for piece in explore_text(record).data["pieces"]]

    assert spans("A", "RED", "sky", "scra", "per")[1:4] == [[0, 1], [2, 5], [6, 9]]
    assert spans("a", "red", "sky", "skra", "per")[4:6] == [[10, 17], [10, 17]]
    assert spans("a", "red", "sky", "scra", "ber")[4:6] == [[10, 14], [10, 17]]


def test_the_cut_is_told_with_its_numbers_and_its_first_words():
    view = explore_text(tokens())
    assert view.data["cut"] == {"dropped": 3, "kept": 5, "words": ["at", "night"]}
    assert view.data["told"] == (
        "4 words became 5 pieces; with start, end and 5 padding the model reads 12 positions. "
        "3 pieces were cut off, from at on: the model never sees them."
    )
    assert view.data["told"] in view.alt and view.data["notices"] == ["5 kept, 3 dropped"]
    whole = explore_text(replace(tokens(), dropped=0, dropped_words=()))
    assert "cut off" not in whole.data["told"]


def test_bytes_of_one_character_are_counted_and_invisible_ones_named():
    emoji = replace(
        tokens("a 🚗 \u200d"), words=("a", "🚗", "\u200d"), word_of=(None, 0, 1, 1, 1, 1, 2, None,
        *[None] * 4), kinds=("start", *["word"] * 6, "end", *["pad"] * 4), pieces=("<start>", "a",
        *["🚗"] * 4, "\u200d", "<end>", *["<pad>"] * 4), spans=((0, 1), (2, 3), (4, 5)),
        dropped=0, dropped_words=(),
    )  # fmt: skip
    data = explore_text(emoji).data
    assert data["names"][2:7] == ["🚗 1/4", "🚗 2/4", "🚗 3/4", "🚗 4/4", "U+200D"]
    assert [piece["byte"] for piece in data["pieces"][2:4]] == [[1, 4], [2, 4]]
    assert data["pieces"][3]["span"] == [2, 3]  # all four bytes are that one character


def test_old_records_without_spans_and_empty_prompts_are_shown():
    assert all(piece["span"] is None for piece in explore_text(traces.tokens()).data["pieces"])
    empty = Tokens("", (1, 2, 2), ("<start>", "<end>", "<pad>"), (), (None,) * 3,
                   ("start", "end", "pad"), 0)  # fmt: skip
    view = explore_text(TextEmbedding((np.eye(3),), tokens=empty))
    assert view.data["states"]["words"] is None and view.live["piece"] == 0
    assert view.data["told"].startswith("0 words became 0 pieces")


# ---- numbers ----------------------------------------------------------------------------------
def test_cosines_are_the_analysis():
    embedding = traces.embedding(tokens())
    view = explore_text(embedding)
    bare, centred = (unpacked(table)[0] for table in view.data["states"]["tokens"])
    rows = embedding.hidden[0][:SHOWN].astype(np.float64)
    assert np.allclose(bare, cosines(rows, rows), atol=1e-6)
    rows = rows - rows.mean(axis=0)
    assert np.allclose(centred, cosines(rows, rows), atol=1e-6)
    for table, centre in zip(view.data["states"]["words"], (False, True), strict=True):
        known = similarity(embedding, centre=centre).matrix
        assert np.allclose(unpacked(table)[0], known, atol=1e-6)
    assert not np.allclose(bare, centred, atol=1e-3)  # the check can fail
    assert view.data["attention"] is None and view.data["moves"] is None
    assert "One layer only" in view.data["states"]["why"]


def test_layers_are_the_analysis():
    record = layers()
    data = explore_text(record).data
    states = unpacked(data["states"]["tokens"][0])
    assert states.shape == (5, SHOWN, SHOWN) and data["states"]["names"][3] == "after layer 3 of 3"
    for i, rows in enumerate([*record.hidden, record.final]):
        assert np.allclose(states[i], cosines(rows[:SHOWN], rows[:SHOWN]), atol=1e-6)
    mean = unpacked(data["attention"]["mean"])
    for layer in range(3):
        known = text_attention(record, layer).matrix[:SHOWN, :SHOWN]
        assert np.allclose(mean[layer], known, atol=1e-6)
    top = unpacked(data["attention"]["max"])[1]
    assert np.allclose(top, record.attention[1].max(axis=0)[:SHOWN, :SHOWN], atol=1e-6)
    assert data["attention"]["later"] == 0 and data["attention"]["heads"] == 2
    moved = unpacked(data["moves"]["changes"])
    assert np.allclose(moved, layer_paths(record).changes[:, :SHOWN], rtol=1e-6)


def test_a_failed_check_is_told():
    record = layers()
    attention = record.attention.copy()
    attention[0, 0, 1] *= 1.5
    attention[0, 0, 1, 9] = 0.2
    data = explore_text(replace(record, attention=attention)).data
    assert any("rows sum to 1" in check for check in data["attention"]["checks"])
    assert any("later tokens have 0" in check for check in data["attention"]["checks"])
    assert data["attention"]["later"] > 0.1
    assert explore_text(record).data["attention"]["checks"] == []


def test_a_view_with_layers_begins_at_the_last_one():
    view = explore_text(traces.embedding(tokens()), layers=layers())
    assert view.live["state"] == 3 and view.limits["state"] == (0, 4)
    names = view.data["states"]["names"]
    assert names[0].startswith("before layer 1") and names[4] == "what the U-Net reads"


def test_not_finite_rows_are_told_and_drawn():
    embedding = traces.embedding(tokens())
    embedding.hidden[0][3] = np.nan
    view = explore_text(embedding)
    assert view.data["states"]["bad"] == "1 of 1 states hold NaN or infinite numbers."
    assert np.isnan(unpacked(view.data["states"]["tokens"][0])[0, 3]).all()
    assert '"NaN"' not in embedded(view.data["states"])


# ---- what may be missing ----------------------------------------------------------------------
def test_a_trace_shows_its_prompt_and_a_redacted_one_says_so():
    run = traces.trace()
    view = explore_text(run)
    assert view.data["prompt"] == run.tokens.prompt and view.data["states"]["names"]
    bare = explore_text(replace(run, tokens=None, text_embedding=None))
    assert "not in this record" in bare.data["told"] and bare.data["pieces"] == []
    assert "no text embedding" in bare.data["states"]["why"]
    named = explore_text(replace(run, text_embedding=None))
    assert len(named.data["pieces"]) == SHOWN and named.data["states"]["names"] == []
    rows = explore_text(traces.embedding())
    assert rows.data["names"][:2] == ["row 0", "row 1"] and len(rows.data["names"]) == 12
    for view in (bare, named, rows):
        assert view.page and view.to_figure().alt


def test_two_text_encoders_are_told():
    embedding = traces.embedding(tokens())
    both = replace(embedding, hidden=(embedding.hidden[0], embedding.hidden[0]))
    names = explore_text(both).data["states"]["names"]
    assert names == ["what the U-Net reads (the first of 2 text encoders)"]


@pytest.mark.parametrize(
    ("record", "options", "told"),
    [
        ("a red car", {}, "record is 'a red car'; Tokens, a TextEmbedding"),
        (tokens(), {"layers": 3}, "layers is 3; TextLayers are allowed"),
        (replace(tokens(), ids=(7,) * 12), {"layers": layers()}, "must have the same ids"),
        (tokens(), {"image_text": "cats"}, "image_text is 'cats'"),
    ],
)
def test_bad_input_is_told(record, options, told):
    with pytest.raises(InputError, match=told):
        explore_text(record, **options)


def test_pictures_stand_against_their_captions():
    texts = [traces.embedding(tokens(), seed) for seed in range(3)]
    vectors = np.stack([text.pooled / np.linalg.norm(text.pooled) for text in texts])
    pictures = [to_image(np.full((4, 6, 3), 0.2 * i)) for i in range(3)]
    found = image_text(vectors, texts, images=pictures)
    data = explore_text(tokens(), image_text=found).data["image_text"]
    assert np.allclose(unpacked(data["matrix"]), found.matrix, atol=1e-6)
    assert data["told"].startswith("100% of 3 pictures") and len(data["reel"]["sources"]) == 3
    without = explore_text(tokens(), image_text=image_text(vectors, texts)).data["image_text"]
    assert without["reel"] is None


# ---- the page ---------------------------------------------------------------------------------
class Structure(HTMLParser):
    """Every element of a page with the names of its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


def hostile(text: str) -> TextLayers:
    """The text wherever a text can stand: prompt, pieces, words, cut words, notices."""
    words = replace(
        tokens(text), words=(text,) * 4, dropped_words=(text, text), notices=(text,),
        pieces=("<start>", *[text] * 5, "<end>", *["<pad>"] * 5),
    )  # fmt: skip
    return layers(words)


def structures(view) -> list:
    return [Structure(text).found for text in (view.page, view._repr_mimebundle_()["text/html"])]


@pytest.fixture(scope="module")
def harmless() -> list:
    return structures(explore_text(hostile("kind")))


@pytest.mark.parametrize("text", traces.HOSTILE)
def test_hostile_texts_change_no_element(text, harmless):
    assert structures(explore_text(hostile(text))) == harmless
    assert Structure(f"<b>{text}").found != harmless[0]


def test_the_page_is_small_and_a_long_prompt_of_stable_diffusion_is_no_exception():
    assert len(explore_text(layers()).page) < 150_000
    count = 77
    long = Tokens("w " * 75, tuple(range(count)), ("<start>", *["w"] * 75, "<end>"), ("w",) * 75,
                  (None, *range(75), None), ("start", *["word"] * 75, "end"), 75, 9,
                  ("w",), (), tuple((2 * i, 2 * i + 1) for i in range(75)))  # fmt: skip
    view = explore_text(layers(long, depth=12, heads=12))
    assert len(view.page) < 3_000_000 and len(view.data["names"]) == count
