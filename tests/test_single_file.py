"""One file in the original layout loads as the folder of its pipeline does, or says why not."""

from __future__ import annotations

import builtins
import json
import os
import struct
import sys

import numpy as np
import pytest
import torch
from original_layout import original_state, pipeline, unet, write_single_file
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import diffusionlab as dl
from diffusionlab.errors import CheckpointError
from diffusionlab.models import UNetConfig
from diffusionlab.pipeline import families, loading, single_file
from diffusionlab.pipeline.families import configs_of, recognise

UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model."
FAMILIES = ("SD 1", "SD 2", "SDXL")


@pytest.fixture(scope="module", params=FAMILIES)
def both(request, tmp_path_factory):
    """A family: its name, the folder that diffusers wrote, and the same weights in one file."""
    place = tmp_path_factory.mktemp("single")
    pipe = pipeline(request.param)
    pipe.save_pretrained(place / "folder")
    return request.param, place / "folder", write_single_file(pipe, place / "model.safetensors")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Folder and file of the smallest family."""
    place = tmp_path_factory.mktemp("first")
    pipe = pipeline("SD 1")
    pipe.save_pretrained(place / "folder")
    return place / "folder", write_single_file(pipe, place / "model.safetensors")


def from_file(path, folder, **options):
    return dl.load(path, tokenizer=folder, device="cpu", **options)


def parts(model):
    encoders = {f"text {i}": encoder for i, encoder in enumerate(model.text_encoders)}
    return {"unet": model.unet, "vae": model.vae} | encoders


# ---- the same model ----------------------------------------------------------------------------
def test_a_file_is_the_model_of_its_folder(both, capsys):
    family, folder, path = both
    whole, single = dl.load(folder, device="cpu"), from_file(path, folder)
    told = capsys.readouterr().err
    assert ("v is assumed" in told) == (family == "SD 2") and told.count("\n") <= 1
    for name, module in parts(whole).items():
        ours, theirs = parts(single)[name].state_dict(), module.state_dict()
        assert ours.keys() == theirs.keys(), name
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    changed = dict(sample_size=whole.unet.config.sample_size)
    assert changed != dict(sample_size=single.unet.config.sample_size)  # the family's own
    assert single.pad_ids == whole.pad_ids and single.zeros_for_empty == whole.zeros_for_empty
    assert single.schedule.to_config() == whole.schedule.to_config()
    assert single.name == "model" and single.path == path
    run = dict(height=64, width=48, num_steps=3, seed=1, progress=False, guidance_scale=4.0)
    if family == "SDXL":  # it is told the sizes, which are those of the run
        assert single.unet.config.addition_time_embed_dim == 8
    mine, theirs = dl.generate(single, "a red car", **run), dl.generate(whole, "a red car", **run)
    # mapped weights begin at other addresses in another file, and sums round by those
    assert np.abs(mine.latents - theirs.latents).max() < 1e-4
    assert np.abs(np.asarray(mine.image, int) - np.asarray(theirs.image, int)).max() <= 1
    other = dl.generate(single, "a blue boat", **run)
    assert np.abs(other.latents - theirs.latents).max() > 1e-3  # the check can fail


def test_sizes_dtypes_and_the_round_trip(both, tmp_path, capsys):
    family, folder, path = both
    model = from_file(path, folder, dtype="bfloat16", prediction_type="eps")
    assert not capsys.readouterr().err  # nothing is assumed
    assert model.size == {"SD 1": 512, "SD 2": 512, "SDXL": 1024}[family]
    assert model.dtype == torch.bfloat16 and model.schedule.prediction_type == "eps"
    assert from_file(path, folder, prediction_type="v").schedule.prediction_type == "v"
    again = dl.load(dl.save(model, tmp_path / "saved"), device="cpu", dtype="bfloat16")
    for name, module in parts(model).items():
        state = parts(again)[name].state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in module.state_dict().items())
    assert again.pad_ids == model.pad_ids and again.is_xl == model.is_xl


def test_marks_of_fine_tuners_are_read(first, tmp_path):
    folder, path = first
    marked = load_file(path) | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file(marked, tmp_path / "marked.safetensors")
    schedule = from_file(tmp_path / "marked.safetensors", folder).schedule
    assert schedule.prediction_type == "v" and schedule.level_at(timestep=999).alpha == 0


def test_a_projection_that_nobody_reads_is_left_out(both, tmp_path):
    family, folder, path = both
    if family == "SD 2":
        pytest.skip("its text encoder is of OpenCLIP")
    prefix = {"SD 1": "cond_stage_model.", "SDXL": "conditioner.embedders.0."}[family]
    plain, key = from_file(path, folder), f"{prefix}transformer.text_projection.weight"
    width = plain.text_encoders[0].config.hidden_size
    state = load_file(path) | {key: torch.zeros(width, width)}
    save_file(state, tmp_path / "more.safetensors")
    found = parts(from_file(tmp_path / "more.safetensors", folder))
    for name, module in parts(plain).items():
        same = map(torch.equal, module.state_dict().values(), found[name].state_dict().values())
        assert all(same)


def test_other_parts_take_the_place_of_the_file_s_own(first, tiny_folder):
    folder, path = first
    model = from_file(path, folder, vae=tiny_folder)
    assert model.vae.config.block_out_channels == (8, 8, 16, 16)
    assert model.config["vae"]["norm_num_groups"] == 4


# ---- the tokenizer -----------------------------------------------------------------------------
def test_a_tokenizer_comes_from_a_folder_a_cache_or_not_at_all(first, monkeypatch, tmp_path):
    folder, path = first
    with pytest.raises(CheckpointError, match=r"holds no tokenizer.*pass tokenizer= with a folder"):
        dl.load(path, device="cpu", cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="has no file 'tokenizer/vocab.json'"):
        from_file(path, tmp_path)
    with pytest.raises(CheckpointError, match="names the file"):
        from_file(path, path)
    asked = []

    def cached(repo, **options):
        asked.append(options["local_files_only"])
        return folder

    monkeypatch.setattr(single_file, "download_tokenizer", cached)
    assert len(dl.load(path, device="cpu").tokenizer) and asked == [True]
    direct = from_file(path, folder / "tokenizer")
    assert direct.tokenizer.get_vocab() == from_file(path, folder).tokenizer.get_vocab()
    monkeypatch.setattr(loading, "download_tokenizer", lambda repo, **options: folder)
    assert len(from_file(path, "org/words").tokenizer) == len(direct.tokenizer)


def test_without_diffusers_the_command_is_told(first, monkeypatch):
    folder, path = first
    for name in [n for n in sys.modules if n.split(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.split(".")[0] == "diffusers":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CheckpointError, match=r"pip install 'diffusionlab\[diffusers\]'"):
        from_file(path, folder)


# ---- what else a file may be -------------------------------------------------------------------
KINDS = {
    "lora_unet_x.lora_down.weight": "a LoRA",
    "unet.mid_block.attentions.0.to_q.lora_A.weight": "a LoRA",
    "control_model.x": "a ControlNet",
    "controlnet_cond_embedding.conv_in.weight": "a ControlNet",
    "model.diffusion_model.joint_blocks.0.x": "Stable Diffusion 3",
    "joint_blocks.0.x": "Stable Diffusion 3",
    "double_blocks.0.img_attn.qkv.weight": "Flux",
    "model.diffusion_model.double_blocks.0.x": "Flux",
    "adaln_single.linear.weight": "PixArt",
    "conditioner.embedders.0.model.ln_final.weight": "the refiner of SDXL",
    "edm_mean": "Playground",
    "emb_params": "a textual inversion",
    "model.diffusion_model.x": "a U-Net without text encoder and VAE",
    "first_stage_model.x": "a VAE alone",
    "encoder.down_blocks.0.x": "a VAE alone",
    "decoder.layers.0.weight": "a tiny VAE alone",
    "text_model.x": "a text encoder alone",
    "down_blocks.0.x": "a U-Net alone",
    "something": "of an unknown model: its first keys are",
}


@pytest.mark.parametrize(("key", "what"), KINDS.items())
def test_c18_other_files_are_recognised_by_their_keys(tmp_path, key, what):
    path = tmp_path / "one.ckpt"  # content decides, not the name
    save_file({key: torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=f"a single safetensors file .{what}.*whole models"):
        dl.load(path, device="cpu")


def test_a_part_s_own_file_is_named(tiny_folder):
    """This transformers writes a text encoder without `text_model.`, like a tiny VAE's layers."""
    for part, what in (("unet/diffusion_pytorch_model", "a U-Net alone"),
                       ("vae/diffusion_pytorch_model", "a VAE alone"),
                       ("text_encoder/model", "a text encoder alone")):  # fmt: skip
        with pytest.raises(CheckpointError, match=f"a single safetensors file .{what}"):
            dl.load(tiny_folder / f"{part}.safetensors", device="cpu")


PARTS = {
    "first_stage_model.": "VAE",
    "cond_stage_model.": "text encoder",
    "model.diffusion_model.": "U-Net",
}


@pytest.mark.parametrize("prefix", PARTS)
def test_what_a_file_lacks_of_a_model_is_named(first, tmp_path, prefix):
    folder, path = first
    kept = {name: t for name, t in load_file(path).items() if not name.startswith(prefix)}
    save_file(kept, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=rf"\(a model without its {PARTS[prefix]}\)"):
        from_file(tmp_path / "part.safetensors", folder)


def test_what_a_file_lacks_of_sdxl_is_named():
    keys = [UNET, "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."]
    keys = [key + "x" for key in keys]
    for given, what in [
        (keys, r"a model without its VAE\)"),
        (keys[:2], r"a model without its second text encoder and VAE\)"),
        (keys[::2], r"a model without its first text encoder and VAE\)"),
        ([*keys[1:], "first_stage_model.x"], r"a model without its U-Net\)"),
        ([keys[0], "first_stage_model.x"], r"a model without its text encoder\)"),
    ]:
        with pytest.raises(CheckpointError, match=what):
            recognise(given, "it")


def test_the_middle_says_how_deep_it_is_where_nothing_else_attends_there():
    pipe = pipeline("SSD-1B")
    told = dict(pipe.unet.config) | dict(
        transformer_layers_per_block=[1, 2, [3]], mid_block_type="UNetMidBlock2DCrossAttn",
        reverse_transformer_layers_per_block=[1, [2, 1], 1],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))  # fmt: skip
    pipe.unet = unet(**{key: told[key] for key in told if key[0] != "_"})
    shapes = {name: tuple(tensor.shape) for name, tensor in original_state(pipe).items()}
    read = configs_of(recognise(shapes, "it"), shapes, "eps", "it")["unet"]
    ours = UNetConfig.from_dict(read)
    assert (ours.mid_depth, ours.down_depths[1], ours.up_depths[1]) == (3, (2,), (2, 1))


def test_depths_are_counted_in_one_look_at_the_names():
    """A header of many blocks would keep a reader busy that looks at all names for each."""
    layers = {"input_blocks.4": 2, "input_blocks.40": 1, "output_blocks.0": 10, "middle_block": 3}
    names = [f"{layer}.1.transformer_blocks.{i}.{end}" for layer, count in layers.items()
             for i in range(count) for end in ("a.weight", "b.bias")]  # fmt: skip
    found = families._depths(iter([*names, "input_blocks.5.1.proj_in.weight", "time_embed.0.bias"]))
    assert dict(found) == layers and found["input_blocks.5"] == 0


def test_a_vocabulary_s_learned_words_come_with_it(first, tmp_path):
    """Its folder says what was added to it, whoever's config names the padding."""
    folder, path = first
    rows = f"{TEXT}embeddings.token_embedding.weight"
    state = load_file(path)
    state[rows] = torch.cat([state[rows], state[rows][:1]])
    save_file(state, tmp_path / "model.safetensors")
    words = AutoTokenizer.from_pretrained(folder / "tokenizer")
    words.add_tokens(["<cat>"])
    words.save_pretrained(tmp_path / "words")
    model = from_file(tmp_path / "model.safetensors", tmp_path / "words")
    assert model.tokenizer("a <cat>").input_ids == words("a <cat>").input_ids


# ---- files that are wrong ----------------------------------------------------------------------
def without(key):
    return lambda state: {name: t for name, t in state.items() if name != key}


def having(key, *shape, dtype=torch.float32):
    return lambda state: state | {key: torch.zeros(*shape, dtype=dtype)}


def not_finite(state):
    state[f"{UNET}out.2.bias"][0] = torch.nan
    return state


FAULTS = {
    "a U-Net tensor missing": (
        without(f"{UNET}input_blocks.1.0.in_layers.2.bias"),
        r"\(unet\) lack 'down_blocks.0.resnets.0.conv1.bias'",
    ),
    "a VAE tensor missing": (
        without("first_stage_model.decoder.conv_in.weight"),
        "first_stage_model.*lacks the tensor 'decoder.conv_in.weight'",
    ),
    "a VAE layer missing": (
        without("first_stage_model.decoder.up.1.block.0.norm1.bias"),
        r"\(vae\) lack 'decoder.up_blocks.2.resnets.0.norm1.bias'",
    ),
    "a text tensor missing": (
        without(f"{TEXT}final_layer_norm.bias"),
        r"\(text_encoder\) lack .*final_layer_norm.bias'",
    ),
    "first convolution missing": (without(f"{UNET}input_blocks.0.0.weight"), "lacks the tensor"),
    "an output block missing": (
        lambda s: {n: t for n, t in s.items() if "output_blocks.5." not in n},
        "equally many at each size",
    ),
    "a tensor too many": (
        having(f"{UNET}time_embed.cond_proj.weight", 2, 2),
        "has 'model.diffusion_model.time_embed.cond_proj.weight', which Stable Diffusion's does",
    ),
    "a thousand blocks": (
        having(f"{UNET}input_blocks.999.0.in_layers.0.weight", 2),
        "equally many at each size",
    ),
    "a wrong shape": (
        having(f"{UNET}out.2.bias", 7),
        r"'conv_out.bias' is F32 of shape \[7\].*wants floating point of shape \[4\]",
    ),
    "whole numbers": (
        having(f"{UNET}out.2.bias", 4, dtype=torch.int32),
        "'conv_out.bias' is I32 of shape",
    ),
    "a kind that is not read": (
        having(f"{UNET}out.2.bias", 4, dtype=torch.float8_e4m3fn),
        "'conv_out.bias' is F8_E4M3 of shape",
    ),
    "inpainting": (
        having(f"{UNET}input_blocks.0.0.weight", 32, 9, 3, 3),
        r"takes 9 channels \(an inpainting model\)",
    ),
    "another text encoder": (
        having(f"{TEXT}embeddings.token_embedding.weight", 619, 128),
        "reads text of width 64 and the text encoder writes 128",
    ),
    "a matrix that is none": (
        having("first_stage_model.decoder.conv_in.weight", 3),
        "describes no model that can be built",
    ),
    "NaN": (not_finite, "not finite in float32: 'model.diffusion_model.out.2.bias'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_do_not_fit_are_refused_by_name(first, tmp_path, fault):
    folder, path = first
    change, what = FAULTS[fault]
    save_file(change(load_file(path)), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=what):
        from_file(tmp_path / "model.safetensors", folder)


def test_numbers_that_are_not_finite_are_told_where_they_are_allowed(first, tmp_path, capsys):
    folder, path = first
    save_file(not_finite(load_file(path)), tmp_path / "model.safetensors")
    model = from_file(tmp_path / "model.safetensors", folder, allow_nonfinite=True)
    assert "'model.diffusion_model.out.2.bias'" in capsys.readouterr().err
    assert not model.unet.conv_out.bias.isfinite().all()


def test_headers_are_checked_as_in_a_folder(first, tmp_path):
    folder, path = first
    content = path.read_bytes()
    bad = tmp_path / "model.safetensors"
    hostile = {
        "cut": content[: len(content) // 2],
        "long header": struct.pack("<Q", 2**60) + content[8:],
        "hole": struct.pack("<Q", 2) + b"{}" + bytes(9),
        "page": b"<!DOCTYPE html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1",
    }
    for wrong in hostile.values():
        bad.write_bytes(wrong)
        with pytest.raises(CheckpointError):
            from_file(bad, folder)
    bad.unlink()
    os.mkfifo(bad)
    with pytest.raises(CheckpointError, match="no regular file"):
        from_file(bad, folder)


def test_a_name_in_the_file_leads_nowhere(tmp_path):
    """Names are keys of a dictionary, never paths."""
    header = {"../../x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(CheckpointError, match="unknown model"):
        dl.load(path, device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
