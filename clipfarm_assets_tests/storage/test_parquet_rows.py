"""Rows of a file that is larger than what may be read of it."""

import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipfarm_assets.storage.objects import ObjectChanged
from clipfarm_assets.storage.parquet_rows import BadTable, ParquetRows
from clipfarm_assets_tests.stores import CountingStore

KEY = "songs/raw/media.parquet"


def media(rows=20, blob=1000, seed=0):
    """Small columns before and after large ones, some nulls, and a nested one."""
    random = np.random.default_rng(seed)
    blobs = [None if n % 4 == 1 else random.bytes(blob) for n in range(rows)]
    return pa.table(
        {
            "id": [f"s{n:03}" for n in range(rows)],
            "blob": pa.array(blobs, pa.binary()),
            "rate": pa.array([16_000] * rows, pa.int32()),
            "vector": pa.array(
                [None if n % 5 == 0 else random.normal(size=4).tolist() for n in range(rows)],
                pa.list_(pa.float32()),
            ),
            "midi": pa.array([random.bytes(blob // 10) for _ in range(rows)], pa.binary()),
        }
    )


def parquet(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **{"row_group_size": 6, "write_page_checksum": True, **options})
    return file.getvalue()


@pytest.fixture
def counting(tmp_path):
    return CountingStore(str(tmp_path / "store"))


def test_columns_of_row_groups_are_those_of_the_file(store):
    table = media()
    store.put(KEY, parquet(table))
    rows = ParquetRows.open(store, KEY)
    assert rows.rows == 20
    found = [(group.number, group.start, group.rows, group.stop) for group in rows.groups]
    assert found == [(0, 0, 6, 6), (1, 6, 6, 12), (2, 12, 6, 18), (3, 18, 2, 20)]
    assert 6 * 1000 < rows.groups[0].size < 6 * 1500
    assert [rows.group_of(row).number for row in (0, 5, 6, 19)] == [0, 0, 1, 3]
    assert rows.table(["rate", "id", "vector"]).equals(table.select(["rate", "id", "vector"]))
    assert rows.table(["blob"], [2, 0])["blob"].to_pylist() == [
        *table["blob"].to_pylist()[12:18],
        *table["blob"].to_pylist()[:6],
    ]
    assert rows.table(["id"], []).num_rows == 0
    for group in rows.groups:
        for batch_rows in (1, 4, 100):
            pieces = list(rows.stream(group.number, ["midi", "id", "blob"], batch_rows))
            assert max(piece.num_rows for piece in pieces) <= batch_rows
            found = pa.Table.from_batches(pieces)
            expected = table.select(["midi", "id", "blob"]).slice(group.start, group.rows)
            assert found.to_pylist() == expected.to_pylist()


def test_neighbours_are_read_with_one_request_and_nothing_else_is(counting):
    counting.put(KEY, parquet(media(blob=400_000)))
    counting.reset()
    rows = ParquetRows.open(counting, KEY)
    assert counting.calls == [("head", KEY), ("range", KEY)]
    counting.reset()
    rows.table(["id", "rate", "vector"], [1])
    assert counting.calls == [("range", KEY)] * 2  # before and after the blobs
    counting.reset()
    rows.table(["rate", "vector"])
    assert counting.calls == [("range", KEY)] * len(rows.groups)


def test_only_the_columns_that_are_asked_for_are_held(counting):
    """And of a stream a piece: its row group of 32 MB never lies in memory as a whole."""
    table = media(rows=64, blob=1 << 19)
    counting.put(KEY, parquet(table, row_group_size=64, write_batch_size=1, data_page_size=1))
    whole = table.nbytes
    del table
    rows = ParquetRows.open(counting, KEY)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    most = found = 0
    for piece in rows.stream(0, ["id", "blob"], 2):
        found += piece.num_rows
        most = max(most, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 64
    assert max(most, peak) < whole / 2


def test_values_are_counted_by_the_footer_alone(counting):
    counting.put(KEY, parquet(media()))
    rows = ParquetRows.open(counting, KEY)
    counting.reset()
    assert (rows.values_of("blob"), rows.values_of("midi")) == (15, 20)
    assert counting.calls == []
    counting.put(KEY, parquet(media(), write_statistics=False))
    assert ParquetRows.open(counting, KEY).values_of("blob") is None
    with pytest.raises(BadTable, match="lacks the column none"):
        rows.values_of("none")


def test_the_footers_hash_tells_files_apart(store):
    prints = []
    for seed in (0, 0, 1):
        store.put(KEY, parquet(media(seed=seed)))
        prints.append(ParquetRows.open(store, KEY).footer_sha256)
    assert prints[0] == prints[1] != prints[2]


def test_a_footer_longer_than_its_first_part_is_read(store):
    names = {f"column {n:04} {'x' * 200}": [n] for n in range(1200)}
    store.put(KEY, parquet(pa.table(names)))
    rows = ParquetRows.open(store, KEY)
    last = list(names)[-1]
    assert rows.table([last]).to_pydict() == {last: [1199]}


def test_a_file_that_is_written_again_while_it_is_read_is_told(store):
    store.put(KEY, parquet(media()))
    rows = ParquetRows.open(store, KEY)
    stream = rows.stream(0, ["blob"], 1)
    next(stream)
    store.put(KEY, parquet(media(seed=1)))
    with pytest.raises(ObjectChanged, match="written again"):
        rows.table(["id"])
    with pytest.raises(ObjectChanged, match="written again"):
        list(rows.stream(1, ["blob"], 1))
    store.delete(KEY)
    with pytest.raises(FileNotFoundError, match=f"no object {KEY}"):
        rows.table(["id"])


def test_unknown_and_repeated_columns_are_told(store):
    store.put(KEY, parquet(media()))
    rows = ParquetRows.open(store, KEY)
    with pytest.raises(BadTable, match="lacks the column none, other; it has id, blob"):
        rows.table(["id", "none", "other"])
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    store.put(KEY, parquet(twice))
    with pytest.raises(BadTable, match="has the column a more than once"):
        ParquetRows.open(store, KEY).table(["a"])


NO_PARQUET = [b"", b"PAR1", b"PAR1" * 3, b"x" * 1000, b"PAR1\xff\xff\xff\x7fPAR1"]


@pytest.mark.parametrize("data", NO_PARQUET)
def test_what_is_no_parquet_file_is_told(store, data):
    store.put(KEY, data)
    with pytest.raises(BadTable, match=KEY):
        ParquetRows.open(store, KEY)


def test_damage_is_told_and_never_given_out(folder):
    table = media(rows=12, blob=400)
    data = parquet(table)
    random = np.random.default_rng(3)
    told = 0
    for _ in range(150):
        place = int(random.integers(len(data)))
        hurt = bytearray(data)
        hurt[place] ^= 1 << int(random.integers(8))
        folder.put(KEY, bytes(hurt))
        try:
            rows = ParquetRows.open(folder, KEY)
            rows.values_of("midi")
            found = rows.table(["id", "blob"])
            pieces = [p for g in rows.groups for p in rows.stream(g.number, ["midi"], 3)]
        except BadTable as error:
            assert KEY in str(error)  # noqa: PT017 - or it is whole
            told += 1
        else:
            # What is of a column that was not asked for, or decides nothing.
            assert found.to_pylist() == table.select(["id", "blob"]).to_pylist()
            assert [v for p in pieces for v in p["midi"].to_pylist()] == table["midi"].to_pylist()
    assert told > 75


def test_a_file_that_is_cut_short_is_told(folder):
    data = parquet(media())
    for keep in (0.2, 0.7, 0.99):
        folder.put(KEY, data[: int(len(data) * keep)])
        with pytest.raises(BadTable):
            ParquetRows.open(folder, KEY)
