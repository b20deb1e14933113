"""`python -m diffusionlab.training PART --preset cpu --minutes 20 --run runs/toyland`.

On two cores, or on several devices, one process each:
`torchrun --standalone --nproc-per-node 2 -m diffusionlab.training -- denoiser --preset cpu`.
Without the `--` torchrun takes `--run` for one of its own options.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import InputError
from . import card, export, samples
from .clip import train_clip, train_image
from .data import World
from .denoiser import train_denoiser
from .judges import train_judges
from .presets import PRESETS, Preset, preset
from .team import processes
from .tokenizer import train_tokenizer
from .vae import train_decoder, train_vae
from .written import write_json

PARTS = ("data", "tokenizer", "clip", "vae", "denoiser", "image", "decoder", "judges", "export")


def parser() -> argparse.ArgumentParser:
    """The command line of the trainer."""
    made = argparse.ArgumentParser(prog="python -m diffusionlab.training", description=__doc__)
    made.add_argument("part", choices=[*PARTS, "all"])
    made.add_argument("--preset", choices=list(PRESETS), default="cpu")
    made.add_argument("--minutes", type=float, help="time limit of the part, over all its slices")
    made.add_argument("--run", type=Path, default=Path("runs/toyland"), help="folder of the run")
    made.add_argument("--out", type=Path, help="checkpoint folder (default: RUN/checkpoint)")
    made.add_argument("--start", type=Path, help="checkpoint folder whose weights to begin with")
    made.add_argument("--threads", type=int, default=1, help="torch threads and render processes")
    made.add_argument("--device", help="override the preset's device")
    return made


TRAINERS: dict[str, Callable] = {
    "clip": train_clip,
    "vae": train_vae,
    "denoiser": train_denoiser,
    "image": train_image,
    "decoder": train_decoder,
    "judges": train_judges,
}


def run_part(name: str, arguments: argparse.Namespace, chosen: Preset, world: World) -> None:
    """Run one part in the run folder; training parts draw their curve and samples afterwards."""
    run, team = arguments.run, processes(cpu=chosen.device == "cpu")
    if name in TRAINERS:
        minutes = arguments.minutes or chosen.minutes[name]
        if arguments.start and team.is_main_process:  # the model card tells it, whoever exports
            write_json(run / "start.json", {"folder": arguments.start.name})
        TRAINERS[name](run, chosen, world, minutes, arguments.start)
    if team.is_main_process:
        if name == "tokenizer":
            train_tokenizer(run / "tokenizer", chosen.context_length)
        elif name == "export":
            export.export(run, arguments.out or run / "checkpoint", chosen, world)
        elif name in TRAINERS:
            card.draw_curve(run, name)
            samples.draw_samples(run, name, chosen, world)
    team.wait_for_everyone()


def main(given: list[str] | None = None) -> None:
    """Parse, prepare the pictures, run the part or all parts in order."""
    arguments = parser().parse_args(given)
    if arguments.minutes is not None and not arguments.minutes > 0:
        raise InputError(f"--minutes is {arguments.minutes}; it must be above 0")
    chosen = preset(arguments.preset)
    if arguments.device:
        chosen = dataclasses.replace(chosen, device=arguments.device)
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    data = arguments.run.parent / "data"
    with processes(cpu=chosen.device == "cpu").main_process_first():
        world = World.rendered(
            data, chosen.pictures, chosen.size, chosen.share, workers=arguments.threads
        )
    for name in PARTS if arguments.part == "all" else (arguments.part,):
        run_part(name, arguments, chosen, world)
    processes(cpu=chosen.device == "cpu").destroy_process_group()


if __name__ == "__main__":
    main()
