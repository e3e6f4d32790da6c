"""The pictures of generated memes, and the files they are kept in.

A picture is a cloudy texture in a warm or a cold tint, with some shapes in it and a sign below.
The tint is its mood; the texture is drawn for each picture, so that no two are near-duplicates.
"""

import struct
import zlib
from io import BytesIO
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Format = Literal["PNG", "JPEG"]

SIDE: Final = 96
_CELLS: Final = 9
"""Cells of the texture a side: as many as a perceptual hash looks at, and one."""

_SIGN_HEIGHT: Final = 14
_WARM: Final = (1.0, 0.62, 0.30)
_COLD: Final = (0.30, 0.62, 1.0)
TINTS: Final = (_WARM, _COLD)
"""Shares of red, green and blue in mood 0 and 1."""

_ORIENTATION: Final = 0x0112
_TURNED_BY_90: Final = 6


def picture(mood: int, sign: str, rng: np.random.Generator) -> Image.Image:
    """A picture of a mood, RGB, `SIDE` pixels square."""
    cells = rng.integers(20, 236, size=(_CELLS, _CELLS), dtype=np.uint8)
    cloud = Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(cloud)
    for _ in range(3):
        left, top = (int(value) for value in rng.integers(0, SIDE - 24, size=2))
        width, height = (int(value) for value in rng.integers(8, 24, size=2))
        box = (left, top, left + width, top + height)
        shade = int(rng.integers(0, 256))
        if rng.random() < 0.5:
            draw.ellipse(box, fill=shade)
        else:
            draw.rectangle(box, fill=shade)
    jitter = rng.uniform(0.85, 1.15, size=3)
    tint = np.array(TINTS[mood]) * jitter
    grey = np.asarray(cloud, dtype=np.float64)[..., None]
    image = Image.fromarray(np.clip(grey * tint, 0, 255).astype(np.uint8))
    _write(image, sign)
    return image


def noise(rng: np.random.Generator) -> Image.Image:
    """A picture of nothing: every pixel drawn by itself, RGB."""
    cells = rng.integers(0, 256, size=(_CELLS, _CELLS), dtype=np.uint8)
    cloud = Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    # A texture of its own under the noise, which blurs to one and the same grey.
    pixels = rng.integers(0, 256, size=(SIDE, SIDE, 3), dtype=np.uint16)
    mixed = (np.asarray(cloud, dtype=np.uint16)[..., None] + pixels) // 2
    return Image.fromarray(mixed.astype(np.uint8))


def encoded(image: Image.Image, format_: Format, quality: int = 90) -> bytes:
    """The image as a file."""
    out = BytesIO()
    if format_ == "PNG":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def flat() -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", (SIDE, SIDE), (180, 120, 90)), "PNG")


def turned(image: Image.Image) -> bytes:
    """A JPEG whose EXIF says that it lies on its side."""
    out = BytesIO()
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED_BY_90
    image.save(out, "JPEG", quality=90, exif=exif)
    return out.getvalue()


def animated(image: Image.Image) -> bytes:
    """A GIF of two frames; its colours are a palette's."""
    out = BytesIO()
    first = image.quantize(64)
    second = image.transpose(Image.Transpose.ROTATE_180).quantize(64)
    first.save(out, "GIF", save_all=True, append_images=[second], duration=100, loop=0)
    return out.getvalue()


def transparent(image: Image.Image) -> bytes:
    """A PNG with a corner to be seen through."""
    layer = image.convert("RGBA")
    hole = Image.new("L", image.size, 255)
    ImageDraw.Draw(hole).rectangle((0, 0, 20, 20), fill=0)
    layer.putalpha(hole)
    out = BytesIO()
    layer.save(out, "PNG")
    return out.getvalue()


def wide(image: Image.Image) -> bytes:
    """A JPEG with one side longer than is stored."""
    return encoded(image.resize((1600, 200), Image.Resampling.BICUBIC), "JPEG")


def bomb() -> bytes:
    """A PNG of a hundred bytes that claims to have ten thousand million pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _write(image: Image.Image, sign: str) -> None:
    """A white band along the lower edge with the sign in it."""
    draw = ImageDraw.Draw(image)
    top = SIDE - _SIGN_HEIGHT
    draw.rectangle((0, top, SIDE, SIDE), fill="white")
    # The bitmap font is a part of Pillow: no font of the machine makes other bytes.
    draw.text((2, top + 1), sign, fill="black", font=ImageFont.load_default_imagefont())
