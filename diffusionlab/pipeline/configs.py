"""The configs of a checkpoint folder: which classes they may name, how large they may be."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shown
from .files import AGAIN, CONVERT, PICKLED_SUFFIXES, inside, place, read_json

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "LatentConsistencyModelPipeline",
)
SECOND = {  # what SDXL has besides
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
CLASSES = {  # part → the classes it may be of; None: any, only the config is read
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "scheduler": None,
}
CONFIGS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "scheduler": "scheduler/scheduler_config.json",
    "text_encoder_2": "text_encoder_2/config.json",
}
OTHERS = {  # how the class names of other families begin → what they are
    "StableDiffusion3": "Stable Diffusion 3, a diffusion transformer",
    "Flux": "Flux, a diffusion transformer",
    "PixArt": "PixArt, a diffusion transformer",
    "Sana": "Sana, a diffusion transformer",
    "Lumina": "Lumina, a diffusion transformer",
    "AuraFlow": "AuraFlow, a diffusion transformer",
    "Chroma": "Chroma, a diffusion transformer",
    "QwenImage": "Qwen-Image, a diffusion transformer",
    "ZImage": "Z-Image, a diffusion transformer",
    "HunyuanDiT": "Hunyuan-DiT, a diffusion transformer",
    "Kandinsky": "Kandinsky, whose U-Net reads image embeddings",
    "StableCascade": "Stable Cascade, two models one after the other",
    "Wuerstchen": "Wuerstchen, two models one after the other",
    "IFPipeline": "DeepFloyd IF, a model of pixels",
    "StableDiffusionXLInpaint": "SDXL for inpainting",
    "StableDiffusionInpaint": "Stable Diffusion for inpainting",
    "StableDiffusionUpscale": "an upscaler",
    "StableDiffusionLatentUpscale": "an upscaler",
    "StableDiffusionControlNet": "Stable Diffusion with a ControlNet",
}
LIBRARIES = ("diffusers", "transformers")
CODE_KEYS = ("auto_map", "custom_pipeline", "trust_remote_code")
LARGEST_INTEGER, MOST_LAYERS, LONGEST_LIST = 1_000_000, 64, 10_000


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json, its class names held against the closed tables; CheckpointError."""
    if not (path := inside(folder, "model_index.json", optional=True)):
        raise _no_index(folder)
    index = read_json(path)
    refuse_code(index, "model_index.json")
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        raise CheckpointError(
            f"model_index.json is of class {shown(name)}{other_family(name)}; supported: "
            f"{', '.join(PIPELINES)} (Stable Diffusion 1.x, 2.x and XL); use a checkpoint of such "
            "a class"
        )
    for part, allowed in classes_of(index).items():
        _check_class(part, index.get(part), allowed)
    return index


def classes_of(index: Mapping[str, Any]) -> dict[str, tuple[str, ...] | None]:
    """The parts that a checkpoint must have, by its model_index.json, with their classes."""
    return CLASSES | (SECOND if "XL" in index["_class_name"] else {})


def other_family(name: Any) -> str:
    """` (Flux, a diffusion transformer)` for a class of a known other family; else nothing."""
    known = (what for start, what in OTHERS.items() if str(name).startswith(start))
    return f" ({what})" if (what := next(known, None)) else ""


def _no_index(folder: Path) -> CheckpointError:
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        what = "is empty"
    elif "config.json" in names:
        kind = read_json(inside(folder, "config.json")).get("_class_name", "an unknown class")
        what = f"holds a single part ({shown(kind)}), not a whole model"
    elif any("lora" in name.lower() for name in names):
        what = "holds a LoRA, not a whole model"
    elif any(name.endswith(PICKLED_SUFFIXES) for name in names):
        what = f"holds pickled weights ({CONVERT})"
    else:
        what = f"has no model_index.json but {shown(names[:5])}"
    return CheckpointError(
        f"{place(folder)} {what}; a checkpoint folder in diffusers' layout has model_index.json "
        "beside unet/, vae/, text_encoder/, tokenizer/ and scheduler/; name that folder"
    )


def _check_class(part: str, value: Any, allowed: tuple[str, ...] | None) -> None:
    pair = isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)
    if not pair or value[0] not in LIBRARIES or (allowed and value[1] not in allowed):
        raise CheckpointError(
            f"model_index.json: {part} is {shown(value)}; supported are classes of "
            f"{' and '.join(LIBRARIES)}: {', '.join(allowed or ('any scheduler',))}; "
            "use another checkpoint (classes that a folder brings along are never run)"
        )


def refuse_code(config: Mapping[str, Any], where: str) -> None:
    """CheckpointError for a config that asks for code of its own to be run."""
    for key in CODE_KEYS:
        if config.get(key):
            raise CheckpointError(
                f"{where} has {key} = {shown(config[key])}; no code of a checkpoint is run; "
                "use a checkpoint without it"
            )


def read_configs(folder: Path) -> dict[str, Any]:
    """All configs of a checkpoint by part, bounded, before anything is built."""
    configs: dict[str, Any] = {"model_index": read_index(folder)}
    for part in classes_of(configs["model_index"]):
        if part in CONFIGS:
            # diffusers writes DPM-Solver's lambda_min_clipped, "no bound", as -Infinity
            endless = part == "scheduler"
            configs[part] = read_json(inside(folder, CONFIGS[part]), endless=endless)
            check_part_config(part, configs[part], CONFIGS[part])
    for key, name in (
        ("tokenizer", "tokenizer/tokenizer_config.json"),
        ("tokenizer_2", "tokenizer_2/tokenizer_config.json"),
        ("toyland", "toyland.json"),
    ):
        if path := inside(folder, name, optional=True):
            configs[key] = read_json(path)
            refuse_code(configs[key], name)
    return configs


def check_part_config(part: str, config: Mapping[str, Any], where: str) -> None:
    """CheckpointError for code, for numbers out of bounds, or for a class that is not supported."""
    refuse_code(config, where)
    check_bounds(config, where)
    allowed = (CLASSES | SECOND)[part]
    given = config.get("_class_name", (allowed or [None])[0])
    if allowed and given not in allowed:
        raise CheckpointError(
            f"{where} is of class {shown(given)}; supported: {', '.join(allowed)}; "
            "use a checkpoint of that class"
        )


def _entries(value: Any) -> list[Any]:
    """What a list holds, and the lists in it; a value alone."""
    rows = value if isinstance(value, list) else [value]
    return list(chain.from_iterable(row if isinstance(row, list) else [row] for row in rows))


def check_bounds(config: Mapping[str, Any], where: str) -> None:
    """CheckpointError for a number or a list so large that building from it could hurt."""
    for key, value in config.items():
        if key.startswith("_"):
            continue
        most = MOST_LAYERS if "layers" in key else LARGEST_INTEGER
        values = _entries(value)
        numbers = [v for v in values if isinstance(v, (int, float))]
        if len(values) > LONGEST_LIST or any(abs(v) > most for v in numbers):
            raise CheckpointError(
                f"{where}: {key} is {shown(value)}; numbers up to {most} and lists up to "
                f"{LONGEST_LIST} are allowed; {AGAIN}"
            )
