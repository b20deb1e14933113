"""Where a model runs and in which numbers: the accelerator if there is one, and float16 if large.

A device's own types only hold weights and latents; every number of a schedule is a Python float or
float64 on the CPU, so a device without float64 (MPS) needs no other path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..errors import InputError, shown

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LARGE = 100_000_000  # parameters of a U-Net that an accelerator runs in half precision


def checked_device(device: str | torch.device | None) -> torch.device:
    """A device that this machine has, None the accelerator; InputError names those it has."""
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


def checked_dtype(
    dtype: str | torch.dtype | None, device: torch.device | None = None
) -> torch.dtype | None:
    """A floating dtype by torch object or name, None kept (`best_dtype` decides); or InputError."""
    names = {str(known).removeprefix("torch."): known for known in DTYPES}
    if dtype is None:
        return None
    wanted = names.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if wanted not in DTYPES:
        raise InputError(f"dtype {shown(dtype)} is not supported; allowed are {', '.join(names)}")
    if wanted == torch.float64 and device is not None and device.type == "mps":
        raise InputError(
            "dtype float64 is not on Apple's GPU; float32, float16 and bfloat16 are; "
            'use one of those, or device="cpu"'
        )
    return wanted


def best_dtype(device: torch.device, unet: nn.Module) -> torch.dtype:
    """The dtype that fits a U-Net to a device where nobody asked for one.

    float32 on the CPU and for a U-Net of at most 100 million parameters (Toyland: the same picture
    everywhere); else float16, or bfloat16 where the config's `upcast_attention` says that float16
    overflows and the device has it. The VAE's `force_upcast` is honoured at each decode instead.
    """
    small = sum(weights.numel() for weights in unet.parameters()) <= LARGE
    if device.type == "cpu" or small:
        return torch.float32
    overflows = getattr(unet.config, "upcast_attention", False)
    return torch.bfloat16 if overflows and _has_bfloat16(device) else torch.float16


def _has_bfloat16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def bytes_of(modules: Iterable[Any]) -> int:
    """The memory of all weights and buffers."""
    parts = (t for module in modules for t in (*module.parameters(), *module.buffers()))
    return sum(tensor.numel() * tensor.element_size() for tensor in parts)
