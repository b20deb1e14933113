"""The text encoder's layers and the image tower, against transformers on the same weights."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from original_layout import pipeline
from PIL import Image

import diffusionlab as dl
from diffusionlab import plots
from diffusionlab.analysis.padding import padding
from diffusionlab.analysis.text_edits import blend, replace_word
from diffusionlab.analysis.text_layers import layer_paths
from diffusionlab.errors import CheckpointError, InputError, NumericsError
from diffusionlab.inside.merges import merge_steps
from diffusionlab.inside.text import embed_images, embed_layers
from diffusionlab.toyland import checkpoint

PROMPT = "a red car in the city at night"


@pytest.fixture(scope="module")
def toyland():
    return dl.load(device="cpu")


# ---- merges ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["tiny_model", "toyland"])
def test_the_merges_of_a_word_end_at_the_tokenizers_own_pieces(request, name):
    model = request.getfixturevalue(name)
    for word in ("cyberpunk", "Penguin", "banana", "café", "🐧", "a", "aaaaaa", "skyscraper", "4"):
        told = model.tokenizer(word, add_special_tokens=False).encodings[0].tokens
        found = merge_steps(model, word)
        assert found.pieces == tuple(piece.replace("</w>", " ") for piece in told), word
        lengths = [len(found.letters), *(len(step.pieces) for step in found.steps)]
        assert lengths == sorted(set(lengths), reverse=True)  # every merge joins something
        assert {"".join(step.pieces) for step in found.steps} <= {"".join(found.letters)}


def test_merges_are_first_come_first_served(toyland):
    found = merge_steps(toyland, "cyberpunk")
    assert found.letters == (*"cyberpun", "k ") and found.unit == "letters"
    assert found.steps[0].left + found.steps[0].right == "er" and found.pieces == ("cyber", "punk ")
    told = repr(found)
    assert told.startswith("Merges of 'cyberpunk': 9 letters, 2 pieces") and "merge 17" in told
    assert f"no other of the {found.known} merges fits" in told
    lines = (checkpoint() / "tokenizer" / "merges.txt").read_text(encoding="utf-8").split("\n")[1:]
    listed = {tuple(line.split()): place for place, line in enumerate(lines, 1) if line}
    assert len(listed) == found.known and listed["e", "r"] == found.steps[0].place
    assert merge_steps(toyland, "café").unit == "bytes"


@pytest.mark.parametrize("word", ["", " ", "two words", "it's", 3, None])
def test_merges_are_asked_of_one_word(toyland, word):
    with pytest.raises(InputError, match="one word is allowed"):
        merge_steps(toyland, word)


# ---- the text encoder ------------------------------------------------------------------------
def state_of(model) -> list:
    """Weights by value, and everything hooked into the text encoder."""
    encoder = model.text_encoders[0]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in encoder.modules()]
    weights = [tensor.clone() for tensor in encoder.state_dict().values()]
    return [weights, hooks, encoder.config._attn_implementation, encoder.training]


def same_state(a: list, b: list) -> bool:
    return all(map(torch.equal, a[0], b[0])) and a[1:] == b[1:]


@pytest.mark.parametrize("name", ["tiny_model", "toyland"])
def test_layers_are_those_of_transformers_with_its_plain_attention(request, name):
    model = request.getfixturevalue(name)
    tokens = dl.tokenize(model, PROMPT)
    before, made = state_of(model), dl.embed(model, tokens)
    found = embed_layers(model, tokens)
    assert same_state(before, state_of(model))
    assert np.array_equal(found.final, made.hidden[0].numpy()) and found.tokens is tokens
    encoder = model.text_encoders[0]
    given = encoder.config._attn_implementation
    try:
        encoder.set_attn_implementation("eager")
        with torch.inference_mode():
            ids = torch.tensor([tokens.ids])
            theirs = encoder(input_ids=ids, output_attentions=True, output_hidden_states=True)
    finally:
        encoder.set_attn_implementation(given)
    attention = torch.stack(theirs.attentions)[:, 0].numpy()
    assert found.attention.shape == attention.shape and found.attention.dtype == np.float32
    assert np.abs(found.attention - attention).max() < 1e-5
    hidden = torch.stack(theirs.hidden_states)[:, 0].numpy()
    assert found.hidden.shape == hidden.shape
    assert np.abs(found.hidden[:-1] - hidden[:-1]).max() < 1e-4 * np.abs(hidden).max()


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    """A reduced SDXL: two text encoders, each with a padding of its own."""
    place = tmp_path_factory.mktemp("sdxl") / "model"
    pipeline("SDXL").save_pretrained(place)
    return dl.load(place, device="cpu")


@pytest.mark.parametrize("encoder", [0, 1])
def test_the_layers_of_both_encoders_of_sdxl_end_where_embed_does(sdxl, encoder):
    tokens = dl.tokenize(sdxl, "a red car")
    assert sdxl.pad_ids[0] != sdxl.pad_ids[1] and "pad" in tokens.kinds
    made, found = dl.embed(sdxl, tokens), embed_layers(sdxl, tokens, encoder)
    assert np.array_equal(found.final, made.hidden[encoder].numpy())
    assert np.array_equal(found.final, found.hidden[-2]) and len(found.hidden) == 4
    assert layer_paths(found).closing.holds
    assert (found.encoder, found.encoders) == (encoder, 2) and found.attention.shape[0] == 3
    figure, name = plots.plot_text_layers(found), ("first", "second")[encoder]
    assert figure.axes[0].get_title("left") == (
        f"each token through the 3 layers of the {name} of 2 text encoders; "
        "the U-Net reads 2 (framed)"
    )  # and no check failed: nothing closes the rows that SDXL reads
    assert f"3 layers of the {name} of 2 text encoders: the median" in figure.alt
    assert figure.alt.endswith("The U-Net reads layer 2.")
    lengths, cosines, paths = figure.axes[0].child_axes[:3]
    assert [frame.get_x() for panel in (lengths, cosines) for frame in panel.patches] == [1.5, 1.5]
    large = [line.get_xydata() for line in paths.get_lines() if len(line.get_xydata()) == 1]
    assert np.array_equal(np.concatenate(large), layer_paths(found).points[2])


def test_the_layers_of_one_encoder_do_not_name_it(toyland, tiny_model):
    for model in (toyland, tiny_model):
        figure = plots.plot_text_layers(embed_layers(model, dl.tokenize(model, PROMPT)))
        title = figure.axes[0].get_title("left")
        last = model.text_encoders[0].config.num_hidden_layers
        assert title == (
            f"each token through the {last} layers of the text encoder; "
            f"the U-Net reads {last} (framed)"
        )
        assert "layers of the text encoder: the median length goes" in figure.alt


def test_what_embed_refuses_has_no_layers_either(tiny_model):
    spoilt = copy.deepcopy(tiny_model.text_encoders[0])
    getattr(spoilt, "text_model", spoilt).final_layer_norm.weight.fill_(torch.nan)
    model, tokens = replace(tiny_model, text_encoders=(spoilt,)), dl.tokenize(tiny_model, PROMPT)
    hooks = state_of(model)[1]
    with pytest.raises(NumericsError, match="final_layer_norm"):
        embed_layers(model, tokens)
    with pytest.raises(NumericsError, match="final_layer_norm"):
        dl.embed(model, tokens)
    assert state_of(model)[1] == hooks


@pytest.mark.parametrize("name", ["toyland", "sdxl"])
def test_every_point_of_the_paths_lies_inside_the_panel(request, name):
    model = request.getfixturevalue(name)
    for prompt in (PROMPT, "a red car", "a"):
        record = embed_layers(model, dl.tokenize(model, prompt))
        panel = plots.plot_text_layers(record).axes[0].child_axes[2]
        (left, right), (low, high) = panel.get_xlim(), panel.get_ylim()
        x, y = np.moveaxis(layer_paths(record).points, -1, 0)
        inside = (left <= x) & (x <= right) & (low <= y) & (y <= high)
        assert inside.all(), (prompt, inside.sum(axis=1))


def test_layers_pass_their_own_checks_and_a_spoilt_one_does_not(tiny_model):
    from diffusionlab.analysis.text_layers import text_attention

    found = embed_layers(tiny_model, dl.tokenize(tiny_model, PROMPT))
    assert layer_paths(found).closing.holds
    checked = text_attention(found)
    assert checked.sums.holds and checked.causal.holds and checked.causal.relative == 0
    early = replace(found, hidden=found.hidden[:-1])
    assert not layer_paths(early).closing.holds


def test_a_row_depends_on_earlier_tokens_only(tiny_model):
    night, day = (
        embed_layers(tiny_model, dl.tokenize(tiny_model, f"a red car in the city at {when}"))
        for when in ("night", "day")
    )
    shared = 1 + sum(a == b for a, b in zip(night.tokens.words, day.tokens.words, strict=True))
    assert night.tokens.word_of[shared] == 7 and shared == 8
    assert np.array_equal(night.hidden[:, :shared], day.hidden[:, :shared])
    assert np.abs(night.hidden[1:, shared:] - day.hidden[1:, shared:]).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_recorded_in_float32(dtype):
    model = dl.load(device="cpu", dtype=dtype)
    tokens = dl.tokenize(model, PROMPT)
    found, made = embed_layers(model, tokens), dl.embed(model, tokens)
    assert {a.dtype for a in (found.hidden, found.final, found.attention)} == {np.dtype("float32")}
    assert np.array_equal(found.final, made.hidden[0].float().numpy())
    assert np.abs(found.attention.sum(axis=-1) - 1).max() < 1e-5
    assert np.abs(np.linalg.norm(embed_images(model, pictures()[:1])) - 1) < 1e-3


def test_a_failing_run_leaves_no_hook_behind(tiny_model):
    tokens = dl.tokenize(tiny_model, PROMPT)
    before = state_of(tiny_model)
    with pytest.raises((IndexError, RuntimeError)):
        embed_layers(tiny_model, replace(tokens, ids=(10**6, *tokens.ids[1:])))
    assert same_state(before, state_of(tiny_model))
    picture = [dl.generate(tiny_model, "a red car", num_steps=2, progress=False).latents]
    embed_layers(tiny_model, tokens)
    again = dl.generate(tiny_model, "a red car", num_steps=2, progress=False).latents
    assert np.array_equal(picture[0], again)


def test_what_is_no_token_list_or_no_encoder_is_refused(tiny_model):
    with pytest.raises(InputError, match=r"pass tokenize\(model, prompt\)"):
        embed_layers(tiny_model, PROMPT)
    for encoder in (1, -1, True, None):
        with pytest.raises(InputError, match="has 1, counted from 0: 0 to 0 is allowed"):
            embed_layers(tiny_model, dl.tokenize(tiny_model, PROMPT), encoder)


def test_edited_embeddings_go_into_a_run(tiny_model):
    run = partial(dl.generate, tiny_model, "a red car", seed=1, num_steps=2, progress=False)
    made, other, empty = (
        dl.embed(tiny_model, dl.tokenize(tiny_model, p)) for p in ("a red car", "a blue boat", "")
    )
    plain = run().latents[-1]
    assert np.array_equal(run(text_embedding=blend(made, other, 0.0)).latents[-1], plain)
    blue = run(text_embedding=replace_word(made, "red", other, "blue"))
    assert np.abs(blue.latents[-1] - plain).max() > 1e-5
    assert blue.text_embedding.tokens.words == ("a", "red", "car")
    found = padding(made, empty, run=run)
    assert found.repeat.holds and found.runs[-1].distance == pytest.approx(1)
    assert all(run.distance > 0 for run in found.runs[1:])
    nothing = dl.generate(tiny_model, "", seed=1, num_steps=2, progress=False)
    assert np.abs(found.runs[-1].trace.latents[-1] - nothing.latents[-1]).max() < 1e-5


# ---- the image tower -------------------------------------------------------------------------
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    sizes = ((100, 160), (161, 77), (128, 128), (300, 299))
    return [Image.fromarray(random.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in sizes]


def test_images_are_embedded_as_by_transformers(toyland):
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    prepare = processor.from_pretrained(checkpoint() / "feature_extractor", local_files_only=True)
    tower = transformers.CLIPVisionModelWithProjection.from_pretrained(
        checkpoint() / "image_encoder", local_files_only=True
    )
    pixels = torch.from_numpy(np.stack(prepare(pictures(), return_tensors="np")["pixel_values"]))
    with torch.inference_mode():
        theirs = torch.nn.functional.normalize(tower(pixel_values=pixels).image_embeds, dim=-1)
    ours = embed_images(toyland, pictures())
    assert ours.shape == (4, 128) and ours.dtype == np.float32
    assert np.abs(ours - theirs.numpy()).max() < 1e-5
    assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < 1e-5
    assert np.abs(ours[0] - ours[1]).max() > 1e-3  # the check can fail


def test_images_of_every_mode_and_arrays_are_read_and_left_as_they_are(toyland):
    red = Image.new("RGBA", (40, 60), (255, 0, 0, 255))
    kinds = [red, red.convert("RGB"), np.asarray(red.convert("RGB")), red.convert("P")]
    found = embed_images(toyland, kinds)
    assert np.abs(found - found[1]).max() < 1e-5 and red.mode == "RGBA" and red.size == (40, 60)
    grey = embed_images(toyland, [red.convert("L"), red.convert("L").convert("RGB")])
    assert np.abs(grey[0] - grey[1]).max() < 1e-6 and np.abs(grey[0] - found[0]).max() > 1e-3
    alone = embed_images(toyland, red)
    assert alone.shape == (1, 128) and np.abs(alone[0] - found[1]).max() < 1e-5
    many = embed_images(toyland, [red] * 17)  # more than one batch
    assert many.shape == (17, 128) and np.abs(many - many[0]).max() < 1e-5


@pytest.mark.parametrize("wrong", [[], "a.png", None, [None], ["a.png"], 3])
def test_what_is_no_image_is_refused(toyland, wrong):
    with pytest.raises(InputError, match="image"):
        embed_images(toyland, wrong)


def test_a_checkpoint_without_an_image_tower_says_who_has_one(tiny_model):
    with pytest.raises(InputError, match="no image tower; checkpoints with a folder image_encoder"):
        embed_images(tiny_model, pictures())


@pytest.fixture
def spoilt(toyland, tmp_path):
    """A copy of the tower's files to spoil, and the model that reads them."""
    for part in ("image_encoder", "feature_extractor"):
        shutil.copytree(checkpoint() / part, tmp_path / part)
    return replace(toyland, path=tmp_path)


def rewrite(path, **changes):
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_size": 64}, "image_encoder"),
        ({"hidden_size": 127}, "can be built"),
        ({"num_attention_heads": 0}, "can be built"),
        ({"num_hidden_layers": 10**6}, "numbers up to"),
        ({"patch_size": "16"}, "can be built"),
        ({"hidden_act": "os.system"}, "can be built"),
        ({"model_type": "siglip_vision_model"}, "can be built"),
        ({"auto_map": {"AutoModel": "evil.Evil"}}, "no code of a checkpoint is run"),
    ],
)
def test_a_tower_that_does_not_fit_is_refused(spoilt, changes, match):
    rewrite(spoilt.path / "image_encoder" / "config.json", **changes)
    with pytest.raises(CheckpointError, match=match):
        embed_images(spoilt, pictures())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": {"shortest_edge": 96}, "crop_size": 96}, "the image tower reads"),
        ({"size": {"shortest_edge": "big"}}, "a number of pixels is allowed"),
        ({"size": {"height": 128, "width": 0}}, "numbers of pixels are allowed"),
        ({"crop_size": {"height": 128}}, "numbers of pixels are allowed"),
        ({"resample": 77}, "Pillow's 0 to 5"),
        ({"image_std": [0.5, 0.5, 0]}, "three numbers are allowed, above 0"),
        ({"image_mean": "grey"}, "image_mean is 'grey'; three numbers are allowed"),
        ({"rescale_factor": [1]}, "rescale_factor is .1.; a number is allowed"),
    ],
)
def test_a_preparation_that_does_not_fit_is_refused(spoilt, changes, match):
    rewrite(spoilt.path / "feature_extractor" / "preprocessor_config.json", **changes)
    with pytest.raises(CheckpointError, match=match):
        embed_images(spoilt, pictures())


def test_pickled_and_missing_files_are_refused(spoilt):
    (spoilt.path / "image_encoder" / "model.safetensors").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match="pickle"):
        embed_images(spoilt, pictures())
    (spoilt.path / "feature_extractor" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="has no file"):
        embed_images(spoilt, pictures())


def test_two_given_sides_are_taken_as_they_are(spoilt):
    path = spoilt.path / "feature_extractor" / "preprocessor_config.json"
    rewrite(path, size={"height": 128, "width": 128}, do_center_crop=False)
    found = embed_images(spoilt, pictures()[:1])
    squeezed = pictures()[0].resize((128, 128), resample=3)
    assert np.abs(found - embed_images(spoilt, [squeezed])).max() < 1e-6
