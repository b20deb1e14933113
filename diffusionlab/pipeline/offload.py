"""`offloaded`: a model whose parts take turns on a small accelerator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import partial, wraps

import torch
from torch import nn

from ..errors import InputError, shown
from ..running.lending import tensors_of
from .bundle import LatentDiffusion
from .devices import checked_device

ENTRANCES = ("prepare_text", "keys_values", "encode", "decode")  # besides calling a part


@dataclass(frozen=True, eq=False, repr=False)
class Offloaded(LatentDiffusion):
    """A model whose inputs belong on `place` while its weights wait in the computer's memory."""

    place: torch.device = torch.device("cpu")

    @property
    def device(self) -> torch.device:
        return self.place


@contextmanager
def offloaded(
    model: LatentDiffusion, device: str | torch.device | None = None
) -> Iterator[LatentDiffusion]:
    """A `with` block that gives the model with one part at a time on the device (None: the best).

    Load it with device="cpu" (and dtype="float16"), then run what the block gives: text encoders,
    U-Net and VAE are copied over when each is first used and freed when the next one is, so that
    the device holds the largest part instead of all. The pictures are the same to the last bit. The
    weights of the CPU stay where they are and are never copied back; after the block, whatever ends
    it, the model is as before. Errors: InputError for a device that is not here, or a model that is
    not on the CPU.
    """
    place = checked_device(device)
    if not isinstance(model, LatentDiffusion) or model.device.type != "cpu":
        raise InputError(
            f"model is {shown(model, 60)}; one whose weights are on the CPU is allowed: "
            'load it with device="cpu"'
        )
    turns = Turns([model.text_encoders, (model.unet,), (model.vae,)], place)
    given = {field.name: getattr(model, field.name) for field in fields(LatentDiffusion)}
    with turns.watched():
        yield Offloaded(**given, place=place)


class Turns:
    """Whose turn it is on the device; `take` is called whenever a group of parts is to be used."""

    def __init__(self, groups: list[tuple[nn.Module, ...]], place: torch.device):
        tensors = [[t for part in group for t in tensors_of(part)] for group in groups]
        self.own = [[(tensor, tensor.data) for tensor in group] for group in tensors]
        self.groups, self.present = groups, None
        self.place = torch.empty(0, device=place).device  # "cuda" is not equal to "cuda:0"

    def take(self, number: int) -> None:
        """Put a group on the device, after all others have left it."""
        if self.present == number and not self.at_home(*self.own[number][0]):
            return
        self.present = number
        for other in range(len(self.groups)):
            if other != number:
                self.send_home(other)
        with torch.inference_mode(False):
            for tensor, values in self.own[number]:
                if self.at_home(tensor, values):
                    tensor.data = self.moved(tensor.data)

    def at_home(self, tensor: torch.Tensor, values: torch.Tensor) -> bool:
        """Whether a tensor holds its own memory, or something else that is not on the device."""
        return tensor.device != self.place or tensor.data_ptr() == values.data_ptr()

    def moved(self, values: torch.Tensor) -> torch.Tensor:
        """A copy on the device."""
        return values.to(self.place, copy=True)

    def send_home(self, number: int) -> None:
        """Give a group its own memory again, which frees the device's copy."""
        for tensor, values in self.own[number]:
            tensor.data = values

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A `with` block in which every use of a part is preceded by its group's turn."""
        with ExitStack() as stack:
            for number, group in enumerate(self.groups):
                stack.callback(self.send_home, number)
                for part in group:
                    self.watch(stack, number, part)
                    part.arrive = partial(self.take, number)
                    stack.callback(vars(part).pop, "arrive", None)
            yield

    def watch(self, stack: ExitStack, number: int, part: nn.Module) -> None:
        """Take a turn at each of a part's entrances, until the stack is closed."""
        hook = part.register_forward_pre_hook(lambda part, given: self.take(number))
        stack.callback(hook.remove)
        for module in part.modules():
            for name in ENTRANCES:
                if hasattr(module, name):
                    stack.callback(vars(module).pop, name, None)
                    setattr(module, name, self.preceded(number, getattr(module, name)))

    def preceded(self, number: int, method: Callable) -> Callable:
        """The method, preceded by the turn of the group that it belongs to."""

        @wraps(method)
        def call(*given, **options):
            self.take(number)
            return method(*given, **options)

        return call
