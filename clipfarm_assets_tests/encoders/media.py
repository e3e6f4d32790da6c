"""Small real media, encoded on the spot."""

import io
import re
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

WIDTH, HEIGHT = 64, 96


def pictures(count, width=WIDTH, height=HEIGHT, seed=0):
    """RGB frames that differ from each other: a moving bright square over a drifting gradient."""
    random = np.random.default_rng(seed)
    tint = random.integers(0, 80, 3)
    y, x = np.mgrid[0:height, 0:width]
    for index in range(count):
        base = (x * 2 + y + index * 7) % 160
        frame = np.stack([base + tint[channel] for channel in range(3)], axis=-1)
        top, left = (index * 5) % (height - 16), (index * 3) % (width - 16)
        frame[top : top + 16, left : left + 16] = [250, (index * 11) % 256, 40]
        yield np.clip(frame, 0, 255).astype(np.uint8)


def video(
    count=24,
    *,
    width=WIDTH,
    height=HEIGHT,
    container="mp4",
    codec="libx264",
    options=None,
    container_options=None,
    gop=12,
    b_frames=0,
    pts=None,
    rotation=None,
    pix_fmt="yuv420p",
    seed=0,
):
    """A clip of `count` frames; `pts` in 1/1000 s makes the frame rate variable."""
    with tempfile.TemporaryDirectory() as folder:  # faststart reads back what it wrote
        path = Path(folder) / "clip"
        with av.open(
            str(path), "w", format=container, container_options=container_options or {}
        ) as output:
            stream = output.add_stream(codec, rate=25, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.gop_size = gop
            stream.codec_context.max_b_frames = b_frames
            stream.codec_context.thread_count = 1
            if pts is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if rotation is not None:
                stream.set_display_rotation(rotation)
            for index, picture in enumerate(pictures(count, width, height, seed)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                if pts is not None:
                    frame.pts, frame.time_base = pts[index], Fraction(1, 1000)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path.read_bytes()


def with_edit_list(mp4, skip):
    """`mp4` with its edit list starting `skip` media time units later."""
    at = mp4.index(b"elst")
    version = mp4[at + 4]
    assert version == 0
    data = bytearray(mp4)
    duration, start = struct.unpack(">Ii", mp4[at + 12 : at + 20])
    data[at + 12 : at + 20] = struct.pack(">Ii", duration, start + skip)
    return bytes(data)


def without_timestamps(ts):
    """`ts`, an MPEG transport stream, with the timestamp flags of its video packets cleared."""
    data = bytearray(ts)
    for match in re.finditer(rb"\x00\x00\x01\xe0..[\x80-\x8f]([\x80\xc0])", ts, re.DOTALL):
        data[match.start(1)] = 0
    return bytes(data)


def video_and_sound(count=12):
    """A clip whose first stream is sound, and whose second is the video."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=16_000, layout="mono")
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        _mux_sound(output, sound)
        for picture in pictures(count):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def sound_only_mp4():
    """An mp4 without any video stream."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        _mux_sound(output, output.add_stream("aac", rate=16_000, layout="mono"))
    return buffer.getvalue()


def _mux_sound(output, stream):
    samples = (tone(0.5) * 20_000).astype(np.int16).reshape(1, -1)
    for start in range(0, samples.shape[1] - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, start : start + 1024]), format="s16", layout="mono"
        )
        frame.sample_rate = 16_000
        frame.pts = start
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def tone(seconds, rate=16_000, hertz=440.0):
    """A sine of amplitude 0.5 with a slow vibrato, float64."""
    time = np.arange(int(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * hertz * time + 3 * np.sin(2 * np.pi * 2 * time))


def wav(samples, rate=16_000, subtype="PCM_16"):
    """A wav of `samples`, shape (n,) or (n, channels)."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()
