"""The step explorer without a browser: its numbers are the trace's, and what it says when not."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import traces
from PIL import Image

from diffusionlab.analysis.attention import attention_maps
from diffusionlab.analysis.guidance import recombine
from diffusionlab.analysis.latents import branch_x0
from diffusionlab.errors import InputError
from diffusionlab.images import to_image
from diffusionlab.plan import Stage, Term, Update
from diffusionlab.trace import Guidance, Tokens
from diffusionlab.views import explore
from diffusionlab.views import view as view_module
from diffusionlab.views.attention_data import OTHER, pooled
from diffusionlab.views.dial_data import dial_data
from diffusionlab.views.facts import cut_of, notices_of, step_facts

ATTENTION = "mid_block.attn2.probabilities"


def unpacked(data: dict) -> np.ndarray:
    """What the page reads out of `packed`."""
    raw = base64.b64decode(data["data"])
    kind = np.dtype(data["kind"]).newbyteorder("<")
    return np.frombuffer(raw, kind).astype(np.float64).reshape(data["shape"])


def uneven(calls: int, tokens: int = 12, size: tuple[int, int] = (3, 4)) -> np.ndarray:
    """Maps of which no two cells are equal; they share out 1 at every place."""
    maps = np.random.default_rng(3).random((calls, *size, tokens))
    return (maps / maps.sum(axis=-1, keepdims=True)).astype(np.float16)


def with_attention(**layers) -> dict:
    return {f"{name}.attn2.probabilities": array for name, array in layers.items()}


# ---- numbers -----------------------------------------------------------------------------------
def test_every_step_has_its_equation_and_its_level():
    trace = traces.trace()
    data = explore(trace).data
    assert len(data["steps"]) == 5
    for step, told in zip(trace.steps, data["steps"], strict=True):
        assert told["update"]["a"] == pytest.approx(step.update.a, rel=1e-6)
        (term,) = told["update"]["terms"]
        assert (term["reading"], term["ago"]) == ("x0", 0)
        assert term["weight"] == pytest.approx(step.update.terms[0].weight, rel=1e-6)
        assert told["level"]["karras_sigma"] == pytest.approx(step.level.karras_sigma, rel=1e-6)
        assert told["calls_so_far"] == step.index + 1
        assert f"step {step.index} of 4, timestep {step.level.timestep:.4g}" in told["said"]
    assert data["check"]["warning"] == ""
    assert "Replayed" in data["check"]["path"]


def test_the_pictures_are_those_of_the_trace():
    trace = traces.trace(frames=())
    reels = explore(trace).data["reels"]
    assert {name: (r["width"], r["height"], r["sharp"]) for name, r in reels.items()} == {
        "x_t": (8, 6, True), "x0": (8, 6, True), "eps": (8, 6, True), "end": (64, 48, True),
    }  # fmt: skip
    for name, latents in (("x_t", trace.latents), ("x0", trace.x0s), ("eps", trace.eps)):
        for source, latent in zip(reels[name]["sources"], latents, strict=False):
            assert np.array_equal(decoded(source), trace.preview.rgb(latent)), name
    assert np.array_equal(decoded(reels["end"]["sources"][0]), np.asarray(trace.image))
    assert "(preview)" in reels["x0"]["label"]
    assert "(decoded)" in explore(traces.trace()).data["reels"]["x0"]["label"]


def decoded(source: str) -> np.ndarray:
    import io

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_pictures_are_made_by_decode_where_none_were_recorded():
    seen = []

    def decode(latent):
        seen.append(latent)
        return Image.new("RGB", (300, 200), (len(seen), 0, 0))

    trace = traces.trace(frames=())
    reel = explore(trace, decode=decode, size=150).data["reels"]["x0"]
    assert np.array_equal(np.stack(seen), trace.x0s)
    assert (reel["width"], reel["height"], reel["sharp"]) == (150, 100, False)
    assert "(decoded)" in reel["label"]
    explore(traces.trace(), decode=lambda latent: pytest.fail("the frames are there"))


def test_maps_are_those_of_the_analysis_and_a_places_shares_add_up():
    trace = traces.trace(attention={ATTENTION: uneven(5)})
    data = explore(trace).data["attention"]
    assert data["words"] == ["<start>", "a", "red", "sky", "scraper", "<end>", "<pad>"]
    assert data["kinds"] == ["special", *["word"] * 4, "special", "special"]
    (choice,) = data["choices"]
    tops = np.array(choice["tops"])  # (words, steps)
    shares = unpacked(choice["maps"]) / 255 * tops[..., None, None]
    found = attention_maps(trace, data["words"], by="step").maps
    assert np.allclose(tops, found.max(axis=(2, 3)), rtol=1e-6)
    assert (np.abs(shares - found) <= tops[..., None, None] / 509).all()
    assert np.allclose(shares.sum(axis=0), 1, atol=0.01)
    assert data["check"] == ""
    assert "mean of all heads" in choice["reduction"]


def test_that_check_can_fail():
    maps = uneven(5)
    maps[2, 1, 1] *= 1.5
    data = explore(traces.trace(attention={ATTENTION: maps})).data["attention"]
    assert "CHECK FAILED" in data["check"]
    maps[2, 1, 1, 4] = np.nan
    data = explore(traces.trace(attention={ATTENTION: maps})).data["attention"]
    assert data["choices"][0]["tops"][data["words"].index("scraper")][2] == "NaN"
    assert "CHECK FAILED" in data["check"]


def test_chosen_words_and_the_sum_of_the_others():
    trace = traces.trace(attention={ATTENTION: uneven(5)})
    data = explore(trace, words=["red", "sky scraper"]).data["attention"]
    assert data["words"] == ["red", "sky scraper", "<start>", "<end>", "<pad>", OTHER]
    assert data["kinds"][-1] == "other"
    (choice,) = data["choices"]
    shares = unpacked(choice["maps"]) / 255 * np.array(choice["tops"])[..., None, None]
    assert np.allclose(shares.sum(axis=0), 1, atol=0.01)
    one = attention_maps(trace, "a", by="step").maps[0]
    assert np.allclose(shares[-1], one, atol=1e-3)  # "a" is the only other word


def test_layers_of_several_sizes_can_be_seen_apart():
    layers = with_attention(mid_block=uneven(5), up_block=uneven(5, size=(6, 8)))
    trace = traces.trace(attention=layers)
    choices = explore(trace).data["attention"]["choices"]
    labels = ["all: 2 layers", "3×4: 1 layer", "6×8: 1 layer"]
    assert [choice["label"] for choice in choices] == labels
    assert [choice["maps"]["shape"] for choice in choices] == [[7, 5, 6, 8], [7, 5, 3, 4],
                                                               [7, 5, 6, 8]]  # fmt: skip
    coarse = attention_maps(trace, "red", resolution=(3, 4), by="step").maps[0]
    tops = np.array(choices[1]["tops"])[2]
    assert np.allclose(unpacked(choices[1]["maps"])[2] / 255 * tops[:, None, None], coarse,
                       atol=1e-3)  # fmt: skip


def test_fine_maps_are_averaged_and_shares_kept():
    maps = np.random.default_rng(0).random((2, 64, 48))
    small = pooled(maps)
    assert small.shape == (2, 32, 32)
    assert small[1, 3, 4] == pytest.approx(maps[1, 6:8, 6:7].mean())
    assert np.array_equal(pooled(maps[:, :20, :9]), maps[:, :20, :9])
    whole = pooled(np.stack([maps[0], 1 - maps[0]])).sum(axis=0)
    assert np.allclose(whole, 1)


def test_many_words_of_many_steps_get_coarser_maps_and_shares_stay(monkeypatch):
    maps = uneven(5, size=(20, 32))
    trace = traces.trace(attention=with_attention(mid_block=maps))
    whole = explore(trace).data["attention"]["choices"][0]
    assert whole["maps"]["shape"] == [7, 5, 20, 32] and "averaged" not in whole["reduction"]
    monkeypatch.setattr("diffusionlab.views.attention_data.MOST", 7 * 5 * 16 * 16)
    (choice,) = explore(trace).data["attention"]["choices"]
    assert choice["maps"]["shape"] == [7, 5, 16, 16]
    assert choice["reduction"].endswith("averaged into 16×16 cells")
    shares = unpacked(choice["maps"]) / 255 * np.array(choice["tops"])[..., None, None]
    assert np.allclose(shares.sum(axis=0), 1, atol=0.02)


def test_how_far_the_branches_are_apart():
    trace = traces.trace()
    data = explore(trace).data["difference"]
    maps = unpacked(data["maps"]) / 255 * np.array(data["tops"])[:, None, None]
    for i, step in enumerate(trace.steps):
        call = step.predictions[0]
        wanted = branch_x0(call, "cond") - branch_x0(call, "uncond")
        wanted = np.sqrt(np.square(wanted).mean(axis=0))
        assert data["tops"][i] == pytest.approx(wanted.max(), rel=1e-6)
        assert np.allclose(maps[i], wanted, atol=wanted.max() / 500)


# ---- the dial ----------------------------------------------------------------------------------
def dialled(data: dict, step: int, g: float) -> np.ndarray:
    """The formula of the page, uint8 (h, w, 3)."""
    facts, arrays = data["steps"][step], {n: unpacked(a) for n, a in data["arrays"].items()}
    k = 1.0
    if facts["rescale"] and g != 1:
        spread = np.sqrt(facts["parts"][0] + 2 * g * facts["parts"][1] + g * g * facts["parts"][2])
        k = facts["rescale"] * facts["cond"] / spread + 1 - facts["rescale"]
    rgb = k * (arrays["own"][step] + (g - facts["own"]) * arrays["pull"][step])
    if k != 1:
        rgb = rgb + (1 - k) * arrays["point"][step]
    return np.round(255 * np.clip(rgb, 0, 1)).transpose(1, 2, 0)


def rescaled(trace, rescale: float):
    """The trace with that rescale in its settings and predictions."""
    steps = [
        replace(s, predictions=tuple(replace(p, guidance_rescale=rescale) for p in s.predictions))
        for s in trace.steps
    ]
    settings = replace(trace.settings, guidance_rescale=rescale)
    return replace(trace, settings=settings, steps=tuple(steps))


def of_type(trace, kind: str):
    """The same outputs read as another prediction type."""
    steps = [
        replace(s, predictions=tuple(replace(p, prediction_type=kind) for p in s.predictions))
        for s in trace.steps
    ]
    return replace(trace, steps=tuple(steps))


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_the_dial_is_the_analysis_recombined(kind, rescale):
    trace = rescaled(of_type(traces.trace(), kind), rescale)
    data = dial_data(trace, range(5))
    assert ("point" in data["arrays"]) == bool(rescale)
    for step in range(5):
        for g in (0, 1, 2.5, 4, 12):
            call = recombine(trace.steps[step].predictions[0], Guidance(g, rescale=rescale))
            wanted = trace.preview.rgb(call.x0).astype(float)
            assert np.abs(dialled(data, step, g) - wanted).max() <= 1, (step, g)


def test_that_comparison_can_fail():
    trace = traces.trace()
    data = dial_data(trace, range(5))
    swapped = [
        replace(s, predictions=tuple(replace(p, cond=p.uncond, uncond=p.cond)
                                     for p in s.predictions)) for s in trace.steps
    ]  # fmt: skip
    wrong = dial_data(replace(trace, steps=tuple(swapped)), range(5))
    assert np.abs(dialled(data, 4, 2.0) - dialled(wrong, 4, 2.0)).max() > 5


def test_the_dial_says_why_it_cannot_turn():
    trace = traces.trace()
    one = [replace(s, predictions=tuple(replace(p, uncond=None, guidance_scale=1.0)
                                        for p in s.predictions)) for s in trace.steps]  # fmt: skip
    settings = replace(trace.settings, guidance_scale=1.0)
    off = explore(replace(trace, steps=tuple(one), settings=settings)).data
    assert off["dial"]["missing"].startswith("This run has guidance 1")
    assert set(off["difference"]["reasons"]) == {off["dial"]["missing"]}

    settings = replace(trace.settings, guidance_interval=(0.3, 5.0))
    some = replace(trace, steps=(one[0], *trace.steps[1:]), settings=settings)
    dial = explore(some).data["dial"]
    assert "at karras_sigma 14.6 it is off" in dial["steps"][0]["reason"]
    assert [bool(step["reason"]) for step in dial["steps"]] == [True, *[False] * 4]

    bare = explore(replace(trace, preview=None)).data
    assert "no preview map" in bare["dial"]["missing"]
    assert "mean of the channels, no preview map" in bare["reels"]["x_t"]["label"]


def test_a_dial_that_is_too_large_is_left_out_and_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("diffusionlab.views.dial_data.MOST", 3000)
    dial = explore(traces.trace()).data["dial"]
    assert "Left out of this page: it would take 3.84 kB" in dial["missing"]
    assert "every=2" in dial["missing"]
    assert not explore(traces.trace(), every=2).data["dial"]["missing"]


# ---- what was told -----------------------------------------------------------------------------
def test_the_prompts_notices_come_first_and_bookkeeping_not_at_all():
    trace = traces.trace()
    kept = "the record of this run will keep 1.1 MB"
    settings = replace(trace.settings, notices=("levels that coincide were dropped", kept))
    run = replace(trace, settings=settings)
    wanted = ["5 kept, 3 dropped", "levels that coincide were dropped"]
    assert notices_of(run) == wanted == explore(run).data["settings"]["notices"]
    assert notices_of(replace(run, tokens=None)) == wanted[1:]


def test_a_cut_is_told_on_the_page():
    note = explore(traces.trace()).data["note"]
    told = "The model reads 5 of the 8 pieces of this prompt; cut off: "
    assert note[2:] == [told, {"text": "at night"}, "."]
    tokens = replace(traces.tokens(), dropped_words=("at", "night", "in", "the", "<b>rain"))
    assert cut_of(traces.trace(tokens=tokens))[1:] == [{"text": "at night in the"}, " …"]
    tokens = replace(traces.tokens(), dropped=0, dropped_words=())
    assert cut_of(traces.trace(tokens=tokens)) == [] == cut_of(traces.trace(tokens=None))


def test_one_step_is_one_step_and_the_users_text_is_a_part_of_its_own():
    view = explore(traces.trace(1))
    assert view.title == "a red sky scraper · ddim, 1 step, guidance 4.0, seed 7".replace(".0", "")
    assert view.data["title"][0] == {"text": "a red sky scraper"}
    assert "1 step of ddim" in view.alt


def test_the_pieces_of_each_word_have_their_ids():
    data = explore(traces.trace()).data["attention"]
    pieces = dict(zip(data["words"], data["pieces"], strict=True))
    assert pieces["scraper"] == [["scra", 900], ["per", 901]] and pieces["red"] == [["red", 736]]
    assert pieces["<pad>"] == [["<pad>", 49407]], "equal neighbours once"
    bare = explore(traces.trace(attention={})).data["attention"]
    assert dict(zip(bare["words"], bare["pieces"], strict=True))["scraper"] == pieces["scraper"]
    chosen = explore(traces.trace(), words=["red"]).data["attention"]
    assert chosen["pieces"][chosen["words"].index(OTHER)] == []
    letters = tuple("سس" if i == 4 else p for i, p in enumerate(traces.tokens().pieces))
    assert explore(traces.trace(tokens=replace(traces.tokens(), pieces=letters))).page


def test_guidance_is_told_where_predictions_were_not_recorded():
    trace = traces.trace()
    bare = replace(trace, steps=tuple(replace(s, predictions=()) for s in trace.steps))
    assert [step["guidance_scale"] for step in step_facts(bare)] == [4.0] * 5
    settings = replace(trace.settings, guidance_interval=(0.3, 5.0))
    facts = step_facts(replace(bare, settings=settings))
    sigmas = [step.level.karras_sigma for step in trace.steps]
    assert [f["guidance_scale"] for f in facts] == [4.0 if s <= 5 else 1.0 for s in sigmas]
    assert {f["guidance_scale"] for f in facts} == {1.0, 4.0}


# ---- odd runs ----------------------------------------------------------------------------------
def test_a_run_that_was_stopped():
    whole = traces.trace()
    trace = replace(whole, steps=whole.steps[:2], image=None, frames=(),
                    attention={ATTENTION: uneven(2)})  # fmt: skip
    view = explore(trace)
    assert view.data["reels"]["end"]["sources"] == [None]
    told = "the run was stopped after 2 of 5 steps"
    assert told in view.data["reels"]["end"]["alts"][0]
    assert told in view.data["note"][0].lower()
    assert len(view.pictures()) == 2
    assert "html" in view.page


def test_a_record_without_predictions_still_shows_the_latents():
    trace = traces.trace(frames=())
    bare = replace(trace, steps=tuple(replace(s, predictions=()) for s in trace.steps))
    data = explore(bare).data
    assert data["reels"]["x0"]["sources"] == [None] * 5
    assert "run again with record=" in data["reels"]["x0"]["alts"][0]
    assert "Not checked" in data["check"]["path"]
    assert "not recorded" in data["dial"]["missing"]
    assert all(data["reels"]["x_t"]["sources"])


def test_nan_is_said_and_not_drawn():
    trace = traces.trace(frames=())
    bad = np.array(trace.steps[3].predictions[0].cond)
    bad[0, 0, 0] = np.nan
    call = replace(trace.steps[3].predictions[0], cond=bad)
    steps = list(trace.steps)
    steps[3] = replace(steps[3], predictions=(call,))
    data = explore(replace(trace, steps=tuple(steps))).data
    assert [source is None for source in data["reels"]["x0"]["sources"]] == [0, 0, 0, 1, 0]
    assert "NaN or infinity" in data["reels"]["x0"]["alts"][3]
    assert "NaN or infinity" in data["dial"]["steps"][3]["reason"]
    assert "CHECK FAILED" in data["check"]["warning"]
    assert explore(replace(trace, steps=tuple(steps))).page


def test_a_path_that_is_broken_warns():
    trace = traces.trace()
    steps = list(trace.steps)
    steps[2] = replace(steps[2], update=Update(0.5, steps[2].update.terms))
    data = explore(replace(trace, steps=tuple(steps))).data
    assert "CHECK FAILED" in data["check"]["warning"]
    assert "do not land on the next level" in data["check"]["steps"][2]
    assert "add up" in data["check"]["steps"][1]


def test_several_network_calls_a_step():
    trace = traces.trace()
    steps = []
    for s in trace.steps:  # a second call, half way
        second = Stage(s.level, Update(0.5, (Term("x0", 2 * s.index, 0.5),)))
        rule = Update(s.update.a, (replace(s.update.terms[0], call=2 * s.index),
                                   Term("x0", 2 * s.index + 1, 0.0)))  # fmt: skip
        steps.append(replace(s, predictions=s.predictions * 2, stages=(*s.stages, second),
                             update=rule))  # fmt: skip
    both = replace(trace, steps=tuple(steps), attention={ATTENTION: uneven(10)})
    data = explore(both).data
    assert [t["ago"] for t in data["steps"][3]["update"]["terms"]] == [0, -1]
    assert data["calls"][3][1]["update"]["a"] == 0.5
    assert data["steps"][3]["calls_so_far"] == 8
    assert "first network call" in data["reels"]["x0"]["label"]
    top = attention_maps(both, "red", steps=3).maps.max()
    assert data["attention"]["choices"][0]["tops"][2][3] == pytest.approx(top, rel=1e-6)


def test_without_attention_the_words_stand_and_say_why():
    data = explore(traces.trace(attention={})).data["attention"]
    assert data["words"] == ["a", "red", "sky", "scraper"]
    assert data["choices"] == []
    assert "run again with record=" in data["missing"]
    wrong = explore(traces.trace(attention={ATTENTION: uneven(4)})).data["attention"]
    assert "must agree" in wrong["missing"]


def test_a_redacted_record_shows_positions():
    data = explore(traces.trace(tokens=None)).data["attention"]
    assert data["words"] == [f"token {i}" for i in range(12)]


def test_every_second_step():
    data = explore(traces.trace(num_steps=8), every=3)
    assert [step["index"] for step in data.data["steps"]] == [0, 3, 6, 7]
    assert data.limits["step"] == (0, 3)
    assert data.data["note"][0] == "4 of 8 steps are shown."
    assert {len(data.data[name]) for name in ("calls", "steps")} == {4}
    assert data.data["attention"]["choices"][0]["maps"]["shape"][1] == 4


def test_the_still_has_six_pictures_and_the_end():
    view = explore(traces.trace(num_steps=12))
    captions = [caption for caption, _ in view.pictures()]
    assert len(captions) == 7
    assert captions[0].startswith("step 0\nt 999")
    assert captions[-1].startswith("the end")
    assert view.still().width > 6 * 160
    assert view.to_figure().alt == view.alt
    assert "12 steps of ddim" in view.alt


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"every": 0}, "every is 0; a whole number from 1"),
        ({"every": 6}, "every is 6"),
        ({"every": 1.5}, "every is 1.5"),
        ({"every": True}, "every is True"),
        ({"size": 8}, "size is 8; a whole number of pixels from 16 to 2048"),
        ({"size": "large"}, "size is 'large'"),
        ({"words": "blue"}, "'blue' is not in the prompt"),
        ({"words": []}, "words is empty"),
    ],
)
def test_what_is_not_allowed(given, told):
    with pytest.raises(InputError, match=told):
        explore(traces.trace(), **given)


def test_other_wrong_inputs():
    with pytest.raises(InputError, match="a Trace is needed"):
        explore("run.safetensors")
    with pytest.raises(InputError, match="trace of 0 steps"):
        explore(replace(traces.trace(), steps=()))
    with pytest.raises(InputError, match="a PIL image is needed"):
        explore(traces.trace(frames=()), decode=lambda latent: latent)
    with pytest.raises(InputError, match="none of them cross-attention"):
        explore(traces.trace(attention={}), words="red")


def test_the_live_values_are_traits():
    import traitlets

    widget = explore(traces.trace()).widget()
    assert (widget.step, widget.word, widget.panel, widget.guidance) == (0, "", "end", 4.0)
    widget.step, widget.word, widget.guidance = 4, "red", 7.5
    with pytest.raises(traitlets.TraitError):
        widget.step = 5


# ---- pages -------------------------------------------------------------------------------------
class Structure(HTMLParser):
    """The elements of a page in order, with the names of their attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, *(name for name, _ in attrs)))


def hostile(text: str):
    """A run whose every text is that one."""
    harmless = traces.trace()
    tokens = Tokens(**{**vars(harmless.tokens), "prompt": text, "words": (text,) * 4,
                       "pieces": (text,) * 12})  # fmt: skip
    settings = replace(harmless.settings, prompt=text, negative_prompt=text, model=text,
                       sampler={"name": text, "options": {}}, notices=(text,))  # fmt: skip
    taps = {f"{text}.{ATTENTION}": traces.attention(5)}
    return replace(harmless, tokens=tokens, settings=settings, attention=taps)


@pytest.mark.parametrize("text", [*traces.HOSTILE, "قطة حمراء 🐈‍⬛", "</script><img src=x>"])
def test_hostile_texts_leave_the_page_as_it_is(text):
    harmless, view = explore(traces.trace()), explore(hostile(text))
    assert Structure(view.page).found == Structure(harmless.page).found
    ours, theirs = (v._repr_mimebundle_()["text/html"] for v in (harmless, view))
    assert Structure(theirs).found == Structure(ours).found


def test_that_structure_can_differ():
    page = explore(traces.trace()).page
    assert Structure(page + "<img src=x>").found != Structure(page).found


def test_a_toyland_run_of_20_steps_makes_a_small_page(tmp_path):
    import diffusionlab as dl

    trace = dl.generate(dl.load(), "a red car in the city at night", seed=1, num_steps=20,
                        record={"predictions", "attention", "frames"})  # fmt: skip
    view = explore(trace)
    path = view.save(tmp_path / "run.html")
    size = path.stat().st_size
    print(f"20 steps of Toyland with attention and frames: {size / 1e6:.2f} MB")
    assert 300_000 < size < 3_000_000
    assert view.data["check"]["warning"] == view.data["attention"]["check"] == ""
    assert len(view.data["attention"]["choices"]) == 3


def test_the_size_guard_names_a_remedy_that_works(monkeypatch, capsys):
    noisy = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    trace = traces.trace(frames=tuple(to_image(noisy) for _ in range(5)))
    size = len(explore(trace).page)
    monkeypatch.setattr(view_module, "MOST", size - 1)
    capsys.readouterr()
    assert len(explore(trace).page) == size
    told = capsys.readouterr().err
    assert "explore(trace, every=2, size=128)" in told
    assert len(explore(trace, every=2, size=128).page) < size
    assert capsys.readouterr().err == ""


def stable_diffusion_size(words: int, num_steps: int = 50):
    """A run of random numbers of Stable Diffusion's sizes: 4×64×64, 77 tokens, one 64×64 layer."""
    random = np.random.default_rng(0)
    shape, base = (4, 64, 64), traces.trace(num_steps)

    def grown(array):
        return np.resize(array, shape) + 0.1 * random.normal(size=shape).astype(np.float32)

    steps = [
        replace(
            s, latent=grown(s.latent), next_latent=grown(s.next_latent),
            predictions=tuple(replace(p, latent=grown(p.latent), cond=grown(p.cond),
                                      uncond=grown(p.uncond)) for p in s.predictions),
        ) for s in base.steps
    ]  # fmt: skip
    names, pads = tuple(f"word{i}" for i in range(words)), 75 - words
    tokens = Tokens(
        " ".join(names), tuple(range(77)), ("<start>", *names, "<end>", *["<pad>"] * pads), names,
        (None, *range(words), None, *[None] * pads),
        ("start", *["word"] * words, "end", *["pad"] * pads), words,
    )  # fmt: skip
    noise = random.integers(0, 256, (256, 256, 3), np.uint8)
    maps = np.broadcast_to(uneven(1, 77, (64, 64)), (num_steps, 64, 64, 77))
    frames = tuple(to_image(np.roll(noise, i, 0)) for i in range(num_steps))
    attention = {ATTENTION: maps}
    return replace(base, tokens=tokens, steps=tuple(steps), attention=attention, frames=frames)


def test_a_run_of_stable_diffusions_size(capsys):
    view = explore(stable_diffusion_size(12))
    print(f"50 steps of Stable Diffusion's size, 12 words: {len(view.page) / 1e6:.2f} MB")
    assert "opens slowly" not in capsys.readouterr().err
    assert len(view.page) < view_module.MOST
    (choice,) = view.data["attention"]["choices"]
    assert choice["maps"]["shape"] == [15, 50, 32, 32]
    assert "averaged into 32×32 cells" in choice["reduction"]
    assert view.data["dial"]["arrays"]["own"]["shape"] == [50, 3, 32, 32]
    assert view.data["dial"]["averaged"] == ", averaged into 32×32 cells"


def test_the_longest_prompt_of_that_size_gets_coarser_maps_and_no_warning(capsys):
    """Even frames of pure noise leave it below the guard; without them it is far below."""
    trace = stable_diffusion_size(75)
    view = explore(trace)
    assert len(view.page) < view_module.MOST and "opens slowly" not in capsys.readouterr().err
    assert view.data["attention"]["choices"][0]["maps"]["shape"] == [77, 50, 16, 16]
    still = explore(replace(trace, frames=(traces.trace().image,) * 50))
    assert len(still.page) < 5_000_000


def test_no_model_no_torch_no_matplotlib(tmp_path):
    import subprocess

    traces.trace().save(tmp_path / "run.safetensors")
    code = f"""
from diffusionlab.trace import Trace
from diffusionlab.views import explore
explore(Trace.load({str(tmp_path / "run.safetensors")!r})).save({str(tmp_path / "run.html")!r})
import sys
names = "torch", "matplotlib", "transformers", "anywidget", "ipywidgets"
print([name for name in names if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert (tmp_path / "run.html").stat().st_size > 10_000
