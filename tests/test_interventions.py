"""Interventions: each does what it says, and leaves nothing behind, however its block ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffusionlab as dl
from diffusionlab.errors import InputError
from diffusionlab.inside.interventions import attention_layers, cross_layers
from diffusionlab.plan import current_step
from diffusionlab.taps import is_watched, recording, watching

PROMPT, OTHER = "a red car in the city", "a blue boat on the ocean"
FAST = dict(seed=3, num_steps=4, guidance_scale=3.0, progress=False)
EVERY = {"predictions", "attention", "heads"}


@pytest.fixture(scope="module")
def model(tiny_folder):
    """A model of this file's own whose heads all matter: its output layers do not begin at 0."""
    made = dl.load(tiny_folder, device="cpu")
    torch.manual_seed(0)
    for name, weights in made.unet.named_parameters():
        if name.endswith(("proj_out.weight", "to_out.0.weight", "to_v.weight")):
            torch.nn.init.normal_(weights, std=0.3)
    return made


@pytest.fixture(scope="module")
def base(model):
    return dl.generate(model, PROMPT, record=EVERY, **FAST)


def end(trace) -> np.ndarray:
    return trace.latents[-1]


def text(model, prompt=OTHER):
    return dl.embed(model, dl.tokenize(model, prompt))


def blocks(model, base) -> dict:
    """Every intervention with arguments that change this run."""
    return {
        "zero_tap": lambda: dl.zero_tap(model, "down_blocks.0.skips.0"),
        "zero_heads": lambda: dl.zero_heads(model, "*attn1", [0, 2]),
        "reweight_words": lambda: dl.reweight_words(model, base.tokens, {"red": 6.0}),
        "swap_text": lambda: dl.swap_text(model, text(model), steps=[0, 1]),
        "freeze_attention": lambda: dl.freeze_attention(
            model, dl.generate(model, OTHER, record=EVERY, **FAST)
        ),
    }


NAMES = ["zero_tap", "zero_heads", "reweight_words", "swap_text", "freeze_attention"]


# ---- it acts, and nothing stays -----------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_the_picture_changes_inside_and_not_afterwards(model, base, name):
    with blocks(model, base)[name]():
        changed = dl.generate(model, PROMPT, **FAST)
    again = dl.generate(model, PROMPT, **FAST)
    assert np.abs(end(changed) - end(base)).max() > 1e-3
    assert np.array_equal(end(again), end(base)) and not is_watched(model.unet)
    assert np.array_equal(changed.latents[0], base.latents[0])  # the same start noise


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("name", NAMES)
def test_an_exception_or_ctrl_c_takes_it_away_too(model, base, name, error):
    def stop(tap, value):
        if current_step() == 2:
            raise error("now")

    block = blocks(model, base)[name]()
    with pytest.raises(error), block, watching(model.unet, {"mid_block.output": stop}):
        dl.generate(model, PROMPT, **FAST)
    assert not is_watched(model.unet) and current_step() is None
    assert np.array_equal(end(dl.generate(model, PROMPT, **FAST)), end(base))


def test_blocks_nest_and_the_recorder_sees_what_they_made(model, base):
    with dl.zero_tap(model, "mid_block.output"), dl.zero_heads(model, heads=[1]):
        trace = dl.generate(model, PROMPT, record={"predictions", "mid_block.output"}, **FAST)
    assert not trace.attention["mid_block.output"].any()


# ---- each by what it must do --------------------------------------------------------------------
def test_a_zeroed_head_adds_nothing_and_the_others_all_they_did(model):
    layer = attention_layers(model, "mid_block*attn1")[0]
    part = model.unet.get_submodule(layer)
    x = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = part(x, (4, 4))
        query, (key, value) = part.split(part.to_q(x)), part.keys_values(x)
        value = value.clone()
        value[:, 1] = 0
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        wanted = part.to_out[0](mixed.transpose(1, 2).flatten(2))
        with dl.zero_heads(model, layer, [1]):
            found = part(x, (4, 4))
    assert torch.equal(found, wanted) and not torch.allclose(found, before)


def test_a_zeroed_skip_is_zero_for_both_branches(model):
    name = "down_blocks.1.skips.0"
    with dl.zero_tap(model, name), recording(model.unet, [name]) as seen:
        dl.generate(model, PROMPT, **FAST)
    assert len(seen[name]) == 4 and not torch.stack(seen[name]).any()
    with dl.zero_tap(model, "up_blocks.1.output"):  # all that leads to the end: no prompt is heard
        same = dl.generate(model, PROMPT, **FAST).predictions[0]
    assert np.array_equal(same.cond, same.uncond)


def test_swapping_every_step_is_the_other_prompt_s_run(model, base):
    other = dl.generate(model, OTHER, **FAST)
    with dl.swap_text(model, text(model)):
        swapped = dl.generate(model, PROMPT, **FAST)
    assert np.array_equal(end(swapped), end(other)) and not np.array_equal(end(base), end(other))


def test_prompt_switching_begins_at_its_step(model, base):
    other = dl.generate(model, OTHER, **FAST)
    with dl.swap_text(model, text(model), steps=range(2, 4)):
        switched = dl.generate(model, PROMPT, **FAST)
    assert np.array_equal(switched.latents[:3], base.latents[:3])
    assert not np.allclose(switched.latents[3], base.latents[3])
    assert not np.allclose(end(switched), end(other))


def test_swapping_at_one_layer_touches_that_layer_alone(model, base):
    layer = cross_layers(model, "mid_block*")[0]
    tap = f"{layer}.probabilities"
    with dl.swap_text(model, text(model), layer, steps=[0]):
        trace = dl.generate(model, PROMPT, record=EVERY, **FAST)
    first = next(name for name in base.attention if name.startswith("down"))
    assert np.array_equal(trace.attention[first][0], base.attention[first][0])
    assert not np.array_equal(trace.attention[tap][0], base.attention[tap][0])


def test_a_weight_of_one_changes_nothing_and_of_zero_silences_the_word(model, base):
    with dl.reweight_words(model, base.tokens, {"red": 1.0}):
        same = dl.generate(model, PROMPT, **FAST)
    assert np.array_equal(end(same), end(base))
    names = [f"{layer}.values" for layer in cross_layers(model, "*")]
    with (
        dl.reweight_words(model, base.tokens, {"RED": 0.0}),
        recording(model.unet, names) as seen,
    ):
        dl.generate(model, PROMPT, **FAST)
    places = [i for i, w in enumerate(base.tokens.word_of) if w == base.tokens.words.index("red")]
    for values in seen.values():
        silent = torch.stack(values)[..., places, :]
        assert not silent.any() and torch.stack(values)[..., 1, :].any()


def test_frozen_maps_of_the_run_itself_give_the_run(model, base):
    with dl.freeze_attention(model, base):
        same = dl.generate(model, PROMPT, **FAST)
    scale = np.abs(end(base)).max()
    assert np.abs(end(same) - end(base)).max() < 5e-3 * scale  # the maps are float16
    other = dl.generate(model, OTHER, record=EVERY, **FAST)
    with dl.freeze_attention(model, other):
        changed = dl.generate(model, PROMPT, record=EVERY, **FAST)
    for name, maps in changed.attention.items():
        assert np.abs(maps.astype(float) - other.attention[name]).max() < 1e-3


def test_head_means_serve_every_head(model):
    record = {"predictions", "attention"}
    other = dl.generate(model, OTHER, record=record, **FAST)
    with dl.freeze_attention(model, other, "mid_block*"):
        changed = dl.generate(model, PROMPT, record=record, **FAST)
    name = next(name for name in other.attention if name.startswith("mid_block"))
    assert np.abs(changed.attention[name].astype(float) - other.attention[name]).max() < 1e-3


# ---- compare ------------------------------------------------------------------------------------
def test_compare_runs_one_by_one_where_the_network_is_watched(model, base):
    with dl.zero_tap(model, "down_blocks.0.skips.0"):
        runs = dl.compare(model, PROMPT, seeds=[3, 4], noise="sequential",
                          num_steps=4, guidance_scale=3.0, progress=False)  # fmt: skip
        alone = dl.generate(model, PROMPT, **FAST)
        with pytest.raises(InputError, match="together=True"):
            dl.compare(model, PROMPT, seeds=[3, 4], together=True)
    assert np.array_equal(end(runs.traces[0]), end(alone))


# ---- bad input ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("block", "told"),
    [
        (lambda m, b: dl.zero_tap(m, "down_blocks.7.skips.0"), "matches none"),
        (lambda m, b: dl.zero_tap(m, "*"), "use zero_heads for attention"),
        (lambda m, b: dl.zero_heads(m, "*attn3"), "selects none of 8 attention layers"),
        (lambda m, b: dl.zero_heads(m, heads=[4]), "has 4; 0 to 3 are allowed"),
        (lambda m, b: dl.zero_heads(m, heads=[]), "heads is .*whole numbers"),
        (lambda m, b: dl.zero_heads(m, heads="12"), "heads is .*whole numbers"),
        (lambda m, b: dl.zero_tap(m, "skip", steps=[-1]), "steps is .*whole numbers"),
        (lambda m, b: dl.reweight_words(m, b.tokens, {"dog": 2}), "its words are a, red, car"),
        (lambda m, b: dl.reweight_words(m, b.tokens, {"red": "2"}), "weight of 'red' is"),
        (lambda m, b: dl.reweight_words(m, b.tokens, {}), "weights is"),
        (lambda m, b: dl.swap_text(m, "a boat"), "text_embedding is 'a boat'"),
        (lambda m, b: dl.swap_text(m, b.text_embedding, "*attn1"), "no cross-attention"),
        (lambda m, b: dl.freeze_attention(m, dl.generate(m, PROMPT, **FAST)), "record the earlier"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_the_block_begins(model, base, block, told):
    with pytest.raises(InputError, match=told), block(model, base):
        pass
    assert not is_watched(model.unet)


def test_more_calls_than_were_recorded_are_refused(model, base):
    with pytest.raises(InputError, match="call 4 of"), dl.freeze_attention(model, base):
        dl.generate(model, PROMPT, **FAST | {"num_steps": 5})


def test_steps_mean_nothing_outside_a_run(model, base):
    with (
        pytest.raises(InputError, match="belongs to no step"),
        dl.zero_tap(model, "skip", steps=[0]),
    ):
        dl.predict(model, base.latents[0], base.steps[0].level, text(model), None, 1.0)


# ---- which step is running ----------------------------------------------------------------------
def test_the_current_step_counts_calls_of_one_step_together(model):
    seen = []
    look = {"mid_block.output": lambda name, value: seen.append(current_step())}
    with watching(model.unet, look):
        dl.generate(model, PROMPT, sampler="heun", **FAST | {"num_steps": 3})
    assert seen == [0, 0, 1, 1, 2] and current_step() is None


# ---- a text embedding of one's own --------------------------------------------------------------
def test_a_given_text_embedding_takes_the_place_of_the_prompt_s(model):
    other = dl.generate(model, OTHER, **FAST)
    given = dl.generate(model, PROMPT, text_embedding=other.text_embedding, **FAST)
    assert np.array_equal(end(given), end(other))
    assert "not made from the prompt" in given.settings.notices[0]
    assert np.array_equal(given.text_embedding.hidden[0], other.text_embedding.hidden[0])


@pytest.mark.parametrize("change", [lambda h: h[:-1], lambda h: h[:, :-1], lambda h: h * np.nan])
def test_a_text_embedding_of_another_shape_is_refused(model, base, change):
    from dataclasses import replace

    wrong = replace(base.text_embedding, hidden=(change(base.text_embedding.hidden[0]),))
    with pytest.raises(InputError, match=r"text_embedding holds .*\(32, 32\) finite numbers"):
        dl.generate(model, PROMPT, text_embedding=wrong, **FAST)
