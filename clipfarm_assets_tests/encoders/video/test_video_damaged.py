"""What is picked of a damaged clip: what decodes, or frames that the damage does not touch."""

import io
from contextlib import suppress

import av
import numpy as np
import pytest

from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets_tests.encoders.video.test_video_planned import (
    PLANNED,
    assert_same,
    av1,
    decode_plainly,
    indices,
    pick,
    vp9,
    x264,
    x265,
)


def packet_places(raw):
    """Where the bytes of each packet lie in the file, in decoding order."""
    places, end = [], 0
    with av.open(io.BytesIO(raw)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                at = raw.index(bytes(packet), end)
                end = at + packet.size
                places.append((at, end))
    return places


def test_damage_that_no_chosen_frame_needs_is_not_seen_and_changes_no_choice():
    assert indices(90, 4) == [0, 29, 59, 89]
    raw = x264("keyint=40:min-keyint=40:bframes=0", 90)  # 40..59 is needed, 60..79 is not
    whole = pick(raw, 4)
    data = bytearray(raw)
    for at, end in packet_places(raw)[60:80]:
        data[at + 5 : end] = bytes(end - at - 5)
    every, errors = decode_plainly(bytes(data))
    assert errors > 0
    assert len(every) < 90
    picked = pick(bytes(data), 4)
    assert picked.from_start_because == PLANNED
    assert (picked.decoded_frames, picked.decode_errors) == (90, 0)
    assert_same(picked.frames, whole.frames)


def test_damage_that_a_chosen_frame_needs_makes_what_decodes_count():
    raw = x264("keyint=40:min-keyint=40:bframes=0", 90)
    data = bytearray(raw)
    at, end = packet_places(raw)[50]
    data[at + 5 : end] = bytes(end - at - 5)
    every, errors = decode_plainly(bytes(data))
    assert errors > 0
    picked = pick(bytes(data), 4)
    assert "cannot be decoded" in picked.from_start_because
    assert (picked.decoded_frames, picked.decode_errors) == (len(every), errors)
    assert_same(picked.frames, [every[at][1] for at in indices(len(every), 4)])


DAMAGED = {
    "h264": lambda: x264("keyint=10:bframes=3:b-pyramid=normal", 60, container="matroska"),
    "hevc": lambda: x265("keyint=10:bframes=3", container="matroska"),
    "vp9": vp9,
    "av1": av1,
}


HEADERS = 24
"""Bytes at a packet's start that the next tests leave alone: no decoder notices every change of
which frame refers to which, and then what is decoded on the way decides what is seen."""


def damaged(raw, seed):
    random = np.random.default_rng(seed)
    data = bytearray(raw)
    places = [(at + HEADERS, end) for at, end in packet_places(raw) if end - at > HEADERS]
    for place in random.integers(len(places), size=random.integers(1, 4)):
        data[random.integers(*places[place])] ^= 1 << int(random.integers(8))
    if seed % 8 == 0:
        del data[int(random.integers(places[1][0], len(raw))) :]
    return bytes(data)


def shown_times(raw):
    """The pts of the frames that the packets promise, in order; as far as the file can be read."""
    packets = []
    with av.open(io.BytesIO(raw)) as container, suppress(av.error.FFmpegError):
        packets.extend(container.demux(video=0))
    return sorted(packet.pts for packet in packets if packet.size and not packet.is_discard)


@pytest.mark.parametrize("codec", DAMAGED)
def test_of_a_damaged_clip_what_decodes_or_what_the_damage_does_not_touch(codec):
    raw = DAMAGED[codec]()
    whole = dict(decode_plainly(raw)[0])
    ways = {"planned": 0, "from the start": 0}
    for seed in range(40):
        data = damaged(raw, seed)
        every, errors = decode_plainly(data)
        if not every:
            with pytest.raises(MediaError, match="none of its frames is decodable"):
                pick(data, 4)
            continue
        picked = pick(data, 4)
        if picked.from_start_because:
            ways["from the start"] += 1
            assert (picked.decoded_frames, picked.decode_errors) == (len(every), errors)
            assert_same(picked.frames, [every[at][1] for at in indices(len(every), 4)])
        else:
            ways["planned"] += 1
            times, now = shown_times(data), dict(every)
            assert (picked.decoded_frames, picked.decode_errors) == (len(times), 0)
            for at, frame in zip(indices(len(times), 4), picked.frames, strict=True):
                # Right after damage elsewhere, decoding from the start may show something else.
                pts = times[at]
                assert np.array_equal(frame, whole[pts]) or np.array_equal(frame, now[pts])
    assert ways["planned"] > 0
    # The decoders of the other two conceal damage without a word, on either way.
    assert (ways["from the start"] > 0) == (codec in {"h264", "av1"})


@pytest.mark.parametrize("codec", DAMAGED)
def test_damaged_headers_give_frames_or_a_media_error_and_the_same_every_time(codec):
    raw = DAMAGED[codec]()
    for seed in range(25):
        random = np.random.default_rng(seed)
        data = bytearray(raw)
        for at in random.integers(len(raw), size=6):
            data[at] ^= 1 << int(random.integers(8))
        for at, _ in random.permutation(packet_places(raw))[:3]:
            data[at + random.integers(12)] ^= 1 << int(random.integers(8))
        try:
            picked = pick(bytes(data), 4)
        except MediaError:
            continue
        again = pick(bytes(data), 4)
        assert_same(picked.frames, again.frames)
        assert picked.decoded_frames == again.decoded_frames
