"""Segments are known from the metadata alone, however large the media is."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from clipfarm_assets.contracts.song_columns import rows_agree
from clipfarm_assets.contracts.song_segments import BadSegments
from clipfarm_assets.pipelines.songs import segments as module
from clipfarm_assets.pipelines.songs.segments import (
    NoSegments,
    compare_rows,
    observe_media,
    observe_metadata,
    read_segments,
)
from clipfarm_assets.storage.tables import BadTable
from clipfarm_assets_tests.contracts.song_kit import MEDIA_FIELDS, SCHEMA, row, table
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    media_of,
    parquet,
    put_segments,
    put_some,
)


def test_metadata_only_queries(counting):
    """Labels, flags and paths are read without a byte of the media."""
    put_some(counting, 6)
    counting.delete(LAYOUT.media())
    counting.reset()
    report = read_segments(counting, LAYOUT)
    assert {key for _, key in counting.calls} == {LAYOUT.metadata()}
    assert [segment.id for segment in report.segments] == [f"s{n}" for n in range(6)]
    assert report.labels == {"calm": 4, "wild": 2}
    assert report.albums == {"Blue": 3, "Red": 3}
    assert (report.songs, report.rows, report.left_out) == (3, 6, 0)
    assert report.columns == len(SCHEMA)
    assert report.coverage.share("midi") == 1.0
    assert [segment.id for segment in report.of_album("Red")] == ["s3", "s4", "s5"]
    with pytest.raises(ValueError, match="no segment is of the album 'Green'"):
        report.of_album("Green")


def test_the_metadatas_version_is_that_of_its_bytes(folder):
    put_some(folder, 4)
    report = observe_metadata(folder, LAYOUT)
    data = folder.get(LAYOUT.metadata())
    assert report.data_version == hashlib.sha256(data).hexdigest()
    folder.put(LAYOUT.metadata(), data)
    assert observe_metadata(folder, LAYOUT).data_version == report.data_version


def test_rows_that_are_no_segment_are_counted_by_kind(folder):
    rows = [row("a"), row("a"), row(None), row("b", song_id=None), row("c", label=None)]
    folder.put(LAYOUT.metadata(), parquet(table(*rows)))
    report = read_segments(folder, LAYOUT)
    assert [segment.id for segment in report.segments] == ["a", "c"]
    assert (report.rows, report.left_out) == (5, 3)
    assert report.problems.counts == {
        "duplicate_id": 1, "missing_id": 1, "missing_label": 1, "missing_song": 1,
    }  # fmt: skip


def test_what_is_not_there_is_told(folder):
    with pytest.raises(NoSegments, match=f"must hold segments of songs at {LAYOUT.metadata()}"):
        read_segments(folder, LAYOUT)
    put_some(folder, 2)
    folder.delete(LAYOUT.media())
    with pytest.raises(NoSegments, match=f"at {LAYOUT.media()}: it does not, but other objects"):
        observe_media(folder, LAYOUT)


def test_what_is_no_metadata_is_told(folder):
    folder.put(LAYOUT.metadata(), b"no parquet")
    with pytest.raises(BadTable, match=r"training_segments_metadata\.parquet is not a parquet"):
        read_segments(folder, LAYOUT)
    folder.put(LAYOUT.metadata(), parquet(pa.table({"segment_id": ["a"]})))
    with pytest.raises(BadSegments, match="must have the columns of segments"):
        read_segments(folder, LAYOUT)
    binary = table(row("a")).append_column("blob", pa.array([b"x"], pa.binary()))
    folder.put(LAYOUT.metadata(), parquet(binary))
    report = read_segments(folder, LAYOUT)  # it can be read; the check says what is wrong
    assert "blob: is binary" in report.schema.summary()


def test_the_media_is_observed_by_its_footer(store):
    rows = [row(f"s{n}") for n in range(10)]
    silent = {"audio_waveform": None, "audio_sample_rate": None}
    media = [media_of(n, **(silent if n % 3 == 0 else {})) for n in range(10)]
    media[1]["midi_binary"] = None
    put_segments(store, rows, media, group=4)
    report = observe_media(store, LAYOUT)
    assert (report.rows, report.row_groups) == (10, 3)
    assert report.stored == {"audio_waveform": 6, "midi_binary": 9}

    assert report.size == len(store.get(LAYOUT.media()))
    assert 64_000 < report.largest_group < 4 * 66_000
    assert report.schema.holds
    assert report.notes == ()
    assert observe_media(store, LAYOUT).data_version == report.data_version
    put_segments(store, rows, [*media[1:], media[0]], group=4)
    assert observe_media(store, LAYOUT).data_version != report.data_version


def test_observing_the_media_costs_nothing_of_its_rows(counting):
    put_some(counting, 30)
    counting.reset()
    observe_media(counting, LAYOUT)
    assert counting.count("get") == 0
    assert counting.count("range", LAYOUT.media()) == 1


def test_rows_of_both_files_are_compared(store):
    rows = [row(f"s{n}", tempo=float(n)) for n in range(6)]
    media = [media_of(n) for n in range(6)]
    put_segments(store, rows, media, group=4)
    verdict = compare_rows(store, LAYOUT)
    assert verdict.holds
    assert verdict.examined == 6
    metadata = store.get(LAYOUT.metadata())
    rows[4]["tempo"] = 99.0
    put_segments(store, rows, media, group=4)
    store.put(LAYOUT.metadata(), metadata)
    assert "tempo: differs in 1 rows, first row 4 (s4)" in compare_rows(store, LAYOUT).summary()
    put_segments(store, rows[:5], media[:5], group=4)
    store.put(LAYOUT.metadata(), metadata)
    assert "the metadata has 6 rows, the media 5" in compare_rows(store, LAYOUT).summary()
    assert "the metadata has 6 rows, the media 5" in observe_media(store, LAYOUT).schema.summary()


def test_comparing_rows_reads_no_blob(counting):
    put_some(counting, 12)
    size = counting.head(LAYOUT.media()).size
    read = []
    whole = counting.get_range

    def measured(key, start, length, mark=None):
        read.append(length)
        return whole(key, start, length, mark)

    counting.get_range = measured
    assert compare_rows(counting, LAYOUT).holds
    blobs = 12 * 64_000
    assert size > blobs
    # The footers' first parts are read as half a megabyte at most, of a small file all of it.
    assert sum(sorted(read)[:-2]) < size - blobs + (1 << 18)


def test_a_media_file_without_its_columns_is_told(folder):
    put_some(folder, 2)
    assert observe_media(folder, LAYOUT).schema.holds
    folder.put(LAYOUT.media(), parquet(table(row("s0"), row("s1"))))
    told = observe_media(folder, LAYOUT).schema.summary()
    for field in MEDIA_FIELDS:
        assert f"{field.name}: expected a column of type {field.type}" in told


def test_words_that_are_no_unicode_are_told(folder):
    rows = table(row("a"))
    words = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    place = rows.schema.get_field_index("lyric_text")
    folder.put(LAYOUT.metadata(), parquet(rows.set_column(place, "lyric_text", words)))
    with pytest.raises(BadTable, match="is not a readable parquet file"):
        read_segments(folder, LAYOUT)


def measured(counting, monkeypatch):
    """Lengths of what is read of the store's objects, in parts or whole."""
    read = []
    part, whole = counting.get_range, counting.get

    def get_range(key, start, length, mark=None):
        read.append(length)
        return part(key, start, length, mark)

    def get(key):
        read.append(counting.head(key).size)
        return whole(key)

    monkeypatch.setattr(counting, "get_range", get_range)
    monkeypatch.setattr(counting, "get", get)
    return read


def test_vectors_of_words_are_not_read_with_the_segments(counting, monkeypatch):
    vectors = np.random.default_rng(1).random((8, 1 << 17), np.float32)
    offsets = np.arange(9, dtype=np.int32) << 17
    column = pa.ListArray.from_arrays(offsets, vectors.ravel())
    metadata = table(*(row(f"s{n}") for n in range(8))).append_column("text_embedding", column)
    counting.put(LAYOUT.metadata(), parquet(metadata))
    read = measured(counting, monkeypatch)
    assert len(read_segments(counting, LAYOUT).segments) == 8
    # The footer's first part is read as half a megabyte.
    assert sum(read) < 1 << 20 < vectors.nbytes


@pytest.mark.parametrize("at_once", [0, 1 << 30])
def test_rows_are_compared_some_at_a_time(folder, monkeypatch, at_once):
    """However the files' row groups lie, and with the same finding as of whole tables."""
    rows = [row(f"s{n}", tempo=float(n)) for n in range(40)]
    other = [
        {**each, "tempo": 99.0} if n in (3, 17, 18, 39) else each for n, each in enumerate(rows)
    ]
    put_segments(folder, other, [{}] * 40, group=5)
    folder.put(LAYOUT.metadata(), parquet(table(*rows), row_group_size=7))
    compared = []

    def blocks_agree(blocks, *columns):
        def seen():
            for one, two in blocks:
                assert len(one) == len(two)
                compared.append(len(one))
                yield one, two

        return whole(seen(), *columns)

    whole = module.blocks_agree
    monkeypatch.setattr(module, "blocks_agree", blocks_agree)
    monkeypatch.setattr(module, "_AT_ONCE_BYTES", at_once)
    monkeypatch.setattr(module, "_PIECE_ROWS", 3)
    verdict = compare_rows(folder, LAYOUT)
    assert verdict == rows_agree(table(*rows), table(*other))
    assert verdict.examined == sum(compared) == 40
    assert max(compared) == (5 if at_once else 3)
