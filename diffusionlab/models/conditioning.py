"""What a text tells the U-Net: its rows for attention, and what some models add to the time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from .unet_config import SIZE_IDS, UNetConfig


@dataclass(frozen=True, eq=False)
class TextInput:
    """The text of a batch as the U-Net reads it.

    `hidden` (batch, tokens, width) is read by cross-attention. SDXL adds two things to the time
    embedding (arXiv 2307.01952, section 2.2): `pooled` (batch, width), the whole text as one row,
    and `size_ids` (batch, 6): height and width of the original, top and left of its crop, height
    and width wanted, in pixels. `guidance` (batch,) is the guidance scale that models distilled
    with it are told (arXiv 2310.04378).
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None
    size_ids: torch.Tensor | None = None
    guidance: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def to(self, dtype: torch.dtype) -> TextInput:
        """The same in another dtype; size numbers and the guidance scale stay float32."""
        pooled = None if self.pooled is None else self.pooled.to(dtype)
        return replace(self, hidden=self.hidden.to(dtype), pooled=pooled)


def blank_text(config: UNetConfig, tokens: int, rows: int = 1) -> TextInput:
    """A text of zeros in the shapes that a U-Net of this config reads, on the device in force."""
    pooled = torch.zeros(rows, config.pooled_width) if config.pooled_width else None
    return TextInput(
        hidden=torch.zeros(rows, tokens, config.cross_attention_dim),
        pooled=pooled,
        size_ids=None if pooled is None else torch.zeros(rows, SIZE_IDS),
        guidance=torch.ones(rows) if config.time_cond_proj_dim else None,
    )


@dataclass(frozen=True, eq=False)
class TimeExtras:
    """What a text adds on the way to the time embedding; None where a model has no such thing.

    `added` (batch, time width) is added to the embedding, `waves` (batch, width) to its sinusoids.
    """

    added: torch.Tensor | None = None
    waves: torch.Tensor | None = None

    def last(self, rows: int) -> TimeExtras:
        """The same of the last rows of the batch only."""
        parts = (self.added, self.waves)
        return TimeExtras(*(part if part is None else part[-rows:] for part in parts))


NOTHING = TimeExtras()


class PreparedText:
    """Keys and values of every cross-attention of a U-Net for one text; made by `prepare_text`."""

    def __init__(
        self,
        pairs: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]],
        extras: TimeExtras = NOTHING,
        rows: int = 1,
    ):
        self.pairs, self.extras, self.rows = pairs, extras, rows
        self.fewer: dict[int, PreparedText] = {}

    def __getitem__(self, attention: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pairs[attention]

    def last(self, rows: int) -> PreparedText:
        """The same of the last rows of the batch only: of the prompt's branch alone for 1."""
        if rows == self.rows:
            return self
        if rows not in self.fewer:
            pairs = {part: (k[-rows:], v[-rows:]) for part, (k, v) in self.pairs.items()}
            self.fewer[rows] = PreparedText(pairs, self.extras.last(rows), rows)
        return self.fewer[rows]
