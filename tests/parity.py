"""What the parity tests share: the same random weights in two networks, compared block by block."""

from __future__ import annotations

import torch
from torch import nn

RTOL = 1e-4  # of the largest absolute value of the reference


def share_weights(ours: nn.Module, theirs: nn.Module, seed: int = 0) -> None:
    """Give the reference random weights, norms and biases included, and ours the same ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            spread = 0.2 if value.ndim == 1 else 1.5 * value[0].numel() ** -0.5
            value.normal_(0, spread, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.add_(1)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.eval(), theirs.eval()


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    """A seeded standard normal tensor."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def inner_outputs(module: nn.Module, call) -> dict[str, torch.Tensor]:
    """What every named submodule returned (the first tensor of it), and `call`'s result as ""."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name):
        def hook(_module, _given, made) -> None:  # an answer would replace the output
            seen.setdefault(name, first(made))

        return hook

    hooks = [
        part.register_forward_hook(keep(name)) for name, part in module.named_modules() if name
    ]
    try:
        result = call()
    finally:
        for hook in hooks:
            hook.remove()
    return seen | {"": first(result)}


def first(made) -> torch.Tensor:
    """The tensor of a module's answer, which may be a tuple or an output record."""
    if isinstance(made, torch.Tensor):
        return made
    if hasattr(made, "sample"):
        return made.sample
    return made[0] if isinstance(made, tuple) else torch.zeros(0)


def worst_difference(ours: dict, theirs: dict) -> tuple[float, str]:
    """The largest relative difference over all submodules that both have, and where it is.

    Tokens and pictures hold the same numbers, so a shape is compared by its size only where one
    network keeps (batch, width, h · w) and the other (batch, width, h, w).
    """
    found = [(0.0, "nowhere")]
    for name in ours.keys() & theirs.keys():
        mine, reference = ours[name], theirs[name]
        assert mine.numel() == reference.numel() > 0, f"{name}: {mine.shape}, {reference.shape}"
        gap = (mine.reshape(reference.shape) - reference).abs().max() / reference.abs().max()
        found.append((float(gap), name))
    return max(found, key=lambda pair: pair[0])


def assert_same(ours: dict, theirs: dict, blocks: set[str]) -> None:
    """Every submodule within RTOL, and at least these `blocks` among those compared."""
    missing = blocks - (ours.keys() & theirs.keys())
    assert not missing, f"not compared: {sorted(missing)}"
    gap, where = worst_difference(ours, theirs)
    assert gap <= RTOL, f"{where or 'the result'} differs by {gap:.2e} of the reference's maximum"


def blocks_of(module: nn.Module) -> set[str]:
    """The names of residual blocks, transformers, attentions and whole blocks of our network."""
    kinds = {"ResBlock", "Transformer", "TransformerBlock", "Attention", "SpatialAttention",
             "FeedForward", "DownBlock", "MidBlock", "UpBlock", "TimeEmbedding", "Downsample",
             "Upsample", "Middle", "Down", "Up", "Encoder", "Decoder", "Conv2d"}  # fmt: skip
    # Two kinds of layer are computed as a product on tokens: no call of theirs to compare.
    by_hand = ("proj_in", "proj_out")
    return {
        name
        for name, part in module.named_modules()
        if type(part).__name__ in kinds and not name.endswith(by_hand)
    } | {""}
