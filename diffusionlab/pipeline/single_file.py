"""A whole model in one `.safetensors` file of the original layout (Stable Diffusion 1, 2, XL).

The header says what the file is (`families`). diffusers, if it is installed, knows how the original
names become its own: its converters run on empty tensors first, which holds every name and shape
against the configs, and then on mapped ones. Nothing is downloaded but, if asked, a tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, notice
from .bundle import LatentDiffusion
from .families import SD2, UNET, VAE, Family, configs_of, recognise
from .files import foreign, inside, place
from .folder import assembled, fit, read_schedule, read_tokenizers, refuse_strangers
from .hub import download_tokenizer
from .parts import Part, State, reading, settings_of, shapes_of
from .tensors import open_tensors
from .text import rename_text_keys
from .weights import FLOATING, Entry, compare_shapes, declared, read_header, some, torch_dtype

VOCABULARIES = (  # repositories with CLIP's vocabulary, which all three families share
    "openai/clip-vit-large-patch14",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-xl-base-1.0",
)


def read_single_file(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    others: Mapping[str, Part],
    tokenizer_folder: Path | None,
    prediction_type: str | None,
    allow_nonfinite: bool = False,
    hub: Mapping[str, Any],
) -> LatentDiffusion:
    """The model in a single file; `others` are parts that take the place of the file's own."""
    inside(path.parent, path.name)  # a FIFO or a device is not opened
    if what := foreign(path):
        raise CheckpointError(f"{place(path)} is {what}")
    entries = read_header(path)
    family = recognise(entries, place(path))
    said = prediction_type or _prediction_type(family, entries)
    shapes = {name: entry.shape for name, entry in entries.items()}
    with reading(place(path)):
        configs = configs_of(family, shapes, said, place(path))
    prefixes = {"unet": UNET, "vae": VAE} | {e.part: e.prefix for e in family.encoders}
    refuse_strangers(others, dict.fromkeys(prefixes))
    parts = {
        part: others.get(part) or _open(part, prefix, configs[part], family, entries)
        for part, prefix in prefixes.items()
    }
    fit(parts)
    schedule = read_schedule(configs["scheduler"])
    folder = tokenizer_folder or _cached_tokenizer(path, hub)
    configs |= {part: other.config for part, other in others.items()}
    configs |= _paddings(family) | {"name": path.stem}
    tokenizers = partial(read_tokenizers, folder, dict(configs), parts)
    return assembled(
        parts, tokenizers, schedule, None, configs, path, device, dtype, allow_nonfinite
    )


def _prediction_type(family: Family, names: Mapping[str, Entry]) -> str:
    """What the U-Net predicts: fine-tuners mark v with an empty tensor, the originals do not."""
    if "v_pred" in names:
        return "v"
    if family is SD2:
        notice(
            "a single file does not say what Stable Diffusion 2 predicts; v is assumed, as its "
            "768-pixel models do; for a 512-pixel base or turbo model pass prediction_type='eps'"
        )
    return family.prediction_type


# --- tokenizer ---------------------------------------------------------------------------------


def _paddings(family: Family) -> dict[str, Any]:
    """The tokenizers' configs: what a family pads with, whatever the vocabulary's folder says."""
    parts = zip(("tokenizer", "tokenizer_2"), family.encoders, strict=False)
    return {part: {"pad_token": encoder.pad, "added_tokens_decoder": {}} for part, encoder in parts}


def _cached_tokenizer(path: Path, hub: Mapping[str, Any]) -> Path:
    """A folder of the hub's cache with CLIP's vocabulary; the network is not asked."""
    for repo in VOCABULARIES:
        try:
            return download_tokenizer(repo, **dict(hub) | {"local_files_only": True})
        except CheckpointError:
            continue
    raise CheckpointError(
        f"{place(path)} is one file of weights, which holds no tokenizer, and no copy of CLIP's is "
        "in the cache; pass tokenizer= with a folder that has vocab.json and merges.txt, or "
        f"tokenizer={VOCABULARIES[0]!r} to download it"
    )


# --- weights -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _FilePart(Part):
    """A part of a single file: its tensors there, under their original names."""

    path: Path
    prefix: str
    entries: dict[str, Entry]

    def read(self, device, dtype, submit):
        """As `Part.read`; what the converters make is contiguous, and may be a copy."""
        self._match()
        weights, wrong = open_tensors(self.entries, device=device, dtype=dtype), []
        try:
            weights.settle()
        except CheckpointError as error:
            wrong.append(error)

        def settle(_stopped: Callable[[], bool]) -> None:
            if wrong:
                raise wrong[0]

        submit(settle)
        return {name: t.contiguous() for name, t in self._converted(weights.tensors).items()}

    def _match(self) -> None:
        """Headers only; CheckpointError unless names and shapes fit, once renamed."""
        where = place(self.path)
        with reading(where), torch.device("meta"):
            empty = {n: torch.empty(e.shape, dtype=torch_dtype(e))
                     for n, e in self.entries.items()}  # fmt: skip
            renamed = self._converted(dict(empty))
        if self.name == "unet":
            _refuse_unused(where, empty, renamed)
        found, stored = declared(renamed), {e.dtype for n, e in self.entries.items()
                                            if not n.endswith("position_ids")}  # fmt: skip
        others = " or ".join(sorted(stored - FLOATING.keys()))  # all are int8 in `empty`
        found = {n: replace(e, dtype=others) if e.dtype == "torch.int8" else e
                 for n, e in found.items()}  # fmt: skip
        compare_shapes(f"{where} ({self.name})", found, shapes_of(self.module))

    def _converted(self, state: State) -> State:
        """Tensors under diffusers' names."""
        return converted(self.name, self.prefix, state, self.config, self.module)


def _open(
    part: str, prefix: str, config: dict[str, Any], family: Family, entries: Mapping[str, Entry]
) -> Part:
    """A network of the file, empty; CheckpointError for a config that makes none."""
    mine = {name: entry for name, entry in entries.items() if name.startswith(prefix)}
    for encoder in family.encoders:
        if encoder.part == part and encoder.unused:  # Stable Diffusion 2 stops a layer early
            last = f"{prefix}transformer.resblocks.{config['num_hidden_layers']}."
            mine = {name: entry for name, entry in mine.items() if not name.startswith(last)}
    path = next(iter(mine.values())).path
    return _FilePart(part, config, settings_of(part, config), path, prefix, mine)


def _refuse_unused(where: str, given: State, made: State) -> None:
    used = {id(tensor) for tensor in made.values()}
    if unused := [name for name, tensor in given.items() if id(tensor) not in used]:
        raise CheckpointError(
            f"{where}: the U-Net has {some(unused)}, which Stable Diffusion's does not; "
            "use a file of such a model"
        )


def converted(
    part: str, prefix: str, state: State, config: Mapping[str, Any], module: nn.Module
) -> State:
    """Tensors of one part under diffusers' names; CheckpointError if diffusers is not there."""
    try:
        from diffusers.loaders import single_file_utils as theirs
    except ImportError:
        raise CheckpointError(
            "a single file in the original layout is renamed by diffusers, which is not installed; "
            "run `pip install 'diffusionlab[diffusers]'`, or load a folder in diffusers' layout"
        ) from None
    if part == "unet":
        return theirs.convert_ldm_unet_checkpoint(state, dict(config))
    if part == "vae":
        return theirs.convert_ldm_vae_checkpoint(state, dict(config))
    if prefix.endswith("transformer."):
        made = theirs.convert_ldm_clip_checkpoint(state)
    else:
        made = theirs.convert_open_clip_checkpoint(module, state, prefix=prefix)
    if part == "text_encoder":  # nobody reads its projection, which some tools write
        made.pop("text_projection.weight", None)
    return rename_text_keys(made, module)
