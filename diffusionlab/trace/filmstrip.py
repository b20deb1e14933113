"""A run on one sheet, drawn with Pillow: what the network believed, and where the latent stood."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from diffusionlab.errors import InputError
from diffusionlab.images import filmstrip, spread, to_image
from diffusionlab.plan import Step
from diffusionlab.trace.run import Trace


def step_caption(step: Step) -> str:
    """Three short lines: `step 3`, `t 849`, `sigma-hat 4.2` (sigma-hat is the karras_sigma)."""
    return (
        f"step {step.index}\nt {step.level.timestep:.4g}\nsigma-hat {step.level.karras_sigma:.3g}"
    )


def filmstrip_of(
    trace: Trace,
    *,
    x0_images: Sequence[Image.Image] | None = None,
    title: str | None = None,
    most: int = 8,
    frame: int = 160,
    text: int = 26,
) -> Image.Image:
    """x0-hat and x_t over the steps of a run, at most `most` of them, first and last included.

    x0-hat is shown decoded where the trace has `frames` (or `x0_images`, one per step, are given),
    else by the preview map, and the label says which; x_t always by the preview map.
    Errors: InputError if there is nothing to show: no steps, or neither frames nor a preview map.
    """
    rows, labels = _rows(trace, tuple(x0_images or trace.frames))
    chosen = spread(len(trace.steps), most)
    captions = [step_caption(trace.steps[i]) for i in chosen]
    frames = [[row[i] for i in chosen] for row in rows]
    if trace.image is not None:
        frames = [
            [*chosen_frames, end[-1]] for chosen_frames, end in zip(frames, rows, strict=True)
        ]
        captions.append("the end\nsigma-hat " + f"{trace.karras_sigmas[-1]:.3g}")
    if title is None:
        title = f"{trace.settings.prompt} · {trace.settings.summary}"
    return filmstrip(frames, labels, captions, title=title, frame=frame, text=text)


def _rows(trace: Trace, decoded: tuple[Image.Image, ...]) -> tuple[list[list], list[str]]:
    """One list of pictures per row, an entry per step and one for the end; and the rows' labels."""
    if not trace.steps:
        raise InputError("trace of 0 steps: there is nothing to show; run it to the first step")
    rows, labels = [], []
    if decoded and len(decoded) != len(trace.steps):
        raise InputError(
            f"{len(decoded)} pictures for {len(trace.steps)} steps: one each is needed"
        )
    if decoded:
        rows, labels = [[*decoded, trace.image or decoded[-1]]], ["x0-hat\ndecoded"]
    elif trace.preview is not None and all(step.predictions for step in trace.steps):
        rows, labels = [_previews(trace, [*trace.x0s, trace.latents[-1]])], ["x0-hat\npreview"]
    if trace.preview is not None:
        rows.append(_previews(trace, trace.latents))
        labels.append("x_t\npreview")
    if not rows:
        what = 'record "frames", or use a checkpoint with a preview.json'
        raise InputError(f"trace without decoded frames and without a preview map: {what}")
    return rows, labels


def _previews(trace: Trace, latents) -> list[Image.Image]:
    return [to_image(trace.preview.rgb(latent)) for latent in latents]
