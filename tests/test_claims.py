"""Claims: how a verdict follows from parts, the intervals, the bench, the catalogue, the page."""

from __future__ import annotations

import html
import importlib.util
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from diffusionlab import claims
from diffusionlab.claims import (
    CLAIMS,
    Bench,
    Board,
    Claim,
    Finding,
    Part,
    board,
    catalogue,
    examine,
    find,
)
from diffusionlab.claims.claim import SOURCES, VERDICTS, Measured
from diffusionlab.claims.intervals import exact, gained, mean, share, student
from diffusionlab.claims.untrained import redrawn, untrained
from diffusionlab.errors import InputError
from diffusionlab.inside.interventions import zero_tap
from diffusionlab.pipeline import LatentDiffusion, save
from diffusionlab.stages import embed, tokenize
from diffusionlab.training.judge_nets import Verdict

ROOT = Path(__file__).parents[1]


def part(low: float, high: float, sense: str = "above", bar: float = 0.5, within: float = 0.0):
    return Part("a part", Measured((low + high) / 2, low, high, 12, "by hand"), sense, bar, within)


def claim(name: str = "Z1", says: str = "It is so.") -> Claim:
    return Claim(name, says, "essay", 1, lambda bench: (part(0.6, 0.9),))


# ---- parts and verdicts ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("low", "high", "sense", "bar", "within", "holds"),
    [
        (0.6, 0.9, "above", 0.5, 0, True),
        (0.1, 0.5, "above", 0.5, 0, False),
        (0.4, 0.6, "above", 0.5, 0, None),
        (0.1, 0.4, "below", 0.5, 0, True),
        (0.5, 0.9, "below", 0.5, 0, False),
        (0.4, 0.6, "below", 0.5, 0, None),
        (3.0, 3.0, "equals", 3, 0, True),
        (3.0, 3.1, "equals", 3, 0, None),
        (3.1, 3.1, "equals", 3, 0, False),
        (0.96, 1.04, "near", 1, 0.05, True),
        (0.90, 0.94, "near", 1, 0.05, False),
        (0.94, 1.00, "near", 1, 0.05, None),
        (-1.04, -0.96, "near", -1, 0.05, True),
    ],
)
def test_a_part_holds_where_its_whole_interval_is_on_the_claims_side(
    low, high, sense, bar, within, holds
):
    assert part(low, high, sense, bar, within).holds is holds


YES, NO, OPEN = part(0.6, 0.9), part(0.1, 0.2), part(0.4, 0.6)


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ((YES,), "true"),
        ((YES, YES), "true"),
        ((NO, NO), "false"),
        ((YES, NO), "partly"),
        ((OPEN,), "open"),
        ((YES, OPEN), "open"),
        ((NO, OPEN), "open"),
        ((YES, NO, OPEN), "partly"),
        ((), "open"),
    ],
)
def test_the_verdict_follows_from_the_parts(parts, verdict):
    assert Finding(claim(), parts).verdict == verdict


def test_the_smallest_sample_is_told():
    many = Part("many", Measured(0.9, 0.8, 1.0, 64), "above", 0.5)
    assert Finding(claim(), (many, YES, Part("one", exact(1), "equals", 1))).samples == 12
    assert Finding(claim(), (Part("one", exact(1), "equals", 1),)).samples == 0


def test_a_sentence_has_the_number_its_interval_and_the_bar():
    assert YES.sentence == "a part: 0.75 (0.6 … 0.9, n = 12); the claim needs more than 0.5: yes"
    near = Part("size", exact(0.9792), "near", 0.98, 0.005).sentence
    assert near == "size: 0.9792; the claim needs within 0.5 % of 0.98: yes"
    assert "not decided by these samples" in OPEN.sentence


def test_what_is_no_part_is_refused():
    with pytest.raises(InputError, match=r"sense is 'over'; allowed are above, below, equals"):
        part(0, 1, "over")
    for measured in (exact(math.nan), Measured(2.0, 0.0, 1.0)):
        with pytest.raises(InputError, match="inside its own interval"):
            Part("a part", measured, "above", 0)
    with pytest.raises(InputError, match="source is 'gossip'; allowed are exhibit page"):
        Claim("Z1", "It is so.", "gossip", 1, lambda bench: ())


def test_hostile_texts_are_shown_as_texts():
    bad = "<script>alert('x')</script><img src=x onerror=y>"
    told = Part(bad, exact(1), "equals", 1)
    box = Finding(claim(bad, bad), (told,), bad)._repr_html_()
    assert "<script" not in box and "<img" not in box
    assert box.count("&lt;script&gt;") == 3  # name, claim and part
    assert "Verdict on this model: true" in box


# ---- intervals -------------------------------------------------------------------------------
def coverage(draw, interval, truth: float, repeats: int = 300) -> float:
    """How often the interval of a sample holds the truth."""
    rng = np.random.default_rng(1)
    found = [interval(draw(rng)) for _ in range(repeats)]
    return float(np.mean([m.low <= truth <= m.high for m in found]))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [12, 64])
def test_the_interval_of_a_share_covers_it_nineteen_times_in_twenty(rate, count):
    assert 0.9 <= coverage(lambda rng: rng.random(count) < rate, share, rate) <= 0.99


def test_the_interval_of_a_mean_covers_it_about_as_often():
    normal = coverage(lambda rng: rng.normal(3, 2, 24), mean, 3)
    skewed = coverage(lambda rng: rng.exponential(1, 64), mean, 1)
    assert 0.88 <= normal <= 0.98 and 0.86 <= skewed <= 0.98


def test_the_coverage_check_can_fail():
    narrow = coverage(lambda rng: rng.random(12) < 0.5, lambda hits: exact(np.mean(hits)), 0.5)
    assert narrow < 0.5


def test_intervals_known_by_hand():
    half = share([True] * 6 + [False] * 6)  # z²/n = 0.3201: 0.5 ± 0.3289 / 1.3201
    assert (half.value, half.count) == (0.5, 12)
    assert half.low == pytest.approx(0.25378, abs=1e-5)
    assert half.high == pytest.approx(0.74622, abs=1e-5)
    assert share([True] * 12).high == 1 and share([False] * 12).low == 0
    flat = mean([2.0, 2.0, 2.0])
    assert (flat.low, flat.value, flat.high) == (2, 2, 2)
    assert mean([1, 2, 4]) == mean([1, 2, 4])  # its dice are seeded


def test_nothing_has_no_interval():
    with pytest.raises(InputError, match="a share of nothing; draw at least one"):
        share([])
    for values in ([1.0], [1.0, math.nan]):
        with pytest.raises(InputError, match="at least 2 are needed"):
            mean(values)


# ---- the catalogue ---------------------------------------------------------------------------
def test_every_claim_is_short_named_and_explained():
    for name, held in CLAIMS.items():
        assert held.id == name and held.source in SOURCES and 1 <= held.notebook <= 10
        assert len(held.says.split()) <= 12 and held.says.endswith("."), name
        assert len(held.ask.__doc__ or "") > 40, f"{name}: why is the bar where it is?"


def test_no_name_is_given_twice(monkeypatch):
    monkeypatch.setattr(catalogue, "CHAPTERS", ("text", "text"))
    with pytest.raises(ValueError, match="two claims are called"):
        catalogue._gathered()


def test_claims_stand_in_the_order_of_their_numbers():
    names = list(CLAIMS)
    assert names.index("A5") < names.index("A12") < names.index("B4") < names.index("B12")


def test_an_unknown_claim_lists_those_there_are():
    assert find("A5") is CLAIMS["A5"]
    with pytest.raises(InputError, match="claim 'A55' is not known; did you mean 'A5'") as told:
        find("A55")
    assert all(name in str(told.value) for name in CLAIMS)
    with pytest.raises(InputError, match="claim 7 is not known"):
        examine(None, 7)


def test_a_claim_is_examined_on_a_model_and_on_a_bench(tiny_model):
    found = examine(tiny_model, "A12")
    assert found.claim is CLAIMS["A12"] and found.model == tiny_model.name
    assert found.verdict == examine(Bench(tiny_model), "A12").verdict == "false"
    assert repr(found).startswith("A12 false: The whole prompt becomes one vector.\n  vectors")


def test_no_notice_is_printed_about_an_experiments_own_prompts(tiny_model, capsys):
    tokenize(tiny_model, "a " * 40)
    assert "dropped" in capsys.readouterr().err
    examine(tiny_model, "A7")
    told = capsys.readouterr()
    assert told.out == told.err == ""


# ---- any checkpoint --------------------------------------------------------------------------
TOYLANDS = {  # their pictures are judged, or their captions are of Toyland
    "A9", "A10", "A16", "A18", "A23", "A24", "A32", "B4", "D10", "F4", "F5", "F7", "F11", "F18",
    "F20", "G1", "G9", "G12", "G13", "G15", "H6", "H10", "I15",
}  # fmt: skip
REFUSED = dict.fromkeys(TOYLANDS, "has no toyland.json") | {"H7": "two are needed"}


@pytest.fixture(scope="module")
def shared(tiny_model):
    return Bench(tiny_model, 2)


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_is_asked_of_any_checkpoint_or_says_why_not(name, shared, tiny_model):
    """Those that need Toyland say so before anything is run, and are all sampled ones."""
    held = CLAIMS[name]
    if name in REFUSED:
        fresh = Bench(tiny_model, 2)
        found = examine(fresh, name)
        assert found.verdict == "not asked" and REFUSED[name] in found.refused and not found.parts
        assert held.sampled and (name not in TOYLANDS or {*fresh._runs} <= {"round trips"})
        return
    found = examine(shared, name)
    assert found.parts and not found.refused
    assert all(np.isfinite(part.measured.value) for part in found.parts)
    assert held.sampled == any(part.measured.count for part in found.parts)
    assert found.verdict in VERDICTS


# ---- the bench -------------------------------------------------------------------------------
def test_runs_are_made_once_and_kept(tiny_model):
    bench = Bench(tiny_model, 2)
    one = bench.run(num_steps=2)
    assert bench.run(bench.prompt, num_steps=2) is one and bench.run(num_steps=3) is not one
    both = bench.traces(["a cat", "a boat"], num_steps=1)
    assert bench.traces(["a cat", "a boat"], num_steps=1) is both
    assert [t.settings.seed for t in both] == [20_000, 20_001]
    assert bench.pictures(["a cat", "a boat"], num_steps=1)[1] is both[1].image


def test_a_changed_network_or_text_never_gets_a_kept_run(tiny_model):
    bench = Bench(tiny_model, 2)
    plain = bench.run(num_steps=2)
    with zero_tap(tiny_model, "mid_block*output"):
        changed = bench.run(num_steps=2)
    assert not np.array_equal(changed.latents[-1], plain.latents[-1])
    assert bench.run(num_steps=2) is plain
    text = embed(tiny_model, tokenize(tiny_model, "a boat"))
    other = bench.run(num_steps=2, text_embedding=text)
    assert not np.array_equal(other.latents[-1], plain.latents[-1])


def test_more_prompts_than_a_comparison_takes(tiny_model):
    traces = Bench(tiny_model, 2).traces(["a cat"] * 66, num_steps=1)
    assert [t.settings.seed for t in traces] == list(range(20_000, 20_066))


def test_dice_are_an_experiments_own_and_the_same_every_time(tiny_model):
    bench = Bench(tiny_model)
    assert bench.rng("a").random() == bench.rng("a").random() != bench.rng("b").random()


def test_the_bench_says_what_it_cannot_do(tiny_model):
    for samples in (1, True, 2.5, "many"):
        with pytest.raises(InputError, match="a whole number from 2 up"):
            Bench(tiny_model, samples)
    bench = Bench(tiny_model, 2)
    for ask in (lambda: bench.one_object, lambda: bench.judged([bench.run(num_steps=1).image])):
        with pytest.raises(InputError, match=r"has no toyland\.json.*asked of dl\.load\(\)"):
            ask()
    assert bench.texts == [bench.prompt] * 2 and len(bench.scenes) == 2


def test_captions_are_what_the_judge_sees_or_say_that_there_is_none(tiny_model, monkeypatch):
    bench = Bench(tiny_model, 2)
    traces = bench.traces(["a cat", "a boat"], num_steps=1)
    assert list(bench.seen(traces)) == ["seed 20000: not judged", "seed 20001: not judged"]
    assert bench.seen(traces)["seed 20001: not judged"] is traces[1].image
    theirs = Bench(replace(tiny_model, config={"toyland": {"share": "small"}}), 2)
    verdict = Verdict(("cat", "car"), "city", None, "plain", {"cat": "red", "car": "blue"})
    monkeypatch.setattr(theirs, "judged", lambda images: [verdict] * len(images))
    assert list(theirs.seen(traces))[0] == "seed 20000: red cat, blue car"


# ---- random weights --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def redrawn_model(tiny_model, tmp_path_factory) -> LatentDiffusion:
    return untrained(tiny_model, tmp_path_factory.mktemp("claims") / "random")


def states(model: LatentDiffusion) -> dict[str, torch.Tensor]:
    parts = {"unet": model.unet, "vae": model.vae, "text": model.text_encoders[0]}
    return {f"{p}.{n}": t for p, net in parts.items() for n, t in net.state_dict().items()}


def test_every_matrix_is_drawn_anew_and_the_old_model_stays(tiny_model, redrawn_model, tmp_path):
    before = {name: tensor.clone() for name, tensor in states(tiny_model).items()}
    again, other = (untrained(tiny_model, tmp_path / str(s), seed=s) for s in (0, 1))
    new, same, third = states(redrawn_model), states(again), states(other)
    for name, old in states(tiny_model).items():
        assert torch.equal(old, before[name]) and torch.equal(new[name], same[name])
        assert new[name].shape == old.shape and new[name].dtype == old.dtype
        if old.ndim > 1:
            assert not torch.equal(new[name], old) and not torch.equal(new[name], third[name])
    assert redrawn_model.preview is None  # it was fitted to the old weights
    assert redrawn_model.unet.config == tiny_model.unet.config


def test_weights_are_spread_by_their_inputs():
    dice = torch.Generator().manual_seed(0)
    kernel = redrawn("conv.weight", torch.zeros(200, 10, 3, 3), dice)
    assert kernel.std().item() == pytest.approx(90**-0.5, rel=0.02)
    assert redrawn("norm.weight", torch.zeros(3), dice).tolist() == [1, 1, 1]
    assert redrawn("norm.bias", torch.ones(3), dice).tolist() == [0, 0, 0]
    counter = torch.arange(3)
    assert redrawn("position_ids", counter, dice) is counter


def test_untrained_says_what_it_needs(tiny_model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="is not empty; name a new one"):
        untrained(tiny_model, tmp_path / "full")
    loose = replace(tiny_model, path=tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="write it with save"):
        untrained(loose, tmp_path / "new")
    save(loose, tmp_path / "saved")
    assert (tmp_path / "full" / "a.txt").read_text(encoding="utf-8") == "mine"


# ---- the page --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("claims_tool", ROOT / "tools" / "claims.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["claims_tool"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["claims_tool"]


def test_the_page_counts_verdicts_and_those_that_flip(tool):
    rows = [tool.Row("A12", "false", 0, ("one: 1; a | b",)), tool.Row("A16", "true", 64, ("two",)),
            tool.Row("A23", "false", 64, ("three",))]  # fmt: skip
    others = [tool.Row("A12", "true", 0, ()), tool.Row("A16", "false", 64, ()),
              tool.Row("A23", "false", 64, ())]  # fmt: skip
    assert tool.flips(rows, others) == ["A16"]  # A12 draws no samples, A23 stays
    page = tool.page(rows, others, 64, 12.0)
    assert "**3 claims: 1 true, 2 false.** Of the 2 that draw samples, 1 come out" in page
    table = [text for text in page.splitlines() if text.startswith("| A")]
    assert len(table) == 3 and all(Counter(t.replace("\\|", ""))["|"] == 9 for t in table)
    assert "**true** | 64 | false | two |" in table[1]


def test_rows_are_read_back_and_the_new_ones_take_their_places(tool):
    rows = [tool.Row("A12", "false", 0, ("one: 1; a | b", "more")),
            tool.Row("A16", "true", 64, ("c",))]  # fmt: skip
    others = [tool.Row("A12", "true", 0, ()), tool.Row("A16", "open", 0, ())]
    page = tool.page(rows, others, 64, 12.0)
    assert tool.read_rows(page) == (rows, others)
    new = [tool.Row("A16", "false", 24, ("d",)), tool.Row("A5", "false", 0, ("e",))]
    assert [row.sentences[-1] for row in tool.renewed(rows, new)] == ["e", "more", "d"]
    assert len(tool.flips(rows, others)) == 1 and tool.flips(rows, others, decided=True) == []


def test_the_committed_page_is_of_todays_claims(tool):
    """Ids, wordings and notebooks; and what the course promises of its verdicts."""
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    rows, others = tool.read_rows(text)
    assert [row.id for row in rows] == list(CLAIMS), "run `make claims`"
    for claim in CLAIMS.values():
        assert f"| {claim.id} | {claim.says} | {claim.source} | {claim.notebook} |" in text.replace(
            "\\|", "|"
        ), f"{claim.id} has changed: python tools/claims.py --only {claim.id}"
    sampled = [claim for claim in CLAIMS.values() if claim.sampled]
    assert len(rows) >= 30 and len(sampled) >= 15
    assert len(tool.flips(rows, others)) >= len(sampled) / 2


def test_a_claim_that_cannot_be_asked_stands_in_the_page_with_its_reason(tool, tiny_model):
    row = tool.asked(Bench(tiny_model, 2), "A16")
    assert row.verdict == "not asked" and "has no toyland.json" in row.sentences[0]
    assert tool.asked(Bench(tiny_model, 2), "A12").verdict == "false"


def test_the_package_hands_out_what_notebooks_need():
    assert {"CLAIMS", "Bench", "examine", "find"} <= set(claims.__all__)


# ---- the board -------------------------------------------------------------------------------
def test_a_board_holds_all_claims_of_a_notebook_and_shares_runs(tiny_model):
    bench = Bench(tiny_model, 2)
    found = board(bench, 2)
    assert [f.claim.id for f in found.findings] == [
        claim.id for claim in CLAIMS.values() if claim.notebook == 2
    ]
    assert board(bench, ["A12", "A5"]).findings[1].claim.id == "A5"
    text, page = repr(found), found._repr_html_()
    verdicts = [f.verdict for f in found.findings]
    assert f"{verdicts.count('false')} false" in text and f"{len(verdicts)} claims" in text
    assert page.count("<details>") == len(verdicts) == text.count(" · ") / 2
    assert "not asked" in verdicts and "–" in text  # the judges are Toyland's


def test_a_model_that_cannot_be_asked_gets_the_reason(tiny_model):
    found = examine(Bench(tiny_model, 2), "A23")
    assert found.verdict == "not asked" and not found.parts and found.samples == 0
    assert found.refused in repr(found) and html.escape(found.refused) in found._repr_html_()


@pytest.mark.parametrize("of", [0, 99, "2", [], None, 2.5])
def test_a_board_of_nothing_says_what_there_is(tiny_model, of):
    with pytest.raises(InputError, match=r"the number of a notebook \(1, 2, 3,.*\) or names"):
        board(tiny_model, of)
    with pytest.raises(InputError, match="claim 'A55' is not known"):
        board(tiny_model, ["A55"])


def test_a_board_keeps_hostile_names_as_text(tiny_model):
    name = "<img src=x onerror=alert(1)>"
    found = replace(examine(tiny_model, "A12"), model=name)
    assert name not in Board((found,))._repr_html_() and name in repr(Board((found,)))


# ---- intervals -------------------------------------------------------------------------------
@pytest.mark.parametrize("freedom", [1, 2, 5, 23, 1000])
def test_students_t(freedom):
    assert student(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-6)


@pytest.mark.parametrize("count", [4, 8, 24])
def test_an_interval_of_few_values_keeps_its_promise(count):
    """It encloses the true mean of normal values 19 times in 20, two-sided: not too wide either."""
    dice = np.random.default_rng(count)
    found = [mean(dice.standard_normal(count)) for _ in range(400)]
    kept = np.mean([m.low <= 0 <= m.high for m in found])
    assert 0.91 <= kept <= 0.985
    width = np.mean([m.high - m.low for m in found])
    assert width == pytest.approx(2 * student(count - 1) / count**0.5, rel=0.15)


def test_equal_differences_of_hits_prove_little():
    few, many = gained([0] * 8), gained([0] * 64)
    assert few.low < -0.3 < 0.3 < few.high and few.value == 0 and few.count == 8
    assert -0.05 < many.low < 0 < many.high < 0.05
    assert gained([1] * 6).high == 1 and 0 < gained([1] * 6).low < 0.3
    assert mean([0.5] * 4).low == mean([0.5] * 4).high  # nothing is known of what could occur
    with pytest.raises(InputError, match="values from 0 to 2; allowed are -1 to 1"):
        gained([0, 2])
