"""Compiling what lies between the taps of a U-Net with torch.compile: optional, never required.

Taps have to show the very tensors of the ordinary way, recorded or not, so no compiled piece may
hold one. Residual blocks and feed-forwards hold none; they are most of the small kernels, which the
compiler joins. The first call of each shape takes a minute or so.
"""

from __future__ import annotations

import torch

from .errors import notice
from .models import UNet
from .models.attention import FeedForward
from .models.blocks import ResBlock

MOST_KINDS = 64  # compiled versions of one function: U-Nets have a dozen kinds of residual block


def compiled(unet: UNet) -> UNet:
    """The same U-Net with its tap-free parts compiled; as it was, with a notice, if none can be.

    Results agree with those of the ordinary way up to rounding.
    """
    if reason := why_not(next(unet.parameters()).device):
        notice(f"torch.compile does not work here ({reason}); the network runs the ordinary way")
        return unet
    limits = torch._dynamo.config  # of the whole process; there is no narrower place
    limits.recompile_limit = max(limits.recompile_limit, MOST_KINDS)
    for part in unet.modules():
        if isinstance(part, (ResBlock, FeedForward)):
            part.compile(dynamic=False)
    return unet


def why_not(device: torch.device) -> str:
    """What hinders torch.compile on a device, found by compiling one addition; "" for nothing."""
    try:
        with torch.no_grad():
            torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # whatever a missing or broken compiler raises
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return (lines or [type(error).__name__])[0][:200]
    return ""
