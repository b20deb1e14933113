"""The exhibit: what its page says and shows equals the run's own numbers."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import traces
from PIL import Image

from diffusionlab.analysis.attention import attention_maps
from diffusionlab.errors import InputError
from diffusionlab.images import to_image
from diffusionlab.trace import Trace
from diffusionlab.views import View, exhibit

NAMES = ["Prompt", "Text embedding", "Denoising", "Decoding", "Picture"]
FULL = 8_000_000  # bytes, above which a page warns


def panels(trace: Trace, **options) -> list[dict]:
    return exhibit(trace, **options).data["panels"]


def text(sentences: list[list[str]]) -> str:
    return " ".join("".join(parts) for parts in sentences)


def unpacked(packed: dict) -> np.ndarray:
    data = base64.b64decode(packed["data"])
    return np.frombuffer(data, packed["kind"]).reshape(packed["shape"])


def picture(source: str) -> np.ndarray:
    data = base64.b64decode(source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decode(latent) -> Image.Image:
    """Eight pixels a place, coloured by the first three channels."""
    rgb = traces.preview().rgb(latent)
    return to_image(rgb.repeat(8, axis=0).repeat(8, axis=1))


def spoilt(index: int = 2) -> Trace:
    """A run whose network said NaN at one step."""
    run = traces.trace()
    step = run.steps[index]
    call = replace(step.predictions[0], cond=np.full_like(step.latent, np.nan))
    steps = list(run.steps)
    steps[index] = replace(step, predictions=(call,))
    return replace(run, steps=tuple(steps), frames=())


# ---- the story ---------------------------------------------------------------------------------
def test_five_panels_and_one_place_for_each_of_their_sentences():
    view = exhibit(traces.trace())
    assert [panel["name"] for panel in view.data["panels"]] == NAMES
    counts = [len(panel["said"]) for panel in view.data["panels"]]
    assert counts == [4, 4, 5, 4, 1]
    assert view.limits["place"] == (0, sum(counts) - 1)
    assert view.live == {"place": 0, "word": view.data["panels"][2]["attention"]["best"]}


def test_the_title_keeps_the_prompt_apart_from_our_words():
    view = exhibit(traces.trace(1, prompt="سيارة"))
    assert view.data["title"] == [
        {"text": "سيارة"}, " · ", {"text": "ddim"}, ", 1 step, guidance 4, seed 7",
    ]  # fmt: skip
    assert view.title == "سيارة · ddim, 1 step, guidance 4, seed 7"
    assert "ddim, 1 step, guidance" in view.alt


def test_the_prompts_panel_says_words_pieces_and_what_was_cut():
    panel = panels(traces.trace())[0]
    lead = text(panel["lead"])
    assert lead.startswith("The model reads 4 words as 5 pieces; each has a number")
    assert lead.endswith("3 pieces more did not fit and were cut off: at night")
    assert text(panel["said"][1]) == "“red” is piece number 736."
    assert text(panel["said"][3]) == "“scraper” is read as 2 pieces, numbers 900, 901."
    cards = exhibit(traces.trace()).data["words"]
    assert cards[3] == {"word": "scraper", "pieces": ["scra", "per"], "ids": [900, 901]}


def test_the_notices_of_the_prompt_are_told_and_the_cut_once():
    told = ("5 kept, 3 dropped", "toyland was never shown: 'front'")
    run = traces.trace(tokens=replace(traces.tokens(), notices=told))
    kept = replace(run.settings, notices=("the model says so",))
    assert panels(replace(run, settings=kept))[0]["notices"] == [told[1], "the model says so"]
    whole = replace(run.tokens, dropped=0, dropped_words=(), notices=told[1:])
    assert panels(replace(run, tokens=whole))[0]["notices"] == [told[1]]
    assert panels(replace(run, tokens=None, settings=kept))[0]["notices"] == ["the model says so"]


def test_a_byte_of_a_letter_says_that_it_is_one():
    """س is two pieces that both show the letter; the joiner is three that show nothing."""
    pieces = ("س", "س", "\u200d", "\u200d", "\u200d")
    tokens = replace(
        traces.tokens(), words=("س\u200d", "sky"), word_of=(None, *[0] * 5, None, *[None] * 5),
        pieces=("<start>", *pieces, "<end>", *["<pad>"] * 5), dropped=0, dropped_words=(),
    )  # fmt: skip
    view = exhibit(traces.trace(tokens=tokens, attention={}))
    wanted = ["س 1/2", "س 2/2", "U+200D 1/3", "U+200D 2/3", "U+200D 3/3"]
    assert view.data["words"][0]["pieces"] == wanted
    assert view.data["panels"][1]["rows"]["names"] == wanted
    assert text(view.data["panels"][1]["said"][0]).startswith("“س 1/2” is now ")


def test_the_rows_are_those_of_the_words():
    run = traces.trace()
    rows, hidden = panels(run)[1]["rows"], run.text_embedding.hidden[0]
    assert rows["names"] == ["a", "red", "sky", "scra", "per"]
    assert rows["words"] == [0, 1, 2, 3, 3]
    np.testing.assert_allclose(unpacked(rows["values"]), hidden[1:6], rtol=1e-3)
    assert rows["limit"] == pytest.approx(np.percentile(np.abs(hidden[1:6]), 99), rel=1e-9)
    first = f"{hidden[2][0]:.2f}".replace("-", "−")
    assert text(panels(run)[1]["said"][1]).startswith(f"“red” is now {first}, ")


def test_each_step_says_its_own_mixture_and_its_network_calls():
    run = traces.trace()
    for step, said in zip(run.steps, panels(run)[2]["said"], strict=True):
        numbers = [float(n) for n in re.findall(r"\d+\.\d\d", text(said))]
        assert numbers == pytest.approx([step.level.alpha, step.level.sigma], abs=5.1e-3)
        call = step.predictions[0]
        mixed = numbers[0] * call.x0 + numbers[1] * call.eps
        np.testing.assert_allclose(
            mixed, step.latent, atol=6e-3 * np.abs([call.x0, call.eps]).sum(0).max()
        )
        assert "the network takes the latent for" in text(said)
        calls = "once" if step.index == 0 else f"{step.index + 1} times"
        assert text(said).endswith(f"asked {calls}.")


def test_the_pictures_are_the_records():
    run = traces.trace()
    panel = panels(run)[2]
    assert panel["x_t"]["sharp"]
    for step, source in zip(run.steps, panel["x_t"]["sources"], strict=True):
        assert (picture(source) == run.preview.rgb(step.latent)).all()
    assert (picture(panel["x0"]["sources"][3]) == np.asarray(run.frames[3])).all()
    undecoded = panels(replace(run, frames=()))[2]["x0"]
    assert (picture(undecoded["sources"][3]) == run.preview.rgb(run.x0s[3])).all()
    assert "preview map" in undecoded["label"]
    decoded = panels(replace(run, frames=()), decode=decode)[2]["x0"]
    assert (picture(decoded["sources"][3]) == np.asarray(decode(run.x0s[3]))).all()
    assert "decoded" in decoded["label"]


def test_attention_bytes_and_peaks_are_the_analysis_numbers():
    run = traces.trace()
    found = attention_maps(run, by="step")
    seen = panels(run)[2]["attention"]
    maps = unpacked(seen["maps"]).astype(float) / 254
    tops = found.maps.max(axis=(1, 2, 3))
    assert seen["tops"] == pytest.approx(list(tops), abs=1e-6)
    np.testing.assert_allclose(maps * tops[:, None, None, None], found.maps, atol=0.5 / 254)
    np.testing.assert_allclose(seen["peaks"], found.maps.max(axis=(2, 3)), atol=1e-6)
    assert found.words[seen["best"]] in found.words


def test_the_best_word_is_the_one_whose_map_stands_out():
    maps = traces.attention(5)
    maps[:, 0, 0, 3], maps[:, 1:, :, 3] = 0.4, 0.0
    run = traces.trace(attention={"mid_block.attn2.probabilities": maps})
    assert exhibit(run).live["word"] == 2  # "sky" is position 3


def test_decoding_says_both_sizes_and_averages_the_picture():
    run = traces.trace()
    panel = panels(run)[3]
    lead = text(panel["lead"]).replace("\u00a0", " ")
    assert "4 × 6 × 8 = 192 numbers" in lead
    assert "3 × 48 × 64 = 9,216 numbers, 48 for each" in lead
    np.testing.assert_allclose(
        unpacked(panel["latent"]["values"]), run.latents[-1], rtol=1e-3, atol=1e-3
    )
    whole = np.asarray(run.image).astype(float)
    for source, cell in zip(panel["reel"]["sources"], (8, 4, 2, 1), strict=True):
        small = whole.reshape(48 // cell, cell, 64 // cell, cell, 3).mean(axis=(1, 3))
        shown = picture(source)[cell // 2 :: cell, cell // 2 :: cell]
        np.testing.assert_allclose(shown, small, atol=1)
    assert "8 × 6 squares of 8 × 8 pixels, as many as" in text(panel["said"][0]).replace(
        "\u00a0", " "
    )


def test_the_last_panel_holds_the_picture_and_how_it_was_made():
    run = traces.trace()
    panel = panels(run)[4]
    assert (picture(panel["reel"]["sources"][0]) == np.asarray(run.image)).all()
    facts = dict(panel["facts"])
    assert (facts["seed"], facts["sampler"], facts["steps"]) == ("7", "ddim", "5")
    assert facts["network calls"] == str(run.network_calls)
    assert "192 random numbers from seed 7" in text(panel["said"][0])


def test_the_checks_can_fail():
    """Another run's numbers do not pass for this one's."""
    one, other = panels(traces.trace()), panels(traces.trace(num_steps=4))
    assert text(one[2]["said"][1]) != text(other[2]["said"][1])
    assert one[2]["x_t"]["sources"][1] != other[2]["x_t"]["sources"][1]


# ---- runs that lack something ------------------------------------------------------------------
def test_a_stopped_run_shows_its_last_belief():
    run = traces.trace()
    stopped = replace(run, steps=run.steps[:3], image=None, frames=())
    seen = panels(replace(stopped, attention={}))
    assert "5 steps were to take it away; this run was stopped after 3" in text(seen[2]["lead"])
    assert "not decoded" in text(seen[3]["lead"])
    assert seen[4]["reel"]["sources"] == [None]
    assert "no picture" in text(seen[4]["lead"])
    assert dict(seen[4]["facts"])["steps"] == "3 of 5"
    decoded = panels(stopped, decode=decode)[4]
    assert (picture(decoded["reel"]["sources"][0]) == np.asarray(decode(run.x0s[2]))).all()
    assert "this is x0-hat of step 2, decoded" in text(decoded["lead"])


def test_attention_that_cannot_be_shown_says_why():
    run = traces.trace()
    assert "not recorded" in panels(replace(run, attention={}))[2]["attention"]["missing"]
    assert "no words" in panels(replace(run, tokens=None))[2]["attention"]["missing"]
    short = replace(run, attention={"mid_block.attn2.probabilities": traces.attention(3)})
    assert "3 recorded calls" in panels(short)[2]["attention"]["missing"]


def test_a_redacted_run_has_rows_without_names(tmp_path):
    path = traces.trace().save(tmp_path / "run.safetensors", redact_prompt=True)
    view = exhibit(Trace.load(path))
    assert "left out" in text(view.data["panels"][0]["lead"])
    assert "left out" in text(view.data["panels"][1]["lead"])
    only_words = panels(traces.trace(tokens=None))
    assert only_words[1]["rows"]["names"][0] == "row 0"
    assert len(only_words[1]["said"]) == 1


def test_what_is_not_finite_is_said():
    x0 = panels(spoilt())[2]["x0"]
    assert [source is None for source in x0["sources"]] == [False, False, True, False, False]
    assert x0["alts"][2] == "No picture: x0-hat of step 2 holds NaN or infinity."
    maps = traces.attention(5)
    maps[2, 1, 1] = np.nan
    seen = panels(traces.trace(attention={"mid_block.attn2.probabilities": maps}))[2]["attention"]
    assert (unpacked(seen["maps"]) == 255).sum() == 4  # one place of four words
    assert seen["peaks"][1][2] == "NaN"
    assert "CHECK FAILED" in seen["check"]
    hidden = np.full((12, 8), np.nan, np.float32)
    embedding = replace(traces.embedding(traces.tokens()), hidden=(hidden,))
    assert "not finite" in text(panels(traces.trace(text_embedding=embedding))[1]["said"][0])
    assert "<main" in exhibit(spoilt()).page


def test_guidance_1_no_preview_and_no_predictions_are_shown():
    run = traces.trace()
    calls = [replace(s.predictions[0], uncond=None, guidance_scale=1.0) for s in run.steps]
    steps = tuple(replace(s, predictions=(c,)) for s, c in zip(run.steps, calls, strict=True))
    assert panels(replace(run, steps=steps, frames=()))[2]["x0"]["sources"][0]
    grey = panels(replace(run, preview=None))[2]["x_t"]
    assert "grey" in grey["label"]
    bare = tuple(replace(s, predictions=()) for s in run.steps)
    x0 = panels(replace(run, steps=bare, frames=()))[2]["x0"]
    assert x0["sources"] == [None] * 5
    assert x0["alts"][0] == "No picture: x0-hat of step 0 was not recorded."


def test_a_long_prompt_stops_at_twelve_words():
    words = tuple(f"word{i}" for i in range(20))
    tokens = replace(
        traces.tokens(), ids=tuple(range(22)), words=words, kept=20, dropped=0, dropped_words=(),
        pieces=("<start>", *words, "<end>"), word_of=(None, *range(20), None),
        kinds=("start", *["word"] * 20, "end"),
    )  # fmt: skip
    run = traces.trace(tokens=tokens, attention={})
    assert len(panels(run)[0]["said"]) == 12
    assert "first 12 words" in text(panels(run)[0]["lead"])
    lost = ("house", "with", "green", "trees", "and", "more")
    cut = replace(run, tokens=replace(tokens, dropped=60, dropped_words=lost))
    assert text(panels(cut)[0]["lead"]) == (
        "The model reads 20 words as 20 pieces; each has a number in its vocabulary. 60 pieces "
        "more did not fit and were cut off: house with green trees … The first 12 words are shown."
    )


def test_a_very_long_word_is_shown_by_its_beginning():
    word = "n" * 60
    tokens = replace(traces.tokens(word), words=(word, "red", "sky", "scraper"))
    run = traces.trace(prompt=word * 4, tokens=tokens)
    assert exhibit(run).data["words"][0]["word"] == "n" * 23 + "…"
    assert text(panels(run)[4]["lead"]) == "“" + "n" * 119 + "…”"
    assert exhibit(run).data["prompt"] == word * 4


def test_a_trace_of_stable_diffusions_size_keeps_the_bound(capsys):
    random = np.random.default_rng(0)
    run = traces.trace(num_steps=50)
    steps = tuple(
        replace(step, latent=random.normal(size=(4, 64, 64)).astype(np.float32),
                next_latent=random.normal(size=(4, 64, 64)).astype(np.float32), predictions=())
        for step in run.steps
    )  # fmt: skip
    ramp = np.linspace(0, 1, 512)[:, None] * np.ones((512, 512))
    image = to_image(np.stack([ramp, ramp.T, 1 - ramp], axis=2))
    maps = random.dirichlet(np.ones(12), size=(50, 64, 64)).astype(np.float16)
    taps = {"mid_block.attn2.probabilities": maps}
    view = exhibit(replace(run, steps=steps, image=image, frames=(image,) * 50, attention=taps))
    assert unpacked(view.data["panels"][2]["attention"]["maps"]).shape == (4, 50, 32, 32)
    assert len(view.page) < FULL
    assert capsys.readouterr().out == ""
    print(f"page of a Stable Diffusion-size run: {len(view.page) / 1e6:.2f} MB")


# ---- errors ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seconds": 0}, r"seconds is 0; 0.2 to 3600 seconds are allowed"),
        ({"seconds": float("nan")}, r"seconds is nan; 0.2 to 3600"),
        ({"idle": "long"}, r"idle is 'long'; 0.2 to 3600"),
        ({"idle": True}, r"idle is True"),
        ({"size": 8}, r"size is 8; a whole number of pixels from 16 to 2048"),
        ({"size": 99.5}, r"size is 99.5"),
    ],
)
def test_bad_options_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        exhibit(traces.trace(), **options)


def test_what_decode_makes_is_looked_at():
    run = replace(traces.trace(), frames=())
    with pytest.raises(
        InputError, match=r"(?s)decode\(latent\) gave array.*; a PIL image is needed"
    ):
        exhibit(run, decode=lambda latent: latent)


def test_what_is_no_run_is_refused():
    with pytest.raises(InputError, match="is no Trace"):
        exhibit("run.safetensors")
    with pytest.raises(InputError, match="0 steps"):
        exhibit(traces.trace(steps=()))


# ---- the page ----------------------------------------------------------------------------------
class Structure(HTMLParser):
    """Elements and attribute names in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


def structure(page: str) -> list[tuple]:
    parser = Structure()
    parser.feed(page)
    return parser.found


def hostile(prompt: str) -> View:
    tokens = traces.tokens(prompt)
    tokens = replace(tokens, words=("a", prompt, "sky", prompt), dropped_words=(prompt, "night"),
                     pieces=(tokens.pieces[0], "a", prompt, *tokens.pieces[3:]))  # fmt: skip
    run = traces.trace(prompt=prompt, tokens=tokens)
    sampler = {"name": prompt, "options": {prompt: prompt}}
    settings = replace(run.settings, model=prompt, negative_prompt=prompt, sampler=sampler,
                       spacing=prompt, notices=(prompt,))  # fmt: skip
    return exhibit(replace(run, settings=settings))


@pytest.mark.parametrize("prompt", [*traces.HOSTILE, "مدينة 🌃‍🚗", "</script><script>alert(1)"])
def test_hostile_texts_change_no_element(prompt):
    ours = structure(hostile("a red car").page)
    assert structure(hostile(prompt).page) == ours
    html = hostile(prompt)._repr_mimebundle_()["text/html"]
    plain = hostile("a red car")._repr_mimebundle_()["text/html"]
    assert structure(html) == structure(plain)


def test_the_structure_check_can_fail():
    assert structure("<p>a</p>") != structure("<p>a<img src=x></p>")


def test_the_page_of_a_toyland_size_run_is_small():
    view = exhibit(traces.trace(num_steps=20))
    print(f"exhibit of 20 steps of {view.data['panels'][2]['x_t']['width']} places: "
          f"{len(view.page) / 1e3:.0f} kB")  # fmt: skip
    assert len(view.page) < 3_000_000
    assert re.findall(r"https?://[^\s\"')]+", view.page) == ["http://www.w3.org/2000/svg"]


def test_the_still_shows_the_run_and_its_alt_text():
    view = exhibit(traces.trace())
    assert [caption.split("\n")[0] for caption, _ in view.pictures()][-1] == "the picture"
    assert len(view.pictures()) == 6
    assert "karras_sigma 14.6 to 0" in view.alt
    assert view.to_figure().alt == view.alt
    assert "stopped after 3" in exhibit(traces.trace(steps=traces.trace().steps[:3], image=None,
                                                     frames=(), attention={})).alt  # fmt: skip


def test_the_widget_has_its_traits():
    widget = exhibit(traces.trace()).widget()
    widget.place = 17
    with pytest.raises(Exception, match="18"):
        widget.place = 18
    widget.word = 2
    assert (widget.place, widget.word) == (17, 2)
