"""A generated segment as a row of both tables, with the files it names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.demo.songs.files import midi_file, synthesise, wav_file
from clipfarm_assets.demo.songs.lyrics import embedding, lyrics
from clipfarm_assets.demo.songs.music import Note, compose, later
from clipfarm_assets.demo.songs.plan import SECONDS, PlannedSegment

RATE: Final = 8000
"""Samples a second of most audio."""
OTHER_RATE: Final = 11_025
"""Of an album's."""
FPS: Final = 25.0

_OF_A_SEGMENT: Final = 2
"""Tells the random streams of segments from that of the plan."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        values: Field of `SegmentColumns`, or media column, -> value; what is left out is null.
        files: Path, as the row has it -> bytes.
    """

    values: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def but(self, files: Mapping[str, bytes] | None = None, **changes: Any) -> "Row":
        """The row with other values, and other files if any are given."""
        return Row({**self.values, **changes}, self.files if files is None else files)


@dataclass(frozen=True)
class Made:
    """What a segment is made of, before it becomes a row.

    Attributes:
        segment: The plan for it.
        notes: What is played.
        heard: Its audio ``(samples,)`` at `rate`.
        rate: Samples a second.
        words: Its lyrics.
    """

    segment: PlannedSegment
    notes: list[Note]
    heard: NDArray[np.float32]
    rate: int
    words: str


def stream_of(segment_id: str, seed: int) -> np.random.Generator:
    """A segment's own randomness: leaving one out changes no other."""
    name = int.from_bytes(segment_id.encode(), "big")
    return np.random.default_rng(np.random.SeedSequence([seed, _OF_A_SEGMENT, name]))


def make(segment: PlannedSegment, seed: int, rate: int | None = None) -> Made:
    """Compose, play and word a segment.

    Args:
        segment: The plan for it.
        seed: Of the corpus.
        rate: Samples a second; by default as its album has it.
    """
    rng = stream_of(segment.id, seed)
    notes = compose(segment.cue("harmony"), segment.cue("rhythm"), SECONDS, rng)
    words = lyrics(segment.cue("words"), rng)
    own = OTHER_RATE if segment.album == "Green Season" else RATE
    rate = own if rate is None else rate
    heard = synthesise(notes, SECONDS, rate, rng)
    return Made(segment, notes, heard, rate, words)


def midi_of(made: Made, seed: int) -> bytes:
    """The segment's MIDI file, as far in step with its audio as is planned."""
    segment = made.segment
    notes = made.notes
    match segment.pairing:
        case "late_told" | "late_untold":
            notes = later(notes, segment.offset, SECONDS)
        case "cut_late":
            notes = later(notes, -segment.offset, SECONDS)
        case "unrelated":
            notes = compose(None, None, SECONDS, stream_of(f"other than {segment.id}", seed))
    return midi_file(notes)


def row_of(made: Made, seed: int) -> Row:
    """The segment's row, with media where its album has them."""
    segment = made.segment
    values: dict[str, Any] = {
        "segment_id": segment.id,
        "song": segment.song,
        "album": segment.album,
        "label": segment.mood,
        "vocals": segment.vocals,
        "has_audio": segment.has_audio,
        "has_midi": segment.has_midi,
        "lyric_text": made.words if segment.vocals else "",
        "text_embedding": embedding(made.words) if segment.vocals else None,
        "offset": segment.offset if segment.pairing == "late_told" else None,
        **_spans(segment),
    }
    audio = _audio_of(made) if segment.has_audio else None
    midi = midi_of(made, seed) if segment.has_midi else None
    if segment.album != "Rote Straßen":
        values |= {"audio_waveform": audio, "midi_binary": midi}
        values["audio_sample_rate"] = None if audio is None else made.rate
        return Row(values)
    files = {}
    for name, data, ending in (("audio_path", audio, "wav"), ("midi_path", midi, "mid")):
        if data is not None:
            values[name] = f"rote-strassen/{segment.song}/{segment.id}.{ending}"
            files[values[name]] = data
    return Row(values, files)


def _audio_of(made: Made) -> bytes:
    if made.segment.album in {"Green Season", "Rote Straßen"}:
        return wav_file(made.heard, made.rate)
    return made.heard.astype("<f4").tobytes()


def _spans(segment: PlannedSegment) -> dict[str, Any]:
    """Where audio and MIDI are in the song, in the way of the album."""
    moved = segment.offset if segment.pairing == "cut_late" else 0.0
    audio = (segment.start, segment.start + SECONDS)
    midi = (audio[0] + moved, audio[1] + moved)
    if segment.album == "Green Season":
        spans: dict[str, Any] = {"fps": FPS}
        if segment.has_audio:
            spans |= {"start_smpte": smpte(audio[0]), "end_smpte": smpte(audio[1])}
        if segment.has_midi:
            spans |= {"midi_start_smpte": smpte(midi[0]), "midi_end_smpte": smpte(midi[1])}
        return spans
    spans = {"midi_start": midi[0], "midi_end": midi[1]} if segment.has_midi else {}
    if segment.has_audio and segment.album == "Rote Straßen":
        spans |= {"lrc_start": lrc(audio[0]), "lrc_end": lrc(audio[1])}
    elif segment.has_audio:
        spans |= {"audio_start": audio[0], "audio_end": audio[1]}
    return spans


def smpte(seconds: float) -> str:
    """A time code at `FPS`, an hour in, as tapes begin."""
    frames = round((3600 + seconds) * FPS)
    whole, frame = divmod(frames, round(FPS))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:02d}"


def lrc(seconds: float) -> str:
    """An LRC time tag."""
    hundredths = round(seconds * 100)
    return f"[{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}]"
