"""Media that name other files or addresses, odd codecs, and frames meant to fill memory."""

import io
import struct
from contextlib import closing

import av
import numpy as np
import pytest

from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers
from clipfarm_assets.encoders.video.file import CODECS, open_video
from clipfarm_assets.encoders.video.frames import pick_frames
from clipfarm_assets_tests.encoders import media

SIDE = 4096


def pick(raw):
    return pick_frames(raw, 4, 4, np.copy, Deadline.after(60))


@pytest.fixture(scope="module")
def workers():
    with closing(DecodeWorkers(64 * 2**20)) as pool:
        yield pool


def pick_by(workers, raw):
    return workers.pick_frames(raw, 4, 4, np.copy, Deadline.after(60), "as_stored")


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def reference_movie(target):
    """A QuickTime movie that is nothing but a pointer to another one."""
    pointer = box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(target) + 1), target, b"\0")
    return box(b"ftyp", b"qt  ", bytes(8)) + box(b"moov", box(b"rmra", box(b"rmda", pointer)))


def with_samples_elsewhere(mp4, target):
    """`mp4` with its samples said to lie in another file: an alias in the data reference box.

    Its own samples are wiped out. An alias tells the way: so many levels up, so many down.
    """
    old = box(b"dref", bytes(4), struct.pack(">I", 1), box(b"url ", b"\0\0\0\1"))
    path = b"/" + target
    alias = bytes(10 + 28 + 12 + 64 + 16) + struct.pack(">HH", 1, 1) + bytes(16)
    alias += struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2)
    alias += b"\xff\xff\0\0" + bytes(16)
    new = box(b"dref", bytes(4), struct.pack(">I", 1), box(b"alis", bytes(4), alias))
    at = mp4.index(old)
    data = bytearray(mp4[:at] + new + mp4[at + len(old) :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        size = mp4.index(kind) - 4
        (length,) = struct.unpack(">I", data[size : size + 4])
        data[size : size + 4] = struct.pack(">I", length + len(new) - len(old))
    samples, end = mp4.index(b"mdat") + 4, mp4.index(b"moov") - 4
    data[samples:end] = bytes(end - samples)
    return bytes(data)


DASH = b"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">
<Period><AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1">
<BaseURL>neighbour.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"""

POINTERS = {
    "dash": DASH,
    "subfile": b"subfile,,start,0,end,0,,:neighbour.mp4",
    "http": b"http://127.0.0.1:9/clip.mp4",
    "reference movie": reference_movie(b"neighbour.mp4"),
    "images": b"neighbour-%03d.png",
    "data url": b"data:video/mp4;base64,AAAA",
}


@pytest.mark.parametrize("kind", POINTERS)
def test_nothing_is_opened_that_a_file_points_at(kind, workers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbour.mp4").write_bytes(media.video(4))
    for decode in (pick, lambda raw: pick_by(workers, raw)):
        with pytest.raises(MediaError, match="cannot decode the video"):
            decode(POINTERS[kind])


def test_samples_that_lie_in_another_file_are_not_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = media.video(4)
    (tmp_path / "neighbour.mp4").write_bytes(whole)
    raw = with_samples_elsewhere(whole, b"neighbour.mp4")
    with av.open(str(_written(tmp_path / "p.mp4", raw)), options={"enable_drefs": "1"}) as file:
        assert next(file.decode(video=0)), "the attack is real: with that option it is followed"
    with pytest.raises(MediaError, match="cannot decode the video"):
        pick(raw)


def _written(path, raw):
    path.write_bytes(raw)
    return path


REFUSED = {
    "ffv1": {"container": "matroska"},
    "huffyuv": {"container": "avi", "pix_fmt": "yuv422p"},
    "png": {"container": "mov", "pix_fmt": "rgb24"},
}


@pytest.mark.parametrize("codec", REFUSED)
def test_other_codecs_than_those_of_clips_are_refused_by_name(codec):
    raw = media.video(2, codec=codec, **REFUSED[codec])
    with pytest.raises(MediaError, match=f"its codec is {codec}, expected one of av1, .*; convert"):
        pick(raw)


ALLOWED = {
    "h264": {},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "vp8": {"codec": "libvpx", "container": "webm"},
    "mpeg4": {"codec": "mpeg4", "container": "avi"},
    "mpeg2video": {"codec": "mpeg2video", "container": "mpegts"},
    "mpeg1video": {"codec": "mpeg1video", "container": "avi"},
    "mjpeg": {"codec": "mjpeg", "container": "avi", "pix_fmt": "yuvj420p"},
    "flv1": {"codec": "flv", "container": "flv"},
    "rawvideo": {"codec": "rawvideo", "container": "avi"},
    "h263": {"codec": "h263", "container": "3gp", "width": 176, "height": 144},
}


@pytest.mark.parametrize("codec", ALLOWED)
def test_the_codecs_of_clips_are_decoded(codec):
    """Those of the list that other tests do not decode anyway: av1, vp9."""
    raw = media.video(3, **ALLOWED[codec])
    with open_video(raw) as (_, video):
        assert video.codec_context.codec.canonical_name == codec
    assert len(pick(raw).frames) == 4
    assert set(ALLOWED) | {"av1", "vp9"} == set(CODECS)


def test_a_few_bytes_that_become_huge_frames_take_no_more_memory_than_allowed(workers):
    """A decompression bomb: one grey picture, of which each MiB takes a few KiB in the file."""
    raw = bomb()
    assert len(raw) < 2**20
    with pytest.raises(MediaError, match=r"more memory than decode_memory_mib allows, 64 MiB"):
        pick_by(workers, raw)
    assert len(pick_by(workers, media.video(3)).frames) == 4


def bomb():
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuvj420p"
        frame = av.VideoFrame(SIDE, SIDE, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
