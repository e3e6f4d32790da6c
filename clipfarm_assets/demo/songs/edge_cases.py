"""The hard cases among generated segments, and what must become of each.

`EDGE_CASES` drives the corpus, the tests and the table that the demo prints. Nothing is dropped in
silence: a row that is no segment, a file that can't be read and a path that leads elsewhere are all
reported with a word for it; a medium that can't be had is absent, like one that never was there,
and the segment's others are used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.demo.songs.files import midi_file, wav_file
from clipfarm_assets.demo.songs.lyrics import MOODS
from clipfarm_assets.demo.songs.plan import CHANNELS, PlannedSegment
from clipfarm_assets.demo.songs.rows import RATE, Made, Row, make, row_of
from clipfarm_assets.pipelines.songs.alignment_rule import AlignmentVerdict

ALBUM: Final = "Edge cases"
FOLDER: Final = "edge/"
"""Of the cases' files."""

_NO_TIMES: Final = dict.fromkeys(("midi_start", "midi_end"))


@dataclass(frozen=True, slots=True)
class Expected:
    """What must become of a case.

    Attributes:
        problems: Words for what must be reported about it, and nothing else.
        present: Modalities that it has in the end; None if it is no segment.
        verdict: On its audio and MIDI.
        with_song: Id of a segment in whose split it must be; empty for none.
    """

    problems: frozenset[str]
    present: tuple[Modality, ...] | None
    verdict: AlignmentVerdict | None
    with_song: str = ""


@dataclass(frozen=True, slots=True)
class EdgeCase:
    """One hard case.

    Attributes:
        name: One word for it.
        description: What is hard, for people.
        expected: What must become of it.
        rows: Its rows, from an ordinary one with everything and what that was made of.
    """

    name: str
    description: str
    expected: Expected
    rows: Callable[[Row, Made], tuple[Row, ...]]

    @property
    def segment_id(self) -> str:
        """The id in its rows."""
        return f"edge-{self.name.replace('_', '-')}"


def edge_rows(seed: int) -> Iterator[Row]:
    """The rows of all cases."""
    for place, case in enumerate(EDGE_CASES):
        made = make(_planned(case, place), seed)
        yield from case.rows(row_of(made, seed), made)


def _planned(case: EdgeCase, place: int) -> PlannedSegment:
    return PlannedSegment(
        id=case.segment_id,
        song=f"song-of-{case.segment_id}",
        album=ALBUM,
        number=0,
        label=place % len(MOODS),
        telling=frozenset(CHANNELS),
        pairing="aligned",
        case=case.name,
    )


def _but(**changes: Any) -> Callable[[Row, Made], tuple[Row, ...]]:
    """The ordinary row with other values."""
    return lambda row, _: (row.but(**changes),)


def _midi(make_midi: Callable[[bytes, Made], bytes]) -> Callable[[Row, Made], tuple[Row, ...]]:
    """The ordinary row with other MIDI."""
    return lambda row, made: (row.but(midi_binary=make_midi(row.values["midi_binary"], made)),)


def _audio(
    make_audio: Callable[[Made], bytes], rate: int | None = RATE
) -> Callable[[Row, Made], tuple[Row, ...]]:
    """The ordinary row with other audio."""

    def rows(row: Row, made: Made) -> tuple[Row, ...]:
        return (row.but(audio_waveform=make_audio(made), audio_sample_rate=rate),)

    return rows


def _raw(samples: Any) -> bytes:
    return np.asarray(samples, "<f4").tobytes()


def _with_nan(made: Made) -> bytes:
    heard = made.heard.copy()
    heard[100] = np.nan
    return _raw(heard)


def _no_media(**paths: str) -> Callable[[Row, Made], tuple[Row, ...]]:
    """The ordinary row with paths instead of some media: the modality of the path's field."""
    gone: dict[str, None] = {}
    if "audio_path" in paths:
        gone |= dict.fromkeys(("audio_waveform", "audio_sample_rate"))
    if "midi_path" in paths:
        gone |= dict.fromkeys(("midi_binary",))
    return _but(**gone, **paths)


def _from_files(row: Row, made: Made) -> tuple[Row, ...]:
    audio, midi = f"{FOLDER}from-files.wav", f"{FOLDER}from-files.mid"
    files = {audio: wav_file(made.heard, made.rate), midi: row.values["midi_binary"]}
    (row,) = _no_media(audio_path=audio, midi_path=midi)(row, made)
    return (row.but(files),)


def _twice(row: Row, _: Made) -> tuple[Row, ...]:
    return row, row.but(lyric_text="the second row of this id", text_embedding=None)


def _case(
    name: str,
    description: str,
    rows: Callable[[Row, Made], tuple[Row, ...]],
    *problems: str,
    lacks: tuple[Modality, ...] = (),
    is_segment: bool = True,
    verdict: AlignmentVerdict = "aligned",
    with_song: str = "",
) -> EdgeCase:
    present = tuple(m for m in MODALITIES if m not in lacks) if is_segment else None
    unpaired = present is None or not {"audio", "midi"} <= set(present)
    expected = Expected(
        frozenset(problems),
        present,
        None if present is None else "not_applicable" if unpaired else verdict,
        with_song,
    )
    return EdgeCase(name, description, expected, rows)


EDGE_CASES: Final[tuple[EdgeCase, ...]] = (
    # MIDI
    _case(
        "corrupt_midi",
        "a web page instead of MIDI",
        _midi(lambda _midi, _made: b"<!doctype html><title>404</title>"),
        "bad_midi",
        lacks=("midi",),
    ),
    _case(
        "truncated_midi",
        "MIDI cut off in the middle",
        _midi(lambda midi, _: midi[: len(midi) // 2]),
        "bad_midi",
        lacks=("midi",),
    ),
    _case(
        "smpte_midi",
        "MIDI that counts time in frames of a 25th of a second",
        _midi(lambda _, made: midi_file(made.notes, "smpte")),
    ),
    _case(
        "hanging_notes",
        "two notes that never end",
        _midi(lambda _, made: midi_file(made.notes, hanging=2)),
        "hanging_notes",
    ),
    _case(
        "midi_from_nowhere",
        "the metadata says that there is MIDI, and there is none",
        _but(midi_binary=None),
        "no_midi",
        lacks=("midi",),
    ),
    _case(
        "undeclared_midi",
        "MIDI that the metadata says is not there: not looked for",
        _but(has_midi=False),
        lacks=("midi",),
    ),
    # Audio
    _case("silent_audio", "six seconds of silence", _audio(lambda made: _raw(0 * made.heard))),
    _case(
        "nan_audio",
        "a sample that is no number",
        _audio(_with_nan),
        "bad_audio",
        lacks=("audio",),
    ),
    _case(
        "corrupt_audio",
        "a WAV header, and then nothing that it announces",
        _audio(lambda made: wav_file(made.heard, made.rate)[:20]),
        "bad_audio",
        lacks=("audio",),
    ),
    _case(
        "no_rate",
        "raw samples of nobody knows what rate",
        _audio(lambda made: _raw(made.heard), None),
        "missing_rate",
        "bad_audio",
        lacks=("audio",),
    ),
    _case(
        "short_audio",
        "two seconds: padded",
        _audio(lambda made: _raw(made.heard[: 2 * RATE])),
    ),
    _case(
        "long_audio",
        "twice as long: cut",
        _audio(lambda made: _raw(np.concatenate([made.heard, made.heard]))),
        "audio_cut",
    ),
    # Paths
    _case("from_files", "neither in the table: both by their paths", _from_files),
    _case(
        "missing_file",
        "a path to nothing",
        _no_media(audio_path=f"{FOLDER}missing.wav"),
        "file_not_found",
        lacks=("audio",),
    ),
    _case(
        "outside",
        "a path that leads out of the folder",
        _no_media(midi_path="../../secrets/song.mid"),
        "refused_path",
        lacks=("midi",),
    ),
    _case(
        "url",
        "an address instead of a path",
        _no_media(audio_path="https://example.org/song.wav"),
        "refused_path",
        lacks=("audio",),
    ),
    # Words
    _case(
        "blank_lyrics",
        "vocals, and lyrics of nothing but spaces",
        _but(lyric_text=" \n ", text_embedding=None),
        lacks=("text",),
    ),
    _case(
        "instrumental",
        "lyrics that nobody sings",
        _but(vocals=False),
        lacks=("text",),
    ),
    _case("no_label", "no label: in no example", _but(label=None), "missing_label"),
    # Rows
    _case("duplicate_id", "two rows of one id: the first counts", _twice, "duplicate_id"),
    _case("no_song", "a row without song", _but(song=None), "missing_song", is_segment=False),
    _case(
        "bad_time",
        "a MIDI time code with a 99th second",
        _but(midi_start_smpte="00:00:99:00", midi_end_smpte="00:02:00:00", **_NO_TIMES),
        "bad_timecode",
    ),
    _case(
        "backwards",
        "a segment that ends before it begins",
        _but(audio_start=12.0, audio_end=6.0),
        "bad_span",
    ),
    _case(
        "two_albums",
        "a song that is on two albums: in one split",
        _but(song="song-000"),
        with_song="song-000-00",
    ),
)
