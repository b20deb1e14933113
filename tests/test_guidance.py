"""Guidance in numbers: known answers by hand, and the dial against the network asked again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import traces
from PIL import Image

from diffusionlab.analysis.guidance import (
    call_at,
    degrees,
    dial,
    guidance_curves,
    recombine,
    recombined,
)
from diffusionlab.analysis.guidance_sweep import clipped, saturation, sweep
from diffusionlab.errors import InputError
from diffusionlab.schedule import NoiseLevel
from diffusionlab.trace import Comparison, Guidance, Prediction, Trace
from diffusionlab.views.dial_data import dial_data, difference_data

PROMPT = "a red car in the city at night"


def run_at(guidance_scale=4.0, num_steps: int = 5, **changes) -> Trace:
    """`traces.trace` as it goes at another guidance: the same network, the same start, DDIM.

    The network says eps − push + g/4 · push at any point, where eps is the truth at that point.
    """
    base = traces.trace(num_steps)
    guidance = guidance_scale if isinstance(guidance_scale, Guidance) else Guidance(guidance_scale)
    x0, push = (
        base.steps[-1].next_latent,
        4 * (base.predictions[0].cond - base.predictions[0].uncond),
    )
    latent, steps = base.steps[0].latent, []
    for step in base.steps:
        eps = (latent - step.level.alpha * x0) / step.level.sigma
        scale = guidance.at(step.level)
        call = Prediction(step.level, latent, eps - 0.75 * push, eps - push if scale != 1 else None,
                          scale, "eps", None, guidance.rescale)  # fmt: skip
        following = step.update.a * latent + step.update.terms[0].weight * call.x0
        steps.append(replace(step, latent=latent, predictions=(call,), next_latent=following))
        latent = following
    settings = replace(
        base.settings, guidance_scale=guidance.scale, guidance_interval=guidance.interval,
        guidance_rescale=guidance.rescale,
    )  # fmt: skip
    return replace(base, settings=settings, steps=tuple(steps), **changes)


def by_hand() -> Prediction:
    """eps of one number each: cond (3, 4), uncond (3, 0) at alpha 0.6, sigma 0.8."""
    level = NoiseLevel(500.0, 0.6, 0.8)
    at = np.array([[[6.0, 6.0]]])
    return Prediction(level, at, np.array([[[3.0, 4.0]]]), np.array([[[3.0, 0.0]]]), 2.0, "eps")


def one_step(call: Prediction) -> Trace:
    """A run of one step whose next latent is the call's x0."""
    base = traces.trace(1)
    step = replace(base.steps[0], level=call.level, latent=call.latent, predictions=(call,))
    ends = step.update.a * call.latent + step.update.terms[0].weight * call.x0
    return replace(base, steps=(replace(step, next_latent=ends),))


# ---- curves ------------------------------------------------------------------------------------
def test_curves_by_hand():
    found = guidance_curves(one_step(by_hand()))
    assert found.ratios == pytest.approx([4 / 5], rel=1e-6)
    assert found.apart == pytest.approx([math.degrees(math.atan2(4, 3))], rel=1e-6)
    turned = math.degrees(math.atan2(8, 3) - math.atan2(4, 3))  # guided is (3, 8)
    assert found.turned == pytest.approx([turned], rel=1e-6)
    # x0 = (x − 0.8 eps) / 0.6: cond (6, 14/3), difference (0, −16/3)
    assert found.x0_ratios == pytest.approx([(16 / 3) / math.hypot(6, 14 / 3)], rel=1e-6)
    assert found.scales.tolist() == [2.0] and found.check.holds


def test_small_angles_keep_their_digits():
    assert degrees(np.array([1.0, 0.0]), np.array([1.0, 1e-9])) == pytest.approx(
        math.degrees(1e-9), rel=1e-6
    )
    assert degrees(np.zeros(2), np.ones(2)) == 0.0
    assert degrees(np.array([1.0, 0]), np.array([-3.0, 0])) == pytest.approx(180)


def test_only_guided_steps_are_in_the_curves():
    run = run_at(Guidance(4.0, interval=(0.5, 6.0)))
    found = guidance_curves(run)
    inside = [i for i, s in enumerate(run.steps) if 0.5 < s.level.karras_sigma <= 6.0]
    assert list(found.steps) == inside and 0 < len(inside) < 5 == found.num_steps
    assert len(found.ratios) == len(found.turned) == len(inside)


def test_branches_that_changed_places_are_found():
    run = traces.trace(5)
    assert recombined(run).holds and guidance_curves(run).check.holds
    call = run.steps[2].predictions[0]
    swapped = replace(call, cond=call.uncond, uncond=call.cond)
    steps = list(run.steps)
    steps[2] = replace(steps[2], predictions=(swapped,))
    assert not recombined(replace(run, steps=tuple(steps))).holds


def test_a_nan_fails_the_check_even_beside_a_larger_number():
    run = traces.trace(3)
    call = run.steps[1].predictions[0]
    bad = replace(run.steps[1], predictions=(replace(call, cond=call.cond * np.nan),))
    broken = replace(run, steps=(run.steps[0], bad, run.steps[2]))
    assert not recombined(broken).holds and np.isnan(guidance_curves(broken).ratios[1])


# ---- recombining -------------------------------------------------------------------------------
def test_recombining_by_hand():
    call = by_hand()
    assert recombine(call, 3).eps.ravel() == pytest.approx([3.0, 12.0], rel=1e-12)
    assert recombine(call, 1).eps is call.cond
    assert recombine(call, 0).eps.ravel() == pytest.approx([3.0, 0.0], rel=1e-12)
    assert recombine(call, Guidance(3, interval=(2.0, 9.0))).eps is call.cond  # 4/3 is outside
    # φ = 0.5: std(cond) = 1/2, std(guided) = 9/2, so the factor is 1/2 · 1/9 + 1/2
    rescaled = recombine(call, Guidance(3, rescale=0.5)).eps.ravel()
    assert rescaled == pytest.approx(np.array([3.0, 12.0]) * (0.5 / 9 + 0.5), rel=1e-12)


GUIDANCES = (0.0, 1.0, 2.5, 8.0, Guidance(7.0, rescale=0.7), Guidance(6.0, interval=(0.5, 20.0)),
             Guidance(6.0, interval=(0.0, 0.1), rescale=0.3))  # fmt: skip


def _off_from_the_network(model, run: Trace, step: int) -> float:
    """The largest difference between the dial and `predict` at each guidance, of x0's largest."""
    import torch

    from diffusionlab.stages import embed, predict, tokenize

    call = call_at(run, step)
    texts = [embed(model, tokenize(model, text)) for text in (run.settings.prompt, "")]
    off = []
    for stop in dial(run, step, GUIDANCES).stops:
        latent = torch.as_tensor(np.array(call.latent))
        with torch.inference_mode():
            fresh = predict(model, latent, call.level, *texts, stop.guidance)
        fresh = fresh.x0.float().cpu().numpy()
        off.append(np.abs(stop.x0 - fresh).max() / np.abs(fresh).max())
    return max(off)


def test_the_dial_is_the_network_asked_again(tiny_model):
    from diffusionlab.generate import generate

    run = generate(tiny_model, PROMPT, num_steps=3, guidance_scale=3.0, seed=2, progress=False)
    for step in range(3):
        assert _off_from_the_network(tiny_model, run, step) < 1e-5
    call = run.steps[1].predictions[0]
    swapped = replace(call, cond=call.uncond, uncond=call.cond)
    steps = (run.steps[0], replace(run.steps[1], predictions=(swapped,)), run.steps[2])
    assert _off_from_the_network(tiny_model, replace(run, steps=steps), 1) > 1e-3


def test_the_dial_is_toyland_asked_again():
    from diffusionlab.generate import generate
    from diffusionlab.pipeline import load

    model = load()
    run = generate(model, PROMPT, num_steps=4, seed=1, progress=False)
    assert _off_from_the_network(model, run, 1) < 1e-5


def test_the_dial_on_a_whole_run_finds_it_again(tiny_model):
    from diffusionlab.generate import generate

    def run(**given):
        return generate(tiny_model, PROMPT, num_steps=3, seed=2, progress=False, **given)

    found = dial(run(guidance_scale=4.0), 0, [1, 4, Guidance(8, rescale=0.5)], run=run)
    assert found.replayed.holds and found.start.holds
    own = found.stops[1]
    assert own.turned == own.drifted == own.moved == 0.0
    # in the first step all runs stand at one point, so a whole run holds what the dial says
    assert all(stop.drifted < 1e-5 for stop in found.stops) and found.stops[2].moved > 1e-4


# ---- the dial on a known run -------------------------------------------------------------------
def test_the_dial_by_hand():
    found = dial(one_step(by_hand()), 0, [0, 2, 3])
    # x0 = (6 − 0.8 eps) / 0.6 of eps (3, 0), (3, 8) and (3, 12)
    for stop, wanted in zip(found.stops, ([6, 10], [6, -2 / 3], [6, -6]), strict=True):
        assert stop.x0.ravel() == pytest.approx(wanted, rel=1e-6)
    own = math.hypot(6, 2 / 3)
    assert [s.turned for s in found.stops] == pytest.approx(
        [(32 / 3) / own, 0, (16 / 3) / own], rel=1e-6
    )
    assert found.start is None and found.stops[0].rerun is None and found.replayed.holds


def test_a_step_alone_and_a_whole_run_are_told_apart():
    asked = []

    def run(guidance_scale):
        asked.append(guidance_scale)
        return run_at(guidance_scale)

    found = dial(traces.trace(5), 3, [1, 4, 8], run=run, decode=lambda x: x.mean())
    assert asked == [1.0, 4.0, 8.0] and found.start.holds and found.own == Guidance(4.0)
    low, own, high = found.stops
    assert own.turned < 1e-4 and own.drifted < 1e-4 and own.moved < 1e-4
    assert low.turned == pytest.approx(0.75 * high.turned, rel=1e-3)  # both linear in g − 4
    # this network pulls alike wherever it is asked, so a whole run holds what the dial says, and
    # its end is off by what the last step's pull is worth
    assert high.drifted < 1e-5 and low.drifted < 1e-5
    last, x0 = traces.trace(5).steps[4], traces.trace(5).steps[4].next_latent.astype(np.float64)
    push = 4 * (last.predictions[0].cond - last.predictions[0].uncond)
    pulled = last.level.karras_sigma * np.linalg.norm(push) / np.linalg.norm(x0)
    assert high.moved == pytest.approx(pulled, rel=1e-4)
    again = run_at(8)
    assert np.array_equal(high.rerun, again.steps[3].predictions[0].x0.astype(np.float64))
    assert np.array_equal(high.end, again.steps[-1].next_latent.astype(np.float64))
    assert set(high.images) == {"x0", "rerun", "end"}
    assert high.images["end"] == high.end.astype(np.float32).mean()


def test_what_the_earlier_steps_did_is_the_drift():
    def run(guidance_scale):
        other = run_at(guidance_scale)
        call = other.steps[3].predictions[0]
        told = replace(call, cond=call.cond + 0.5, uncond=call.uncond + 0.5)
        changed = replace(other.steps[3], predictions=(told,))
        return replace(other, steps=(*other.steps[:3], changed, other.steps[4]))

    found = dial(traces.trace(5), 3, [4, 8], run=run)
    for stop in found.stops:
        wanted = 0.5 * found.level.karras_sigma / np.sqrt(np.mean(stop.x0**2))
        assert stop.drifted == pytest.approx(wanted, rel=1e-4)


def test_whole_runs_from_another_noise_fail_the_check():
    def run(guidance_scale):
        other = run_at(guidance_scale)
        first = replace(other.steps[0], latent=other.steps[0].latent + 0.1)
        return replace(other, steps=(first, *other.steps[1:]))

    assert not dial(traces.trace(5), 2, [4], run=run).start.holds


def test_a_run_that_was_told_its_guidance_is_not_sent_to_another_scale():
    """Scale 8, no interval, one pass: what a latent consistency model leaves in the record."""
    plain = run_at(1.0)
    told = replace(plain, settings=replace(plain.settings, guidance_scale=8.0))
    for call in (lambda: dial(told, 0), lambda: guidance_curves(told)):
        with pytest.raises(InputError, match="guidance.* is 8, but this model is told") as found:
            call()
        assert "not distilled this way" in str(found.value)
        assert "other than 1" not in str(found.value)
    reason = difference_data(told, [0])["reasons"][0]
    assert reason == dial_data(told, [0])["missing"] and "has guidance 8, but this model" in reason
    assert "was not run" in difference_data(plain, [0])["reasons"][0]


def test_errors_say_what_to_do():
    run = traces.trace(5)
    for step in (5, -1, True, 2.0, "2"):
        with pytest.raises(InputError, match="steps 0 to 4: take one"):
            dial(run, step)
    plain = run_at(1.0)
    for call in (lambda: dial(plain, 0), lambda: guidance_curves(plain)):
        with pytest.raises(InputError, match="without its unconditional pass.*other than 1"):
            call()
    outside = run_at(Guidance(4.0, interval=(0.5, 6.0)))
    with pytest.raises(InputError, match="choose a step inside the interval"):
        dial(outside, 0)
    for scales in ((), [1] * 10, "48", 4.0):
        with pytest.raises(InputError, match="1 to 9 guidance scales"):
            dial(run, 1, scales)
    with pytest.raises(InputError, match="guidance_scale is inf"):
        dial(run, 1, [math.inf])
    with pytest.raises(InputError, match="num_steps is 5 in the run and 4 in the whole run at 4"):
        dial(run, 1, [4], run=lambda guidance_scale: run_at(guidance_scale, num_steps=4))
    bare = replace(run, steps=tuple(replace(s, predictions=()) for s in run.steps))
    with pytest.raises(InputError, match='record={"predictions"}'):
        guidance_curves(bare)
    with pytest.raises(InputError, match="has no step"):
        guidance_curves(replace(run, steps=()))


# ---- the sweep ---------------------------------------------------------------------------------
def test_saturation_and_clipping_by_hand():
    red, grey, black, half = [255, 0, 0], [90, 90, 90], [0, 0, 0], [200, 100, 150]
    array = np.array([[red, grey], [black, half]], np.uint8)
    assert saturation(array) == pytest.approx((1 + 0 + 0 + 0.5) / 4, rel=1e-12)
    assert clipped(array) == pytest.approx(6 / 12, rel=1e-12)


def picture(*colour: int) -> Image.Image:
    return Image.new("RGB", (64, 48), colour)


def runs_over(scales, images, seeds=None) -> Comparison:
    made = [run_at(g, image=image) for g, image in zip(scales, images, strict=True)]
    if seeds:
        made = [replace(t, settings=replace(t.settings, seed=s))
                for t, s in zip(made, seeds, strict=True)]  # fmt: skip
    return Comparison("guidance_scale", tuple(str(g) for g in scales), tuple(made))


def test_a_sweep_measures_each_scale():
    images = [picture(100, 100, 100), picture(200, 100, 100), picture(255, 0, 0)]
    comparison = runs_over([1, 4, Guidance(8, rescale=0.5)], images)
    found = sweep(comparison, lambda image: image.getpixel((0, 0))[0] / 255)
    assert [p.saturation for p in found.points] == pytest.approx([0, 0.5, 1.0])
    assert [p.clipped for p in found.points] == pytest.approx([0, 0, 1.0])
    assert [p.adherence for p in found.points] == pytest.approx([100 / 255, 200 / 255, 1.0])
    assert found.points[0].ratio is None and found.points[1].ratio == pytest.approx(
        guidance_curves(traces.trace(5)).ratios.mean(), rel=1e-4
    )
    last = comparison.traces[1].steps[-1].predictions[0].x0.astype(np.float64)
    assert found.points[1].spread == pytest.approx(last.std(), rel=1e-12)
    assert found.start.holds and found.points[2].guidance.rescale == 0.5
    assert sweep(comparison).points[0].adherence is None


def test_a_sweep_takes_the_mean_over_seeds():
    images = [picture(200, 100, 100), picture(100, 100, 100)] * 2
    found = sweep(runs_over([2, 2, 4, 4], images, seeds=[1, 2, 1, 2]))
    assert [p.count for p in found.points] == [2, 2]
    assert [p.saturation for p in found.points] == pytest.approx([0.25, 0.25])


def test_runs_from_several_noises_fail_the_sweeps_check():
    comparison = runs_over([2, 4], [picture(1, 2, 3)] * 2)
    other = comparison.traces[1]
    first = replace(other.steps[0], latent=other.steps[0].latent * 1.5)
    moved = replace(other, steps=(first, *other.steps[1:]))
    assert not sweep(replace(comparison, traces=(comparison.traces[0], moved))).start.holds


def test_a_sweep_refuses_what_cannot_be_compared():
    grey = picture(9, 9, 9)
    with pytest.raises(InputError, match="at least 2 are needed"):
        sweep(runs_over([4, 4], [grey] * 2))
    with pytest.raises(InputError, match="has no image"):
        sweep(runs_over([2, 4], [grey, None]))
    with pytest.raises(InputError, match="seed is 1 in the run and 2 in the one at guidance 4"):
        sweep(runs_over([2, 4], [grey] * 2, seeds=[1, 2]))
    with pytest.raises(InputError, match="1 runs at guidance 2 and 2 at 4 were given; equally"):
        sweep(runs_over([2, 4, 4], [grey] * 3))
