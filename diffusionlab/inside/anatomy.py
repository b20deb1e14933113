"""What a U-Net is built of: shapes, parameters and arithmetic of each block, without running it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..models import UNet
from ..models.attention import Transformer
from ..models.blocks import ResBlock
from ..models.conditioning import blank_text
from ..pipeline import LatentDiffusion
from ..stages import check_size
from ..taps import find_taps, recording
from ..trace import Anatomy, Block, Skip

KINDS = {
    "time_embedding": "time",
    "add_embedding": "time",
    "conv_in": "in",
    "mid_block": "mid",
    "conv_out": "out",
}
# What an operation's name holds → its kind; the rest are linear layers. (Batched products are
# those of attention.)
OPERATIONS = {"convolution": "convolution", "attention": "attention", "bmm": "attention"}


def anatomy(model: LatentDiffusion, height: int | None = None, width: int | None = None) -> Anatomy:
    """The blocks of the U-Net with their shapes, parameters and FLOPs, its skips and attention.

    height, width in pixels (None: the model's own). Counted by torch's FLOP counter on a copy
    without memory: products of attention included, a multiply-add as two. Errors: InputError.
    """
    sides = check_size(model, "height", height), check_size(model, "width", width)
    latent = (model.latent_channels, *(side // model.size_factor for side in sides))
    tokens = model.context_length
    with torch.device("meta"):
        unet = UNet(model.unet.config).eval()
        sample, time = torch.empty(1, *latent), torch.empty(1)
        text = blank_text(unet.config, tokens)
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [part.register_forward_hook(_shape_kept(shapes, name)) for name, part in _parts(unet)]
    patterns = [name for name in find_taps(unet) if "attn" not in name or "probab" in name]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), recording(unet, patterns, heads=True) as seen:
        unet(sample, time, text)
    with torch.no_grad(), counter:  # unwatched: the products of attention are counted once
        unet(sample, time, text)
    for hook in hooks:
        hook.remove()
    flops = {name.partition(".")[2]: found for name, found in counter.get_flop_counts().items()}
    blocks = tuple(_block(name, part, shapes[name], flops) for name, part in _parts(unet))
    last = sum(weights.numel() for weights in unet.conv_norm_out.parameters())
    blocks = (*blocks[:-1], replace(blocks[-1], parameters=blocks[-1].parameters + last))
    kinds = {k: {n: tuple(v[0].shape[1:4]) for n, v in seen.items() if f"{k}.prob" in n}
             for k in ("attn1", "attn2")}  # fmt: skip
    return Anatomy(model.name, latent, blocks, _skips(unet, seen), kinds["attn2"], kinds["attn1"],
                   tokens)  # fmt: skip


def _parts(unet: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks by name in the order of computation."""
    found = [("time_embedding", unet.time_embedding)]
    found += [("add_embedding", unet.add_embedding)] if hasattr(unet, "add_embedding") else []
    found += [("conv_in", unet.conv_in)]
    found += [(f"down_blocks.{i}", part) for i, part in enumerate(unet.down_blocks)]
    found += [("mid_block", unet.mid_block)] if unet.mid_block is not None else []
    found += [(f"up_blocks.{i}", part) for i, part in enumerate(unet.up_blocks)]
    return [*found, ("conv_out", unet.conv_out)]


def _shape_kept(shapes: dict, name: str):
    def keep(module, inputs, output) -> None:
        output = output[0] if isinstance(output, tuple) else output
        shapes[name] = tuple(output.shape[1:])

    return keep


def _block(name: str, part: nn.Module, shape: tuple, flops: dict) -> Block:
    counted: Counter = Counter()
    for operation, count in flops.get(name, {}).items():
        counted[_kind_of(str(operation))] += int(count)
    parts = list(part.modules())
    return Block(
        name=name,
        kind=KINDS.get(name) or name.partition("_")[0],
        shape=(*shape, 1, 1)[:3],
        parameters=sum(weights.numel() for weights in part.parameters()),
        flops=sum(counted.values()),
        flops_by_kind=dict(counted),
        resnets=sum(isinstance(p, ResBlock) for p in parts),
        transformers=sum(isinstance(p, Transformer) for p in parts),
    )


def _kind_of(operation: str) -> str:
    return next((kind for part, kind in OPERATIONS.items() if part in operation), "linear")


def _skips(unet: UNet, seen: dict) -> tuple[Skip, ...]:
    """Every skip in the order in which it is made; the last one made is the first one used."""
    made = [("skip", "conv_in")]
    for i, block in enumerate(unet.down_blocks):
        made += [
            (f"down_blocks.{i}.skips.{n}", f"down_blocks.{i}") for n in range(len(block.skips))
        ]
    used = [f"up_blocks.{i}" for i, b in enumerate(unet.up_blocks) for _ in b.resnets]
    return tuple(
        Skip(tap, tuple(seen[tap][0].shape[1:]), source, target)
        for (tap, source), target in zip(made, reversed(used), strict=True)
    )
