"""Reading by columns gives what the strict reader gives, or nothing."""

import csv
import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts.csv_columns import read_columns
from clipfarm_assets.contracts.horizon_csv import HorizonCsvError, _read_rows

START = "video_id,url,captured_at,title,description,query"
PIECES = st.sampled_from(
    [",", '"', '""', "\n", "\r", "\r\n", "a", " ", "é", "NULL", "#N/A", "nan", "1", "\ufeff", "\0"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def strictly(data):
    try:
        return _read_rows(data, "x")
    except HorizonCsvError:
        return None


@settings(max_examples=120)
@given(st.lists(TEXTS, max_size=4).map("".join), st.sampled_from(["", "\ufeff", "\n", "\r\n\n"]))
def test_whatever_is_read_is_what_the_strict_reader_reads(text, start):
    data = f"{start}{START}\n{text}".encode()
    read = read_columns(data)
    if read is not None:
        strict = strictly(data)
        assert strict is not None
        assert read.equals(strict, null_equal=True)
        assert read.schema == strict.schema


@settings(max_examples=50)
@given(
    st.lists(st.lists(TEXTS, min_size=6, max_size=6), max_size=5),
    st.sampled_from(
        # Python's writer leaves a lone \r without quotes where \n ends the lines.
        [("\r\n", csv.QUOTE_MINIMAL), *((end, csv.QUOTE_ALL) for end in ("\n", "\r\n", "\r"))]
    ),
)
def test_whatever_is_written_properly_is_read(rows, form):
    line_end, quoting = form
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end, quoting=quoting)
    writer.writerow(START.split(","))
    writer.writerows(rows)
    data = text.getvalue().encode()
    read = read_columns(data)
    if b"\0" in data:
        assert read is None
        return
    assert read is not None
    assert read.rows() == [tuple(row) for row in rows]
    assert set(read.dtypes) == {pl.String}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"a,b\n1\n",
        b"a,b\n1,2,3\n",
        b"a,a\n1,2\n",
        b'a,b\n1,"2\n',
        b'a,b\n1,"2"x\n',
        b'a,b\n1,x"2"\n',
        b"a,b\n1,\xff\n",
        b"\xff,b\n1,2\n",
        b'"a,b\n1,2\n',
        b"a,b\n1," + b"x" * (csv.field_size_limit() + 1) + b"\n",
        b"a,b\n1," + b"x" * (3 << 20) + b"\n",
    ],
)
def test_a_file_in_doubt_is_left_to_the_strict_reader(data):
    assert read_columns(data) is None


def test_a_large_file_of_many_blocks_is_one_table_in_order():
    rows = [(str(n), f'"{n}"\n' * 40) for n in range(30_000)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("n", "text"), *rows])
    assert len(text.getvalue()) > 4 << 20
    assert read_columns(text.getvalue().encode()).rows() == rows
