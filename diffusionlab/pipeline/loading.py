"""`load`: from a name, a folder, a file or a hub id to a `LatentDiffusion`, every file checked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import CheckpointError, InputError, close_matches, notice, shown
from ..graphs import quickened
from ..levels import PREDICTION_TYPES
from ..running.memory import is_out_of_memory, memory_told
from .bundle import LatentDiffusion
from .configs import read_index
from .devices import checked_device, checked_dtype
from .files import PICKLED_SUFFIXES, place
from .folder import read_folder
from .hub import HUB_ID, download, download_part, download_tokenizer
from .parts import Part, open_other
from .registry import CHECKPOINTS, Checkpoint, named_by_the_end
from .single_file import read_single_file

_FILE_SUFFIXES = (*PICKLED_SUFFIXES, ".safetensors")


@memory_told("load")
def load(
    source: str | os.PathLike = "toyland",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    variant: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    token: str | None = None,
    vae: str | os.PathLike | None = None,
    unet: str | os.PathLike | None = None,
    text_encoder: str | os.PathLike | None = None,
    text_encoder_2: str | os.PathLike | None = None,
    tokenizer: str | os.PathLike | None = None,
    prediction_type: str | None = None,
    allow_nonfinite: bool = False,
    graphs: bool = False,
    compile: bool = False,  # noqa: A002
) -> LatentDiffusion:
    """Load a model: "toyland" (shipped), a name of `checkpoints()`, a folder, a file or a hub id.

    A folder is in diffusers' layout; a single `.safetensors` file in the original one, for which
    the optional package diffusers renames the weights. device: None takes the accelerator if there
    is one, else the CPU. dtype: None is float32 on the CPU and for small models such as Toyland,
    half precision for large ones on an accelerator (`best_dtype`); the weights are cast once,
    whatever the files hold. variant: e.g. "fp16" reads `….fp16.safetensors`. revision, cache_dir,
    local_files_only and token matter for hub ids only; a local path never touches the network, and
    an existing path wins over a name and a hub id.

    vae, unet, text_encoder, text_encoder_2: another such part, as a folder, a hub id or a name of
    `checkpoints()`; "taesd" is a tiny VAE. tokenizer: where its vocabulary lies. prediction_type
    ("eps", "v" or "x0") overrules the checkpoint's; a single file does not say it.
    allow_nonfinite: weights with NaN or infinity are told in a notice instead of refused, to see
    where they lead.

    graphs: replay each call of the U-Net from a CUDA graph, which is faster where the device waits
    for Python. compile: torch.compile its blocks. Where either cannot be, a notice says so.

    On the CPU, weights whose dtype is the wanted one stay mapped from their file: replace that
    file, but do not write into it, while the model is used.

    Errors: InputError for a wrong argument, CheckpointError for anything wrong with the files.
    Nothing is unpickled and no code of a checkpoint runs.
    """
    where = checked_device(device)
    kind = checked_dtype(dtype, where)
    if kind is not None:
        check_computes(where, kind)
    _check_words(variant, prediction_type)
    asked = {"vae": vae, "unet": unet, "text_encoder": text_encoder,
             "text_encoder_2": text_encoder_2}  # fmt: skip
    asked = {name: given for name, given in asked.items() if given is not None}
    hub = dict(cache_dir=cache_dir, local_files_only=local_files_only, token=token)
    entry = named(source)
    if entry:
        revision, asked = revision or entry.revision, entry.parts | asked
    others = {name: other_part(name, given, variant, hub) for name, given in asked.items()}
    options = dict(device=where, dtype=kind, others=others, prediction_type=prediction_type)
    options["allow_nonfinite"] = allow_nonfinite
    options["tokenizer_folder"] = _tokenizer_folder(tokenizer, hub)
    model = _read(source, entry.repo if entry else source, revision, variant, hub, options)
    return replace(model, unet=quickened(model.unet, graphs=graphs, compile=compile))


def _read(source, repo, revision, variant, hub: dict, options: dict) -> LatentDiffusion:
    """The model of a local file or folder, else of the repository."""
    if (path := local(source)) and not path.is_dir():
        return read_single_file(path, hub=hub, **options)
    if path:
        name = "toyland" if source == "toyland" else path.resolve().name
        return read_folder(path, name, variant=variant, **options)
    others = set(options["others"])
    path = download(repo, read_index, revision=revision, variant=variant, without=others, **hub)
    return read_folder(path, source, variant=variant, **options)


def _check_words(variant: Any, prediction_type: Any) -> None:
    if variant is not None and not (isinstance(variant, str) and variant.isalnum()):
        raise InputError(f"variant {shown(variant)}: a word such as 'fp16' is allowed; or leave it")
    if prediction_type not in (None, *PREDICTION_TYPES):
        raise InputError(
            f"prediction_type is {shown(prediction_type)}; allowed are "
            f"{', '.join(map(repr, PREDICTION_TYPES))}, or None for what the checkpoint says; "
            "leave it out"
        )


def check_computes(device: torch.device, dtype: torch.dtype) -> None:
    """InputError unless the device convolves and attends in this dtype; a notice if it is slow.

    Some builds of torch have no float16 on the CPU, and some accelerators no float64. Memory that
    runs out on a full card is raised as it is.
    """
    if (device.type, dtype) == ("cpu", torch.float32):
        return  # every build has it, and a process's first convolution takes its time
    try:
        ones = torch.ones(1, 1, 2, 2, dtype=dtype, device=device)
        made = F.group_norm(F.conv2d(ones, ones[..., :1, :1]), 1)
        F.scaled_dot_product_attention(made, ones, ones)
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"dtype {str(dtype).removeprefix('torch.')} cannot be computed with on {device} here "
            f"({shown(str(error))}); float32 always can; leave dtype out"
        ) from None
    # half the memory on every CPU, but few have instructions for it
    if device.type == "cpu" and dtype == torch.float16:
        notice("float16 is computed slowly on a CPU: float32 is faster, bfloat16 as small")


# --- where it lies -----------------------------------------------------------------------------


def named(source: Any) -> Checkpoint | None:
    """The registry's entry of a short name; an existing path of that name wins.

    Errors: CheckpointError for the name of a part.
    """
    entry = CHECKPOINTS.get(source) if isinstance(source, str) else None
    if entry is None or local(source):
        return None
    if entry.part:
        raise CheckpointError(
            f"{shown(source)} is a {entry.part} alone, not a whole model; it takes the place of a "
            f"model's own: load('sd15', {entry.part}={source!r})"
        )
    return entry


def local(source: Any) -> Path | None:
    """The path that a source names, if there is one; None for a name or a hub id.

    Errors: InputError for what is neither, CheckpointError for a path that does not exist.
    """
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise InputError(
            f"source is {shown(source)}; allowed are 'toyland', a name of checkpoints(), a folder, "
            "a .safetensors file, or a hub id 'org/name'"
        )
    if source == "toyland":
        from ..toyland import checkpoint

        return Path(checkpoint())
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{shown(str(source))} is no path: {error}; give a folder") from None
    if isinstance(source, str) and source in CHECKPOINTS:
        return None
    if isinstance(source, str) and HUB_ID.fullmatch(source) and path.suffix not in _FILE_SUFFIXES:
        return None
    meant = named_by_the_end(str(source)) or str(source)
    raise CheckpointError(
        f"there is no folder {shown(str(source))}; "
        f"{close_matches(meant, ['toyland', *CHECKPOINTS])}allowed are 'toyland', a name of "
        "checkpoints(), a folder in diffusers' layout, a .safetensors file, or a hub id "
        "'org/name'; check the path"
    )


def other_part(name: str, source: Any, variant: str | None, hub: dict[str, Any]) -> Part:
    """A part that takes the place of a model's own, not read yet; errors as `load`."""
    folder = local(source)
    if folder is None:
        entry = CHECKPOINTS.get(source)
        repo, revision = (entry.repo, entry.revision) if entry else (source, None)
        folder = download_part(name, repo, revision=revision, variant=variant, **hub)
    if not folder.is_dir():
        raise CheckpointError(
            f"{name}= names the file {place(folder)}; a part is read from a folder with "
            "config.json beside its weights, in diffusers' layout; name that folder"
        )
    return open_other(name, folder, variant)


def _tokenizer_folder(source: Any, hub: dict[str, Any]) -> Path | None:
    if source is None:
        return None
    folder = local(source) or download_tokenizer(source, **hub)
    if not folder.is_dir():
        raise CheckpointError(
            f"tokenizer= names the file {place(folder)}; a folder with vocab.json and merges.txt "
            "is read; name that folder"
        )
    return folder
