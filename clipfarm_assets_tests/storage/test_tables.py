import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipfarm_assets.storage import tables
from clipfarm_assets.storage.tables import (
    BadTable,
    chunks_to_parquet,
    parquet_footer,
    parquet_to_chunks,
    parquet_to_table,
    table_to_parquet,
)

SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("dim", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)


def table(schema=SCHEMA):
    rows = {"video_id": ["a", "b", "ç"], "dim": [1, None, 3], "reason": [None, "x", ""]}
    return pa.table({name: rows[name] for name in schema.names}, schema=schema)


def parquet(columns, **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def test_round_trip_with_metadata():
    data = table_to_parquet(table(), {"version": "2", "a": "ß"})
    again = parquet_to_table(data, SCHEMA)
    assert again.equals(table())
    assert again.schema.metadata == {b"version": b"2", b"a": "ß".encode()}
    assert parquet_to_table(data).equals(table())


def test_equal_tables_give_equal_bytes_however_chunked():
    count = 60_000  # enough for several pages, whose bounds follow the chunks if let
    names = [f"{n * 7919 % count:050}" for n in range(count)]
    whole = pa.table({"video_id": names, "dim": range(count)})
    pieces = pa.concat_tables([whole.slice(n, 777) for n in range(0, count, 777)])
    assert pieces.column(0).num_chunks > 1
    one = table_to_parquet(whole, {"a": "1", "b": "2"})
    assert table_to_parquet(pieces, {"b": "2", "a": "1"}) == one


def test_it_is_zstd_and_every_damaged_byte_of_the_pages_is_found():
    data = table_to_parquet(table())
    file = pq.ParquetFile(io.BytesIO(data))
    column = file.metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    end = (
        column.data_page_offset
        + column.total_compressed_size
        - (column.data_page_offset - (column.dictionary_page_offset or column.data_page_offset))
    )
    for at in range(end - 8, end):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(BadTable, match="not a readable parquet file"):
            parquet_to_table(bytes(damaged), SCHEMA)


def test_an_empty_table():
    assert parquet_to_table(table_to_parquet(SCHEMA.empty_table()), SCHEMA).num_rows == 0


def test_missing_and_mistyped_columns_are_named():
    with pytest.raises(BadTable, match="lacks the column dim, reason; it has video_id"):
        parquet_to_table(parquet({"video_id": ["a"]}), SCHEMA)
    with pytest.raises(BadTable, match="column dim of the parquet file is double, not int64"):
        parquet_to_table(parquet({"video_id": ["a"], "dim": [1.0], "reason": ["x"]}), SCHEMA)
    with pytest.raises(BadTable, match="column video_id of the parquet file has 1 empty values"):
        parquet_to_table(parquet({"video_id": ["a", None], "dim": [1, 2], "reason": ["", ""]}),
                         SCHEMA)  # fmt: skip


def test_what_other_writers_make_of_the_same_values_is_accepted():
    columns = {
        "reason": pa.nulls(2),
        "extra": [1, 2],
        "dim": pa.array([1, 2], pa.int64()),
        "video_id": pa.array(["a", "b"], pa.large_string()),
    }
    again = parquet_to_table(parquet(columns), SCHEMA)
    assert again.schema.equals(SCHEMA)
    assert again.to_pydict() == {"video_id": ["a", "b"], "dim": [1, 2], "reason": [None, None]}


def test_rows_are_limited():
    with pytest.raises(BadTable, match="claims 3 rows, more than the limit of 2"):
        parquet_to_table(table_to_parquet(table()), max_rows=2)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 60 + b"PAR1", b"x" * 500])
def test_garbage_is_refused(data):
    with pytest.raises(BadTable, match="not a readable parquet file"):
        parquet_to_table(data)


# --- piece by piece


def many(rows):
    names = [f"{n * 7919 % 10_007:08}" for n in range(rows)]
    return pa.table({"video_id": names, "dim": range(rows), "reason": [None] * rows}, schema=SCHEMA)


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 200, 250])
@pytest.mark.parametrize("piece", [1, 7, 100, 1000])
def test_a_file_made_in_pieces_is_the_file_made_at_once(rows, piece, monkeypatch):
    """Row groups of 100 rows: pieces end before them, with them, and span several."""
    monkeypatch.setattr(tables, "_GROUP_ROWS", 100)
    whole = many(rows).replace_schema_metadata({"a": "b"})
    plain = io.BytesIO()
    pq.write_table(
        whole,
        plain,
        compression="zstd",
        write_page_checksum=True,
        version="2.6",
        row_group_size=100,
    )
    pieces = [whole.slice(n, piece) for n in range(0, rows, piece)]
    assert chunks_to_parquet(iter(pieces), whole.schema) == plain.getvalue()
    assert table_to_parquet(whole) == plain.getvalue()


def test_reading_in_pieces_gives_all_rows_in_order(monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 100)
    whole = many(250)
    pieces = list(parquet_to_chunks(table_to_parquet(whole)))
    assert max(piece.num_rows for piece in pieces) <= 100
    assert pa.concat_tables(pieces).equals(whole)
    assert list(parquet_to_chunks(table_to_parquet(whole.slice(0, 0)))) == []


def test_reading_in_pieces_finds_damage():
    data = bytearray(table_to_parquet(many(250)))
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(1)
    data[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    for damaged in (bytes(data), data[:100], b""):
        with pytest.raises(BadTable, match="not a readable parquet file"):
            list(parquet_to_chunks(damaged))


class Tail:
    """Gives the end of a file, and remembers how much was asked for."""

    def __init__(self, *versions):
        self.versions, self.asked = list(versions), []

    def __call__(self, length):
        data = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        self.asked.append(length)
        return data[-length:]


def test_the_footer_is_read_from_the_end_alone(monkeypatch):
    data = table_to_parquet(many(5000), {"shards": "x" * 3000})
    enough = int.from_bytes(data[-8:-4], "little") + 8
    assert enough < len(data) // 2
    for guess, asked in ((8, [8, enough]), (enough - 1, [enough - 1, enough]), (enough, [enough])):
        monkeypatch.setattr(tables, "_TAIL_BYTES", guess)
        tail = Tail(data)
        footer = parquet_footer(tail)
        assert (footer.rows, footer.metadata[b"shards"]) == (5000, b"x" * 3000)
        assert tail.asked == asked


def test_a_file_replaced_while_its_footer_is_read(monkeypatch):
    """The second reading may find a longer footer than the first one told of."""
    small, large = (table_to_parquet(many(n), {"shards": "x" * n}) for n in (1000, 9000))
    monkeypatch.setattr(tables, "_TAIL_BYTES", 100)
    assert parquet_footer(Tail(small, large)).rows == 9000
    assert parquet_footer(Tail(large, small)).rows == 1000


@pytest.mark.parametrize("size", [0, 3, 7, 8, 50])
def test_what_has_no_footer(size):
    whole = table_to_parquet(many(10))
    huge = whole[:-8] + (2**32 - 1).to_bytes(4, "little") + b"PAR1"
    for data in (whole[:size], whole[-size:] if size else b"", whole[:-1], huge):
        with pytest.raises(BadTable, match="not a readable parquet file"):
            parquet_footer(Tail(data))
