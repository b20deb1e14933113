"""Hostile and half-written checkpoints, whole: bounded memory, no trace, no torn file."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_parity_families import FAMILIES

import diffusionlab as dl
from diffusionlab.errors import CheckpointError

ROOT = Path(__file__).parents[1]
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def python(code: str, *arguments) -> subprocess.CompletedProcess:
    """A program of its own, with the package and the tests at hand."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip


# ---- bounds before memory ----------------------------------------------------------------------
def tensor_of(shape, size: int) -> bytes:
    """A file whose header promises one tensor; no byte of it follows."""
    one = {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}
    text = json.dumps({"conv_in.weight": one}).encode()
    return struct.pack("<Q", len(text)) + text


def sparse(path: Path, start: bytes, size: int) -> None:
    """A file that is large and takes no disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def config(part: str, **changes):
    def change(folder: Path) -> None:
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / UNET, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(300_000_000))


FOUR_GB = 2**32
BOMBS = {
    "a header of four gigabytes": lambda f: sparse(
        f / UNET, struct.pack("<Q", FOUR_GB - 8), FOUR_GB
    ),
    "a header of 99 megabytes of braces": lambda f: sparse(
        f / UNET, struct.pack("<Q", 99_000_000) + b"{", 99_000_008
    ),
    "a tensor that is not there": lambda f: (f / UNET).write_bytes(
        tensor_of([2**30, 2**10], 2**42)
    ),
    "a tensor of no memory's size": lambda f: (f / UNET).write_bytes(
        tensor_of([2**62, 2**62], 2**63)
    ),
    "a deflated zip": bomb,
    "a config of a gigabyte": lambda f: sparse(f / "unet/config.json", b"{", 2**30),
    "a vocabulary of a gigabyte": lambda f: sparse(f / "tokenizer/tokenizer.json", b"{", 2**30),
    "blocks a million wide": config("unet", block_out_channels=[10**6] * 2),
    "a thousand blocks": config(
        "unet", block_out_channels=[1024] * 64, down_block_types=["DownBlock2D"] * 64,
        up_block_types=["UpBlock2D"] * 64, layers_per_block=64,
    ),
    "a text encoder a million wide": config(
        "text_encoder", hidden_size=10**6, intermediate_size=10**6, num_attention_heads=10
    ),
    "a vocabulary of a million words": config("text_encoder", vocab_size=10**6),
    "a VAE a million wide": config("vae", block_out_channels=[10**6] * 4, norm_num_groups=1),
    "a million training steps": lambda f: (f / "scheduler/scheduler_config.json").write_text(
        json.dumps({"_class_name": "DDIMScheduler", "num_train_timesteps": 10**12})
    ),
}  # fmt: skip

LIMITED = """
    import resource, sys, time
    from pathlib import Path
    import diffusionlab as dl
    from diffusionlab.errors import CheckpointError
    first, *rest = sys.argv[1:]
    dl.load(first, device="cpu")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 400 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for folder in rest:
        start = time.monotonic()
        try:
            dl.load(folder, device="cpu")
        except CheckpointError as error:
            print("refused", Path(folder).name, f"{time.monotonic() - start:.1f}", str(error)[:90])
        except BaseException as error:
            print("FAILED", Path(folder).name, type(error).__name__, str(error)[:200])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the process's memory")
def test_s5_bombs_are_refused_within_400_megabytes(tiny_folder, tmp_path):
    places = []
    for number, spoil in enumerate(BOMBS.values()):
        places.append(Path(shutil.copytree(tiny_folder, tmp_path / str(number))))
        spoil(places[-1])
    done = python(LIMITED, tiny_folder, *places)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    print(done.stdout)
    told = dict(zip(BOMBS, lines, strict=True))
    assert all(line.startswith("refused") for line in lines), told


# ---- parts of another model --------------------------------------------------------------------
def test_c18_sdxl_in_the_place_of_stable_diffusion_1_and_the_other_way(tmp_path, tiny_folder):
    FAMILIES["SDXL"]().save_pretrained(tmp_path / "xl")
    path = tmp_path / "xl" / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(CheckpointError, match="reads text of width 48 and the text encoder writes"):
        dl.load(tmp_path / "xl", device="cpu")
    with pytest.raises(CheckpointError, match="reads text of width 48 and the text encoder writes"):
        dl.load(tiny_folder, device="cpu", unet=tmp_path / "xl")
    with pytest.raises(CheckpointError, match="text_encoder_2= was given, and the model has only"):
        dl.load(tiny_folder, device="cpu", text_encoder_2=tmp_path / "xl")
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="reads text of width 48 and the text encoders write"):
        dl.load(tmp_path / "xl", device="cpu", text_encoder_2=tiny_folder / "text_encoder")


TRANSFORMERS = {"StableDiffusion3Pipeline": "Stable Diffusion 3", "FluxPipeline": "Flux",
                "PixArtAlphaPipeline": "PixArt"}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_folder_of_a_diffusion_transformer_is_refused_before_its_weights(tmp_path, name):
    """As they are published: a transformer in the place of a U-Net, and a T5 text encoder."""
    index = {"_class_name": name, "transformer": ["diffusers", "Transformer2DModel"],
             "text_encoder_3": ["transformers", "T5EncoderModel"],
             "vae": ["diffusers", "AutoencoderKL"]}  # fmt: skip
    (tmp_path / "transformer").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    sparse(tmp_path / "transformer/diffusion_pytorch_model.safetensors", b"", FOUR_GB)
    with pytest.raises(CheckpointError) as caught:
        dl.load(tmp_path, device="cpu")
    said = str(caught.value)
    assert TRANSFORMERS[name] in said and name in said
    assert (
        "supported: StableDiffusionPipeline" in said and "Stable Diffusion 1.x, 2.x and XL" in said
    )


# ---- a saver that fails or is killed -----------------------------------------------------------
KILLED = """
    import os, signal, sys
    import safetensors.torch, torch
    import diffusionlab as dl
    model, real, count = dl.load(sys.argv[1], device="cpu"), safetensors.torch.save_file, [0]
    with torch.no_grad():
        for part in (model.unet, model.vae):
            for weights in part.parameters():
                weights.add_(1)
    def save_file(state, path, **rest):
        real(state, path, **rest)
        count[0] += 1
        if count[0] == 2:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    safetensors.torch.save_file = save_file
    dl.save(model, sys.argv[1])
"""


def weights_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_c22_a_killed_saver_leaves_whole_files_and_is_swept_a_day_later(folder, capsys):
    before = weights_of(folder)
    assert python(KILLED, folder).returncode == -9
    after = weights_of(folder)
    changed = [name for name in before if before[name] != after[name]]
    assert after.keys() == before.keys() and len(changed) == 1  # the first was done, the rest old
    assert load_file(folder / changed[0])
    (left,) = folder.rglob("*.tmp")
    model = dl.load(folder, device="cpu")
    dl.save(model, folder)
    assert left.exists()  # it may be a saver's that is still at work
    foreign = left.with_name(".notes.tmp")
    foreign.write_text("mine")
    for path in (left, foreign):
        os.utime(path, (1, 1))
    dl.save(model, folder)
    assert not left.exists() and foreign.exists()


@pytest.mark.parametrize("number", [28, 30, 13], ids=["disk full", "read-only", "forbidden"])
def test_c22_what_cannot_be_written_leaves_the_old_model(folder, monkeypatch, number):
    model, before = dl.load(folder, device="cpu"), weights_of(folder)

    def failing(state, path, **rest):
        Path(path).write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("safetensors.torch.save_file", failing)
    with pytest.raises(CheckpointError, match=rf"cannot write '.*{os.strerror(number)}"):
        dl.save(model, folder)
    assert weights_of(folder) == before and not list(folder.rglob("*.tmp"))


def test_c22_a_folder_that_may_not_be_written_into_is_named(folder):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    model = dl.load(folder, device="cpu")
    (folder / "unet").chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match=r"cannot write '.*unet.*': Permission denied"):
            dl.save(model, folder)
    finally:
        (folder / "unet").chmod(0o700)
    assert torch.equal(
        load_file(folder / UNET)["conv_in.bias"], model.unet.state_dict()["conv_in.bias"]
    )


def test_s4_more_tensors_than_a_model_has_are_refused(folder):
    """Empty tensors take no byte of the file, so that only their number says no."""
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"{number:x}": empty for number in range(100_001)}).encode()
    (folder / UNET).write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(CheckpointError, match="100001 tensors, at most 100000 are allowed"):
        dl.load(folder, device="cpu")
