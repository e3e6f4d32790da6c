"""The columns of the two files of song segments, and whether the files have and share them.

``training_segments_metadata.parquet`` has a row a segment and no binary column;
``training_segments_media.parquet`` has the same rows and columns and three more, `MEDIA_COLUMNS`.
What is in other columns is nobody's here, but has to be the same in both.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, Self, get_args

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_validator

from clipfarm_assets.contracts.checks import Finding, Verdict

Modality = Literal["text", "audio", "midi"]
MODALITIES: Final[tuple[Modality, ...]] = get_args(Modality)

MEDIA_COLUMNS: Final = ("audio_waveform", "audio_sample_rate", "midi_binary")

_MEDIA_TYPES: Final = {
    "audio_waveform": "binary",
    "audio_sample_rate": "int32",
    "midi_binary": "binary",
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME: Final = 256
_BLOCK: Final = 1024
_SHOWN: Final = 3


def check_name(name: str, what: str) -> str:
    """Return `name` if it can name a segment, a song or an album, or raise `ValueError`.

    Names are Unicode text of 1 to 256 characters, none of them a control character, that neither
    begins nor ends in a space.
    """
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= _LONGEST_NAME
        or name != name.strip()
        or _CONTROL.search(name)
        or not _is_unicode(name)
    ):
        msg = (
            f"bad {what} {name!r:.100}: expected text of 1 to {_LONGEST_NAME} characters that "
            "neither begins nor ends in a space"
        )
        raise ValueError(msg)
    return name


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class SegmentColumns(BaseModel):
    """What the columns are called.

    Attributes:
        segment_id: Names the segment; text or whole numbers, as are the next three.
        song: The song that it is of.
        album: The album that it is of: a partition.
        label: Its class.
        lyric_text: Its words; text.
        vocals: Whether somebody sings; boolean, as are the next two.
        has_audio: Whether the file says that there is audio.
        has_midi: Whether the file says that there is MIDI.
        audio_path: Where its audio is if not in `MEDIA_COLUMNS`; text.
        midi_path: Where its MIDI is, likewise.
        audio_start: Where its audio begins in the song, in seconds; a number, like the next three.
        audio_end: Where it ends.
        midi_start: Where in the song its MIDI begins.
        midi_end: Where it ends.
        start_smpte: `audio_start` as an SMPTE time code; text, as are the next three.
        end_smpte: `audio_end`, likewise.
        midi_start_smpte: `midi_start`, likewise.
        midi_end_smpte: `midi_end`, likewise.
        fps: Frames a second of the time codes; a number. 30 where there is none.
        lrc_start: `audio_start` as an LRC time; text.
        lrc_end: `audio_end`, likewise.
        offset: Seconds that the MIDI is late, as somebody measured it; a number.
        text_embedding: The words' embedding, computed earlier; a list of floats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment_id: str = "segment_id"
    song: str = "song_id"
    album: str = "album"
    label: str = "label"
    lyric_text: str = "lyric_text"
    vocals: str = "vocals"
    has_audio: str = "has_audio"
    has_midi: str = "has_midi"
    audio_path: str = "segment_audio_file"
    midi_path: str = "midi_file"
    audio_start: str = "start_seconds"
    audio_end: str = "end_seconds"
    midi_start: str = "midi_start_seconds"
    midi_end: str = "midi_end_seconds"
    start_smpte: str = "start_smpte"
    end_smpte: str = "end_smpte"
    midi_start_smpte: str = "midi_start_smpte"
    midi_end_smpte: str = "midi_end_smpte"
    fps: str = "smpte_fps"
    lrc_start: str = "lrc_start"
    lrc_end: str = "lrc_end"
    offset: str = "midi_offset_seconds"
    text_embedding: str = "text_embedding"

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [*self.model_dump().values(), *MEDIA_COLUMNS]
        repeated = sorted(name for name, n in Counter(names).items() if n > 1)
        if repeated or not all(names):
            found = f"{', '.join(repeated)} more than once" if repeated else "an empty one"
            msg = f"columns must have names, each another one, none of the media's: found {found}"
            raise ValueError(msg)
        return self

    def readable(self, schema: pa.Schema) -> list[str]:
        """Columns of `schema` that `segments_of` reads: all of these but the embeddings."""
        names = self.model_dump(exclude={"text_embedding"}).values()
        return [name for name in names if name in schema.names]


DEFAULT_COLUMNS: Final = SegmentColumns()

_KIND_OF: Final = {
    **dict.fromkeys(("segment_id", "song", "album", "label"), "text or whole numbers"),
    **dict.fromkeys(("lyric_text", "audio_path", "midi_path", "lrc_start", "lrc_end"), "text"),
    **dict.fromkeys(("start_smpte", "end_smpte", "midi_start_smpte", "midi_end_smpte"), "text"),
    **dict.fromkeys(("vocals", "has_audio", "has_midi"), "booleans"),
    **dict.fromkeys(("audio_start", "audio_end", "midi_start", "midi_end"), "numbers"),
    **dict.fromkeys(("fps", "offset"), "numbers"),
    "text_embedding": "lists of floats",
}
_REQUIRED: Final = (
    "segment_id", "song", "album", "label", "lyric_text", "vocals", "has_audio", "has_midi",
)  # fmt: skip


def check_metadata(schema: pa.Schema, columns: SegmentColumns = DEFAULT_COLUMNS) -> Verdict:
    """The metadata has the columns that every segment needs, the others' types fit, none is binary.

    A column that is nothing but nulls may be of the type ``null``.
    """
    findings = _repeated(schema)
    names = columns.model_dump()
    for field, kind in _KIND_OF.items():
        name = names[field]
        if name not in schema.names:
            if field in _REQUIRED:
                findings.append(Finding(name, f"expected a column of {kind}, found none"))
        elif not _fits(_first(schema, name), kind):
            problem = f"expected {kind}, found the type {_first(schema, name)}"
            findings.append(Finding(name, problem))
    binary = [name for name in schema.names if _plain(_first(schema, name)) == "binary"]
    findings += [
        Finding(name, "is binary: such columns belong in the media alone") for name in binary
    ]
    return Verdict(tuple(findings), len(schema))


def check_media(
    schema: pa.Schema, metadata_schema: pa.Schema, columns: SegmentColumns = DEFAULT_COLUMNS
) -> Verdict:
    """The media has the metadata's columns in any order, of the same types, and `MEDIA_COLUMNS`.

    Types of texts, lists and bytes that differ in the width of their offsets alone are the same.
    """
    findings = _repeated(schema)
    if columns.segment_id not in schema.names:
        findings.append(Finding(columns.segment_id, "expected the column of ids, found none"))
    for name in dict.fromkeys(metadata_schema.names):
        expected = _plain(_first(metadata_schema, name))
        if name in schema.names and _plain(_first(schema, name)) != expected:
            found = _plain(_first(schema, name))
            findings.append(Finding(name, f"is {expected} in the metadata, found {found}"))
        elif name not in schema.names and name != columns.segment_id:
            findings.append(Finding(name, "is a column of the metadata, found none in the media"))
    for name, expected in _MEDIA_TYPES.items():
        if name not in schema.names:
            findings.append(Finding(name, f"expected a column of type {expected}, found none"))
        elif _plain(_first(schema, name)) not in (expected, "null"):
            found = _plain(_first(schema, name))
            findings.append(Finding(name, f"expected the type {expected}, found {found}"))
    strays = dict.fromkeys(n for n in schema.names if n not in metadata_schema.names)
    findings += [
        Finding(name, "is no column of the metadata")
        for name in strays
        if name not in MEDIA_COLUMNS
    ]
    return Verdict(tuple(findings), len(schema))


def rows_agree(
    metadata: pa.Table, media_keys: pa.Table, columns: SegmentColumns = DEFAULT_COLUMNS
) -> Verdict:
    """The media has the metadata's rows in their order, with the same values.

    Args:
        metadata: Columns of the metadata; all of them for the promise in full.
        media_keys: The same columns of the media; more are not looked at.
        columns: Which one names a segment.

    Returns:
        A finding for every column that is not the same, with the first rows that differ; if the
        number of rows or the ids differ, only that is said, for nothing else could agree then.
    """
    if len(metadata) != len(media_keys):
        return other_number_of_rows(len(metadata), len(media_keys), metadata.num_columns)
    names, there = metadata.column_names, media_keys.column_names
    return blocks_agree([(metadata, media_keys)], names, there, columns)


def other_number_of_rows(metadata: int, media: int, columns: int) -> Verdict:
    """What `rows_agree` says of files of so many rows."""
    problem = f"the metadata has {metadata} rows, the media {media}"
    facts = {"rows": metadata, "columns": columns}
    return Verdict((Finding("rows", problem),), metadata, facts)


def blocks_agree(
    blocks: Iterable[tuple[pa.Table, pa.Table]],
    names: Sequence[str],
    there: Sequence[str],
    columns: SegmentColumns = DEFAULT_COLUMNS,
) -> Verdict:
    """As `rows_agree`, of files that are read block by block.

    Args:
        blocks: Rows of the metadata and the same rows of the media, as many, in the files' order.
        names: Columns of the metadata.
        there: Columns of the media's blocks; more than those are not looked at.
        columns: Which one names a segment.
    """
    names = [columns.segment_id, *(name for name in names if name != columns.segment_id)]
    total, differing = 0, Counter[str]()
    first: dict[str, list[str]] = {name: [] for name in names}
    for metadata, media in blocks:
        ids = metadata[columns.segment_id]
        for name in names:
            if name not in there:
                continue
            for row in _differing(metadata[name], media[name]):
                differing[name] += 1
                if len(first[name]) < _SHOWN:
                    first[name].append(f"row {total + row} ({ids[row].as_py()})")
        total += len(metadata)
    findings: list[Finding] = []
    for name in names:
        if name not in there:
            findings.append(Finding(name, "is a column of the metadata, found none in the media"))
        elif differing[name]:
            some = ", ".join(first[name])
            findings.append(Finding(name, f"differs in {differing[name]} rows, first {some}"))
            if name == columns.segment_id:
                break
    return Verdict(tuple(findings), total, {"rows": total, "columns": len(names)})


def _differing(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Iterator[int]:
    """Rows that are not the same. NaN is the same as NaN, null as null and as nothing else."""
    for start in range(0, len(left), _BLOCK):
        a, b = left.slice(start, _BLOCK), right.slice(start, _BLOCK)
        if a.type == b.type and a.equals(b):
            continue
        pairs = zip(a.to_pylist(), b.to_pylist(), strict=True)
        yield from (start + n for n, (x, y) in enumerate(pairs) if not _same(x, y))


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, float) and isinstance(y, float):
        return x == y or (math.isnan(x) and math.isnan(y))
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(map(_same, x, y))
    return type(x) is type(y) and bool(x == y)


def _repeated(schema: pa.Schema) -> list[Finding]:
    counts = Counter(schema.names)
    return [Finding(name, f"is there {n} times") for name, n in counts.items() if n > 1]


def _first(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of the first column of this name: a schema may have several."""
    return schema.types[schema.names.index(name)]


def _plain(kind: pa.DataType) -> str:
    """A type's name, whatever the width of its offsets and whether it is kept as a dictionary."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_plain(kind.value_type)}"
    if pa.types.is_fixed_size_list(kind):
        return f"list of {kind.list_size} {_plain(kind.value_type)}"
    if pa.types.is_fixed_size_binary(kind):
        return "binary"
    return str(kind).removeprefix("large_").removesuffix("_view")


def _fits(kind: pa.DataType, expected: str) -> bool:
    if pa.types.is_dictionary(kind):
        return _fits(kind.value_type, expected)
    name = _plain(kind)
    if name == "null":
        return True
    is_integer, is_float = bool(pa.types.is_integer(kind)), bool(pa.types.is_floating(kind))
    if expected == "lists of floats":
        return name.startswith("list of ") and bool(pa.types.is_floating(kind.value_type))
    return {
        "text": name == "string",
        "text or whole numbers": name == "string" or is_integer,
        "booleans": name == "bool",
        "numbers": is_integer or is_float,
    }[expected]
