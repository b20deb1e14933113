"""How the U-Net is built: what its parts cost, and which blocks its skip connections join."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from diffusionlab.analysis.latents import Residual
from diffusionlab.errors import InputError, shown
from diffusionlab.trace import Anatomy

KINDS = ("convolution", "linear", "attention")


def short_name(name: str) -> str:
    """`down 0` for down_blocks.0, `in` for conv_in, `mid` for mid_block."""
    if name == "skip":  # the first one, of what comes in
        return "in skip"
    plain = name.removeprefix("conv_").replace("_embedding", "").replace("_blocks.", " ")
    return plain.replace("_block", "").replace(".output", "").replace(".skips.", " skip ")


@dataclass(frozen=True)
class Costs:
    """Shares of one network call and of the weights: each block's, and each kind of operation's.

    `flops` and `parameters` have one entry per name and sum to 1, as `kinds` does; `check` is
    whether the operations of the kinds add up to those of the blocks.
    """

    names: tuple[str, ...]
    flops: tuple[float, ...]
    parameters: tuple[float, ...]
    kinds: dict[str, float]
    check: Residual


def costs(anatomy: Anatomy) -> Costs:
    """What each block costs, in the order of computation. Raises InputError for no blocks."""
    if not anatomy.blocks or anatomy.flops <= 0 or anatomy.parameters <= 0:
        raise InputError(
            f"the anatomy of {shown(anatomy.model)} has {len(anatomy.blocks)} blocks, "
            f"{anatomy.flops} operations and {anatomy.parameters} parameters; every count must be "
            "above 0: make it with anatomy(model)"
        )
    kinds = Counter(dict.fromkeys(KINDS, 0))
    for block in anatomy.blocks:
        kinds.update(block.flops_by_kind)
    off = max(abs(sum(b.flops_by_kind.values()) - b.flops) / anatomy.flops for b in anatomy.blocks)
    return Costs(
        names=tuple(short_name(block.name) for block in anatomy.blocks),
        flops=tuple(block.flops / anatomy.flops for block in anatomy.blocks),
        parameters=tuple(block.parameters / anatomy.parameters for block in anatomy.blocks),
        kinds={kind: count / anatomy.flops for kind, count in kinds.items()},
        check=Residual(off, 1e-9, "the kinds sum to the block"),
    )


@dataclass(frozen=True)
class Join:
    """The skip connections of one shape between two blocks, by their places among the blocks."""

    source: int
    target: int
    shape: tuple[int, int, int]
    count: int


def joins(anatomy: Anatomy) -> tuple[Join, ...]:
    """The skip connections, those of one shape and way together, the shortest way first.

    Raises InputError if a skip names a block that is not there.
    """
    places = {block.name: i for i, block in enumerate(anatomy.blocks)}
    for skip in anatomy.skips:
        for name in (skip.source, skip.target):
            if name not in places:
                raise InputError(
                    f"skip {shown(skip.tap)} joins {shown(name)}; the blocks are "
                    f"{', '.join(places)}: make the record with anatomy(model)"
                )
    found = Counter((places[s.source], places[s.target], tuple(s.shape)) for s in anatomy.skips)
    made = [Join(*key, count) for key, count in found.items()]
    return tuple(sorted(made, key=lambda join: (join.target - join.source, join.source)))


def skip_check(anatomy: Anatomy) -> str:
    """What is wrong if not every residual block on the way up is fed with one skip, else nothing.

    (Ronneberger et al., arXiv 1505.04597, as in arXiv 2112.10752.)
    """
    wanted = sum(block.resnets for block in anatomy.blocks if block.kind == "up")
    found = len(anatomy.skips)
    return "" if found == wanted else f"CHECK FAILED: {found} skips, {wanted} needed"
