"""The text encoder layer by layer, and CLIP's image tower where a checkpoint brings one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..conditioning import encoded
from ..errors import CheckpointError, InputError, shown
from ..images import to_image, to_rgb
from ..pipeline import LatentDiffusion
from ..pipeline.configs import check_bounds, refuse_code
from ..pipeline.files import AGAIN, inside, read_json
from ..pipeline.tensors import read_tensors
from ..pipeline.text import ACTIVATIONS
from ..pipeline.weights import compare_shapes, find_weights
from ..trace import TextLayers, Tokens, to_numpy

TOWER, PREPARING = "image_encoder/config.json", "feature_extractor/preprocessor_config.json"
VISION_KEYS = {
    "hidden_size": int,
    "intermediate_size": int,
    "projection_dim": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "num_channels": int,
    "image_size": int,
    "patch_size": int,
    "layer_norm_eps": float,
    "hidden_act": str,
}
PREPARING_DEFAULTS = {  # CLIP's own, where a config leaves one out
    "size": 224,
    "crop_size": 224,
    "resample": 3,  # bicubic, as Pillow counts
    "rescale_factor": 1 / 255,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
RESAMPLES = (0, 1, 2, 3, 4, 5)
BATCH = 16


# ---- the text encoder -------------------------------------------------------------------------
@torch.inference_mode()
def embed_layers(model: LatentDiffusion, tokens: Tokens, encoder: int = 0) -> TextLayers:
    """Run one text encoder and keep what stands between its layers, and where each token looked.

    The run is the one of `embed`, with the encoder's own padding: `final` is its `hidden[encoder]`,
    for SDXL the rows before the last layer, which stands in `hidden` all the same. The attention of
    each layer is softmax(query · key / √(head width)) over the tokens up to the row's own (arXiv
    1706.03762, Eq. 1), computed beside the encoder from its own queries and keys. The model is left
    as it was. Errors: InputError for anything but Tokens, and for an encoder that the model has
    not; NumericsError as `embed`.
    """
    if not isinstance(tokens, Tokens):
        raise InputError(
            f"tokens is {shown(tokens)}; what tokenize makes is read: pass tokenize(model, prompt)"
        )
    tower = _encoder(model, encoder)
    layers = getattr(tower, "text_model", tower).encoder.layers
    with _listening(layers) as (states, queries, keys):
        final, _ = encoded(model, tokens, encoder)  # (tokens, width)
    attention = [
        _attention(query, key, layer.self_attn)
        for query, key, layer in zip(queries, keys, layers, strict=True)
    ]
    return TextLayers(
        tokens=tokens,
        hidden=_plain(torch.stack(states)),
        final=_plain(final),
        attention=_plain(torch.stack(attention)),
        encoder=encoder,
        encoders=len(model.text_encoders),
    )


def _encoder(model: LatentDiffusion, number: int) -> nn.Module:
    count = len(model.text_encoders)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
        raise InputError(
            f"encoder is {shown(number)}; {model.name} has {count}, counted from 0: "
            f"0 to {count - 1} is allowed"
        )
    return model.text_encoders[number]


@contextmanager
def _listening(layers: Sequence[nn.Module]) -> Iterator[tuple[list, list, list]]:
    """Lists that fill with the layers' input and outputs, queries and keys, (tokens, width) each.

    The hooks are taken away when the block ends, however it ends.
    """
    states, queries, keys = [], [], []

    def keep(into: list):
        return lambda module, given, made: into.append(made[0])

    hooks = [layers[0].register_forward_pre_hook(lambda module, given: states.append(given[0][0]))]
    try:
        for layer in layers:
            hooks.append(layer.register_forward_hook(keep(states)))
            hooks.append(layer.self_attn.q_proj.register_forward_hook(keep(queries)))
            hooks.append(layer.self_attn.k_proj.register_forward_hook(keep(keys)))
        yield states, queries, keys
    finally:
        for hook in hooks:
            hook.remove()


def _attention(query: torch.Tensor, key: torch.Tensor, part: Any) -> torch.Tensor:
    """(heads, tokens, tokens) in float32, from query and key (tokens, width)."""
    query, key = (x.float().unflatten(-1, (part.num_heads, -1)).movedim(1, 0) for x in (query, key))
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)


def _plain(tensor: torch.Tensor) -> np.ndarray:
    return np.array(to_numpy(tensor.float()))


# ---- the image tower --------------------------------------------------------------------------
@torch.inference_mode()
def embed_images(model: LatentDiffusion, images: Sequence[Any]) -> np.ndarray:
    """CLIP's vector of each image, float32 (n, width), of length 1; its text is `embed(…).pooled`.

    `images` are PIL images or arrays (height, width, 3), of any size and mode; they are resized,
    cropped and scaled as the checkpoint's `feature_extractor` says (Radford et al. 2021, arXiv
    2103.00020). The tower is read from `model.path/image_encoder` by each call: hand over all
    images at once. Errors: InputError if the checkpoint has no image tower, or for what is no
    image; CheckpointError for anything wrong with its files.
    """
    pictures = _pictures(images)
    if model.path.is_file() or not inside(model.path, TOWER, optional=True):
        raise InputError(
            f"{model.name} has no image tower; checkpoints with a folder image_encoder have one, "
            "as toyland does, and those of Stable Diffusion 1.x and 2.x do not: use dl.load()"
        )
    preparing = PREPARING_DEFAULTS | _checked(model.path, PREPARING)
    tower = _read_tower(model)
    pixels = np.stack([_prepared(picture, preparing) for picture in pictures])
    _check_size(pixels, tower.config.image_size)
    batches = torch.from_numpy(pixels).to(model.device, model.dtype).split(BATCH)
    vectors = torch.cat([tower(pixel_values=batch).image_embeds for batch in batches])
    return _plain(torch.nn.functional.normalize(vectors.float(), dim=-1))


def _pictures(images: Sequence[Any]) -> list:
    """RGB images; one image alone is a list of one."""
    alone = hasattr(images, "getbands") or (isinstance(images, np.ndarray) and images.ndim == 3)
    listed = [images] if alone else list(images) if hasattr(images, "__iter__") else []
    if not listed or isinstance(images, (str, bytes)):
        raise InputError(
            f"images is {shown(images)}; a list of at least one PIL image is allowed, "
            "e.g. [trace.image]"
        )
    return [to_image(i) if isinstance(i, np.ndarray) else to_rgb(i) for i in listed]


def _checked(folder: Path, name: str) -> dict[str, Any]:
    config = read_json(inside(folder, name))
    refuse_code(config, name)
    check_bounds(config, name)
    return config


def _read_tower(model: LatentDiffusion) -> nn.Module:
    """The image tower with its weights, on the model's device, every file checked first."""
    config = _checked(model.path, TOWER)
    kind = config.get("model_type", "clip_vision_model")
    given = {key: config[key] for key in VISION_KEYS if config.get(key) is not None}
    wrong = [key for key, value in given.items() if type(value) not in (VISION_KEYS[key], int)]
    known = config.get("hidden_act", "quick_gelu") in ACTIVATIONS
    if kind != "clip_vision_model" or wrong or not known:
        told = {key: given[key] for key in wrong} or kind
        raise _no_tower(f"it has {shown(told)}, hidden_act {shown(config.get('hidden_act'))}")
    tower = _empty_tower(given)
    found = find_weights(model.path, "image_encoder/model")
    found = {name: e for name, e in found.items() if not name.endswith(".position_ids")}
    shapes = {name: tuple(tensor.shape) for name, tensor in tower.state_dict().items()}
    compare_shapes("image_encoder", found, shapes)
    tensors = read_tensors(found, device=model.device, dtype=model.dtype)
    tower.load_state_dict(tensors, strict=True, assign=True)
    places = tower.vision_model.embeddings
    places.position_ids = torch.arange(places.num_positions, device=model.device)[None]
    return tower.eval().requires_grad_(False)


def _empty_tower(config: Mapping[str, Any]) -> nn.Module:
    """On the meta device, which takes no memory whatever a config asks for."""
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    try:
        with torch.device("meta"):
            return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
    except Exception as error:  # the checks of transformers' configs raise a class of their own
        raise _no_tower(" ".join(str(error).split())) from None


def _no_tower(reason: str) -> CheckpointError:
    return CheckpointError(
        f"{TOWER} describes no CLIP image tower that can be built ({reason}); its values must be "
        f"those of transformers' CLIPVisionModelWithProjection; {AGAIN}"
    )


# ---- a picture as the tower reads it ----------------------------------------------------------
def _prepared(image: Any, preparing: Mapping[str, Any]) -> np.ndarray:
    """float32 (3, height, width): resized, cropped from the middle, scaled, as its config says."""
    if preparing.get("do_resize", True):
        size = _resized(image.size, preparing["size"])
        image = image.resize(size, resample=_known_resample(preparing["resample"]))
    if preparing.get("do_center_crop", True):
        image = _cropped(image, *_sides(preparing["crop_size"]))
    pixels = np.asarray(image, np.float32)
    if preparing.get("do_rescale", True):
        pixels = pixels * _floats(preparing, "rescale_factor", ())
    if preparing.get("do_normalize", True):
        pixels = pixels - _floats(preparing, "image_mean", (3,))
        pixels = pixels / _floats(preparing, "image_std", (3,), above=0)
    return pixels.transpose(2, 0, 1)


def _floats(
    preparing: Mapping[str, Any], key: str, shape: tuple[int, ...], above: float = -np.inf
) -> np.ndarray:
    """One number, or three, of the config."""
    try:
        found = np.asarray(preparing[key], np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0, np.float32)
    if found.shape != shape or not np.isfinite(found).all() or not (found > above).all():
        what = "three numbers are allowed" if shape else "a number is allowed"
        more = ", above 0" if above == 0 else ""
        raise _bad_preparing(f"{key} is {shown(preparing[key])}; {what}{more}")
    return found


def _resized(size: tuple[int, int], wanted: Any) -> tuple[int, int]:
    """(width, height) after the resize: of two given sides, or so that the shorter one is given."""
    if isinstance(wanted, dict) and "shortest_edge" not in wanted:
        height, width = _sides(wanted)
        return width, height
    edge = wanted["shortest_edge"] if isinstance(wanted, dict) else wanted
    if type(edge) is not int or edge < 1:
        raise _bad_preparing(f"size is {shown(wanted)}; a number of pixels is allowed")
    width, height = size
    return (edge, int(edge * height / width)) if width <= height else (
        int(edge * width / height), edge
    )  # fmt: skip


def _sides(wanted: Any) -> tuple[int, int]:
    """(height, width) of a config's entry: one number, or both by name."""
    sides = wanted if isinstance(wanted, dict) else {"height": wanted, "width": wanted}
    found = sides.get("height"), sides.get("width")
    if not all(type(side) is int and 0 < side <= 4096 for side in found):
        raise _bad_preparing(f"a size is {shown(wanted)}; numbers of pixels are allowed")
    return found


def _cropped(image: Any, height: int, width: int) -> Any:
    """The middle of the image; black where it is smaller, as CLIP's own processor does."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _known_resample(number: Any) -> int:
    if number not in RESAMPLES:
        raise _bad_preparing(f"resample is {shown(number)}; Pillow's 0 to 5 are allowed")
    return number


def _check_size(pixels: np.ndarray, side: int) -> None:
    if pixels.shape[1:] != (3, side, side):
        raise _bad_preparing(
            f"it makes pictures {pixels.shape[1:]}, but the image tower reads (3, {side}, {side})"
        )


def _bad_preparing(reason: str) -> CheckpointError:
    return CheckpointError(f"{PREPARING}: {reason}; {AGAIN}")
