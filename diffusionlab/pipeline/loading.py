"""`load`: from a name, a folder or a hub id to a `LatentDiffusion`, every file checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, InputError, close_matches, notice, shown
from ..images import Preview
from ..models import VAE, UNet, UNetConfig, VAEConfig, rename_attention_of_2022
from ..schedule import NoiseSchedule
from .bundle import LatentDiffusion
from .configs import CONFIGS, SECOND, read_configs, read_index
from .files import AGAIN, PICKLED_SUFFIXES, foreign, inside, place, read_json
from .hub import HUB_ID, STEMS, download
from .text import build_text_encoder, place_positions, read_tokenizer, rename_text_keys
from .weights import Entry, compare_shapes, find_weights, read_header, read_tensors

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SINGLE_FILES = (  # how keys of a single file begin → what the file is
    ("model.diffusion_model.", "a whole Stable Diffusion model in one file"),
    ("conditioner.embedders.", "a whole SDXL model in one file"),
    ("control_model.", "a ControlNet"),
    ("lora_", "a LoRA"),
    ("first_stage_model.", "a VAE"),
    ("text_model.", "a text encoder alone"),
    ("down_blocks.", "a U-Net alone"),
    ("encoder.", "a VAE alone"),
)


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
) -> LatentDiffusion:
    """Load a model: "toyland" (shipped), a folder in diffusers' layout, or a hub id "org/name".

    device: None takes the accelerator if there is one, else the CPU. dtype: None is float32 on
    every device, whatever the files hold; they are cast once. variant: e.g. "fp16" reads
    `….fp16.safetensors`. revision, cache_dir, local_files_only and token matter for hub ids only;
    a local path never touches the network, and an existing folder wins over a hub id.

    Errors: InputError for a wrong argument, CheckpointError for anything wrong with the files.
    Nothing is unpickled and no code of a checkpoint runs.
    """
    where, kind = checked_device(device), checked_dtype(dtype)
    if variant is not None and not (isinstance(variant, str) and variant.isalnum()):
        raise InputError(f"variant {shown(variant)}: a word such as 'fp16' is allowed; or leave it")
    folder, name = _find(
        source,
        variant=variant,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    return read_folder(folder, name, variant=variant, device=where, dtype=kind)


def checked_device(device: str | torch.device | None) -> torch.device:
    """A device that this machine has; InputError names those it has."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return accelerator or torch.device("cpu")
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        wanted = None
    here = [torch.device("cpu"), *([accelerator] if accelerator else [])]
    if wanted is None or wanted.type not in [d.type for d in here] or _beyond(wanted):
        names = ", ".join(repr(d.type) for d in here)
        raise InputError(f"device {shown(device)} is not on this machine; allowed are {names}")
    return wanted


def _beyond(device: torch.device) -> bool:
    count = 1 if device.type == "cpu" else torch.accelerator.device_count()
    return device.index is not None and device.index >= count


def checked_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """A floating dtype, by torch object or name; InputError names the allowed ones."""
    names = {str(known).removeprefix("torch."): known for known in DTYPES}
    if dtype is None:
        return torch.float32
    wanted = names.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if wanted not in DTYPES:
        raise InputError(f"dtype {shown(dtype)} is not supported; allowed are {', '.join(names)}")
    return wanted


# --- where the folder is -----------------------------------------------------------------------


def _find(source: str | os.PathLike, **options: Any) -> tuple[Path, str]:
    """The checkpoint's folder and the model's name."""
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source):
        raise InputError(
            f"source is {shown(source)}; allowed are 'toyland', a folder, or a hub id 'org/name'"
        )
    if source == "toyland":
        from ..toyland import checkpoint

        return Path(checkpoint()), "toyland"
    try:
        path = Path(source).expanduser()
        exists, folder = path.exists(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{shown(str(source))} is no path: {error}; give a folder") from None
    if folder:
        return path, path.resolve().name
    if exists:
        raise single_file(path)
    if isinstance(source, str) and HUB_ID.fullmatch(source) and path.suffix not in _FILE_SUFFIXES:
        return download(source, read_index, **options), source
    raise CheckpointError(
        f"there is no folder {shown(str(source))}; {close_matches(str(source), ['toyland'])}"
        "allowed are 'toyland', a folder in diffusers' layout, or a hub id 'org/name'; "
        "check the path"
    )


_FILE_SUFFIXES = (*PICKLED_SUFFIXES, ".safetensors")


def single_file(path: Path) -> CheckpointError:
    """Why a single file is refused: what it is, by its content, and what to do instead."""
    inside(path.parent, path.name)  # a FIFO or a device is not opened
    if what := foreign(path):
        return CheckpointError(f"{place(path)} is {what}")
    names = list(read_header(path))
    kinds = [what for start, what in SINGLE_FILES if any(n.startswith(start) for n in names)]
    kinds += ["a LoRA"] if any(".lora_" in n for n in names) else []
    return CheckpointError(
        f"{place(path)} is a single safetensors file ({(kinds or ['of an unknown model'])[0]}); "
        "a folder in diffusers' layout is read; convert it with diffusers' "
        "from_single_file(...).save_pretrained(folder), or download the folder"
    )


# --- parts -------------------------------------------------------------------------------------


def read_folder(
    folder: Path, name: str, *, variant: str | None, device: torch.device, dtype: torch.dtype
) -> LatentDiffusion:
    """The model in a folder: configs, then every header, then (only if all fits) the weights."""
    configs = read_configs(folder)
    with _reading(CONFIGS["scheduler"]):
        schedule = NoiseSchedule.from_config(configs["scheduler"])
    modules = empty_parts(configs)
    unet, vae = modules["unet"], modules["vae"]
    encoders = tuple(modules[part] for part in modules if part.startswith("text_encoder"))
    check_fit(unet, vae, encoders)
    found = match_weights(folder, modules, variant)
    tokenizers = read_tokenizers(folder, configs, encoders)
    preview = read_preview(folder, unet.config.in_channels)
    for part, module in modules.items():
        fill(module, found[part], device, dtype)
    for encoder in encoders:
        place_positions(encoder, device)
    vae.to(memory_format=torch.channels_last)  # the same numbers, decoded sooner
    _tell_unread(configs["model_index"])
    configs["name"] = name
    first, *rest = tokenizers
    return LatentDiffusion(first, encoders, unet, vae, schedule, preview, configs, folder, *rest)


def read_tokenizers(
    folder: Path, configs: Mapping[str, Any], encoders: tuple[nn.Module, ...]
) -> list[Any]:
    """One tokenizer for each text encoder; CheckpointError unless they fit."""
    made = []
    for encoder, part in zip(encoders, ("tokenizer", "tokenizer_2"), strict=False):
        context = encoder.config.max_position_embeddings
        made.append(read_tokenizer(folder, configs.get(part, {}), context, part))
        check_vocabulary(made[-1], encoder)
    if any(tokenizer.get_vocab() != made[0].get_vocab() for tokenizer in made):
        raise CheckpointError(
            "tokenizer/ and tokenizer_2/ have different vocabularies; only their padding may "
            f"differ; {AGAIN}"
        )
    return made


def empty_parts(configs: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks on the meta device, which takes no memory whatever a config asks for."""
    with torch.device("meta"), _reading(CONFIGS["unet"]):
        unet = UNet(UNetConfig.from_dict(configs["unet"]))
    with torch.device("meta"), _reading(CONFIGS["vae"]):
        vae = VAE(VAEConfig.from_dict(configs["vae"]))
    parts = {"unet": unet, "vae": vae}
    for part in ("text_encoder", "text_encoder_2"):
        if part in configs:
            with _reading(CONFIGS[part]):
                parts[part] = build_text_encoder(configs[part], projects=part in SECOND)
    return parts


def match_weights(
    folder: Path, modules: Mapping[str, nn.Module], variant: str | None
) -> dict[str, dict[str, Entry]]:
    """The weights of every part, from headers only; CheckpointError unless names and shapes fit."""
    found = {part: find_weights(folder, STEMS[part], variant) for part in modules}
    found["vae"] = rename_attention_of_2022(found["vae"])
    for part, module in modules.items():
        if part.startswith("text_encoder"):
            found[part] = rename_text_keys(found[part], module)
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        compare_shapes(part, found[part], shapes)
    return found


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Whatever a config makes a builder raise comes out as a CheckpointError naming the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        raise CheckpointError(
            f"{where} describes no model that can be built ({type(error).__name__}: "
            f"{shown(str(error))}); its values must be those of diffusers' class; {AGAIN}"
        ) from error


def fill(
    module: nn.Module, found: Mapping[str, Entry], device: torch.device, dtype: torch.dtype
) -> None:
    """Give an empty module its weights, strictly; eval mode, no gradients."""
    tensors = read_tensors(found, device=device, dtype=dtype)
    module.load_state_dict(tensors, strict=True, assign=True)
    module.eval().requires_grad_(False)


def check_fit(unet: UNet, vae: VAE, encoders: tuple[nn.Module, ...]) -> None:
    """CheckpointError if the parts of a folder cannot work together."""
    channels, latent = unet.config.in_channels, vae.config.latent_channels
    if channels != latent:
        what = " (an inpainting model)" if channels == 2 * latent + 1 else ""
        raise CheckpointError(
            f"the U-Net takes {channels} channels{what} and the VAE makes {latent}; text-to-image "
            "models take what the VAE makes; use such a checkpoint"
        )
    wanted = unet.config.cross_attention_dim
    width = sum(encoder.config.hidden_size for encoder in encoders)
    if wanted != width:
        who = "the text encoder writes" if len(encoders) == 1 else "the text encoders write"
        raise CheckpointError(
            f"the U-Net reads text of width {shown(wanted)} and {who} {width}; "
            "they must be equal; take all parts from one checkpoint"
        )
    pooled, last = unet.config.pooled_width, encoders[-1].config
    if pooled and (len(encoders) != 2 or last.projection_dim != pooled):
        raise CheckpointError(
            f"the U-Net is told {pooled} numbers of pooled text (SDXL), and {len(encoders)} text "
            f"encoder(s) write {last.projection_dim}; take all parts from one checkpoint"
        )


def check_vocabulary(tokenizer: Any, encoder: nn.Module) -> None:
    """CheckpointError if the tokenizer knows ids for which the encoder has no row."""
    if len(tokenizer) > encoder.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} ids and the text encoder "
            f"{encoder.config.vocab_size} rows; every id needs one; take both from one checkpoint"
        )


def read_preview(folder: Path, channels: int) -> Preview | None:
    """The linear latent → RGB map of preview.json, or None where a checkpoint has none."""
    if not (path := inside(folder, "preview.json", optional=True)):
        return None
    with _reading("preview.json"):
        preview = Preview.from_json(read_json(path))
        if preview.weight.shape != (3, channels):
            raise ValueError(f"weight of shape {preview.weight.shape} for {channels} channels")
        return preview


def _tell_unread(index: Mapping[str, Any]) -> None:
    part = index.get("safety_checker")
    if isinstance(part, list) and part and part[0]:
        notice("the checkpoint's safety_checker is not loaded: pictures are shown unfiltered")
