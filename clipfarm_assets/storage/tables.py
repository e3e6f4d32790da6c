"""A table as one parquet object."""

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

#: Most rows a table may claim.
MAX_ROWS: Final = 50_000_000


class BadTable(ValueError):  # noqa: N818
    """Not a parquet file with the expected columns."""


def table_to_parquet(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise a table with zstd and a checksum a page.

    Equal tables give equal bytes, however they are chunked, for one version of pyarrow.

    Args:
        table: The rows.
        metadata: Key-values of the file, replacing those of the table's schema.
    """
    if metadata is not None:
        table = table.replace_schema_metadata(dict(sorted(metadata.items())))
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(), sink, compression="zstd", write_page_checksum=True, version="2.6"
    )
    return bytes(sink.getvalue())


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
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        rows = file.metadata.num_rows
        if rows > max_rows:
            msg = f"the parquet file claims {rows} rows, more than the limit of {max_rows}"
            raise BadTable(msg)
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
    except (pa.ArrowException, OSError) as error:
        msg = f"not a readable parquet file: {error}"
        raise BadTable(msg) from error
    columns = [_column(table.column(field.name), field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema.with_metadata(found.metadata))


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
