"""`save`: a model as a folder in diffusers' layout, which diffusers and `load` both read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, InputError, notice, shown
from ..schedule import NoiseSchedule
from ..scheduler_config import modernised
from .bundle import LatentDiffusion
from .configs import CLASSES, CONFIGS, PIPELINES, SECOND
from .devices import checked_dtype
from .files import replacing, write_json, write_text
from .hub import STEMS
from .swapping import own_parts
from .text import published_text_keys, tokenizer_files

ABSENT = ("safety_checker", "feature_extractor", "image_encoder")  # what we never have


def model_index(model: LatentDiffusion, scheduler: str) -> dict[str, Any]:
    """The content of model_index.json: each part's library and class."""
    index: dict[str, Any] = {
        "_class_name": model.config.get("model_index", {}).get("_class_name", PIPELINES[0]),
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", model.vae.config.to_dict()["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", scheduler],
    }
    if model.is_xl:
        index |= {part: ["transformers", allowed[0]] for part, allowed in SECOND.items()}
        zeros = {"force_zeros_for_empty_prompt": model.zeros_for_empty}
        return index | dict.fromkeys(ABSENT[1:], [None, None]) | zeros
    return index | dict.fromkeys(ABSENT, [None, None]) | {"requires_safety_checker": False}


def save(
    model: LatentDiffusion, folder: str | os.PathLike, *, dtype: str | torch.dtype | None = None
) -> Path:
    """Write a model as safetensors and JSON in diffusers' layout; returns the folder.

    dtype of the written weights: None leaves them as they are. Each file replaces its predecessor
    in one piece, model_index.json last. `diffusers.DiffusionPipeline.from_pretrained(folder)` reads
    the result.

    Errors: InputError for a dtype or a folder that holds something else, CheckpointError if a file
    cannot be written.
    """
    kind = checked_dtype(dtype)
    target = checked_target(folder)
    for part, module in own_parts(model).items():
        state, text = module.state_dict(), part.startswith("text_encoder")
        state = published_text_keys(state) if text else state
        _write_weights(target / f"{STEMS[part]}.safetensors", state, kind)
        write_json(target / CONFIGS[part], _part_config(model, part, kind))
    scheduler = model.schedule.to_config()
    index = model_index(model, scheduler["_class_name"])
    _tell_offset(model.schedule, modernised(scheduler, index["_class_name"]))
    write_json(target / CONFIGS["scheduler"], scheduler)
    _write_tokenizer(target / "tokenizer", model.tokenizer)
    if model.tokenizer_2 is not None:
        _write_tokenizer(target / "tokenizer_2", model.tokenizer_2)
    if model.preview:
        write_json(target / "preview.json", model.preview.to_json())
    if "toyland" in model.config:
        write_json(target / "toyland.json", model.config["toyland"])
    write_json(target / "model_index.json", index)
    return target


def _tell_offset(schedule: NoiseSchedule, read: Mapping[str, Any]) -> None:
    """A notice where a pipeline of this class is read with another steps_offset than it has."""
    mine, theirs = schedule.steps_offset, read.get("steps_offset", schedule.steps_offset)
    if schedule.spacing == "leading" and mine != theirs:
        notice(
            f"a {PIPELINES[0]} is read with steps_offset {theirs}, by diffusers too, and this "
            f"schedule has {mine}: loaded again, the timesteps of its runs are others"
        )


def checked_target(folder: str | os.PathLike) -> Path:
    """A folder that is new, empty, or an earlier checkpoint of one file per part; InputError."""
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder):
        raise InputError(f"folder is {shown(folder)}; a path is allowed; name a new folder")
    target = Path(folder).expanduser()
    if target.exists() and not target.is_dir():
        raise InputError(f"folder {shown(str(folder))} is a file; name a new folder")
    if target.is_dir() and any(target.iterdir()):
        other = [path for path in target.glob("*/*") if ".safetensors.index" in path.name]
        if other or not (target / "model_index.json").is_file():
            raise InputError(
                f"folder {shown(str(folder))} is neither empty nor a checkpoint of one weights "
                "file per part, and nothing in it is deleted; name a new folder"
            )
    return target


def _part_config(model: LatentDiffusion, part: str, dtype: torch.dtype | None) -> dict:
    config = dict(model.config[part])
    if part.startswith("text_encoder"):  # transformers loads in the dtype that its config names
        config.pop("torch_dtype", None)
        (made,) = (CLASSES | SECOND)[part]
        config |= {"model_type": "clip_text_model", "architectures": [made]}
        config["dtype"] = str(dtype or model.dtype).removeprefix("torch.")
    else:
        config["_class_name"] = own_parts(model)[part].config.to_dict()["_class_name"]
    return config


def _write_weights(path: Path, state: dict[str, torch.Tensor], dtype: torch.dtype | None) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: t.detach().to("cpu", dtype or t.dtype).contiguous() for name, t in state.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise CheckpointError(
                f"cannot write {shown(str(path))}: {error}; the folder must be writable and have "
                "space; name another folder"
            ) from None


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    vocab, merges, config = tokenizer_files(tokenizer)
    write_json(folder / "vocab.json", vocab)
    write_text(folder / "merges.txt", merges)
    write_json(folder / "tokenizer_config.json", config)
