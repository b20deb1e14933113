"""Runs that are set beside each other differ in one thing: each check finds the second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import traces
from test_attention import planted
from test_guidance import picture, run_at, runs_over
from test_interior import moved
from test_text import embedding, half_and_half

from diffusionlab.analysis import honesty
from diffusionlab.analysis.ablations import ablate
from diffusionlab.analysis.guidance import dial
from diffusionlab.analysis.guidance_sweep import sweep
from diffusionlab.analysis.ladder import step_ladder
from diffusionlab.analysis.padding import padding
from diffusionlab.analysis.same_runs import SETTINGS, check_same, dice_off, start_off
from diffusionlab.errors import InputError
from diffusionlab.trace import Settings, Trace

RUN = traces.trace(5)
OTHER = {
    "model": "other", "prompt": "a cat", "negative_prompt": "blue", "seed": 8, "num_steps": 6,
    "sampler": {"name": "ddim", "options": {"eta": 0.5}}, "spacing": "leading", "final": "none",
    "guidance_scale": 5.0, "guidance_interval": (0.5, 2.0), "guidance_rescale": 0.7, "height": 64,
    "width": 48, "noise": "brownian", "prediction_type": "v", "num_train_steps": 500,
}  # fmt: skip
FREE = {"record", "notices"}  # what changes no number of a run


def named(run: Trace, **changes) -> Trace:
    return replace(run, settings=replace(run.settings, **changes))


def drawn(run: Trace, seed: int = 0) -> Trace:
    """The run with one recorded draw in each step."""
    random = np.random.default_rng(seed)
    draws = [random.normal(size=(4, 6, 8)).astype(np.float32) for _ in run.steps]
    steps = (replace(s, noises=(z,)) for s, z in zip(run.steps, draws, strict=True))
    return replace(run, steps=tuple(steps))


@pytest.mark.parametrize("name", OTHER)
def test_every_setting_is_compared_unless_it_may_differ(name):
    setting = "guidance" if name.startswith("guidance") else name
    other = named(RUN, **{name: OTHER[name]})
    with pytest.raises(InputError, match=f"but {setting} is .* all else must be the same: give"):
        check_same(RUN, other)
    check_same(RUN, other, (setting,))


def test_no_setting_is_forgotten():
    known = {"guidance" if n.startswith("guidance") else n for n in Settings.__dataclass_fields__}
    assert known - FREE == set(SETTINGS)
    check_same(RUN, named(RUN, record=(), notices=("told",)))


def test_other_dice_are_found_in_the_start_and_in_every_step():
    check_same(drawn(RUN), drawn(RUN))
    last = drawn(RUN).steps[4]
    off = replace(last, noises=(last.noises[0] + np.float32(1e-3),))
    other = replace(drawn(RUN), steps=(*drawn(RUN).steps[:4], off))
    assert 0 < dice_off(drawn(RUN), other) < 2e-3 and start_off(drawn(RUN), other) == 0
    with pytest.raises(InputError, match="drew other noise.*the seed and the noise of the run"):
        check_same(drawn(RUN), other)
    first = replace(RUN.steps[0], latent=RUN.steps[0].latent * np.float32(1.5))
    with pytest.raises(InputError, match="start from different noise"):
        check_same(RUN, replace(RUN, steps=(first, *RUN.steps[1:])))
    broken = replace(first, latent=first.latent * np.nan)
    with pytest.raises(InputError, match="off by nan"):
        check_same(RUN, replace(RUN, steps=(broken, *RUN.steps[1:])))
    assert dice_off(RUN, drawn(RUN)) == 0  # draws that one of them did not record


def test_other_levels_and_shapes_are_found():
    for other in (replace(RUN, steps=RUN.steps[:3]), replace(RUN, steps=())):
        with pytest.raises(InputError, match="let both finish"):
            check_same(RUN, other)
    with pytest.raises(InputError, match="equally many"):
        check_same(replace(RUN, steps=()), replace(RUN, steps=()))
    high = replace(RUN.steps[0], level=traces.schedule().level_at(karras_sigma=1.0))
    with pytest.raises(InputError, match="go through other levels"):
        check_same(RUN, replace(RUN, steps=(high, *RUN.steps[1:])))
    small = replace(RUN.steps[0], latent=RUN.steps[0].latent[:, :3])
    with pytest.raises(InputError, match=r"latents \(4, 6, 8\) and \(4, 3, 8\)"):
        check_same(RUN, replace(RUN, steps=(small, *RUN.steps[1:])))


# ---- everyone who sets runs beside each other ----------------------------------------------------
def left_out(change):
    trace, run = planted()
    honesty.leave_one_out(drawn(trace), lambda prompt: change(drawn(run(prompt))), ["red"])


def dialled(change):
    return dial(drawn(RUN), 2, [4, 8], run=lambda guidance_scale: change(
        drawn(run_at(guidance_scale))))  # fmt: skip


def swept(change):
    runs = runs_over([2, 4], [picture(1, 2, 3)] * 2)
    first, second = map(drawn, runs.traces)
    return sweep(replace(runs, traces=(first, change(second))))


def laddered(change):
    return step_ladder(traces.trace(5), [change(traces.trace(2))])


def ablated(change):
    return ablate(drawn(RUN), lambda name: change(drawn(moved(RUN, 0.1))), ["skip"])


def padded(change):
    runs = iter([lambda run: run, change, change, change, change])
    rows = embedding(np.random.default_rng(0).normal(size=(12, 8)))
    empty = embedding(np.zeros((12, 8)))
    return padding(rows, empty, run=lambda text_embedding: next(runs)(
        drawn(half_and_half(text_embedding))))  # fmt: skip


ALL = (left_out, dialled, swept, laddered, ablated, padded)


@pytest.mark.parametrize("user", ALL)
def test_runs_of_the_same_settings_are_taken_by_all(user):
    user(lambda run: run)


@pytest.mark.parametrize("user", ALL)
@pytest.mark.parametrize("name", ["noise", "final", "model", "prediction_type"])
def test_runs_of_other_settings_are_refused_by_all(user, name):
    with pytest.raises(InputError, match=f"but {name} is"):
        user(lambda run: named(run, **{name: OTHER[name]}))


@pytest.mark.parametrize("user", [left_out, padded])
def test_other_draws_are_refused(user):
    with pytest.raises(InputError, match="drew other noise"):
        user(lambda run: drawn(run, seed=1))


@pytest.mark.parametrize("user", [dialled, swept, ablated])
def test_other_draws_fail_the_check_that_the_title_shows(user):
    assert user(lambda run: run).start.holds
    assert not user(lambda run: drawn(run, seed=1)).start.holds


def test_the_dial_wants_the_prompt_of_the_run_and_the_guidance_that_it_asked_for():
    with pytest.raises(InputError, match="but prompt is 'a red sky scraper' in .* 'a cat'"):
        dialled(lambda run: named(run, prompt="a cat"))
    with pytest.raises(InputError, match="made a run at guidance 4; it must be the one.*hand"):
        dial(RUN, 2, [4, 8], run=lambda guidance_scale: run_at(4.0))


def test_brownian_dice_are_not_sequential_ones(tiny_model):
    """They start from one latent, so that only the settings and the draws can tell."""
    from diffusionlab.generate import generate

    def run(prompt="a red car", noise="sequential"):
        return generate(tiny_model, prompt, seed=3, num_steps=2, sampler="ddpm", progress=False,
                        noise=noise, record={"predictions", "attention"})  # fmt: skip

    whole, other = run(), run(noise="brownian")
    assert start_off(whole, other) == 0 and dice_off(whole, other) > 0.1
    honesty.leave_one_out(whole, run, ["red"])
    with pytest.raises(InputError, match="noise is 'sequential' in the run and 'brownian'"):
        honesty.leave_one_out(whole, lambda prompt: run(prompt, "brownian"), ["red"])
