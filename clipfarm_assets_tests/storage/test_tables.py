import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipfarm_assets.storage.tables import BadTable, parquet_to_table, table_to_parquet

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
