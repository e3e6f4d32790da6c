"""Every hard file shows what its case claims, to the libraries that will meet it."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from clipfarm_assets.demo import hard_clips, hard_media
from clipfarm_assets.demo.edge_cases import EDGE_CASES, expected_of

FORMATS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,flv"}


def frames_of(path):
    """(header's count, decoded frames, whether decoding ended in an error)."""
    with av.open(str(path), options=FORMATS) as container:
        stream = container.streams.video[0]
        frames, failed = [], False
        for packet in container.demux(stream):
            try:
                frames += packet.decode()
            except av.error.InvalidDataError:
                failed = True
        return stream.frames, frames, failed


def test_truncated_without_its_header_does_not_open(sample):
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(sample.raw("video", "truncated_mp4")))


def test_truncated_faststart_promises_more_than_it_has(sample):
    promised, frames, failed = frames_of(sample.raw("video", "truncated_faststart_mp4"))
    picture = sample.clips["cutFaststrt"].picture
    assert promised == picture.frames
    assert 3 <= len(frames) < promised
    assert failed


def test_zero_bytes(sample):
    for modality, case in (("video", "zero_byte_mp4"), ("audio", "zero_byte_wav")):
        assert sample.raw(modality, case).read_bytes() == b""


def test_audio_only_mp4_has_sound_and_no_picture(sample):
    with av.open(str(sample.raw("video", "audio_only_mp4"))) as container:
        assert not container.streams.video
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 16_000


def test_playlist_leads_to_a_neighbour_unless_formats_are_limited(sample):
    path = sample.raw("video", "playlist_mp4")
    assert path.with_name(hard_media.PLAYLIST_TARGET).exists()
    with av.open(str(path)) as container:
        assert container.format.name == "concat"
        assert sum(1 for _ in container.decode(video=0)) == 3
    with pytest.raises((av.error.InvalidDataError, ValueError)):
        av.open(str(path), options=FORMATS)


def test_three_frames(sample):
    promised, frames, _ = frames_of(sample.raw("video", "three_frames"))
    assert promised == len(frames) == 3


def test_unknown_frame_count(sample):
    promised, frames, failed = frames_of(sample.raw("video", "unknown_frame_count"))
    assert promised == 0
    assert len(frames) == sample.clips["fragmented0"].picture.frames
    assert not failed


def test_odd_size(sample):
    _, frames, _ = frames_of(sample.raw("video", "odd_size"))
    assert {(f.width, f.height, f.format.name) for f in frames} == {(101, 179, "yuv444p")}


def test_rotated(sample):
    _, frames, _ = frames_of(sample.raw("video", "rotated"))
    assert {(f.width, f.height, f.rotation) for f in frames} == {(256, 144, 90)}


def test_variable_frame_rate(sample):
    _, frames, _ = frames_of(sample.raw("video", "variable_frame_rate"))
    steps = np.diff([round(f.pts * f.time_base * 1000) for f in frames])
    whole = list(hard_clips.UNEVEN_STEPS_MS) * 6
    assert steps.tolist() == whole[:35]


def test_every_other_video_decodes_to_what_its_header_says(sample):
    hard = {
        "truncated_faststart_mp4", "unknown_frame_count", "playlist_mp4", "truncated_mp4",
        "zero_byte_mp4", "audio_only_mp4", "missing_mp4", "no_raw_objects",
    }  # fmt: skip
    left_out = {case.video_id for case in EDGE_CASES if case.name in hard}
    counted = 0
    for clip in sample.clips.values():
        if clip.video_id in left_out:
            continue
        path = sample.folder / f"clipfarm/raw/video/{clip.video_id}.mp4"
        promised, frames, failed = frames_of(path)
        assert promised == len(frames) == clip.picture.frames
        assert not failed
        assert (frames[0].width, frames[0].height) == (clip.picture.width, clip.picture.height)
        counted += 1
    assert counted == len(sample.clips) - len(hard)


def test_silent_wav(sample):
    samples, _ = soundfile.read(sample.raw("audio", "silent_wav"))
    assert len(samples) >= 2 * 16_000
    assert not samples.any()


def test_stereo_wav_has_two_channels_that_differ(sample):
    samples, rate = soundfile.read(sample.raw("audio", "stereo_wav"))
    assert (rate, samples.shape[1]) == (44_100, 2)
    assert np.abs(samples[:, 0] - samples[:, 1]).max() > 0.1


def test_long_wav_is_past_90_seconds(sample):
    info = soundfile.info(sample.raw("audio", "long_wav"))
    assert (info.samplerate, info.channels, info.subtype) == (8_000, 1, "PCM_16")
    assert info.duration == 95.0


def test_every_audio_that_should_be_embedded_can_be_read(sample):
    for clip in sample.clips.values():
        if expected_of(clip.video_id).audio == "success":
            path = sample.folder / f"clipfarm/raw/audio/{clip.video_id}.wav"
            assert soundfile.info(path).duration == clip.sound.seconds


def transcript(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))["transcript"]


def test_transcripts(sample):
    with pytest.raises(json.JSONDecodeError):
        transcript(sample.raw("text", "invalid_json"))
    assert transcript(sample.raw("text", "empty_transcript")) == ""
    # A word is one token or more.
    assert len(transcript(sample.raw("text", "long_transcript")).split()) > 256
    for clip in sample.clips.values():
        if expected_of(clip.video_id).text == "success":
            path = sample.folder / f"clipfarm/raw/text/{clip.video_id}.json"
            assert transcript(path) == clip.words.transcript != ""


@pytest.mark.parametrize("modality", ["video", "audio", "text"])
def test_what_is_expected_absent_is_absent_and_nothing_else(sample, modality):
    for case in EDGE_CASES:
        absent = case.expected.embedding[modality] == "missing_raw_object"
        if (modality, case.name) == ("text", "empty_transcript"):
            absent = False
        assert sample.raw(modality, case.name).exists() is not absent, case.name
