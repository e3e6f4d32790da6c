import contextlib
import io
import struct

import mido
import numpy as np
import pytest
import symusic
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.encoders.midi.score import read_score
from clipfarm_assets.encoders.midi.smf import BadMidi, MidiLimits
from clipfarm_assets_tests.encoders.midi import files
from clipfarm_assets_tests.encoders.midi.files import midi, notes, off, on, simple, track

GOOD = files.random_song(5, tracks=2, count=6).data


def rows(score):
    """What symusic knows of notes, in a canonical order."""
    found = score.notes
    names = ("start_tick", "end_tick", "pitch", "velocity", "program", "is_drum")
    columns = [
        np.where(found["is_drum"], 0, found[n]) if n == "program" else found[n] for n in names
    ]
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def rows_of_symusic(data):
    return sorted(
        (n.time, n.time + n.duration, n.pitch, n.velocity, 0 if t.is_drum else t.program, t.is_drum)
        for t in symusic.Score.from_midi(data).tracks
        for n in t.notes
    )


def rows_of_mido(data):
    """(start, end, pitch, velocity, channel, track), ended first in, first out."""
    found = []
    for index, events in enumerate(mido.MidiFile(file=io.BytesIO(data)).tracks):
        now, sounding = 0, {}
        for event in events:
            now += event.time
            if event.type not in ("note_on", "note_off"):
                continue
            key = event.channel, event.note
            if event.type == "note_on" and event.velocity:
                sounding.setdefault(key, []).append((now, event.velocity))
            elif sounding.get(key):
                start, velocity = sounding[key].pop(0)
                found.append((start, now, event.note, velocity, event.channel, index))
    return sorted(found)


@pytest.mark.parametrize("seed", range(4))
def test_notes_are_those_of_symusic_and_mido(seed):
    song = files.random_song(seed, division=[96, 480, 1000, 32767][seed])
    score = read_score(song.data)
    assert len(score.notes) == song.notes
    assert score.hanging_notes == 0
    assert rows(score) == rows_of_symusic(song.data)
    names = ("start_tick", "end_tick", "pitch", "velocity", "channel", "track")
    assert sorted(zip(*(score.notes[n].tolist() for n in names), strict=True)) == rows_of_mido(
        song.data
    )


def test_running_status_and_notes_on_without_velocity_say_the_same():
    plain = simple((0, 100, 60, 64), (100, 300, 62, 65))
    body = b"".join(
        (
            b"\x00\x90\x3c\x40",
            b"\x64\x3c\x00",
            b"\x00\x3e\x41",
            b"\x81\x48\x3e\x00",
            b"\x00",
            files.END,
        )
    )
    running = midi(b"MTrk" + struct.pack(">I", len(body)) + body)
    assert rows(read_score(running)) == rows(read_score(plain)) == rows_of_symusic(running)


def test_events_that_are_no_notes_are_passed_over():
    others = [
        (0, b"\xff\x03\x05Piano"),
        (5, b"\xb0\x40\x7f"),
        (6, b"\xe0\x00\x40"),
        (7, b"\xa0\x3c\x10"),
        (8, b"\xd0\x20"),
        (9, b"\xf0\x05\x7e\x7f\x09\x01\xf7"),
        (10, b"\xff\x05\x82\x00" + b"x" * 256),
        (11, b"\xff\x7f\x00"),
    ]
    played = [(0, 480, 60, 64), (480, 960, 64, 90)]
    data = midi(track(*others, *notes(*played)), b"XFIH\x00\x00\x00\x04data", track())
    # The chunk of another kind is none of the declared tracks.
    data = data[:10] + struct.pack(">H", 2) + data[12:]
    assert rows(read_score(data)) == rows(read_score(simple(*played)))


def test_a_note_has_the_program_it_began_with():
    events = [(0, files.program(7)), *notes((0, 100, 60)), (50, files.program(9))]
    data = midi(track(*events, *notes((200, 300, 60))))
    assert read_score(data).notes["program"].tolist() == [7, 9]


def test_overlapping_notes_of_one_pitch_end_first_in_first_out():
    data = midi(track((0, on(60, 10)), (10, on(60, 20)), (30, off(60)), (50, off(60))))
    found = read_score(data).notes
    assert found[["start_tick", "end_tick", "velocity"]].tolist() == [(0, 30, 10), (10, 50, 20)]


def test_hanging_notes_are_counted():
    events = [*notes((0, 100, 60)), (5, on(61)), (7, on(61)), (9, on(60, channel=3)), (20, off(61))]
    score = read_score(midi(track(*events), track((0, on(70)), end=5000)))
    assert score.notes["pitch"].tolist() == [60, 61]
    assert score.hanging_notes == 3


def test_a_track_does_not_end_another_one_s_notes():
    score = read_score(midi(track((0, on(60))), track((9, off(60)))))
    assert (len(score.notes), score.hanging_notes) == (0, 1)


def test_an_end_without_a_beginning_is_no_note():
    assert len(read_score(midi(track((5, off(60)), *notes((10, 20, 60))))).notes) == 1


BAD = {
    "empty": (b"", "expected a MIDI file beginning with b'MThd', found b''"),
    "html": (b"<!doctype html><title>404</title>", "found b'<!do'"),
    "riff": (b"RIFF\x10\x00\x00\x00RMIDdata", "found b'RIFF'"),
    "header alone": (b"MThd\x00\x00\x00\x06", "expected a header of 14 bytes, found 8"),
    "short header": (b"MThd\x00\x00\x00\x02" + GOOD[8:], "that declare 2"),
    "format 2": (midi(track(), kind=2), "found format 2: export it as format 1"),
    "no division": (midi(track(), division=0), "at least 1 tick a quarter note, found 0"),
    "frame rate": (midi(track(), division=(26, 4)), "24, 25, 29, 30 frames a second"),
    "no ticks a frame": (midi(track(), division=(25, 0)), "found 25 of 0"),
    "tracks missing": (files.header(3, 480, 1) + track(), "expected track 2 of 3"),
    "tracks more": (files.header(1, 480, 1) + track() + track(), "1 tracks that the header"),
    "no status": (midi(track((0, b"\x3c\x40"))), "track 1: expected an event at byte 1"),
    "realtime": (midi(track((0, b"\xf8"))), "found 0xf8"),
    "data above 127": (midi(track((0, b"\x90\x3c\x80"))), "expected data below 128"),
    "program above 127": (midi(track((0, b"\xc0\x80"))), "expected data below 128"),
    "endless number": (midi(track((0, b"\xff\x01\xff\xff\xff\xff\x00"))), "a number of 4 bytes"),
    "text beyond the track": (midi(track((0, b"\xff\x01\x7f"))), "found it cut short"),
    "sysex beyond the track": (midi(track((0, b"\xf0\x7f\x00"))), "found it cut short"),
    "tempo 0": (midi(track((0, files.tempo(0)))), "a tempo of 3 bytes above 0, found 000000"),
    "tempo of 2 bytes": (midi(track((0, b"\xff\x51\x02\x07\xa1"))), "found 07a1"),
    "meter 0/4": (midi(track((0, files.meter(0, 4)))), r"255/64, found 0/2\^2"),
    "meter 4/128": (midi(track((0, files.meter(4, 128)))), r"found 4/2\^7"),
    "meter of a byte": (midi(track((0, b"\xff\x58\x01\x04"))), "found too few bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "told"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_by_name(data, told):
    with pytest.raises(BadMidi, match=told) as caught:
        read_score(data, "songs/one.mid")
    assert str(caught.value).startswith("songs/one.mid: ")


@pytest.mark.parametrize(
    ("offset", "told"),
    [
        (b"\xff\x54\x04\x01\x02\x03\x04", "expected an SMPTE offset of 5 bytes, found 4"),
        (files.smpte_offset(3, 1, 0, 0, 30, 0), "frames at 30 a second of 0 to 29, found 30"),
        (files.smpte_offset(0, 24, 0, 0, 0, 0), "hours of 0 to 23, found 24"),
    ],
)
def test_a_time_of_day_that_there_is_not_costs_no_note(offset, told):
    played = notes((0, 480, 60), (480, 960, 64))
    score = read_score(midi(track((0, offset), *played)))
    assert score.notes.tolist() == read_score(midi(track(*played))).notes.tolist()
    assert score.smpte_offset is None
    assert told in score.bad_smpte_offset


def test_a_file_cut_anywhere_is_refused():
    for size in range(len(GOOD)):
        with pytest.raises(BadMidi):
            read_score(GOOD[:size])


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_corrupt_file_is_read_or_refused(changes):
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    try:
        score = read_score(bytes(data))
    except BadMidi:
        return
    assert (score.notes["end_tick"] >= score.notes["start_tick"]).all()
    assert np.isfinite(score.notes["end"]).all()
    assert score.notes["pitch"].max(initial=0) < 128


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_junk_in_a_track_is_read_or_refused(body):
    data = files.header(1, 480, 0) + b"MTrk" + struct.pack(">I", len(body)) + body
    with contextlib.suppress(BadMidi):
        read_score(data)


MILLION = files.quantity(1) + on(60) + b"\x01\x3c\x40" * 1_000_000
HOSTILE = {
    "a million notes": (midi(b"MTrk" + struct.pack(">I", len(MILLION)) + MILLION), "200000 notes"),
    "too large": (GOOD + bytes(5 * 2**20), "4194304 bytes at most, found 52"),
    "endless": (simple((0, 2**28 - 1, 60)), "of 21600 s at most, found 279620 s"),
    "fast": (
        midi(track((0, files.tempo(1)), *notes((0, 2**27, 60)))),
        "200000 quarter notes at most, found 279620",
    ),
    "bars": (
        midi(track((0, files.meter(1, 64)), (0, files.tempo(999)), *notes((0, 4_000_000, 60)))),
        "100000 bars at most, found 133334",
    ),
    "tempos": (
        midi(track(*[(at, files.tempo(500_000)) for at in range(10_001)])),
        "10000 changes of tempo at most, found 10001",
    ),
}


@pytest.mark.parametrize(("data", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_asks_for_too_much_is_refused(data, told):
    with pytest.raises(BadMidi, match=told):
        read_score(data)


def test_limits_are_the_caller_s():
    data = simple((0, 100, 60), (100, 200, 61))
    assert len(read_score(data, limits=MidiLimits(notes=2)).notes) == 2
    with pytest.raises(BadMidi, match="1 notes at most"):
        read_score(data, limits=MidiLimits(notes=1))
