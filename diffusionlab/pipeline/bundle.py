"""`LatentDiffusion`: the parts of one text-to-image model, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import shown
from ..images import Preview
from ..models import VAE, TinyVAE, UNet
from ..schedule import NoiseSchedule

CELLS = 64  # the side of Stable Diffusion's latents, where no config says another


@dataclass(frozen=True, eq=False, repr=False)
class LatentDiffusion:
    """A latent diffusion model: the parts that the stage functions are handed, all in eval mode.

    tokenizer and text_encoders are transformers' CLIP (SDXL has two of them, and a tokenizer_2 that
    differs in its padding); unet and vae are ours; schedule is the training schedule; preview the
    checkpoint's linear latent → RGB map or None; config the raw configs by part ("unet", "vae", …,
    "toyland"); path the folder read.
    """

    tokenizer: Any
    text_encoders: tuple[nn.Module, ...]
    unet: UNet
    vae: VAE | TinyVAE
    schedule: NoiseSchedule
    preview: Preview | None
    config: dict[str, Any]
    path: Path
    tokenizer_2: Any = None

    @classmethod
    def from_diffusers(cls, pipe: Any) -> LatentDiffusion:
        """A pipeline of diffusers as a model: Stable Diffusion, SDXL or a latent consistency one.

        The weights are shared, not copied: what changes them there changes them here. The schedule
        comes from the pipeline's scheduler; the safety checker is not taken along.
        Errors: InputError for another pipeline, or one whose parts lie in different places.
        """
        from .wrapping import from_diffusers

        return from_diffusers(pipe)

    def with_parts(
        self,
        *,
        vae: Any = None,
        unet: Any = None,
        text_encoder: Any = None,
        text_encoder_2: Any = None,
        preview: Preview | None = None,
        variant: str | None = None,
    ) -> LatentDiffusion:
        """The same model with other parts in the place of its own, sharing all the rest.

        Each is a folder, a hub id, a name of `checkpoints()` such as "taesd", another model (its
        part of that name), or a network; preview is a map as `fit_preview` makes it. Errors:
        CheckpointError for widths that do not fit, InputError for what is no such part.
        """
        from .swapping import with_parts

        return with_parts(self, vae=vae, unet=unet, text_encoder=text_encoder, variant=variant,
                          text_encoder_2=text_encoder_2, preview=preview)  # fmt: skip

    @property
    def name(self) -> str:
        """What was loaded: "toyland", a hub id, or the folder's name."""
        return self.config.get("name", self.path.name)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @property
    def context_length(self) -> int:
        """Tokens that the text encoder reads, start and end included (77 in Stable Diffusion)."""
        return self.text_encoders[0].config.max_position_embeddings

    @property
    def is_xl(self) -> bool:
        """Whether the U-Net is told the pooled text and sizes, as SDXL's is."""
        return self.unet.config.addition_embed_type is not None

    @property
    def embeds_guidance(self) -> bool:
        """Whether the U-Net is told the guidance scale and run once (latent consistency models)."""
        return self.unet.config.time_cond_proj_dim is not None

    @property
    def zeros_for_empty(self) -> bool:
        """Whether an empty negative prompt stands for zeros (SDXL's model_index.json)."""
        return bool(self.config.get("model_index", {}).get("force_zeros_for_empty_prompt"))

    @property
    def pad_ids(self) -> tuple[int, ...]:
        """The padding token's id for each text encoder."""
        known = [self.tokenizer, self.tokenizer_2 or self.tokenizer]
        return tuple(t.pad_token_id for t in known[: len(self.text_encoders)])

    @property
    def latent_channels(self) -> int:
        return self.unet.config.in_channels

    @property
    def size_factor(self) -> int:
        """Pixels per latent cell and side: every block of the VAE but the last halves (8 in SD)."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size(self) -> int:
        """The default side of a picture in pixels: the U-Net's sample size, else the VAE's."""
        cells = self.unet.config.sample_size
        if cells or self.vae.config.sample_size is None:
            return (cells or CELLS) * self.size_factor
        return self.vae.config.sample_size

    def __repr__(self) -> str:
        latent = self.size // self.size_factor
        width = self.unet.config.cross_attention_dim
        dtype = str(self.dtype).removeprefix("torch.")
        schedule = self.schedule
        lines = [
            f"LatentDiffusion {shown(self.name)} on {self.device}, {dtype}",
            f"  text encoder  {_millions(*self.text_encoders)}  "
            f"→ {self.context_length} tokens × {width}",
            f"  unet          {_millions(self.unet)}  "
            f"latent {self.latent_channels} × {latent} × {latent}",
            f"  vae           {_millions(self.vae)}  picture 3 × {self.size} × {self.size}",
            f"  schedule      {schedule.num_train_steps} training steps, predicts "
            f"{schedule.prediction_type}, {schedule.spacing} spacing",
            f"  preview map   {'yes' if self.preview else 'none; dl.fit_preview(model) makes one'}",
            f"  path          {self.path}",
        ]
        return "\n".join(lines)


def _millions(*modules: nn.Module) -> str:
    count = sum(p.numel() for module in modules for p in module.parameters())
    return f"{count / 1e6:8.2f} M parameters"
