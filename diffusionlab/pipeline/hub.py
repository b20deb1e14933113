"""Checkpoints from the Hugging Face hub: the configs first, then one set of weights, one commit."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shown
from .registry import elsewhere

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                   "special_tokens_map.json", "added_tokens.json")  # fmt: skip
CONFIG_FILES = [
    "model_index.json",
    "preview.json",
    "toyland.json",
    "scheduler/scheduler_config.json",
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")),
    *(f"{part}/{name}" for part in ("tokenizer", "tokenizer_2") for name in TOKENIZER_FILES),
]
TOWER = "image_encoder"  # CLIP's image tower, where model_index.json lists one (`embed_images`)
TOWER_CONFIGS = [f"{TOWER}/config.json", "feature_extractor/preprocessor_config.json"]
STEMS = {  # part → its weights without the extension
    "unet": "unet/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
    "text_encoder_2": "text_encoder_2/model",
}


def weight_files(variant: str | None = None, without: Iterable[str] = ()) -> list[str]:
    """The file names (with `?`) of one variant's weights, whole or in shards."""
    stems = [stem for part, stem in STEMS.items() if part not in set(without)]
    return [stem + ending for stem in stems for ending in weight_endings(variant)]


def weight_endings(variant: str | None = None) -> list[str]:
    """How one part's weights end: one file, or an index and shards; both orders of naming occur."""
    dotted, shard = f".{variant}" if variant else "", "-?????-of-?????"
    endings = [
        f"{dotted}.safetensors",
        f".safetensors.index{dotted}.json",
        f"{shard}{dotted}.safetensors",
    ]
    return [*endings, f"{dotted}{shard}.safetensors"] if variant else endings


def tower_files(index: Mapping[str, Any]) -> list[str]:
    """The files of CLIP's image tower, if a model_index.json lists one; it has no variants."""
    listed = index.get(TOWER)
    if not (isinstance(listed, list) and listed and all(listed)):
        return []
    return TOWER_CONFIGS + [f"{TOWER}/model{ending}" for ending in weight_endings()]


def download(
    repo: str,
    check: Callable[[Path], Mapping[str, Any]],
    *,
    revision: str | None = None,
    variant: str | None = None,
    without: Iterable[str] = (),
    **options: Any,
) -> Path:
    """The folder of a snapshot: configs, then `check(folder)`, then one variant's weights.

    `check` returns the content of model_index.json; the image tower comes along if that lists one.
    The weights come from the commit that the configs came from, plain ones for a part without the
    variant that others have; those of the parts in `without` are left where they are. options:
    cache_dir, local_files_only, token. CheckpointError with the next command for whatever the hub
    refuses.
    """
    found = _snapshot(repo, CONFIG_FILES, revision, options)
    files = CONFIG_FILES + tower_files(check(found)) + weight_files(variant, without)
    found = _snapshot(repo, files, found.name, options)
    parts = [p for p in STEMS if (found / p / "config.json").is_file() and p not in without]
    lacking = _without_weights(found, parts)
    if variant and lacking and lacking != parts:  # some have no such variant
        found = _snapshot(repo, weight_files(None, STEMS.keys() - lacking), found.name, options)
        lacking = _without_weights(found, lacking)
    if lacking:
        raise CheckpointError(
            f"of {shown(repo)} no {'.'.join(filter(None, (variant, 'safetensors')))} of "
            f"{', '.join(lacking)} is in the cache, nor in the repository if the hub was asked; "
            f"other kinds of file are not read; run {_call(repo, revision)} once where there is a "
            "network" + (", or leave variant= out" if variant else "")
        )
    return found


def _without_weights(folder: Path, parts: Iterable[str]) -> list[str]:
    return [part for part in parts if not any((folder / part).glob("*.safetensors"))]


def _call(repo: str, revision: str | None) -> str:
    """What fetches just the files that are read; `hf download` fetches every one there is."""
    at = f", revision={revision!r}" if revision else ""
    return f"`diffusionlab.load({repo!r}{at})`, with the other arguments as here,"


def download_part(
    part: str, repo: str, *, revision: str | None = None, variant: str | None = None, **options: Any
) -> Path:
    """The folder of a snapshot with one part in it, at its top or in its own folder.

    The variant is taken where the repository has it. Errors as `download`.
    """
    name = Path(STEMS[part]).name
    configs = ["config.json", f"{part}/config.json"]
    for wanted in dict.fromkeys((variant, None)):
        ends = weight_endings(wanted)
        files = [stem + end for stem in (name, STEMS[part]) for end in ends]
        folder = _snapshot(repo, configs + files, revision, options)
        if any(folder.glob("*.safetensors")) or any((folder / part).glob("*.safetensors")):
            break
    return folder


def download_tokenizer(repo: str, *, revision: str | None = None, **options: Any) -> Path:
    """The folder of a snapshot with a tokenizer's files; errors as `download`."""
    files = [f"{folder}{name}" for folder in ("", "tokenizer/") for name in TOKENIZER_FILES]
    return _snapshot(repo, files, revision, options)


def _snapshot(repo: str, files: list[str], revision: str | None, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    with _translated(repo, revision):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files, **options))


@contextmanager
def _translated(repo: str, revision: str | None) -> Iterator[None]:
    """The hub's errors as CheckpointError; the hub's own text, with its addresses, is left out."""
    from huggingface_hub import errors

    copies = f"; {_mirror(repo)}" if elsewhere(repo) else ""
    advice = {
        errors.GatedRepoError: "is gated; accept its licence on its page on huggingface.co, then "
        "run `hf auth login`, or pass token=",
        errors.RepositoryNotFoundError: "is neither a local folder nor on the hub (or it is "
        f"private); {_mirror(repo)}",
        errors.RevisionNotFoundError: f"has no revision {shown(revision)}; leave revision= out, "
        "or take a commit from its page",
        errors.OfflineModeIsEnabled: "is not in the cache and HF_HUB_OFFLINE is set; unset it and "
        f"run {_call(repo, revision)} once{copies}",
        errors.LocalEntryNotFoundError: "is not in the cache, and the hub was not asked or did not "
        f"answer; run {_call(repo, revision)} once where there is a network{copies}",
    }
    try:
        yield
    except Exception as error:  # what a connection that breaks off raises is of no one family
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise CheckpointError(
                f"{shown(repo)} does not fit on the disk; make room, or name another folder with "
                "cache_dir="
            ) from None
        causes = (error, error.__cause__)  # the hub says that it is offline in the cause alone
        found = (text for kind, text in advice.items() if any(isinstance(e, kind) for e in causes))
        text = next(
            found,
            f"could not be downloaded ({type(error).__name__}); run the same call again, "
            "which goes on where this one stopped",
        )
        raise CheckpointError(f"{shown(repo)} {text}") from None


def _mirror(repo: str) -> str:
    if copies := elsewhere(repo):
        return (
            f"if it was removed: {' or '.join(f'load({c!r})' for c in copies)} has the same weights"
        )
    return "check the spelling, or run `hf auth login` for a private one"
