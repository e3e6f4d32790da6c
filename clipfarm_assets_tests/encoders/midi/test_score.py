import io

import numpy as np
import pretty_midi
import pytest

from clipfarm_assets.contracts.timecode import lrc_seconds, smpte_seconds
from clipfarm_assets.encoders.midi.piano_roll import piano_roll
from clipfarm_assets.encoders.midi.score import NOTE, TimeSignature, read_score
from clipfarm_assets_tests.encoders.midi import files
from clipfarm_assets_tests.encoders.midi.files import midi, notes, simple, track

TIMES = ["start", "end"]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_midi_parsing_from_binary(seed):
    """Bytes become structured events, at pretty_midi's seconds."""
    song = files.random_song(seed)
    score = read_score(song.data)
    assert score.notes.dtype == NOTE
    expected = pretty_midi.PrettyMIDI(io.BytesIO(song.data))
    rows = sorted(
        (n.start, n.end, n.pitch, n.velocity, i.program, i.is_drum)
        for i in expected.instruments
        for n in i.notes
    )
    names = ("start", "end", "pitch", "velocity", "program", "is_drum")
    found = sorted(zip(*(score.notes[name].tolist() for name in names), strict=True))
    assert [row[2:] for row in found] == [row[2:] for row in rows]
    close([row[:2] for row in found], [row[:2] for row in rows])
    assert len(found) == song.notes
    times, bpm = expected.get_tempo_changes()
    close([tempo.seconds for tempo in score.tempos], times)
    close([tempo.bpm for tempo in score.tempos], bpm)
    assert score.division == "ppq"
    assert score.smpte_offset is None
    close(score.end_seconds, expected.get_end_time())


def test_notes_are_in_order():
    score = read_score(simple((480, 960, 64), (0, 480, 67), (480, 700, 60), (0, 960, 60)))
    assert score.notes[["start_tick", "pitch"]].tolist() == [(0, 60), (0, 67), (480, 60), (480, 64)]


def test_a_tempo_counts_from_its_tick_on_whatever_its_track():
    data = midi(
        track((0, files.tempo(1_000_000))),
        track((480, files.tempo(7)), (480, files.tempo(250_000)), *notes((0, 480, 60))),
        track(*notes((480, 960, 60), (960, 1440, 60))),
    )
    close(read_score(data).notes["end"], [1.0, 1.25, 1.5])


def test_without_a_tempo_it_is_120_in_4_4():
    score = read_score(simple((0, 480, 60), (3600, 4080, 60)))
    close(score.notes["end"], [0.5, 4.25])
    assert score.time_signatures == (TimeSignature(0, 0.0, 4, 4),)
    close(score.downbeats, [0, 2, 4, 6])
    close(score.downbeat_ticks, [0, 1920, 3840, 5760])


@pytest.mark.parametrize("meters", [(4,), (3,), (4, 3, 2), (2, 5)])
def test_bars_begin_where_pretty_midi_has_downbeats(meters):
    data = files.random_song(3, meters=meters).data
    expected = pretty_midi.PrettyMIDI(io.BytesIO(data)).get_downbeats()
    score = read_score(data)
    close(score.downbeats[: len(expected)], expected)
    assert score.downbeats[-2] <= score.end_seconds <= score.downbeats[-1]


def test_a_time_signature_begins_a_bar():
    events = [(0, files.meter(3, 4)), (2000, files.meter(6, 8)), *notes((0, 4000, 60))]
    found = read_score(midi(track(*events)))
    close(found.downbeat_ticks, [0, 1440, 2000, 3440, 4880])


@pytest.mark.parametrize(
    ("frames", "ticks", "per_second"),
    [(24, 4, 96), (25, 40, 1000), (29, 80, 80 * 30000 / 1001), (30, 1, 30)],
)
def test_files_timed_in_smpte_frames_are_read(frames, ticks, per_second):
    played = [(0, 50, 60, 1), (100, 220, 62, 2)]
    data = midi(track((0, files.tempo(123_456)), *notes(*played)), division=(frames, ticks))
    score = read_score(data)
    close(score.notes["start"] * per_second, [0, 100])
    close(score.notes["end"] * per_second, [50, 220])
    assert score.division == "smpte"
    close(score.tempos[0].bpm, 120 if frames != 29 else 120000 / 1001)


def test_a_file_in_frames_is_the_same_music_as_one_in_quarters():
    played = [(0, 500, 60, 1), (500, 2250, 62, 2), (4000, 4125, 64, 3)]
    frames = read_score(simple(*played, division=(25, 40)))
    quarters = read_score(simple(*played, division=500))
    assert frames.ticks_per_quarter == quarters.ticks_per_quarter
    close(frames.notes["start"], quarters.notes["start"])
    close(frames.downbeats, quarters.downbeats)


@pytest.mark.parametrize(
    ("rate", "code", "fps"),
    [
        (0, "01:02:03:04.05", 24),
        (1, "01:02:03:04.05", 25),
        (2, "01:02:03;04.05", 29.97),
        (3, "01:02:03:04.05", 30),
    ],
)
def test_the_smpte_offset_is_told(rate, code, fps):
    data = midi(track((0, files.smpte_offset(rate, 1, 2, 3, 4, 5))), track())
    assert read_score(data).smpte_offset == smpte_seconds(code, fps)


def test_an_smpte_offset_of_another_track_has_no_meaning():
    data = midi(track(), track((0, files.smpte_offset(3, 1, 2, 3, 4, 5))))
    assert read_score(data).smpte_offset is None


def test_temporal_alignment_with_audio():
    """A segment's notes by SMPTE codes, where the file tells its time of day, or by LRC times."""
    played = [(960 * n, 960 * n + 480, 60 + n) for n in range(10)]  # a note a second
    offset = files.smpte_offset(3, 1, 0, 0, 0, 0)
    song = read_score(midi(track((0, offset), *notes(*played))))
    start, end = (smpte_seconds(code, 30) for code in ("01:00:02:15", "01:00:05:00"))
    segment = song.cut(start - song.smpte_offset, end - song.smpte_offset)
    assert segment.notes["pitch"].tolist() == [63, 64]
    close(segment.notes["start"], [0.5, 1.5])
    by_lyrics = song.cut(lrc_seconds("[00:02.50]"), lrc_seconds("[00:05.00]"))
    assert by_lyrics.notes.tolist() == segment.notes.tolist()


def test_known_offsets_are_corrected_exactly():
    score = read_score(files.random_song(1).data)
    late = score.shifted(0.73)
    close(late.notes["start"] - score.notes["start"], 0.73)
    close(late.onsets()[0] - score.onsets()[0], 0.73)
    close(late.downbeats - score.downbeats, 0.73)
    close(late.tick_at(2.73), score.tick_at(2.0))
    close(late.seconds_at([960, 5000]) - score.seconds_at([960, 5000]), 0.73)
    assert late.end_seconds == score.end_seconds + 0.73
    back = late.shifted(-0.73)
    for name in TIMES:
        close(back.notes[name], score.notes[name])
    assert score.notes["start"].min() >= 0, "the original stays as it was"


def test_ticks_and_seconds_are_inverse():
    score = read_score(files.random_song(2).data)
    assert len(score.tempos) > 3
    ticks = [0, 1, 481, 9999, 14_399, 40_000]
    close([score.tick_at(float(s)) for s in score.seconds_at(ticks)], ticks)


def test_a_part_is_cut_and_says_which_notes_it_cut():
    score = read_score(
        simple((0, 1920, 60), (960, 1920, 61), (1900, 4000, 62), (2880, 3000, 63), (900, 960, 64))
    )
    part = score.cut(1.0, 3.0)
    assert part.notes["pitch"].tolist() == [60, 61, 62]
    assert part.notes["held"].tolist() == [True, False, False]
    close(part.notes["start"], [0, 0, 940 / 960])
    close(part.notes["end"], [1, 1, 2])
    assert part.notes["start_tick"].tolist() == [960, 960, 1900]
    assert part.notes["end_tick"].tolist() == [1920, 1920, 2880]
    close(part.end_seconds, 2)
    close(part.downbeats, [-1, 1, 3])
    close(part.onsets()[0], [0, 940 / 960])
    assert score.notes["held"].sum() == 0, "the original stays as it was"


@pytest.mark.parametrize("seed", range(3))
def test_a_part_s_roll_is_the_part_of_the_roll(seed):
    score = read_score(files.random_song(seed).data)
    whole = piano_roll(score, seconds=20, frames_per_second=50, drums=True)
    part = piano_roll(score.cut(3.0, 11.0), seconds=8, frames_per_second=50, drums=True)
    assert part.any()
    np.testing.assert_array_equal(part, whole[:, :, 150:550])


def test_a_part_of_a_part_is_a_part():
    score = read_score(files.random_song(4).data)
    at_once, in_two = score.cut(3.0, 8.0), score.cut(1.0, 9.0).cut(2.0, 7.0)
    assert at_once.notes["pitch"].tolist() == in_two.notes["pitch"].tolist()
    assert at_once.notes["held"].tolist() == in_two.notes["held"].tolist()
    close(at_once.notes["end"], in_two.notes["end"])
    close(at_once.downbeats, in_two.downbeats)
    again = at_once.cut(0.0, 4.0)
    assert at_once.notes["held"].any()
    assert again.notes["held"].sum() == at_once.notes["held"].sum()


def test_a_note_without_length_belongs_to_the_part_it_begins_in():
    score = read_score(midi(track((960, files.on(60)), (960, files.off(60)), end=2000)))
    assert len(score.notes) == 1
    assert len(score.cut(0.0, 1.0).notes) == 0
    assert len(score.cut(1.0, 2.0).notes) == 1


def test_beyond_the_end_nothing_sounds():
    part = read_score(simple((0, 480, 60))).cut(100.0, 115.0)
    assert len(part.notes) == 0
    assert len(part.downbeats) >= 2
    assert part.end_seconds == 0


def test_a_part_ends_after_it_starts():
    with pytest.raises(ValueError, match="found 2 to 2 s"):
        read_score(simple((0, 480, 60))).cut(2.0, 2.0)


def test_a_file_without_notes_is_a_score_without_notes():
    score = read_score(midi(track(), kind=0))
    assert len(score.notes) == 0
    assert score.end_seconds == 0
    assert score.onsets()[0].shape == (0,)
    assert score.cut(0, 1).notes.dtype == NOTE


def test_a_faster_score_is_the_same_in_less_time():
    song = read_score(files.random_song(1).data)
    found = song.faster(1.25)
    assert found.notes[["start_tick", "end_tick", "pitch"]].tolist() == (
        song.notes[["start_tick", "end_tick", "pitch"]].tolist()
    )
    np.testing.assert_allclose(found.notes["start"], song.notes["start"] / 1.25, rtol=1e-12)
    # Its clocks agree with each other, as those of any score.
    np.testing.assert_allclose(
        found.seconds_at(found.notes["end_tick"]), found.notes["end"], rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        found.seconds_at(found.downbeat_ticks), found.downbeats, rtol=0, atol=1e-9
    )
    assert found.tick_at(4.0) == pytest.approx(song.tick_at(5.0))
    assert found.end_seconds == pytest.approx(song.end_seconds / 1.25)
    part, longer = found.cut(1.0, 4.0), song.cut(1.25, 5.0)
    assert part.notes["start_tick"].tolist() == longer.notes["start_tick"].tolist()
