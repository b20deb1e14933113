"""Comparing our network with diffusers' of the same weights, submodule by submodule."""

from __future__ import annotations

import math
import re

import torch
from torch import nn

TOLERANCE = 1e-4  # of the largest absolute value of the reference's output, float32

# Submodules with a tensor of their own in both networks; containers and our shortcuts (1 × 1
# convolutions computed on tokens, SiLU, dropout) are not modules to compare.
COMPARED = re.compile(
    r"(^|\.)(conv_in|conv_out|conv_norm_out|(time|add)_embedding|cond_proj|linear_[12]|(down|up)_blocks\.\d+|"
    r"mid_block|resnets\.\d+|attentions\.\d+|transformer_blocks\.\d+|attn[12]|ff|norm[123]?|"
    r"conv[12]?|conv_shortcut|time_emb_proj|to_[qkv]|group_norm|(down|up)samplers\.0|"
    r"quant_conv|post_quant_conv|encoder|decoder)$"
)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with every parameter moved at random: no norm stays the identity."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += (
                0.1
                * parameter.std(correction=0).clamp_min(0.2)
                * torch.randn(parameter.shape, generator=draws)
            )
    return module.eval()


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    """Standard normal numbers of a fixed seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def outputs(module: nn.Module, call) -> dict[str, torch.Tensor]:
    """The last output of every compared submodule, and of the whole as `""`, while `call` runs."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name):
        def hook(_, __, output):
            value = output if isinstance(output, torch.Tensor) else output[0]
            # (batch, channels, places) for every map: some layers of diffusers see it flat.
            seen[name] = value.flatten(2) if value.ndim == 4 else value

        return hook

    parts = {name: part for name, part in module.named_modules() if COMPARED.search(name)}
    hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        seen[""] = call(module)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def worst_differences(ours: dict, theirs: dict) -> dict[str, float]:
    """max |ours − theirs| / max |theirs| by submodule; infinite where one has no such output."""
    worst = {}
    for name, reference in theirs.items():
        made = ours.get(name)
        if made is None or made.shape != reference.shape:
            worst[name] = math.inf
        else:
            worst[name] = ((made - reference).abs().max() / reference.abs().max()).item()
    return worst


def wrong(ours: dict, theirs: dict) -> dict[str, float]:
    """The submodules that disagree, first in the order in which the reference ran them."""
    differences = worst_differences(ours, theirs)
    return {name: value for name, value in differences.items() if not value <= TOLERANCE}
