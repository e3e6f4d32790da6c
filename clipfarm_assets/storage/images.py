"""Image files of any kind, decoded within bounds, and written as RGB PNG to the same bytes.

The same file and limits give the same pixels and the same PNG on one machine and build. On another
they depend on what `versions` tells: on Pillow, on the zlib it was built with (that of its wheels,
zlib-ng, picks its search for matches by the processor), and for lossy files on its libjpeg-turbo
and libwebp. The PNG's compression level is fixed; it carries no metadata, of which EXIF may tell
where a photo was taken.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError, features

#: What files may be. Others that Pillow knows have too much code behind them for what they are
#: worth here; EPS would start a program.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

#: What may have been done to an image, and is counted.
CHANGES: Final[Mapping[str, str]] = {
    "first_frame": "animated, or several pictures in one file: the first one is taken",
    "grey": "from grey levels",
    "sixteen_bit": "grey levels of 16 bits, of which the upper 8 are taken",
    "palette": "from a palette",
    "cmyk": "from CMYK by Pillow's formula, without a colour profile",
    "transparent": "laid on white where it is transparent",
    "profile_dropped": "its colour profile is not applied",
    "turned": "turned or mirrored as its EXIF orientation says",
    "exif_unreadable": "its EXIF can't be read: taken as it lies",
    "shrunk": "shrunk to the longest side allowed",
}

_COMPRESS_LEVEL: Final = 6
_ORIENTATION: Final = 0x0112
# How to undo each orientation. Source: Exif 2.32, 4.6.4, tag Orientation.
_UPRIGHT: Final[Mapping[object, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SHOWN: Final = 200


class BadImage(ValueError):  # noqa: N818 - reads better where it is raised
    """Not an image that can be decoded within the limits. The message is a clause."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is decoded, and how large it may stay.

    Attributes:
        file_bytes: Most bytes of a file.
        pixels: Most pixels, by the file's own claim, which is looked at before any is decoded.
            While one is decoded it takes up to 12 bytes.
        longest_side: Pixels; larger images are shrunk to it.
    """

    file_bytes: int = 64 << 20
    pixels: int = 1 << 25
    longest_side: int = 1024

    def __post_init__(self) -> None:
        """Check all; raises `ValueError`."""
        if min(self.file_bytes, self.pixels, self.longest_side) < 1:
            msg = f"limits of images must be 1 or more: found {self}"
            raise ValueError(msg)


DEFAULT_LIMITS: Final = ImageLimits()

#: Of images out of our own shards: what they may be was decided when they were packed.
PACKED: Final = ImageLimits(sys.maxsize, sys.maxsize, sys.maxsize)


@dataclass(frozen=True, slots=True)
class RgbPng:
    """An image as it is stored.

    Attributes:
        data: The PNG.
        width: Pixels.
        height: Pixels.
        changes: What was done to it, of `CHANGES`.
    """

    data: bytes
    width: int
    height: int
    changes: tuple[str, ...]


def rgb_png(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> RgbPng:
    """Decode all of an image file and write it as an RGB PNG; see `decode_rgb`."""
    image, changes = decode_rgb(data, limits)
    file = BytesIO()
    image.save(file, "PNG", compress_level=_COMPRESS_LEVEL)
    return RgbPng(file.getvalue(), image.width, image.height, changes)


def decode_rgb(
    data: bytes, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an image file whole, upright, in RGB and without metadata.

    Args:
        data: The file.
        limits: Its bounds.

    Returns:
        The image, and what was done to it, of `CHANGES`.

    Raises:
        BadImage: Of another format, too large, cut off or damaged; of a PNG the checksums are
            compared too.
    """
    if len(data) > limits.file_bytes:
        msg = f"the file has {len(data)} bytes, of {limits.file_bytes} at most"
        raise BadImage(msg)
    try:
        return _decoded(data, limits)
    except (BadImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        msg = f"it claims to have far more than {limits.pixels} pixels"
        raise BadImage(msg) from None
    except UnidentifiedImageError:
        msg = f"it is none of {', '.join(FORMATS)}: it begins with {data[:8]!r}"
        raise BadImage(msg) from None
    # Pillow documents no list, and damage makes its readers raise whatever they stumble upon.
    except Exception as error:
        msg = f"it can't be decoded: {str(error)[:_SHOWN] or type(error).__name__}"
        raise BadImage(msg) from error


def versions() -> dict[str, str]:
    """The libraries that the bytes of `rgb_png` depend on; their versions."""
    names = ("pil", "zlib", "zlib_ng", "jpg", "libjpeg_turbo", "webp")
    return {name: features.version(name) or "none" for name in names}


def _decoded(data: bytes, limits: ImageLimits) -> tuple[Image.Image, tuple[str, ...]]:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if image.format == "PNG":
            image.verify()  # decoding does not compare checksums; it can't go on after this
    changes: list[str] = []
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        _check_size(image, limits)
        if getattr(image, "is_animated", False):
            changes.append("first_frame")
        image.load()
        _check_size(image, limits)  # a frame may enlarge the canvas
        turn = _turn(image, changes)
        if image.info.get("icc_profile"):
            changes.append("profile_dropped")
        rgb = _rgb(image, changes)
    rgb.info = {}  # what is left in there would be written
    if turn is not None:
        rgb = rgb.transpose(turn)
    longest = max(rgb.size)
    if longest > limits.longest_side:
        changes.append("shrunk")
        width, height = (
            max(1, (side * limits.longest_side + longest // 2) // longest) for side in rgb.size
        )
        rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
    return rgb, tuple(changes)


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    if image.width * image.height > limits.pixels:
        msg = f"it has {image.width} x {image.height} pixels, of {limits.pixels} at most"
        raise BadImage(msg)


def _turn(image: Image.Image, changes: list[str]) -> Image.Transpose | None:
    """How to set the image upright."""
    try:
        exif = dict(image.getexif())
        is_readable = bool(exif) or not image.info.get("exif")  # of some damage Pillow only warns
        turn = _UPRIGHT.get(exif.get(_ORIENTATION))
    except Exception:  # noqa: BLE001 - as in decode_rgb, but it spoils nothing of the image
        is_readable, turn = False, None
    if not is_readable:
        changes.append("exif_unreadable")
    if turn is not None:
        changes.append("turned")
    return turn


def _rgb(image: Image.Image, changes: list[str]) -> Image.Image:
    """The image in RGB, as a new one."""
    if image.mode == "I;16":
        return _of_sixteen_bits(image, changes)
    if image.mode in {"1", "L", "LA"}:
        changes.append("grey")
    elif image.mode in {"P", "PA"}:
        changes.append("palette")
    elif image.mode == "CMYK":
        changes.append("cmyk")
    elif image.mode not in {"RGB", "RGBA"}:
        msg = f"its pixels are of the mode {image.mode}, which no file of {FORMATS} should give"
        raise BadImage(msg)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    opaque = layer.getchannel("A").histogram()[255]
    if opaque == layer.width * layer.height:
        return layer.convert("RGB")
    changes.append("transparent")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _of_sixteen_bits(image: Image.Image, changes: list[str]) -> Image.Image:
    """Grey levels of 16 bits, which Pillow's conversion would cut off at 255."""
    changes += ("grey", "sixteen_bit")
    levels = np.asarray(image)
    upper = (levels >> 8).astype(np.uint8)
    clear = image.info.get("transparency")  # one level that is to be seen through
    if clear is not None and (levels == clear).any():
        changes.append("transparent")
        upper[levels == clear] = 255
    return Image.fromarray(upper).convert("RGB")
