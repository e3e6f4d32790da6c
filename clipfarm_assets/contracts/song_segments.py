"""Segments of songs out of the metadata's rows, and everything that is wrong with them.

A row that names no segment, song or album, or one that an earlier row names, is left out; what of a
row is not understood is not used: each with a `SegmentProblem`.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.song_columns import (
    DEFAULT_COLUMNS,
    MEDIA_COLUMNS,
    MODALITIES,
    Modality,
    SegmentColumns,
    check_media,
    check_metadata,
    check_name,
    rows_agree,
)
from clipfarm_assets.contracts.song_spans import Note, Span, spans_of

__all__ = [
    "DEFAULT_COLUMNS",
    "LEFT_OUT",
    "MEDIA_COLUMNS",
    "MODALITIES",
    "BadSegments",
    "Coverage",
    "Modality",
    "Segment",
    "SegmentColumns",
    "SegmentProblem",
    "check_media",
    "check_metadata",
    "coverage",
    "coverage_by_album",
    "rows_agree",
    "segments_of",
    "shares_hold",
]

LEFT_OUT: Final = frozenset(
    {
        "missing_id", "bad_id", "duplicate_id", "missing_song", "bad_song", "missing_album",
        "bad_album",
    }
)  # fmt: skip
"""Problems for which a row is no segment."""

_BATCH: Final = 4096


class BadSegments(ValueError):  # noqa: N818 - reads better where it is raised
    """Not a table of segments: a structural fault that stops the run."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a song.

    Attributes:
        id: Names it.
        song: The song it is of.
        album: The album it is of.
        label: Its class; None if it has none, so that it can be no example.
        lyric_text: Its words as they are in the file; may be empty.
        vocals: Whether somebody sings.
        has_audio: Whether the file says that there is audio.
        has_midi: Whether the file says that there is MIDI.
        audio_path: Where its audio is if not in the media file; as written, so not to be trusted.
        midi_path: Where its MIDI is, likewise.
        audio_span: Where its audio begins and ends, in seconds; None if the file doesn't say both.
        midi_span: Where its MIDI begins and ends, on the clock of `audio_span` if there is one.
        offset: Seconds that the MIDI is late; None if nobody measured it.
        row: Its row in both files, from 0.
        is_smpte: Whether its spans are on the clock of SMPTE codes, and not seconds of the song.
    """

    id: str
    song: str
    album: str
    label: str | None
    lyric_text: str
    vocals: bool
    has_audio: bool
    has_midi: bool
    audio_path: str | None
    midi_path: str | None
    audio_span: Span | None
    midi_span: Span | None
    offset: float | None
    row: int
    is_smpte: bool = False

    @property
    def has_text(self) -> bool:
        """Whether it has words: somebody sings, and what is not blank."""
        return self.vocals and bool(self.lyric_text.strip())

    def declares(self, modality: Modality) -> bool:
        """Whether it has the modality, as far as the metadata says."""
        declared = {"text": self.has_text, "audio": self.has_audio, "midi": self.has_midi}
        return declared[modality]


@dataclass(frozen=True, slots=True)
class SegmentProblem:
    """Something about a row that a person should know.

    Attributes:
        kind: One word for it: one of `LEFT_OUT`, or another, where the row is a segment, but a part
            of it is not used or doubtful.
        where: The row, and the id if there is one.
        detail: What was expected and found.
    """

    kind: str
    where: str
    detail: str

    @property
    def leaves_out(self) -> bool:
        """Whether the row is no segment because of it."""
        return self.kind in LEFT_OUT


def segments_of(
    table: pa.Table, columns: SegmentColumns = DEFAULT_COLUMNS
) -> tuple[list[Segment], list[SegmentProblem]]:
    """Read the segments, in the order of the rows. Of rows with one id the first stays.

    Args:
        table: The metadata, from its first row on; the columns `SegmentColumns.readable` are
            enough.
        columns: What they are called.

    Returns:
        Segments with different ids; and the problems.

    Raises:
        BadSegments: `check_metadata` doesn't hold.
    """
    verdict = check_metadata(table.schema, columns)
    if not verdict.holds:
        msg = (
            f"the metadata must have the columns of segments: {verdict.summary()}; correct the "
            "file, or say in the settings what its columns are called"
        )
        raise BadSegments(msg)
    reader = _Reader(columns)
    segments: list[Segment] = []
    rows = 0
    for batch in table.select(columns.readable(table.schema)).to_batches(_BATCH):
        for body in batch.to_pylist():
            try:
                segments.append(reader.segment(rows, body))
            except _NoSegment as error:
                reader.problems.append(error.problem)
            rows += 1
    return segments, reader.problems


class _NoSegment(Exception):  # noqa: N818 - what a row turns out to be, told by its problem
    def __init__(self, kind: str, where: str, detail: str) -> None:
        super().__init__(kind)
        self.problem = SegmentProblem(kind, where, detail)


class _Reader:
    """Reads rows, and keeps what is wrong with them."""

    def __init__(self, columns: SegmentColumns) -> None:
        self._names: Mapping[str, str] = columns.model_dump()
        self._ids: set[str] = set()
        self.problems: list[SegmentProblem] = []

    def segment(self, row: int, body: Mapping[str, Any]) -> Segment:
        """One row's segment; raises `_NoSegment`."""
        found = {field: body.get(name) for field, name in self._names.items()}
        where = f"row {row}"
        segment_id = _name(where, found["segment_id"], "id", self._names["segment_id"])
        where = f"{where}, id {segment_id}"
        if segment_id in self._ids:
            detail = "an earlier row has this id; that one is used"
            raise _NoSegment("duplicate_id", where, detail)
        song = _name(where, found["song"], "song", self._names["song"])
        album = _name(where, found["album"], "album", self._names["album"])
        self._ids.add(segment_id)

        def note(kind: str, detail: str) -> None:
            self.problems.append(SegmentProblem(kind, where, detail))

        audio_span, midi_span, is_smpte = spans_of(found, self._names, note)
        return Segment(
            id=segment_id,
            song=song,
            album=album,
            label=self._label(found, note),
            lyric_text=found["lyric_text"] or "",
            vocals=self._flag(found, "vocals", note, unknown=True),
            has_audio=self._flag(found, "has_audio", note, unknown=False),
            has_midi=self._flag(found, "has_midi", note, unknown=False),
            audio_path=found["audio_path"] or None,
            midi_path=found["midi_path"] or None,
            audio_span=audio_span,
            midi_span=midi_span,
            offset=self._offset(found, note),
            row=row,
            is_smpte=is_smpte,
        )

    def _label(self, found: Mapping[str, Any], note: Note) -> str | None:
        label = "" if found["label"] is None else str(found["label"])
        if not label.strip():
            note("missing_label", f"{self._names['label']} is empty")
            return None
        return label

    def _flag(self, found: Mapping[str, Any], field: str, note: Note, *, unknown: bool) -> bool:
        """A flag. Unknown vocals leave it to the words; media nobody speaks of are not there."""
        if found[field] is None:
            note("missing_flag", f"{self._names[field]} is null: taken for {str(unknown).lower()}")
            return unknown
        return bool(found[field])

    def _offset(self, found: Mapping[str, Any], note: Note) -> float | None:
        seconds = found["offset"]
        if seconds is None:
            return None
        if not math.isfinite(seconds):
            note("bad_offset", f"{self._names['offset']} must be seconds: found {seconds}")
            return None
        return float(seconds)


def _name(where: str, found: Any, what: str, column: str) -> str:
    if found is None or found == "":
        raise _NoSegment(f"missing_{what}", where, f"{column} is empty")
    try:
        return check_name(str(found), what)
    except ValueError as error:
        raise _NoSegment(f"bad_{what}", where, str(error)) from None


@dataclass(frozen=True)
class Coverage:
    """Which modalities segments have, as far as the metadata says.

    Attributes:
        segments: How many there are.
        present: Modality -> segments that have it.
    """

    segments: int
    present: Mapping[Modality, int]

    def share(self, modality: Modality) -> float:
        """Share of the segments that have it; 0 if there are no segments."""
        return self.present[modality] / self.segments if self.segments else 0.0


def coverage(segments: Collection[Segment]) -> Coverage:
    """Count modalities."""
    present = {m: sum(segment.declares(m) for segment in segments) for m in MODALITIES}
    return Coverage(len(segments), present)


def coverage_by_album(segments: Iterable[Segment]) -> dict[str, Coverage]:
    """`coverage` of every album, sorted by name."""
    albums: dict[str, list[Segment]] = {}
    for segment in segments:
        albums.setdefault(segment.album, []).append(segment)
    return {album: coverage(inside) for album, inside in sorted(albums.items())}


def shares_hold(
    found: Coverage, shares: Mapping[Modality, float], tolerance: float = 0.05
) -> Verdict:
    """Modalities are present in the declared shares of the segments.

    Args:
        found: What there is.
        shares: Modality -> share of segments that should have it, such as 0.43.
        tolerance: How far off a share may be, either way.
    """
    findings = [
        Finding(modality, f"expected {share:.1%} of segments, found {found.share(modality):.1%}")
        for modality, share in shares.items()
        if abs(found.share(modality) - share) > tolerance
    ]
    facts = {f"share/{modality}": round(found.share(modality), 4) for modality in MODALITIES}
    return Verdict(tuple(findings), found.segments, facts)
