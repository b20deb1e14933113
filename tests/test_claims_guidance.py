"""Claims about guidance: on any checkpoint, on made-up runs and pictures, a few on Toyland."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from asked import finding
from PIL import Image

from diffusionlab.analysis.convergence import grid_levels
from diffusionlab.claims import CLAIMS, Bench, guidance
from diffusionlab.claims.pictures import keeps_to
from diffusionlab.errors import InputError
from diffusionlab.training.judge_nets import Verdict

COUNT = 200  # pictures of no cost, enough that equal ones decide


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return Bench(tiny_model, 2)


def holds(parts):
    return [part.holds for part in parts]


# ---- on any checkpoint --------------------------------------------------------------------------


def test_what_no_weights_decide(tiny):
    expected = {"G3": "true", "G4": "partly", "G7": "false", "G8": "partly", "G14": "true",
                "G16": "partly"}  # fmt: skip
    assert {name: finding(name, tiny).verdict for name in expected} == expected


def test_a_guided_world_is_narrower_than_the_sharpened_density(tiny):
    """Two Gaussians: the exact path of the guided flow is known (a linear equation in log x)."""
    clean, noised, spread, centre = CLAIMS["G16"].ask(tiny)
    assert clean.holds and clean.measured.value < 1e-12
    assert not (noised.holds or spread.holds or centre.holds)
    # d ln x / d ln s = g s² / (0.25 + s²) + (1 − g) s² / (1 + s²) along x = a latent / alpha
    first, last = (
        level.karras_sigma for level in (grid_levels("uniform", 200)[i] for i in (0, -1))
    )
    logs = [0.5 * (4 * np.log(0.25 + s**2) - 3 * np.log(1 + s**2)) for s in (first, last)]
    expected = (0.25 + first**2) ** 0.5 * np.exp(logs[1] - logs[0]) * 13**0.5
    assert spread.measured.value == pytest.approx(expected, rel=0.05)


# ---- what a picture shows of a text --------------------------------------------------------------
def test_a_judge_is_asked_for_what_the_text_names(toyland_bench, tiny, monkeypatch):
    seen = Verdict(("cat",), "snow", "day", "plain", {"cat": "red"})
    monkeypatch.setattr(toyland_bench, "judged", lambda images: [seen] * len(images))
    assert keeps_to(toyland_bench, "A red cat in the snow at night")(flat(0)) == 0.75
    assert keeps_to(toyland_bench, "a dress")(flat(0)) == 0
    assert keeps_to(toyland_bench, "xyzzy") is None and keeps_to(tiny, "a red cat") is None


# ---- verdicts that can fail ----------------------------------------------------------------------
def changed(run, **changes):
    """The run with every prediction changed."""
    told = [
        replace(step, predictions=tuple(replace(call, **changes) for call in step.predictions))
        for step in run.steps
    ]
    return replace(run, steps=tuple(told))


def test_another_formula_would_show(tiny):
    """Predictions whose scale is not the one that the run was made with."""
    run = tiny.run(num_steps=guidance.STEPS)
    bench = SimpleNamespace(run=lambda **settings: changed(run, guidance_scale=6.0))
    assert holds(guidance.the_formula(bench)) == [False, True, True]
    bench = SimpleNamespace(
        model=tiny.model, run=lambda **settings: changed(run, guidance_rescale=0.7)
    )
    assert not any(holds(guidance.the_formula(bench)))
    assert not guidance.the_text_direction_is_amplified(bench)[0].holds


def test_rows_of_every_call_are_counted_and_no_hook_stays(tiny):
    one, off, calls = guidance.two_passes_per_step(Bench(tiny.model, 2))
    assert (one.measured.value, off.measured.value, calls.measured.value) == (2, 1, 1)
    assert not tiny.model.unet._forward_pre_hooks


@pytest.mark.parametrize("name", ["G7", "G8", "G14", "G15"])
def test_a_model_of_one_pass_is_told_so(name):
    told = SimpleNamespace(embeds_guidance=True, name="distilled")
    with pytest.raises(InputError, match=r"distilled is told its guidance.*dl\.load\(\)"):
        CLAIMS[name].ask(SimpleNamespace(model=told))


def judged_bench(by_scale, verdict):
    """A bench whose pictures at a scale are those given, and whose judge sees one thing."""
    prompt = SimpleNamespace(kinds=("car",), colours={"car": "red"}, unseen=False,
                             text="a red car in the city",
                             caption=SimpleNamespace(atoms={"setting": "city"}))  # fmt: skip
    other = SimpleNamespace(**{**vars(prompt), "kinds": ("boat",), "colours": {"boat": "blue"},
                               "caption": SimpleNamespace(atoms={"setting": "space"})})  # fmt: skip

    def traces(texts, *, guidance_scale, **settings):
        runs = [SimpleNamespace(image=image) for image in by_scale[guidance_scale]]
        return runs[: len(texts)]

    return SimpleNamespace(
        model=SimpleNamespace(embeds_guidance=False),
        samples=COUNT, texts=[prompt.text] * COUNT, one_object=[prompt, other] * (COUNT // 2),
        traces=traces,
        pictures=lambda texts, **settings: [run.image for run in traces(texts, **settings)],
        judged=lambda images: [verdict(image) for image in images],
    )  # fmt: skip


def flat(level):
    return Image.new("RGB", (8, 8), (level, 0, 0))


def test_a_prompt_that_is_ignored_would_show():
    """A judge that sees the same in every picture finds no gain over scale 0 or other prompts."""
    same = Verdict(("car",), "city", None, "plain", {"car": "red"})
    bench = judged_bench({0: [flat(0)] * COUNT, 1: [flat(0)] * COUNT}, lambda image: same)
    assert guidance.ignored_at_one(bench)[1].holds
    nothing = Verdict((), "snow", None, "plain", {})
    bench = judged_bench({0: [flat(0)] * COUNT, 1: [flat(0)] * COUNT}, lambda image: nothing)
    assert holds(guidance.ignored_at_one(bench)) == [True, True]


def test_a_prompt_that_is_followed_at_one_shows():
    """At scale 1 odd pictures show the car and even ones the boat, as asked; at 0 nothing."""
    seen = {
        0: Verdict((), "snow", None, "plain", {}),
        1: Verdict(("car",), "city", None, "plain", {"car": "red"}),
        2: Verdict(("boat",), "space", None, "plain", {"boat": "blue"}),
    }
    pictures = {0: [flat(0)] * COUNT, 1: [flat(1), flat(2)] * (COUNT // 2)}
    bench = judged_bench(pictures, lambda image: seen[image.getpixel((0, 0))[0]])
    assert not guidance.ignored_at_one(bench)[1].holds


def test_negative_prompts_that_act_at_one_would_show():
    """Pictures that differ between any two calls, and a judge that sees no colour."""
    dice = np.random.default_rng(0)
    bench = judged_bench({}, lambda image: Verdict((), "snow", None, "plain", {}))
    bench.pictures = lambda texts, **settings: [
        Image.fromarray(dice.integers(0, 255, (8, 8, 3), np.uint8)) for _ in texts
    ]
    assert holds(guidance.negative_prompts_act(bench)) == [True, True, True]


# ---- on Toyland ----------------------------------------------------------------------------------
def test_scale_one_follows_the_prompt_of_toyland(toyland_bench):
    parts = finding("G1", toyland_bench).parts  # four pictures do not decide, but they lean one way
    assert all(part.measured.value > 5 * part.bar for part in parts)
    assert finding("G2", toyland_bench).verdict == "false"


def test_a_negative_prompt_does_nothing_at_one(toyland_bench):
    at_four, _, at_one = CLAIMS["G15"].ask(toyland_bench)
    assert at_four.measured.value == 1 and at_one.measured.value == 0
