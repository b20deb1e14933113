"""The two judges of a picture of Toyland: an attribute classifier and a segmenter.

Neither conditions the model, so both may judge it. Pictures are (n, 3, height, width) in [-1, 1],
of any size: they are averaged down to 64 × 64 first, which is four times faster than 128 × 128.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import CheckpointError, InputError, shown
from ..toyland import COLOURS, OBJECTS, SETTINGS, STYLES, TIMES, checkpoint
from .written import write_atomically, write_json

SIZE = 64  # pixels that the judges look at
CELLS = 64  # side of the segmenter's answer
NO_TIME = len(TIMES)  # the class of space and grid, which have no time of day
CLASSES = {
    "objects": OBJECTS,
    "colours": COLOURS,
    "settings": SETTINGS,
    "times": TIMES,
    "styles": STYLES,
}
FILES = {"classifier": "classifier.safetensors", "segmenter": "segmenter.safetensors"}


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution, GroupNorm and SiLU; halves the sides at stride 2."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(8, outputs), nn.SiLU())


class Residual(nn.Module):
    """x plus two convolutions of x."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(conv(width, width), conv(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class Things(nn.Module):
    """One look per kind: where in the picture it would be, whether it is, and its colour there.

    Reading a colour only where its kind was looked for is what keeps two objects apart.
    """

    def __init__(self, width: int):
        super().__init__()
        self.where = nn.Conv2d(width, len(OBJECTS), 1)
        self.kind = nn.Parameter(0.1 * torch.randn(len(OBJECTS), width))
        self.weight = nn.Parameter(0.1 * torch.randn(len(OBJECTS), width))
        self.bias = nn.Parameter(torch.full((len(OBJECTS),), -2.0))
        self.hidden, self.colour = nn.Linear(width, width), nn.Linear(width, len(COLOURS))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, kinds) of presence and (n, kinds, colours)."""
        looked = self.where(features).flatten(2).softmax(dim=-1)  # (n, kinds, cells)
        read = looked @ features.flatten(2).transpose(1, 2)  # (n, kinds, width)
        present = (read * self.weight).sum(dim=-1) + self.bias
        return present, self.colour(F.silu(self.hidden(read + self.kind)))


class Classifier(nn.Module):
    """What a picture shows: kinds, their colours, setting, time of day and style."""

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 192)):
        super().__init__()
        a, b, c, d = self.widths = tuple(widths)
        self.trunk = nn.Sequential(
            conv(3, a, 5, 2), conv(a, b, 3, 2), Residual(b), conv(b, c, 3, 2), Residual(c),
            conv(c, d),
        )  # fmt: skip
        self.things = Things(d)
        heads = {"setting": len(SETTINGS), "time": NO_TIME + 1, "style": len(STYLES)}
        self.heads = nn.ModuleDict({k: nn.Linear(2 * d, n) for k, n in heads.items()})

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits: present (n, 12), colour (n, 12, 9), setting (n, 8), time (n, 4), style (n, 3)."""
        features = self.trunk(resized(pixels))  # (n, width, 8, 8)
        present, colour = self.things(features)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        told = {name: head(pooled) for name, head in self.heads.items()}
        return {"present": present, "colour": colour, **told}


class Segmenter(nn.Module):
    """An hourglass with skips: which object, or nothing, covers each of 64 × 64 cells."""

    def __init__(self, widths: Sequence[int] = (24, 48, 96)):
        super().__init__()
        self.widths = tuple(widths)
        pairs = list(zip((3, *self.widths), self.widths, strict=False))
        self.down = nn.ModuleList(conv(i, o, 3, 2) for i, o in pairs)
        self.middle = Residual(self.widths[-1])
        self.across = nn.ModuleList(nn.Conv2d(o, i, 1) for i, o in pairs[1:])
        self.up = nn.ModuleList(conv(i, i) for i, _ in pairs[1:])
        self.classes = nn.Conv2d(self.widths[0], 1 + len(OBJECTS), 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (n, 13, 64, 64); class 0 is nothing, 1 + i is OBJECTS[i]."""
        x, skips = resized(pixels), []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x = self.middle(x)
        for i in reversed(range(len(self.up))):
            x = self.up[i](F.interpolate(self.across[i](x), scale_factor=2.0) + skips[i])
        return F.interpolate(self.classes(x), (CELLS, CELLS), mode="bilinear")


def resized(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures at the judges' own size, by the mean of the pixels that fall into one."""
    if tuple(pixels.shape[-2:]) == (SIZE, SIZE):
        return pixels
    return F.interpolate(pixels, (SIZE, SIZE), mode="area")


# ---- verdicts --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Verdict:
    """What the classifier sees: kinds (likeliest first), the colour of each, and the scenery."""

    kinds: tuple[str, ...]
    setting: str
    time: str | None
    style: str
    colours: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        things = ", ".join(f"{self.colours[k]} {k}" for k in self.kinds) or "nothing"
        return f"{things}\n{self.setting}, {self.time or 'no time'}, {self.style}"


def batch_of(images: object) -> torch.Tensor:
    """uint8 pictures (n, height, width, 3) as (n, 3, height, width) in [-1, 1]."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise InputError(
            f"images is {array.dtype} {array.shape}; uint8 (n, height, width, 3) is allowed: "
            "np.stack([np.asarray(image) for image in images])"
        )
    return torch.from_numpy(np.array(array)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def judge(classifier: Classifier, images: object, batch: int = 100) -> list[Verdict]:
    """One verdict for each of the uint8 pictures (n, height, width, 3)."""
    device = next(classifier.parameters()).device
    found = []
    for i in range(0, len(images), batch):
        logits = classifier(batch_of(images[i : i + batch]).to(device))
        found += verdicts({name: value.float().cpu() for name, value in logits.items()})
    return found


def verdicts(logits: dict[str, torch.Tensor]) -> list[Verdict]:
    """The classes of the classifier's logits; a kind is seen where its probability passes 1/2."""
    times = (*TIMES, None)
    best = {name: value.argmax(dim=-1).tolist() for name, value in logits.items()}
    found = []
    for i, present in enumerate(logits["present"]):
        order = [k for k in present.argsort(descending=True).tolist() if present[k] > 0]
        colours = {OBJECTS[k]: COLOURS[best["colour"][i][k]] for k in order}
        scenery = SETTINGS[best["setting"][i]], times[best["time"][i]], STYLES[best["style"][i]]
        found.append(Verdict(tuple(colours), *scenery, colours))
    return found


@torch.inference_mode()
def segment(segmenter: Segmenter, images: object, batch: int = 50) -> np.ndarray:
    """The likeliest class of every cell, uint8 (n, 64, 64), of uint8 pictures; 0 is nothing."""
    device = next(segmenter.parameters()).device
    parts = [batch_of(images[i : i + batch]).to(device) for i in range(0, len(images), batch)]
    return np.concatenate([segmenter(p).argmax(dim=1).byte().cpu().numpy() for p in parts])


# ---- files -----------------------------------------------------------------------------------
def shipped_judges() -> Path:
    """The folder of the judges that come with the package."""
    return checkpoint().parent / "judges"


def save_judges(folder: Path, classifier: Classifier, segmenter: Segmenter) -> Path:
    """Write both networks as float16 safetensors, and config.json with widths and class names."""
    for name, net in (("classifier", classifier), ("segmenter", segmenter)):
        state = {k: v.half().cpu().contiguous() for k, v in net.state_dict().items()}
        write_atomically(folder / FILES[name], lambda part, state=state: save_file(state, part))
    widths = {"classifier": list(classifier.widths), "segmenter": list(segmenter.widths)}
    classes = {name: list(words) for name, words in CLASSES.items()}
    write_json(folder / "config.json", {"widths": widths, "classes": classes})
    return folder


def load_judges(folder: Path | None = None) -> tuple[Classifier, Segmenter]:
    """Classifier and segmenter of a folder (None: the shipped ones), float32 and in eval mode.

    Errors: CheckpointError if files are missing, or were made for another world.
    """
    folder = Path(folder) if folder is not None else shipped_judges()
    if not (folder / "config.json").exists():
        raise CheckpointError(
            f"{shown(str(folder))} holds no judges (config.json is missing); train them with "
            "python -m diffusionlab.training judges"
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _check_classes(folder, config.get("classes"))
    made = Classifier(config["widths"]["classifier"]), Segmenter(config["widths"]["segmenter"])
    return tuple(
        _filled(net, folder / name) for net, name in zip(made, FILES.values(), strict=True)
    )


def _check_classes(folder: Path, given: object) -> None:
    if given != {name: list(words) for name, words in CLASSES.items()}:
        raise CheckpointError(
            f"the judges in {shown(str(folder))} were trained for classes {shown(given)}, this "
            "world has others; train them again: python -m diffusionlab.training judges"
        )


def _filled(net: nn.Module, path: Path) -> nn.Module:
    try:
        net.load_state_dict(load_file(path))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path.name} is not this judge's file: {error}") from None
    return net.eval()
