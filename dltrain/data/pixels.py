"""The pixels of one image file, as every viewer shows them. Training, predict, evaluate and export all read images here.

No torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dltrain.data.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# detected by content: Pillow would pass a PostScript file named .png to ghostscript, which runs it
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# a larger image takes some gigabytes while it is decoded, and 13,000² pixels fit into a small file
MAX_PIXELS = 90_000_000
# of formats whose decoder holds several copies of an image in colors
MOST_PIXELS = {"WEBP": 40_000_000}
# of a JPEG, each of which passes over the whole image; encoders write about ten
MAX_SCANS = 100
MODES = {"rgb": "RGB", "grey": "L"}
# channels of each `color`
COLORS = {"rgb": 3, "grey": 1}
# lengths of an axis that holds the colors of an image
_COLOR_AXES = (1, 3, 4)
Resize = Literal["crop", "stretch", "pad"]
# what is done, in its order, before "to 224×224"
RESIZES: dict[str, str] = {
    "crop": "cropped around the center and scaled",
    "stretch": "stretched",
    "pad": "scaled and padded with black",
}
# whole numbers of more than 8 bits: the value that is white, unless the user says another
WHITE = 65535
_ORIENTATION = 0x0112
# formats whose whole numbers of more than 8 bits run from 0 to 65535
_SIXTEEN_BITS = ("PNG", "PPM")


class Unusable(DataError):
    """An image that cannot be used; the message is the reason alone."""


class OtherSize(Unusable):
    """An image whose size is not that of the others. size: width and height."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"{width} wide and {height} high")
        self.size = (width, height)


class Trait(IntFlag):
    """What was done to an image besides reading it, or is strange about it."""

    GRAY = 1
    TURNED = 2
    TRANSPARENT = 4
    DEEP = 8
    CMYK = 16
    FRAMES = 32
    ONE_COLOR = 64
    CUT = 128


TRAITS = {
    Trait.GRAY: "gray",
    Trait.TURNED: "turned by EXIF",
    Trait.TRANSPARENT: "transparent, on white",
    Trait.DEEP: "of 16 bits, divided by {divisor:.6g}",
    Trait.CUT: "with values above {white}, cut to white",
    Trait.CMYK: "CMYK",
    Trait.FRAMES: "with several frames, of which the first is taken",
    Trait.ONE_COLOR: "of a single color",
}


@dataclass(frozen=True)
class Form:
    """Form that all images are brought to; resize: "" requires them to have the size; white: of images of 16 bits."""

    height: int
    width: int
    color: str
    resize: str = ""
    white: int = WHITE

    @property
    def shape(self) -> tuple[int, int, int]:
        return (COLORS[self.color], self.height, self.width)


def trait_text(trait: Trait, white: int) -> str:
    """Return what was done to images with a trait, or is strange about them."""
    return TRAITS[trait].format(divisor=white / 255, white=white)


def conversions(channels: int, white: int) -> str:
    """Return what happens to an image file before it is scaled, for a reader who has Pillow and numpy but not dltrain."""
    mode = next(MODES[color] for color, count in COLORS.items() if count == channels)
    return (
        f"turned as EXIF says; of 16 bits divided by {white / 255:.6g} and rounded, so that {white} is white: `np.minimum((np.asarray(image)"
        f".astype(np.uint32) * 255 + {white // 2}) // {white}, 255).astype(np.uint8)` (Pillow reads the upper 8 bits of a PNG of 16 bits in "
        f'color); on white where transparent; palettes, CMYK, gray and colors by `image.convert("{mode}")`; of several frames the first; floats '
        "and whole numbers of 32 bits are refused"
    )


def range_of_16_bits(path: str) -> tuple[int, int] | None:
    """Return the smallest and the largest value of an image of 16 bits; None for another one, and where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as file:
            if not file.mode.startswith("I") or file.width * file.height > MAX_PIXELS:
                return None
            values = np.asarray(file)
    # its reason is told where all images are read
    except Exception:
        return None
    return int(values.min()), int(values.max())


def read_pixels(path: str, form: Form) -> tuple[NDArray[np.uint8], Trait]:
    """Return the pixels (H, W, C) of an image, upright and in the color of the form. Raises Unusable with the reason."""
    from PIL import Image

    mode, wanted = MODES[form.color], (form.width, form.height)
    try:
        with Image.open(path, formats=FORMATS) as file:
            traits = _traits(file)
            if form.resize:
                # a JPEG can be decoded at a fraction of its size: up to 8 times faster for photographs
                width, height = _stored(file, wanted)
                file.draft(mode if file.mode == "RGB" else None, (2 * width, 2 * height))
            _check_pixels(file)
            _check_scans(path, file)
            upright, turned = _upright(file)
            image, more = _in_mode(upright, mode, str(file.format), form.white)
        if image.size != wanted:
            if not form.resize:
                raise OtherSize(*image.size)
            image = _resized(image, wanted, form.resize)
        pixels: NDArray[np.uint8] = np.asarray(image).reshape(form.height, form.width, -1)
    except Unusable:
        raise
    # PIL raises many kinds of exceptions: unidentified, truncated, too large, broken chunks
    except Exception as error:
        raise Unusable(_reason(error)) from error
    if (pixels == pixels[0, 0]).all():
        traits |= Trait.ONE_COLOR
    return pixels, traits | turned | more


def _traits(file: Image) -> Trait:
    traits = Trait.FRAMES if getattr(file, "is_animated", False) else Trait(0)
    traits |= Trait.CMYK if file.mode == "CMYK" else Trait(0)
    return traits | (Trait.GRAY if file.mode in ("1", "L", "LA", "La") else Trait(0))


def inspect_pixels(path: str, form: Form) -> None:
    """Raise Unusable for an image that `read_pixels` cannot read; sound JPEG and PNG files are not decoded."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as file:
            sized = form.resize or _stored(file, file.size) == (form.width, form.height)
            plain = (
                sized and file.mode in ("L", "RGB", "P", "RGBA") and file.width * file.height <= MAX_PIXELS
            )
            if plain and file.format == "JPEG" and _ends_whole(path):
                return
            if plain and file.format == "PNG":
                # checksums
                file.verify()
                return
    # decoding it gives the reason
    except Exception:
        pass
    read_pixels(path, form)


def _ends_whole(path: str) -> bool:
    """Return whether a JPEG file ends with its mark of the end."""
    with open(path, "rb") as stream:
        stream.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
        return stream.read().rstrip(b"\0\n\r ").endswith(b"\xff\xd9")


def upright_size(path: str) -> tuple[int, int]:
    """Return width and height of an image as it is shown, without decoding it. Raises Unusable with the reason."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as file:
            _check_pixels(file)
            return _stored(file, file.size)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not an image, or damaged" if "cannot identify image file" in text else text


def _stored(file: Image, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size in the file of an image that has `size` when it is upright, and the other way round."""
    from PIL import Image as images

    # the method of a PNG would decode it
    orientation = images.Image.getexif(file).get(_ORIENTATION, 1)
    return (size[1], size[0]) if orientation in (5, 6, 7, 8) else size


def _check_pixels(file: Image) -> None:
    most = MOST_PIXELS.get(str(file.format), MAX_PIXELS)
    if file.width * file.height > most:
        raise Unusable(
            f"{file.width} × {file.height} pixels are more than {most:,}; scale it down beforehand"
        )


def _check_scans(path: str, file: Image) -> None:
    """Raise Unusable for a JPEG with many scans, which decodes for minutes; the mark of a scan occurs in no data."""
    if file.format != "JPEG":
        return
    with open(path, "rb") as stream:
        scans = stream.read().count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise Unusable(f"{scans} scans are more than {MAX_SCANS}; save it again")


def _upright(file: Image) -> tuple[Image, Trait]:
    from PIL import ImageOps

    if file.getexif().get(_ORIENTATION, 1) not in range(2, 9):
        return file, Trait(0)
    return ImageOps.exif_transpose(file), Trait.TURNED


def _in_mode(image: Image, mode: str, form: str, white: int) -> tuple[Image, Trait]:
    """Return an image of 8 bits in `mode`. Raises Unusable for numbers of which it is not known which are black and white."""
    if image.mode == "F" or (image.mode == "I" and form not in _SIXTEEN_BITS):
        kind = "floats" if image.mode == "F" else "whole numbers of 32 bits or with a sign"
        raise Unusable(
            f"{kind}: which value is white is not known; save 8 or 16 bits, or use dataset=npz with floats"
        )
    if image.mode.startswith("I"):
        gray, cut = _from_16_bits(image, white)
        return gray.convert(mode), Trait.DEEP | Trait.GRAY | cut
    transparent = Trait(0)
    if image.has_transparency_data:
        image, transparent = _on_white(image)
    return image.convert(mode), transparent


def _from_16_bits(image: Image, white: int) -> tuple[Image, Trait]:
    from PIL import Image as images

    values = np.asarray(image).astype(np.uint32)
    cut = Trait.CUT if values.max(initial=0) > white else Trait(0)
    # 65535 / 257 = 255
    gray = np.minimum((values * 255 + white // 2) // white, 255)
    return images.fromarray(gray.astype(np.uint8)), cut


def _on_white(image: Image) -> tuple[Image, Trait]:
    from PIL import Image as images

    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema()[0] == 255:
        return layer.convert("RGB"), Trait(0)
    white = images.new("RGBA", layer.size, "white")
    return images.alpha_composite(white, layer).convert("RGB"), Trait.TRANSPARENT


def _resized(image: Image, size: tuple[int, int], how: str) -> Image:
    from PIL import Image as images
    from PIL import ImageOps

    functions: dict[str, Any] = {"crop": ImageOps.fit, "stretch": images.Image.resize, "pad": ImageOps.pad}
    resized: Image = functions[how](image, size, images.Resampling.BILINEAR)
    return resized


def colors_are_last(shape: Sequence[int]) -> bool:
    """Return whether a shape (…, H, W, C) has the axis of the colors at its end, and none of such a length before the pixels.

    >>> colors_are_last((100, 32, 32, 3)), colors_are_last((3, 32, 32)), colors_are_last((1, 4, 4))
    (True, False, False)
    """
    return shape[-1] in _COLOR_AXES and shape[-3] not in _COLOR_AXES


def colors_are_unclear(shape: Sequence[int]) -> bool:
    """Return whether the first and the last axis of images (A, B, C) may each be that of the colors; of gray strips, both are.

    >>> colors_are_unclear((4, 4, 3)), colors_are_unclear((1, 8, 3)), colors_are_unclear((1, 28, 1)), colors_are_unclear((3, 32, 32))
    (True, True, False, False)
    """
    return shape[-1] in _COLOR_AXES and shape[-3] in _COLOR_AXES and (shape[-1], shape[-3]) != (1, 1)
