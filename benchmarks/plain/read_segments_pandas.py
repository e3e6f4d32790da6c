"""Reading song segments the plain way: both files whole by pandas, and a loop over the rows."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd


def read_segments(
    metadata: Path, media: Path, album: str | None = None
) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    """Id, audio and MIDI of every segment that says it has them, of all albums or of one."""
    rows = pd.read_parquet(metadata)
    blobs = pd.read_parquet(media)[["segment_id", "audio_waveform", "midi_binary"]]
    both = rows.merge(blobs, on="segment_id", validate="one_to_one")
    if album is not None:
        both = both[both["album"] == album]
    for row in both.itertuples(index=False):
        audio = row.audio_waveform if row.has_audio else None
        midi = row.midi_binary if row.has_midi else None
        yield row.segment_id, audio, midi
