"""Pictures and arrays: PIL ⇄ NumPy, tiling, labelled filmstrips, and what a latent looks like.

An *image* is a PIL picture, an *array* is uint8 (height, width, 3), *pixels* are the same as
float32 in [0, 1]. (The VAE's own range is [-1, 1]: `pixels = y / 2 + 1 / 2`.)
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffusionlab.errors import InputError, NumericsError, shown

PAPER, INK, QUIET = (255, 255, 255), (20, 20, 20), (90, 90, 90)
MOST_PIXELS = 64_000_000
FEW_COLOURS = 10_000  # of a drawing


def open_image(path: str | Path) -> Image.Image:
    """Read a local PNG, JPEG or WebP file as an RGB image; no other decoder ever runs.

    Errors: InputError for anything else, for more than 64 megapixels, and for addresses.
    """
    try:
        with Image.open(Path(path), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(f"image of {image.size} pixels: at most {MOST_PIXELS}; shrink it")
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        what = "not a readable PNG, JPEG or WebP file on this machine; convert or download it"
        raise InputError(f"image {shown(str(path))}: {what} ({type(error).__name__})") from None


def to_rgb(image: Image.Image, background: tuple[int, int, int] = PAPER) -> Image.Image:
    """Any PIL image as RGB; transparent parts show the background, never their hidden colours."""
    if not isinstance(image, Image.Image):
        raise InputError(f"image {shown(image)}: a PIL image is needed; see images.open_image")
    if image.mode == "RGB":
        return image.copy()
    if image.mode.startswith("I;16"):  # 65535 is white; `convert` would cut at 255
        return to_image(np.asarray(image).astype(np.float64) / 65535)
    if image.mode in ("I", "F"):
        what = "8 or 16 bits a channel are needed; divide by its white and use images.to_image"
        raise InputError(f"image of mode {image.mode!r}, whose white is not known: {what}")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), layer).convert(
        "RGB"
    )


def to_array(image: Image.Image) -> np.ndarray:
    """A PIL image as uint8 (height, width, 3)."""
    return np.asarray(to_rgb(image))


def to_image(array: np.ndarray) -> Image.Image:
    """An array (height, width, 3) or (height, width) as an RGB image.

    uint8 is taken as it is; floats are read as pixels in [0, 1]: round(clip(y, 0, 1) · 255).
    Errors: InputError for other shapes and types; NumericsError if a float is not finite (a silent
    black picture would hide it).
    """
    array = np.asarray(array)
    kind = array.dtype == np.uint8 or array.dtype.kind == "f"
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not kind:
        what = "uint8 or float (height, width, 3) is needed; drop the batch axis, channels go last"
        raise InputError(f"array {array.dtype} {array.shape}: {what}")
    if array.dtype != np.uint8:
        array = _to_uint8(array, "image")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def to_pixels(image: Image.Image) -> np.ndarray:
    """An image as float32 pixels (height, width, 3) in [0, 1]; `to_image` is the way back."""
    return to_array(image).astype(np.float32) / np.float32(255)


def _to_uint8(unit: np.ndarray, what: str) -> np.ndarray:
    bad = int(unit.size - np.isfinite(unit).sum())
    if bad:
        raise NumericsError(f"{what}: {bad} of {unit.size} values are NaN or infinite")
    return np.round(np.clip(unit, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Preview:
    """A small linear map from a latent to a picture of it, one RGB pixel per latent position.

    `rgb = weight · latent + bias`, rgb in [0, 1] before clipping; weight (3, channels), bias (3,),
    r2 (3,): the share of the variance of red, green and blue that the map explains.
    It shows layout and colour, not detail.
    """

    weight: np.ndarray
    bias: np.ndarray
    r2: np.ndarray

    def rgb(self, latent: np.ndarray) -> np.ndarray:
        """The picture of a latent (channels, h, w): uint8 (h, w, 3)."""
        latent = np.asarray(latent, dtype=np.float32)
        if latent.ndim != 3 or latent.shape[0] != np.shape(self.weight)[1]:
            what = f"({np.shape(self.weight)[1]}, height, width) is what this preview map reads"
            raise InputError(f"latent {latent.shape}: {what}")
        unit = np.einsum("rc,chw->hwr", np.asarray(self.weight, np.float32), latent)
        return _to_uint8(unit + np.asarray(self.bias, np.float32), "latent preview")

    @classmethod
    def fit(cls, latents: np.ndarray, arrays: np.ndarray) -> Preview:
        """Least squares from latents (n, channels, h, w) and uint8 arrays (n, H, W, 3), H = k·h."""
        n, channels, h, w = np.shape(latents)
        cells = np.asarray(arrays, np.float64).reshape(n, h, -1, w, np.shape(arrays)[2] // w, 3)
        target = cells.mean(axis=(2, 4)).reshape(-1, 3) / 255  # (n·h·w, 3)
        known = np.asarray(latents, np.float64).transpose(0, 2, 3, 1).reshape(-1, channels)
        known = np.concatenate([known, np.ones((len(known), 1))], axis=1)  # (n·h·w, channels + 1)
        solution, *_ = np.linalg.lstsq(known, target, rcond=None)
        r2 = 1 - (target - known @ solution).var(axis=0) / target.var(axis=0)
        return cls(solution[:-1].T.astype(np.float32), solution[-1].astype(np.float32), r2)

    def to_json(self) -> dict[str, list]:
        """Plain lists, as `preview.json` in a checkpoint's folder holds them."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in ("weight", "bias", "r2")}

    @classmethod
    def from_json(cls, data: dict) -> Preview:
        """Read what `to_json` wrote; InputError if a part is missing, misshapen or not finite."""
        try:
            parts = [np.asarray(data[name], np.float32) for name in ("weight", "bias", "r2")]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"preview map {shown(data)}: needs weight, bias and r2") from None
        shapes = [part.shape for part in parts]
        if parts[0].ndim != 2 or shapes[0][0] != 3 or shapes[1:] != [(3,), (3,)]:
            raise InputError(
                f"preview map of shapes {shapes}: (3, channels), (3,), (3,) are needed"
            )
        if not all(np.isfinite(part).all() for part in parts):
            raise InputError("preview map holds NaN or infinity: fit it again")
        return cls(*parts)


def blank(width: int, height: int) -> Image.Image:
    """A grey picture, where one is missing."""
    return Image.new("RGB", (width, height), (200, 200, 200))


def to_webp(image: Image.Image, quality: int = 88) -> bytes:
    """A WebP file of an image: a tenth of the bytes of a PNG of a photograph."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def same_webp(png: bytes) -> bytes:
    """The pixels of a PNG file as a lossless WebP file."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def to_png(image: Image.Image) -> bytes:
    """A PNG file of 256 colours, without dithering.

    Of a drawing they cover its range, so that rare ones (a mark, the top of a colour bar) stay
    true; where there are thousands, as in photographs, they are those that most pixels need.
    """
    drawn, methods = to_rgb(image), Image.Quantize
    few = drawn.getcolors(FEW_COLOURS) is not None  # to cover more takes seconds
    method = methods.MAXCOVERAGE if few else methods.MEDIANCUT
    buffer = io.BytesIO()
    drawn.quantize(256, method, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def smaller_png(data: bytes) -> bytes:
    """A PNG file again, as `to_png` makes it."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return to_png(image)


def channel_pictures(latent: np.ndarray) -> tuple[Image.Image, ...]:
    """One grey picture per latent channel: 0 is mid grey.

    Black and white are ∓ the largest |value|. All channels of the latent (channels, h, w) share
    one range, so that they can be compared.
    """
    latent = np.asarray(latent, dtype=np.float32)
    if latent.ndim != 3:
        raise InputError(f"latent {latent.shape}: (channels, height, width) is needed")
    largest = float(np.abs(latent).max()) or 1.0
    return tuple(to_image(_to_uint8(c / (2 * largest) + 0.5, "latent channel")) for c in latent)


def enlarge(image: Image.Image, width: int) -> Image.Image:
    """The image at another width; every pixel stays a sharp square when it grows."""
    height = max(1, round(image.height * width / image.width))
    kind = Image.Resampling.NEAREST if width >= image.width else Image.Resampling.LANCZOS
    return image.resize((width, height), kind)


def tile(
    images: Iterable[Image.Image], columns: int | None = None, gap: int = 4, paper: tuple = PAPER
) -> Image.Image:
    """Images in rows of `columns` (default: about square), each in a cell of the largest size."""
    images = tuple(images)
    if not images:
        raise InputError("images []: at least one is needed")
    columns = columns or math.ceil(math.sqrt(len(images)))
    width, height = max(i.width for i in images), max(i.height for i in images)
    rows = math.ceil(len(images) / columns)
    columns = min(columns, len(images))
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), paper)
    for n, image in enumerate(images):
        sheet.paste(image, ((n % columns) * (width + gap), (n // columns) * (height + gap)))
    return sheet


def spread(count: int, most: int) -> tuple[int, ...]:
    """At most `most` of the indexes 0 … count − 1, evenly spread, first and last included."""
    if count <= most:
        return tuple(range(count))
    return tuple(round(i * (count - 1) / (most - 1)) for i in range(most)) if most > 1 else (0,)


def filmstrip(
    rows: Sequence[Sequence[Image.Image]],
    labels: Sequence[str],
    captions: Sequence[str] = (),
    *,
    title: str = "",
    frame: int = 160,
    text: int = 26,
) -> Image.Image:
    """Labelled rows of frames over the steps, with a caption under each column; Pillow only.

    Every row holds the same number of images, one `labels` entry each; `captions` has one string
    per column, whose lines stay lines. `frame` is the width of a frame and `text` the type size,
    in pixels. Pillow's own font draws the text, so no font has to be installed.
    """
    columns = _columns(rows, labels, captions)
    font, small = ImageFont.load_default(text), ImageFont.load_default(text * 0.82)
    frames = [[enlarge(to_rgb(image), frame) for image in row] for row in rows]
    heights = [max(image.height for image in row) for row in frames]
    gap = text // 2
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    margin = gap + max(
        round(font.getlength(line)) for label in labels for line in label.split("\n")
    )
    width = margin + columns * (frame + gap) + gap
    titles = _titles(title, font, width - 2 * gap)
    top = round(text * (0.75 + 1.15 * len(titles))) if titles else gap
    height = top + sum(h + gap for h in heights) + round(lines * text * 1.15) + gap
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(titles):
        draw.text((gap, gap + round(n * text * 1.15)), line, INK, font)
    y = top
    for row, label, tall in zip(frames, labels, heights, strict=True):
        draw.multiline_text((gap, y + tall // 2), label, INK, font, "lm")
        for n, image in enumerate(row):
            sheet.paste(image, (margin + gap + n * (frame + gap), y))
        y += tall + gap
    for n, caption in enumerate(captions):
        x = margin + gap + n * (frame + gap) + frame // 2
        draw.multiline_text((x, y), caption, QUIET, small, "ma", align="center")
    return sheet


def _columns(rows: Sequence, labels: Sequence[str], captions: Sequence[str]) -> int:
    lengths = {len(row) for row in rows}
    if len(rows) != len(labels) or len(lengths) != 1 or 0 in lengths:
        what = "equally long rows of at least one image, and one label each, are needed"
        raise InputError(
            f"filmstrip of rows {[len(r) for r in rows]}, {len(labels)} labels: {what}"
        )
    columns = lengths.pop()
    if captions and len(captions) != columns:
        raise InputError(f"{len(captions)} captions for {columns} columns: one each, or none")
    return columns


def _titles(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The title in at most three lines, broken between words; what is left over is cut."""
    lines: list[str] = []
    for word in text[:400].split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (font.getlength(longer) <= width or len(lines) == 3):
            lines[-1] = longer
        else:
            lines.append(word)
    return [_cut(line, font, width) for line in lines]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text on one line, with an ellipsis where it would leave the sheet."""
    text = " ".join(text[:400].split())
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
    return text
