"""Audio and MIDI of segments: from the media file, else from the file that a path names, else none.

The media file is read in the order of its rows, some megabytes at a time; a row that lies before
the one read last costs reading its row group again. Paths are what strangers wrote: they lead to
objects below the layout's folder of files, or into folders of this machine that the settings name,
and nowhere else. What came from where is counted, and so is what was refused.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from clipfarm_assets.contracts.song_segments import (
    DEFAULT_COLUMNS,
    MEDIA_COLUMNS,
    Segment,
    SegmentColumns,
    SegmentProblem,
)
from clipfarm_assets.encoders.waveforms.prepare import file_kind
from clipfarm_assets.pipelines.problems import SAMPLES, ProblemCounts
from clipfarm_assets.pipelines.songs.row_cursor import RowCursor
from clipfarm_assets.pipelines.songs.segments import NoSegments
from clipfarm_assets.storage.objects import ObjectChanged, ObjectStore, OutsideStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.storage.tables import BadTable

MediaModality = Literal["audio", "midi"]
Source = Literal["parquet", "store", "disk", "undeclared", "absent"]
"""``undeclared`` is what the metadata says there is none of, and is not looked for; ``absent`` what
it says there is, and nobody has."""

MAX_FILE_BYTES: Final = 1 << 30
"""Most bytes of a file that a path names."""

_WAVEFORM, _RATE, _MIDI = MEDIA_COLUMNS
_COLUMNS: Final[Mapping[MediaModality, tuple[str, ...]]] = {
    "audio": (_WAVEFORM, _RATE),
    "midi": (_MIDI,),
}
_SHOWN: Final = 200
_LONGEST_PATH: Final = 4096
_FAULTS_OF_PATHS: Final = frozenset(
    # The last is what opening a socket gives.
    {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENXIO}
)


@dataclass(frozen=True, slots=True)
class RawAudio:
    """Audio as it is stored.

    Attributes:
        data: Raw samples, or a file's bytes.
        rate: Of raw samples, in Hz; None for files, and where the media does not say.
        source: Where it is from.
    """

    data: bytes
    rate: int | None
    source: Source


@dataclass(frozen=True, slots=True)
class SegmentMedia:
    """What a segment has."""

    segment: Segment
    audio: RawAudio | None
    midi: bytes | None


@dataclass
class MediaCounts:
    """What was asked for, by where it came from; each asking counts.

    Attributes:
        sources: Modality -> source -> how often.
        problems: Why something that should be there is not, the first few a kind.
        kinds: Kind of problem -> how often.
    """

    sources: dict[MediaModality, Counter[Source]] = field(
        default_factory=lambda: {"audio": Counter(), "midi": Counter()}
    )
    problems: list[SegmentProblem] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, segment: Segment, detail: str) -> None:
        """Count a problem."""
        self.kinds[kind] += 1
        if self.kinds[kind] <= SAMPLES:
            self.problems.append(SegmentProblem(kind, f"id {segment.id}", detail))

    def counted(self) -> ProblemCounts:
        """All problems by kind, with the first few in words."""
        samples = ProblemCounts.of(self.problems).samples
        return ProblemCounts(dict(sorted(self.kinds.items())), samples)


class Media:
    """Audio and MIDI of segments, read as they are asked for. Not for several threads at once.

    Attributes:
        rows: The media file.
        counts: Of all that was asked for.
    """

    def __init__(
        self,
        store: ObjectStore,
        layout: SongLayout,
        rows: ParquetRows,
        columns: SegmentColumns,
        modalities: Sequence[MediaModality],
        folders: Sequence[Path],
        counts: MediaCounts,
    ) -> None:
        """See `open_media`."""
        self.rows = rows
        self.counts = counts
        self._store, self._layout = store, layout
        self._folders = tuple(os.path.realpath(folder) for folder in folders)
        # One for each: who asks for MIDI alone reads no audio.
        self._cursors = {
            modality: RowCursor(rows, columns.segment_id, _COLUMNS[modality])
            for modality in modalities
        }

    def audio(self, segment: Segment) -> RawAudio | None:
        """The segment's audio; None if it has none.

        Raises:
            RowsOutOfStep: Its row is another segment's.
            BadTable, ObjectChanged: The media can't be read, or was written again.
            OSError: This machine could not read the file that its path leads to.
            ValueError: The media was opened without audio.
        """
        self._check("audio")
        if not segment.has_audio:
            self.counts.sources["audio"]["undeclared"] += 1
            return None
        row = self._cursors["audio"].values(segment)
        if row[_WAVEFORM]:
            self.counts.sources["audio"]["parquet"] += 1
            return RawAudio(row[_WAVEFORM], self._rate(segment, row), "parquet")
        found = self._file(segment, "audio", segment.audio_path)
        return None if found is None else RawAudio(found[0], None, found[1])

    def midi(self, segment: Segment) -> bytes | None:
        """The bytes of the segment's MIDI file; None if it has none. Raises as `audio`."""
        self._check("midi")
        if not segment.has_midi:
            self.counts.sources["midi"]["undeclared"] += 1
            return None
        row = self._cursors["midi"].values(segment)
        if row[_MIDI]:
            self.counts.sources["midi"]["parquet"] += 1
            data: bytes = row[_MIDI]
            return data
        found = self._file(segment, "midi", segment.midi_path)
        return None if found is None else found[0]

    def each(self, segments: Sequence[Segment]) -> Iterator[SegmentMedia]:
        """All that segments have of the modalities that this was opened with.

        In the given order, which costs least if it is that of their rows.
        """
        for segment in segments:
            audio = self.audio(segment) if "audio" in self._cursors else None
            midi = self.midi(segment) if "midi" in self._cursors else None
            yield SegmentMedia(segment, audio, midi)

    def _check(self, modality: MediaModality) -> None:
        if modality not in self._cursors:
            msg = f"the media was opened for {', '.join(self._cursors)}: not for {modality}"
            raise ValueError(msg)

    def _rate(self, segment: Segment, row: Mapping[str, Any]) -> int | None:
        if row[_RATE] is not None:
            return int(row[_RATE])
        if file_kind(row[_WAVEFORM]) is None:  # a file tells its rate itself
            self.counts.note("missing_rate", segment, f"{_RATE} is null beside a waveform")
        return None

    def _file(
        self, segment: Segment, modality: MediaModality, path: str | None
    ) -> tuple[bytes, Source] | None:
        """What a path names, and where that was."""
        try:
            if path is None or not path.strip():
                detail = "neither the media file nor a path has it"
                raise _NoFile(f"no_{modality}", detail)  # noqa: TRY301 - as the others here
            if path.startswith("/"):
                found: tuple[bytes, Source] = self._on_disk(path), "disk"
            else:
                found = self._below(path)
            if not found[0]:
                raise _NoFile("empty_file", f"{path!r:.{_SHOWN}} has no bytes")  # noqa: TRY301
        except _NoFile as error:
            self.counts.note(error.kind, segment, error.detail)
            self.counts.sources[modality]["absent"] += 1
            return None
        self.counts.sources[modality][found[1]] += 1
        return found

    def _below(self, path: str) -> tuple[bytes, Source]:
        """A relative path's: of the store, else of the first folder that has it."""
        try:
            return self._in_store(path), "store"
        except _NoFile as nowhere:
            if nowhere.kind != "file_not_found":
                raise
            for folder in self._folders:
                try:
                    return self._on_disk(str(Path(folder, path))), "disk"
                except _NoFile as error:
                    if error.kind != "file_not_found":
                        raise
            raise

    def _in_store(self, path: str) -> bytes:
        nowhere = f"no object {path!r:.{_SHOWN}} below {self._layout.files()}"
        try:
            key = self._layout.file(path.removeprefix("./"))
            with _faults_of(path, nowhere):
                try:
                    return self._object(path, key)
                except ObjectChanged:  # written again between its size and its bytes
                    return self._object(path, key)
        except OutsideStore as error:
            raise _NoFile("refused_path", str(error)[:_SHOWN]) from None
        except EOFError:
            raise _NoFile("file_not_found", nowhere) from None
        except ObjectChanged:
            detail = f"{path!r:.{_SHOWN}} was written again while it was read, twice"
            raise _NoFile("unreadable_file", detail) from None

    def _object(self, path: str, key: str) -> bytes:
        head = self._store.head(key)
        _check_size(path, head.size)
        # Of the object whose size was looked at, whatever it is by now.
        return self._store.get_range(key, 0, head.size, head.mark) if head.size else b""

    def _on_disk(self, path: str) -> bytes:
        """A file of this machine, below one of the folders once all links are followed."""
        if "\0" in path or len(path) > _LONGEST_PATH:
            raise _NoFile("refused_path", f"{path!r:.{_SHOWN}} can't be a path")
        real = os.path.realpath(path)
        if not any(real.startswith(folder.rstrip("/") + "/") for folder in self._folders):
            there = ", ".join(self._folders) or "there are none"
            detail = f"{path!r:.{_SHOWN}} lies in none of the folders of the settings ({there})"
            raise _NoFile("refused_path", detail)
        with _faults_of(path, f"no file {path!r:.{_SHOWN}}"):
            # Neither a link that was put there since, nor a pipe that would wait for a writer.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
            descriptor = os.open(real, flags)
            try:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode):
                    raise _NoFile("refused_path", f"{path!r:.{_SHOWN}} is no regular file")
                _check_size(path, found.st_size)
                with open(descriptor, "rb", closefd=False) as file:
                    return file.read(found.st_size)
            finally:
                os.close(descriptor)


def media_rows(store: ObjectStore, layout: SongLayout) -> ParquetRows:
    """The media file as it is now; reading it later fails if it was written again.

    Raises:
        NoSegments: There is none.
        BadTable: It is no parquet file.
    """
    try:
        return ParquetRows.open(store, layout.media())
    except FileNotFoundError:
        msg = (
            f"the store {store.url} must hold the media of segments at {layout.media()}: it does "
            "not; put the parquet file there, or set the layout's key to where it is"
        )
        raise NoSegments(msg) from None


def open_media(
    store: ObjectStore,
    layout: SongLayout,
    columns: SegmentColumns = DEFAULT_COLUMNS,
    *,
    modalities: Sequence[MediaModality] = ("audio", "midi"),
    folders: Sequence[Path | str] = (),
    counts: MediaCounts | None = None,
    rows: ParquetRows | None = None,
) -> Media:
    """Open the media file by its footer.

    Args:
        store: Where it is.
        layout: Where there.
        columns: What it calls its columns.
        modalities: What is going to be asked for: columns of others are never read.
        folders: Of this machine, that absolute paths may lead into.
        counts: To be counted on; by default a fresh one.
        rows: The file, if it is open; see `media_rows`.

    Raises:
        NoSegments: There is no media file.
        BadTable: It is no parquet file, or lacks columns.
    """
    rows = rows or media_rows(store, layout)
    needed = (columns.segment_id, *(name for each in modalities for name in _COLUMNS[each]))
    lacking = [name for name in needed if name not in rows.schema.names]
    if lacking:
        msg = f"{layout.media()} lacks the column {', '.join(lacking)} of media"
        raise BadTable(msg)
    within = [Path(each) for each in folders]
    return Media(store, layout, rows, columns, modalities, within, counts or MediaCounts())


class _NoFile(Exception):  # noqa: N818 - why a path gives nothing
    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind)
        self.kind, self.detail = kind, detail


def _check_size(path: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        told = f"{path!r:.{_SHOWN}} has {size} bytes, of {MAX_FILE_BYTES} at most"
        raise _NoFile("file_too_large", told)


@contextmanager
def _faults_of(path: str, nowhere: str) -> Iterator[None]:
    """Tell a path that leads to no file from a machine that can't read one, which ends the run.

    Raises:
        _NoFile: The path is at fault; `nowhere` says so of one that is not there.
        OSError: The machine is, and another segment would meet the same.
    """
    try:
        yield
    except FileNotFoundError:
        raise _NoFile("file_not_found", nowhere) from None
    except OSError as error:
        if error.errno not in _FAULTS_OF_PATHS:
            error.add_note(f"while reading {path!r:.{_SHOWN}}; mend that, and run again")
            raise
        detail = f"{path!r:.{_SHOWN}}: {error.strerror or error}"
        raise _NoFile("unreadable_file", detail) from None
