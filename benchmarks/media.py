"""Media that cost what real ones cost: a moving, grainy picture, a voice-like sound, a few words.

Everything is a function of its arguments and a seed: the same bytes on one build of PyAV.
"""

import io
import json
import os
import wave
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.demo.planted import draw_channel, draw_traits
from clipfarm_assets.demo.words import speak, write_words

FPS: Final = 30
SOUND_RATE: Final = 44_100
"""Samples a second of `sound_bytes`."""

Picture = NDArray[np.uint8]

_MARGIN: Final = 256
"""Pixels that a texture is larger than the picture, for scrolling."""

_GRAINS: Final = 8
"""Different planes of grain, each shown at another offset every time."""

_SHOWN_ONCE: Final = 240
"""Frames of a long clip that are painted and coded, at least."""

_X264: Final = {"preset": "veryfast", "crf": "23"}

# Macroblock trees decide by a vectorised sum that varies from run to run on AVX-512 machines.
_X264_PARAMS: Final = (
    "mbtree=0:scenecut=0:open-gop=0:bframes=3:b-pyramid=normal:keyint={n}:min-keyint={n}"
)


def clip_bytes(seconds: int, height: int, keyframe_every: int, seed: int) -> bytes:
    """An mp4 of h264: 16:9, 30 frames a second, three B-frames in a pyramid between P-frames.

    A background scrolls, a foreground with another texture moves across it, and grain lies over
    both, so that no block comes for free: 2 to 3 Mbit/s at 1080p. A long clip shows its first
    eight seconds or so again and again, coded once: decoding costs the same, encoding much less.

    Args:
        seconds: How long it plays.
        height: Pixels, even.
        keyframe_every: Frames from each keyframe to the next, exactly.
        seed: Which clip.
    """
    total = seconds * FPS
    # A whole number of keyframe intervals, so that what is repeated starts at a keyframe.
    once = min(total, -(-_SHOWN_ONCE // keyframe_every) * keyframe_every)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = _add_stream(container, height, keyframe_every)
        coded = _encode(stream, once, seed)
        with av.open(io.BytesIO(), "w", format="mp4") as aside:
            rest = _encode(_add_stream(aside, height, keyframe_every), total % once, seed)
        for start in range(0, total, once):
            for packet in coded if start + once <= total else rest:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = packet.pts + start, packet.dts + start
                again.time_base, again.duration = packet.time_base, 1
                again.is_keyframe, again.stream = packet.is_keyframe, stream
                container.mux(again)
    return buffer.getvalue()


def _add_stream(container: Any, height: int, keyframe_every: int) -> Any:
    options = {**_X264, "x264-params": _X264_PARAMS.format(n=keyframe_every)}
    stream = container.add_stream("libx264", rate=FPS, options=options)
    stream.width, stream.height, stream.pix_fmt = height * 16 // 9 // 2 * 2, height, "yuv420p"
    stream.codec_context.thread_count = 1
    return stream


def _encode(stream: Any, count: int, seed: int) -> list[Any]:
    """The first frames of a clip in packets, their times in frames."""
    painted = _Painter(stream.width, stream.height, np.random.default_rng(seed))
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(painted.frame(index), format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, FPS)
        packets += stream.encode(frame)
    return packets + (stream.encode(None) if count else [])


class _Painter:
    """Paints planes of YUV 4:2:0, stacked as ``(height * 3 / 2, width)``."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self._size = height, width
        whole = height + _MARGIN, width + _MARGIN
        self._back = _texture(whole, rng)
        self._front = _texture(whole, rng)
        self._chroma = [
            _texture((height // 2 + _MARGIN, width // 2 + _MARGIN), rng, 0.35) for _ in "uv"
        ]
        self._grain = [_grain(whole, rng) for _ in range(_GRAINS)]
        self._offsets = rng.integers(0, _MARGIN, (4096, 2)).tolist()
        self._speed = rng.uniform(0.4, 1.5, 4)

    def frame(self, index: int) -> Picture:
        """The picture at so many frames from the start."""
        height, width = self._size
        planes = np.empty((height * 3 // 2, width), np.uint8)
        luma = planes[:height]
        luma[:] = _window(self._back, self._at(index, 0), (height, width))
        box = height // 2, width // 3
        top = int((height - box[0]) * (0.5 + 0.5 * np.sin(index * self._speed[2] / 40)))
        left = int((width - box[1]) * (0.5 + 0.5 * np.sin(index * self._speed[3] / 55)))
        luma[top : top + box[0], left : left + box[1]] = _window(
            self._front, self._at(index, 1), box
        )
        # Textures leave room above and below, so the sum does not wrap around.
        grain = self._grain[index % _GRAINS]
        luma += _window(grain, self._offsets[index % len(self._offsets)], (height, width))
        half = height // 2, width // 2
        chroma = planes[height:].reshape(2, *half)
        for plane, texture in zip(chroma, self._chroma, strict=True):
            plane[:] = _window(texture, [place // 2 for place in self._at(index, 0)], half)
        return planes

    def _at(self, index: int, layer: int) -> tuple[int, int]:
        travelled = index * self._speed[layer]
        down = _MARGIN / 2 * (1 + np.sin(travelled / 47 + layer))
        across = _MARGIN / 2 * (1 + np.sin(travelled / 61))
        return int(down), int(across)


def _grain(size: tuple[int, int], rng: np.random.Generator) -> Picture:
    """Small numbers around zero; negative ones as uint8 that wrap around when added."""
    return np.round(rng.standard_normal(size, np.float32) * 1.6).astype(np.int8).view(np.uint8)


def _texture(size: tuple[int, int], rng: np.random.Generator, contrast: float = 1.0) -> Picture:
    """Noise of several sizes, the coarser the stronger as in photographs, on 24..231."""
    total = np.zeros(size, np.float32)
    for octave in range(8):
        step = 2**octave
        coarse = rng.normal(size=(size[0] // step + 2, size[1] // step + 2)).astype(np.float32)
        total += _enlarge(coarse, size, step) * step**0.9
    total *= contrast * 40 / total.std()
    return np.clip(128 + total, 24, 231).astype(np.uint8)


def _enlarge(coarse: NDArray[np.float32], size: tuple[int, int], step: int) -> NDArray[np.float32]:
    """Bilinear, by `step` in both directions."""
    rows, columns = (np.arange(length) / step for length in size)
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None].astype(np.float32), (columns - left).astype(np.float32)
    wide = coarse[:, left] * (1 - right) + coarse[:, left + 1] * right
    enlarged: NDArray[np.float32] = wide[top] * (1 - down) + wide[top + 1] * down
    return enlarged


def _window(plane: Picture, corner: Sequence[int], size: tuple[int, int]) -> Picture:
    return plane[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def sound_bytes(seconds: int, seed: int) -> bytes:
    """A wav of 44.1 kHz, stereo, 16 bit: a gliding voice with overtones, pauses, and noise."""
    rng = np.random.default_rng([seed, 1])
    count = seconds * SOUND_RATE
    time = np.arange(count) / SOUND_RATE
    glide = rng.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * time))
    phase = 2 * np.pi * np.cumsum(glide) / SOUND_RATE
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 6))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time + rng.uniform(0, 6)), 0, 1)
    mono = 0.2 * voice * syllables
    both = mono[:, None] * rng.uniform(0.6, 1.0, 2) + rng.normal(0.0, 0.01, (count, 2))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE)
        file.writeframes(np.round(np.clip(both, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def words(seed: int) -> tuple[dict[str, str], bytes]:
    """A clip's metadata fields for the text template, and its transcript object of 50-400 words."""
    rng = np.random.default_rng([seed, 2])
    traits = draw_traits(rng, draw_channel(rng))
    written = write_words(traits, rng)
    metadata = {
        "title": written.title,
        "description": written.description,
        "query": written.query,
    }
    transcript = speak(traits, rng, sentences=int(rng.integers(5, 41)))
    fields = {"video_id": f"clip{seed}", "language": "en", "transcript": transcript}
    return metadata, json.dumps(fields, ensure_ascii=False).encode()


def kept(folder: Path, name: str, make: Callable[[], bytes]) -> Path:
    """The file `name` in `folder`, made if it is not there yet; never seen half-written."""
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{name}.{os.getpid()}.part")
        unfinished.write_bytes(make())
        unfinished.replace(path)
    return path
