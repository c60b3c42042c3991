"""Pictures as (H, W, 3) uint8 arrays, drawn with Pillow alone: matplotlib costs half a second."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from torch import Tensor

Image8 = NDArray[np.uint8]
INK, FAINT, GRID = (31, 35, 40), (125, 133, 144), (225, 228, 232)
RIGHT, WRONG = 255.0, 45.0  # hues in degrees of OKLab's circle: blue for hits, vermilion for mistakes


def confusion_matrix(counts: Tensor, class_names: Sequence[str] = (), title: str = "") -> Image8:
    """Draw a confusion matrix: (C, C) counts with rows = truth; returns (H, W, 3) uint8.

    A cell's colour is its share of the row, blue on the diagonal, orange beside it; its number the count.
    The colours run through OKLab (Ottosson 2020) at even steps of lightness, so that equal shares look equal.
    Raises ValueError when `counts` is not square or the number of names is another.
    """
    table = counts.detach().cpu().numpy()
    size = len(table)
    if table.ndim != 2 or table.shape != (size, size) or size == 0:
        raise ValueError(f"a confusion matrix is square, this one has shape {table.shape}")
    if class_names and len(class_names) != size:
        raise ValueError(f"{len(class_names)} class names for {size} classes: give one for each class")
    names = [str(name) for name in class_names] or [str(i) for i in range(size)]
    return paint_matrix(table, names, title)


def image_grid(images: Tensor, labels: Sequence[str] = (), scale: int | None = None) -> Image8:
    """Lay images (K, C, H, W) in [0, 1] out as one picture, labels below; returns (H', W', 3) uint8.

    Small images are enlarged by a whole factor (`scale`; by default to about 96 pixels), without smoothing.
    One channel is grey, three are RGB; else the first is shown. Raises ValueError without images.
    """
    from PIL import Image, ImageDraw

    if images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"an image grid needs images of shape (K, C, H, W), these have {tuple(images.shape)}"
        )
    pixels = to_rgb(images)
    scale = scale or max(1, round(96 / max(pixels.shape[1:3])))
    tiles = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    columns = min(len(tiles), max(1, round(math.sqrt(len(tiles) * 1.6))))
    height, width = tiles.shape[1:3]
    foot = 18 if any(labels) else 0
    step_x, step_y = width + 6, height + 6 + foot
    rows = math.ceil(len(tiles) / columns)
    canvas = Image.new("RGB", (columns * step_x + 6, rows * step_y + 6), "white")
    draw = ImageDraw.Draw(canvas)
    for i, tile in enumerate(tiles):
        x, y = 6 + i % columns * step_x, 6 + i // columns * step_y
        canvas.paste(Image.fromarray(tile), (x, y))
        if foot and i < len(labels):
            label = shortened(labels[i], font(12), width)
            draw.text((x + width / 2, y + height + 3), label, INK, font(12), anchor="ma")
    return np.asarray(canvas)


def png(picture: Image8) -> bytes:
    """Return the picture as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def paint_matrix(table: NDArray[np.int64], names: Sequence[str], title: str) -> Image8:
    from PIL import Image, ImageDraw

    size = len(table)
    cell = int(np.clip(480 // size, 16, 84))
    text = font(int(np.clip(cell * 0.7, 10, 15)))
    labels = [shortened(name, text, 150) for name in names]
    widest = math.ceil(max(text.getlength(label) for label in labels))
    upright = widest > cell - 4  # labels of the columns are turned where they are wider than a cell
    left, top = widest + 44, (widest if upright else 16) + 100
    width, height = max(left + size * cell + 24, 440), top + size * cell + 20
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(Image.fromarray(cells(table, cell)), (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.text((20, 14), title or "Confusion matrix", INK, font(19))
    draw.text((20, 40), verdict(table), FAINT, font(13))
    draw.text(
        (left + size * cell / 2, top - (widest if upright else 16) - 12), "predicted", FAINT, font(13), "mb"
    )
    paint_labels(canvas, draw, labels, (left, top, cell), upright)
    paint_counts(draw, table, (left, top, cell))
    side = turned("truth", font(13), FAINT)
    canvas.paste(side, (14, top + (size * cell - side.height) // 2))
    return np.asarray(canvas)


def verdict(table: NDArray[np.int64]) -> str:
    right, total = int(np.trace(table)), int(table.sum())
    share = f"{right / total:.2%} right" if total else "no samples"
    return f"{share}: {right:,} of {total:,} · colour: share of the row"


def cells(table: NDArray[np.int64], size: int) -> Image8:
    """Draw the colored squares with thin lines between them, (C·size, C·size, 3)."""
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    on_diagonal = np.eye(len(table), dtype=bool)[..., None]
    colours = np.where(on_diagonal, ramp(share, RIGHT), ramp(share, WRONG))
    picture = colours.repeat(size, 0).repeat(size, 1)
    picture[::size] = picture[:, ::size] = GRID
    picture[-1] = picture[:, -1] = GRID
    return picture


def ramp(share: NDArray[np.float64], hue: float) -> Image8:
    """Map (…,) in [0, 1] to (…, 3) sRGB: lightness falls evenly from near white, chroma rises with the value."""
    # Mistakes are rare: the root lifts a share of 1 % into sight.
    depth = np.sqrt(np.clip(share, 0, 1))
    chroma, angle = 0.16 * depth**0.8, math.radians(hue)
    lightness = 0.985 - 0.47 * depth
    return oklab_to_rgb(lightness, chroma * math.cos(angle), chroma * math.sin(angle))


def oklab_to_rgb(lightness: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> Image8:
    """Convert OKLab to 8-bit sRGB (B. Ottosson, "A perceptual color space for image processing", 2020)."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(np.stack([long, medium, short], -1) @ to_linear.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def paint_labels(
    canvas: Image.Image, draw: ImageDraw, labels: Sequence[str], place: tuple[int, int, int], upright: bool
) -> None:
    """Draw the names of the classes at the left (truth) and at the top (prediction)."""
    left, top, cell = place
    text = font(int(np.clip(cell * 0.7, 10, 15)))
    for i, label in enumerate(labels):
        middle = i * cell + cell / 2
        draw.text((left - 6, top + middle), label, INK, text, anchor="rm")
        if upright:
            name = turned(label, text, INK)
            canvas.paste(name, (round(left + middle - name.width / 2), top - 6 - name.height))
        else:
            draw.text((left + middle, top - 9), label, INK, text, anchor="ms")  # on one baseline


def paint_counts(draw: ImageDraw, table: NDArray[np.int64], place: tuple[int, int, int]) -> None:
    """Draw the counts, where they fit; zeros stay empty, so that mistakes stand out."""
    left, top, cell = place
    dark = np.sqrt(table / np.maximum(table.sum(1, keepdims=True), 1)) > 0.6
    for row, column in np.argwhere(table > 0):
        count = f"{table[row, column]:,}"
        text = fitting_font(len(count), cell)
        if text is not None:
            middle = (left + column * cell + cell / 2, top + row * cell + cell / 2)
            draw.text(middle, count, "white" if dark[row, column] else INK, text, anchor="mm")


@lru_cache
def fitting_font(digits: int, cell: int) -> FreeTypeFont | None:
    """Return the largest font, 8 to 17 pixels, in which so many digits fit into a cell; None where none fits."""
    for size in range(min(17, cell - 4), 7, -1):
        if font(size).getlength("0" * digits) <= cell - 3:
            return font(size)
    return None


def turned(label: str, text: FreeTypeFont, colour: tuple[int, int, int]) -> Image.Image:
    """Draw the label as a picture that reads from bottom to top."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (math.ceil(text.getlength(label)) + 2, math.ceil(text.size * 1.4)), "white")
    ImageDraw.Draw(picture).text((1, picture.height / 2), label, colour, text, anchor="lm")
    return picture.transpose(Image.Transpose.ROTATE_90)


# letters of a label that are measured, one less each time
_LONGEST = 300


@lru_cache
def font(size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)  # type: ignore[return-value]


def shortened(label: str, text: FreeTypeFont, width: float) -> str:
    """Shorten the label, with … at its end, where it is wider than `width` pixels."""
    if len(label) <= _LONGEST and text.getlength(label) <= width:
        return label
    label = label[:_LONGEST]
    while label and text.getlength(label + "…") > width:
        label = label[:-1]
    return label + "…"


def to_rgb(images: Tensor) -> Image8:
    """Convert (K, C, H, W) in [0, 1] to (K, H, W, 3) uint8."""
    shown = images.detach().float().cpu()
    shown = shown if shown.shape[1] == 3 else shown[:, :1].expand(-1, 3, -1, -1)
    return (shown.nan_to_num().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
