"""Planned decoding gives what decoding everything gives, and says when it does not plan."""

import io
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from clipfarm_assets.encoders.base import Deadline
from clipfarm_assets.encoders.video import packets as video_packets
from clipfarm_assets.encoders.video.frames import pick_frames
from clipfarm_assets.encoders.video.packets import within_reorder_depth
from clipfarm_assets_tests.encoders import media

PLANNED = ""


def x264(params, count=90, **more):
    return media.video(count, options={"x264-params": f"scenecut=0:{params}"}, gop=30, **more)


def x265(params, count=60, **more):
    options = {"x265-params": f"log-level=none:pools=none:frame-threads=1:{params}"}
    return media.video(count, codec="libx265", options=options, gop=15, b_frames=3, **more)


def vp9(count=60, gop=15, **options):
    return media.video(count, container="webm", codec="libvpx-vp9", options=options, gop=gop)


def hidden_frames():
    settings = {"auto-alt-ref": "1", "lag-in-frames": "25", "deadline": "realtime"}
    return vp9(90, 40, b="200k", **settings, **{"cpu-used": "5"})


def av1(count=60):
    options = {"preset": "12", "svtav1-params": "keyint=15:lp=1"}
    return media.video(count, container="matroska", codec="libsvtav1", options=options, gop=15)


def late_start():
    return media.video(40, pts=range(5_000, 5_000 + 40 * 33, 33), b_frames=2, container="matroska")


def uneven():
    times = np.cumsum(np.random.default_rng(4).integers(5, 90, 90))
    return media.video(90, pts=times.tolist(), b_frames=3, gop=30)


def remuxed(*raws, container="matroska", edit=lambda packets: packets):
    """The packets of several clips one after another, in the first one's stream."""
    packets = []
    with av.open(io.BytesIO(raws[0])) as first, io.BytesIO() as buffer:
        for raw in raws:
            start = 1 + max((packet.pts for packet in packets), default=-1)
            with av.open(io.BytesIO(raw)) as source:
                stream = source.streams.video[0]
                unit = int(1 / (25 * stream.time_base))
                for packet in source.demux(stream):
                    if packet.size:
                        packet.pts = packet.pts // unit + start
                        packet.dts = packet.dts // unit + start
                        packet.time_base = Fraction(1, 25)
                        packets.append(packet)
        with av.open(buffer, "w", format=container) as output:
            copied = output.add_stream_from_template(first.streams.video[0])
            for packet in edit(packets):
                packet.stream = copied
                output.mux(packet)
        return buffer.getvalue()


def other_size():
    settings = "repeat-headers=1:keyint=15:bframes=0"
    return remuxed(x264(settings, 30), x264(settings, 30, width=96, height=64))


def other_parameters():
    return remuxed(
        x264("repeat-headers=1:keyint=15:bframes=0", 30),
        x264("repeat-headers=1:keyint=15:bframes=0:ref=4:chroma-qp-offset=4:cabac=0", 30),
    )


def against_its_header():
    """All intra, so that no order is wrong to the decoder, and shown in pairs the wrong way."""

    def swap(packets):
        for index, packet in enumerate(packets):
            packet.dts, packet.pts = index - 4, index + (index > 0) * (1 if index % 2 else -1)
        return packets

    return remuxed(x264("keyint=1", 41), edit=swap)


PLANNABLE = {
    "keyframe every 30": lambda: x264("keyint=30:bframes=0"),
    "pyramid": lambda: x264("keyint=30:bframes=3:b-pyramid=normal"),
    "strict pyramid": lambda: x264("keyint=30:bframes=3:b-pyramid=strict"),
    "many references": lambda: x264("keyint=30:bframes=5:b-pyramid=normal:ref=8:weightp=2"),
    "open GOP": lambda: x264("keyint=15:open-gop=1:bframes=3:b-pyramid=normal"),
    "open GOP in matroska": lambda: x264("keyint=9:open-gop=1:bframes=2", container="matroska"),
    "intra refresh": lambda: x264("keyint=20:intra-refresh=1:bframes=0"),
    "keyframes alone": lambda: x264("keyint=1"),
    "one keyframe": lambda: x264("keyint=250:bframes=3:b-pyramid=normal"),
    "slices": lambda: x264("keyint=30:bframes=3:slices=4"),
    "headers repeated": lambda: x264("keyint=30:bframes=3:repeat-headers=1"),
    "10 bits": lambda: x264("keyint=30:bframes=3", pix_fmt="yuv420p10le"),
    "odd sizes": lambda: x264("keyint=30:bframes=3", width=65, height=97, pix_fmt="yuv444p"),
    "rotated": lambda: x264("keyint=30:bframes=3", rotation=90),
    "variable rate": uneven,
    "late start": late_start,
    "edit list": lambda: media.with_edit_list(x264("keyint=30:bframes=3"), 17 * 512),
    "edit list past a keyframe": lambda: media.with_edit_list(
        x264("keyint=15:bframes=3:b-pyramid=normal"), 33 * 512
    ),
    "fragments": lambda: x264(
        "keyint=30:bframes=3", container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "hevc": lambda: x265("keyint=15:bframes=4:b-pyramid=1:open-gop=0"),
    "hevc, open GOP": lambda: x265("keyint=15:bframes=4:b-pyramid=1:open-gop=1"),
    "hevc, keyframes alone": lambda: x265("keyint=1"),
    "vp9": vp9,
    "vp9, hidden frames": hidden_frames,
    "av1": av1,
}

FROM_START = {
    "mpegts": (lambda: media.video(60, container="mpegts", b_frames=2), "mpegts is read"),
    "avi": (lambda: media.video(60, container="avi", codec="mpeg4"), "avi is read"),
    "flv": (lambda: media.video(60, container="flv"), "flv is read"),
    "mpeg4": (lambda: media.video(60, codec="mpeg4", b_frames=2), "mpeg4 in this form"),
    "interlaced": (lambda: x264("keyint=30:interlaced=1"), "interlaced"),
    "hevc, layers": (lambda: x265("keyint=15:bframes=4:temporal-layers=3"), "layers"),
    "another size": (other_size, "parameter sets change"),
    "other parameters": (other_parameters, "parameter sets change"),
    "out of order": (against_its_header, "further out of order"),
}


def decode_plainly(raw):
    """Every decodable frame with its pts, from the start; how many packets were damaged."""
    frames, errors = [], 0
    with av.open(io.BytesIO(raw)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                decoded = packet.decode()
            except av.error.FFmpegError:
                errors += 1
                continue
            frames += [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in decoded]
    return frames, errors


def indices(count, wanted):
    if count < wanted:
        return [*range(count), *[count - 1] * (wanted - count)]
    return np.linspace(0, count - 1, wanted).astype(int).tolist()


def pick(raw, wanted, **settings):
    return pick_frames(raw, wanted, wanted, np.copy, Deadline.after(60), **settings)


def assert_same(frames, expected):
    assert len(frames) == len(expected)
    for got, other in zip(frames, expected, strict=True):
        assert np.array_equal(got, other)


@pytest.mark.parametrize("name", PLANNABLE)
def test_planned_decoding_gives_the_frames_of_decoding_everything(name):
    raw = PLANNABLE[name]()
    every, errors = decode_plainly(raw)
    assert errors == 0
    for wanted in (1, 2, 5, 16, 33, len(every) + 3):
        picked = pick(raw, wanted)
        assert picked.from_start_because == PLANNED
        assert (picked.decoded_frames, picked.decode_errors) == (len(every), 0)
        assert_same(picked.frames, [every[at][1] for at in indices(len(every), wanted)])


@pytest.mark.parametrize("name", FROM_START)
def test_what_packets_do_not_tell_is_decoded_from_the_start(name):
    make, reason = FROM_START[name]
    raw = make()
    every, errors = decode_plainly(raw)
    picked = pick(raw, 16)
    assert reason in picked.from_start_because
    assert (picked.decoded_frames, picked.decode_errors) == (len(every), errors)
    assert_same(picked.frames, [every[at][1] for at in indices(len(every), 16)])


def test_the_cases_are_what_they_claim():
    def packets(raw):
        with av.open(io.BytesIO(raw)) as container:
            return [packet for packet in container.demux(video=0) if packet.size]

    cut = packets(PLANNABLE["edit list past a keyframe"]())
    assert sum(packet.is_discard for packet in cut) == 33 - 30  # from the keyframe before it
    assert packets(late_start())[0].pts == 5_000
    sizes = {frame.shape for _, frame in decode_plainly(other_size())[0]}
    assert sizes == {(96, 64, 3), (64, 96, 3)}
    hidden = packets(PLANNABLE["vp9, hidden frames"]())
    assert any(bytes(packet)[-1] & 0xE0 == 0xC0 for packet in hidden)  # superframes


def test_a_frame_costs_its_way_from_the_keyframe_and_no_more():
    count, wanted = 600, 16
    raw = x264("keyint=30:min-keyint=30:bframes=0", count)
    picked = pick(raw, wanted)
    assert picked.packets_decoded == sum(at % 30 + 1 for at in indices(count, wanted))


def test_frames_that_nothing_refers_to_are_not_decoded():
    count, wanted = 600, 16
    plain = pick(x264("keyint=30:min-keyint=30:bframes=0", count), wanted)
    raw = x264("keyint=30:min-keyint=30:bframes=3:b-adapt=0:b-pyramid=none", count)
    with av.open(io.BytesIO(raw)) as container:
        kinds = [PictureType(frame.pict_type).name for frame in container.decode(video=0)]
    assert kinds[:9] == [*"IBBBPBBBP"]
    # Of four frames in a row one is referred to; a chosen B-frame needs the one behind it as well.
    assert pick(raw, wanted).packets_decoded < plain.packets_decoded / 2


def test_nothing_is_decoded_twice_where_intervals_overlap():
    raw = PLANNABLE["hevc, open GOP"]()
    count = pick(raw, 1).decoded_frames
    assert pick(raw, count).packets_decoded == count


def test_upright_and_planned():
    raw = PLANNABLE["rotated"]()
    for stored, upright in zip(
        pick(raw, 5).frames, pick(raw, 5, rotation="upright").frames, strict=True
    ):
        assert np.array_equal(upright, np.rot90(stored))


@pytest.mark.parametrize(
    ("times", "depth"),
    [([], 0), ([0, 1, 2], 0), ([0, 2, 1], 1), ([0, 4, 2, 1, 3], 2), ([3, 2, 1, 0], 3)],
)
def test_reorder_depth_table(times, depth):
    assert within_reorder_depth(times, depth)
    assert not within_reorder_depth(times, depth - 1) or not times


def test_a_million_packets_the_wrong_way_round_take_no_time():
    assert not within_reorder_depth(range(1_000_000, 0, -1), 16)


def test_a_packet_of_countless_units_is_not_walked_through():
    def garble(packets):
        head = bytes(packets[20])
        again = av.Packet(head + b"\0\0\0\1\x0c" * 100_000)  # filler data
        again.pts, again.dts, again.time_base = packets[20].pts, packets[20].dts, Fraction(1, 25)
        return [*packets[:20], again, *packets[21:]]

    raw = x264("keyint=30:bframes=0", 60)
    picked = pick(remuxed(raw, edit=garble), 4)
    assert "4096 NAL units" in picked.from_start_because
    assert_same(picked.frames, pick(raw, 4).frames)


def test_more_packets_than_there_is_room_for_are_not_kept(monkeypatch):
    raw = x264("keyint=30:bframes=0", 60)
    planned = pick(raw, 4)
    monkeypatch.setattr(video_packets, "_SPARE_BYTES", 59 * video_packets._BYTES_A_PACKET)
    monkeypatch.setattr(video_packets, "_MOST_TIMES_FILE", 0)
    picked = pick(raw, 4)
    assert "too many to keep" in picked.from_start_because
    assert_same(picked.frames, planned.frames)


def test_the_same_frames_from_clips_decoded_side_by_side():
    raws = [PLANNABLE[name]() for name in ("pyramid", "hevc, open GOP", "vp9", "av1")] * 3
    alone = [pick(raw, 8).frames for raw in raws]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(lambda raw: pick(raw, 8).frames, raws), strict=True):
            assert_same(one, other)
