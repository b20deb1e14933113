"""The networks of a checkpoint one by one: built empty, held against their files, then filled.

A `Part` is a network before its weights are read. The configs of all parts must fit together before
the first byte of weights is read, and what a header says of its own file must be true. No memory is
given to a file that does not fit its network; one that needs none is read while that is made.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError, notice, shown
from ..models import (
    TINY,
    VAE,
    TinyVAE,
    TinyVAEConfig,
    UNet,
    UNetConfig,
    VAEConfig,
    rename_attention_of_2022,
)
from .configs import CONFIGS, SECOND, check_part_config
from .files import AGAIN, inside, place, read_json
from .hub import STEMS
from .tensors import open_tensors, stays_mapped
from .text import place_positions, rename_text_keys, text_encoder, text_settings
from .weights import compare_shapes, find_weights, has_weights

State = dict[str, torch.Tensor]
Settle = Callable[[Callable[[], bool]], None]  # `Weights.settle`


@dataclass(frozen=True, eq=False)
class Part(ABC):
    """One network of a model before its weights are read: its config, as written and as checked."""

    name: str
    config: dict[str, Any]
    settings: Any

    @cached_property
    def module(self) -> nn.Module:
        """The network, made when first asked for; empty (on the meta device) until it is `filled`.

        Errors: CheckpointError.
        """
        return empty_module(self.name, self.settings)

    @abstractmethod
    def read(
        self, device: torch.device, dtype: torch.dtype, submit: Callable[[Settle], Any]
    ) -> State:
        """The weights under the module's names, each of its shape; `submit` is told what settles.

        Errors: CheckpointError for a wrong header, or weights that are not the module's.
        """


@dataclass(frozen=True, eq=False)
class FolderPart(Part):
    """A part whose weights lie in a folder in diffusers' layout, in one file or in shards."""

    folder: Path
    stem: str
    variant: str | None

    def read(self, device, dtype, submit):
        """As `Part.read`; weights that stay mapped are being read while the module is made."""
        found = find_weights(self.folder, self.stem, self.variant)
        if self.name == "vae":
            found = rename_attention_of_2022(found)
        elif self.name.startswith("text_encoder"):
            found = rename_text_keys(found, self.module)
        if not (early := stays_mapped(found, device, dtype)):
            compare_shapes(self.name, found, shapes_of(self.module))
        weights = open_tensors(found, device=device, dtype=dtype)
        submit(weights.settle)
        if early:
            compare_shapes(self.name, found, shapes_of(self.module))
        return weights.tensors


def filled(
    parts: Mapping[str, Part],
    device: torch.device,
    dtype: torch.dtype,
    beside: Callable[[], Any] = lambda: None,
    allow_nonfinite: bool = False,
) -> Any:
    """Give the parts their weights, strictly; eval mode, no gradients. Returns what `beside` does.

    A thread reads, casts and checks the weights while the networks are built and `beside` runs.
    allow_nonfinite: weights that are not finite are told in a notice. Errors: CheckpointError, that
    of `beside` first; what is still to be read then is left.
    """
    stop, settled = Event(), []
    thread = ThreadPoolExecutor(1, thread_name_prefix="diffusionlab-weights")

    def submit(settle: Settle) -> None:
        settled.append(thread.submit(settle, stop.is_set))

    # weights made in inference mode could never be learnt again
    with torch.inference_mode(False), torch.no_grad():
        try:
            with resting_collector():
                for part in parts.values():
                    weights = part.read(device, dtype, submit)
                    give(part.module, weights)
                    if not isinstance(part.module, (UNet, VAE, TinyVAE)):
                        place_positions(part.module, device)
                    part.module.eval()
                result = beside()
            _tell_wrong([done.exception() for done in settled], allow_nonfinite)
        finally:
            stop.set()
            thread.shutdown(cancel_futures=True)
            settled.clear()  # with an error, whose traceback would hold the weights by them
        for part in parts.values():
            if isinstance(part.module, (VAE, TinyVAE)):
                arrange(part.module)
    return result


@contextmanager
def resting_collector() -> Iterator[None]:
    """Python's collector of reference cycles rests: what is made in here is made to stay.

    A model is some hundred thousand objects, which it would look through every seven hundred, and
    again when it is back, unless they count as old by then.
    """
    worked = gc.isenabled()
    gc.disable()
    try:
        yield
        if not gc.get_freeze_count():  # what somebody froze stays frozen
            gc.freeze()
            gc.unfreeze()  # among the oldest, whatever their age was
    finally:
        if worked:
            gc.enable()


def _tell_wrong(errors: list[BaseException | None], allow_nonfinite: bool) -> None:
    """Raise the first error, or tell it in a notice where weights need not be finite."""
    for error in filter(None, errors):
        try:
            if not (allow_nonfinite and isinstance(error, CheckpointError)):
                raise error
            what, _, _ = str(error).partition(";")
            notice(f"{what}; they are used as they are")
        finally:  # an error that names itself would hold all that was read until Python tidies up
            del error
            errors.clear()


def give(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put each tensor in the place of the empty weight of its name, as frozen weights, uncopied.

    Names and shapes were compared with the files' headers before. (`load_state_dict` compares them
    again, module by module: a tenth of the time that loading takes.) Errors: KeyError for a weight
    or a persistent buffer without a tensor, ValueError for a tensor without a place.
    """
    left = dict(tensors)
    stored = module.state_dict() if any(True for _ in module.buffers()) else {}
    for prefix, owner in module.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, _ in owner.named_parameters(recurse=False):
            owner.register_parameter(name, nn.Parameter(left.pop(start + name), False))
        for name, _ in owner.named_buffers(recurse=False):
            if start + name in stored:
                owner.register_buffer(name, left.pop(start + name))
    if left:
        raise ValueError(f"weights without a place: {sorted(left)[:3]}")


# --- the layout of a VAE -----------------------------------------------------------------------


def arrange(vae: VAE | TinyVAE) -> None:
    """channels_last, in which an autoencoder makes its numbers sooner.

    On a CPU the encoder and the decoder are copied when each is first used, so that loading copies
    nothing, and a decoder alone leaves the encoder mapped from its file.
    """
    halves = [vae.encoder, vae.decoder]
    if next(vae.parameters()).device.type != "cpu":
        vae.to(memory_format=torch.channels_last)
        return
    for rest in vae.children():
        if rest in halves:
            rest.register_forward_pre_hook(_in_channels_last)
        else:
            rest.to(memory_format=torch.channels_last)


def _in_channels_last(half: nn.Module, given: tuple) -> None:
    """Before half an autoencoder runs: its weights in channels_last, whoever lent them."""
    wanted = torch.channels_last
    if all(p.is_contiguous(memory_format=wanted) for p in half.parameters() if p.ndim == 4):
        return
    with torch.inference_mode(False):  # weights made in there could never be learnt again
        half.to(memory_format=wanted)


# --- from a folder -----------------------------------------------------------------------------


def open_part(name: str, folder: Path, config: Mapping[str, Any], variant: str | None) -> Part:
    """A network of a checkpoint folder by its config; errors: CheckpointError."""
    settings = settings_of(name, config)
    return FolderPart(name, dict(config), settings, folder, STEMS[name], variant)


def open_other(name: str, folder: Path, variant: str | None) -> Part:
    """A network that takes the place of a model's own: its folder, or a whole model's folder.

    The variant is taken where the folder has it. Errors: CheckpointError.
    """
    below = "" if inside(folder, "config.json", optional=True) else f"{name}/"
    if below and not inside(folder, CONFIGS[name], optional=True):
        raise CheckpointError(
            f"{place(folder)} has neither config.json nor {CONFIGS[name]}; {name}= takes the "
            "folder of such a part, or of a whole model, in diffusers' layout; name that folder"
        )
    config = read_json(inside(folder, f"{below}config.json"))
    check_part_config(name, config, f"{below}config.json")
    stem = below + Path(STEMS[name]).name
    there = variant if has_weights(folder, stem, variant) else None
    return FolderPart(name, config, settings_of(name, config), folder, stem, there)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a module's weights must have."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


# --- what a config describes -------------------------------------------------------------------


def settings_of(name: str, config: Mapping[str, Any]) -> Any:
    """A part's config, checked: UNetConfig, VAEConfig, TinyVAEConfig or CLIPTextConfig.

    Errors: CheckpointError.
    """
    with reading(CONFIGS[name]):
        if name == "unet":
            return UNetConfig.from_dict(config)
        if name == "vae":
            kind = TinyVAEConfig if config.get("_class_name") == TINY else VAEConfig
            return kind.from_dict(config)
        return text_settings(config)


def empty_module(name: str, settings: Any) -> nn.Module:
    """The network of checked settings on the meta device: no memory, whatever they ask for.

    Errors: CheckpointError.
    """
    with _Empty(), reading(CONFIGS[name]):
        if name == "unet":
            return UNet(settings)
        if name == "vae":
            return (TinyVAE if isinstance(settings, TinyVAEConfig) else VAE)(settings)
        return text_encoder(settings, projects=name in SECOND)


class _Empty(TorchFunctionMode):
    """Layers made in here are on the meta device, and draw no first weights there."""

    MADE = {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.tensor}
    STARTS = {nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, nn.init.constant_}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.STARTS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in self.MADE and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextmanager
def reading(where: str) -> Iterator[None]:
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
