"""The segments, out of the metadata alone; and of the media what can be known without reading it.

``training_segments_metadata.parquet`` is small and read whole, but for columns that are nobody's
here. ``training_segments_media.parquet`` may have any size: only its footer is read, and for the
comparison of rows its columns that are not binary.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.song_columns import blocks_agree, other_number_of_rows
from clipfarm_assets.contracts.song_segments import (
    DEFAULT_COLUMNS,
    MEDIA_COLUMNS,
    Coverage,
    Segment,
    SegmentColumns,
    check_media,
    check_metadata,
    coverage,
    segments_of,
)
from clipfarm_assets.pipelines.problems import ProblemCounts
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.storage.tables import BadTable

_BINARY: Final = (MEDIA_COLUMNS[0], MEDIA_COLUMNS[2])

LARGE_GROUP_BYTES: Final = 512 << 20
"""Row groups beyond this cost a reader much memory, unless it reads them in order."""

_AT_ONCE_BYTES: Final = 64 << 20
_PIECE_ROWS: Final = 1024


class NoSegments(FileNotFoundError):  # noqa: N818 - a state of the store
    """The store has no file of segments where it is looked for."""


@dataclass(frozen=True)
class SegmentReport:
    """What the metadata says.

    Attributes:
        segments: In the order of the rows, with different ids.
        rows: Of the file.
        columns: How many the file has.
        schema: Whether it has the columns that segments need, and none that it should not.
        problems: With rows, by kind.
        left_out: Rows that are no segment.
        coverage: Which modalities it says there are.
        albums: Album -> segments, sorted by name.
        songs: How many there are.
        labels: Label -> segments, sorted; segments without one are not there.
    """

    segments: Sequence[Segment]
    rows: int
    columns: int
    schema: Verdict
    problems: ProblemCounts
    left_out: int
    coverage: Coverage
    albums: Mapping[str, int]
    songs: int
    labels: Mapping[str, int]

    def of_album(self, album: str) -> list[Segment]:
        """The segments of an album.

        Raises:
            ValueError: There are none.
        """
        found = [segment for segment in self.segments if segment.album == album]
        if not found:
            msg = f"no segment is of the album {album!r:.100}: the metadata has {len(self.albums)}"
            raise ValueError(msg)
        return found


@dataclass(frozen=True)
class MetadataReport(SegmentReport):
    """The same, and which file it is of.

    Attributes:
        data_version: Sha256 of the file.
    """

    data_version: str


@dataclass(frozen=True)
class MediaReport:
    """What the footer of the media says.

    Attributes:
        rows: Of the file.
        row_groups: How many.
        size: Of the file, in bytes.
        largest_group: Bytes of the largest row group before it was compressed.
        stored: Column -> rows that have a value in it, of the binary ones of `MEDIA_COLUMNS`; those
            whose writer did not count are not there.
        schema: Whether it has the metadata's columns and `MEDIA_COLUMNS`, and as many rows.
        notes: What a person should know, in sentences.
        data_version: Another one whenever the file is written again. Of its rows nothing is read:
            a file written with equal bytes has another one too.
    """

    rows: int
    row_groups: int
    size: int
    largest_group: int
    stored: Mapping[str, int]
    schema: Verdict
    notes: Sequence[str]
    data_version: str


def read_segments(
    store: ObjectStore, layout: SongLayout, columns: SegmentColumns = DEFAULT_COLUMNS
) -> SegmentReport:
    """Read the metadata, but for the columns that are nobody's here; never the media.

    Raises:
        NoSegments: There is none; says where it was looked for.
        BadTable: It is no parquet file.
        BadSegments: It lacks columns that segments need, or they are of other types.
    """
    return _report(_opened(store, layout, layout.metadata()), columns)


def observe_metadata(
    store: ObjectStore, layout: SongLayout, columns: SegmentColumns = DEFAULT_COLUMNS
) -> MetadataReport:
    """Look at the metadata as a source: as `read_segments`, and at all of its bytes."""
    rows = _opened(store, layout, layout.metadata())
    report = _report(rows, columns)
    return MetadataReport(**vars(report), data_version=rows.sha256())


def _report(rows: ParquetRows, columns: SegmentColumns) -> SegmentReport:
    table = rows.table(columns.readable(rows.schema))
    try:
        table.validate(full=True)  # or words that are no Unicode stop who reads them
    except (pa.ArrowException, UnicodeDecodeError) as error:
        msg = f"{rows.key} is not a readable parquet file: {error}"
        raise BadTable(msg) from error
    segments, problems = segments_of(table, columns)
    albums = Counter(segment.album for segment in segments)
    labels = Counter(segment.label for segment in segments if segment.label is not None)
    return SegmentReport(
        segments=segments,
        rows=rows.rows,
        columns=len(rows.schema),
        schema=check_metadata(rows.schema, columns),
        problems=ProblemCounts.of(problems),
        left_out=sum(problem.leaves_out for problem in problems),
        coverage=coverage(segments),
        albums=dict(sorted(albums.items())),
        songs=len({segment.song for segment in segments}),
        labels=dict(sorted(labels.items())),
    )


def observe_media(
    store: ObjectStore, layout: SongLayout, columns: SegmentColumns = DEFAULT_COLUMNS
) -> MediaReport:
    """Look at the media as a source: at its footer and the metadata's, at no row.

    Raises:
        NoSegments: One of the two files is not there.
        BadTable: It is no parquet file.
    """
    media, metadata = (
        _opened(store, layout, layout.media()),
        _opened(store, layout, layout.metadata()),
    )
    verdict = check_media(media.schema, metadata.schema, columns)
    if media.rows != metadata.rows:
        problem = f"the metadata has {metadata.rows} rows, the media {media.rows}"
        verdict = Verdict(
            (*verdict.findings, Finding("rows", problem)), verdict.examined, verdict.facts
        )
    largest = max((group.size for group in media.groups), default=0)
    stored = {name: media.values_of(name) for name in _BINARY if name in media.schema.names}
    version = f"{media.head.size} {media.head.mark} {media.footer_sha256}"
    return MediaReport(
        rows=media.rows,
        row_groups=len(media.groups),
        size=media.head.size,
        largest_group=largest,
        stored={name: count for name, count in stored.items() if count is not None},
        schema=verdict,
        notes=tuple(_notes(largest)),
        data_version=hashlib.sha256(version.encode()).hexdigest(),
    )


def compare_rows(
    store: ObjectStore, layout: SongLayout, columns: SegmentColumns = DEFAULT_COLUMNS
) -> Verdict:
    """Whether the media has the metadata's rows, with the same values in all of its columns.

    Both are read but for `MEDIA_COLUMNS`; in memory there are a row group or some rows of each.

    Raises:
        NoSegments, BadTable: As `observe_media`.
        BadTable: A column cannot be compared, because a file has it twice.
    """
    media, metadata = (
        _opened(store, layout, layout.media()),
        _opened(store, layout, layout.metadata()),
    )
    names = [name for name in metadata.schema.names if name not in MEDIA_COLUMNS]
    if columns.segment_id not in names or columns.segment_id not in media.schema.names:
        problem = "expected the column of ids in both files"
        return Verdict((Finding(columns.segment_id, problem),), metadata.rows)
    shared = [name for name in names if name in media.schema.names]
    if media.rows != metadata.rows:
        return other_number_of_rows(metadata.rows, media.rows, len(names))
    blocks = _side_by_side(_blocks(metadata, names), _blocks(media, shared))
    return blocks_agree(blocks, names, shared, columns)


def _blocks(rows: ParquetRows, names: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of all rows, in order: with few requests where groups are small, else in pieces."""
    for group in rows.groups:
        if group.size <= _AT_ONCE_BYTES:
            yield rows.table(names, [group.number])
        else:
            for piece in rows.stream(group.number, names, _PIECE_ROWS):
                yield pa.Table.from_batches([piece])


def _side_by_side(
    left: Iterator[pa.Table], right: Iterator[pa.Table]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The same rows of both, wherever the blocks of either end."""
    a, b = next(left, None), next(right, None)
    while a is not None and b is not None:
        both = min(len(a), len(b))
        yield a.slice(0, both), b.slice(0, both)
        a = a.slice(both) if len(a) > both else next(left, None)
        b = b.slice(both) if len(b) > both else next(right, None)


def _opened(store: ObjectStore, layout: SongLayout, key: str) -> ParquetRows:
    try:
        return ParquetRows.open(store, key)
    except FileNotFoundError:
        raise NoSegments(_not_there(store, layout, key)) from None


def _not_there(store: ObjectStore, layout: SongLayout, key: str) -> str:
    first = next(iter(store.list(f"{layout.prefix}/")), None)
    there = f"but other objects, such as {first.key}" if first else "and holds nothing of ours"
    return (
        f"the store {store.url} must hold segments of songs at {key}: it does not, {there}; put "
        "the parquet file there, or set the layout's keys to where it is"
    )


def _notes(largest: int) -> list[str]:
    if largest <= LARGE_GROUP_BYTES:
        return []
    note = (
        f"the largest row group of the media holds {largest >> 20} MiB: write it, and its pages, "
        f"smaller than {LARGE_GROUP_BYTES >> 20} MiB, as a reader may have to hold one of them"
    )
    return [note]
