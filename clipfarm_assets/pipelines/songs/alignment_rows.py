"""What is on record of the alignment of segments, and what follows for who uses them."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import pyarrow as pa

from clipfarm_assets.contracts.song_segments import Segment
from clipfarm_assets.encoders.waveforms.heard_offset import HEARD_VERSION
from clipfarm_assets.encoders.waveforms.prepare import PREPROCESS_VERSION
from clipfarm_assets.pipelines.songs.alignment_rule import AlignmentVerdict, CorrectionSource
from clipfarm_assets.pipelines.songs.feature_files import media_version
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.storage.tables import BadTable, parquet_to_table, table_to_parquet
from clipfarm_assets.training.song_preprocessing_config import (
    AlignmentConfig,
    PreprocessingConfig,
)

_SETTINGS_KEY: Final = "clipfarm.alignment"
_MEDIA_KEY: Final = "clipfarm.media"
_REMEDY: Final = "materialise songs/alignment"
_RECIPE: Final = ("alignment-2", HEARD_VERSION, PREPROCESS_VERSION)
"""Raise the first where the same segment comes to have another row."""

SCHEMA: Final = pa.schema(
    [
        pa.field("segment_id", pa.string(), nullable=False),
        pa.field("album", pa.string(), nullable=False),
        pa.field("start_difference", pa.float64()),
        pa.field("end_difference", pa.float64()),
        pa.field("within_tolerance", pa.bool_()),
        pa.field("heard_offset", pa.float64()),
        pa.field("z", pa.float64()),
        pa.field("is_heard", pa.bool_(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("correction", pa.float64(), nullable=False),
        pa.field("correction_source", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("problem", pa.string()),
        pa.field("declared", pa.string(), nullable=False),
        pa.field("made_of", pa.string(), nullable=False),
    ]
)


class NoAlignment(FileNotFoundError):  # noqa: N818 - a state of the store
    """An album's alignment was not checked yet, or of other media, metadata or settings."""


class BadAlignment(ValueError):  # noqa: N818
    """What is stored contradicts itself: a structural fault that stops the run."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A segment's row.

    Attributes:
        segment_id: Of which.
        album: Of which that is.
        start_difference: Seconds by which the MIDI's span starts after the audio's; None if the
            timestamps do not say.
        end_difference: Likewise of the ends.
        within_tolerance: Whether both are small enough; None if the timestamps do not say.
        heard_offset: Seconds by which the notes were heard to be late, by the best lag; None where
            there was too little to hear.
        z: How far that lag stands out; None likewise.
        is_heard: Whether it does so far enough to be believed.
        verdict: See `alignment_rule`.
        correction: Seconds to add to the times of the MIDI's notes.
        correction_source: Which of the metadata it is from; None for no correction.
        reason: A sentence.
        problem: A word for what is wrong with its media; None for nothing.
        declared: Hash of what the metadata said of it; see `declared_of`.
        made_of: Hash of all that decides the row.
    """

    segment_id: str
    album: str
    start_difference: float | None
    end_difference: float | None
    within_tolerance: bool | None
    heard_offset: float | None
    z: float | None
    is_heard: bool
    verdict: AlignmentVerdict
    correction: float
    correction_source: CorrectionSource | None
    reason: str
    problem: str | None
    declared: str
    made_of: str

    @property
    def is_misaligned(self) -> bool:
        """Whether audio and MIDI are of different moments, and nothing mends it."""
        return self.verdict == "misaligned"


@dataclass(frozen=True)
class AlignmentUse:
    """What follows for segments.

    Attributes:
        kept: Those to be used, in their order.
        excluded: Ids of misaligned ones that are left out, as the settings want.
        flagged: Ids of misaligned ones that are used nevertheless.
        corrections: Id -> seconds to add to the times of its MIDI's notes, where not 0.
    """

    kept: Sequence[Segment]
    excluded: Sequence[str] = ()
    flagged: Sequence[str] = ()
    corrections: Mapping[str, float] = field(default_factory=dict)


def deciding(settings: PreprocessingConfig) -> dict[str, object]:
    """What rows follow from beside media and metadata; leaving some out does not change them."""
    return {
        **settings.alignment.model_dump(mode="json", exclude={"exclude_misaligned"}),
        "seconds": settings.audio.seconds,
        "stored_dtype": settings.audio.stored_dtype,
        "recipe": list(_RECIPE),
    }


def declared_of(segment: Segment) -> str:
    """Hash of all that the metadata says of a segment and that its row follows from."""
    fields = [
        segment.album,
        [segment.has_audio, segment.has_midi],
        [segment.audio_path, segment.midi_path],
        [segment.audio_span, segment.midi_span, segment.is_smpte],
        segment.offset,
    ]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def rows_to_parquet(rows: Iterable[Aligned], settings: PreprocessingConfig, media: str) -> bytes:
    """An album's object; equal rows of one media file give equal bytes.

    Args:
        rows: Of all its segments.
        settings: What they were made with.
        media: The `media_version` of the file they were made of.
    """
    table = pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA)
    return table_to_parquet(table, {_SETTINGS_KEY: _told(settings), _MEDIA_KEY: media})


def rows_from_parquet(data: bytes) -> tuple[list[Aligned], Mapping[bytes, bytes]]:
    """An album's rows, and the object's key-values.

    Raises:
        BadTable: Not what `rows_to_parquet` gives.
    """
    table = parquet_to_table(data, SCHEMA)
    return [Aligned(**row) for row in table.to_pylist()], table.schema.metadata or {}


def read_alignment(
    store: ObjectStore,
    layout: SongLayout,
    albums: Iterable[str] | None = None,
    settings: PreprocessingConfig | None = None,
    media: ParquetRows | None = None,
) -> dict[str, Aligned]:
    """Id -> row.

    Args:
        store: Where they are.
        layout: Where there.
        albums: Which; by default all that there are.
        settings: What they have to be made with, and of `media`; by default whatever.
        media: The media file, if it is open; by default the one that there is now.

    Raises:
        NoAlignment: An album has none, it was made with other settings or of other media, or there
            is no media.
        BadAlignment: A segment is of two albums: one of them is of earlier metadata.
        BadTable: An object, or the media file, is no such parquet.
    """
    if albums is None:
        prefix = layout.alignment_prefix()
        keys = [info.key for info in store.list(prefix) if info.key.endswith(".parquet")]
    else:
        keys = sorted({layout.alignment(album) for album in albums})
    expected: dict[str, str] = {}
    if keys and settings is not None:
        try:
            version = media_version(media or ParquetRows.open(store, layout.media()))
        except FileNotFoundError as error:
            msg = f"{error}: put the media of segments there, and {_REMEDY}"
            raise NoAlignment(msg) from None
        expected = {_SETTINGS_KEY: _told(settings), _MEDIA_KEY: version}
    found: dict[str, Aligned] = {}
    for key in keys:
        for row in _read(store, key, expected):
            before = found.setdefault(row.segment_id, row)
            if before is not row:
                msg = (
                    f"segment {row.segment_id!r} must be of one album: {key} has it as of "
                    f"{row.album!r}, {layout.alignment(before.album)} as of {before.album!r}; "
                    f"delete both and {_REMEDY} of the albums there are"
                )
                raise BadAlignment(msg)
    return found


def use_alignment(
    segments: Iterable[Segment], alignment: Mapping[str, Aligned], settings: AlignmentConfig
) -> AlignmentUse:
    """Leave misaligned segments out if the settings want it, and flag them if not.

    Of segments that have not both audio and MIDI no row is looked at.

    Args:
        segments: Whose.
        alignment: As `read_alignment` gives it.
        settings: Say what is to become of misaligned segments.

    Raises:
        NoAlignment: A segment with audio and MIDI has no row, or one of other metadata.
    """
    kept: list[Segment] = []
    misaligned: list[str] = []
    corrections: dict[str, float] = {}
    for segment in segments:
        row = _row_of(segment, alignment)
        if row is not None and row.is_misaligned:
            misaligned.append(segment.id)
            if settings.exclude_misaligned:
                continue
        if row is not None and row.correction:
            corrections[segment.id] = row.correction
        kept.append(segment)
    left_out = settings.exclude_misaligned
    return AlignmentUse(
        kept=kept,
        excluded=misaligned if left_out else (),
        flagged=() if left_out else misaligned,
        corrections=corrections,
    )


def _row_of(segment: Segment, alignment: Mapping[str, Aligned]) -> Aligned | None:
    """The row of a pair, as the metadata says now; raises `NoAlignment`."""
    if not (segment.has_audio and segment.has_midi):
        return None
    row = alignment.get(segment.id)
    if row is None or row.declared != declared_of(segment):
        found = "it was not" if row is None else "the metadata said otherwise of it then"
        msg = (
            f"segment {segment.id!r} of the album {segment.album!r} must have been checked for "
            f"alignment: {found}; {_REMEDY} of the album"
        )
        raise NoAlignment(msg)
    return row


def _told(settings: PreprocessingConfig) -> str:
    return json.dumps(deciding(settings), sort_keys=True)


def _read(store: ObjectStore, key: str, expected: Mapping[str, str]) -> list[Aligned]:
    """An album's rows, if the object has the key-values expected of it."""
    try:
        rows, found = rows_from_parquet(store.get(key))
    except FileNotFoundError as error:
        msg = f"{error}; {_REMEDY} of that album"
        raise NoAlignment(msg) from None
    except BadTable as error:
        msg = f"{key}: {error}; delete it, and {_REMEDY} of its album"
        raise BadTable(msg) from error
    other = [name for name, told in expected.items() if found.get(name.encode()) != told.encode()]
    if other:
        what = "with other settings" if _SETTINGS_KEY in other else "of other media"
        msg = f"{key} was made {what} than those of now: {_REMEDY} of its album again"
        raise NoAlignment(msg)
    return rows
