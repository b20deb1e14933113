"""Records of what is inside: a word's merges, text layers, the U-Net's build, noising.

Each is made by one function of the machine (`merge_steps`, `embed_layers`, `anatomy`,
`noise_image`) and holds NumPy arrays only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from diffusionlab.images import Preview
from diffusionlab.schedule import NoiseLevel
from diffusionlab.trace.records import Prediction, Tokens
from diffusionlab.trace.summary import CONVENTION, Shown, counted, describe, lines


@dataclass(frozen=True)
class Merge:
    """One merge: which neighbours were joined, its place in the tokenizer's list, what came out."""

    left: str
    right: str
    place: int
    pieces: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Merges(Shown):
    """How a tokenizer makes the pieces of one word: its letters first, then merge after merge.

    A space after a piece stands for the mark of a word's end, a part of the last letter. A letter
    beyond ASCII begins as its bytes, each written as the tokenizer writes it. `known` is the length
    of the tokenizer's list of merges, first come first served: `place` counts in it, from 1.
    """

    word: str
    letters: tuple[str, ...]
    steps: tuple[Merge, ...]
    known: int

    @property
    def unit(self) -> str:
        """What `letters` are: bytes, where not all of them are ASCII."""
        return "letters" if self.word.isascii() else "bytes"

    @property
    def pieces(self) -> tuple[str, ...]:
        """What is left when no merge of the list fits any more."""
        return self.steps[-1].pieces if self.steps else self.letters

    def __repr__(self) -> str:
        rows = [(self.letters, self.unit)]
        rows += [(s.pieces, f"{s.left} + {s.right}, merge {s.place}") for s in self.steps]
        told = [("|".join(pieces), why) for pieces, why in rows]
        wide = max(len(pieces) for pieces, _ in told)
        return lines(
            f"Merges of {self.word!r}: {counted(len(self.letters), self.unit[:-1])}, "
            f"{counted(len(self.pieces), 'piece')}",
            *(f"{pieces:{wide}}  {why}" for pieces, why in told),
            f"no other of the {self.known} merges fits; made by merge_steps",
        )


@dataclass(frozen=True, eq=False, repr=False)
class TextLayers(Shown):
    """What one text encoder holds after each of its layers.

    `hidden` (layers + 1, tokens, width): entry 0 goes into the first layer (the token's own row of
    the vocabulary plus its position), the last entry comes out of the last layer. `final` (tokens,
    width) is what the U-Net reads: that after the closing normalisation, for SDXL `hidden[-2]`.
    `attention` (layers, heads, tokens, tokens): row i says where token i looks; its entries sum to
    1, those after i are 0 (causal mask). `encoder` counts the model's text encoders from 0, of
    which there are `encoders`; the ids of their paddings may differ from those of `tokens`.
    """

    tokens: Tokens
    hidden: np.ndarray
    final: np.ndarray
    attention: np.ndarray
    encoder: int = 0
    encoders: int = 1

    def __repr__(self) -> str:
        return lines(
            f"TextLayers: {self.tokens.prompt!r}",
            describe("hidden", self.hidden, "layers + 1, tokens, width"),
            describe("final", self.final, "tokens, width"),
            describe("attention", self.attention, "layers, heads, tokens, tokens"),
            "made by embed_layers; row i depends on the tokens up to i (causal mask)",
        )


@dataclass(frozen=True, eq=False, repr=False)
class Noising(Shown):
    """One picture, noised to several levels in latent and in pixel space, and judged at each.

    `latents[i] = alpha · x0 + sigma · noise` at `levels[i]`: (n, channels, h, w); `noisy_pixels[i]`
    is the same with `pixels` and `pixel_noise` (height, width, 3), values in -1…1 for the clean
    ones. `predictions[i]` is what the network said of `latents[i]` in one call. `x0_images` are
    its one-step guesses decoded, `noisy_images` the noisy latents decoded.
    """

    levels: tuple[NoiseLevel, ...]
    x0: np.ndarray
    noise: np.ndarray
    latents: np.ndarray
    pixels: np.ndarray
    pixel_noise: np.ndarray
    noisy_pixels: np.ndarray
    predictions: tuple[Prediction, ...]
    image: Image.Image
    x0_images: tuple[Image.Image, ...] = ()
    noisy_images: tuple[Image.Image, ...] = ()
    prompt: str = ""
    seed: int = 0
    preview: Preview | None = None

    def __repr__(self) -> str:
        times = ", ".join(f"{level.timestep:g}" for level in self.levels)
        return lines(
            f"Noising of an image of {self.image.size} pixels, seed {self.seed}",
            f"timesteps {times}; the network was told {self.prompt!r}",
            describe("x0", self.x0, "channels, h, w"),
            describe("latents", self.latents, "levels, channels, h, w"),
            describe("noisy_pixels", self.noisy_pixels, "levels, height, width, 3"),
            f"{CONVENTION}; made by noise_image",
        )


@dataclass(frozen=True)
class Block:
    """One block of the U-Net: what it hands on, and what it costs.

    `kind` is "time", "in", "down", "mid", "up" or "out"; `shape` (channels, h, w) of its output,
    (width, 1, 1) for the time embedding; `flops` of one call on one sample, a multiply-add counted
    as two, and `flops_by_kind` the same by kind of operation ("convolution", "linear",
    "attention"); `resnets` and `transformers` count its parts.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    parameters: int
    flops: int
    flops_by_kind: dict = field(default_factory=dict)
    resnets: int = 0
    transformers: int = 0


@dataclass(frozen=True)
class Skip:
    """One skip connection: its tap's name, its shape (channels, h, w), from and to which block."""

    tap: str
    shape: tuple[int, int, int]
    source: str
    target: str


@dataclass(frozen=True, eq=False, repr=False)
class Anatomy(Shown):
    """The U-Net as built: its blocks in the order of computation, its skips, its attention.

    `latent` (channels, h, w) is what goes in; `cross` and `self_` map each attention tap's name to
    (heads, h, w) of its queries; `tokens` is the text's length.
    """

    model: str
    latent: tuple[int, int, int]
    blocks: tuple[Block, ...]
    skips: tuple[Skip, ...]
    cross: dict
    self_: dict
    tokens: int

    @property
    def parameters(self) -> int:
        """All weights of the network."""
        return sum(block.parameters for block in self.blocks)

    @property
    def flops(self) -> int:
        """Of one call on one sample, a multiply-add counted as two."""
        return sum(block.flops for block in self.blocks)

    def __repr__(self) -> str:
        rows = (
            f"{b.name:16} {'×'.join(map(str, b.shape)):>14}  {b.parameters / 1e6:9.3f} M  "
            f"{b.flops / 1e9:9.3f} GFLOP"
            for b in self.blocks
        )
        return lines(
            f"Anatomy of the U-Net of {self.model!r} for a latent of {self.latent}",
            *rows,
            f"{len(self.skips)} skip connections, {len(self.cross)} cross-attention layers",
            f"together {self.parameters / 1e6:.2f} M parameters, {self.flops / 1e9:.2f} GFLOP a "
            "call and sample; made by anatomy",
        )
