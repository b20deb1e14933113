"""`load` and `save`: what is read, what is refused and why; diffusers reads what we write."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import CLIPTokenizer

from diffusionlab.errors import CheckpointError, InputError, MemoryExceeded
from diffusionlab.pipeline import LatentDiffusion, load, save
from diffusionlab.pipeline.text import tokenizer_files

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def edit(folder: Path, name: str, **changes) -> None:
    """Change keys of a JSON file; a value of `...` removes the key."""
    path = folder / name
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def rewrite(folder: Path, name: str, change) -> None:
    """Replace the weights of a file by `change(weights)`."""
    weights = load_file(folder / name)
    save_file(change(weights), folder / name, metadata={"format": "pt"})


def states(model: LatentDiffusion) -> dict[str, torch.Tensor]:
    parts = {"unet": model.unet, "vae": model.vae, "text": model.text_encoders[0]}
    return {f"{p}.{n}": t for p, module in parts.items() for n, t in module.state_dict().items()}


def same(a: LatentDiffusion, b: LatentDiffusion) -> bool:
    first, second = states(a), states(b)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


# ---- what load gives --------------------------------------------------------------------------
def test_load_gives_the_frozen_bundle(tiny_model, tiny_folder):
    assert (tiny_model.context_length, tiny_model.latent_channels) == (32, 4)
    assert (tiny_model.size, tiny_model.size_factor) == (64, 8)
    assert tiny_model.device.type == "cpu" and tiny_model.dtype == torch.float32
    assert tiny_model.path == tiny_folder and tiny_model.name == "checkpoint"
    assert tiny_model.preview.weight.shape == (3, 4)
    assert tiny_model.config["unet"]["sample_size"] == 8
    for module in (tiny_model.unet, tiny_model.vae, *tiny_model.text_encoders):
        assert not module.training
        assert not any(p.requires_grad or p.is_meta for p in module.parameters())
        assert not any(b.is_meta for b in module.buffers())
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_model.unet = None


def test_repr_names_the_parts_with_counts_and_sizes(tiny_model):
    text = repr(tiny_model)
    for part in ("'checkpoint' on cpu, float32", "32 tokens × 32", "latent 4 × 8 × 8"):
        assert part in text
    for part in ("picture 3 × 64 × 64", "M parameters", "1000 training steps, predicts eps"):
        assert part in text


def test_the_text_half_equals_transformers_own_loading(tiny_model, tiny_folder):
    from transformers import CLIPTextModel, CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(tiny_folder / "tokenizer", local_files_only=True)
    for text in ("a red car", "", "Zwölf Boxkämpfer 🐧 <|endoftext|> it's 12"):
        ids = tiny_model.tokenizer(text, padding="max_length", max_length=32).input_ids
        assert ids == theirs(text, padding="max_length", max_length=32).input_ids
    encoder = CLIPTextModel.from_pretrained(tiny_folder / "text_encoder", local_files_only=True)
    ids = torch.tensor([ids])
    with torch.no_grad():
        expected = encoder.eval()(input_ids=ids)
        found = tiny_model.text_encoders[0](input_ids=ids)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(found.pooler_output, expected.pooler_output)


def test_dtype_is_float32_unless_asked(folder):
    rewrite(folder, UNET, lambda w: {n: t.half() for n, t in w.items()})
    assert load(folder, device="cpu").dtype == torch.float32
    for dtype in ("float16", torch.float16):
        model = load(str(folder), device="cpu", dtype=dtype)
        assert {t.dtype for t in states(model).values()} == {torch.float16}


def test_both_spellings_of_text_keys_and_old_position_numbers_load(folder, tiny_model):
    def published(weights):
        found = {f"text_model.{n.removeprefix('text_model.')}": t for n, t in weights.items()}
        return found | {"text_model.embeddings.position_ids": torch.arange(32)[None]}

    rewrite(folder, TEXT, published)
    assert same(load(folder, device="cpu"), tiny_model)
    rewrite(folder, TEXT, lambda w: {n.removeprefix("text_model."): t for n, t in w.items()})
    assert same(load(folder, device="cpu"), tiny_model)


@pytest.mark.parametrize("convolutions", [False, True])
def test_the_vae_keys_of_2022_load(folder, tiny_model, convolutions):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def back(weights):
        def name(key):
            for new, previous in old.items():
                key = key.replace(f"attentions.0.{new}.", f"attentions.0.{previous}.")
            return key

        def shape(key, tensor):
            old_matrix = convolutions and "attentions" in key and tensor.ndim == 2
            return tensor[:, :, None, None] if old_matrix else tensor

        return {name(key): shape(key, tensor).contiguous() for key, tensor in weights.items()}

    rewrite(folder, VAE_WEIGHTS, back)
    assert any(".proj_attn." in name for name in load_file(folder / VAE_WEIGHTS))
    assert same(load(folder, device="cpu"), tiny_model)


def test_shards_and_variants_load(folder, tiny_model):
    weights = load_file(folder / UNET)
    names = sorted(weights)
    halves = {"s-1.safetensors": names[::2], "s-2.safetensors": names[1::2]}
    for shard, keys in halves.items():
        save_file({key: weights[key] for key in keys}, folder / "unet" / shard)
    index = {"weight_map": {key: shard for shard, keys in halves.items() for key in keys}}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    (folder / UNET).unlink()
    assert same(load(folder, device="cpu"), tiny_model)
    for name in (VAE_WEIGHTS, TEXT):
        shutil.copy(folder / name, folder / name.replace(".safetensors", ".fp16.safetensors"))
    (folder / f"{UNET}.index.json").rename(folder / f"{UNET}.index.fp16.json")
    assert same(load(folder, device="cpu", variant="fp16"), tiny_model)
    with pytest.raises(CheckpointError, match="no weights"):
        load(folder)


def test_vocab_and_merges_files_load_and_win_over_tokenizer_json(folder, tiny_model, tmp_path):
    save(tiny_model, tmp_path / "saved")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tmp_path / "saved/tokenizer" / name, folder / "tokenizer" / name)
    (folder / "tokenizer/tokenizer.json").write_text("{}")
    text = "a red car in the city, über 🐧"
    found = load(folder, device="cpu").tokenizer(text).input_ids
    assert found == tiny_model.tokenizer(text).input_ids


def test_preview_and_safety_checker(folder, capsys):
    (folder / "preview.json").unlink()
    edit(folder, "model_index.json", safety_checker=["stable_diffusion", "SafetyChecker"])
    assert load(folder, device="cpu").preview is None
    told = capsys.readouterr().err
    assert told.count("safety_checker is not loaded") == 1 and told.count("\n") == 1


def test_importing_the_module_loads_no_heavy_third_party():
    code = "import sys, diffusionlab.pipeline; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded  # shows that the list is the real one
    assert not loaded & {"transformers", "diffusers", "matplotlib", "huggingface_hub", "tokenizers"}


def mapped(path: Path) -> bool:
    """Whether this process has a file in its memory map."""
    return str(path.resolve()) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux shows its memory map")
def test_weights_of_the_wanted_dtype_are_mapped_and_their_file_is_never_written_to(folder):
    half = load(folder, device="cpu", dtype="float16")
    assert half.dtype == torch.float16 and not mapped(folder / UNET)  # cast: nothing stays
    model = load(folder, device="cpu")
    assert mapped(folder / UNET)
    before = (folder / UNET).read_bytes()
    with torch.no_grad():
        model.unet.conv_in.weight += 1
    assert (folder / UNET).read_bytes() == before
    changed = states(model)["unet.conv_in.weight"].clone()
    save(half, folder)  # replaces the file; the model keeps the one that it was loaded from
    assert torch.equal(states(model)["unet.conv_in.weight"], changed)
    assert load(folder, device="cpu", dtype="float16").dtype == torch.float16


def test_half_a_vae_is_copied_into_channels_last_when_it_first_runs(folder):
    def arranged(half) -> bool:
        wanted = torch.channels_last
        return all(p.is_contiguous(memory_format=wanted) for p in half.parameters() if p.ndim == 4)

    vae = load(folder, device="cpu").vae
    before = {name: p.clone() for name, p in vae.named_parameters()}
    assert not arranged(vae.encoder) and not arranged(vae.decoder)
    with torch.inference_mode():
        vae.decode(torch.zeros(1, vae.config.latent_channels, 4, 4))
    assert arranged(vae.decoder) and not arranged(vae.encoder)
    assert all(torch.equal(p, before[name]) for name, p in vae.named_parameters())
    assert not any(p.is_inference() for p in vae.parameters())


# ---- save -------------------------------------------------------------------------------------
def test_save_and_load_give_the_same_model(tiny_model, tmp_path):
    model = dataclasses.replace(
        tiny_model, config=tiny_model.config | {"toyland": {"words": ["a"]}}
    )
    first = load(save(model, tmp_path / "a"), device="cpu")
    assert same(first, tiny_model)
    assert first.schedule == dataclasses.replace(tiny_model.schedule, name=first.schedule.name)
    assert first.preview.to_json() == tiny_model.preview.to_json()
    assert first.config["toyland"] == {"words": ["a"]}
    again = save(first, tmp_path / "a")  # over itself
    assert same(load(again, device="cpu"), tiny_model)
    assert not [p for p in again.rglob("*") if p.suffix == ".tmp"]
    with torch.no_grad():  # shows that `same` can fail
        next(first.unet.parameters()).view(-1)[0] += 1e-3
    assert not same(first, tiny_model)


def test_save_in_another_dtype(tiny_model, tmp_path):
    folder = save(tiny_model, tmp_path / "half", dtype="float16")
    for name in (UNET, VAE_WEIGHTS, TEXT):
        assert {t.dtype for t in load_file(folder / name).values()} == {torch.float16}
    halved = states(load(folder, device="cpu"))
    assert all(torch.equal(t.half().float(), halved[n]) for n, t in states(tiny_model).items())


def test_diffusers_loads_what_we_save(tiny_model, tmp_path):
    from diffusers import StableDiffusionPipeline

    folder = save(tiny_model, tmp_path / "saved")
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for ours, other in [(tiny_model.unet, theirs.unet), (tiny_model.vae, theirs.vae)]:
        assert ours.state_dict().keys() == other.state_dict().keys()
        assert all(torch.equal(t, other.state_dict()[n]) for n, t in ours.state_dict().items())
    encoder = theirs.text_encoder.state_dict()
    assert all(
        torch.equal(t, encoder[n]) for n, t in tiny_model.text_encoders[0].state_dict().items()
    )
    assert type(theirs.scheduler).__name__ == "DDIMScheduler"
    text = "a red car über 🐧"
    assert theirs.tokenizer(text).input_ids == tiny_model.tokenizer(text).input_ids
    assert theirs.tokenizer.model_max_length == 32


def test_save_refuses_what_it_would_mix_with(tiny_model, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="neither empty nor a checkpoint"):
        save(tiny_model, tmp_path)
    with pytest.raises(InputError, match="is a file"):
        save(tiny_model, tmp_path / "thesis.txt")
    with pytest.raises(InputError, match="a path is allowed"):
        save(tiny_model, "")
    with pytest.raises(InputError, match="dtype 'int8'"):
        save(tiny_model, tmp_path / "new", dtype="int8")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


# ---- wrong arguments --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"source": None}, "source is None; allowed are 'toyland', a name of"),
        ({"source": ""}, "source is ''"),
        ({"source": 7}, "source is 7"),
        ({"device": "gpu"}, "device 'gpu' is not on this machine; allowed are 'cpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
        ({"device": 1.5}, "device 1.5"),
        ({"dtype": "fp16"}, "dtype 'fp16' is not supported; allowed are float32, float16"),
        ({"dtype": torch.int8}, "dtype torch.int8"),
        ({"dtype": 3}, "dtype 3"),
        ({"variant": "../fp16"}, "variant '../fp16'"),
    ],
)
def test_wrong_arguments_are_named(arguments, what):
    with pytest.raises(InputError, match=what.replace("(", r"\(")):
        load(**arguments)


def test_float16_on_the_cpu_is_told_to_be_slow_and_refused_where_it_cannot_be(
    tiny_folder, monkeypatch, capsys
):
    assert load(tiny_folder, device="cpu", dtype="float16").dtype == torch.float16
    assert capsys.readouterr().err.count("float16 is computed slowly on a CPU") == 1
    load(tiny_folder, device="cpu", dtype="bfloat16")
    assert not capsys.readouterr().err

    def lacking(*given, **options):
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr("torch.nn.functional.conv2d", lacking)
    with pytest.raises(InputError, match="dtype float16 cannot be computed with on cpu"):
        load(tiny_folder, device="cpu", dtype="float16")
    assert load(tiny_folder, device="cpu", dtype="float32").dtype == torch.float32  # not tried

    def full(*given, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

    monkeypatch.setattr("torch.nn.functional.conv2d", full)
    with pytest.raises(MemoryExceeded, match="load ran out of memory") as told:
        load(tiny_folder, device="cpu", dtype="float16")
    assert len(told.value.remedies) == 3


# ---- folders that are none --------------------------------------------------------------------
def test_absent_and_empty_folders(tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder"):
        load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="did you mean 'toyland'"):
        load("toyworld")
    with pytest.raises(CheckpointError, match="there is no folder"):
        load("models/absent.ckpt")
    with pytest.raises(CheckpointError, match="is empty; a checkpoint folder"):
        load(tmp_path)
    with pytest.raises(CheckpointError):
        load("nul\0byte")


def test_c18_parts_are_recognised(folder, tmp_path):
    with pytest.raises(CheckpointError, match="a single part .'AutoencoderKL'.*not a whole model"):
        load(folder / "vae")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/pytorch_lora_weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds a LoRA"):
        load(tmp_path / "lora")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/model.ckpt").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match="holds pickled weights .a pickle can run any program"
    ):
        load(tmp_path / "old")


def test_a_ckpt_pickle_is_refused_with_the_reason_and_never_run(tmp_path):
    trace = tmp_path / "trace"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointError, match="a Python pickle; a pickle can run any program") as e:
        load(path)
    assert "convert it to safetensors" in str(e.value) and not trace.exists()
    torch.save({"state_dict": {"w": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match="as torch.save writes its pickles"):
        load(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="no regular file"):
        load(tmp_path / "pipe")


# ---- folders that are wrong -------------------------------------------------------------------
CONFIG_FAULTS = [
    ("model_index.json", {"_class_name": "StableDiffusion3Pipeline"}, "Stable Diffusion 3, a diff"),
    ("model_index.json", {"_class_name": "FluxPipeline"}, "Flux, a diffusion.*supported: Stable"),
    ("model_index.json", {"_class_name": "PixArtSigmaPipeline"}, "PixArt, a diffusion transform"),
    ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "inpainting"),
    ("model_index.json", {"_class_name": "OddPipeline"}, "'OddPipeline'; supported: StableDiff"),
    ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "text_encoder_2 is None"),
    ("model_index.json", {"_class_name": ["a", "b"]}, "is of class"),
    ("model_index.json", {"_class_name": ...}, "is of class None"),
    (
        "model_index.json",
        {"unet": ["modeling", "MyUNet"]},
        "unet is .*classes that a folder brings",
    ),
    ("model_index.json", {"unet": ["diffusers", "UNet3D"]}, "unet is .*UNet2DConditionModel"),
    ("model_index.json", {"text_encoder": ["transformers", "T5Model"]}, "CLIPTextModel"),
    ("model_index.json", {"scheduler": [None, None]}, "any scheduler"),
    ("model_index.json", {"vae": ...}, "vae is None"),
    ("model_index.json", {"custom_pipeline": "evil"}, "no code of a checkpoint is run"),
    ("unet/config.json", {"auto_map": {"AutoModel": "modeling.X"}}, "has auto_map"),
    ("vae/config.json", {"trust_remote_code": True}, "has trust_remote_code"),
    ("text_encoder/config.json", {"auto_map": {"AutoModel": "modeling.X"}}, "has auto_map"),
    ("tokenizer/tokenizer_config.json", {"auto_map": {"A": "b"}}, "has auto_map"),
    ("vae/config.json", {"_class_name": "AsymmetricAutoencoderKL"}, "supported: AutoencoderKL"),
    ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "act_fn = 'silu'; only 'relu'"),
    ("text_encoder/config.json", {"model_type": "t5"}, "only 'clip_text_model'"),
    ("text_encoder/config.json", {"hidden_act": "swish"}, "hidden_act 'swish' is not supported"),
    ("text_encoder/config.json", {"hidden_size": "32"}, "hidden_size is '32'; a int"),
    ("text_encoder/config.json", {"num_attention_heads": 5}, "describes no model"),
    ("text_encoder/config.json", {"num_hidden_layers": 10**6}, "numbers up to 64"),
    ("text_encoder/config.json", {"vocab_size": 400}, "400 rows; every id needs one|shape"),
    ("unet/config.json", {"layers_per_block": 10**9}, "numbers up to 64"),
    ("unet/config.json", {"block_out_channels": [10**12]}, "numbers up to 1000000"),
    ("unet/config.json", {"block_out_channels": [32] * 20_000}, "lists up to"),
    ("unet/config.json", {"transformer_layers_per_block": [[1] * 20_000, 1]}, "lists up to"),
    ("unet/config.json", {"transformer_layers_per_block": [[1, 65], 1]}, "numbers up to 64"),
    ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type"),
    ("unet/config.json", {"down_block_types": ["Evil", "DownBlock2D"]}, "Evil"),
    ("unet/config.json", {"in_channels": 9}, "9 channels .an inpainting model"),
    ("unet/config.json", {"cross_attention_dim": 48}, "text of width 48"),
    ("unet/config.json", {"layers_per_block": 2}, "the weights of unet lack 'down_blocks"),
    ("scheduler/scheduler_config.json", {"beta_schedule": "evil"}, "evil"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}, "numbers up to"),
    ("tokenizer/tokenizer_config.json", {"bos_token": "<nobody>"}, "lacks the special token"),
    ("tokenizer/tokenizer_config.json", {"bos_token": 5}, "bos_token is 5; a text"),
    ("tokenizer/tokenizer.json", {"model": None}, "not a byte-pair vocabulary"),
    ("preview.json", {"weight": [[1, 2, 3]]}, "preview"),
]


@pytest.mark.parametrize(("name", "changes", "what"), CONFIG_FAULTS)
def test_unsupported_configs_are_refused_by_name(folder, name, changes, what):
    edit(folder, name, **changes)
    with pytest.raises(CheckpointError, match=what):
        load(folder, device="cpu")


ALL_FILES = [
    "model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json", "tokenizer/tokenizer.json", UNET, VAE_WEIGHTS, TEXT,
]  # fmt: skip


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("spoil", ["absent", "cut", "page", "link", "fifo"])
def test_every_file_may_be_absent_cut_or_something_else(folder, tmp_path, name, spoil):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if spoil == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif spoil == "page":
        path.write_text("<!DOCTYPE html><html>not found</html>")
    elif spoil == "link":
        (tmp_path / "outside").write_bytes(content)
        path.symlink_to(tmp_path / "outside")
    elif spoil == "fifo":
        os.mkfifo(path)
    with pytest.raises(CheckpointError):
        load(folder, device="cpu")


def test_weights_that_do_not_fit_are_named(folder):
    rewrite(
        folder, VAE_WEIGHTS, lambda w: {n: t for n, t in w.items() if n != "decoder.conv_in.bias"}
    )
    with pytest.raises(CheckpointError, match="weights of vae lack 'decoder.conv_in.bias'"):
        load(folder, device="cpu")
    rewrite(folder, VAE_WEIGHTS, lambda w: w | {"decoder.conv_in.bias": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"'decoder.conv_in.bias' is F32 of shape \[3\]"):
        load(folder, device="cpu")


def test_c08_weights_that_are_not_finite_are_named(folder):
    rewrite(folder, UNET, lambda w: w | {"conv_in.bias": torch.full((32,), torch.nan)})
    with pytest.raises(CheckpointError, match="not finite in float32: 'conv_in.bias'.*see where"):
        load(folder, device="cpu")


def test_c08_weights_that_are_not_finite_load_with_a_notice_where_they_are_allowed(folder, capsys):
    rewrite(folder, UNET, lambda w: w | {"conv_in.bias": torch.full((32,), torch.nan)})
    model = load(folder, device="cpu", allow_nonfinite=True)
    told = capsys.readouterr().err
    assert "not finite in float32: 'conv_in.bias'; they are used as they are\n" in told
    assert model.unet.conv_in.bias.isnan().all() and model.unet.conv_in.weight.isfinite().all()
    rewrite(folder, UNET, lambda w: {n: t for n, t in w.items() if n != "conv_in.bias"})
    with pytest.raises(CheckpointError, match="lack 'conv_in.bias'"):  # nothing else is allowed
        load(folder, device="cpu", allow_nonfinite=True)


def test_a_file_for_which_there_is_no_address_space_is_no_broken_file(folder, monkeypatch):
    def full(*given, **options):
        raise RuntimeError("unable to mmap 4 bytes from file <x>: Cannot allocate memory (12)")

    monkeypatch.setattr(torch, "from_file", full)
    with pytest.raises(MemoryExceeded):
        load(folder, device="cpu")


def test_s2_code_in_a_folder_is_never_imported(folder):
    armed = "raise SystemExit('code of a checkpoint ran')"
    for name in (
        "pipeline.py",
        "modeling.py",
        "unet/modeling.py",
        "__init__.py",
        "sitecustomize.py",
    ):
        (folder / name).write_text(armed)
    load(folder, device="cpu")  # everything that loading needs is imported now
    before, path = set(sys.modules), list(sys.path)
    edit(folder, "text_encoder/config.json", _attn_implementation="evil/kernel", use_kernels=True)
    load(folder, device="cpu")
    edit(folder, "unet/config.json", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(CheckpointError):
        load(folder, device="cpu")
    assert set(sys.modules) == before and sys.path == path


# ---- the hub ----------------------------------------------------------------------------------
def hub_error(name: str) -> Exception:
    from huggingface_hub import errors

    kind = getattr(errors, name)
    return kind.__new__(kind)


def test_a_hub_id_downloads_configs_first_then_one_variant_of_one_commit(
    folder, tmp_path, monkeypatch
):
    calls = []
    snapshot = tmp_path / "snapshots" / "c0ffee"
    shutil.copytree(folder, snapshot)

    def fake(repo, **options):
        calls.append((repo, options))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    model = load("org/name", device="cpu", revision="main", token="secret", cache_dir=tmp_path)
    assert model.name == "org/name" and "secret" not in repr(model) + repr(model.config)
    assert [options["revision"] for _, options in calls] == ["main", "c0ffee"]
    assert not any("safetensors" in name for name in calls[0][1]["allow_patterns"])
    assert UNET in calls[1][1]["allow_patterns"]
    assert not any(".bin" in name or name == "*" for name in calls[1][1]["allow_patterns"])
    assert calls[0][1]["token"] == "secret" and calls[0][1]["cache_dir"] == tmp_path
    edit(snapshot, "model_index.json", _class_name="FluxPipeline")
    calls.clear()
    with pytest.raises(CheckpointError, match="FluxPipeline"):
        load("org/name", device="cpu")
    assert len(calls) == 1  # refused before the weights


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("GatedRepoError", "is gated; accept its licence .*hf auth login"),
        ("RepositoryNotFoundError", "neither a local folder nor on the hub"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
        ("LocalEntryNotFoundError", r"load\('org/name', revision='v9'\)"),
        ("OfflineModeIsEnabled", "HF_HUB_OFFLINE is set"),
        ("HfHubHTTPError", "could not be downloaded"),
    ],
)
def test_the_hubs_errors_become_ours_with_the_next_command(name, what, monkeypatch):
    def fake(repo, **options):
        raise hub_error(name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    with pytest.raises(CheckpointError, match=what) as caught:
        load("org/name", revision="v9", token="hf_secret")
    assert "hf_secret" not in str(caught.value)


class ReadTimeout(Exception):
    """As of an HTTP client: of no family that Python knows."""


@pytest.mark.parametrize("error", [ReadTimeout, ConnectionResetError, RuntimeError])
def test_a_connection_that_breaks_off_is_told(error, monkeypatch):
    def fake(repo, **options):
        raise error("https://cdn.example/secret")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    what = rf"'org/name' could not be downloaded \({error.__name__}\); run the same call again"
    with pytest.raises(CheckpointError, match=what) as caught:
        load("org/name")
    assert "secret" not in str(caught.value)


def test_offline_and_not_cached_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"not asked .*load\('org/absent'\)"):
        load("org/absent", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set; unset it"):
        load("org/absent", cache_dir=tmp_path)  # set in every test
    with pytest.raises(CheckpointError, match=r"if it was removed: load\('stable-diffusion-v1-5"):
        load("runwayml/stable-diffusion-v1-5", cache_dir=tmp_path)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_cache_without_the_weights_says_what_fetches_them(folder, tmp_path, variant):
    place, commit = tmp_path / "models--org--name", 40 * "a"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(commit)
    without = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(folder, place / "snapshots" / commit, ignore=without)
    what = r"of 'org/name' no (fp16\.)?safetensors of unet, vae, text_encoder .*load\('org/name'\)"
    with pytest.raises(CheckpointError, match=what) as told:
        load("org/name", cache_dir=tmp_path, variant=variant)
    assert ("leave variant= out" in str(told.value)) == bool(variant)
    assert commit not in str(told.value)


def test_a_local_path_never_asks_the_hub(folder, monkeypatch):
    def fake(*args, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    monkeypatch.chdir(folder.parent)
    load("model", device="cpu")
    (folder.parent / "org").mkdir()
    folder.rename(folder.parent / "org" / "name")
    assert load("org/name", device="cpu").name == "name"  # an existing folder wins
    for source in (
        Path("org/absent"),
        "./org/absent",
        "/org/absent",
        "a/b/c",
        "models/x.safetensors",
    ):
        with pytest.raises(CheckpointError, match="there is no folder"):
            load(source)


def test_the_accelerator_is_taken_where_there_is_one(accelerator, tiny_folder):
    model = load(tiny_folder)
    assert model.device.type == accelerator.type
    assert all(t.device.type == model.device.type for t in states(model).values())
    buffers = list(model.text_encoders[0].buffers())
    assert buffers and all(b.device.type == model.device.type for b in buffers)
    assert load(tiny_folder, device="cpu").device.type == "cpu"


@pytest.mark.parametrize("listed", [False, True])
def test_the_padding_token_is_the_one_that_transformers_takes(tiny_folder, tmp_path, listed):
    """Stable Diffusion 2 pads with "!" by its special_tokens_map.json."""
    folder = tmp_path / "sd2"
    shutil.copytree(tiny_folder, folder)
    path = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"pad_token": "<|endoftext|>"}
    config.pop("added_tokens_decoder", None)
    if listed:
        config["added_tokens_decoder"] = {}
    path.write_text(json.dumps(config))
    mapped = {"pad_token": "!", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(mapped))
    theirs = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert load(folder, device="cpu").tokenizer.pad_token_id == theirs.pad_token_id


# ---- learned words ---------------------------------------------------------------------------
WORDS = ("<cat>", "Zwerg", "<s1>")
PLAIN = dict(single_word=False, lstrip=False, rstrip=False, normalized=True, special=False)


@pytest.fixture
def learned(tiny_folder, tiny_model, tmp_path):
    """A folder with rows for three more words, its tokenizer as in 2022: vocab.json, merges.txt."""
    folder = tmp_path / "learned"
    shutil.copytree(tiny_folder, folder)
    vocab, merges, config = tokenizer_files(tiny_model.tokenizer)
    config.pop("added_tokens_decoder", None)
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    put(folder, "vocab.json", vocab)
    put(folder, "tokenizer_config.json", config)
    (folder / "tokenizer/merges.txt").write_text(merges, encoding="utf-8")
    weights = load_file(folder / TEXT)
    name = next(name for name in weights if name.endswith("token_embedding.weight"))
    weights[name] = torch.cat([weights[name], weights[name][:3]])
    save_file(weights, folder / TEXT, metadata={"format": "pt"})
    edit(folder, "text_encoder/config.json", vocab_size=len(vocab) + 3)
    return folder, len(vocab)


def put(folder, name, value):
    (folder / "tokenizer" / name).write_text(json.dumps(value))


def listed_2022(folder, end, flags):
    put(folder, "added_tokens.json", {word: end + i for i, word in enumerate(WORDS)})


def listed_2024(folder, end, flags):
    tokens = {str(end + i): {"content": word} | flags for i, word in enumerate(WORDS)}
    edit(folder, "tokenizer/tokenizer_config.json", added_tokens_decoder=tokens)
    put(folder, "added_tokens.json", {"<nobody>": 5})  # does not count beside the list


def listed_whole(folder, end, flags):
    theirs = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    theirs.add_tokens([AddedToken(word, **flags) for word in WORDS])
    theirs.save_pretrained(folder / "tokenizer")
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)


def listed_beside(folder, end, flags):
    listed_2022(folder, end, flags)
    (folder / "tokenizer/added_tokens.json").rename(folder / "words.json")
    vocab, merges = (folder / "tokenizer" / name for name in ("vocab.json", "merges.txt"))
    kept = vocab.read_bytes(), merges.read_bytes()
    listed_whole(folder, end, flags)
    vocab.write_bytes(kept[0])
    merges.write_bytes(kept[1])


@pytest.mark.parametrize("change", [{}, {"special": True, "normalized": False}, {"rstrip": True}])
@pytest.mark.parametrize("listing", [listed_2022, listed_2024, listed_whole, listed_beside])
def test_learned_words_have_the_ids_that_transformers_gives(learned, tmp_path, listing, change):
    folder, end = learned
    listing(folder, end, PLAIN | change)
    theirs = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    model = load(folder, device="cpu")
    again = load(save(model, tmp_path / "again"), device="cpu")
    written = CLIPTokenizer.from_pretrained(tmp_path / "again/tokenizer")
    for text in ("a <cat> car", "<CAT>s ZWERG  by<s1>the Zwerge", "a red <|endoftext|> car"):
        ids = theirs(text).input_ids
        assert end in ids or "<cat>" not in text
        assert ids == model.tokenizer(text).input_ids == again.tokenizer(text).input_ids
        assert ids == written(text).input_ids
    for tokenizer in (model.tokenizer, again.tokenizer, written):
        assert tokenizer.get_vocab() == theirs.get_vocab()


def test_a_special_token_may_be_an_added_one(learned):
    folder, end = learned
    put(folder, "added_tokens.json", {"<cat>": end, "<pad>": end + 1})
    edit(folder, "tokenizer/tokenizer_config.json", pad_token="<pad>")
    theirs = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ours = load(folder, device="cpu").tokenizer
    assert ours.pad_token_id == theirs.pad_token_id == end + 1
    assert ours("a <cat> <pad>").input_ids == theirs("a <cat> <pad>").input_ids


DECODER, FILE, WHOLE = "tokenizer_config.json", "added_tokens.json", "tokenizer.json"
ADDED_FAULTS = [
    (FILE, lambda end: {"<cat>": end + 1}, r"'<cat>' has id 620, and its place is 619; words of"),
    (FILE, lambda end: {"<cat>": 5}, "'<cat>' has id 5, and its place is 619"),
    (FILE, lambda end: {"<|endoftext|>": end}, "'.*endoftext.*' has id 619, and its place is 618"),
    (FILE, lambda end: {f"<{i}>": end + i for i in range(4)}, "623 ids and the text encoder 622"),
    (FILE, lambda end: {f"<{i}>": end + i for i in range(10_001)}, "at most 10000 are read"),
    (FILE, lambda end: {"<cat>": "x"}, "added_tokens.json' lists the added tokens .*'x'"),
    (FILE, lambda end: {"<cat>": True}, "an id of 0 or more, a text and flags"),
    (FILE, lambda end: {"<cat>": -1}, "an id of 0 or more"),
    (FILE, lambda end: {"": end}, "lists the added tokens"),
    (FILE, lambda end: {"\ud83d": end}, "lists the added tokens"),
    (FILE, lambda end: [1], "is not a JSON object"),
    (DECODER, lambda end: {"added_tokens_decoder": [1]}, r"lists the added tokens \[1\]"),
    (DECODER, lambda end: {"added_tokens_decoder": {"9" * 5000: PLAIN}}, "lists the added tokens"),
    (DECODER, lambda end: {"added_tokens_decoder": {str(end): PLAIN}}, "lists the added tokens"),
    (
        DECODER,
        lambda end: {"added_tokens_decoder": {str(end): {"content": "x", "rstrip": "no"}}},
        "lists the added tokens .*'no'",
    ),
    (
        DECODER,
        lambda end: {"added_tokens_decoder": {str(end + i): {"content": "<x>"} for i in range(2)}},
        "'<x>' has id 620, and its place is 619",
    ),
    (WHOLE, lambda end: {"added_tokens": {"<cat>": end}}, "lists the added tokens"),
    (WHOLE, lambda end: {"added_tokens": [5]}, r"lists the added tokens \[5\]"),
    (WHOLE, lambda end: {"added_tokens": [{"content": "<cat>"}]}, "lists the added tokens"),
]


@pytest.mark.parametrize(("name", "content", "what"), ADDED_FAULTS)
def test_added_tokens_that_cannot_be_are_refused(learned, name, content, what):
    folder, end = learned
    put(folder, name, content(end))
    with pytest.raises(CheckpointError, match=what):
        load(folder, device="cpu")


def test_ids_are_those_that_the_library_gave(learned, monkeypatch):
    folder, end = learned
    listed_2022(folder, end, PLAIN)
    monkeypatch.setattr(CLIPTokenizer, "convert_tokens_to_ids", lambda self, text: 7)
    with pytest.raises(CheckpointError, match="has id 619, and its place is 7"):
        load(folder, device="cpu")


def test_a_unet_config_without_sample_size_takes_the_vae_s(tiny_folder, tmp_path):
    folder = tmp_path / "sizeless"
    shutil.copytree(tiny_folder, folder)
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    del config["sample_size"]
    path.write_text(json.dumps(config))
    model = load(folder, device="cpu")
    assert model.size == model.vae.config.sample_size and str(model.size) in repr(model)
