"""The command line: diffusionlab generate · view · lab · doctor.

What is heavy is imported inside the functions, so that `--help` answers at once, and a picture is
made without ever loading matplotlib. Our own errors end as one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusionlab import __version__
from diffusionlab.doctor import CHECKS
from diffusionlab.errors import DiffusionLabError, InputError, shown

FAILED, STOPPED = 2, 130  # exit status: our own error, Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for an error of ours, 130 for Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except DiffusionLabError as error:
        print(f"diffusionlab: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("diffusionlab: stopped", file=sys.stderr)
        return STOPPED


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    whole = argparse.ArgumentParser(
        prog="diffusionlab", description="Text-to-image diffusion, stage by stage."
    )
    whole.add_argument("--version", action="version", version=f"diffusionlab {__version__}")
    commands = whole.add_subparsers(
        dest="command", required=True, metavar="generate|view|lab|doctor"
    )
    _add_generate(commands)
    _add_view(commands)
    lab = commands.add_parser("lab", help="open the notebooks in JupyterLab")
    lab.add_argument("folder", nargs="?", type=Path, default=Path("notebooks"))
    lab.add_argument("--allow-root", action="store_true", help="as root, which Jupyter asks for")
    lab.set_defaults(run=run_lab)
    doctor = commands.add_parser("doctor", help="what is installed here, and what to do about it")
    doctor.set_defaults(run=run_doctor)
    return whole


def _add_generate(commands) -> None:
    command = commands.add_parser(
        "generate",
        help="make one picture from a prompt",
        description="Write image.png, filmstrip.png and run.safetensors into a folder.",
    )
    add = command.add_argument
    add("prompt", help="what to draw, in quotes")
    add("--negative", default="", metavar="TEXT", help="prompt of the unconditional branch")
    add("--seed", type=int, default=0, help="start noise, 0 or more (default 0)")
    add("--steps", type=int, default=20, help="sampling steps (default 20)")
    add("--sampler", default="ddim", help="ddim, euler, dpmpp_2m, … (default ddim)")
    add("--spacing", help="of the noise levels: trailing, karras, …")
    add("--guidance", type=float, default=4.0, help="guidance scale; 1 is off (default 4)")
    add("--width", type=int, help="pixels (default: the model's own)")
    add("--height", type=int, help="pixels (default: the model's own)")
    add("--out", type=Path, default=Path("demo"), help="folder to write into (default demo/)")
    add("--model", default="toyland", help="a checkpoint folder or hub id (default toyland)")
    add("--device", help="cpu, cuda, mps (default: the accelerator, if there is one)")
    add("--no-filmstrip", dest="filmstrip", action="store_false", help="leave filmstrip.png out")
    command.set_defaults(run=run_generate)


def _add_view(commands) -> None:
    command = commands.add_parser(
        "view",
        help="open a recorded run in the browser",
        description="The step explorer of a run.safetensors, as one page that works offline.",
    )
    add = command.add_argument
    add("record", type=Path, help="a run.safetensors, as generate writes it")
    add("--out", type=Path, metavar="PAGE.html", help="write the page there and open nothing")
    add("--every", type=int, default=1, metavar="N", help="show every N-th step (default all)")
    add("--size", type=int, default=256, help="width of decoded pictures (default 256)")
    command.set_defaults(run=run_view)


# ---- generate --------------------------------------------------------------------------------
def run_generate(options: argparse.Namespace) -> int:
    """One picture: image.png, filmstrip.png and run.safetensors in `options.out`.

    Ctrl-C writes what is there by then: the record of the finished steps, and their filmstrip.
    """
    from diffusionlab.samplers import as_sampler

    as_sampler(options.sampler)  # before the seconds that loading takes
    _check_folder(options.out)
    from diffusionlab.generate import generate
    from diffusionlab.noise import Sequential
    from diffusionlab.pipeline import load
    from diffusionlab.prompts import check_prompt
    from diffusionlab.trace import Guidance

    check_prompt(options.prompt), check_prompt(options.negative)
    Guidance(options.guidance), Sequential(options.seed)
    model = load(options.model, device=options.device)
    try:
        trace = generate(
            model,
            options.prompt,
            negative_prompt=options.negative,
            seed=options.seed,
            num_steps=options.steps,
            sampler=options.sampler,
            spacing=options.spacing,
            guidance_scale=options.guidance,
            height=options.height,
            width=options.width,
            record=("predictions",),
        )
    except KeyboardInterrupt as stop:
        return _keep_partial(model, getattr(stop, "trace", None), options)
    _write(model, trace, options)
    return 0


def _check_folder(folder: Path) -> None:
    """Before any work: the folder can be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--out is {shown(str(folder))}; a folder that can be written into is needed "
            f"({error.strerror}): name another"
        ) from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"--out is {shown(str(folder))}; it cannot be written into: name another")


def _keep_partial(model, trace, options: argparse.Namespace) -> int:
    if trace is None or not trace.steps:
        print("diffusionlab: stopped before the first step; nothing to save", file=sys.stderr)
        return STOPPED
    print(f"diffusionlab: saving the {len(trace.steps)} steps that are done", file=sys.stderr)
    _write(model, trace, options)
    return STOPPED


def _write(model, trace, options: argparse.Namespace) -> None:
    """Write the files of a run, the record first, and print one line for each."""
    trace.save(options.out / "run.safetensors")
    _say(options.out / "run.safetensors", f"the record, {len(trace.steps)} steps")
    if trace.image is not None:
        _save_image(trace.image, options.out / "image.png")
        _say(options.out / "image.png", f"the picture, {trace.image.width}×{trace.image.height}")
    if options.filmstrip:
        _save_image(_filmstrip(model, trace), options.out / "filmstrip.png")
        latents = "and x_t by the preview map" if trace.preview else "(no preview map, so no x_t)"
        _say(options.out / "filmstrip.png", f"x0-hat decoded {latents}, over the steps")


def _say(path: Path, what: str) -> None:
    print(f"{path}  {what}")


def _filmstrip(model, trace, most: int = 8):
    """x0-hat through the VAE (only the steps that are shown) and x_t by the preview map."""
    import torch
    from PIL import Image

    from diffusionlab.images import spread
    from diffusionlab.stages import decode
    from diffusionlab.trace.filmstrip import filmstrip_of

    count = len(trace.steps)
    pictures = [Image.new("RGB", (8, 8))] * count  # stand-ins for the steps that are left out
    for index in spread(count, most):
        pictures[index] = decode(model, torch.from_numpy(trace.steps[index].predictions[0].x0))
    return filmstrip_of(trace, x0_images=pictures, most=most)


def _save_image(image, path: Path) -> None:
    from diffusionlab.pipeline.files import replacing

    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


# ---- view ------------------------------------------------------------------------------------
def run_view(options: argparse.Namespace) -> int:
    """The explorer of a saved trace: opened in the browser, or written to `options.out`.

    Needs neither a model nor torch.
    """
    from diffusionlab.trace import Trace
    from diffusionlab.views import explore

    if not options.record.is_file():
        raise InputError(
            f"there is no file {shown(str(options.record))}; a run.safetensors is needed, as "
            "`diffusionlab generate` or trace.save writes it: check the path"
        )
    view = explore(Trace.load(options.record), every=options.every, size=options.size)
    path = _save_page(view, options.out or page_place(options.record))
    print(path)
    if options.out is None and not _open_in_browser(path):
        print("diffusionlab: no browser opened; open that file yourself", file=sys.stderr)
    return 0


def page_place(record: Path) -> Path:
    """Where the page of a record goes that nobody named a place for: one file a record.

    In the user's cache folder, because the browser reads it after this program has ended.
    """
    import hashlib

    given = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    cache = Path(given) if given else Path.home() / ".cache"
    which = hashlib.sha256(str(record.resolve()).encode("utf-8", "replace")).hexdigest()[:12]
    return cache / "diffusionlab" / "views" / f"{which}.html"


def _save_page(view, path: Path) -> Path:
    try:
        return view.save(path)
    except OSError as error:
        raise InputError(
            f"{shown(str(path))} cannot be written ({error.strerror}); a place for one page is "
            "needed: name it with --out page.html"
        ) from None


def _open_in_browser(path: Path) -> bool:
    import webbrowser

    return webbrowser.open(path.resolve().as_uri())


# ---- lab -------------------------------------------------------------------------------------
def run_lab(options: argparse.Namespace) -> int:
    """JupyterLab on a folder of notebooks; returns when it is closed."""
    if not options.folder.is_dir():
        raise InputError(
            f"there is no folder {shown(str(options.folder))} here; go to the repository's root, "
            "or name the folder: diffusionlab lab <folder>"
        )
    from jupyterlab.labapp import main as open_lab

    as_root = ["--allow-root"] if options.allow_root else []
    return open_lab([str(options.folder), *as_root]) or 0


# ---- doctor ----------------------------------------------------------------------------------
def run_doctor(options: argparse.Namespace) -> int:
    """One line per check: what was found, and the fix where something is amiss."""
    amiss = 0
    for name, check in CHECKS.items():
        found, fix = check()
        amiss += bool(fix)
        print(f"{name:<10}{found}" + (f"  → {fix}" if fix else ""))
    return 1 if amiss else 0


if __name__ == "__main__":
    sys.exit(main())
