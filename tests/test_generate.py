"""`generate` is the stages in their order, records what was asked for, and stops cleanly."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusionlab import stages
from diffusionlab.errors import InputError
from diffusionlab.generate import denoise, generate
from diffusionlab.inside.estimate import estimate
from diffusionlab.models.unet import UNet
from diffusionlab.noise import Sequential
from diffusionlab.samplers import SAMPLERS, make_plan
from diffusionlab.side_by_side import compare
from diffusionlab.taps import find_taps
from diffusionlab.trace import Guidance, Trace

generating = importlib.import_module("diffusionlab.generate")  # dl.generate is the function
FAST = dict(seed=5, num_steps=3, progress=False)


def by_hand(model, prompt, seed, num_steps, sampler, guidance_scale):
    """The same run with nothing but the stage functions."""
    text, uncond = (stages.embed(model, stages.tokenize(model, p)) for p in (prompt, ""))
    levels = model.schedule.levels(num_steps)
    source = Sequential(seed)
    noise = stages.draw_noise(model, source)
    latent, said = levels[0].sigma * noise.values, []
    for step in make_plan(sampler, levels, model.schedule):
        noises = [source(*draw) for draw in step.draws]
        for stage in step.stages:
            point = stages.update(latent, stage.update, said, noises)
            said.append(stages.predict(model, point, stage.level, text, uncond, guidance_scale))
        latent = stages.update(latent, step.update, said, noises)
    return latent, stages.decode(model, latent)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_stage_by_stage_equals_generate_exactly(tiny_model, sampler):
    steps = max(FAST["num_steps"], SAMPLERS[sampler].min_steps)
    run = FAST | {"num_steps": steps}
    trace = generate(tiny_model, "a red car", sampler=sampler, guidance_scale=3.0, **run)
    latent, image = by_hand(tiny_model, "a red car", 5, steps, sampler, 3.0)
    assert np.array_equal(trace.latents[-1], latent.numpy())
    assert image.tobytes() == trace.image.tobytes()


def test_the_trace_holds_what_happened(tiny_model):
    trace = generate(tiny_model, "a red car", sampler="heun", **FAST)
    assert len(trace.steps) == 3 and len(trace.predictions) == 5
    assert trace.latents.shape[0] == 4 and trace.x0s.shape[0] == 3
    assert trace.settings.sampler == {"name": "heun", "options": {}}
    assert trace.karras_sigmas[-1] == 0
    for step in trace.steps:
        said = step.predictions[0]
        rebuilt = said.level.alpha * said.x0 + said.level.sigma * said.eps
        np.testing.assert_allclose(rebuilt, step.latent, rtol=1e-4, atol=1e-4)


def test_the_picture_is_bit_identical_with_recording_on_and_off(tiny_model):
    plain = generate(tiny_model, "a red car", record=(), **FAST)
    everything = generate(
        tiny_model, "a red car",
        record={"predictions", "attention", "self_attention", "blocks", "frames"}, **FAST,
    )  # fmt: skip
    assert plain.image.tobytes() == everything.image.tobytes()
    assert np.array_equal(plain.latents, everything.latents)
    assert not plain.attention and len(everything.frames) == 3
    cross = [k for k in everything.attention if k.endswith("attn2.probabilities")]
    for name in cross:
        maps = everything.attention[name]
        assert maps.shape[0] == 3 and maps.shape[-1] == tiny_model.context_length
        np.testing.assert_allclose(maps.astype(np.float32).sum(-1), 1, rtol=5e-3)
    assert cross and not any(tap.watched for tap in find_taps(tiny_model.unet).values())


def test_other_seeds_and_samplers_give_other_pictures(tiny_model):
    one = generate(tiny_model, "a red car", **FAST)
    other = generate(tiny_model, "a red car", **(FAST | {"seed": 6}))
    again = generate(tiny_model, "a red car", **FAST)
    assert not np.array_equal(one.latents[0], other.latents[0])
    assert np.array_equal(one.latents, again.latents)


def test_the_negative_prompt_is_the_unconditional_branch(tiny_model):
    plain = generate(tiny_model, "a red car", guidance_scale=4, **FAST)
    negative = generate(tiny_model, "a red car", negative_prompt="blue", guidance_scale=4, **FAST)
    assert not np.array_equal(plain.latents[-1], negative.latents[-1])
    off = [
        generate(tiny_model, "a red car", negative_prompt=n, guidance_scale=1, **FAST)
        for n in ("", "blue")
    ]
    assert off[0].image.tobytes() == off[1].image.tobytes()


# ---- a model that is told its guidance -------------------------------------------------------
@pytest.fixture(scope="module")
def told_model(tiny_model):
    """The tiny model with a U-Net that reads the guidance scale, as that of an LCM does."""
    config = replace(tiny_model.unet.config, time_cond_proj_dim=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return replace(tiny_model, unet=UNet(config).eval())


@pytest.mark.parametrize("options", [{"interval": (0.3, 5)}, {"rescale": 0.7}])
def test_what_needs_two_passes_is_refused_where_there_is_one(told_model, options):
    guidance, run = Guidance(8, **options), {k: v for k, v in FAST.items() if k != "progress"}
    plain = generate(told_model, "a red car", guidance_scale=8, **FAST)
    call, text = plain.predictions[0], plain.text_embedding
    for ask in (
        lambda: generate(told_model, "a red car", guidance_scale=guidance, **FAST),
        lambda: compare(told_model, "a red car", guidance_scales=[8, guidance], **run),
        lambda: stages.predict(told_model, call.latent, call.level, text, text, guidance),
        lambda: estimate(told_model, guidance_scale=guidance, rate=1e9),
    ):
        with pytest.raises(InputError, match="guidance is 8.* told its guidance as a number.*=8$"):
            ask()
    assert len(compare(told_model, "a red car", guidance_scales=[1, 8], **run).traces) == 2


def test_a_negative_prompt_that_does_nothing_is_told(told_model, tiny_model, capsys):
    one, other = (
        generate(told_model, "a red car", guidance_scale=8, negative_prompt=negative, **FAST)
        for negative in ("", "blue")
    )
    assert np.array_equal(one.latents, other.latents) and not one.settings.notices
    (line,) = other.settings.notices
    assert line.startswith("the negative prompt does nothing") and line in capsys.readouterr().err
    assert not generate(tiny_model, "a red car", negative_prompt="blue", **FAST).settings.notices


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"num_steps": 0}, "num_steps must be an integer >= 1"),
        ({"num_steps": -1}, "num_steps must be an integer >= 1"),
        ({"num_steps": 2.5}, "num_steps must be an integer >= 1"),
        ({"num_steps": True}, "num_steps must be an integer >= 1"),
        ({"num_steps": 1001}, "1000"),
        ({"num_steps": 10**9}, "1000"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"sampler": "dpm++2m"}, "dpmpp_2m"),
        ({"sampler": "nonsense"}, "euler_ancestral"),
        ({"spacing": "karrass"}, "trailing"),
        ({"height": 20}, "multiples of"),
        ({"seed": -1}, "seed"),
        ({"noise": "brown"}, "brownian"),
        ({"record": "attention"}, "set of names"),
        ({"record": {"no_such_tap*"}}, "no_such_tap"),
        ({"record": {"atention"}}, "did you mean 'attention'"),
        ({"record": {"frames"}}, 'add "predictions"'),
        ({"prompt": ["a", "b"]}, "compare"),
        ({"prompt": "\ud800"}, "Unicode"),
        ({"negative_prompt": None}, "prompt"),
    ],
)
def test_bad_input_is_refused_before_the_network_runs(tiny_model, monkeypatch, changed, told):
    def never(*_, **__):
        raise AssertionError("the network ran")

    monkeypatch.setattr(generating, "predict", never)
    arguments = dict(prompt="a red car", progress=False) | changed
    with pytest.raises(InputError) as refused:
        generate(tiny_model, **arguments)
    assert told in str(refused.value)


def test_a_thousand_steps_leave_finite_levels_and_a_notice_if_some_coincide(tiny_model):
    levels = tiny_model.schedule.levels(1000)
    assert len(levels) >= 1000 and np.isfinite([level.sigma for level in levels]).all()


@pytest.mark.parametrize("at", [0, 2])
def test_ctrl_c_keeps_the_steps_so_far_and_leaves_no_watcher(tiny_model, monkeypatch, capsys, at):
    real, calls = generating.predict, []

    def stopping(*arguments):
        if len(calls) == at:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(generating, "predict", stopping)
    with pytest.raises(KeyboardInterrupt) as stopped:
        generate(tiny_model, "a red car", record={"predictions", "attention"}, **FAST)
    assert isinstance(stopped.value.trace, Trace) and len(stopped.value.trace.steps) == at
    assert f"stopped after {at} of 3 steps" in capsys.readouterr().err
    assert not any(tap.watched for tap in find_taps(tiny_model.unet).values())
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    monkeypatch.setattr(generating, "predict", real)
    fresh = generate(tiny_model, "a red car", **FAST)
    assert len(fresh.steps) == 3


def test_progress_hears_every_step_once_it_is_kept(tiny_model, capsys):
    heard = []
    run = FAST | {"progress": heard.append, "sampler": "heun"}
    trace = generate(tiny_model, "a red car", **run)
    assert [step.index for step in heard] == [0, 1, 2] and not capsys.readouterr().err
    assert all(isinstance(step.latent, torch.Tensor) for step in heard)
    plain = generate(tiny_model, "a red car", **(run | {"progress": False}))
    assert plain.image.tobytes() == trace.image.tobytes()


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupt_raised_by_progress_keeps_the_steps_so_far(tiny_model, at):
    def stop(step):
        if step.index == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        generate(tiny_model, "a red car", **(FAST | {"progress": stop}))
    assert len(stopped.value.trace.steps) == at + 1 and stopped.value.trace.image is None


def test_a_run_is_saved_and_read_back_without_loss(tiny_model, tmp_path):
    trace = generate(tiny_model, "a red car", record={"predictions", "attention"}, **FAST)
    trace.save(tmp_path / "run.safetensors")
    read = Trace.load(tmp_path / "run.safetensors")
    assert np.array_equal(read.latents, trace.latents)
    assert read.settings == trace.settings and read.image.tobytes() == trace.image.tobytes()
    assert read.attention.keys() == trace.attention.keys()


def test_resuming_at_a_step_equals_the_whole_run(tiny_model):
    text, uncond = (stages.embed(tiny_model, stages.tokenize(tiny_model, p)) for p in ("car", ""))
    levels = tiny_model.schedule.levels(5)
    plan = make_plan("dpmpp_2m", levels, tiny_model.schedule)

    def ask(latent, level):
        return stages.predict(tiny_model, latent, level, text, uncond, 3.0)

    start = stages.draw_noise(tiny_model, 1).values
    whole = list(denoise(plan, start, ask, Sequential(1)))
    calls = [said for step in whole[:3] for said in step.predictions]
    rest = list(denoise(plan, whole[2].next_latent, ask, Sequential(1), calls=calls, start=3))
    assert torch.equal(rest[-1].next_latent, whole[-1].next_latent)
    with pytest.raises(InputError):
        next(iter(denoise(plan, start, ask, Sequential(1), start=3)))


def test_a_recorded_run_can_be_asked_again(tiny_model):
    trace = generate(tiny_model, "a red car", guidance_scale=3.0, **FAST)
    step = trace.steps[1]
    again = stages.predict(
        tiny_model, step.latent, step.level, trace.text_embedding, trace.uncond_embedding, 3.0
    )
    assert np.array_equal(again.cond.numpy(), step.predictions[0].cond)
    with pytest.raises(InputError, match="uncond_embedding is None"):
        stages.predict(tiny_model, step.latent, step.level, trace.text_embedding, None, 3.0)


def test_a_run_is_saved_into_a_folder_that_is_not_there_yet(tiny_model, tmp_path):
    trace = generate(tiny_model, "a red car", **FAST)
    assert Trace.load(trace.save(tmp_path / "new" / "run.safetensors")).settings == trace.settings
