"""Writes a corpus of generated songs into a store, as a person would put one there.

Albums lie there in ways of their own, so that every way is walked:

* Blue, Night/Day and the edge cases: audio and MIDI in the media's columns, audio raw, in float32
  at 8 kHz; times in seconds.
* Green Season: likewise, but audio as WAV files of 16 bits at 11,025 Hz; times in SMPTE codes at 25
  frames a second.
* Rote Straßen: WAV and MIDI files by their paths; the audio's times in LRC, the MIDI's in seconds.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipfarm_assets.contracts.song_columns import DEFAULT_COLUMNS, MEDIA_COLUMNS, SegmentColumns
from clipfarm_assets.demo.songs.edge_cases import edge_rows
from clipfarm_assets.demo.songs.plan import SEED, SEGMENTS_PER_SONG, SONGS, Plan, plan_songs
from clipfarm_assets.demo.songs.rows import Row, make, row_of
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout

GROUP_ROWS: Final = 32
"""Rows of a row group of the media: what a reader has in memory."""

_TEXT: Final = (
    "segment_id", "song", "album", "label", "lyric_text", "audio_path", "midi_path", "start_smpte",
    "end_smpte", "midi_start_smpte", "midi_end_smpte", "lrc_start", "lrc_end",
)  # fmt: skip
_FLAGS: Final = ("vocals", "has_audio", "has_midi")
_NUMBERS: Final = ("audio_start", "audio_end", "midi_start", "midi_end", "fps", "offset")
_TYPES: Final[dict[str, pa.DataType]] = {
    **dict.fromkeys(_TEXT, pa.string()),
    **dict.fromkeys(_FLAGS, pa.bool_()),
    **dict.fromkeys(_NUMBERS, pa.float64()),
    "text_embedding": pa.list_(pa.float32()),
}
_MEDIA_TYPES: Final[dict[str, pa.DataType]] = dict(
    zip(MEDIA_COLUMNS, (pa.binary(), pa.int32(), pa.binary()), strict=True)
)


@dataclass(frozen=True)
class SongCorpus:
    """What was written.

    Attributes:
        plan: What its segments are; edge cases are not among them.
        rows: Of both tables.
        files: Beside the tables.
        bytes: All objects together.
        has_edge_cases: Whether the hard cases are among the rows.
    """

    plan: Plan
    rows: int
    files: int
    bytes: int
    has_edge_cases: bool


def make_songs(
    store: ObjectStore,
    layout: SongLayout,
    songs: int = SONGS,
    segments_per_song: int = SEGMENTS_PER_SONG,
    seed: int = SEED,
    *,
    edge_cases: bool = False,
    columns: SegmentColumns = DEFAULT_COLUMNS,
    say: Say = silent,
) -> SongCorpus:
    """Compose and write a corpus. The same arguments give the same bytes, on one build of pyarrow.

    Args:
        store: Where to; objects of the same keys are replaced.
        layout: Names the keys.
        songs: How many; see `plan_songs`.
        segments_per_song: Likewise.
        seed: Of every random choice.
        edge_cases: Whether the hard cases are written too; their rows come last.
        columns: What the columns are called.
        say: Told how far it is.

    Raises:
        ValueError: See `plan_songs`.
    """
    plan = plan_songs(songs, segments_per_song, seed)
    progress = Progress("segments of songs", len(plan.segments), say)
    metadata = _Table(columns, {})
    media = _Table(columns, _MEDIA_TYPES)
    files, size = 0, 0
    for rows in _groups(_rows(plan, progress, edge_cases=edge_cases)):
        metadata.add(rows)
        media.add(rows)
        for row in rows:
            for path, data in row.files.items():
                store.put(layout.file(path), data)
                files, size = files + 1, size + len(data)
    # The metadata last: whoever sees a row finds its media.
    for key, table in ((layout.media(), media), (layout.metadata(), metadata)):
        data = table.parquet()
        store.put(key, data)
        size += len(data)
    return SongCorpus(plan, metadata.rows, files, size, edge_cases)


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    waiting: list[Row] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == GROUP_ROWS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _rows(plan: Plan, progress: Progress, *, edge_cases: bool) -> Iterator[Row]:
    for segment in plan.segments:
        yield row_of(make(segment, plan.seed), plan.seed)
        progress.step()
    if edge_cases:
        yield from edge_rows(plan.seed)


class _Table:
    """A parquet file in the making, a row group a call."""

    def __init__(self, columns: SegmentColumns, more: Mapping[str, pa.DataType]) -> None:
        names = {**columns.model_dump(), **{name: name for name in more}}
        self._types = {**_TYPES, **more}
        self._schema = pa.schema([(names[name], kind) for name, kind in self._types.items()])
        self._file = io.BytesIO()
        self._writer = pq.ParquetWriter(
            self._file, self._schema, compression="zstd", write_page_checksum=True, version="2.6"
        )
        self.rows = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Write a row group."""
        arrays = [
            pa.array([_plain(row.values.get(name)) for row in rows], kind)
            for name, kind in self._types.items()
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), len(rows))
        self.rows += len(rows)

    def parquet(self) -> bytes:
        """The file; nothing can be added any more."""
        self._writer.close()
        return self._file.getvalue()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
