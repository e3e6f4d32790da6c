"""The canary clips: short scenes in uncompressed AVI, so that no codec stands in between."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Source

Frames = NDArray[np.uint8]

WIDTH, HEIGHT, FRAMES = 176, 144, 24
_RATE: Final = 12

_Colour = tuple[float, float, float]
_DAWN: Final[tuple[_Colour, _Colour]] = ((38, 60, 120), (240, 160, 90))
_WOOD: Final[tuple[_Colour, _Colour]] = ((20, 48, 22), (170, 190, 96))
_SEA: Final[tuple[_Colour, _Colour]] = ((8, 50, 84), (130, 200, 210))
_INK: Final[tuple[_Colour, _Colour]] = ((16, 16, 20), (236, 232, 220))
_PAPER: Final[tuple[_Colour, _Colour]] = (_INK[1], _INK[0])

_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)


def video_canaries() -> Iterator[Source]:
    """Twelve clips of two seconds."""
    for name, paint in _SCENES.items():
        yield Source(f"canary-{name}", _to_avi(paint()), {})


def canary_frames() -> Iterator[tuple[str, Frames]]:
    """Name and RGB frames, uint8 ``(frames, height, width, 3)``, of every clip."""
    for name, paint in _SCENES.items():
        yield name, paint()


def _to_avi(frames: Frames) -> bytes:
    """RGB frames as raw pixels in AVI: decoding gives back these very levels."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream("rawvideo", rate=Fraction(_RATE))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr24"
        for picture in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def _bytes(label: str, count: int) -> NDArray[np.uint8]:
    """Noise that is the same with every library version: a hash's output."""
    return np.frombuffer(hashlib.shake_256(label.encode()).digest(count), np.uint8)


def _texture(label: str, height: int, width: int) -> NDArray[np.float64]:
    """Values on 0..1, shape ``(height, width)``, with the spectrum of natural pictures: 1/f.

    Octaves of bilinearly spread noise, each twice as fine and half as strong as the one before.
    """
    total = np.zeros((height, width))
    for octave in range(5):
        cell = 64 >> octave
        rows, columns = height // cell + 2, width // cell + 2
        grid = _bytes(f"{label} {octave}", rows * columns).reshape(rows, columns) / 255
        y, x = np.arange(height) / cell, np.arange(width) / cell
        top, left = y.astype(int), x.astype(int)
        down, right = (y - top)[:, None], (x - left)[None, :]
        upper = grid[top][:, left] * (1 - right) + grid[top][:, left + 1] * right
        lower = grid[top + 1][:, left] * (1 - right) + grid[top + 1][:, left + 1] * right
        total += (upper * (1 - down) + lower * down) / 2**octave
    low, high = total.min(), total.max()
    scaled: NDArray[np.float64] = (total - low) / (high - low)
    return scaled


def _tinted(values: NDArray[np.float64], palette: tuple[_Colour, _Colour]) -> Frames:
    """Values on 0..1 as RGB between the palette's two colours."""
    dark, bright = (np.array(colour) for colour in palette)
    rgb = dark + np.clip(values, 0, 1)[..., None] * (bright - dark)
    levels: Frames = np.round(rgb).astype(np.uint8)
    return levels


def _pan(label: str, palette: tuple[_Colour, _Colour], dx: int, dy: int) -> Frames:
    """A camera that moves over a landscape by so many pixels a frame, right and down."""
    land = _texture(label, HEIGHT + dy * (FRAMES + 1), WIDTH + dx * (FRAMES + 1))
    tops, lefts = ([step * (index + 1) for index in range(FRAMES)] for step in (dy, dx))
    views = [land[y : y + HEIGHT, x : x + WIDTH] for y, x in zip(tops, lefts, strict=True)]
    return _tinted(np.stack(views), palette)


def _discs(label: str, palette: tuple[_Colour, _Colour], speed: float) -> Frames:
    """Bright discs that cross a still scene in rows, `speed` in pixels a frame."""
    scene = _tinted(0.7 * _texture(label, HEIGHT, WIDTH), palette)
    frames = np.repeat(scene[None], FRAMES, axis=0)
    for index in range(FRAMES):
        x, y = (_X - speed * index) % 44 - 22, _Y % 36 - 18
        frames[index][x**2 + y**2 < 11**2] = (250, 244, 210)
    return frames


def _writing(label: str, palette: tuple[_Colour, _Colour], scroll: int) -> Frames:
    """Lines of glyph-like marks, scrolled by so many pixels a frame."""
    rows, columns = (HEIGHT + scroll * FRAMES) // 16 + 1, WIDTH // 8
    # A glyph is 5 x 7 random dots of 1 pixel by 2, and every fifth or so is a space.
    dots = _bytes(f"{label} dots", rows * columns * 35).reshape(rows, columns, 7, 5) % 2
    spaces = _bytes(f"{label} spaces", rows * columns).reshape(rows, columns) % 5 == 0
    dots = np.where(spaces[..., None, None], 0, dots)
    cells = np.zeros((rows, 16, columns, 8))
    cells[:, 1:15, :, 1:6] = dots.repeat(2, axis=2).transpose(0, 2, 1, 3)
    page = cells.reshape(rows * 16, columns * 8)
    views = [page[scroll * i : scroll * i + HEIGHT, :WIDTH] for i in range(FRAMES)]
    return _tinted(np.stack(views), palette)


def _snow(label: str, palette: tuple[_Colour, _Colour], share: float) -> Frames:
    """A still scene seen through another noise each frame, which covers `share` of its light."""
    scene = _texture(label, HEIGHT, WIDTH)
    shape = (FRAMES, HEIGHT // 2, WIDTH // 2)
    flakes = _bytes(f"{label} snow", int(np.prod(shape))).reshape(shape) / 255
    return _tinted((1 - share) * scene + share * flakes.repeat(2, 1).repeat(2, 2), palette)


def _strobe(period: int, contrast: float) -> Frames:
    """A checkerboard whose fields change places every `period` frames."""
    board = (_X // 22 + _Y // 24) % 2 - 0.5
    signs = np.array([1 - 2 * (index // period % 2) for index in range(FRAMES)])
    return _tinted(0.5 + contrast * signs[:, None, None] * board, _INK)


_SCENES: Final[Mapping[str, Callable[[], Frames]]] = {
    "slow-pan": partial(_pan, "dawn", _DAWN, 1, 0),
    "fast-pan": partial(_pan, "dawn", _DAWN, 5, 0),
    "still": partial(_pan, "wood", _WOOD, 0, 0),
    "tilt": partial(_pan, "wood", _WOOD, 0, 4),
    "slow-discs": partial(_discs, "sea", _SEA, 2.0),
    "fast-discs": partial(_discs, "sea", _SEA, 7.0),
    "page": partial(_writing, "page", _PAPER, 0),
    "credits": partial(_writing, "page", _PAPER, 1),
    "snow": partial(_snow, "field", _INK, 0.4),
    "blizzard": partial(_snow, "field", _INK, 0.6),
    "strobe": partial(_strobe, 3, 1.0),
    "flicker": partial(_strobe, 5, 0.6),
}
