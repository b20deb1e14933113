"""Numbers of the text side on constructed records whose answers are known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traces

from diffusionlab.analysis.image_text import image_text
from diffusionlab.analysis.padding import padding
from diffusionlab.analysis.text import (
    cosines,
    hidden_of,
    plane,
    similarity,
    text_vectors,
    token_table,
    tokens_of,
    word_rows,
)
from diffusionlab.analysis.text_edits import (
    ablate_kind,
    ablate_word,
    blend,
    kind_rows,
    replace_rows,
    replace_word,
)
from diffusionlab.analysis.text_layers import layer_paths, text_attention
from diffusionlab.errors import InputError
from diffusionlab.trace import TextEmbedding, TextLayers, Tokens

TOKENS = traces.tokens()  # start, a, red, sky, scra, per, end, five pads; two words cut


def embedding(rows, tokens=TOKENS, pooled=None) -> TextEmbedding:
    return TextEmbedding((np.asarray(rows, np.float32),), pooled, {}, tokens)


def told(*words: str) -> Tokens:
    """Every word one piece, a context of 8."""
    pads = 6 - len(words)
    return Tokens(
        prompt=" ".join(words),
        ids=tuple(range(8)),
        pieces=("<start>", *words, "<end>", *["<pad>"] * pads),
        words=words,
        word_of=(None, *range(len(words)), None, *[None] * pads),
        kinds=("start", *["word"] * len(words), "end", *["pad"] * pads),
        kept=len(words),
    )


def layers(**changes) -> TextLayers:
    """Layer 1 doubles every row, layer 2 turns it round and doubles again; all look back alike."""
    start = np.random.default_rng(0).normal(size=(12, 8))
    hidden = np.stack([start, 2 * start, -4 * start]).astype(np.float32)
    last = hidden[-1].astype(np.float64)
    normal = (last - last.mean(axis=1, keepdims=True)) / last.std(axis=1, keepdims=True)
    final = (normal * np.arange(1, 9) + np.arange(8)).astype(np.float32)
    back = np.tril(np.ones((12, 12))) / np.arange(1, 13)[:, None]
    attention = np.broadcast_to(back, (2, 3, 12, 12)).astype(np.float32)
    attention = attention.copy()
    attention[1, 2] = np.eye(12)  # the last head of the last layer looks at itself
    return replace(TextLayers(TOKENS, hidden, final, attention), **changes)


# ---- the table -------------------------------------------------------------------------------
def test_the_table_has_every_position_and_the_words_that_were_cut():
    table = token_table(TOKENS)
    assert [row.position for row in table] == [0, 1, 2, 3, 4, 5, None, None, *range(6, 12)]
    assert [row.kind for row in table] == [
        "start",
        *["word"] * 5,
        "cut",
        "cut",
        "end",
        *["pad"] * 5,
    ]
    assert [row.word for row in table[:8]] == [
        None, "a", "red", "sky", "scraper", "scraper", "at", "night"]  # fmt: skip
    assert [(row.part, row.parts) for row in table[4:6]] == [(1, 2), (2, 2)]
    assert [row.id for row in table[4:8]] == [900, 901, None, None]
    assert [row.kept for row in table].count(False) == 2
    assert all(row.byte is None for row in table)


def test_pieces_that_are_bytes_of_one_character_are_counted():
    tokens = replace(
        told("caf", "x", "x"), pieces=("<start>", "caf", "é", "é", "<end>", *["<pad>"] * 3),
        words=("café",), word_of=(None, 0, 0, 0, None, None, None, None),
    )  # fmt: skip
    assert [row.byte for row in token_table(tokens)[1:4]] == [None, (1, 2), (2, 2)]
    one = replace(tokens, pieces=("<start>", "caf", "é", "s", "<end>", *["<pad>"] * 3))
    assert [row.byte for row in token_table(one)[1:4]] == [None, None, None]
    ascii_ = replace(tokens, pieces=("<start>", "l", "o", "o", "<end>", *["<pad>"] * 3))
    assert [row.byte for row in token_table(ascii_)[1:4]] == [None, None, None]


# ---- words -----------------------------------------------------------------------------------
def test_a_word_is_all_its_pieces_and_every_occurrence_unless_numbered():
    assert word_rows(TOKENS, "scraper") == (4, 5) and word_rows(TOKENS, "RED") == (2,)
    twice = told("red", "car", "Red", "cat")
    assert text_vectors(embedding(np.eye(8), twice)).names == ("red#1", "car", "Red#2", "cat")
    assert word_rows(TOKENS, "Sky scraper") == (3, 4, 5)
    assert word_rows(twice, "red") == (1, 3)
    assert word_rows(twice, "red#1") == (1,) and word_rows(twice, "red#2") == (3,)


@pytest.mark.parametrize("word", ["blue", "red#2", "red#0", "", "#1", 3, None])
def test_a_word_that_is_not_there_is_told_with_those_that_are(word):
    with pytest.raises(InputError, match="its words are 'a', 'red', 'sky', 'scraper': name one"):
        word_rows(TOKENS, word)


def test_rows_without_names_and_encoders_that_are_not_there_are_refused():
    bare = TextEmbedding(embedding(np.ones((12, 8))).hidden)
    short = embedding(np.ones((5, 8)))
    for wrong in (bare, short):
        with pytest.raises(InputError, match="without its tokens"):
            tokens_of(wrong)
    for encoder in (1, -1, True, "0"):
        with pytest.raises(InputError, match="0 to 0 is allowed here: leave it out"):
            hidden_of(embedding(np.ones((12, 8))), encoder)
    with pytest.raises(InputError, match="no TextEmbedding"):
        hidden_of("a red car")


# ---- similarity ------------------------------------------------------------------------------
def test_a_word_s_vector_is_the_mean_of_its_pieces_and_a_prompt_s_its_end_row():
    rows = np.arange(96.0).reshape(12, 8)
    words = text_vectors(embedding(rows))
    assert words.names == ("a", "red", "sky", "scraper") and words.of == "words"
    assert np.array_equal(words.values[3], rows[4:6].mean(axis=0))
    other = replace(TOKENS, prompt="")
    prompts = text_vectors([embedding(rows), embedding(rows + 1, other)])
    assert prompts.of == "prompts" and prompts.names == ("a red sky scraper", "(empty prompt)")
    assert np.array_equal(prompts.values, [rows[6], rows[6] + 1])
    both = text_vectors([embedding(rows), embedding(rows)], of="words")
    assert both.names[3:6] == ("scraper (1)", "a (2)", "red (2)") and both.groups[4] == 1


def test_cosines_by_hand_and_a_row_of_zeros_has_none():
    a = np.array([[1.0, 0.0], [3.0, 3.0], [0.0, 0.0]])
    found = cosines(a, np.array([[0.0, 2.0], [-1.0, 0.0]]))
    assert found[:2] == pytest.approx(np.array([[0, -1], [0.5**0.5, -(0.5**0.5)]]), abs=1e-12)
    assert np.isnan(found[2]).all()


def test_similarity_with_and_without_the_common_direction():
    rows = np.zeros((8, 4))
    rows[1], rows[2], rows[3] = [3, 1, 0, 0], [3, -1, 0, 0], [3, 0, 0, 0]
    found = similarity(embedding(rows, told("x", "y", "z")))
    assert found.matrix[0, 1] == pytest.approx(0.8) and found.itself.holds
    assert found.matrix[0, 2] == pytest.approx(3 / 10**0.5)
    assert found.common == pytest.approx(9 / (29 / 3)) and found.chance == 0.5
    assert found.background == pytest.approx((0.8 + 2 * 3 / 10**0.5) / 3)
    rows[3] = [3, 0, 1, 0]
    centred = similarity(embedding(rows, told("x", "y", "z")), centre=True)
    # mean (3, 0, 1/3): left are (0, 1, -1/3), (0, -1, -1/3), (0, 0, 2/3)
    assert centred.matrix[0, 1] == pytest.approx((-1 + 1 / 9) / (10 / 9))
    assert centred.matrix[0, 2] == pytest.approx(-1 / 10**0.5) and centred.centred


def test_similarity_notices_a_row_without_direction():
    rows = np.ones((12, 8))
    rows[2] = 0
    found = similarity(embedding(rows))
    assert not found.itself.holds and np.isnan(found.matrix[1]).all()


def test_too_little_or_unlike_things_are_not_compared():
    one = embedding(np.ones((12, 8)))
    with pytest.raises(InputError, match="at least two"):
        similarity([one], of="prompts")
    with pytest.raises(InputError, match="of one width"):
        similarity([one, embedding(np.ones((12, 9)))])
    with pytest.raises(InputError, match='"words" or "prompts"'):
        similarity(one, of="letters")


# ---- two dimensions --------------------------------------------------------------------------
def test_a_plane_finds_the_axes_of_known_points():
    points = np.zeros((4, 5))
    points[:, 3], points[:, 1] = [-3, -1, 1, 3], [1, -1, -1, 1]  # at right angles
    points[:, 1] *= 0.9
    found = plane(points + 7)
    assert found.explained == pytest.approx((20 / 23.24, 3.24 / 23.24)) and not found.warning
    assert np.abs(found.points) == pytest.approx(np.abs(points[:, [3, 1]]), abs=1e-9)
    for axis in (0, 1):
        assert found.points[np.abs(found.points[:, axis]).argmax(), axis] > 0


def test_a_plane_warns_where_it_shows_little():
    random = np.random.default_rng(0)
    noise = plane(random.normal(size=(40, 64)))
    assert noise.warning == "no more than chance" and sum(noise.explained) < 0.15
    assert noise.chance == pytest.approx(sum(noise.explained), rel=0.1)
    assert plane(np.eye(3)).warning == "3 points always fit"
    five = random.normal(size=(200, 5))
    shared = np.hstack([five] * 4)
    assert plane(shared).warning.endswith("% is not seen")
    assert sum(plane(np.ones((5, 3))).explained) == 0  # nothing differs, nothing is divided by 0
    assert np.isnan(plane(np.full((5, 3), np.nan)).points).all()
    with pytest.raises(InputError, match="3 or more.*give more words or prompts"):
        plane(np.ones((2, 3)))


# ---- layers ----------------------------------------------------------------------------------
def test_tokens_through_the_layers_by_hand():
    record = layers()
    found = layer_paths(record)
    start = np.linalg.norm(record.hidden[0].astype(np.float64), axis=1)
    assert found.norms == pytest.approx(np.stack([start, 2 * start, 4 * start]), rel=1e-6)
    assert found.to_start == pytest.approx(np.array([[1], [1], [-1]]) * np.ones((3, 12)), abs=1e-6)
    assert found.changes == pytest.approx(np.array([[1], [3]]) * np.ones((2, 12)), rel=1e-6)
    assert found.rows == (1, 2, 3, 4, 5, 6) and found.points.shape == (3, 6, 2)
    assert found.points[2] - found.points[0] == pytest.approx(
        -5 * (found.points[1] - found.points[0]), rel=1e-5
    )
    assert found.closing.holds
    assert not layer_paths(replace(record, final=record.final[::-1])).closing.holds
    assert not layer_paths(replace(record, final=record.final * np.nan)).closing.holds


def test_attention_of_one_head_and_the_mean_and_both_checks():
    record = layers()
    mean = text_attention(record)
    assert mean.matrix[1, 0] == pytest.approx(5 / 6 * 0.5)  # five heads of six look back alike
    assert mean.sums.holds and mean.causal.holds and mean.reduction == "mean of 2 layers, 3 heads"
    one = text_attention(record, layer=1, head=2)
    assert np.array_equal(one.matrix, np.eye(12)) and one.reduction == "layer 1, head 2"
    assert text_attention(record, head=0).reduction == "mean of 2 layers, head 0"
    louder = text_attention(layers(attention=record.attention * 1.1))
    assert not louder.sums.holds and louder.causal.holds
    ahead = text_attention(layers(attention=record.attention[..., ::-1, ::-1].copy()))
    assert ahead.sums.holds and not ahead.causal.holds


@pytest.mark.parametrize("given", [{"layer": 2}, {"head": 3}, {"layer": -1}, {"head": True}])
def test_a_layer_or_head_that_is_not_there_is_refused(given):
    with pytest.raises(InputError, match=r"this text encoder has [23]: 0 to [12] is allowed"):
        text_attention(layers(), **given)


# ---- images and captions ---------------------------------------------------------------------
def pooled(*vectors) -> list[TextEmbedding]:
    return [embedding(np.ones((12, 8)), pooled=np.array(v, np.float32)) for v in vectors]


def test_images_find_their_captions_or_not():
    right = image_text(np.eye(3), pooled([2, 0, 0], [0, 5, 0], [0.6, 0, 0.8]))
    assert right.matrix[0] == pytest.approx([1, 0, 0.6]) and right.unit.holds
    assert right.images_right == right.captions_right == 1 and right.chance == pytest.approx(1 / 3)
    assert right.own == pytest.approx(2.8 / 3) and right.others == pytest.approx(0.1)
    moved = image_text(np.eye(3), pooled([0, 1, 0], [0, 0, 1], [1, 0, 0]))
    assert moved.images_right == moved.captions_right == 0
    alike = image_text(np.eye(3)[[0, 0, 0]], pooled(*[[1, 0, 0]] * 3))
    assert alike.images_right == alike.captions_right == pytest.approx(alike.chance)
    assert not image_text(2 * np.eye(3), pooled([1, 0, 0], [0, 1, 0], [0, 0, 1])).unit.holds
    one_way = image_text(np.eye(2), pooled([1, 0], [0.9, 0.1]))
    assert one_way.images_right == 1 and one_way.captions_right == 0.5


def test_centring_takes_away_what_a_side_has_in_common():
    seen = np.array([[0.6, 0.8, 0], [0.6, -0.8, 0]])
    said = pooled([0, 1, 9], [0, -1, 9])
    assert image_text(seen, said).own < 0.1
    assert image_text(seen, said, centre=True).matrix == pytest.approx(
        np.array([[1, -1], [-1, 1]]), abs=1e-7
    )


def test_unequal_images_and_captions_are_refused():
    for seen, said, images in (
        (np.eye(3), pooled([1, 0, 0]), ()),
        (np.eye(2), pooled([1, 0, 0], [0, 1, 0]), ()),
        (np.eye(2), pooled([1, 0], [0, 1]), ("one",)),
        (np.eye(3)[:0], [], ()),
    ):
        with pytest.raises(InputError, match="are compared"):
            image_text(seen, said, images=images)
    with pytest.raises(InputError, match="without a pooled vector"):
        image_text(np.eye(2), [embedding(np.ones((12, 8)))] * 2)


# ---- edits -----------------------------------------------------------------------------------
A, B = (embedding(np.random.default_rng(i).normal(size=(12, 8)), pooled=np.ones(8)) for i in (1, 2))


def changed_rows(edited: TextEmbedding, given: TextEmbedding) -> list[int]:
    return np.flatnonzero((edited.hidden[0] != given.hidden[0]).any(axis=1)).tolist()


def test_a_word_is_replaced_by_another_prompt_s():
    edited = replace_word(A, "red", B, "sky")
    assert np.array_equal(edited.hidden[0][2], B.hidden[0][3]) and changed_rows(edited, A) == [2]
    pieces = replace_word(A, "scraper", B, "scraper")
    assert np.array_equal(pieces.hidden[0][4:6], B.hidden[0][4:6])
    fewer = replace_word(A, "scraper", B, "red")
    assert np.array_equal(fewer.hidden[0][4:6], B.hidden[0][[2, 2]])
    more = replace_word(A, "red", B, "scraper")
    assert more.hidden[0][2] == pytest.approx(B.hidden[0][4:6].mean(axis=0), abs=1e-6)
    assert edited.tokens is A.tokens and edited.hidden[0].dtype == np.float32
    assert np.array_equal(edited.pooled, A.pooled) and edited.pooled is not A.pooled


def test_a_word_that_stands_twice_is_replaced_twice_or_by_number():
    twice = embedding(np.zeros((8, 4)), told("red", "car", "red", "cat"))
    other = embedding(np.ones((8, 4)), told("blue", "boat"))
    assert changed_rows(replace_word(twice, "red", other, "blue"), twice) == [1, 3]
    assert changed_rows(replace_word(twice, "red#2", other, "blue"), twice) == [3]


def test_prompts_are_blended_in_a_straight_line():
    assert np.array_equal(blend(A, B, 0).hidden[0], A.hidden[0])
    assert np.array_equal(blend(A, B, 1).hidden[0], B.hidden[0])
    half = blend(A, B, 0.5, rows=(1, 2))
    assert half.hidden[0][1] == pytest.approx((A.hidden[0][1] + B.hidden[0][1]) / 2, abs=1e-6)
    assert changed_rows(half, A) == [1, 2] and changed_rows(replace_rows(A, [7], B), A) == [7]
    beyond = blend(A, B, 2.0).hidden[0]
    assert beyond == pytest.approx(2 * B.hidden[0] - A.hidden[0], abs=1e-5)
    assert changed_rows(blend(A, B, 0.5, rows=()), A) == []


def test_a_word_is_taken_away():
    rows = A.hidden[0].astype(np.float64)
    assert changed_rows(ablate_word(A, "scraper"), A) == [4, 5]
    assert ablate_word(A, "red").hidden[0][2] == pytest.approx(rows[7:].mean(axis=0), abs=1e-6)
    assert ablate_word(A, "red", by="mean").hidden[0][2] == pytest.approx(rows.mean(0), abs=1e-6)
    assert not ablate_word(A, "red", by="zero").hidden[0][2].any()
    assert changed_rows(ablate_kind(A, "pad"), A) == [7, 8, 9, 10, 11]
    assert changed_rows(ablate_kind(A, "word", by="pad"), A) == [1, 2, 3, 4, 5]
    assert kind_rows(A, ("start", "end")) == (0, 6)


def test_edits_leave_what_they_were_given_as_it_was():
    before = [e.hidden[0].copy() for e in (A, B)]
    for edited in (
        blend(A, B, 0.3),
        replace_word(A, "red", B, "sky"),
        ablate_word(A, "red"),
        ablate_kind(A, "end"),
    ):
        edited.hidden[0][:] = 99.0
        edited.pooled[:] = 99.0
    assert np.array_equal(A.hidden[0], before[0]) and np.array_equal(B.hidden[0], before[1])
    assert A.pooled.max() == 1


def test_every_text_encoder_s_rows_and_every_type_are_kept():
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(12, 8, dtype=torch.float16)
    wide = torch.ones(12, 16, dtype=torch.bfloat16)
    both = TextEmbedding((tensor, wide), torch.ones(4), {"size": torch.ones(6)}, TOKENS)
    edited = ablate_word(both, "red", by="zero")
    assert [h.dtype for h in edited.hidden] == [np.float16, np.float32]
    assert not edited.hidden[1][2].any() and edited.hidden[1][3].all() and wide[2].all()
    assert edited.extra["size"].shape == (6,) and isinstance(edited.pooled, np.ndarray)


def test_edits_that_cannot_be_are_refused():
    full = embedding(np.ones((8, 4)), told("a", "b", "c", "d", "e", "f"))
    with pytest.raises(InputError, match="no padding"):
        ablate_word(full, "a")
    with pytest.raises(InputError, match="'pad', 'zero', 'mean' are allowed: choose one"):
        ablate_word(A, "red", by="magic")
    with pytest.raises(InputError, match="'start', 'word', 'end', 'pad' are allowed: choose"):
        ablate_kind(A, "cut")
    with pytest.raises(InputError, match="'blue' is not in the prompt"):
        replace_word(A, "blue", B, "red")
    with pytest.raises(InputError, match="its words are"):
        replace_word(A, "red", B, "blue")
    with pytest.raises(InputError, match="with the same model"):
        blend(A, full, 0.5)
    for share in (float("nan"), "half", True, None):
        with pytest.raises(InputError, match="0 is a, 1 is b"):
            blend(A, B, share)
    for rows in ([12], [-1], "3", [1.5], [True]):
        with pytest.raises(InputError, match="positions 0 to 11 are allowed: take those of a word"):
            blend(A, B, 0.5, rows=rows)


# ---- padding ---------------------------------------------------------------------------------
def half_and_half(text_embedding=None, off=0.0, steps=3):
    """A network whose picture is made half of the padding's rows and half of all the others'."""
    rows = text_embedding.hidden[0].astype(np.float64)
    run = traces.trace(3)
    last = np.full((4, 6, 8), rows[7:].mean() + 3 * rows[1:7].mean() + off, np.float32)
    ended = replace(run.steps[-1], next_latent=last)
    return replace(run, steps=(*run.steps[:-1], ended)[:steps], image=None)


def test_runs_with_emptied_rows_say_which_half_holds_the_caption():
    rows = np.zeros((12, 8))
    rows[:, 0] = 1
    empty = rows.copy()
    empty[1:, 0], empty[1:, 1] = 0, 1
    whole = embedding(rows + [0, 1, 0, 0, 0, 0, 0, 0])  # rows (1, 1, …); empty (0, 1, …)
    found = padding(whole, embedding(empty), run=half_and_half)
    assert [run.name for run in found.runs][:2] == ["whole prompt", "without padding"]
    assert [run.distance for run in found.runs] == pytest.approx([0, 0.25, 0.75, 1])
    assert found.repeat.holds and found.to_end == pytest.approx(1)
    assert found.to_empty == pytest.approx([0.5**0.5] * 12) and found.norms == pytest.approx(2**0.5)
    assert found.mean(found.to_empty, "pad") == pytest.approx(0.5**0.5)
    assert np.isnan(found.mean(found.norms, "cut"))
    alone = padding(whole, embedding(empty))
    assert alone.runs == () and alone.repeat.holds


def test_runs_that_cannot_be_repeated_are_noticed():
    calls = iter(range(9))

    def restless(text_embedding):
        return half_and_half(text_embedding, off=next(calls))

    empty = embedding(np.zeros((12, 8)))
    assert not padding(A, empty, run=restless).repeat.holds
    with pytest.raises(InputError, match="stopped after 2 steps"):
        padding(A, empty, run=lambda text_embedding: half_and_half(text_embedding, steps=2))
    with pytest.raises(InputError, match="both must be of one model"):
        padding(A, embedding(np.zeros((12, 9))))
