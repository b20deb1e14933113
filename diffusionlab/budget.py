"""What a run will keep, in bytes, before it is run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .models.unet_config import SIZE_IDS
from .pipeline import LatentDiffusion
from .plan import Plan, Update
from .recordable import check_record, check_taps, chosen_taps, kept_type, tap_shapes
from .samplers import Sampler, as_sampler, make_plan
from .stages import check_size
from .trace import Guidance, TextEmbedding, as_guidance, byte_count, to_numpy
from .trace.summary import size_text

FIXED = ("texts", "preview", "image")  # the same however many steps are made


@dataclass(frozen=True)
class Counts:
    """How many arrays of each kind a plan makes: known before the first network call.

    `guided` calls run both branches; `points` are those network calls that are not made at the
    step's own latent, which is kept anyway.
    """

    steps: int
    calls: int
    guided: int
    points: int
    draws: int

    @classmethod
    def of(cls, plan: Plan, guidance: Guidance) -> Counts:
        """Count a plan's steps, network calls and draws."""
        stages = [stage for step in plan for stage in step.stages]
        return cls(
            steps=len(plan),
            calls=len(stages),
            guided=sum(guidance.at(stage.level) != 1 for stage in stages),
            points=sum(stage.update != Update() for stage in stages),
            draws=sum(len(step.draws) for step in plan),
        )


@dataclass(frozen=True, repr=False)
class RecordingSize:
    """Bytes that the record of a finished run will hold, exactly: `parts` by kind, and in all.

    The same as `byte_count` of the trace that the run returns. `per_step` leaves out what does not
    grow with the steps: texts, preview and image.
    """

    parts: dict[str, int]
    num_steps: int
    network_calls: int

    @property
    def total(self) -> int:
        """Bytes of the whole record."""
        return sum(self.parts.values())

    @property
    def per_step(self) -> float:
        """Bytes that a step adds, on average."""
        return sum(n for name, n in self.parts.items() if name not in FIXED) / self.num_steps

    @property
    def inside(self) -> dict[str, int]:
        """The parts that come from inside the network."""
        outside = {*FIXED, "latents", "predictions", "noises", "frames"}
        return {name: count for name, count in self.parts.items() if name not in outside}

    def __str__(self) -> str:
        inside = ", ".join(f"{name} {size_text(count)}" for name, count in self.inside.items())
        each = f"{size_text(round(self.per_step))} a step"
        return f"{size_text(self.total)}, {each}" + (f" ({inside})" if inside else "")

    def __repr__(self) -> str:
        """A small table."""
        calls = f"{self.num_steps} steps, {self.network_calls} network calls"
        rows = [*self.parts.items(), ("in all", self.total), ("a step", round(self.per_step))]
        width = max(len(name) for name, _ in rows)
        told = [f"  {name:{width}}  {size_text(count):>10}" for name, count in rows if count]
        return "\n".join([f"RecordingSize of {calls}", *told])


def recording_size(
    model: LatentDiffusion,
    *,
    record: Iterable[str] = ("predictions",),
    num_steps: int = 20,
    sampler: str | Sampler = "ddim",
    spacing: str | None = None,
    guidance_scale: float | Guidance = 4.0,
    height: int | None = None,
    width: int | None = None,
    text_embedding: TextEmbedding | None = None,
) -> RecordingSize:
    """What `generate` with these arguments would keep, exactly, without running anything.

    Arguments and errors as `generate`; height and width in pixels.
    """
    names = check_record(record)
    check_taps(model, names)
    plan = make_plan(as_sampler(sampler), model.schedule.levels(num_steps, spacing), model.schedule)
    size = check_size(model, "height", height), check_size(model, "width", width)
    return measured(model, names, plan, as_guidance(guidance_scale), *size, text_embedding)


def measured(model, record, plan, guidance, height, width, text_embedding=None) -> RecordingSize:
    """`recording_size` of values that are checked already."""
    branches = Guidance(1.0) if model.embeds_guidance else guidance
    count, pixels = Counts.of(plan, branches), 3 * height * width
    latent = latent_shape(model, height, width)
    one = 4 * math.prod(latent)  # float32
    said = 4 * math.prod((model.unet.config.out_channels, *latent[1:]))
    parts = {"latents": (count.steps + 1) * one, "noises": count.draws * one}
    if "predictions" in record:
        parts["predictions"] = (count.calls + count.guided) * said + count.points * one
    taps = chosen_taps(model, record)
    for name, (shape, dtype) in tap_shapes(model, taps, latent, "heads" in record).items():
        so_far = parts.get(taps[name], 0)
        parts[taps[name]] = so_far + count.calls * math.prod(shape) * dtype.itemsize
    if "frames" in record:
        parts["frames"] = count.steps * pixels
    own = _text_bytes(model)
    parts["texts"] = own + (own if text_embedding is None else _embedding_bytes(text_embedding))
    parts |= {"preview": byte_count(model.preview), "image": pixels}
    return RecordingSize(parts, count.steps, count.calls)


def latent_shape(model: LatentDiffusion, height: int, width: int) -> tuple[int, int, int]:
    """(channels, h, w) of a picture's latent."""
    return model.latent_channels, height // model.size_factor, width // model.size_factor


def _text_bytes(model: LatentDiffusion) -> int:
    """Bytes of one text's hidden states, its pooled vector and sizes, as a trace keeps them."""
    number = kept_type(next(model.text_encoders[0].parameters()).dtype).itemsize
    widths = [encoder.config.hidden_size for encoder in model.text_encoders]
    pooled = model.unet.config.pooled_width or widths[-1]
    sizes = 4 * SIZE_IDS if model.is_xl else 0  # float32
    return number * (model.context_length * sum(widths) + pooled) + sizes


def _embedding_bytes(text: TextEmbedding) -> int:
    pooled = () if text.pooled is None else (text.pooled,)
    return sum(to_numpy(value).nbytes for value in (*text.hidden, *pooled, *text.extra.values()))
