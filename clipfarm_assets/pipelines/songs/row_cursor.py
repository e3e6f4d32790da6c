"""Values of one row of a large parquet file, read on from the row that was asked for last."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from clipfarm_assets.contracts.song_segments import Segment
from clipfarm_assets.storage.parquet_rows import ParquetRows, RowGroup
from clipfarm_assets.storage.tables import BadTable

_PIECE_BYTES: Final = 8 << 20
_SHOWN: Final = 200


class RowsOutOfStep(RuntimeError):  # noqa: N818 - a state of the world
    """A file has other rows than the metadata that segments were read from."""


class RowCursor:
    """Columns of segments' rows; some megabytes of them are held.

    Asking in the order of the rows reads each row group once. A row before the piece that is held
    costs reading its row group again, up to there.
    """

    def __init__(self, rows: ParquetRows, segment_id: str, columns: Sequence[str]) -> None:
        """Take a file.

        Args:
            rows: The file.
            segment_id: Its column of ids, which are compared.
            columns: What is going to be asked for.
        """
        self._rows, self._id, self._columns = rows, segment_id, tuple(columns)
        self._pieces: Iterator[pa.RecordBatch] = iter(())
        self._piece: pa.RecordBatch | None = None
        self._group: RowGroup | None = None
        self._start = self._stop = 0

    def values(self, segment: Segment) -> dict[str, Any]:
        """The segment's values as Python objects, by column.

        Raises:
            RowsOutOfStep: Its row is another segment's, or not there.
            BadTable, ObjectChanged: The file can't be read, or was written again.
        """
        piece, place = self._find(segment)
        return {name: piece[name][place].as_py() for name in self._columns}

    def scalar(self, segment: Segment, column: str) -> pa.Scalar:
        """One value as pyarrow has it; raises as `values`."""
        piece, place = self._find(segment)
        return piece[column][place]

    def _find(self, segment: Segment) -> tuple[pa.RecordBatch, int]:
        if not 0 <= segment.row < self._rows.rows:
            raise self._out_of_step(segment, f"{self._rows.rows} rows")
        if not self._start <= segment.row < self._stop:
            self._seek(segment.row)
        piece, place = self._piece, segment.row - self._start
        if piece is None:
            msg = f"{self._rows.key} ends before its row {segment.row}: it is damaged"
            raise BadTable(msg)
        found = str(piece[self._id][place].as_py())
        if found != segment.id:
            raise self._out_of_step(segment, f"{found!r:.{_SHOWN}} there")
        return piece, place

    def _seek(self, row: int) -> None:
        group = self._rows.group_of(row)
        if group != self._group or row < self._start:
            piece_rows = max(1, group.rows * _PIECE_BYTES // max(group.size, 1))
            self._pieces = self._rows.stream(group.number, [self._id, *self._columns], piece_rows)
            self._group, self._start, self._stop = group, group.start, group.start
        while row >= self._stop:
            self._piece = None  # let go before the next one is read
            self._piece = next(self._pieces, None)
            if self._piece is None:
                self._group = None
                return
            self._start, self._stop = self._stop, self._stop + self._piece.num_rows

    def _out_of_step(self, segment: Segment, found: str) -> RowsOutOfStep:
        msg = (
            f"{self._rows.key} must have segment {segment.id!r} in row {segment.row}, as the "
            f"metadata has: found {found}; write both files from the same rows"
        )
        return RowsOutOfStep(msg)
