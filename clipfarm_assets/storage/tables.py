"""A table as one parquet object."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

#: Most rows a table may claim.
MAX_ROWS: Final = 50_000_000

#: Rows of a chunk where a table is read piece by piece.
CHUNK_ROWS: Final = 1 << 17

# pyarrow's own bound of a row group; written down because files made in pieces keep to it too.
_GROUP_ROWS: Final = 1 << 20
# The last: names of columns in another encoding than the format's.
_UNREADABLE: Final = (pa.ArrowException, OSError, UnicodeDecodeError)
_TAIL_BYTES: Final = 1 << 19
_MAGIC: Final = b"PAR1"


class BadTable(ValueError):  # noqa: N818
    """Not a parquet file with the expected columns."""


@dataclass(frozen=True)
class Footer:
    """What a parquet file says at its end: number of rows, and the file's key-values."""

    rows: int
    metadata: Mapping[bytes, bytes]


def table_to_parquet(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise a table with zstd and a checksum a page.

    Equal tables give equal bytes, however they are chunked, for one version of pyarrow.

    Args:
        table: The rows.
        metadata: Key-values of the file, replacing those of the table's schema.
    """
    if metadata is not None:
        table = table.replace_schema_metadata(dict(sorted(metadata.items())))
    return chunks_to_parquet([table], table.schema)


def chunks_to_parquet(chunks: Iterable[pa.Table], schema: pa.Schema) -> bytes:
    """Serialise a table that comes in pieces: the bytes of `table_to_parquet` of all of it.

    Beside the result, one row group (1,048,576 rows) is held at a time.

    Args:
        chunks: Tables of `schema`, whose key-values become those of the file.
        schema: Theirs.
    """
    file = io.BytesIO()
    with pq.ParquetWriter(
        file, schema, compression="zstd", write_page_checksum=True, version="2.6"
    ) as writer:
        waiting, rows, empty = [schema.empty_table()], 0, True
        for chunk in chunks:
            start = 0
            while (room := _GROUP_ROWS - rows) <= chunk.num_rows - start:
                waiting.append(chunk.slice(start, room))
                _write_group(writer, waiting)
                rows, empty = 0, False
                start += room
            if start < chunk.num_rows:
                waiting.append(chunk.slice(start))
                rows += chunk.num_rows - start
        if rows or empty:
            _write_group(writer, waiting)
    return file.getvalue()


def _write_group(writer: pq.ParquetWriter, pieces: list[pa.Table]) -> None:
    """Write pieces as one row group, and forget them.

    Page bounds follow chunks where there are several: equal tables need the same, so one.
    """
    columns = [
        pa.chunked_array([c for p in pieces for c in p.column(i).chunks], field.type)
        for i, field in enumerate(writer.schema)
    ]
    pieces.clear()
    for i, column in enumerate(columns):
        # One after the other, so that a group is not held twice.
        columns[i] = column.combine_chunks()
        del column
    writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema), _GROUP_ROWS)


def parquet_to_table(
    data: bytes, schema: pa.Schema | None = None, *, max_rows: int = MAX_ROWS
) -> pa.Table:
    """Read a table, verifying page checksums where the file has them.

    With a `schema` the result has exactly its columns in its order; columns the file has beyond
    those are not read. Types must be equal, but for two differences that lose nothing and that
    other writers make: a column without any value may be of type null, and strings may be large.
    The file's key-values stay in ``table.schema.metadata``.

    Raises:
        BadTable: Unreadable, or says which column is missing, of another type, or has nulls.
    """
    try:
        file = _opened(data, max_rows)
        if schema is None:
            return file.read()
        found = file.schema_arrow
        missing = [name for name in schema.names if name not in found.names]
        if missing:
            msg = (
                f"the parquet file lacks the column {', '.join(missing)}; it has "
                f"{', '.join(found.names)[:1000]}"
            )
            raise BadTable(msg)
        table = file.read(columns=schema.names)
    except _UNREADABLE as error:
        msg = f"not a readable parquet file: {error}"
        raise BadTable(msg) from error
    columns = [_column(table.column(field.name), field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema.with_metadata(found.metadata))


def parquet_to_chunks(data: bytes) -> Iterator[pa.Table]:
    """Read a table in pieces of up to `CHUNK_ROWS` rows; otherwise as `parquet_to_table`.

    Raises:
        BadTable: Unreadable; possibly after some pieces.
    """
    try:
        for batch in _opened(data, MAX_ROWS).iter_batches(CHUNK_ROWS):
            yield pa.Table.from_batches([batch])
    except _UNREADABLE as error:
        msg = f"not a readable parquet file: {error}"
        raise BadTable(msg) from error


def parquet_footer(tail: Callable[[int], bytes]) -> Footer:
    """Read the footer of a file without its rows.

    Args:
        tail: Gives the last so many bytes, or all if there are fewer. Called again where the footer
            is longer than expected; the file may be replaced in between.

    Raises:
        BadTable: Unreadable.
    """
    length = _TAIL_BYTES
    while True:
        data = tail(length)
        # The file ends in the footer, its length and the magic. Source: the Parquet format.
        needed = int.from_bytes(data[-8:-4], "little") + 8
        if not data.endswith(_MAGIC) or needed > len(data) < length:
            msg = f"not a readable parquet file: its last {min(len(data), 8)} bytes end no footer"
            raise BadTable(msg)
        if needed <= len(data):
            break
        length = needed
    try:
        found = pq.read_metadata(pa.BufferReader(data))
    except _UNREADABLE as error:
        msg = f"not a readable parquet file: {error}"
        raise BadTable(msg) from error
    return Footer(found.num_rows, found.metadata or {})


def _opened(data: bytes, max_rows: int) -> pq.ParquetFile:
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    rows = file.metadata.num_rows
    if rows > max_rows:
        msg = f"the parquet file claims {rows} rows, more than the limit of {max_rows}"
        raise BadTable(msg)
    return file


def _column(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if not column.type.equals(field.type):
        strings = (pa.string(), pa.large_string(), pa.string_view())
        lossless = pa.types.is_null(column.type) or (
            column.type in strings and field.type in strings
        )
        if not lossless:
            msg = f"column {field.name} of the parquet file is {column.type}, not {field.type}"
            raise BadTable(msg)
        column = column.cast(field.type)
    if not field.nullable and column.null_count:
        msg = f"column {field.name} of the parquet file has {column.null_count} empty values"
        raise BadTable(msg)
    return column
