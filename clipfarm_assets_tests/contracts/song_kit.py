"""Segments of songs for tests."""

import pyarrow as pa

from clipfarm_assets.contracts.song_segments import Segment

SCHEMA = pa.schema(
    [
        ("segment_id", pa.string()),
        ("song_id", pa.string()),
        ("album", pa.string()),
        ("label", pa.string()),
        ("lyric_text", pa.string()),
        ("vocals", pa.bool_()),
        ("has_audio", pa.bool_()),
        ("has_midi", pa.bool_()),
        ("segment_audio_file", pa.string()),
        ("midi_file", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("midi_start_seconds", pa.float64()),
        ("midi_end_seconds", pa.float64()),
        ("start_smpte", pa.string()),
        ("end_smpte", pa.string()),
        ("midi_start_smpte", pa.string()),
        ("midi_end_smpte", pa.string()),
        ("smpte_fps", pa.float64()),
        ("lrc_start", pa.string()),
        ("lrc_end", pa.string()),
        ("midi_offset_seconds", pa.float64()),
        ("tempo", pa.float32()),
    ]
)
"""Columns of segments, and one that is nobody's."""

MEDIA_FIELDS = (
    pa.field("audio_waveform", pa.binary()),
    pa.field("audio_sample_rate", pa.int32()),
    pa.field("midi_binary", pa.binary()),
)


def row(segment_id="a", **changes):
    """A row of the metadata, by column; those that are not given are null."""
    usual = {
        "segment_id": segment_id,
        "song_id": f"song of {segment_id}",
        "album": "Blue",
        "label": "calm",
        "lyric_text": "la la",
        "vocals": True,
        "has_audio": True,
        "has_midi": True,
    }
    return {**usual, **changes}


def table(*rows, schema=SCHEMA):
    """The metadata."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def segment(segment_id, *, song=None, album="Blue", label="calm", **changes):
    """A segment of a song of its own but for what is given."""
    usual = {
        "lyric_text": "la la",
        "vocals": True,
        "has_audio": True,
        "has_midi": True,
        "audio_path": None,
        "midi_path": None,
        "audio_span": None,
        "midi_span": None,
        "offset": None,
        "row": 0,
    }
    song = f"song of {segment_id}" if song is None else song
    return Segment(id=segment_id, song=song, album=album, label=label, **{**usual, **changes})
