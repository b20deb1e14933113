"""Each stage by itself, on the tiny random checkpoint."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import diffusionlab.stages as stages
from diffusionlab.errors import InputError, NumericsError
from diffusionlab.generate import generate
from diffusionlab.inside.interventions import freeze_attention
from diffusionlab.pipeline import load
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import NoiseLevel
from diffusionlab.taps import is_watched, watching
from diffusionlab.trace import Latent, TextEmbedding


@pytest.fixture
def level(tiny_model) -> NoiseLevel:
    return tiny_model.schedule.levels(4)[1]


@pytest.fixture
def texts(tiny_model) -> tuple[TextEmbedding, TextEmbedding]:
    return tuple(
        stages.embed(tiny_model, stages.tokenize(tiny_model, text)) for text in ("a red car", "")
    )


# ---- tokenize --------------------------------------------------------------------------------
def test_tokens_have_start_end_and_padding_up_to_the_context(tiny_model):
    tokens = stages.tokenize(tiny_model, "a red car")
    assert len(tokens.ids) == len(tokens.pieces) == len(tokens.kinds) == tiny_model.context_length
    assert tokens.ids[0] == tiny_model.tokenizer.bos_token_id
    assert tokens.kinds[tokens.kept + 1] == "end"
    assert tokens.words == ("a", "red", "car")


def test_ids_equal_those_of_transformers(tiny_model):
    for prompt in ("a red car", "", "Golden light, on WATER!", "naïve 🚗 x"):
        expected = tiny_model.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=tiny_model.context_length
        )["input_ids"]
        assert list(stages.tokenize(tiny_model, prompt).ids) == expected


def test_white_space_alone_is_the_empty_prompt(tiny_model):
    assert stages.tokenize(tiny_model, " \n\t ").ids == stages.tokenize(tiny_model, "").ids


def test_ten_thousand_words_are_cut_with_one_printed_line(tiny_model, capsys):
    tokens = stages.tokenize(tiny_model, "red " * 9_999 + "car")
    assert tokens.kept == tiny_model.context_length - 2
    assert tokens.kept + tokens.dropped >= 10_000
    assert tokens.ids[-1] == tiny_model.tokenizer.eos_token_id
    printed = capsys.readouterr().err
    assert printed.count("dropped") == 1 and str(tokens.dropped) in printed
    assert "'red red" in printed and len(tokens.prompt) == 4 * 9_999 + 3


def test_invisible_characters_are_told(tiny_model, capsys):
    stages.tokenize(tiny_model, "a re\u200bd car")
    assert "U+200B" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (None, "NoneType"),
        (b"a red car", "bytes"),
        (7, "int"),
        (["a", "b"], "compare(model, prompts=[…])"),
        ([["a"]], "compare(model, prompts=[…])"),
        ("\ud800", "not valid Unicode text"),
    ],
)
def test_what_is_no_prompt_is_refused_before_any_work(tiny_model, prompt, told):
    with pytest.raises(InputError, match="prompt") as refused:
        stages.tokenize(tiny_model, prompt)
    assert told in str(refused.value)


def test_numpy_str_is_a_prompt(tiny_model):
    assert stages.tokenize(tiny_model, np.str_("car")).ids == stages.tokenize(tiny_model, "car").ids


@given(st.text(st.characters(exclude_categories=()), max_size=80))
def test_any_text_is_tokenised_or_refused_by_name(tiny_model, text):
    try:
        tokens = stages.tokenize(tiny_model, text)
    except InputError as refused:
        assert "Unicode" in str(refused)
    else:
        assert len(tokens.ids) == tiny_model.context_length
        assert max(tokens.ids) < len(tiny_model.tokenizer)


# ---- embed -----------------------------------------------------------------------------------
def test_a_row_depends_on_earlier_tokens_only(tiny_model):
    one, other = (
        stages.embed(tiny_model, stages.tokenize(tiny_model, text)).hidden[0]
        for text in ("a red car", "a red boat")
    )
    assert one.shape[0] == tiny_model.context_length
    same = 1 + len(tiny_model.tokenizer("a red")["input_ids"]) - 2
    torch.testing.assert_close(one[:same], other[:same], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one[same], other[same])


# ---- noise -----------------------------------------------------------------------------------
def test_the_start_noise_is_the_seed_s_first_draw_whatever_the_dtype(tiny_model):
    noise = stages.draw_noise(tiny_model, 7)
    generator = torch.Generator().manual_seed(7)
    expected = torch.randn((1, *noise.values.shape), generator=generator)[0]
    assert noise.values.dtype == torch.float32
    assert torch.equal(noise.values.cpu(), expected)


def test_a_model_in_bfloat16_starts_from_the_same_noise_and_answers_in_float32(tiny_folder):
    half = load(tiny_folder, device="cpu", dtype=torch.bfloat16)
    full = load(tiny_folder, device="cpu")
    noises = [stages.draw_noise(model, 7).values for model in (half, full)]
    assert torch.equal(*noises)
    text = stages.embed(half, stages.tokenize(half, "a red car"))
    said = stages.predict(half, noises[0], half.schedule.levels(4)[1], text, text, 1.0)
    assert said.cond.dtype == torch.float32


@pytest.mark.parametrize("size", [0, -8, 7, 511, 640.5, "512", True, 10**6])
def test_sizes_the_vae_cannot_take_are_refused_with_the_nearest(tiny_model, size):
    with pytest.raises(InputError, match=r"width is .*allowed"):
        stages.draw_noise(tiny_model, 0, 32, size)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "a", True])
def test_seeds_outside_the_range_are_refused(tiny_model, seed):
    with pytest.raises(InputError, match="seed"):
        stages.draw_noise(tiny_model, seed)


def test_add_noise_is_alpha_x0_plus_sigma_eps(tiny_model):
    clean, noise = (stages.draw_noise(tiny_model, seed) for seed in (1, 2))
    noisy = stages.add_noise(clean, noise, NoiseLevel(500, 0.6, 0.8))
    torch.testing.assert_close(noisy.values, 0.6 * clean.values + 0.8 * noise.values)
    assert noisy.level.sigma == 0.8
    with pytest.raises(InputError, match="differ in shape"):
        stages.add_noise(clean, noise.values[:, :2], NoiseLevel(500, 0.6, 0.8))


# ---- predict and update ----------------------------------------------------------------------
def test_guidance_one_skips_the_unconditional_pass(tiny_model, level, texts):
    noise = stages.draw_noise(tiny_model, 3)
    alone = stages.predict(tiny_model, noise, level, *texts, 1.0)
    both = stages.predict(tiny_model, noise, level, *texts, 4.0)
    assert alone.uncond is None and both.uncond is not None
    torch.testing.assert_close(alone.guided, both.cond, rtol=1e-4, atol=1e-5)
    expected = both.uncond + 4.0 * (both.cond - both.uncond)
    torch.testing.assert_close(both.guided, expected)


def test_guidance_zero_is_the_unconditional_prediction(tiny_model, level, texts):
    found = stages.predict(tiny_model, stages.draw_noise(tiny_model, 3), level, *texts, 0)
    assert torch.equal(found.guided, found.uncond)
    assert not torch.allclose(found.guided, found.cond)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "4", None, True])
def test_a_guidance_scale_that_is_no_finite_number_is_refused(tiny_model, level, texts, scale):
    with pytest.raises(InputError, match="guidance_scale is .*finite"):
        stages.predict(tiny_model, stages.draw_noise(tiny_model, 3), level, *texts, scale)


@contextmanager
def spoilt(network, name):
    """One weight of a module is NaN inside the block."""
    weight = network.get_submodule(name).weight
    kept = weight.detach().clone()
    try:
        weight.data[0] = float("nan")
        yield
    finally:
        weight.data.copy_(kept)


SPOILT = [
    "conv_in", "time_embedding.linear_1", "down_blocks.0.resnets.0.conv1",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", "mid_block.resnets.0.conv1",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
    "up_blocks.0.attentions.0.transformer_blocks.0.norm2", "up_blocks.1.resnets.1.conv2",
    "conv_out",
]  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
def test_nan_in_a_weight_is_reported_with_the_module_where_it_arises(tiny_model, name):
    with spoilt(tiny_model.unet, name), pytest.raises(NumericsError) as told:
        generate(tiny_model, "a red car", num_steps=2, progress=False)
    wanted = f"in step 0, at timestep 999; first non-finite module: {name};"
    assert wanted in str(told.value) and told.value.trace.steps == ()
    assert not any(part._forward_hooks for part in tiny_model.unet.modules())


@pytest.mark.parametrize("name", ["mid_block.resnets.0.conv1", "conv_out"])
def test_nan_is_named_the_same_inside_an_intervention(tiny_model, name):
    record = {"predictions", "attention", "heads"}
    first = generate(tiny_model, "a red car", num_steps=2, record=record, progress=False)
    with (
        spoilt(tiny_model.unet, name),
        freeze_attention(tiny_model, first),
        pytest.raises(NumericsError, match=f"first non-finite module: {name};"),
    ):
        generate(tiny_model, "a red car", num_steps=2, progress=False)


def test_nan_of_a_watcher_is_told_from_that_of_the_network(tiny_model):
    broken = {"mid_block.output": lambda tap, value: value * float("nan")}
    with (
        watching(tiny_model.unet, broken),
        pytest.raises(NumericsError, match="what a watcher put there: 1 taps .*mid_block.output"),
    ):
        generate(tiny_model, "a red car", num_steps=2, progress=False)
    assert not is_watched(tiny_model.unet)


def test_nan_that_goes_in_is_not_blamed_on_the_network(tiny_model, level, texts):
    noise = stages.draw_noise(tiny_model, 3)
    noise.values[0, 0, 0] = float("nan")
    with pytest.raises(NumericsError, match="the latent that it was given already holds"):
        stages.predict(tiny_model, noise, level, *texts, 4.0)
    with (
        spoilt(tiny_model.text_encoders[0], "encoder.layers.1.mlp.fc1"),
        pytest.raises(NumericsError, match=r"text encoder 0 .* encoder.layers.1.mlp.fc1;"),
    ):
        stages.embed(tiny_model, stages.tokenize(tiny_model, "a red car"))


def test_update_applies_the_planned_numbers(tiny_model, texts):
    schedule = tiny_model.schedule
    step = make_plan("ddim", schedule.levels(4), schedule)[0]
    noise = stages.draw_noise(tiny_model, 3)
    said = stages.predict(tiny_model, noise, step.level, *texts, 4.0)
    made = stages.update(noise, step, [said])
    expected = step.update.a * noise.values + step.update.terms[0].weight * said.x0
    torch.testing.assert_close(made.values, expected)
    assert made.level == step.next_level
    assert isinstance(stages.update(noise.values, step.update, [said]), torch.Tensor)


# ---- pictures --------------------------------------------------------------------------------
def test_decode_makes_a_picture_and_encode_a_latent_of_its_size(tiny_model):
    image = stages.decode(tiny_model, stages.draw_noise(tiny_model, 1, 32, 48))
    assert image.size == (48, 32) and image.mode == "RGB"
    latent = stages.encode(tiny_model, image)
    assert latent.values.shape == (4, 32 // tiny_model.size_factor, 48 // tiny_model.size_factor)
    assert latent.level.sigma == 0


def test_encode_refuses_what_is_no_picture(tiny_model):
    with pytest.raises(InputError, match="PIL image"):
        stages.encode(tiny_model, "http://somewhere/cat.png")
    with pytest.raises(InputError, match="image width is 13"):
        stages.encode(tiny_model, Image.new("RGB", (13, 16)))


# ---- devices ---------------------------------------------------------------------------------
class NoTensorOnTheCPU(torch.overrides.TorchFunctionMode):
    """Fails when a torch call inside returns a tensor on the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type == "cpu":
            raise AssertionError(f"{function} made a tensor on the CPU")
        return result


def on_meta(model):
    """The same model with parameters of no content."""
    from dataclasses import replace

    parts = {name: _meta(getattr(model, name)) for name in ("unet", "vae")}
    return replace(model, text_encoders=tuple(_meta(e) for e in model.text_encoders), **parts)


def _meta(module):
    import copy

    return copy.deepcopy(module).to("meta")


def test_every_stage_makes_its_tensors_on_the_model_s_device(tiny_model, level):
    model = on_meta(tiny_model)
    tokens = stages.tokenize(model, "a red car")
    shape = (tiny_model.latent_channels, 4, 4)
    with NoTensorOnTheCPU():
        text = stages.embed(model, tokens)
        noise = Latent(torch.empty(shape, device="meta"), None, "test")
        noisy = stages.add_noise(noise, noise, level)
        said = stages.predict(model, noisy, level, text, text, 4.0)
        step = make_plan("ddim", tiny_model.schedule.levels(4), tiny_model.schedule)[1]
        made = stages.update(noisy, step, [None, said])
        pixels = stages.decode_pixels(model, made.values)
        back = stages.encode_pixels(model, pixels)
    assert {t.device.type for t in (said.guided, made.values, pixels, back)} == {"meta"}


def test_the_device_check_can_fail():
    with pytest.raises(AssertionError, match="on the CPU"), NoTensorOnTheCPU():
        torch.zeros(3)


def test_one_seed_gives_one_start_noise_on_every_device(accelerator, tiny_folder):
    models = [load(tiny_folder, device=where) for where in ("cpu", accelerator)]
    here, there = (stages.draw_noise(model, 5).values for model in models)
    assert there.device.type == accelerator.type and torch.equal(here, there.cpu())


def test_an_accelerator_makes_the_same_picture_within_a_tolerance(accelerator, tiny_folder):
    runs = dict(prompt="a red car", seed=1, num_steps=4, progress=False)
    here, there, recorded = (
        generate(load(tiny_folder, device=where), record=record, **runs)
        for where, record in (
            ("cpu", ()),
            (accelerator, ()),
            (accelerator, {"predictions", "attention"}),
        )
    )
    assert there.image.tobytes() == recorded.image.tobytes()
    assert np.abs(here.latents - there.latents).max() < 2e-3 * np.abs(here.latents).max()
