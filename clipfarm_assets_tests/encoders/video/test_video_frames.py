import io
import struct

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.video.frames import choose_frames, pick_frames
from clipfarm_assets_tests.encoders import media

TIMES = [index * index * 10 for index in range(24)]


def faststart(count, **settings):
    return media.video(count, container_options={"movflags": "faststart"}, **settings)


def truncated():
    whole = faststart(60)
    return whole[: len(whole) * 2 // 3]


def damaged():
    whole = media.video(60)
    return whole[:2000] + bytes(200) + whole[2200:]


CLIPS = {
    "plain": lambda: media.video(24),
    "exactly the frames wanted": lambda: media.video(16),
    "three frames": lambda: media.video(3),
    "one frame": lambda: media.video(1),
    "b-frames": lambda: media.video(24, b_frames=3, gop=24),
    "open gop": lambda: media.video(
        36, b_frames=2, gop=12, options={"x264-params": "open-gop=1:scenecut=0"}
    ),
    "fragmented": lambda: media.video(
        24, container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "matroska": lambda: media.video(24, container="matroska"),
    "webm": lambda: media.video(20, container="webm", codec="libvpx-vp9"),
    "mpegts": lambda: media.video(24, container="mpegts", b_frames=2),
    "flv": lambda: media.video(24, container="flv"),
    "avi": lambda: media.video(24, container="avi", codec="mpeg4"),
    "variable rate": lambda: media.video(24, pts=TIMES),
    "variable rate, b-frames": lambda: media.video(24, pts=TIMES, b_frames=2),
    "edit list": lambda: media.with_edit_list(media.video(40), 5 * 512),
    "odd size": lambda: media.video(24, width=65, height=97, pix_fmt="yuv444p"),
    "rotated": lambda: media.video(24, rotation=-90),
    "sound first": lambda: media.video_and_sound(20),
    "truncated": truncated,
    "damaged": damaged,
}


def decode_all(raw):
    """Every decodable frame as RGB, from the start, in order; no listing, no choosing."""
    frames = []
    with av.open(io.BytesIO(raw)) as container:
        stream = container.streams.video[0]
        packets = container.demux(stream)
        while (packet := next(packets, None)) is not None:
            try:
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
            except av.error.InvalidDataError:
                continue
    return frames


def header_count(raw):
    with av.open(io.BytesIO(raw)) as container:
        return container.streams.video[0].frames


def pick(raw, wanted=16, taken=None, seconds=60.0, rotation="as_stored"):
    return pick_frames(
        raw, wanted, taken or wanted, lambda rgb: rgb.copy(), Deadline.after(seconds), rotation
    )


@pytest.mark.parametrize("name", CLIPS)
def test_picks_what_decoding_everything_and_the_formula_pick(name):
    raw = CLIPS[name]()
    every = decode_all(raw)
    if len(every) >= 16:
        indices = np.linspace(0, len(every) - 1, 16).astype(int)
    else:
        indices = [*range(len(every)), *[len(every) - 1] * (16 - len(every))]

    picked = pick(raw)

    assert picked.listed
    assert picked.decoded_frames == len(every)
    assert len(picked.frames) == 16
    for got, index in zip(picked.frames, indices, strict=True):
        assert np.array_equal(got, every[index])


@pytest.mark.parametrize("name", sorted(CLIPS.keys() - {"truncated", "damaged"}))
def test_undamaged_clips_are_decoded_once_and_only_picked_frames_converted(name):
    converted = []
    picked = pick_frames(
        CLIPS[name](), 16, 16, lambda rgb: converted.append(rgb.shape), Deadline.after(60)
    )
    assert len(converted) == min(16, picked.decoded_frames)


@pytest.mark.parametrize(
    ("name", "header", "decodable"),
    [
        ("fragmented", 0, 24),
        ("matroska", 0, 24),
        ("mpegts", 0, 24),
        ("edit list", 40, 35),
        ("truncated", 60, None),
    ],
)
def test_the_cases_with_a_lying_header_are_what_they_claim(name, header, decodable):
    raw = CLIPS[name]()
    assert header_count(raw) == header
    found = len(decode_all(raw))
    assert 16 < found < 60 if decodable is None else found == decodable


@pytest.mark.parametrize("name", ["truncated", "damaged"])
def test_damaged_packets_are_counted(name):
    assert pick(CLIPS[name]()).decode_errors > 0


def test_undamaged_packets_are_not():
    assert pick(CLIPS["b-frames"]()).decode_errors == 0


@pytest.mark.parametrize(
    ("available", "wanted", "indices"),
    [
        (1, 4, [0, 0, 0, 0]),
        (3, 5, [0, 1, 2, 2, 2]),
        (5, 5, [0, 1, 2, 3, 4]),
        (10, 4, [0, 3, 6, 9]),
        (24, 16, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 23]),
        (100, 1, [0]),
    ],
)
def test_choice_table(available, wanted, indices):
    assert choose_frames(available, wanted).tolist() == indices


def test_more_sampled_than_the_model_takes_are_thinned_and_fewer_repeated():
    raw = media.video(40)
    every = decode_all(raw)
    for wanted, taken in ((32, 16), (8, 16)):
        sampled = np.linspace(0, 39, wanted).astype(int)
        indices = sampled[np.linspace(0, wanted - 1, taken).astype(int)]
        for got, index in zip(pick(raw, wanted, taken).frames, indices, strict=True):
            assert np.array_equal(got, every[index])


def test_a_stream_that_cannot_be_listed_gives_its_first_decodable_frames():
    raw = media.without_timestamps(media.video(24, container="mpegts", b_frames=2))
    every = decode_all(raw)
    picked = pick(raw)
    assert not picked.listed
    assert len(every) == 24
    for got, expected in zip(picked.frames, every[:16], strict=True):
        assert np.array_equal(got, expected)


def test_too_few_of_a_stream_that_cannot_be_listed_are_padded():
    raw = media.without_timestamps(media.video(5, container="mpegts"))
    frames = pick(raw).frames
    assert len(frames) == 16
    assert all(np.array_equal(frame, frames[4]) for frame in frames[5:])
    assert not np.array_equal(frames[3], frames[4])


def test_upright_turns_as_the_display_matrix_says():
    raw = media.video(16)
    at = raw.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of fields
    # A phone held upright: x' = -y, y' = x, which turns clockwise by 90 degrees.
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    assert raw[at : at + 36] == struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    rotated = raw[:at] + matrix + raw[at + 36 :]
    for stored, upright in zip(
        pick(rotated).frames, pick(rotated, rotation="upright").frames, strict=True
    ):
        assert stored.shape == (media.HEIGHT, media.WIDTH, 3)
        assert np.array_equal(upright, np.rot90(stored, k=-1))


def test_upright_refuses_a_slanted_clip_and_as_stored_takes_it():
    raw = media.video(4, rotation=45)
    assert len(pick(raw).frames) == 16
    with pytest.raises(MediaError, match=r"45 degrees, expected a multiple of 90"):
        pick(raw, rotation="upright")


LISTS = {
    "ffconcat": "ffconcat version 1.0\nfile neighbour.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nneighbour.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "concat": "concat:neighbour.mp4",
}


@pytest.mark.parametrize("kind", LISTS)
def test_nothing_is_opened_that_a_list_names(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbour.mp4").write_bytes(media.video(4))
    raw = LISTS[kind].encode()
    if kind == "ffconcat":  # the attack is real: without the options it reads its neighbour
        with av.open(io.BytesIO(raw)) as container:
            assert next(container.decode(video=0))
    with pytest.raises(MediaError, match="cannot decode the video"):
        pick(raw)


def test_empty_and_soundless_and_absurd():
    with pytest.raises(MediaError, match="0 bytes"):
        pick(b"")
    with pytest.raises(MediaError, match="no video stream in it, found audio"):
        pick(media.sound_only_mp4())
    with pytest.raises(MediaError, match="8208x32 pixels, the limit is 8192"):
        pick(media.video(1, width=8208, height=32))


def test_none_decodable():
    raw = bytearray(faststart(8))
    start = raw.index(b"mdat") + 4
    raw[start:] = bytes(len(raw) - start)
    with pytest.raises(MediaError, match="none of its frames is decodable"):
        pick(bytes(raw))


def test_the_deadline_ends_decoding():
    with pytest.raises(MediaError, match="gave up listing the video's packets after 0 s"):
        pick(media.video(4), seconds=0)


CLIP = media.video(6)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(CLIP) - 1), st.integers(0, 255)), max_size=12),
    st.integers(0, len(CLIP)),
)
def test_garbled_files_give_frames_or_a_media_error(changes, length):
    raw = bytearray(CLIP)
    for at, value in changes:
        raw[at] = value
    raw = bytes(raw[:length]) if length % 3 == 0 else bytes(raw)
    try:
        picked = pick(raw, 4)
    except MediaError:
        return
    assert len(picked.frames) == 4


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_random_bytes_are_a_media_error(raw):
    with pytest.raises(MediaError):
        pick(raw)


def test_a_broken_installation_is_no_clips_fault():
    def transform(_frame):
        msg = "torch"
        raise ModuleNotFoundError(msg)

    with pytest.raises(ModuleNotFoundError, match="torch"):
        pick_frames(media.video(3), 16, 16, transform, Deadline.after(60))
