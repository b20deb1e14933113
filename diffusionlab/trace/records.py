"""The small records of a run: what was asked, what was read, what the network said.

Live records hold tensors on the model's device, recorded ones NumPy arrays; nothing here knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from diffusionlab.errors import InputError, shown
from diffusionlab.images import Preview
from diffusionlab.schedule import NoiseLevel, to_eps, to_v, to_x0
from diffusionlab.trace.guidance import Guidance
from diffusionlab.trace.summary import CONVENTION, Shown, counted, describe, describe_level, lines


@dataclass(frozen=True)
class Settings(Shown):
    """Everything that a run was asked for; plain JSON values only.

    `sampler` is `{"name": …, "options": {…}}` and is not checked against the samplers of this
    version, so that old records stay readable. height and width are in pixels.
    """

    model: str
    prompt: str
    negative_prompt: str
    seed: int
    num_steps: int
    sampler: dict
    spacing: str
    final: str
    guidance_scale: float
    height: int
    width: int
    record: tuple[str, ...] = ("predictions",)
    noise: str = "sequential"
    prediction_type: str = "eps"
    num_train_steps: int = 1000
    notices: tuple[str, ...] = ()
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = 0.0

    @property
    def guidance(self) -> Guidance:
        """The guidance scale with its options."""
        return Guidance(self.guidance_scale, self.guidance_interval, self.guidance_rescale)

    @property
    def sampler_text(self) -> str:
        """The sampler as one would type it: `ddim` or `ddim(eta=0.5)`."""
        options = self.sampler.get("options") or {}
        inside = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"{self.sampler.get('name')}({inside})" if inside else str(self.sampler.get("name"))

    @property
    def summary(self) -> str:
        """One line without the prompt: sampler, steps, guidance, seed."""
        steps = counted(self.num_steps, "step")
        return f"{self.sampler_text}, {steps}, guidance {self.guidance}, seed {self.seed}"

    def __repr__(self) -> str:
        return lines(
            f"Settings: {shown(self.prompt)}",
            f"{self.summary}, {self.height} × {self.width} pixels, model {self.model}",
            f"negative prompt {shown(self.negative_prompt)}" if self.negative_prompt else "",
            f"levels: {self.spacing}, final {self.final}; the network predicts "
            f"{self.prediction_type}; recorded: {', '.join(self.record) or 'latents only'}",
            *(f"notice: {text}" for text in self.notices),
        )


@dataclass(frozen=True)
class Tokens(Shown):
    """A prompt as the text encoder reads it: the whole context, start, end and padding too.

    `ids`, `pieces`, `word_of` and `kinds` have one entry per position (the context length); kinds
    are "start", "word", "end", "pad". `word_of` counts into `words`, None for specials and padding.
    `kept` and `dropped` count content pieces; `dropped_words` are the first words that were cut.
    `spans` (first, last) are the characters of the prompt that each word is: `words[i]` is
    `prompt[slice(*spans[i])]`; empty in records of older versions.
    """

    prompt: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    words: tuple[str, ...]
    word_of: tuple[int | None, ...]
    kinds: tuple[str, ...]
    kept: int
    dropped: int = 0
    dropped_words: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()

    def __repr__(self) -> str:
        content = [p for p, kind in zip(self.pieces, self.kinds, strict=False) if kind == "word"]
        cut = f"{self.dropped} dropped, from {shown(' '.join(self.dropped_words[:8]))} on"
        return lines(
            f"Tokens: {shown(self.prompt)}",
            f"{len(self.words)} words in {self.kept} pieces, {len(self.ids)} positions with start, "
            "end and padding; made by tokenize",
            "pieces: " + " | ".join(content[:20]) + (" …" if len(content) > 20 else ""),
            cut if self.dropped else "",
            *(f"notice: {text}" for text in self.notices),
        )


@dataclass(frozen=True, eq=False, repr=False)
class TextEmbedding(Shown):
    """The hidden states of the text encoders: one row per token, not one vector per prompt.

    `hidden` is a tuple with one array (tokens, width) per text encoder; `pooled` (width,) or None
    and `extra` (name → array) hold what SDXL needs besides.
    """

    hidden: tuple[Any, ...]
    pooled: Any = None
    extra: dict = field(default_factory=dict)
    tokens: Tokens | None = None

    def __repr__(self) -> str:
        prompt = "" if self.tokens is None else f": {shown(self.tokens.prompt)}"
        return lines(
            f"TextEmbedding{prompt}",
            *(describe(f"hidden[{i}]", h, "tokens, width") for i, h in enumerate(self.hidden)),
            "" if self.pooled is None else describe("pooled", self.pooled, "width"),
            "made by embed; row i depends on the tokens up to i (causal mask)",
        )


@dataclass(frozen=True, eq=False, repr=False)
class Latent(Shown):
    """One latent (channels, height / 8, width / 8), its noise level, and who made it."""

    values: Any
    level: NoiseLevel | None = None
    made_by: str = ""
    preview: Preview | None = None

    def __repr__(self) -> str:
        return lines(
            describe("Latent", self.values, "channels, height / 8, width / 8"),
            describe_level(self.level),
            CONVENTION + (f"; made by {self.made_by}" if self.made_by else ""),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Shown):
    """What the network said at one point: the raw outputs of both branches, (channels, h, w) each.

    `latent` is the point of this call. `prediction_type` says what the outputs are: "eps", "x0" or
    "v"; `preview` is the checkpoint's map for pictures. `uncond` is None where the unconditional
    pass was not run: at scale 1, and where the network is told its scale. The guided output and its
    three readings are views, computed when asked for and kept; `replace(prediction,
    guidance_scale=g)` is the same call at another scale, without the network. `guidance_rescale` is
    `Guidance.rescale`.
    """

    level: NoiseLevel
    latent: Any
    cond: Any
    uncond: Any = None
    guidance_scale: float = 1.0
    prediction_type: str = "eps"
    preview: Preview | None = None
    guidance_rescale: float = 0.0

    @cached_property
    def guided(self) -> Any:
        """uncond + g · (cond − uncond) (Ho & Salimans, arXiv 2207.12598, Eq. 6, w = g − 1).

        With `guidance_rescale` φ, its spread is drawn back to the conditional output's:
        (φ · std(cond) / std(guided) + 1 − φ) · guided (arXiv 2305.08891, Eqs. 15 and 16).
        """
        if self.guidance_scale == 1:
            return self.cond
        if self.uncond is None:
            raise InputError(
                f"guidance_scale is {self.guidance_scale:g}, but the unconditional pass was not "
                "run; without it only 1 is allowed: run again with another guidance_scale"
            )
        guided = self.uncond + self.guidance_scale * (self.cond - self.uncond)
        share = self.guidance_rescale
        if not share:
            return guided
        return (share * (self.cond.std() / guided.std()) + (1 - share)) * guided

    @cached_property
    def x0(self) -> Any:
        """The clean latent that the guided output stands for."""
        return to_x0(self.guided, self.latent, self.level, self.prediction_type)

    @cached_property
    def eps(self) -> Any:
        """The noise that the guided output stands for."""
        return to_eps(self.guided, self.latent, self.level, self.prediction_type)

    @cached_property
    def v(self) -> Any:
        """The velocity alpha · eps − sigma · x0 that the guided output stands for."""
        return to_v(self.guided, self.latent, self.level, self.prediction_type)

    def __repr__(self) -> str:
        axes = "channels, height / 8, width / 8"
        skipped = "uncond: not run (at scale 1, or where the network is told its scale)"
        return lines(
            f"Prediction of {self.prediction_type} at {describe_level(self.level)}",
            describe("cond", self.cond, axes),
            skipped if self.uncond is None else describe("uncond", self.uncond, axes),
            "guided = cond"
            if self.guidance_scale == 1
            else f"guided = uncond + {self.guidance_scale:g} · (cond − uncond)",
            describe("x0", self.x0, axes),
            f"{CONVENTION}; made by predict",
        )
