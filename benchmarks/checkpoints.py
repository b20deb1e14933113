"""Loading a checkpoint: seconds and peak anonymous memory, ours against diffusers', in one run.

`python benchmarks/checkpoints.py [--size full] [--rounds 7]` writes a folder of Stable Diffusion
1.5's sizes with random weights, once in float32 and once in float16, into a temporary folder. A
single file in the original layout is not timed. Every load happens in a fresh process, alternating
with diffusers', after the files were read once. In each process, everything that loading needs is
imported first; then the clock runs until every weight of the model was touched: a mapped weight
that nobody has read yet is not loaded. Ours looks for NaN in every number meanwhile, diffusers'
does not: "unchecked" is ours without that look, for comparison alone, as `load` always takes it.
Ours copies the VAE into channels_last later, when it first runs, on a CPU. Memory is
RssAnon above what it was before, sampled every 2 ms in a process of its own. "bare" is no loader:
one copy of the files' numbers into the wanted dtype, or one look at each page where that is the
files' own, which is what any loader waits for. What is cast needs fresh memory. A virtual machine
whose host took unused memory back gets it page by page, several times as slowly, and of two loads
either may be the unlucky one; so these cases are measured once more on memory that each process
used, and gave back, just before the clock starts.
It prints a table and writes results/checkpoints.json (checkpoints_small.json for --size small).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from overhead import RESULTS, machine, ratio

# widths of the U-Net, of the text encoder and of the VAE
SIZES = {
    "full": ((320, 640, 1280, 1280), 768, (128, 256, 512, 512), 12),
    "small": ((64, 128, 256, 256), 256, (32, 64, 128, 128), 4),
}
PIECES = 49408
BYTES = {"float32": 4, "float16": 2}
CASES = {  # name: dtype of the files, dtype asked for, whether the memory was just used
    "float32 files → float32": ("float32", "float32", False),
    "float16 files → float16": ("float16", "float16", False),
    "float32 files → float16": ("float32", "float16", False),
    "float16 files → float32": ("float16", "float32", False),
    "float32 files → float16, memory just used": ("float32", "float16", True),
    "float16 files → float32, memory just used": ("float16", "float32", True),
}

WATCH = """
import json, sys, threading, time, torch
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers import CLIPTokenizer
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) * 1024
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.002)
{imports}
folder, dtype = sys.argv[1], getattr(torch, sys.argv[2])
torch.ones(int(sys.argv[3]), dtype=torch.uint8)
before = anonymous()
watcher = threading.Thread(target=watch, daemon=True)
if watched := sys.argv[4] == "watched":
    watcher.start()
start = time.perf_counter()
{load}
returned = time.perf_counter() - start
weights = [p for part in parts for p in part.parameters()]
touched = sum(float(p.detach().flatten()[::512].sum()) for p in weights)
seconds = time.perf_counter() - start
done.set()
size = sum(p.numel() * p.element_size() for p in weights)
print(json.dumps(dict(seconds=seconds, returned=returned, peak=max(peak, anonymous()) - before,
                      size=size, touched=touched)))
"""
OURS = WATCH.format(
    imports="from diffusionlab.pipeline import load, folder as _1\n",
    load="model = load(folder, device='cpu', dtype=dtype)\n"
    "parts = [model.unet, model.vae, *model.text_encoders]",
)
THEIRS = WATCH.format(
    imports="from diffusers import StableDiffusionPipeline, AutoencoderKL, UNet2DConditionModel\n"
    "from diffusers import PNDMScheduler",
    load="pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, "
    "local_files_only=True)\n"
    "parts = [pipe.unet, pipe.vae, pipe.text_encoder]",
)

UNCHECKED = OURS.replace(
    "folder as _1\n",
    "tensors, folder as _1\nassert tensors._sums\ntensors._sums = lambda r: r[:0].flatten()\n",
)

BARE = """
import glob, json, sys, time, torch
folder, dtype, kept = sys.argv[1], getattr(torch, sys.argv[2]), []
stored = getattr(torch, folder.rsplit("/")[-1])
torch.ones(int(sys.argv[3]), dtype=torch.uint8)
start = time.perf_counter()
for path in glob.glob(f"{folder}/*/*.safetensors"):
    with open(path, "rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        size = file.seek(0, 2)
    data = torch.from_file(path, shared=False, size=size, dtype=torch.uint8)[header:]
    data = data[: len(data) // 8 * 8].view(stored)
    kept.append(data.to(dtype))
    kept[-1][::512].sum()
print(json.dumps(dict(seconds=time.perf_counter() - start)))
"""


# ---- what is loaded ----------------------------------------------------------------------------
def configs(size: str) -> dict:
    """The configs of Stable Diffusion 1.5, or of a narrow sister, by part."""
    unet, text, vae, layers = SIZES[size]
    return {
        "unet": {
            "_class_name": "UNet2DConditionModel", "block_out_channels": unet, "sample_size": 64,
            "cross_attention_dim": text, "attention_head_dim": 8,
        },
        "vae": {
            "_class_name": "AutoencoderKL", "block_out_channels": vae, "layers_per_block": 2,
            "down_block_types": ["DownEncoderBlock2D"] * 4, "sample_size": 512,
            "up_block_types": ["UpDecoderBlock2D"] * 4, "latent_channels": 4,
        },
        "text_encoder": {
            "model_type": "clip_text_model", "architectures": ["CLIPTextModel"],
            "vocab_size": PIECES, "hidden_size": text, "intermediate_size": 4 * text,
            "num_hidden_layers": layers, "num_attention_heads": 8, "max_position_embeddings": 77,
        },
    }  # fmt: skip


def write_folder(folder: Path, size: str, dtype: str) -> Path:
    """A checkpoint folder with random weights, part by part so that memory holds one only."""
    import torch
    from safetensors.torch import save_file

    from diffusionlab.pipeline.hub import STEMS
    from diffusionlab.pipeline.parts import empty_module, settings_of
    from diffusionlab.pipeline.text import published_text_keys

    for part, config in configs(size).items():
        (folder / part).mkdir(parents=True)
        write(folder / part / "config.json", config)
        shapes = empty_module(part, settings_of(part, config)).state_dict()
        state = {name: 0.02 * torch.randn(t.shape) for name, t in shapes.items()}
        state = published_text_keys(state) if part == "text_encoder" else state
        state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in state.items()}
        save_file(state, folder / f"{STEMS[part]}.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder / "tokenizer")
    write(folder / "scheduler/scheduler_config.json", {
        "_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "beta_end": 0.012, "skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False,
    })  # fmt: skip
    write(folder / "model_index.json", {
        "_class_name": "StableDiffusionPipeline", "requires_safety_checker": False,
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None], "feature_extractor": [None, None],
    })  # fmt: skip
    return folder


def write_tokenizer(folder: Path) -> None:
    """A vocabulary of CLIP's size: its bytes, and pairs of them until there are enough."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = letters + [f"{letter}</w>" for letter in letters]
    pairs = [(a, b) for a in letters for b in pieces][: PIECES - len(pieces) - 2]
    pieces += [a + b for a, b in pairs] + ["<|startoftext|>", "<|endoftext|>"]
    write(folder / "vocab.json", {piece: index for index, piece in enumerate(pieces)})
    merges = "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in pairs)])
    (folder / "merges.txt").write_text(merges + "\n", encoding="utf-8")
    write(folder / "tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "errors": "replace",
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
    })  # fmt: skip


def write(path: Path, content: dict) -> None:
    """A JSON file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


# ---- measuring ---------------------------------------------------------------------------------
def measured(script: str, folder: Path, dtype: str, used: int = 0, watch: str = "") -> dict:
    """What one fresh process reports of one load, after it used so many bytes.

    watch: "watched" to have its memory looked at meanwhile.
    """
    command = [sys.executable, "-c", script, str(folder), dtype, str(used), watch]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compared(folder: Path, dtype: str, rounds: int, just_used: bool) -> dict:
    """One case: medians, ratios and the largest memory of both, alternating."""
    stored = sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
    used = just_used * stored * BYTES[dtype] // BYTES[folder.name]
    loaders = {"diffusionlab": OURS, "diffusers": THEIRS}
    scripts = loaders | {"unchecked": UNCHECKED, "bare": BARE}
    runs: dict[str, list[dict]] = {name: [] for name in scripts}
    for number in range(rounds + 1):
        for name in sorted(scripts, reverse=bool(number % 2)):
            runs[name].append(measured(scripts[name], folder, dtype, used))
    runs = {name: found[1:] for name, found in runs.items()}  # the first round warms the files
    size = runs["diffusionlab"][0]["size"]
    seconds = {name: [run["seconds"] for run in found] for name, found in runs.items()}
    returned = {name: [run["returned"] for run in runs[name]] for name in loaders}
    peaks = {
        name: measured(script, folder, dtype, used, "watched")["peak"]
        for name, script in loaders.items()
    }
    return {
        "weights_gb": round(size / 1e9, 3),
        "median_seconds": {k: round(statistics.median(v), 3) for k, v in seconds.items()},
        "diffusionlab / diffusers": ratio(seconds, "diffusionlab", "diffusers"),
        "unchecked / diffusers": ratio(seconds, "unchecked", "diffusers"),
        "bare / diffusers": ratio(seconds, "bare", "diffusers"),
        "median_seconds_until_returned": {
            k: round(statistics.median(v), 3) for k, v in returned.items()
        },
        "peak_memory / weights": {k: round(v / size, 3) for k, v in peaks.items()},
    }


def main() -> None:
    """Write the files, measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where the temporary files go")
    given = parser.parse_args()
    packages = ("torch", "transformers", "diffusers", "accelerate", "safetensors")
    result: dict = {
        "machine": machine("cpu"),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "size": given.size,
    }
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        for dtype in ("float32", "float16"):
            write_folder(Path(made) / dtype, given.size, dtype)
        for name, (stored, asked, just_used) in CASES.items():
            result[name] = compared(Path(made) / stored, asked, given.rounds, just_used)
            print(name, json.dumps(result[name], indent=2), sep="\n")
    suffix = "" if given.size == "full" else f"_{given.size}"
    path = RESULTS / f"checkpoints{suffix}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path.name}")


if __name__ == "__main__":
    main()
