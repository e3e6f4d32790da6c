"""Frames that show a clip's motion and warmth, and the mp4 they are kept in.

A disc and a band move over a textured slope of colour: `motion` is their speed, `warmth` blends
the colour from cold blue to warm orange.
"""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.demo.planted import Traits

Frames = NDArray[np.uint8]

_COLD: Final = np.array([36.0, 92.0, 196.0])
_WARM: Final = np.array([226.0, 120.0, 44.0])
_SLOWEST, _FASTEST = 0.05, 1.2
"""Speed of the disc in picture widths a second, at motion 0 and 1."""

# Macroblock trees decide by a vectorised sum that varies from run to run on AVX-512 machines.
_X264_OPTIONS: Final = {"preset": "veryfast", "crf": "26", "x264-params": "mbtree=0"}


@dataclass(frozen=True, slots=True)
class Picture:
    """How a clip is filmed and encoded.

    Attributes:
        width: Pixels; odd only with a pixel format that allows it, such as ``yuv444p``.
        height: Pixels.
        fps: Frames a second, where `pts_ms` does not say otherwise.
        frames: How many.
        keyframe_every: Frames from one keyframe to the next, at most.
        pixel_format: What h264 stores.
        movflags: Options of the mp4 muxer, e.g. ``faststart`` (header first) or
            ``frag_keyframe+empty_moov`` (fragments: the header tells no frame count).
        rotation: Degrees counter-clockwise that a player turns the picture by.
        pts_ms: Presentation time of each frame in ms; uneven for a variable frame rate.
    """

    width: int = 144
    height: int = 256
    fps: int = 12
    frames: int = 36
    keyframe_every: int = 12
    pixel_format: str = "yuv420p"
    movflags: str = ""
    rotation: int = 0
    pts_ms: tuple[int, ...] | None = None

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.frames / self.fps if self.pts_ms is None else self.pts_ms[-1] / 1000


def paint(traits: Traits, picture: Picture, rng: np.random.Generator) -> Frames:
    """Frames of a clip.

    Returns:
        RGB, uint8, of shape ``(frames, height, width, 3)``.
    """
    width, height = picture.width, picture.height
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    colour = _COLD + traits.unit("warmth") * (_WARM - _COLD)
    grain = rng.normal(0.0, 14.0, size=(height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)
    slope = 0.6 + 0.6 * y / height
    scene = slope[..., None] * colour + grain[:height, :width, None]

    speed = width * (_SLOWEST + (_FASTEST - _SLOWEST) * traits.unit("motion"))
    radius = width / 6
    start, phase = rng.uniform(0.0, width), rng.uniform(0.0, 2 * np.pi)
    frames = np.empty((picture.frames, height, width, 3), np.uint8)
    for index, seconds in enumerate(_moments(picture)):
        travelled = start + speed * seconds
        centre_x = travelled % width
        centre_y = height * (0.5 + 0.3 * np.sin(phase + 2 * np.pi * travelled / (3 * width)))
        disc = (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
        band = np.abs((y - travelled * 1.5) % height) < height / 16
        frame = scene.copy()
        frame[band] = 255 - frame[band]
        frame[disc] = 245.0
        frames[index] = np.clip(frame, 0, 255).astype(np.uint8)
    return frames


def encode_mp4(frames: Frames, picture: Picture) -> bytes:
    """The frames as h264 in mp4. The same frames give the same bytes, on one build of PyAV.

    Args:
        frames: RGB of shape ``(n, height, width, 3)``; ``n`` may be less than ``picture.frames``.
        picture: How to encode them.
    """
    # A file, not a buffer: `faststart` reads back what was written, by name.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", format="mp4", options=_muxer_options(picture)) as container:
            stream = container.add_stream(
                "libx264",
                rate=picture.fps,
                options={**_X264_OPTIONS, "g": str(picture.keyframe_every)},
            )
            stream.width, stream.height = picture.width, picture.height
            stream.pix_fmt = picture.pixel_format
            stream.codec_context.thread_count = 1
            if picture.rotation:
                stream.set_display_rotation(picture.rotation)
            _encode(container, stream, frames, picture.pts_ms)
        return path.read_bytes()


def encode_audio_only_mp4(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """An mp4 that holds sound and no picture.

    Args:
        samples: Mono, on -1..1, of shape ``(n,)``.
        sample_rate: Hz.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
        frame.sample_rate = sample_rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _encode(container: Any, stream: Any, frames: Frames, pts_ms: Sequence[int] | None) -> None:
    if pts_ms is not None:
        stream.codec_context.time_base = Fraction(1, 1000)
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        if pts_ms is not None:
            frame.pts, frame.time_base = pts_ms[index], Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _muxer_options(picture: Picture) -> dict[str, str]:
    # bitexact: no library version in the file, so that bytes depend on the frames alone.
    options = {"fflags": "+bitexact"}
    if picture.movflags:
        options["movflags"] = picture.movflags
    return options


def _moments(picture: Picture) -> list[float]:
    if picture.pts_ms is not None:
        return [ms / 1000 for ms in picture.pts_ms]
    return [index / picture.fps for index in range(picture.frames)]
