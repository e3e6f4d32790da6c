"""Parquet files whose footers lie."""

import struct

import pyarrow as pa
import pytest

from clipfarm_assets.storage.tables import (
    BadTable,
    parquet_to_chunks,
    parquet_to_table,
    table_to_parquet,
)

ROWS = 3
_I64, _SAME = b"\x16", bytes([2 * ROWS])  # Thrift's compact protocol: the next field, zigzag of 3


def varint(value):
    """A number as Thrift's compact protocol has it: zigzag, seven bits a byte."""
    value *= 2
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def claiming(rows):
    """A file of three rows whose footer says that there are as many as that."""
    data = table_to_parquet(pa.table({"x": list(range(ROWS))}))
    (size,) = struct.unpack("<I", data[-8:-4])
    body, footer = data[: -8 - size], data[-8 - size : -8]
    footer = footer.replace(_I64 + _SAME, _I64 + varint(rows), 1)
    return body + footer + struct.pack("<I", len(footer)) + b"PAR1"


def test_the_claim_is_where_it_is_changed():
    assert parquet_to_table(claiming(ROWS)).num_rows == ROWS


@pytest.mark.parametrize("rows", [2**40, 2**62])
def test_a_footer_that_lies_is_refused(rows):
    with pytest.raises(BadTable, match=f"claims {rows} rows, more than the limit"):
        parquet_to_table(claiming(rows))


@pytest.mark.parametrize("size", [0, 2**31, 2**32 - 1])
def test_a_footer_of_another_length_is_refused(size):
    data = table_to_parquet(pa.table({"x": [1, 2, 3]}))
    with pytest.raises(BadTable, match="not a readable parquet file"):
        parquet_to_table(data[:-8] + struct.pack("<I", size) + b"PAR1")


@pytest.mark.parametrize("read", [parquet_to_table, lambda data: list(parquet_to_chunks(data))])
def test_a_column_whose_name_is_no_text_is_refused(read):
    data = table_to_parquet(pa.table({"title": ["a"]}))
    assert data.count(b"title") > 1
    with pytest.raises(BadTable, match="not a readable parquet file: 'utf-8' codec"):
        read(data.replace(b"title", b"ti\x97le"))
