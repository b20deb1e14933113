"""What a run will cost in arithmetic, memory and time, before it is run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from ..budget import Counts, recording_size
from ..conditioning import check_guidance
from ..errors import InputError, shown
from ..models.conditioning import blank_text
from ..pipeline import LatentDiffusion
from ..pipeline.devices import bytes_of
from ..pipeline.offload import Offloaded
from ..running.ledger import Price, matmul_rate, price
from ..running.lending import HALVES, tensors_of
from ..running.memory import free_memory
from ..running.tiles import tile_cells, tile_count
from ..samplers import Sampler, as_sampler, make_plan
from ..stages import check_size
from ..trace import Guidance, as_guidance
from ..trace.estimate import Estimate, StageCost

SHARE = 0.5  # of a large matrix product's rate that convolutions and small products reach


def estimate(
    model: LatentDiffusion,
    *,
    num_steps: int = 20,
    sampler: str | Sampler = "ddim",
    spacing: str | None = None,
    guidance_scale: float | Guidance = 4.0,
    height: int | None = None,
    width: int | None = None,
    record: Iterable[str] = ("predictions",),
    tile: int | None = None,
    rate: float | None = None,
) -> Estimate:
    """What `generate` with these arguments will take: FLOPs, bytes on the device, seconds.

    The networks are run on tensors without memory, so the size may be far beyond this machine.
    Bytes are those of torch's own tensors at the worst moment, half precision and float32 decoding
    included; kernels may want up to about a third more. `tile` is the side in pixels of the pieces
    that `decode` is to work in (None: whole). `rate` in FLOP a second stands in for a matrix
    product measured here for a fifth of a second; networks are assumed to reach half of it.
    Errors: InputError as `generate`.
    """
    if rate is not None and not (isinstance(rate, (int, float)) and 0 < rate < float("inf")):
        raise InputError(f"rate is {shown(rate)}; FLOP a second above 0, or None to measure it")
    size = check_size(model, "height", height), check_size(model, "width", width)
    cells = None if tile is None else tile_cells(tile, model.size_factor)
    kept = recording_size(model, record=record, num_steps=num_steps, sampler=sampler,
                          spacing=spacing, guidance_scale=guidance_scale, height=size[0],
                          width=size[1])  # fmt: skip
    plan = make_plan(as_sampler(sampler), model.schedule.levels(num_steps, spacing), model.schedule)
    check_guidance(model, guidance := as_guidance(guidance_scale))
    guidance = Guidance(1.0) if model.embeds_guidance else guidance
    counts, latent = Counts.of(plan, guidance), [side // model.size_factor for side in size]
    pictures = 1 + counts.steps * ("frames" in record)
    return Estimate(
        model=model.name,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        size=size,
        num_steps=len(plan),
        stages=(
            _texts(model),
            _network(model, latent, counts),
            _pictures(model, latent, cells, pictures),
        ),
        record=kept.total,
        rate=rate or matmul_rate(model.device, model.dtype),
        share=SHARE,
        free=_free(model),
        offloaded=isinstance(model, Offloaded),
        measured=rate is None,
    )


def _free(model: LatentDiffusion) -> int | None:
    """The device's free bytes; the part of an offloaded model that is there will make room."""
    free = free_memory(model.device)
    if free is None or not isinstance(model, Offloaded):
        return free
    parts = *model.text_encoders, model.unet, model.vae
    tensors = (tensor for part in parts for tensor in tensors_of(part))
    return free + sum(t.nbytes for t in tensors if t.device.type != "cpu")


# ---- the three stages ----------------------------------------------------------------------------
def _texts(model: LatentDiffusion) -> StageCost:
    """The prompt and the negative prompt through every text encoder."""
    found = []
    for encoder in model.text_encoders:
        empty = _empty(encoder)
        ids = torch.zeros(1, model.context_length, dtype=torch.long, device="meta")
        found.append(price(lambda e=empty, i=ids: e(input_ids=i, output_hidden_states=model.is_xl)))
    flops = 2 * sum(each.flops for each in found)
    most = max(each.peak for each in found)
    return StageCost("embed", 2 * len(found), flops, bytes_of(model.text_encoders), most)


def _network(model: LatentDiffusion, latent: list[int], counts: Counts) -> StageCost:
    """All calls of the U-Net; guided ones are batches of two."""
    one = _call_of_unet(model, latent, 1)
    rows = 2 if counts.guided else 1
    largest = one if rows == 1 else _call_of_unet(model, latent, rows)
    flops = one.flops * (counts.calls + counts.guided)
    return StageCost("predict", counts.calls, flops, bytes_of([model.unet]), largest.peak)


def _call_of_unet(model: LatentDiffusion, latent: list[int], rows: int) -> Price:
    """One call with so many rows; the text is prepared before, as in a run, and stays alive."""
    unet = _empty(model.unet)
    with torch.device("meta"):
        sample = torch.zeros(rows, model.latent_channels, *latent, dtype=model.dtype)
        time, blank = torch.zeros(()), blank_text(unet.config, model.context_length, rows)
    text = replace(blank, hidden=blank.hidden.to(model.dtype))
    if text.pooled is not None:
        text = replace(text, pooled=text.pooled.to(model.dtype))
    kept: list = []
    prepared = price(lambda: kept.append(unet.prepare_text(text)))
    called = price(lambda: unet(sample, time, kept[-1]).float())
    return Price(called.flops, called.peak + prepared.peak)


def _pictures(
    model: LatentDiffusion, latent: list[int], cells: int | None, count: int
) -> StageCost:
    """The decoder, in the precision that it is run in; a cast copy of its weights counts too."""
    vae = _empty(model.vae)
    upcast = next(vae.parameters()).dtype in HALVES and getattr(vae.config, "force_upcast", False)
    vae = vae.float() if upcast else vae
    dtype = next(vae.parameters()).dtype
    tiles = 1 if cells is None else tile_count(tuple(latent), cells)
    sides = latent if tiles == 1 else [min(side, cells) for side in latent]
    values = torch.zeros(1, model.latent_channels, *sides, dtype=dtype, device="meta")
    one = price(lambda: vae.decode(values))
    picture = 3 * latent[0] * latent[1] * model.size_factor**2 * dtype.itemsize
    extra = (bytes_of([vae]) if upcast else 0) + (2 * picture if tiles > 1 else 0)
    weights = bytes_of([model.vae])
    return StageCost("decode", count * tiles, one.flops * tiles * count, weights, one.peak + extra)


def _empty(module: nn.Module) -> nn.Module:
    """The same network without memory, in its own dtype and in eval mode."""
    with torch.device("meta"):
        return type(module)(module.config).eval().to(next(module.parameters()).dtype)
