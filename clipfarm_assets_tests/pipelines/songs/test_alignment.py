import json
from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.pipelines.songs import alignment as checked
from clipfarm_assets.pipelines.songs.alignment import (
    BadAlignment,
    NoAlignment,
    check_alignment,
    read_alignment,
    use_alignment,
)
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.storage.tables import BadTable
from clipfarm_assets.training.song_config import SongConfig, song_config
from clipfarm_assets_tests.pipelines.songs.pair_kit import (
    SECONDS,
    SILENCE,
    config_of,
    midi_of,
    pair,
    put_pairs,
    smpte,
    song,
    spans,
    verdicts,
)
from clipfarm_assets_tests.pipelines.songs.segment_kit import LAYOUT, counting_store

KEY = LAYOUT.alignment("Blue")


def silent(segment_id, **changes):
    """A pair of which nothing can be heard."""
    return pair(segment_id, SILENCE, midi_of(song(0)[0]), **changes)


def heard_pairs():
    notes, samples = song(0)
    return [
        pair("as-it-is", samples, midi_of(notes), **spans()),
        pair("told", samples, midi_of(notes, 0.8), midi_offset_seconds=0.8),
        pair("untold", samples, midi_of(notes, 1.5), **spans()),
        pair("cut", samples, midi_of(notes, -0.7), **spans(later=0.7)),
        pair("far", samples, midi_of(notes, 4.0), midi_offset_seconds=4.0),
        pair("unrelated", samples, midi_of(song(1)[0]), **spans()),
    ]


def hard_pairs():
    midi = midi_of(song(0)[0])
    return [
        pair("no-midi", SILENCE, midi, has_midi=False),
        pair("no-audio", SILENCE, midi, has_audio=False),
        pair("bad-audio", np.full(16, np.nan, np.float32), midi),
        pair("bad-midi", SILENCE, b"<!doctype html>"),
        pair("nowhere", SILENCE, None),
        pair("outside", None, midi, segment_audio_file="../../etc/passwd"),
    ]


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    store = counting_store(tmp_path_factory.mktemp("heard"))
    put_pairs(store, heard_pairs() + hard_pairs())
    return store, check_alignment(store, LAYOUT, config_of(), "Blue")


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


def test_pairs_are_judged_by_ear(heard):
    rows = {row.segment_id: row for row in heard[1].rows}
    found = {name: row.verdict for name, row in rows.items() if row.z is not None}
    assert found == {
        "as-it-is": "aligned",
        "told": "corrected",
        "untold": "misaligned",
        "cut": "corrected",
        "far": "corrected",
        "unrelated": "unverified",
    }
    offsets = {"as-it-is": 0.0, "told": 0.8, "untold": 1.5, "cut": -0.7, "far": 4.0}
    for name, offset in offsets.items():
        assert rows[name].heard_offset == pytest.approx(offset, abs=0.05)
        assert rows[name].is_heard
    assert not rows["unrelated"].is_heard
    assert rows["unrelated"].z < 5 < rows["as-it-is"].z
    assert "no lag stands out" in rows["unrelated"].reason


def test_manual_alignment_correction(heard):
    """What is detected as incorrect is corrected by the metadata, and by nothing else."""
    rows = {row.segment_id: row for row in heard[1].rows}
    assert (rows["told"].correction, rows["told"].correction_source) == (-0.8, "offset")
    assert (rows["cut"].correction, rows["cut"].correction_source) == (0.7, "timestamps")
    assert (rows["far"].correction, rows["far"].correction_source) == (-4.0, "offset")
    assert rows["untold"].correction == rows["as-it-is"].correction == 0
    segments = read_segments(heard[0], LAYOUT).segments
    used = use_alignment(segments, rows, config_of().preprocessing.alignment)
    assert used.corrections == {"told": -0.8, "cut": 0.7, "far": -4.0}


def test_alignment_quality_check(heard):
    """Misaligned segments are flagged, and left out where that is wanted."""
    store, report = heard
    segments = read_segments(store, LAYOUT).segments
    alignment = read_alignment(store, LAYOUT, ["Blue"])
    assert list(alignment.values()) == list(report.rows)
    flagged = use_alignment(segments, alignment, config_of().preprocessing.alignment)
    assert (list(flagged.kept), flagged.excluded, flagged.flagged) == (segments, (), ["untold"])
    settings = config_of(exclude_misaligned=True).preprocessing
    # Leaving out is no matter of the rows: they hold for these settings, too.
    rows = read_alignment(store, LAYOUT, ["Blue"], settings)
    left = use_alignment(segments, rows, settings.alignment)
    assert [each.id for each in left.kept] == [e.id for e in segments if e.id != "untold"]
    assert (left.excluded, left.flagged) == (["untold"], ())
    assert report.counts == {
        "aligned": 1,
        "corrected": 3,
        "misaligned": 1,
        "unverified": 1,
        "not_applicable": 6,
    }
    assert (report.pairs, report.aligned_share) == (6, pytest.approx(4 / 6))


def test_what_cannot_be_compared_is_told(heard):
    report = heard[1]
    rows = {row.segment_id: row for row in report.rows}
    hard = ("no-midi", "no-audio", "bad-audio", "bad-midi", "nowhere", "outside")
    assert {rows[name].verdict for name in hard} == {"not_applicable"}
    assert rows["no-midi"].reason == "no MIDI"
    assert rows["no-audio"].reason == "no audio"
    assert rows["nowhere"].reason == "the MIDI was not found"
    assert rows["outside"].reason == "the audio was not found"
    assert "not finite" in rows["bad-audio"].reason
    assert rows["bad-midi"].problem == checked.MIDI_CORRUPT
    assert report.problems.counts == {
        "audio_corrupt": 1,
        "midi_corrupt": 1,
        "no_midi": 1,
        "refused_path": 1,
    }


def test_a_second_run_listens_to_nothing_and_writes_the_same_bytes(heard, monkeypatch):
    store, first = heard
    before = store.get(KEY)
    monkeypatch.setattr(checked, "heard_offset", lambda *_, **__: pytest.fail("listened"))
    store.reset()
    report = check_alignment(store, LAYOUT, config_of(), "Blue")
    assert store.count("put") == 0
    assert (report.listened, report.reused) == (0, 12)
    assert (first.listened, first.reused) == (6, 0)
    assert (report.rows, report.version) == (first.rows, first.version)
    # What can't be read is told again, too.
    assert report.problems == first.problems
    assert store.get(KEY) == before


def test_what_changed_is_looked_at_again(store):
    """Notes, sound, timestamps and offset of a segment; nothing of another one."""
    (notes, samples), (_, others) = song(0), song(1)
    late = midi_of(notes, 0.8)
    same = silent("same", **spans())
    versions = set()
    told = {"midi_offset_seconds": 0.8}
    for other, verdict in (  # one thing changes each time
        (pair("other", samples, late), "misaligned"),
        (pair("other", samples, late, **told), "corrected"),
        (pair("other", samples, midi_of(notes), **told), "aligned"),
        (pair("other", others, midi_of(notes), **told), "misaligned"),
        (pair("other", others, midi_of(notes), **told, **spans(later=0.7)), "misaligned"),
    ):
        put_pairs(store, [same, other])
        report = check_alignment(store, LAYOUT, config_of(), "Blue")
        assert verdicts(report) == {"same": "aligned", "other": verdict}
        assert report.listened == 1
        assert report.reused == bool(versions)
        versions.add(report.version)
    assert len(versions) == 5


def test_smpte_timestamp_alignment(store):
    """Starts and ends of both spans match within the tolerance, or it is told."""
    codes = {
        "match": ("01:00:10:00", "01:00:22:00", "01:00:10:01", "01:00:22:01"),
        "late": ("01:00:10:00", "01:00:22:00", "01:00:10:10", "01:00:22:10"),
        "short": ("01:00:10:00", "01:00:22:00", "01:00:10:00", "01:00:21:00"),
    }
    put_pairs(
        store,
        [silent(name, **smpte(*each)) for name, each in codes.items()] + [silent("untimed")],
    )
    report = check_alignment(store, LAYOUT, config_of(), "Blue")
    rows = {row.segment_id: row for row in report.rows}
    assert (rows["match"].start_difference, rows["match"].end_difference) == (0.04, 0.04)
    assert (rows["late"].start_difference, rows["late"].end_difference) == (0.4, 0.4)
    assert (rows["short"].start_difference, rows["short"].end_difference) == (0.0, -1.0)
    assert {name: row.within_tolerance for name, row in rows.items()} == {
        "match": True,
        "late": False,
        "short": False,
        "untimed": None,
    }
    assert verdicts(report) == {
        "match": "aligned",
        "late": "corrected",
        "short": "misaligned",
        "untimed": "unverified",
    }
    assert rows["late"].correction == 0.4
    assert rows["match"].reason.startswith("not heard: the sound is silent")
    strict = check_alignment(store, LAYOUT, config_of(tolerance_seconds=0.03), "Blue")
    assert verdicts(strict)["match"] == "corrected"
    kept = check_alignment(store, LAYOUT, config_of(apply_correction=False), "Blue")
    assert verdicts(kept)["late"] == "misaligned"


def test_lrc_timestamps_are_compared_with_seconds(store):
    timed = {"lrc_start": "[01:23.45]", "lrc_end": "[01:35.45]"}
    put_pairs(store, [silent("a", **timed, midi_start_seconds=83.45, midi_end_seconds=95.45)])
    (row,) = check_alignment(store, LAYOUT, config_of(), "Blue").rows
    assert (row.start_difference, row.end_difference, row.verdict) == (0.0, 0.0, "aligned")


def test_an_album_is_its_own_object(store):
    put_pairs(store, [silent("a"), silent("b", album="Red / Live"), silent("c")])
    blue = check_alignment(store, LAYOUT, config_of(), "Blue")
    assert [row.segment_id for row in blue.rows] == ["a", "c"]
    with pytest.raises(NoAlignment, match=r"no object .*red-live.*materialise songs/alignment"):
        read_alignment(store, LAYOUT, ["Blue", "Red / Live"])
    check_alignment(store, LAYOUT, config_of(), "Red / Live")
    assert set(read_alignment(store, LAYOUT, ["Red / Live"])) == {"b"}
    assert set(read_alignment(store, LAYOUT)) == {"a", "b", "c"}
    with pytest.raises(ValueError, match="no segment is of the album 'Green'"):
        check_alignment(store, LAYOUT, config_of(), "Green")


def test_rows_of_other_settings_are_refused(store):
    put_pairs(store, [silent("a")])
    check_alignment(store, LAYOUT, config_of(), "Blue")
    settings = config_of(tolerance_seconds=0.2).preprocessing
    with pytest.raises(NoAlignment, match="other settings"):
        read_alignment(store, LAYOUT, ["Blue"], settings)
    audio = {"seconds": SECONDS + 1}
    longer = song_config({"preprocessing": {"audio": audio}}).preprocessing
    with pytest.raises(NoAlignment, match="other settings"):
        read_alignment(store, LAYOUT, ["Blue"], longer)


def test_rows_of_earlier_media_are_refused(store):
    """An offset that was told of notes that are exported in time by now must not move them."""
    notes, samples = song(0)
    settings = config_of().preprocessing
    put_pairs(store, [pair("a", samples, midi_of(notes, 0.8), midi_offset_seconds=0.8)])
    check_alignment(store, LAYOUT, config_of(), "Blue")
    assert read_alignment(store, LAYOUT, ["Blue"], settings)["a"].correction == -0.8
    segments = put_pairs(store, [pair("a", samples, midi_of(notes), midi_offset_seconds=0.8)])
    with pytest.raises(NoAlignment, match=r"of other media than .*: materialise songs/alignment"):
        read_alignment(store, LAYOUT, ["Blue"], settings)
    check_alignment(store, LAYOUT, config_of(), "Blue")
    alignment = read_alignment(store, LAYOUT, ["Blue"], settings)
    assert use_alignment(segments, alignment, settings.alignment).corrections == {}
    store.delete(LAYOUT.media())
    with pytest.raises(NoAlignment, match="put the media of segments there"):
        read_alignment(store, LAYOUT, ["Blue"], settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": None},
        {"offset": 0.0},
        {"audio_span": (0.0, 11.0)},
        {"midi_span": (0.7, 12.7)},
        {"midi_path": "b.mid"},
        {"audio_path": "b.wav"},
        {"album": "Red"},
        {"is_smpte": True},
    ],
)
def test_rows_of_earlier_metadata_are_refused(store, changes):
    (segment,) = put_pairs(store, [silent("a", midi_offset_seconds=0.8, **spans())])
    check_alignment(store, LAYOUT, config_of(), "Blue")
    settings = config_of(exclude_misaligned=True).preprocessing
    rows = read_alignment(store, LAYOUT, ["Blue"], settings)
    other_label = replace(segment, label="wild", lyric_text="", row=7)
    used = use_alignment([other_label], rows, settings.alignment)
    assert used.corrections == {"a": -0.8}
    with pytest.raises(NoAlignment, match=r"segment 'a' .*otherwise.*; materialise songs/align"):
        use_alignment([replace(segment, **changes)], rows, settings.alignment)


def test_a_row_of_what_is_no_pair_any_more_decides_nothing(store):
    (segment,) = put_pairs(store, [silent("a", **spans(longer=1.0))])
    check_alignment(store, LAYOUT, config_of(), "Blue")
    settings = config_of(exclude_misaligned=True).preprocessing
    rows = read_alignment(store, LAYOUT, ["Blue"], settings)
    assert use_alignment([segment], rows, settings.alignment).excluded == ["a"]
    alone = replace(segment, has_midi=False)
    assert use_alignment([alone], rows, settings.alignment).kept == [alone]


def test_a_pair_that_was_not_checked_is_refused(store):
    segments = put_pairs(store, [silent("a"), silent("b", has_midi=False)])
    settings = SongConfig().preprocessing.alignment
    with pytest.raises(NoAlignment, match="segment 'a' of the album 'Blue'"):
        use_alignment(segments, {}, settings)
    assert use_alignment(segments[1:], {}, settings).kept == segments[1:]


def test_a_segment_on_record_for_two_albums_is_refused(store):
    put_pairs(store, [silent("a")])
    check_alignment(store, LAYOUT, config_of(), "Blue")
    put_pairs(store, [silent("a", album="Red")])
    check_alignment(store, LAYOUT, config_of(), "Red")
    with pytest.raises(BadAlignment, match="segment 'a' must be of one album"):
        read_alignment(store, LAYOUT)
    assert read_alignment(store, LAYOUT, ["Red"])["a"].album == "Red"


def test_a_damaged_object_is_named_and_made_again(store):
    put_pairs(store, [silent("a")])
    first = check_alignment(store, LAYOUT, config_of(), "Blue")
    store.put(KEY, b"PAR1 no more")
    with pytest.raises(BadTable, match=r"album=blue-.*delete it, and materialise"):
        read_alignment(store, LAYOUT, ["Blue"])
    said = []
    again = check_alignment(store, LAYOUT, config_of(), "Blue", said.append)
    assert again.version == first.version
    assert any("is not readable" in line for line in said)


def test_the_same_segments_elsewhere_give_the_same_rows(store, tmp_path):
    """Also where a library says why it could not read something."""
    other = counting_store(tmp_path / "other")
    broken = pair("broken", SILENCE, midi_of(song(0)[0]), **spans())
    broken[1]["audio_waveform"] = b"RIFF....WAVEnot at all"
    reports = []
    for each in (store, other):
        put_pairs(each, [broken, silent("a", **spans())])
        reports.append(check_alignment(each, LAYOUT, config_of(), "Blue"))
        assert "cannot decode the audio" in reports[-1].rows[0].reason
    assert reports[0].rows == reports[1].rows


def test_settings_are_kept_beside_the_rows(heard):
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_schema(pa.BufferReader(heard[0].get(KEY))).metadata
    told = json.loads(metadata[b"clipfarm.alignment"])
    assert told["tolerance_seconds"] == 0.05
    assert "exclude_misaligned" not in told
