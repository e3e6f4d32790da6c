"""Rows of a parquet object that is too large to be fetched: by ranged reads, column by column."""

import hashlib
import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from clipfarm_assets.storage.objects import ObjectHead, ObjectStore
from clipfarm_assets.storage.tables import MAX_ROWS, BadTable

__all__ = ["BadTable", "ParquetRows", "RowGroup"]

READ_BYTES: Final = 4 << 20
"""Bytes that a stream asks the store for at once: few requests on S3, little memory."""

_TAIL_BYTES: Final = 1 << 19
_MAGIC: Final = b"PAR1"
_END_BYTES: Final = 8  # the footer's length and the magic; source: the Parquet format


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that lie together in the file.

    Attributes:
        number: Which group, from 0.
        start: The file's row that is its first.
        rows: How many.
        size: Bytes of all its columns before they were compressed, as the footer says.
    """

    number: int
    start: int
    rows: int
    size: int

    @property
    def stop(self) -> int:
        """The file's row after its last."""
        return self.start + self.rows


class ParquetRows:
    """Columns of some row groups of one object; opening it reads its footer alone.

    All is read of the object as it was when it was opened. Checksums of pages are verified where
    the file has them. What the footer says of single columns is for pyarrow's readers first: asked
    for it directly, pyarrow ends the process where it is damaged.

    Attributes:
        key: The object's.
        head: Its size and mark.
        schema: Of all columns, with the file's key-values.
        groups: In the file's order.
        footer_sha256: Of the footer's bytes: rows, places and, as most writers put them, extremes
            of all columns.
    """

    def __init__(self, store: ObjectStore, key: str, head: ObjectHead, footer: bytes) -> None:
        """See `open`."""
        self.key, self.head = key, head
        self.footer_sha256 = hashlib.sha256(footer).hexdigest()
        self._store = store
        with self._reader(pre_buffer=False) as open_file:
            end = len(footer).to_bytes(4, "little") + _MAGIC
            self._metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer + end))
            self.schema = open_file().schema_arrow
        self.groups = self._groups()

    @classmethod
    def open(cls, store: ObjectStore, key: str) -> "ParquetRows":
        """Read the footer of `key`.

        Raises:
            FileNotFoundError: There is no such object.
            ObjectChanged: It was written again meanwhile.
            BadTable: It is no parquet file, or one with impossible numbers.
        """
        head = store.head(key)
        length = min(_TAIL_BYTES, head.size)
        if length <= _END_BYTES:
            msg = f"{key} is not a parquet file: it has {head.size} bytes"
            raise BadTable(msg)
        tail = store.get_range(key, head.size - length, length, head.mark)
        needed = int.from_bytes(tail[-_END_BYTES:-4], "little") + _END_BYTES
        if not tail.endswith(_MAGIC) or needed > head.size:
            msg = f"{key} is not a parquet file: its last {_END_BYTES} bytes end no footer"
            raise BadTable(msg)
        if needed > length:
            tail = store.get_range(key, head.size - needed, needed, head.mark)
        return cls(store, key, head, tail[-needed:-_END_BYTES])

    @property
    def rows(self) -> int:
        """Of all groups."""
        return self.groups[-1].stop if self.groups else 0

    def sha256(self) -> str:
        """Hash of all bytes of the object, `READ_BYTES` of which are in memory.

        Raises:
            ObjectChanged: It was written again since it was opened.
        """
        digest, size = hashlib.sha256(), self.head.size
        for start in range(0, size, READ_BYTES):
            length = min(READ_BYTES, size - start)
            digest.update(self._store.get_range(self.key, start, length, self.head.mark))
        return digest.hexdigest()

    def group_of(self, row: int) -> RowGroup:
        """The row group that a row of the file is in.

        Raises:
            IndexError: The file has no such row.
        """
        if not 0 <= row < self.rows:
            msg = f"{self.key} has {self.rows} rows: found {row}"
            raise IndexError(msg)
        return self.groups[bisect_right(self.groups, row, key=attrgetter("stop"))]

    def table(self, columns: Sequence[str], groups: Sequence[int] | None = None) -> pa.Table:
        """Whole columns of row groups, all by default: for columns that fit into memory.

        Columns of a group that lie side by side are read with one request.

        Args:
            columns: Names, in the result's order.
            groups: Numbers of row groups, in the result's order.

        Raises:
            BadTable: There is no such column, or it can't be read.
            ObjectChanged: The object was written again since it was opened.
        """
        schema = self._selected(columns)
        parts = []
        for number in range(len(self.groups)) if groups is None else groups:
            with self._reader(pre_buffer=True) as open_file:
                part = open_file().read_row_group(number, list(columns), use_threads=False)
                parts.append(part.select(list(columns)).replace_schema_metadata(None))
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def stream(
        self, group: int, columns: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Columns of one row group in pieces, for columns that don't fit into memory.

        Beside a piece, a page of each column is held, and `READ_BYTES` of its file: less than the
        group, if the writer made pages smaller than that.

        Args:
            group: Its number.
            columns: Names, in the pieces' order.
            batch_rows: Most rows of a piece.

        Yields:
            Pieces of one row or more, in order.

        Raises:
            BadTable, ObjectChanged: As `table`, possibly after some pieces.
        """
        self._selected(columns)
        with self._reader(pre_buffer=False, buffer_size=READ_BYTES) as open_file:
            batches = open_file().iter_batches(
                batch_rows, row_groups=[group], columns=list(columns), use_threads=False
            )
            for batch in batches:
                if batch.num_rows:
                    yield batch.select(list(columns))

    def values_of(self, column: str) -> int | None:
        """Rows that have a value in a binary column; None if the writer did not count.

        Raises:
            BadTable: There is no such column, or the footer is damaged.
        """
        self._selected([column])
        total = 0
        file = _FooterOnly(self._store, self.key, self.head)
        with self._reader(file, pre_buffer=False, buffer_size=READ_BYTES) as open_file:
            opened, schema = open_file(), self._metadata.schema
            leaf = [schema.column(n).path for n in range(len(schema))].index(column)
            for group in self.groups:
                # A reader checks what the footer says before it asks for the first byte.
                file.asked = False
                try:
                    next(opened.iter_batches(1, row_groups=[group.number], columns=[column]), None)
                except OSError:
                    if not file.asked:
                        raise
                chunk = self._metadata.row_group(group.number).column(leaf)
                told = chunk.statistics if chunk.physical_type == "BYTE_ARRAY" else None
                if told is None or not told.has_null_count:
                    return None
                total += group.rows - told.null_count
        return total

    def _groups(self) -> tuple[RowGroup, ...]:
        found: list[RowGroup] = []
        start = 0
        for number in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(number)
            rows, size = group.num_rows, group.total_byte_size
            if rows < 0 or size < 0:
                msg = f"{self.key} has a row group of {rows} rows and {size} bytes: it is damaged"
                raise BadTable(msg)
            found.append(RowGroup(number, start, rows, size))
            start += rows
        total = self._metadata.num_rows
        if start != total:
            msg = f"{self.key} claims {total} rows, and row groups of {start}: it is damaged"
            raise BadTable(msg)
        if total > MAX_ROWS:
            msg = f"{self.key} claims {total} rows, more than the limit of {MAX_ROWS}"
            raise BadTable(msg)
        return tuple(found)

    def _selected(self, columns: Sequence[str]) -> pa.Schema:
        missing = [name for name in columns if name not in self.schema.names]
        if missing:
            msg = (
                f"{self.key} lacks the column {', '.join(missing)}; it has "
                f"{', '.join(self.schema.names)[:1000]}"
            )
            raise BadTable(msg)
        repeated = [name for name in columns if self.schema.names.count(name) > 1]
        if repeated:
            msg = f"{self.key} has the column {', '.join(repeated)} more than once"
            raise BadTable(msg)
        return pa.schema([self.schema.field(name) for name in columns])

    @contextmanager
    def _reader(self, file: "_RangedFile | None" = None, **options: Any) -> Iterator[Any]:
        """What opens a reader of the object; within, the file's faults are told from the store's.

        Opened late, so that its faults are told too.
        """
        file = file or _RangedFile(self._store, self.key, self.head)

        def open_file() -> pq.ParquetFile:
            source = pa.PythonFile(file, mode="r")
            return pq.ParquetFile(
                source, metadata=self._metadata, page_checksum_verification=True, **options
            )

        try:
            yield open_file
        except BadTable:
            raise
        # What pyarrow raises on damaged input, by trial.
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
            cause = file.error
            if cause is not None and not isinstance(cause, EOFError):
                raise cause from None
            msg = f"{self.key} is not a readable parquet file: {error}"
            raise BadTable(msg) from error


class _RangedFile(io.RawIOBase):
    """An object as the file that pyarrow reads; pyarrow locks it while it reads a part.

    Attributes:
        error: What the store raised: pyarrow may put it into words of its own.
    """

    def __init__(self, store: ObjectStore, key: str, head: ObjectHead) -> None:
        self._store, self._key, self._head = store, key, head
        self._position = 0
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        position = (0, self._position, self._head.size)[whence] + offset
        if position < 0:
            msg = f"{self._key} has no byte {position}"
            raise OSError(msg)
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self._head.size - self._position, 0)
        length = left if size is None or size < 0 else min(size, left)
        start = self._position
        self._position += length
        if not length:
            return b""
        try:
            return self._store.get_range(self._key, start, length, self._head.mark)
        except Exception as error:
            self.error = error
            raise


class _FooterOnly(_RangedFile):
    """The same for whoever wants its footer checked: there is nothing to be read.

    Attributes:
        asked: Whether somebody wanted to.
    """

    asked = False

    def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002 - of the interface
        self.asked = True
        msg = f"{self._key} is not to be read now"
        raise OSError(msg)
