"""NaN and infinity: are there any, and in which module of a network did they arise."""

from __future__ import annotations

from typing import Any

import torch

from .taps import find_taps, unwatched


def all_finite(values: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; one without memory (meta) holds none."""
    return values.device.type == "meta" or bool(torch.isfinite(values).all())


def first_not_finite(network: torch.nn.Module, *inputs: Any, **options: Any) -> str:
    """The first module inside a network whose output is not finite when it is run on the inputs.

    "" where every module's is finite. The network is left as it was.
    """
    names = {module: name for name, module in network.named_modules() if name}
    found: list[str] = []

    def look(module, given, output) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        if not all(all_finite(part) for part in parts if isinstance(part, torch.Tensor)):
            found.append(names[module])

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        network(*inputs, **options)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def origin(network: torch.nn.Module, *inputs: Any) -> str:
    """In words: the module where it arises in the network by itself, else who watches its taps."""
    watched = [name for name, tap in find_taps(network).items() if tap.watched]
    with unwatched(network):
        part = first_not_finite(network, *inputs)
    if part:
        return f"first non-finite module: {part}; use float32, or check the weights"
    return (
        f"the network by itself makes none, so it is what a watcher put there: {len(watched)} taps "
        f"are watched, {', '.join(watched[:3])} …; check the intervention or leave its block"
    )
