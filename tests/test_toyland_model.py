"""The shipped checkpoint: one model, the same picture here and in diffusers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import diffusionlab as dl
from diffusionlab.toyland import (
    GRAMMAR_VERSION,
    SHARES,
    captions,
    checkpoint,
    known_words,
    render,
    scene,
)
from diffusionlab.training.data import SEEDS
from diffusionlab.training.judges import judge, load_judges, segment, shipped_judges

PROMPT = "a red car in the city at night"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def toyland():
    return dl.load(device="cpu")


@pytest.fixture(scope="module")
def pipe():
    diffusers = pytest.importorskip("diffusers")
    made = diffusers.StableDiffusionPipeline.from_pretrained(checkpoint(), local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest deviation relative to the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(("guidance_scale", "rescale"), [(1.0, 0.0), (4.0, 0.0), (6.0, 0.7)])
def test_diffusers_makes_the_same_picture_from_the_same_noise(
    toyland, pipe, guidance_scale, rescale
):
    guidance = dl.Guidance(guidance_scale, rescale=rescale)
    trace = dl.generate(
        toyland, PROMPT, seed=3, num_steps=10, guidance_scale=guidance, progress=False
    )
    given = dict(
        num_inference_steps=10,
        guidance_scale=guidance_scale,
        guidance_rescale=rescale,
        latents=torch.tensor(trace.latents[0])[None],
    )
    theirs = pipe(PROMPT, output_type="latent", **given).images[0].numpy()
    assert difference(trace.latents[-1], theirs) < 1e-4
    picture = pipe(PROMPT, output_type="np", **given).images[0]
    ours = np.asarray(trace.image).astype(np.float64) / 255
    assert np.abs(ours - picture).max() < 0.5 / 255 + 1e-3
    other = dl.generate(toyland, PROMPT, seed=4, num_steps=10, progress=False)
    assert difference(other.latents[-1], theirs) > 1e-2  # the check can fail


def test_text_embeddings_equal_those_of_the_pipeline(toyland, pipe):
    ours = dl.embed(toyland, dl.tokenize(toyland, PROMPT)).hidden[0].numpy()
    theirs = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0][0].detach().numpy()
    assert difference(ours, theirs) < 1e-4


def test_the_checkpoint_is_small_and_says_what_it_knows():
    folders = (checkpoint(), shipped_judges())
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert sum(f.stat().st_size for f in files) < 40 * MIB
    assert max(f.stat().st_size for f in files) < 16 * MIB
    about = json.loads((checkpoint() / "toyland.json").read_text(encoding="utf-8"))
    assert about["grammar_version"] == GRAMMAR_VERSION
    assert set(about["words"]) == set(known_words(SHARES[about["share"]]))
    card = (checkpoint() / "README.md").read_text(encoding="utf-8")
    assert "Limits" in card and "| object right |" in card


def test_the_prompt_s_words_change_the_picture(toyland):
    run = dict(seed=1, num_steps=6, guidance_scale=4.0, progress=False)
    red, blue = (
        np.asarray(dl.generate(toyland, f"a {colour} car in the desert at day", **run).image)
        for colour in ("red", "blue")
    )
    lead = (red.astype(float) - blue.astype(float)).reshape(-1, 3).mean(axis=0)
    assert lead[0] > 0 > lead[2]  # more red, less blue


def test_the_preview_map_explains_most_of_the_colour(toyland):
    assert min(toyland.preview.r2) > 0.5
    latent = dl.encode(toyland, dl.generate(toyland, PROMPT, num_steps=6, progress=False).image)
    assert toyland.preview.rgb(latent.values.numpy()).shape == (16, 16, 3)


def test_a_word_it_never_saw_is_told_once(toyland, capsys):
    tokens = dl.tokenize(toyland, "Darth Vader on the snow")
    assert "was never shown: 'Darth', 'Vader'\n" in capsys.readouterr().err
    assert len(tokens.notices) == 1
    many = " ".join(f"{letter}qx" for letter in "abcdefghi")
    assert dl.tokenize(toyland, many).notices[0].endswith("'hqx', …")
    capsys.readouterr()
    dl.tokenize(toyland, PROMPT)
    assert not capsys.readouterr().err


@pytest.fixture(scope="module")
def held_out_scenes(toyland):
    share = SHARES[toyland.config["toyland"]["share"]]
    return [scene(SEEDS["test"] + i, share) for i in range(60)], share


def test_the_image_tower_knows_which_caption_belongs_to_a_picture(toyland, held_out_scenes):
    transformers = pytest.importorskip("transformers")
    load = transformers.CLIPVisionModelWithProjection.from_pretrained
    tower = load(checkpoint() / "image_encoder", local_files_only=True)
    scenes, share = held_out_scenes
    drawn = np.stack([render(s, masks=False).image for s in scenes])
    pixels = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokens = [dl.tokenize(toyland, captions(s, 1, share)[0].text) for s in scenes]
    with torch.inference_mode():
        seen = tower(pixel_values=pixels).image_embeds
        said = torch.stack([dl.embed(toyland, t).pooled for t in tokens])
    cosine = torch.nn.functional.cosine_similarity(said[:, None], seen[None], dim=-1)
    own, others = cosine.diagonal(), cosine[~torch.eye(len(scenes), dtype=torch.bool)]
    better = (own[:, None] > others.view(len(scenes), -1)).float().mean()
    assert better > 0.85
    next_ones = cosine.roll(-1, dims=1).diagonal()  # the same captions with another's picture
    assert (next_ones[:, None] > others.view(len(scenes), -1)).float().mean() < 0.7


def test_the_shipped_judges_know_real_pictures(held_out_scenes):
    classifier, segmenter = load_judges()
    scenes, _ = held_out_scenes
    drawn = [render(s) for s in scenes]
    images = np.stack([d.image for d in drawn])
    verdicts = judge(classifier, images)
    right = [
        set(v.kinds) == {t.kind for t in s.things} for v, s in zip(verdicts, scenes, strict=True)
    ]
    assert np.mean(right) > 0.9
    moved = [
        set(v.kinds) == {t.kind for t in s.things}
        for v, s in zip(verdicts, scenes[1:] + scenes[:1], strict=True)
    ]
    assert np.mean(moved) < 0.5
    assert segment(segmenter, images).shape == (60, 64, 64)
