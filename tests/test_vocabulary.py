"""The vocabulary: every word once, every synonym findable, unknown words answered with help."""

from __future__ import annotations

import pytest

from diffusionlab.errors import InputError
from diffusionlab.vocabulary import AXES, GLOSSARY, define

BINDING = [
    "timestep", "num_steps", "step", "alpha", "sigma", "alpha_bar", "beta", "snr",
    "karras_sigma", "latent", "latents", "noise", "eps", "x0", "v", "cond", "uncond",
    "guidance_scale", "schedule", "sampler", "plan", "tokens", "pieces", "words",
    "text_embedding", "network_calls", "tap", "trace",
]  # fmt: skip


@pytest.mark.parametrize("name", BINDING)
def test_every_word_is_defined_under_its_own_name(name):
    assert define(name).name == name


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("cfg_scale", "guidance_scale"),
        ("CFG scale", "guidance_scale"),
        ("num_inference_steps", "num_steps"),
        ("alphas_cumprod", "alpha_bar"),
        ("sqrt(alphas_cumprod)", "alpha"),
        ("sigma", "sigma"),
        ("sigma in k-diffusion", "karras_sigma"),
        ("pred_original_sample", "x0"),
        ("noise_pred", "eps"),
        ("z", "latent"),
        ("NFE", "network_calls"),
        ("scheduler", "scheduler"),
        ("encoder_hidden_states", "text_embedding"),
        ("hook point", "tap"),
    ],
)
def test_what_others_say_leads_to_our_word(word, name):
    assert define(word).name == name


def test_scheduler_names_all_three():
    assert all(word in define("scheduler").meaning for word in ("schedule", "sampler", "plan"))


def test_no_word_stands_for_two_things():
    names = [name.casefold() for term in GLOSSARY for name in (term.name, *term.synonyms)]
    assert len(names) == len(set(names))


def test_unknown_words_are_answered_with_close_ones_and_the_list():
    with pytest.raises(InputError, match="guidance_scale") as told:
        define("guidence_scale")
    assert "did you mean" in str(told.value) and "karras_sigma" in str(told.value)
    with pytest.raises(InputError, match="text is needed"):
        define(3)


def test_axes_name_the_tensors():
    assert AXES["Latent"] == ("channels", "height / 8", "width / 8")
