"""Checkpoints of every family, as a folder and as a single file: stage by stage, saved, read again.

The folders are written by diffusers, the single files by `original_layout`; both narrow and random.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from original_layout import original_state, pipeline, placed, write_single_file
from safetensors.torch import save_file
from test_parity_families import FAMILIES, sd_pipeline

import diffusionlab as dl
from diffusionlab.errors import CheckpointError, InputError
from diffusionlab.schedule import NoiseSchedule

diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
]
FOLDERS = ("Stable Diffusion 1.x", "Stable Diffusion 2.x v", "SD-Turbo", "BK-SDM small",
           "BK-SDM tiny", "LCM", "SDXL", "SDXL-Turbo", "LCM-SDXL", "SSD-1B",
           "Segmind-Vega")  # fmt: skip
FILES = {"file SD 1": "eps", "file SD 2": "v", "file SD 2 turbo": "eps", "file SDXL": "eps",
         "file SSD-1B": "eps", "file Vega": "eps"}  # fmt: skip
SIZE = dict(height=64, width=128)
PROMPT, NEGATIVE = "a red car in the city at night", ""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """`folders(name)`: a folder that diffusers wrote and its single file, each written once."""
    made = {}

    def folder(name: str):
        if name not in made:
            place = tmp_path_factory.mktemp("model")
            in_a_file = name.startswith("file ")
            whole = pipeline(name.removeprefix("file ")) if in_a_file else FAMILIES[name]()
            whole.save_pretrained(place / "folder")
            if in_a_file:
                write_single_file(whole, place / "one.safetensors")
            made[name] = place
        return made[name]

    return folder


@pytest.fixture(scope="module", params=[*FOLDERS, *FILES])
def loaded(request, folders):
    """The name of a checkpoint, and our model of it."""
    name = request.param
    if name not in FILES:
        return name, dl.load(folders(name) / "folder", device="cpu")
    place = folders(name.removesuffix(" turbo"))
    return name, dl.load(place / "one.safetensors", tokenizer=place / "folder", device="cpu",
                         prediction_type=FILES[name])  # fmt: skip


def networks(model):
    encoders = {f"text {i}": encoder for i, encoder in enumerate(model.text_encoders)}
    return {"unet": model.unet, "vae": model.vae} | encoders


def unequal(one, other) -> list[str]:
    """The parameters and buffers in which two models differ."""
    pairs = zip(networks(one).items(), networks(other).values(), strict=True)
    states = [(part, a.state_dict(), b.state_dict()) for (part, a), b in pairs]
    missing = [part for part, a, b in states if a.keys() != b.keys()]
    return missing + [f"{part}.{name}" for part, a, b in states if a.keys() == b.keys()
                      for name in a if not torch.equal(a[name], b[name])]  # fmt: skip


def unlike(one, other) -> list[str]:
    """What two models are told besides their weights, and differ in."""
    told = {
        "unet": lambda m: by_block(m.unet.config),
        "vae": lambda m: m.vae.config,
        "text": lambda m: [text_config(encoder) for encoder in m.text_encoders],
        "schedule": lambda m: (m.schedule, m.schedule.original_steps),
        "padding": lambda m: m.pad_ids,
        "words": lambda m: [t.get_vocab() for t in (m.tokenizer, m.tokenizer_2) if t],
        "zeros": lambda m: m.zeros_for_empty,
        "size": lambda m: (m.size, m.size_factor, m.context_length),
    }
    return [name for name, read in told.items() if read(one) != read(other)]


def by_block(config):
    """A U-Net's config with every number told where one may stand for several."""
    return replace(
        config,
        attention_head_dim=config.heads,
        transformer_layers_per_block=config.down_depths,
        reverse_transformer_layers_per_block=config.up_depths,
    )


def text_config(encoder) -> dict:
    """What a text encoder computes with, and which token's row it pools."""
    keys = ("hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "eos_token_id",
            "num_attention_heads", "num_hidden_layers", "max_position_embeddings", "vocab_size",
            )  # fmt: skip
    return {key: getattr(encoder.config, key) for key in keys} | {"class": type(encoder).__name__}


# ---- every stage -------------------------------------------------------------------------------
def test_the_stages_one_by_one_make_what_one_call_makes(loaded):
    _, model = loaded
    run = dict(seed=1, num_steps=3, guidance_scale=4.0, progress=False) | SIZE
    trace = dl.generate(model, PROMPT, **run)
    text = dl.embed(model, dl.tokenize(model, PROMPT), **SIZE)
    empty = dl.embed(model, dl.tokenize(model, NEGATIVE), **SIZE, negative=True)
    start, levels = dl.draw_noise(model, 1, **SIZE), model.schedule.levels(3)
    latent, said = dl.Latent(levels[0].sigma * start.values, levels[0], "hand", None), []
    for step in dl.make_plan("ddim", levels, model.schedule):
        said.append(dl.predict(model, latent, step.level, text, empty, 4.0))
        latent = dl.update(latent, step, said)
    assert np.array_equal(latent.values.cpu(), trace.latents[-1])
    assert np.array_equal(dl.decode(model, latent), trace.image)
    assert trace.image.size == (SIZE["width"], SIZE["height"])
    assert np.abs(np.diff(trace.latents, axis=0)).max(axis=(1, 2, 3)).min() > 1e-3  # each step acts


def test_a_picture_goes_in_gets_noise_and_comes_out(loaded):
    _, model = loaded
    picture = dl.generate(model, PROMPT, num_steps=1, progress=False, **SIZE).image
    clean, noise = dl.encode(model, picture), dl.draw_noise(model, 2, **SIZE)
    assert clean.values.shape == noise.values.shape == (4, 8, 16)
    level = model.schedule.level_at(timestep=500)
    noisy = dl.add_noise(clean, noise, level)
    undone = (noisy.values - level.sigma * noise.values) / level.alpha
    assert torch.allclose(undone, clean.values, atol=1e-4)
    assert dl.decode(model, noisy).size == picture.size


# ---- saved and read again ----------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(loaded, tmp_path_factory):
    """A checkpoint: its name, our model, and the folder that we wrote of it."""
    name, model = loaded
    return name, model, dl.save(model, tmp_path_factory.mktemp("saved") / "one")


def test_what_is_saved_is_the_same_model(saved, tmp_path):
    _, model, folder = saved
    again = dl.load(folder, device="cpu")
    assert not unequal(again, model) and not unlike(again, model)
    run = dict(seed=1, num_steps=2, progress=False) | SIZE
    ours, theirs = dl.generate(again, PROMPT, **run), dl.generate(model, PROMPT, **run)
    # mapped weights begin at other addresses in another file, and sums round by those
    assert np.abs(ours.latents - theirs.latents).max() < 1e-4
    twice = dl.save(again, tmp_path / "two")
    written = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert written == sorted(path.relative_to(twice) for path in twice.rglob("*") if path.is_file())
    changed = [n for n in written if (folder / n).read_bytes() != (twice / n).read_bytes()]
    assert not changed, changed


CLASSES = {"LCM": "LatentConsistencyModelPipeline", "SDXL": "StableDiffusionXLPipeline"}


def test_diffusers_reads_what_is_saved(saved):
    name, model, folder = saved
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    kind = next((kind for key, kind in CLASSES.items() if key in name.split()), None)
    kind = kind or ("StableDiffusionXLPipeline" if model.is_xl else "StableDiffusionPipeline")
    assert type(pipe).__name__ == kind
    theirs = [pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)]
    for (part, ours), other in zip(networks(model).items(), theirs, strict=False):
        state = {n.removeprefix("text_model."): t for n, t in other.state_dict().items()}
        mine = {n.removeprefix("text_model."): t for n, t in ours.state_dict().items()}
        assert mine.keys() == state.keys(), part
        assert all(torch.equal(mine[key], state[key]) for key in mine), part
    config = dict(pipe.scheduler.config) | {"_class_name": type(pipe.scheduler).__name__}
    assert NoiseSchedule.from_config(config) == model.schedule
    assert pipe.tokenizer(PROMPT).input_ids == model.tokenizer(PROMPT).input_ids
    assert pipe.tokenizer.pad_token_id == model.pad_ids[0]


def test_the_checks_can_fail(folders):
    folder = folders("SDXL") / "folder"
    model, other = dl.load(folder, device="cpu"), dl.load(folder, device="cpu")
    assert not unequal(other, model) and not unlike(other, model)
    with torch.no_grad():
        next(other.vae.parameters()).add_(1e-3)
    assert len(unequal(other, model)) == 1
    other.text_encoders[-1].config.hidden_act = "relu"
    other = replace(other, schedule=replace(other.schedule, steps_offset=7))
    assert unlike(other, model) == ["text", "schedule"]


# ---- a single file is its folder ---------------------------------------------------------------
@pytest.mark.parametrize("family", [name for name in FILES if "turbo" not in name])
def test_the_configs_of_a_file_are_those_of_its_folder(folders, family, capsys):
    place = folders(family)
    whole = dl.load(place / "folder", device="cpu")
    file = dl.load(place / "one.safetensors", tokenizer=place / "folder", device="cpu",
                   prediction_type=whole.schedule.prediction_type)  # fmt: skip
    assert not unequal(file, whole)
    told = {"sample_size": whole.unet.config.sample_size}  # not in a file: the family's own
    assert by_block(replace(file.unet.config, **told)) == by_block(whole.unet.config)
    told = {"sample_size": whole.vae.config.sample_size}
    assert replace(file.vae.config, **told) == whole.vae.config
    assert unlike(file, whole) == ["unet", "vae", "size"]


def refused(pipe, path, folder) -> str:
    """What is said of a pipeline in one file, which is none of the three families."""
    state = placed(original_state(pipe))
    save_file(state, path)
    with pytest.raises(CheckpointError) as caught:
        dl.load(path, tokenizer=folder, device="cpu")
    return str(caught.value)


def test_a_file_without_a_middle_is_refused_by_its_tensors(folders, tmp_path):
    pipe = pipeline("SD 1")
    pipe.unet = sd_pipeline(mid_block_type=None, cross_attention_dim=64, norm_num_groups=32).unet
    said = refused(pipe, tmp_path / "bk.safetensors", folders("file SD 1") / "folder")
    assert "(unet) lack" in said and "mid_block" in said


def test_a_model_without_an_image_tower_says_so(loaded):
    _, model = loaded
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(InputError, match=f"{model.name} has no image tower; .*use dl.load"):
        dl.embed_images(model, [picture])
