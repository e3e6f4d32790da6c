"""Segments out of rows: what is understood, and what is said of what is not."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.song_segments import (
    LEFT_OUT,
    BadSegments,
    Coverage,
    Segment,
    SegmentColumns,
    coverage,
    coverage_by_album,
    segments_of,
    shares_hold,
)
from clipfarm_assets_tests.contracts.song_kit import SCHEMA, row, segment, table


def read(*rows, columns=None):
    return segments_of(table(*rows), *([columns] if columns else []))


def only(**changes):
    """The one segment, and the kinds of problems."""
    (found,), problems = read(row(**changes))
    return found, [problem.kind for problem in problems]


def test_a_segment_in_full():
    found, kinds = only(
        segment_audio_file="a.wav", midi_file="a.mid", start_seconds=10, end_seconds=25.5,
        midi_start_seconds=10.25, midi_end_seconds=25.75, midi_offset_seconds=0.25, tempo=120,
    )  # fmt: skip
    assert found == Segment(
        id="a", song="song of a", album="Blue", label="calm", lyric_text="la la", vocals=True,
        has_audio=True, has_midi=True, audio_path="a.wav", midi_path="a.mid",
        audio_span=(10, 25.5), midi_span=(10.25, 25.75), offset=0.25, row=0,
    )  # fmt: skip
    assert kinds == []


def test_a_segment_of_what_it_must_have():
    needed = pa.schema([field for field in SCHEMA if field.name in row()])
    (found,), problems = segments_of(table(row(), schema=needed))
    assert (found.audio_span, found.midi_span, found.audio_path, found.offset) == (None,) * 4
    assert problems == []


def test_numbers_name_things_as_text():
    named = ("segment_id", "song_id", "album", "label")
    schema = pa.schema([(f.name, pa.int64() if f.name in named else f.type) for f in SCHEMA])
    (found,), problems = segments_of(table(row(7, song_id=8, album=1971, label=0), schema=schema))
    assert (found.id, found.song, found.album, found.label) == ("7", "8", "1971", "0")
    assert problems == []


def test_columns_may_have_other_names():
    names = {"song_id": "track", "label": "mood"}
    renamed = table(row()).rename_columns([names.get(n, n) for n in SCHEMA.names])
    (found,), _ = segments_of(renamed, SegmentColumns(song="track", label="mood"))
    assert (found.song, found.label) == ("song of a", "calm")


def test_a_table_that_is_none_of_segments():
    with pytest.raises(BadSegments, match=r"song_id: expected a column of .*in the settings"):
        segments_of(table(row()).drop_columns("song_id"))


def test_rows_are_counted_across_batches():
    rows = [row(f"s{k}", album="" if k == 5000 else "Blue") for k in range(9000)]
    segments, (problem,) = read(*rows)
    assert [s.row for s in segments] == [k for k in range(9000) if k != 5000]
    assert all(s.id == f"s{s.row}" for s in segments)
    assert (problem.kind, problem.where) == ("missing_album", "row 5000, id s5000")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"segment_id": None}, "missing_id"),
        ({"segment_id": ""}, "missing_id"),
        ({"segment_id": " a"}, "bad_id"),
        ({"segment_id": "a\x00b"}, "bad_id"),
        ({"segment_id": "x" * 257}, "bad_id"),
        ({"segment_id": "first"}, "duplicate_id"),
        ({"song_id": None}, "missing_song"),
        ({"song_id": "a\n"}, "bad_song"),
        ({"album": None}, "missing_album"),
        ({"album": " "}, "bad_album"),
    ],
)
def test_rows_that_are_no_segments_are_counted(changes, kind):
    segments, (problem,) = read(row("first"), {**row("second"), **changes}, row("third"))
    assert [s.id for s in segments] == ["first", "third"]
    assert [s.row for s in segments] == [0, 2]
    assert (problem.kind, problem.leaves_out) == (kind, True)
    assert problem.where.startswith("row 1")
    assert len(problem.detail) < 300
    assert kind in LEFT_OUT


def test_an_id_of_a_row_that_is_no_segment_is_free():
    segments, (problem,) = read(row("a", album=None), row("a"))
    assert [s.row for s in segments] == [1]
    assert problem.kind == "missing_album"


def test_a_segment_without_a_label_stays():
    for label in (None, "", " "):
        found, kinds = only(label=label)
        assert (found.label, kinds) == (None, ["missing_label"])


# Text


@pytest.mark.parametrize(
    ("vocals", "lyric_text", "has_text"),
    [
        (True, "la", True),
        (True, "", False),
        (True, " \n\u3000", False),
        (True, None, False),
        (False, "la", False),
        (False, "", False),
    ],
)
def test_instrumental_segment_no_lyrics(vocals, lyric_text, has_text):
    found, kinds = only(vocals=vocals, lyric_text=lyric_text)
    assert found.has_text == found.declares("text") == has_text
    assert kinds == []


def test_flags_that_nobody_gave():
    found, kinds = only(vocals=None, has_audio=None, has_midi=None)
    assert (found.has_text, found.has_audio, found.has_midi) == (True, False, False)
    assert kinds == ["missing_flag"] * 3


# Times


SECONDS = {
    "start_seconds": 10, "end_seconds": 20, "midi_start_seconds": 11, "midi_end_seconds": 21,
}  # fmt: skip
CODES = {
    "start_smpte": "01:00:10:15", "end_smpte": "01:00:20:15",
    "midi_start_smpte": "01:00:10:00", "midi_end_smpte": "01:00:20:00",
}  # fmt: skip


def test_time_codes_come_before_seconds():
    found, kinds = only(**SECONDS, **CODES)
    assert (found.audio_span, found.midi_span) == ((3610.5, 3620.5), (3610.0, 3620.0))
    assert kinds == []


def test_time_codes_count_the_frames_of_their_rate():
    found, _ = only(**CODES, smpte_fps=60)
    assert found.audio_span == (3610.25, 3620.25)
    found, _ = only(start_smpte="01:00:00:00", end_smpte="02:00:00:00", smpte_fps=29.97)
    assert found.audio_span == pytest.approx((3603.6, 7207.2))


def test_seconds_are_the_clock_of_both_where_only_one_has_time_codes():
    audio_codes = {k: v for k, v in CODES.items() if not k.startswith("midi")}
    found, kinds = only(**SECONDS, **audio_codes)
    assert (found.audio_span, found.midi_span, kinds) == ((10, 20), (11, 21), [])
    assert not found.is_smpte
    alone, _ = only(**audio_codes)
    assert (alone.audio_span, alone.is_smpte) == ((3610.5, 3620.5), True)


def test_two_clocks_are_told():
    midi_seconds = {k: v for k, v in SECONDS.items() if k.startswith("midi")}
    audio_codes = {k: v for k, v in CODES.items() if not k.startswith("midi")}
    found, kinds = only(**midi_seconds, **audio_codes)
    # Not comparable, so it is not taken for a difference of an hour.
    assert (found.audio_span, found.midi_span, found.is_smpte) == ((3610.5, 3620.5), None, True)
    assert kinds == ["mixed_clocks"]


def test_one_side_alone_is_on_the_clock_it_has():
    midi_codes = {k: v for k, v in CODES.items() if k.startswith("midi")}
    found, kinds = only(**midi_codes)
    assert (found.audio_span, found.midi_span, kinds) == (None, (3610, 3620), [])


def test_lrc_times_stand_for_seconds_that_are_not_there():
    lrc = {"lrc_start": "[00:10.25]", "lrc_end": "[00:20.50]"}
    midi = {"midi_start_seconds": 10.25, "midi_end_seconds": 20.5}
    found, kinds = only(**lrc, **midi)
    assert (found.audio_span, found.midi_span, kinds) == ((10.25, 20.5), (10.25, 20.5), [])
    found, _ = only(lrc_start="[00:10.25]", end_seconds=30)
    assert found.audio_span == (10.25, 30)
    found, _ = only(**lrc, **SECONDS)
    assert found.audio_span == (10, 20)


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"start_seconds": 2, "end_seconds": 1}, "bad_span", "start_seconds must end after it"),
        ({"start_seconds": 2, "end_seconds": 2}, "bad_span", "found 2 to 2 s"),
        ({"start_seconds": 2}, "half_span", "says where it begins, but not where it ends"),
        ({"end_seconds": 2}, "half_span", "says where it ends, but not where it begins"),
        ({"lrc_start": "[00:10.25]"}, "half_span", "begins, but not"),
        ({"lrc_start": "soon", "end_seconds": 2}, "bad_timecode", "lrc_start: expected an LRC"),
        ({"start_seconds": math.nan, "end_seconds": 2}, "bad_timecode", "start_seconds must be"),
        ({"start_seconds": 0, "end_seconds": math.inf}, "bad_timecode", "found inf"),
        ({"start_smpte": "01:00:10:30", "end_smpte": "01:00:11:00"}, "bad_timecode", "start_smpte"),
        ({"start_smpte": "noon"}, "bad_timecode", "start_smpte: expected a time code"),
    ],
)
def test_times_that_are_not_used_are_counted(changes, kind, told):
    (found,), problems = read(row(**changes))
    assert found.audio_span is None
    assert problems[0].kind == kind
    assert told in problems[0].detail
    assert not any(problem.leaves_out for problem in problems)


def test_seconds_serve_where_time_codes_are_none():
    found, kinds = only(**SECONDS, **{**CODES, "start_smpte": "noon"})
    assert (found.audio_span, found.midi_span) == ((10, 20), (11, 21))
    assert kinds == ["bad_timecode"]


def test_a_rate_that_is_none_is_told_of_every_code():
    found, kinds = only(**CODES, smpte_fps=29.5)
    assert (found.audio_span, found.midi_span, kinds) == (None, None, ["bad_timecode"] * 4)


@pytest.mark.parametrize("offset", [math.nan, math.inf])
def test_an_offset_is_a_number_of_seconds(offset):
    found, kinds = only(midi_offset_seconds=offset)
    assert (found.offset, kinds) == (None, ["bad_offset"])


@given(st.floats(), st.floats())
def test_spans_end_after_they_begin_whatever_the_columns_say(start, end):
    (found,), problems = read(row(start_seconds=start, end_seconds=end))
    if found.audio_span is None:
        assert problems
    else:
        assert problems == []
        assert found.audio_span == (start, end)
        assert math.isfinite(start)
        assert start < end < math.inf


# Coverage


SEGMENTS = [
    segment("a"),
    segment("b", has_midi=False),
    segment("c", album="Red", has_midi=False, vocals=False),
    segment("d", album="Red", has_midi=False, has_audio=False),
]


def test_coverage_is_what_the_metadata_says():
    found = coverage(SEGMENTS)
    assert found == Coverage(4, {"text": 3, "audio": 3, "midi": 1})
    assert (found.share("text"), found.share("midi")) == (0.75, 0.25)
    assert coverage([]).share("text") == 0


def test_coverage_by_album():
    found = coverage_by_album(iter(SEGMENTS))
    assert list(found) == ["Blue", "Red"]
    assert found["Blue"].present == {"text": 2, "audio": 2, "midi": 1}
    assert found["Red"].present == {"text": 1, "audio": 1, "midi": 0}


def test_shares_hold_within_a_tolerance():
    found = coverage(SEGMENTS)
    assert shares_hold(found, {"text": 0.75, "midi": 0.27}).holds
    verdict = shares_hold(found, {"midi": 0.43, "audio": 0.75})
    assert [str(f) for f in verdict.findings] == ["midi: expected 43.0% of segments, found 25.0%"]
    assert verdict.facts == {"share/text": 0.75, "share/audio": 0.75, "share/midi": 0.25}
    assert shares_hold(found, {"midi": 0.43}, tolerance=0.2).holds
    assert not shares_hold(coverage([]), {"midi": 0.43}).holds
