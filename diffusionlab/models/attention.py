"""Attention and the transformer block between two residual blocks of the U-Net.

paper ↔ name (Vaswani et al. 2017, arXiv 1706.03762, Eq. 1): softmax(Q Kᵀ / √d) V, with
Q = `query` from the picture, K = `key` and V = `value` from the picture (self-attention, `attn1`)
or from the text (cross-attention, `attn2`), d = width of one head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..taps import AttentionTap, Tap
from .blocks import start_at_zero
from .conditioning import PreparedText


def mix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """softmax(Q Kᵀ / √d) V, each (batch, heads, tokens, width of a head).

    Fused, except where a CPU learns: there the fused product's way back costs more than all the
    convolutions of a small U-Net, so the probabilities are formed (softmax in float32).
    """
    if query.requires_grad and query.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    return F.scaled_dot_product_attention(query, key, value)


class Attention(nn.Module):
    """Multi-head attention; `context_width` is the text's width in cross-attention.

    The fused product never forms the probabilities; watched, they are computed beside it. `keys`
    and `values` are taps on what the context offers, (batch, heads, tokens, width of a head).
    Query, key and value are three products: side by side in one they were measured to win nothing
    (CPU, Stable Diffusion 1.5's widths: 0.98 to 1.02 of the time).
    """

    def __init__(
        self, width: int, heads: int, context_width: int | None = None, bias: bool = False
    ):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width or width, width, bias=bias)
        self.to_v = nn.Linear(context_width or width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.queries, self.keys, self.values = Tap(), Tap(), Tap()
        self.probabilities = AttentionTap()

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, width) to (batch, heads, tokens, width of a head)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the context offers: (batch, heads, tokens, width of a head) each."""
        return self.split(self.to_k(context)), self.split(self.to_v(context))

    def forward(self, x: torch.Tensor, size: tuple[int, int], context=None) -> torch.Tensor:
        """x (batch, height · width, width); context None, (batch, tokens, …) or a PreparedText."""
        query = self.queries(self.split(self.to_q(x)))
        if isinstance(context, PreparedText):
            key, value = context[self]
        else:
            key, value = self.keys_values(x if context is None else context)
        key, value = self.keys(key), self.values(value)
        mixed = mix(query, key, value)
        if self.probabilities.watched:
            mixed = self._watched(query, key, value, mixed, size)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))

    def _watched(self, query, key, value, mixed, size) -> torch.Tensor:
        """Show the probabilities to the watchers; compute explicitly if one replaced them."""
        replaced = self.probabilities(query, key, size)
        if replaced is None:
            return mixed
        rows, probabilities = replaced
        mixed = mixed.clone()
        mixed[rows] = probabilities.to(value.dtype) @ value[rows]
        return mixed


class GatedGELU(nn.Module):
    """GEGLU (Shazeer 2020, arXiv 2002.05202): half of the projection gates the other half."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU to four times the width and back; `net.1` is where others have dropout."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.ModuleList(
            [GatedGELU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward, each added to what was there."""

    def __init__(self, width: int, heads: int, context_width: int):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, heads)
        self.attn2 = Attention(width, heads, context_width)
        self.ff = FeedForward(width)

    def forward(self, x: torch.Tensor, size: tuple[int, int], text) -> torch.Tensor:
        x = x + self.attn1(self.norm1(x), size)
        x = x + self.attn2(self.norm2(x), size, text)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """A feature map read as height · width tokens, sent through transformer blocks and back.

    `proj_in` and `proj_out` are 1 × 1 convolutions in Stable Diffusion 1.x and linear layers in
    2.x; on tokens both are the same product, so both are computed as a linear layer.
    """

    def __init__(
        self, width: int, heads: int, context_width: int, layers: int, groups: int, linear: bool
    ):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        made = nn.Linear if linear else _pointwise
        self.proj_in, self.proj_out = made(width, width), made(width, width)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, heads, context_width) for _ in range(layers)
        )
        start_at_zero(self.proj_out)

    def forward(self, x: torch.Tensor, text) -> torch.Tensor:
        size = tuple(x.shape[-2:])
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (batch, height · width, width)
        tokens = on_tokens(self.proj_in, tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, size, text)
        tokens = on_tokens(self.proj_out, tokens)
        return x + tokens.transpose(1, 2).unflatten(2, size)  # (batch, width, height, width)


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


def on_tokens(layer: nn.Linear | nn.Conv2d, tokens: torch.Tensor) -> torch.Tensor:
    """A linear layer or a 1 × 1 convolution on (batch, tokens, width)."""
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)
