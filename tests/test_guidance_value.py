"""`Guidance`: a scale, where it holds, and its rescale, through predict, generate and compare."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import diffusionlab as dl
from diffusionlab import Guidance
from diffusionlab.errors import InputError
from diffusionlab.trace import as_guidance

FAST = dict(seed=5, num_steps=4, progress=False)


def test_the_scale_holds_inside_the_interval_only(tiny_model):
    levels = tiny_model.schedule.levels(10)
    found = [Guidance(6, interval=(0.5, 5)).at(level) for level in levels]
    assert found == [6.0 if 0.5 < level.karras_sigma <= 5 else 1.0 for level in levels]
    assert {1.0, 6.0} == set(found) and Guidance(6).at(levels[0]) == 6
    assert as_guidance(3) == Guidance(3.0) and str(Guidance(3, (0.5, 5), 0.7)) == (
        "3 for karras_sigma in 0.5 … 5, rescale 0.7"
    )


def test_outside_the_interval_one_branch_is_run(tiny_model):
    trace = dl.generate(tiny_model, "a red car", guidance_scale=Guidance(6, (0.5, 5)), **FAST)
    for step in trace.steps:
        call = step.predictions[0]
        inside = 0.5 < step.level.karras_sigma <= 5
        assert (call.uncond is not None) == inside
        assert call.guidance_scale == (6 if inside else 1)
    assert trace.settings.guidance == Guidance(6, (0.5, 5))
    plain = dl.generate(tiny_model, "a red car", guidance_scale=1.0, **FAST)
    assert np.array_equal(trace.latents[1], plain.latents[1])  # the first level is outside
    whole = dl.generate(tiny_model, "a red car", guidance_scale=Guidance(6, (0, math.inf)), **FAST)
    usual = dl.generate(tiny_model, "a red car", guidance_scale=6, **FAST)
    assert np.array_equal(whole.latents, usual.latents)


def test_rescale_is_that_of_diffusers(tiny_model):
    module = pytest.importorskip("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
    trace = dl.generate(tiny_model, "a red car", guidance_scale=Guidance(7, rescale=0.7), **FAST)
    for call in trace.predictions:
        plain = call.uncond + 7 * (call.cond - call.uncond)
        wanted = module.rescale_noise_cfg(
            torch.tensor(plain)[None], torch.tensor(call.cond)[None], guidance_rescale=0.7
        )[0]
        np.testing.assert_allclose(call.guided, wanted.numpy(), rtol=1e-5, atol=1e-6)
        assert not np.allclose(call.guided, plain)
    assert trace.settings.guidance_rescale == 0.7 and "rescale 0.7" in trace.settings.summary


def test_full_rescale_has_the_spread_of_the_conditional_output(tiny_model):
    call = dl.generate(
        tiny_model, "a red car", guidance_scale=Guidance(9, rescale=1.0), **FAST
    ).predictions[0]
    assert call.guided.std() == pytest.approx(call.cond.std(), rel=1e-5)


def test_compare_takes_guidance_among_its_scales(tiny_model):
    scales = [1.0, 4.0, Guidance(4, rescale=0.7), Guidance(4, (0.5, 5))]
    runs = dl.compare(tiny_model, "a red car", guidance_scales=scales, noise="sequential", **FAST)
    assert runs.values == ("1.0", "4.0", "4, rescale 0.7", "4 for karras_sigma in 0.5 … 5")
    for scale, trace in zip(scales, runs.traces, strict=True):
        alone = dl.generate(tiny_model, "a red car", guidance_scale=scale, **FAST)
        np.testing.assert_allclose(trace.latents, alone.latents, atol=2e-4)
        assert trace.settings.guidance == as_guidance(scale)


def test_a_saved_run_keeps_its_guidance(tiny_model, tmp_path):
    given = Guidance(4, (0.5, math.inf), 0.7)
    trace = dl.generate(tiny_model, "a red car", guidance_scale=given, **FAST)
    loaded = dl.Trace.load(trace.save(tmp_path / "a.safetensors"))
    assert loaded.settings.guidance == given
    assert np.array_equal(loaded.predictions[2].x0, trace.predictions[2].x0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (dict(scale="4"), "guidance_scale is '4'"),
        (dict(scale=4, rescale=1.1), "rescale is 1.1"),
        (dict(scale=4, rescale=math.nan), "rescale is nan"),
        (dict(scale=4, interval=(5, 0.5)), "interval is"),
        (dict(scale=4, interval=(-1, 2)), "interval is"),
        (dict(scale=4, interval=3), "interval is 3"),
        (dict(scale=4, interval=(1, 2, 3)), "interval is"),
    ],
)
def test_values_that_cannot_be_are_refused(given, told):
    with pytest.raises(InputError, match=told):
        Guidance(**given)
