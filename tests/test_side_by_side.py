"""`compare`: one start and one set of dice, alone or in one batch, and what an interrupt keeps."""

from __future__ import annotations

import dataclasses
import importlib
from functools import partial

import numpy as np
import pytest
from test_graphs import Rerun

from diffusionlab import graphs
from diffusionlab.analysis.ladder import climb
from diffusionlab.analysis.ledger import noise_ledger
from diffusionlab.errors import InputError
from diffusionlab.generate import generate
from diffusionlab.pipeline import load
from diffusionlab.samplers import ddim
from diffusionlab.side_by_side import compare
from diffusionlab.trace import Comparison, Guidance

generating = importlib.import_module("diffusionlab.generate")
side_by_side = importlib.import_module("diffusionlab.side_by_side")
stages = importlib.import_module("diffusionlab.stages")
FAST = dict(seed=5, num_steps=3, progress=False)


def test_compare_varies_what_is_listed_and_shares_the_rest(tiny_model):
    both = compare(tiny_model, "a red car", samplers=["ddim", ddim(eta=1.0)], **FAST)
    assert both.axis == "sampler" and both.values == ("ddim", "ddim(eta=1.0)")
    assert np.array_equal(both.traces[0].latents[0], both.traces[1].latents[0])
    assert not np.array_equal(both.traces[0].latents[-1], both.traces[1].latents[-1])


def test_spacings_and_negative_prompts_are_axes(tiny_model):
    run = compare(tiny_model, "a red car", spacings=["leading", "trailing"], **FAST)
    assert run.axis == "spacing" and run.values == ("leading", "trailing")
    ratio = [t.latents[0] / t.steps[0].level.sigma for t in run.traces]
    np.testing.assert_allclose(ratio[0], ratio[1], rtol=1e-5)  # one noise, two first levels
    run = compare(tiny_model, "a red car", negative_prompts=["", "blue"], **FAST)
    assert not np.array_equal(run.traces[0].latents[-1], run.traces[1].latents[-1])


def test_noisy_runs_of_different_steps_share_one_brownian_path(tiny_model):
    """On the path the draws over the fine steps add up to the draw over the coarse one."""
    shared = dict(sampler="ddpm", seed=3, progress=False, together=False)
    fine, coarse = compare(tiny_model, "a", steps=[6, 3], **shared).traces

    def walked(trace, steps):
        """W at the end minus W at the start of these steps, on the clock snr."""
        return sum(np.sqrt(step.next_level.snr - step.level.snr) * step.noises[0] for step in steps)

    assert fine.steps[1].next_level.snr == coarse.steps[0].next_level.snr
    step = coarse.steps[1]
    inside = [s for s in fine.steps if step.level.snr <= s.level.snr < step.next_level.snr]
    assert len(inside) == 2
    np.testing.assert_allclose(walked(fine, inside), walked(coarse, [step]), rtol=1e-3, atol=1e-3)
    rolled = compare(tiny_model, "a", steps=[6, 3], noise="sequential", **shared).traces
    assert not np.allclose(walked(rolled[0], [s for s in rolled[0].steps if s.index in (2, 3)]),
                           walked(rolled[1], [rolled[1].steps[1]]), atol=0.1)  # fmt: skip


@pytest.mark.parametrize("noise", ["sequential", "brownian"])
def test_a_run_of_a_comparison_is_the_run_alone(tiny_model, noise):
    both = compare(tiny_model, "a red car", samplers=["ddpm", "heun"], noise=noise,
                   together=False, **FAST)  # fmt: skip
    for sampler, trace in zip(("ddpm", "heun"), both.traces, strict=True):
        alone = generate(tiny_model, "a red car", sampler=sampler, noise=noise, **FAST)
        assert np.array_equal(alone.latents, trace.latents)
        assert trace.settings.noise == noise


def test_runs_together_equal_runs_alone(tiny_model):
    axes = dict(
        prompts=["a red car", "a blue boat", "a red car"],
        samplers=["heun", "ddpm", "dpmpp_2m"],
        guidance_scales=[1.0, 3.0, 4.0],
        steps=[3, 4, 2],
    )
    alone = compare(tiny_model, **axes, seed=2, together=False, progress=False)
    both = compare(tiny_model, **axes, seed=2, together=True, progress=False)
    assert alone.values == both.values and alone.axis == both.axis
    for one, other in zip(alone.traces, both.traces, strict=True):
        assert one.settings == other.settings
        scale = np.abs(one.latents).max()
        np.testing.assert_allclose(other.latents, one.latents, atol=1e-4 * scale)
        assert np.array_equal(other.latents[0], one.latents[0])
        for first, second in zip(one.steps, other.steps, strict=True):
            assert all(map(np.array_equal, first.noises, second.noises))
        assert len(one.predictions) == len(other.predictions)
    assert not np.allclose(both.traces[0].latents[-1], both.traces[2].latents[-1], atol=1e-2)


def key_products(unet) -> tuple[list, int]:
    """A list that grows with each product for the keys of a text, and how many layers make one."""
    calls, layers = [], [part.attn2.to_k for part in unet.modules() if hasattr(part, "attn2")]
    for layer in layers:
        layer.register_forward_hook(lambda *given: calls.append(1))
    return calls, len(layers)


@pytest.mark.parametrize(
    ("axes", "times"),
    [
        (dict(seeds=[1, 2, 3], num_steps=6), 1),
        (dict(steps=[2, 4, 4], samplers=["ddim", "heun", "heun"]), 2),  # the first one ends early
        (dict(seeds=range(17), num_steps=3), 2),  # two calls a step: more rows than one takes
        (dict(steps=[2] * 16 + [3]), 2),  # the last run goes on alone with what it has
        (dict(seeds=[1, 2], guidance_scale=Guidance(4.0, (0.5, 5.0)), num_steps=6), 3),
    ],
)
def test_texts_of_runs_together_are_prepared_once_for_each_set(tiny_folder, axes, times):
    model = load(tiny_folder, device="cpu")
    calls, layers = key_products(model.unet)
    compare(model, "a red car", **axes, together=True, progress=False)
    assert len(calls) == times * layers > 0


def test_texts_prepared_once_change_no_bit(tiny_model, monkeypatch):
    axes = dict(
        prompts=["a red car", "a blue boat", "a red car"],
        samplers=["heun", "ddpm", "dpmpp_2m"],
        guidance_scales=[1.0, Guidance(3.0, (0.5, 5.0)), 4.0],
        steps=[3, 5, 2],
    )
    once = compare(tiny_model, **axes, together=True, progress=False)
    monkeypatch.setattr(side_by_side, "prepare_many", lambda model, asked: None)  # not at all
    each = compare(tiny_model, **axes, together=True, progress=False)
    for ours, theirs in zip(once.traces, each.traces, strict=True):
        assert np.array_equal(ours.latents, theirs.latents)
        for a, b in zip(ours.predictions, theirs.predictions, strict=True):
            assert np.array_equal(a.cond, b.cond)
            assert (a.uncond is None) == (b.uncond is None)


def test_a_graph_of_runs_together_takes_the_text_in_once(tiny_folder, monkeypatch):
    model = load(tiny_folder, device="cpu")
    model = dataclasses.replace(model, unet=graphs.graphed(model.unet, Rerun()))
    loads, real = [], graphs.text_tensors
    monkeypatch.setattr(graphs, "text_tensors", lambda text: loads.append(1) or real(text))
    shared = dict(seeds=[1, 2], together=True, progress=False)
    compare(model, "a red car", num_steps=5, **shared)
    assert len(loads) == 5  # for the key of each call; the graph was made of this text
    loads.clear()
    compare(model, "a blue boat", num_steps=5, **shared)
    assert len(loads) == 5 + 2  # and once from the new text into the graph's own


def test_a_notice_about_a_word_is_told_once_for_runs_together(tiny_model, capsys):
    long = "car " * 200
    compare(tiny_model, long, seeds=[1, 2, 3], num_steps=2, together=True, progress=False)
    assert capsys.readouterr().err.count("dropped") == 1


def test_what_is_recorded_inside_the_network_is_kept_per_run(tiny_model):
    shared = dict(seeds=[1, 2], num_steps=2, record={"predictions", "attention"}, progress=False)
    traces = compare(tiny_model, "a", **shared).traces
    assert all(trace.attention for trace in traces)
    with pytest.raises(InputError, match="together=True was given with a record from inside"):
        compare(tiny_model, "a", together=True, **shared)


@pytest.mark.parametrize("together", [False, True])
def test_ctrl_c_keeps_the_runs_so_far(tiny_model, monkeypatch, capsys, together):
    place = (side_by_side, "predict_many") if together else (generating, "predict")
    real, calls = getattr(*place), []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == (3 if together else 5):
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(*place, stopping)
    with pytest.raises(KeyboardInterrupt) as stopped:
        compare(tiny_model, "a", steps=[2, 4], together=together, progress=False)
    kept = stopped.value.comparison
    assert isinstance(kept, Comparison) and kept.traces[0].image is not None
    assert kept.values[0] == "2" and len(kept.traces[0].steps) == 2
    if together:
        assert len(kept.traces) == 2 and len(kept.traces[1].steps) == 2
        assert kept.traces[1].image is None
    assert "of 2 runs" in capsys.readouterr().err


def test_compare_refuses_lists_that_do_not_fit(tiny_model):
    with pytest.raises(InputError, match="seeds has 2 and|prompts has 3 and"):
        compare(tiny_model, prompts=["a", "b", "c"], seeds=[1, 2])
    with pytest.raises(InputError, match="0 runs"):
        compare(tiny_model, "a", seeds=[])
    with pytest.raises(InputError, match="no list"):
        compare(tiny_model, "a")
    with pytest.raises(InputError, match="colour is not known"):
        compare(tiny_model, "a", seeds=[1], colour="red")
    with pytest.raises(InputError, match="num_steps"):
        compare(tiny_model, "a", seeds=[1, 2], num_steps=0)
    with pytest.raises(InputError, match="different sizes cannot share a start"):
        compare(tiny_model, "a", seeds=[1, 2], height=[64, 128])
    with pytest.raises(InputError, match="write samplers="):
        compare(tiny_model, "a", samplers="ddim")


def test_the_ledger_says_which_noise_each_run_consumed(tiny_model):
    run = compare(tiny_model, "a", samplers=["ddim", "ddpm"], **FAST)
    quiet, noisy = noise_ledger(run)
    assert (quiet.draws, quiet.from_karras_sigma) == (0, None)
    assert noisy.draws == 2 and noisy.shared and noisy.source == "brownian"
    assert noisy.from_karras_sigma == run.traces[1].steps[0].level.karras_sigma
    assert noisy.to_karras_sigma == run.traces[1].steps[1].next_level.karras_sigma
    assert "no draws after the start" in str(quiet) and "2 draws over karras_sigma" in str(noisy)
    own = noise_ledger(compare(tiny_model, "a", seeds=[1, 2], num_steps=2, progress=False))
    assert not any(row.shared for row in own)


def test_a_ladder_sets_step_k_of_n_beside_n_equal_to_k(tiny_model):
    run = partial(generate, tiny_model, "a red car", seed=4, progress=False,
                  record=("predictions", "frames"))  # fmt: skip
    ladder = climb(run, 6, at=[2, 4], decode=partial(stages.decode, tiny_model))
    whole, short = run(num_steps=6), run(num_steps=2)
    first = ladder.rungs[0]
    assert (ladder.num_steps, [r.num_steps for r in ladder.rungs]) == (6, [2, 4])
    assert np.array_equal(first.stopped, whole.latents[2])
    assert np.array_equal(first.finished, short.latents[-1])
    assert first.karras_sigma == whole.steps[1].next_level.karras_sigma > 0
    assert first.stopped_image.tobytes() != first.finished_image.tobytes()
    assert ladder.start.holds
    for wrong in ([], [0], [7], "3", [2.0]):
        with pytest.raises(InputError, match="whole numbers from 1 to 6"):
            climb(run, 6, at=wrong)
